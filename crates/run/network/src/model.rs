use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use dhow_types::{ContainerId, NetworkId};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What makes a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge device of the host, routed and masqueraded.
    Bridge,
    /// Interfaces with hardware addresses of their own on an interface of the host.
    Macvlan,
    /// Interfaces with the hardware address of an interface of the host.
    Ipvlan,
    /// The host's own network namespace: nothing to attach.
    Host,
    /// A namespace with a loopback interface only.
    Null,
    /// What plugins of the Container Network Interface make of it: not ours to attach.
    Cni,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
            Self::Host => "host",
            Self::Null => "null",
            Self::Cni => "cni",
        })
    }
}

/// One address range of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The range; its host bits are zero.
    pub subnet: IpNet,
    /// Address of the bridge in it.
    pub gateway: IpAddr,
    /// Where addresses are taken from, when narrower than the subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<IpNet>,
    /// Addresses that others have, by a name for each: no container gets them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reserved: BTreeMap<String, IpAddr>,
}

/// A network as it stands in `network.json`: never changed after its creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Version of this document: 1.
    pub format: u32,
    /// Random id.
    pub id: NetworkId,
    /// Unique name, also the name of its directory.
    pub name: String,
    /// What makes it.
    pub driver: Driver,
    /// The bridge device; empty for the others.
    #[serde(default)]
    pub device: String,
    /// The host's interface of a macvlan or ipvlan network; empty for the others.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub parent: String,
    /// How its interfaces treat each other, as macvlan and ipvlan call it; empty for the others.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// Whether containers on it find each other by name.
    #[serde(default = "yes")]
    pub names: bool,
    /// Whether containers get a default route by its gateway.
    #[serde(default = "yes")]
    pub default_route: bool,
    /// Seconds since 1970 at its creation.
    pub created: i64,
    /// The IPv4 range and, in a dual-stack network, the IPv6 range.
    #[serde(default)]
    pub subnets: Vec<Subnet>,
    /// No way out and none in.
    #[serde(default)]
    pub internal: bool,
    /// Whether the person allowed `connect` by hand in a swarm (kept for clients that set it).
    #[serde(default)]
    pub attachable: bool,
    /// Labels, ours to keep and never to obey.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Driver options as given.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// MTU asked for; else that of the uplink is taken when the bridge is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether packets that leave the bridge get an address of the host.
    #[serde(default = "yes")]
    pub masquerade: bool,
    /// Whether containers of this network may talk to each other.
    #[serde(default = "yes")]
    pub icc: bool,
    /// Who answers what is no name of a container; those of the host when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<std::net::IpAddr>,
}

const fn yes() -> bool {
    true
}

impl Network {
    /// The IPv4 range, absent for host and none.
    #[must_use]
    pub fn v4(&self) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.subnet.addr().is_ipv4())
    }

    /// The IPv6 range of a dual-stack network.
    #[must_use]
    pub fn v6(&self) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.subnet.addr().is_ipv6())
    }

    /// Whether this is `bridge`, `host` or `none`, which cannot be removed.
    #[must_use]
    pub fn is_predefined(&self) -> bool {
        matches!(self.name.as_str(), DEFAULT_BRIDGE | HOST | NONE)
    }

    /// Whether containers on it find each other by name: not on the default bridge.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.names && !self.is_predefined()
    }

    /// Whether what comes to published ports is to pass the host's input rules (`com.dhow.firewall=host`).
    #[must_use]
    pub fn is_filtered(&self) -> bool {
        let chosen = self.options.get(crate::options::OPTION_FIREWALL);
        chosen.is_some_and(|chosen| chosen == "host")
    }

    /// Whether its containers have interfaces on an interface of the host, without a bridge and without rules.
    #[must_use]
    pub const fn is_on_parent(&self) -> bool {
        matches!(self.driver, Driver::Macvlan | Driver::Ipvlan)
    }
}

/// Name of the network of a container for which none was asked.
pub const DEFAULT_BRIDGE: &str = "bridge";
/// Name of the pseudo-network that is the host's namespace.
pub const HOST: &str = "host";
/// Name of the pseudo-network that is none.
pub const NONE: &str = "none";

/// Wishes for one address range of a new network.
#[derive(Clone, Debug, Default)]
pub struct SubnetRequest {
    /// The range; chosen when absent.
    pub subnet: Option<IpNet>,
    /// The bridge's address; the first of the range when absent.
    pub gateway: Option<IpAddr>,
    /// Where addresses are taken from.
    pub ip_range: Option<IpNet>,
    /// Addresses that others have, by a name for each.
    pub reserved: BTreeMap<String, IpAddr>,
}

/// What `dhow network create` asks for.
#[derive(Clone, Debug, Default)]
pub struct CreateNetwork {
    /// Unique name.
    pub name: String,
    /// `bridge` when absent; `macvlan`, `ipvlan`. Others are refused.
    pub driver: Option<String>,
    /// At most one IPv4 and one IPv6 range.
    pub subnets: Vec<SubnetRequest>,
    /// No way out and none in.
    pub internal: bool,
    /// Dual stack: an IPv6 range is chosen when none is given. Unsaid, a bridge for which no range is named has one where the
    /// host has IPv6.
    pub ipv6: Option<bool>,
    /// Kept for clients that set it.
    pub attachable: bool,
    /// No names of containers.
    pub nameless: bool,
    /// Who answers what is no name of a container; those of the host when empty.
    pub dns: Vec<std::net::IpAddr>,
    /// The bridge device, or the host's interface of macvlan and ipvlan; also by an option.
    pub interface: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options (`com.docker.network.driver.mtu`, `com.docker.network.bridge.*`); unknown ones are refused.
    pub options: BTreeMap<String, String>,
}

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The locally administered address that belongs to an IPv4 address: a container that gets an address
    /// again has its old hardware address too, so no neighbour holds a wrong cache entry.
    #[must_use]
    pub const fn of(ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([0x02, 0xd8, a, b, c, d])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no hardware address that an interface may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseMacError(String);

impl fmt::Display for ParseMacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "invalid mac address {:?}: {}: write six bytes such as 02:42:ac:11:00:02, unicast",
            self.0,
            // What the kernel would say.
            std::io::Error::from(rustix::io::Errno::ADDRNOTAVAIL)
        )
    }
}

