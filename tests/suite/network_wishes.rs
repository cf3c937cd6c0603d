//! Networks: what a person may ask for, of `network create` and of `run`.

use crate::network::serve;
use crate::world::{World, eventually, free_port, http};

#[test]
fn addresses_and_names_are_asked_for_in_dockers_words_and_podmans() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say(
            "network create --subnet 10.211.20.0/24 --ip-range 10.211.20.128/25 --aux-address router=10.211.20.128 \
             --subnet fd00:d211::/64 --ipv6 sea",
        )
        .ok();
    let inspected: serde_json::Value =
        serde_json::from_str(&world.say("network inspect sea").exits(0).stdout).unwrap();
    let range = &inspected[0]["IPAM"]["Config"][0];
    assert_eq!(range["AuxiliaryAddresses"]["router"], "10.211.20.128");
    assert_eq!(inspected[0]["EnableIPv6"], true);
    let show = "ip -o addr show; cat /sys/class/net/*/address";
    // The first of the range is the router's.
    assert!(world.sh("--network sea", show).ok().contains("10.211.20.129/24"));
    for flags in [
        "--network sea --ip 10.211.20.7 --ip6 fd00:d211::7 --mac-address 02:00:00:00:77:07",
        "--network name=sea,ip=10.211.20.7,ip6=fd00:d211::7,mac-address=02:00:00:00:77:07",
        "--network sea:ip=10.211.20.7,ip=fd00:d211::7,mac=02:00:00:00:77:07",
    ] {
        let seen = world.sh(flags, show).ok();
        for part in ["10.211.20.7/24", "fd00:d211::7/64", "02:00:00:00:77:07"] {
            assert!(seen.contains(part), "{flags}: {part}: {seen}");
        }
    }
    world
        .say("pod create --name waves --network sea --ip 10.211.20.8 --ip6 fd00:d211::8")
        .ok();
    let seen = world.sh("--pod waves", show).ok();
    for part in ["10.211.20.8/24", "fd00:d211::8/64"] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
    world.say("pod rm -f -t 0 waves").ok();
    let named = world
        .sh("--network sea:interface_name=wan0", "ls /sys/class/net")
        .ok();
    assert!(named.contains("wan0") && !named.contains("eth0"), "{named}");
    for (flags, word) in [
        (
            "--network sea --ip 10.9.9.9",
            "no configured subnet contains IP address 10.9.9.9",
        ),
        (
            "--network sea:ip=10.211.20.7 --ip 10.211.20.8",
            "cannot specify both",
        ),
        ("--network sea --ip 10.211.20.1", "not a free host address"),
        ("--network sea --mac-address 01:00:00:00:00:00", "mac address"),
        ("--network sea --network sea", "specified multiple times"),
        ("--network sea:depth=9", "depth"),
    ] {
        world.sh(flags, "true").one_error(125).says(word);
    }
    // Two networks: a name on each, one way out.
    world.say("network create lake").ok();
    serve(
        &world,
        "--name both --network name=sea,alias=salt --network name=lake,alias=sweet",
    );
    let get = |name: &str| {
        format!(
            "for i in 1 2 3 4 5; do timeout 5 wget -q -O - http://{name}/ && exit 0; sleep 1; done; exit 1"
        )
    };
    assert_eq!(world.sh("--network sea", &get("salt")).ok(), "ahoy");
    assert_eq!(world.sh("--network lake", &get("sweet")).ok(), "ahoy");
    world.sh("--network lake", "nslookup salt").exits(1);
    let routes = world.say("exec both ip route").ok();
    assert_eq!(routes.matches("default").count(), 2, "{routes}");
    world.say("rm -f both").ok();
    world.say("network rm sea lake").ok();
    world.clean();
}

