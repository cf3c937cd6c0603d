//! Pods: containers that share namespaces and a control group.
//!
//! ```text
//! ROOT/pods/<id>/pod.json   what was asked, never changed
//! ROOT/pod-names/<name>     a link to the id: the reservation of the name
//! RUN/pods/<id>             locked while the pod's control group is made or taken away
//! ```
//! Who belongs to a pod says so in its own record. The namespaces are those of one of them, the waiting container: its
//! program is a file of two hundred bytes of ours in a root of memory, so that no image is pulled for it. It is a container
//! as any other: its monitor answers names and holds the published ports, and nothing else keeps a pod alive.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dhow_bundle::{Limits, Request};
use dhow_cgroup::Group;
use dhow_monitor::RestartPolicy;
use dhow_types::{ContainerId, ErrorKind, validate_name};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::container::{
    Container, CreateContainer, Listed, NetworkMode, OwnRoot, Shared, SharedKind, Status, UsersChoice,
    make_folder, random_bytes, read_json, write_json,
};
use crate::names::{NameFolder, Owner};
use crate::{Context as _, Engine, Error};

/// What the containers of a pod can share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PodShare {
    /// The view of the control groups.
    Cgroup,
    /// IPC, and `/dev/shm`.
    Ipc,
    /// The network.
    Net,
    /// Processes.
    Pid,
    /// The host name.
    Uts,
}

impl PodShare {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 5] = [Self::Cgroup, Self::Ipc, Self::Net, Self::Pid, Self::Uts];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Ipc => "ipc",
            Self::Net => "net",
            Self::Pid => "pid",
            Self::Uts => "uts",
        }
    }

    const fn kind(self) -> Option<SharedKind> {
        match self {
            Self::Cgroup => Some(SharedKind::Cgroup),
            Self::Ipc => Some(SharedKind::Ipc),
            Self::Net => None,
            Self::Pid => Some(SharedKind::Pid),
            Self::Uts => Some(SharedKind::Uts),
        }
    }
}

/// What becomes of a pod when the last of its containers has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExitPolicy {
    /// It stays, with its waiting container.
    #[default]
    Continue,
    /// It is stopped.
    Stop,
}

/// What `pod create` asks for.
#[derive(Clone, Debug, Default)]
pub struct PodRequest {
    /// Its name; made up when absent.
    pub name: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What its containers share; nothing without a waiting container.
    pub share: Vec<PodShare>,
    /// The waiting container: network, ports, names. None for a pod without one.
    pub infra: Option<CreateContainer>,
    /// What becomes of it when the last of its containers has ended.
    pub exit_policy: ExitPolicy,
    /// Limits of all its containers together.
    pub limits: Limits,
    /// When its containers are started again, if they do not say themselves.
    pub restart: RestartPolicy,
    /// The group below which its own is.
    pub cgroup_parent: Option<String>,
    /// A file with its id, which goes away with it.
    pub id_file: Option<PathBuf>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// The id.
    pub id: ContainerId,
    /// The name.
    pub name: String,
    /// When it was created, RFC 3339 with nanoseconds.
    pub created: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What its containers share.
    pub share: Vec<PodShare>,
    /// The waiting container.
    pub infra: Option<ContainerId>,
    /// What becomes of it when the last of its containers has ended.
    pub exit_policy: ExitPolicy,
    /// Limits of all its containers together.
    pub limits: Limits,
    /// When its containers are started again, if they do not say themselves.
    pub restart: RestartPolicy,
    /// Path of its control group.
    pub cgroup: String,
    /// A file with its id, which goes away with it.
    pub id_file: Option<PathBuf>,
}

impl Pod {
    /// How it stands, from how its containers stand (libpod `pod_status.go`).
    #[must_use]
    pub fn status(containers: &[Container]) -> &'static str {
        let count = |fits: fn(Status) -> bool| containers.iter().filter(|one| fits(one.state.status)).count();
        let all = containers.len();
        let running = count(|status| matches!(status, Status::Running | Status::Restarting));
        let ended = count(|status| status == Status::Exited);
        match () {
            () if all == 0 => "Created",
            () if running == all => "Running",
            () if running > 0 => "Degraded",
            () if count(|status| status == Status::Paused) == all => "Paused",
            () if ended == all => "Exited",
            () if ended > 0 => "Stopped",
            () if count(|status| status == Status::Dead) > 0 => "Error",
            () => "Created",
        }
    }

    fn is_infra(&self, container: &Container) -> bool {
        self.infra.as_ref() == Some(&container.config.id)
    }
}

