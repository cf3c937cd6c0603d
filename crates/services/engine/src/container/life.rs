//! What a container's monitor calls at each turn of the container's life.

mod adopt;
mod network;

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use dhow_cgroup::Group;
use dhow_monitor::{Change, Exit, Health, HealthStatus, Launched, Life, Probe, RestartPolicy, format_time};
use dhow_network::Endpoint;
use dhow_oci::runtime::Spec;
use dhow_rootpath::Root;
use dhow_runtime::{Create, Namespace, Plan, Rootfs, Running, Stdio};
use dhow_types::ErrorKind;

use super::forward::Forwarder;
use super::hooks::Bundle;
use super::pipes::{Pipes, pipe};
use super::program::process_start;
use super::record::{Config, NetworkMode, Newborn, State, Status};
use super::shared::{Joined, namespace_at};
use super::users::{Entered, Ids};
use crate::event::Event;
use crate::{Context as _, Engine, Error};

/// A container, seen from its monitor.
#[derive(Debug)]
pub(super) struct ContainerLife {
    engine: Engine,
    config: Config,
    held: Option<Held>,
    /// Descriptors of the command that the first run has.
    kept: Vec<u32>,
    /// Whether it has ended for good.
    over: bool,
    oom_killed: bool,
    /// Since when the program runs.
    started: Option<SystemTime>,
    /// The last verdict on its health that was told.
    health: HealthStatus,
    /// Who sends the log on; outlives a restart.
    forwarder: Option<Forwarder>,
    /// Whether the next launch takes over a program that runs, and whether the last one did.
    adopts: bool,
    adopted: bool,
    /// Places in networks that are gone for everyone but the kernel.
    retired: Vec<dhow_network::Retired>,
    /// Those places, until their end is told.
    left: Vec<Endpoint>,
}

/// What is there while the program runs.
#[derive(Debug)]
struct Held {
    /// None where a normal user may make no group.
    group: Option<Group>,
    init: Option<OwnedFd>,
    network: Connection,
    /// Kept only for health checks.
    spec: Option<Box<Spec>>,
    /// Of one with hooks.
    bundle: Option<Bundle>,
}

/// How the running container is connected.
#[derive(Debug, Default)]
struct Connection {
    netns: Option<OwnedFd>,
    endpoints: Vec<Endpoint>,
    /// Sockets that hold the published ports, of the first network, until they are published.
    ports: Vec<OwnedFd>,
    published: dhow_network::Published,
    resolver: Option<dhow_network::dns::Server>,
    /// Name servers that plugins named.
    servers: Vec<String>,
    /// When to see that somebody watches the packet filter: not for a container that is gone by then.
    watch_at: Option<Instant>,
}

/// How long a container must live for its monitor to see to the packet filter.
const SETTLED: Duration = Duration::from_secs(1);

impl ContainerLife {
    pub(super) fn new(engine: Engine, config: Config, kept: Vec<u32>) -> Self {
        Self {
            engine,
            config,
            held: None,
            kept,
            over: false,
            oom_killed: false,
            started: None,
            health: HealthStatus::Starting,
            forwarder: None,
            adopts: false,
            adopted: false,
            retired: Vec::new(),
            left: Vec::new(),
        }
    }

    /// Takes over what a person changed since the last start. A record that cannot be read changes nothing.
    fn refresh(&mut self) {
        if let Ok(container) = self.engine.containers().load(&self.config.id) {
            self.config = container.config;
        }
    }

