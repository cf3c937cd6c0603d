//! `RUN --mount=type=ssh`: a socket of the step's own that leads to an agent of the person's.
//!
//! The agent's own socket is not bound into the container: ssh-agent answers only its user and root, whatever the mode
//! of the socket says, and a container that has the socket could keep its file descriptor longer than the step.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};

use crate::failure::{Context as _, Error};

/// Most connections at once of one step.
const MAX_CONNECTIONS: usize = 64;

/// A socket that is served until this is dropped.
#[derive(Debug)]
pub(crate) struct Forward {
    /// Closed to end the thread.
    stop: Option<std::io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Forward {
    /// Serves the socket `path`, which is made, by the agent at `agent`.
    pub(crate) fn new(path: &Path, agent: &Path) -> Result<Self, Error> {
        let what = || format!("forward the ssh agent {}", agent.display());
        // One that is not there should be found out before the command is run.
        drop(UnixStream::connect(agent).context(what)?);
        let listener = UnixListener::bind(path).context(what)?;
        listener.set_nonblocking(true).context(what)?;
        let (ended, stop) = std::io::pipe().context(what)?;
        let agent = agent.to_owned();
        let thread = std::thread::Builder::new()
            .name("ssh agent".to_owned())
            .spawn(move || serve(&listener, &ended, agent))
            .context(what)?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its panic is nothing that could be told here.
            drop(thread.join());
        }
    }
}

fn serve(listener: &UnixListener, ended: &std::io::PipeReader, agent: PathBuf) {
    let open = Arc::new(AtomicUsize::new(0));
    let mut connections: Vec<UnixStream> = Vec::new();
    loop {
        let mut wanted = [
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN),
        ];
        let polled = poll(&mut wanted, None);
        let over = !wanted[1].revents().is_empty();
        match polled {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(_) if !over => {}
            _ => break,
        }
        let Ok((client, _)) = listener.accept() else {
            continue;
        };
        if open.load(Ordering::Relaxed) >= MAX_CONNECTIONS {
            continue;
        }
        connections.retain(|stream| stream.peer_addr().is_ok());
        if let Some(kept) = connect(client, &agent, &open) {
            connections.extend(kept);
        }
    }
    // What the command left open ends with it.
    for connection in connections {
        drop(connection.shutdown(Shutdown::Both));
    }
}

/// Carries one connection both ways; gives handles that can end it.
fn connect(client: UnixStream, agent: &Path, open: &Arc<AtomicUsize>) -> Option<[UnixStream; 2]> {
    let server = UnixStream::connect(agent).ok()?;
    client.set_nonblocking(false).ok()?;
    let kept = [client.try_clone().ok()?, server.try_clone().ok()?];
    let (back_from, back_to) = (server.try_clone().ok()?, client.try_clone().ok()?);
    open.fetch_add(1, Ordering::Relaxed);
    let open = Arc::clone(open);
    let both = move || {
        std::thread::scope(|scope| {
            scope.spawn(|| carry(&client, &server));
            carry(&back_from, &back_to);
        });
        open.fetch_sub(1, Ordering::Relaxed);
    };
    std::thread::Builder::new()
        .name("ssh agent connection".to_owned())
        .spawn(both)
        .ok()?;
    Some(kept)
}

fn carry(mut from: &UnixStream, mut to: &UnixStream) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // The other side sees the end, or is gone already.
    drop(to.shutdown(Shutdown::Write));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_both_ways_and_an_open_connection_ends_with_the_step() {
        let dir = tempfile::tempdir().unwrap();
        let (agent, socket) = (dir.path().join("agent"), dir.path().join("socket"));
        assert!(Forward::new(&socket, &agent).is_err());
        let listener = UnixListener::bind(&agent).unwrap();
        let echo = std::thread::spawn(move || {
            // The first connection is the look whether somebody is there.
            for stream in listener.incoming().take(2) {
                let mut stream = stream.unwrap();
                let mut bytes = [0; 5];
                if stream.read_exact(&mut bytes).is_ok() {
                    stream.write_all(&bytes).unwrap();
                    let mut rest = Vec::new();
                    stream.read_to_end(&mut rest).unwrap();
                }
            }
        });
        let forward = Forward::new(&socket, &agent).unwrap();
        let mut client = UnixStream::connect(&socket).unwrap();
        client.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
        drop(forward);
        assert_eq!(client.read(&mut answer).unwrap(), 0);
        echo.join().unwrap();
    }
}
