use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use dhow_types::ErrorKind;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod,
    fchown, fsetxattr, fstat, futimens, lremovexattr, lsetxattr, mkdirat, mknodat, openat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::{Entry, EntryKind, Error};

/// What this process may do on this host, and what new files get by themselves.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    uid: u32,
    gid: u32,
    /// Mode bits that the kernel takes from new files (umask, or a default ACL).
    masked: u32,
    /// Root of the initial user namespace: may give files away and make devices. Without it what fails of these is
    /// in the index only.
    pub(crate) privileged: bool,
}

/// The error of a failed call on a name.
pub(super) fn failure(errno: Errno, what: &str) -> Error {
    let kind = match errno {
        Errno::DQUOT | Errno::NOSPC | Errno::FBIG | Errno::MFILE | Errno::NFILE | Errno::MLINK => {
            ErrorKind::ResourceExhausted
        }
        Errno::ISDIR | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::XDEV => {
            ErrorKind::InvalidArgument
        }
        _ => return Error::wrap(io::Error::from(errno), what),
    };
    Error::because(kind, what, io::Error::from(errno))
}

/// Bytes of disk that a file of `size` bytes without holes takes: whole pages, as on ext4, xfs and btrfs.
pub(crate) fn disk_of(size: u64) -> u64 {
    size.next_multiple_of(4096)
}

impl Host {
    /// Looks at this process; `dir` is where files will be made.
    pub(crate) fn probe(dir: BorrowedFd<'_>) -> Result<Self, Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = openat(dir, ".probe", flags, Mode::from_raw_mode(0o777))
            .map_err(|e| failure(e, "create a file"))?;
        unlinkat(dir, ".probe", AtFlags::empty()).map_err(|e| failure(e, "remove a file"))?;
        let stat = fstat(&fd).map_err(|e| failure(e, "stat a file"))?;
        Ok(Self {
            uid: stat.st_uid,
            gid: stat.st_gid,
            masked: 0o777 & !stat.st_mode,
            privileged: crate::privileged(),
        })
    }

    /// Whether a new file of `mode` needs no `chmod`.
    fn is_direct(&self, mode: u32) -> bool {
        mode & (self.masked | 0o7000) == 0
    }

    /// Opens a new file for writing, with as much of its mode as can be given at once.
    pub(super) fn create(&self, dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<OwnedFd, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let first = if self.is_direct(mode) { mode } else { 0o600 };
        openat(dir, name, flags, Mode::from_raw_mode(first))
    }

    /// Gives a written file its owner, mode, attributes and time. In this order: `chown` clears set-user-id bits and
    /// capabilities, writing and attributes change the time.
    pub(super) fn dress_file(&self, fd: BorrowedFd<'_>, entry: &Entry) -> Result<(), Error> {
        if (entry.uid, entry.gid) != (self.uid, self.gid) {
            let owned = fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
            self.tolerate(owned, "chown")?;
        }
        if !self.is_direct(entry.mode) {
            fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(|e| failure(e, "chmod"))?;
        }
        for (name, value) in &entry.xattrs {
            let set = fsetxattr(fd, name.as_slice(), value, XattrFlags::empty());
            self.tolerate(set, "set an extended attribute")?;
        }
        futimens(fd, &times(entry.mtime)).map_err(|e| failure(e, "set the time"))
    }

    /// What a process without the right may leave out.
    fn tolerate(&self, done: Result<(), Errno>, what: &str) -> Result<(), Error> {
        match done {
            // Access: an attribute of a file that its owner may not write to.
            Err(Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::OPNOTSUPP) if !self.privileged => Ok(()),
            Err(Errno::OPNOTSUPP) => Err(failure(Errno::OPNOTSUPP, what)
                .with_kind(ErrorKind::Unsupported)
                .with_hint("put the store on a file system with extended attributes, such as ext4 or xfs")),
            other => other.map_err(|e| failure(e, what)),
        }
    }

