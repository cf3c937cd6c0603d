//! The packet filter: one table of family inet whose rules never change. Networks and published ports are elements of
//! its sets and maps, so that publishing a port is one element and a packet costs one hash lookup however many there are.
//!
//! ```text
//! sets   bridges      every bridge of this root
//!        same         bridge . bridge: traffic that stays on its network
//!        internal     bridges without a way out
//!        outbound     bridges whose packets get an address of the host when they leave
//!        sources4     the ranges of the networks (and sources6)
//!        closed6      interfaces of the host between which nothing forwarded IPv6 before us
//! maps   published4   protocol . host address . port : container address . port      (and published6)
//!        everywhere4  protocol . port : container address . port                     (and everywhere6)
//! raw         drops 127/8 from any wire: with route_localnet a neighbour could else reach the host's loopback, and
//!             ports published on 127.0.0.1 (CVE-2020-8558 and moby 45610)
//! prerouting  what is for this host: look it up in the maps
//! output      the same for the host's own connections
//! postrouting loopback sources and hairpins get the bridge's address; outbound traffic gets the host's
//! forward     internal bridges are closed; into a bridge come only answers and what was published; IPv6 is not
//!             forwarded between other interfaces only because it is for ours
//! ```
//! What the maps lead to a container goes the way of forwarded packets and meets no input chain of the host. The ports of a
//! network with `com.dhow.firewall=host` are in no map: a relay listens for them, as any server of the host does.
//! Table and sets have no owner flag: they outlive the process, and an administrator can see and flush them;
//! whoever watches, or the next attach, writes everything again from the records. `iifname` in postrouting needs Linux 5.7.

mod answers;
mod conntrack;
mod encode;
mod redirect;
mod rules;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::io::Errno;

use crate::netlink::{Attributes, Batch, Socket, route};
use ipnet::IpNet;

use crate::{Endpoint, Network, PublishedPort};
pub(crate) use answers::mark_answers;
pub(crate) use encode::{EVENTS, TABLE_NAME, takes_away};
pub(crate) use redirect::redirect_dns;

use encode::Element;
use rules::{FORWARD, LAYOUT, write_rules, write_sets};

/// An interface name as the packet path keeps it.
const IFNAMSIZ: usize = 16;

/// The table of one root in the namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Firewall {
    socket: Socket,
    table: String,
}

impl Firewall {
    /// The table with this name, there or not.
    pub(crate) fn open(table: &str) -> io::Result<Self> {
        Ok(Self {
            socket: Socket::netfilter()?,
            table: table.to_owned(),
        })
    }

    /// Whether the table is there with all its rules and knows this bridge. Two or three questions in one send.
    pub(crate) fn is_whole(&mut self, network: Option<&Network>) -> io::Result<bool> {
        let mut batch = Batch::new();
        encode::get_chain(&mut batch, &self.table, LAYOUT);
        encode::get_chain(&mut batch, &self.table, "forward");
        for element in network.map(device_elements).unwrap_or_default() {
            encode::find_element(&mut batch, &self.table, &element);
        }
        let mut rules = 0;
        let refused = self.socket.exchange(&mut batch, &mut |kind, payload| {
            if kind == encode::CHAIN {
                rules += Attributes::after(payload, 4).be32(encode::CHAIN_USE).unwrap_or(0);
            }
        })?;
        match refused.iter().find(|refusal| refusal.errno != Errno::NOENT) {
            Some(refusal) => Err(refusal.errno.into()),
            None => {
                Ok(refused.is_empty() && usize::try_from(rules).is_ok_and(|rules| rules == FORWARD.len()))
            }
        }
    }

