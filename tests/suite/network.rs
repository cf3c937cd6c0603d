//! Networks: publishing, names, isolation, modes.

use crate::world::{Ran, World, eventually, free_port, host_address, http};

const SERVE: &str = "mkdir -p /www; echo ahoy > /www/index.html; exec httpd -f -p 80 -h /www";

pub(crate) fn serve(world: &World, flags: &str) -> Ran {
    let mut args = vec!["run", "-d"];
    args.extend(flags.split_whitespace());
    args.extend(["busybox", "sh", "-c", SERVE]);
    world.dhow(&args)
}

#[test]
fn a_published_port_answers_on_loopback_and_on_the_hosts_address() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let port = free_port();
    serve(&world, &format!("--name web -p {port}:80")).ok();
    let local = format!("127.0.0.1:{port}");
    eventually("it answers on loopback", || {
        http(&local, "/").as_deref() == Some("ahoy\n")
    });
    if let Some(address) = host_address() {
        let remote = format!("{address}:{port}");
        eventually("it answers on the host's own address", || {
            http(&remote, "/").as_deref() == Some("ahoy\n")
        });
    }
    assert_eq!(
        world.say("port web 80").ok().lines().next(),
        Some(format!("0.0.0.0:{port}").as_str())
    );
    let ps = world.dhow(&["ps", "--format", "{{.Ports}}"]).ok();
    assert!(ps.contains(&format!("0.0.0.0:{port}->80/tcp")), "{ps}");
    world.say("rm -f web").ok();
    assert_eq!(http(&local, "/"), None, "nothing listens any more");
}

#[test]
fn a_port_bound_to_loopback_is_not_reached_from_outside() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let port = free_port();
    serve(&world, &format!("-p 127.0.0.1:{port}:80")).ok();
    eventually("it answers on loopback", || {
        http(&format!("127.0.0.1:{port}"), "/").is_some()
    });
    if let Some(address) = host_address() {
        assert_eq!(http(&format!("{address}:{port}"), "/"), None);
    }
}

#[test]
fn a_published_port_answers_by_ipv6_too_whatever_the_container_has() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    if !std::path::Path::new("/proc/sys/net/ipv6").exists() {
        return;
    }
    world.say("network create --ipv6 dual").ok();
    for (name, network) in [("four", "bridge"), ("both", "dual")] {
        let port = free_port();
        serve(&world, &format!("--name {name} --network {network} -p {port}:80")).ok();
        for place in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
            eventually(&format!("{name} answers at {place}"), || {
                http(&place, "/").as_deref() == Some("ahoy\n")
            });
        }
        let shown = world.say(&format!("port {name}")).ok();
        assert_eq!(shown, format!("80/tcp -> 0.0.0.0:{port}\n80/tcp -> [::]:{port}"));
        std::net::TcpListener::bind(("::", port)).unwrap_err();
        world.say(&format!("rm -f {name}")).ok();
        std::net::TcpListener::bind(("::", port)).unwrap();
    }
    let port = free_port();
    serve(&world, &format!("--name local -p [::1]:{port}:80")).ok();
    let place = format!("[::1]:{port}");
    eventually("it answers there", || http(&place, "/").is_some());
    assert_eq!(http(&format!("127.0.0.1:{port}"), "/"), None);
    world.say("rm -f local").ok();
    world.clean();
}

/// Takes every connection at once, and answers a request with a word.
const PATIENT: &str = "use IO::Socket::INET; use IO::Select; \
    my $t=IO::Socket::INET->new(Listen=>2000,LocalPort=>80,ReuseAddr=>1); my $s=IO::Select->new($t); \
    while(1){for my $f($s->can_read){if($f==$t){$s->add($t->accept)}else{ \
    my $n=sysread($f,my $b,9999); print $f \"HTTP/1.0 200 OK\\r\\n\\r\\nahoy\\n\" if $n; $s->remove($f); close $f}}}";

