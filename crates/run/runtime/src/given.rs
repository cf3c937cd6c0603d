//! Mounts that the caller has already: they take the place of a bind mount's source.
//!
//! What a container shares with another one (`/dev/shm` of its IPC namespace), and what is mounted for a container alone
//! (an image, a volume of another file system), is never seen on the host: the caller holds it as a detached tree.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use dhow_rootpath::Root;
use dhow_sys::mount::{Attributes, set_attributes_at};
use dhow_types::ErrorKind;
use rustix::fs::CWD;
use rustix::mount::{MountPropagationFlags, OpenTreeFlags as Flags, open_tree};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::thread::UnshareFlags;

use crate::plan::Source;
use crate::{Context as _, Error, Plan};

impl Plan {
    /// Binds `tree`, a detached mount, where the spec binds something at `target`: the source that the spec names is not
    /// looked at. The options of that mount hold for it.
    ///
    /// # Errors
    /// `InvalidArgument` when the spec has no bind mount there.
    pub fn give(&mut self, target: &Path, tree: OwnedFd) -> Result<(), Error> {
        let below = target.strip_prefix("/").unwrap_or(target);
        let place = self
            .mounts
            .iter()
            .position(|mount| mount.target == below && matches!(mount.source, Source::Bind(_)));
        let Some(index) = place else {
            let message = format!("the spec has no bind mount at {}", target.display());
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        };
        self.given.push((index, tree));
        Ok(())
    }

    /// The tree that was given for a mount.
    pub(crate) fn given(&self, index: usize) -> Option<&OwnedFd> {
        self.given
            .iter()
            .find(|(at, _)| *at == index)
            .map(|(_, tree)| tree)
    }
}

/// A detached copy of what is mounted at `path` in another mount namespace. A link at its end is not followed, and only a
/// place where something is mounted counts: nobody inside can put another one there without the right to mount.
///
/// The caller must be single-threaded: a child enters the namespace, and executes nothing there.
///
/// # Errors
/// `NotFound` when there is no such place, `FailedPrecondition` when nothing is mounted there.
pub fn mounted_in(mounts: &OwnedFd, path: &CStr) -> Result<OwnedFd, Error> {
    let what = || format!("share {} of another container", path.to_string_lossy());
    let copy = || {
        dhow_sys::namespace::enter(mounts)?;
        let flags = Flags::OPEN_TREE_CLONE | Flags::OPEN_TREE_CLOEXEC | Flags::AT_SYMLINK_NOFOLLOW;
        if !is_mount(path)? {
            return Err(rustix::io::Errno::INVAL.into());
        }
        Ok(open_tree(CWD, path, flags)?)
    };
    match by_child(UnshareFlags::empty(), copy).context(what)? {
        Ok(tree) => Ok(tree),
        Err(libc::EINVAL) => {
            let message = format!("{}: nothing is mounted there", what());
            Err(Error::new(ErrorKind::FailedPrecondition, message))
        }
        Err(errno) => Err(std::io::Error::from_raw_os_error(errno)).context(what),
    }
}

/// A detached mount of what is at `path` in a detached mount; links are followed inside. Before Linux 6.15 only what is
/// attached can be copied: a child attaches it where nobody else looks.
///
/// The caller must be single-threaded.
///
/// # Errors
/// `NotFound` when there is no such path.
pub fn part_of(tree: &OwnedFd, path: &Path) -> Result<OwnedFd, Error> {
    let what = || format!("mount {} alone", path.display());
    let inside = Root::from_fd(tree.try_clone().context(what)?);
    let copy = || {
        let private = Attributes {
            propagation: Some(MountPropagationFlags::PRIVATE),
            ..Attributes::default()
        };
        // Else it would be attached on the host as well.
        set_attributes_at(CWD, c"/", true, &private)?;
        dhow_sys::mount::attach(tree, Path::new("/"))?;
        let place = inside.resolve(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => rustix::io::Errno::NOENT,
            _ => rustix::io::Errno::LOOP,
        })?;
        let flags = Flags::OPEN_TREE_CLONE | Flags::OPEN_TREE_CLOEXEC | Flags::AT_EMPTY_PATH;
        Ok(open_tree(&place, c"", flags)?)
    };
    let made = by_child(UnshareFlags::NEWNS, copy).context(what)?;
    made.map_err(std::io::Error::from_raw_os_error).context(what)
}

/// What a child of other namespaces copied, or why it did not.
fn by_child(
    namespaces: UnshareFlags,
    copy: impl FnOnce() -> std::io::Result<OwnedFd>,
) -> std::io::Result<Result<OwnedFd, i32>> {
    let options = dhow_sys::clone::Options {
        namespaces,
        ..dhow_sys::clone::Options::default()
    };
    let (here, there) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let child = dhow_sys::clone::spawn(&options, || {
        let copied = copy();
        let (errno, tree) = match &copied {
            Ok(tree) => (0, Some(tree.as_fd())),
            Err(error) => (error.raw_os_error().unwrap_or(libc::EIO), None),
        };
        i32::from(dhow_sys::fd::send(&there, &errno.to_ne_bytes(), tree.as_slice()).is_err())
    })?;
    drop(there);
    let mut word = [0; 4];
    let received = dhow_sys::fd::receive(&here, &mut word);
    match crate::wait(child.pidfd.as_fd()) {
        // A caller that ignores SIGCHLD has it reaped by the kernel.
        Ok(_) | Err(_) => {}
    }
    let (_, fds) = received?;
    match (fds.into_iter().next(), i32::from_ne_bytes(word)) {
        (Some(tree), 0) => Ok(Ok(tree)),
        (None, 0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
        (_, errno) => Ok(Err(errno)),
    }
}

/// Whether a path is the root of a mount.
fn is_mount(path: &CStr) -> std::io::Result<bool> {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
    let found = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
    let root = StatxAttributes::MOUNT_ROOT;
    Ok(found.stx_attributes_mask.contains(root) && found.stx_attributes.contains(root))
}
