//! The end of a process: signals and exit status, by pidfd.

use std::io;
use std::os::fd::BorrowedFd;

use dhow_types::ErrorKind;
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::{Context as _, Error};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this status, 0 to 255.
    Exited(u8),
    /// This signal killed it.
    Signaled(u8),
}

impl ExitStatus {
    /// The one number that shells and docker show: 128 + signal for a killed process.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Exited(status) => status,
            Self::Signaled(signal) => signal.saturating_add(128),
        }
    }
}

/// Sends a signal to a process by its pidfd.
///
/// # Errors
/// `NotFound` when it is gone, `InvalidArgument` for a number that is no signal.
pub fn kill(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Error> {
    match dhow_sys::process::send_signal(pidfd, signal) {
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {
            Err(Error::new(ErrorKind::NotFound, "process already finished"))
        }
        done => done.context(|| format!("send signal {signal}")),
    }
}

/// Waits for a child of the caller and reaps it.
///
/// # Errors
/// `NotFound` when it is not a child of the caller, or was reaped before.
pub fn wait(pidfd: BorrowedFd<'_>) -> Result<ExitStatus, Error> {
    loop {
        match waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Err(Errno::INTR) | Ok(None) => {}
            Err(Errno::CHILD) => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    "process is not a child to wait for",
                ));
            }
            Err(errno) => return Err(Error::wrap(io::Error::from(errno), "wait for process")),
            Ok(Some(status)) => {
                let byte = |number: i32| u8::try_from(number & 0xff).unwrap_or(u8::MAX);
                return Ok(match status.exit_status() {
                    Some(code) => ExitStatus::Exited(byte(code)),
                    None => ExitStatus::Signaled(byte(status.terminating_signal().unwrap_or(0))),
                });
            }
        }
    }
}
