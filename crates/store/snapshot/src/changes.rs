//! What was changed in a plain copy: it is compared with the indexes of its layers, down to the content of files that may
//! have been written to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use dhow_layer::{ContentHasher, EntryKind};
use dhow_rootpath::{FileKind, Root};
use dhow_types::{Digest, ErrorKind};
use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, ResolveFlags, Statx, StatxFlags, Timespec, Timestamps, XattrFlags, fchmod,
    fchown, fsetxattr, futimens, lgetxattr, llistxattr, mkdirat, openat, openat2, renameat, statx,
};
use rustix::io::Errno;

use crate::look::{Attribute, Look};
use crate::merged::{Identity, Merged, Named};
use crate::patch::{inside, join, parent_of};
use crate::stamps::Stamps;
use crate::{Context, Error};

/// Most bytes of attribute names, and of one value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR: usize = 64 << 10;

/// Trees with less content than this are hashed by one thread: starting another takes longer.
const ALONE: u64 = 1 << 20;

/// What a copy has that its layers have not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Paths that are new or different, and the directories that they and what is gone are in, sorted: parents first.
    pub written: BTreeSet<Vec<u8>>,
    /// Paths that the layers have and the copy has not; of a directory only itself.
    pub gone: Vec<Vec<u8>>,
}

/// One name of the copy.
struct Seen {
    stat: Statx,
    kind: FileKind,
}

impl Seen {
    fn inode(&self) -> (u32, u32, u64) {
        (
            self.stat.stx_dev_major,
            self.stat.stx_dev_minor,
            self.stat.stx_ino,
        )
    }

    fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }
}

/// Compares the tree with what the layers show.
pub(crate) fn find(tree: &Path, merged: &Merged, stamps: &Stamps) -> Result<Changes, Error> {
    let root = Root::open(tree).context(|| format!("open {}", tree.display()))?;
    let seen = walk(&root)?;
    let mut written = BTreeSet::new();
    let mut contents = Vec::new();
    for (path, there) in &seen {
        let look = || format!("compare {}", String::from_utf8_lossy(path));
        match compare(&root, path, there, merged.find(path)).context(look)? {
            Comparison::Different => drop(written.insert(path.clone())),
            Comparison::Same => {}
            Comparison::IfContent(_) if stamps.hold(&there.stat) => {}
            Comparison::IfContent(content) => contents.push((path.as_slice(), there.stat.stx_size, content)),
        }
    }
    written.extend(different(&root, &contents)?);
    relink(&seen, merged, &mut written);
    let gone = gone(&seen, merged)?;
    let parents: BTreeSet<Vec<u8>> = written
        .iter()
        .chain(&gone)
        .flat_map(|path| parents(path))
        .collect();
    written.extend(parents);
    Ok(Changes { written, gone })
}

/// Notes the files of a copy that was just made.
pub(crate) fn stamp(dir: &Path, root: &Root) -> Result<(), Error> {
    let moment = std::time::SystemTime::now();
    let seen = walk(root)?;
    let files = seen.values().filter(|there| there.kind == FileKind::File);
    Stamps::write(dir, moment, files.map(|there| &there.stat))
}

/// The directories above a path, without the root.
fn parents(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes.map(|(at, _)| path[..at].to_vec())
}

/// All names of the tree but sockets, which no layer holds.
fn walk(root: &Root) -> Result<BTreeMap<Vec<u8>, Seen>, Error> {
    let mut seen = BTreeMap::new();
    let mut todo = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let what = || format!("read {}", String::from_utf8_lossy(&path));
        let fd = open_dir(root, &path).map_err(io::Error::from).context(what)?;
        let mut dir = Dir::read_from(&fd).map_err(io::Error::from).context(what)?;
        while let Some(name) = dir.read() {
            let name = name.map_err(io::Error::from).context(what)?;
            let name = name.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let stat = statx(&fd, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS);
            let stat = stat.map_err(io::Error::from).context(what)?;
            let kind = FileKind::of_mode(u32::from(stat.stx_mode));
            let inner = join(&path, name);
            if kind == FileKind::Directory {
                todo.push(inner.clone());
            }
            if kind != FileKind::Socket {
                seen.insert(inner, Seen { stat, kind });
            }
        }
    }
    Ok(seen)
}

fn open_dir(root: &Root, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let name = if path.is_empty() { b"." } else { path };
    openat2(root.as_fd(), name, flags, Mode::empty(), resolve)
}

enum Comparison {
    Same,
    Different,
    /// Equal but for the content, which should be this.
    IfContent(Digest),
}

