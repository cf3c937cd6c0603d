//! Bind mounts: a copy of a part of the host's tree, changed while it is detached, then attached.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use dhow_sys::mount::{attach_at, set_attributes};
use rustix::fs::{AtFlags, CWD, FileType, StatVfsMountFlags as Flags, fstat, fstatfs, fstatvfs};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags as Attr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::Setup;
use super::rootfs::bits;
use super::target::{self, Kind, Links};
use crate::plan::{Attributes, Bind, MountPlan, Source};
use crate::report::{At, Failure, Message, Step};

/// Magic number of procfs (`include/uapi/linux/magic.h`).
const PROC: u64 = 0x9fa0;

/// Trees, by index of the mount that they are the source of.
pub(crate) type Trees = [(usize, OwnedFd)];

fn of(trees: &Trees, index: usize) -> Option<&OwnedFd> {
    trees.iter().find(|(at, _)| *at == index).map(|(_, fd)| fd)
}

/// Copies of the sources that keep their propagation, made while this namespace still has the host's.
pub(crate) fn with_propagation(setup: &Setup<'_>) -> Result<Vec<(usize, OwnedFd)>, Failure> {
    let mut kept = Vec::new();
    for (index, mount) in setup.plan.mounts.iter().enumerate() {
        if let Source::Bind(source) = &mount.source
            && source.is_kept(setup.plan)
        {
            kept.push((
                index,
                target::copy_source(CWD, source).at_index(Step::MountSource, index)?,
            ));
        }
    }
    Ok(kept)
}

/// Binds the mount's source at its target.
pub(crate) fn mount(
    setup: &Setup<'_>,
    kept: &Trees,
    root: BorrowedFd<'_>,
    mount: &MountPlan,
    source: &Bind,
    index: usize,
) -> Result<(), Failure> {
    if source.copy_link && copy_link(root, mount, source).at_index(Step::Mount, index)? {
        return Ok(());
    }
    let tree = prepared(setup, kept, root, mount, source, index)?;
    let tree = tree.as_ref();
    let links = if mount.on_link {
        Links::NotLast
    } else {
        Links::Inside
    };
    let place = match target::open(root, &mount.target, links) {
        Err(Errno::NOENT) => {
            let stat = fstat(tree).at_index(Step::MountSource, index)?;
            let directory = FileType::from_raw_mode(stat.st_mode).is_dir();
            let kind = if directory { Kind::Directory } else { Kind::File };
            target::open_or_make(root, &mount.target, links, kind, index)?
        }
        opened => opened.at_index(Step::MountTarget, index)?,
    };
    refuse_procfs(&place, tree, mount).at_index(Step::MountTarget, index)?;
    attach_at(tree, &place, c"").at_index(Step::Mount, index)
}

/// A tree that was taken by the parent or here.
pub(crate) enum Tree<'a> {
    Taken(&'a OwnedFd),
    Copied(OwnedFd),
}

impl Tree<'_> {
    pub(crate) fn as_ref(&self) -> &OwnedFd {
        match self {
            Self::Taken(tree) => tree,
            Self::Copied(tree) => tree,
        }
    }
}

/// The source, detached, with its attributes.
pub(crate) fn prepared<'a>(
    setup: &Setup<'a>,
    kept: &'a Trees,
    root: BorrowedFd<'_>,
    mount: &MountPlan,
    source: &Bind,
    index: usize,
) -> Result<Tree<'a>, Failure> {
    let tree = match (of(setup.taken, index), of(kept, index)) {
        (Some(tree), _) => Tree::Taken(tree),
        // Since Linux 6.8 mountinfo lists mounts by their age, and this copy is older than the mounts before it in the
        // spec: a copy of the copy takes its place, which the kernel makes since 6.15.
        (None, Some(tree)) => match target::copy_tree(tree.as_fd(), c"", source.recursive) {
            Ok(copy) => Tree::Copied(copy),
            Err(_) => Tree::Taken(tree),
        },
        (None, None) => Tree::Copied(copy(root, source).at_index(Step::MountSource, index)?),
    };
    if let (Some(users), Some(ids)) = (of(setup.ids, index), &source.ids) {
        match target::map_ids(tree.as_ref(), users, ids.recursive) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) && setup.plan.has_users() => {
                let message = Message::MapIds(u32::try_from(index).unwrap_or(u32::MAX), ids.recursive);
                ask_parent(setup.link, message, [tree.as_ref(), users]).at_index(Step::MapIds, index)?;
            }
            mapped => mapped.at_index(Step::MapIds, index)?,
        }
    }
    own_attributes(tree.as_ref(), mount.attributes, setup.plan.has_users()).at_index(Step::Mount, index)?;
    change(tree.as_ref(), mount).at_index(Step::Mount, index)?;
    Ok(tree)
}

/// Has the parent do what this process may not, and waits until it is done. A parent that fails ends this process.
fn ask_parent(link: BorrowedFd<'_>, message: Message, fds: [&OwnedFd; 2]) -> std::io::Result<()> {
    let (here, there) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let [tree, users] = fds.map(AsFd::as_fd);
    dhow_sys::fd::send(link, &message.encode(), &[tree, users, there.as_fd()])?;
    drop(there);
    match dhow_sys::fd::receive(&here, &mut [0; 1])? {
        (0, _) => Err(Errno::PIPE.into()),
        _ => Ok(()),
    }
}

fn copy(root: BorrowedFd<'_>, source: &Bind) -> rustix::io::Result<OwnedFd> {
    match &source.inside {
        Some(inside) => {
            let place = target::open(root, inside, Links::Inside)?;
            target::copy_tree(place.as_fd(), c"", source.recursive)
        }
        None => target::copy_source(CWD, source),
    }
}

