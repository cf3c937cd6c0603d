//! Masked and read-only paths.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dhow_sys::mount::{Attributes, attach_at, set_attributes};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags as Attr;

use super::dev;
use super::rootfs::{bits, filesystem};
use super::target::{self, Links};
use crate::plan::Plan;
use crate::report::{At, Failure, Step};

/// Hides and protects the plan's paths; those that do not exist need neither.
pub(crate) fn paths(root: BorrowedFd<'_>, plan: &Plan) -> Result<(), Failure> {
    for (index, path) in plan.readonly.iter().enumerate() {
        let Some(place) =
            existing(target::open(root, path, Links::Inside)).at_index(Step::ReadOnly, index)?
        else {
            continue;
        };
        let tree = target::copy_tree(place.as_fd(), c"", true).at_index(Step::ReadOnly, index)?;
        let readonly = Attributes {
            set: bits(Attr::MOUNT_ATTR_RDONLY),
            ..Attributes::default()
        };
        set_attributes(&tree, true, &readonly).at_index(Step::ReadOnly, index)?;
        attach_at(&tree, &place, c"").at_index(Step::ReadOnly, index)?;
    }
    let mut null: Option<OwnedFd> = None;
    let mut empty: Option<OwnedFd> = None;
    for (index, path) in plan.masked.iter().enumerate() {
        let Some(place) = existing(target::open(root, path, Links::Inside)).at_index(Step::Mask, index)?
        else {
            continue;
        };
        let stat = rustix::fs::fstat(&place).at_index(Step::Mask, index)?;
        let (kept, made) = if FileType::from_raw_mode(stat.st_mode).is_dir() {
            (&mut empty, empty_directory as fn() -> Result<OwnedFd, Failure>)
        } else {
            (&mut null, null_device as fn() -> Result<OwnedFd, Failure>)
        };
        let cover = match kept {
            Some(first) => target::copy_tree(first.as_fd(), c"", false).at_index(Step::Mask, index)?,
            None => made()?,
        };
        attach_at(&cover, &place, c"").at_index(Step::Mask, index)?;
        // Attached, it can be copied for the paths that follow.
        kept.get_or_insert(cover);
    }
    Ok(())
}

fn existing(opened: rustix::io::Result<OwnedFd>) -> rustix::io::Result<Option<OwnedFd>> {
    match opened {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        opened => opened.map(Some),
    }
}

fn empty_directory() -> Result<OwnedFd, Failure> {
    filesystem(c"tmpfs", &[], Attr::MOUNT_ATTR_RDONLY, None).at(Step::Mask)
}

/// A mount of the host's null device, opened by descriptor by descriptor and proved to be it: a path in the container could have become a link to
/// what is then mounted over the masked path, writable (CVE-2025-31133).
fn null_device() -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null = rustix::fs::openat(CWD, c"/dev/null", flags, Mode::empty()).at(Step::NullDevice)?;
    let stat = rustix::fs::fstat(&null).at(Step::NullDevice)?;
    if dev::is_device(&stat, 1, 3) {
        return target::copy_tree(null.as_fd(), c"", false).at(Step::NullDevice);
    }
    Err(Failure {
        step: Step::NullDevice,
        index: 0,
        errno: Errno::NODEV.raw_os_error(),
    })
}
