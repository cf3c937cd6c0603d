//! Freezing, killing and removing.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use dhow_types::ErrorKind;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::dir::{self, Dir};
use crate::{Context as _, Error};

/// How long the kernel may take to freeze a group.
const FREEZE_TIME: Duration = Duration::from_secs(10);
/// How many tries to freeze come before one to thaw.
const THAW_EVERY: u32 = 50;
/// How long killed processes may take to leave a group: tearing down much memory takes a while.
const EMPTY_TIME: Duration = Duration::from_secs(10);

/// Freezes or thaws a v2 group and waits until it is so. What does not freeze in time is thawed again: half a frozen
/// container is worse than a running one.
pub(crate) fn freeze_v2(dir: &Dir, frozen: bool) -> Result<(), Error> {
    let what = if frozen { "freeze" } else { "thaw" };
    let events = dir
        .open_read("cgroup.events")
        .context(|| format!("read cgroup.events of {}", dir.at.display()))?;
    dir.write("cgroup.freeze", if frozen { "1" } else { "0" })
        .context(|| format!("{what} {}", dir.at.display()))?;
    let deadline = Instant::now() + FREEZE_TIME;
    while is_frozen_v2(&events).context(|| format!("read cgroup.events of {}", dir.at.display()))? != frozen {
        if Instant::now() >= deadline {
            if frozen {
                dir.write("cgroup.freeze", "0")
                    .context(|| format!("thaw {}", dir.at.display()))?;
            } else if frozen_v2(dir).is_ok_and(|frozen| !frozen) {
                // It stays frozen by a group above it.
                return Ok(());
            }
            return Err(stuck(what, dir));
        }
        wait_for_event(&events, Duration::from_millis(100));
    }
    Ok(())
}

/// Whether a v2 group itself is frozen, or about to be.
pub(crate) fn frozen_v2(dir: &Dir) -> Result<bool, Error> {
    let text = dir
        .read_if_there("cgroup.freeze")
        .context(|| format!("read cgroup.freeze of {}", dir.at.display()))?;
    Ok(text.trim() == "1")
}

/// Whether a v1 group itself is frozen, or about to be.
pub(crate) fn frozen_v1(dir: &Dir) -> Result<bool, Error> {
    let read = |file: &str| {
        let text = dir.read_if_there(file);
        text.context(|| format!("read {}", dir.at.join(file).display()))
    };
    Ok(match read("freezer.state")?.trim() {
        "THAWED" | "" => false,
        // Not if it is so for the sake of a group above it.
        _ => read("freezer.self_freezing")?.trim() != "0",
    })
}

fn stuck(what: &str, dir: &Dir) -> Error {
    let message = format!("the kernel did not {what} {} in time", dir.at.display());
    Error::new(ErrorKind::Unavailable, message)
        .with_hint("a process may be stuck in the kernel (state D, such as a dead NFS server)")
}

pub(crate) fn is_frozen_v2(events: &OwnedFd) -> io::Result<bool> {
    rustix::fs::seek(events, rustix::fs::SeekFrom::Start(0))?;
    Ok(crate::stats::field(&dir::read_all(events)?, "frozen") == Some(1))
}

/// Waits until the kernel says that a `cgroup.events` file changed; being wrong costs one look more.
fn wait_for_event(events: &OwnedFd, at_most: Duration) {
    let mut fds = [PollFd::new(events, PollFlags::PRI)];
    let timeout = Timespec::try_from(at_most).ok();
    if rustix::event::poll(&mut fds, timeout.as_ref()).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Freezes or thaws a v1 group and waits until it is so. The kernel may lose a freeze to a racing fork, so the
/// state is written again while it is `FREEZING` (kernel `cgroup-v1/freezer-subsystem.rst`).
pub(crate) fn freeze_v1(dir: &Dir, frozen: bool) -> Result<(), Error> {
    let (what, state) = if frozen {
        ("freeze", "FROZEN")
    } else {
        ("thaw", "THAWED")
    };
    let deadline = Instant::now() + FREEZE_TIME;
    let mut pause = Duration::from_micros(50);
    let mut tries = 0_u32;
    loop {
        dir.write("freezer.state", state)
            .context(|| format!("{what} {}", dir.at.display()))?;
        if dir
            .read("freezer.state")
            .context(|| format!("read the state of {}", dir.at.display()))?
            .trim()
            == state
        {
            return Ok(());
        }
        if !frozen && !frozen_v1(dir)? {
            // It stays frozen by a group above it.
            return Ok(());
        }
        if Instant::now() >= deadline {
            // A half-frozen group is worse than a running one.
            dir.write("freezer.state", "THAWED")
                .context(|| format!("thaw {}", dir.at.display()))?;
            return Err(stuck(what, dir));
        }
        tries += 1;
        if frozen && tries.is_multiple_of(THAW_EVERY) {
            // Processes that fork into the group keep it from freezing; a pause lets them arrive.
            dir.write("freezer.state", "THAWED")
                .context(|| format!("thaw {}", dir.at.display()))?;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Sends SIGKILL; a process that is gone is killed.
pub(crate) fn kill(pid: i32) -> Result<(), Error> {
    let Some(target) = rustix::process::Pid::from_raw(pid) else {
        return Ok(());
    };
    match rustix::process::kill_process(target, rustix::process::Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(Error::wrap(io::Error::from(error), format!("kill process {pid}"))),
    }
}

/// Removes the directory `at` and those below it, waiting for killed processes to leave.
pub(crate) fn remove_tree(at: &Path) -> Result<(), Error> {
    let deadline = Instant::now() + EMPTY_TIME;
    let mut pause = Duration::from_micros(200);
    loop {
        match sweep(at) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {}
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                let message = format!("processes stay in the control group {}", at.display());
                return Err(
                    Error::because(ErrorKind::FailedPrecondition, message, error).with_hint(
                        "kill the container first; a process in state D leaves when its device answers",
                    ),
                );
            }
            Err(error) => {
                return Err(Error::wrap(
                    error,
                    format!("remove the control group {}", at.display()),
                ));
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// One try: the usual group has nothing below it and goes with one call.
fn sweep(at: &Path) -> io::Result<()> {
    match dir::remove(at) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            let children = dir::children(at)?;
            if children.is_empty() {
                return Err(error);
            }
            for child in children {
                sweep(&child)?;
            }
            match dir::remove(at) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                outcome => outcome,
            }
        }
        outcome => outcome,
    }
}
