use std::fmt;
use std::io::{self, Read};

use dhow_types::{Digest, ErrorKind, Hasher};

use crate::{Context, Error};

/// Reads a blob and checks it: the end of the stream is reported only when length and hash are right, otherwise the
/// last read fails with `InvalidData`.
pub struct VerifiedReader {
    input: Box<dyn Read + Send>,
    digest: Digest,
    size: u64,
    left: u64,
    /// Taken when the end was checked.
    hasher: Option<Hasher>,
}

impl fmt::Debug for VerifiedReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedReader")
            .field("digest", &self.digest)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl VerifiedReader {
    pub(crate) fn new(input: Box<dyn Read + Send>, digest: Digest, size: u64) -> Self {
        Self {
            input,
            digest,
            size,
            left: size,
            hasher: Some(Hasher::new()),
        }
    }

    /// The digest that is checked.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Bytes of the whole blob.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The rest of the blob, of at most `max` bytes in all.
    ///
    /// # Errors
    /// `ResourceExhausted` when the blob is larger; `DataLoss` when it is damaged.
    pub fn into_bytes(mut self, max: u64) -> Result<Vec<u8>, Error> {
        if self.size > max {
            let message = format!(
                "blob {} has {} bytes, more than the {max} allowed here",
                self.digest, self.size
            );
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(self.left).unwrap_or(0));
        let digest = self.digest;
        self.read_to_end(&mut bytes)
            .context(|| format!("read blob {digest}"))?;
        Ok(bytes)
    }

    fn check_end(&mut self) -> io::Result<()> {
        let Some(hasher) = self.hasher.take() else {
            return Ok(());
        };
        if hasher.finish() == self.digest {
            return Ok(());
        }
        Err(self.damaged("its hash is another"))
    }

    fn damaged(&self, why: &str) -> io::Error {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("stored blob {} is damaged: {why}", self.digest),
        )
    }
}

impl Read for VerifiedReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            self.check_end()?;
            return Ok(0);
        }
        let room = usize::try_from(self.left).map_or(buf.len(), |left| left.min(buf.len()));
        let count = self.input.read(&mut buf[..room])?;
        if count == 0 {
            return Err(self.damaged("it is too short"));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buf[..count]);
        }
        self.left -= count as u64;
        if self.left == 0 {
            // Checked with the last bytes, so that a caller who knows the length and stops there is safe as well.
            self.check_end()?;
        }
        Ok(count)
    }
}
