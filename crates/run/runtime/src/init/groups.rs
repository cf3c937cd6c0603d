//! The container's view of the control groups.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use dhow_cgroup::Group;
use dhow_sys::mount::{Attributes, attach_at, set_attributes};
use rustix::fs::{CWD, Mode};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags as Attr;

use super::Setup;
use super::bind::change;
use super::rootfs::{bits, filesystem};
use super::target::{self, Kind, Links};
use crate::plan::{MountPlan, Parameter};
use crate::report::{At, Failure, Step};

/// The conventional place of all hierarchies.
const ROOT: &str = "/sys/fs/cgroup";
/// Magic number of the version 2 file system (`include/uapi/linux/magic.h`).
const CGROUP2: u64 = 0x6367_7270;

/// Mounts the groups at the mount's target. `options` are those of version 2 (`nsdelegate`): version 1 is shown as binds,
/// which have none.
pub(crate) fn mount(
    setup: &Setup<'_>,
    root: BorrowedFd<'_>,
    mount: &MountPlan,
    options: &[Parameter],
    index: usize,
) -> Result<(), Failure> {
    let place = target::open_or_make(root, &mount.target, Links::Inside, Kind::Directory, index)?;
    let mut attributes = mount.attributes.raised;
    // A container's root with a user namespace could write the host's groups (CVE-2023-25809).
    if setup.plan.has_users() && !setup.cgroup_namespace {
        attributes |= Attr::MOUNT_ATTR_RDONLY;
    }
    let magic = rustix::fs::statfs(ROOT).at(Step::CgroupMount)?.f_type;
    if u64::try_from(magic).ok() != Some(CGROUP2) {
        if !options.is_empty() {
            return Err(Errno::INVAL).at_index(Step::Mount, index);
        }
        return legacy(setup, &place, attributes);
    }
    let tree = unified(attributes, options, mount).at_index(Step::Mount, index)?;
    attach_at(&tree, &place, c"").at(Step::CgroupMount)
}

/// Version 2: one file system, whose root is the root of the cgroup namespace.
fn unified(attributes: Attr, options: &[Parameter], mount: &MountPlan) -> std::io::Result<OwnedFd> {
    match filesystem(c"cgroup2", options, attributes, None) {
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

/// Version 1 and hybrid: a tmpfs with the container's own directory of each hierarchy bound into it. A bind of a
/// directory costs no new superblock, and needs no cgroup namespace to show nothing of the others. Hierarchies in which
/// the container has no group of its own are left out: there it would see the host's.
fn legacy(setup: &Setup<'_>, place: &OwnedFd, attributes: Attr) -> Result<(), Failure> {
    let writable = attributes.difference(Attr::MOUNT_ATTR_RDONLY);
    let tmpfs = filesystem(c"tmpfs", &setup.plan.context, writable, Some(0o755)).at(Step::CgroupMount)?;
    attach_at(&tmpfs, place, c"").at(Step::CgroupMount)?;
    for own in setup.group.into_iter().flat_map(Group::directories) {
        // /sys/fs/cgroup/cpu,cpuacct/dhow/<id> is known to programs as /sys/fs/cgroup/cpu,cpuacct.
        let Some(name) = own.strip_prefix(ROOT).ok().and_then(|below| below.iter().next()) else {
            continue;
        };
        let text = |bytes: &[u8]| {
            CString::new(bytes)
                .map_err(|_| Errno::INVAL)
                .at(Step::CgroupMount)
        };
        let tree = target::copy_tree(CWD, &text(own.as_os_str().as_bytes())?, false).at(Step::CgroupMount)?;
        rustix::fs::mkdirat(&tmpfs, name, Mode::from_raw_mode(0o755)).at(Step::CgroupMount)?;
        attach_at(&tree, tmpfs.as_fd(), &text(name.as_bytes())?).at(Step::CgroupMount)?;
        if name.as_bytes().contains(&b',') {
            for alias in name.as_bytes().split(|byte| *byte == b',') {
                rustix::fs::symlinkat(name, &tmpfs, alias).at(Step::CgroupMount)?;
            }
        }
    }
    let rest = Attributes {
        set: bits(attributes),
        ..Attributes::default()
    };
    set_attributes(&tmpfs, true, &rest).at(Step::CgroupMount)
}
