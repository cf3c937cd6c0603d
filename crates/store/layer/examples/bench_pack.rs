//! Measures the way out: capture of a directory and compression of its tar.
//!
//! `bench_pack DIRECTORY STORE`: the directory is copied into the store first, with `cp`, and stays where it is.

use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use dhow_layer::{Compression, LayerStore, compress};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(directory), Some(root)) = (arguments.next(), arguments.next()) else {
        return Err("usage: bench_pack DIRECTORY STORE".into());
    };
    let mut out = io::stdout().lock();
    let store = LayerStore::open(Path::new(&root))?;
    let mut small = Vec::new();
    for round in 0..50 {
        let tree = Path::new(&root).join(format!("tmp/small-{round}"));
        std::fs::create_dir(&tree)?;
        std::fs::write(tree.join("a"), format!("round {round}"))?;
        std::fs::write(tree.join("b"), "b")?;
        let start = Instant::now();
        let layer = store.capture(&tree)?;
        small.push(start.elapsed());
        store.remove(&layer.diff_id())?;
    }
    small.sort();
    writeln!(
        out,
        "capture of two small files: median {:.2?}",
        small[small.len() / 2]
    )?;

    let tree = Path::new(&root).join("tmp/large");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(&directory)
        .arg(&tree)
        .status()?;
    if !copied.success() {
        return Err("cp failed".into());
    }
    let start = Instant::now();
    let layer = store.capture(&tree)?;
    report(&mut out, "capture", start, layer.tar_size())?;
    for (what, compression) in [("gzip", Compression::Gzip), ("zstd", Compression::Zstd)] {
        let start = Instant::now();
        let written = compress(layer.tar()?, &mut io::sink(), compression)?;
        report(&mut out, what, start, layer.tar_size())?;
        writeln!(
            out,
            "{:>20}  to {:.1} %",
            "",
            100.0 * written as f64 / layer.tar_size() as f64
        )?;
    }
    let start = Instant::now();
    let problems = store.verify(&layer.diff_id())?;
    report(&mut out, "verify", start, layer.tar_size())?;
    store.remove(&layer.diff_id())?;
    store.sweep()?;
    if problems.is_empty() {
        Ok(())
    } else {
        Err("what was captured does not verify".into())
    }
}

fn report(out: &mut impl Write, what: &str, start: Instant, bytes: u64) -> io::Result<()> {
    let time = start.elapsed();
    let rate = bytes as f64 / 1e6 / time.as_secs_f64();
    writeln!(
        out,
        "{what:>20}: {:8.1} ms {rate:7.0} MB/s",
        time.as_secs_f64() * 1e3
    )
}
