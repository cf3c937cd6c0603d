//! Bytes that are read where they are needed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes at places.
pub trait ReadAt {
    /// Reads some bytes from `at` on; none at the end.
    ///
    /// # Errors
    /// When they cannot be read.
    fn some_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Fills `into` from `at` on.
    ///
    /// # Errors
    /// `UnexpectedEof` when there are fewer; when they cannot be read.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let mut have = 0;
        while have < into.len() {
            let from = at.saturating_add(have as u64);
            match self.some_at(from, &mut into[have..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => have += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl ReadAt for File {
    fn some_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, into, at)
    }
}

impl ReadAt for Vec<u8> {
    fn some_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(at)
            .ok()
            .and_then(|at| self.get(at..))
            .unwrap_or_default();
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}
