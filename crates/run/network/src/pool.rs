//! Which ranges a network gets: the given ones, checked, or free ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dhow_types::{Digest, ErrorKind, NetworkId};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{Error, Subnet, SubnetRequest};

/// Ranges that are taken: those of other networks and those that the host has routes to.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) networks: Vec<IpNet>,
    pub(crate) routes: Vec<IpNet>,
}

fn overlaps(one: IpNet, other: IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

impl Taken {
    fn is_free(&self, net: IpNet) -> bool {
        !self
            .networks
            .iter()
            .chain(&self.routes)
            .any(|taken| overlaps(*taken, net))
    }
}

/// A range for the default network: a /16, the first free one from `start` on.
pub(crate) fn default_range(taken: &Taken, start: usize) -> Result<Subnet, Error> {
    let seconds: Vec<(u8, u8)> = (88..=88)
        .chain(90..=126)
        .map(|second| (10, second))
        .chain((17..=31).map(|second| (172, second)))
        .collect();
    let ranges = seconds
        .iter()
        .map(|(first, second)| (Ipv4Addr::new(*first, *second, 0, 0), 16))
        .collect();
    first_free(taken, ranges, start)
}

/// A range for a network of a person: a /24.
fn user_range(taken: &Taken, start: usize) -> Result<Subnet, Error> {
    let ranges = (0..=255)
        .map(|third| (Ipv4Addr::new(10, 89, third, 0), 24))
        .chain((0..=255).map(|third| (Ipv4Addr::new(10, 127, third, 0), 24)))
        .chain((128..=255).map(|third| (Ipv4Addr::new(192, 168, third, 0), 24)))
        .collect();
    first_free(taken, ranges, start)
}

fn first_free(taken: &Taken, ranges: Vec<(Ipv4Addr, u8)>, start: usize) -> Result<Subnet, Error> {
    let count = ranges.len();
    ranges
        .iter()
        .cycle()
        .skip(start % count)
        .take(count)
        .filter_map(|(ip, prefix)| Some(IpNet::V4(Ipv4Net::new(*ip, *prefix).ok()?)))
        .find(|net| taken.is_free(*net))
        .map(|subnet| Subnet {
            subnet,
            gateway: first_host(subnet),
            ip_range: None,
            reserved: Default::default(),
        })
        .ok_or_else(|| {
            Error::new(
                ErrorKind::ResourceExhausted,
                "every private address range is taken by a network or a route",
            )
            .with_hint("name a free range with --subnet")
        })
}

fn first_host(net: IpNet) -> IpAddr {
    match net {
        IpNet::V4(net) => IpAddr::V4(Ipv4Addr::from(u32::from(net.network()).wrapping_add(1))),
        IpNet::V6(net) => IpAddr::V6(Ipv6Addr::from(u128::from(net.network()).wrapping_add(1))),
    }
}

/// The ranges of a new network: one of IPv4 and, when asked for, one of IPv6, below the host's own `prefix6`.
pub(crate) fn choose(
    wishes: &[SubnetRequest],
    prefix6: Option<Prefix6>,
    id: &NetworkId,
    taken: &Taken,
    start: usize,
) -> Result<Vec<Subnet>, Error> {
    let mut chosen: Vec<Subnet> = Vec::new();
    for wish in wishes {
        let subnet = match wish.subnet {
            Some(subnet) => given(subnet, wish, taken)?,
            None => {
                let net = user_range(taken, start)?.subnet;
                given(net, wish, taken)?
            }
        };
        if chosen
            .iter()
            .any(|other| other.subnet.addr().is_ipv4() == subnet.subnet.addr().is_ipv4())
        {
            return Err(invalid("a network has at most one IPv4 and one IPv6 subnet"));
        }
        chosen.push(subnet);
    }
    if !chosen.iter().any(|subnet| subnet.subnet.addr().is_ipv4()) {
        chosen.insert(0, user_range(taken, start)?);
    }
    let has_v6 = chosen.iter().any(|subnet| subnet.subnet.addr().is_ipv6());
    if let Some(prefix6) = prefix6.filter(|_| !has_v6) {
        let net = local_range(prefix6, id, taken)?;
        chosen.push(Subnet {
            subnet: net,
            gateway: first_host(net),
            ip_range: None,
            reserved: Default::default(),
        });
    }
    chosen.sort_by_key(|subnet| subnet.subnet.addr().is_ipv6());
    Ok(chosen)
}

/// The 40 random bits of all unique local addresses of one host (RFC 4193, section 3.2).
pub(crate) type Prefix6 = [u8; 5];

/// A unique local range: `fd`, the host's bits and 16 for the network, first those of its random id.
fn local_range(prefix: Prefix6, id: &NetworkId, taken: &Taken) -> Result<IpNet, Error> {
    let hash = Digest::of(id.as_str().as_bytes());
    let first = u16::from_be_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]);
    let mut raw = [0; 16];
    raw[0] = 0xfd;
    raw[1..6].copy_from_slice(&prefix);
    for number in 0..=u16::MAX {
        raw[6..8].copy_from_slice(&first.wrapping_add(number).to_be_bytes());
        let net = Ipv6Net::new(raw.into(), 64)
            .map_err(|error| Error::because(ErrorKind::Internal, "choose an IPv6 range", error))?;
        if taken.is_free(net.into()) {
            return Ok(net.into());
        }
    }
    Err(Error::new(
        ErrorKind::ResourceExhausted,
        "every unique local range of this host is taken by a network or a route",
    )
    .with_hint("name a free IPv6 range with --subnet"))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

