//! What a container under systemd tells it (sd_notify(3)): podman's `--sdnotify`.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::time::Duration;

use dhow_engine::container::{CreateContainer, MountSpec};
use dhow_engine::{Engine, Propagation, Relabel, Submounts};
use dhow_types::ContainerId;

use crate::{CliError, dialect};

/// Where systemd listens.
const VARIABLE: &str = "NOTIFY_SOCKET";
/// Between two looks at a container's health.
const PAUSE: Duration = Duration::from_millis(100);

/// Who says when the service is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Notify {
    /// The program in the container, which is given systemd's socket
    Container,
    /// The command that started it: as soon as it runs
    Conmon,
    /// The same: as soon as its health check is good
    Healthy,
    /// Nobody
    Ignore,
}

/// What systemd is told of one container.
#[derive(Debug)]
pub(crate) struct Notifier {
    socket: Option<String>,
    how: Notify,
}

impl Notifier {
    /// Where systemd listens, and who is to speak: with podman's name the container when nobody says otherwise.
    pub(crate) fn new(asked: Option<Notify>) -> Self {
        let usual = match dialect::spoken().is_podman() {
            true => Notify::Container,
            false => Notify::Ignore,
        };
        let how = asked.unwrap_or(usual);
        let socket = std::env::var(VARIABLE).ok();
        Self {
            socket: socket.filter(|socket| !socket.is_empty() && how != Notify::Ignore),
            how,
        }
    }

    /// Gives the container the socket, if it is to speak itself. One without a path is not in its network.
    pub(crate) fn add_to(&self, request: &mut CreateContainer) {
        let Some(socket) = self.socket.as_deref().filter(|socket| socket.starts_with('/')) else {
            return;
        };
        if self.how != Notify::Container || request.env.iter().any(|set| set.starts_with("NOTIFY_SOCKET=")) {
            return;
        }
        request.env.push(format!("{VARIABLE}={socket}"));
        request.mounts.push(MountSpec::Bind {
            source: PathBuf::from(socket),
            target: PathBuf::from(socket),
            read_only: false,
            create: false,
            propagation: Propagation::default(),
            relabel: Relabel::No,
            options: Vec::new(),
            submounts: Submounts::default(),
        });
    }

    /// Tells that the container runs, and that it is the monitor that systemd is to watch.
    pub(crate) fn started(&self, engine: &Engine, id: &ContainerId) -> Result<(), CliError> {
        let Some(socket) = &self.socket else {
            return Ok(());
        };
        if self.how == Notify::Healthy {
            wait_for_health(engine, id)?;
        }
        let container = engine.containers().find(id.as_str())?;
        let mut text = String::new();
        if let Some(monitor) = dhow_engine::container::monitor_of(&container) {
            text.push_str(&format!("MAINPID={monitor}\n"));
        }
        if self.how != Notify::Container {
            text.push_str("READY=1\n");
        }
        send(socket, &text).map_err(|error| {
            CliError::plain(format!(
                "tell systemd at {socket} that the container runs: {error}"
            ))
        })
    }
}

/// Until the container is healthy; one that ends, or has no check, never is.
fn wait_for_health(engine: &Engine, id: &ContainerId) -> Result<(), CliError> {
    loop {
        let container = engine.containers().find(id.as_str())?;
        let health = container
            .state
            .health
            .as_ref()
            .map(|health| health.status.as_str());
        match health {
            Some("healthy") => return Ok(()),
            None => {
                return Err(CliError::plain(
                    "--sdnotify=healthy: the container has no health check",
                ));
            }
            _ if !crate::view::container::is_up(container.state.status) => {
                return Err(CliError::plain("the container ended before it was healthy"));
            }
            _ => std::thread::sleep(PAUSE),
        }
    }
}

fn send(socket: &str, text: &str) -> std::io::Result<()> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let datagram = UnixDatagram::unbound()?;
    datagram.send_to_addr(text.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let systemd = UnixDatagram::bind(&path).unwrap();
        send(&path.display().to_string(), "MAINPID=7\nREADY=1\n").unwrap();
        let mut buffer = [0; 64];
        let count = systemd.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"MAINPID=7\nREADY=1\n");
    }
}
