use std::os::fd::AsFd as _;

use dhow_network::{EndpointRequest, MacAddress, Protocol, SubnetRequest};
use dhow_types::ErrorKind;

use crate::world::*;

#[test]
fn two_containers_reach_each_other_and_the_outside_sees_the_host() {
    with_world(|world| {
        let network = world.networks.default_bridge().unwrap();
        let (one, two) = (
            world.container(&network, 1, &[]),
            world.container(&network, 2, &[]),
        );
        assert_ne!(one.endpoint.ip, two.endpoint.ip);
        tcp_server(&two.netns, 80);
        assert_eq!(
            tcp(&one.netns, two.endpoint.ip, 80),
            Ok(one.endpoint.ip.to_string())
        );
        tcp_server(&world.outside, 81);
        assert_eq!(tcp(&one.netns, OUTSIDE, 81), Ok(HOST.to_string()));
        udp_server(&world.outside, 81);
        assert_eq!(udp(&two.netns, OUTSIDE, 81), Ok(HOST.to_string()));
        assert_eq!(
            tcp(&world.host, two.endpoint.ip, 80),
            Ok(one.endpoint.gateway.unwrap().to_string())
        );
        let ping = inside(&one.netns, || {
            sh("command -v ping >/dev/null || exit 0; ping -c1 -W1 192.0.2.1")
        });
        assert!(ping.is_empty() || ping.contains(" 0% packet loss"), "{ping}");
    });
}

#[test]
fn interface_has_name_mac_mtu_and_no_ipv6() {
    with_world(|world| {
        let network = world.networks.default_bridge().unwrap();
        let one = world.container(&network, 1, &[]);
        assert_eq!(one.endpoint.interface, "eth0");
        assert_eq!(
            read(
                &one.netns,
                "/sys/class/net/../../../proc/sys/net/ipv6/conf/eth0/disable_ipv6"
            ),
            "1"
        );
        let link = inside(&one.netns, || {
            sh("ip -o link show eth0; ip -o -6 addr show dev eth0; ip -o addr show lo")
        });
        assert!(link.contains(" mtu 1400 "), "the uplink's MTU: {link}");
        assert!(
            link.contains(&MacAddress::of(one.endpoint.ip).to_string()),
            "{link}"
        );
        assert!(!link.contains("fe80"), "{link}");
        assert!(link.contains("127.0.0.1/8"), "{link}");
        let device = network.device.clone();
        let bridge = inside(&world.host, move || {
            sh(&format!("ip -o link show {device}; ip -6 addr show dev {device}"))
        });
        let gateway = one.endpoint.gateway.unwrap();
        assert!(
            bridge.contains(&MacAddress::of(gateway).to_string()) && !bridge.contains("fe80"),
            "{bridge}"
        );
    });
}

#[test]
fn the_bridge_keeps_the_uplinks_mtu_when_its_last_port_goes() {
    with_world(|world| {
        let network = world.networks.default_bridge().unwrap();
        for number in 1..3 {
            let one = world.container(&network, number, &[]);
            let link = inside(&one.netns, || sh("ip -o link show eth0"));
            assert!(link.contains(" mtu 1400 "), "round {number}: {link}");
            world.networks.detach(&one.endpoint).unwrap();
        }
    });
}

#[test]
fn wished_addresses_are_given_once() {
    with_world(|world| {
        let network = world.network("net1", |wanted| {
            wanted.subnets.push(SubnetRequest {
                subnet: Some("10.77.0.0/24".parse().unwrap()),
                ..Default::default()
            });
        });
        let first = id(1);
        let mac: MacAddress = "02:42:00:00:00:09".parse().unwrap();
        let netns = dhow_network::sandbox().unwrap();
        let request = EndpointRequest {
            ip: Some([10, 77, 0, 9].into()),
            mac: Some(mac),
            ..EndpointRequest::new(&first)
        };
        let (endpoint, _) = world.networks.attach(&network, netns.as_fd(), &request).unwrap();
        assert_eq!((endpoint.ip, endpoint.mac), ([10, 77, 0, 9].into(), mac));
        let second = id(2);
        for (ip, kind) in [
            ([10, 77, 0, 9], ErrorKind::AlreadyExists),
            ([10, 78, 0, 9], ErrorKind::InvalidArgument),
        ] {
            let request = EndpointRequest {
                ip: Some(ip.into()),
                ..EndpointRequest::new(&second)
            };
            let refused = world
                .networks
                .attach(&network, netns.as_fd(), &request)
                .unwrap_err();
            assert_eq!(refused.kind(), kind);
        }
        let again = world
            .networks
            .attach(&network, netns.as_fd(), &EndpointRequest::new(&first))
            .unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
        assert_eq!(world.networks.endpoints(&network).unwrap(), [endpoint]);
    });
}

