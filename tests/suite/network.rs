//! Networks: publishing, names, isolation, modes.

use crate::world::{Ran, World, eventually, free_port, host_address, http};

const SERVE: &str = "mkdir -p /www; echo ahoy > /www/index.html; exec httpd -f -p 80 -h /www";

fn serve(world: &World, flags: &str) -> Ran {
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
