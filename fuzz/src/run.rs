//! One target in a child process, and its parent, which learns how the child ended.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::mutate::Pool;
use crate::targets::Target;

/// Processor time that one input may take, unoptimised; the largest is 64 KiB.
const SLOW: Duration = Duration::from_millis(1500);
/// Time after which an input hangs.
const HANG: u64 = 30;
/// Memory of the child. A zstd window alone may be 128 MiB.
const MEMORY: u64 = 1 << 30;
/// Findings of one kind of one run that are kept.
const KEEP: usize = 5;

/// Where the child keeps the input that it runs.
fn current(target: &Target) -> PathBuf {
    std::env::temp_dir().join(format!("dhow-fuzz-{}", target.name))
}

fn found(target: &Target, what: &str, input: &[u8]) {
    let folder = crate::home().join("findings");
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let file = folder.join(format!("{}-{what}-{hash:016x}", target.name));
    let kept = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, input));
    match kept {
        Ok(()) => println!(
            "{}: {what}: {} ({} bytes)",
            target.name,
            file.display(),
            input.len()
        ),
        Err(error) => println!("{}: {what}, and it cannot be kept: {error}", target.name),
    }
}

/// Runs the child to its end; whether it found nothing.
pub(crate) fn supervise(target: &Target, seconds: u64, seed: u64) -> bool {
    let Ok(program) = std::env::current_exe() else {
        return false;
    };
    let status = Command::new(program)
        .args([
            target.name,
            "--worker",
            "--seconds",
            &seconds.to_string(),
            "--seed",
            &seed.to_string(),
        ])
        .status();
    let left = std::fs::read(current(target));
    drop(std::fs::remove_file(current(target)));
    match status {
        Ok(status) if status.success() => true,
        // It told what it found by itself.
        Ok(status) if status.code() == Some(1) => false,
        Ok(status) => {
            println!("{}: ended with {status}", target.name);
            found(target, "abort", &left.unwrap_or_default());
            false
        }
        Err(error) => {
            println!("{}: {error}", target.name);
            false
        }
    }
}

/// The child.
pub(crate) fn work(target: &Target, seconds: u64, seed: u64) -> bool {
    let limit = Rlimit {
        current: Some(MEMORY),
        maximum: Some(MEMORY),
    };
    if let Err(error) = setrlimit(Resource::Data, limit) {
        println!("{}: memory is not limited: {error}", target.name);
    }
    let Ok(note) = File::create(current(target)) else {
        println!("{}: {} cannot be written", target.name, current(target).display());
        return false;
    };
    std::panic::set_hook(Box::new(|_| ()));
    let count = Arc::new(AtomicU64::new(0));
    watch(Arc::clone(&count));
    let mut pool = Pool::new(crate::corpus(target.name), target.words, seed);
    let mut known = HashSet::new();
    let (mut panics, mut slow, mut longest) = (0, 0, Duration::ZERO);
    let mut first = pool.inputs().to_vec();
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let input = first.pop().unwrap_or_else(|| pool.next());
        count.fetch_add(1, Ordering::Relaxed);
        let noted = note.set_len(0).and_then(|()| note.write_all_at(&input, 0));
        if noted.is_err() {
            println!("{}: the input cannot be noted", target.name);
            return false;
        }
        let before = processor();
        let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
        let took = processor().saturating_sub(before);
        longest = longest.max(took);
        if took > SLOW {
            slow += 1;
            if slow <= KEEP {
                found(target, "slow", &input);
            }
        }
        match outcome {
            Ok(shape) if known.insert(shape) => pool.keep(input),
            Ok(_) => {}
            Err(_) => {
                panics += 1;
                if panics <= KEEP {
                    found(target, "panic", &input);
                }
            }
        }
    }
    println!(
        "{}: {} inputs in {seconds} s, {} kinds of outcome, longest {} ms; {panics} panics, {slow} slow",
        target.name,
        count.load(Ordering::Relaxed),
        known.len(),
        longest.as_millis(),
    );
    panics + slow == 0
}

fn processor() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// Aborts a process that stays with one input; its parent keeps that input.
fn watch(count: Arc<AtomicU64>) {
    let watching = move || {
        let mut last = (0, Instant::now());
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = count.load(Ordering::Relaxed);
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed().as_secs() > HANG {
                eprintln!("hangs with one input");
                std::process::abort();
            }
        }
    };
    drop(std::thread::spawn(watching));
}

/// Runs one input, with whatever it says.
pub(crate) fn replay(target: &Target, file: &Path) -> bool {
    let Ok(input) = std::fs::read(file) else {
        println!("{} cannot be read", file.display());
        return false;
    };
    let before = processor();
    let shape = (target.run)(&input);
    println!(
        "{}: {shape:?} in {} ms",
        target.name,
        processor().saturating_sub(before).as_millis()
    );
    true
}
