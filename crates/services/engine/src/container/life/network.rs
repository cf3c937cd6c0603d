//! A container's way into networks and out of them, seen from its monitor.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Instant;

use dhow_network::{Endpoint, EndpointRequest};
use dhow_types::ErrorKind;
use rustix::thread::UnshareFlags;

use super::{Connection, ContainerLife, SETTLED, hardware_address, namespace_at};
use crate::container::record::NetworkMode;
use crate::container::users::Entered;
use crate::{Context as _, Error};

impl ContainerLife {
    pub(super) fn connect(&self, users: Option<&Entered>) -> Result<Connection, Error> {
        let mut connection = Connection::default();
        match &self.config.network {
            NetworkMode::Host => return Ok(connection),
            NetworkMode::Namespace(path) => {
                connection.netns = Some(namespace_at(path, UnshareFlags::NEWNET, "network")?);
                return Ok(connection);
            }
            NetworkMode::Container(other) => {
                connection.netns = Some(self.engine.namespace_of(other, "net")?);
                return Ok(connection);
            }
            NetworkMode::None | NetworkMode::Networks => {}
        }
        let netns = match users {
            Some(users) => dhow_network::sandbox_of(users.namespace.as_fd()),
            None => dhow_network::sandbox(),
        };
        let netns = netns.context(|| "make the network namespace")?;
        let joined = self.join(netns.as_fd(), &mut connection);
        if let Err(error) = joined {
            // As in `leave`.
            drop(self.engine.leave_cni(&self.config.id, Some(netns.as_fd())));
            self.leave(&connection.endpoints);
            return Err(error);
        }
        connection.netns = Some(netns);
        Ok(connection)
    }

    fn join(&self, netns: BorrowedFd<'_>, connection: &mut Connection) -> Result<(), Error> {
        let (mut names, mut servers) = (false, Vec::new());
        for (index, attachment) in self.config.networks.iter().enumerate() {
            let networks = self.engine.networks()?;
            let network = if attachment.network == "bridge" {
                networks.default_bridge().context(|| "join the network")?
            } else {
                self.engine
                    .any_network(&attachment.network)
                    .context(|| "join the network")?
            };
            if network.driver == dhow_network::Driver::Cni {
                let (endpoint, servers) = self.engine.join_cni(&self.config, attachment, index, netns)?;
                connection.endpoints.push(endpoint);
                connection.servers.extend(servers);
                continue;
            }
            names |= network.has_names();
            servers.extend(network.dns.iter().copied());
            let mac = hardware_address(attachment.mac.as_deref())?;
            let request = EndpointRequest {
                container: &self.config.id,
                name: &self.config.name,
                aliases: &attachment.aliases,
                hostname: &self.config.request.hostname,
                ip: attachment.ip,
                ip6: attachment.ip6,
                mac,
                interface: attachment.interface.as_deref(),
                ports: if index == 0 { &self.config.ports } else { &[] },
                held: &[],
            };
            let join = || networks.attach(&network, netns, &request);
            let joined = join().or_else(|error| {
                // What is taken may be of one that was killed, and gone.
                let taken = matches!(
                    error.kind(),
                    ErrorKind::AlreadyExists | ErrorKind::ResourceExhausted
                );
                if taken && self.engine.release_stale().is_ok() {
                    join()
                } else {
                    Err(error)
                }
            });
            let (endpoint, ports) = joined.context(|| format!("join the network {}", network.name))?;
            connection.endpoints.push(endpoint);
            connection.ports.extend(ports);
        }
        if names {
            connection.resolver = Some(self.resolver(netns, servers)?);
        }
        Ok(())
    }

    /// Who answers for names in the container: asks `servers` of its networks when the person named none.
    pub(super) fn resolver(
        &self,
        netns: BorrowedFd<'_>,
        servers: Vec<std::net::IpAddr>,
    ) -> Result<dhow_network::dns::Server, Error> {
        let own = self.config.dns.iter().filter_map(|ip| ip.parse().ok());
        let mut chosen: Vec<std::net::IpAddr> = own.collect();
        if chosen.is_empty() {
            chosen = servers;
        }
        let upstreams: Vec<_> = chosen.into_iter().map(|ip| (ip, 53).into()).collect();
        let of_host = upstreams.is_empty();
        let root = &self.engine.settings().root;
        let mut server = dhow_network::dns::Server::open(netns, root, &self.config.id, upstreams)
            .context(|| "serve names to the container")?;
        if of_host {
            server.follow("/etc/resolv.conf".into());
        }
        Ok(server)
    }

    /// Begins to carry what comes to the published ports, where the packet filter cannot.
    pub(super) fn publish(&self, network: &mut Connection, init: BorrowedFd<'_>) -> Result<(), Error> {
        network.watch_at = (!network.endpoints.is_empty()).then(|| Instant::now() + SETTLED);
        let held = std::mem::take(&mut network.ports);
        if let Some(endpoint) = network.endpoints.first().filter(|_| !held.is_empty()) {
            let networks = self.engine.networks()?;
            network.published = networks
                .carry(endpoint, held, init)
                .context(|| "publish the container's ports")?;
        }
        Ok(())
    }

    fn leave(&self, endpoints: &[Endpoint]) {
        if let Ok(networks) = self.engine.networks() {
            for endpoint in endpoints {
                // What cannot be taken back now is found as stale by the next attach or `system prune`.
                drop(networks.detach(endpoint));
            }
        }
    }

    /// Takes the container off its networks for everyone else; the kernel's part is left for [`Life::bury`].
    pub(super) fn retire(&mut self, endpoints: &[Endpoint]) {
        if let Ok(networks) = self.engine.networks() {
            // As in `leave`.
            self.retired.extend(
                endpoints
                    .iter()
                    .filter_map(|endpoint| networks.retire(endpoint).ok()),
            );
        }
    }
}