#[test]
fn networks_are_made_as_their_options_say_or_not_at_all() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("network create -o mtu=1300 -o isolate=true -o no_default_route=1 quiet")
        .ok();
    let seen = world.sh("--network quiet", "cat /sys/class/net/eth0/mtu; ip route");
    let seen = seen.ok();
    assert!(seen.starts_with("1300") && !seen.contains("default"), "{seen}");
    world.say("network create --disable-dns nameless").ok();
    let seen = world.sh("--network nameless", "cat /etc/resolv.conf").ok();
    assert!(!seen.contains("127.0.0.11"), "{seen}");
    world.say("network create --ignore quiet").ok();
    for (words, said) in [
        ("-o speed=9 new", "speed"),
        ("-o isolate=false new", "isolate"),
        ("-d overlay new", "overlay is not supported"),
        ("-d weave new", "could not find network driver"),
        ("-d macvlan -o parent=no-such0 new", "no interface no-such0"),
        ("--gateway 10.9.0.1 new", "--subnet"),
        (
            "--subnet 10.211.21.0/24 --gateway 10.9.0.1 new",
            "invalid gateway",
        ),
        (
            "--subnet 10.211.21.0/24 --aux-address x=10.9.0.1 new",
            "aux-address",
        ),
        ("--subnet 10.211.21.0/24 --ip-range 10.9.0.0/25 new", "ip-range"),
    ] {
        let ran = world.say(&format!("network create {words}"));
        ran.one_error(1).says(said);
    }
    assert!(!world.say("network ls -q --filter name=new").ok().contains("new"));
    // A name of its own for the device.
    world.say("network create --interface-name dhtest7 device").ok();
    world
        .say("run -d --name one --network device busybox sleep 1000")
        .ok();
    assert!(std::path::Path::new("/sys/class/net/dhtest7/bridge").exists());
    world.say("rm -f one").ok();
    world.say("network rm device quiet nameless").ok();
    assert!(!std::path::Path::new("/sys/class/net/dhtest7").exists());
    let left = world.say("network ls -q").ok();
    assert_eq!(left.lines().count(), 3, "{left}");
    world.clean();
}

/// An interface with its own address on a wire that ends in another namespace.
#[test]
fn a_macvlan_network_puts_containers_on_the_wire() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let link = |words: &str| {
        let ran = std::process::Command::new("ip").args(words.split(' ')).output();
        ran.is_ok_and(|output| output.status.success())
    };
    if !link("link add dhwire0 type veth peer name dhwire1") {
        return;
    }
    struct Wire;
    impl Drop for Wire {
        fn drop(&mut self) {
            drop(
                std::process::Command::new("ip")
                    .args(["link", "del", "dhwire0"])
                    .status(),
            );
        }
    }
    let _wire = Wire;
    assert!(
        link("addr add 10.211.30.1/24 dev dhwire1")
            && link("link set dhwire0 up")
            && link("link set dhwire1 up")
    );
    let create =
        "network create -d macvlan -o parent=dhwire0 --subnet 10.211.30.0/24 --gateway 10.211.30.1 wire";
    world.say(create).ok();
    assert_eq!(world.say("network inspect -f {{.Driver}} wire").ok(), "macvlan");
    serve(&world, "--name web --network wire --ip 10.211.30.9").ok();
    eventually("it answers by its own address", || {
        http("10.211.30.9:80", "/").as_deref() == Some("ahoy\n")
    });
    let get = "for i in 1 2 3 4 5; do timeout 5 wget -q -O - http://web/ && exit 0; sleep 1; done; exit 1";
    assert_eq!(world.sh("--network wire", get).ok(), "ahoy");
    world
        .say("run --rm --network wire -p 8080:80 busybox true")
        .one_error(125)
        .says("reached by their own addresses");
    world.say("network disconnect wire web").ok();
    assert_eq!(world.say("exec web ls /sys/class/net").ok(), "lo");
    world.say("network connect --ip 10.211.30.10 wire web").ok();
    eventually("it answers again", || http("10.211.30.10:80", "/").is_some());
    world.say("restart -t 0 web").ok();
    eventually("and after a restart", || http("10.211.30.10:80", "/").is_some());
    world.say("rm -f web").ok();
    world.say("network rm wire").ok();
    world.clean();
}

