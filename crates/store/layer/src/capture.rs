//! Capture: a directory becomes a layer where it is, without a copy.
//!
//! The tree is walked once; then its canonical tar goes through SHA-256 without being stored, while the contents of the
//! files are hashed beside it. What overlayfs wrote for itself is taken off, so that equal trees give equal layers.

mod walk;

use std::collections::HashSet;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use dhow_hash::Hasher;
use dhow_rootpath::Root;
use dhow_types::{DiffId, Digest, ErrorKind};
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, StatxFlags, StatxTimestamp, Timespec, Timestamps, Uid, statx, utimensat,
};

use self::walk::Found;
use crate::hash::ContentHasher;
use crate::state::{Form, State, boot_id};
use crate::tar::Writer;
use crate::unpack::{disk_of, make_whiteout};
use crate::{Capture, Context, Entry, EntryKind, Error, Index};

/// Trees with less content than this are hashed by one thread: starting another takes longer.
const ALONE: u64 = 1 << 20;

/// Bytes of a file read at once.
const BUFFER: usize = 128 << 10;

/// Makes `dir` a layer of `upper`: `fs`, `index` and `state`. On failure `upper` is where it was.
pub(crate) fn capture(upper: &Path, dir: &Path, how: &Capture) -> Result<(DiffId, State), Error> {
    let root = Root::open(upper).context(|| format!("open {}", upper.display()))?;
    let what = || format!("read the tree {}", upper.display());
    let unmarked = delete(&root, &how.gone).context(what)?;
    let mut found = walk::walk(&root, how.clamp).context(what)?;
    for found in found
        .iter_mut()
        .filter(|found| unmarked.contains(&found.entry.path))
    {
        found.entry = Entry::new(std::mem::take(&mut found.entry.path), EntryKind::Whiteout, 0);
    }
    link(&mut found);
    let size = found.iter().map(|found| found.entry.size).sum();
    let disk: u64 = found.iter().map(|found| found.disk).sum();
    let mut entries: Vec<Entry> = found.into_iter().map(|found| found.entry).collect();
    let (diff_id, tar) = hash(&root, &mut entries, size)?;
    let index = Index::encode(&entries)?;
    std::fs::write(dir.join("index"), &index).context(|| "write the index of a layer")?;
    let state = State {
        boot: boot_id()?.to_owned(),
        durable: false,
        form: Form::Canonical,
        size,
        disk: disk + 4096 + disk_of(index.len() as u64),
        tar,
        implied: 0,
        opaque_root: entries
            .first()
            .is_some_and(|entry| entry.path.is_empty() && entry.opaque),
        owners: crate::privileged(),
        marks: unmarked.is_empty(),
    };
    state.write(dir)?;
    take(upper, dir)?;
    Ok((diff_id, state))
}

/// Makes whiteouts in the tree; those that only the index can have.
fn delete(root: &Root, gone: &[Vec<u8>]) -> Result<HashSet<Vec<u8>>, Error> {
    let mut unmarked = HashSet::new();
    for path in gone {
        let inside = Path::new(std::ffi::OsStr::from_bytes(path));
        let what = || format!("delete {}", inside.display());
        let (dir, name) = root.parent_of(inside).context(what)?;
        let marked = delete_one(dir.as_fd(), name.as_bytes())
            .map_err(io::Error::from)
            .context(what)?;
        if !marked {
            unmarked.insert(path.clone());
        }
    }
    Ok(unmarked)
}

