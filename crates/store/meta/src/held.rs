//! Locks that many commands wait for, held for as long as a few system calls take.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use dhow_sys::sched::Urgent;
use dhow_types::ErrorKind;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::{Context as _, Error};

/// A lock file that this process has locked; free again when dropped.
///
/// While a thread waits for it and has it, it runs before all that are not urgent, where it may. Otherwise, with more
/// processes than processors, whoever has the lock is set aside for the others' turns in the middle of its few hundred
/// microseconds, and all that wait stand still with it: with 32 loops on two processors for 100 milliseconds.
#[derive(Debug)]
pub(crate) struct Held {
    // Dropped first: the next one goes on before this thread waits for its own turn again.
    _file: File,
    _urgent: Urgent,
}

impl Held {
    /// Opens the lock file, made if it is not there, and waits for its lock.
    pub(crate) fn take(path: &Path, operation: FlockOperation) -> Result<Self, Error> {
        let file = open(path)?;
        let urgent = Urgent::begin();
        lock(&file, path, operation)?;
        Ok(Self::new(file, urgent))
    }

    /// The same alone and without a wait: nothing while somebody else has it.
    pub(crate) fn try_take(path: &Path) -> Result<Option<Self>, Error> {
        let file = open(path)?;
        let urgent = Urgent::begin();
        match flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self::new(file, urgent))),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(None),
            Err(errno) => Err(failed(path, errno)),
        }
    }

    fn new(file: File, urgent: Urgent) -> Self {
        Self {
            _file: file,
            _urgent: urgent,
        }
    }
}

/// Locks a file that is open already, until it is closed.
pub(crate) fn wait(file: &File, path: &Path, operation: FlockOperation) -> Result<(), Error> {
    let _urgent = Urgent::begin();
    lock(file, path, operation)
}

fn lock(file: &File, path: &Path, operation: FlockOperation) -> Result<(), Error> {
    loop {
        match flock(file.as_fd(), operation) {
            Err(Errno::INTR) => {}
            outcome => return outcome.map_err(|errno| failed(path, errno)),
        }
    }
}

/// The lock file, made if it is not there.
pub(crate) fn open(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .context(|| format!("open {}", path.display()))
}

fn failed(path: &Path, errno: Errno) -> Error {
    Error::because(ErrorKind::Internal, format!("lock {}", path.display()), errno)
}
