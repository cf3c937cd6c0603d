//! The requests of rtnetlink(7) that networks need, no more.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, BorrowedFd};

use ipnet::IpNet;
use rustix::io::Errno;

use super::{ACK, Attributes, Batch, CREATE, DUMP, EXCLUSIVE, Socket};
use crate::MacAddress;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWRULE: u16 = 32;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_F_NODAD: u8 = 0x02;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RT_SCOPE_HOST: u8 = 254;
const FRA_FWMARK: u16 = 10;
const FR_ACT_TO_TBL: u8 = 1;

const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// `struct ifinfomsg`: family, type, index, flags, change mask.
fn ifinfo(index: u32, flags: u32) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[4..8].copy_from_slice(&index.to_ne_bytes());
    raw[8..12].copy_from_slice(&flags.to_ne_bytes());
    raw[12..16].copy_from_slice(&flags.to_ne_bytes());
    raw
}

fn octets(ip: IpAddr) -> ([u8; 16], usize) {
    let mut raw = [0; 16];
    match ip {
        IpAddr::V4(ip) => {
            raw[..4].copy_from_slice(&ip.octets());
            (raw, 4)
        }
        IpAddr::V6(ip) => (ip.octets(), 16),
    }
}

const fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { AF_INET } else { AF_INET6 }
}

/// A new bridge, down. Its hardware address is fixed, or else it would change with every port.
pub(crate) fn add_bridge(batch: &mut Batch, name: &str, mac: MacAddress) {
    batch.request(RTM_NEWLINK, ACK | CREATE | EXCLUSIVE, &ifinfo(0, 0), |link| {
        link.text(IFLA_IFNAME, name);
        link.raw(IFLA_ADDRESS, &mac.0);
        link.nest(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "bridge"));
    });
}

/// Sets the MTU. For a bridge this must be a request of its own: only then it counts as the person's wish (`br_change_mtu`)
/// and stays; else it follows that of the ports, and is 1500 when the last one goes.
pub(crate) fn set_mtu(batch: &mut Batch, index: u32, mtu: u32) {
    batch.request(RTM_SETLINK, ACK, &ifinfo(index, 0), |link| {
        link.u32(IFLA_MTU, mtu)
    });
}

/// A pair of interfaces to be made.
#[derive(Debug)]
pub(crate) struct Pair<'a> {
    /// Name of the host's end.
    pub(crate) host: &'a str,
    /// Index of the bridge that takes it.
    pub(crate) bridge: u32,
    /// MTU of both ends.
    pub(crate) mtu: u32,
    /// Namespace of the container's end.
    pub(crate) netns: BorrowedFd<'a>,
    /// Its name there.
    pub(crate) interface: &'a str,
    /// Its hardware address.
    pub(crate) mac: MacAddress,
}

/// A new pair, both ends down; the far end is born in the other namespace under its final name, so nothing has to
/// be moved or renamed (a move waits for an RCU grace period).
pub(crate) fn add_pair(batch: &mut Batch, pair: &Pair<'_>) {
    batch.request(RTM_NEWLINK, ACK | CREATE | EXCLUSIVE, &ifinfo(0, 0), |link| {
        link.text(IFLA_IFNAME, pair.host);
        link.u32(IFLA_MTU, pair.mtu);
        link.u32(IFLA_MASTER, pair.bridge);
        link.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth");
            info.nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    peer.header(&ifinfo(0, 0));
                    peer.text(IFLA_IFNAME, pair.interface);
                    peer.raw(IFLA_ADDRESS, &pair.mac.0);
                    peer.u32(IFLA_MTU, pair.mtu);
                    peer.raw(IFLA_NET_NS_FD, &pair.netns.as_raw_fd().to_ne_bytes());
                });
            });
        });
    });
}

/// An interface on another one, to be made.
#[derive(Debug)]
pub(crate) struct Upper<'a> {
    /// `macvlan` or `ipvlan`.
    pub(crate) kind: &'a str,
    /// Its mode: attribute 1 of its own, in the width that the kind has.
    pub(crate) mode: &'a [u8],
    /// Index of the one below.
    pub(crate) parent: u32,
    /// Namespace of the new one.
    pub(crate) netns: BorrowedFd<'a>,
    /// Its name there.
    pub(crate) interface: &'a str,
    /// Its hardware address; that of the one below when absent.
    pub(crate) mac: Option<MacAddress>,
    /// Its MTU; that of the one below when absent.
    pub(crate) mtu: Option<u32>,
}

