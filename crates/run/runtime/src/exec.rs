//! One more process in a running container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dhow_cgroup::Group;
use dhow_oci::Labels;
use dhow_oci::runtime::{Linux, Process, Seccomp, State};
use dhow_sys::clone::Child;
use dhow_sys::stub::Handover;
use dhow_types::ErrorKind;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{ThreadNameSpaceType as Kinds, UnshareFlags, move_into_thread_name_spaces};

use crate::init::identity::{self, SetGroups};
use crate::init::{self, staged, terminal};
use crate::parent::{self, Answer, Link, Place, Visit};
use crate::plan::{Filtered, Program, Share};
use crate::report::{At, Failure, HANDED_OVER, Step};
use crate::within::number;
use crate::{Context as _, Error, Running, Settings, Stdio};

/// Everything [`exec`] needs.
#[derive(Debug)]
pub struct Exec<'a> {
    /// Pidfd of the container's first process.
    pub init: BorrowedFd<'a>,
    /// The program and its rights.
    pub process: &'a Process,
    /// The filter, usually the container's.
    pub seccomp: Option<&'a Seccomp>,
    /// The container's `linux`, for what holds for all of its processes: personality and memory policy.
    pub linux: Option<&'a Linux>,
    /// The container's annotations, for the Landlock ruleset in them.
    pub annotations: Option<&'a Labels>,
    /// The container's control group; the caller's own without.
    pub group: Option<&'a Group>,
    /// Standard streams; `Terminal` exactly when the process has one.
    pub stdio: Stdio,
    /// As for [`Plan::prepare`](crate::Plan::prepare).
    pub settings: &'a Settings,
    /// As in [`Create`](crate::Create), with the container's first process.
    pub state: Option<&'a State>,
}

/// Starts a process in all namespaces of a running container. It is a child of the caller.
///
/// The process that is first seen inside is the stub's child, which has given up all rights and knows nothing of the host:
/// what enters the container does so outside of its process id namespace. A container with CAP_SYS_PTRACE would see
/// the host's root, memory and program in it otherwise (CVE-2016-9962's class). Only a filter that forbids or
/// answers clone, and a scheduler that a child does not inherit, make it enter itself.
///
/// # Errors
/// `FailedPrecondition` for a container that stopped; `NotFound` and `PermissionDenied` for the program; else the step.
pub fn exec(exec: Exec<'_>) -> Result<Running, Error> {
    exec_in(&exec, &Joined::default())
}

/// What a container with a folder knows of where one more process belongs.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    /// Files of classes of service that the process writes itself into.
    pub(crate) classes: Vec<OwnedFd>,
    /// Whether somebody chose the control group: the process is in it then, or there is none.
    pub(crate) group_chosen: bool,
}

/// [`exec`] with these.
pub(crate) fn exec_in(exec: &Exec<'_>, joined: &Joined) -> Result<Running, Error> {
    let nothing = Linux::default();
    let share = Share::parse(exec.process, exec.linux.unwrap_or(&nothing), true)?;
    let mut program = Program::prepare(exec.process, exec.settings)?.with_share(share);
    program.put_filter(Filtered::compile(exec.seccomp, exec.settings)?);
    if let Some(annotations) = exec.annotations {
        program = program.with_landlock(annotations)?;
    }
    program.name.found = true;
    let scheduled = program
        .share
        .as_ref()
        .is_some_and(|share| share.scheduler.is_some());
    if program.agent.is_none() && !scheduled {
        program.handover = Handover::Child {
            word: HANDED_OVER,
            terminal: program.terminal,
        };
        if let Some(running) = attempt(exec, &program, joined)? {
            return Ok(running);
        }
        program.handover = Handover::None;
    }
    let running = attempt(exec, &program, joined)?;
    running.ok_or_else(|| Error::new(ErrorKind::Internal, "nothing was to be handed over"))
}

/// One way to do it; none when the filter kept the stub from handing over.
fn attempt(exec: &Exec<'_>, program: &Program, joined: &Joined) -> Result<Option<Running>, Error> {
    let streams = parent::streams(&exec.stdio, program.terminal)?;
    let place = Place::of(exec.group)?.and(&joined.classes)?;
    let (link, other) = Link::pair()?;
    let mut link = Some(link);
    let entry = Entry {
        program,
        init: exec.init,
        streams,
        entrances: place.entrances(),
        link: other.as_fd(),
    };
    let protection = parent::protect(true)?;
    let visit = match program.handover {
        Handover::None | Handover::Init { .. } => {
            Some(Visit::enter_processes_of(exec.init).map_err(|error| stopped(error, exec.init))?)
        }
        Handover::Child { .. } => None,
    };
    let cpus = parent::FirstCpus::take(program.share.as_deref())?;
    let spawned = place.spawn(UnshareFlags::empty(), &[], |by_parent| {
        drop(link.take());
        entry.begin(by_parent)
    });
    drop(cpus);
    visit.map_or(Ok(()), Visit::leave)?;
    drop(protection);
    let (child, by_parent) = spawned?;
    drop(other);
    let pid = child.pid.as_raw_pid();
    let placed = match exec.group {
        Some(group) if by_parent => move_into(group, (!joined.group_chosen).then_some(exec.init), pid),
        _ => Ok(()),
    };
    let Some(link) = link.filter(|_| placed.is_ok()) else {
        parent::end(&child);
        return Err(placed
            .err()
            .unwrap_or_else(|| Error::new(ErrorKind::Internal, "no link to the child")));
    };
    if by_parent {
        link.tell();
    }
    let running = match program.handover {
        Handover::None | Handover::Init { .. } => {
            parent::running(child, &link, program, None, exec.state).map(Some)
        }
        Handover::Child { .. } => handed_over(&child, &link, program),
    };
    running.map_err(|error| stopped(error, exec.init))
}