#[test]
fn a_second_network_can_be_connected_and_disconnected_while_running() {
    with_world(|world| {
        let (first, second) = (world.network("first", |_| ()), world.network("second", |_| ()));
        let one = world.container(&first, 1, &[]);
        let other = world.container(&second, 2, &[]);
        tcp_server(&other.netns, 80);
        assert!(closed(&one.netns, other.endpoint.ip, 80), "networks are apart");
        let (endpoint, _) = world
            .networks
            .attach(&second, one.netns.as_fd(), &EndpointRequest::new(&one.id))
            .unwrap();
        assert_eq!(endpoint.interface, "eth1");
        assert_eq!(
            tcp(&one.netns, other.endpoint.ip, 80),
            Ok(endpoint.ip.to_string())
        );
        assert_eq!(world.networks.endpoints_of(&one.id).unwrap().len(), 2);
        // The way out moves to the network that is left.
        tcp_server(&world.outside, 81);
        world.networks.detach(&one.endpoint).unwrap();
        assert_eq!(tcp(&one.netns, OUTSIDE, 81), Ok(HOST.to_string()));
        world.networks.detach(&endpoint).unwrap();
        assert!(closed(&one.netns, OUTSIDE, 81));
        world.networks.detach(&endpoint).unwrap();
    });
}

#[test]
fn a_bridge_without_a_free_port_says_so_and_leaves_nothing() {
    one_world("0", |world| {
        let network = world.network("full", |wanted| wanted.ipv6 = Some(false));
        let first = world.container(&network, 1, &[]);
        let device = network.device.clone();
        inside(&world.host, move || {
            sh(&format!(
                "i=0; while [ $i -lt 511 ]; do echo link add a$i master {device} type veth peer name b$i; \
                 echo link set b$i master {device}; i=$((i+1)); done | ip -batch -"
            ))
        });
        let id = id(2);
        let netns = dhow_network::sandbox().unwrap();
        let request = EndpointRequest {
            ports: &[publish(None, 8080, 80, Protocol::Tcp)],
            ..EndpointRequest::new(&id)
        };
        let refused = world
            .networks
            .attach(&network, netns.as_fd(), &request)
            .unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ResourceExhausted);
        assert_eq!(
            refused.to_string(),
            "network full is full: a bridge of the kernel has 1023 ports"
        );
        assert_eq!(world.networks.endpoints(&network).unwrap(), [first.endpoint]);
        inside(&world.host, || sh("ip link del a0"));
        world.networks.attach(&network, netns.as_fd(), &request).unwrap();
    });
}

#[test]
fn two_hundred_attaches_and_detaches_leave_nothing() {
    with_world(|world| {
        let network = world.networks.default_bridge().unwrap();
        let count = || inside(&world.host, || sh("ip -o link show | wc -l").trim().to_owned());
        drop(world.networks.attach(
            &network,
            dhow_network::sandbox().unwrap().as_fd(),
            &EndpointRequest::new(&id(9)),
        ));
        world.networks.release_stale(|_| Some(())).unwrap();
        let before = count();
        for round in 0..200u8 {
            // Each time another port: a child of a test beside this one may hold the old one until its exec.
            let port = 8000 + u16::from(round);
            let ports = [
                publish(None, port, 80, Protocol::Tcp),
                publish(None, port, 80, Protocol::Udp),
            ];
            let one = world.container(&network, round, &ports);
            // Each on every address of IPv4 and of IPv6.
            assert_eq!(one.held.len(), 4);
            world.networks.detach(&one.endpoint).unwrap();
        }
        assert_eq!(count(), before);
        assert!(world.networks.endpoints(&network).unwrap().is_empty());
        let left = std::fs::read_dir(world.root.path().join("networks/bridge/leases"))
            .unwrap()
            .count();
        assert_eq!(left, 0);
        if has_nft() {
            let rules = inside(&world.host, || sh("nft list ruleset"));
            assert!(!rules.contains("tcp . 8"), "{rules}");
        }
    });
}

#[test]
fn a_dual_stack_network_routes_ipv6_too() {
    with_world(|world| {
        let network = world.network("dual", |wanted| wanted.ipv6 = Some(true));
        let (one, two) = (
            world.container(&network, 1, &[]),
            world.container(
                &network,
                2,
                &[dhow_network::PortMapping {
                    host_ip: None,
                    host_port: Some(8086),
                    host_last: None,
                    container_port: 80,
                    protocol: Protocol::Tcp,
                }],
            ),
        );
        tcp6_server(&two.netns, 80);
        let (ip, peer) = (two.endpoint.ip6.unwrap(), one.endpoint.ip6.unwrap());
        assert_eq!(tcp(&one.netns, ip, 80), Ok(peer.to_string()));
        inside(&world.host, || sh("ip -6 addr add 2001:db8::2/64 dev up0 nodad"));
        inside(&world.outside, || {
            sh("ip -6 addr add 2001:db8::1/64 dev out0 nodad")
        });
        let host: std::net::Ipv6Addr = "2001:db8::2".parse().unwrap();
        let outside: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
        assert_eq!(tcp(&world.outside, host, 8086), Ok(outside.to_string()));
        tcp6_server(&world.outside, 81);
        assert_eq!(tcp(&one.netns, outside, 81), Ok(host.to_string()));
        assert_eq!(two.endpoint.ports.len(), 2);
    });
}