    fn start(&mut self) -> Result<Launched, Error> {
        crate::rootless::remain(self.engine.settings()).map_err(before_program)?;
        let users = self.engine.enter_users(self.config.extras.users.as_ref());
        let users = users.map_err(before_program)?;
        let mount = self.root(users.as_ref())?;
        let root = Root::from_fd(mount.try_clone().context(|| "duplicate the root's descriptor")?);
        self.engine.hold_volumes(&self.config).map_err(before_program)?;
        self.engine.copy_up(&self.config, &root, users.as_ref())?;
        let mut network = self.connect(users.as_ref()).map_err(before_program)?;
        // From here on `ended` undoes what was made.
        self.remember(&network.endpoints)?;
        let mut joined = self.engine.join_shared(&self.config).map_err(before_program)?;
        // A part that is not there is docker's 127.
        joined.trees = self.engine.trees(&self.config, users.as_ref())?;
        joined.users = users;
        let spec = self.spec(&root, &network, &joined).map_err(before_program)?;
        let resources = spec
            .linux
            .as_ref()
            .and_then(|linux| linux.resources.clone())
            .unwrap_or_default();
        let pod = self.config.extras.pod.as_deref();
        let entered = pod.map(|pod| self.engine.enter_pod_group(pod)).transpose();
        let entered = entered.map_err(before_program)?;
        let group = Group::create_if_allowed(&PathBuf::from(&self.config.request.cgroup_path), &resources)
            .context(|| "make the container's control group")
            .map_err(before_program)?;
        if !self.forwarder.as_ref().is_some_and(Forwarder::works) {
            self.forwarder = self.engine.forward_log(&self.config)?;
        }
        drop(entered);
        let folder = self
            .engine
            .containers()
            .run_folder(&self.config.id)
            .join("bundle");
        let bundle = Bundle::make(folder, &self.config.id, &spec).map_err(before_program)?;
        let ran = self.run(
            &spec,
            mount,
            group.as_ref(),
            &network,
            &mut joined,
            bundle.as_ref(),
        );
        // Whoever waits for the other end of one waits for the program alone.
        dhow_sys::fd::close_kept(&std::mem::take(&mut self.kept));
        let (launched, init) = ran?;
        if let Err(error) = self.publish(&mut network, init.as_fd()) {
            // `ended` undoes the rest, but nobody would wait for it.
            drop(dhow_runtime::kill(init.as_fd(), 9));
            drop(dhow_runtime::wait(init.as_fd()));
            return Err(before_program(error));
        }
        let spec = self.config.health.is_some().then(|| Box::new(spec));
        self.held = Some(Held {
            group,
            init: Some(init),
            network,
            spec,
            bundle,
        });
        Ok(launched)
    }

    /// The root file system as a mount that nobody on the host sees.
    fn root(&self, users: Option<&Entered>) -> Result<OwnedFd, Error> {
        if let Some(root) = &self.config.extras.root {
            let mount = self.engine.own_root(&self.config, root, users);
            return mount.map_err(before_program);
        }
        let snapshots = self.engine.snapshots()?;
        let key = self.config.id.as_str();
        let active = match snapshots.active(key) {
            Err(error) if error.kind() == ErrorKind::NotFound => snapshots.prepare(key, &self.config.layers),
            active => active,
        };
        // What goes away with the container need not be written to disk when it is unmounted.
        let volatile = self.config.auto_remove;
        let labels = self.config.request.selinux.as_ref();
        let what = || "mount the container's root file system";
        let mut active = active.context(what).map_err(before_program)?;
        if volatile {
            active = active.volatile();
        }
        if let Some(users) = users {
            active = users.see(&snapshots, active).map_err(before_program)?;
        }
        let active = super::trees::labelled(active, labels).map_err(before_program)?;
        active.mount_detached().context(what).map_err(before_program)
    }

