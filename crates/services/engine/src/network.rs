//! Networks as the person sees them.

use dhow_network::{CreateNetwork, Driver, Endpoint, Network};
use dhow_types::ContainerId;

use crate::container::Status;
use crate::event::{Event, EventKind};
use crate::{Context as _, Engine, Error};

pub use dhow_network::CreateNetwork as NetworkChoice;

/// A network with the containers on it.
#[derive(Clone, Debug)]
pub struct NetworkView {
    /// The network.
    pub network: Network,
    /// Who is on it.
    pub endpoints: Vec<Endpoint>,
}

impl Engine {
    /// Makes a network.
    ///
    /// # Errors
    /// `AlreadyExists`, `InvalidArgument`, `Unsupported`.
    pub fn create_network(&self, wanted: &CreateNetwork) -> Result<Network, Error> {
        self.reapply_rules();
        let network = self
            .networks()?
            .create(wanted)
            .context(|| format!("create network {}", wanted.name))?;
        self.tell(&of_network(&network, "create"));
        Ok(network)
    }

    /// Writes the packet filter again when somebody flushed it. Only a help: whoever cannot change it, or finds
    /// records that cannot be read, hears of it where it matters, and `system check` says it.
    pub(crate) fn reapply_rules(&self) {
        if let Ok(networks) = self.networks()
            && matches!(networks.is_damaged(), Ok(true))
        {
            drop(networks.repair());
        }
    }

    /// Writes the packet filter's rules of all networks again, if anything is missing.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn repair_rules(&self) -> Result<(), Error> {
        self.networks()?
            .repair()
            .context(|| "write the packet filter's rules again")?;
        Ok(())
    }

    /// Every network, by name.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn list_networks(&self) -> Result<Vec<Network>, Error> {
        self.reapply_rules();
        let mut networks = self.networks()?.list().context(|| "list networks")?;
        networks.extend(self.cni_networks(&networks));
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(networks)
    }

    /// One network and who is on it.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn network(&self, name: &str) -> Result<NetworkView, Error> {
        self.reapply_rules();
        let network = self.any_network(name)?;
        let endpoints = self
            .networks()?
            .endpoints(&network)
            .context(|| "list the containers of the network")?;
        Ok(NetworkView { network, endpoints })
    }

    /// Removes a network that nobody is on.
    ///
    /// # Errors
    /// `FailedPrecondition` while someone is; `NotFound`.
    pub fn remove_network(&self, name: &str) -> Result<Network, Error> {
        self.release_stale()?;
        if let Ok(network) = self.any_network(name)
            && let Some(list) = network
                .options
                .get("list")
                .filter(|_| network.driver == Driver::Cni)
        {
            let message = format!("network {name} is made by CNI plugins and described by {list}");
            return Err(Error::new(dhow_types::ErrorKind::FailedPrecondition, message)
                .with_hint(format!("remove the file {list}")));
        }
        let network = self
            .networks()?
            .remove(name)
            .context(|| format!("remove network {name}"))?;
        self.tell(&of_network(&network, "destroy"));
        Ok(network)
    }

    /// Takes back addresses, ports and rules that killed processes left.
    pub(crate) fn release_stale(&self) -> Result<usize, Error> {
        self.leave_stale_cni(|id| self.claim(id));
        let released = self
            .networks()?
            .release_stale(|id| self.claim(id))
            .context(|| "release stale addresses")?;
        Ok(released.len())
    }

    /// `None` for a container or build step that lives, or is being started: both hold a lock from before they join a
    /// network. Else the lock, which keeps a container from being started while it is held.
    fn claim(&self, id: &str) -> Option<Option<std::os::fd::OwnedFd>> {
        // Records that nobody can read are nobody's.
        let Ok(id) = id.parse::<ContainerId>() else {
            return Some(None);
        };
        if self.is_living_step(&id) {
            return None;
        }
        if !self.containers().folder(&id).exists() {
            return Some(None);
        }
        let lock = self.containers().try_lock(&id).ok().flatten()?;
        // Without its monitor the program may run all the same.
        let runs = self.containers().load(&id).is_ok_and(|container| {
            let ended = matches!(
                container.state.status,
                Status::Exited | Status::Created | Status::Dead
            );
            !ended || container.state.newborn.is_some()
        });
        (!runs).then_some(Some(lock))
    }

    /// Removes what this root has in the kernel: bridges, rules and the parent of its control groups. Records stay, and the next container makes
    /// it all again.
    ///
    /// # Errors
    /// `FailedPrecondition` while a container runs; the steps that failed.
    pub fn teardown(&self) -> Result<(), Error> {
        let running = self
            .containers()
            .list()?
            .into_iter()
            .find(|container| container.state.pid != 0);
        if let Some(container) = running {
            let message = format!("container {} runs", container.config.name);
            return Err(
                Error::new(dhow_types::ErrorKind::FailedPrecondition, message).with_hint("stop it first")
            );
        }
        self.release_stale()?;
        self.networks()?
            .teardown()
            .context(|| "remove bridges and rules")?;
        self.remove_cgroup_parent()
    }

    /// Removes every network that no container is on; with `wanted_too` also those that only containers which do not run
    /// want, as docker does.
    ///
    /// # Errors
    /// What a removal said.
    pub fn prune_networks(&self, wanted_too: bool) -> Result<Vec<String>, Error> {
        self.release_stale()?;
        let mut containers = self.containers().list()?;
        containers.retain(|container| !wanted_too || container.state.pid != 0);
        let mut removed = Vec::new();
        for network in self.list_networks()? {
            let wanted = containers
                .iter()
                .flat_map(|container| &container.config.networks)
                .any(|attachment| attachment.network == network.name);
            if network.is_predefined() || network.driver == Driver::Cni || wanted {
                continue;
            }
            // One that is being started is on it already.
            if self.network(&network.name)?.endpoints.is_empty() {
                self.remove_network(&network.name)?;
                removed.push(network.name);
            }
        }
        // Docker counts bytes of networks, too, and always none.
        self.tell(&Event::now(EventKind::Network, "prune", "").with("reclaimed", 0));
        Ok(removed)
    }
}

