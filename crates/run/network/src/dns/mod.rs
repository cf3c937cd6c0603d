//! The name server of one container on a user network, at 127.0.0.11 port 53 of its namespace.
//!
//! It lives in the container's monitor and shares its loop: no thread, no async runtime, one descriptor to poll. Names
//! come from the endpoint records of the container's networks; all else goes to the host's name servers, from
//! the host's namespace, so a resolver on the host's loopback works. On internal networks nothing leaves.
//!
//! Everything is bounded: 64 questions under way, 8 TCP clients of which the oldest yields, 4 KiB for a question
//! (64 KiB for an answer over TCP), seconds for each wait. What is not a question is dropped.

mod forward;
mod names;
mod tcp;
mod wire;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dhow_types::{ContainerId, ErrorKind};
use rustix::event::epoll;

use crate::firewall::redirect_dns;
use crate::{Context as _, Error, namespace};
use forward::{Forwarded, Questions};
use names::{Names, Stamp};
use tcp::Clients;
use wire::{Code, Query, Record};

/// Address of the name server inside a container on a user network.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const PORT: u16 = 53;

/// Reads a message as a question; what is asked, as text.
#[cfg(feature = "fuzz")]
pub(crate) fn fuzz(message: &[u8]) -> String {
    Query::parse(message).map_or_else(String::new, |query| format!("{:?} {query:?}", query.reverse()))
}

/// Token of the UDP socket in the epoll set.
const UDP: u64 = 0;
/// Token of the TCP listener.
const LISTENER: u64 = 1;
/// Tokens of questions under way: this and a slot.
const QUESTION: u64 = 1 << 8;
/// Tokens of TCP clients and their upstreams: this and a slot.
const CLIENT: u64 = 1 << 16;
/// Datagrams taken in one turn, so that a flood does not keep the monitor from its other work.
const TURN: usize = 32;

/// Answers the names of one container; driven by the monitor's loop.
#[derive(Debug)]
pub struct Server {
    epoll: OwnedFd,
    udp: UdpSocket,
    listener: TcpListener,
    resolver: Resolver,
    questions: Questions,
    clients: Clients,
}

/// What both transports ask.
#[derive(Debug)]
struct Resolver {
    names: Names,
    upstreams: Vec<SocketAddr>,
    /// The file that names them, and when it was read.
    source: Option<(PathBuf, Stamp)>,
    turn: usize,
}

/// What to do with a question.
#[derive(Debug)]
enum Verdict {
    Answer(Vec<u8>),
    Forward,
}

impl Resolver {
    /// Takes over the name servers of the file when it has changed: one stat(2) for a question that is forwarded.
    fn read_source(&mut self) {
        let Some((path, stamp)) = &mut self.source else {
            return;
        };
        // Looked up before the file is read, or a change in between would be missed.
        let now = Stamp::of(path);
        if stamp.holds(now) {
            return;
        }
        *stamp = now;
        // While the file is being replaced those that were known are as good as any.
        if let Ok(text) = std::fs::read_to_string(path) {
            let named = crate::host_resolvers(&text);
            if !named.is_empty() {
                self.upstreams = named;
            }
        }
    }

    fn resolve(&mut self, message: &[u8], query: &Query, room: usize) -> Verdict {
        self.names.refresh();
        let answer =
            |code, records: &[Record]| Verdict::Answer(wire::answer(message, query, code, records, room));
        if let Some(ip) = query.reverse() {
            match self.names.name_of(ip) {
                Some(name) => return answer(Code::Fine, &[Record::Name(name)]),
                None if self.names.is_ours(ip) => return answer(Code::NoName, &[]),
                None => {}
            }
        } else if let Some(addresses) = query.name.as_deref().and_then(|name| self.names.addresses(name)) {
            let mut records: Vec<Record> = addresses
                .into_iter()
                .filter(|ip| match query.kind {
                    wire::TYPE_A => ip.is_ipv4(),
                    wire::TYPE_AAAA => ip.is_ipv6(),
                    _ => false,
                })
                .map(Record::Address)
                .collect();
            // Whoever takes the first address shares the load.
            if !records.is_empty() {
                self.turn = self.turn.wrapping_add(1);
                let shift = self.turn % records.len();
                records.rotate_left(shift);
            }
            return answer(Code::Fine, &records);
        }
        if !self.names.may_forward() {
            return answer(Code::NoName, &[]);
        }
        self.read_source();
        if self.upstreams.is_empty() {
            return answer(Code::Failed, &[]);
        }
        Verdict::Forward
    }
}

impl Server {
    /// Answers at 127.0.0.11:53 (udp and tcp) in `netns`. Single-threaded callers only. `root` is the store's root;
    /// `upstreams` come from [`crate::host_resolvers`] and are reached from the caller's namespace.
    ///
    /// # Errors
    /// Those of setns(2), socket(2), bind(2).
    pub fn open(
        netns: BorrowedFd<'_>,
        root: &Path,
        container: &ContainerId,
        upstreams: Vec<SocketAddr>,
    ) -> Result<Self, Error> {
        let sockets = namespace::sockets(netns, || listen().map(|(udp, tcp)| vec![udp.into(), tcp.into()]))?;
        let Ok([udp, listener]) = <[OwnedFd; 2]>::try_from(sockets) else {
            return Err(Error::new(ErrorKind::Internal, "the name server has no sockets"));
        };
        let (udp, listener) = (UdpSocket::from(udp), TcpListener::from(listener));
        let watch = || -> io::Result<OwnedFd> {
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            epoll::add(
                &epoll,
                &udp,
                epoll::EventData::new_u64(UDP),
                epoll::EventFlags::IN,
            )?;
            epoll::add(
                &epoll,
                &listener,
                epoll::EventData::new_u64(LISTENER),
                epoll::EventFlags::IN,
            )?;
            Ok(epoll)
        };
        let epoll = watch().context(|| "watch the name server's sockets")?;
        Ok(Self {
            epoll,
            udp,
            listener,
            resolver: Resolver {
                names: Names::new(root, container),
                upstreams,
                source: None,
                turn: 0,
            },
            questions: Questions::default(),
            clients: Clients::default(),
        })
    }

