//! Clients over TCP (RFC 7766): one question at a time, forwarded over TCP too, since whoever comes by TCP expects an answer
//! that is long. A client is a small machine that goes on whenever one of its two sockets can; a slow one holds nobody up,
//! and yields when others come (CVE-2024-8418).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::SocketType;

use super::wire::{self, Code, Query};
use super::{Resolver, Verdict};

/// Clients at once.
const MAX_CLIENTS: usize = 8;
/// For one question from its first byte to the last of its answer, and between questions.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest question.
const MAX_QUESTION: usize = 4096;
/// Longest answer over TCP.
const MAX_ANSWER: usize = u16::MAX as usize;

/// What a client is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    ReadQuestion,
    SendQuestion,
    ReadAnswer,
    SendAnswer,
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    upstream: Option<TcpStream>,
    phase: Phase,
    /// The message that is on its way, with its two bytes of length before it.
    buffer: Vec<u8>,
    done: usize,
    /// The question, for the answer to be checked against it.
    question: Vec<u8>,
    query: Option<Query>,
    tries: usize,
    deadline: Instant,
}

/// The clients, each in a slot.
#[derive(Debug, Default)]
pub(super) struct Clients {
    slots: Vec<Option<Client>>,
}

fn watch(epoll: &OwnedFd, fd: impl AsFd, token: u64) -> io::Result<()> {
    // Edge-triggered: a client goes on until its socket would block, so nothing has to be changed in the set.
    let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
    Ok(epoll::add(epoll, fd, epoll::EventData::new_u64(token), flags)?)
}

impl Clients {
    /// Takes new clients; when there are too many the one that began first goes.
    pub(super) fn accept(&mut self, epoll: &OwnedFd, listener: &TcpListener, base: u64, now: Instant) {
        for _ in 0..MAX_CLIENTS {
            let Ok((stream, _)) = listener.accept() else {
                return;
            };
            let slot = self.free_slot();
            if stream.set_nonblocking(true).is_err() || watch(epoll, &stream, base + slot as u64).is_err() {
                continue;
            }
            self.slots[slot] = Some(Client {
                stream,
                upstream: None,
                phase: Phase::ReadQuestion,
                buffer: Vec::new(),
                done: 0,
                question: Vec::new(),
                query: None,
                tries: 0,
                deadline: now + PATIENCE,
            });
        }
    }

    fn free_slot(&mut self) -> usize {
        if let Some(slot) = self.slots.iter().position(Option::is_none) {
            return slot;
        }
        if self.slots.len() < MAX_CLIENTS {
            self.slots.push(None);
            return self.slots.len() - 1;
        }
        let oldest =
            (0..self.slots.len()).min_by_key(|slot| self.slots[*slot].as_ref().map(|client| client.deadline));
        oldest.unwrap_or(0)
    }

    /// Lets a client go on as far as it can.
    pub(super) fn step(
        &mut self,
        slot: usize,
        epoll: &OwnedFd,
        base: u64,
        resolver: &mut Resolver,
        now: Instant,
    ) {
        let Some(Some(client)) = self.slots.get_mut(slot) else {
            return;
        };
        loop {
            match client.advance(epoll, base + slot as u64, resolver, now) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.slots[slot] = None;
                    return;
                }
            }
        }
    }

    /// Ends the clients that took too long.
    pub(super) fn expire(&mut self, now: Instant) {
        for slot in &mut self.slots {
            if slot.as_ref().is_some_and(|client| client.deadline <= now) {
                *slot = None;
            }
        }
    }

    /// When [`Clients::expire`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.slots.iter().flatten().map(|client| client.deadline).min()
    }
}

impl Client {
    /// One step. `Ok` means that there may be another, `WouldBlock` that there is none now, other errors the end.
    fn advance(
        &mut self,
        epoll: &OwnedFd,
        token: u64,
        resolver: &mut Resolver,
        now: Instant,
    ) -> io::Result<()> {
        match self.phase {
            Phase::ReadQuestion => {
                read_message(&mut self.stream, &mut self.buffer, &mut self.done, MAX_QUESTION)?;
                self.take_question(epoll, token, resolver, now)
            }
            Phase::SendQuestion => match self.send_question() {
                Err(error) if !is_wait(&error) => self.ask_next(epoll, token, resolver),
                other => other,
            },
            Phase::ReadAnswer => match self.read_answer() {
                Err(error) if !is_wait(&error) => self.ask_next(epoll, token, resolver),
                other => other,
            },
            Phase::SendAnswer => {
                write_message(&mut self.stream, &self.buffer, &mut self.done)?;
                self.buffer = Vec::new();
                self.done = 0;
                self.phase = Phase::ReadQuestion;
                self.deadline = now + PATIENCE;
                Ok(())
            }
        }
    }