/// Moves the process into the group, or to the container's first process when that is given: where a container made groups
/// below its own and gave them controllers, the kernel lets nobody into its own any more (`cgroup-v2.rst`, "No Internal
/// Process Constraint").
fn move_into(group: &Group, or_beside: Option<BorrowedFd<'_>>, pid: i32) -> Result<(), Error> {
    let moved = match (group.add(pid), or_beside.map(number)) {
        (Err(error), Some(Ok(first))) if error.kind() == ErrorKind::FailedPrecondition => {
            let beside = Group::of_process(first.as_raw_pid()).and_then(|group| group.add(pid));
            beside.map_err(|_| error)
        }
        (moved, _) => moved,
    };
    moved.context(|| format!("error adding pid {pid} to cgroups"))
}

/// Waits until the stub's child has become the program; the one that handed over is reaped then. None when it could not
/// hand over, and a filter may be why.
fn handed_over(child: &Child, link: &Link, program: &Program) -> Result<Option<Running>, Error> {
    let explain = |answer: Answer| answer.into_failure(&program.name, Some(program), None);
    let terminal = match link.answer() {
        Answer::Ready(terminal) => terminal,
        answer => {
            parent::end(child);
            return Err(explain(answer));
        }
    };
    let (mut made, mut refused, mut failed) = (None, None, None);
    loop {
        // The two that hold the other end do not wait for each other: a failure may come before the number.
        match link.answer() {
            Answer::HandedOver(0, errno) => refused = Some(errno),
            Answer::HandedOver(pid, _) => made = i32::try_from(pid).ok().and_then(Pid::from_raw),
            Answer::Closed => break,
            answer => {
                let broken = matches!(answer, Answer::Broken(_));
                failed = failed.or(Some(answer));
                if broken {
                    break;
                }
            }
        }
    }
    parent::end(child);
    let opened = made.map(|pid| {
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(std::io::Error::from);
        pidfd
            .map(|pidfd| (pid.as_raw_pid(), pidfd))
            .context(|| "open the process that was started")
    });
    let opened = opened.transpose()?;
    match opened {
        Some((pid, pidfd)) if failed.is_none() && refused.is_none() => {
            Ok(Some(Running { pid, pidfd, terminal }))
        }
        opened => {
            if let Some((_, pidfd)) = &opened {
                parent::reap(pidfd.as_fd());
            }
            match (failed, refused) {
                (Some(answer), _) => Err(explain(answer)),
                (None, _) if program.filter.is_some() => Ok(None),
                (None, Some(errno)) => Err(Error::wrap(
                    std::io::Error::from_raw_os_error(errno),
                    "make a process in the container's process id namespace",
                )),
                (None, None) => Err(explain(Answer::Closed)),
            }
        }
    }
}

/// The failure to enter a container that stopped meanwhile is told as that.
fn stopped(error: Error, init: BorrowedFd<'_>) -> Error {
    match dhow_sys::process::send_signal(init, 0) {
        Err(gone) if gone.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {
            Error::because(ErrorKind::FailedPrecondition, "container is not running", error)
        }
        _ => error,
    }
}

/// What the parent hands to the child.
struct Entry<'a> {
    program: &'a Program,
    init: BorrowedFd<'a>,
    streams: Option<[BorrowedFd<'a>; 3]>,
    entrances: &'a [OwnedFd],
    link: BorrowedFd<'a>,
}