/// What a monitor carries by itself does not keep it from its other work.
#[test]
fn many_connections_to_a_relayed_port_leave_the_monitor_its_descriptors() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    if !std::path::Path::new("/proc/sys/net/ipv6").exists() {
        return;
    }
    if !crate::world::program("perl") || !std::path::Path::new("/lib64").exists() {
        return;
    }
    let port = free_port();
    let publish = format!("-p {port}:80 -v /usr:/usr:ro -v /lib:/lib:ro -v /lib64:/lib64:ro");
    let mut args = vec!["run", "-d", "--name", "web"];
    args.extend(publish.split(' '));
    args.extend(["busybox", "/usr/bin/perl", "-e", PATIENT]);
    world.dhow(&args).ok();
    let place = format!("[::1]:{port}");
    eventually("it answers", || http(&place, "/").is_some());
    let many: Vec<_> = (0..600)
        .map(|_| std::net::TcpStream::connect(&place).unwrap())
        .collect();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let pid: u32 = world.inspect("web", "{{.State.Pid}}").parse().unwrap();
    let monitor = crate::lifecycle::parent(pid);
    let open = crate::world::names(std::path::Path::new(&format!("/proc/{monitor}/fd"))).len();
    assert!((300..700).contains(&open), "{open} descriptors");
    assert_eq!(world.say("exec web echo here").ok(), "here");
    drop(many);
    eventually("it answers again", || {
        http(&place, "/").as_deref() == Some("ahoy\n")
    });
    eventually("they are all closed", || {
        crate::world::names(std::path::Path::new(&format!("/proc/{monitor}/fd"))).len() < 60
    });
    world.say("rm -f web").ok();
    world.clean();
}

#[test]
fn a_container_reaches_a_published_port_of_another_by_the_hosts_address() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let Some(address) = host_address() else { return };
    let port = free_port();
    serve(&world, &format!("-p {port}:80")).ok();
    eventually("it answers", || http(&format!("127.0.0.1:{port}"), "/").is_some());
    assert_eq!(
        world
            .sh(
                "",
                &format!("timeout 5 wget -q -O - http://{address}:{port}/; exit $?")
            )
            .ok(),
        "ahoy"
    );
}

#[test]
fn a_port_without_a_number_gets_a_free_one() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    serve(&world, "--name any -p 80").ok();
    let line = world.say("port any").ok();
    let address = line
        .lines()
        .next()
        .unwrap()
        .strip_prefix("80/tcp -> 0.0.0.0:")
        .unwrap_or_else(|| panic!("{line}"))
        .to_owned();
    eventually("it answers", || {
        http(&format!("127.0.0.1:{address}"), "/").is_some()
    });
}

#[test]
fn a_port_in_use_is_refused_with_dockers_words_and_leaves_nothing() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let ran = serve(&world, &format!("--rm -p {port}:80")).exits(125);
    ran.says("port is already allocated").says(&port.to_string());
    let mine = free_port();
    serve(&world, &format!("--name first -p {mine}:80")).ok();
    serve(&world, &format!("--name second -p {mine}:80"))
        .exits(125)
        .says("port is already allocated");
    world.say("rm -f first").ok();
    world.say("start second").ok();
    eventually("the second has it now", || {
        http(&format!("127.0.0.1:{mine}"), "/").is_some()
    });
    world.clean();
}

#[test]
fn names_resolve_on_a_network_of_ones_own() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("network create sea").ok();
    serve(&world, "--name harbour --network sea --network-alias port").ok();
    for name in ["harbour", "port"] {
        let script = format!(
            "for i in 1 2 3 4 5; do timeout 5 wget -q -O - http://{name}/ && exit 0; sleep 1; done; exit 1"
        );
        assert_eq!(world.sh("--network sea", &script).ok(), "ahoy", "{name}");
    }
    world
        .sh("--network sea", "nslookup no-such-name-anywhere.invalid")
        .exits(1);
    world
        .sh("", "timeout 2 wget -q -O - http://harbour/; exit $?")
        .exits(1);
    let ip = world.inspect("harbour", "{{.NetworkSettings.Networks.sea.IPAddress}}");
    assert!(ip.parse::<std::net::Ipv4Addr>().is_ok(), "{ip}");
}

