//! Directories in the making: under `tmp/`, locked by the process that makes them, gone when it fails or dies.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use dhow_rootpath::Root;
use dhow_types::{ErrorKind, Failures};
use rustix::fs::{
    CWD, FlockOperation, IFlags, Mode, OFlags, RenameFlags, XattrFlags, flock, ioctl_getflags,
    ioctl_setflags, lgetxattr, lsetxattr, openat, renameat_with,
};
use rustix::io::Errno;

use crate::{Context, Error};

/// Makes names differ within one process.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Age below which what nobody has locked is left alone: its maker may be between making and locking it.
const GRACE: Duration = Duration::from_secs(60);

/// The attribute that SELinux keeps a file's label in.
const LABEL: &str = "security.selinux";

/// Longest label: a page, as procfs takes them.
const LONGEST_LABEL: usize = 4096;

/// Name of the directory, in one of `tmp/`, on which its maker may mount something; the sweep unmounts it.
pub const MOUNT_POINT: &str = "mount";

/// Makes `ROOT/tmp` if it is not there, and prepares it for what is made in it.
///
/// On ext4 it gets the top-directory flag: what is made in it goes to block groups that are chosen afresh for each.
/// Otherwise a new layer lands where one was just deleted, and ext4 then steps over every inode that was freed in the
/// last minutes (`recently_deleted` in fs/ext4/ialloc.c): unpacking 50,000 files took 5.5 s of processor time so, and
/// 2.1 s with the flag.
pub(crate) fn make_tmp(root: &Path) -> Result<(), Error> {
    let path = root.join("tmp");
    let what = || format!("make the directory {}", path.display());
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (),
        other => other.context(what)?,
    }
    let dir = File::open(&path).context(what)?;
    match ioctl_getflags(&dir) {
        Ok(flags) if !flags.contains(IFlags::TOPDIR) => match ioctl_setflags(&dir, flags | IFlags::TOPDIR) {
            // Other file systems have no such flag and need none; a store that is only read keeps what it has.
            Ok(()) | Err(_) => Ok(()),
        },
        _ => Ok(()),
    }
}

/// A directory in the making. Dropped without [`Staging::publish`], it is removed.
#[derive(Debug)]
pub(crate) struct Staging {
    tmp: PathBuf,
    name: OsString,
    /// Holds the lock; the kernel frees it when the process ends in any way.
    _lock: OwnedFd,
    published: bool,
}

