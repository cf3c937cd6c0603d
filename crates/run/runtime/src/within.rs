//! A child in namespaces that its parent could not come back from: an existing user or mount namespace.
//!
//! A process between the two enters them, clones the child as its own sibling, hands its pidfd over and exits.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use dhow_sys::clone::{Child, Options};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::Pid;

use crate::Namespace;

/// Starts `child` in the namespaces of `joins` and those that `options` makes new, which belong to the joined user
/// namespace then. It is a child of the caller.
pub(crate) fn spawn(
    joins: &[(Namespace, OwnedFd)],
    options: &Options<'_>,
    child: impl FnOnce() -> i32,
) -> io::Result<Child> {
    let (here, there) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let between = dhow_sys::clone::spawn(&Options::default(), || {
        let cloned = enter(joins).and_then(|()| {
            let options = Options {
                sibling: true,
                ..*options
            };
            dhow_sys::clone::spawn(&options, child)
        });
        let (errno, pidfd) = match &cloned {
            Ok(child) => (0, Some(child.pidfd.as_fd())),
            Err(error) => (error.raw_os_error().unwrap_or(libc::EIO), None),
        };
        let sent = dhow_sys::fd::send(&there, &errno.to_ne_bytes(), pidfd.as_slice());
        i32::from(sent.is_err())
    })?;
    let mut word = [0; 4];
    let received = dhow_sys::fd::receive(&here, &mut word);
    match crate::wait(between.pidfd.as_fd()) {
        // A caller that ignores SIGCHLD has it reaped by the kernel.
        Ok(_) | Err(_) => {}
    }
    let (length, fds) = received?;
    match (fds.into_iter().next(), i32::from_ne_bytes(word)) {
        (Some(pidfd), 0) if length == word.len() => Ok(Child {
            pid: number(&pidfd)?,
            pidfd,
        }),
        (_, 0) => Err(io::ErrorKind::UnexpectedEof.into()),
        (_, errno) => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Enters all: first what the caller has the right to, then the user namespace, then what only its root may enter.
fn enter(joins: &[(Namespace, OwnedFd)]) -> io::Result<()> {
    let user = |kind: Namespace| kind == Namespace::User;
    let has_user = joins.iter().any(|(kind, _)| user(*kind));
    let mut later = Vec::with_capacity(joins.len());
    for (kind, fd) in joins.iter().filter(|(kind, _)| !user(*kind)) {
        match dhow_sys::namespace::enter(fd) {
            Err(error) if has_user && error.raw_os_error() == Some(libc::EPERM) => later.push((kind, fd)),
            entered => entered?,
        }
    }
    for (_, fd) in joins.iter().filter(|(kind, _)| user(*kind)) {
        match dhow_sys::namespace::enter(fd) {
            // It is the caller's own.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {}
            entered => entered?,
        }
    }
    later
        .into_iter()
        .try_for_each(|(_, fd)| dhow_sys::namespace::enter(fd))
}

/// The process id that a pidfd stands for, in the caller's namespace.
pub(crate) fn number(pidfd: impl AsFd) -> io::Result<Pid> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd()))?;
    let number = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    number
        .and_then(|number| number.trim().parse().ok())
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}