#[test]
fn networks_are_apart() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("network create north").ok();
    world.say("network create south").ok();
    serve(&world, "--name in-north --network north").ok();
    let ip = world.inspect("in-north", "{{.NetworkSettings.Networks.north.IPAddress}}");
    let get = format!("timeout 2 wget -q -O - http://{ip}/; exit $?");
    assert_eq!(
        world.sh("--network north", &format!("sleep 0.3; {get}")).ok(),
        "ahoy"
    );
    assert_ne!(world.sh("--network south", &get).code, 0);
    assert_ne!(world.sh("", &get).code, 0);
}

#[test]
fn an_internal_network_has_no_way_out() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let Some(address) = host_address() else { return };
    let port = free_port();
    serve(&world, &format!("-p {port}:80")).ok();
    eventually("it answers", || http(&format!("127.0.0.1:{port}"), "/").is_some());
    let ask = format!("timeout 3 wget -q -O - http://{address}:{port}/; exit $?");
    assert_eq!(world.sh("", &ask).ok(), "ahoy");
    world.say("network create --internal cellar").ok();
    assert_eq!(
        world
            .sh("--network cellar", "ip route | grep -c default")
            .exits(1)
            .stdout,
        "0\n"
    );
    assert_ne!(world.sh("--network cellar", &ask).code, 0);
}

#[test]
fn the_modes_none_host_and_container_are_what_they_say() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    assert_eq!(
        world
            .sh(
                "--network none",
                "ls /sys/class/net; ip addr show lo | grep -c 127.0.0.1"
            )
            .ok(),
        "lo\n1"
    );
    let host = crate::world::names(std::path::Path::new("/sys/class/net"));
    let uplink = host
        .iter()
        .find(|name| name.starts_with('e'))
        .or(host.first())
        .unwrap();
    world
        .sh("--network host", &format!("test -e /sys/class/net/{uplink}"))
        .ok();
    assert_eq!(
        world.sh("--network host", "hostname").ok(),
        rustix::system::uname().nodename().to_string_lossy()
    );
    serve(&world, "--name web").ok();
    let get =
        "for i in 1 2 3 4 5; do timeout 5 wget -q -O - http://127.0.0.1/ && exit 0; sleep 0.5; done; exit 1";
    assert_eq!(world.sh("--network container:web", get).ok(), "ahoy");
    world
        .sh("--network container:no-such", "true")
        .one_error(125)
        .says("no-such");
}

#[test]
fn the_containers_device_has_the_mtu_of_the_uplink() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let mtu = |name: &str| -> u32 {
        std::fs::read_to_string(format!("/sys/class/net/{name}/mtu"))
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    };
    let route = std::fs::read_to_string("/proc/net/route").unwrap();
    let uplink = route
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .find(|words| words[1] == "00000000");
    let Some(uplink) = uplink.map(|words| words[0].to_owned()) else {
        return;
    };
    assert_eq!(
        world.sh("", "cat /sys/class/net/eth0/mtu").ok(),
        mtu(&uplink).to_string()
    );
    world
        .say("network create -o com.docker.network.driver.mtu=1280 narrow")
        .ok();
    assert_eq!(
        world.sh("--network narrow", "cat /sys/class/net/eth0/mtu").ok(),
        "1280"
    );
}

#[test]
fn addresses_are_of_the_subnet_and_are_given_back() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("network create --subnet 10.211.7.0/29 tiny").ok();
    assert_eq!(
        world
            .sh(
                "--network tiny --ip 10.211.7.5",
                "ip -4 addr show eth0 | grep -c 10.211.7.5/29"
            )
            .ok(),
        "1"
    );
    for _ in 0..8 {
        world.sh("--network tiny", "true").ok();
    }
    for _ in 0..5 {
        world.say("run -d --network tiny busybox sleep 100").ok();
    }
    world.sh("--network tiny", "true").one_error(125).says("address");
    world
        .say("network create --subnet 10.211.7.0/28 again")
        .one_error(1)
        .says("pool overlaps");
    world
        .say("network rm tiny")
        .one_error(1)
        .says("has active endpoints");
    world.clean();
}

