//! `stop`, `kill`, `pause`, `unpause`, `restart`: asking a program to end, or making it.

use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use dhow_monitor::frame;
use dhow_types::{ContainerId, ErrorKind};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::folder::Container;
use super::program::{lives, monitor_of};
use super::record::{State, Status};
use crate::event::Event;
use crate::{Context as _, Engine, Error};

/// `SIGKILL`.
const KILL: i32 = Signal::KILL.as_raw();
/// How long after a kill the container's end may take to be written down.
const AFTERMATH: Duration = Duration::from_secs(30);

/// How a container came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It did not run, or ended on its signal.
    Willing,
    /// It did not end in time and was killed.
    Killed,
    /// It ended, and its monitor was gone before it: nobody knows with which exit code.
    Unseen,
}

impl Engine {
    /// Ends a container: its stop signal, then after `grace` (its own when absent) `SIGKILL`. Returns when the end
    /// is written down. Ok means that it does not run; it may not have run before.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` when it does not end.
    pub fn stop(
        &self,
        wanted: &str,
        signal: Option<&str>,
        grace: Option<Duration>,
    ) -> Result<Stopped, Error> {
        let found = self.containers().find(wanted)?;
        let id = &found.config.id;
        self.forbid_restart(id);
        let Some((container, pidfd)) = self.caught(&found)? else {
            return self.settle_end(id).map(|()| Stopped::Willing);
        };
        let signal = parse_signal(signal.unwrap_or(&container.config.stop_signal))?;
        self.note_stop(id, true);
        let monitor = monitor_to_wait_for(&container);
        let watched = monitor_of(&container).is_some();
        if container.state.status == Status::Paused {
            self.unpause(wanted)?;
        }
        send(&pidfd, signal)?;
        self.tell(&Event::of(&container.config, "kill").with("signal", signal));
        let mut how = Stopped::Willing;
        if !ended_within(&pidfd, grace.unwrap_or_else(|| container.config.grace())) {
            how = Stopped::Killed;
            send(&pidfd, KILL)?;
            self.tell(&Event::of(&container.config, "kill").with("signal", KILL));
            if !ended_within(&pidfd, AFTERMATH) {
                let message = format!("container {} does not end, though it was killed", id.short());
                return Err(Error::new(ErrorKind::Unavailable, message)
                    .with_hint("a program that waits for a dead disk or mount cannot be killed; look at its state in /proc"));
            }
        }
        if let Some(monitor) = monitor {
            ended_within(&monitor, AFTERMATH);
        }
        self.settle_end(id)?;
        self.tell(&Event::of(&container.config, "stop"));
        Ok(if watched { how } else { Stopped::Unseen })
    }

    /// The container with a handle of its program, once there is one: a monitor that was told not to start it again may have
    /// been at it. None when it does not run.
    fn caught(&self, found: &Container) -> Result<Option<(Container, OwnedFd)>, Error> {
        let id = &found.config.id;
        let mut container = found.clone();
        let patience = Instant::now() + AFTERMATH;
        loop {
            if let Some(pidfd) = open_process(&container)? {
                return Ok(Some((container, pidfd)));
            }
            let gone = !self.containers().folder(id).exists();
            if gone || Instant::now() > patience || self.containers().try_lock(id)?.is_some() {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(1));
            match self.containers().load(id) {
                // It was to go when it ended (`--rm`).
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                loaded => container = loaded?,
            }
        }
    }

    /// Sends a signal to a container's program.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when it does not run; `InvalidArgument` for an unknown signal.
    pub fn kill(&self, wanted: &str, signal: &str) -> Result<(), Error> {
        // A signal that is none is wrong whatever the container.
        let signal = parse_signal(signal)?;
        let container = self.containers().find(wanted)?;
        let Some(pidfd) = open_process(&container)? else {
            let message = format!(
                "cannot kill container: {wanted}: container {} is not running",
                container.config.id
            );
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        };
        if ENDING.contains(&signal) {
            self.forbid_restart(&container.config.id);
            self.note_stop(&container.config.id, false);
        }
        send(&pidfd, signal)?;
        self.tell(&Event::of(&container.config, "kill").with("signal", signal));
        if signal == KILL && ended_within(&pidfd, AFTERMATH) {
            return self.settle_end(&container.config.id);
        }
        Ok(())
    }

    /// Whether there is such a signal.
    ///
    /// # Errors
    /// `InvalidArgument` when there is not.
    pub fn check_signal(signal: &str) -> Result<(), Error> {
        parse_signal(signal).map(drop)
    }