impl Engine {
    fn pod_folder(&self, id: &ContainerId) -> PathBuf {
        self.settings().root.join("pods").join(id.as_str())
    }

    fn pod_names(&self) -> NameFolder {
        NameFolder::new(self.settings().root.join("pod-names"))
    }

    /// Makes a pod, with its waiting container.
    ///
    /// # Errors
    /// `AlreadyExists` for a name in use; else as [`Engine::create`]: then nothing is left of it.
    pub fn create_pod(&self, wanted: &PodRequest) -> Result<Pod, Error> {
        let id = ContainerId::from_random(random_bytes()?);
        let name = match &wanted.name {
            Some(name) => name.clone(),
            None => format!("pod_{}", id.short()),
        };
        validate_name(&name)
            .map_err(|error| Error::because(ErrorKind::InvalidArgument, "create pod", error))?;
        let parent = wanted
            .cgroup_parent
            .as_deref()
            .map(|parent| parent.trim_matches('/').to_owned());
        let parent = parent.unwrap_or_else(|| self.cgroup_parent());
        let mut pod = Pod {
            cgroup: format!("{parent}/pod-{id}"),
            name,
            created: dhow_monitor::format_time(std::time::SystemTime::now()),
            labels: wanted.labels.clone(),
            share: if wanted.infra.is_some() {
                wanted.share.clone()
            } else {
                Vec::new()
            },
            infra: None,
            exit_policy: wanted.exit_policy,
            limits: wanted.limits.clone(),
            restart: wanted.restart,
            id_file: wanted.id_file.clone(),
            id,
        };
        // What the limits mean is found out before anything is made.
        pod_resources(&pod.limits)?;
        self.write_pod(&pod)?;
        if let Err(error) = self.reserve_pod_name(&pod) {
            drop(fs::remove_dir_all(self.pod_folder(&pod.id)));
            return Err(error);
        }
        if let Some(infra) = &wanted.infra {
            match self.create_infra(&pod, infra) {
                Ok(id) => pod.infra = Some(id),
                Err(error) => {
                    drop(self.forget_pod(&pod));
                    return Err(error);
                }
            }
            self.write_pod(&pod)?;
        }
        Ok(pod)
    }

    fn create_infra(&self, pod: &Pod, wanted: &CreateContainer) -> Result<ContainerId, Error> {
        let mut infra = wanted.clone();
        infra
            .name
            .get_or_insert_with(|| format!("{}-infra", pod.id.short()));
        infra.hostname.get_or_insert_with(|| pod.name.clone());
        infra.cgroup_parent = Some(pod.cgroup.clone());
        // It needs no right at all.
        infra.cap_drop = vec!["ALL".to_owned()];
        infra.read_only = true;
        infra.extras.root = Some(OwnRoot::Pause);
        infra.extras.pod = Some(pod.id.to_string());
        infra.extras.infra = true;
        infra.extras.ipc = crate::container::IpcMode::Shareable;
        self.create(&infra).map(|created| created.id)
    }

    fn write_pod(&self, pod: &Pod) -> Result<(), Error> {
        let folder = self.pod_folder(&pod.id);
        make_folder(&folder)?;
        write_json(&folder.join("pod.json"), pod)
    }

