//! Bytes of a file that are read a piece at a time.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use dhow_types::ErrorKind;

use crate::{Context, Error};

/// The piece that was read last.
#[derive(Debug, Default)]
pub(crate) struct Window {
    bytes: Vec<u8>,
    at: u64,
}

impl Window {
    /// `length` bytes from `from` on. What is not held is read, with what follows up to `ahead` bytes, and nothing beyond
    /// `end`.
    pub(crate) fn get(
        &mut self,
        file: &File,
        from: u64,
        length: usize,
        ahead: usize,
        end: u64,
    ) -> Result<&[u8], Error> {
        let held = self.at..=self.at + self.bytes.len() as u64;
        if !held.contains(&from) || !held.contains(&(from + length as u64)) {
            let left = usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX);
            self.bytes.resize(length.max(ahead).min(left), 0);
            self.at = from;
            file.read_exact_at(&mut self.bytes, from)
                .context(|| "read the entries of a layer")?;
        }
        let inside = usize::try_from(from - self.at).ok();
        let found = inside.and_then(|inside| self.bytes.get(inside..inside + length));
        found.ok_or_else(|| {
            let message = "the entries of a layer end before they should";
            Error::new(ErrorKind::Internal, message)
        })
    }
}