    /// Writes the whole table anew, in one transaction.
    pub(crate) fn rebuild(
        &mut self,
        networks: &[Network],
        endpoints: &[Endpoint],
        closed6: &[String],
    ) -> io::Result<()> {
        let table = &self.table;
        let mut batch = Batch::new();
        encode::transaction(&mut batch, |batch| {
            // Deleting needs a table that is there, creating does not mind one.
            encode::new_table(batch, table);
            encode::delete_table(batch, table);
            encode::new_table(batch, table);
            write_sets(batch, table);
            write_rules(batch, table);
            let mut all: Vec<Element> = networks.iter().flat_map(network_elements).collect();
            all.extend(endpoints.iter().flat_map(endpoint_elements));
            all.extend(closed_elements(closed6));
            all.sort();
            // Two records for one port cannot be (the port was reserved); if one is stale, either will do, but a
            // double key would fail the transaction.
            all.dedup_by(|a, b| (a.set, &a.key, a.start) == (b.set, &b.key, b.start));
            encode::add_elements(batch, table, &all);
        });
        self.socket.allow(batch.size())?;
        self.socket.demand(&mut batch, &mut |_, _| ())
    }

    /// Forwards no IPv6 from one of these interfaces to another.
    pub(crate) fn close6(&mut self, interfaces: &[String]) -> io::Result<()> {
        self.add(&closed_elements(interfaces))
    }

    /// Adds the network's bridge.
    pub(crate) fn add_network(&mut self, network: &Network) -> io::Result<()> {
        self.add(&network_elements(network))
    }

    /// Publishes the ports of an endpoint.
    pub(crate) fn publish(&mut self, endpoint: &Endpoint) -> io::Result<()> {
        self.add(&endpoint_elements(endpoint))
    }

    /// Lets the flows to the UDP ports of an endpoint begin anew.
    pub(crate) fn forget_flows(&mut self, endpoint: &Endpoint) -> io::Result<()> {
        conntrack::forget(&mut self.socket, &endpoint.ports)
    }

    /// Takes the network's bridge away.
    pub(crate) fn remove_network(&mut self, network: &Network) -> io::Result<()> {
        self.remove(&network_elements(network))
    }

    /// Ends the publishing of an endpoint's ports. A port that another endpoint has by now is left alone.
    pub(crate) fn unpublish(&mut self, endpoint: &Endpoint) -> io::Result<()> {
        let elements = endpoint_elements(endpoint);
        if elements.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for element in &elements {
            encode::find_element(&mut batch, &self.table, element);
        }
        let mut values = Vec::new();
        self.socket.exchange(&mut batch, &mut |kind, payload| {
            if kind == encode::ELEMENT {
                values.extend(element_value(payload));
            }
        })?;
        // The value names the container's address, which stays leased until the end of a detach.
        let own: Vec<Element> = elements
            .into_iter()
            .filter(|element| values.contains(&element.data))
            .collect();
        self.remove(&own)?;
        if own.is_empty() {
            Ok(())
        } else {
            self.forget_flows(endpoint)
        }
    }

