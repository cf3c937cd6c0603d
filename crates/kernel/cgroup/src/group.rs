use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use dhow_oci::runtime::Resources;
use dhow_types::ErrorKind;

use crate::{Error, Stats};

/// One control group: a directory in every hierarchy that matters.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    unified: Option<OwnedFd>,
}

fn soon<T>() -> Result<T, Error> {
    Err(Error::new(
        ErrorKind::Unsupported,
        "control groups are not written yet",
    ))
}

impl Group {
    /// Makes the group at `path` (`dhow/<id>`) with these limits.
    ///
    /// # Errors
    /// `AlreadyExists` when it is there; the file, the value and the fix of a limit that the kernel refuses.
    pub fn create(path: &Path, resources: &Resources) -> Result<Self, Error> {
        let _ = (path, resources);
        soon()
    }

    /// The existing group at `path`.
    ///
    /// # Errors
    /// `NotFound` when no hierarchy has it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let _ = path;
        soon()
    }

    /// Its path as given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory in the v2 tree, for `CLONE_INTO_CGROUP`.
    #[must_use]
    pub fn v2_fd(&self) -> Option<BorrowedFd<'_>> {
        use std::os::fd::AsFd as _;
        self.unified.as_ref().map(OwnedFd::as_fd)
    }

    /// Files into which a process with one thread writes `0` to put itself in the group, cheaply; what
    /// `CLONE_INTO_CGROUP` with [`v2_fd`](Self::v2_fd) does not cover. Empty on a pure v2 host.
    ///
    /// # Errors
    /// When they cannot be opened for writing.
    pub fn entrances(&self) -> Result<Vec<OwnedFd>, Error> {
        soon()
    }

    /// Moves a process, with all its threads, into the group.
    ///
    /// # Errors
    /// `NotFound` when the process is gone.
    pub fn add(&self, pid: i32) -> Result<(), Error> {
        let _ = pid;
        soon()
    }

    /// The processes in the group and in the groups below it.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn procs(&self) -> Result<Vec<i32>, Error> {
        soon()
    }

    /// Kills every process in the group and below it; none can escape by forking.
    ///
    /// # Errors
    /// When the group cannot be killed.
    pub fn kill_all(&self) -> Result<(), Error> {
        soon()
    }

    /// Stops every process until [`thaw`](Self::thaw); returns when all are stopped.
    ///
    /// # Errors
    /// `Unsupported` without a freezer.
    pub fn freeze(&self) -> Result<(), Error> {
        soon()
    }

    /// Lets frozen processes go on.
    ///
    /// # Errors
    /// `Unsupported` without a freezer.
    pub fn thaw(&self) -> Result<(), Error> {
        soon()
    }

    /// Whether the group is frozen.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn frozen(&self) -> Result<bool, Error> {
        soon()
    }

    /// Changes the limits that `resources` names; others stay.
    ///
    /// # Errors
    /// The file, the value and the fix of a limit that the kernel refuses.
    pub fn update(&self, resources: &Resources) -> Result<(), Error> {
        let _ = resources;
        soon()
    }

    /// What the group uses now.
    ///
    /// # Errors
    /// `NotFound` when the group is gone.
    pub fn stats(&self) -> Result<Stats, Error> {
        soon()
    }

    /// How often the OOM killer killed a process of this group.
    ///
    /// # Errors
    /// `NotFound` when the group is gone.
    pub fn oom_count(&self) -> Result<u64, Error> {
        soon()
    }

    /// Removes the group and the groups below it; one that is gone counts as removed.
    ///
    /// # Errors
    /// `FailedPrecondition` when processes stay in it.
    pub fn delete(self) -> Result<(), Error> {
        soon()
    }
}