    fn reserve_pod_name(&self, pod: &Pod) -> Result<(), Error> {
        let owner = |id: &ContainerId| {
            let there = self.pod_folder(id).join("pod.json").exists();
            if there { Owner::There } else { Owner::Gone }
        };
        match self.pod_names().reserve(&pod.name, &pod.id, owner)? {
            Some(_) => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "adding pod to state: name {:?} is in use: pod already exists",
                    pod.name
                ),
            )),
            None => Ok(()),
        }
    }

    /// Every pod, newest first.
    ///
    /// # Errors
    /// What reading the folder said.
    pub fn pods(&self) -> Result<Vec<Pod>, Error> {
        let entries = match fs::read_dir(self.settings().root.join("pods")) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::wrap(error, "list pods")),
        };
        let mut pods = Vec::new();
        for entry in entries.flatten() {
            match read_json::<Pod>(&entry.path().join("pod.json")) {
                Ok(pod) => pods.push(pod),
                // It vanished meanwhile, or is not yet there.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DataLoss) => {}
                Err(error) => return Err(error),
            }
        }
        pods.sort_by(|a, b| b.created.cmp(&a.created));
        Ok(pods)
    }

    /// The pod of this name, id or beginning of an id.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` when several ids begin so.
    pub fn pod(&self, wanted: &str) -> Result<Pod, Error> {
        let missing = || {
            let message = format!("no pod with name or ID {wanted} found: no such pod");
            Error::new(ErrorKind::NotFound, message)
        };
        if wanted.is_empty() {
            return Err(missing());
        }
        let pods = self.pods()?;
        let owner = self.pod_names().owner(wanted);
        let owned = pods.iter().find(|pod| owner.as_ref() == Some(&pod.id));
        let called = |pod: &&Pod| pod.name == wanted || pod.id.as_str() == wanted;
        if let Some(pod) = owned.or_else(|| pods.iter().find(called)) {
            return Ok(pod.clone());
        }
        let mut matching = pods.into_iter().filter(|pod| pod.id.as_str().starts_with(wanted));
        match (matching.next(), matching.next()) {
            (Some(pod), None) => Ok(pod),
            (Some(_), Some(_)) => {
                let message = format!("multiple pods begin with {wanted:?}");
                Err(Error::new(ErrorKind::InvalidArgument, message).with_hint("give more of the id"))
            }
            (None, _) => Err(missing()),
        }
    }

    /// The containers of a pod: the waiting one first, then by age.
    ///
    /// # Errors
    /// When the containers cannot be read.
    pub fn pod_containers(&self, pod: &Pod) -> Result<Vec<Container>, Error> {
        let mut containers = self.containers().list()?;
        containers.retain(|one| one.config.extras.pod.as_deref() == Some(pod.id.as_str()));
        containers.reverse();
        containers.sort_by_key(|one| !pod.is_infra(one));
        Ok(containers)
    }

    /// Lets a container that is asked for belong to a pod.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for what contradicts what the pod shares.
    pub fn join_pod(&self, wanted: &mut CreateContainer, pod: &Pod) -> Result<(), Error> {
        let refuse = |message: &str| Err(Error::new(ErrorKind::InvalidArgument, message));
        wanted.extras.pod = Some(pod.id.to_string());
        wanted.cgroup_parent = Some(pod.cgroup.clone());
        if wanted.restart == RestartPolicy::No && !wanted.auto_remove {
            wanted.restart = pod.restart;
        }
        let Some(infra) = &pod.infra else {
            return Ok(());
        };
        if self.containers().load(infra)?.config.extras.users.is_some() {
            if wanted.users != UsersChoice::Host {
                return refuse("--userns and --pod cannot be set together");
            }
            wanted.users = UsersChoice::Container(infra.to_string());
        }
        for share in &pod.share {
            match share {
                PodShare::Net => {
                    if !wanted.ports.is_empty() || wanted.publish_all {
                        return refuse(
                            "published or exposed ports must be defined when the pod is created: network cannot be \
                             configured when it is shared with a pod",
                        );
                    }
                    if wanted.networks.is_empty() {
                        wanted.networks = vec![crate::container::Attachment {
                            network: format!("container:{infra}"),
                            ..crate::container::Attachment::default()
                        }];
                    }
                }
                PodShare::Uts if wanted.hostname.is_some() => {
                    return refuse(
                        "invalid config provided: cannot set hostname when joining the pod UTS namespace: invalid \
                         configuration",
                    );
                }
                _ => {}
            }
            if let Some(kind) = share.kind()
                && !wanted.extras.shared.iter().any(|shared| shared.kind == kind)
            {
                wanted.extras.shared.push(Shared {
                    kind,
                    container: infra.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Starts all containers of a pod, the waiting one first; one that runs is left alone.
    ///
    /// # Errors
    /// The first failure, with all others tried.
    pub fn start_pod(&self, pod: &Pod) -> Result<(), Error> {
        let containers = self.pod_containers(pod)?;
        each(&containers, "start", |one| {
            self.start(one.config.id.as_str(), false).map(drop)
        })
    }

    /// Stops all containers of a pod, the waiting one last.
    ///
    /// # Errors
    /// As [`Engine::start_pod`].
    pub fn stop_pod(&self, pod: &Pod, grace: Option<Duration>) -> Result<(), Error> {
        let mut containers = self.pod_containers(pod)?;
        containers.reverse();
        each(&containers, "stop", |one| {
            self.stop(one.config.id.as_str(), None, grace).map(drop)
        })
    }

    /// Sends all that runs of a pod a signal.
    ///
    /// # Errors
    /// As [`Engine::start_pod`].
    pub fn kill_pod(&self, pod: &Pod, signal: &str) -> Result<(), Error> {
        let mut containers = self.pod_containers(pod)?;
        containers.retain(|one| matches!(one.state.status, Status::Running | Status::Paused));
        each(&containers, "kill", |one| {
            self.kill(one.config.id.as_str(), signal)
        })
    }

    /// Freezes all that runs of a pod.
    ///
    /// # Errors
    /// As [`Engine::start_pod`].
    pub fn pause_pod(&self, pod: &Pod) -> Result<(), Error> {
        let mut containers = self.pod_containers(pod)?;
        containers.retain(|one| one.state.status == Status::Running);
        each(&containers, "pause", |one| self.pause(one.config.id.as_str()))
    }

    /// Lets all that is frozen of a pod go on.
    ///
    /// # Errors
    /// As [`Engine::start_pod`].
    pub fn unpause_pod(&self, pod: &Pod) -> Result<(), Error> {
        let mut containers = self.pod_containers(pod)?;
        containers.retain(|one| one.state.status == Status::Paused);
        each(&containers, "unpause", |one| self.unpause(one.config.id.as_str()))
    }

    /// Removes a pod with all its containers. While one but the waiting one runs it is refused, unless by `force`: they are
    /// stopped then, in `grace`.
    ///
    /// # Errors
    /// `FailedPrecondition` for what runs: then nothing is removed.
    pub fn remove_pod(&self, pod: &Pod, force: bool, grace: Option<Duration>) -> Result<(), Error> {
        let containers = self.pod_containers(pod)?;
        let busy = |one: &&Container| {
            !pod.is_infra(one)
                && matches!(
                    one.state.status,
                    Status::Running | Status::Paused | Status::Restarting
                )
        };
        let running: Vec<&Container> = containers.iter().filter(busy).collect();
        if !force && !running.is_empty() {
            let mut message = format!(
                "not all containers could be removed from pod {}: removing pod containers",
                pod.id
            );
            for one in running {
                message.push_str(&format!(
                    "\ncannot remove container {} as it is {} - running or paused containers cannot be removed without \
                     force: container state improper",
                    one.config.id,
                    one.state.status.as_str()
                ));
            }
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        }
        // The waiting one last: the others are in its namespaces.
        for one in containers.iter().rev() {
            let id = one.config.id.as_str();
            let stopped = match grace {
                Some(grace) if force => self.stop(id, None, Some(grace)).map(drop),
                _ => Ok(()),
            };
            match stopped.and_then(|()| self.remove_container(id, true, true)) {
                // With `--rm` it went by itself.
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.forget_pod(pod)
    }

    /// Removes what is left of a pod without containers.
    fn forget_pod(&self, pod: &Pod) -> Result<(), Error> {
        self.leave_pod_group(pod);
        if let Some(path) = &pod.id_file {
            match fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::wrap(error, format!("remove {}", path.display())));
                }
                _ => {}
            }
        }
        drop(fs::remove_file(
            self.settings().run.join("pods").join(pod.id.as_str()),
        ));
        match fs::remove_dir_all(self.pod_folder(&pod.id)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::wrap(error, format!("remove pod {}", pod.name)));
            }
            _ => {}
        }
        // Its folder is gone: another may have the name already.
        let names = self.pod_names();
        names.forget(&pod.name, |owner| owner == Some(&pod.id)).map(drop)
    }

    /// Removes the pods of which nothing runs, or has ended; their ids.
    ///
    /// # Errors
    /// What a removal said.
    pub fn prune_pods(&self) -> Result<Vec<ContainerId>, Error> {
        let mut removed = Vec::new();
        for pod in self.pods()? {
            let status = Pod::status(&self.pod_containers(&pod)?);
            if matches!(status, "Created" | "Exited" | "Stopped" | "Error") {
                self.remove_pod(&pod, true, None)?;
                removed.push(pod.id);
            }
        }
        Ok(removed)
    }

    /// Makes the pod's control group before one of its containers' is made below it. Held until that is there: who takes
    /// an empty one away asks for the same lock.
    pub(crate) fn enter_pod_group(&self, id: &str) -> Result<Option<OwnedFd>, Error> {
        let pod = self.pod(id)?;
        let lock = self.pod_lock(&pod)?;
        let what = || format!("make the control group of pod {}", pod.name);
        match Group::open(Path::new(&pod.cgroup)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let resources = pod_resources(&pod.limits)?;
                Group::create_if_allowed(Path::new(&pod.cgroup), &resources).context(what)?;
            }
            opened => drop(opened.context(what)?),
        }
        Ok(Some(lock))
    }

    /// Takes the pod's control group away when no container has one below it. Who is killed before that leaves it to the
    /// next one, or to the pod's removal.
    fn leave_pod_group(&self, pod: &Pod) {
        let Ok(_lock) = self.pod_lock(pod) else { return };
        if let Ok(group) = Group::open(Path::new(&pod.cgroup)) {
            for folder in group.directories() {
                // One that holds another is not empty, and stays.
                drop(fs::remove_dir(folder));
            }
        }
    }

    fn pod_lock(&self, pod: &Pod) -> Result<OwnedFd, Error> {
        let folder = self.settings().run.join("pods");
        make_folder(&folder)?;
        let path = folder.join(pod.id.as_str());
        let what = || format!("lock {}", path.display());
        let file = fs::File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let file = OwnedFd::from(file.context(what)?);
        flock(&file, FlockOperation::LockExclusive)
            .map_err(std::io::Error::from)
            .context(what)?;
        Ok(file)
    }

    /// What a pod's container leaves behind when it has ended for good: the group, and with the exit policy `stop` a pod of
    /// which nothing runs any more.
    pub(crate) fn left_pod(&self, id: &str, own: &ContainerId) {
        let Ok(pod) = self.pod(id) else { return };
        if pod.exit_policy == ExitPolicy::Stop
            && pod.infra.as_ref().is_some_and(|infra| infra != own)
            && let Ok(containers) = self.pod_containers(&pod)
            && !containers.iter().any(|one| {
                !pod.is_infra(one)
                    && matches!(
                        one.state.status,
                        Status::Running | Status::Paused | Status::Restarting
                    )
            })
        {
            // What cannot be stopped now is seen by who looks at the pod.
            drop(self.stop_pod(&pod, None));
        }
        self.leave_pod_group(&pod);
    }
}