    /// Writes down the places in networks before the program runs, so that a kill at any point leaves a record.
    fn remember(&self, endpoints: &[Endpoint]) -> Result<(), Error> {
        if endpoints.is_empty() {
            return Ok(());
        }
        self.change(|state| {
            state.endpoints = endpoints.to_vec();
            state.parked.clear();
        })
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> Result<(), Error> {
        // `network connect` writes the same record.
        let _edit = self.engine.containers().edit(&self.config.id)?;
        self.engine.containers().change_state(&self.config.id, change)
    }

    fn spec(&self, root: &Root, network: &Connection, joined: &Joined) -> Result<Spec, Error> {
        super::extras::check_workdir(&self.config, root)?;
        super::extras::make_mtab(&self.config, root, joined.users.as_ref())?;
        super::account::enter(&self.config, root, joined.users.as_ref())?;
        let mut request = self.config.request.clone();
        super::extras::link_zone(&self.config, &mut request, root, joined.users.as_ref())?;
        request.identity = super::exec::identity(root, &self.config.user)?;
        let owner = (request.identity.uid, request.identity.gid);
        super::copy_up::give_mounts(&self.config, owner, joined.users.as_ref())?;
        request.extra_groups = super::exec::groups(root, &self.config.group_add)?;
        if request.privileged && crate::rootless::is_rootful() {
            let asked: Vec<_> = request.devices.iter().map(|device| device.path.clone()).collect();
            let host = super::implied::host_devices(!self.config.extras.systemd);
            request
                .devices
                .extend(host.into_iter().filter(|device| !asked.contains(&device.path)));
        }
        request.env.extend(self.engine.secret_variables(&self.config)?);
        request.files = self.engine.generate_files(
            &self.config,
            &network.endpoints,
            network.resolver.is_some(),
            &network.servers,
        )?;
        if let Some(users) = &joined.users {
            let (containers, id) = (self.engine.containers(), &self.config.id);
            users.give_files(
                &[containers.folder(id), containers.run_folder(id)],
                &request.files,
            )?;
        }
        if let Some(labels) = &request.selinux {
            let shared = crate::selinux::shared(&labels.mount);
            for file in &request.files {
                crate::selinux::relabel(&file.source, &shared)?;
            }
        }
        if self.config.network == NetworkMode::Host {
            request.namespaces.net = dhow_bundle::NamespaceMode::Host;
        }
        if matches!(
            self.config.network,
            NetworkMode::Container(_) | NetworkMode::Namespace(_)
        ) {
            // Nobody opens the path: it says that the network is not the container's own to set.
            request.namespaces.net = dhow_bundle::NamespaceMode::Path(PathBuf::from("/proc/self/ns/net"));
        }
        joined.apply(&mut request);
        let mut spec = crate::system::runtime_spec(&request)?;
        super::cdi::add(&self.config.extras, &mut spec)?;
        super::hooks::add(&self.config, &mut spec)?;
        Ok(spec)
    }

    fn run(
        &mut self,
        spec: &Spec,
        mount: OwnedFd,
        group: Option<&Group>,
        network: &Connection,
        joined: &mut Joined,
        bundle: Option<&Bundle>,
    ) -> Result<(Launched, OwnedFd), Error> {
        let mut plan = Plan::prepare(spec, &self.engine.handing_settings(&self.kept))
            .context(|| "prepare the container")
            .map_err(before_program)?;
        if let Some(init) = spec_less_init(&self.config) {
            plan = plan
                .with_init(&init.name())
                .context(|| "prepare the first process")?;
        }
        joined.give(&mut plan).map_err(before_program)?;
        let mut namespaces = joined.take_namespaces()?;
        if let Some(netns) = &network.netns {
            let netns = netns.try_clone().context(|| "duplicate the network namespace")?;
            namespaces.push((Namespace::Network, netns));
        }
        let (stdio, ours) = if self.config.request.tty {
            (Stdio::Terminal, Pipes::default())
        } else {
            Pipes::new(self.config.open_stdin)?
        };
        if let Some(users) = &joined.users {
            users.give(spec.process.as_ref(), &stdio);
        }
        let create = Create {
            plan: &plan,
            rootfs: match bundle {
                Some(bundle) => Rootfs::Shown(mount, bundle.place()),
                None => Rootfs::Mount(mount),
            },
            stdio,
            group,
            namespaces,
            state: bundle.map(|bundle| &bundle.state),
        };
        let mut born = |pid| match group {
            // Whatever is in it is found by it.
            Some(_) => {}
            // A full disk must not keep it from its start.
            None => drop(self.change(|state| state.newborn = Some(Newborn::of(pid)))),
        };
        let running = match bundle {
            Some(_) => dhow_runtime::run_with_hooks(create, &super::hooks::surroundings(), &mut born),
            None => dhow_runtime::run_known(create, &mut born),
        };
        let Running { pid, pidfd, terminal } =
            running.context(|| format!("start container {}", self.config.id.short()))?;
        let init = pidfd.try_clone().context(|| "duplicate the process handle")?;
        let Pipes {
            stdin,
            stdout,
            stderr,
        } = ours;
        Ok((
            Launched {
                pid,
                pidfd,
                stdin,
                stdout,
                stderr,
                terminal,
            },
            init,
        ))
    }

    fn end(&mut self) {
        self.end_held();
    }

    fn end_held(&mut self) {
        let Some(held) = self.held.take() else {
            // The launch failed somewhere: take apart by the records.
            if let Ok(state) = self.engine.containers().load_state(&self.config.id) {
                drop(self.engine.release(&self.config, &state));
            }
            return;
        };
        self.oom_killed = held
            .group
            .as_ref()
            .is_some_and(|group| group.oom_count().is_ok_and(|count| count > 0));
        // The record also knows the networks that were joined later, and not those that were left.
        let state = self.engine.containers().load_state(&self.config.id);
        let endpoints = state.map_or_else(|_| held.network.endpoints.clone(), |state| state.endpoints);
        self.retire(&endpoints);
        // While this process has the container's lock: a start beside it would join meanwhile. What a plugin did not like is told
        // again when the container is started or removed.
        let netns = held.network.netns.as_ref().map(|netns| netns.as_fd());
        drop(self.engine.leave_cni(&self.config.id, netns));
        self.left = endpoints;
        drop(held.network);
        if let Some(group) = held.group {
            // Whatever shares the pid namespace of another may have left processes behind.
            drop(group.kill_all());
            drop(group.delete());
        }
        if let Some(bundle) = held.bundle {
            bundle.finish();
        }
    }

    /// Takes the image away, which nobody else may have. It is done in a process of its own, since the index database
    /// must not stay in this one.
    fn remove_image(&self) -> Result<(), Error> {
        if !self.config.extras.remove_image {
            return Ok(());
        }
        let (name, id) = (&self.config.image_name, self.config.image);
        self.engine.apart(|engine| {
            // The name may be another image's: of another platform, or a newer one.
            let its = engine.image(name).is_ok_and(|image| image.id == id);
            let image = if its { name.clone() } else { id.to_string() };
            match engine.remove_image(&image, false) {
                // Another container has it, or it is gone.
                Err(error) if matches!(error.kind(), ErrorKind::FailedPrecondition | ErrorKind::NotFound) => {
                    Ok(())
                }
                removed => removed.map(drop),
            }
        })
    }

    /// What cannot be written there has no reader; the record has it, too.
    fn log_health(&self, health: &Health) {
        let Some(folder) = &self.config.extras.health_folder else {
            return;
        };
        let path = folder.join(format!("{}-healthcheck.log", self.config.id));
        drop(super::folder::write_json(&path, health));
    }

    /// The container runs on without them: its record has the numbers, too.
    fn write_pids(&self, pid: i32) {
        let extras = &self.config.extras;
        drop(super::extras::write_pid(extras.pidfile.as_ref(), pid));
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        drop(super::extras::write_pid(extras.monitor_pidfile.as_ref(), own));
    }

    fn write_end(&self, exit: &Exit, restarting: Option<u32>) -> Result<(), Error> {
        if restarting.is_none() && self.config.auto_remove {
            let mut container = self.engine.containers().load(&self.config.id)?;
            // They are retired already, and buried soon.
            container.state.endpoints.clear();
            self.engine.erase(&container, true)?;
            return self.remove_image();
        }
        let oom_killed = self.oom_killed;
        self.change(|state| {
            state.status = if restarting.is_some() {
                Status::Restarting
            } else {
                Status::Exited
            };
            state.restart_count = restarting.unwrap_or(state.restart_count);
            state.pid = 0;
            state.pid_start = 0;
            state.mark = None;
            state.newborn = None;
            state.adopter = None;
            state.exit_code = exit.code;
            state.manually_stopped = exit.by_request;
            state.stopping = false;
            state.finished = Some(format_time(exit.at));
            state.error = exit.error.clone().unwrap_or_default();
            state.oom_killed = oom_killed;
            state.endpoints.clear();
            state.parked.clear();
        })
    }
}

impl Life for ContainerLife {
    fn launch(&mut self) -> Result<Launched, dhow_monitor::Error> {
        let launched = match std::mem::take(&mut self.adopts) {
            true => self.adopt(),
            false => self.start(),
        };
        launched.map_err(|error| match std::error::Error::source(&error) {
            // The runtime's own sentence is what docker's users know; our step before it adds nothing.
            Some(_) | None => dhow_monitor::Error::wrap(error, "failed to start the container"),
        })
    }

