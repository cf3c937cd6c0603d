//! The pipes of a container without a terminal.

use std::fs::File;
use std::os::fd::OwnedFd;

use dhow_runtime::Stdio;

use crate::{Context as _, Error};

/// Our ends of a container's pipes.
#[derive(Default)]
pub(super) struct Pipes {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

impl Pipes {
    /// The ends that a container's program gets, and ours; its input is empty unless it is to be open.
    pub(super) fn new(open_stdin: bool) -> Result<(Stdio, Self), Error> {
        let (stdout_reader, stdout) = pipe()?;
        let (stderr_reader, stderr) = pipe()?;
        let (stdin, stdin_writer) = if open_stdin {
            let (reader, writer) = pipe()?;
            (reader, Some(writer))
        } else {
            (
                OwnedFd::from(File::open("/dev/null").context(|| "open /dev/null")?),
                None,
            )
        };
        let ours = Self {
            stdin: stdin_writer,
            stdout: Some(stdout_reader),
            stderr: Some(stderr_reader),
        };
        Ok((
            Stdio::Fds {
                stdin,
                stdout,
                stderr,
            },
            ours,
        ))
    }
}

/// Its reading and its writing end.
pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(std::io::Error::from)
        .context(|| "make a pipe")
}