/// Makes a link again that the source is; whether it is one.
fn copy_link(root: BorrowedFd<'_>, mount: &MountPlan, source: &Bind) -> Result<bool, crate::report::Code> {
    let stat = rustix::fs::statat(CWD, &source.path, AtFlags::SYMLINK_NOFOLLOW)?;
    if !FileType::from_raw_mode(stat.st_mode).is_symlink() {
        return Ok(false);
    }
    let content = rustix::fs::readlink(&source.path, Vec::new())?;
    let parent = mount.target.parent().unwrap_or(Path::new(""));
    let parent = target::rootpath(root)?.create_dir_all(parent, 0o755, None)?;
    let name = mount.target.file_name().unwrap_or_default();
    match rustix::fs::symlinkat(&content, &parent, name) {
        Err(Errno::EXIST) => {
            let found = rustix::fs::readlinkat(&parent, name, Vec::new())?;
            if found == content {
                Ok(true)
            } else {
                Err(Errno::EXIST.into())
            }
        }
        made => Ok(made.map(|()| true)?),
    }
}

/// Nothing but a procfs lies over /proc, and what leads into it by a link of the image is refused, as the plan refuses
/// what names it (CVE-2019-16884, CVE-2019-19921).
fn refuse_procfs(place: &OwnedFd, tree: &OwnedFd, mount: &MountPlan) -> rustix::io::Result<()> {
    let is_proc = |fd: &OwnedFd| fstatfs(fd).map(|stat| u64::try_from(stat.f_type).ok() == Some(PROC));
    if mount.target == Path::new("proc") {
        return if is_proc(tree)? { Ok(()) } else { Err(Errno::PERM) };
    }
    if !mount.target.starts_with("proc") && is_proc(place)? {
        return Err(Errno::LOOP);
    }
    Ok(())
}

/// Attributes that a user namespace inherits and may not take back (`MNT_LOCK_*`), as statvfs tells them.
const LOCKED: [(Flags, Attr); 4] = [
    (Flags::RDONLY, Attr::MOUNT_ATTR_RDONLY),
    (Flags::NOSUID, Attr::MOUNT_ATTR_NOSUID),
    (Flags::NODEV, Attr::MOUNT_ATTR_NODEV),
    (Flags::NOEXEC, Attr::MOUNT_ATTR_NOEXEC),
];

/// Gives a mount exactly the attributes that are named, if any is; access times stay as they are unless one is raised.
/// With `locked` those that the mount has and that nobody asked to lower stay, as they do where the kernel refuses.
pub(crate) fn own_attributes(tree: &OwnedFd, wanted: Attributes, locked: bool) -> std::io::Result<()> {
    if !wanted.named {
        return Ok(());
    }
    if locked {
        return keep_locked(tree, wanted);
    }
    match set_attributes(tree, false, &exactly(wanted, Attr::empty())) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => keep_locked(tree, wanted),
        set => set,
    }
}

fn exactly(wanted: Attributes, kept: Attr) -> dhow_sys::mount::Attributes<'static> {
    let all = Attr::MOUNT_ATTR_RDONLY
        | Attr::MOUNT_ATTR_NOSUID
        | Attr::MOUNT_ATTR_NODEV
        | Attr::MOUNT_ATTR_NOEXEC
        | Attr::MOUNT_ATTR_NOSYMFOLLOW;
    let times = Attr::MOUNT_ATTR__ATIME | Attr::MOUNT_ATTR_NODIRATIME;
    let mut set = wanted.raised | kept;
    let mut clear = all.difference(set);
    if wanted.times {
        clear |= times.difference(set & Attr::MOUNT_ATTR_NODIRATIME);
    } else {
        set.remove(times);
    }
    dhow_sys::mount::Attributes {
        set: bits(set),
        clear: bits(clear),
        ..dhow_sys::mount::Attributes::default()
    }
}

fn keep_locked(tree: &OwnedFd, mut wanted: Attributes) -> std::io::Result<()> {
    let has = fstatvfs(tree)?.f_flag;
    let mut kept = Attr::empty();
    for (flag, attribute) in LOCKED {
        if has.contains(flag) {
            kept |= attribute;
        }
    }
    if wanted.lowered.intersects(kept) {
        return Err(Errno::PERM.into());
    }
    if wanted.times {
        let mut times = Attr::empty();
        times.set(Attr::MOUNT_ATTR_NODIRATIME, has.contains(Flags::NODIRATIME));
        times.set(Attr::MOUNT_ATTR_NOATIME, has.contains(Flags::NOATIME));
        let strict = !has.intersects(Flags::NOATIME | Flags::RELATIME);
        times.set(Attr::MOUNT_ATTR_STRICTATIME, strict);
        let all = Attr::MOUNT_ATTR__ATIME | Attr::MOUNT_ATTR_NODIRATIME;
        if wanted.raised & all != times {
            return Err(Errno::PERM.into());
        }
        wanted.times = false;
    }
    set_attributes(tree, false, &exactly(wanted, kept))
}

/// Applies a plan's recursive attributes and propagation to a detached tree.
pub(crate) fn change(tree: &OwnedFd, mount: &MountPlan) -> std::io::Result<()> {
    if let Some((raised, lowered)) = mount.recursive {
        let attributes = dhow_sys::mount::Attributes {
            set: bits(raised),
            clear: bits(lowered),
            ..dhow_sys::mount::Attributes::default()
        };
        set_attributes(tree, true, &attributes)?;
    }
    if let Some((propagation, recursive)) = mount.propagation {
        let attributes = dhow_sys::mount::Attributes {
            propagation: Some(propagation),
            ..dhow_sys::mount::Attributes::default()
        };
        set_attributes(tree, recursive, &attributes)?;
    }
    Ok(())
}
