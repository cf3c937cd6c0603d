//! Leases: what a living process needs is not swept.
//!
//! `leases/<pid>-<start time>-<boot>-<random>` holds one pinned digest in hexadecimal on each line, or `*`.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use dhow_types::Digest;
use rustix::process::{Pid, getpid};

use crate::sweep::{self, stop_sweeps};
use crate::{Context as _, Error};

/// More than this is not read of one lease: 100,000 pins.
const MAX_LEASE: u64 = 6_500_000;

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
        let name = own_name()?;
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
        self.pin_many(std::slice::from_ref(digest))
    }

    /// Keeps all of these, at the price of one.
    ///
    /// # Errors
    /// When the lease cannot be written.
    pub fn pin_many(&self, digests: &[Digest]) -> Result<(), Error> {
        if digests.is_empty() {
            return Ok(());
        }
        self.append(&lines(digests))?;
        stop_sweeps(&self.root, |swept| {
            digests.iter().any(|digest| swept.contains(digest))
        })
    }

    /// Keeps everything: for work whose digests are known only when it is done (load, import, a build's layers).
    ///
    /// # Errors
    /// When the lease cannot be written.
    pub fn pin_everything(&self) -> Result<(), Error> {
        self.append("*\n")?;
        stop_sweeps(&self.root, |_| true)
    }

    fn append(&self, lines: &str) -> Result<(), Error> {
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

    /// Adds what one file lists; one that is too long to read, or says something else, is everything: the safe side.
    pub(crate) fn add(&mut self, text: Option<&str>) {
        let Some(text) = text else {
            self.everything = true;
            return;
        };
        for line in text.lines() {
            match Digest::from_hex(line) {
                Ok(digest) => {
                    self.digests.insert(digest);
                }
                Err(_) => self.everything = true,
            }
        }
    }
}

/// Reads the leases of living processes. Decide by it only about what is announced (see [`Sweep`](crate::Sweep)).
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
        pins.add(text.as_deref());
    }
    Ok(pins)
}

/// Removes the leases of dead processes and what they announced (or only counts it), and returns how many there were.
///
/// # Errors
/// When `leases/` or the announcements cannot be read.
pub fn sweep_leases(root: &Path, remove: bool) -> Result<usize, Error> {
    let dead: Vec<PathBuf> = leases(root)?
        .into_iter()
        .chain(sweep::announced(root)?)
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
    let entries = std::fs::read_dir(&directory).context(|| format!("list {}", directory.display()))?;
    owned(&directory, entries)
}

/// What is in a directory of files that processes named with [`own_name`], and whether these live.
pub(crate) fn owned(directory: &Path, entries: std::fs::ReadDir) -> Result<Vec<(PathBuf, bool)>, Error> {
    let boot = boot()?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.context(|| format!("list {}", directory.display()))?;
        let name = entry.file_name();
        let alive = name.to_str().is_some_and(|name| owner_lives(name, &boot));
        found.push((entry.path(), alive));
    }
    Ok(found)
}

/// A name for a file of this process that nobody else has: `<pid>-<start time>-<boot>-<random>`.
pub(crate) fn own_name() -> Result<String, Error> {
    let owner = getpid();
    let start = start_time(owner).context(|| "read the start time of this process")?;
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(std::io::Error::from)
        .context(|| "get random bytes")?;
    let (pid, random) = (owner.as_raw_nonzero(), u64::from_ne_bytes(random));
    Ok(format!("{pid}-{start}-{}-{random:016x}", boot()?))
}

/// These digests as a lease has them: one in hexadecimal on each line.
pub(crate) fn lines(digests: &[Digest]) -> String {
    digests.iter().map(|digest| digest.hex() + "\n").collect()
}

pub(crate) fn owner_lives(name: &str, boot: &str) -> bool {
    let mut parts = name.trim_start_matches('.').split('-');
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
pub(crate) fn boot() -> Result<String, Error> {
    static KNOWN: OnceLock<String> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(known.clone());
    }
    let path = "/proc/sys/kernel/random/boot_id";
    let id = std::fs::read_to_string(path).context(|| format!("read {path}"))?;
    let known = || id.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    Ok(KNOWN.get_or_init(known).clone())
}

fn read_bounded(path: &Path) -> std::io::Result<Option<String>> {
    read_list(&File::open(path)?)
}

/// The text of a lease; nothing when it is too long.
pub(crate) fn read_list(file: &File) -> std::io::Result<Option<String>> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = file.take(MAX_LEASE + 1).read_to_string(&mut text)?;
    Ok((read as u64 <= MAX_LEASE).then_some(text))
}
