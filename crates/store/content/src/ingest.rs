use std::fmt;
use std::io::{self, Write};

use dhow_types::{Digest, ErrorKind, Hasher};

use crate::Error;

/// Where the bytes of an ingest go.
pub(crate) trait Sink: Send {
    /// Adds bytes.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes the blob visible under its digest. Dropped without this, it is gone.
    fn publish(self: Box<Self>, digest: &Digest) -> Result<(), Error>;
}

/// A blob in the making: after [`Ingest::commit`] it is stored, after anything else it is gone.
pub struct Ingest {
    sink: Box<dyn Sink>,
    hasher: Hasher,
    size: u64,
}

impl fmt::Debug for Ingest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingest")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Ingest {
    pub(crate) fn new(sink: Box<dyn Sink>) -> Self {
        Self {
            sink,
            hasher: Hasher::new(),
            size: 0,
        }
    }

    /// Bytes written so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Stores the blob, if it has the expected digest.
    ///
    /// # Errors
    /// `DataLoss` when its digest is another; failures of the place.
    pub fn commit(self, expected: Option<&Digest>) -> Result<Digest, Error> {
        let digest = self.hasher.finish();
        if let Some(expected) = expected
            && *expected != digest
        {
            let message = format!("blob {expected} was promised, but its bytes are {digest}");
            return Err(Error::new(ErrorKind::DataLoss, message));
        }
        self.sink.publish(&digest)?;
        Ok(digest)
    }
}

impl Write for Ingest {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.sink.write_all(buf)?;
        self.hasher.update(buf);
        self.size += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
