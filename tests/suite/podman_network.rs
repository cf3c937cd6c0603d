//! Networks in podman's words, when the program is called by its name.

use serde_json::Value;

use crate::world::{World, eventually, free_port, http};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn networks_are_listed_and_shown_as_podman_does() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let podman = |line: &str| world.podman(line);
    podman("network create zebra").ok();
    assert_eq!(podman("network create --subnet 10.97.5.0/24 alpha").ok(), "alpha");
    podman("network create alpha")
        .exits(125)
        .says("network name alpha already used: network already exists");
    let table = podman("network ls").ok();
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0], ["NETWORK", "ID", "NAME", "DRIVER"]);
    let names: Vec<&str> = lines[1..].iter().map(|line| line[1]).collect();
    assert_eq!(names, ["alpha", "podman", "zebra"]);
    assert_eq!(podman("network ls -q").ok(), "alpha\npodman\nzebra");
    podman("network exists podman").exits(0);
    podman("run -d --name some --network alpha busybox sleep 1000").ok();
    let id = podman("inspect -f {{.Id}} some").ok();
    let shown = json(&podman("network inspect alpha").ok());
    assert_eq!(shown[0]["subnets"][0]["subnet"], "10.97.5.0/24");
    let one = &shown[0]["containers"][id.as_str()];
    assert_eq!(one["name"], "some");
    assert_eq!(one["interfaces"]["eth0"]["subnets"][0]["ipnet"], "10.97.5.2/24");
    let aliases = podman("inspect -f {{.NetworkSettings.Networks.alpha.Aliases}} some").ok();
    assert_eq!(aliases, format!("[{}]", &id[..12]), "its host name is the same");
    assert_eq!(podman("network reload some").ok(), id);
    podman("network rm alpha").exits(2);
    podman("network rm nosuch")
        .exits(1)
        .says("unable to find network with name or ID nosuch: network not found");
    podman("network rm -f podman")
        .exits(125)
        .says("default network podman cannot be removed");
    assert_eq!(podman("network rm -f -t 0 nosuch alpha").ok(), "alpha");
    podman("container exists some").exits(1);
    podman("create --name usual busybox").exits(125);
    podman("create --name usual busybox true").ok();
    assert!(
        podman("inspect -f {{.NetworkSettings.Networks}} usual")
            .ok()
            .starts_with("map[podman:")
    );
    podman("create --name none --network none busybox true").ok();
    assert!(
        podman("inspect -f {{.NetworkSettings.Networks}} none")
            .ok()
            .starts_with("map[none:")
    );
}

#[test]
fn a_network_namespace_of_the_host_is_joined() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("run -d --name some --network none busybox sleep 1000")
        .ok();
    let theirs = world.inspect("some", "{{.NetworkSettings.SandboxKey}}");
    let inside = "readlink /proc/self/ns/net";
    let expected = world.say(&format!("exec some {inside}")).ok();
    assert_eq!(world.sh(&format!("--network ns:{theirs}"), inside).ok(), expected);
    world
        .say(&format!("create --name other --network ns:{theirs} busybox true"))
        .ok();
    assert_eq!(
        world.inspect("other", "{{.HostConfig.NetworkMode}}"),
        format!("ns:{theirs}")
    );
    world.say("network create mine").ok();
    world
        .say("network connect mine other")
        .exits(1)
        .says("sharing network namespace");
    let mounts = theirs.replace("/ns/net", "/ns/mnt");
    for bad in ["/etc/passwd", mounts.as_str()] {
        let said = world.sh(&format!("--network ns:{bad}"), "true");
        said.exits(125).says("it is no network namespace");
    }
    world
        .sh("--network ns:/no/such", "true")
        .exits(125)
        .says("no such file");
}

#[test]
fn a_container_gets_the_hosts_proxies() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let run = |flags: &[&str]| {
        let mut args = vec!["run", "--rm", "--network", "none"];
        args.extend(flags);
        args.extend(["busybox", "sh", "-c", "echo $http_proxy"]);
        let mut command = world.command(&args);
        std::os::unix::process::CommandExt::arg0(&mut command, "podman");
        command.env("http_proxy", "http://proxy:1");
        crate::world::finish(command, Vec::new()).ok()
    };
    assert_eq!(run(&[]), "http://proxy:1");
    assert_eq!(run(&["--http-proxy=false"]), "");
    assert_eq!(run(&["-e", "http_proxy=own"]), "own");
}