fn given(net: IpNet, wish: &SubnetRequest, taken: &Taken) -> Result<Subnet, Error> {
    if net.trunc() != net {
        return Err(invalid(format!(
            "invalid subnet {net}: it should be {}",
            net.trunc()
        )));
    }
    let ip = net.addr();
    let widest = if ip.is_ipv4() { 30 } else { 126 };
    if net.prefix_len() == 0 || net.prefix_len() > widest {
        return Err(invalid(format!(
            "invalid subnet {net}: no room for a bridge and a container"
        )));
    }
    if ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() {
        return Err(invalid(format!(
            "invalid subnet {net}: not an address range for hosts"
        )));
    }
    if taken.networks.iter().any(|other| overlaps(*other, net)) {
        // The kind and words of docker, for which compose looks.
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            "invalid pool request: Pool overlaps with other one on this address space",
        ));
    }
    if let Some(route) = taken.routes.iter().find(|route| overlaps(**route, net)) {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            format!("invalid pool request: subnet {net} overlaps with the host's route to {route}"),
        )
        .with_hint(
            "choose another range: containers of this one would hide that route, or be hidden by it",
        ));
    }
    let gateway = wish.gateway.unwrap_or_else(|| first_host(net));
    if !net.contains(&gateway) || gateway == net.network() || (ip.is_ipv4() && gateway == net.broadcast()) {
        return Err(invalid(format!(
            "invalid gateway {gateway}: not a host address of subnet {net}"
        )));
    }
    if let Some(range) = wish.ip_range
        && !net.contains(&range.trunc())
    {
        return Err(invalid(format!("invalid ip-range {range}: not in subnet {net}")));
    }
    if let Some((name, ip)) = wish.reserved.iter().find(|(_, ip)| !net.contains(*ip)) {
        return Err(invalid(format!(
            "invalid aux-address {name}={ip}: not in subnet {net}"
        )));
    }
    Ok(Subnet {
        subnet: net,
        gateway,
        ip_range: wish.ip_range.map(|range| range.trunc()),
        reserved: wish.reserved.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn id() -> NetworkId {
        NetworkId::from_random([7; 32])
    }

    #[test]
    fn free_ranges_avoid_networks_and_routes() {
        let taken = Taken {
            networks: vec![net("10.89.0.0/24")],
            routes: vec![net("10.89.1.0/25"), net("10.88.0.0/13")],
        };
        let chosen = choose(
            &[],
            None,
            &id(),
            &Taken {
                routes: vec![net("10.89.1.0/25")],
                networks: taken.networks.clone(),
            },
            0,
        )
        .unwrap();
        assert_eq!(chosen[0].subnet, net("10.89.2.0/24"));
        assert_eq!(chosen[0].gateway.to_string(), "10.89.2.1");
        assert_eq!(default_range(&taken, 0).unwrap().subnet, net("10.96.0.0/16"));
        let all = Taken {
            networks: vec![net("0.0.0.0/0")],
            routes: Vec::new(),
        };
        assert_eq!(
            default_range(&all, 3).unwrap_err().kind(),
            ErrorKind::ResourceExhausted
        );
    }

    #[test]
    fn given_ranges_are_checked() {
        let taken = Taken {
            networks: vec![net("10.5.0.0/16")],
            routes: vec![net("192.0.2.0/24")],
        };
        let with = |subnet: &str, gateway: Option<&str>, range: Option<&str>| {
            let wish = SubnetRequest {
                subnet: Some(net(subnet)),
                gateway: gateway.map(|gateway| gateway.parse().unwrap()),
                ip_range: range.map(net),
                ..SubnetRequest::default()
            };
            choose(&[wish], None, &id(), &taken, 0).map_err(|error| error.kind())
        };
        for (subnet, gateway, range, kind) in [
            ("10.6.0.1/16", None, None, ErrorKind::InvalidArgument),
            ("10.6.0.0/31", None, None, ErrorKind::InvalidArgument),
            ("127.0.0.0/8", None, None, ErrorKind::InvalidArgument),
            ("224.0.0.0/8", None, None, ErrorKind::InvalidArgument),
            ("10.6.0.0/24", Some("10.6.1.1"), None, ErrorKind::InvalidArgument),
            (
                "10.6.0.0/24",
                Some("10.6.0.255"),
                None,
                ErrorKind::InvalidArgument,
            ),
            (
                "10.6.0.0/24",
                None,
                Some("10.7.0.0/25"),
                ErrorKind::InvalidArgument,
            ),
            ("10.5.3.0/24", None, None, ErrorKind::PermissionDenied),
            ("10.0.0.0/8", None, None, ErrorKind::PermissionDenied),
            ("192.0.2.128/25", None, None, ErrorKind::PermissionDenied),
        ] {
            assert_eq!(with(subnet, gateway, range), Err(kind), "{subnet}");
        }
        let good = with("10.6.0.0/16", Some("10.6.0.254"), Some("10.6.1.0/24")).unwrap();
        assert_eq!(good[0].gateway.to_string(), "10.6.0.254");
    }

    #[test]
    fn dual_stack_puts_ipv4_first_and_chooses_a_unique_local_range() {
        let prefix = Some([0x12, 0x34, 0x56, 0x78, 0x9a]);
        let chosen = choose(&[], prefix, &id(), &Taken::default(), 0).unwrap();
        assert!(chosen[0].subnet.addr().is_ipv4());
        assert!(net("fd12:3456:789a::/48").contains(&chosen[1].subnet));
        assert_eq!(chosen[1].subnet.prefix_len(), 64);
        // Of one that is taken the next; of all of them none.
        let taken = |net| Taken {
            networks: vec![net],
            routes: Vec::new(),
        };
        let other = choose(&[], prefix, &id(), &taken(chosen[1].subnet), 0).unwrap();
        assert_ne!(other[1].subnet, chosen[1].subnet);
        assert!(net("fd12:3456:789a::/48").contains(&other[1].subnet));
        let full = choose(&[], prefix, &id(), &taken(net("fd12:3456:789a::/48")), 0).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::ResourceExhausted);
        let wish = SubnetRequest {
            subnet: Some(net("fd01::/64")),
            ..SubnetRequest::default()
        };
        let chosen = choose(std::slice::from_ref(&wish), prefix, &id(), &Taken::default(), 0).unwrap();
        assert_eq!(chosen.len(), 2);
        assert_eq!(chosen[1].gateway.to_string(), "fd01::1");
        assert!(choose(&[wish.clone(), wish], None, &id(), &Taken::default(), 0).is_err());
    }
}
