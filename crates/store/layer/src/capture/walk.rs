use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use dhow_rootpath::{FileKind, Root};
use dhow_types::ErrorKind;
use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, ResolveFlags, Statx, StatxFlags, Timespec, Timestamps, lgetxattr, llistxattr,
    lremovexattr, openat2, readlinkat, statx, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::{Context, Entry, EntryKind, Error};

/// Most bytes of attribute names, and of one value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR: usize = 64 << 10;

/// One entry of the tree, with what the file system knows about it.
pub(super) struct Found {
    pub(super) entry: Entry,
    /// Bytes of disk.
    pub(super) disk: u64,
    /// Device and inode, when it has other names.
    pub(super) shared: Option<(u64, u64)>,
}

fn failed(errno: Errno, what: &str, path: &[u8]) -> Error {
    Error::wrap(
        io::Error::from(errno),
        format!("{what} {}", String::from_utf8_lossy(path)),
    )
}

/// All entries below `root`, sorted by path. Takes off the tree what must not be in a layer: sockets, what overlayfs
/// wrote for itself, times after `clamp`.
pub(super) fn walk(root: &Root, clamp: Option<i64>) -> Result<Vec<Found>, Error> {
    let mut walk = Walk {
        clamp,
        found: Vec::new(),
        buffer: vec![0; XATTR],
    };
    let mut todo = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let fd = open_dir(root, &path)?;
        if path.is_empty() {
            walk.top(fd.as_fd())?;
        }
        let start = walk.found.len();
        walk.directory(fd, &path)?;
        for found in &walk.found[start..] {
            if found.entry.kind == EntryKind::Directory {
                todo.push(found.entry.path.clone());
            }
        }
    }
    walk.found.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
    Ok(walk.found)
}

fn open_dir(root: &Root, path: &[u8]) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let name = if path.is_empty() { b"." } else { path };
    match openat2(root.as_fd(), name, flags, Mode::empty(), resolve) {
        Err(Errno::XDEV) => {
            let message = format!("something is mounted on {}", String::from_utf8_lossy(path));
            Err(Error::new(ErrorKind::FailedPrecondition, message))
        }
        other => other.map_err(|errno| failed(errno, "open", path)),
    }
}

struct Walk {
    clamp: Option<i64>,
    found: Vec<Found>,
    buffer: Vec<u8>,
}

impl Walk {
    /// The root is an entry only when it hides what is below.
    fn top(&mut self, fd: BorrowedFd<'_>) -> Result<(), Error> {
        let mut entry = Entry::new(Vec::new(), EntryKind::Directory, 0o755);
        entry.implied = true;
        self.attributes(fd, b".", &mut entry)?;
        if entry.opaque {
            entry.xattrs.clear();
            self.found.push(Found {
                entry,
                disk: 0,
                shared: None,
            });
        }
        Ok(())
    }

    fn directory(&mut self, fd: OwnedFd, path: &[u8]) -> Result<(), Error> {
        let mut dir = Dir::read_from(&fd).map_err(|errno| failed(errno, "read", path))?;
        while let Some(name) = dir.read() {
            let name = name.map_err(|errno| failed(errno, "read", path))?;
            let name = name.file_name().to_bytes();
            if name != b"." && name != b".." {
                let inner = if path.is_empty() {
                    name.to_vec()
                } else {
                    [path, b"/", name].concat()
                };
                self.name(fd.as_fd(), name, inner)?;
            }
        }
        Ok(())
    }

