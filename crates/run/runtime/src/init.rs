//! The child's side: from the clone to execve.
//!
//! The steps run in a copy of a single-threaded process. They use what the plan holds ready and leave by one of two
//! ways: execve, or a [`Failure`] that is sent to the parent.

mod beneath;
mod bind;
mod copyup;
pub(crate) mod dev;
mod groups;
mod hide;
pub(crate) mod identity;
pub(crate) mod rootfs;
pub(crate) mod staged;
pub(crate) mod target;
pub(crate) mod terminal;

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dhow_cgroup::Group;
use dhow_sys::sched::CPU_WORDS;
use rustix::io::Errno;
use rustix::process::DumpableBehavior;
use rustix::thread::UnshareFlags;

use self::identity::SetGroups;
use self::staged::{Staged, Wait};
use crate::agent::Agent;
use crate::create::Rootfs;
use crate::hooks::{Restriction, Stage};
use crate::lsm::{Attributes, StubLabel};
use crate::plan::{Plan, Program, Share};
use crate::report::{At, Failure, LENGTH, Message, Step, said};

/// What the parent hands to the child of [`create`](crate::create).
pub(crate) struct Setup<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) rootfs: &'a Rootfs,
    pub(crate) streams: Option<[BorrowedFd<'a>; 3]>,
    /// Files of version 1 groups and of classes of service to write "0" into.
    pub(crate) entrances: &'a [OwnedFd],
    /// Namespaces to enter.
    pub(crate) join: &'a [OwnedFd],
    /// Bind sources that the parent took, by index of the mount.
    pub(crate) taken: &'a [(usize, OwnedFd)],
    /// User namespaces for the ids of mounts, by index of the mount.
    pub(crate) ids: &'a [(usize, OwnedFd)],
    /// Device nodes that the parent made.
    pub(crate) nodes: Option<&'a crate::nodes::Made>,
    /// Whether a cgroup namespace is made here.
    pub(crate) cgroup_namespace: bool,
    /// Whether a time namespace is made here.
    pub(crate) clocks: bool,
    /// Whether the network namespace comes from the parent, which makes it meanwhile.
    pub(crate) network: bool,
    /// The control group, for its view inside.
    pub(crate) group: Option<&'a Group>,
    /// Whether the parent says when to begin: it writes id maps or moves the process into a group first.
    pub(crate) wait_for_parent: bool,
    /// What a container with a folder of its own has besides: hooks, and a start that comes later.
    pub(crate) staged: Option<&'a Staged<'a>>,
    pub(crate) link: BorrowedFd<'a>,
}

/// Exit status of a child that failed and told its parent why.
pub(crate) const FAILED: i32 = 255;

/// Runs all steps; returns the exit status of a child that did not become its program.
pub(crate) fn begin(setup: &Setup<'_>) -> i32 {
    let outcome = prepare(setup).and_then(|(terminal, attributes)| {
        if let Some(listener) = setup.staged.and_then(|staged| staged.listener) {
            let terminal = terminal.as_ref().map(AsFd::as_fd);
            let labels = attributes.iter().flat_map(Attributes::descriptors);
            let kept = [setup.link, listener].into_iter().chain(terminal).chain(labels);
            let_go(&setup.plan.program, &kept.collect::<Vec<_>>())?;
        }
        announce(setup.link, terminal.as_ref().map(AsFd::as_fd))?;
        drop(terminal);
        Ok(attributes)
    });
    match (outcome, setup.staged) {
        (Err(failure), _) => fail(setup.link, failure),
        (Ok(attributes), Some(staged)) => begin_staged(setup, staged, attributes.as_ref()),
        (Ok(_), None) if !told(setup.link) => FAILED,
        (Ok(attributes), None) => fail(
            setup.link,
            identity::launch(
                &setup.plan.program,
                attributes.as_ref(),
                setup.link,
                Step::Execute,
            ),
        ),
    }
}

