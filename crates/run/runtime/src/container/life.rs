//! What is done to a container that has a folder: start, signals, pause, limits.

use std::os::fd::AsFd as _;

use dhow_oci::runtime::{Resources, State};
use dhow_types::ErrorKind;

use super::{Container, Status, not_running, record, resctrl};
use crate::agent::Agent;
use crate::hooks::{self, Stage, Surroundings};
use crate::parent::{self, Answer, Link};
use crate::report::Name;
use crate::{Context as _, Error};

/// Whom a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The first process.
    First,
    /// Every process in the control group.
    All,
}

impl Container {
    /// Lets the container's process execute its program, and returns when it has.
    ///
    /// # Errors
    /// `FailedPrecondition` for a container that is not just created; `NotFound` and `PermissionDenied` for the program; the
    /// hook that failed, with the container stopped.
    pub fn start(&mut self, surroundings: &Surroundings) -> Result<(), Error> {
        let _lock = self.folder.lock()?;
        // Its creator may have held the lock until now.
        self.record = record::read(&self.folder)?;
        let wrong = |message: String| Err(Error::new(ErrorKind::FailedPrecondition, message));
        match self.status()? {
            Status::Created => {}
            Status::Stopped => return wrong("cannot start a container that has stopped".to_owned()),
            Status::Running => return wrong("cannot start an already running container".to_owned()),
            other => return wrong(format!("cannot start a container in the {} state", other.word())),
        }
        let spec = self.spec()?;
        let Some(connection) = self.folder.connect()? else {
            return wrong("cannot start a container that its creator starts itself".to_owned());
        };
        let link = Link(connection);
        let Some((pid, pidfd)) = self.pidfd()? else {
            return wrong("cannot start a container that has stopped".to_owned());
        };
        let state = State {
            id: self.id().to_owned(),
            ..self.record().map(super::Record::state).unwrap_or_default()
        };
        let seccomp = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
        let agent = seccomp.and_then(|profile| Agent::of(profile).ok());
        link.tell();
        let answer = parent::executed(&link, pid, pidfd.as_fd(), agent.as_ref(), Some(&state));
        self.folder.forget_socket();
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Err(self.stopped_by(error)),
        };
        let hooks = spec.hooks.unwrap_or_default();
        let around = surroundings.around();
        if matches!(answer, Answer::Said(_)) {
            hooks::run_after_failure(&hooks.poststart, &state, around);
        }
        if !matches!(answer, Answer::Closed) {
            let program = spec.process.as_ref().and_then(|process| process.args.first());
            let text = program.cloned().unwrap_or_default();
            let name = Name {
                searched: !text.contains('/'),
                found: true,
                text,
            };
            return Err(answer.into_failure(&name, None, None));
        }
        hooks::run(Stage::Poststart, &hooks.poststart, &state, around, None)
            .map_err(|error| self.stopped_by(error))
    }

    /// The failure that the container is stopped for.
    fn stopped_by(&self, error: Error) -> Error {
        match self.kill(libc::SIGKILL, Target::First) {
            // One that is gone by itself is as stopped as it must be.
            Ok(()) | Err(_) => error,
        }
    }

    /// Sends a signal. SIGKILL ends every process of a container that shares its process id namespace, also when the first one
    /// is gone, and reaches a paused one.
    ///
    /// # Errors
    /// `FailedPrecondition` (runc's "container not running") for a stopped container.
    pub fn kill(&self, signal: i32, target: Target) -> Result<(), Error> {
        if !(0..=64).contains(&signal) {
            let message = format!("unknown signal \"{signal}\"");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let shared = self.record.as_ref().is_some_and(|record| !record.own_processes);
        // Without a control group, as of a normal user, nobody knows the others: `create` warned of that.
        if target == Target::All || (shared && signal == libc::SIGKILL && self.group()?.is_some()) {
            return self.kill_group(signal);
        }
        let Some((_, pidfd)) = self.pidfd()? else {
            return Err(not_running());
        };
        match crate::kill(pidfd.as_fd(), signal) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(not_running()),
            done => done?,
        }
        self.let_die(signal)
    }

    fn kill_group(&self, signal: i32) -> Result<(), Error> {
        let Some(group) = self.group()? else {
            return Err(not_running());
        };
        if signal == libc::SIGKILL {
            return group.kill_all().context(|| "kill the processes of the container");
        }
        for pid in group.procs().context(|| "read the processes of the container")? {
            let Some(start) = super::vital::Vital::now(pid).map(|vital| vital.start) else {
                continue;
            };
            if let Some(pidfd) = super::vital::pidfd(pid, start)? {
                match crate::kill(pidfd.as_fd(), signal) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Frozen processes of control groups version 1 die only once they are thawed.
    fn let_die(&self, signal: i32) -> Result<(), Error> {
        if signal != libc::SIGKILL {
            return Ok(());
        }
        match self.group()? {
            Some(group) if group.frozen().unwrap_or(false) => group.thaw().context(|| "thaw the container"),
            _ => Ok(()),
        }
    }

    /// Freezes every process.
    ///
    /// # Errors
    /// `FailedPrecondition` unless it is created or running.
    pub fn pause(&self) -> Result<(), Error> {
        let _lock = self.folder.lock()?;
        match self.status()? {
            Status::Created | Status::Running => {}
            Status::Paused => {
                return Err(Error::new(
                    ErrorKind::FailedPrecondition,
                    "container already paused",
                ));
            }
            _ => return Err(not_running()),
        }
        self.need_group()?.freeze().context(|| "pause the container")
    }

    /// Lets frozen processes go on.
    ///
    /// # Errors
    /// `FailedPrecondition` unless it is paused.
    pub fn resume(&self) -> Result<(), Error> {
        let _lock = self.folder.lock()?;
        if self.status()? != Status::Paused {
            return Err(Error::new(ErrorKind::FailedPrecondition, "container not paused"));
        }
        self.need_group()?.thaw().context(|| "resume the container")
    }

    /// Changes limits; those not named stay.
    ///
    /// # Errors
    /// `FailedPrecondition` for a stopped container; the limit that cannot be had.
    pub fn update(&self, resources: &Resources) -> Result<(), Error> {
        let _lock = self.folder.lock()?;
        if self.status()? == Status::Stopped {
            return Err(not_running());
        }
        let group = self.need_group()?;
        match self.record.as_ref().and_then(|record| record.systemd.as_ref()) {
            Some(systemd) => systemd.update(&self.spec()?, self.id(), &group, resources),
            None => group
                .update(resources)
                .context(|| "update the container's limits"),
        }
    }

    /// Writes lines into the `schemata` of its class of service (Intel RDT).
    ///
    /// # Errors
    /// `FailedPrecondition` for a stopped container and for one without a class; what the kernel refuses.
    pub fn update_schemata(&self, lines: &[&str]) -> Result<(), Error> {
        let _lock = self.folder.lock()?;
        if self.status()? == Status::Stopped {
            return Err(not_running());
        }
        resctrl::update(&self.folder, lines)
    }

    /// What it uses.
    ///
    /// # Errors
    /// `FailedPrecondition` for a stopped container.
    pub fn stats(&self) -> Result<dhow_cgroup::Stats, Error> {
        if self.status()? == Status::Stopped {
            return Err(not_running());
        }
        self.need_group()?
            .stats()
            .context(|| "read the container's statistics")
    }

    /// What resctrl says of it; none of one without a class of service.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn allocation(&self) -> Result<Option<resctrl::Allocation>, Error> {
        resctrl::allocation(&self.folder)
    }

    fn need_group(&self) -> Result<dhow_cgroup::Group, Error> {
        self.group()?.ok_or_else(|| {
            Error::new(
                ErrorKind::FailedPrecondition,
                "container has no control group of its own",
            )
        })
    }
}
