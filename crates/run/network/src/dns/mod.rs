//! The name server of one container.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use dhow_types::{ContainerId, ErrorKind};

use crate::Error;

/// Address of the name server inside a container on a user network.
pub const ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(127, 0, 0, 11);

/// Answers the names of one container; driven by the monitor's loop.
#[derive(Debug)]
pub struct Server {
    epoll: OwnedFd,
}

impl Server {
    /// Binds 127.0.0.11:53 (udp and tcp) in `netns`. Single-threaded callers only. `root` is the store's root;
    /// `upstreams` come from [`crate::host_resolvers`].
    ///
    /// # Errors
    /// Those of setns(2), socket(2), bind(2).
    pub fn open(
        _netns: BorrowedFd<'_>,
        _root: &Path,
        _: &ContainerId,
        _upstreams: Vec<SocketAddr>,
    ) -> Result<Self, Error> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "container DNS is not there yet",
        ))
    }

    /// What to poll for reading: one descriptor (an epoll set of all the others), the same for the server's life.
    #[must_use]
    pub fn fds(&self) -> [BorrowedFd<'_>; 1] {
        use std::os::fd::AsFd as _;
        [self.epoll.as_fd()]
    }

    /// Does what is ready and ends what has timed out; never blocks, never fails. Call it when the descriptor is
    /// readable or [`Server::timeout`] has passed.
    pub fn ready(&mut self, _now: Instant) {}

    /// How long the loop may sleep at most; `None` when nothing is outstanding.
    #[must_use]
    pub fn timeout(&self, _now: Instant) -> Option<Duration> {
        None
    }
}
