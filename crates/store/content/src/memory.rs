use std::collections::BTreeMap;
use std::io::{self, Cursor};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dhow_types::{Digest, ErrorKind};

use crate::ingest::Sink;
use crate::{ContentStore, Error, Ingest, VerifiedReader};

type Blobs = BTreeMap<Digest, Arc<[u8]>>;

/// Blobs in memory: for tests, and for builds that must leave nothing.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Blobs>>);

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn blobs(&self) -> MutexGuard<'_, Blobs> {
        // A panic elsewhere cannot leave the map half-changed: each change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Buffer {
    bytes: Vec<u8>,
    store: Memory,
}

impl Sink for Buffer {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn publish(self: Box<Self>, digest: &Digest) -> Result<(), Error> {
        self.store.blobs().insert(*digest, self.bytes.into());
        Ok(())
    }
}

fn missing(digest: &Digest) -> Error {
    Error::new(ErrorKind::NotFound, format!("no blob {digest}"))
}

impl ContentStore for Memory {
    fn open(&self, digest: &Digest) -> Result<VerifiedReader, Error> {
        let bytes = self.blobs().get(digest).cloned().ok_or_else(|| missing(digest))?;
        let size = bytes.len() as u64;
        Ok(VerifiedReader::new(Box::new(Cursor::new(bytes)), *digest, size))
    }

    fn begin(&self) -> Result<Ingest, Error> {
        Ok(Ingest::new(Box::new(Buffer {
            bytes: Vec::new(),
            store: self.clone(),
        })))
    }

    fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        Ok(self.blobs().get(digest).map(|bytes| bytes.len() as u64))
    }

    fn remove(&self, digest: &Digest) -> Result<(), Error> {
        self.blobs()
            .remove(digest)
            .map(drop)
            .ok_or_else(|| missing(digest))
    }

    fn list(&self) -> Result<Vec<Digest>, Error> {
        Ok(self.blobs().keys().copied().collect())
    }
}