/// A new interface on a parent, down, born in the other namespace.
pub(crate) fn add_upper(batch: &mut Batch, upper: &Upper<'_>) {
    batch.request(RTM_NEWLINK, ACK | CREATE | EXCLUSIVE, &ifinfo(0, 0), |link| {
        link.text(IFLA_IFNAME, upper.interface);
        link.u32(IFLA_LINK, upper.parent);
        link.raw(IFLA_NET_NS_FD, &upper.netns.as_raw_fd().to_ne_bytes());
        if let Some(mac) = upper.mac {
            link.raw(IFLA_ADDRESS, &mac.0);
        }
        if let Some(mtu) = upper.mtu {
            link.u32(IFLA_MTU, mtu);
        }
        link.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, upper.kind);
            info.nest(IFLA_INFO_DATA, |data| data.raw(1, upper.mode));
        });
    });
}

/// Sets an interface up.
pub(crate) fn set_up(batch: &mut Batch, index: u32) {
    batch.request(RTM_SETLINK, ACK, &ifinfo(index, IFF_UP), |_| ());
}

/// What a port of a bridge may do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Port {
    /// Not talk to other isolated ports.
    pub(crate) isolated: bool,
    /// Get back what it sent.
    pub(crate) hairpin: bool,
}

/// Sets a port of a bridge up by its name.
pub(crate) fn set_port_up(batch: &mut Batch, name: &str, port: Port) {
    // Only NEWLINK looks at the data of a port (`rtnl_changelink`); without CREATE it changes what is there.
    batch.request(RTM_NEWLINK, ACK, &ifinfo(0, IFF_UP), |link| {
        link.text(IFLA_IFNAME, name);
        if port.isolated || port.hairpin {
            link.nest(IFLA_LINKINFO, |info| {
                info.text(IFLA_INFO_SLAVE_KIND, "bridge");
                info.nest(IFLA_INFO_SLAVE_DATA, |data| {
                    data.raw(IFLA_BRPORT_MODE, &[u8::from(port.hairpin)]);
                    data.raw(IFLA_BRPORT_ISOLATED, &[u8::from(port.isolated)]);
                });
            });
        }
    });
}

/// Removes an interface; of a pair both ends.
pub(crate) fn delete_link(batch: &mut Batch, name: &str) {
    batch.request(RTM_DELLINK, ACK, &ifinfo(0, 0), |link| {
        link.text(IFLA_IFNAME, name)
    });
}

