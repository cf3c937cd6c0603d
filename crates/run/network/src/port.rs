//! Ports of the host that are held while they are published.
//!
//! A bound socket that nobody reads from holds a port: a second bind fails as if a server had it. It does not listen, so
//! whoever gets past the DNAT is refused at once instead of waiting.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use dhow_types::ErrorKind;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::sysctl::has_ipv6;
use crate::{Context as _, Error, PortMapping, Protocol, PublishedPort};

/// How often an ephemeral port is drawn again when the other address family does not have it free.
const DRAWS: usize = 16;

/// How ports come to a container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// It has an IPv6 address.
    pub(crate) dual: bool,
    /// There is a packet filter, for more than what a relay carries.
    pub(crate) filter: bool,
}

/// Binds every wish; what is returned holds the ports, in their order, until it is dropped. A wish without an address is
/// for every address, of IPv6 too: a relay brings it to a container that has none.
pub(crate) fn reserve(
    wishes: &[PortMapping],
    default_ip: Option<IpAddr>,
    reach: Reach,
) -> Result<(Vec<PublishedPort>, Vec<OwnedFd>), Error> {
    let (mut ports, mut held) = (Vec::new(), Vec::new());
    for wish in wishes {
        check(wish, default_ip, reach)?;
        let relayed = wish.protocol != Protocol::Sctp;
        let hosts: Vec<IpAddr> = match wish.host_ip.or(default_ip) {
            Some(ip) => vec![ip],
            None if (reach.dual || relayed) && has_ipv6() => {
                vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
            }
            None => vec![Ipv4Addr::UNSPECIFIED.into()],
        };
        let (port, sockets) = reserve_one(&hosts, wish)?;
        held.extend(sockets);
        ports.extend(hosts.iter().map(|host| PublishedPort {
            host_ip: *host,
            host_port: port,
            container_port: wish.container_port,
            protocol: wish.protocol,
        }));
    }
    Ok((ports, held))
}

fn check(wish: &PortMapping, default_ip: Option<IpAddr>, reach: Reach) -> Result<(), Error> {
    if wish.container_port == 0 {
        return Err(Error::new(ErrorKind::InvalidArgument, "invalid container port 0"));
    }
    if wish.protocol != Protocol::Sctp {
        return Ok(());
    }
    if !reach.filter {
        let message = format!(
            "cannot publish port {}/sctp: for a normal user, and past the host's input rules, tcp and udp are carried",
            wish.container_port
        );
        return Err(Error::new(ErrorKind::Unsupported, message)
            .with_hint("as root use a network without com.dhow.firewall=host, or --network host"));
    }
    if !reach.dual && wish.host_ip.or(default_ip).is_some_and(|ip| ip.is_ipv6()) {
        let message = format!(
            "cannot publish port {}/sctp on an IPv6 address: the network has no IPv6 subnet",
            wish.container_port
        );
        return Err(Error::new(ErrorKind::InvalidArgument, message)
            .with_hint("create the network with --ipv6, or publish on an IPv4 address"));
    }
    Ok(())
}

/// Binds a port that was published before; none when somebody else has it.
pub(crate) fn hold(port: &PublishedPort) -> Option<OwnedFd> {
    bind(port.host_ip, port.host_port, port.protocol)
        .ok()
        .map(|(_, socket)| socket)
}

fn reserve_one(hosts: &[IpAddr], wish: &PortMapping) -> Result<(u16, Vec<OwnedFd>), Error> {
    let mut draws = 0;
    let mut next = wish.host_port.unwrap_or(0);
    loop {
        draws += 1;
        let mut port = next;
        let mut held = Vec::new();
        let mut failed = None;
        for host in hosts {
            match bind(*host, port, wish.protocol) {
                Ok((got, socket)) => {
                    port = got;
                    held.push(socket);
                }
                Err(error) => {
                    failed = Some((*host, error));
                    break;
                }
            }
        }
        match failed {
            None => return Ok((port, held)),
            Some((_, error))
                if error.kind() == io::ErrorKind::AddrInUse && wish.host_port.is_none() && draws < DRAWS => {}
            Some((_, error))
                if error.kind() == io::ErrorKind::AddrInUse
                    && wish.host_last.is_some_and(|last| next < last) =>
            {
                next += 1;
            }
            Some((host, error)) => return Err(refused(host, port, wish.protocol, error)),
        }
    }
}

/// The words of docker, which people and scripts look for.
fn refused(host: IpAddr, port: u16, protocol: Protocol, error: io::Error) -> Error {
    let place = SocketAddr::new(host, port);
    match error.kind() {
        io::ErrorKind::AddrInUse => Error::new(
            ErrorKind::AlreadyExists,
            format!("Bind for {place} failed: port is already allocated"),
        )
        .with_hint(format!("find who has it with: ss -lnp 'sport = :{port}'")),
        io::ErrorKind::AddrNotAvailable => Error::new(
            ErrorKind::InvalidArgument,
            format!("Bind for {place} failed: this host does not have the address {host}"),
        ),
        io::ErrorKind::PermissionDenied => Error::because(
            ErrorKind::PermissionDenied,
            format!("Bind for {place} failed: the port is root's"),
            error,
        )
        .with_hint(format!(
            "publish a port from 1024 on, or have root do: sysctl -w net.ipv4.ip_unprivileged_port_start={port}"
        )),
        _ => Err::<(), _>(error)
            .context(|| format!("Bind for {place}/{protocol} failed"))
            .err()
            .unwrap_or_else(|| Error::new(ErrorKind::Internal, "bind failed")),
    }
}

