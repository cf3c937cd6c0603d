//! Inflates a file of gzip with this crate and with zlib-rs in turn, and prints what each makes in a second of processor time:
//! the medians of the rounds. There are no system calls in between, so that is user time.
//!
//! `bench_inflate LAYER.tar.gz [ROUNDS]`. The file is read into memory first; both check the CRC-32.

use std::io::{self, BufReader, Read, Write};

use flate2::bufread::MultiGzDecoder;

use dhow_layer::decoder;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let Some(file) = arguments.next() else {
        return Err("usage: bench_inflate LAYER.tar.gz [ROUNDS]".into());
    };
    let rounds: usize = arguments.next().map_or(Ok(11), |text| text.parse())?;
    let packed = std::fs::read(file)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut length = 0;
    for _ in 0..rounds.max(1) {
        let start = processor()?;
        length = drain(decoder(packed.as_slice())?.1)?;
        ours.push(processor()? - start);
        let start = processor()?;
        let other = drain(MultiGzDecoder::new(BufReader::with_capacity(
            128 << 10,
            packed.as_slice(),
        )))?;
        theirs.push(processor()? - start);
        if other != length {
            return Err("both do not make the same".into());
        }
    }
    let (ours, theirs) = (median(ours), median(theirs));
    let rate = |seconds: f64| length as f64 / 1e6 / seconds;
    writeln!(
        io::stdout(),
        "{length} bytes: ours {:.1} ms, {:.0} MB/s; zlib-rs {:.1} ms, {:.0} MB/s; {:.2} times",
        ours * 1e3,
        rate(ours),
        theirs * 1e3,
        rate(theirs),
        theirs / ours
    )?;
    Ok(())
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Processor time of this process so far, in seconds.
fn processor() -> Outcome<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}

fn drain(mut input: impl Read) -> Outcome<u64> {
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        match input.read(&mut buffer)? {
            0 => return Ok(total),
            count => total += count as u64,
        }
    }
}
