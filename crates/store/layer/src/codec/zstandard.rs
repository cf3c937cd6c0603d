use std::io::{self, Read, Write};

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
