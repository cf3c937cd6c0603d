//! The end of a container that has a folder.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use dhow_cgroup::Group;
use dhow_oci::runtime::{Spec, State};
use dhow_types::{ErrorKind, Failures};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::folder::Folder;
use super::{Container, Record, Status, record, resctrl};
use crate::hooks::{self, HookFailure, Surroundings};
use crate::{Context as _, Error};

/// How long one that runs is waited for before a delete without force is refused: callers delete right after the program's
/// last word, or after a signal that ends it, and this program starts faster than the other ends.
const ENDING: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 250_000_000,
};
/// How long a killed process may take before it is looked for in the groups of others.
const ELSEWHERE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 250_000_000,
};
/// How long killed processes are waited for.
const DYING: Duration = Duration::from_secs(10);

/// How long the program of a container that is to be deleted may take to end by itself.
const LEAVING: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

impl Container {
    /// Opens what is there of a container to delete it, be it half made or damaged.
    ///
    /// # Errors
    /// As [`open`](Self::open), but none for a record that cannot be read.
    pub fn open_to_delete(root: &Path, id: &str) -> Result<Self, Error> {
        let folder = Folder::open(root, id)?;
        let record = match record::read(&folder) {
            Err(error) if error.kind() == ErrorKind::DataLoss => None,
            outcome => outcome?,
        };
        Ok(Self {
            folder,
            record,
            kept: None,
        })
    }

    /// Deletes the container: its processes when `force` says so or it was never started, its control group, its folder. Hooks
    /// that fail at the end are returned, and no error: the container is gone.
    ///
    /// # Errors
    /// `FailedPrecondition` for one that runs, unless forced; what could not be removed.
    pub fn delete(mut self, force: bool, surroundings: &Surroundings) -> Result<Vec<HookFailure>, Error> {
        // Whoever creates or starts it sees the death of its process; the lock is free then. One that was made here and is
        // gone holds up nobody.
        if force {
            if self.kept.is_none() || self.pidfd()?.is_some() {
                self.end_processes()?;
            }
        } else if let Some((_, pidfd)) = self.pidfd()? {
            // A program that just did what it had to may be on its way out.
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            let grace = (self.status()? == Status::Running).then_some(LEAVING);
            match poll(&mut fds, Some(&grace.unwrap_or_default())) {
                // Its status is asked next, whatever came of it.
                Ok(_) | Err(_) => {}
            }
        }
        let _lock = self.folder.lock()?;
        if !force {
            self.refuse_to_end()?;
        }
        let systemd = self.record.as_ref().and_then(|record| record.systemd.as_ref());
        let kept = self.kept.take().filter(|_| systemd.is_none());
        if kept.is_none() || self.pidfd()?.is_some() {
            self.end_processes()?;
        }
        let (removed, poststop) = match kept {
            // Whoever outlived the first process is in the group, and is killed with it.
            Some(kept) => (kept.group.map_or(Ok(()), end_group), kept.poststop),
            None => {
                let spec = self.spec().ok();
                let removed = self.remove_group(spec.as_ref());
                let hooks = spec.and_then(|spec| spec.hooks).unwrap_or_default();
                (removed, hooks.poststop)
            }
        };
        let mut failures = Failures::new();
        failures.record("remove the control group", removed);
        failures.record("leave resctrl", resctrl::leave(&self.folder));
        if let Err(failed) = failures.into_result() {
            return Err(Error::wrap(failed, format!("delete container {}", self.id())));
        }
        self.folder.remove()?;
        let state = State {
            id: self.id().to_owned(),
            pid: 0,
            ..self.record.as_ref().map(Record::state).unwrap_or_default()
        };
        Ok(hooks::run_last(&poststop, &state, surroundings.around()))
    }

    /// Refuses one that runs, unless it ends in time.
    fn refuse_to_end(&self) -> Result<(), Error> {
        let mut status = match self.status()? {
            // By nobody: the lock is here.
            Status::Creating => Status::Stopped,
            status => status,
        };
        if status == Status::Running && self.ends_within(ENDING)? {
            status = self.status()?;
        }
        if matches!(status, Status::Stopped | Status::Created) {
            return Ok(());
        }
        let message = format!(
            "cannot delete container {} that is not stopped: {}",
            self.id(),
            status.word()
        );
        Err(Error::new(ErrorKind::FailedPrecondition, message))
    }

    /// Removes the control group the way it was made.
    fn remove_group(&self, spec: Option<&Spec>) -> Result<(), Error> {
        let systemd = self.record.as_ref().and_then(|record| record.systemd.as_ref());
        if let (Some(systemd), Some(spec)) = (systemd, spec) {
            // Also when the group is gone: a unit that failed keeps its name.
            return systemd.stop(spec, self.id());
        }
        match self.group()? {
            Some(group) => group.delete().context(|| "remove its directories"),
            None => Ok(()),
        }
    }

    /// Whether its first process ends in time.
    fn ends_within(&self, time: Timespec) -> Result<bool, Error> {
        let Some((_, pidfd)) = self.pidfd()? else {
            return Ok(true);
        };
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        let ready = poll(&mut fds, Some(&time)).map_err(std::io::Error::from);
        Ok(ready.context(|| "wait for the container's process")? > 0)
    }

    /// Kills all that is alive of it, and waits until the first process is gone.
    fn end_processes(&self) -> Result<(), Error> {
        let group = self.group()?;
        let Some((pid, pidfd)) = self.pidfd()? else {
            // The first process is gone, or nobody wrote down which it is.
            return match group {
                Some(group) => group.kill_all().context(|| "kill the processes of the container"),
                None => Ok(()),
            };
        };
        match crate::kill(pidfd.as_fd(), libc::SIGKILL) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if let Some(group) = &group
            && !group.frozen().unwrap_or(false)
            && !self.ends_within(ELSEWHERE)?
        {
            // Somebody may have put it into a frozen group of version 1, where it does not die: it is taken back.
            match group.add(pid) {
                // One that ends after all cannot be moved; what does not end is told below.
                Ok(()) | Err(_) => {}
            }
        }
        if let Some(group) = group {
            // Those of a shared process id namespace do not end with the first; and frozen ones not at all.
            group
                .kill_all()
                .context(|| "kill the processes of the container")?;
        }
        let patience = Timespec::try_from(DYING).ok();
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        match poll(&mut fds, patience.as_ref()) {
            Ok(0) => {
                let message = format!("container init still running: process {pid} does not end");
                Err(Error::new(ErrorKind::FailedPrecondition, message))
            }
            // Interrupted or not: what is left of it keeps the control group busy, which its removal waits for.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// Removes a group, after it killed who is left in it.
fn end_group(group: Group) -> Result<(), Error> {
    group.end().context(|| "remove its directories")
}
