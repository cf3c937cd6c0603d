//! The parent's side of a container's birth.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use dhow_cgroup::Group;
use dhow_types::ErrorKind;

use crate::{Error, Plan};

/// The root file system of a container.
#[derive(Debug)]
pub enum Rootfs {
    /// A detached mount, as `fsmount` and `open_tree` give it: the fast way, nothing of it is seen on the host.
    Mount(OwnedFd),
    /// A directory of the host; what is mounted below it comes along.
    Path(PathBuf),
}

/// What a process has as standard input, output and error.
#[derive(Debug)]
pub enum Stdio {
    /// These three.
    Fds {
        /// Descriptor 0.
        stdin: OwnedFd,
        /// Descriptor 1.
        stdout: OwnedFd,
        /// Descriptor 2.
        stderr: OwnedFd,
    },
    /// A new terminal of the container's own devpts; the caller gets the master.
    Terminal,
}

/// Kinds of namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// The view of the control group tree.
    Cgroup,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Mounts.
    Mount,
    /// Network.
    Network,
    /// Process ids.
    Pid,
    /// User and group ids.
    User,
    /// Host and domain name.
    Uts,
}

/// Everything [`create`] needs.
#[derive(Debug)]
pub struct Create<'a> {
    /// The compiled spec.
    pub plan: &'a Plan,
    /// The root file system.
    pub rootfs: Rootfs,
    /// Standard streams; `Terminal` exactly when the spec's process has one.
    pub stdio: Stdio,
    /// The control group the process is in before it does anything; the caller's own without.
    pub group: Option<&'a Group>,
    /// Namespaces to join, in place of what the spec says for their kind.
    pub namespaces: Vec<(Namespace, OwnedFd)>,
}

/// A container that is set up and waits for [`start`](Created::start). Dropped instead, its process exits by itself;
/// it is a child of the caller and wants to be reaped ([`wait`](crate::wait)).
#[derive(Debug)]
pub struct Created {
    /// Process id of the container's first process, in the caller's namespace.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// Master of its terminal.
    pub terminal: Option<OwnedFd>,
}

/// A process that became its program.
#[derive(Debug)]
pub struct Running {
    /// Process id in the caller's namespace.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// Master of its terminal.
    pub terminal: Option<OwnedFd>,
}

/// Sets a container up, up to the moment before execve.
///
/// # Errors
/// The step that failed with its subject. The child is reaped then.
pub fn create(create: Create<'_>) -> Result<Created, Error> {
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("create {:?}", create.rootfs),
    ))
}

/// [`create`] and [`Created::start`] in one, with one wait less for the child.
///
/// # Errors
/// As both.
pub fn run(create: Create<'_>) -> Result<Running, Error> {
    self::create(create)?.start()
}

impl Created {
    /// Lets the container's process execve its program.
    ///
    /// # Errors
    /// `NotFound` and `PermissionDenied` for the program; the process is reaped then.
    pub fn start(self) -> Result<Running, Error> {
        Ok(Running {
            pid: self.pid,
            pidfd: self.pidfd,
            terminal: self.terminal,
        })
    }
}
