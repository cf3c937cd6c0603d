//! `wait` and the attach stream.

use std::io::Read as _;
use std::os::unix::net::UnixStream;

use dhow_monitor::frame::{self, Frames};
use dhow_types::ErrorKind;

use super::folder::Container;
use super::record::Status;
use crate::{Context as _, Engine, Error};

impl Engine {
    /// Waits until a container has ended for good; its exit code.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn wait(&self, wanted: &str) -> Result<i32, Error> {
        let container = self.containers().find(wanted)?;
        let id = &container.config.id;
        if let Ok(socket) = self.connect(id)
            && let Some(code) = exit_code(socket)
        {
            self.settle_end(id)?;
            return Ok(code);
        }
        self.settle_end(id)?;
        Ok(self
            .containers()
            .load(id)
            .map_or(container.state.exit_code, |c| c.state.exit_code))
    }

    /// Waits until the end of a container is written down, after its exit code is known.
    ///
    /// # Errors
    /// `Unavailable` when its monitor does not end.
    pub fn settled(&self, id: &dhow_types::ContainerId) -> Result<(), Error> {
        self.settle_end(id)
    }

    /// Attaches to a running container's streams: frames of [`dhow_monitor::frame`].
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when it does not run.
    pub fn attach(&self, wanted: &str) -> Result<(Container, UnixStream), Error> {
        let container = self.containers().find(wanted)?;
        if !matches!(
            container.state.status,
            Status::Running | Status::Paused | Status::Restarting
        ) {
            let message = "You cannot attach to a stopped container, start it first";
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        }
        let socket = self.connect(&container.config.id)?;
        Ok((container, socket))
    }
}

/// Reads the stream to its end; the exit code when the monitor said it.
fn exit_code(mut socket: UnixStream) -> Option<i32> {
    let mut frames = Frames::new();
    let mut buffer = vec![0; frame::MAX_BODY];
    let mut code = None;
    loop {
        let count = socket.read(&mut buffer).ok().filter(|count| *count > 0)?;
        frames
            .push(&buffer[..count], |kind, body| {
                if kind == frame::EXIT
                    && let Ok(bytes) = <[u8; 4]>::try_from(body)
                {
                    code = Some(i32::from_be_bytes(bytes));
                }
                Ok(())
            })
            .context(|| "read the attach stream")
            .ok()?;
        if code.is_some() {
            return code;
        }
    }
}