impl std::error::Error for ParseMacError {}

impl FromStr for MacAddress {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseMacError(text.chars().take(32).collect());
        let mut raw = [0u8; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut raw {
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
                .ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        // A multicast or all-zero address cannot be that of an interface (kernel `is_valid_ether_addr`).
        if parts.next().is_some() || raw[0] & 1 == 1 || raw == [0; 6] {
            return Err(bad());
        }
        Ok(Self(raw))
    }
}

impl Serialize for MacAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Transport protocol of a published port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP, where the kernel has it.
    Sctp,
}

impl Protocol {
    /// Number in the IP header (IANA "Protocol Numbers").
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A wish to reach a port of the container by a port of the host. Ranges are expanded by the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Address of the host; every address when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// Port of the host; any free one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
    /// The last port of a range that begins with `host_port`, of which the first free one is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_last: Option<u16>,
    /// Port of the container.
    pub container_port: u16,
    /// Transport protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// A port that is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Address of the host; `0.0.0.0` or `::` for every one.
    pub host_ip: IpAddr,
    /// Port of the host.
    pub host_port: u16,
    /// Port of the container.
    pub container_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// What [`crate::Networks::attach`] is asked for.
#[derive(Clone, Debug)]
pub struct EndpointRequest<'a> {
    /// Who gets the interface.
    pub container: &'a ContainerId,
    /// Name of the container, for DNS; may be empty.
    pub name: &'a str,
    /// Further names on this network.
    pub aliases: &'a [String],
    /// What the container calls itself: one more name, where it is none of the others; may be empty.
    pub hostname: &'a str,
    /// The IPv4 address wanted.
    pub ip: Option<Ipv4Addr>,
    /// The IPv6 address wanted, on a dual-stack network.
    pub ip6: Option<Ipv6Addr>,
    /// The hardware address wanted.
    pub mac: Option<MacAddress>,
    /// The name of the interface wanted; else the first `ethN` that is free.
    pub interface: Option<&'a str>,
    /// Ports to publish.
    pub ports: &'a [PortMapping],
    /// Ports to publish whose sockets somebody holds already: those that the packet filter leads there, on a bridge of root.
    pub held: &'a [PublishedPort],
}

impl<'a> EndpointRequest<'a> {
    /// A request without wishes.
    #[must_use]
    pub const fn new(container: &'a ContainerId) -> Self {
        Self {
            container,
            name: "",
            aliases: &[],
            hostname: "",
            ip: None,
            ip6: None,
            mac: None,
            interface: None,
            ports: &[],
            held: &[],
        }
    }
}

/// One container on one network: `endpoints/<container>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Version of this document: 1.
    pub format: u32,
    /// Name of the network.
    pub network: String,
    /// Id of the network.
    pub network_id: NetworkId,
    /// The bridge device.
    pub device: String,
    /// The container.
    pub container: ContainerId,
    /// Its name.
    pub name: String,
    /// Its further names on this network.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// What it calls itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// The host's end of the pair; empty when there is none (macvlan, ipvlan).
    pub veth: String,
    /// The container's end: `eth0`, `eth1`...
    pub interface: String,
    /// IPv4 address.
    pub ip: Ipv4Addr,
    /// Its prefix length.
    pub prefix: u8,
    /// Default router; absent on an internal network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    /// IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip6: Option<Ipv6Addr>,
    /// Its prefix length, 0 without an address.
    #[serde(default)]
    pub prefix6: u8,
    /// IPv6 default router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<Ipv6Addr>,
    /// Hardware address of the container's end.
    pub mac: MacAddress,
    /// What is published.
    #[serde(default)]
    pub ports: Vec<PublishedPort>,
    /// Whether a relay carries them, so that the host's input rules decide who gets through ([`Network::is_filtered`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub filtered: bool,
}

impl Endpoint {
    /// Whether a relay of this host carries a port, and not the packet filter: what comes to it passes the host's input
    /// rules. Nothing leaves by a wire from `::1`, and IPv6 has no `route_localnet`, so whoever asks for a published port
    /// there needs a relay also for an endpoint with IPv6.
    #[must_use]
    pub fn relays(&self, port: &PublishedPort) -> bool {
        let without_filter = match port.host_ip {
            IpAddr::V4(_) => false,
            IpAddr::V6(ip) => self.ip6.is_none() || matches!(ip, Ipv6Addr::UNSPECIFIED | Ipv6Addr::LOCALHOST),
        };
        self.filtered || without_filter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_of_an_address_is_local_unicast_and_names_the_address() {
        let mac = MacAddress::of(Ipv4Addr::new(10, 88, 0, 2));
        assert_eq!(mac.to_string(), "02:d8:0a:58:00:02");
        assert_eq!(mac.to_string().parse(), Ok(mac));
    }

    #[test]
    fn mac_refuses_multicast_zero_and_other_lengths() {
        for bad in [
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "02:00",
            "02:00:00:00:00:00:00",
            "0g:00:00:00:00:00",
            "+2:00:00:00:00:00",
        ] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
        }
    }
}
