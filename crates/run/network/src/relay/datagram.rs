//! Datagrams between clients and a container.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::source::Sources;
use super::{Door, Way};

/// How long a client is remembered that says nothing: docker's proxy has the same.
const SILENCE: Duration = Duration::from_secs(90);
/// Clients at once; one more takes the place of the most silent.
pub(super) const MAX_FLOWS: usize = 1024;
/// Datagrams of one turn.
const TURN: usize = 64;
/// Longest datagram.
const LONGEST: usize = 64 << 10;

#[derive(Debug)]
struct Flow {
    door: usize,
    client: SocketAddr,
    /// Towards the container, from which alone it takes answers.
    socket: UdpSocket,
    used: Instant,
}

/// The clients of a relay, each in a slot.
#[derive(Debug, Default)]
pub(super) struct Flows {
    slots: Vec<Option<Flow>>,
    by_client: HashMap<(usize, SocketAddr), usize>,
    most: usize,
}

impl Flows {
    pub(super) fn at_most(most: usize) -> Self {
        Self {
            most,
            ..Self::default()
        }
    }

    /// Takes what has come to a door.
    pub(super) fn receive(
        &mut self,
        epoll: &OwnedFd,
        base: u64,
        door: usize,
        socket: &UdpSocket,
        target: (SocketAddr, Sources),
        now: Instant,
    ) {
        let mut buffer = vec![0; LONGEST];
        for _ in 0..TURN {
            // An error is of an earlier answer, to a client that is gone.
            let (length, client) = match socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => continue,
            };
            let slot = match self.by_client.get(&(door, client)) {
                Some(slot) => *slot,
                None => match self.open(epoll, base, (door, client), target, now) {
                    Ok(slot) => slot,
                    // A datagram may get lost.
                    Err(_) => continue,
                },
            };
            if let Some(flow) = self.slots.get_mut(slot).and_then(Option::as_mut) {
                flow.used = now;
                // An error is of an earlier one, which nobody in the container took.
                if flow.socket.send(&buffer[..length]).is_err() {
                    drop(flow.socket.send(&buffer[..length]));
                }
            }
        }
    }

    fn open(
        &mut self,
        epoll: &OwnedFd,
        base: u64,
        (door, client): (usize, SocketAddr),
        (target, sources): (SocketAddr, Sources),
        now: Instant,
    ) -> io::Result<usize> {
        let slot = match self.slots.iter().position(Option::is_none) {
            Some(slot) => slot,
            None if self.slots.len() < self.most => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => {
                let flows = self.slots.iter().enumerate();
                let used = flows.min_by_key(|(_, flow)| flow.as_ref().map(|flow| flow.used));
                let slot = used.map_or(0, |(slot, _)| slot);
                self.close(slot);
                slot
            }
        };
        let family = match target {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = UdpSocket::from(socket_with(family, SocketType::DGRAM, flags, None)?);
        sources.give(&socket, client, target, client.port());
        socket.connect(target)?;
        let data = epoll::EventData::new_u64(base + slot as u64);
        epoll::add(epoll, &socket, data, epoll::EventFlags::IN)?;
        self.by_client.insert((door, client), slot);
        self.slots[slot] = Some(Flow {
            door,
            client,
            socket,
            used: now,
        });
        Ok(slot)
    }

    /// Brings answers of the container to a client.
    pub(super) fn answer(&mut self, slot: usize, doors: &[Door]) {
        let Some(flow) = self.slots.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        let Some(Door {
            way: Way::Datagram(door),
            ..
        }) = doors.get(flow.door)
        else {
            return;
        };
        let mut buffer = vec![0; LONGEST];
        for _ in 0..TURN {
            match flow.socket.recv(&mut buffer) {
                // A client that is gone, or whose buffer is full, asks again.
                Ok(length) => drop(door.send_to(&buffer[..length], flow.client)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Nobody in the container took what was sent; the next may be taken.
                Err(_) => {}
            }
        }
    }

    /// Forgets those that have been silent.
    pub(super) fn expire(&mut self, now: Instant) {
        for slot in 0..self.slots.len() {
            let silent = self.slots[slot]
                .as_ref()
                .is_some_and(|flow| now.saturating_duration_since(flow.used) >= SILENCE);
            if silent {
                self.close(slot);
            }
        }
        if self.by_client.is_empty() {
            *self = Self::at_most(self.most);
        }
    }

    fn close(&mut self, slot: usize) {
        if let Some(flow) = self.slots.get_mut(slot).and_then(Option::take) {
            self.by_client.remove(&(flow.door, flow.client));
        }
    }

    /// When [`Flows::expire`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.slots.iter().flatten().map(|flow| flow.used + SILENCE).min()
    }
}
