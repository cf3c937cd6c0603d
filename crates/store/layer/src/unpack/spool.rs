//! Records that are written once and read again: in memory while they are few, in a file without a name from then on.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use dhow_types::ErrorKind;

use crate::window::Window;
use crate::{Error, column};

/// Bytes in memory before they go to the file.
pub(super) const KEPT: usize = 512 << 10;

/// Bytes read by who reads record after record; and by who does not.
const AHEAD: usize = 64 << 10;
const NEAR: usize = 256;

/// Bytes before each record: its length.
const LENGTH: usize = 4;

/// The records, each found by where it begins.
#[derive(Debug)]
pub(super) struct Spool {
    dir: PathBuf,
    kept: usize,
    file: Option<File>,
    /// Bytes in the file; the rest is in `tail`. No record is in both.
    written: u64,
    tail: Vec<u8>,
    window: Window,
    /// Behind the record that was read last.
    next: u64,
}

impl Spool {
    /// An empty one that keeps so many bytes in memory; its file would be in `dir`.
    pub(super) fn new(dir: &Path, kept: usize) -> Self {
        Self {
            dir: dir.to_owned(),
            kept,
            file: None,
            written: 0,
            tail: Vec::new(),
            window: Window::default(),
            next: 0,
        }
    }

    /// Bytes of all records.
    pub(super) fn len(&self) -> u64 {
        self.written + self.tail.len() as u64
    }

    /// Bytes in memory, but for what is read.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.tail.capacity()
    }

    /// Appends a record of several parts; where it begins.
    pub(super) fn append(&mut self, parts: &[&[u8]]) -> Result<u64, Error> {
        let at = self.len();
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let length = u32::try_from(length).map_err(|_| {
            let message = "what the layer says of one entry is too long";
            Error::new(ErrorKind::ResourceExhausted, message)
        })?;
        self.tail.extend_from_slice(&length.to_le_bytes());
        for part in parts {
            self.tail.extend_from_slice(part);
        }
        if self.tail.len() >= self.kept {
            self.flush()?;
        }
        Ok(at)
    }

    /// Brings all to the file.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(column::nameless(&self.dir)?),
        };
        file.write_all_at(&self.tail, self.written)
            .map_err(|error| super::write_failure(error, "write the entries of a layer"))?;
        self.written += self.tail.len() as u64;
        self.tail.clear();
        Ok(())
    }

    /// The record that begins at `at`, as [`Spool::append`] said.
    pub(super) fn read(&mut self, at: u64) -> Result<&[u8], Error> {
        let Some(file) = self.file.as_ref().filter(|_| at < self.written) else {
            let at = at
                .checked_sub(self.written)
                .and_then(|at| usize::try_from(at).ok());
            let rest = at.and_then(|at| self.tail.get(at..));
            return rest.and_then(first).ok_or_else(lost);
        };
        let ahead = if at == self.next { AHEAD } else { NEAR };
        let record = record_at(&mut self.window, file, at, ahead, self.written)?;
        self.next = at + (LENGTH + record.len()) as u64;
        Ok(record)
    }

    /// The records that begin from `from` on and before `to`, one after the other. They must be in the file: see
    /// [`Spool::flush`].
    pub(super) fn records(&self, from: u64, to: u64) -> Result<Records<'_>, Error> {
        Ok(Records {
            file: self.file.as_ref().ok_or_else(lost)?,
            window: Window::default(),
            at: from,
            end: to,
        })
    }
}

/// Some records, one after the other.
pub(super) struct Records<'a> {
    file: &'a File,
    window: Window,
    at: u64,
    end: u64,
}

impl Records<'_> {
    /// The next one.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, Error> {
        if self.at >= self.end {
            return Ok(None);
        }
        let record = record_at(&mut self.window, self.file, self.at, AHEAD, self.end)?;
        self.at += (LENGTH + record.len()) as u64;
        Ok(Some(record))
    }
}

fn record_at<'a>(
    window: &'a mut Window,
    file: &File,
    at: u64,
    ahead: usize,
    end: u64,
) -> Result<&'a [u8], Error> {
    let length = window.get(file, at, LENGTH, ahead, end).map(length)?;
    let length = length.ok_or_else(lost)?;
    window.get(file, at + LENGTH as u64, length, ahead, end)
}

/// The length of the record that these bytes begin with.
fn length(bytes: &[u8]) -> Option<usize> {
    let (length, _) = bytes.split_first_chunk::<LENGTH>()?;
    usize::try_from(u32::from_le_bytes(*length)).ok()
}

/// The record that these bytes begin with, if they hold all of it.
fn first(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(LENGTH..)?.get(..length(bytes)?)
}

fn lost() -> Error {
    Error::new(
        ErrorKind::Internal,
        "a record of a layer's entries is not where it was written",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_from_memory_and_from_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path(), KEPT);
        let record = |number: usize| vec![number.to_le_bytes()[0]; number * 7919 % 3000];
        let mut places = Vec::new();
        for number in 0..2000 {
            let bytes = record(number);
            let (head, tail) = bytes.split_at(bytes.len() / 2);
            places.push(spool.append(&[head, tail]).unwrap());
        }
        assert!(
            spool.written > 0 && !spool.tail.is_empty(),
            "both places are used"
        );
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
        for order in [1, 1237] {
            for number in (0..2000).map(|number| number * order % 2000) {
                assert_eq!(spool.read(places[number]).unwrap(), record(number), "{number}");
            }
        }
        let large = vec![1; 200 << 10];
        let place = spool.append(&[&large]).unwrap();
        assert!(spool.read(spool.len()).is_err());
        spool.flush().unwrap();
        assert_eq!(
            spool.read(place).unwrap(),
            large,
            "longer than what is read ahead"
        );
        let mut records = spool.records(places[1], place).unwrap();
        for number in 1..2000 {
            assert_eq!(records.next().unwrap(), Some(&record(number)[..]), "{number}");
        }
        assert_eq!(records.next().unwrap(), None);
        assert!(spool.read(spool.len()).is_err());
    }
}