/// Gives an interface an address. IPv6 addresses are ours alone, so the one-second search for duplicates is left out.
pub(crate) fn add_address(batch: &mut Batch, index: u32, net: IpNet) {
    let flags = if net.addr().is_ipv6() { IFA_F_NODAD } else { 0 };
    let mut fixed = [family(net.addr()), net.prefix_len(), flags, 0, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    let (raw, length) = octets(net.addr());
    batch.request(RTM_NEWADDR, ACK | CREATE | EXCLUSIVE, &fixed, |address| {
        address.raw(IFA_LOCAL, &raw[..length]);
        address.raw(IFA_ADDRESS, &raw[..length]);
        if let IpNet::V4(net) = net
            && net.prefix_len() < 31
        {
            address.raw(IFA_BROADCAST, &net.broadcast().octets());
        }
    });
}

/// The way out. `metric` 0 is the kernel's default.
pub(crate) fn add_default_route(batch: &mut Batch, index: u32, gateway: IpAddr, metric: u32) {
    let fixed = [
        family(gateway),
        0,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_BOOT,
        0,
        RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    let (raw, length) = octets(gateway);
    batch.request(RTM_NEWROUTE, ACK | CREATE | EXCLUSIVE, &fixed, |route| {
        route.raw(RTA_GATEWAY, &raw[..length]);
        route.u32(RTA_OIF, index);
        if metric != 0 {
            route.u32(RTA_PRIORITY, metric);
        }
    });
}

const fn family_of(v6: bool) -> u8 {
    if v6 { AF_INET6 } else { AF_INET }
}

/// A routing table by which everything is of this host.
pub(crate) fn add_local_table(batch: &mut Batch, v6: bool, table: u8, loopback: u32) {
    let family = family_of(v6);
    let fixed = [
        family,
        0,
        0,
        0,
        table,
        RTPROT_BOOT,
        RT_SCOPE_HOST,
        RTN_LOCAL,
        0,
        0,
        0,
        0,
    ];
    batch.request(RTM_NEWROUTE, ACK | CREATE | EXCLUSIVE, &fixed, |route| {
        route.u32(RTA_OIF, loopback);
    });
}

/// Packets with this mark are routed by that table (`struct fib_rule_hdr`).
pub(crate) fn add_mark_rule(batch: &mut Batch, v6: bool, mark: u32, table: u8) {
    let fixed = [family_of(v6), 0, 0, 0, table, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
    batch.request(RTM_NEWRULE, ACK | CREATE | EXCLUSIVE, &fixed, |rule| {
        rule.u32(FRA_FWMARK, mark);
    });
}

/// What is known of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Its number.
    pub(crate) index: u32,
    /// Whether it is set up.
    pub(crate) up: bool,
    /// Its MTU.
    pub(crate) mtu: u32,
    /// What it is: `bridge`, `veth`; empty for hardware.
    pub(crate) kind: String,
    /// Its name.
    pub(crate) name: String,
}

fn parse_link(payload: &[u8]) -> Option<Link> {
    let index = payload
        .get(4..8)?
        .first_chunk()
        .map(|raw| u32::from_ne_bytes(*raw))?;
    let flags = payload
        .get(8..12)?
        .first_chunk()
        .map(|raw| u32::from_ne_bytes(*raw))?;
    let attributes = Attributes::after(payload, 16);
    let text = |raw: Option<&[u8]>| {
        let until_zero = raw.and_then(|raw| raw.split(|byte| *byte == 0).next());
        String::from_utf8_lossy(until_zero.unwrap_or_default()).into_owned()
    };
    let info = attributes.find(IFLA_LINKINFO);
    let kind = text(info.and_then(|info| Attributes::new(info).find(IFLA_INFO_KIND)));
    Some(Link {
        index,
        up: flags & IFF_UP != 0,
        mtu: attributes.u32(IFLA_MTU).unwrap_or(0),
        kind,
        name: text(attributes.find(IFLA_IFNAME)),
    })
}

/// The interface with this name.
pub(crate) fn link(socket: &mut Socket, name: &str) -> io::Result<Option<Link>> {
    let mut batch = Batch::new();
    batch.request(RTM_GETLINK, ACK, &ifinfo(0, 0), |link| {
        link.text(IFLA_IFNAME, name)
    });
    one_link(socket, &mut batch)
}

/// The interface with this index.
pub(crate) fn link_at(socket: &mut Socket, index: u32) -> io::Result<Option<Link>> {
    let mut batch = Batch::new();
    batch.request(RTM_GETLINK, ACK, &ifinfo(index, 0), |_| ());
    one_link(socket, &mut batch)
}

fn one_link(socket: &mut Socket, batch: &mut Batch) -> io::Result<Option<Link>> {
    let mut found = None;
    let outcome = socket.demand(batch, &mut |kind, payload| {
        if kind == RTM_NEWLINK {
            found = parse_link(payload);
        }
    });
    match outcome {
        Err(error) if is(&error, Errno::NODEV) => Ok(None),
        other => other.map(|()| found),
    }
}

/// Whether this is the error that the kernel gives for `errno`.
pub(crate) fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// Where it leads.
    pub(crate) destination: IpNet,
    /// Which interface takes it; 0 for none.
    pub(crate) interface: u32,
    /// Smaller wins.
    pub(crate) metric: u32,
}

fn parse_route(payload: &[u8]) -> Option<Route> {
    let header: &[u8; 12] = payload.first_chunk()?;
    if header[4] != RT_TABLE_MAIN {
        return None;
    }
    let attributes = Attributes::after(payload, 12);
    let raw = attributes.find(RTA_DST).unwrap_or_default();
    let ip = match header[0] {
        AF_INET => IpAddr::V4(
            raw.first_chunk()
                .map_or(Ipv4Addr::UNSPECIFIED, |raw| Ipv4Addr::from(*raw)),
        ),
        AF_INET6 => IpAddr::V6(
            raw.first_chunk()
                .map_or(Ipv6Addr::UNSPECIFIED, |raw: &[u8; 16]| Ipv6Addr::from(*raw)),
        ),
        _ => return None,
    };
    Some(Route {
        destination: IpNet::new(ip, header[1]).ok()?,
        interface: attributes.u32(RTA_OIF).unwrap_or(0),
        metric: attributes.u32(RTA_PRIORITY).unwrap_or(0),
    })
}

/// Every route of the main table, both families.
pub(crate) fn routes(socket: &mut Socket) -> io::Result<Vec<Route>> {
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let mut fixed = [0; 12];
        fixed[0] = family;
        let mut batch = Batch::new();
        batch.request(RTM_GETROUTE, DUMP, &fixed, |_| ());
        socket.demand(&mut batch, &mut |kind, payload| {
            if kind == RTM_NEWROUTE {
                found.extend(parse_route(payload));
            }
        })?;
    }
    Ok(found)
}

/// The interface that the default route of the host takes.
pub(crate) fn uplink(socket: &mut Socket) -> io::Result<Option<Link>> {
    let best = routes(socket)?
        .into_iter()
        .filter(|route| route.destination.prefix_len() == 0 && route.interface != 0)
        .min_by_key(|route| (route.destination.addr().is_ipv6(), route.metric));
    match best {
        None => Ok(None),
        Some(route) => link_at(socket, route.interface),
    }
}

/// Its MTU.
pub(crate) fn uplink_mtu(socket: &mut Socket) -> io::Result<Option<u32>> {
    Ok(uplink(socket)?.map(|link| link.mtu))
}

/// Feeds bytes to every parser of this file.
#[cfg(any(test, feature = "fuzz"))]
pub(super) fn fuzz(payload: &[u8]) -> usize {
    usize::from(parse_link(payload).is_some()) + 2 * usize::from(parse_route(payload).is_some())
}