    fn ended(&mut self) {
        self.end();
    }

    fn restart_policy(&mut self) -> Option<RestartPolicy> {
        // What goes away when it ends has no other policy, and nobody waits longer for its end.
        if self.config.auto_remove {
            return None;
        }
        self.refresh();
        Some(self.config.restart)
    }

    fn bury(&mut self) {
        let retired = std::mem::take(&mut self.retired);
        if let Ok(networks) = self.engine.networks() {
            for retired in retired {
                // As in `leave`.
                drop(networks.bury(retired));
            }
        }
        if self.over {
            // Who shares the network may be gone, and its file with it.
            drop(self.engine.name_in_shared_hosts(&self.config, false));
            self.engine.let_volumes_go(&self.config);
        }
        if let (true, Some(pod)) = (self.over, &self.config.extras.pod) {
            self.engine.left_pod(pod, &self.config.id);
        }
    }

    fn record(&mut self, change: &Change<'_>) {
        if let (true, Change::Started { pid, .. }) = (std::mem::take(&mut self.adopted), change) {
            return self.note_adoption(*pid);
        }
        let events = self.events_of(change);
        // What goes away with its end tells that itself, after this.
        let going = self.config.auto_remove && matches!(change, Change::Ended { restarting: None, .. });
        if going {
            self.engine.tell_all(&events);
        }
        let checked = self.config.health.is_some();
        if let Change::Started { pid, .. } = change {
            self.write_pids(*pid);
        }
        let written = match change {
            Change::Started { pid, at } => self.change(|state| {
                state.status = Status::Running;
                state.pid = *pid;
                state.pid_start = process_start(*pid).unwrap_or(0);
                state.mark = super::program::mark(*pid);
                state.newborn = None;
                state.adopter = None;
                state.started = Some(format_time(*at));
                state.finished = None;
                state.manually_stopped = false;
                state.stopping = false;
                state.exit_code = 0;
                state.error.clear();
                state.oom_killed = false;
                state.manually_stopped = false;
                // With the first word that it runs: nobody sees a container with checks and without a verdict.
                state.health = checked.then(Health::default);
            }),
            Change::Ended { exit, restarting } => {
                self.over = restarting.is_none();
                self.write_end(exit, *restarting)
            }
            Change::Stopping => self.change(|state| state.stopping = true),
            Change::Health(health) => {
                self.log_health(health);
                self.change(|state| state.health = Some(Health::clone(health)))
            }
        };
        // A full disk must not end the container. What cannot be written is seen again at the next change; a
        // record that says "running" of a process that is gone is read as exited.
        drop(written);
        if !going {
            self.engine.tell_all(&events);
        }
    }

