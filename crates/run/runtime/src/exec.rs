//! One more process in a running container.

use std::os::fd::BorrowedFd;

use dhow_cgroup::Group;
use dhow_oci::runtime::{Process, Seccomp};
use dhow_types::ErrorKind;

use crate::{Error, Running, Settings, Stdio};

/// Everything [`exec`] needs.
#[derive(Debug)]
pub struct Exec<'a> {
    /// Pidfd of the container's first process.
    pub init: BorrowedFd<'a>,
    /// The program and its rights.
    pub process: &'a Process,
    /// The filter, usually the container's.
    pub seccomp: Option<&'a Seccomp>,
    /// The container's control group; the caller's own without.
    pub group: Option<&'a Group>,
    /// Standard streams; `Terminal` exactly when the process has one.
    pub stdio: Stdio,
    /// As for [`Plan::prepare`](crate::Plan::prepare).
    pub settings: &'a Settings,
}

/// Starts a process in all namespaces of a running container. It is a child of the caller.
///
/// # Errors
/// `NotFound` for a container that stopped; `NotFound` and `PermissionDenied` for the program; else the step.
pub fn exec(exec: Exec<'_>) -> Result<Running, Error> {
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("exec {:?}", exec.process.args),
    ))
}
