use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;

use dhow_network::{EndpointRequest, Protocol};
use dhow_types::ErrorKind;

use crate::world::*;

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

#[test]
fn a_published_port_is_reached_from_outside_from_localhost_and_from_containers() {
    with_world(|world| {
        let network = world.networks.default_bridge().unwrap();
        let ports = [
            publish(None, 8080, 80, Protocol::Tcp),
            publish(None, 5353, 53, Protocol::Udp),
        ];
        let web = world.container(&network, 1, &ports);
        let neighbour = world.container(&network, 2, &[]);
        tcp_server(&web.netns, 80);
        udp_server(&web.netns, 53);
        let gateway = web.endpoint.gateway.unwrap();
        assert_eq!(
            tcp(&world.outside, HOST, 8080),
            Ok(OUTSIDE.to_string()),
            "the client's address is kept"
        );
        assert_eq!(udp(&world.outside, HOST, 5353), Ok(OUTSIDE.to_string()));
        assert_eq!(tcp(&world.host, LOCALHOST, 8080), Ok(gateway.to_string()));
        assert_eq!(udp(&world.host, LOCALHOST, 5353), Ok(gateway.to_string()));
        assert_eq!(tcp(&world.host, HOST, 8080), Ok(HOST.to_string()));
        assert_eq!(
            tcp(&neighbour.netns, gateway, 8080),
            Ok(gateway.to_string()),
            "hairpin to another"
        );
        assert_eq!(tcp(&neighbour.netns, HOST, 8080), Ok(gateway.to_string()));
        assert_eq!(
            tcp(&web.netns, gateway, 8080),
            Ok(gateway.to_string()),
            "hairpin to itself"
        );
        world.networks.detach(&web.endpoint).unwrap();
        drop(web.held);
        assert!(closed(&world.outside, HOST, 8080));
    });
}

#[test]
fn a_port_published_on_one_address_is_not_on_the_others() {
    with_world(|world| {
        let network = world.networks.default_bridge().unwrap();
        let ports = [
            publish(Some(LOCALHOST.into()), 8081, 80, Protocol::Tcp),
            publish(Some(HOST.into()), 8082, 80, Protocol::Tcp),
        ];
        let web = world.container(&network, 1, &ports);
        tcp_server(&web.netns, 80);
        let gateway = web.endpoint.gateway.unwrap();
        assert_eq!(tcp(&world.host, LOCALHOST, 8081), Ok(gateway.to_string()));
        assert!(closed(&world.outside, HOST, 8081));
        assert_eq!(tcp(&world.outside, HOST, 8082), Ok(OUTSIDE.to_string()));
        assert!(closed(&world.host, LOCALHOST, 8082));
    });
}

#[test]
fn loopback_addresses_do_not_come_in_from_a_wire() {
    with_world(|world| {
        let network = world.networks.default_bridge().unwrap();
        let ports = [publish(Some(LOCALHOST.into()), 8081, 80, Protocol::Tcp)];
        let web = world.container(&network, 1, &ports);
        tcp_server(&web.netns, 80);
        tcp_server(&world.host, 9999);
        // A neighbour that routes 127/8 to us, and a container that does.
        inside(&world.outside, || {
            sh(
                "sysctl -qw net.ipv4.conf.all.route_localnet=1; ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via 192.0.2.2",
            )
        });
        let gateway = web.endpoint.gateway.unwrap();
        inside(&web.netns, move || {
            sh(&format!(
                "sysctl -qw net.ipv4.conf.all.route_localnet=1; ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via {gateway}"
            ))
        });
        for port in [8081, 9999] {
            assert!(closed(&world.outside, LOCALHOST, port), "{port} from the uplink");
            assert!(closed(&web.netns, LOCALHOST, port), "{port} from the container");
        }
        assert!(tcp(&world.host, LOCALHOST, 8081).is_ok());
    });
}

#[test]
fn networks_are_isolated_but_published_ports_are_open_to_them() {
    with_world(|world| {
        let (red, blue) = (world.network("red", |_| ()), world.network("blue", |_| ()));
        let one = world.container(&red, 1, &[]);
        let two = world.container(&blue, 2, &[publish(None, 8080, 80, Protocol::Tcp)]);
        tcp_server(&two.netns, 80);
        assert!(closed(&one.netns, two.endpoint.ip, 80), "directly");
        assert!(tcp(&one.netns, HOST, 8080).is_ok(), "by the published port");
        // A machine on the uplink that routes to the container's address gets nothing that is not published.
        let ip = two.endpoint.ip;
        inside(&world.outside, move || {
            sh(&format!("ip route add {ip} via 192.0.2.2"))
        });
        assert!(closed(&world.outside, ip, 80), "directly from outside");
    });
}