    /// Removes the table.
    pub(crate) fn delete(&mut self) -> io::Result<()> {
        match self.change(encode::delete_table) {
            Err(error) if route::is(&error, Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    fn add(&mut self, elements: &[Element]) -> io::Result<()> {
        if elements.is_empty() {
            return Ok(());
        }
        match self.change(|batch, table| encode::add_elements(batch, table, elements)) {
            // Another value under this key: left by a container that died with its records. We hold the port.
            Err(error) if route::is(&error, Errno::BUSY) || route::is(&error, Errno::EXIST) => {
                self.remove(elements)?;
                self.change(|batch, table| encode::add_elements(batch, table, elements))
            }
            other => other,
        }
    }

    /// Removes elements; those that are not there are done.
    fn remove(&mut self, elements: &[Element]) -> io::Result<()> {
        if elements.is_empty() {
            return Ok(());
        }
        match self.change(|batch, table| encode::delete_elements(batch, table, elements)) {
            Err(error) if route::is(&error, Errno::NOENT) => {}
            other => return other,
        }
        // One was missing and the kernel did none of them: one by one.
        for element in elements {
            match self
                .change(|batch, table| encode::delete_elements(batch, table, std::slice::from_ref(element)))
            {
                Err(error) if route::is(&error, Errno::NOENT) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// One transaction.
    fn change(&mut self, body: impl FnOnce(&mut Batch, &str)) -> io::Result<()> {
        let mut batch = Batch::new();
        encode::transaction(&mut batch, |batch| body(batch, &self.table));
        self.socket.demand(&mut batch, &mut |_, _| ())
    }
}

/// The value in an answer to `get_element`.
fn element_value(payload: &[u8]) -> Option<Vec<u8>> {
    let list = Attributes::after(payload, 4).find(encode::ELEMENTS)?;
    let element = Attributes::new(list).find(encode::LIST_ELEM)?;
    let data = Attributes::new(element).find(encode::ELEM_DATA)?;
    Attributes::new(data).find(encode::DATA_VALUE).map(<[u8]>::to_vec)
}

fn ifname(device: &str) -> [u8; IFNAMSIZ] {
    let mut raw = [0; IFNAMSIZ];
    for (out, byte) in raw.iter_mut().zip(device.bytes().take(IFNAMSIZ - 1)) {
        *out = byte;
    }
    raw
}

/// One element of a set.
fn element(set: &'static str, key: &[u8]) -> Element {
    Element {
        set,
        key: key.to_vec(),
        start: true,
        data: Vec::new(),
    }
}

fn closed_elements(interfaces: &[String]) -> Vec<Element> {
    let both = |name: &String| {
        let name = ifname(name);
        // With br_netfilter a frame on its way through a bridge of the host's comes from where it goes.
        [element("closed6", &name), element("same", &[name, name].concat())]
    };
    let mut all: Vec<Element> = interfaces.iter().flat_map(both).collect();
    all.sort();
    all
}

fn device_elements(network: &Network) -> Vec<Element> {
    if network.device.is_empty() {
        return Vec::new();
    }
    let name = ifname(&network.device);
    let mut all = vec![element("bridges", &name), element("same", &[name, name].concat())];
    if network.internal {
        all.push(element("internal", &name));
    } else if network.masquerade {
        all.push(element("outbound", &name));
    }
    all
}

fn network_elements(network: &Network) -> Vec<Element> {
    let mut all = device_elements(network);
    // Without a bridge there is nothing to filter.
    for subnet in network.subnets.iter().filter(|_| !network.device.is_empty()) {
        all.extend(range_elements(subnet.subnet));
    }
    all
}

/// Start of the range and the address behind its end; a range up to the last address has no end.
fn range_elements(net: IpNet) -> Vec<Element> {
    let (set, first, behind) = match net {
        IpNet::V4(net) => {
            let behind = u32::from(net.broadcast())
                .checked_add(1)
                .map(|raw| raw.to_be_bytes().to_vec());
            ("sources4", net.network().octets().to_vec(), behind)
        }
        IpNet::V6(net) => {
            let behind = u128::from(net.broadcast())
                .checked_add(1)
                .map(|raw| raw.to_be_bytes().to_vec());
            ("sources6", net.network().octets().to_vec(), behind)
        }
    };
    let element = |key, start| Element {
        set,
        key,
        start,
        data: Vec::new(),
    };
    [Some(element(first, true)), behind.map(|key| element(key, false))]
        .into_iter()
        .flatten()
        .collect()
}

fn endpoint_elements(endpoint: &Endpoint) -> Vec<Element> {
    if endpoint.filtered {
        // Led to the container by the filter, what comes would pass the host's input chains by.
        return Vec::new();
    }
    endpoint
        .ports
        .iter()
        .filter_map(|port| port_element(endpoint, port))
        .collect()
}

fn port_element(endpoint: &Endpoint, port: &PublishedPort) -> Option<Element> {
    let mut key = vec![port.protocol.number(), 0, 0, 0];
    let mut data = Vec::with_capacity(20);
    let set = match port.host_ip {
        IpAddr::V4(host) => {
            data.extend_from_slice(&endpoint.ip.octets());
            if host == Ipv4Addr::UNSPECIFIED {
                "everywhere4"
            } else {
                key.extend_from_slice(&host.octets());
                "published4"
            }
        }
        IpAddr::V6(host) => {
            data.extend_from_slice(&endpoint.ip6?.octets());
            if host == Ipv6Addr::UNSPECIFIED {
                "everywhere6"
            } else {
                key.extend_from_slice(&host.octets());
                "published6"
            }
        }
    };
    key.extend_from_slice(&port.host_port.to_be_bytes());
    key.extend_from_slice(&[0; 2]);
    data.extend_from_slice(&port.container_port.to_be_bytes());
    data.extend_from_slice(&[0; 2]);
    Some(Element {
        set,
        key,
        start: true,
        data,
    })
}