#[test]
fn ranges_of_ports_and_the_protocols_are_published() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let first = loop {
        // Five in a row.
        let port = free_port() & !7;
        if (port..port + 5).all(|port| std::net::TcpListener::bind(("0.0.0.0", port)).is_ok()) {
            break port;
        }
    };
    let script = "mkdir -p /www; for i in 0 1 2 3; do echo $i > /www/index.html; done; for i in 0 1 2; do httpd -p 808$i -h /www; done; \
                  exec httpd -f -p 8083 -h /www";
    let publish = format!("{first}-{}:8080-8083", first + 3);
    world
        .dhow(&[
            "run", "-d", "--name", "many", "-p", &publish, "busybox", "sh", "-c", script,
        ])
        .ok();
    for port in first..first + 4 {
        eventually("each answers", || {
            http(&format!("127.0.0.1:{port}"), "/").is_some()
        });
    }
    let shown = world.dhow(&["ps", "--format", "{{.Ports}}"]).ok();
    assert!(shown.contains(&format!("0.0.0.0:{first}->8080/tcp")), "{shown}");
    // One of the range is taken: all or nothing.
    let next = format!("{}-{}:80-81", first + 3, first + 4);
    world
        .dhow(&["run", "--rm", "-p", &next, "busybox", "true"])
        .exits(125)
        .says("port is already allocated");
    assert!(
        std::net::TcpListener::bind(("0.0.0.0", first + 4)).is_ok(),
        "the other is free"
    );
    world
        .dhow(&[
            "run",
            "--rm",
            "-p",
            &format!("{first}-{}:80-81", first + 3),
            "busybox",
            "true",
        ])
        .exits(125);
    world.say("rm -f many").ok();
    // As many protocols as there are, on one number.
    let port = first;
    let mut args = vec!["run".to_owned(), "-d".into(), "--name".into(), "three".into()];
    for protocol in ["tcp", "udp"] {
        args.extend(["-p".to_owned(), format!("127.0.0.1:{port}:7/{protocol}")]);
    }
    args.extend(["busybox", "sleep", "1000"].map(str::to_owned));
    world.dhow(&args).ok();
    assert_eq!(
        world.say("port three").ok(),
        format!("7/tcp -> 127.0.0.1:{port}\n7/udp -> 127.0.0.1:{port}")
    );
    // SCTP is where the kernel has it, else refused.
    let ran = world.dhow(&["run", "--rm", "-p", &format!("{port}:7/sctp"), "busybox", "true"]);
    if ran.code != 0 {
        ran.one_error(125).says("sctp");
    }
    world.say("rm -f three").ok();
    world.clean();
}

/// Rules of the host's administrator, gone with this.
struct Closed(String);

impl Closed {
    /// Drops what comes in to a port of this host.
    fn port(port: u16) -> Self {
        let table = format!("test-closed-{port}");
        let chain = format!("type filter hook input priority 0; tcp dport {port} drop");
        let rules = format!("table inet {table} {{\nchain in {{\n{chain}\n}}\n}}");
        let done = std::process::Command::new("nft").arg(&rules).status().unwrap();
        assert!(done.success());
        Self(table)
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        let delete = ["delete", "table", "inet", &self.0];
        drop(std::process::Command::new("nft").args(delete).status());
    }
}