    /// Writes down that a person ended a container. One whose record cannot be written ends all the same.
    fn note_stop(&self, id: &ContainerId, waits: bool) {
        let edit = self.containers().edit(id);
        if edit.is_ok() {
            drop(self.containers().change_state(id, |state| {
                state.manually_stopped = true;
                state.stopping |= waits;
            }));
        }
    }

    /// Freezes every process of a container.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when it does not run or is frozen already.
    pub fn pause(&self, wanted: &str) -> Result<(), Error> {
        self.freeze(wanted, Status::Running, Status::Paused)
    }

    /// Lets a frozen container go on.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when it is not frozen.
    pub fn unpause(&self, wanted: &str) -> Result<(), Error> {
        self.freeze(wanted, Status::Paused, Status::Running)
    }

    fn freeze(&self, wanted: &str, from: Status, to: Status) -> Result<(), Error> {
        let container = self.containers().find(wanted)?;
        let id = &container.config.id;
        if container.state.status != from {
            let message = format!(
                "Container {} is {}, not {}",
                id,
                container.state.status.as_str(),
                from.as_str()
            );
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        }
        let Some(group) = self.group_if_any(&container.config)? else {
            let message = format!("container {} has no control group to be paused by", id.short());
            return Err(Error::new(ErrorKind::Unsupported, message)
                .with_hint("delegate a control group to this user (systemd: Delegate=yes)"));
        };
        let done = if to == Status::Paused {
            group.freeze()
        } else {
            group.thaw()
        };
        done.context(|| format!("change container {}", id.short()))?;
        // The monitor writes this record only when the program starts, ends or is checked; a pause changes the
        // status alone, and the monitor keeps it when it writes next.
        let mut state = container.state;
        state.status = to;
        self.containers().write_state(id, &state)?;
        let action = if to == Status::Paused { "pause" } else { "unpause" };
        self.tell(&Event::of(&container.config, action));
        Ok(())
    }

    /// Tells the monitor that the restart policy no longer holds. No monitor, no policy.
    fn forbid_restart(&self, id: &ContainerId) {
        if let Ok(mut socket) = self.connect(id) {
            // If the monitor ends at this moment, there is nothing left to forbid.
            drop(socket.write_all(&frame::frame(frame::NO_RESTART, &[])));
        }
    }

    /// Connects to a container's monitor.
    pub(super) fn connect(&self, id: &ContainerId) -> Result<UnixStream, Error> {
        let what = || format!("attach to container {}", id.short());
        let folder = std::fs::File::open(self.containers().run_folder(id)).context(what)?;
        // Through the folder's descriptor, since a socket's address holds 107 bytes and a root may be deep.
        let path = format!("/proc/self/fd/{}/attach.sock", folder.as_raw_fd());
        UnixStream::connect(path).context(what)
    }

    /// Writes down the end of a container whose monitor could not, and releases what it held.
    pub(crate) fn settle_record(&self, id: &ContainerId) -> Result<(), Error> {
        let _lock = self.containers().lock(id)?;
        let container = self.containers().load(id)?;
        self.release(&container.config, &container.state)?;
        let mut state = container.state;
        if state.status != Status::Created {
            state.status = Status::Exited;
        }
        state.pid = 0;
        state.newborn = None;
        state.stopping = false;
        state.endpoints.clear();
        self.containers().write_state(id, &state)
    }

    /// Waits until the monitor has written down the end: it holds the lock until then.
    pub(super) fn settle_end(&self, id: &ContainerId) -> Result<(), Error> {
        if !self.containers().folder(id).exists() {
            return Ok(());
        }
        let patience = Instant::now() + AFTERMATH;
        while Instant::now() < patience {
            if self.containers().try_lock(id)?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let message = format!("container {} ended, but its monitor does not", id.short());
        Err(Error::new(ErrorKind::Unavailable, message))
    }
}

/// The monitor of a container that takes its image along, which comes after all else is gone.
fn monitor_to_wait_for(container: &Container) -> Option<OwnedFd> {
    let monitor = container
        .config
        .extras
        .remove_image
        .then(|| monitor_of(container))??;
    let pidfd = rustix::process::pidfd_open(Pid::from_raw(monitor)?, PidfdFlags::empty()).ok()?;
    // Looked at again once the handle is open: from here on it cannot become another process.
    (monitor_of(container) == Some(monitor)).then_some(pidfd)
}

/// Ends what was to become a program when its monitor was killed, and may have become it.
pub(super) fn end_newborn(state: &State) -> Result<(), Error> {
    let Some(newborn) = &state.newborn else {
        return Ok(());
    };
    let Some(pidfd) = opened(newborn.pid, || newborn.lives())? else {
        return Ok(());
    };
    send(&pidfd, KILL)?;
    if ended_within(&pidfd, AFTERMATH) {
        return Ok(());
    }
    let message = format!("process {} does not end, though it was killed", newborn.pid);
    Err(Error::new(ErrorKind::Unavailable, message))
}

/// A handle of the container's program, if it still is that program.
pub(super) fn open_process(container: &Container) -> Result<Option<OwnedFd>, Error> {
    opened(container.state.pid, || lives(&container.state))
}

fn opened(pid: i32, is_meant: impl Fn() -> bool) -> Result<Option<OwnedFd>, Error> {
    let Some(pid) = Pid::from_raw(pid) else {
        return Ok(None);
    };
    let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(errno) => {
            return Err(Error::wrap(
                std::io::Error::from(errno),
                "open the container's process",
            ));
        }
    };
    // Checked after the handle is open: from here on it cannot become another process.
    Ok(is_meant().then_some(pidfd))
}

