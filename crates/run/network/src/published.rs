//! The ports of a running container: the sockets that hold them, and the relay for those that need one.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use dhow_sys::clone::Child;
use dhow_types::ErrorKind;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, WaitOptions, getrlimit, setrlimit};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::relay::Relay;
use crate::{Context as _, Endpoint, Error, Networks};

/// Published ports. They are free again when it is dropped.
#[derive(Debug, Default)]
pub struct Published {
    /// Those that the packet filter leads to the container.
    held: Vec<OwnedFd>,
    /// Those that it cannot, carried by the loop that this is part of.
    relay: Option<Relay>,
    /// Or by a process of their own: in the user's network namespace, or where all of them are carried.
    process: Option<Child>,
}

impl Networks {
    /// Begins to carry what the packet filter does not. `held` are the sockets that [`Networks::attach`] gave with the
    /// endpoint; of a normal user, and of a network whose ports obey the host's input rules, they go to a process of its own, that ends when `container`, a pidfd, does: it outlives
    /// the caller, as the rules of root do. Single-threaded callers only.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn carry(
        &self,
        endpoint: &Endpoint,
        held: Vec<OwnedFd>,
        container: BorrowedFd<'_>,
    ) -> Result<Published, Error> {
        let mut published = Published::default();
        let mut relayed = Vec::new();
        for (port, socket) in endpoint.ports.iter().zip(held) {
            if self.user.is_some() || endpoint.relays(port) {
                relayed.push((port.clone(), socket));
            } else {
                published.held.push(socket);
            }
        }
        if relayed.is_empty() {
            return Ok(published);
        }
        let relay = Relay::new(endpoint, relayed)?;
        match &self.user {
            // All that comes is too much for a loop that has other work.
            None if endpoint.filtered => published.process = Some(start(relay, None, container)?),
            None => published.relay = Some(relay),
            Some(user) => {
                let lock = self.lock()?;
                let netns = user.existing()?.ok_or_else(|| {
                    Error::new(
                        ErrorKind::FailedPrecondition,
                        "the network namespace of the user's containers has gone",
                    )
                })?;
                drop(lock);
                published.process = Some(start(relay, Some(&netns), container)?);
            }
        }
        Ok(published)
    }
}

impl Networks {
    /// [`Networks::carry`] for a container whose ports were carried until its monitor was killed. Those that processes of
    /// their own carry go on; of the others one that somebody else has taken meanwhile is led to the container no less by
    /// the packet filter, and cannot be carried by a relay.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn carry_again(&self, endpoint: &Endpoint, container: BorrowedFd<'_>) -> Result<Published, Error> {
        if self.user.is_some() || endpoint.filtered {
            return Ok(Published::default());
        }
        let again = endpoint.ports.iter().map(|port| (port, crate::port::hold(port)));
        let (ports, held) = again
            .filter_map(|(port, held)| Some((port.clone(), held?)))
            .unzip();
        let endpoint = Endpoint {
            ports,
            ..endpoint.clone()
        };
        self.carry(&endpoint, held, container)
    }
}

/// Gives the relay to a process of its own, in that network namespace or in this one.
fn start(mut relay: Relay, netns: Option<&OwnedFd>, container: BorrowedFd<'_>) -> Result<Child, Error> {
    // Of the child alone: the caller's copies go with the relay when this returns.
    dhow_sys::clone::spawn(&dhow_sys::clone::Options::default(), || {
        let enter =
            |netns: &OwnedFd| move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network));
        let entered = netns.map_or(Ok(()), enter);
        let mut kept = relay.descriptors();
        kept.push(container);
        if entered.is_err() || dhow_sys::fd::close_all_but(3, &kept).is_err() {
            return 1;
        }
        drop(kept);
        rustix::process::chdir("/").ok();
        more_descriptors();
        relay.take_all();
        if netns.is_some() {
            relay.keep_sources();
        }
        dhow_sys::background::settle("dhow-ports");
        live(&mut relay, container)
    })
    .context(|| "make a process for the published ports")
}

/// Two for each connection. The host's limit stays.
fn more_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).ok();
}

fn live(relay: &mut Relay, container: BorrowedFd<'_>) -> i32 {
    loop {
        let timeout = relay.timeout(Instant::now()).map(|time| rustix::event::Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        });
        let mut fds = [
            PollFd::from_borrowed_fd(relay.fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(container, PollFlags::IN),
        ];
        // Interrupted, it looks again.
        _ = poll(&mut fds, timeout.as_ref());
        if !fds[1].revents().is_empty() {
            return 0;
        }
        relay.ready(Instant::now());
    }
}

impl Published {
    /// What to poll for reading, if anything.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.relay.as_ref().map(Relay::fd)
    }

    /// How long the loop may sleep at most; `None` when nothing is outstanding.
    #[must_use]
    pub fn timeout(&self, now: Instant) -> Option<Duration> {
        self.relay.as_ref()?.timeout(now)
    }

    /// Does what is ready; never blocks, never fails. Call it when the descriptor is readable or the time has passed.
    pub fn ready(&mut self, now: Instant) {
        if let Some(relay) = &mut self.relay {
            relay.ready(now);
        }
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        if let Some(child) = &self.process {
            // One that has ended with its container is as good as killed.
            _ = rustix::process::pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL);
            _ = rustix::process::waitpid(Some(child.pid), WaitOptions::empty());
        }
    }
}