#[test]
fn networks_are_listed_inspected_and_removed() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    assert_eq!(
        world
            .say("network create --label a=b one")
            .exits(0)
            .stdout
            .trim()
            .len(),
        64
    );
    let list = world.say("network ls").ok();
    assert!(
        list.starts_with("NETWORK ID") && list.contains("bridge") && list.contains("one"),
        "{list}"
    );
    assert_eq!(
        world
            .say("network ls -q --filter label=a=b")
            .exits(0)
            .stdout
            .lines()
            .count(),
        1
    );
    world
        .say("network create one")
        .one_error(1)
        .says("network with name one already exists");
    assert_eq!(world.say("network rm one").ok(), "one");
    world
        .say("network rm one")
        .one_error(1)
        .says("network one not found");
    world
        .say("network rm bridge")
        .one_error(1)
        .says("pre-defined network");
    world
        .say("network inspect one")
        .exits(1)
        .says("network one not found");
}

/// Answers every datagram with the same text in capitals, with a perl that every Debian has.
pub(crate) const UDP_ECHO: &str = "use Socket; socket(S,PF_INET,SOCK_DGRAM,0); bind(S,sockaddr_in(7,INADDR_ANY)); \
                        while(defined(my $a=recv(S,my $m,2000,0))){send(S,uc $m,0,$a)}";

#[test]
fn a_published_udp_port_takes_traffic_both_ways() {
    use std::net::UdpSocket;
    use std::time::Duration;
    let Some(world) = World::with_busybox() else {
        return;
    };
    if !crate::world::program("perl") {
        return;
    }
    let port = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let publish = format!("{port}:7/udp");
    let mut args = vec![
        "run".to_owned(),
        "-d".into(),
        "--name".into(),
        "echo".into(),
        "-p".into(),
        publish,
    ];
    for folder in ["/usr", "/lib", "/lib64"]
        .iter()
        .filter(|folder| std::path::Path::new(folder).is_dir())
    {
        args.extend(["-v".to_owned(), format!("{folder}:{folder}:ro")]);
    }
    args.extend(["busybox", "/usr/bin/perl", "-e", UDP_ECHO].map(str::to_owned));
    world.dhow(&args).ok();
    let ask = |client: &UdpSocket, to: &str, text: &str| -> Option<String> {
        client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        client.send_to(text.as_bytes(), to).ok()?;
        let mut buffer = [0; 2000];
        let (count, from) = client.recv_from(&mut buffer).ok()?;
        // The answer comes from where the question went.
        assert_eq!(from.to_string(), to);
        Some(String::from_utf8_lossy(&buffer[..count]).into_owned())
    };
    let places = [Some("127.0.0.1".to_owned()), host_address()];
    for place in places.iter().flatten() {
        let to = format!("{place}:{port}");
        let client = UdpSocket::bind("0.0.0.0:0").unwrap();
        eventually("it answers", || {
            ask(&client, &to, "ahoy").as_deref() == Some("AHOY")
        });
        // The same flow goes on, and a second one beside it.
        let other = UdpSocket::bind("0.0.0.0:0").unwrap();
        for round in 0..20 {
            let text = format!("round {round}");
            eventually("both flows go on", || {
                ask(&client, &to, &text) == Some(text.to_uppercase())
                    && ask(&other, &to, &text) == Some(text.to_uppercase())
            });
        }
    }
    assert_eq!(
        world.say("port echo").ok().lines().next(),
        Some(format!("7/udp -> 0.0.0.0:{port}").as_str())
    );
    // A new container behind the port gets what an old flow sends on.
    let to = format!("127.0.0.1:{port}");
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    eventually("it answers", || ask(&client, &to, "x").is_some());
    world.say("rm -f echo").ok();
    assert_eq!(ask(&client, &to, "x"), None);
    world.dhow(&args).ok();
    eventually("the old flow reaches the new container", || {
        ask(&client, &to, "again").as_deref() == Some("AGAIN")
    });
}

