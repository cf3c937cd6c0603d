//! `network connect` and `network disconnect`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;

use dhow_network::{DEFAULT_BRIDGE, EndpointRequest, Network};
use dhow_types::ErrorKind;

use super::folder::Container;
use super::record::{Attachment, NetworkMode};
use super::stop::open_process;
use crate::event::Event;
use crate::{Context as _, Engine, Error};

/// What `network connect`'s flags say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectRequest {
    /// Name or id of the network.
    pub network: String,
    /// Name or id of the container.
    pub container: String,
    /// Further names of the container there.
    pub aliases: Vec<String>,
    /// The address to have there.
    pub ip: Option<Ipv4Addr>,
    /// The IPv6 address to have there.
    pub ip6: Option<Ipv6Addr>,
    /// The hardware address to have there.
    pub mac: Option<String>,
}

impl Engine {
    /// Puts a container on one more network: at once when it runs, and at every start from now on. Gives a warning for
    /// what only the next start brings. Single-threaded callers only: enters the container's namespace and comes back.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` for a container without networks of its own; `AlreadyExists` when it is there.
    pub fn connect_network(&self, wanted: &ConnectRequest) -> Result<Option<String>, Error> {
        let container = self.containers().find(&wanted.container)?;
        let id = &container.config.id;
        let _edit = self.containers().edit(id)?;
        let container = self.containers().load(id)?;
        let network = self.network_for(&wanted.network)?;
        check(&container, &network, wanted)?;
        let attachment = Attachment {
            network: network.name.clone(),
            aliases: wanted.aliases.clone(),
            ip: wanted.ip,
            ip6: wanted.ip6,
            mac: wanted.mac.clone(),
            interface: None,
        };
        let mac = super::life::hardware_address(wanted.mac.as_deref())?;
        let mut warning = None;
        let mut config = container.config.clone();
        if open_process(&container)?.is_some() {
            let netns = self.namespace_of(id, "net")?;
            let request = EndpointRequest {
                container: id,
                name: &config.name,
                aliases: &attachment.aliases,
                hostname: &config.request.hostname,
                ip: attachment.ip,
                ip6: attachment.ip6,
                mac,
                interface: None,
                ports: &[],
                held: &container.state.parked,
            };
            let (endpoint, _) = self
                .networks()?
                .attach(&network, netns.as_fd(), &request)
                .context(|| format!("join the network {}", network.name))?;
            let names = self.has_names(&container)?;
            if network.has_names() && !names {
                let text = "names of this network are resolved in the container after its next start";
                warning = Some(text.to_owned());
            }
            self.tell(&Event::of_place(&endpoint, "connect"));
            self.change_hosts(&config, None, Some(endpoint.ip.into()))?;
            self.containers().change_state(id, |state| {
                state.parked.retain(|port| !endpoint.ports.contains(port));
                state.endpoints.push(endpoint);
            })?;
        }
        config.network = NetworkMode::Networks;
        config.networks.push(attachment);
        self.containers().write_config(&config)?;
        Ok(warning)
    }

