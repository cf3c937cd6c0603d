//! Networks of a normal user: bridges in a network namespace of that user, with an uplink by pasta.

use crate::unprivileged::Nobody;
use crate::world::{eventually, free_port, http};

const SERVE: &str = "mkdir -p /www; echo ahoy > /www/index.html; exec httpd -f -p 80 -h /www";

/// Starts a container that serves a word on port 80.
fn serve(nobody: &Nobody, flags: &str) {
    let mut args = vec!["run", "-d"];
    args.extend(flags.split_whitespace());
    args.extend(["box", "sh", "-c", SERVE]);
    nobody.dhow(&args).ok();
}

fn sh(nobody: &Nobody, flags: &str, script: &str) -> crate::world::Ran {
    let mut args = vec!["run", "--rm"];
    args.extend(flags.split_whitespace());
    args.extend(["box", "sh", "-c", script]);
    nobody.dhow(&args)
}

/// The processes of a user's network, by a word of their command line that names the user's home.
pub(crate) fn processes(nobody: &Nobody) -> Vec<String> {
    let folder = nobody.world.path("home").display().to_string();
    let all = crate::world::names(std::path::Path::new("/proc"));
    let line = |pid: &String| {
        let raw = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&raw).replace('\0', " ")
    };
    let of_pasta = |line: &String| line.contains("pasta") && line.contains(&folder);
    all.iter().map(line).filter(of_pasta).collect()
}

/// The host's own name is podman's addition: where pasta is too old to lead there, only who asks for it hears of that.
#[test]
fn unprivileged_podmans_containers_start_with_every_pasta() {
    let Some(nobody) = Nobody::with_network() else {
        return;
    };
    let asked = sh(&nobody, "--add-host there:host-gateway", "grep there /etc/hosts");
    let ran = nobody.podman("run --rm box grep -c host.containers.internal /etc/hosts");
    match asked.code {
        0 => assert_eq!(ran.ok(), "1"),
        _ => {
            asked.one_error(125).says("too old to lead");
            assert_eq!((ran.code, ran.stdout.trim()), (1, "0"), "{ran:?}");
        }
    }
}

#[test]
fn unprivileged_containers_have_a_network_and_reach_each_other() {
    let Some(nobody) = Nobody::with_network() else {
        return;
    };
    serve(&nobody, "--name web");
    assert_eq!(processes(&nobody).len(), 1, "one uplink for all");
    let ip = nobody
        .say("inspect -f {{.NetworkSettings.Networks.bridge.IPAddress}} web")
        .ok();
    let get = format!(
        "for i in 1 2 3 4 5; do timeout 5 wget -q -O - http://{ip}/ && exit 0; sleep 1; done; exit 1"
    );
    assert_eq!(sh(&nobody, "", &get).ok(), "ahoy");
    assert_eq!(
        sh(
            &nobody,
            "",
            "ip route | grep -c default; cat /sys/class/net/eth0/mtu"
        )
        .ok(),
        "1\n65520"
    );
    assert_eq!(processes(&nobody).len(), 1);
    nobody.say("rm -f web").ok();
    eventually("nothing stays without containers", || {
        processes(&nobody).is_empty()
    });
    assert_eq!(nobody.say("ps -aq").ok(), "");
    nobody.say("system check").ok();
}

/// An address of the machine that is not the one of its uplink.
struct Beyond(String);

impl Beyond {
    fn new() -> Option<Self> {
        let address = format!("198.51.100.{}", 1 + std::process::id() % 250);
        let added = std::process::Command::new("ip")
            .args(["addr", "add", &format!("{address}/32"), "dev", "lo"])
            .status();
        if !added.is_ok_and(|status| status.success()) {
            eprintln!("skipped: cannot give the machine one more address");
            return None;
        }
        Some(Self(address))
    }
}

impl Drop for Beyond {
    fn drop(&mut self) {
        let address = format!("{}/32", self.0);
        drop(
            std::process::Command::new("ip")
                .args(["addr", "del", &address, "dev", "lo"])
                .status(),
        );
    }
}