    /// What to poll for reading: one descriptor (an epoll set of all the others), the same for the server's life.
    #[must_use]
    pub fn fds(&self) -> [BorrowedFd<'_>; 1] {
        [self.epoll.as_fd()]
    }

    /// Has the name servers to which questions are forwarded be those of this file, which is looked at again when it
    /// has changed: `/etc/resolv.conf` of a host that moves from one network to another.
    pub fn follow(&mut self, file: PathBuf) {
        self.resolver.source = Some((file, Stamp::default()));
    }

    /// Does what is ready and ends what has timed out; never blocks, never fails. Call it when the descriptor is
    /// readable or [`Server::timeout`] has passed.
    pub fn ready(&mut self, now: Instant) {
        let mut events = Vec::with_capacity(16);
        let instantly = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // A set that cannot be read now is read at the next call; there is nobody to tell.
        if epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&instantly),
        )
        .is_ok()
        {
            for event in &events {
                self.dispatch(event.data.u64(), now);
            }
        }
        for ended in self.questions.expire(&self.epoll, &self.resolver.upstreams, now) {
            self.tell(ended);
        }
        self.clients.expire(now);
    }

    /// How long the loop may sleep at most; `None` when nothing is outstanding.
    #[must_use]
    pub fn timeout(&self, now: Instant) -> Option<Duration> {
        let next = [self.questions.deadline(), self.clients.deadline()]
            .into_iter()
            .flatten()
            .min()?;
        Some(next.saturating_duration_since(now))
    }

    fn dispatch(&mut self, token: u64, now: Instant) {
        let slot = |base: u64| usize::try_from(token - base).unwrap_or(usize::MAX);
        match token {
            UDP => self.receive(now),
            LISTENER => self.clients.accept(&self.epoll, &self.listener, CLIENT, now),
            CLIENT.. => self
                .clients
                .step(slot(CLIENT), &self.epoll, CLIENT, &mut self.resolver, now),
            QUESTION.. => {
                let ended =
                    self.questions
                        .receive(slot(QUESTION), &self.epoll, &self.resolver.upstreams, now);
                if let Some(ended) = ended {
                    self.tell(ended);
                }
            }
            _ => {}
        }
    }

    fn receive(&mut self, now: Instant) {
        let mut buffer = [0; wire::MAX_UDP];
        for _ in 0..TURN {
            let Ok((length, client)) = self.udp.recv_from(&mut buffer) else {
                return;
            };
            let message = &buffer[..length];
            let Some(query) = Query::parse(message) else {
                continue;
            };
            match self.resolver.resolve(message, &query, query.room) {
                Verdict::Answer(answer) => self.tell(Forwarded { client, answer }),
                Verdict::Forward => {
                    let upstreams = &self.resolver.upstreams;
                    if !self
                        .questions
                        .ask(&self.epoll, QUESTION, upstreams, client, message, &query, now)
                    {
                        let answer = wire::answer(message, &query, Code::Failed, &[], query.room);
                        self.tell(Forwarded { client, answer });
                    }
                }
            }
        }
    }

    fn tell(&self, ended: Forwarded) {
        // A client that is gone, or whose buffer is full, asks again.
        drop(self.udp.send_to(&ended.answer, ended.client));
    }
}

/// The sockets, in the container's namespace: on free ports to which port 53 is redirected, so that the container may use
/// port 53 itself; on port 53 where the kernel lacks nf_tables.
fn listen() -> Result<(UdpSocket, TcpListener), Error> {
    let bind = |port: u16| -> io::Result<(UdpSocket, TcpListener)> {
        let udp = UdpSocket::bind((ADDRESS, port))?;
        udp.set_nonblocking(true)?;
        let listener = TcpListener::bind((ADDRESS, port))?;
        listener.set_nonblocking(true)?;
        Ok((udp, listener))
    };
    let what = || format!("bind the container's name server to {ADDRESS}");
    let (udp, listener) = bind(0).context(what)?;
    let ports =
        || -> io::Result<(u16, u16)> { Ok((udp.local_addr()?.port(), listener.local_addr()?.port())) };
    let (udp_port, tcp_port) = ports().context(what)?;
    match redirect_dns(ADDRESS, udp_port, tcp_port) {
        Ok(()) => Ok((udp, listener)),
        Err(_) => bind(PORT).context(what),
    }
}

/// A socket of our namespace that does not block.
fn socket(upstream: &SocketAddr, kind: rustix::net::SocketType) -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, socket_with};
    let family = match upstream.ip() {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    Ok(socket_with(
        family,
        kind,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?)
}