/// Closes what of the host is still open, control groups above all, before the process waits for a start that may never
/// come: an open directory keeps its file system busy, and execve comes too late to close it.
fn let_go(program: &Program, kept: &[BorrowedFd<'_>]) -> Result<(), Failure> {
    dhow_sys::fd::close_all_but(program.first_closed, kept).at(Step::CloseOnExec)
}

/// The rest of [`begin`] for a container that is started by whoever comes by, after its last hooks.
fn begin_staged(setup: &Setup<'_>, staged: &Staged<'_>, attributes: Option<&Attributes>) -> i32 {
    let program = &setup.plan.program;
    let agent = program.agent.as_ref();
    let restricted = agent.is_some_and(Agent::comes_first);
    let (wait, label) = match make_ready(setup, staged, attributes, restricted) {
        Ok(ready) => ready,
        Err(failure) => return fail(setup.link, failure),
    };
    let starter;
    let link = match wait {
        Some(wait) => match wait.wait(setup.link) {
            Ok(connection) => {
                starter = connection;
                starter.as_fd()
            }
            Err(status) => return status,
        },
        None if told(setup.link) => setup.link,
        None => return FAILED,
    };
    // A hook of the image gets no more than the image's program, as with runc.
    let restrict = |link: BorrowedFd<'_>| identity::restrict(program, attributes, link);
    let keep = |_: BorrowedFd<'_>| Ok(label.clone());
    let restriction: Restriction<'_> = if restricted { &keep } else { &restrict };
    match staged::run(Stage::StartContainer, setup, staged, link, Some(restriction)) {
        Ok(()) if restricted => {
            let label = label.as_deref();
            fail(link, identity::execute(program, link, Step::Execute, label))
        }
        Ok(()) => {
            let failure = identity::launch(program, attributes, link, Step::Execute);
            match failure.of_label(program) {
                Some(words) => match dhow_sys::fd::send(link, &said(&words), &[]) {
                    // A starter that is gone has nobody to tell.
                    Ok(_) | Err(_) => FAILED,
                },
                None => fail(link, failure),
            }
        }
        Err(failure) => fail(link, failure),
    }
}

/// What comes before the wait for the start; a `restricted` process gives up its rights now, and its agent hears of it.
fn make_ready<'a>(
    setup: &Setup<'_>,
    staged: &Staged<'a>,
    attributes: Option<&Attributes>,
    restricted: bool,
) -> Result<(Option<Wait<'a>>, StubLabel), Failure> {
    let wait = staged.listener.map(Wait::prepare).transpose()?;
    let mut label = None;
    if restricted {
        label = identity::restrict(&setup.plan.program, attributes, setup.link)?;
        // By write: the one call that no filter with an agent asks about.
        rustix::io::write(setup.link, &Message::Ready.encode()).at(Step::Report)?;
    }
    Ok((wait, label))
}

/// Tells the parent that everything is set up, with the master of the terminal.
pub(crate) fn announce(link: BorrowedFd<'_>, terminal: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
    dhow_sys::fd::send(link, &Message::Ready.encode(), terminal.as_slice()).at(Step::Report)?;
    Ok(())
}

/// Waits until the parent has done its part, such as writing id maps.
pub(crate) fn wait_for_parent(link: BorrowedFd<'_>) -> Result<(), Failure> {
    if told(link) {
        Ok(())
    } else {
        Err(Errno::PIPE).at(Step::Report)
    }
}

/// Waits for a word of the parent; false when the parent is gone.
fn told(link: BorrowedFd<'_>) -> bool {
    let mut word = [0; 1];
    loop {
        match rustix::io::read(link, &mut word) {
            Err(Errno::INTR) => {}
            Ok(length) => return length > 0,
            Err(_) => return false,
        }
    }
}

/// Enters the network namespace that the parent made and sends, when it is first needed.
pub(crate) struct Network<'a> {
    link: BorrowedFd<'a>,
    pending: Cell<bool>,
}

impl Network<'_> {
    pub(crate) fn enter(&self) -> Result<(), Failure> {
        if !self.pending.replace(false) {
            return Ok(());
        }
        let (length, fds) = dhow_sys::fd::receive(self.link, &mut [0; 1]).at(Step::Network)?;
        match fds.first() {
            Some(network) if length > 0 => dhow_sys::namespace::enter(network).at(Step::Network),
            _ => Err(Errno::PIPE).at(Step::Network),
        }
    }
}

/// Sends the failure; a parent that is gone has nobody to tell.
pub(crate) fn fail(link: BorrowedFd<'_>, failure: Failure) -> i32 {
    let message: [u8; LENGTH] = Message::Failed(failure).encode();
    match rustix::io::write(link, &message) {
        Ok(_) | Err(_) => FAILED,
    }
}

/// What is kept of the preparation: the master of the terminal, and what labels are written to.
pub(crate) type Prepared = (Option<OwnedFd>, Option<Attributes>);

