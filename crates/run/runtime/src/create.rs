//! The parent's side of a container's birth.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use dhow_cgroup::Group;
use dhow_oci::runtime::State;
use dhow_sys::clone::Child;
use dhow_sys::mount::{Attributes, set_attributes};
use dhow_sys::sched::Urgent;
use dhow_types::ErrorKind;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::MountPropagationFlags;
use rustix::thread::UnshareFlags;

use crate::agent::Agent;
use crate::hooks::{Stage, Surroundings};
use crate::init::staged::Staged;
use crate::init::{self, Setup};
use crate::parent::{self, Answer, Link, Visit};
use crate::plan::{Ids, Source};
use crate::report::Name;
use crate::{Context as _, Error, Plan, hooks, idmap, netdev, nodes};

/// The root file system of a container.
#[derive(Debug)]
pub enum Rootfs {
    /// A detached mount, as `fsmount` and `open_tree` give it: the fast way, nothing of it is seen on the host.
    Mount(OwnedFd),
    /// The same, which hooks find at an empty directory of the host, in the container's mount namespace alone.
    Shown(OwnedFd, PathBuf),
    /// A directory of the host; what is mounted below it comes along.
    Path(PathBuf),
}

/// What a process has as standard input, output and error.
#[derive(Debug)]
pub enum Stdio {
    /// These three.
    Fds {
        /// Descriptor 0.
        stdin: OwnedFd,
        /// Descriptor 1.
        stdout: OwnedFd,
        /// Descriptor 2.
        stderr: OwnedFd,
    },
    /// A new terminal of the container's own devpts; the caller gets the master.
    Terminal,
}

/// Kinds of namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// The view of the control group tree.
    Cgroup,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Mounts.
    Mount,
    /// Network.
    Network,
    /// Process ids.
    Pid,
    /// Clocks since the start of the machine.
    Time,
    /// User and group ids.
    User,
    /// Host and domain name.
    Uts,
}

/// Everything [`create`] needs.
#[derive(Debug)]
pub struct Create<'a> {
    /// The compiled spec.
    pub plan: &'a Plan,
    /// The root file system.
    pub rootfs: Rootfs,
    /// Standard streams; `Terminal` exactly when the spec's process has one.
    pub stdio: Stdio,
    /// The control group the process is in before it does anything; the caller's own without.
    pub group: Option<&'a Group>,
    /// Namespaces to join, in place of what the spec says for their kind.
    pub namespaces: Vec<(Namespace, OwnedFd)>,
    /// The container's state as the agent of its filter hears it (`SCMP_ACT_NOTIFY`); without, just the process.
    pub state: Option<&'a State>,
}

/// A container that is set up and waits for [`start`](Created::start). Dropped instead, its process exits by itself;
/// it is a child of the caller and wants to be reaped ([`wait`](crate::wait)).
#[derive(Debug)]
pub struct Created {
    /// Process id of the container's first process, in the caller's namespace.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// Master of its terminal.
    pub terminal: Option<OwnedFd>,
    link: Link,
    name: Name,
    agent: Option<(Agent, State)>,
}

/// A process that became its program.
#[derive(Debug)]
pub struct Running {
    /// Process id in the caller's namespace.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// Master of its terminal.
    pub terminal: Option<OwnedFd>,
}

/// Sets a container up, up to the moment before execve.
///
/// # Errors
/// The step that failed with its subject. The child is reaped then.
pub fn create(create: Create<'_>) -> Result<Created, Error> {
    let plan = create.plan;
    refuse_what_needs_a_folder(plan)?;
    let (child, link) = begin(&create, None, None)?;
    let terminal = match link.answer() {
        Answer::Ready(terminal) => terminal,
        answer => return Err(answer.into_error(&child, &plan.program.name, Some(&plan.program), Some(plan))),
    };
    let (pid, name) = (child.pid.as_raw_pid(), plan.program.name.clone());
    let state = || create.state.cloned().unwrap_or_default();
    Ok(Created {
        agent: plan.program.agent.clone().map(|agent| (agent, state())),
        pid,
        pidfd: child.pidfd,
        terminal,
        link,
        name,
    })
}

