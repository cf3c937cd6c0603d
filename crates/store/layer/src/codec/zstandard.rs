use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zstd::stream::raw::CParameter;

use super::Counted;
use crate::{Context, Error};

/// Level of all zstd output: the library's default.
const LEVEL: i32 = 3;

/// Input of one job of the library's threads. Fixed, so that the output does not depend on how many there are.
const JOB: u32 = 4 << 20;

/// One zstd frame with a checksum, its jobs compressed at the same time.
pub(super) fn compress(threads: usize, mut input: impl Read, output: &mut impl Write) -> Result<u64, Error> {
    let started = || "start the zstd encoder";
    let counted = Counted { output, bytes: 0 };
    let mut encoder = zstd::stream::write::Encoder::new(counted, LEVEL).context(started)?;
    // Without threads the library frames differently, so at least one is used always.
    let workers = u32::try_from(threads.max(1)).unwrap_or(1);
    for parameter in [
        CParameter::NbWorkers(workers),
        CParameter::JobSize(JOB),
        CParameter::ChecksumFlag(true),
    ] {
        encoder.set_parameter(parameter).context(started)?;
    }
    io::copy(&mut input, &mut encoder).context(|| "compress a stream")?;
    let counted = encoder.finish().context(|| "write a compressed stream")?;
    Ok(counted.bytes)
}

/// The bytes of one frame or several. The library calls all that it finds wrong `Other`, as a reader may call its own
/// failures: what is not the reader's is damage.
pub(super) fn decoder<'a>(input: impl BufRead + Send + 'a) -> io::Result<impl Read + Send + 'a> {
    let failed = Arc::new(AtomicBool::new(false));
    let input = Watched {
        input,
        failed: Arc::clone(&failed),
    };
    let inner = zstd::stream::read::Decoder::with_buffer(input)?;
    Ok(Decoder { inner, failed })
}

struct Decoder<R> {
    inner: R,
    /// Whether the failure is one of the input.
    failed: Arc<AtomicBool>,
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buf).map_err(|error| match error.kind() {
            io::ErrorKind::Other if !self.failed.load(Ordering::Relaxed) => {
                io::Error::new(io::ErrorKind::InvalidData, error)
            }
            _ => error,
        })
    }
}

/// Remembers that a read failed.
struct Watched<R> {
    input: R,
    failed: Arc<AtomicBool>,
}

impl<R: BufRead> Watched<R> {
    fn note<T>(failed: &AtomicBool, outcome: io::Result<T>) -> io::Result<T> {
        if outcome.is_err() {
            failed.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

impl<R: BufRead> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Self::note(&self.failed, self.input.read(buf))
    }
}

impl<R: BufRead> BufRead for Watched<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Self::note(&self.failed, self.input.fill_buf())
    }

    fn consume(&mut self, amount: usize) {
        self.input.consume(amount);
    }
}