#[test]
fn published_ports_come_back_with_their_network() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.podman("network create --subnet 10.209.7.0/24 again").ok();
    let port = free_port();
    let serve = "mkdir -p /www; echo ahoy > /www/index.html; exec httpd -f -p 80 -h /www";
    let publish = format!("127.0.0.1:{port}:80");
    let args = [
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "again",
        "-p",
        &publish,
        "busybox",
        "sh",
        "-c",
        serve,
    ];
    world.dhow(&args).ok();
    let address = format!("127.0.0.1:{port}");
    eventually("it is served", || http(&address, "/index.html").is_some());
    world.podman("network disconnect again web").ok();
    assert_eq!(http(&address, "/index.html"), None);
    world.podman("network connect again web").ok();
    eventually("it is served again", || http(&address, "/index.html").is_some());
    world.podman("port web").prints(&address);
    world.podman("rm -f -t 0 web").ok();
    world.podman("network rm again").ok();
}

#[test]
fn published_ports_go_on_with_another_network_and_an_address_that_was_left_is_not_given_again() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.podman("network create --subnet 10.209.17.0/24 first").ok();
    world.podman("network create --subnet 10.209.18.0/24 second").ok();
    let port = free_port();
    let serve = "mkdir -p /www; echo ahoy > /www/index.html; exec httpd -f -p 80 -h /www";
    let publish = format!("127.0.0.1:{port}:80");
    let words = [
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "first",
        "-p",
        &publish,
        "busybox",
        "sh",
        "-c",
        serve,
    ];
    world.dhow(&words).ok();
    let address = format!("127.0.0.1:{port}");
    let served = || http(&address, "/index.html").is_some();
    eventually("it is served", served);
    let place = |network: &str| {
        let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
        world.inspect("web", &format).trim().to_owned()
    };
    assert_eq!(place("first"), "10.209.17.2");
    world.podman("network disconnect first web").ok();
    assert!(!served());
    world.podman("network connect first web").ok();
    assert_eq!(place("first"), "10.209.17.3");
    eventually("it is served again", served);
    // The ports go with the container from one network to the other, and the old one can be removed.
    world.podman("network connect second web").ok();
    world.podman("network disconnect first web").ok();
    eventually("it is served by the other network", served);
    world.podman("port web").prints(&address);
    world.podman("network rm first").ok();
    world.podman("network disconnect second web").ok();
    assert!(!served());
    world.podman("network connect second web").ok();
    eventually("it is served by that one again", served);
    world.podman("rm -f -t 0 web").ok();
    let other = format!("run --rm --network second -p {publish} busybox true");
    world.podman(&other).ok();
    world.podman("network rm second").ok();
}

#[test]
fn a_network_names_its_own_name_servers() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .podman("network create --subnet 10.209.8.0/24 --dns 10.209.8.1,192.0.2.9 asked")
        .ok();
    assert_eq!(
        world
            .podman("network inspect --format {{.network_dns_servers}} asked")
            .ok(),
        "[10.209.8.1 192.0.2.9]"
    );
    // What answers there is what the containers' questions come to.
    world
        .podman("run -d --name up --network asked busybox sleep 60")
        .ok();
    let socket = std::net::UdpSocket::bind("10.209.8.1:53").unwrap();
    socket
        .set_read_timeout(Some(std::time::Duration::from_secs(20)))
        .unwrap();
    let ask = world.podman("exec -d up nslookup some.example");
    ask.ok();
    let mut buffer = [0; 512];
    let count = socket.recv(&mut buffer).unwrap();
    assert!(buffer[..count].windows(9).any(|part| part == b"\x07example\0"));
    world.podman("rm -f -t 0 up").ok();
    world.podman("network rm asked").ok();
    world
        .podman("network create --dns 192.0.2.9 --disable-dns none")
        .exits(125);
}

#[test]
fn members_of_a_pod_are_known_by_name_while_they_run() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.podman("pod create --name crew --network none").ok();
    let hosts = |name: &str| {
        world
            .podman(&format!(
                "run --rm --pod crew --name {name} busybox cat /etc/hosts"
            ))
            .ok()
    };
    assert!(hosts("one").contains("127.0.0.1\tone"));
    let second = hosts("two");
    assert!(
        second.contains("127.0.0.1\ttwo") && !second.contains("one"),
        "{second}"
    );
    world.podman("pod rm -f -t 0 crew").ok();
}