impl Entry<'_> {
    /// The child's side. Where it does not hand over, it is in the container's process id namespace from its birth, but
    /// not dumpable, so nobody there without CAP_SYS_PTRACE can reach its memory, descriptors or program.
    fn begin(&self, wait_for_parent: bool) -> i32 {
        let prepared = self.prepare(wait_for_parent).and_then(|(terminal, attributes)| {
            init::announce(self.link, terminal.as_ref().map(AsFd::as_fd))?;
            drop(terminal);
            Ok(attributes)
        });
        let failure = match prepared {
            Ok(attributes) => {
                // Only for the words of a failure: what leads through procfs is not there for who hands over.
                let step = staged::find(self.program).map_or(Step::Find, |()| Step::Execute);
                identity::launch(self.program, attributes.as_ref(), self.link, step)
            }
            Err(failure) => failure,
        };
        init::fail(self.link, failure)
    }

    fn prepare(&self, wait_for_parent: bool) -> Result<init::Prepared, Failure> {
        dhow_sys::process::reset_signals().at(Step::Signals)?;
        if wait_for_parent {
            init::wait_for_parent(self.link)?;
        }
        let attributes = init::own_place(self.program, self.entrances)?;
        let apart = self.program.handover != Handover::None;
        let groups = join(self.init, apart, SetGroups::possible(self.program))?;
        rustix::process::umask(Mode::empty());
        let terminal = match self.streams {
            Some(streams) => {
                terminal::streams(streams, self.program.uid, self.program.gid)?;
                None
            }
            None => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let root = rustix::fs::open(c"/", flags, Mode::empty()).at(Step::Terminal)?;
                Some(terminal::open(root.as_fd(), self.program, false, !apart)?)
            }
        };
        identity::settle(self.program, groups)?;
        dhow_sys::fd::cloexec_from(self.program.first_closed).at(Step::CloseOnExec)?;
        Ok((terminal, attributes))
    }
}

/// Enters all namespaces of the container at once; root and working directory become those of its mount namespace.
fn join(init: BorrowedFd<'_>, processes: bool, groups: SetGroups) -> Result<SetGroups, Failure> {
    let mut all = Kinds::MOUNT
        | Kinds::CONTROL_GROUP
        | Kinds::HOST_NAME_AND_NIS_DOMAIN_NAME
        | Kinds::INTER_PROCESS_COMMUNICATION
        | Kinds::NETWORK;
    // For children alone, as setns(2) does it.
    all.set(Kinds::PROCESS_ID, processes);
    match move_into_thread_name_spaces(init, all | Kinds::TIME | Kinds::USER) {
        Ok(()) => identity::become_root(groups),
        // Entering the own user namespace is refused so (setns(2)): the container has none of its own.
        Err(Errno::INVAL) => match move_into_thread_name_spaces(init, all | Kinds::TIME) {
            Ok(()) => Ok(groups),
            Err(Errno::INVAL) => join_without_time(init, all, groups),
            // Root of a normal user's namespace, in which the container is.
            Err(Errno::PERM) => join_what_differs(init, all | Kinds::TIME, groups),
            Err(errno) => Err(errno).at(Step::JoinNamespace),
        },
        Err(Errno::PERM) => join_what_differs(init, all | Kinds::TIME | Kinds::USER, groups),
        Err(errno) => Err(errno).at(Step::JoinNamespace),
    }
}

/// A kernel without time namespaces says EINVAL too.
fn join_without_time(init: BorrowedFd<'_>, all: Kinds, groups: SetGroups) -> Result<SetGroups, Failure> {
    match move_into_thread_name_spaces(init, all | Kinds::USER) {
        Err(Errno::INVAL) => {
            move_into_thread_name_spaces(init, all).at(Step::JoinNamespace)?;
            Ok(groups)
        }
        joined => joined
            .at(Step::JoinNamespace)
            .and_then(|()| identity::become_root(groups)),
    }
}

/// Who is not root may enter the namespaces that the container's user namespace owns, and not once more those of the host
/// that the container has in common with it: its clocks, its network.
fn join_what_differs(init: BorrowedFd<'_>, wanted: Kinds, groups: SetGroups) -> Result<SetGroups, Failure> {
    let kinds = different(init, wanted).at(Step::JoinNamespace)?;
    move_into_thread_name_spaces(init, kinds).at(Step::JoinNamespace)?;
    match kinds.contains(Kinds::USER) {
        true => identity::become_root(groups),
        false => Ok(groups),
    }
}

/// Those kinds in which the process has another namespace than this one.
fn different(init: BorrowedFd<'_>, wanted: Kinds) -> std::io::Result<Kinds> {
    const NAMES: [(Kinds, &str); 8] = [
        (Kinds::CONTROL_GROUP, "cgroup"),
        (Kinds::INTER_PROCESS_COMMUNICATION, "ipc"),
        (Kinds::MOUNT, "mnt"),
        (Kinds::NETWORK, "net"),
        (Kinds::PROCESS_ID, "pid"),
        (Kinds::TIME, "time"),
        (Kinds::USER, "user"),
        (Kinds::HOST_NAME_AND_NIS_DOMAIN_NAME, "uts"),
    ];
    let pid = number(init)?.as_raw_nonzero().to_string();
    let number = |process: &str, name: &str| {
        let stat = rustix::fs::stat(format!("/proc/{process}/ns/{name}"));
        stat.map(|stat| (stat.st_dev, stat.st_ino))
    };
    let mut kinds = Kinds::empty();
    for (kind, name) in NAMES {
        if !wanted.contains(kind) {
            continue;
        }
        match (number(&pid, name), number("self", name)) {
            // A kernel without this kind.
            (Err(Errno::NOENT), _) => {}
            (theirs, own) => kinds.set(kind, theirs? != own?),
        }
    }
    Ok(kinds)
}