fn compare(root: &Root, path: &[u8], there: &Seen, named: Option<Named<'_>>) -> Result<Comparison, Error> {
    let Some(named) = named else {
        return Ok(Comparison::Different);
    };
    let file = named.file();
    let stat = &there.stat;
    let same = kind_of(file.kind) == Some(there.kind)
        && file.mtime == stat.stx_mtime.tv_sec
        && match file.kind {
            EntryKind::File => file.size == stat.stx_size,
            EntryKind::Symlink => {
                let target = root.read_link(inside(path)).context(|| "read the link")?;
                target.as_os_str().as_bytes() == file.link
            }
            EntryKind::CharDevice | EntryKind::BlockDevice => {
                (file.major, file.minor) == (stat.stx_rdev_major, stat.stx_rdev_minor)
            }
            _ => true,
        };
    if !same || !is_worn(root, path, there, &named)? {
        return Ok(Comparison::Different);
    }
    Ok(match (file.kind, file.content) {
        (EntryKind::File, _) if file.size == 0 => Comparison::Same,
        (EntryKind::File, Some(content)) => Comparison::IfContent(content),
        (EntryKind::File, None) => Comparison::Different,
        _ => Comparison::Same,
    })
}

fn is_worn(root: &Root, path: &[u8], there: &Seen, named: &Named<'_>) -> Result<bool, Error> {
    let file = named.file();
    let look = match named.root()? {
        Some(layer) => Look::of_stored(file, layer, &named.entry.path)?,
        None => Some(Look::of(file)),
    };
    let xattrs = match there.kind {
        FileKind::File | FileKind::Directory => xattrs(root, path)?,
        // Links and devices hold no attributes that a layer keeps (xattr(7)).
        _ => Vec::new(),
    };
    let owner = (there.stat.stx_uid, there.stat.stx_gid);
    let mode = u32::from(there.stat.stx_mode) & 0o7777;
    Ok(look.is_some_and(|look| look.is_worn(owner, mode, &xattrs)))
}

fn kind_of(kind: EntryKind) -> Option<FileKind> {
    Some(match kind {
        EntryKind::File => FileKind::File,
        EntryKind::Directory => FileKind::Directory,
        EntryKind::Symlink => FileKind::Symlink,
        EntryKind::CharDevice => FileKind::CharDevice,
        EntryKind::BlockDevice => FileKind::BlockDevice,
        EntryKind::Fifo => FileKind::Fifo,
        EntryKind::Hardlink | EntryKind::Whiteout => return None,
    })
}

/// The attributes that layers keep, sorted by name.
fn xattrs(root: &Root, path: &[u8]) -> Result<Vec<Attribute>, Error> {
    let (dir, name) = root.parent_of(inside(path)).context(|| "find it")?;
    let mut target = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    target.extend_from_slice(name.as_bytes());
    let mut small = [0; 256];
    let mut buffer = Vec::new();
    let count = match llistxattr(&target, &mut small[..]) {
        Err(Errno::OPNOTSUPP) | Ok(0) => return Ok(Vec::new()),
        Ok(count) => {
            buffer.extend_from_slice(&small[..count]);
            count
        }
        Err(_) => {
            buffer.resize(XATTR, 0);
            let count = llistxattr(&target, &mut buffer[..]);
            count.map_err(io::Error::from).context(|| "list its attributes")?
        }
    };
    let mut found = Vec::new();
    let mut value = Vec::new();
    for key in buffer[..count]
        .split(|byte| *byte == 0)
        .filter(|key| is_kept(key))
    {
        value.resize(XATTR, 0);
        let count = lgetxattr(&target, key, &mut value[..])
            .map_err(io::Error::from)
            .context(|| "read an attribute of it")?;
        found.push((key.to_vec(), value[..count].to_vec()));
    }
    found.sort();
    Ok(found)
}

fn is_kept(key: &[u8]) -> bool {
    (key.starts_with(b"user.") && !key.starts_with(b"user.overlay.")) || key == b"security.capability"
}

/// Those of the files that have another content.
fn different(root: &Root, contents: &[(&[u8], u64, Digest)]) -> Result<Vec<Vec<u8>>, Error> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<Vec<u8>>, Error> {
        let mut found = Vec::new();
        while let Some((path, _, expected)) = contents.get(next.fetch_add(1, Ordering::Relaxed)) {
            if hash(root, path).context(|| format!("compare {}", String::from_utf8_lossy(path)))? != *expected
            {
                found.push(path.to_vec());
            }
        }
        Ok(found)
    };
    let bytes: u64 = contents.iter().map(|(_, size, _)| size).sum();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if bytes < ALONE || threads < 2 {
        return work();
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.min(8)).map(|_| scope.spawn(work)).collect();
        let mut found = Vec::new();
        for worker in workers {
            let died = || Err(Error::new(ErrorKind::Internal, "a comparing thread died"));
            found.extend(worker.join().unwrap_or_else(|_| died())?);
        }
        Ok(found)
    })
}

