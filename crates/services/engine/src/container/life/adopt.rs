//! A container whose monitor was killed gets another: what the first one held is opened again around the program that runs.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::SystemTime;

use dhow_monitor::Launched;
use dhow_rootpath::Root;
use dhow_types::ErrorKind;
use rustix::fs::{FileType, Mode, OFlags};

use super::{Connection, ContainerLife, Held, SETTLED};
use crate::container::record::{NetworkMode, State};
use crate::{Context as _, Error};

impl ContainerLife {
    /// The same for a container whose program runs: the first launch takes it over.
    pub(in crate::container) fn adopting(mut self) -> Self {
        self.adopts = true;
        self
    }

    /// Takes over the program that runs. What it wrote to a pipe that nobody had open is lost, as it was to the program; a
    /// terminal is gone with the monitor that had its other end.
    pub(super) fn adopt(&mut self) -> Result<Launched, Error> {
        let container = self.engine.containers().load(&self.config.id)?;
        let pidfd = crate::container::stop::open_process(&container)?
            .ok_or_else(|| Error::new(ErrorKind::FailedPrecondition, "the container's program has ended"))?;
        let state = &container.state;
        let network = self.reconnect(state, &pidfd)?;
        let spec = match &self.config.health {
            None => None,
            Some(_) => {
                let root = Root::open(Path::new(&format!("/proc/{}/root", state.pid)))
                    .context(|| "open the container's root")?;
                let joined = self.engine.join_shared(&self.config)?;
                Some(Box::new(self.spec(&root, &network, &joined)?))
            }
        };
        if !self.forwarder.as_ref().is_some_and(super::Forwarder::works) {
            self.forwarder = self.engine.forward_log(&self.config)?;
        }
        let started = state.started.as_deref().and_then(dhow_monitor::parse_time);
        self.started = started.or_else(|| Some(SystemTime::now()));
        let stream = |number: u32, flags| pipe_of(state.pid, number, flags);
        let launched = Launched {
            pid: state.pid,
            stdin: self
                .config
                .open_stdin
                .then(|| stream(0, OFlags::WRONLY))
                .flatten(),
            stdout: stream(1, OFlags::RDONLY),
            stderr: stream(2, OFlags::RDONLY),
            terminal: None,
            pidfd: pidfd.try_clone().context(|| "duplicate the process handle")?,
        };
        self.held = Some(Held {
            group: self.engine.group_if_any(&self.config)?,
            init: Some(pidfd),
            network,
            spec,
            bundle: None,
        });
        self.adopted = true;
        Ok(launched)
    }

    /// What is written down of the program holds; who looks after it is another.
    pub(super) fn note_adoption(&self, program: i32) {
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        let adopter = crate::container::process_start(own).map(|start| (own, start));
        // As with any change that a full disk takes: the lock tells that there is a monitor.
        drop(self.change(|state| state.adopter = adopter));
        self.write_pids(program);
    }

    /// Serves names and carries ports again, as the monitor before did.
    fn reconnect(&self, state: &State, pidfd: &OwnedFd) -> Result<Connection, Error> {
        let mut connection = Connection {
            endpoints: state.endpoints.clone(),
            ..Connection::default()
        };
        if !matches!(self.config.network, NetworkMode::Networks | NetworkMode::None) {
            return Ok(connection);
        }
        let path = format!("/proc/{}/ns/net", state.pid);
        let netns: OwnedFd = File::open(&path).context(|| format!("open {path}"))?.into();
        let networks = self.engine.networks()?;
        let (mut names, mut servers) = (false, Vec::new());
        for endpoint in &connection.endpoints {
            // Without its record nobody knows what it asked for; the container goes on as it is.
            if let Ok(network) = networks.find(&endpoint.network) {
                names |= network.has_names();
                servers.extend(network.dns.iter().copied());
            }
        }
        if names {
            connection.resolver = Some(self.resolver(netns.as_fd(), servers)?);
        }
        // Those of plugins are carried by what they made.
        let own = |endpoint: &&dhow_network::Endpoint| !endpoint.device.is_empty();
        if let Some(endpoint) = connection.endpoints.first().filter(own) {
            connection.published = networks
                .carry_again(endpoint, pidfd.as_fd())
                .context(|| "publish the container's ports")?;
        }
        connection.watch_at = (!connection.endpoints.is_empty()).then(|| std::time::Instant::now() + SETTLED);
        connection.netns = Some(netns);
        Ok(connection)
    }
}

/// Our end of a pipe that a process has as one of its streams: opened through procfs, the pipe is the same.
fn pipe_of(pid: i32, number: u32, flags: OFlags) -> Option<OwnedFd> {
    let path = format!("/proc/{pid}/fd/{number}");
    let metadata = rustix::fs::stat(&path).ok()?;
    if FileType::from_raw_mode(metadata.st_mode) != FileType::Fifo {
        return None;
    }
    // Without waiting for the other end, which the program may be closing now.
    let opening = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let end = rustix::fs::open(&path, opening, Mode::empty()).ok()?;
    // The program may have put something else there meanwhile.
    let opened = rustix::fs::fstat(&end).ok()?;
    if FileType::from_raw_mode(opened.st_mode) != FileType::Fifo {
        return None;
    }
    rustix::fs::fcntl_setfl(&end, flags & (OFlags::RDONLY | OFlags::WRONLY)).ok()?;
    Some(end)
}