/// [`create`] and [`Created::start`] in one, with one wait less for the child.
///
/// # Errors
/// As both.
pub fn run(create: Create<'_>) -> Result<Running, Error> {
    run_known(create, &mut |_| ())
}

/// [`run`] for a program that must not be there unknown: `born` hears its process id while it is set up, and it begins only after
/// `born` has returned. A caller that is killed before leaves no process.
///
/// # Errors
/// As [`run`].
pub fn run_known(create: Create<'_>, born: &mut dyn FnMut(i32)) -> Result<Running, Error> {
    let plan = create.plan;
    refuse_what_needs_a_folder(plan)?;
    let (child, link) = begin(&create, None, None)?;
    born(child.pid.as_raw_pid());
    link.tell();
    parent::running(child, &link, &plan.program, Some(plan), create.state)
}

/// [`run_known`] with hooks, which are told the state that `create` has; those that run after the end are for
/// [`run_last_hooks`](crate::run_last_hooks).
///
/// # Errors
/// As [`run`], and what a hook did, in runc's words: the process is reaped then. `Unsupported` beside a filter that asks
/// an agent, which would be asked about the hooks.
pub fn run_with_hooks(
    create: Create<'_>,
    surroundings: &Surroundings,
    born: &mut dyn FnMut(i32),
) -> Result<Running, Error> {
    let plan = create.plan;
    refuse_class(plan)?;
    let Some(state) = create.state.cloned() else {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "hooks need a state to be told",
        ));
    };
    if plan.program.agent.is_some() {
        let message = "hooks beside a filter that asks an agent (SCMP_ACT_NOTIFY) are not supported";
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let staged = Staged {
        state: &state,
        around: surroundings.around(),
        listener: None,
        classes: &[],
    };
    let (child, link) = begin(&create, Some(&staged), None)?;
    let state = State {
        pid: child.pid.as_raw_pid(),
        ..state.clone()
    };
    born(state.pid);
    let outcome = follow(plan, &child, &link, &state, surroundings);
    match outcome {
        Ok(terminal) => Ok(Running {
            pid: state.pid,
            pidfd: child.pidfd,
            terminal,
        }),
        Err(error) => {
            parent::end(&child);
            Err(error)
        }
    }
}

/// Answers the child of a container with hooks until its program runs, and runs those that are the parent's.
fn follow(
    plan: &Plan,
    child: &Child,
    link: &Link,
    state: &State,
    surroundings: &Surroundings,
) -> Result<Option<OwnedFd>, Error> {
    let run = |stage: Stage| hooks::run(stage, stage.of(&plan.hooks), state, surroundings.around(), None);
    let terminal = loop {
        match link.answer() {
            Answer::Ready(terminal) => break terminal,
            Answer::Hooks => {
                run(Stage::Prestart)?;
                run(Stage::CreateRuntime)?;
                link.tell();
            }
            answer => return Err(answer.into_failure(&plan.program.name, Some(&plan.program), Some(plan))),
        }
    };
    link.tell();
    match parent::executed(link, state.pid, child.pidfd.as_fd(), None, Some(state))? {
        Answer::Closed => run(Stage::Poststart).map(|()| terminal),
        Answer::Said(words) => {
            hooks::run_after_failure(&plan.hooks.poststart, state, surroundings.around());
            Err(Answer::Said(words).into_failure(&plan.program.name, None, None))
        }
        answer => Err(answer.into_failure(&plan.program.name, None, None)),
    }
}

/// What is done by stages, or is written down to be taken back, is for [`container`](crate::container).
fn refuse_what_needs_a_folder(plan: &Plan) -> Result<(), Error> {
    hooks::refuse(&plan.hooks)?;
    refuse_class(plan)
}

fn refuse_class(plan: &Plan) -> Result<(), Error> {
    match plan.class {
        None => Ok(()),
        Some(_) => {
            let message = "linux.intelRdt needs a container with a state folder";
            Err(Error::new(ErrorKind::Unsupported, message))
        }
    }
}

