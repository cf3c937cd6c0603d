//! Published ports that the packet filter cannot bring to a container: all of a normal user, whose host has no rules of theirs,
//! and those on an IPv6 address of a container that has none. Connections are accepted on the sockets that hold the ports and
//! carried on, to the container's address.
//!
//! One thread, one epoll set, nothing that blocks. A stream costs a few hundred bytes while it is quiet: what one side does
//! not take yet is kept and no more is read for it. A client of a datagram port has a socket of its own towards the container,
//! by which answers find back, until it was silent for 90 seconds. In a network namespace of its own the relay shows a container
//! the addresses of its clients.

mod datagram;
mod source;
mod stream;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll;

use crate::{Context as _, Endpoint, Error, Protocol, PublishedPort};
use datagram::Flows;
use source::Sources;
use stream::Streams;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// Connections accepted in one turn.
const TURN: usize = 64;
/// Connections, and clients of datagram ports, in a loop that has other work: each may take two descriptors, of which a process
/// has 1024 unless told otherwise.
const MODEST: usize = 192;
/// How long no connection is accepted when there are so many, or the process has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);
/// Tokens of the doors: their number.
const DOOR: u64 = 0;
/// Tokens of the streams: this, twice their slot, and which end.
const STREAM: u64 = 1 << 32;
/// Tokens of the flows: this and their slot.
const FLOW: u64 = 2 << 32;

/// A socket of the host and where it leads.
#[derive(Debug)]
struct Door {
    way: Way,
    target: SocketAddr,
}

#[derive(Debug)]
enum Way {
    Stream(OwnedFd),
    Datagram(UdpSocket),
}

impl Way {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stream(socket) => socket.as_fd(),
            Self::Datagram(socket) => socket.as_fd(),
        }
    }
}

/// Carries connections to one container; driven by a loop that waits for [`Relay::fd`].
#[derive(Debug)]
pub(crate) struct Relay {
    epoll: OwnedFd,
    doors: Vec<Door>,
    streams: Streams,
    flows: Flows,
    sources: Sources,
    paused: Option<Instant>,
}

impl Relay {
    /// Over the sockets that hold `ports` of the endpoint, in their order. Connections wait from now on.
    ///
    /// # Errors
    /// Those of listen(2) and epoll(7).
    pub(crate) fn new(endpoint: &Endpoint, held: Vec<(PublishedPort, OwnedFd)>) -> Result<Self, Error> {
        let mut doors = Vec::new();
        for (port, socket) in held {
            let place = SocketAddr::new(port.host_ip, port.host_port);
            let way =
                door(port.protocol, socket).context(|| format!("listen on {place}/{}", port.protocol))?;
            let address = match (port.host_ip, endpoint.ip6) {
                (IpAddr::V6(_), Some(ip6)) => IpAddr::V6(ip6),
                _ => IpAddr::V4(endpoint.ip),
            };
            doors.push(Door {
                way,
                target: SocketAddr::new(address, port.container_port),
            });
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(io::Error::from)
            .context(|| "make an epoll set for published ports")?;
        let relay = Self {
            epoll,
            doors,
            streams: Streams::at_most(MODEST),
            flows: Flows::at_most(MODEST),
            sources: Sources::default(),
            paused: None,
        };
        relay.watch().context(|| "watch the published ports")?;
        Ok(relay)
    }

    /// Takes as many connections as the process may have descriptors for.
    pub(crate) fn take_all(&mut self) {
        self.streams = Streams::at_most(usize::MAX);
        self.flows = Flows::at_most(datagram::MAX_FLOWS);
    }

    /// Has the container see its clients' addresses, where that can be. In the network namespace in which the relay is
    /// alone with the containers.
    pub(crate) fn keep_sources(&mut self) {
        self.sources = Sources::prepare();
    }

    /// Everything that it has.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let doors = self.doors.iter().map(|door| door.way.fd());
        std::iter::once(self.fd()).chain(doors).collect()
    }

    /// What to poll for reading.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// How long the loop may sleep at most.
    pub(crate) fn timeout(&self, now: Instant) -> Option<Duration> {
        if self.streams.is_busy() {
            return Some(Duration::ZERO);
        }
        let next = [self.flows.deadline(), self.paused].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Does what is ready; never blocks, never fails.
    pub(crate) fn ready(&mut self, now: Instant) {
        let mut events = Vec::with_capacity(64);
        let instantly = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // A set that cannot be read now is read at the next call.
        _ = epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&instantly),
        );
        self.streams.go_on();
        for event in &events {
            let token = event.data.u64();
            let low = usize::try_from(token & (STREAM - 1)).unwrap_or(usize::MAX);
            match token {
                FLOW.. => self.flows.answer(low, &self.doors),
                STREAM.. => self.streams.step(low >> 1),
                _ => self.enter(low, now),
            }
        }
        self.flows.expire(now);
        if self.paused.is_some_and(|until| until <= now) {
            self.paused = None;
            // Those that cannot be watched now are looked at after another pause.
            if self.watch().is_err() {
                self.pause(now);
            }
        }
    }

    fn enter(&mut self, number: usize, now: Instant) {
        let Some(Door { way, target }) = self.doors.get(number) else {
            return;
        };
        match way {
            Way::Datagram(socket) => {
                self.flows
                    .receive(&self.epoll, FLOW, number, socket, (*target, self.sources), now)
            }
            Way::Stream(listener) => {
                for _ in 0..TURN {
                    match self
                        .streams
                        .accept(&self.epoll, STREAM, listener, *target, self.sources)
                    {
                        Ok(true) => {}
                        Ok(false) => return,
                        // No descriptor is left: the listener would be ready for ever.
                        Err(_) => return self.pause(now),
                    }
                }
            }
        }
    }

    fn watch(&self) -> io::Result<()> {
        for (token, door) in (DOOR..).zip(&self.doors) {
            let (data, flags) = (epoll::EventData::new_u64(token), epoll::EventFlags::IN);
            match epoll::add(&self.epoll, door.way.fd(), data, flags) {
                Err(rustix::io::Errno::EXIST) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn pause(&mut self, now: Instant) {
        for door in &self.doors {
            if let Way::Stream(listener) = &door.way {
                // One that is not there is not watched either.
                _ = epoll::delete(&self.epoll, listener);
            }
        }
        self.paused = Some(now + PAUSE);
    }
}

fn door(protocol: Protocol, socket: OwnedFd) -> io::Result<Way> {
    rustix::io::ioctl_fionbio(&socket, true)?;
    match protocol {
        Protocol::Tcp => {
            rustix::net::listen(&socket, BACKLOG)?;
            // Only now, as it would have shared the port before. Connections have it from here, and those that linger (TIME_WAIT)
            // do not keep the port from the next start.
            rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
            Ok(Way::Stream(socket))
        }
        Protocol::Udp => Ok(Way::Datagram(UdpSocket::from(socket))),
        Protocol::Sctp => Err(io::ErrorKind::Unsupported.into()),
    }
}
