use std::io::{Read, Write};

use crate::Error;

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
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

/// The decompressed stream of `input`, whatever its compression is.
///
/// # Errors
/// The failure of the first read. Reads of the result fail with `InvalidData` on damaged input and with
/// `UnexpectedEof` on truncated input.
pub fn decoder<'a>(_input: impl Read + Send + 'a) -> Result<(Compression, Box<dyn Read + Send + 'a>), Error> {
    Err(crate::store::unfinished())
}

/// Compresses `input` into `output`; returns the number of bytes written.
///
/// The bytes depend on the input and the compression only, never on the number of processors.
///
/// # Errors
/// Failures of either side; `Unsupported` for bzip2 and xz.
pub fn compress(
    _input: impl Read + Send,
    _output: &mut (impl Write + Send),
    _compression: Compression,
) -> Result<u64, Error> {
    Err(crate::store::unfinished())
}
