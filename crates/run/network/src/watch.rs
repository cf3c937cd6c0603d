//! Who writes the rules again when somebody has flushed them: one process for all containers, woken by the kernel when
//! something of the table goes (`NFNLGRP_NFTABLES`), and ended when nobody is on a network.
//!
//! Every command does it, too, but nobody may be there to give one after `nft flush ruleset`. It holds the lock `.watch`, so
//! that there is one; a monitor whose container has been there for a while sees to it. Of a normal user the holder of the
//! network namespace does it. Monitors themselves do not listen: each change of any rule would wake them all.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock, inotify};

use crate::netlink::{Attributes, Socket};
use crate::store::Networks;
use crate::{Context as _, Error, firewall};

/// What a watch is told.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Whoever attaches or detaches changes the time stamp of the networks' folder.
    comings: OwnedFd,
    /// None where the kernel does not tell.
    rules: Option<Socket>,
}

impl Watch {
    /// In the network namespace in which the bridges are.
    pub(crate) fn new(networks: &Networks) -> io::Result<Self> {
        let comings = inotify::init(inotify::CreateFlags::CLOEXEC)?;
        inotify::add_watch(&comings, &networks.directory, inotify::WatchFlags::ATTRIB)?;
        Ok(Self {
            comings,
            rules: Socket::netfilter_events(firewall::EVENTS).ok(),
        })
    }

    pub(crate) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let rules = self.rules.as_ref().map(Socket::fd);
        std::iter::once(self.comings.as_fd()).chain(rules).collect()
    }

    /// Keeps the rules whole until nobody has been on a network for `linger` and `end` agrees.
    pub(crate) fn outlast_containers(
        &mut self,
        networks: &Networks,
        linger: Duration,
        end: impl Fn() -> bool,
    ) {
        let mut patience = Some(linger);
        loop {
            let left = patience.and_then(|patience| Timespec::try_from(patience).ok());
            let mut fds: Vec<PollFd<'_>> = self
                .fds()
                .into_iter()
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            let count = poll(&mut fds, left.as_ref());
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            match count {
                Ok(0) if end() => return,
                Ok(0) => patience = None,
                Ok(_) if ready[0] => {
                    _ = rustix::io::read(&self.comings, &mut [0; 4096]);
                    patience = networks.is_deserted().then_some(linger);
                }
                // Interrupted, it looks again.
                _ => {}
            }
            if ready.get(1) == Some(&true) && self.has_lost_rules(&networks.table) {
                // Whoever cannot do it now is told by the next change; commands do it as well.
                drop(networks.mend());
            }
        }
    }

    fn has_lost_rules(&mut self, table: &str) -> bool {
        let mut lost = false;
        let Some(socket) = &mut self.rules else {
            return false;
        };
        let drained = socket.drain(&mut |kind, payload| {
            lost |= firewall::takes_away(kind) && {
                let name = Attributes::after(payload, 4).find(firewall::TABLE_NAME);
                name.is_some_and(|name| name.strip_suffix(b"\0") == Some(table.as_bytes()))
            };
        });
        // More than was kept for us: anything may have happened.
        lost || drained.is_err()
    }
}

impl Networks {
    /// Sees to it that flushed rules are written again while containers are on networks. Single-threaded callers only; costs
    /// a few microseconds when somebody is at it.
    ///
    /// # Errors
    /// Those of making a process.
    pub fn watch(&self) -> Result<(), Error> {
        if self.user.is_some() {
            return Ok(());
        }
        let path = self.directory.join(".watch");
        let what = || format!("watch the packet filter by {}", path.display());
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .context(what)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
            other => other.map_err(io::Error::from).context(what)?,
        }
        let child = dhow_sys::clone::spawn(&dhow_sys::clone::Options::default(), || {
            match dhow_sys::clone::fork() {
                // Its parent ends at once, so that whoever reaps orphans reaps it.
                Ok(Some(_)) => 0,
                Ok(None) => i32::from(self.live(&lock).is_err()),
                Err(_) => 1,
            }
        });
        let child = child.context(what)?;
        _ = rustix::process::waitpid(Some(child.pid), rustix::process::WaitOptions::empty());
        Ok(())
    }

    fn live(&self, lock: &File) -> io::Result<()> {
        retire_from_caller()?;
        let mut watch = Watch::new(self)?;
        let mut kept = watch.fds();
        kept.push(lock.as_fd());
        dhow_sys::fd::close_all_but(3, &kept)?;
        dhow_sys::background::settle("dhow-net");
        // Those that were lost before we listened.
        drop(self.mend());
        watch.outlast_containers(self, Duration::ZERO, || self.is_deserted());
        dhow_sys::background::exit_now(0)
    }

    /// Writes the rules again if they are not whole and somebody needs them; where the bridges are.
    fn mend(&self) -> Result<(), Error> {
        let _lock = self.lock()?;
        if self.is_deserted() {
            return Ok(());
        }
        let mut firewall = self.firewall()?;
        if !firewall.is_whole(None).context(|| "look at the packet filter")? {
            self.rebuild(&mut firewall)?;
        }
        Ok(())
    }

    /// Whether nobody is on any network.
    pub(crate) fn is_deserted(&self) -> bool {
        let has_endpoints = |name: &String| {
            let listing = fs::read_dir(self.path(name).join("endpoints"));
            let mut names = listing
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.file_name());
            // A record that is being written has a dot in front.
            names.any(|name| !name.as_encoded_bytes().starts_with(b"."))
        };
        // Nobody is on the networks of a root that is gone.
        !self.directory.is_dir() || self.names().is_ok_and(|names| !names.iter().any(has_endpoints))
    }
}

/// Leaves the session, the folder and the streams of whoever made this process.
pub(crate) fn retire_from_caller() -> io::Result<()> {
    rustix::process::setsid().ok();
    rustix::process::chdir("/").ok();
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