#[test]
fn an_internal_network_has_no_way_out_nor_in() {
    with_world(|world| {
        let inner = world.network("inner", |wanted| wanted.internal = true);
        let outer = world.network("outer", |_| ());
        let one = world.container(&inner, 1, &[publish(None, 8080, 80, Protocol::Tcp)]);
        let two = world.container(&inner, 2, &[]);
        let web = world.container(&outer, 3, &[publish(None, 8090, 80, Protocol::Tcp)]);
        for container in [&one, &two, &web] {
            tcp_server(&container.netns, 80);
        }
        tcp_server(&world.outside, 81);
        assert_eq!(one.endpoint.gateway, None);
        assert!(tcp(&two.netns, one.endpoint.ip, 80).is_ok(), "among themselves");
        assert!(closed(&world.outside, HOST, 8080), "in");
        assert!(closed(&web.netns, HOST, 8080), "in from a network");
        // Even with a route of its own making.
        let v4 = inner.v4().unwrap().gateway;
        inside(&one.netns, move || sh(&format!("ip route add default via {v4}")));
        assert!(closed(&one.netns, OUTSIDE, 81), "out");
        assert!(closed(&one.netns, HOST, 8090), "out to a published port");
        assert!(tcp(&web.netns, OUTSIDE, 81).is_ok());
    });
}

#[test]
fn containers_of_a_network_without_icc_are_apart_but_have_a_way_out() {
    with_world(|world| {
        let network = world.network("noicc", |wanted| {
            wanted
                .options
                .insert("com.docker.network.bridge.enable_icc".into(), "false".into());
        });
        let (one, two) = (
            world.container(&network, 1, &[]),
            world.container(&network, 2, &[]),
        );
        tcp_server(&two.netns, 80);
        tcp_server(&world.outside, 81);
        assert!(closed(&one.netns, two.endpoint.ip, 80));
        assert!(tcp(&one.netns, OUTSIDE, 81).is_ok());
    });
}

#[test]
fn a_network_without_masquerade_keeps_the_containers_address() {
    with_world(|world| {
        let network = world.network("plain", |wanted| {
            wanted.options.insert(
                "com.docker.network.bridge.enable_ip_masquerade".into(),
                "false".into(),
            );
        });
        let one = world.container(&network, 1, &[]);
        tcp_server(&world.outside, 81);
        let ip = one.endpoint.ip;
        inside(&world.outside, move || {
            sh(&format!("ip route add {ip} via 192.0.2.2"))
        });
        assert_eq!(tcp(&one.netns, OUTSIDE, 81), Ok(ip.to_string()));
    });
}

#[test]
fn a_port_in_use_is_refused_and_leaves_nothing() {
    with_world(|world| {
        let network = world.networks.default_bridge().unwrap();
        let ports = [publish(None, 8080, 80, Protocol::Tcp)];
        let one = world.container(&network, 1, &ports);
        let second = id(2);
        let netns = dhow_network::sandbox().unwrap();
        let request = EndpointRequest {
            ports: &ports,
            held: &[],
            ..EndpointRequest::new(&second)
        };
        let refused = world
            .networks
            .attach(&network, netns.as_fd(), &request)
            .unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        assert_eq!(
            refused.to_string(),
            "Bind for 0.0.0.0:8080 failed: port is already allocated"
        );
        assert_eq!(world.networks.endpoints(&network).unwrap(), [one.endpoint]);
        assert_eq!(
            std::fs::read_dir(world.root.path().join("networks/bridge/leases"))
                .unwrap()
                .count(),
            1
        );
    });
}

#[test]
fn flushed_rules_come_back_with_the_next_attach_or_repair() {
    with_world(|world| {
        if !has_nft() {
            return;
        }
        let network = world.networks.default_bridge().unwrap();
        let web = world.container(&network, 1, &[publish(None, 8080, 80, Protocol::Tcp)]);
        tcp_server(&web.netns, 80);
        assert!(!world.networks.repair().unwrap());
        for how in [
            "nft flush ruleset",
            "nft flush table inet $(nft list tables | sed 's/.* //')",
        ] {
            inside(&world.host, move || sh(how));
            assert!(closed(&world.outside, HOST, 8080), "{how}");
            let other = world.container(&network, 2, &[]);
            assert_eq!(tcp(&world.outside, HOST, 8080), Ok(OUTSIDE.to_string()), "{how}");
            world.networks.detach(&other.endpoint).unwrap();
        }
        inside(&world.host, || sh("nft flush ruleset"));
        assert!(world.networks.repair().unwrap());
        assert_eq!(tcp(&world.outside, HOST, 8080), Ok(OUTSIDE.to_string()));
    });
}