fn prepare(setup: &Setup<'_>) -> Result<Prepared, Failure> {
    let plan = setup.plan;
    dhow_sys::process::reset_signals().at(Step::Signals)?;
    if setup.wait_for_parent {
        wait_for_parent(setup.link)?;
    }
    if setup.clocks {
        // While the own files of /proc still belong to who the process is: they become root's with the protection.
        let offsets = plan.clocks.as_ref().map(String::as_bytes);
        dhow_sys::namespace::enter_new_time(offsets).at(Step::TimeNamespace)?;
    }
    let attributes = own_place(&plan.program, setup.entrances)?;
    for (index, namespace) in setup.join.iter().enumerate() {
        dhow_sys::namespace::enter(namespace).at_index(Step::JoinNamespace, index)?;
    }
    let mut groups = if plan.program.keep_groups {
        SetGroups::Kept
    } else {
        SetGroups::possible(&plan.program)
    };
    if plan.has_users() {
        groups = identity::become_root(groups)?;
        // Only now: the owner of /proc/<pid>/uid_map of a process that is not dumpable is root, whoever the parent is.
        protect()?;
    }
    if setup.cgroup_namespace {
        dhow_sys::namespace::unshare(UnshareFlags::NEWCGROUP).at(Step::CgroupNamespace)?;
    }
    if plan.has_users() && plan.new.contains(UnshareFlags::NEWNET) {
        dhow_sys::namespace::loopback_up().at(Step::Network)?;
    }
    names(plan)?;
    let network = Network {
        link: setup.link,
        pending: Cell::new(setup.network),
    };
    let terminal = rootfs::enter(setup, &network)?;
    if let Some(streams) = setup.streams {
        terminal::streams(streams, plan.program.uid, plan.program.gid)?;
    }
    identity::settle(&plan.program, groups)?;
    if setup.staged.is_some() {
        staged::find(&plan.program)?;
    }
    dhow_sys::fd::cloexec_from(plan.program.first_closed).at(Step::CloseOnExec)?;
    Ok((terminal, attributes))
}

/// Group, session and keyring of a process that `create` or `exec` made, which is still among the host's files.
pub(crate) fn own_place(program: &Program, entrances: &[OwnedFd]) -> Result<Option<Attributes>, Failure> {
    for (index, entrance) in entrances.iter().enumerate() {
        rustix::io::write(entrance, b"0").at_index(Step::CgroupJoin, index)?;
    }
    take_cpus(program)?;
    if let Some(score) = &program.oom_score_adj {
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
        let file = rustix::fs::open(c"/proc/self/oom_score_adj", flags, rustix::fs::Mode::empty());
        rustix::io::write(file.at(Step::OomScore)?, score.as_bytes()).at(Step::OomScore)?;
    }
    rustix::process::setsid().at(Step::Session)?;
    let attributes = Attributes::open(program.labels.as_ref())?;
    if program.shared_keyring {
        return Ok(attributes);
    }
    match dhow_sys::process::join_session_keyring().at(Step::Keyring) {
        // A kernel without keyrings shares none; EDQUOT and EPERM (an outer seccomp filter) leave the caller's, as runc does.
        Err(failure)
            if ![Errno::NOSYS, Errno::PERM, Errno::DQUOT]
                .map(Errno::raw_os_error)
                .contains(&failure.errno) =>
        {
            Err(failure)
        }
        _ => Ok(attributes),
    }
}

/// The CPUs of the process: those it asks for, or all that its control group has, whatever the caller was restricted to.
fn take_cpus(program: &Program) -> Result<(), Failure> {
    match program.share.as_deref() {
        Some(Share { cpus: Some(cpus), .. }) => dhow_sys::sched::set_affinity(cpus).at(Step::Affinity),
        Some(Share {
            first_cpus: Some(_), ..
        }) => Ok(()),
        _ => match dhow_sys::sched::set_affinity(&[u64::MAX; CPU_WORDS]) {
            // An outer seccomp filter may forbid it; then the caller's hold.
            Ok(()) | Err(_) => Ok(()),
        },
    }
}

/// Until execve nobody may trace this process or open its memory, descriptors and program, which are the host's.
pub(crate) fn protect() -> Result<(), Failure> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::Dumpable)
}

fn names(plan: &Plan) -> Result<(), Failure> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).at(Step::Hostname)?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).at(Step::Domainname)?;
    }
    Ok(())
}
