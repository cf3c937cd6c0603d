//! An index that is written record by record, and read again from its file.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use dhow_types::ErrorKind;
use flate2::Crc;

use super::format::{self, CHECKSUM, HEADER};
use crate::window::Window;
use crate::{Context, Entry, Error};

/// Bytes that are written, or read, at once.
const PIECE: usize = 64 << 10;

/// An index in the making: nothing of it is in memory but where each record begins.
pub(crate) struct Writer {
    file: File,
    /// Records to come, and those that came.
    count: usize,
    offsets: Vec<u32>,
    /// Of all records.
    crc: Crc,
    /// Bytes of records before `buffer`.
    written: u64,
    buffer: Vec<u8>,
    before: Vec<u8>,
}

impl Writer {
    /// Begins an index of `count` entries in a new file.
    pub(crate) fn create(path: &Path, count: usize) -> Result<Self, Error> {
        u32::try_from(count).map_err(|_| format::too_big())?;
        let file = File::options().read(true).write(true).create_new(true).open(path);
        Ok(Self {
            file: file.context(|| format!("create {}", path.display()))?,
            count,
            offsets: Vec::with_capacity(count),
            crc: Crc::new(),
            written: 0,
            buffer: Vec::with_capacity(2 * PIECE),
            before: Vec::new(),
        })
    }

    /// Appends the record of an entry, whose path comes after that of the one before.
    pub(crate) fn add(&mut self, record: &[u8]) -> Result<(), Error> {
        let path = format::path(record).unwrap_or_default();
        if !self.offsets.is_empty() && self.before.as_slice() >= path {
            return Err(format::out_of_order(path));
        }
        self.before.clear();
        self.before.extend_from_slice(path);
        let at = self.written + self.buffer.len() as u64;
        self.offsets
            .push(u32::try_from(at).map_err(|_| format::too_big())?);
        self.buffer.extend_from_slice(record);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(())
    }

    fn start(&self) -> u64 {
        (HEADER + self.count * 4) as u64
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.crc.update(&self.buffer);
        self.put(&self.buffer, self.start() + self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn put(&self, bytes: &[u8], at: u64) -> Result<(), Error> {
        let put = self.file.write_all_at(bytes, at);
        put.context(|| "write the index of a layer")
    }

    /// Writes what stands before the records and behind them.
    pub(crate) fn finish(mut self) -> Result<Stored, Error> {
        if self.offsets.len() != self.count {
            let message = format!("an index of {} entries has {}", self.count, self.offsets.len());
            return Err(Error::new(ErrorKind::Internal, message));
        }
        self.flush()?;
        let end = self.start() + self.written;
        let count = u32::try_from(self.count).map_err(|_| format::too_big())?;
        let mut crc = Crc::new();
        let (mut at, mut piece) = (0, format::header(count, end + CHECKSUM as u64));
        for offset in &self.offsets {
            piece.extend_from_slice(&offset.to_le_bytes());
            if piece.len() >= PIECE {
                crc.update(&piece);
                self.put(&piece, at)?;
                at += piece.len() as u64;
                piece.clear();
            }
        }
        crc.update(&piece);
        self.put(&piece, at)?;
        crc.combine(&self.crc);
        self.put(&crc.sum().to_le_bytes(), end)?;
        Ok(Stored {
            start: self.start(),
            end,
            file: self.file,
            offsets: self.offsets,
            window: Window::default(),
            next: 0,
        })
    }
}

/// An index as it was just written: its records are read from the file when they are asked for, several at once where they
/// are asked for one after the other.
pub(crate) struct Stored {
    file: File,
    offsets: Vec<u32>,
    /// Where records begin and end in the file.
    start: u64,
    end: u64,
    window: Window,
    /// The entry behind the one that was asked for last.
    next: usize,
}

impl Stored {
    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Bytes of the whole index.
    pub(crate) fn size(&self) -> u64 {
        self.end + CHECKSUM as u64
    }

    /// The entry number `at` in the order of the paths.
    pub(crate) fn entry(&mut self, at: usize) -> Result<Entry, Error> {
        let lost = || Error::new(ErrorKind::Internal, "an index that was just written is damaged");
        let place = |offset: &u32| self.start + u64::from(*offset);
        let from = self.offsets.get(at).map(place).ok_or_else(lost)?;
        let to = self.offsets.get(at + 1).map_or(self.end, place);
        let length = usize::try_from(to - from).map_err(|_| lost())?;
        let ahead = if at == self.next { PIECE } else { 0 };
        self.next = at + 1;
        let record = self.window.get(&self.file, from, length, ahead, self.end)?;
        format::entry(record).ok_or_else(lost)
    }
}