    fn take_question(
        &mut self,
        epoll: &OwnedFd,
        token: u64,
        resolver: &mut Resolver,
        now: Instant,
    ) -> io::Result<()> {
        self.deadline = now + PATIENCE;
        self.question = self.buffer.split_off(2);
        let query = Query::parse(&self.question).ok_or(io::ErrorKind::InvalidData)?;
        let verdict = resolver.resolve(&self.question, &query, MAX_ANSWER);
        self.query = Some(query);
        self.tries = 0;
        match verdict {
            Verdict::Answer(answer) => {
                self.send(&answer);
                Ok(())
            }
            Verdict::Forward => self.ask_next(epoll, token, resolver),
        }
    }

    /// Begins to ask an upstream that was not asked yet; without one the client is told so.
    fn ask_next(&mut self, epoll: &OwnedFd, token: u64, resolver: &Resolver) -> io::Result<()> {
        self.upstream = None;
        while let Some(upstream) = resolver.upstreams.get(self.tries) {
            self.tries += 1;
            if let Ok(stream) = connect(*upstream) {
                watch(epoll, &stream, token)?;
                self.upstream = Some(stream);
                let length = u16::try_from(self.question.len()).map_err(|_| io::ErrorKind::InvalidData)?;
                self.buffer = length.to_be_bytes().to_vec();
                self.buffer.extend_from_slice(&self.question);
                self.done = 0;
                self.phase = Phase::SendQuestion;
                return Ok(());
            }
        }
        let query = self.query.as_ref().ok_or(io::ErrorKind::InvalidData)?;
        let answer = wire::answer(&self.question, query, Code::Failed, &[], MAX_ANSWER);
        self.send(&answer);
        Ok(())
    }

    fn send_question(&mut self) -> io::Result<()> {
        let upstream = self.upstream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        write_message(upstream, &self.buffer, &mut self.done)?;
        self.buffer = Vec::new();
        self.done = 0;
        self.phase = Phase::ReadAnswer;
        Ok(())
    }

    fn read_answer(&mut self) -> io::Result<()> {
        let upstream = self.upstream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        read_message(upstream, &mut self.buffer, &mut self.done, MAX_ANSWER)?;
        let answer = self.buffer.split_off(2);
        let query = self.query.as_ref().ok_or(io::ErrorKind::InvalidData)?;
        if !wire::is_reply(&answer, &self.question, query.end, query.id) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.upstream = None;
        self.send(&answer);
        Ok(())
    }

    fn send(&mut self, answer: &[u8]) {
        // An answer is never longer than what the length can say: ours are built so, others came with such a length.
        let length = u16::try_from(answer.len()).unwrap_or(u16::MAX);
        self.buffer = length.to_be_bytes().to_vec();
        self.buffer.extend_from_slice(&answer[..usize::from(length)]);
        self.done = 0;
        self.phase = Phase::SendAnswer;
    }
}

/// An upstream that is still connecting is one that cannot be written to yet.
fn is_wait(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn connect(upstream: SocketAddr) -> io::Result<TcpStream> {
    let socket = super::socket(&upstream, SocketType::STREAM)?;
    match rustix::net::connect(&socket, &upstream) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(errno) => Err(errno.into()),
    }
}

/// Reads two bytes of length and so many more, as far as they are there.
fn read_message(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    done: &mut usize,
    max: usize,
) -> io::Result<()> {
    loop {
        let wanted = match buffer.get(..2) {
            Some(&[high, low]) if *done >= 2 => 2 + usize::from(u16::from_be_bytes([high, low])),
            _ => 2,
        };
        if *done >= 2 && *done == wanted {
            return Ok(());
        }
        if wanted > max + 2 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        buffer.resize(wanted, 0);
        match stream.read(&mut buffer[*done..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => *done += length,
        }
    }
}

fn write_message(stream: &mut TcpStream, buffer: &[u8], done: &mut usize) -> io::Result<()> {
    while *done < buffer.len() {
        match stream.write(&buffer[*done..])? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            length => *done += length,
        }
    }
    Ok(())
}
