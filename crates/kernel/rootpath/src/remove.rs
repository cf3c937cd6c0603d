use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use dhow_types::ErrorKind;
use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, SeekFrom, StatxFlags, chmodat, openat, openat2, seek, statx,
    unlinkat,
};
use rustix::io::Errno;

use crate::resolve::failure;
use crate::{Error, FileKind, Root};

/// Deepest tree that is removed: each level holds one descriptor.
const DEPTH: usize = 512;

/// How often a directory is emptied into which others put something.
const ROUNDS: u32 = 64;

impl Root {
    /// Removes `path` and all below it. A link is removed, not followed; another file system mounted below stops it.
    /// A path that is not there is done already.
    ///
    /// # Errors
    /// `FailedPrecondition` at a mount point; the failures of the single removals.
    pub fn remove_all(&self, path: &Path) -> Result<(), Error> {
        let (parent, name) = match self.parent_of(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        remove_tree(parent.as_fd(), &name, path, 0)
    }
}

fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr, path: &Path, depth: usize) -> Result<(), Error> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => (),
        Err(errno) => return Err(failure(errno, "remove", path)),
    }
    if depth > DEPTH {
        let message = format!("remove {}: more than {DEPTH} directories deep", path.display());
        return Err(Error::new(ErrorKind::ResourceExhausted, message));
    }
    // A name that is swapped for a link or a mount point between the calls gives ELOOP or EXDEV here.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    let fd = match openat2(parent, name, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::XDEV) => {
            let message = format!("remove {}: something is mounted there", path.display());
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        }
        other => other.map_err(|errno| failure(errno, "open the directory", path))?,
    };
    for round in 1.. {
        let list = fd
            .try_clone()
            .map_err(|error| Error::wrap(error, "duplicate a directory handle"))?;
        for entry in crate::read::list(list, path)? {
            remove_tree(fd.as_fd(), &entry.name, &path.join(&entry.name), depth + 1)?;
        }
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            // Somebody who was on the way with one more file came after the list was read.
            Err(Errno::NOTEMPTY | Errno::EXIST) if round < ROUNDS => {
                seek(&fd, SeekFrom::Start(0)).map_err(|errno| failure(errno, "list", path))?;
            }
            Ok(()) | Err(Errno::NOENT) => break,
            Err(Errno::NOTDIR) => return remove_link(parent, name, path),
            Err(errno) => return Err(failure(errno, "remove the directory", path)),
        }
    }
    Ok(())
}

fn remove_link(parent: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<(), Error> {
    unlinkat(parent, name, AtFlags::empty()).map_err(|errno| failure(errno, "remove", path))
}

/// Sets the mode of a name that is not a link, without following one that is swapped in.
pub(crate) fn chmod_nofollow(parent: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<(), Errno> {
    match chmodat(parent, name, Mode::from_raw_mode(mode), AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => (),
        other => return other,
    }
    // Before fchmodat2 (Linux 6.6): pin the object, check it, then go through its /proc name, which cannot be swapped.
    let fd = openat(
        parent,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let stat = statx(&fd, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?;
    if crate::read::kind_of(u32::from(stat.stx_mode)) == FileKind::Symlink {
        return Err(Errno::LOOP);
    }
    let proc_name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    chmodat(
        rustix::fs::CWD,
        proc_name,
        Mode::from_raw_mode(mode),
        AtFlags::empty(),
    )
}
