//! Measures compression alone: `bench_deflate FILE...` compresses each as a layer that is pushed, and says what it took.
//!
//! Processor time counts, so a busy machine disturbs it less; on one thread (`taskset -c 0`) it is the encoder's own.

use std::fs::File;
use std::io::{self, Write};

use dhow_layer::{Compression, compress};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = io::stdout().lock();
    let (mut read, mut written, start) = (0, 0, spent()?);
    for path in std::env::args().skip(1) {
        let file = File::open(&path)?;
        read += file.metadata()?.len();
        written += compress(file, &mut io::sink(), Compression::Gzip)?;
    }
    let time = spent()? - start;
    writeln!(
        out,
        "{time:.2} s of processor time, {:.0} MB/s, {read} to {written} bytes ({:.3} %)",
        read as f64 / 1e6 / time,
        100.0 * written as f64 / read as f64
    )?;
    Ok(())
}

/// Seconds of user time of this process: the 14th field of `stat`, in hundredths.
fn spent() -> Result<f64, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let field = stat.split_whitespace().nth(13).ok_or("no such field")?;
    Ok(field.parse::<f64>()? / 100.0)
}
