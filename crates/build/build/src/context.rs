//! The build context: a directory of the person's, minus what `.dockerignore` names.
//!
//! Names are opened one by one below directory descriptors that came from [`Root`], never as paths, and links are
//! not followed by the kernel, so the context cannot lead outside of itself while it is read.

mod walk;

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use dhow_layer::ContentHasher;
use dhow_rootpath::Root;
use dhow_types::{Digest, ErrorKind};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

use crate::digests::{Digests, Identity};
use crate::failure::{Context as _, Error, invalid};
use crate::ignore::{Matched, Patterns};
use crate::keys::xattr_digest;
use crate::request::{Ignore, Request};
use crate::source::{Item, ItemKind, Opened, Source, Xattrs, join};

/// Deepest nesting of a context: one descriptor is open for each level.
const MAX_DEPTH: usize = 500;
/// Largest `.dockerignore`.
const MAX_IGNORE: u64 = 1 << 20;
/// Hashing less than this is not worth a thread.
const PARALLEL_BYTES: u64 = 1 << 20;

/// The context of a build.
#[derive(Debug)]
pub(crate) struct Context {
    root: Root,
    ignore: Patterns,
    digests: RwLock<Digests>,
}

impl Context {
    /// Opens the context of a request; `None` when it has none.
    pub(crate) fn open(request: &Request, cache: &Path) -> Result<Option<Self>, Error> {
        let Some(path) = &request.context else {
            return Ok(None);
        };
        let root = Root::open(path).context(|| format!("open the build context {}", path.display()))?;
        let ignore = match &request.ignore {
            Ignore::Text(text) => Patterns::parse(text),
            Ignore::InContext | Ignore::Containers => read_ignore(
                &root,
                &request.dockerfile_name,
                request.ignore == Ignore::Containers,
            ),
        };
        Ok(Some(Self {
            ignore: ignore.context(|| "read .dockerignore")?,
            digests: RwLock::new(Digests::open(cache, path)),
            root,
        }))
    }

    /// A directory of another name, with the patterns in it.
    pub(crate) fn named(path: &Path, cache: &Path) -> Result<Self, Error> {
        let root = Root::open(path).context(|| format!("open the build context {}", path.display()))?;
        Ok(Self {
            ignore: read_ignore(&root, "Dockerfile", false).context(|| "read .dockerignore")?,
            digests: RwLock::new(Digests::open(cache, path)),
            root,
        })
    }

    /// A directory without what some patterns name.
    pub(crate) fn without(path: &Path, ignore: Patterns, cache: &Path) -> Result<Self, Error> {
        let root = Root::open(path).context(|| format!("open {}", path.display()))?;
        Ok(Self {
            ignore,
            digests: RwLock::new(Digests::open(cache, path)),
            root,
        })
    }

    /// What a request leaves out of its context; `None` when it has none.
    pub(crate) fn patterns(request: &Request) -> Result<Option<Patterns>, Error> {
        let Some(path) = &request.context else {
            return Ok(None);
        };
        let root = Root::open(path).context(|| format!("open the build context {}", path.display()))?;
        let ignore = match &request.ignore {
            Ignore::Text(text) => Patterns::parse(text),
            Ignore::InContext | Ignore::Containers => read_ignore(
                &root,
                &request.dockerfile_name,
                request.ignore == Ignore::Containers,
            ),
        };
        Ok(Some(ignore.context(|| "read .dockerignore")?))
    }

    /// What is left out.
    pub(crate) const fn ignored(&self) -> &Patterns {
        &self.ignore
    }

    fn known(&self) -> RwLockReadGuard<'_, Digests> {
        self.digests.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn digests(&self) -> RwLockWriteGuard<'_, Digests> {
        self.digests.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the hashes for the next build.
    pub(crate) fn save(&self) -> Result<(), Error> {
        self.digests().save()
    }

    /// Whether a path is left out; a directory stays when something below it stays.
    fn leaves_out(&self, path: &[u8], directory: bool) -> Result<bool, Error> {
        if path.is_empty() || self.ignore.is_empty() {
            return Ok(false);
        }
        let (matched, state) = self.ignore.matches_with_parents(path);
        if !matched || !directory || !self.ignore.may_except_below(path) {
            return Ok(matched);
        }
        Ok(!self.keeps_some(self.directory(path)?, path, &state, 0)?)
    }

