//! A container that is created by one process and started by another: hooks, and the wait between the two.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use dhow_oci::runtime::State;
use dhow_sys::signal::Signals;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use rustix::thread::CapabilitySet;

use super::{Setup, told};
use crate::Error;
use crate::hooks::{self, Around, Restriction, Stage};
use crate::plan::Program;
use crate::report::{At, Failure, Message, Step, said};

/// What a container with a folder of its own has besides.
#[derive(Debug)]
pub(crate) struct Staged<'a> {
    /// The state as hooks get it, but for status and process id.
    pub(crate) state: &'a State,
    /// What hooks run with.
    pub(crate) around: Around<'a>,
    /// Where `start` will come by; none when the creator starts it over the link.
    pub(crate) listener: Option<BorrowedFd<'a>>,
    /// Files of its class of service to write itself into.
    pub(crate) classes: &'a [OwnedFd],
}

/// Signals that end a process which has no handler for them. As the first process of its namespace this one would never
/// see them.
const ENDING: [i32; 9] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGPIPE,
    libc::SIGABRT,
];

/// Whether hooks come between the last mount and the change of root.
pub(crate) fn has_hooks_before_pivot(setup: &Setup<'_>) -> bool {
    let hooks = &setup.plan.hooks;
    let stages = [Stage::Prestart, Stage::CreateRuntime, Stage::CreateContainer];
    setup.staged.is_some() && stages.iter().any(|stage| !stage.of(hooks).is_empty())
}

/// Runs the hooks that come between the last mount and the change of root: first those of the runtime's namespaces, by
/// the parent, then those of the container's, in its root as with runc.
pub(crate) fn before_pivot(setup: &Setup<'_>, root: BorrowedFd<'_>) -> Result<(), Failure> {
    let Some(staged) = setup.staged.filter(|_| has_hooks_before_pivot(setup)) else {
        return Ok(());
    };
    // Also when there are only hooks for this process to run: they may ask for a state, which the parent writes.
    dhow_sys::fd::send(setup.link, &Message::Hooks.encode(), &[]).at(Step::Report)?;
    super::wait_for_parent(setup.link)?;
    rustix::process::fchdir(root).at(Step::Pivot)?;
    run(Stage::CreateContainer, setup, staged, setup.link, None)
}

/// Runs hooks in this process's namespaces. A failure is told in words, and [`Step::Hook`] says that it was.
pub(crate) fn run(
    stage: Stage,
    setup: &Setup<'_>,
    staged: &Staged<'_>,
    link: BorrowedFd<'_>,
    restrict: Option<Restriction<'_>>,
) -> Result<(), Failure> {
    let hooks = stage.of(&setup.plan.hooks);
    if hooks.is_empty() {
        return Ok(());
    }
    let state = State {
        // As the container sees it (runtime-spec, "State").
        pid: rustix::process::getpid().as_raw_pid(),
        ..staged.state.clone()
    };
    let env = match stage {
        Stage::StartContainer => setup.plan.program.env.strings(),
        _ => staged.around.env,
    };
    let around = Around { env, ..staged.around };
    hooks::run(stage, hooks, &state, around, restrict).map_err(|error| tell(link, &error))
}

fn tell(link: BorrowedFd<'_>, error: &Error) -> Failure {
    let outcome = dhow_sys::fd::send(link, &said(&error.to_string()), &[]);
    Failure {
        step: Step::Hook,
        index: 0,
        errno: outcome.map_or(libc::EPIPE, |_| 0),
    }
}

/// Says early what execve would say late: that the program is not there, or may not be executed.
pub(crate) fn find(program: &Program) -> Result<(), Failure> {
    let mut worst = Errno::NOENT;
    for candidate in &program.candidates {
        match executable(candidate) {
            Ok(()) => return Ok(()),
            // The rights that it will have are not there yet: execve decides (capabilities(7)).
            Err(Errno::ACCESS) if overrides_modes(program) => return Ok(()),
            Err(Errno::NOENT | Errno::NOTDIR) if program.name.searched => {}
            Err(errno) => worst = errno,
        }
    }
    Err(worst).at(Step::Find)
}

/// Whether modes will not count when the program is executed: of all sets the ambient one alone outlives the stub's execve.
fn overrides_modes(program: &Program) -> bool {
    program.masks.ambient.contains(CapabilitySet::DAC_OVERRIDE)
}

fn executable(path: &std::ffi::CStr) -> rustix::io::Result<()> {
    use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, stat};
    if FileType::from_raw_mode(stat(path)?.st_mode).is_dir() {
        return Err(Errno::ISDIR);
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// The wait of a created container for its start, by whoever comes by.
pub(crate) struct Wait<'a> {
    listener: BorrowedFd<'a>,
    signals: Signals,
}

impl<'a> Wait<'a> {
    /// Makes ready what a filter may forbid later.
    pub(crate) fn prepare(listener: BorrowedFd<'a>) -> Result<Self, Failure> {
        let signals = Signals::watch(&ENDING).at(Step::Signals)?;
        Ok(Self { listener, signals })
    }

    /// Waits for `start`; the connection it came by is the link from then on. The exit status when the creator ended
    /// before it was done, or a signal says to end.
    ///
    /// A starter that is killed before it says a word costs nothing: the next one is waited for.
    pub(crate) fn wait(self, link: BorrowedFd<'_>) -> Result<OwnedFd, i32> {
        if !told(link) {
            return Err(super::FAILED);
        }
        loop {
            let mut fds = [
                PollFd::new(&self.listener, PollFlags::IN),
                PollFd::new(&self.signals, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                Err(_) => return Err(super::FAILED),
                Ok(_) => {}
            }
            if let Some(signal) = self.signals.take().first() {
                return Err(128 + signal);
            }
            match accept_with(self.listener, SocketFlags::CLOEXEC) {
                Ok(starter) if told(starter.as_fd()) => return Ok(starter),
                // A starter that went away, or a connection that did.
                Ok(_) | Err(Errno::INTR | Errno::CONNABORTED | Errno::AGAIN) => {}
                Err(_) => return Err(super::FAILED),
            }
        }
    }
}
