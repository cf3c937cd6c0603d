//! The network of build steps: a namespace that is joined to the default network, handed on from step to step.
//!
//! To make one, to join a bridge and to take both away again costs more than most programs that a build runs, so a step
//! that ends leaves its connection to the next one, as BuildKit does from a pool. A connection belongs to a folder in the
//! run folder whose lock travels with it, as a step does: when the build is killed, whoever looks finds it unlocked, and
//! takes its address back.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use dhow_network::{Endpoint, EndpointRequest};
use dhow_types::ContainerId;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use crate::container::random_bytes;
use crate::leftover::StepFolder;
use crate::{Context as _, Engine, Error};

/// Largest connection as a message.
const MAX_MESSAGE: usize = 16 << 10;

/// A network namespace that is joined to the default network.
#[derive(Debug)]
pub(crate) struct Connection {
    namespace: OwnedFd,
    endpoint: Endpoint,
    folder: StepFolder,
}

/// What is said of a connection; the namespace and the lock of the folder come as descriptors.
#[derive(Serialize, Deserialize)]
struct Message {
    endpoint: Endpoint,
    folder: PathBuf,
}

impl Connection {
    /// A new one.
    pub(crate) fn make(engine: &Engine) -> Result<Self, Error> {
        let id = ContainerId::from_random(random_bytes()?);
        let folder = StepFolder::make(&engine.settings().run, &id)?;
        let namespace = network_namespace()?;
        let networks = engine.networks()?;
        let bridge = networks.default_bridge().context(|| "open the default network")?;
        let (endpoint, _) = networks
            .attach(&bridge, namespace.as_fd(), &EndpointRequest::new(&id))
            .context(|| "join the default network")?;
        Ok(Self {
            namespace,
            endpoint,
            folder,
        })
    }

    pub(crate) fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Leaves the network. An address that stays is taken back by the next `release_stale`.
    pub(crate) fn close(self, engine: &Engine) {
        if let Ok(networks) = engine.networks() {
            drop(networks.detach(&self.endpoint));
        }
    }
}

/// A new network namespace, joined to nothing.
pub(crate) fn network_namespace() -> Result<OwnedFd, Error> {
    dhow_network::sandbox().context(|| "make the network namespace")
}

/// Connections that nobody uses, in a socket's queue: every process of the worker that inherits it takes from it and adds to it.
#[derive(Debug)]
pub(crate) struct Pool {
    give: OwnedFd,
    take: OwnedFd,
}

impl Pool {
    pub(crate) fn new() -> Result<Self, Error> {
        let (give, take) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(std::io::Error::from)
        .context(|| "make the pool of connections")?;
        Ok(Self { give, take })
    }

    /// One that is there.
    pub(crate) fn take(&self) -> Option<Connection> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let (count, fds) = dhow_sys::fd::receive(&self.take, &mut buffer).ok()?;
        let Message { endpoint, folder } = serde_json::from_slice(buffer.get(..count)?).ok()?;
        let mut fds = fds.into_iter();
        let (namespace, lock) = (fds.next()?, fds.next()?);
        Some(Connection {
            namespace,
            endpoint,
            folder: StepFolder::taken_over(folder, lock),
        })
    }

    /// Hands one on; gives it back when it cannot, or when its last user left a socket in it that the next would meet, such as
    /// one in `TIME_WAIT`.
    pub(crate) fn give(&self, connection: Connection) -> Option<Connection> {
        if !dhow_network::is_unused(connection.namespace()) {
            return Some(connection);
        }
        let text = serde_json::to_vec(&Message {
            endpoint: connection.endpoint.clone(),
            folder: connection.folder.path.clone(),
        });
        let fds = [connection.namespace(), connection.folder.lock()];
        let sent = text.is_ok_and(|text| {
            text.len() <= MAX_MESSAGE && dhow_sys::fd::send(&self.give, &text, &fds).is_ok()
        });
        if !sent {
            return Some(connection);
        }
        // It lives on with the lock that is on its way.
        connection.folder.hand_over();
        None
    }

    /// Closes all that are there.
    pub(crate) fn close(&self, engine: &Engine) {
        while let Some(connection) = self.take() {
            connection.close(engine);
        }
    }
}
