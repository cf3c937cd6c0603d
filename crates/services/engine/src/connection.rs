//! The network of build steps: a namespace, alone or joined to the default network, handed on from step to step.
//!
//! To make one, to join a bridge and to take both away again costs more than most programs that a build runs, so a step
//! that ends leaves its network to the next one, as BuildKit does from a pool. An address belongs to a folder in the
//! run folder whose lock travels with it, as a step does: when the build is killed, whoever looks finds it unlocked, and
//! takes the address back.

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

/// A network namespace for a step.
#[derive(Debug)]
pub(crate) struct Connection {
    namespace: OwnedFd,
    joined: Option<Joined>,
}

/// Its place in the default network.
#[derive(Debug)]
struct Joined {
    endpoint: Endpoint,
    folder: StepFolder,
}

/// What is said of a place; the namespace and the lock of the folder come as descriptors.
#[derive(Serialize, Deserialize)]
struct Message {
    endpoint: Endpoint,
    folder: PathBuf,
}

impl Connection {
    /// A new one, joined to nothing.
    pub(crate) fn alone() -> Result<Self, Error> {
        Ok(Self {
            namespace: network_namespace()?,
            joined: None,
        })
    }

    /// A new one, joined to the default network.
    pub(crate) fn joined(engine: &Engine) -> Result<Self, Error> {
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
            joined: Some(Joined { endpoint, folder }),
        })
    }

    pub(crate) fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    pub(crate) fn endpoint(&self) -> Option<&Endpoint> {
        self.joined.as_ref().map(|joined| &joined.endpoint)
    }

    /// Leaves the network. An address that stays is taken back by the next `release_stale`.
    pub(crate) fn close(self, engine: &Engine) {
        if let (Some(joined), Ok(networks)) = (&self.joined, engine.networks()) {
            drop(networks.detach(&joined.endpoint));
        }
    }
}

fn network_namespace() -> Result<OwnedFd, Error> {
    dhow_network::sandbox().context(|| "make the network namespace")
}

/// Connections of one kind that nobody uses, in a socket's queue: every process of the worker that inherits it takes from it and
/// adds to it.
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
        let said: Option<Message> = serde_json::from_slice(buffer.get(..count)?).ok()?;
        let mut fds = fds.into_iter();
        let (namespace, lock) = (fds.next()?, fds.next());
        let joined = said.zip(lock).map(|(said, lock)| Joined {
            endpoint: said.endpoint,
            folder: StepFolder::taken_over(said.folder, lock),
        });
        Some(Connection { namespace, joined })
    }

    /// Hands one on; gives it back when it cannot, or when its last user left a socket in it that the next would meet, such as
    /// one in `TIME_WAIT`.
    pub(crate) fn give(&self, connection: Connection) -> Option<Connection> {
        if !dhow_network::is_unused(connection.namespace()) {
            return Some(connection);
        }
        let said = connection.joined.as_ref().map(|joined| Message {
            endpoint: joined.endpoint.clone(),
            folder: joined.folder.path.clone(),
        });
        let text = serde_json::to_vec(&said);
        let mut fds = vec![connection.namespace()];
        fds.extend(connection.joined.as_ref().map(|joined| joined.folder.lock()));
        let sent = text.is_ok_and(|text| {
            text.len() <= MAX_MESSAGE && dhow_sys::fd::send(&self.give, &text, &fds).is_ok()
        });
        if !sent {
            return Some(connection);
        }
        // It lives on with the lock that is on its way.
        if let Some(joined) = connection.joined {
            joined.folder.hand_over();
        }
        None
    }

    /// Closes all that are there.
    pub(crate) fn close(&self, engine: &Engine) {
        while let Some(connection) = self.take() {
            connection.close(engine);
        }
    }
}