#[test]
fn the_hosts_input_rules_guard_the_ports_of_a_network_that_asks_for_it() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    if !crate::world::program("nft") {
        return;
    }
    world.say("network create -o com.dhow.firewall=host guarded").ok();
    world
        .say("network create -o com.dhow.firewall=maybe other")
        .exits_any()
        .says("com.dhow.firewall");
    let (open, closed) = (free_port(), free_port());
    serve(&world, &format!("--name open -p {open}:80"));
    serve(
        &world,
        &format!("--name guarded --network guarded -p {closed}:80"),
    );
    let get = |port: u16| http(&format!("127.0.0.1:{port}"), "/");
    eventually("both answer", || get(open).is_some() && get(closed).is_some());
    let listed = world.say("network openings").ok();
    let line = |port: u16| {
        let place = format!("0.0.0.0:{port} ");
        let line = listed.lines().find(|line| line.starts_with(&place));
        line.unwrap_or_default().to_owned()
    };
    assert!(
        line(open).ends_with("passed by") && line(open).contains("80/tcp"),
        "{listed}"
    );
    assert!(line(closed).ends_with("obeyed"), "{listed}");
    let doctor = world.say("doctor");
    let told = format!("past the host's own input rules: {open}/tcp (open)");
    assert!(doctor.stdout.contains(&told), "{}", doctor.stdout);
    assert!(
        doctor.stdout.contains("`dhow network openings` lists them"),
        "{}",
        doctor.stdout
    );
    {
        let _rules = (Closed::port(open), Closed::port(closed));
        // What is led on by the filter never meets the rule; what the relay listens for does.
        assert!(get(open).is_some());
        assert!(get(closed).is_none());
    }
    eventually("it is open again", || get(closed).is_some());
    // The packet filter knows nothing of it, also when the rules are written again.
    world.say("network reload guarded").ok();
    let rules = std::process::Command::new("nft")
        .args(["list", "ruleset"])
        .output()
        .unwrap();
    let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
    assert!(rules.contains(&format!(". {open} :")), "{rules}");
    assert!(!rules.contains(&format!(". {closed} :")), "{rules}");
    world
        .sh(&format!("--network guarded -p {closed}:80/sctp"), "true")
        .exits_any()
        .says("sctp");
    world.say("rm -f open guarded").ok();
    assert!(get(closed).is_none());
    assert_eq!(world.say("network openings --format {{.Host}}").ok(), "");
    world.say("network rm guarded").ok();
    world.clean();
}

#[test]
fn new_bridges_have_ipv6_unless_a_flag_or_dockers_file_says_no() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let file = world.file("daemon.json", "");
    let create = |flags: &str, name: &str, says: &str| {
        std::fs::write(&file, says).unwrap();
        let line = format!("network create {flags} {name}");
        let mut command = world.command(&line.split_whitespace().collect::<Vec<_>>());
        command.env("DHOW_DOCKER_DAEMON_JSON", &file);
        crate::world::finish(command, Vec::new())
    };
    let has = |name: &str| {
        world
            .say(&format!("network inspect --format {{{{.EnableIPv6}}}} {name}"))
            .ok()
    };
    let option = |value: &str| {
        format!(r#"{{"default-network-opts": {{"bridge": {{"com.docker.network.enable_ipv6": {value}}}}}}}"#)
    };
    if !std::path::Path::new("/proc/sys/net/ipv6").exists() {
        return;
    }
    for (flags, name, says, expected) in [
        ("", "usual", String::new(), "true"),
        ("", "other-words", r#"{"ipv6": false}"#.to_owned(), "true"),
        ("", "refused", option("\"false\""), "false"),
        ("", "wanted", option("\"true\""), "true"),
        ("--ipv6", "flag", option("\"false\""), "true"),
        ("--ipv6=false", "no-flag", String::new(), "false"),
        ("--subnet 10.211.77.0/24", "named", String::new(), "false"),
    ] {
        create(flags, name, &says).ok();
        assert_eq!(has(name), expected, "{name}");
    }
    create("", "bad", &option("7")).exits(1).says("enable_ipv6 is 7");
    create("", "bad", "{").exits(1).says("daemon.json");
    create("--ipv6=false --subnet fd00:77::/64", "bad", "")
        .exits(1)
        .says("IPv6 is refused");
    assert_eq!(has("bridge"), "false");
    // By name the address of the other family is found too.
    serve(&world, "--name web --network usual");
    let named = world.sh("--network usual", "nslookup web 127.0.0.11").all();
    let own = world.inspect("web", "{{.NetworkSettings.Networks.usual.GlobalIPv6Address}}");
    assert!(own.starts_with("fd") && named.contains(&own), "{own}: {named}");
    world.say("rm -f web").ok();
}
