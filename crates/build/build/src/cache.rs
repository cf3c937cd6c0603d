//! Looking results up, and making each only once.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dhow_image::Store;
use dhow_layer::Layer;
use dhow_meta::CacheRecord;
use dhow_types::{DiffId, Digest, ErrorKind};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::failure::{Context as _, Error};

/// How long one waits for another process between two looks at its lock.
const PATIENCE: Duration = Duration::from_millis(10);

/// What a step gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) layer: DiffId,
    /// When it was made, RFC 3339: the same for everyone who takes it from the cache.
    pub(crate) created: String,
    /// The name of the step, for people.
    #[serde(default)]
    pub(crate) step: String,
}

/// The name of the step that a record of the cache is of; empty for one of an older version.
#[must_use]
pub fn step_of(record: &CacheRecord) -> String {
    let outcome: Option<Outcome> = serde_json::from_slice(&record.value).ok();
    outcome.map(|outcome| outcome.step).unwrap_or_default()
}

/// The outcome recorded under a key, when its layer is there.
pub(crate) fn find(store: &Store, key: &Digest) -> Result<Option<Outcome>, Error> {
    let Some(record) = store.meta.cache(key).context(|| "look into the build cache")? else {
        return Ok(None);
    };
    // A record that cannot be read is one of another version.
    let outcome: Option<Outcome> = serde_json::from_slice(&record.value).ok();
    Ok(outcome.filter(|outcome| store.layers.contains(&outcome.layer)))
}

/// Records an outcome under its keys.
pub(crate) fn record(
    store: &Store,
    keys: &[Digest],
    outcome: &Outcome,
    bytes: u64,
    took: Duration,
) -> Result<(), Error> {
    let value = serde_json::to_vec(outcome)
        .map_err(|error| Error::because(ErrorKind::Internal, "write a cache record", error))?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX));
    let written: Result<(), dhow_meta::Error> = store.meta.edit(|edit| {
        for key in keys {
            edit.put_cache(&CacheRecord {
                key: *key,
                value: value.clone(),
                layers: vec![outcome.layer],
                bytes,
                seconds: took.as_secs_f64(),
                created: now,
                used: now,
            })?;
        }
        Ok(())
    });
    written.context(|| "write into the build cache")
}

/// Bytes that a layer costs.
pub(crate) fn cost(layer: &Layer) -> u64 {
    layer.disk()
}

/// Held while a result is made; the kernel frees it when the process ends.
#[derive(Debug)]
pub(crate) struct Making {
    _file: File,
}

impl Making {
    /// Waits until no other process (and no other thread of this one) makes the result of `key`. Keys share 4096
    /// locks, so two different results wait for each other now and then; nobody ever holds two.
    pub(crate) fn wait(root: &Path, key: &Digest, cancel: &AtomicBool) -> Result<Self, Error> {
        let path = root.join("locks").join(format!("build-{}", &key.hex()[..3]));
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .context(|| format!("open {}", path.display()))?;
        lock(&file, FlockOperation::NonBlockingLockExclusive, cancel)
            .context(|| format!("lock {}", path.display()))?;
        Ok(Self { _file: file })
    }
}

/// Takes a lock of the non-blocking kind given, waiting for it, but not beyond a cancel.
pub(crate) fn lock(file: &File, how: FlockOperation, cancel: &AtomicBool) -> Result<(), Error> {
    loop {
        match flock(file, how) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(errno) => return Err(Error::wrap(std::io::Error::from(errno), "lock a file")),
        }
        if cancel.load(Ordering::Relaxed) {
            return Err(cancelled());
        }
        std::thread::sleep(PATIENCE);
    }
}

/// The error of a build that was stopped.
pub(crate) fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the build was cancelled")
}
