use std::io::{self, Read};

use dhow_types::ErrorKind;

use super::parser::{Parser, Source};
use crate::{Context, Entry, Error, Limits};

/// Bytes read from the input at once.
const BUFFER: usize = 64 << 10;

/// Reads an archive entry by entry. Between two calls of [`Reader::next_entry`] it is a [`Read`] of the body of the
/// current entry (holes of sparse files read as zeros); what is not read is skipped.
///
/// Names are normalised: leading `/`, `.` and `//` go, `..` is resolved in the text; a name that leads out of the
/// root is an error. Whiteout names are not interpreted: they are files here.
#[derive(Debug)]
pub struct Reader<R> {
    parser: Parser<Buffered<R>>,
    /// Bytes of the current file, holes included, and how far it was read.
    size: u64,
    position: u64,
}

#[derive(Debug)]
struct Buffered<R> {
    input: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    consumed: u64,
}

impl<R: Read> Source for Buffered<R> {
    fn fill(&mut self) -> Result<&[u8], Error> {
        while self.start == self.end {
            match self.input.read(&mut self.buffer) {
                Ok(0) => return Ok(&[]),
                Ok(count) => (self.start, self.end) = (0, count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(Error::wrap(error, "read the archive")),
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        self.consumed += count as u64;
    }
}

impl<R: Read> Reader<R> {
    /// Reads the uncompressed archive `input` within the default limits.
    pub fn new(input: R) -> Self {
        Self::with_limits(input, Limits::default())
    }

    /// Reads the uncompressed archive `input` within `limits`.
    pub fn with_limits(input: R, limits: Limits) -> Self {
        let source = Buffered {
            input,
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
            consumed: 0,
        };
        Self {
            parser: Parser::new(source, limits),
            size: 0,
            position: 0,
        }
    }

    /// The next entry; `None` at the end of the archive. Bytes after the end marker are not read.
    ///
    /// # Errors
    /// `InvalidArgument` when the archive is malformed or hostile, `ResourceExhausted` beyond a limit, `DataLoss`
    /// when it ends too early, `Unsupported` for entries of an unknown type.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        let entry = self.parser.next_entry()?;
        self.size = entry.as_ref().map_or(0, |entry| entry.size);
        self.position = 0;
        Ok(entry)
    }

    /// Bytes of the archive before what is read next: after [`Reader::next_entry`], where the body of a file that is
    /// not sparse begins.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.parser.source().consumed
    }

    /// Reads the rest of the current body, which must be of at most `max` bytes.
    ///
    /// # Errors
    /// `ResourceExhausted` when it is larger; as [`Reader::next_entry`].
    pub fn body(&mut self, max: u64) -> Result<Vec<u8>, Error> {
        if self.size > max {
            let message = format!(
                "an entry of the archive has {} bytes, more than the {max} allowed here",
                self.size
            );
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)
            .context(|| "read an entry of the archive")?;
        Ok(bytes)
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.size - self.position;
        let room = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        if room == 0 {
            return Ok(0);
        }
        let buf = &mut buf[..room];
        let mut hole = room;
        if let Some(piece) = self.parser.piece().map_err(into_io)? {
            if piece.offset == self.position {
                let count = room.min(piece.bytes.len());
                buf[..count].copy_from_slice(&piece.bytes[..count]);
                self.parser.consume(count);
                self.position += count as u64;
                return Ok(count);
            }
            hole = usize::try_from(piece.offset - self.position).map_or(room, |gap| gap.min(room));
        }
        buf[..hole].fill(0);
        self.position += hole as u64;
        Ok(hole)
    }
}

/// A failure of this crate inside a stream of the standard library.
pub(crate) fn into_io(error: Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::DataLoss => io::ErrorKind::UnexpectedEof,
        ErrorKind::ResourceExhausted => io::ErrorKind::FileTooLarge,
        ErrorKind::NotFound => io::ErrorKind::NotFound,
        _ => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, error)
}
