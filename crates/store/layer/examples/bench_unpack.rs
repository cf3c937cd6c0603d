//! Unpacks a layer tar several times and prints what each stage costs: the shortest wall time of the rounds, and the
//! processor time of all threads in that round, which says more on a machine that does other things as well.
//!
//! `bench_unpack LAYER.tar.gz STORE [ROUNDS [erofs]]`: the store directory must be on the file system to be measured; the
//! layer is removed again after each round.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use dhow_layer::{Backend, LayerStore, Limits, Unpack, decoder};
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
    let backend = match arguments.next().as_deref() {
        Some("erofs") => Backend::Erofs,
        _ => Backend::Directories,
    };
    let store = LayerStore::open_with(Path::new(&store), backend)?;

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
        "{entries} entries, {compressed} bytes compressed, {length} bytes of tar, {disk} bytes of disk, {:.1} us of processor per entry",
        unpack.processor.as_secs_f64() * 1e6 / entries as f64
    )?;
    Ok(())
}

/// The shortest time of several rounds, and what the last gave.
fn best<T>(rounds: usize, mut round: impl FnMut() -> Outcome<T>) -> Outcome<(Time, T)> {
    let mut shortest = Time {
        wall: Duration::MAX,
        processor: Duration::ZERO,
    };
    let mut last = None;
    for _ in 0..rounds.max(1) {
        let start = Start::now();
        last = Some(round()?);
        let time = start.elapsed();
        if time.wall < shortest.wall {
            shortest = time;
        }
    }
    last.map(|last| (shortest, last))
        .ok_or_else(|| "no rounds".into())
}

#[derive(Clone, Copy)]
struct Time {
    wall: Duration,
    processor: Duration,
}

struct Start(Instant, Duration);

impl Start {
    fn now() -> Self {
        Self(Instant::now(), processor())
    }

    fn elapsed(&self) -> Time {
        Time {
            wall: self.0.elapsed(),
            processor: processor().saturating_sub(self.1),
        }
    }
}

/// Processor time of this process so far.
fn processor() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

fn report(out: &mut impl Write, what: &str, time: Time, bytes: u64) -> io::Result<()> {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let rate = bytes as f64 / 1e6 / time.wall.as_secs_f64();
    writeln!(
        out,
        "{what:>20}: {:8.1} ms {rate:7.0} MB/s {:8.1} ms of processor",
        ms(time.wall),
        ms(time.processor)
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

fn rebuild(store: &LayerStore, tar: &str) -> Outcome<(Time, ())> {
    let layer = store.unpack(File::open(tar)?, &Unpack::default())?.layer;
    let start = Start::now();
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
