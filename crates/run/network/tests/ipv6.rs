//! IPv6: which networks have it, and what it changes for the host.

use std::net::Ipv6Addr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use dhow_network::{CreateNetwork, EndpointRequest, Network, Networks, SubnetRequest};
use dhow_types::ErrorKind;
use ipnet::IpNet;

use crate::world::*;

const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const HOST6: &str = "2001:db8::2";

fn range6(network: &Network) -> Option<IpNet> {
    network.v6().map(|subnet| subnet.subnet)
}

fn subnet(text: &str) -> SubnetRequest {
    SubnetRequest {
        subnet: Some(text.parse().unwrap()),
        ..Default::default()
    }
}

#[test]
fn a_bridge_without_named_ranges_has_ipv6_below_one_prefix_of_the_host() {
    with_world(|world| {
        let (one, two) = (
            range6(&world.network("one", |_| ())).unwrap(),
            range6(&world.network("two", |_| ())).unwrap(),
        );
        let local: IpNet = "fd00::/8".parse().unwrap();
        assert!(local.contains(&one) && one.prefix_len() == 64);
        let wide = IpNet::new(one.addr(), 48).unwrap().trunc();
        assert!(wide.contains(&two) && one != two, "{one} {two}");
        // Another process finds the same prefix; without it, or with half of it, there is another.
        let again = Networks::open(world.root.path()).unwrap();
        let wanted = |name: &str| CreateNetwork {
            name: name.to_owned(),
            ..Default::default()
        };
        assert!(wide.contains(&range6(&again.create(&wanted("again")).unwrap()).unwrap()));
        std::fs::write(world.root.path().join("networks/.prefix6"), "[1,2").unwrap();
        let other = range6(&again.create(&wanted("other")).unwrap()).unwrap();
        assert!(local.contains(&other) && !wide.contains(&other), "{other}");
    });
}

#[test]
fn who_names_ranges_or_refuses_ipv6_has_what_was_said() {
    with_world(|world| {
        let named = world.network("named", |wanted| wanted.subnets.push(subnet("10.55.0.0/16")));
        assert_eq!(named.subnets.len(), 1);
        let refused = world.network("refused", |wanted| wanted.ipv6 = Some(false));
        assert_eq!(refused.subnets.len(), 1);
        let asked = world.network("asked", |wanted| {
            wanted.subnets.push(subnet("10.56.0.0/16"));
            wanted.ipv6 = Some(true);
        });
        assert_eq!(asked.subnets.len(), 2);
        let both = CreateNetwork {
            name: "both".into(),
            ipv6: Some(false),
            subnets: vec![subnet("fd01::/64")],
            ..Default::default()
        };
        assert_eq!(
            world.networks.create(&both).unwrap_err().kind(),
            ErrorKind::InvalidArgument
        );
        // On the wire of the host the range is the wire's.
        let wire = world.network("wire", |wanted| wanted.driver = Some("macvlan".into()));
        assert_eq!(wire.subnets.len(), 1);
        inside(&world.host, || sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1"));
        let networks = world.networks.clone();
        let without = inside(&world.host, move || {
            networks.create(&CreateNetwork {
                name: "without".into(),
                ..Default::default()
            })
        });
        assert_eq!(without.unwrap().subnets.len(), 1);
    });
}

#[test]
fn an_address_of_ipv6_is_ready_at_once_and_nobody_on_the_network_makes_others() {
    with_world(|world| {
        let network = world.network("dual", |_| ());
        let one = world.container(&network, 1, &[]);
        let shown = inside(&one.netns, || sh("ip -o -6 addr show dev eth0 scope global"));
        assert!(!shown.contains("tentative"), "{shown}");
        assert!(shown.contains(&one.endpoint.ip6.unwrap().to_string()), "{shown}");
        let tail = u32::from(one.endpoint.ip).to_be_bytes();
        assert_eq!(one.endpoint.ip6.unwrap().octets()[12..], tail);
        assert_eq!(
            read(&one.netns, "/proc/thread-self/net/if_inet6").lines().count(),
            3
        );
        assert_eq!(
            inside(&one.netns, || sh("sysctl -n net.ipv6.conf.eth0.accept_ra")).trim(),
            "0"
        );
        // Also in a namespace that somebody made without IPv6.
        let id = id(2);
        let netns = dhow_network::sandbox().unwrap();
        inside(&netns, || {
            sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")
        });
        let (two, _) = world
            .networks
            .attach(&network, netns.as_fd(), &EndpointRequest::new(&id))
            .unwrap();
        tcp6_server(&one.netns, 80);
        let peer = two.ip6.unwrap().to_string();
        assert_eq!(tcp(&netns, one.endpoint.ip6.unwrap(), 80), Ok(peer));
    });
}

#[test]
fn an_internal_network_has_no_way_out_by_ipv6() {
    with_world(|world| {
        uplink6(world);
        tcp6_server(&world.outside, 81);
        let network = world.network("closed", |wanted| wanted.internal = true);
        let other = world.network("open", |_| ());
        let (one, two) = (world.container(&network, 1, &[]), world.container(&other, 2, &[]));
        assert_eq!(one.endpoint.gateway6, None);
        tcp6_server(&two.netns, 80);
        assert!(tcp(&two.netns, OUTSIDE6, 81).is_ok());
        assert!(closed(&one.netns, OUTSIDE6, 81));
        let gateway = network.v6().unwrap().gateway;
        inside(&one.netns, move || {
            sh(&format!("ip -6 route add default via {gateway}"))
        });
        assert!(closed(&one.netns, OUTSIDE6, 81));
        assert!(closed(&one.netns, two.endpoint.ip6.unwrap(), 80));
    });
}

/// Gives the uplink addresses of IPv6.
fn uplink6(world: &World) {
    inside(&world.host, || {
        sh(&format!("ip -6 addr add {HOST6}/64 dev up0 nodad"))
    });
    inside(&world.outside, || {
        sh(&format!(
            "ip -6 addr add {OUTSIDE6}/64 dev out0 nodad; ip -6 route add default via {HOST6}"
        ))
    });
}

/// One more machine, behind another interface of the host.
fn neighbour(world: &World, device: &'static str, net: &'static str) -> OwnedFd {
    let machine = dhow_network::sandbox().unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), machine.as_raw_fd());
    inside(&world.host, move || {
        sh(&format!(
            "ip link add {device} type veth peer name in0 netns {path} && ip -6 addr add {net}::2/64 dev {device} nodad && ip link set {device} up"
        ))
    });
    inside(&machine, move || {
        sh(&format!(
            "ip -6 addr add {net}::1/64 dev in0 nodad && ip link set in0 up && ip -6 route add default via {net}::2"
        ))
    });
    machine
}

