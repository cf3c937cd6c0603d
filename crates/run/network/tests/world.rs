//! A host with an uplink, containers, and connections between them.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Command;
use std::time::Duration;

use dhow_network::{Endpoint, EndpointRequest, Network, Networks, PortMapping, Protocol};
use dhow_types::ContainerId;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Address of the host on the uplink.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Address of the machine outside.
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// For what must come: long, since all tests share the kernel's lock on interfaces.
const PATIENCE: Duration = Duration::from_secs(5);
/// For what must not come.
const SILENCE: Duration = Duration::from_millis(400);

pub(crate) struct World {
    pub(crate) root: tempfile::TempDir,
    pub(crate) networks: Networks,
    pub(crate) host: OwnedFd,
    pub(crate) outside: OwnedFd,
}

/// Runs the test on a thread that is in the world's host, or says why not.
pub(crate) fn with_world(test: impl Fn(&World) + Send + Sync + 'static) {
    let test = std::sync::Arc::new(test);
    // Bridges behave in two ways: with br_netfilter, frames between containers pass the packet filter too.
    for bridge_netfilter in ["0", "1"] {
        let test = std::sync::Arc::clone(&test);
        one_world(bridge_netfilter, move |world| test(world));
    }
}

pub(crate) fn one_world(bridge_netfilter: &'static str, test: impl FnOnce(&World) + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    if Command::new("ip").arg("-V").output().is_err() {
        eprintln!("skipped: needs the ip command for the fake uplink");
        return;
    }
    let thread = std::thread::spawn(move || {
        let host = dhow_network::sandbox().unwrap();
        let outside = dhow_network::sandbox().unwrap();
        enter(&outside);
        sh(
            "ip link add out0 mtu 1400 type veth peer name up0 mtu 1400 && ip addr add 192.0.2.1/24 dev out0 && ip link set out0 up",
        );
        enter(&host);
        // Moves the uplink's end here: its namespace is named by this process's descriptor.
        use std::os::fd::AsRawFd as _;
        enter(&outside);
        let path = format!("/proc/{}/fd/{}", std::process::id(), host.as_raw_fd());
        sh(&format!("ip link set up0 netns {path}"));
        enter(&host);
        drop(std::fs::write(
            "/proc/sys/net/bridge/bridge-nf-call-iptables",
            bridge_netfilter,
        ));
        drop(std::fs::write(
            "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
            bridge_netfilter,
        ));
        sh(
            "sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.up0.accept_dad=0",
        );
        sh("ip addr add 192.0.2.2/24 dev up0 && ip link set up0 up && ip route add default via 192.0.2.1");
        let root = tempfile::tempdir().unwrap();
        let networks = Networks::open(root.path()).unwrap();
        test(&World {
            root,
            networks,
            host,
            outside,
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) fn enter(netns: &OwnedFd) {
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

pub(crate) fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{script}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Whether the nft command is there as an oracle.
pub(crate) fn has_nft() -> bool {
    let there = Command::new("nft").arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped the comparison with nft: it is not installed");
    }
    there
}

/// Runs `body` on a thread in that namespace.
pub(crate) fn inside<T: Send + 'static>(netns: &OwnedFd, body: impl FnOnce() -> T + Send + 'static) -> T {
    let netns = netns.try_clone().unwrap();
    std::thread::spawn(move || {
        enter(&netns);
        body()
    })
    .join()
    .unwrap()
}

pub(crate) struct Container {
    pub(crate) id: ContainerId,
    pub(crate) netns: OwnedFd,
    pub(crate) endpoint: Endpoint,
    pub(crate) held: Vec<OwnedFd>,
}

pub(crate) fn id(number: u8) -> ContainerId {
    ContainerId::from_random([number; 32])
}

pub(crate) fn publish(
    host_ip: Option<IpAddr>,
    host_port: u16,
    container_port: u16,
    protocol: Protocol,
) -> PortMapping {
    PortMapping {
        host_ip,
        host_port: Some(host_port),
        host_last: None,
        container_port,
        protocol,
    }
}

impl World {
    pub(crate) fn network(
        &self,
        name: &str,
        change: impl FnOnce(&mut dhow_network::CreateNetwork),
    ) -> Network {
        let mut wanted = dhow_network::CreateNetwork {
            name: name.to_owned(),
            ..Default::default()
        };
        change(&mut wanted);
        self.networks.create(&wanted).unwrap()
    }

    pub(crate) fn container(&self, network: &Network, number: u8, ports: &[PortMapping]) -> Container {
        let id = id(number);
        let netns = dhow_network::sandbox().unwrap();
        let name = format!("c{number}");
        let request = EndpointRequest {
            name: &name,
            ports,
            held: &[],
            ..EndpointRequest::new(&id)
        };
        let (endpoint, held) = self.networks.attach(network, netns.as_fd(), &request).unwrap();
        Container {
            id,
            netns,
            endpoint,
            held,
        }
    }
}

/// A TCP server in the namespace that tells each client who it seems to be.
pub(crate) fn tcp_server(netns: &OwnedFd, port: u16) {
    let listener = inside(netns, move || TcpListener::bind(("0.0.0.0", port)).unwrap());
    serve(listener);
}

pub(crate) fn tcp6_server(netns: &OwnedFd, port: u16) {
    let listener = inside(netns, move || TcpListener::bind(("::", port)).unwrap());
    serve(listener);
}

fn serve(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip().to_string();
            drop(stream.write_all(peer.as_bytes()));
        }
    });
}

/// A UDP server that answers with the client's address.
pub(crate) fn udp_server(netns: &OwnedFd, port: u16) {
    let socket = inside(netns, move || UdpSocket::bind(("0.0.0.0", port)).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            drop(socket.send_to(from.ip().to_string().as_bytes(), from));
        }
    });
}

/// What the server said; the error text when there was no connection.
pub(crate) fn tcp(netns: &OwnedFd, ip: impl Into<IpAddr>, port: u16) -> Result<String, String> {
    let place = SocketAddr::new(ip.into(), port);
    inside(netns, move || {
        let mut stream = TcpStream::connect_timeout(&place, PATIENCE).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = String::new();
        stream
            .read_to_string(&mut text)
            .map_err(|error| error.to_string())?;
        Ok(text)
    })
}

/// Whether there is no way to the port.
pub(crate) fn closed(netns: &OwnedFd, ip: impl Into<IpAddr>, port: u16) -> bool {
    let place = SocketAddr::new(ip.into(), port);
    inside(netns, move || {
        TcpStream::connect_timeout(&place, SILENCE).is_err()
    })
}

pub(crate) fn udp(netns: &OwnedFd, ip: impl Into<IpAddr>, port: u16) -> Result<String, String> {
    let place = SocketAddr::new(ip.into(), port);
    inside(netns, move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(b"who", place).map_err(|error| error.to_string())?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    })
}

/// The text of a file as a thread in the namespace sees it.
pub(crate) fn read(netns: &OwnedFd, path: &str) -> String {
    let path = path.to_owned();
    inside(netns, move || {
        let mut text = String::new();
        File::open(path).unwrap().read_to_string(&mut text).unwrap();
        text.trim_end().to_owned()
    })
}
