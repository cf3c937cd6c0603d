//! An index that is written record by record, and read again from its file.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use dhow_types::ErrorKind;
use flate2::Crc;

use super::format::{self, CHECKSUM, HEADER};
use crate::window::Window;
use crate::{Context, Entry, Error};

/// Bytes of the places of records that are read at once by who asks for one here and one there.
const NEAR: usize = 256;

/// Bytes of where a record begins.
const OFFSET: usize = 4;

/// Bytes that are written, or read, at once.
const PIECE: usize = 64 << 10;

/// An index in the making: nothing of it stays in memory.
pub(crate) struct Writer {
    file: File,
    /// Records to come, and those that came.
    count: usize,
    added: usize,
    /// Where records begin, as far as that is not in the file.
    offsets: Vec<u8>,
    /// Of where records begin.
    offsets_crc: Crc,
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
            added: 0,
            offsets: Vec::new(),
            offsets_crc: Crc::new(),
            crc: Crc::new(),
            written: 0,
            buffer: Vec::with_capacity(2 * PIECE),
            before: Vec::new(),
        })
    }

    /// Appends the record of an entry, whose path comes after that of the one before.
    pub(crate) fn add(&mut self, record: &[u8]) -> Result<(), Error> {
        let path = format::path(record).unwrap_or_default();
        if self.added > 0 && self.before.as_slice() >= path {
            return Err(format::out_of_order(path));
        }
        self.before.clear();
        self.before.extend_from_slice(path);
        let at = self.written + self.buffer.len() as u64;
        let at = u32::try_from(at).map_err(|_| format::too_big())?;
        self.offsets.extend_from_slice(&at.to_le_bytes());
        self.added += 1;
        if self.offsets.len() >= PIECE {
            self.flush_offsets()?;
        }
        self.buffer.extend_from_slice(record);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(())
    }

    fn start(&self) -> u64 {
        (HEADER + self.count * OFFSET) as u64
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.crc.update(&self.buffer);
        self.put(&self.buffer, self.start() + self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn flush_offsets(&mut self) -> Result<(), Error> {
        self.offsets_crc.update(&self.offsets);
        let end = HEADER + self.added * OFFSET;
        self.put(&self.offsets, (end - self.offsets.len()) as u64)?;
        self.offsets.clear();
        Ok(())
    }

    fn put(&self, bytes: &[u8], at: u64) -> Result<(), Error> {
        let put = self.file.write_all_at(bytes, at);
        put.context(|| "write the index of a layer")
    }

    /// Writes what stands before the records and behind them.
    pub(crate) fn finish(mut self) -> Result<Stored, Error> {
        if self.added != self.count {
            let message = format!("an index of {} entries has {}", self.count, self.added);
            return Err(Error::new(ErrorKind::Internal, message));
        }
        self.flush()?;
        self.flush_offsets()?;
        let end = self.start() + self.written;
        let count = u32::try_from(self.count).map_err(|_| format::too_big())?;
        let header = format::header(count, end + CHECKSUM as u64);
        self.put(&header, 0)?;
        let mut crc = Crc::new();
        crc.update(&header);
        crc.combine(&self.offsets_crc);
        crc.combine(&self.crc);
        self.put(&crc.sum().to_le_bytes(), end)?;
        Ok(Stored {
            start: self.start(),
            end,
            file: self.file,
            count: self.count,
            offsets: Window::default(),
            window: Window::default(),
            next: 0,
        })
    }
}

/// An index as it was just written: its records are read from the file when they are asked for, several at once where they
/// are asked for one after the other.
pub(crate) struct Stored {
    file: File,
    count: usize,
    /// Of where records begin.
    offsets: Window,
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
        self.count
    }

    /// Bytes of the whole index.
    pub(crate) fn size(&self) -> u64 {
        self.end + CHECKSUM as u64
    }

    /// The entry number `at` in the order of the paths.
    pub(crate) fn entry(&mut self, at: usize) -> Result<Entry, Error> {
        let lost = || Error::new(ErrorKind::Internal, "an index that was just written is damaged");
        if at >= self.count {
            return Err(lost());
        }
        let ahead = if at == self.next { PIECE } else { 0 };
        let mut place = |at: usize| {
            let from = (HEADER + at * OFFSET) as u64;
            let bytes = self
                .offsets
                .get(&self.file, from, OFFSET, ahead.max(NEAR), self.start)?;
            let offset = bytes.first_chunk().ok_or_else(lost)?;
            Ok::<_, Error>(self.start + u64::from(u32::from_le_bytes(*offset)))
        };
        let from = place(at)?;
        let to = if at + 1 < self.count {
            place(at + 1)?
        } else {
            self.end
        };
        let length = usize::try_from(to - from).map_err(|_| lost())?;
        self.next = at + 1;
        let record = self.window.get(&self.file, from, length, ahead, self.end)?;
        format::entry(record).ok_or_else(lost)
    }
}