/// The table of a root, told apart from others by a published port.
pub(crate) fn table(port: u16) -> Option<String> {
    let run = |args: &[&str]| {
        let output = std::process::Command::new("nft").args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let all = run(&["list", "tables", "inet"]);
    all.lines()
        .filter_map(|line| line.strip_prefix("table inet "))
        .find(|name| {
            name.starts_with("dhow") && run(&["list", "table", "inet", name]).contains(&format!(" {port} "))
        })
        .map(str::to_owned)
}

/// The processes that write flushed rules of this root again.
fn watching(world: &World) -> Vec<u32> {
    let pids = world.processes().into_iter().filter_map(|line| {
        let pid: u32 = line.split(' ').next()?.parse().ok()?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name.trim() == "dhow-net").then_some(pid)
    });
    pids.collect()
}

#[test]
fn flushed_rules_come_back_without_a_command_and_nobody_watches_in_vain() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    if !crate::world::program("nft") {
        return;
    }
    let port = free_port();
    serve(&world, &format!("--name web -p {port}:80")).ok();
    serve(&world, "--name other").ok();
    let local = format!("127.0.0.1:{port}");
    eventually("it answers", || http(&local, "/").is_some());
    eventually("somebody watches the rules", || !watching(&world).is_empty());
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(watching(&world).len(), 1, "one for all containers");
    for _ in 0..5 {
        let name = table(port).unwrap();
        let done = std::process::Command::new("nft")
            .args(["delete", "table", "inet", &name])
            .status();
        assert!(done.unwrap().success());
        eventually("the rules are there again", || table(port).is_some());
        assert!(http(&local, "/").is_some());
    }
    world.say("rm -f web").ok();
    assert_eq!(watching(&world).len(), 1, "the other is still there");
    world.say("rm -f other").ok();
    eventually("nobody watches for nobody", || watching(&world).is_empty());
    world.clean();
}

#[test]
fn flushed_rules_are_found_and_written_again() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    if !crate::world::program("nft") {
        return;
    }
    let port = free_port();
    serve(&world, &format!("--name web -p {port}:80")).ok();
    let local = format!("127.0.0.1:{port}");
    eventually("it answers", || http(&local, "/").is_some());
    // Who watches the rules would be first; without it, commands find what is missing.
    eventually("somebody watches the rules", || !watching(&world).is_empty());
    watching(&world).into_iter().for_each(crate::lifecycle::kill);
    let flush = || {
        let name = table(port).unwrap();
        let done = std::process::Command::new("nft")
            .args(["delete", "table", "inet", &name])
            .status()
            .unwrap();
        assert!(done.success());
        assert_eq!(http(&local, "/"), None, "the rules are gone");
    };
    flush();
    world.say("system check").exits(1).prints("packet filter");
    world.say("system check --repair").ok();
    assert!(http(&local, "/").is_some());
    world.clean();
    for verb in ["network ls", "network inspect bridge", "start web"] {
        flush();
        world.say(verb).ok();
        assert!(http(&local, "/").is_some(), "{verb}");
    }
}