impl Created {
    /// Lets the container's process execve its program.
    ///
    /// # Errors
    /// `NotFound` and `PermissionDenied` for the program; the process is reaped then.
    pub fn start(self) -> Result<Running, Error> {
        self.link.tell();
        let (agent, state) = self.agent.as_ref().map(|(agent, state)| (agent, state)).unzip();
        match parent::executed(&self.link, self.pid, self.pidfd.as_fd(), agent, state) {
            Ok(Answer::Closed) => Ok(Running {
                pid: self.pid,
                pidfd: self.pidfd,
                terminal: self.terminal,
            }),
            Ok(answer) => {
                parent::reap(self.pidfd.as_fd());
                Err(answer.into_failure(&self.name, None, None))
            }
            Err(error) => {
                parent::kill(self.pidfd.as_fd());
                Err(error)
            }
        }
    }
}

/// Clones the child and does what only the parent can: groups, id maps. `ready` is the network namespace if it is made already
/// ([`Plan::lends_network`]).
pub(crate) fn begin(
    create: &Create<'_>,
    staged: Option<&Staged<'_>>,
    ready: Option<OwnedFd>,
) -> Result<(Child, Link), Error> {
    let plan = create.plan;
    let streams = parent::streams(&create.stdio, plan.program.terminal)?;
    let joins = joins(create)?;
    refuse_settings_of_the_host(plan, &joins)?;
    let sources = sources(plan, &joins)?;
    let nodes = nodes::made(plan)?;
    let joined = |kind: Namespace| create.namespaces.iter().any(|(given, _)| *given == kind);
    let mut new = plan.new;
    for (kind, _) in &create.namespaces {
        new.remove(kind.flag());
    }
    let joins_users = joins.iter().any(|(kind, _)| *kind == Namespace::User);
    if joins_users && !plan.has_users() {
        let message = "a user namespace is given, and the spec has none";
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let maps_users = new.contains(UnshareFlags::NEWUSER);
    let cgroup_namespace = plan.new.contains(UnshareFlags::NEWCGROUP) && !joined(Namespace::Cgroup);
    // Made by the child itself, once it is in the group that is to be the namespace's root.
    new.remove(UnshareFlags::NEWCGROUP);
    let clocks = new.contains(UnshareFlags::NEWTIME);
    new.remove(UnshareFlags::NEWTIME);
    // Making a network namespace is a third of the work of clone3. The parent, which would only wait, does it beside the
    // child's own work, or did it beside its own before.
    let network = new.contains(UnshareFlags::NEWNET) && plan.lends_network();
    if network {
        new.remove(UnshareFlags::NEWNET);
    }
    let entered = Entered::of(plan, joins);
    let classes = staged.map_or(&[][..], |staged| staged.classes);
    let placed = parent::Place::of(create.group)?.and(classes)?;
    let (link, other) = Link::pair()?;
    let mut link = Some(link);
    let mut setup = Setup {
        plan,
        rootfs: &create.rootfs,
        streams,
        entrances: placed.entrances(),
        join: &entered.child,
        taken: &sources.taken,
        ids: &sources.ids,
        nodes: nodes.as_ref(),
        cgroup_namespace,
        clocks,
        network,
        group: create.group,
        wait_for_parent: maps_users || placed.by_parent(),
        staged,
        link: other.as_fd(),
    };
    let visit = Visit::enter(&entered.parent)?;
    let protection = parent::protect(!maps_users)?;
    let urgent = placed.urgent();
    let spawned = placed.spawn(new, &entered.between, |by_parent| {
        urgent.iter().for_each(Urgent::end);
        setup.wait_for_parent |= by_parent;
        // Closes the child's copy of the parent's end: only so does the end of the parent reach it.
        drop(link.take());
        init::begin(&setup)
    });
    drop(urgent);
    drop(protection);
    visit.leave()?;
    let (child, by_parent) = spawned?;
    drop(other);
    let network = network.then_some(ready);
    provide(create, child, link, by_parent, maps_users, network)
}

/// Who enters which of the namespaces that are joined.
#[derive(Default)]
struct Entered {
    /// A process between the parent and the child, which enters all of them.
    between: Vec<(Namespace, OwnedFd)>,
    /// The parent, for the moment of the clone.
    parent: Vec<(Namespace, OwnedFd)>,
    /// The child itself.
    child: Vec<OwnedFd>,
}

impl Entered {
    fn of(plan: &Plan, joins: Vec<(Namespace, OwnedFd)>) -> Self {
        // From a user or mount namespace the parent could not come back.
        let no_return = |kind: Namespace| matches!(kind, Namespace::User | Namespace::Mount);
        if joins.iter().any(|(kind, _)| no_return(*kind)) {
            return Self {
                between: joins,
                ..Self::default()
            };
        }
        // The child of a new user namespace has no right to enter namespaces of the host, so its parent does.
        let by_parent = |kind: Namespace| kind == Namespace::Pid || plan.has_users();
        let (parent, child): (Vec<_>, Vec<_>) = joins.into_iter().partition(|(kind, _)| by_parent(*kind));
        Self {
            parent,
            child: child.into_iter().map(|(_, fd)| fd).collect(),
            ..Self::default()
        }
    }
}

/// What only the parent can do for the child, which waits for it. `network` is there for a child whose network namespace comes
/// from here, and holds it if it is made already.
fn provide(
    create: &Create<'_>,
    child: Child,
    link: Option<Link>,
    by_parent: bool,
    maps_users: bool,
    network: Option<Option<OwnedFd>>,
) -> Result<(Child, Link), Error> {
    let outcome = place(create, &child, by_parent, maps_users);
    let Some(link) = link.filter(|_| outcome.is_ok()) else {
        parent::end(&child);
        return Err(outcome
            .err()
            .unwrap_or_else(|| Error::new(ErrorKind::Internal, "no link to the child")));
    };
    let moved = match &network {
        Some(_) => Ok(()),
        None => move_devices(create, &child),
    };
    if maps_users || by_parent {
        link.tell();
    }
    let handed = moved.and_then(|()| match network {
        Some(ready) => ready.map_or_else(parent::network, Ok).and_then(|network| {
            netdev::take(&create.plan.devices, &network)?;
            link.hand(&network)
        }),
        None => Ok(()),
    });
    if let Err(error) = handed {
        parent::end(&child);
        return Err(error);
    }
    Ok((child, link))
}

/// Moves network devices into the namespace that is joined, or that the child has from its birth.
fn move_devices(create: &Create<'_>, child: &Child) -> Result<(), Error> {
    if create.plan.devices.is_empty() {
        return Ok(());
    }
    let network = |kind: &Namespace| *kind == Namespace::Network;
    if let Some((_, given)) = create.namespaces.iter().find(|(kind, _)| network(kind)) {
        return netdev::take(&create.plan.devices, given);
    }
    let joined = create.plan.join.iter().find(|(kind, _)| network(kind));
    let path = match joined {
        Some((_, path)) => path.clone(),
        None => PathBuf::from(format!("/proc/{}/ns/net", child.pid.as_raw_pid())),
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&path, flags, Mode::empty()).map_err(std::io::Error::from);
    let opened = opened.context(|| format!("open network namespace {}", path.display()))?;
    netdev::take(&create.plan.devices, &opened)
}

fn place(create: &Create<'_>, child: &Child, by_parent: bool, maps_users: bool) -> Result<(), Error> {
    let pid = child.pid.as_raw_pid();
    if let (true, Some(group)) = (by_parent, create.group) {
        group
            .add(pid)
            .context(|| format!("move process {pid} into its control group"))?;
    }
    let (uids, gids) = (&create.plan.uid_mappings, &create.plan.gid_mappings);
    if maps_users {
        idmap::write(pid, uids, gids)
    } else {
        idmap::compare(pid, uids, gids)
    }
}

/// Opens the namespaces to join: those given, and the spec's for other kinds.
fn joins(create: &Create<'_>) -> Result<Vec<(Namespace, OwnedFd)>, Error> {
    let mut joins = Vec::with_capacity(create.namespaces.len() + create.plan.join.len());
    for (kind, fd) in &create.namespaces {
        joins.push((
            *kind,
            fd.try_clone().context(|| "duplicate namespace descriptor")?,
        ));
    }
    for (kind, path) in &create.plan.join {
        if create.namespaces.iter().any(|(given, _)| given == kind) {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(std::io::Error::from);
        let fd = fd.context(|| format!("open {} namespace {}", kind.name(), path.display()))?;
        match dhow_sys::namespace::kind(&fd) {
            Ok(found) if found == kind.flag() => joins.push((*kind, fd)),
            _ => {
                let message = format!("{} is not a namespace of type {:?}", path.display(), kind.name());
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
        }
    }
    Ok(joins)
}

/// A namespace that is joined may be the one that this process is in: a setting would be the host's then.
fn refuse_settings_of_the_host(plan: &Plan, joins: &[(Namespace, OwnedFd)]) -> Result<(), Error> {
    for (kind, fd) in joins {
        let Some(sysctl) = plan.sysctls.iter().find(|sysctl| sysctl.needs == kind.flag()) else {
            continue;
        };
        let number = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
        let (own, joined) = (number(&parent::home(*kind)?), number(fd));
        if own
            .map_err(std::io::Error::from)
            .context(|| "look at the own namespace")?
            == joined
                .map_err(std::io::Error::from)
                .context(|| "look at a namespace")?
        {
            let message = format!(
                "sysctl {:?} is not allowed in the host's {kind:?} namespace",
                sysctl.name
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
    }
    Ok(())
}

/// What of the bind mounts the parent takes or makes.
#[derive(Default)]
struct Sources {
    /// Trees, by index of the mount.
    taken: Vec<(usize, OwnedFd)>,
    /// User namespaces whose mappings mounts get, by index of the mount.
    ids: Vec<(usize, OwnedFd)>,
}

/// Takes here, in the host's mount namespace, the sources that keep their propagation where the child cannot
/// ([`Bind::is_kept`](crate::plan::Bind::is_kept)), those that only the host's root may reach or give other ids, and the
/// host's whole tree, over which the child mounts the container's.
fn sources(plan: &Plan, joins: &[(Namespace, OwnedFd)]) -> Result<Sources, Error> {
    let mut sources = Sources::default();
    let elsewhere = joins.iter().any(|(kind, _)| *kind == Namespace::Mount);
    for (index, mount) in plan.mounts.iter().enumerate() {
        let Source::Bind(bind) = &mount.source else {
            continue;
        };
        let ids = bind
            .ids
            .as_ref()
            .map(|ids| users_of(plan, ids, joins))
            .transpose()?;
        if let Some(tree) = plan.given(index) {
            let tree = tree.try_clone().context(|| "duplicate a mount")?;
            sources.taken.push((index, tree));
            sources.ids.extend(ids.map(|users| (index, users)));
            continue;
        }
        let reached = bind.inside.is_none() && !bind.copy_link && !elsewhere;
        if !reached || bind.is_kept(plan) || !(bind.propagates || bind.covers_root() || plan.has_users()) {
            sources.ids.extend(ids.map(|users| (index, users)));
            continue;
        }
        let name = || bind.path.to_string_lossy();
        let tree = match init::target::copy_source(CWD, bind) {
            // Who is not root takes it as root of the new user namespace, by the child.
            Err(rustix::io::Errno::PERM) if plan.has_users() && !bind.propagates => continue,
            tree => tree
                .map_err(std::io::Error::from)
                .context(|| format!("open mount source {}", name()))?,
        };
        if let (Some(users), Some(ids)) = (&ids, &bind.ids) {
            init::target::map_ids(&tree, users, ids.recursive)
                .context(|| format!("map the ids of mount source {}", name()))?;
        }
        if !bind.propagates {
            // A peer of the host's mount would carry there what is mounted in the container.
            let private = Attributes {
                propagation: Some(MountPropagationFlags::PRIVATE),
                ..Attributes::default()
            };
            set_attributes(&tree, true, &private)
                .context(|| format!("make mount source {} private", name()))?;
        }
        sources.taken.push((index, tree));
    }
    Ok(sources)
}

/// The user namespace whose mappings a mount gets.
fn users_of(plan: &Plan, ids: &Ids, joins: &[(Namespace, OwnedFd)]) -> Result<OwnedFd, Error> {
    if !ids.uids.is_empty() {
        return idmap::namespace(&ids.uids, &ids.gids);
    }
    match joins.iter().find(|(kind, _)| *kind == Namespace::User) {
        Some((_, joined)) => joined.try_clone().context(|| "duplicate namespace descriptor"),
        None => idmap::namespace(&plan.uid_mappings, &plan.gid_mappings),
    }
}
