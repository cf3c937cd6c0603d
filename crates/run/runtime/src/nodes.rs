//! Device nodes of containers with a user namespace, which cannot make any.
//!
//! Mostly the host's own nodes are bound. One that is to have another mode or owner, or that the host has not at that place,
//! is made here where the caller is the machine's root: in a file system that no container sees, of which single files are
//! taken.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use dhow_oci::runtime::IdMapping;
use dhow_sys::mount::{attach_at, detach};
use rustix::fs::{AtFlags, FileType, Mode, chmodat, chownat, mknodat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags as Attr;
use rustix::process::{Gid, Uid};

use crate::init::rootfs::filesystem;
use crate::init::target;
use crate::plan::{Node, Plan};
use crate::report::{At, Failure, Step};
use crate::{Context as _, Error};

/// Nodes that were made.
#[derive(Debug)]
pub(crate) struct Made {
    /// The file system, a detached mount.
    place: OwnedFd,
    /// The nodes in it: the index of each, and its name.
    nodes: Vec<(usize, CString)>,
}

/// The nodes that are not simply the host's. None where they cannot be made: without root's rights, or a mount namespace to
/// take them out in. The host's own are bound then.
///
/// # Errors
/// What is neither.
pub(crate) fn made(plan: &Plan) -> Result<Option<Made>, Error> {
    let able = plan.own_mounts && rustix::process::geteuid().is_root();
    if !plan.has_users() || !able {
        return Ok(None);
    }
    let wanted: Vec<_> = plan
        .nodes
        .iter()
        .enumerate()
        .filter(|(_, node)| node.kind != FileType::Fifo && (node.asked || !is_there(node)))
        .collect();
    if wanted.is_empty() {
        return Ok(None);
    }
    let hardened = Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NOEXEC;
    let place = filesystem(c"tmpfs", &[], hardened, Some(0o755)).map_err(io::Error::from);
    let place = match place {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        place => place.context(|| "make a file system for device nodes")?,
    };
    let mut nodes = Vec::with_capacity(wanted.len());
    for (index, node) in wanted {
        match one(plan, &place, node, index) {
            Ok(name) => nodes.extend(name.map(|name| (index, name))),
            Err(Errno::PERM) => return Ok(None),
            Err(errno) => {
                let what = format!("make device node /{}", node.target.display());
                return Err(Error::wrap(io::Error::from(errno), what));
            }
        }
    }
    Ok((!nodes.is_empty()).then_some(Made { place, nodes }))
}

/// The child's side: each node as a detached mount, by its index. The whole file system is attached to `dir` meanwhile:
/// before Linux 6.15 nothing can be taken out of a mount that is nowhere.
pub(crate) fn take(made: &Made, dir: BorrowedFd<'_>) -> Result<Vec<(usize, OwnedFd)>, Failure> {
    attach_at(&made.place, dir, c"").at(Step::DeviceDirectory)?;
    let mut taken = Vec::with_capacity(made.nodes.len());
    for (index, name) in &made.nodes {
        let tree = target::copy_tree(made.place.as_fd(), name, false).at_index(Step::Device, *index)?;
        taken.push((*index, tree));
    }
    // Through the link to the mount itself, which is not followed as the last part of a name.
    let path = format!("/proc/self/fd/{}/.", made.place.as_raw_fd());
    detach(Path::new(&path)).at(Step::DeviceDirectory)?;
    Ok(taken)
}

/// Whether the host has the device under the name.
fn is_there(node: &Node) -> bool {
    rustix::fs::stat(&node.host)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == node.kind && stat.st_rdev == node.number)
}

/// One node, by its name; none when its owner is nobody that the container knows.
fn one(plan: &Plan, place: &OwnedFd, node: &Node, index: usize) -> rustix::io::Result<Option<CString>> {
    let (uid, gid) = node.owner.unwrap_or((Uid::ROOT, Gid::ROOT));
    let uid = outside(&plan.uid_mappings, uid.as_raw()).map(Uid::from_raw);
    let gid = outside(&plan.gid_mappings, gid.as_raw()).map(Gid::from_raw);
    let (Some(uid), Some(gid)) = (uid, gid) else {
        return Ok(None);
    };
    let name = CString::new(index.to_string()).map_err(|_| Errno::INVAL)?;
    let mode = Mode::from_raw_mode(node.mode);
    mknodat(place, &name, node.kind, mode, node.number)?;
    // The mask of the caller took bits away.
    chmodat(place, &name, mode, AtFlags::empty())?;
    chownat(place, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(Some(name))
}

/// The id outside of the user namespace.
fn outside(map: &[IdMapping], id: u32) -> Option<u32> {
    let range = map.iter().find(|range| {
        id.checked_sub(range.container_id)
            .is_some_and(|at| at < range.size)
    })?;
    range.host_id.checked_add(id - range.container_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_outside_is_that_of_its_range() {
        let range = |container_id, host_id, size| IdMapping {
            container_id,
            host_id,
            size,
        };
        let map = [range(0, 1000, 1), range(1, 100_000, 10)];
        assert_eq!(
            [0, 1, 10, 11].map(|id| outside(&map, id)),
            [Some(1000), Some(100_000), Some(100_009), None]
        );
        assert_eq!(outside(&[], 0), None);
        assert_eq!(outside(&[range(0, u32::MAX, 2)], 1), None);
    }
}