impl Staging {
    /// Makes a new directory under `ROOT/tmp`, named `<kind>-<pid>-...`.
    pub(crate) fn new(root: &Path, kind: &str) -> Result<Self, Error> {
        let tmp = root.join("tmp");
        loop {
            let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
            let name = OsString::from(format!("{kind}-{}-{serial}", std::process::id()));
            let path = tmp.join(&name);
            match DirBuilder::new().mode(0o700).create(&path) {
                // A process of that number in another pid namespace, or in another boot.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.context(|| format!("make the directory {}", path.display()))?,
            }
            let lock = match lock(&path) {
                // A sweep that took it for one of the dead, after this process had stood still: it is lost to that.
                Err(Errno::WOULDBLOCK | Errno::NOENT) => continue,
                other => other
                    .map_err(io::Error::from)
                    .context(|| format!("lock the directory {}", path.display()))?,
            };
            return Ok(Self {
                tmp,
                name,
                _lock: lock,
                published: false,
            });
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.tmp.join(&self.name)
    }

    /// Gives the directory the SELinux label of `home`, where it will be, so that all that is made in it has that label as
    /// if it were made there: a rename keeps labels, and what containers may read is decided by those of a layer's files.
    pub(crate) fn take_label_of(&self, home: &Path) {
        let mut label = [0_u8; LONGEST_LABEL];
        let Ok(length) = lgetxattr(home, LABEL, &mut label[..]) else {
            return;
        };
        let label = label.get(..length).unwrap_or_default();
        match lsetxattr(self.path(), LABEL, label, XattrFlags::empty()) {
            // Who may not give it makes files with the label of `tmp/`, as on a host that was never asked.
            Ok(()) | Err(_) => (),
        }
    }

    /// Gives the directory its final name. `false` when that name is taken already: then it is removed.
    pub(crate) fn publish(mut self, target: &Path) -> Result<bool, Error> {
        match renameat_with(CWD, self.path(), CWD, target, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.published = true;
                Ok(true)
            }
            Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(false),
            Err(errno) => Err(Error::wrap(
                io::Error::from(errno),
                format!("publish {}", target.display()),
            )),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.published {
            // What cannot be removed now is swept later.
            drop(remove(&self.tmp, &self.name));
        }
    }
}

fn lock(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = openat(CWD, path, flags, Mode::empty())?;
    flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
    Ok(fd)
}

fn remove(dir: &Path, name: &OsStr) -> Result<(), Error> {
    let root = Root::open(dir).context(|| format!("open {}", dir.display()))?;
    root.remove_all_at_once(Path::new(name))
        .context(|| format!("remove {}", dir.join(name).display()))
}

/// Directories whose own things are removed where they are, under a name of something removed.
const HIDING: [&str; 2] = ["snapshots", "containers"];

/// Removes everything in `ROOT/trash`, what was removed where it is, and in `ROOT/tmp` all that no living process makes.
pub(crate) fn sweep(root: &Path) -> Result<(), Error> {
    let mut failures = Failures::new();
    let trash = root.join("trash");
    for name in names(&trash)? {
        failures.record("empty the trash", remove(&trash, &name));
    }
    for folder in HIDING.map(|name| root.join(name)) {
        for name in names(&folder)?.into_iter().filter(|name| is_gone(name)) {
            failures.record("delete what was removed", remove(&folder, &name));
        }
    }
    let tmp = root.join("tmp");
    for name in names(&tmp)? {
        let path = tmp.join(&name);
        // Before the lock is tried: whoever makes it is about to take that lock, and must find it free.
        if is_fresh(&path) && owner_lives(&name) {
            continue;
        }
        // Whoever holds the lock is alive; a link or a device is nothing that we make.
        let Ok(held) = lock(&path) else { continue };
        // A mount of a dead process would keep its directory; most have none. Lazily, since nobody else uses it.
        drop(dhow_sys::mount::detach(&path.join(MOUNT_POINT)));
        failures.record("sweep what was half-made", remove(&tmp, &name));
        drop(held);
    }
    failures
        .into_result()
        .context(|| format!("sweep the store {}", root.display()))
}

/// Whether its maker may be between making and locking it.
fn is_fresh(path: &Path) -> bool {
    let changed = std::fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    let age = changed.map(|time| SystemTime::now().duration_since(time));
    age.is_ok_and(|age| age.is_ok_and(|age| age < GRACE))
}

/// Whether the process in a name `kind-pid-...` exists.
fn owner_lives(name: &OsStr) -> bool {
    let pid = name
        .to_str()
        .and_then(|name| name.split('-').nth(1))
        .and_then(|pid| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| Path::new("/proc").join(pid.to_string()).exists())
}

fn names(dir: &Path) -> Result<Vec<OsString>, Error> {
    let what = || format!("list {}", dir.display());
    let mut names = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
        other => other.context(what)?,
    };
    for entry in entries {
        names.push(entry.context(what)?.file_name());
    }
    names.sort();
    Ok(names)
}

/// Begins the name of what was removed and is still in its directory.
const GONE: &str = ".gone-";

/// Whether this is the name of something that was removed (see [`hide`]): nobody needs it any more.
#[must_use]
pub fn is_gone(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(GONE.as_bytes())
}

/// Gives `path` a name of something removed, in the directory where it is; returns that. Of renames from directory to
/// directory the kernel does one at a time in a file system (`s_vfs_rename_mutex`).
///
/// # Errors
/// `NotFound` when it is not there.
pub fn hide(path: &Path) -> Result<PathBuf, Error> {
    rename_to(path, path.parent().unwrap_or(Path::new("/")), GONE)
}

/// Moves `path` into `ROOT/trash`.
///
/// # Errors
/// `NotFound` when it is not there.
pub(crate) fn discard(root: &Path, path: &Path) -> Result<(), Error> {
    rename_to(path, &root.join("trash"), "").map(drop)
}

/// Gives `path` a name in `dir` that nothing has, which begins as said.
fn rename_to(path: &Path, dir: &Path, prefix: &str) -> Result<PathBuf, Error> {
    loop {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let nanos = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |time| time.as_nanos());
        let target = dir.join(format!("{prefix}{}-{nanos}-{serial}", std::process::id()));
        match renameat_with(CWD, path, CWD, &target, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => (),
            Ok(()) => return Ok(target),
            Err(errno) => {
                let kind = if errno == Errno::NOENT {
                    ErrorKind::NotFound
                } else {
                    ErrorKind::Internal
                };
                let message = format!("move {} to {}", path.display(), dir.display());
                return Err(Error::wrap(io::Error::from(errno), message).with_kind(kind));
            }
        }
    }
}