    fn probe(&mut self, startup: bool) -> Result<Probe, dhow_monitor::Error> {
        self.check_health(startup)
            .map_err(|error| dhow_monitor::Error::wrap(error, "start the health check"))
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let Some(Held { network, .. }) = &self.held else {
            return Vec::new();
        };
        let resolver = network.resolver.iter().flat_map(|resolver| resolver.fds());
        resolver.chain(network.published.fd()).collect()
    }

    fn serve(&mut self) {
        let Some(Held { network, .. }) = &mut self.held else {
            return;
        };
        if let Some(resolver) = &mut network.resolver {
            resolver.ready(Instant::now());
        }
        network.published.ready(Instant::now());
        if network.watch_at.is_some_and(|at| at <= Instant::now()) {
            network.watch_at = None;
            if let Ok(networks) = self.engine.networks() {
                // Commands write the rules again as well.
                drop(networks.watch());
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let Connection {
            resolver,
            published,
            watch_at,
            ..
        } = &self.held.as_ref()?.network;
        let now = Instant::now();
        let resolver = resolver.as_ref().and_then(|resolver| resolver.timeout(now));
        let watch = watch_at.map(|at| at.saturating_duration_since(now));
        [resolver, published.timeout(now), watch]
            .into_iter()
            .flatten()
            .min()
    }
}

impl ContainerLife {
    /// What others hear of a change, in docker's order.
    fn events_of(&mut self, change: &Change<'_>) -> Vec<Event> {
        if matches!(change, Change::Ended { .. }) {
            // It may have another name by now.
            self.refresh();
        }
        let config = &self.config;
        match change {
            Change::Started { at, .. } => {
                self.started = Some(*at);
                self.health = HealthStatus::Starting;
                let places = self.held.iter().flat_map(|held| &held.network.endpoints);
                let mut events: Vec<_> = places.map(|place| Event::of_place(place, "connect")).collect();
                events.push(Event::of(config, "start"));
                events
            }
            // A second word of the same end: it is not started again after all.
            Change::Ended { .. } if self.started.is_none() => Vec::new(),
            Change::Ended { exit, .. } => {
                let ran = self
                    .started
                    .take()
                    .and_then(|started| exit.at.duration_since(started).ok());
                let mut events = Vec::new();
                if self.oom_killed {
                    events.push(Event::of(config, "oom"));
                }
                let died = Event::of(config, "die").with("exitCode", exit.code);
                events.push(died.with("execDuration", ran.unwrap_or_default().as_secs()));
                events.extend(
                    self.left
                        .drain(..)
                        .map(|place| Event::of_place(&place, "disconnect")),
                );
                events
            }
            // Of podman's containers every verdict is told, not only a new one.
            Change::Health(health) if health.status != self.health || config.extras.names.is_some() => {
                self.health = health.status;
                vec![Event::of(
                    config,
                    format!("health_status: {}", health.status.as_str()),
                )]
            }
            Change::Health(_) | Change::Stopping => Vec::new(),
        }
    }

    fn check_health(&mut self, startup: bool) -> Result<Probe, Error> {
        let gone = || Error::new(ErrorKind::FailedPrecondition, "the container does not run");
        let held = self.held.as_ref().ok_or_else(gone)?;
        let (Some(spec), Some(init)) = (&held.spec, &held.init) else {
            return Err(gone());
        };
        let first = self.config.extras.startup.as_ref().filter(|_| startup);
        let Some(health) = first.map(|first| &first.check).or(self.config.health.as_ref()) else {
            return Err(gone());
        };
        let mut process = spec.process.clone().unwrap_or_default();
        process.terminal = false;
        process.args = health_command(&health.test, &self.config)?;
        let (reader, writer) = pipe()?;
        let null = File::open("/dev/null").context(|| "open /dev/null")?;
        if let Some(linux) = &spec.linux {
            let ids = Ids {
                uids: linux.uid_mappings.clone(),
                gids: linux.gid_mappings.clone(),
            };
            super::users::give_streams(&ids, (process.user.uid, process.user.gid), [writer.as_fd(); 3]);
        }
        let stderr = writer.try_clone().context(|| "duplicate a pipe")?;
        let running = dhow_runtime::exec(dhow_runtime::Exec {
            init: init.as_fd(),
            process: &process,
            seccomp: spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref()),
            linux: spec.linux.as_ref(),
            annotations: Some(&spec.annotations),
            group: held.group.as_ref(),
            stdio: Stdio::Fds {
                stdin: null.into(),
                stdout: writer,
                stderr,
            },
            settings: &self.engine.runtime_settings(),
            state: None,
        })
        .context(|| "run the health check")?;
        Ok(Probe {
            pidfd: running.pidfd,
            output: reader,
        })
    }
}

/// The first process that the runtime brings along.
fn spec_less_init(config: &Config) -> Option<&dhow_bundle::Init> {
    config.request.init.as_ref().filter(|init| init.program.is_none())
}

/// What a person wrote for one.
pub(super) fn hardware_address(text: Option<&str>) -> Result<Option<dhow_network::MacAddress>, Error> {
    text.map(str::parse)
        .transpose()
        .map_err(|error| Error::because(ErrorKind::InvalidArgument, "read the hardware address", error))
}

fn health_command(test: &[String], config: &Config) -> Result<Vec<String>, Error> {
    match test.split_first() {
        Some((kind, rest)) if kind == "CMD" && !rest.is_empty() => Ok(rest.to_vec()),
        Some((kind, [text])) if kind == "CMD-SHELL" => {
            Ok(vec!["/bin/sh".to_owned(), "-c".to_owned(), text.clone()])
        }
        _ => {
            let message = format!("container {} has a health check that is none", config.id.short());
            Err(Error::new(ErrorKind::InvalidArgument, message))
        }
    }
}

/// Only a missing or forbidden program of the container is "not found" or "denied" to those who start it (exit
/// codes 127 and 126); what our own preparation misses is a failure to start.
fn before_program(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::PermissionDenied => error.with_kind(ErrorKind::FailedPrecondition),
        _ => error,
    }
}
