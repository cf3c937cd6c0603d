use std::collections::HashSet;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use dhow_types::{ContainerId, ErrorKind};

use crate::{CreateNetwork, Endpoint, EndpointRequest, Error, Network};

/// The networks under one root.
#[derive(Clone, Debug)]
pub struct Networks {
    #[expect(dead_code, reason = "filled in by the next commit")]
    directory: PathBuf,
}

fn later<T>() -> Result<T, Error> {
    Err(Error::new(ErrorKind::Unsupported, "networks are not there yet"))
}

/// A new network namespace with its loopback interface up. The calling process must be single-threaded:
/// it enters the new namespace and comes back.
///
/// # Errors
/// Those of unshare(2) and setns(2).
pub fn sandbox() -> Result<OwnedFd, Error> {
    later()
}

impl Networks {
    /// The networks under `root`/networks.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Ok(Self {
            directory: root.join("networks"),
        })
    }

    /// Creates a network; the bridge device is made at the first attach.
    ///
    /// # Errors
    /// `AlreadyExists` for a name in use, `InvalidArgument`, `PermissionDenied` for an overlapping range,
    /// `Unsupported` for other drivers.
    pub fn create(&self, _: &CreateNetwork) -> Result<Network, Error> {
        later()
    }

    /// Every network by name, with `bridge`, `host` and `none`.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn list(&self) -> Result<Vec<Network>, Error> {
        later()
    }

    /// The network with this name, id or unambiguous id prefix.
    ///
    /// # Errors
    /// `NotFound`, `InvalidArgument` for an ambiguous prefix.
    pub fn find(&self, _name: &str) -> Result<Network, Error> {
        later()
    }

    /// The network `bridge`, created at its first use.
    ///
    /// # Errors
    /// As [`Networks::create`].
    pub fn default_bridge(&self) -> Result<Network, Error> {
        later()
    }

    /// Removes a network without endpoints, with its device and rules.
    ///
    /// # Errors
    /// `FailedPrecondition` while it has endpoints, `PermissionDenied` for a predefined one, `NotFound`.
    pub fn remove(&self, _name: &str) -> Result<Network, Error> {
        later()
    }

    /// The containers on a network.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn endpoints(&self, _: &Network) -> Result<Vec<Endpoint>, Error> {
        later()
    }

    /// Puts the namespace on the network. The descriptors hold the published ports of the host for as long
    /// as they are open. Single-threaded callers only: enters the namespace and comes back.
    ///
    /// # Errors
    /// `AlreadyExists` for a port or address in use, `InvalidArgument`, those of the kernel; nothing is left behind.
    pub fn attach(
        &self,
        _: &Network,
        _netns: BorrowedFd<'_>,
        _: &EndpointRequest<'_>,
    ) -> Result<(Endpoint, Vec<OwnedFd>), Error> {
        later()
    }

    /// Takes the endpoint away: link, rules, address, record. All steps are tried; what is gone counts as done.
    ///
    /// # Errors
    /// The steps that failed.
    pub fn detach(&self, _: &Endpoint) -> Result<(), Error> {
        later()
    }

    /// Detaches what containers left that are not in `live`; also leases of an attach that was killed.
    ///
    /// # Errors
    /// The steps that failed.
    pub fn release_stale(&self, _live: &HashSet<ContainerId>) -> Result<Vec<Endpoint>, Error> {
        later()
    }

    /// Makes the rules again from the records when they were flushed; says whether it was needed.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn repair(&self) -> Result<bool, Error> {
        later()
    }

    /// Removes every device and rule of this root (records stay).
    ///
    /// # Errors
    /// The steps that failed.
    pub fn teardown(&self) -> Result<(), Error> {
        later()
    }
}