#[test]
fn a_host_that_forwards_for_a_network_does_not_become_a_router_between_its_interfaces() {
    with_world(|world| {
        uplink6(world);
        tcp6_server(&world.outside, 81);
        let before = neighbour(world, "lan0", "2001:db8:1");
        assert!(closed(&before, OUTSIDE6, 81), "nothing was forwarded before");
        let network = world.network("dual", |_| ());
        let one = world.container(&network, 1, &[]);
        let out = |netns: &OwnedFd| tcp(netns, OUTSIDE6, 81);
        assert_eq!(out(&one.netns), Ok(HOST6.to_owned()));
        assert!(closed(&before, OUTSIDE6, 81), "and nothing is now");
        // What comes later is its maker's affair, also for a network that comes later still.
        let later = neighbour(world, "lan1", "2001:db8:2");
        assert_eq!(out(&later), Ok("2001:db8:2::1".to_owned()));
        let other = world.network("other", |_| ());
        let two = world.container(&other, 2, &[]);
        assert!(out(&two.netns).is_ok() && out(&later).is_ok());
        assert!(closed(&before, OUTSIDE6, 81));
        if has_nft() {
            inside(&world.host, || sh("nft flush ruleset"));
            assert!(world.networks.repair().unwrap());
            assert!(closed(&before, OUTSIDE6, 81));
            assert!(out(&one.netns).is_ok() && out(&later).is_ok());
        }
        // A note of another boot is none, nor is one that is damaged.
        let note = world.root.path().join("networks/.closed6");
        let text = std::fs::read_to_string(&note).unwrap();
        assert!(text.contains("lan0") && text.contains("up0") && !text.contains(&network.device));
        for bad in [text.replace("\"boot\":\"", "\"boot\":\"0"), "{".to_owned()] {
            std::fs::write(&note, bad).unwrap();
            let table = inside(&world.host, || sh("nft list tables 2>/dev/null | sed 's/.* //'"));
            if !table.is_empty() {
                inside(&world.host, || sh("nft flush ruleset"));
                world.networks.repair().unwrap();
                assert!(out(&before).is_ok());
            }
        }
    });
}

#[test]
fn a_host_that_forwards_already_is_left_as_it_is() {
    with_world(|world| {
        uplink6(world);
        tcp6_server(&world.outside, 81);
        let before = neighbour(world, "lan0", "2001:db8:1");
        inside(&world.host, || sh("sysctl -qw net.ipv6.conf.all.forwarding=1"));
        let network = world.network("dual", |_| ());
        let id = id(1);
        let netns = dhow_network::sandbox().unwrap();
        world
            .networks
            .attach(&network, netns.as_fd(), &EndpointRequest::new(&id))
            .unwrap();
        assert_eq!(tcp(&before, OUTSIDE6, 81), Ok("2001:db8:1::1".to_owned()));
        assert!(!world.root.path().join("networks/.closed6").exists());
    });
}
