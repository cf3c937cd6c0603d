//! The name server of a container, asked from inside the container.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dhow_network::{EndpointRequest, Network, dns};

use crate::world::*;

const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const FAILED: u8 = 2;
const NO_NAME: u8 = 3;

fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut out = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len()).unwrap());
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    out
}

/// Code and the data of the records of an answer whose records all point to the question.
fn parse(answer: &[u8], question: &[u8]) -> (u8, Vec<Vec<u8>>) {
    assert_eq!(answer[..2], question[..2], "the client's id");
    assert_eq!(
        answer[12..question.len()],
        question[12..],
        "the client's question"
    );
    let mut at = question.len();
    let mut records = Vec::new();
    for _ in 0..u16::from_be_bytes([answer[6], answer[7]]) {
        let length = usize::from(u16::from_be_bytes([answer[at + 10], answer[at + 11]]));
        records.push(answer[at + 12..at + 12 + length].to_vec());
        at += 12 + length;
    }
    assert_eq!(at, answer.len());
    (answer[3] & 15, records)
}

fn ask_udp(netns: &OwnedFd, name: &str, kind: u16) -> Option<(u8, Vec<Vec<u8>>)> {
    let sent = question(name, kind);
    inside(netns, move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(6))).unwrap();
        socket.send_to(&sent, (dns::ADDRESS, 53)).unwrap();
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).ok()?;
        Some(parse(&buffer[..length], &sent))
    })
}

fn ask_tcp(netns: &OwnedFd, name: &str, kind: u16) -> Option<(u8, Vec<Vec<u8>>)> {
    let sent = question(name, kind);
    inside(netns, move || {
        let mut stream = TcpStream::connect((dns::ADDRESS, 53)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(6))).unwrap();
        stream
            .write_all(&u16::try_from(sent.len()).unwrap().to_be_bytes())
            .unwrap();
        // In two pieces, as a slow client would.
        stream.write_all(&sent[..5]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        stream.write_all(&sent[5..]).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer).ok()?;
        Some(parse(&answer, &sent))
    })
}

/// A name server on the host's loopback that says 9.9.9.9 to everything, and counts.
fn upstream() -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            break (udp, tcp);
        }
    };
    let place = udp.local_addr().unwrap();
    let answer = |sent: &[u8]| {
        let mut out = sent.to_vec();
        out[2] |= 0x80;
        out[7] = 1;
        out.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 9, 9, 9, 9]);
        out
    };
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            counter.fetch_add(1, Ordering::SeqCst);
            // First an answer to another question and one with a wrong id, as a forger would send.
            let mut forged = answer(&buffer[..length]);
            forged[0] ^= 0xff;
            drop(udp.send_to(&forged, from));
            let mut forged = answer(&buffer[..length]);
            forged[13] ^= 0x01;
            drop(udp.send_to(&forged, from));
            drop(udp.send_to(&answer(&buffer[..length]), from));
        }
    });
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let mut length = [0; 2];
            if stream.read_exact(&mut length).is_err() {
                continue;
            }
            let mut sent = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut sent).unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            let out = answer(&sent);
            stream
                .write_all(&u16::try_from(out.len()).unwrap().to_be_bytes())
                .unwrap();
            stream.write_all(&out).unwrap();
        }
    });
    (place, count)
}

/// The loop that a monitor has.
struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let outcome = self.thread.take().unwrap().join();
        assert!(outcome.is_ok() || std::thread::panicking());
    }
}

fn run(world: &World, container: &Container, upstreams: Vec<SocketAddr>) -> Running {
    drive(open(world, container, upstreams))
}

fn open(world: &World, container: &Container, upstreams: Vec<SocketAddr>) -> dns::Server {
    let netns = container.netns.as_fd();
    dns::Server::open(netns, world.root.path(), &container.id, upstreams).unwrap()
}

fn drive(mut server: dns::Server) -> Running {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        while !stopped.load(Ordering::SeqCst) {
            let wait = server
                .timeout(Instant::now())
                .unwrap_or(Duration::from_millis(50))
                .min(Duration::from_millis(50));
            let wait = rustix::event::Timespec {
                tv_sec: 0,
                tv_nsec: wait.subsec_nanos().into(),
            };
            let [fd] = server.fds();
            let mut polled = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut polled, Some(&wait)).unwrap();
            server.ready(Instant::now());
        }
    });
    Running {
        stop,
        thread: Some(thread),
    }
}

fn attach(world: &World, network: &Network, number: u8, name: &str, aliases: &[&str]) -> Container {
    let id = id(number);
    let netns = dhow_network::sandbox().unwrap();
    let aliases: Vec<String> = aliases.iter().map(|alias| (*alias).to_owned()).collect();
    let request = EndpointRequest {
        name,
        aliases: &aliases,
        hostname: &format!("host-of-{name}"),
        ..EndpointRequest::new(&id)
    };
    let (endpoint, held) = world.networks.attach(network, netns.as_fd(), &request).unwrap();
    Container {
        id,
        netns,
        endpoint,
        held,
    }
}

