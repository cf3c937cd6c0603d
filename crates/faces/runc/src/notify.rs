//! Word of the container's program that it is ready, passed on to the supervisor of this program (sd_notify(3)).

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send,
    socket_with,
};

use crate::Failure;

/// Longest message that is read; longer ones are cut, as by runc.
const LONGEST: usize = 4096;
/// How long the supervisor may take to read what it was told, before this program ends.
const PATIENCE: Timespec = Timespec {
    tv_sec: 30,
    tv_nsec: 0,
};

/// The supervisor's socket.
#[derive(Debug)]
pub(crate) struct Supervisor(OwnedFd);

impl Supervisor {
    /// That of `$NOTIFY_SOCKET`: a path, or an abstract name after `@`.
    pub(crate) fn find() -> Result<Option<Self>, Failure> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        Self::connect(&name)
            .map(|socket| Some(Self(socket)))
            .map_err(|error| Failure::from(error).during(&format!("dial unixgram {}", name.display())))
    }

    fn connect(name: &OsString) -> io::Result<OwnedFd> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddrUnix::new_abstract_name(name)?,
            None => SocketAddrUnix::new(name.as_os_str())?,
        };
        connect(&socket, &address)?;
        Ok(socket)
    }
}

/// A program that has yet to say that it is ready, and who is to hear it.
#[derive(Debug)]
pub(crate) struct Readiness {
    from: OwnedFd,
    to: Supervisor,
    /// The process that the supervisor is to watch.
    pid: u32,
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }
}

impl Readiness {
    pub(crate) fn new(from: OwnedFd, to: Supervisor, pid: u32) -> Self {
        Self { from, to, pid }
    }

    /// Reads what has come; whether the program is ready, and the supervisor knows.
    pub(crate) fn turn(&self) -> Result<bool, Failure> {
        let mut bytes = [0; LONGEST];
        loop {
            let length = match recv(&self.from, &mut bytes, RecvFlags::DONTWAIT) {
                Ok((length, _)) => length,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(Failure::from(io::Error::from(errno)).during("hear the program")),
            };
            if let Some(line) = ready(bytes.get(..length).unwrap_or_default()) {
                self.tell(line)
                    .map_err(|error| Failure::from(error).during("tell the supervisor"))?;
                return Ok(true);
            }
        }
    }

    fn tell(&self, line: &[u8]) -> io::Result<()> {
        let mut message = line.to_vec();
        message.push(b'\n');
        let pid = format!("MAINPID={}\n", self.pid);
        for message in [message.as_slice(), pid.as_bytes()] {
            send(&self.to.0, message, SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }

    /// Waits until the program is ready, or ends; then until the supervisor has read it: it could not say who an ended
    /// process was.
    pub(crate) fn wait(self, process: &OwnedFd) -> Result<(), Failure> {
        loop {
            let mut fds = [
                PollFd::new(&self.from, PollFlags::IN),
                PollFd::new(process, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                polled => polled
                    .map_err(|errno| Failure::from(io::Error::from(errno)).during("wait for the program"))?,
            };
            let ended = !fds[1].revents().is_empty();
            if self.turn()? {
                return self
                    .barrier()
                    .map_err(|error| Failure::from(error).during("wait for the supervisor"));
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// Sends one end of a pipe, which is closed when the supervisor has read that far (sd_notify_barrier(3)).
    fn barrier(&self) -> io::Result<()> {
        let (reader, writer) = io::pipe()?;
        dhow_sys::fd::send(&self.to.0, b"BARRIER=1", &[writer.as_fd()])?;
        drop(writer);
        let mut fds = [PollFd::new(&reader, PollFlags::empty())];
        match poll(&mut fds, Some(&PATIENCE)) {
            // A supervisor that never reads it is not this program's to wait for.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// The line of a message that says so.
fn ready(message: &[u8]) -> Option<&[u8]> {
    message
        .split(|byte| *byte == b'\n')
        .find(|line| line.starts_with(b"READY="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_line_of_readiness_is_passed_on() {
        assert_eq!(ready(b"READY=1"), Some(&b"READY=1"[..]));
        assert_eq!(ready(b"STATUS=up\nREADY=1\nMAINPID=1\n"), Some(&b"READY=1"[..]));
        for other in [&b""[..], b"STATUS=READY=1", b"MAINPID=1\nFDSTORE=1", b"\xff\n"] {
            assert_eq!(ready(other), None);
        }
    }

    proptest! {
        #[test]
        fn any_message_gives_one_line_or_none(message: Vec<u8>) {
            if let Some(line) = ready(&message) {
                prop_assert!(line.starts_with(b"READY=") && !line.contains(&b'\n'));
            }
        }
    }
}
