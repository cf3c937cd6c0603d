//! Masked and read-only paths.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use dhow_sys::mount::{Attributes, attach_at, set_attributes};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags as Attr;

use super::dev;
use super::rootfs::{Anchor, bits, filesystem};
use super::target::{self, Links};
use crate::plan::Plan;
use crate::report::{At, Failure, Step};

/// Hides and protects the plan's paths; those that do not exist need neither.
pub(crate) fn paths(root: BorrowedFd<'_>, plan: &Plan, anchors: &[Anchor<'_>]) -> Result<(), Failure> {
    for (index, path) in plan.readonly.iter().enumerate() {
        for (base, path) in places(root, anchors, path) {
            let opened = existing(target::open(base, path, Links::Inside));
            if let Some(place) = opened.at_index(Step::ReadOnly, index)? {
                protect(&place).at_index(Step::ReadOnly, index)?;
            }
        }
    }
    let mut covers = Covers::default();
    for (index, path) in plan.masked.iter().enumerate() {
        for (base, path) in places(root, anchors, path) {
            let opened = existing(target::open(base, path, Links::Inside));
            if let Some(place) = opened.at_index(Step::Mask, index)? {
                covers.cover(plan, &place, index)?;
            }
        }
    }
    Ok(())
}

/// Where to look for a path: in the procfs and sysfs that were mounted there, and by its name where another mount lies
/// over them or none was.
fn places<'a>(
    root: BorrowedFd<'a>,
    anchors: &'a [Anchor<'_>],
    path: &'a Path,
) -> impl Iterator<Item = (BorrowedFd<'a>, &'a Path)> {
    let within = move |anchor: &'a Anchor<'_>| path.strip_prefix(anchor.target).ok();
    let named = !anchors
        .iter()
        .any(|anchor| !anchor.covered && within(anchor).is_some());
    let anchored = anchors
        .iter()
        .filter_map(move |anchor| within(anchor).map(|rest| (anchor.mount.as_fd(), rest)));
    anchored.chain(named.then_some((root, path)))
}

fn protect(place: &OwnedFd) -> std::io::Result<()> {
    let tree = target::copy_tree(place.as_fd(), c"", true)?;
    let readonly = Attributes {
        set: bits(Attr::MOUNT_ATTR_RDONLY),
        ..Attributes::default()
    };
    set_attributes(&tree, true, &readonly)?;
    attach_at(&tree, place, c"")
}

/// What masked paths are covered with: made once, copied for the paths that follow.
#[derive(Default)]
struct Covers {
    null: Option<OwnedFd>,
    empty: Option<OwnedFd>,
}

impl Covers {
    fn cover(&mut self, plan: &Plan, place: &OwnedFd, index: usize) -> Result<(), Failure> {
        let stat = rustix::fs::fstat(place).at_index(Step::Mask, index)?;
        let (kept, made) = if FileType::from_raw_mode(stat.st_mode).is_dir() {
            (
                &mut self.empty,
                empty_directory as fn(&Plan) -> Result<OwnedFd, Failure>,
            )
        } else {
            (
                &mut self.null,
                null_device as fn(&Plan) -> Result<OwnedFd, Failure>,
            )
        };
        let cover = match kept {
            Some(first) => target::copy_tree(first.as_fd(), c"", false).at_index(Step::Mask, index)?,
            None => made(plan)?,
        };
        attach_at(&cover, place, c"").at_index(Step::Mask, index)?;
        // Attached, it can be copied.
        kept.get_or_insert(cover);
        Ok(())
    }
}

fn existing(opened: rustix::io::Result<OwnedFd>) -> rustix::io::Result<Option<OwnedFd>> {
    match opened {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        opened => opened.map(Some),
    }
}

fn empty_directory(plan: &Plan) -> Result<OwnedFd, Failure> {
    filesystem(c"tmpfs", &plan.context, Attr::MOUNT_ATTR_RDONLY, None).at(Step::Mask)
}

/// A mount of the host's null device, opened by descriptor and proved to be it: a path in the container could have become a link to
/// what is then mounted over the masked path, writable (CVE-2025-31133).
fn null_device(_: &Plan) -> Result<OwnedFd, Failure> {
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