    /// Makes a directory; its time, and the bits that would be inherited, come at the end.
    pub(super) fn make_dir(&self, dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<(), Errno> {
        mkdirat(dir, name, Mode::from_raw_mode(self.first_dir_mode(mode)))
    }

    /// The mode of a directory while it is filled: no set-group-id bit, which would be inherited by what is made in
    /// it, and open to ourselves when we are not root.
    pub(super) fn first_dir_mode(&self, mode: u32) -> u32 {
        let mode = mode & 0o1777;
        if self.privileged { mode } else { mode | 0o700 }
    }

    /// Whether a directory of `mode` needs a `chmod` at the end.
    pub(super) fn dir_needs_mode(&self, mode: u32) -> bool {
        let first = self.first_dir_mode(mode);
        first != mode || first & self.masked != 0
    }

    /// Makes a symbolic link.
    pub(super) fn symlink(&self, dir: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<(), Errno> {
        symlinkat(entry.link.as_slice(), dir, name)
    }

    /// Makes a device or a named pipe; `false` when this process may not.
    pub(super) fn node(&self, dir: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<bool, Errno> {
        let kind = match entry.kind {
            EntryKind::BlockDevice => FileType::BlockDevice,
            EntryKind::Fifo => FileType::Fifo,
            _ => FileType::CharacterDevice,
        };
        let mode = if self.is_direct(entry.mode) {
            entry.mode
        } else {
            0o600
        };
        let number = rustix::fs::makedev(entry.major, entry.minor);
        match mknodat(dir, name, kind, Mode::from_raw_mode(mode), number) {
            Err(Errno::PERM) if !self.privileged => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Gives what is no file and no directory its owner, mode, attributes and time.
    pub(super) fn dress_other(&self, dir: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<(), Error> {
        self.own(dir, name, entry)?;
        if entry.kind != EntryKind::Symlink && !self.is_direct(entry.mode) {
            self.chmod(dir, name, entry.mode)?;
        }
        self.attributes(dir, name, entry)?;
        utimensat(dir, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failure(e, "set the time"))
    }

    /// Gives a name its owner, when that is not what new files have.
    pub(super) fn own(&self, dir: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<(), Error> {
        if (entry.uid, entry.gid) == (self.uid, self.gid) {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        let owned = chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
        self.tolerate(owned, "chown")
    }

    /// Sets the mode of a name in a tree that only this process sees, and that is no link.
    pub(super) fn chmod(&self, dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<(), Error> {
        rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty())
            .map_err(|e| failure(e, "chmod"))
    }

    /// Sets the attributes of a name.
    pub(super) fn attributes(&self, dir: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<(), Error> {
        for (key, value) in &entry.xattrs {
            match set_xattr(dir, name, key, value) {
                // Links and devices hold no user attributes (xattr(7)).
                Err(Errno::PERM) if entry.kind != EntryKind::Directory => (),
                other => self.tolerate(other, "set an extended attribute")?,
            }
        }
        Ok(())
    }

    /// Takes an attribute off a directory, if it could be set before.
    pub(super) fn take_attribute(&self, dir: BorrowedFd<'_>, name: &[u8], key: &[u8]) -> Result<(), Error> {
        match lremovexattr(magic_path(dir, name), key) {
            Err(Errno::NODATA) => Ok(()),
            other => self.tolerate(other, "take an extended attribute off"),
        }
    }

    /// Marks a directory as hiding all below it; `false` where the file system takes no such mark.
    pub(super) fn make_opaque(&self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<bool, Error> {
        let key: &[u8] = if self.privileged {
            b"trusted.overlay.opaque"
        } else {
            b"user.overlay.opaque"
        };
        match set_xattr(dir, name, key, b"y") {
            Err(Errno::PERM | Errno::OPNOTSUPP) => Ok(false),
            other => other
                .map(|()| true)
                .map_err(|e| failure(e, "mark a directory as opaque")),
        }
    }
}

/// Makes overlayfs' whiteout, the character device 0:0, which everybody may make since Linux 5.8. Where the file system
/// has none (such as overlayfs itself), an empty file holds its place; then `false`: it is in the index only.
pub(crate) fn make_whiteout(dir: BorrowedFd<'_>, name: &[u8]) -> Result<bool, Errno> {
    match mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0) {
        Err(Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP) => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(dir, name, flags, Mode::empty()).map(|_| false)
        }
        other => other.map(|()| true),
    }
}

/// Modification and access time.
pub(super) fn times(seconds: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// There is no `lsetxattr` below a directory before Linux 6.13; the `/proc` name of the descriptor stands for it.
fn magic_path(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd()).into_bytes();
    if !name.is_empty() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    path
}

fn set_xattr(dir: BorrowedFd<'_>, name: &[u8], key: &[u8], value: &[u8]) -> Result<(), Errno> {
    let path = magic_path(dir, name);
    if name.is_empty() {
        // The name in /proc is a link, which must be followed.
        return rustix::fs::setxattr(path, key, value, XattrFlags::empty());
    }
    lsetxattr(path, key, value, XattrFlags::empty())
}

/// Opens a directory by its path in the tree, following nothing in its last component.
pub(super) fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// Opens the host directory `path`.
pub(super) fn open_host(path: &std::path::Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(|e| failure(e, "open a directory"))
}
