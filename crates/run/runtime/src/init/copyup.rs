//! `tmpcopyup`: what is at the target of a tmpfs, copied into it before it covers it.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

/// Deepest directory that is copied: each level holds two descriptors and a stack frame.
const DEPTH: usize = 64;

/// Copies the contents of the directory `place` into the new file system `made`.
pub(crate) fn fill(place: &OwnedFd, made: &OwnedFd) -> rustix::io::Result<()> {
    let from = directory(place.as_fd(), c".")?;
    let to = directory(made.as_fd(), c".")?;
    contents(&from, &to, DEPTH)
}

fn directory(parent: BorrowedFd<'_>, name: &std::ffi::CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn contents(from: &OwnedFd, to: &OwnedFd, depth: usize) -> rustix::io::Result<()> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let left = depth.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
                rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
                let (inner, copy) = (directory(from.as_fd(), name)?, directory(to.as_fd(), name)?);
                contents(&inner, &copy, left)?;
            }
            FileType::RegularFile => file(from, to, name)?,
            FileType::Symlink => {
                let content = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(&content, to, name)?;
            }
            kind => {
                let mode = Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
            }
        }
        own(to, name, &stat)?;
    }
    Ok(())
}

fn file(from: &OwnedFd, to: &OwnedFd, name: &std::ffi::CStr) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let copy = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
    while rustix::fs::sendfile(&copy, &source, None, 1 << 30)? > 0 {}
    Ok(())
}

fn own(to: &OwnedFd, name: &std::ffi::CStr, stat: &Stat) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    match rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
        // An id that the user namespace does not map.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(errno),
    }
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Ok(());
    }
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    rustix::fs::chmodat(to, name, mode, AtFlags::empty())
}
