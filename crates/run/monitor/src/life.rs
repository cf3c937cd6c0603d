use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime};

use crate::{Error, Health, RestartPolicy};

/// A program that runs, with our ends of its streams. With a terminal, only `terminal` is there.
#[derive(Debug)]
pub struct Launched {
    /// Process id on the host.
    pub pid: i32,
    /// Handle of the process, readable when it has ended.
    pub pidfd: OwnedFd,
    /// Where its input is written; `None` when it has none.
    pub stdin: Option<OwnedFd>,
    /// Where its output is read.
    pub stdout: Option<OwnedFd>,
    /// Where its error output is read.
    pub stderr: Option<OwnedFd>,
    /// The master of its terminal.
    pub terminal: Option<OwnedFd>,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 and the signal's number when a signal ended it.
    pub code: i32,
    /// When.
    pub at: SystemTime,
    /// Why it could not even start, for a program that never ran.
    pub error: Option<String>,
    /// Whether somebody asked for it (`stop`, `kill`), so that no restart policy holds until the next start.
    pub by_request: bool,
}

/// A health check under way.
#[derive(Debug)]
pub struct Probe {
    /// Handle of its process.
    pub pidfd: OwnedFd,
    /// Where its output is read; what exceeds the log's limit is dropped (cri-o GHSA-fcm2-6c3h-pg6j).
    pub output: OwnedFd,
}

/// What happened, for the record.
#[derive(Debug)]
pub enum Change<'a> {
    /// The program runs.
    Started {
        /// Process id on the host.
        pid: i32,
        /// When.
        at: SystemTime,
    },
    /// The program ended and stays so, or will be started again.
    Ended {
        /// How.
        exit: &'a Exit,
        /// Whether the restart policy starts it again, and which time that is.
        restarting: Option<u32>,
    },
    /// The health record changed.
    Health(&'a Health),
    /// Its health is such that it is asked to end.
    Stopping,
}

/// A container's life as the engine knows it: what the monitor calls at each turn of it.
pub trait Life {
    /// Makes everything (mount, network, control group) and starts the program.
    ///
    /// # Errors
    /// Whatever failed; [`Life::ended`] is called all the same.
    fn launch(&mut self) -> Result<Launched, Error>;

    /// The restart policy as it is now, when it may have changed since the start; asked for when the program has ended.
    fn restart_policy(&mut self) -> Option<RestartPolicy> {
        None
    }

    /// Takes apart what [`Life::launch`] made and what others could still see of it. Called after every end, also of a
    /// launch that failed. Never fails: what cannot be done now is left for the next command to finish.
    fn ended(&mut self);

    /// Does what takes the kernel long and nobody waits for. Called after [`Life::ended`], when the end is written down
    /// and told; after the last one the container's lock is free already.
    fn bury(&mut self);

    /// Writes down what happened.
    fn record(&mut self, change: &Change<'_>);

    /// Starts a health check: the one of the start, or the usual one.
    ///
    /// # Errors
    /// Why it could not be started; this counts as a failed check.
    fn probe(&mut self, startup: bool) -> Result<Probe, Error>;

    /// Descriptors that want service while the program runs (DNS); asked before every wait.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;

    /// Serves the descriptors that are readable now, and timers of its own.
    fn serve(&mut self);

    /// How long [`Life::serve`] may wait at most to be called, when no descriptor becomes readable.
    fn timeout(&self) -> Option<Duration>;
}
