//! `-p`: `[[ip:]host:]container[/protocol]`, with ranges (go-connections `nat.ParsePortSpec`).

use std::net::IpAddr;
use std::ops::RangeInclusive;

use dhow_engine::{PortMapping, Protocol};

/// Most ports of one flag.
const MAX_PORTS: usize = 65_536;

/// Reads one flag; a range gives several.
pub(crate) fn parse(text: &str) -> Result<Vec<PortMapping>, String> {
    let bad = |why: &str| format!("invalid port {text:?}: {why}");
    let (ports, protocol) = match text.rsplit_once('/') {
        Some((ports, "tcp")) => (ports, Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some((ports, "sctp")) => (ports, Protocol::Sctp),
        Some(_) => return Err(bad("the protocol is tcp, udp or sctp")),
        None => (text, Protocol::Tcp),
    };
    let (rest, container) = ports
        .rsplit_once(':')
        .map_or(("", ports), |(rest, container)| (rest, container));
    let container = range(container).ok_or_else(|| bad("the container's port is 1 to 65535"))?;
    let (address, host) = if rest.is_empty() {
        (None, None)
    } else {
        host_part(rest).ok_or_else(|| bad("write [address:]port before the container's port"))?
    };
    let count = container.clone().count();
    let hosts: Vec<(Option<u16>, Option<u16>)> = match host {
        None => vec![(None, None); count],
        Some(range) if range.clone().count() == count => range.map(|port| (Some(port), None)).collect(),
        // One container port may take any free port of a range.
        Some(range) if count == 1 => vec![(Some(*range.start()), Some(*range.end()))],
        Some(_) => return Err(bad("the ranges have different lengths")),
    };
    Ok(container
        .zip(hosts)
        .take(MAX_PORTS)
        .map(|(container_port, (host_port, host_last))| PortMapping {
            host_ip: address,
            host_port,
            host_last,
            container_port,
            protocol,
        })
        .collect())
}

type HostPart = (Option<IpAddr>, Option<RangeInclusive<u16>>);

/// `8080`, `127.0.0.1:8080`, `127.0.0.1:`, `[::1]:8080`.
fn host_part(text: &str) -> Option<HostPart> {
    let (address, port) = match text.rsplit_once(':') {
        Some((address, port)) => (Some(address), port),
        None if text.contains('.') || text.starts_with('[') => (Some(text), ""),
        None => (None, text),
    };
    let address = match address {
        None | Some("") => None,
        Some(address) => Some(address.trim_matches(['[', ']']).parse().ok()?),
    };
    let port = if port.is_empty() { None } else { Some(range(port)?) };
    Some((address, port))
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match text.split_once('-') {
        None => number(text).map(|port| port..=port),
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(first..=last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> PortMapping {
        let mut all = parse(text).unwrap();
        assert_eq!(all.len(), 1, "{text}");
        all.remove(0)
    }

    #[test]
    fn all_forms_are_read() {
        assert_eq!((one("80").host_port, one("80").container_port), (None, 80));
        assert_eq!(
            (one("8080:80").host_port, one("8080:80").host_ip),
            (Some(8080), None)
        );
        let full = one("127.0.0.1:8080:80/udp");
        assert_eq!(
            (full.host_ip, full.protocol),
            (Some("127.0.0.1".parse().unwrap()), Protocol::Udp)
        );
        assert_eq!(one("[::1]:8080:80").host_ip, Some("::1".parse().unwrap()));
        assert_eq!(one("127.0.0.1::80").host_port, None);
        let any = one("7000-7005:80");
        assert_eq!((any.host_port, any.host_last), (Some(7000), Some(7005)));
        let range = parse("8000-8002:80-82").unwrap();
        assert_eq!(
            range
                .iter()
                .map(|p| (p.host_port, p.container_port))
                .collect::<Vec<_>>(),
            [(Some(8000), 80), (Some(8001), 81), (Some(8002), 82)]
        );
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for bad in [
            "",
            "0",
            "65536",
            "80:",
            "x:80",
            "1:2:3:4",
            "80/icmp",
            "5-3:1-2",
            "1-2:1-3",
            "-1",
            "999.0.0.1:1:1",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