/// Makes one whiteout. The directory keeps its time: what is deleted was gone when it got that.
fn delete_one(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<bool> {
    let before = statx(
        dir,
        c"",
        AtFlags::EMPTY_PATH,
        StatxFlags::MTIME | StatxFlags::ATIME,
    )?;
    let marked = make_whiteout(dir, name)?;
    let time = |time: StatxTimestamp| Timespec {
        tv_sec: time.tv_sec,
        tv_nsec: time.tv_nsec.into(),
    };
    let times = Timestamps {
        last_access: time(before.stx_atime),
        last_modification: time(before.stx_mtime),
    };
    utimensat(dir, c".", &times, AtFlags::empty())?;
    Ok(marked)
}

/// Moves the tree to its place; its root looks as that of every layer does.
fn take(upper: &Path, dir: &Path) -> Result<(), Error> {
    let what = || format!("move {} into the store", upper.display());
    let top = std::fs::File::open(upper).context(what)?;
    if crate::privileged() {
        rustix::fs::fchown(&top, Some(Uid::ROOT), Some(Gid::ROOT))
            .map_err(io::Error::from)
            .context(what)?;
    }
    rustix::fs::fchmod(&top, Mode::from_raw_mode(0o755))
        .map_err(io::Error::from)
        .context(what)?;
    match rustix::fs::renameat(CWD, upper, CWD, dir.join("fs")) {
        Err(rustix::io::Errno::XDEV) => Err(Error::new(ErrorKind::InvalidArgument, what())
            .with_hint("the directory and the store must be on one file system")),
        other => other.map_err(io::Error::from).context(what),
    }
}

/// Of the names of one inode the first stays the file, the others become hard links to it.
fn link(found: &mut [Found]) {
    let mut first: std::collections::HashMap<(u64, u64), Vec<u8>> = std::collections::HashMap::new();
    for found in found.iter_mut() {
        let Some(inode) = found.shared else { continue };
        match first.get(&inode) {
            None => {
                first.insert(inode, found.entry.path.clone());
            }
            Some(original) => {
                found.entry.kind = EntryKind::Hardlink;
                found.entry.link.clone_from(original);
                found.entry.size = 0;
                found.entry.xattrs.clear();
                found.disk = 0;
            }
        }
    }
}

/// The diff id and the length of the canonical tar; sets the content hashes.
fn hash(root: &Root, entries: &mut [Entry], size: u64) -> Result<(DiffId, u64), Error> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if size < ALONE || threads < 2 {
        for entry in entries.iter_mut().filter(|entry| entry.kind == EntryKind::File) {
            entry.content = Some(content(root, entry)?);
        }
        return tar(root, entries);
    }
    let next = AtomicUsize::new(0);
    let whole: &[Entry] = entries;
    let (made, contents) = std::thread::scope(|scope| {
        // The tar is one hash after another, so this thread is busy with it to the end.
        let workers: Vec<_> = (1..threads.min(8))
            .map(|_| scope.spawn(|| contents(root, whole, &next)))
            .collect();
        let made = tar(root, whole);
        let died = || Err(Error::new(ErrorKind::Internal, "a hashing thread died"));
        let contents: Result<Vec<_>, Error> = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| died()))
            .collect();
        (made, contents)
    });
    let made = made?;
    for (at, digest) in contents?.into_iter().flatten() {
        entries[at].content = Some(digest);
    }
    Ok(made)
}

/// Hashes the files whose turn comes: number of the entry, and its content.
fn contents(root: &Root, entries: &[Entry], next: &AtomicUsize) -> Result<Vec<(usize, Digest)>, Error> {
    let mut done = Vec::new();
    loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        let Some(entry) = entries.get(at) else {
            return Ok(done);
        };
        if entry.kind == EntryKind::File {
            done.push((at, content(root, entry)?));
        }
    }
}

fn content(root: &Root, entry: &Entry) -> Result<Digest, Error> {
    let mut hasher = ContentHasher::new();
    read(root, entry, |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    Ok(hasher.finish())
}

/// Gives the content of a file to `each`, exactly as long as its entry says.
fn read(root: &Root, entry: &Entry, mut each: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
    if entry.size == 0 {
        return Ok(());
    }
    let path = Path::new(std::ffi::OsStr::from_bytes(&entry.path));
    let file = root.open_file(path).context(|| "open a file to capture")?;
    let mut buffer = vec![0; BUFFER.min(usize::try_from(entry.size).unwrap_or(BUFFER).saturating_add(1))];
    let mut left = entry.size;
    loop {
        let count = match rustix::io::read(&file, &mut buffer[..]) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other
                .map_err(io::Error::from)
                .context(|| format!("read {}", path.display()))?,
        };
        match left.checked_sub(count as u64) {
            Some(rest) if count > 0 => left = rest,
            Some(0) => return Ok(()),
            _ => {
                let message = format!("{} changed while it was captured", path.display());
                return Err(Error::new(ErrorKind::FailedPrecondition, message));
            }
        }
        each(&buffer[..count])?;
    }
}

fn tar(root: &Root, entries: &[Entry]) -> Result<(DiffId, u64), Error> {
    let mut writer = Writer::new(Hashed {
        hasher: Hasher::new(),
        bytes: 0,
    });
    for entry in entries {
        writer.append_header(entry)?;
        if entry.kind == EntryKind::File {
            read(root, entry, |bytes| {
                writer.output().write_all(bytes).context(|| "hash a layer")
            })?;
            writer.pad(entry.size)?;
        }
    }
    let done = writer.finish()?;
    Ok((DiffId(done.hasher.finish()), done.bytes))
}

/// An output that is only hashed and counted.
struct Hashed {
    hasher: Hasher,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.hasher.update(buf);
        self.bytes += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