/// A port of the host that leads to a container.
#[derive(Clone, Debug, PartialEq)]
pub struct Opening {
    /// The container's name.
    pub container: String,
    /// The network by which it is reached.
    pub network: String,
    /// The port.
    pub port: dhow_network::PublishedPort,
    /// Whether the host's input rules decide who gets through; else the container is reached past them.
    pub filtered: bool,
}

impl Engine {
    /// All ports of the host that lead to a container which runs.
    ///
    /// # Errors
    /// When the containers cannot be listed.
    pub fn openings(&self) -> Result<Vec<Opening>, Error> {
        // A normal user's are carried by a process of theirs, which listens as any other does.
        let user = !crate::rootless::is_rootful();
        let mut openings = Vec::new();
        for container in self
            .containers()
            .brief()?
            .into_iter()
            .filter(|one| one.state.pid != 0)
        {
            for endpoint in &container.state.endpoints {
                openings.extend(endpoint.ports.iter().map(|port| Opening {
                    container: container.config.name.clone(),
                    network: endpoint.network.clone(),
                    port: port.clone(),
                    // Plugins lead them on as our own packet filter does.
                    filtered: user || endpoint.relays(port) && !endpoint.device.is_empty(),
                }));
            }
        }
        openings.sort_by_key(|one| (one.port.host_port, one.port.protocol, one.port.host_ip));
        Ok(openings)
    }
}

fn of_network(network: &Network, action: &str) -> Event {
    Event::now(EventKind::Network, action, network.id.to_string())
        .with("name", &network.name)
        .with("type", network.driver)
}
