//! Streams between a client and a container.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, acceptfrom_with, socket_with, sockopt};

use super::source::Sources;

/// Most bytes of one read.
const CHUNK: usize = 256 << 10;
/// Reads for one direction before others have their turn.
const TURN: usize = 8;

/// One direction.
#[derive(Debug, Default)]
struct Way {
    /// What the far end has not taken yet.
    kept: Vec<u8>,
    /// How much of it that end has by now.
    done: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The near end has sent its last; the far end is told when it has all.
    Ending,
    Ended,
}

/// Why a direction does not go on now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Until there is an event.
    Idle,
    /// Others have their turn.
    Busy,
}

#[derive(Debug)]
struct Stream {
    /// The client, the container.
    ends: [TcpStream; 2],
    /// From the client, from the container.
    ways: [Way; 2],
}

/// The streams of a relay, each in a slot.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Option<Stream>>,
    free: Vec<usize>,
    busy: Vec<usize>,
    /// Read into by all.
    chunk: Vec<u8>,
    most: usize,
}

impl Streams {
    pub(super) fn at_most(most: usize) -> Self {
        Self {
            most,
            ..Self::default()
        }
    }

    /// Takes a connection; false when none waits.
    ///
    /// # Errors
    /// What accept4(2) says when no descriptor or memory is left; the same when there are as many as may be.
    pub(super) fn accept(
        &mut self,
        epoll: &OwnedFd,
        base: u64,
        listener: &OwnedFd,
        target: SocketAddr,
        sources: Sources,
    ) -> io::Result<bool> {
        if self.slots.len() - self.free.len() >= self.most {
            return Err(Errno::MFILE.into());
        }
        let (client, address) = match acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
        {
            Ok((client, address)) => (settle(client)?, address),
            Err(Errno::AGAIN) => return Ok(false),
            Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                return Err(errno.into());
            }
            // Its client has given up (accept(2), "Error handling").
            Err(_) => return Ok(true),
        };
        let address = address.and_then(|address| SocketAddr::try_from(address).ok());
        let container = match connect(target, address, sources) {
            Ok(container) => container,
            Err(error) => {
                reset(&client);
                return match error.raw_os_error().map(Errno::from_raw_os_error) {
                    Some(Errno::MFILE | Errno::NFILE) => Err(error),
                    _ => Ok(true),
                };
            }
        };
        let slot = self.free.pop().unwrap_or(self.slots.len());
        for (end, number) in [(&client, 0), (&container, 1)] {
            let data = epoll::EventData::new_u64(base + 2 * slot as u64 + number);
            // What is ready is told once, and taken until it is not ready any more.
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            if let Err(errno) = epoll::add(epoll, end, data, flags) {
                reset(&client);
                self.free.push(slot);
                return Err(errno.into());
            }
        }
        let stream = Stream {
            ends: [client, container],
            ways: Default::default(),
        };
        match self.slots.get_mut(slot) {
            Some(place) => *place = Some(stream),
            None => self.slots.push(Some(stream)),
        }
        Ok(true)
    }

    /// Whether something could go on without an event.
    pub(super) fn is_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    /// Goes on with those that yielded to others.
    pub(super) fn go_on(&mut self) {
        for slot in std::mem::take(&mut self.busy) {
            self.step(slot);
        }
    }

    /// Carries what is there, both ways.
    pub(super) fn step(&mut self, slot: usize) {
        let Some(stream) = self.slots.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        if self.chunk.is_empty() {
            self.chunk = vec![0; CHUNK];
        }
        let there = carry(
            &mut stream.ways[0],
            &stream.ends[0],
            &stream.ends[1],
            &mut self.chunk,
        );
        let back = carry(
            &mut stream.ways[1],
            &stream.ends[1],
            &stream.ends[0],
            &mut self.chunk,
        );
        let over = stream.ways.iter().all(|way| way.state == State::Ended);
        match (there, back) {
            (Ok(_), Ok(_)) if over => self.close(slot),
            (Ok(there), Ok(back)) => {
                if (there == Rest::Busy || back == Rest::Busy) && !self.busy.contains(&slot) {
                    self.busy.push(slot);
                }
            }
            _ => {
                stream.ends.iter().for_each(reset);
                self.close(slot);
            }
        }
    }

    fn close(&mut self, slot: usize) {
        if let Some(place) = self.slots.get_mut(slot) {
            // With its descriptors it leaves the epoll set.
            *place = None;
            self.free.push(slot);
        }
        if self.free.len() == self.slots.len() {
            // Nobody is there: what many once took is given back.
            *self = Self::at_most(self.most);
        }
    }
}

/// A connection that is being made, to which one may write when it is there.
fn connect(target: SocketAddr, client: Option<SocketAddr>, sources: Sources) -> io::Result<TcpStream> {
    let family = if target.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = settle(socket_with(family, SocketType::STREAM, flags, None)?)?;
    if let Some(client) = client {
        sources.give(&socket, client, target, 0);
    }
    match rustix::net::connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno.into()),
    }
}

fn settle(socket: OwnedFd) -> io::Result<TcpStream> {
    // What one side sends at once should leave at once on the other, too.
    sockopt::set_tcp_nodelay(&socket, true)?;
    // One that is gone without a word does not hold its place for ever.
    sockopt::set_socket_keepalive(&socket, true)?;
    Ok(TcpStream::from(socket))
}

/// Has the other side see an error rather than an end, when the stream is dropped.
fn reset(end: &TcpStream) {
    // Without, it sees an end.
    _ = sockopt::set_socket_linger(end, Some(Duration::ZERO));
}

/// Carries from one end to the other until one of them is not ready.
fn carry(way: &mut Way, mut from: &TcpStream, mut to: &TcpStream, chunk: &mut [u8]) -> io::Result<Rest> {
    for _ in 0..TURN {
        while way.done < way.kept.len() {
            match to.write(&way.kept[way.done..]) {
                Ok(count) => way.done += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Rest::Idle),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if !way.kept.is_empty() {
            (way.kept, way.done) = (Vec::new(), 0);
        }
        match way.state {
            State::Ended => return Ok(Rest::Idle),
            // To end one that is not there yet would be to give it up (`inet_shutdown`).
            State::Ending if to.peer_addr().is_err() => return Ok(Rest::Idle),
            State::Ending => {
                way.state = State::Ended;
                // One that is closed needs no end.
                drop(to.shutdown(Shutdown::Write));
                return Ok(Rest::Idle);
            }
            State::Open => {}
        }
        let count = match from.read(chunk) {
            Ok(0) => {
                way.state = State::Ending;
                continue;
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Rest::Idle),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let taken = match to.write(&chunk[..count]) {
            Ok(taken) => taken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        if taken < count {
            way.kept = chunk[taken..count].to_vec();
        }
    }
    Ok(Rest::Busy)
}