/// On the wire of the host: the outside sees its address and hardware address, and not the host's.
#[test]
fn a_container_on_macvlan_is_on_the_wire_of_the_host() {
    with_world(|world| {
        let network = world.network("wire", |wanted| {
            wanted.driver = Some("macvlan".into());
            wanted.options.insert("parent".into(), "up0".into());
            let reserved = [("host".to_owned(), HOST.into())];
            wanted.subnets.push(SubnetRequest {
                subnet: Some("192.0.2.0/24".parse().unwrap()),
                reserved: reserved.into_iter().collect(),
                ..Default::default()
            });
        });
        let one = world.container(&network, 1, &[]);
        let two = world.container(&network, 2, &[]);
        assert_eq!(
            one.endpoint.ip.to_string(),
            "192.0.2.3",
            "neither the router's nor the host's"
        );
        tcp_server(&one.netns, 80);
        tcp_server(&world.outside, 81);
        let seen = one.endpoint.ip.to_string();
        assert_eq!(tcp(&one.netns, OUTSIDE, 81).unwrap(), seen);
        assert!(tcp(&two.netns, one.endpoint.ip, 80).is_ok());
        assert!(tcp(&world.outside, one.endpoint.ip, 80).is_ok());
        let neighbour = inside(&world.outside, || sh("ip neigh"));
        assert!(neighbour.contains(&one.endpoint.mac.to_string()), "{neighbour}");
        let refused = world.networks.attach(
            &network,
            one.netns.as_fd(),
            &EndpointRequest {
                ports: &[publish(None, 8080, 80, Protocol::Tcp)],
                held: &[],
                ..EndpointRequest::new(&id(3))
            },
        );
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
        // Out of a container that lives on, and with one that ends.
        inside(&world.host, {
            let (networks, endpoint) = (world.networks.clone(), one.endpoint.clone());
            let netns = one.netns.try_clone().unwrap();
            move || networks.unplug_from_parent(netns.as_fd(), &endpoint).unwrap()
        });
        assert!(!inside(&one.netns, || sh("ip link")).contains("eth0"));
        for container in [one, two] {
            world.networks.detach(&container.endpoint).unwrap();
        }
        world.networks.remove("wire").unwrap();
        assert_eq!(world.networks.list().unwrap().len(), 3);
    });
}

#[test]
fn ipvlan_works_or_says_that_the_kernel_has_none() {
    with_world(|world| {
        let network = world.network("wire", |wanted| {
            wanted.driver = Some("ipvlan".into());
            wanted.subnets.push(SubnetRequest {
                subnet: Some("192.0.2.0/24".parse().unwrap()),
                gateway: Some(OUTSIDE.into()),
                ip_range: Some("192.0.2.128/25".parse().unwrap()),
                ..Default::default()
            });
        });
        assert_eq!(network.parent, "up0", "the interface of the default route");
        let netns = dhow_network::sandbox().unwrap();
        match world
            .networks
            .attach(&network, netns.as_fd(), &EndpointRequest::new(&id(1)))
        {
            Ok((endpoint, _)) => {
                tcp_server(&world.outside, 81);
                assert_eq!(tcp(&netns, OUTSIDE, 81).unwrap(), endpoint.ip.to_string());
                world.networks.detach(&endpoint).unwrap();
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                assert!(world.networks.endpoints(&network).unwrap().is_empty());
            }
        }
    });
}

#[test]
fn an_interface_may_have_a_name_of_its_own_beside_others() {
    with_world(|world| {
        let first = world.network("first", |_| ());
        let second = world.network("second", |wanted| {
            wanted.options.insert("no_default_route".into(), "1".into());
        });
        let id = id(1);
        let netns = dhow_network::sandbox().unwrap();
        let mut wan = EndpointRequest::new(&id);
        wan.interface = Some("wan0");
        let (endpoint, _) = world.networks.attach(&first, netns.as_fd(), &wan).unwrap();
        assert_eq!(endpoint.interface, "wan0");
        assert_eq!(world.networks.endpoints(&first).unwrap()[0].interface, "wan0");
        let bridge = world.networks.default_bridge().unwrap();
        for network in [&bridge, &second] {
            let request = EndpointRequest::new(&id);
            world.networks.attach(network, netns.as_fd(), &request).unwrap();
        }
        let routes = inside(&netns, || sh("ip -4 route show default"));
        assert_eq!(routes.lines().count(), 2, "{routes}");
        assert!(
            routes.lines().next().unwrap().contains("wan0"),
            "the first leads: {routes}"
        );
        let again = EndpointRequest {
            interface: Some("wan0"),
            ..EndpointRequest::new(&id)
        };
        let third = world.network("third", |_| ());
        assert!(world.networks.attach(&third, netns.as_fd(), &again).is_err());
        assert!(world.networks.endpoints(&third).unwrap().is_empty());
    });
}