pub(super) fn send(pidfd: &OwnedFd, signal: i32) -> Result<(), Error> {
    match dhow_sys::process::send_signal(pidfd.as_fd(), signal) {
        // It has ended.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(()),
        sent => sent.context(|| "send a signal to the container"),
    }
}

/// Waits for a process that need not be our child.
pub(super) fn ended_within(pidfd: &OwnedFd, wait: Duration) -> bool {
    let until = Instant::now() + wait;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(0) if left.is_zero() => return false,
            Ok(count) if count > 0 => return true,
            _ => {}
        }
        if Instant::now() >= until {
            return false;
        }
    }
}

/// The first and the last real-time signal that programs may use, on every architecture of ours (signal(7)).
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;
/// Signals of a person who wants the container to end.
const ENDING: [i32; 4] = [
    KILL,
    Signal::TERM.as_raw(),
    Signal::INT.as_raw(),
    Signal::QUIT.as_raw(),
];

/// The number of a signal by number or name, with or without `SIG` (moby `pkg/signal`); systemd as a container's init is
/// stopped by `SIGRTMIN+3`.
pub(super) fn parse_signal(text: &str) -> Result<i32, Error> {
    let bad = || Error::new(ErrorKind::InvalidArgument, format!("Invalid signal: {text}"));
    let known = |number: &i32| Signal::from_named_raw(*number).is_some() || (RTMIN..=RTMAX).contains(number);
    if let Ok(number) = text.parse::<i32>() {
        return Some(number).filter(known).ok_or_else(bad);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str| rest.parse::<u8>().ok().map(i32::from);
    let real_time = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => Some(RTMIN),
        (_, Some("")) => Some(RTMAX),
        (Some(rest), _) => rest.strip_prefix('+').and_then(offset).map(|more| RTMIN + more),
        (_, Some(rest)) => rest.strip_prefix('-').and_then(offset).map(|less| RTMAX - less),
        _ => None,
    };
    if let Some(number) = real_time {
        return Some(number)
            .filter(|number| (RTMIN..=RTMAX).contains(number))
            .ok_or_else(bad);
    }
    NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, signal)| signal.as_raw())
        .ok_or_else(bad)
}

const NAMES: [(&str, Signal); 30] = [
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("BUS", Signal::BUS),
    ("CHLD", Signal::CHILD),
    ("CONT", Signal::CONT),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("IO", Signal::IO),
    ("IOT", Signal::ABORT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("PROF", Signal::PROF),
    ("PWR", Signal::POWER),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("STOP", Signal::STOP),
    ("SYS", Signal::SYS),
    ("TERM", Signal::TERM),
    ("TRAP", Signal::TRAP),
    ("TSTP", Signal::TSTP),
    ("TTIN", Signal::TTIN),
    ("TTOU", Signal::TTOU),
    ("URG", Signal::URG),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("VTALRM", Signal::VTALARM),
    ("WINCH", Signal::WINCH),
    ("XCPU", Signal::XCPU),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_go_by_number_and_by_name_with_and_without_sig() {
        for text in ["9", "KILL", "SIGKILL", "sigkill"] {
            assert_eq!(parse_signal(text).unwrap(), KILL, "{text}");
        }
        for (text, number) in [
            ("SIGRTMIN+3", 37),
            ("rtmin", 34),
            ("RTMAX-1", 63),
            ("SIGRTMAX", 64),
            ("64", 64),
        ] {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for bad in [
            "", "0", "-1", "SIG", "NOPE", "99999", "32", "65", "RTMIN+31", "RTMAX-99", "RTMIN3",
        ] {
            assert_eq!(
                parse_signal(bad).unwrap_err().kind(),
                ErrorKind::InvalidArgument,
                "{bad}"
            );
        }
    }
}
