//! Unpacks a layer tar several times and prints what each stage costs.
//!
//! `bench_unpack LAYER.tar.gz STORE [ROUNDS]`: the store directory must be on the file system to be measured; the
//! layer is removed again after each round.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use dhow_layer::{LayerStore, Limits, Unpack, decoder};
use dhow_types::Hasher;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(tar), Some(store)) = (arguments.next(), arguments.next()) else {
        return Err("usage: bench_unpack LAYER.tar.gz STORE [ROUNDS]".into());
    };
    let rounds: usize = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let mut out = io::stdout().lock();
    let compressed = std::fs::metadata(&tar)?.len();
    let store = LayerStore::open(Path::new(&store))?;

    let (inflate, length) = best(rounds, || drain(decoder(File::open(&tar)?)?.1))?;
    report(&mut out, "inflate", inflate, length)?;
    let (hash, _) = best(rounds, || hash(decoder(File::open(&tar)?)?.1))?;
    report(&mut out, "inflate + diff id", hash, length)?;
    let (parse, entries) = best(rounds, || parse(decoder(File::open(&tar)?)?.1))?;
    report(&mut out, "inflate + parse", parse, length)?;
    let (unpack, disk) = best(rounds, || unpack(&store, &tar))?;
    report(&mut out, "unpack", unpack, length)?;
    let (rebuild, _) = rebuild(&store, &tar)?;
    report(&mut out, "rebuild the tar", rebuild, length)?;
    writeln!(
        out,
        "{entries} entries, {compressed} bytes compressed, {length} bytes of tar, {disk} bytes of disk, {:.1} us per entry",
        unpack.as_secs_f64() * 1e6 / entries as f64
    )?;
    Ok(())
}

/// The shortest time of several rounds, and what the last gave.
fn best<T>(rounds: usize, mut round: impl FnMut() -> Outcome<T>) -> Outcome<(Duration, T)> {
    let mut shortest = Duration::MAX;
    let mut last = None;
    for _ in 0..rounds.max(1) {
        let start = Instant::now();
        last = Some(round()?);
        shortest = shortest.min(start.elapsed());
    }
    last.map(|last| (shortest, last))
        .ok_or_else(|| "no rounds".into())
}

fn report(out: &mut impl Write, what: &str, time: Duration, bytes: u64) -> io::Result<()> {
    let rate = bytes as f64 / 1e6 / time.as_secs_f64();
    writeln!(
        out,
        "{what:>20}: {:8.1} ms  {rate:7.0} MB/s",
        time.as_secs_f64() * 1e3
    )
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

fn hash(mut input: impl Read) -> Outcome<u64> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match input.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Ok(u64::from(hasher.finish().as_bytes()[0]))
}

fn parse(input: impl Read) -> Outcome<u64> {
    let mut reader = dhow_layer::tar::Reader::with_limits(input, Limits::default());
    let mut entries = 0;
    while reader.next_entry()?.is_some() {
        entries += 1;
    }
    Ok(entries)
}

fn unpack(store: &LayerStore, tar: &str) -> Outcome<u64> {
    let unpacked = store.unpack(File::open(tar)?, &Unpack::default())?;
    let disk = unpacked.layer.disk();
    store.remove(&unpacked.layer.diff_id())?;
    Ok(disk)
}

fn rebuild(store: &LayerStore, tar: &str) -> Outcome<(Duration, ())> {
    let layer = store.unpack(File::open(tar)?, &Unpack::default())?.layer;
    let start = Instant::now();
    let mut hasher = Hasher::new();
    let mut stream = layer.tar()?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    let time = start.elapsed();
    if hasher.finish() != layer.diff_id().0 {
        return Err("the tar did not come back".into());
    }
    store.remove(&layer.diff_id())?;
    store.sweep()?;
    Ok((time, ()))
}
