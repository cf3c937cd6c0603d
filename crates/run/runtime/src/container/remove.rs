//! The end of a container that has a folder.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use dhow_oci::runtime::State;
use dhow_types::{ErrorKind, Failures};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::folder::Folder;
use super::{Container, Record, Status, record, resctrl};
use crate::hooks::{self, Stage};
use crate::{Context as _, Error};

/// How long one that runs is waited for before a delete without force is refused: callers delete right after the program's
/// last word, or after a signal that ends it, and this program starts faster than the other ends.
const ENDING: Timespec = Timespec {
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
        Ok(Self { folder, record })
    }

    /// Deletes the container: its processes when `force` says so or it was never started, its control group, its folder. A hook
    /// that fails at the end is returned, not an error: the container is gone.
    ///
    /// # Errors
    /// `FailedPrecondition` for one that runs, unless forced; what could not be removed.
    pub fn delete(self, force: bool) -> Result<Option<Error>, Error> {
        // Whoever creates or starts it sees the death of its process; the lock is free then.
        if force {
            self.end_processes()?;
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
        let mut status = self.status()?;
        if status == Status::Running && !force && self.ends_within(ENDING)? {
            status = self.status()?;
        }
        let allowed = force || matches!(status, Status::Stopped | Status::Created);
        if !allowed {
            let message = format!(
                "cannot delete container {} that is not stopped: {}",
                self.id(),
                status.word()
            );
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        }
        self.end_processes()?;
        let spec = self.spec().ok();
        let mut failures = Failures::new();
        let systemd = self.record.as_ref().and_then(|record| record.systemd.as_ref());
        match self.group() {
            Ok(group) if let (Some(systemd), Some(spec)) = (systemd, &spec) => {
                // Also when the group is gone: a unit that failed keeps its name.
                drop(group);
                failures.record("stop the unit", systemd.stop(spec, self.id()));
            }
            Ok(Some(group)) => failures.record("remove the control group", group.delete()),
            Ok(None) => {}
            Err(error) => failures.record("open the control group", Err(error)),
        }
        failures.record("leave resctrl", resctrl::leave(&self.folder));
        if let Err(failed) = failures.into_result() {
            return Err(Error::wrap(failed, format!("delete container {}", self.id())));
        }
        self.folder.remove()?;
        let hooks = spec.and_then(|spec| spec.hooks).unwrap_or_default();
        let state = State {
            id: self.id().to_owned(),
            pid: 0,
            ..self.record.as_ref().map(Record::state).unwrap_or_default()
        };
        Ok(hooks::run(Stage::Poststop, &hooks.poststop, &state, &[], None).err())
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
