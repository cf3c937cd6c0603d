mod deflate;
mod gunzip;
mod gzip;
mod inflate;
#[cfg(test)]
mod tests;
mod zstandard;

use std::io::{self, BufRead, BufReader, Read, Write};

use dhow_types::ErrorKind;

use crate::{Context, Error};

/// Bytes of compressed input read at once.
const INPUT: usize = 128 << 10;

/// Most memory that the dictionary of an xz stream may ask for.
const XZ_MEMORY: u64 = 512 << 20;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952, one or more members.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
}

impl Compression {
    /// What the first bytes of a stream say (six are enough).
    #[must_use]
    pub fn sniff(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable frame before it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

/// What a part of a stream lies in. It is as large as the decoder of gzip needs it.
pub(crate) use self::inflate::{Room, new_room};

/// A part of a decompressed stream, in the room that it was made in.
pub(crate) struct Part {
    room: Box<Room>,
    from: usize,
    to: usize,
}

impl Part {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.room[self.from..self.to]
    }

    pub(crate) fn into_room(self) -> Box<Room> {
        self.room
    }
}

/// The decompressed stream of an input, to be read, or taken part by part without a copy.
pub(crate) enum Decoder<'a> {
    Gzip(Box<gunzip::Gunzip<Whole<'a>>>),
    Other(Box<dyn Read + Send + 'a>),
}

/// The compressed stream from its beginning.
pub(crate) type Whole<'a> = io::Chain<io::Cursor<Vec<u8>>, Box<dyn BufRead + Send + 'a>>;

impl Decoder<'_> {
    /// The next part, which has no bytes at the end only. It comes in a room that was given before, or in this one.
    pub(crate) fn part(&mut self, mut room: Box<Room>) -> io::Result<Part> {
        match self {
            Self::Gzip(gunzip) => gunzip.part(room),
            Self::Other(stream) => {
                let to = fill(stream, &mut room[..])?;
                Ok(Part { room, from: 0, to })
            }
        }
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(gunzip) => gunzip.read(buf),
            Self::Other(stream) => stream.read(buf),
        }
    }
}

/// The decompressed stream of `input`, whatever its compression is.
///
/// Several gzip members, zstd frames, bzip2 or xz streams after each other are one stream. After the last gzip member
/// zero bytes are padding; anything else is an error.
///
/// # Errors
/// The failure of the first read. Reads of the result fail with `InvalidData` on damaged input and with
/// `UnexpectedEof` on truncated input.
pub fn decoder<'a>(input: impl Read + Send + 'a) -> Result<(Compression, Box<dyn Read + Send + 'a>), Error> {
    let (compression, decoder) = open(Box::new(buffered(input)))?;
    let stream: Box<dyn Read + Send + 'a> = match decoder {
        Decoder::Gzip(gunzip) => gunzip,
        Decoder::Other(stream) => stream,
    };
    Ok((compression, stream))
}

/// A stream that is read in pieces of a size that is good for decoders.
pub(crate) fn buffered<R: Read>(input: R) -> BufReader<R> {
    BufReader::with_capacity(INPUT, input)
}

/// [`decoder`], as what it is.
pub(crate) fn open<'a>(mut input: Box<dyn BufRead + Send + 'a>) -> Result<(Compression, Decoder<'a>), Error> {
    let mut start = Vec::with_capacity(8);
    (&mut input)
        .take(6)
        .read_to_end(&mut start)
        .context(|| "read the start of a stream")?;
    let compression = Compression::sniff(&start);
    let whole = io::Cursor::new(start).chain(input);
    let stream: Box<dyn Read + Send + 'a> = match compression {
        Compression::Gzip => return Ok((compression, Decoder::Gzip(Box::new(gunzip::Gunzip::new(whole))))),
        Compression::None => Box::new(whole),
        // The window of a frame is bounded by the library to 128 MiB.
        Compression::Zstd => Box::new(zstandard::decoder(whole).context(|| "start the zstd decoder")?),
        Compression::Bzip2 => Box::new(DataErrors(bzip2::bufread::MultiBzDecoder::new(whole))),
        Compression::Xz => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)
                    .map_err(|error| Error::because(ErrorKind::Internal, "start the xz decoder", error))?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(whole, stream))
        }
    };
    Ok((compression, Decoder::Other(stream)))
}

/// Compresses `input` into `output`; returns the number of bytes written.
///
/// The bytes depend on the input and the compression only, never on the number of processors.
///
/// # Errors
/// Failures of either side; `Unsupported` for bzip2 and xz.
pub fn compress(
    input: impl Read + Send,
    output: &mut (impl Write + Send),
    compression: Compression,
) -> Result<u64, Error> {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(16));
    compress_on(threads, input, output, compression)
}

fn compress_on(
    threads: usize,
    mut input: impl Read + Send,
    output: &mut (impl Write + Send),
    compression: Compression,
) -> Result<u64, Error> {
    match compression {
        Compression::None => io::copy(&mut input, output).context(|| "copy a stream"),
        Compression::Gzip => gzip::compress(threads, input, output),
        Compression::Zstd => zstandard::compress(threads, input, output),
        Compression::Bzip2 | Compression::Xz => Err(Error::new(
            ErrorKind::Unsupported,
            "layers are written as gzip, zstd or plain tar only",
        )),
    }
}

/// Fills `buffer` as far as the input goes.
pub(crate) fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match input.read(&mut buffer[have..]) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

/// `fill_buf` that goes on after a signal.
fn fill_buf(input: &mut impl BufRead) -> io::Result<&[u8]> {
    loop {
        match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
            // Asked for again because the borrow checker cannot see that the first answer is the result; it is buffered.
            Ok(_) => return input.fill_buf(),
        }
    }
}

/// Calls damaged input by its name: bzip2 reports it as a wrong argument.
struct DataErrors<R>(R);

impl<R: Read> Read for DataErrors<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => io::Error::new(io::ErrorKind::InvalidData, error),
            _ => error,
        })
    }
}

/// Counts what goes through to a writer.
struct Counted<'a, W> {
    output: &'a mut W,
    bytes: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let count = self.output.write(buf)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
