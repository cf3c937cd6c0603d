//! One more process in a running container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dhow_cgroup::Group;
use dhow_oci::runtime::{Linux, Process, Seccomp, State};
use dhow_types::ErrorKind;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{ThreadNameSpaceType as Kinds, UnshareFlags, move_into_thread_name_spaces};

use crate::init::identity::{self, SetGroups};
use crate::init::{self, terminal};
use crate::parent::{self, Link, Place, Visit};
use crate::plan::{Program, Share};
use crate::report::{At, Failure, Step};
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
/// # Errors
/// `FailedPrecondition` for a container that stopped; `NotFound` and `PermissionDenied` for the program; else the step.
pub fn exec(exec: Exec<'_>) -> Result<Running, Error> {
    let nothing = Linux::default();
    let share = Share::parse(exec.process, exec.linux.unwrap_or(&nothing), true)?;
    let program = Program::prepare(exec.process, exec.seccomp, exec.settings)?.with_share(share);
    let streams = parent::streams(&exec.stdio, program.terminal)?;
    let place = Place::of(exec.group)?;
    let (link, other) = Link::pair()?;
    let mut link = Some(link);
    let entry = Entry {
        program: &program,
        init: exec.init,
        streams,
        entrances: place.entrances(),
        link: other.as_fd(),
    };
    let protection = parent::protect(true)?;
    let visit = Visit::enter_processes_of(exec.init).map_err(|error| stopped(error, exec.init))?;
    let cpus = parent::FirstCpus::take(program.share.as_deref())?;
    let spawned = place.spawn(UnshareFlags::empty(), &[], |by_parent| {
        drop(link.take());
        entry.begin(by_parent)
    });
    drop(cpus);
    visit.leave()?;
    drop(protection);
    let (child, by_parent) = spawned?;
    drop(other);
    let pid = child.pid.as_raw_pid();
    let placed = match exec.group {
        Some(group) if by_parent => group
            .add(pid)
            .context(|| format!("move process {pid} into its control group")),
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
    parent::running(child, &link, &program, None, exec.state).map_err(|error| stopped(error, exec.init))
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
    /// The child's side. It is in the container's process id namespace from its birth, but not dumpable, so nobody there
    /// can reach its memory, descriptors or program before it is the container's own.
    fn begin(&self, wait_for_parent: bool) -> i32 {
        let prepared = self.prepare(wait_for_parent).and_then(|(terminal, attributes)| {
            init::announce(self.link, terminal.as_ref().map(AsFd::as_fd))?;
            drop(terminal);
            Ok(attributes)
        });
        let failure = match prepared {
            Ok(attributes) => identity::launch(self.program, attributes.as_ref(), self.link),
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
        let groups = join(self.init)?;
        rustix::process::umask(Mode::empty());
        let terminal = match self.streams {
            Some(streams) => {
                terminal::streams(streams, self.program.uid)?;
                None
            }
            None => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let root = rustix::fs::open(c"/", flags, Mode::empty()).at(Step::Terminal)?;
                Some(terminal::open(root.as_fd(), self.program, false)?)
            }
        };
        identity::settle(self.program, groups)?;
        dhow_sys::fd::cloexec_from(self.program.first_closed).at(Step::CloseOnExec)?;
        Ok((terminal, attributes))
    }
}

/// Enters all namespaces of the container at once; root and working directory become those of its mount namespace.
fn join(init: BorrowedFd<'_>) -> Result<SetGroups, Failure> {
    let all = Kinds::MOUNT
        | Kinds::CONTROL_GROUP
        | Kinds::HOST_NAME_AND_NIS_DOMAIN_NAME
        | Kinds::INTER_PROCESS_COMMUNICATION
        | Kinds::NETWORK;
    match move_into_thread_name_spaces(init, all | Kinds::TIME | Kinds::USER) {
        Ok(()) => identity::become_root(),
        // Entering the own user namespace is refused so (setns(2)): the container has none of its own.
        Err(Errno::INVAL) => match move_into_thread_name_spaces(init, all | Kinds::TIME) {
            Ok(()) => Ok(SetGroups::Allowed),
            Err(Errno::INVAL) => join_without_time(init, all),
            Err(errno) => Err(errno).at(Step::JoinNamespace),
        },
        Err(errno) => Err(errno).at(Step::JoinNamespace),
    }
}

/// A kernel without time namespaces says EINVAL too.
fn join_without_time(init: BorrowedFd<'_>, all: Kinds) -> Result<SetGroups, Failure> {
    match move_into_thread_name_spaces(init, all | Kinds::USER) {
        Err(Errno::INVAL) => {
            move_into_thread_name_spaces(init, all).at(Step::JoinNamespace)?;
            Ok(SetGroups::Allowed)
        }
        joined => joined
            .at(Step::JoinNamespace)
            .and_then(|()| identity::become_root()),
    }
}