#[test]
fn unprivileged_containers_reach_what_is_beyond_their_network() {
    let Some(nobody) = Nobody::with_network() else {
        return;
    };
    let Some(beyond) = Beyond::new() else { return };
    let server = std::net::TcpListener::bind((beyond.0.as_str(), 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    let answers = std::thread::spawn(move || {
        use std::io::Write as _;
        for _ in 0..2 {
            server.accept().unwrap().0.write_all(b"ahoy\n").unwrap();
        }
    });
    let ask = format!("sleep 1 | timeout 5 nc {} {port}; exit 0", beyond.0);
    sh(&nobody, "", &ask).exits(0).prints("ahoy");
    nobody.say("network create --internal cellar").ok();
    assert_eq!(sh(&nobody, "--network cellar", &ask).exits(0).stdout, "");
    let dockerfile = format!("FROM box\nRUN ({ask}) > /word\n");
    std::fs::create_dir(nobody.world.path("home/context")).unwrap();
    std::fs::write(nobody.world.path("home/context/Dockerfile"), dockerfile).unwrap();
    nobody.say("build -t built context").exits(0);
    assert_eq!(nobody.say("run --rm --network none built cat /word").ok(), "ahoy");
    answers.join().unwrap();
    nobody.say("system check").ok();
}

/// A name server that the machine has on its loopback alone, as systemd-resolved is.
#[test]
fn unprivileged_containers_ask_a_name_server_on_the_hosts_loopback() {
    let Some(mut nobody) = Nobody::with_network() else {
        return;
    };
    let Ok(server) = std::net::UdpSocket::bind("127.0.0.53:53") else {
        eprintln!("skipped: 127.0.0.53:53 is not to be had");
        return;
    };
    if !rustix::process::geteuid().is_root() {
        return;
    }
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = server.recv_from(&mut buffer) {
            // The question comes back with an answer: its name, A, IN, a minute, 192.0.2.77 (RFC 1035, 4.1).
            let mut answer = buffer[..length].to_vec();
            (answer[2], answer[3], answer[7]) = (0x81, 0x80, 1);
            let end = 12 + answer[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
            answer.truncate(end);
            (answer[9], answer[11]) = (0, 0);
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]);
            drop(server.send_to(&answer, client));
        }
    });
    let file = nobody.world.path("resolv.conf");
    std::fs::write(&file, "nameserver 127.0.0.53\n").unwrap();
    nobody.resolv_conf = Some(file);
    nobody.say("network create sea").ok();
    for network in ["bridge", "sea"] {
        let ran = sh(
            &nobody,
            &format!("--network {network}"),
            "cat /etc/resolv.conf; nslookup ship.example",
        );
        ran.prints("192.0.2.77");
    }
    nobody.say("system check").ok();
}

#[test]
fn unprivileged_a_low_port_is_refused_with_the_word_that_allows_it() {
    let Some(nobody) = Nobody::with_network() else {
        return;
    };
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first.trim().parse::<u16>().unwrap() <= 81 {
        return;
    }
    nobody
        .say("run --rm -p 81:80 box true")
        .one_error(125)
        .says("net.ipv4.ip_unprivileged_port_start=81");
}

