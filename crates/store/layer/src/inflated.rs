//! A stream that is inflated as long as it is no decompression bomb.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dhow_types::ErrorKind;

use crate::codec::{self, Compression, Decoder, Part, Room};
use crate::{Error, Limits};

/// Counts the compressed bytes that are read.
struct Metered<R> {
    input: R,
    bytes: Arc<AtomicU64>,
}

impl<R: BufRead> BufRead for Metered<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buf)?;
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// What becomes of a stream, whatever its compression is; a read fails as soon as it is a decompression bomb, or longer than
/// an archive may be. The failure of such a read has an [`Error`] of kind `ResourceExhausted` in it.
pub struct Inflated<'a> {
    output: Decoder<'a>,
    compression: Compression,
    out: u64,
    read: Arc<AtomicU64>,
    /// Bytes of the whole stream, when somebody vouches for them.
    size: Option<u64>,
    limits: &'a Limits,
    what: &'static str,
}

impl std::fmt::Debug for Inflated<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflated")
            .field("compression", &self.compression)
            .field("out", &self.out)
            .finish_non_exhaustive()
    }
}

impl<'a> Inflated<'a> {
    /// Begins to inflate `input`: `what` (a layer, an archive) is it in messages, `size` its length where somebody vouches
    /// for that, which tells a bomb sooner.
    ///
    /// # Errors
    /// The failure of the first read.
    pub fn new(
        input: impl BufRead + Send + 'a,
        what: &'static str,
        size: Option<u64>,
        limits: &'a Limits,
    ) -> Result<Self, Error> {
        let read = Arc::new(AtomicU64::new(0));
        let bytes = Arc::clone(&read);
        let (compression, output) = codec::open(Box::new(Metered { input, bytes }))?;
        Ok(Self {
            output,
            compression,
            out: 0,
            read,
            size,
            limits,
            what,
        })
    }

    /// How the stream is compressed.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The next part, as [`Decoder::part`] has it; what [`Self::read`] says of failures holds here.
    pub(crate) fn part(&mut self, room: Box<Room>) -> io::Result<Part> {
        let part = self.output.part(room)?;
        self.came(part.bytes().len()).map(|()| part)
    }

    fn came(&mut self, count: usize) -> io::Result<()> {
        self.out += count as u64;
        self.check()
            .map_err(|bomb| io::Error::new(io::ErrorKind::FileTooLarge, bomb))
    }

    fn check(&self) -> Result<(), Error> {
        let Self {
            out, limits, what, ..
        } = self;
        let read = self.read.load(Ordering::Relaxed);
        let too_dense = |free: u64, from: u64| *out > free && out / limits.ratio > from;
        let message = if *out > limits.archive {
            format!("the {what} has more than {} bytes", limits.archive)
        } else if let Some(size) = self.size.filter(|size| too_dense(limits.ratio_free_sized, *size)) {
            format!("the {what} is a decompression bomb: its {size} bytes become more than {out}")
        } else if too_dense(limits.ratio_free, read) {
            format!("the {what} is a decompression bomb: {read} bytes became more than {out}")
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::ResourceExhausted, message))
    }
}

impl Read for Inflated<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.output.read(buf)?;
        self.came(count).map(|()| count)
    }
}
