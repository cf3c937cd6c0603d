use std::io::{self, Read, Seek, SeekFrom};

use dhow_types::ErrorKind;

use super::parser::{Parser, Source, early_end};
use crate::{Context, Entry, Error, Limits};

/// Bytes read from the input at once.
const BUFFER: usize = 64 << 10;
/// The same where bodies are gone over without being read: a header, and small bodies after it.
const SEEKING_BUFFER: usize = 8 << 10;

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
pub(crate) struct Buffered<R> {
    input: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    consumed: u64,
    seeker: Option<Seeker<R>>,
}

/// How an input is gone over without being read.
#[derive(Debug)]
struct Seeker<R> {
    length: u64,
    seek: fn(&mut R, SeekFrom) -> io::Result<u64>,
}

impl<R: Read> Buffered<R> {
    pub(crate) fn new(input: R) -> Self {
        Self::with(input, BUFFER)
    }

    fn with(input: R, buffer: usize) -> Self {
        Self {
            input,
            buffer: vec![0; buffer],
            start: 0,
            end: 0,
            consumed: 0,
            seeker: None,
        }
    }

    /// Reads the whole of `input`, and nothing of it that is skipped.
    pub(crate) fn seeking(mut input: R) -> Result<Self, Error>
    where
        R: Seek,
    {
        let length = input
            .seek(SeekFrom::End(0))
            .and_then(|length| input.rewind().map(|()| length))
            .context(|| "measure the archive")?;
        let seeker = Seeker {
            length,
            seek: R::seek,
        };
        Ok(Self {
            seeker: Some(seeker),
            ..Self::with(input, SEEKING_BUFFER)
        })
    }
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

    fn position(&self) -> u64 {
        self.consumed
    }

    fn skip(&mut self, count: u64) -> Result<u64, Error> {
        let at_hand = self.end - self.start;
        match &self.seeker {
            Some(seeker) if at_hand == 0 => {
                let to = self.consumed.saturating_add(count);
                if to > seeker.length {
                    return Err(early_end());
                }
                (seeker.seek)(&mut self.input, SeekFrom::Start(to)).context(|| "seek in the archive")?;
                self.consumed = to;
                Ok(count)
            }
            _ => {
                let bytes = self.fill()?.len();
                let count = usize::try_from(count).map_or(bytes, |count| count.min(bytes));
                self.consume(count);
                Ok(count as u64)
            }
        }
    }
}

impl<R: Read> Reader<R> {
    /// Reads the uncompressed archive `input` within the default limits.
    pub fn new(input: R) -> Self {
        Self::with_limits(input, Limits::default())
    }

    /// Reads the uncompressed archive `input` within `limits`.
    pub fn with_limits(input: R, limits: Limits) -> Self {
        Self::of(Buffered::new(input), limits)
    }

    /// Reads the uncompressed archive that is the whole of `input`, within the default limits: what is not read of a body is
    /// gone over.
    ///
    /// # Errors
    /// When `input` cannot be sought in.
    pub fn seeking(input: R) -> Result<Self, Error>
    where
        R: Seek,
    {
        Ok(Self::of(Buffered::seeking(input)?, Limits::default()))
    }

    fn of(source: Buffered<R>, limits: Limits) -> Self {
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
    pub fn offset(&self) -> u64 {
        self.parser.source().position()
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
        let mut body = Body {
            parser: &mut self.parser,
            size: self.size,
            position: self.position,
        };
        let count = body.read(buf)?;
        self.position = body.position;
        Ok(count)
    }
}

/// The body of the current entry, holes included.
pub(crate) struct Body<'a, S> {
    parser: &'a mut Parser<S>,
    size: u64,
    position: u64,
}

impl<'a, S: Source> Body<'a, S> {
    /// The body, of `size` bytes, from its beginning.
    pub(crate) fn new(parser: &'a mut Parser<S>, size: u64) -> Self {
        Self {
            parser,
            size,
            position: 0,
        }
    }
}

impl<S: Source> Read for Body<'_, S> {
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
