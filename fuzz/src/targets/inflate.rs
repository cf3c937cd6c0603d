//! Deflate beside zlib.

use std::io::{ErrorKind, Read as _};

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::Shape;

/// Most output that is compared.
const MOST: usize = 1 << 20;

/// How a raw stream ends for zlib.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Verdict {
    Ended,
    Truncated,
    Damaged,
    /// There is more than is compared.
    Long,
}

/// A stream of deflate: the reader of layers makes the same of it as zlib, or fails for the same reason.
pub(super) fn inflate(input: &[u8]) -> Shape {
    let (expected, used, verdict) = zlib(input);
    let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    gzip.extend_from_slice(&input[..used]);
    if verdict == Verdict::Ended {
        let mut crc = Crc::new();
        crc.update(&expected);
        gzip.extend_from_slice(&crc.sum().to_le_bytes());
        gzip.extend_from_slice(&crc.amount().to_le_bytes());
    }
    let mut made = Vec::new();
    let read = dhow_layer::decoder(gzip.as_slice()).map(|(_, stream)| {
        let read = stream.take(MOST as u64).read_to_end(&mut made);
        read.map_err(|error| error.kind())
    });
    let Ok(read) = read else { return Shape(0) };
    let agreed = match verdict {
        Verdict::Ended => read.is_ok() && made == expected,
        Verdict::Long => read.is_ok() && made == expected[..MOST],
        Verdict::Truncated => read == Err(ErrorKind::UnexpectedEof) && made == expected,
        Verdict::Damaged => {
            read == Err(ErrorKind::InvalidData) && made.starts_with(&expected) || made.len() == MOST
        }
    };
    assert!(agreed, "not what zlib makes of it");
    Shape::exactly((verdict, made.len().checked_ilog2()))
}

/// What zlib makes, how much of the input is the stream's, and how it ends. Of a damaged stream, what the failing call made is missing.
fn zlib(input: &[u8]) -> (Vec<u8>, usize, Verdict) {
    let mut inflate = Decompress::new(false);
    let (mut made, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let used = usize::try_from(inflate.total_in()).unwrap_or(usize::MAX);
        let before = inflate.total_out();
        let status = inflate.decompress(&input[used..], &mut buffer, FlushDecompress::None);
        let count = usize::try_from(inflate.total_out() - before).unwrap_or(0);
        let Ok(status) = status else {
            return (made, input.len(), Verdict::Damaged);
        };
        made.extend_from_slice(&buffer[..count]);
        let now = usize::try_from(inflate.total_in()).unwrap_or(usize::MAX);
        if made.len() >= MOST {
            return (made, input.len(), Verdict::Long);
        }
        if status == Status::StreamEnd {
            return (made, now, Verdict::Ended);
        }
        if count == 0 && now == used {
            return (made, input.len(), Verdict::Truncated);
        }
    }
}
