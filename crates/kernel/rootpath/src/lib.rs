//! The only way into a root file system, a volume or a build context.
//!
//! A [`Root`] is a directory file descriptor. Every path given to it is a path *inside*: it is resolved by the kernel
//! with `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)` (Linux 5.6), so `..`, absolute symbolic links and links that
//! another process swaps in during the call all stay below the directory.
//!
//! # Races
//! Resolution happens inside one system call and ends in a file descriptor; whatever is done next is done to that
//! descriptor, or to one name (never a path) below a descriptor of the parent. A concurrent rename can therefore make
//! an operation fail or hit another object *inside* the root, but never one outside (CVE-2018-15664, CVE-2019-14271,
//! CVE-2021-30465). When the kernel cannot decide because of a concurrent rename (`EAGAIN`), the call is repeated a
//! bounded number of times.

#![forbid(unsafe_code)]

mod clear;
mod create;
mod read;
mod remove;
mod resolve;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

dhow_types::define_error! {
    /// What failed on a path inside a root: the message names the path.
    pub struct Error;
}

/// A directory that paths cannot leave.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// What kind of object a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl FileKind {
    /// The kind that a mode word of `stat` says.
    #[must_use]
    pub fn of_mode(mode: u32) -> Self {
        read::kind_of(mode)
    }
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, without its directory.
    pub name: OsString,
    /// What it is; a link is reported as a link.
    pub kind: FileKind,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