    /// Whether something below a directory that matches is excepted.
    fn keeps_some(&self, dir: OwnedFd, path: &[u8], above: &Matched, depth: usize) -> Result<bool, Error> {
        check_depth(depth)?;
        for name in names(dir.as_fd(), path)? {
            let child = join(path, name.as_bytes());
            let (matched, state) = self.ignore.matches(&child, above);
            if matched && !self.ignore.may_except_below(&child) {
                continue;
            }
            let Some(item) = self.item(dir.as_fd(), &name, child)? else {
                continue;
            };
            if !matched {
                return Ok(true);
            }
            if item.is_dir()
                && let Some(below) = open_below(&dir, &name, &item.path)?
                && self.keeps_some(below, &item.path, &state, depth + 1)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Opens a directory for reading its names.
    fn directory(&self, path: &[u8]) -> Result<OwnedFd, Error> {
        let shown = Path::new(OsStr::from_bytes(path));
        let handle = self
            .root
            .resolve_nofollow(shown)
            .context(|| "read the build context")?;
        reopen(handle.as_fd()).map_err(|errno| failure(errno, "read the directory", path))
    }

    /// The item of one name in a directory; `None` for what is no part of a context.
    fn item(&self, dir: BorrowedFd<'_>, name: &OsStr, path: Vec<u8>) -> Result<Option<Item>, Error> {
        let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Removed since the directory was read.
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failure(errno, "stat", &path)),
        };
        let link = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                let target =
                    readlinkat(dir, name, Vec::new()).map_err(|e| failure(e, "read the link", &path))?;
                target.into_bytes()
            }
            _ => Vec::new(),
        };
        Ok(self.item_of(&stat, path, link))
    }

    fn item_of(&self, stat: &Stat, path: Vec<u8>, link: Vec<u8>) -> Option<Item> {
        let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => ItemKind::File,
            FileType::Directory => ItemKind::Directory,
            FileType::Symlink => ItemKind::Symlink(link),
            FileType::CharacterDevice => ItemKind::CharDevice(device.0, device.1),
            FileType::BlockDevice => ItemKind::BlockDevice(device.0, device.1),
            FileType::Fifo => ItemKind::Fifo,
            // A socket has no content that could be copied.
            _ => return None,
        };
        let hashes = match kind {
            ItemKind::File => self.known().find(&identity(stat)),
            _ => None,
        };
        Some(Item {
            path,
            mode: stat.st_mode & 0o7777,
            // Whoever owns the files here does not exist in the image (docker's client sends 0:0 as well).
            uid: 0,
            gid: 0,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: (stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
            content: hashes.map(|hashes| hashes.0),
            xattrs: hashes.map_or_else(|| xattr_digest(&[]), |hashes| hashes.1),
            inode: (stat.st_nlink > 1 && kind == ItemKind::File).then_some((stat.st_dev, stat.st_ino)),
            kind,
        })
    }

    /// Reads one file for its hashes.
    fn hash_file(&self, item: &Item, buffer: &mut [u8]) -> Result<(Identity, Digest, Digest), Error> {
        let (mut file, xattrs) = self.open(item)?;
        let before = fstat(&file).map_err(|errno| failure(errno, "stat", &item.path))?;
        let mut hasher = ContentHasher::new();
        loop {
            let count = file
                .read(buffer)
                .context(|| format!("read {}", String::from_utf8_lossy(&item.path)))?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
        }
        Ok((identity(&before), hasher.finish(), xattr_digest(&xattrs)))
    }
}

fn check_depth(depth: usize) -> Result<(), Error> {
    if depth <= MAX_DEPTH {
        return Ok(());
    }
    Err(invalid(format!(
        "the build context nests more than {MAX_DEPTH} directories deep"
    )))
}

/// Opens a directory of a directory; `None` when it went away or became something else since it was listed.
fn open_below(dir: &OwnedFd, name: &OsStr, path: &[u8]) -> Result<Option<OwnedFd>, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(dir, name, flags, Mode::empty()) {
        Ok(below) => Ok(Some(below)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(failure(errno, "read the directory", path)),
    }
}

impl Source for Context {
    fn stat(&self, path: &[u8]) -> Result<Option<Item>, Error> {
        let inside = Path::new(OsStr::from_bytes(path));
        let handle = match self.root.resolve_nofollow(inside) {
            Ok(handle) => handle,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            // A file where a directory is wanted.
            Err(error) if error.kind() == ErrorKind::FailedPrecondition => return Ok(None),
            Err(error) => return Err(Error::wrap(error, "read the build context")),
        };
        let stat = fstat(&handle).map_err(|errno| failure(errno, "stat", path))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.leaves_out(path, kind == FileType::Directory)? {
            return Ok(None);
        }
        let link = if kind == FileType::Symlink {
            let target =
                readlinkat(&handle, "", Vec::new()).map_err(|e| failure(e, "read the link", path))?;
            target.into_bytes()
        } else {
            Vec::new()
        };
        Ok(self.item_of(&stat, path.to_vec(), link))
    }

