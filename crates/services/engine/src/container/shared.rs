//! Namespaces that a container has from another one.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dhow_bundle::{BindMount, MountRequest, NamespaceMode, Request, UserMode};
use dhow_runtime::Namespace;
use dhow_types::{ContainerId, ErrorKind};
use rustix::fs::{Mode, OFlags};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::create::CreateContainer;
use super::folder::Container;
use super::record::{Config, NetworkMode, Status};
use super::users::{Entered, UsersOrigin};
use crate::{Context as _, Engine, Error};

/// What can be shared beside the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SharedKind {
    /// The view of the control groups.
    Cgroup,
    /// System V IPC, message queues, and `/dev/shm` with them.
    Ipc,
    /// Processes.
    Pid,
    /// The host name.
    Uts,
}

/// One namespace of another container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// Which.
    pub kind: SharedKind,
    /// Whose: a name or the beginning of an id when it is asked for, the id in the record.
    pub container: String,
}

/// Whether others may share the IPC namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpcMode {
    /// Nobody may.
    #[default]
    Private,
    /// Who names the container may.
    Shareable,
    /// Nobody may, and there is no `/dev/shm`.
    None,
}

/// How long a container whose lock is held may take to be written down as running.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where memory that processes share is mounted.
const SHM: &str = "/dev/shm";

impl SharedKind {
    /// Its name in `/proc/<pid>/ns`.
    const fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Ipc => "ipc",
            Self::Pid => "pid",
            Self::Uts => "uts",
        }
    }

    const fn namespace(self) -> Namespace {
        match self {
            Self::Cgroup => Namespace::Cgroup,
            Self::Ipc => Namespace::Ipc,
            Self::Pid => Namespace::Pid,
            Self::Uts => Namespace::Uts,
        }
    }
}

impl Config {
    /// The container that one of its namespaces is of.
    #[must_use]
    pub fn shared(&self, kind: SharedKind) -> Option<&str> {
        let mut all = self.extras.shared.iter();
        let found = all.find(|shared| shared.kind == kind);
        found.map(|shared| shared.container.as_str())
    }

    /// The containers that it cannot run without.
    #[must_use]
    pub fn needs(&self) -> Vec<ContainerId> {
        let shared = self
            .extras
            .shared
            .iter()
            .filter_map(|one| one.container.parse().ok());
        let network = match &self.network {
            NetworkMode::Container(id) => Some(id.clone()),
            _ => None,
        };
        let users = match self.extras.users.as_ref().map(|users| &users.origin) {
            Some(UsersOrigin::Container(id)) => Some(id.clone()),
            _ => None,
        };
        let mut all: Vec<ContainerId> = shared.chain(network).chain(users).collect();
        all.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        all.dedup();
        all
    }
}

/// What a start takes over from other containers.
#[derive(Debug, Default)]
pub(super) struct Joined {
    pub(super) namespaces: Vec<(Namespace, OwnedFd)>,
    /// The memory that the processes of the IPC namespace share.
    pub(super) shm: Option<OwnedFd>,
    /// What is mounted and has no path on the host, by place.
    pub(super) trees: Vec<(PathBuf, OwnedFd)>,
    /// The user namespace.
    pub(super) users: Option<Entered>,
}

impl Joined {
    /// Says in the request which namespaces are not the container's own, and what is mounted instead of its memory.
    pub(super) fn apply(&self, request: &mut Request) {
        for (kind, _) in &self.namespaces {
            // Nobody opens the path: the namespace is there as a descriptor.
            let other = NamespaceMode::Path(PathBuf::from("/proc/self/ns").join(match kind {
                Namespace::Cgroup => "cgroup",
                Namespace::Ipc => "ipc",
                Namespace::Pid => "pid",
                _ => "uts",
            }));
            match kind {
                Namespace::Cgroup => request.namespaces.cgroup = Some(other),
                Namespace::Ipc => request.namespaces.ipc = other,
                Namespace::Pid => request.namespaces.pid = other,
                Namespace::Uts => request.namespaces.uts = other,
                _ => {}
            }
        }
        if let Some(users) = &self.users {
            request.namespaces.user = UserMode(match users.is_new {
                true => NamespaceMode::Private,
                false => NamespaceMode::Path(PathBuf::from("/proc/self/ns/user")),
            });
            request.uid_mappings.clone_from(&users.ids.uids);
            request.gid_mappings.clone_from(&users.ids.gids);
            request.mapped_files = !super::users::keeps_ids_outside();
        }
        let asked = |mount: &MountRequest| mount.destination() == Path::new(SHM);
        if self.shm.is_some() && !request.mounts.iter().any(asked) {
            request.mounts.push(MountRequest::Bind(BindMount {
                source: PathBuf::from(SHM),
                destination: PathBuf::from(SHM),
                submounts: dhow_bundle::Submounts::Disabled,
                ..BindMount::default()
            }));
        }
    }

