//! Networks that plugins of the Container Network Interface make, beside our own.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use dhow_cni::{Added, NetworkList, Place, Plugins};
use dhow_network::{Driver, Endpoint, MacAddress, Network, PortMapping, PublishedPort};
use dhow_types::{ContainerId, Digest, ErrorKind, Failures, NetworkId};
use serde_json::{Map, Value, json};

use crate::container::{Attachment, Config, Container, Status};
use crate::{Context as _, Engine, Error};

/// How long one plugin may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where lists and plugins are, where a person says so; the usual places when empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniFolders {
    /// Folders of lists (`NETCONFPATH`).
    pub lists: Vec<PathBuf>,
    /// Folders of plugins (`CNI_PATH`).
    pub programs: Vec<PathBuf>,
}

impl Engine {
    pub(crate) fn cni(&self) -> Plugins {
        let settings = self.settings();
        let or = |named: &[PathBuf], usual: &[&str]| match named {
            [] => usual.iter().map(PathBuf::from).collect(),
            named => named.to_vec(),
        };
        Plugins {
            lists: or(&settings.cni.lists, &[dhow_cni::LISTS]),
            programs: or(&settings.cni.programs, &dhow_cni::PLUGINS),
            records: settings.root.join("cni"),
            patience: PATIENCE,
        }
    }

    /// The network of this name or id: one of ours, or one that a list describes.
    pub(crate) fn any_network(&self, name: &str) -> Result<Network, Error> {
        let found = self.networks()?.find(name);
        let missing = matches!(&found, Err(error) if error.kind() == ErrorKind::NotFound);
        let list = if missing { self.list_of(name) } else { Ok(None) };
        let found = match list {
            Ok(Some(list)) => return Ok(as_network(&list)),
            Ok(None) => found,
            // It may have been this one; most likely the name is wrong.
            Err(unreadable) => found.map_err(|error| error.with_hint(said(&unreadable))),
        };
        found.context(|| format!("look at network {name}"))
    }

    fn list_of(&self, name: &str) -> Result<Option<NetworkList>, Error> {
        self.cni()
            .find(name)
            .context(|| format!("look for network {name}"))
    }

    /// The networks that lists describe, but for those whose name one of ours has.
    pub(crate) fn cni_networks(&self, ours: &[Network]) -> Vec<Network> {
        let lists = self.cni().networks();
        let lists = lists
            .iter()
            .filter(|list| ours.iter().all(|own| own.name != list.name()));
        lists.map(as_network).collect()
    }

    /// Puts a container on a network by its plugins.
    pub(crate) fn join_cni(
        &self,
        config: &Config,
        attachment: &Attachment,
        number: usize,
        netns: BorrowedFd<'_>,
    ) -> Result<(Endpoint, Vec<String>), Error> {
        if !crate::rootless::is_rootful() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "network {} is made by CNI plugins, which need root",
                    attachment.network
                ),
            ));
        }
        let missing = || {
            Error::new(
                ErrorKind::NotFound,
                format!("network {} not found", attachment.network),
            )
        };
        let list = self.list_of(&attachment.network)?.ok_or_else(missing)?;
        let interface = attachment
            .interface
            .clone()
            .unwrap_or_else(|| format!("eth{number}"));
        let ports = if number == 0 { &config.ports[..] } else { &[] };
        let path = path_of(netns);
        let plugins = self.cni();
        if plugins.interfaces(&config.id).contains(&interface) {
            // Of a start that was killed, or whose end a plugin did not like.
            drop(plugins.delete(&config.id, &interface, None));
        }
        let place = Place {
            container: &config.id,
            netns: &path,
            interface: &interface,
            runtime: runtime(attachment, ports)?,
        };
        let added = plugins
            .add(&list, &place)
            .context(|| format!("join the network {}", list.name()))?;
        let endpoint = endpoint(config, attachment, &list, &interface, &added, ports);
        Ok((endpoint, added.dns.nameservers))
    }

    /// Takes a container off the networks of plugins: whatever is remembered of it. Some take back more where its network namespace is
    /// still there. The caller has the container's lock.
    pub(crate) fn leave_cni(&self, id: &ContainerId, netns: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        let plugins = self.cni();
        let path = netns.map(path_of);
        let mut failures = Failures::new();
        for interface in plugins.interfaces(id) {
            failures.record(
                "leave a network by its plugins",
                plugins.delete(id, &interface, path.as_deref()),
            );
        }
        failures
            .into_result()
            .map_err(|failures| Error::wrap(failures, "leave the networks of plugins"))
    }

    /// What plugins say of a running container's interfaces that are not as they made them (`CHECK`).
    pub(crate) fn check_cni(&self, container: &Container) -> Vec<String> {
        let (plugins, id) = (self.cni(), &container.config.id);
        let interfaces = plugins.interfaces(id);
        if interfaces.is_empty() || container.state.status != Status::Running {
            return Vec::new();
        }
        let runs = || {
            let now = self.containers().load(id);
            now.is_ok_and(|now| now.state.pid == container.state.pid && now.state.status == Status::Running)
        };
        let Ok(netns) = self.namespace_of(id, "net") else {
            return Vec::new();
        };
        let path = path_of(netns.as_fd());
        let mut found = Vec::new();
        for interface in interfaces {
            if let Err(error) = plugins.check(id, &interface, &path)
                // What ended meanwhile has left.
                && runs()
            {
                found.push(format!(
                    "container {}: interface {interface} is not as its plugins made it: {}",
                    id.short(),
                    said(&error)
                ));
            }
        }
        found
    }

    /// [`Engine::leave_cni`] for containers that are gone: for which `claim` gives something, which is held meanwhile.
    pub(crate) fn leave_stale_cni<G>(&self, claim: impl Fn(&str) -> Option<G>) {
        let entries = std::fs::read_dir(self.cni().records)
            .into_iter()
            .flatten()
            .flatten();
        for entry in entries {
            let id = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<ContainerId>().ok());
            if let Some(id) = id
                && let Some(_claimed) = claim(id.as_str())
            {
                // The record stays for the next who looks.
                drop(self.leave_cni(&id, None));
            }
        }
    }
}