    fn list(&self, path: &[u8]) -> Result<Vec<Item>, Error> {
        let dir = self.directory(path)?;
        let mut found = Vec::new();
        for name in names(dir.as_fd(), path)? {
            if let Some(item) = self.item(dir.as_fd(), &name, join(path, name.as_bytes()))?
                && !self.leaves_out(&item.path, item.is_dir())?
            {
                found.push(item);
            }
        }
        Ok(found)
    }

    fn walk(&self, path: &[u8], out: &mut Vec<Item>) -> Result<(), Error> {
        let above = if path.is_empty() {
            Matched::default()
        } else {
            self.ignore.matches_with_parents(path).1
        };
        let dir = self.directory(path)?;
        walk::walk(self, dir, path, above, out)
    }

    fn open(&self, item: &Item) -> Result<Opened, Error> {
        let path = Path::new(OsStr::from_bytes(&item.path));
        let file = self
            .root
            .open_file(path)
            .context(|| format!("open {} of the build context", path.display()))?;
        let xattrs = crate::xattr::read(file.as_fd());
        Ok((file, xattrs))
    }

    fn directory_xattrs(&self, item: &Item) -> Result<Xattrs, Error> {
        Ok(crate::xattr::read(self.directory(&item.path)?.as_fd()))
    }

    fn hash(&self, items: &mut [Item]) -> Result<(), Error> {
        let missing: Vec<usize> = (0..items.len())
            .filter(|index| items[*index].kind == ItemKind::File && items[*index].content.is_none())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let bytes: u64 = missing.iter().map(|index| items[*index].size).sum();
        let threads = if bytes < PARALLEL_BYTES {
            1
        } else {
            std::thread::available_parallelism().map_or(1, usize::from)
        };
        let next = AtomicUsize::new(0);
        let work = || -> Result<Vec<_>, Error> {
            let mut buffer = vec![0; 256 << 10];
            let mut found = Vec::new();
            while let Some(index) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                found.push((*index, self.hash_file(&items[*index], &mut buffer)?));
            }
            Ok(found)
        };
        let found = std::thread::scope(|scope| -> Result<Vec<_>, Error> {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut found = work()?;
            for other in others {
                let part = other
                    .join()
                    .map_err(|_| Error::new(ErrorKind::Internal, "a hashing thread panicked"))?;
                found.extend(part?);
            }
            Ok(found)
        })?;
        let mut digests = self.digests();
        for (index, (identity, content, xattrs)) in found {
            digests.add(identity, (content, xattrs));
            items[index].content = Some(content);
            items[index].xattrs = xattrs;
        }
        Ok(())
    }

    fn missing_hint(&self, path: &[u8]) -> Option<String> {
        let inside = Path::new(OsStr::from_bytes(path));
        let there = self.root.symlink_metadata(inside).is_ok();
        there.then(|| "the file is there, but .dockerignore leaves it out".to_owned())
    }
}

/// The patterns in a context; buildah's name for their file counts before docker's, or after it.
fn read_ignore(root: &Root, dockerfile: &str, buildah: bool) -> Result<Patterns, Error> {
    let mut names = [".dockerignore", ".containerignore"];
    if buildah {
        names.reverse();
    }
    for name in [&format!("{dockerfile}.dockerignore"), names[0], names[1]] {
        let bytes = match root.read(Path::new(name), MAX_IGNORE) {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::FailedPrecondition) => {
                continue;
            }
            Err(error) => return Err(Error::wrap(error, format!("read {name}"))),
        };
        return Patterns::parse(&String::from_utf8_lossy(&bytes));
    }
    Ok(Patterns::default())
}

/// The names in a directory, sorted.
fn names(dir: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<std::ffi::OsString>, Error> {
    let mut found = Vec::new();
    let entries = Dir::read_from(dir).map_err(|errno| failure(errno, "read the directory", path))?;
    for entry in entries {
        let entry = entry.map_err(|errno| failure(errno, "read the directory", path))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found.push(OsStr::from_bytes(name).to_owned());
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// A descriptor to read the directory that an `O_PATH` descriptor names.
fn reopen(handle: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    openat(
        handle,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn identity(stat: &Stat) -> Identity {
    Identity {
        device: stat.st_dev,
        inode: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: (stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
        ctime: (stat.st_ctime, nanoseconds(stat.st_ctime_nsec)),
    }
}

/// The kernel's nanoseconds are below 10^9, in whatever integer the architecture has.
fn nanoseconds(value: impl TryInto<u32>) -> u32 {
    value.try_into().unwrap_or(0)
}

fn failure(errno: Errno, what: &str, path: &[u8]) -> Error {
    let shown = String::from_utf8_lossy(path).into_owned();
    Error::wrap(
        std::io::Error::from(errno),
        format!("{what} {shown:?} of the build context"),
    )
}