    /// Takes a container off a network. With `force`, a network that is gone is taken out of its record too.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when it is not on the network.
    pub fn disconnect_network(&self, network: &str, container: &str, force: bool) -> Result<(), Error> {
        let container = self.containers().find(container)?;
        let id = &container.config.id;
        let _edit = self.containers().edit(id)?;
        let mut config = self.containers().load(id)?.config;
        let name = match self.network_for(network) {
            Err(error) if force && error.kind() == ErrorKind::NotFound => network.to_owned(),
            found => found?.name,
        };
        if config.network == NetworkMode::Host {
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                "container cannot be disconnected from host network or connected to host network",
            ));
        }
        let before = config.networks.len();
        config.networks.retain(|attachment| attachment.network != name);
        if config.networks.len() == before {
            let message = format!("container {id} is not connected to network {name}");
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        }
        let networks = self.networks()?;
        let endpoints = networks
            .endpoints_of(id)
            .context(|| "find the container's places")?;
        let running = open_process(&container)?.is_some();
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.network == name) {
            if running {
                let netns = self.namespace_of(id, "net")?;
                networks
                    .unplug_from_parent(netns.as_fd(), endpoint)
                    .context(|| format!("take the interface of network {name} out of the container"))?;
            }
            networks
                .detach(endpoint)
                .context(|| format!("leave the network {name}"))?;
            self.tell(&Event::of_place(endpoint, "disconnect"));
            if running {
                self.change_hosts(&container.config, Some(endpoint.ip.into()), None)?;
            }
        }
        self.containers().change_state(id, |state| {
            let gone = |endpoint: &&dhow_network::Endpoint| endpoint.network == name;
            let ports = state
                .endpoints
                .iter()
                .filter(gone)
                .flat_map(|gone| gone.ports.clone());
            let ports: Vec<_> = ports.collect();
            state.parked.extend(ports);
            state.endpoints.retain(|endpoint| endpoint.network != name);
        })?;
        if running {
            self.move_parked(id)?;
        }
        if config.networks.is_empty() {
            config.network = NetworkMode::None;
        }
        self.containers().write_config(&config)
    }

    /// Publishes ports of a place that a running container left at the first of those that it has, as podman does.
    fn move_parked(&self, id: &dhow_types::ContainerId) -> Result<(), Error> {
        let state = self.containers().load_state(id)?;
        for endpoint in &state.endpoints {
            let moved = self
                .networks()?
                .move_ports(endpoint, &state.parked)
                .context(|| "publish the container's ports")?;
            if moved.is_empty() {
                continue;
            }
            return self.containers().change_state(id, |state| {
                state.parked.retain(|port| !moved.contains(port));
                let same = |other: &&mut dhow_network::Endpoint| other.network == endpoint.network;
                if let Some(place) = state.endpoints.iter_mut().find(same) {
                    place.ports.extend(moved.iter().cloned());
                }
            });
        }
        Ok(())
    }

    fn network_for(&self, name: &str) -> Result<Network, Error> {
        self.reapply_rules();
        if name == DEFAULT_BRIDGE {
            let bridge = self.networks()?.default_bridge();
            return bridge.context(|| format!("look at network {name}"));
        }
        let network = self.any_network(name)?;
        if network.driver == dhow_network::Driver::Cni {
            let message =
                format!("network {name} is made by CNI plugins: a container joins it when it starts");
            return Err(Error::new(ErrorKind::Unsupported, message)
                .with_hint("name it with --network of run or create"));
        }
        Ok(network)
    }

    /// Whether a name server was made for the container when it started.
    fn has_names(&self, container: &Container) -> Result<bool, Error> {
        // The networks of its start may be others by now; the file of its start says who answers.
        let path = self.containers().folder(&container.config.id).join("resolv.conf");
        let text = std::fs::read_to_string(&path).context(|| format!("read {}", path.display()))?;
        let own = format!("nameserver {}", dhow_network::dns::ADDRESS);
        Ok(text.lines().any(|line| line == own))
    }
}

/// Docker's rules, in its words.
fn check(container: &Container, network: &Network, wanted: &ConnectRequest) -> Result<(), Error> {
    let config = &container.config;
    let refuse = |kind, why: String| Err(Error::new(kind, why));
    let precondition = ErrorKind::FailedPrecondition;
    match &config.network {
        NetworkMode::Host => {
            let why = "container cannot be disconnected from host network or connected to host network";
            return refuse(precondition, why.to_owned());
        }
        NetworkMode::Container(_) | NetworkMode::Namespace(_) => {
            let why = "container sharing network namespace with another container or host cannot be connected to any \
                       other network";
            return refuse(precondition, why.to_owned());
        }
        NetworkMode::None | NetworkMode::Networks => {}
    }
    if network.name == dhow_network::HOST {
        let why = "container cannot be disconnected from host network or connected to host network";
        return refuse(precondition, why.to_owned());
    }
    if network.name == dhow_network::NONE {
        let why = "container cannot be connected to multiple networks with one of the networks in private (none) mode";
        return refuse(precondition, why.to_owned());
    }
    if config
        .networks
        .iter()
        .any(|attachment| attachment.network == network.name)
    {
        let why = format!(
            "endpoint with name {} already exists in network {}",
            config.name, network.name
        );
        return refuse(ErrorKind::AlreadyExists, why);
    }
    if !network.has_names() && !wanted.aliases.is_empty() {
        let why = "network-scoped alias is supported only for containers in user defined networks";
        return refuse(ErrorKind::InvalidArgument, why.to_owned());
    }
    if network.name == DEFAULT_BRIDGE && wanted.ip.is_some() {
        let why = "user specified IP address is supported on user defined networks only";
        return refuse(ErrorKind::InvalidArgument, why.to_owned());
    }
    Ok(())
}
