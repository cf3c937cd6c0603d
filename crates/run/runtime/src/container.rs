//! Containers with a folder of their own, as the standard's command line wants them: created by one process, started,
//! asked and deleted by others.
//!
//! ```text
//! <root>/<id>/              flock on the folder itself: held by who creates, starts or deletes; the kernel frees it
//!             config.json   the bundle's spec as it was at create, never changed
//!             state.json    the record: process, control group, bundle; replaced by rename
//!             notify/       where a socket is on which the program says that it is ready, if it is to
//!             start         a socket on which the container's first process waits to be started
//! ```
//!
//! # What it promises
//! - What a container is doing is asked of the kernel each time: a process is the container's when its id *and* its start
//!   time are those of the record; it is "created" until it has executed a program, which the kernel knows (PF_FORKNOEXEC);
//!   "paused" is the freezer's word. A record cannot be stale.
//! - A kill of any command at any moment leaves what `delete` (with force, while something still runs) takes away: the
//!   folder comes first, then the spec, which names the control group; a first process whose creator is gone ends by itself.
//! - The socket is reached through a descriptor of the folder, so the length of paths does not matter; nothing of it is
//!   visible inside the container, and the program does not inherit it.

mod checkpoint;
mod create;
mod criu;
mod driver;
mod enter;
mod folder;
mod life;
mod notify;
mod record;
mod remove;
pub(crate) mod resctrl;
mod restore;
mod vital;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dhow_cgroup::Group;
use dhow_oci::runtime::{Hook, Spec, State};
use dhow_types::ErrorKind;

pub use checkpoint::Checkpoint;
pub use create::{Begun, Bundle, Options, WithoutGroup, create, rfc3339, run};
pub use criu::{GroupMode, Images};
pub use driver::Systemd;
pub use enter::Entry;
pub use folder::{exists, list};
pub use life::Target;
pub use record::Record;
pub use resctrl::Allocation;
pub use restore::{Restore, restore};

use crate::{Context as _, Error};
use folder::Folder;
use vital::Vital;

/// How long a container that is being made is waited for.
const MAKING: Duration = Duration::from_secs(10);
/// How long its creator may take from making the folder to locking it.
const LOCKING: Duration = Duration::from_millis(50);

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is being made.
    Creating,
    /// It waits for its start.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its first process is gone.
    Stopped,
}

impl Status {
    /// The word of the standard ("paused" is runc's).
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A container that is there.
#[derive(Debug)]
pub struct Container {
    folder: Folder,
    record: Option<Record>,
    kept: Option<Kept>,
}

/// What the maker of a container has at hand, and whoever opens it would look for.
#[derive(Debug)]
struct Kept {
    group: Option<Group>,
    poststop: Vec<Hook>,
}

impl Container {
    /// Opens the container `id` of the folder `root`.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no id, `NotFound` (runc's "container does not exist") when it is not there, `DataLoss`
    /// for a record that cannot be read.
    pub fn open(root: &Path, id: &str) -> Result<Self, Error> {
        let folder = Folder::open(root, id)?;
        let record = record::read(&folder)?;
        Ok(Self {
            folder,
            record,
            kept: None,
        })
    }

    /// Opens the container `id`; one that is being made when it has its first process, or makes hooks wait for an answer.
    ///
    /// Clients that start `create` beside them ask until there is an answer, and take the first one for that of a
    /// container that is there, as it is with runc and crun.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_made(root: &Path, id: &str) -> Result<Self, Error> {
        let began = Instant::now();
        loop {
            let opened = Self::open(root, id)?;
            let patience = if opened.folder.is_locked() {
                MAKING
            } else {
                LOCKING
            };
            if opened.record.is_some() || began.elapsed() >= patience {
                return Ok(opened);
            }
            drop(opened);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.folder.id()
    }

    /// What is written about it; nothing of one whose creator was killed early.
    #[must_use]
    pub const fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// Id of the user who owns its folder.
    ///
    /// # Errors
    /// When it is gone meanwhile.
    pub fn owner(&self) -> Result<u32, Error> {
        self.folder.owner()
    }

    /// The spec as it was at create.
    ///
    /// # Errors
    /// `NotFound` when its creator was killed before it was written.
    pub fn spec(&self) -> Result<Spec, Error> {
        self.folder.spec()
    }

    /// What it is doing now.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn status(&self) -> Result<Status, Error> {
        let Some(record) = &self.record else {
            return Ok(self.unfinished());
        };
        let Some(vital) = Vital::of(record.pid, record.start) else {
            return Ok(Status::Stopped);
        };
        // One that runs its program is whole, whatever its maker has still to write.
        if record.creating && !vital.executed {
            return Ok(self.unfinished());
        }
        if self.group()?.is_some_and(|group| group.frozen().unwrap_or(false)) {
            return Ok(Status::Paused);
        }
        Ok(if vital.executed || record.restored {
            Status::Running
        } else {
            Status::Created
        })
    }

    /// Whether one that is not whole is still being made.
    fn unfinished(&self) -> Status {
        if self.folder.is_locked() {
            Status::Creating
        } else {
            Status::Stopped
        }
    }

    /// The state document of the standard.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub fn state(&self) -> Result<State, Error> {
        let status = self.status()?;
        let mut state = self.record.as_ref().map(Record::state).unwrap_or_default();
        state.id = self.id().to_owned();
        state.status = status.word().to_owned();
        if status == Status::Stopped {
            state.pid = 0;
        }
        Ok(state)
    }

    /// Its control group; none when it has none, or it is gone.
    ///
    /// # Errors
    /// When a group that is there cannot be opened.
    pub fn group(&self) -> Result<Option<Group>, Error> {
        let opened = match &self.record {
            Some(record) if record.cgroup_paths.is_empty() => return Ok(None),
            Some(record) => Group::from_paths(&record.cgroup_paths),
            None => match self.spec() {
                Ok(spec) => driver::place(&spec, self.id()).and_then(|place| Group::open_at(&place)),
                Err(_) => return Ok(None),
            },
        };
        match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some).context(|| "open the container's control group"),
        }
    }

    /// The ids of all its processes, as the caller sees them.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn processes(&self) -> Result<Vec<i32>, Error> {
        if let Some(group) = self.group()? {
            return group.procs().context(|| "read the processes of the container");
        }
        let pid = self.pidfd()?.map(|(pid, _)| pid);
        Ok(pid.into_iter().collect())
    }

    /// Its first process, while it lives: id and descriptor.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn pidfd(&self) -> Result<Option<(i32, OwnedFd)>, Error> {
        match &self.record {
            Some(record) => vital::pidfd(record.pid, record.start).map(|fd| fd.map(|fd| (record.pid, fd))),
            None => Ok(None),
        }
    }

    /// Where the folder is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A file in the folder, for what the command line keeps there.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// runc's word for it, which clients know.
fn not_running() -> Error {
    Error::new(ErrorKind::FailedPrecondition, "container not running")
}