#[test]
fn unprivileged_published_ports_answer_and_are_free_again() {
    let Some(nobody) = Nobody::with_network() else {
        return;
    };
    let port = free_port();
    serve(&nobody, &format!("--name web -p {port}:80"));
    let mut places = vec![format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
    places.extend(crate::world::host_address().map(|address| format!("{address}:{port}")));
    for place in &places {
        eventually(&format!("it answers at {place}"), || {
            http(place, "/").as_deref() == Some("ahoy\n")
        });
    }
    nobody
        .say(&format!("run --name second -p {port}:80 box true"))
        .exits(125)
        .says("port is already allocated");
    // A container reaches it by the address of the host, too.
    if let Some(address) = crate::world::host_address() {
        let get = format!("timeout 5 wget -q -O - http://{address}:{port}/; exit $?");
        assert_eq!(sh(&nobody, "", &get).ok(), "ahoy");
    }
    nobody.say("restart -t 0 web").ok();
    eventually("it answers after a restart", || http(&places[0], "/").is_some());
    // Its monitor is not what carries it.
    let pid = nobody.say("inspect -f {{.State.Pid}} web").ok();
    crate::lifecycle::kill(crate::lifecycle::parent(pid.parse().unwrap()));
    assert!(http(&places[0], "/").is_some());
    nobody.say("rm -f web").ok();
    eventually("the port is free", || {
        std::net::TcpListener::bind(("0.0.0.0", port)).is_ok()
    });
    assert!(std::net::TcpListener::bind(("::", port)).is_ok());
    let other = free_port();
    serve(&nobody, &format!("--name local -p 127.0.0.1:{other}:80"));
    eventually("it answers on loopback", || {
        http(&format!("127.0.0.1:{other}"), "/").is_some()
    });
    if let Some(address) = crate::world::host_address() {
        assert_eq!(http(&format!("{address}:{other}"), "/"), None);
    }
    nobody
        .say(&format!("run --rm -p {port}:80/sctp box true"))
        .one_error(125)
        .says("sctp");
    nobody.say("rm -f local second").ok();
    assert_eq!(nobody.say("ps -aq").ok(), "");
    nobody.say("system check").ok();
}

/// What goes through a port comes out as it was, in both directions, also more than any buffer holds.
#[test]
fn unprivileged_published_ports_carry_what_is_large_and_halves_that_end() {
    use std::io::{Read as _, Write as _};
    let Some(nobody) = Nobody::with_network() else {
        return;
    };
    let port = free_port();
    let publish = format!("{port}:7");
    let args = [
        "run",
        "-d",
        "--name",
        "echo",
        "-p",
        publish.as_str(),
        "box",
        "nc",
        "-ll",
        "-p",
        "7",
        "-e",
        "cat",
    ];
    nobody.dhow(&args).ok();
    let sent: Vec<u8> = (0..20_000_000_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    eventually("it is returned", || {
        let Ok(stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else {
            return false;
        };
        let mut writer = stream.try_clone().unwrap();
        let copy = sent.clone();
        let thread = std::thread::spawn(move || {
            let written = writer.write_all(&copy);
            drop(writer.shutdown(std::net::Shutdown::Write));
            written.is_ok()
        });
        let mut back = Vec::new();
        let read = (&stream).read_to_end(&mut back);
        thread.join().unwrap() && read.is_ok() && back == sent
    });
    nobody.say("rm -f echo").ok();
}

#[test]
fn unprivileged_published_udp_ports_take_traffic_both_ways() {
    use std::net::UdpSocket;
    let Some(nobody) = Nobody::with_network() else {
        return;
    };
    let port = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let publish = format!("-p {port}:7/udp");
    let mut args = vec!["run", "-d", "--name", "echo"];
    args.extend(publish.split(' '));
    // With a perl that every Debian has.
    args.extend("-v /usr:/usr:ro -v /lib:/lib:ro -v /lib64:/lib64:ro".split(' '));
    args.extend(["box", "/usr/bin/perl", "-e", crate::network::UDP_ECHO]);
    if !std::path::Path::new("/lib64").exists() {
        return;
    }
    nobody.dhow(&args).ok();
    let ask = |client: &UdpSocket, to: &str, text: &str| -> Option<String> {
        client
            .set_read_timeout(Some(std::time::Duration::from_millis(300)))
            .unwrap();
        client.send_to(text.as_bytes(), to).ok()?;
        let mut buffer = [0; 2000];
        let (count, from) = client.recv_from(&mut buffer).ok()?;
        assert_eq!(from.to_string(), to);
        Some(String::from_utf8_lossy(&buffer[..count]).into_owned())
    };
    for (own, to) in [
        ("127.0.0.1:0", format!("127.0.0.1:{port}")),
        ("[::1]:0", format!("[::1]:{port}")),
    ] {
        let client = UdpSocket::bind(own).unwrap();
        eventually(&format!("it answers at {to}"), || {
            ask(&client, &to, "ahoy").as_deref() == Some("AHOY")
        });
        for round in 0..20 {
            let text = format!("round {round}");
            eventually("the flow goes on", || {
                ask(&client, &to, &text) == Some(text.to_uppercase())
            });
        }
    }
    nobody.say("rm -f echo").ok();
}

#[test]
fn unprivileged_networks_of_both_families_are_reached_by_both() {
    let Some(nobody) = Nobody::with_network() else {
        return;
    };
    if !std::path::Path::new("/proc/sys/net/ipv6").exists() {
        return;
    }
    nobody.say("network create --ipv6 dual").ok();
    let port = free_port();
    serve(&nobody, &format!("--name web --network dual -p {port}:80"));
    let ip = nobody
        .say("inspect -f {{.NetworkSettings.Networks.dual.GlobalIPv6Address}} web")
        .ok();
    let get = format!(
        "for i in 1 2 3 4 5; do timeout 5 wget -q -O - http://[{ip}]/ && exit 0; sleep 1; done; exit 1"
    );
    assert_eq!(sh(&nobody, "--network dual", &get).ok(), "ahoy");
    for place in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        eventually(&format!("it answers at {place}"), || {
            http(&place, "/").as_deref() == Some("ahoy\n")
        });
    }
    nobody.say("rm -f web").ok();
    nobody.say("network rm dual").ok();
    nobody
        .say("network create -d macvlan wire")
        .one_error(1)
        .says("root's");
}

/// Says to each client, over TCP and over UDP on port 7, which address it has.
const WHO: &str = "use IO::Socket::INET; use IO::Select; \
    my $t=IO::Socket::INET->new(Listen=>9,LocalPort=>7,ReuseAddr=>1); my $u=IO::Socket::INET->new(Proto=>'udp',LocalPort=>7); \
    my $s=IO::Select->new($t,$u); while(1){for my $f($s->can_read){ \
    if($f==$t){my $c=$t->accept; print $c $c->peerhost,\"\\n\"; close $c}else{my $m; $u->recv($m,99); $u->send($u->peerhost)}}}";

#[test]
fn unprivileged_containers_see_the_addresses_of_their_clients() {
    let Some(nobody) = Nobody::with_network() else {
        return;
    };
    if !crate::world::program("perl") || !std::path::Path::new("/lib64").exists() {
        return;
    }
    let Some(beyond) = Beyond::new() else { return };
    let port = free_port();
    let (tcp, udp) = (format!("{port}:7"), format!("{port}:7/udp"));
    let mut args = vec!["run", "-d", "--name", "who", "-p", &tcp, "-p", &udp];
    args.extend("-v /usr:/usr:ro -v /lib:/lib:ro -v /lib64:/lib64:ro".split(' '));
    args.extend(["box", "/usr/bin/perl", "-e", WHO]);
    nobody.dhow(&args).ok();
    let ask = |own: &str| {
        let client = format!(
            "use IO::Socket::INET; my $s=IO::Socket::INET->new(LocalAddr=>'{own}',PeerAddr=>'127.0.0.1:{port}',Timeout=>2) or exit 1; \
             print scalar <$s>"
        );
        let output = std::process::Command::new("perl")
            .args(["-e", &client])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    eventually("a client from elsewhere is seen", || ask(&beyond.0) == beyond.0);
    // The machine itself is the gateway.
    let gateway = nobody
        .say("inspect -f {{.NetworkSettings.Networks.bridge.Gateway}} who")
        .ok();
    assert_eq!(ask("127.0.0.1"), gateway);
    let socket = std::net::UdpSocket::bind((beyond.0.as_str(), 0)).unwrap();
    socket
        .set_read_timeout(Some(std::time::Duration::from_millis(500)))
        .unwrap();
    eventually("over UDP, too", || {
        let mut buffer = [0; 99];
        drop(socket.send_to(b"who", ("127.0.0.1", port)));
        let length = socket.recv(&mut buffer).unwrap_or(0);
        buffer[..length] == *beyond.0.as_bytes()
    });
    nobody.say("rm -f who").ok();
}

#[test]
fn unprivileged_names_resolve_on_networks_which_are_apart() {
    let Some(nobody) = Nobody::with_network() else {
        return;
    };
    nobody.say("network create sea").ok();
    nobody.say("network create lake").ok();
    serve(&nobody, "--name harbour --network sea --network-alias port");
    for name in ["harbour", "port"] {
        let script = format!(
            "for i in 1 2 3 4 5; do timeout 5 wget -q -O - http://{name}/ && exit 0; sleep 1; done; exit 1"
        );
        assert_eq!(sh(&nobody, "--network sea", &script).ok(), "ahoy", "{name}");
    }
    let ip = nobody
        .say("inspect -f {{.NetworkSettings.Networks.sea.IPAddress}} harbour")
        .ok();
    let get = format!("timeout 2 wget -q -O - http://{ip}/; exit $?");
    assert_ne!(sh(&nobody, "--network lake", &get).code, 0);
    nobody.say("network connect lake harbour").ok();
    let script =
        "for i in 1 2 3 4 5; do timeout 5 wget -q -O - http://harbour/ && exit 0; sleep 1; done; exit 1";
    assert_eq!(sh(&nobody, "--network lake", script).ok(), "ahoy");
    nobody.say("network disconnect lake harbour").ok();
    assert_ne!(
        sh(
            &nobody,
            "--network lake",
            "timeout 2 wget -q -O - http://harbour/; exit $?"
        )
        .code,
        0
    );
    nobody.say("rm -f harbour").ok();
    nobody.say("network rm sea lake").ok();
    nobody.say("system check").ok();
}

#[test]
fn unprivileged_a_holder_that_was_killed_is_followed_by_another() {
    let Some(nobody) = Nobody::with_network() else {
        return;
    };
    nobody.say("run -d --name first box sleep 1000").ok();
    let record = nobody.world.path("home/.local/share/dhow/run/user/holder.json");
    let holder = || -> u32 {
        let text = std::fs::read(&record).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
        record["pid"].as_u64().unwrap().try_into().unwrap()
    };
    let before = holder();
    crate::lifecycle::kill(before);
    nobody.say("run -d --name second box sleep 1000").ok();
    assert_ne!(holder(), before);
    assert_eq!(processes(&nobody).len(), 1, "the uplink of the first has ended");
    assert!(nobody.say("exec second ip route").ok().contains("default"));
    nobody.say("rm -f first second").ok();
    eventually("nothing stays without containers", || {
        processes(&nobody).is_empty()
    });
    nobody.say("system check").ok();
}

/// Even with a record that names a program in a container which made namespaces of its own, nobody goes there.
#[test]
fn unprivileged_a_container_lures_nobody_into_its_own_network() {
    let Some(nobody) = Nobody::with_network() else {
        return;
    };
    let bait = "run -d --name bait --network none --security-opt seccomp=unconfined box busybox unshare -Un sleep 1000";
    nobody.say(bait).ok();
    let pid = nobody.say("inspect -f {{.State.Pid}} bait").ok();
    let namespace = |name: &str| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
    let before = namespace("net");
    eventually("it is in a network of its own", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        stat.trim() == "sleep"
    });
    nobody.say("run --rm box true").ok();
    let record = nobody.world.path("home/.local/share/dhow/run/user/holder.json");
    let text = std::fs::read(&record).unwrap();
    let mut holder: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let real = holder["pid"].as_u64().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let start = stat[stat.rfind(')').unwrap() + 2..].split(' ').nth(19).unwrap();
    holder["pid"] = pid.parse::<u64>().unwrap().into();
    holder["start"] = start.parse::<u64>().unwrap().into();
    // What the user's own files say is theirs to say, so this is not an attack but a mistake to be made: it costs the process.
    std::fs::write(&record, holder.to_string()).unwrap();
    nobody.say("run --rm box true").ok();
    let text = std::fs::read(&record).unwrap();
    let now: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_ne!(now["pid"], holder["pid"], "another was made ({before:?})");
    crate::lifecycle::kill(u32::try_from(real).unwrap());
    nobody.say("rm -f bait").ok();
    assert_eq!(nobody.say("ps -aq").ok(), "");
}

/// A root that is removed takes the processes of its network along, though their records are gone with it.
#[test]
fn unprivileged_a_removed_root_leaves_no_process_of_its_network() {
    let Some(nobody) = Nobody::with_network() else {
        return;
    };
    sh(&nobody, "", "true").exits(0);
    assert_eq!(
        processes(&nobody).len(),
        1,
        "it stays a while for the next container"
    );
    std::fs::remove_dir_all(nobody.world.path("home").join(".local")).unwrap();
    eventually("nothing stays without its root", || processes(&nobody).is_empty());
}
