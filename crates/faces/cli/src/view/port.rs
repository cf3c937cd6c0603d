//! Ports as `ps` and `port` show them.

use std::net::IpAddr;

use dhow_engine::PublishedPort;
use dhow_engine::container::{Container, Listed};

use crate::view::container::is_up;

/// One port for display: `public` is absent for a port that is only exposed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shown {
    private: u16,
    address: Option<IpAddr>,
    public: u16,
    protocol: String,
}

/// What is published now.
pub(crate) fn published<C>(container: &Container<C>) -> Vec<PublishedPort> {
    let mut ports: Vec<_> = container
        .state
        .endpoints
        .iter()
        .flat_map(|endpoint| endpoint.ports.clone())
        .collect();
    ports.sort_by_key(|port| (port.container_port, port.protocol, port.host_ip, port.host_port));
    ports.dedup();
    if crate::dialect::spoken().is_podman() {
        // Podman means both families by 0.0.0.0, and says so once.
        let everywhere = |port: &PublishedPort| port.host_ip == IpAddr::from([0; 4]);
        let all = ports.clone();
        ports.retain(|port| {
            port.host_ip != IpAddr::from([0; 16])
                || !all.iter().any(|other| {
                    everywhere(other)
                        && (other.host_port, other.container_port, other.protocol)
                            == (port.host_port, port.container_port, port.protocol)
                })
        });
    }
    ports
}

/// `0.0.0.0:8080->80/tcp, 443/tcp`: runs of ports are one (docker/cli `formatter.DisplayablePorts`).
pub(crate) fn displayed(container: &Listed) -> String {
    if !is_up(container.state.status) {
        return String::new();
    }
    let published = published(container);
    let mut ports: Vec<Shown> = published
        .iter()
        .map(|port| Shown {
            private: port.container_port,
            address: Some(port.host_ip),
            public: port.host_port,
            protocol: port.protocol.to_string(),
        })
        .collect();
    for exposed in &container.config.exposed {
        let (number, protocol) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
        let Ok(private) = number.parse() else { continue };
        let known = ports
            .iter()
            .any(|port| port.private == private && port.protocol == protocol);
        if !known {
            ports.push(Shown {
                private,
                address: None,
                public: 0,
                protocol: protocol.to_owned(),
            });
        }
    }
    ports.sort();
    grouped(&ports)
}

/// Ports of the same address and protocol make runs.
type Key<'a> = (Option<IpAddr>, &'a str);

fn grouped(ports: &[Shown]) -> String {
    let mut result = Vec::new();
    let mut mapped = Vec::new();
    // Open runs by address and protocol, in the order in which they came.
    let mut runs: Vec<(Key<'_>, u16, u16)> = Vec::new();
    for port in ports {
        let key = (port.address, port.protocol.as_str());
        if let Some(address) = port.address
            && port.public != port.private
        {
            mapped.push(format!(
                "{}->{}/{}",
                joined(address, &port.public.to_string()),
                port.private,
                port.protocol
            ));
            continue;
        }
        match runs.iter_mut().find(|(known, ..)| *known == key) {
            None => runs.push((key, port.private, port.private)),
            Some((_, _, last)) if last.checked_add(1) == Some(port.private) => *last = port.private,
            Some((_, first, last)) => {
                result.push(run(key, *first, *last));
                (*first, *last) = (port.private, port.private);
            }
        }
    }
    result.extend(runs.into_iter().map(|(key, first, last)| run(key, first, last)));
    result.extend(mapped);
    result.join(", ")
}

fn run((address, protocol): Key<'_>, first: u16, last: u16) -> String {
    let ports = if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    };
    match address {
        Some(address) => format!("{}->{ports}/{protocol}", joined(address, &ports)),
        None => format!("{ports}/{protocol}"),
    }
}

/// An address and a port; IPv6 in brackets.
pub(crate) fn joined(address: IpAddr, port: &str) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(private: u16, address: Option<&str>, public: u16) -> Shown {
        Shown {
            private,
            address: address.map(|a| a.parse().unwrap()),
            public,
            protocol: "tcp".to_owned(),
        }
    }

    #[test]
    fn runs_are_one_and_moved_ports_stand_alone() {
        let any = Some("0.0.0.0");
        let ports = [
            shown(80, any, 8080),
            shown(81, None, 0),
            shown(82, None, 0),
            shown(90, any, 90),
            shown(91, any, 91),
            shown(93, any, 93),
            shown(99, Some("::1"), 100),
        ];
        assert_eq!(
            grouped(&ports),
            "0.0.0.0:90-91->90-91/tcp, 81-82/tcp, 0.0.0.0:93->93/tcp, 0.0.0.0:8080->80/tcp, [::1]:100->99/tcp"
        );
    }
}
