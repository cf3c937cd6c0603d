//! A process that does nothing: the first one of a unit, until the container's own are in its group.

use std::io::{PipeWriter, Read as _};

use rustix::process::{Pid, Signal, WaitOptions};

use crate::{Context as _, Error};

/// A process that waits. It ends when this is dropped, and when this process dies.
#[derive(Debug)]
pub struct StandIn {
    pid: Pid,
    /// The child reads from the other end until this one is closed.
    _end: PipeWriter,
}

impl StandIn {
    /// Forks it. The caller must be single-threaded.
    ///
    /// # Errors
    /// When the caller has threads, or no process can be made.
    pub fn fork() -> Result<Self, Error> {
        let what = || "make a process to stand in for the container";
        let (mut reader, writer) = std::io::pipe().context(what)?;
        match dhow_sys::clone::fork().context(what)? {
            Some(pid) => Ok(Self { pid, _end: writer }),
            None => {
                drop(writer);
                // Whatever it reads: the end has come.
                drop(reader.read(&mut [0]));
                dhow_sys::background::exit_now(0)
            }
        }
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // Killed rather than told: a child of the container's may hold the pipe open still.
        rustix::process::kill_process(self.pid, Signal::KILL).ok();
        while matches!(
            rustix::process::waitpid(Some(self.pid), WaitOptions::empty()),
            Err(rustix::io::Errno::INTR)
        ) {}
    }
}
