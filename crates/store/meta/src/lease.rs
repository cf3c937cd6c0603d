//! Leases: what a living process needs is not swept.
//!
//! `leases/<pid>-<start time>-<boot>-<random>` holds one pinned digest in hexadecimal on each line, or `*`.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dhow_types::Digest;
use rustix::fs::FlockOperation;
use rustix::process::{Pid, getpid};

use crate::held::Held;
use crate::{Context as _, Error};

/// More than this is not read of one lease: 100,000 pins.
const MAX_LEASE: u64 = 6_500_000;

/// Below a store's root: held shared by who pins, alone by who sweeps.
const GC: &str = "locks/gc";

/// Keeps digests (of layers and of blobs) from the sweeper; dropped, it keeps nothing.
#[derive(Debug)]
pub struct Lease {
    root: PathBuf,
    path: PathBuf,
    file: File,
    owner: Pid,
}

impl Lease {
    /// An empty lease of this process in the store at `root`.
    ///
    /// # Errors
    /// When `leases/` cannot be written.
    pub fn acquire(root: &Path) -> Result<Self, Error> {
        let owner = getpid();
        let start = start_time(owner).context(|| "read the start time of this process")?;
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(std::io::Error::from)
            .context(|| "get random bytes")?;
        let name = format!(
            "{}-{start}-{}-{:016x}",
            owner.as_raw_nonzero(),
            boot()?,
            u64::from_ne_bytes(random)
        );
        let path = root.join("leases").join(name);
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .context(|| format!("create {}", path.display()))?;
        Ok(Self {
            root: root.to_owned(),
            path,
            file,
            owner,
        })
    }

    /// Keeps `digest` from now on. Pin first, then look whether it is there.
    ///
    /// # Errors
    /// When the lease cannot be written.
    pub fn pin(&self, digest: &Digest) -> Result<(), Error> {
        self.append(&format!("{}\n", digest.hex()))
    }

    /// Keeps all of these, at the price of one.
    ///
    /// # Errors
    /// When the lease cannot be written.
    pub fn pin_many(&self, digests: &[Digest]) -> Result<(), Error> {
        if digests.is_empty() {
            return Ok(());
        }
        self.append(
            &digests
                .iter()
                .map(|digest| digest.hex() + "\n")
                .collect::<String>(),
        )
    }

    /// Keeps everything: for work whose digests are known only when it is done (load, import, a build's layers).
    ///
    /// # Errors
    /// When the lease cannot be written.
    pub fn pin_everything(&self) -> Result<(), Error> {
        self.append("*\n")
    }

    fn append(&self, lines: &str) -> Result<(), Error> {
        let _held = Held::take(&self.root.join(GC), FlockOperation::LockShared)?;
        (&self.file)
            .write_all(lines.as_bytes())
            .context(|| format!("write {}", self.path.display()))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A forked child has a copy of this value, but the lease is its parent's.
        if getpid() == self.owner {
            // When it cannot be removed now, it is void when the process ends.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// Held by the sweeper from before it reads the pins until it has renamed what nobody needs.
#[derive(Debug)]
pub struct SweepLock {
    _held: Held,
}

impl SweepLock {
    /// Waits until no pin is being made; new pins wait until this is dropped. Hold it for renames only.
    ///
    /// # Errors
    /// When the lock file cannot be opened.
    pub fn acquire(root: &Path) -> Result<Self, Error> {
        let held = Held::take(&root.join(GC), FlockOperation::LockExclusive)?;
        Ok(Self { _held: held })
    }
}

/// What living processes keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// Somebody keeps everything.
    pub everything: bool,
    /// The pinned digests.
    pub digests: HashSet<Digest>,
}

impl Pins {
    /// Whether this digest must stay.
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> bool {
        self.everything || self.digests.contains(digest)
    }
}

/// Reads the leases of living processes. Decide by it only under a [`SweepLock`].
///
/// # Errors
/// When `leases/` cannot be read.
pub fn live_pins(root: &Path) -> Result<Pins, Error> {
    let mut pins = Pins::default();
    for (path, alive) in leases(root)? {
        if !alive {
            continue;
        }
        let text = match read_bounded(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).context(|| format!("read {}", path.display())),
        };
        // A lease too long to read keeps everything: the safe side.
        let Some(text) = text else {
            pins.everything = true;
            continue;
        };
        for line in text.lines() {
            match Digest::from_hex(line) {
                Ok(digest) => {
                    pins.digests.insert(digest);
                }
                Err(_) => pins.everything = true,
            }
        }
    }
    Ok(pins)
}

/// Removes the leases of dead processes (or only counts them), and returns how many there were.
///
/// # Errors
/// When `leases/` cannot be read.
pub fn sweep_leases(root: &Path, remove: bool) -> Result<usize, Error> {
    let dead: Vec<PathBuf> = leases(root)?
        .into_iter()
        .filter_map(|(path, alive)| (!alive).then_some(path))
        .collect();
    for path in dead.iter().filter(|_| remove) {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(dead.len())
}

/// All leases, and whether their processes live.
fn leases(root: &Path) -> Result<Vec<(PathBuf, bool)>, Error> {
    let directory = root.join("leases");
    let boot = boot()?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&directory).context(|| format!("list {}", directory.display()))? {
        let entry = entry.context(|| format!("list {}", directory.display()))?;
        let name = entry.file_name();
        let alive = name.to_str().is_some_and(|name| owner_lives(name, &boot));
        found.push((entry.path(), alive));
    }
    Ok(found)
}

fn owner_lives(name: &str, boot: &str) -> bool {
    let mut parts = name.split('-');
    let (Some(pid), Some(start), Some(of_boot)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let (Ok(pid), Ok(start)) = (pid.parse::<i32>(), start.parse::<u64>()) else {
        return false;
    };
    of_boot == boot
        && Pid::from_raw(pid).is_some_and(|pid| start_time(pid).is_ok_and(|current| current == start))
}

/// Start time of a process in clock ticks since boot: field 22 of `/proc/<pid>/stat` (proc_pid_stat(5)).
fn start_time(pid: Pid) -> std::io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))?;
    // The name in field 2 may hold blanks and parentheses: count from the last one.
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19))
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidData))
}

/// The first eight characters of the boot id.
fn boot() -> Result<String, Error> {
    let path = "/proc/sys/kernel/random/boot_id";
    let id = std::fs::read_to_string(path).context(|| format!("read {path}"))?;
    Ok(id.chars().filter(char::is_ascii_hexdigit).take(8).collect())
}

fn read_bounded(path: &Path) -> std::io::Result<Option<String>> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_LEASE + 1).read_to_string(&mut text)?;
    Ok((read as u64 <= MAX_LEASE).then_some(text))
}