/// The limits alone: which devices may be used is for each container to say.
fn pod_resources(limits: &Limits) -> Result<dhow_oci::runtime::Resources, Error> {
    let request = Request {
        args: vec![String::new()],
        limits: limits.clone(),
        ..Request::default()
    };
    let mut resources = crate::system::runtime_spec(&request)?
        .linux
        .and_then(|linux| linux.resources)
        .unwrap_or_default();
    resources.devices = Vec::new();
    Ok(resources)
}

/// Does `deed` for each; goes on after a failure, and tells all of them.
fn each(
    containers: &[Container],
    verb: &str,
    mut deed: impl FnMut(&Container) -> Result<(), Error>,
) -> Result<(), Error> {
    let (mut lines, mut kind) = (Vec::new(), None);
    for one in containers {
        match deed(one) {
            Ok(()) => {}
            // It went by itself, as one with `--rm` does.
            Err(error) if error.kind() == ErrorKind::NotFound && one.config.auto_remove => {}
            Err(error) => {
                kind.get_or_insert(error.kind());
                lines.push(format!(
                    "{verb} container {}: {}",
                    one.config.id.short(),
                    crate::worker::chain(&error)
                ));
            }
        }
    }
    match kind {
        Some(kind) => Err(Error::new(kind, lines.join("\n"))),
        None => Ok(()),
    }
}

/// Whether a container is the waiting one of its pod.
#[must_use]
pub fn is_infra(container: &Container) -> bool {
    container.config.extras.infra
}

/// Whether a container's network is its pod's.
#[must_use]
pub fn shares_network(container: &Listed) -> bool {
    container.config.extras.pod.is_some() && matches!(container.config.network, NetworkMode::Container(_))
}