#[test]
fn a_container_joins_and_leaves_networks() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("network create --subnet 10.211.9.0/24 one").ok();
    world.say("network create two").ok();
    world
        .say("run -d --name server --network two --network-alias old busybox sleep 1000")
        .ok();
    world
        .say("run -d --name client --network one busybox sleep 1000")
        .ok();
    let reaches = |name: &str| {
        let ran = world.say(&format!("exec client ping -c 1 -W 1 {name}"));
        ran.code == 0
    };
    assert!(!reaches("server"));
    world
        .say("network connect --alias other --ip 10.211.9.77 one server")
        .ok();
    eventually("its name is known", || reaches("server"));
    assert!(reaches("other") && reaches("10.211.9.77"));
    assert_eq!(
        world.inspect(
            "server",
            "{{(index .NetworkSettings.Networks \"one\").IPAddress}}"
        ),
        "10.211.9.77"
    );
    world
        .say("network connect one server")
        .one_error(1)
        .says("already exists in network one");
    world.say("network disconnect one server").ok();
    assert!(!reaches("10.211.9.77"));
    assert_eq!(world.say("network disconnect one server").one_error(1).stdout, "");
    world.say("network connect bridge server").ok();
    world
        .say("network connect --alias x bridge client")
        .one_error(1)
        .says("user defined networks");
    world
        .say("network connect host client")
        .one_error(1)
        .says("host network");
    world
        .say("network connect nothing client")
        .one_error(1)
        .says("network nothing not found");
    // A container that does not run joins at its next start.
    world.say("stop -t 0 server").ok();
    world.say("network connect --alias later one server").ok();
    world.say("network disconnect two server").ok();
    world.say("start server").ok();
    eventually("it is there after its start", || reaches("later"));
    world.say("rm -f server client").ok();
    world.say("network rm one two").ok();
    world.clean();
}

/// Whoever removes a network releases what dead containers left on all of them: not what one that is being started, or a
/// step of a build, has just got.
#[test]
fn removing_networks_takes_no_address_from_containers_that_are_starting() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(4);
    std::thread::scope(|scope| {
        let world = &world;
        for number in 0..2 {
            scope.spawn(move || {
                while std::time::Instant::now() < end {
                    world.say(&format!("network create churn{number}")).ok();
                    world.say(&format!("network rm churn{number}")).ok();
                }
            });
        }
        while std::time::Instant::now() < end {
            let routes = world.dhow(&["run", "--rm", "busybox", "ip", "route"]).ok();
            assert!(
                routes.contains("default via"),
                "a container without a route: {routes:?}"
            );
        }
    });
    world.clean();
}

/// One port of the container and a range of the host's: the first free one (docker's `-p 7000-7005:80`).
#[test]
fn a_range_of_host_ports_gives_the_first_that_is_free() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let first = loop {
        let port = crate::world::free_port();
        if port < 65_000 && std::net::TcpListener::bind(("0.0.0.0", port + 1)).is_ok() {
            break port;
        }
    };
    let flag = format!("{first}-{}:80", first + 1);
    for (name, wanted) in [("one", first), ("two", first + 1)] {
        world
            .say(&format!("run -d --name {name} -p {flag} busybox sleep 600"))
            .ok();
        assert_eq!(
            world.say(&format!("port {name} 80")).ok().lines().next(),
            Some(format!("0.0.0.0:{wanted}").as_str())
        );
    }
    world
        .say(&format!("run -d --name none-left -p {flag} busybox sleep 600"))
        .one_error(125)
        .says("port is already allocated");
    world
        .say("create -p 7000-7005:80-81 busybox true")
        .one_error(125)
        .says("different lengths");
}

/// The kernel takes its time to let a link go; who asks for the address of one that has just ended gets it all the same.
#[test]
fn an_address_that_was_asked_for_is_had_by_one_after_the_other() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("network create --subnet 10.211.30.0/24 pond").ok();
    for _ in 0..15 {
        world
            .say("run --rm --network pond --ip 10.211.30.7 busybox true")
            .exits(0);
    }
    world
        .say("run -d --name has --network pond --ip 10.211.30.7 busybox sleep 600")
        .ok();
    let begun = std::time::Instant::now();
    world
        .say("run --rm --network pond --ip 10.211.30.7 busybox true")
        .one_error(125)
        .says("address 10.211.30.7 is already in use");
    assert!(begun.elapsed() < std::time::Duration::from_millis(1500));
    assert_eq!(world.say("network rm pond").exits_any().code, 1);
}