fn hash(root: &Root, path: &[u8]) -> Result<Digest, Error> {
    let mut file = root.open_file(inside(path)).context(|| "open it")?;
    let mut hasher = ContentHasher::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer).context(|| "read it")? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// Adds the names of files that are linked otherwise than in the layers, and all names of those that are different: a layer
/// can say so of all of them only.
fn relink(seen: &BTreeMap<Vec<u8>, Seen>, merged: &Merged, written: &mut BTreeSet<Vec<u8>>) {
    let mut stored: HashMap<Identity, BTreeSet<&[u8]>> = HashMap::new();
    for (path, named) in merged.names() {
        let same = seen.contains_key(path) && !written.contains(path);
        if let Some(identity) = named
            .identity()
            .filter(|_| same && named.entry.kind != EntryKind::Directory)
        {
            stored.entry(identity).or_default().insert(path);
        }
    }
    let mut now: HashMap<(u32, u32, u64), BTreeSet<&[u8]>> = HashMap::new();
    for (path, there) in seen.iter().filter(|(_, there)| !there.is_dir()) {
        now.entry(there.inode()).or_default().insert(path);
    }
    let mut also = Vec::new();
    for names in now.values() {
        let first = names.first().and_then(|first| merged.find(first)?.identity());
        let as_before = first.and_then(|identity| stored.get(&identity)) == Some(names);
        if !as_before {
            also.extend(names.iter().map(|name| name.to_vec()));
        }
    }
    written.extend(also);
}

/// Names that the layers have and the tree has not.
fn gone(seen: &BTreeMap<Vec<u8>, Seen>, merged: &Merged) -> Result<Vec<Vec<u8>>, Error> {
    let mut gone = Vec::new();
    for (path, named) in merged.names().filter(|(path, _)| !seen.contains_key(*path)) {
        let parent = parent_of(path);
        if !parent.is_empty() && !seen.get(parent).is_some_and(Seen::is_dir) {
            continue;
        }
        if !dhow_layer::privileged()
            && let Some(layer) = named.root()?
            && !layer
                .exists(inside(&named.entry.path))
                .context(|| "look into a layer")?
        {
            // A device that could not be made, neither in the layer nor here.
            continue;
        }
        gone.push(path.to_vec());
    }
    Ok(gone)
}

/// Moves what was changed into the empty directory `to`; the tree is spent then.
pub(crate) fn take(tree: &Path, changes: &Changes, to: &Path) -> Result<(), Error> {
    let from = Root::open(tree).context(|| format!("open {}", tree.display()))?;
    let to = Root::open(to).context(|| format!("open {}", to.display()))?;
    let mut directories = Vec::new();
    for path in &changes.written {
        let what = || format!("take {}", String::from_utf8_lossy(path));
        let call = |done: Result<(), Errno>| done.map_err(io::Error::from).context(what);
        let (old_dir, old) = from.parent_of(inside(path)).context(what)?;
        let (new_dir, new) = to.parent_of(inside(path)).context(what)?;
        let stat = statx(&old_dir, &old, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
            .map_err(io::Error::from)
            .context(what)?;
        if FileKind::of_mode(u32::from(stat.stx_mode)) != FileKind::Directory {
            call(renameat(&old_dir, &old, &new_dir, &new))?;
            continue;
        }
        call(mkdirat(&new_dir, &new, Mode::RWXU))?;
        directories.push((path, stat, xattrs(&from, path).context(what)?));
    }
    for (path, stat, xattrs) in directories.into_iter().rev() {
        let what = || format!("dress {}", String::from_utf8_lossy(path));
        let dir = to.resolve_nofollow(inside(path)).context(what)?;
        dress(&dir, &stat, &xattrs)
            .map_err(io::Error::from)
            .context(what)?;
    }
    Ok(())
}

/// Gives a directory what another of this host had.
fn dress(dir: &OwnedFd, stat: &Statx, xattrs: &[Attribute]) -> Result<(), Errno> {
    use rustix::fs::{Gid, Uid};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = openat(dir, ".", flags, Mode::empty())?;
    fchown(
        &dir,
        Some(Uid::from_raw(stat.stx_uid)),
        Some(Gid::from_raw(stat.stx_gid)),
    )?;
    fchmod(&dir, Mode::from_raw_mode(u32::from(stat.stx_mode) & 0o7777))?;
    for (key, value) in xattrs {
        fsetxattr(&dir, key.as_slice(), value, XattrFlags::empty())?;
    }
    let time = |time: rustix::fs::StatxTimestamp| Timespec {
        tv_sec: time.tv_sec,
        tv_nsec: time.tv_nsec.into(),
    };
    let times = Timestamps {
        last_access: time(stat.stx_atime),
        last_modification: time(stat.stx_mtime),
    };
    futimens(&dir, &times)
}
