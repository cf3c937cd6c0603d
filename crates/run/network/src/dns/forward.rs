//! Questions over UDP that wait for an upstream. Each has a socket of its own, so its source port is as random as its
//! id (RFC 5452), and takes answers from that upstream only, since it is connected.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::net::SocketType;

use super::wire::{self, Code, Query};

/// Questions under way at once.
const MAX_QUESTIONS: usize = 64;
/// How long an upstream may take: less than the five seconds after which resolvers ask again.
const PATIENCE: Duration = Duration::from_millis(2000);
/// How many upstreams are asked for one question, the same again if there is only one.
const TRIES: usize = 2;

/// An answer and who waits for it.
#[derive(Debug)]
pub(super) struct Forwarded {
    pub(super) client: SocketAddr,
    pub(super) answer: Vec<u8>,
}

#[derive(Debug)]
struct Question {
    client: SocketAddr,
    /// As sent: with our id.
    message: Vec<u8>,
    query: Query,
    id: u16,
    socket: UdpSocket,
    token: u64,
    tries: usize,
    deadline: Instant,
}

/// The questions under way, each in a slot.
#[derive(Debug, Default)]
pub(super) struct Questions {
    slots: Vec<Option<Question>>,
}

fn connect(epoll: &OwnedFd, token: u64, upstream: SocketAddr, message: &[u8]) -> std::io::Result<UdpSocket> {
    let socket = super::socket(&upstream, SocketType::DGRAM)?;
    rustix::net::connect(&socket, &upstream)?;
    let socket = UdpSocket::from(socket);
    socket.send(message)?;
    epoll::add(
        epoll,
        &socket,
        epoll::EventData::new_u64(token),
        epoll::EventFlags::IN,
    )?;
    Ok(socket)
}

/// The upstream for this try; later tries go to later ones.
fn upstream(upstreams: &[SocketAddr], tries: usize) -> Option<SocketAddr> {
    upstreams.get(tries % upstreams.len().max(1)).copied()
}

impl Questions {
    /// Sends a question on; false when that cannot be.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of the server that it needs, borrowed apart"
    )]
    pub(super) fn ask(
        &mut self,
        epoll: &OwnedFd,
        base: u64,
        upstreams: &[SocketAddr],
        client: SocketAddr,
        message: &[u8],
        query: &Query,
        now: Instant,
    ) -> bool {
        let slot = match self.slots.iter().position(Option::is_none) {
            Some(slot) => slot,
            None if self.slots.len() < MAX_QUESTIONS => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return false,
        };
        let Ok(raw) = crate::store::random::<2>() else {
            return false;
        };
        let id = u16::from_ne_bytes(raw);
        let mut message = message.to_vec();
        wire::set_id(&mut message, id);
        let token = base + slot as u64;
        for tries in 0..TRIES {
            let Some(upstream) = upstream(upstreams, tries) else {
                return false;
            };
            if let Ok(socket) = connect(epoll, token, upstream, &message) {
                let deadline = now + PATIENCE;
                self.slots[slot] = Some(Question {
                    client,
                    message,
                    query: query.clone(),
                    id,
                    socket,
                    token,
                    tries,
                    deadline,
                });
                return true;
            }
        }
        false
    }

    /// Takes what came for a slot. An answer that is not one is ignored; a refusal is a reason to ask the next.
    pub(super) fn receive(
        &mut self,
        slot: usize,
        epoll: &OwnedFd,
        upstreams: &[SocketAddr],
        now: Instant,
    ) -> Option<Forwarded> {
        let question = self.slots.get_mut(slot)?.as_mut()?;
        let mut buffer = [0; wire::MAX_UDP];
        match question.socket.recv(&mut buffer) {
            Ok(length)
                if wire::is_reply(
                    &buffer[..length],
                    &question.message,
                    question.query.end,
                    question.id,
                ) =>
            {
                let mut answer = buffer[..length].to_vec();
                wire::set_id(&mut answer, question.query.id);
                let client = question.client;
                self.slots[slot] = None;
                Some(Forwarded { client, answer })
            }
            Ok(_) => None,
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted
                ) =>
            {
                None
            }
            Err(_) => self.retry(slot, epoll, upstreams, now),
        }
    }

    /// Asks the next upstream, or gives up with an answer that says so.
    fn retry(
        &mut self,
        slot: usize,
        epoll: &OwnedFd,
        upstreams: &[SocketAddr],
        now: Instant,
    ) -> Option<Forwarded> {
        let mut question = self.slots.get_mut(slot)?.take()?;
        while question.tries + 1 < TRIES {
            question.tries += 1;
            if let Some(next) = upstream(upstreams, question.tries)
                && let Ok(socket) = connect(epoll, question.token, next, &question.message)
            {
                question.socket = socket;
                question.deadline = now + PATIENCE;
                self.slots[slot] = Some(question);
                return None;
            }
        }
        wire::set_id(&mut question.message, question.query.id);
        let answer = wire::answer(
            &question.message,
            &question.query,
            Code::Failed,
            &[],
            question.query.room,
        );
        Some(Forwarded {
            client: question.client,
            answer,
        })
    }

    /// Ends or repeats what has waited long enough.
    pub(super) fn expire(
        &mut self,
        epoll: &OwnedFd,
        upstreams: &[SocketAddr],
        now: Instant,
    ) -> Vec<Forwarded> {
        let late: Vec<usize> = (0..self.slots.len())
            .filter(|slot| {
                self.slots[*slot]
                    .as_ref()
                    .is_some_and(|question| question.deadline <= now)
            })
            .collect();
        late.into_iter()
            .filter_map(|slot| self.retry(slot, epoll, upstreams, now))
            .collect()
    }

    /// When [`Questions::expire`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.slots
            .iter()
            .flatten()
            .map(|question| question.deadline)
            .min()
    }
}