    fn name(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: Vec<u8>) -> Result<(), Error> {
        if name.starts_with(b".wh.") {
            let shown = String::from_utf8_lossy(&path);
            let message = format!("{shown} cannot be in a layer: names that begin with .wh. are reserved");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let stat = statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
            .map_err(|errno| failed(errno, "stat", &path))?;
        let mode = u32::from(stat.stx_mode);
        let device = (stat.stx_rdev_major, stat.stx_rdev_minor);
        let kind = match FileKind::of_mode(mode) {
            FileKind::File => EntryKind::File,
            FileKind::Directory => EntryKind::Directory,
            FileKind::Symlink => EntryKind::Symlink,
            FileKind::CharDevice if device == (0, 0) => EntryKind::Whiteout,
            FileKind::CharDevice => EntryKind::CharDevice,
            FileKind::BlockDevice => EntryKind::BlockDevice,
            FileKind::Fifo => EntryKind::Fifo,
            // No tar holds a socket, and nobody listens on it any more.
            FileKind::Socket => {
                return unlinkat(dir, name, AtFlags::empty()).map_err(|errno| failed(errno, "remove", &path));
            }
        };
        let mut entry = Entry::new(path, kind, mode & 0o7777);
        self.describe(dir, name, &stat, &mut entry)?;
        let linked = stat.stx_nlink > 1 && !matches!(kind, EntryKind::Directory | EntryKind::Whiteout);
        let device = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
        let shared = linked.then_some((device, stat.stx_ino));
        self.found.push(Found {
            entry,
            disk: stat.stx_blocks * 512,
            shared,
        });
        Ok(())
    }

    fn describe(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        stat: &Statx,
        entry: &mut Entry,
    ) -> Result<(), Error> {
        if entry.kind == EntryKind::Whiteout {
            // A whiteout says one thing only: that the name is gone. Its own owner and time would make equal
            // trees different.
            entry.mode = 0;
            return Ok(());
        }
        (entry.uid, entry.gid) = (stat.stx_uid, stat.stx_gid);
        entry.mtime = self.clamped(dir, name, stat, &entry.path)?;
        match entry.kind {
            EntryKind::File => {
                entry.size = stat.stx_size;
                self.attributes(dir, name, entry)?;
            }
            EntryKind::Directory => self.attributes(dir, name, entry)?,
            EntryKind::Symlink => {
                let target =
                    readlinkat(dir, name, Vec::new()).map_err(|e| failed(e, "read the link", &entry.path))?;
                entry.link = target.into_bytes();
                entry.mode = 0o777;
            }
            _ => (entry.major, entry.minor) = (stat.stx_rdev_major, stat.stx_rdev_minor),
        }
        Ok(())
    }

    fn clamped(&self, dir: BorrowedFd<'_>, name: &[u8], stat: &Statx, path: &[u8]) -> Result<i64, Error> {
        let mtime = stat.stx_mtime.tv_sec;
        let Some(clamp) = self.clamp.filter(|clamp| mtime > *clamp) else {
            return Ok(mtime);
        };
        // On the file as well: who reads the layer here must see what others unpack.
        let time = Timespec {
            tv_sec: clamp,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed(e, "set the time of", path))?;
        Ok(clamp)
    }

    /// Reads the attributes that a layer keeps, and takes off those of overlayfs.
    fn attributes(&mut self, dir: BorrowedFd<'_>, name: &[u8], entry: &mut Entry) -> Result<(), Error> {
        let mut target = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
        target.extend_from_slice(name);
        let count = match llistxattr(&target, &mut self.buffer[..]) {
            Err(Errno::OPNOTSUPP) | Ok(0) => return Ok(()),
            other => other.map_err(|errno| failed(errno, "list the attributes of", &entry.path))?,
        };
        let list = self.buffer[..count].to_vec();
        for key in list.split(|byte| *byte == 0).filter(|key| !key.is_empty()) {
            let overlay = key
                .strip_prefix(b"trusted.overlay.")
                .or_else(|| key.strip_prefix(b"user.overlay."));
            if let Some(meaning) = overlay {
                self.overlay(&target, key, meaning, entry)?;
            } else if key == b"security.capability" || key.starts_with(b"user.") {
                let value = self.value(&target, key, entry)?;
                entry.xattrs.push((key.to_vec(), value));
            }
        }
        entry.xattrs.sort();
        Ok(())
    }

    /// What overlayfs wrote: an opaque mark becomes part of the entry; a redirect or a file without its data cannot be
    /// understood without the layers below; the rest is of no use to a layer.
    fn overlay(&mut self, target: &[u8], key: &[u8], meaning: &[u8], entry: &mut Entry) -> Result<(), Error> {
        match meaning {
            b"opaque" if self.value(target, key, entry)? == b"y" => {
                entry.opaque = true;
                return Ok(());
            }
            b"redirect" | b"metacopy" | b"whiteout" => {
                let path = String::from_utf8_lossy(&entry.path);
                let message = format!(
                    "{path} holds only a reference to a lower layer ({})",
                    String::from_utf8_lossy(key)
                );
                return Err(Error::new(ErrorKind::FailedPrecondition, message)
                    .with_hint("mount with redirect_dir=off,metacopy=off what is to be captured"));
            }
            _ => (),
        }
        lremovexattr(target, OsStr::from_bytes(key))
            .map_err(|errno| failed(errno, "remove an attribute of", &entry.path))
    }

    fn value(&mut self, target: &[u8], key: &[u8], entry: &Entry) -> Result<Vec<u8>, Error> {
        let count = lgetxattr(target, OsStr::from_bytes(key), &mut self.buffer[..])
            .map_err(io::Error::from)
            .context(|| format!("read an attribute of {}", String::from_utf8_lossy(&entry.path)))?;
        Ok(self.buffer[..count].to_vec())
    }
}