fn bind(host: IpAddr, port: u16, protocol: Protocol) -> io::Result<(u16, OwnedFd)> {
    let socket = open(host, protocol)?;
    let place = SocketAddr::new(host, port);
    match rustix::net::bind(&socket, &place) {
        Ok(()) => {}
        // Connections of a server that has ended may still linger (TIME_WAIT), which is no reason to refuse. Whether
        // someone else listens shows only when we do; a port that is merely bound without reuse stays refused.
        Err(Errno::ADDRINUSE) if protocol == Protocol::Tcp => {
            sockopt::set_socket_reuseaddr(&socket, true)?;
            rustix::net::bind(&socket, &place)?;
            rustix::net::listen(&socket, 1)?;
        }
        Err(error) => return Err(error.into()),
    }
    let bound = rustix::net::getsockname(&socket)?;
    let bound = SocketAddr::try_from(bound)?;
    Ok((bound.port(), socket))
}

fn open(host: IpAddr, protocol: Protocol) -> io::Result<OwnedFd> {
    let family = if host.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(number))?;
    if host.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REACH: Reach = Reach {
        dual: false,
        filter: true,
    };

    fn wish(port: Option<u16>, protocol: Protocol) -> PortMapping {
        PortMapping {
            host_ip: Some([127, 0, 0, 1].into()),
            host_port: port,
            host_last: None,
            container_port: 80,
            protocol,
        }
    }

    #[test]
    fn a_held_port_is_refused_in_dockers_words_until_it_is_dropped() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let (ports, held) = reserve(&[wish(None, protocol)], None, REACH).unwrap();
            let port = ports[0].host_port;
            assert_ne!(port, 0);
            let refused = reserve(&[wish(Some(port), protocol)], None, REACH).unwrap_err();
            assert_eq!(
                refused.to_string(),
                format!("Bind for 127.0.0.1:{port} failed: port is already allocated")
            );
            drop(held);
            reserve(&[wish(Some(port), protocol)], None, REACH).unwrap();
        }
    }

    #[test]
    fn a_listening_server_and_a_held_port_exclude_each_other() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        assert!(reserve(&[wish(Some(port), Protocol::Tcp)], None, REACH).is_err());
        drop(server);
        let (_, _held) = reserve(&[wish(Some(port), Protocol::Tcp)], None, REACH).unwrap();
        assert!(
            std::net::TcpListener::bind(("127.0.0.1", port)).is_err(),
            "std binds with SO_REUSEADDR"
        );
    }

    #[test]
    fn lingering_connections_of_an_ended_server_do_not_hold_the_port() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let place = server.local_addr().unwrap();
        let client = std::net::TcpStream::connect(place).unwrap();
        let (accepted, _) = server.accept().unwrap();
        drop(accepted);
        drop(server);
        drop(client);
        reserve(&[wish(Some(place.port()), Protocol::Tcp)], None, REACH).unwrap();
    }

    /// A relay carries tcp and udp to a container that has no IPv6 address, and nothing else.
    #[test]
    fn an_ipv6_address_without_ipv6_subnet_is_refused_for_what_no_relay_carries() {
        let mapping = |protocol| PortMapping {
            host_ip: Some(Ipv6Addr::LOCALHOST.into()),
            ..wish(None, protocol)
        };
        assert_eq!(
            reserve(&[mapping(Protocol::Sctp)], None, REACH)
                .unwrap_err()
                .kind(),
            ErrorKind::InvalidArgument
        );
        if has_ipv6() {
            let (ports, _held) = reserve(&[mapping(Protocol::Tcp)], None, REACH).unwrap();
            assert_eq!(ports[0].host_ip, Ipv6Addr::LOCALHOST);
        }
    }

    #[test]
    fn every_address_is_one_of_each_family_with_one_port() {
        let everywhere = PortMapping {
            host_ip: None,
            ..wish(None, Protocol::Tcp)
        };
        let (ports, held) = reserve(&[everywhere], None, REACH).unwrap();
        assert_eq!(ports.len(), held.len());
        assert_eq!(ports.len(), if has_ipv6() { 2 } else { 1 });
        assert!(ports.iter().all(|port| port.host_port == ports[0].host_port));
    }

    #[test]
    fn sctp_is_refused_where_there_is_no_packet_filter() {
        let reach = Reach {
            filter: false,
            ..REACH
        };
        assert_eq!(
            reserve(&[wish(None, Protocol::Sctp)], None, reach)
                .unwrap_err()
                .kind(),
            ErrorKind::Unsupported
        );
    }
}
