//! A step that makes a layer: cache, lock, snapshot, capture, history.

use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use dhow_layer::{Capture, Layer};
use dhow_snapshot::Active;
use dhow_types::{DiffId, Digest, ErrorKind};

use crate::cache::{self, Making, Outcome};
use crate::failure::{Context as _, Error, Halt};
use crate::schedule::Build;
use crate::stage::Stage;
use crate::step::Event;

/// What a layer-making step needs to be known by.
pub(crate) struct LayerStep<'s> {
    /// Key without any look at trees.
    pub(crate) definition: Digest,
    /// Key by the contents of trees.
    pub(crate) content: &'s dyn Fn() -> Result<Digest, Halt>,
    /// The definition key once more, after the work: the person may have changed a file of the context meanwhile.
    pub(crate) again: &'s dyn Fn() -> Result<Digest, Halt>,
}

/// A snapshot of a step, removed when dropped unless it was captured.
#[derive(Debug)]
pub(crate) struct Scratch<'a> {
    build: &'a Build<'a>,
    active: Option<Active>,
}

impl std::fmt::Debug for Build<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Build").finish_non_exhaustive()
    }
}

impl<'a> Scratch<'a> {
    /// A writable snapshot over a stack.
    pub(crate) fn prepare(build: &'a Build<'_>, stack: &[DiffId]) -> Result<Self, Error> {
        let key = build.key();
        let active = build
            .store
            .snapshots
            .prepare(&key, stack)
            .context(|| "prepare the snapshot of a step")?
            // A step that is lost with the power is run again.
            .volatile();
        Ok(Self {
            build,
            active: Some(active),
        })
    }

    pub(crate) fn active(&self) -> Result<&Active, Error> {
        self.active
            .as_ref()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the snapshot of a step is gone"))
    }

    /// Makes the layer.
    pub(crate) fn capture(mut self) -> Result<Layer, Error> {
        let missing = || Error::new(ErrorKind::Internal, "the snapshot of a step is gone");
        let active = self.active.take().ok_or_else(missing)?;
        let key = active.key().to_owned();
        let how = Capture {
            clamp: self.build.plan.epoch,
            ..Capture::default()
        };
        let snapshots = &self.build.store.snapshots;
        let layer = snapshots
            .capture(active, &how)
            .context(|| "make a layer of a step's changes");
        // What is left is the snapshot's empty frame; a failed capture leaves its changes to be removed as well.
        let removed = snapshots.remove(&key).context(|| "remove a step's snapshot");
        let layer = layer?;
        removed?;
        Ok(layer)
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if let Some(active) = &self.active {
            // What cannot be removed now carries the pid of this process and is swept later.
            drop(self.build.store.snapshots.remove(active.key()));
        }
    }
}

impl Stage<'_, '_> {
    /// Takes the layer from the cache, or makes it.
    pub(crate) fn layer(
        &self,
        number: u32,
        step: &LayerStep<'_>,
        make: impl FnOnce() -> Result<Layer, Halt>,
    ) -> Result<Outcome, Halt> {
        let build = self.build;
        build.steps.fetch_add(1, Ordering::Relaxed);
        let mut content = None;
        if !build.request.no_cache {
            if let Some(outcome) = cache::find(build.store, &step.definition)? {
                return Ok(self.hit(number, outcome));
            }
            let key = (step.content)()?;
            content = Some(key);
            if let Some(outcome) = cache::find(build.store, &key)? {
                let layer = build
                    .store
                    .layers
                    .layer(&outcome.layer)
                    .context(|| "open a layer")?;
                let took = std::time::Duration::ZERO;
                cache::record(
                    build.store,
                    &[step.definition],
                    &outcome,
                    cache::cost(&layer),
                    took,
                )?;
                return Ok(self.hit(number, outcome));
            }
        }
        let _making = Making::wait(build.store.root(), &step.definition, &build.request.cancel)?;
        if !build.request.no_cache
            && let Some(outcome) = cache::find(build.store, &step.definition)?
        {
            return Ok(self.hit(number, outcome));
        }
        let permit = build.permit();
        build.check()?;
        let start = Instant::now();
        let layer = make()?;
        let took = start.elapsed();
        drop(permit);
        let outcome = Outcome {
            layer: layer.diff_id(),
            created: self.timestamp()?,
        };
        if (step.again)()? != step.definition {
            let message = "the build context changed while it was used; the step is not cached";
            build.warn(message, build.file.stages[self.index].at);
            return Ok(outcome);
        }
        let content = match content {
            Some(content) => content,
            None => (step.content)()?,
        };
        let keys = [step.definition, content];
        cache::record(build.store, &keys, &outcome, cache::cost(&layer), took)?;
        Ok(outcome)
    }

    fn hit(&self, number: u32, outcome: Outcome) -> Outcome {
        self.build.cached.fetch_add(1, Ordering::Relaxed);
        self.build.observer.observe(Event::Cached { step: number });
        outcome
    }

    /// Now, or `SOURCE_DATE_EPOCH`.
    fn timestamp(&self) -> Result<String, Error> {
        let text = match self.build.plan.epoch {
            Some(seconds) => jiff::Timestamp::from_second(seconds),
            None => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                jiff::Timestamp::from_nanosecond(i128::try_from(now.as_nanos()).unwrap_or(0))
            }
        };
        text.map(|time| time.to_string())
            .map_err(|error| Error::because(ErrorKind::Internal, "write a time", error))
    }
}
