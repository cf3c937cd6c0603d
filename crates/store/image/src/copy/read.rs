//! Readers that do not trust what they read.

use std::io::{self, Read};

use dhow_oci::Descriptor;
use dhow_types::{Digest, Hasher};

/// Reads exactly what a descriptor promises; anything else is an error at the end, never an end.
pub(super) struct Verifying<R> {
    inner: R,
    hasher: Option<Hasher>,
    seen: u64,
    size: u64,
    digest: Digest,
}

impl<R: Read> Verifying<R> {
    pub(super) fn new(inner: R, descriptor: &Descriptor) -> Self {
        Self {
            inner,
            hasher: Some(Hasher::new()),
            seen: 0,
            size: descriptor.size,
            digest: descriptor.digest,
        }
    }

    fn wrong(&mut self, why: &str) -> io::Error {
        self.hasher = None;
        io::Error::new(io::ErrorKind::InvalidData, format!("blob {} {why}", self.digest))
    }
}

impl<R: Read> Read for Verifying<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        let Some(hasher) = &mut self.hasher else {
            // It ended well, or it failed before.
            return if self.seen == self.size && count == 0 {
                Ok(0)
            } else {
                Err(self.wrong("failed verification"))
            };
        };
        if count > 0 {
            hasher.update(&buf[..count]);
            self.seen += count as u64;
            return if self.seen > self.size {
                Err(self.wrong("is longer than it should be"))
            } else {
                Ok(count)
            };
        }
        if buf.is_empty() {
            return Ok(0);
        }
        if self.seen < self.size {
            return Err(self.wrong("is shorter than it should be"));
        }
        let found = self.hasher.take().map(Hasher::finish);
        if found != Some(self.digest) {
            self.size = u64::MAX;
            return Err(self.wrong("has other bytes than its digest says"));
        }
        Ok(0)
    }
}
