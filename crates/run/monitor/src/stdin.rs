//! The container's input: bytes that wait until the container takes them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

/// Input that may wait; clients are not read beyond it.
const MAX_WAITING: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct Stdin {
    pipe: Option<OwnedFd>,
    terminal: bool,
    waiting: Vec<u8>,
    ending: bool,
}

impl Stdin {
    pub(crate) fn new(pipe: Option<OwnedFd>, terminal: bool) -> Self {
        Self {
            pipe,
            terminal,
            waiting: Vec::new(),
            ending: false,
        }
    }

    pub(crate) fn accepts(&self) -> bool {
        self.waiting.len() < MAX_WAITING
    }

    /// The descriptor to wait for, when there is something to write.
    pub(crate) fn wants_write(&self) -> Option<BorrowedFd<'_>> {
        if self.waiting.is_empty() {
            None
        } else {
            self.pipe.as_ref().map(AsFd::as_fd)
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.pipe.is_some() && !self.ending {
            self.waiting.extend_from_slice(bytes);
            self.flush();
        }
    }

    /// No more input. A terminal stays open: its end is typed, not closed.
    pub(crate) fn end(&mut self) {
        if !self.terminal {
            self.ending = true;
            self.flush();
        }
    }

    pub(crate) fn flush(&mut self) {
        while let Some(pipe) = &self.pipe
            && !self.waiting.is_empty()
        {
            match rustix::io::write(pipe, &self.waiting) {
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.pipe = None;
                    self.waiting.clear();
                }
            }
        }
        if self.ending {
            self.pipe = None;
        }
    }
}
