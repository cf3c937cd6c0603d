//! A step that makes a layer: cache, lock, snapshot, capture, history.

use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use dhow_layer::{Capture, Layer};
use dhow_snapshot::Active;
use dhow_types::{DiffId, Digest, ErrorKind};

use crate::cache::{self, Making, Outcome};
use crate::failure::{Context as _, Error, Halt};
use crate::schedule::{Build, lock};
use crate::stage::Stage;
use crate::step::{Event, StepResult};
use crate::why::Collect;

/// What a layer-making step needs to be known by.
pub(crate) struct LayerStep<'s> {
    /// Key without any look at trees.
    pub(crate) definition: Digest,
    /// Key by the contents of trees.
    pub(crate) content: &'s dyn Fn() -> Result<Digest, Halt>,
    /// The definition key once more, after the work: the person may have changed a file of the context meanwhile.
    pub(crate) again: &'s dyn Fn() -> Result<Digest, Halt>,
    /// What it is made of, for people.
    pub(crate) inputs: Collect<'s>,
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
        let frame = snapshots.withdraw(&key).context(|| "remove a step's snapshot");
        let layer = layer?;
        if let Some(frame) = frame? {
            self.build.frames.delete(frame);
        }
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
        let uncached = self.is_uncached();
        if !uncached {
            if let Some(outcome) = cache::find(build.store, &step.definition)? {
                if build.tells_results() {
                    self.tell(&[step.definition, (step.content)()?], &outcome);
                }
                return Ok(self.hit(number, outcome, step));
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
                self.tell(&[step.definition, key], &outcome);
                return Ok(self.hit(number, outcome, step));
            }
        }
        let _making = Making::wait(build.store.root(), &step.definition, &build.request.cancel)?;
        if !uncached && let Some(outcome) = cache::find(build.store, &step.definition)? {
            self.tell(&[step.definition], &outcome);
            return Ok(self.hit(number, outcome, step));
        }
        if !uncached && let Some(outcome) = self.made_elsewhere(&step.definition, content)? {
            return Ok(self.hit(number, outcome, step));
        }
        let why = self.why(&step.definition, step.inputs);
        build.observer.observe(Event::Missed {
            step: number,
            why: &why,
        });
        let permit = build.permit();
        build.check()?;
        let start = Instant::now();
        let layer = make()?;
        let took = start.elapsed();
        drop(permit);
        let outcome = Outcome {
            layer: layer.diff_id(),
            created: self.timestamp()?,
            step: self.current.clone(),
        };
        if build.request.aside {
            return Ok(outcome);
        }
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
        self.tell(&keys, &outcome);
        self.keep_inputs(&step.definition, step.inputs);
        Ok(outcome)
    }

    /// The result of the step that another build had, written down as our own.
    fn made_elsewhere(&self, definition: &Digest, content: Option<Digest>) -> Result<Option<Outcome>, Halt> {
        let build = self.build;
        let keys: Vec<Digest> = std::iter::once(*definition).chain(content).collect();
        let Some(found) = build.images.made_elsewhere(&keys)? else {
            return Ok(None);
        };
        let layer = build
            .store
            .layers
            .layer(&found.layer)
            .context(|| "open a layer")?;
        let outcome = Outcome {
            layer: found.layer,
            created: found.created,
            step: self.current.clone(),
        };
        let took = std::time::Duration::ZERO;
        cache::record(build.store, &keys, &outcome, cache::cost(&layer), took)?;
        self.tell(&keys, &outcome);
        Ok(Some(outcome))
    }

    /// Keeps what is to be told of the step.
    fn tell(&self, keys: &[Digest], outcome: &Outcome) {
        if !self.build.tells_results() {
            return;
        }
        lock(&self.build.results).push(StepResult {
            keys: keys.to_vec(),
            layer: outcome.layer,
            created: outcome.created.clone(),
            step: outcome.step.clone(),
        });
    }

    fn hit(&self, number: u32, outcome: Outcome, step: &LayerStep<'_>) -> Outcome {
        self.keep_inputs(&step.definition, step.inputs);
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
