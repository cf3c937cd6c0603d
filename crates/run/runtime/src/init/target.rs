//! Mount targets: resolved in the root by the kernel, made when missing.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::plan::Bind;
use crate::report::{At, Failure, Step};

/// Whether links on the way to a target count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// Followed, inside the root.
    Inside,
    /// None may be there (CVE-2019-19921, CVE-2023-27561: `/proc` as a link).
    Refused,
    /// Followed, inside the root, but for one at the end.
    NotLast,
}

/// What to make when nothing is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
}

/// Opens `path` below `root` as an `O_PATH` descriptor.
pub(crate) fn open(root: BorrowedFd<'_>, path: &Path, links: Links) -> rustix::io::Result<OwnedFd> {
    let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    if links == Links::Refused {
        resolve |= ResolveFlags::NO_SYMLINKS;
    }
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if links == Links::NotLast {
        flags |= OFlags::NOFOLLOW;
    }
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let mut left = 32;
    loop {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            // A rename somewhere raced with `..`: openat2(2) asks to try again.
            Err(Errno::AGAIN) if left > 0 => left -= 1,
            other => return other,
        }
    }
}

/// Opens `path` below `root`, after making it and its parents when they are missing.
pub(crate) fn open_or_make(
    root: BorrowedFd<'_>,
    path: &Path,
    links: Links,
    kind: Kind,
    index: usize,
) -> Result<OwnedFd, Failure> {
    match open(root, path, links) {
        Err(Errno::NOENT) => {}
        other => return other.at_index(Step::MountTarget, index),
    }
    // The usual case, a new name in a directory that is there (all of /dev), is two calls.
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
        && let Ok(parent) = open(root, parent, links)
    {
        let made = match kind {
            Kind::Directory => rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)),
            Kind::File => empty_file(parent.as_fd(), name),
        };
        if made.is_ok() {
            return open(parent.as_fd(), Path::new(name), Links::Refused).at_index(Step::MountTarget, index);
        }
    }
    let rooted = rootpath(root).at_index(Step::MountTarget, index)?;
    let behind_links;
    let path = match links {
        // A link may lead to what is to be made, as with runc.
        Links::Inside => {
            behind_links = rooted.path_to_make(path).at_index(Step::MountTarget, index)?;
            &behind_links
        }
        Links::Refused | Links::NotLast => path,
    };
    match kind {
        Kind::Directory => rooted
            .create_dir_all(path, 0o755, None)
            .at_index(Step::MountTarget, index),
        Kind::File => {
            let parent = path.parent().unwrap_or(Path::new(""));
            let parent = rooted
                .create_dir_all(parent, 0o755, None)
                .at_index(Step::MountTarget, index)?;
            let name = path.file_name().unwrap_or_default();
            empty_file(parent.as_fd(), name).at_index(Step::MountTarget, index)?;
            open(parent.as_fd(), Path::new(name), Links::Refused).at_index(Step::MountTarget, index)
        }
    }
}

/// The root as the crate for paths inside knows it, for the ways that are not taken often.
pub(crate) fn rootpath(root: BorrowedFd<'_>) -> std::io::Result<dhow_rootpath::Root> {
    Ok(dhow_rootpath::Root::from_fd(root.try_clone_to_owned()?))
}

/// An empty file under a new name, to mount on.
pub(crate) fn empty_file(parent: BorrowedFd<'_>, name: impl rustix::path::Arg) -> rustix::io::Result<()> {
    rustix::fs::mknodat(
        parent,
        name,
        rustix::fs::FileType::RegularFile,
        Mode::from_raw_mode(0o644),
        0,
    )
}

/// A detached copy of a bind mount's source.
pub(crate) fn copy_source(dir: BorrowedFd<'_>, bind: &Bind) -> rustix::io::Result<OwnedFd> {
    use rustix::mount::{OpenTreeFlags as Flags, open_tree};
    if !bind.link {
        return copy_tree(dir, &bind.path, bind.recursive);
    }
    let mut flags = Flags::OPEN_TREE_CLONE | Flags::OPEN_TREE_CLOEXEC | Flags::AT_SYMLINK_NOFOLLOW;
    if bind.recursive {
        flags |= Flags::AT_RECURSIVE;
    }
    open_tree(dir, bind.path.as_c_str(), flags)
}

/// Gives a detached tree the ids that a user namespace maps (an idmapped mount, Linux 5.12).
pub(crate) fn map_ids(tree: &OwnedFd, users: &OwnedFd, recursive: bool) -> std::io::Result<()> {
    let attributes = dhow_sys::mount::Attributes {
        user_namespace: Some(users.as_fd()),
        ..dhow_sys::mount::Attributes::default()
    };
    dhow_sys::mount::set_attributes(tree, recursive, &attributes)
}

/// A detached copy of what is mounted at a path of the host, or of a descriptor (empty path).
pub(crate) fn copy_tree(dir: BorrowedFd<'_>, path: &CStr, recursive: bool) -> rustix::io::Result<OwnedFd> {
    use rustix::mount::{OpenTreeFlags as Flags, open_tree};
    let mut flags = Flags::OPEN_TREE_CLONE | Flags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= Flags::AT_RECURSIVE;
    }
    if path.is_empty() {
        flags |= Flags::AT_EMPTY_PATH;
    }
    open_tree(dir, path, flags)
}
