//! One attached client: a stream socket, what waits to be sent to it, and the frames that came from it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::frame::{self, Frames};

/// What a client may lag behind. The first client (the command in the foreground) holds the container's output
/// back when it is slow; any other is let go.
pub(crate) const MAX_LAG: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Client {
    socket: OwnedFd,
    /// Whether output waits for this client.
    pub(crate) foreground: bool,
    outgoing: Vec<u8>,
    sent: usize,
    incoming: Frames,
    gone: bool,
    /// What it wants to know of the health.
    pub(crate) check: Wanted,
}

/// How far a client's wish for a health check is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// There is none.
    #[default]
    Nothing,
    /// A check has to be begun: one that ran already when it was asked for says too little.
    Check,
    /// That check runs.
    Result,
}

/// What a client asks for.
#[derive(Debug)]
pub(crate) enum Wish {
    Input(Vec<u8>),
    InputEnd,
    Resize { rows: u16, columns: u16 },
    NoRestart,
}

impl Client {
    pub(crate) fn new(socket: OwnedFd, foreground: bool) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self {
            socket,
            foreground,
            outgoing: Vec::new(),
            sent: 0,
            incoming: Frames::new(),
            gone: false,
            check: Wanted::Nothing,
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    pub(crate) fn lag(&self) -> usize {
        self.outgoing.len() - self.sent
    }

    pub(crate) fn send(&mut self, kind: u8, body: &[u8]) {
        if self.gone {
            return;
        }
        for piece in body.chunks(frame::MAX_BODY) {
            self.outgoing.extend_from_slice(&frame::head(kind, piece.len()));
            self.outgoing.extend_from_slice(piece);
        }
        self.flush();
        if !self.foreground && self.lag() > MAX_LAG {
            self.gone = true;
        }
    }

    /// Sends what the socket takes now.
    pub(crate) fn flush(&mut self) {
        while self.sent < self.outgoing.len() {
            match rustix::net::send(
                &self.socket,
                &self.outgoing[self.sent..],
                rustix::net::SendFlags::NOSIGNAL,
            ) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
        self.outgoing.clear();
        self.sent = 0;
        if self.outgoing.capacity() > 2 * frame::MAX_BODY {
            self.outgoing.shrink_to(frame::HEAD);
        }
    }

    /// Reads what has come; a client that hung up or talks nonsense is gone afterwards.
    pub(crate) fn receive(&mut self, buffer: &mut [u8], wishes: &mut Vec<Wish>) {
        match rustix::io::read(&self.socket, &mut *buffer) {
            Ok(0) => self.gone = true,
            Ok(count) => {
                let check = &mut self.check;
                let parsed = self.incoming.push(&buffer[..count], |kind, body| {
                    match (kind, body) {
                        (frame::STDIN, body) => wishes.push(Wish::Input(body.to_vec())),
                        (frame::STDIN_END, _) => wishes.push(Wish::InputEnd),
                        (frame::RESIZE, &[r1, r0, c1, c0]) => wishes.push(Wish::Resize {
                            rows: u16::from_be_bytes([r1, r0]),
                            columns: u16::from_be_bytes([c1, c0]),
                        }),
                        (frame::NO_RESTART, _) => wishes.push(Wish::NoRestart),
                        (frame::CHECK, _) => *check = Wanted::Check,
                        _ => {}
                    }
                    Ok(())
                });
                self.gone |= parsed.is_err();
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.gone = true,
        }
    }
}
