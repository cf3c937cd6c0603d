//! The container's view of the control groups.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use dhow_sys::mount::{Attributes, attach_at, set_attributes};
use rustix::fs::{CWD, Mode};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags as Attr;

use super::rootfs::{bits, change, filesystem};
use super::target::{self, Kind, Links};
use super::{Setup, rootfs};
use crate::plan::{MountPlan, Plan};
use crate::report::{At, Failure, Step};

/// Which group this process is in, in every hierarchy; read before a cgroup namespace hides it, and only when wanted.
pub(crate) fn membership(plan: &Plan) -> Result<Option<String>, Failure> {
    if plan.hierarchies.mounts.is_empty() || plan.hierarchies.unified {
        return Ok(None);
    }
    std::fs::read_to_string("/proc/self/cgroup")
        .map(Some)
        .at(Step::CgroupMount)
}

/// Mounts the groups at the mount's target.
pub(crate) fn mount(
    setup: &Setup<'_>,
    root: BorrowedFd<'_>,
    mount: &MountPlan,
    membership: Option<&str>,
    index: usize,
) -> Result<(), Failure> {
    let place = target::open_or_make(root, &mount.target, Links::Inside, Kind::Directory, index)?;
    let mut attributes = mount.attributes;
    // A container's root with a user namespace could write the host's groups (CVE-2023-25809).
    if setup.plan.has_users() && !setup.cgroup_namespace {
        attributes |= Attr::MOUNT_ATTR_RDONLY;
    }
    let tree = match membership {
        None => unified(attributes, mount).at(Step::CgroupMount)?,
        Some(membership) => return legacy(setup, &place, attributes, membership),
    };
    attach_at(&tree, &place, c"").at(Step::CgroupMount)
}

/// Version 2: one file system, whose root is the root of the cgroup namespace.
fn unified(attributes: Attr, mount: &MountPlan) -> std::io::Result<OwnedFd> {
    match filesystem(c"cgroup2", &[], attributes, None) {
        // Not allowed in a user namespace without a cgroup namespace of its own.
        Err(Errno::PERM | Errno::BUSY) => {
            let copy = target::copy_tree(CWD, c"/sys/fs/cgroup", false)?;
            change(&copy, mount)?;
            set_attributes(
                &copy,
                false,
                &Attributes {
                    set: bits(attributes),
                    ..Attributes::default()
                },
            )?;
            Ok(copy)
        }
        made => Ok(made?),
    }
}

/// Version 1 and hybrid: a tmpfs with the container's own group of each hierarchy bound into it. A bind of the group's
/// directory costs no new superblock, and needs no cgroup namespace to show nothing of the others. Hierarchies in which
/// the container has no group of its own are left out: there it would see the host's.
fn legacy(setup: &Setup<'_>, place: &OwnedFd, attributes: Attr, membership: &str) -> Result<(), Failure> {
    let writable = attributes.difference(Attr::MOUNT_ATTR_RDONLY);
    let tmpfs = filesystem(c"tmpfs", &[], writable, Some(0o755)).at(Step::CgroupMount)?;
    attach_at(&tmpfs, place, c"").at(Step::CgroupMount)?;
    for hierarchy in &setup.plan.hierarchies.mounts {
        let Some(own) = hierarchy.own(membership).filter(|own| *own != hierarchy.point) else {
            continue;
        };
        let tree = CString::new(own.as_os_str().as_bytes()).map_err(|_| Errno::INVAL);
        let tree = tree.and_then(|own| target::copy_tree(CWD, &own, false));
        let tree = match tree {
            Err(Errno::NOENT) => continue,
            tree => tree.at(Step::CgroupMount)?,
        };
        set_attributes(
            &tree,
            false,
            &Attributes {
                set: rootfs::bits(attributes),
                ..Attributes::default()
            },
        )
        .at(Step::CgroupMount)?;
        rustix::fs::mkdirat(&tmpfs, &*hierarchy.name, Mode::from_raw_mode(0o755)).at(Step::CgroupMount)?;
        let name = CString::new(&*hierarchy.name)
            .map_err(|_| Errno::INVAL)
            .at(Step::CgroupMount)?;
        attach_at(&tree, tmpfs.as_fd(), &name).at(Step::CgroupMount)?;
        if hierarchy.name.contains(',') {
            for alias in hierarchy.name.split(',') {
                rustix::fs::symlinkat(&*hierarchy.name, &tmpfs, alias).at(Step::CgroupMount)?;
            }
        }
    }
    let rest = Attributes {
        set: bits(attributes),
        ..Attributes::default()
    };
    set_attributes(&tmpfs, false, &rest).at(Step::CgroupMount)
}