fn address(container: &Container) -> Option<(u8, Vec<Vec<u8>>)> {
    Some((0, vec![container.endpoint.ip.octets().to_vec()]))
}

#[test]
fn a_container_without_ipv6_is_known_and_has_no_address_of_it() {
    with_world(|world| {
        let network = world.network("net1", |wanted| wanted.ipv6 = Some(false));
        let one = attach(world, &network, 1, "one", &[]);
        let _db = attach(world, &network, 2, "db", &[]);
        let _server = run(world, &one, Vec::new());
        assert_eq!(ask_udp(&one.netns, "db", AAAA), Some((0, vec![])));
    });
}

#[test]
fn containers_are_found_by_name_alias_short_id_and_address() {
    with_world(|world| {
        let network = world.network("net1", |_| ());
        let one = attach(world, &network, 1, "one", &[]);
        let db = attach(world, &network, 2, "Db_1", &["db", "store"]);
        let _server = run(world, &one, Vec::new());
        for name in [
            "Db_1",
            "db_1",
            "db",
            "STORE",
            "db.net1",
            "host-of-Db_1",
            db.id.short(),
        ] {
            assert_eq!(ask_udp(&one.netns, name, A), address(&db), "{name}");
        }
        assert_eq!(ask_tcp(&one.netns, "db", A), address(&db));
        assert_eq!(
            ask_udp(&one.netns, "db", AAAA),
            Some((0, vec![db.endpoint.ip6.unwrap().octets().to_vec()]))
        );
        let [a, b, c, d] = db.endpoint.ip.octets();
        let (code, records) = ask_udp(&one.netns, &format!("{d}.{c}.{b}.{a}.in-addr.arpa"), PTR).unwrap();
        assert_eq!((code, records), (0, vec![b"\x04Db_1\x04net1\x00".to_vec()]));
        assert_eq!(
            ask_udp(&one.netns, &format!("99.{c}.{b}.{a}.in-addr.arpa"), PTR)
                .unwrap()
                .0,
            NO_NAME
        );
        assert_eq!(
            ask_udp(&one.netns, "unknown", A).unwrap().0,
            FAILED,
            "there is no upstream"
        );
    });
}

#[test]
fn names_follow_containers_that_come_go_and_connect() {
    with_world(|world| {
        let (first, second) = (world.network("first", |_| ()), world.network("second", |_| ()));
        let one = attach(world, &first, 1, "one", &[]);
        let other = attach(world, &second, 2, "other", &[]);
        let (place, _) = upstream();
        let _server = run(world, &one, vec![place]);
        let nines = Some((0, vec![vec![9, 9, 9, 9]]));
        for _ in 0..3 {
            assert_eq!(ask_udp(&one.netns, "two", A), nines);
            let two = attach(world, &first, 3, "two", &[]);
            assert_eq!(ask_udp(&one.netns, "two", A), address(&two));
            world.networks.detach(&two.endpoint).unwrap();
        }
        assert_eq!(ask_udp(&one.netns, "other", A), nines, "on another network");
        let (joined, _) = world
            .networks
            .attach(&second, one.netns.as_fd(), &EndpointRequest::new(&one.id))
            .unwrap();
        assert_eq!(ask_udp(&one.netns, "other", A), address(&other));
        world.networks.detach(&joined).unwrap();
        assert_eq!(ask_udp(&one.netns, "other", A), nines);
    });
}

#[test]
fn other_names_go_to_a_name_server_on_the_hosts_loopback() {
    with_world(|world| {
        let network = world.network("net1", |_| ());
        let one = attach(world, &network, 1, "one", &[]);
        let (place, count) = upstream();
        // The first one is not there; the answers of forgers are not taken.
        let dead = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let _server = run(world, &one, vec![dead, place]);
        let nines = Some((0, vec![vec![9, 9, 9, 9]]));
        assert_eq!(ask_udp(&one.netns, "example.org", A), nines);
        assert_eq!(ask_tcp(&one.netns, "example.org", A), nines);
        assert_eq!(count.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn the_hosts_file_of_name_servers_is_read_again_when_it_changes() {
    with_world(|world| {
        let network = world.network("app", |_| ());
        let container = attach(world, &network, 1, "one", &[]);
        let server_at = |place: &str, last: u8| {
            let udp = UdpSocket::bind(place).unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                    let mut out = buffer[..length].to_vec();
                    out[2] |= 0x80;
                    out[7] = 1;
                    out.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 9, 9, 9, last]);
                    drop(udp.send_to(&out, from));
                }
            });
        };
        server_at("127.0.0.2:53", 2);
        server_at("127.0.0.3:53", 3);
        let file = world.root.path().join("resolv.conf");
        std::fs::write(&file, "nameserver 127.0.0.2\n").unwrap();
        let mut server = open(world, &container, Vec::new());
        server.follow(file.clone());
        let _running = drive(server);
        let ask = || ask_udp(&container.netns, "ship.example", 1);
        assert_eq!(ask(), Some((0, vec![vec![9, 9, 9, 2]])));
        // As resolvconf and NetworkManager do it: another file takes its place.
        let next = world.root.path().join("resolv.conf.new");
        std::fs::write(&next, "nameserver 127.0.0.3\n").unwrap();
        std::fs::rename(&next, &file).unwrap();
        assert_eq!(ask(), Some((0, vec![vec![9, 9, 9, 3]])));
        // While it is not there, or empty, the last ones serve.
        std::fs::remove_file(&file).unwrap();
        assert_eq!(ask(), Some((0, vec![vec![9, 9, 9, 3]])));
        std::fs::write(&file, "").unwrap();
        assert_eq!(ask(), Some((0, vec![vec![9, 9, 9, 3]])));
    });
}

