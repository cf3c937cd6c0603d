//! `wait` and the attach stream.

use std::io::{Read as _, Write as _};
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
            && let Some(code) = number(socket, &[frame::EXIT])
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

    /// Checks a container's health now, beside the checks that its interval makes; the exit code of the check, 0 is good.
    /// The result is written down when this returns.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when it does not run or has nothing to check. None when it ended meanwhile.
    pub fn check_health(&self, wanted: &str) -> Result<Option<i32>, Error> {
        let container = self.containers().find(wanted)?;
        let id = &container.config.id;
        let refuse = |message: String| Err(Error::new(ErrorKind::FailedPrecondition, message));
        if container.config.health.is_none() {
            return refuse(format!("container {id} has no defined healthcheck"));
        }
        if container.state.status != Status::Running {
            return refuse(format!("container {id} is not running"));
        }
        let mut socket = self.connect(id)?;
        socket
            .write_all(&frame::frame(frame::CHECK, &[]))
            .context(|| "ask for a health check")?;
        Ok(number(socket, &[frame::CHECKED]))
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

/// Reads the stream up to a frame of one of these kinds; the number in it.
fn number(mut socket: UnixStream, wanted: &[u8]) -> Option<i32> {
    let mut frames = Frames::new();
    let mut buffer = vec![0; frame::MAX_BODY];
    let mut code = None;
    loop {
        let count = socket.read(&mut buffer).ok().filter(|count| *count > 0)?;
        frames
            .push(&buffer[..count], |kind, body| {
                if wanted.contains(&kind)
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