    /// The namespaces, for the runtime.
    pub(super) fn take_namespaces(&mut self) -> Result<Vec<(Namespace, OwnedFd)>, Error> {
        let mut namespaces = std::mem::take(&mut self.namespaces);
        if let Some(users) = &self.users {
            let users = users
                .namespace
                .try_clone()
                .context(|| "duplicate the user namespace")?;
            namespaces.push((Namespace::User, users));
        }
        Ok(namespaces)
    }

    /// Gives the runtime the mounts that it could not make.
    pub(super) fn give(&mut self, plan: &mut dhow_runtime::Plan) -> Result<(), Error> {
        for (place, tree) in self.trees.drain(..) {
            plan.give(&place, tree)
                .context(|| format!("mount on {}", place.display()))?;
        }
        match self.shm.take() {
            Some(shm) => plan.give(Path::new(SHM), shm).context(|| "share /dev/shm"),
            None => Ok(()),
        }
    }
}

impl Engine {
    /// Finds the containers that are named, and whether they let others in.
    pub(super) fn resolve_shared(&self, wanted: &[Shared]) -> Result<Vec<Shared>, Error> {
        let resolve = |shared: &Shared| {
            let other = self.containers().find(&shared.container)?;
            if shared.kind == SharedKind::Ipc && !lends_ipc(&other) {
                let message = format!(
                    "joining the IPC namespace of container {} is not allowed: non-shareable IPC (hint: use \
                     IpcMode:shareable for the donor container)",
                    other.config.id
                );
                return Err(Error::new(ErrorKind::FailedPrecondition, message));
            }
            Ok(Shared {
                kind: shared.kind,
                container: other.config.id.to_string(),
            })
        };
        wanted.iter().map(resolve).collect()
    }

    /// The host name of a container whose name another one shares.
    pub(super) fn shared_hostname(&self, wanted: &CreateContainer) -> Result<Option<String>, Error> {
        let mut shared = wanted.extras.shared.iter();
        match shared.find(|shared| shared.kind == SharedKind::Uts) {
            Some(shared) => Ok(Some(
                self.containers().find(&shared.container)?.config.request.hostname,
            )),
            None => Ok(None),
        }
    }

    /// Opens what a container has from others, which run.
    pub(super) fn join_shared(&self, config: &Config) -> Result<Joined, Error> {
        let mut joined = Joined::default();
        for shared in &config.extras.shared {
            let id: ContainerId = shared.container.parse().map_err(|error| {
                Error::because(
                    ErrorKind::DataLoss,
                    "read whose namespaces a container has",
                    error,
                )
            })?;
            let namespace = self.namespace_of(&id, shared.kind.name())?;
            joined.namespaces.push((shared.kind.namespace(), namespace));
            if shared.kind == SharedKind::Ipc {
                let mounts = self.namespace_of(&id, "mnt")?;
                let shm = dhow_runtime::mounted_in(&mounts, c"/dev/shm");
                joined.shm = Some(shm.context(|| format!("share the memory of container {}", id.short()))?);
            }
        }
        Ok(joined)
    }

    /// The containers that cannot run without this one.
    ///
    /// # Errors
    /// When the containers cannot be read.
    pub fn dependents(&self, id: &ContainerId) -> Result<Vec<Container>, Error> {
        let all = self.containers().list()?.into_iter();
        Ok(all.filter(|one| one.config.needs().contains(id)).collect())
    }

    /// Starts what a container cannot run without, first of all what that cannot run without.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn start_needs(&self, wanted: &str) -> Result<(), Error> {
        let container = self.containers().find(wanted)?;
        for id in container.config.needs() {
            if !self.is_there(&id)? {
                self.start_needs(id.as_str())?;
                self.start(id.as_str(), false)?;
                self.is_there(&id)?;
            }
        }
        Ok(())
    }

    /// Whether a container's program is there. Its monitor writes that down a moment after it has said so.
    fn is_there(&self, id: &ContainerId) -> Result<bool, Error> {
        let patience = Instant::now() + PATIENCE;
        loop {
            let status = self.containers().load(id)?.state.status;
            if matches!(status, Status::Running | Status::Paused | Status::Restarting) {
                return Ok(true);
            }
            if self.containers().try_lock(id)?.is_some() || Instant::now() > patience {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn lends_ipc(other: &Container) -> bool {
    let config = &other.config;
    config.extras.ipc == IpcMode::Shareable || config.request.namespaces.ipc != NamespaceMode::Private
}

/// The namespace of this kind that a file of the host is.
pub(super) fn namespace_at(path: &Path, kind: UnshareFlags, name: &str) -> Result<OwnedFd, Error> {
    let what = || format!("join the {name} namespace {}", path.display());
    // A pipe or a device would wait for somebody, or do something.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(std::io::Error::from);
    let file = file.context(what)?;
    match dhow_sys::namespace::kind(&file) {
        Ok(found) if found == kind => Ok(file),
        _ => {
            let message = format!("{}: it is no {name} namespace", what());
            Err(Error::new(ErrorKind::InvalidArgument, message))
        }
    }
}