#[test]
fn nft_reads_the_table_as_it_is_meant() {
    with_world(|world| {
        if !has_nft() {
            return;
        }
        let network = world.networks.default_bridge().unwrap();
        let ports = [
            publish(None, 8080, 80, Protocol::Tcp),
            publish(Some(HOST.into()), 5353, 53, Protocol::Udp),
        ];
        let web = world.container(&network, 1, &ports);
        let text = inside(&world.host, || sh("nft list ruleset"));
        let ip = web.endpoint.ip;
        for expected in [
            "iifname != \"lo\" ip daddr 127.0.0.0/8 drop",
            "fib daddr type local goto publish",
            "dnat ip to meta l4proto . ip daddr . th dport map @published4",
            "dnat ip to meta l4proto . th dport map @everywhere4",
            "dnat ip6 to meta l4proto . ip6 daddr . th dport map @published6",
            "dnat ip6 to meta l4proto . th dport map @everywhere6",
            "oifname @bridges ip saddr 127.0.0.0/8 masquerade",
            "oifname @bridges ct status dnat ip saddr @sources4 masquerade",
            "oifname @bridges ct status dnat ip6 saddr @sources6 masquerade",
            "iifname . oifname @same accept",
            "iifname @outbound oifname != @bridges masquerade",
            "iifname @internal drop",
            "oifname @internal drop",
            "ct state established,related accept",
            "oifname @bridges ct status ! dnat drop",
            "iifname @closed6 oifname @closed6 meta nfproto ipv6 drop",
            &format!("tcp . 8080 : {ip} . 80"),
            &format!("udp . {HOST} . 5353 : {ip} . 53"),
            &format!("elements = {{ \"{}\" }}", network.device),
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
    });
}

#[test]
fn a_stale_element_of_a_lost_container_is_replaced() {
    with_world(|world| {
        let network = world.networks.default_bridge().unwrap();
        let ports = [publish(None, 8080, 80, Protocol::Tcp)];
        let lost = world.container(&network, 1, &ports);
        // The monitor died (its sockets are closed) and nobody detached; another container takes the port.
        drop(lost.held);
        let web = world.container(&network, 2, &ports);
        tcp_server(&web.netns, 80);
        assert_eq!(tcp(&world.outside, HOST, 8080), Ok(OUTSIDE.to_string()));
        // The late detach does not take the port from its new owner.
        world.networks.detach(&lost.endpoint).unwrap();
        assert_eq!(tcp(&world.outside, HOST, 8080), Ok(OUTSIDE.to_string()));
    });
}

/// A UDP server that answers with its number.
fn numbered_server(netns: &std::os::fd::OwnedFd, number: u8) {
    let socket = inside(netns, || std::net::UdpSocket::bind(("0.0.0.0", 53)).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            drop(socket.send_to(&[number], from));
        }
    });
}

#[test]
fn a_udp_client_that_never_falls_silent_reaches_the_next_container() {
    with_world(|world| {
        let network = world.networks.default_bridge().unwrap();
        // The rules are there, so conntrack sees the client's first datagrams, which find nobody.
        let first = world.container(&network, 9, &[]);
        world.networks.detach(&first.endpoint).unwrap();
        let ports = [publish(None, 5353, 53, Protocol::Udp)];
        let client = inside(&world.outside, || {
            std::net::UdpSocket::bind((OUTSIDE, 40_000)).unwrap()
        });
        client
            .set_read_timeout(Some(std::time::Duration::from_secs(3)))
            .unwrap();
        let ask = || {
            client.send_to(b"who", (HOST, 5353)).unwrap();
            let mut buffer = [0; 64];
            client.recv(&mut buffer).map(|length| buffer[..length].to_vec())
        };
        numbered_server(&world.host, 0);
        client.send_to(b"who", (HOST, 53)).unwrap();
        let holder = inside(&world.host, || {
            std::net::UdpSocket::bind(("0.0.0.0", 5353)).unwrap()
        });
        client.send_to(b"who", (HOST, 5353)).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(holder);
        client.recv(&mut [0; 8]).unwrap();
        let mut keep = Vec::new();
        for number in [1, 2] {
            let server = world.container(&network, number, &ports);
            numbered_server(&server.netns, number);
            assert_eq!(ask().unwrap(), [number]);
            // The first one lives on, unpublished: what still reached it would be answered by it.
            keep.push(world.networks.retire(&server.endpoint).unwrap());
        }
        for retired in keep {
            world.networks.bury(retired).unwrap();
        }
    });
}