/// An error with what it comes from, in one line.
fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// A descriptor's path for other processes.
fn path_of(netns: BorrowedFd<'_>) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd()).into()
}

/// What lists and `inspect` show of it.
fn as_network(list: &NetworkList) -> Network {
    Network {
        format: 1,
        id: NetworkId::from_random(*Digest::of(format!("cni network {}", list.name()).as_bytes()).as_bytes()),
        name: list.name().to_owned(),
        driver: Driver::Cni,
        device: String::new(),
        parent: String::new(),
        mode: String::new(),
        names: false,
        default_route: true,
        created: 0,
        subnets: Vec::new(),
        internal: false,
        attachable: false,
        labels: Default::default(),
        options: [
            ("type".to_owned(), list.kind().to_owned()),
            ("list".to_owned(), list.path().display().to_string()),
        ]
        .into(),
        mtu: None,
        masquerade: false,
        icc: true,
        dns: Vec::new(),
    }
}

/// What plugins that take it are told (CNI `CONVENTIONS.md`).
fn runtime(attachment: &Attachment, ports: &[PortMapping]) -> Result<Map<String, Value>, Error> {
    let mut runtime = Map::new();
    let addresses: Vec<String> = [attachment.ip.map(IpAddr::V4), attachment.ip6.map(IpAddr::V6)]
        .into_iter()
        .flatten()
        .map(|ip| ip.to_string())
        .collect();
    if !addresses.is_empty() {
        runtime.insert("ips".to_owned(), addresses.into());
    }
    if let Some(mac) = &attachment.mac {
        runtime.insert("mac".to_owned(), mac.clone().into());
    }
    if !attachment.aliases.is_empty() {
        let aliases = json!({ &attachment.network: attachment.aliases });
        runtime.insert("aliases".to_owned(), aliases);
    }
    let mut mappings = Vec::new();
    for port in ports {
        let Some(host_port) = port.host_port.filter(|_| port.host_last.is_none()) else {
            let message = format!(
                "port {}/{} has no certain port of the host, which network {} needs",
                port.container_port, port.protocol, attachment.network
            );
            return Err(
                Error::new(ErrorKind::InvalidArgument, message).with_hint("name it: --publish 8080:80")
            );
        };
        let mut mapping = json!({
            "hostPort": host_port,
            "containerPort": port.container_port,
            "protocol": port.protocol.to_string(),
        });
        if let Some(ip) = port.host_ip {
            mapping["hostIP"] = ip.to_string().into();
        }
        mappings.push(mapping);
    }
    if !mappings.is_empty() {
        runtime.insert("portMappings".to_owned(), mappings.into());
    }
    Ok(runtime)
}

/// The place that a container got, for whoever asks where it is.
fn endpoint(
    config: &Config,
    attachment: &Attachment,
    list: &NetworkList,
    interface: &str,
    added: &Added,
    ports: &[PortMapping],
) -> Endpoint {
    let v4 = added.addresses.iter().find(|net| net.addr().is_ipv4());
    let v6 = added.addresses.iter().find(|net| net.addr().is_ipv6());
    let ip = match v4.map(|net| net.addr()) {
        Some(IpAddr::V4(ip)) => ip,
        _ => Ipv4Addr::UNSPECIFIED,
    };
    let mut gateways = (None, None);
    for gateway in &added.gateways {
        match gateway {
            IpAddr::V4(ip) => gateways.0 = Some(*ip),
            IpAddr::V6(ip) => gateways.1 = Some(*ip),
        }
    }
    Endpoint {
        format: 1,
        network: list.name().to_owned(),
        network_id: as_network(list).id,
        device: String::new(),
        container: config.id.clone(),
        name: config.name.clone(),
        aliases: attachment.aliases.clone(),
        hostname: config.request.hostname.clone(),
        veth: String::new(),
        interface: interface.to_owned(),
        ip,
        prefix: v4.map_or(0, |net| net.prefix_len()),
        gateway: gateways.0,
        ip6: v6.and_then(|net| match net.addr() {
            IpAddr::V6(ip) => Some(ip),
            IpAddr::V4(_) => None,
        }),
        prefix6: v6.map_or(0, |net| net.prefix_len()),
        gateway6: gateways.1,
        mac: added.mac.parse().unwrap_or(MacAddress([0; 6])),
        ports: ports
            .iter()
            .filter_map(|port| {
                Some(PublishedPort {
                    host_ip: port.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
                    host_port: port.host_port?,
                    container_port: port.container_port,
                    protocol: port.protocol,
                })
            })
            .collect(),
        // None of them is in our packet filter.
        filtered: true,
    }
}