#[test]
fn on_an_internal_network_nothing_is_forwarded() {
    with_world(|world| {
        let network = world.network("inner", |wanted| wanted.internal = true);
        let one = attach(world, &network, 1, "one", &[]);
        let (place, count) = upstream();
        let _server = run(world, &one, vec![place]);
        assert_eq!(
            ask_udp(&one.netns, "secret.example.org", A),
            Some((NO_NAME, vec![]))
        );
        assert_eq!(
            ask_tcp(&one.netns, "secret.example.org", A),
            Some((NO_NAME, vec![]))
        );
        assert_eq!(ask_udp(&one.netns, "one", A), address(&one));
        assert_eq!(count.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_shared_alias_takes_turns() {
    with_world(|world| {
        let network = world.network("net1", |_| ());
        let one = attach(world, &network, 1, "one", &["web"]);
        let _two = attach(world, &network, 2, "two", &["web"]);
        let _server = run(world, &one, Vec::new());
        let mut firsts: Vec<Vec<u8>> = (0..4)
            .map(|_| ask_udp(&one.netns, "web", A).unwrap().1.first().unwrap().clone())
            .collect();
        assert_eq!(ask_udp(&one.netns, "web", A).unwrap().1.len(), 2);
        firsts.sort();
        firsts.dedup();
        assert_eq!(firsts.len(), 2);
    });
}

#[test]
fn silent_clients_and_silent_upstreams_hold_nobody_up() {
    with_world(|world| {
        let network = world.network("net1", |_| ());
        let one = attach(world, &network, 1, "one", &[]);
        // An upstream that never answers.
        let hole = UdpSocket::bind("127.0.0.1:0").unwrap();
        let _server = run(world, &one, vec![hole.local_addr().unwrap()]);
        let idle = inside(&one.netns, || {
            let idle: Vec<TcpStream> = (0..20)
                .map(|_| {
                    let mut stream = TcpStream::connect((dns::ADDRESS, 53)).unwrap();
                    drop(stream.write_all(&[0]));
                    stream
                })
                .collect();
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            for _ in 0..200 {
                socket
                    .send_to(&question("example.org", A), (dns::ADDRESS, 53))
                    .unwrap();
                socket.send_to(b"rubbish", (dns::ADDRESS, 53)).unwrap();
            }
            idle
        });
        // The kernel drops what does not fit the socket's buffer; the flood must be over, not forgotten.
        std::thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        assert_eq!(ask_udp(&one.netns, "one", A), address(&one));
        assert_eq!(ask_tcp(&one.netns, "one", A), address(&one));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        // When the server gives up it says so, and has room again.
        assert_eq!(ask_udp(&one.netns, "example.org", A).unwrap().0, FAILED);
        drop(idle);
    });
}

#[test]
fn a_container_may_have_port_53_of_every_address_for_itself() {
    with_world(|world| {
        let network = world.network("net1", |_| ());
        let one = attach(world, &network, 1, "one", &[]);
        let two = attach(world, &network, 2, "two", &[]);
        let _server = run(world, &one, Vec::new());
        udp_server(&one.netns, 53);
        tcp_server(&one.netns, 53);
        assert_eq!(ask_udp(&one.netns, "two", A), address(&two));
        assert_eq!(ask_tcp(&one.netns, "two", A), address(&two));
        assert_eq!(
            udp(&two.netns, one.endpoint.ip, 53),
            Ok(two.endpoint.ip.to_string())
        );
        assert_eq!(
            tcp(&two.netns, one.endpoint.ip, 53),
            Ok(two.endpoint.ip.to_string())
        );
        // A monitor that takes over after another died.
        let _successor = run(world, &one, Vec::new());
        assert_eq!(ask_tcp(&one.netns, "two", A), address(&two));
    });
}
