use dhow_network::{CreateNetwork, Driver, SubnetRequest};
use dhow_types::ErrorKind;

use crate::world::*;

#[test]
fn networks_are_listed_found_by_name_and_prefix_and_removed() {
    with_world(|world| {
        let network = world.network("web", |wanted| {
            wanted.labels.insert("tier".into(), "front".into());
        });
        let names: Vec<String> = world
            .networks
            .list()
            .unwrap()
            .into_iter()
            .map(|network| network.name)
            .collect();
        assert_eq!(names, ["bridge", "host", "none", "web"]);
        for key in ["web", network.id.as_str(), network.id.short()] {
            assert_eq!(world.networks.find(key).unwrap(), network, "{key}");
        }
        assert_eq!(world.networks.find("none").unwrap().driver, Driver::Null);
        assert_eq!(
            world.networks.find("nothing").unwrap_err().to_string(),
            "network nothing not found"
        );
        for odd in ["../web", "", "..", "web/", "\0"] {
            assert_eq!(
                world.networks.find(odd).unwrap_err().kind(),
                ErrorKind::NotFound,
                "{odd:?}"
            );
        }
        world.networks.remove("web").unwrap();
        assert_eq!(
            world.networks.remove("web").unwrap_err().kind(),
            ErrorKind::NotFound
        );
        let left = std::fs::read_dir(world.root.path().join("networks")).unwrap();
        let mut left: Vec<String> = left
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [".lock", ".prefix6", "bridge"]);
    });
}

#[test]
fn predefined_networks_are_neither_created_nor_removed() {
    with_world(|world| {
        for name in ["bridge", "host", "none"] {
            assert_eq!(
                world.networks.remove(name).unwrap_err().kind(),
                ErrorKind::PermissionDenied
            );
            let wanted = CreateNetwork {
                name: name.into(),
                ..Default::default()
            };
            assert_eq!(
                world.networks.create(&wanted).unwrap_err().kind(),
                ErrorKind::PermissionDenied
            );
        }
    });
}

#[test]
fn a_network_in_use_is_not_removed_and_its_device_goes_with_it() {
    with_world(|world| {
        let network = world.network("busy", |_| ());
        let one = world.container(&network, 1, &[]);
        let refused = world.networks.remove("busy").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
        assert_eq!(
            refused.to_string(),
            "error while removing network: network busy has active endpoints"
        );
        world.networks.detach(&one.endpoint).unwrap();
        world.networks.remove("busy").unwrap();
        let links = inside(&world.host, || sh("ip -o link show"));
        assert!(!links.contains(&network.device), "{links}");
        if has_nft() {
            let rules = inside(&world.host, || sh("nft list ruleset"));
            assert!(!rules.contains(&network.device), "{rules}");
        }
    });
}

#[test]
fn wrong_wishes_are_refused_by_kind() {
    with_world(|world| {
        let subnet = |text: &str| SubnetRequest {
            subnet: Some(text.parse().unwrap()),
            ..Default::default()
        };
        world.network("taken", |wanted| wanted.subnets.push(subnet("10.55.0.0/16")));
        let refused = |change: &dyn Fn(&mut CreateNetwork)| {
            let mut wanted = CreateNetwork {
                name: "new".into(),
                ..Default::default()
            };
            change(&mut wanted);
            world.networks.create(&wanted).unwrap_err().kind()
        };
        let option = |key: &'static str, value: &'static str| {
            move |wanted: &mut CreateNetwork| {
                wanted.options.insert(key.into(), value.into());
            }
        };
        assert_eq!(
            refused(&|wanted| wanted.name = "taken".into()),
            ErrorKind::AlreadyExists
        );
        assert_eq!(
            refused(&|wanted| wanted.name = "../x".into()),
            ErrorKind::InvalidArgument
        );
        assert_eq!(
            refused(&|wanted| wanted.driver = Some("overlay".into())),
            ErrorKind::Unsupported
        );
        assert_eq!(
            refused(&|wanted| wanted.driver = Some("weave".into())),
            ErrorKind::NotFound
        );
        assert_eq!(
            refused(&|wanted| wanted.subnets.push(subnet("10.55.3.0/24"))),
            ErrorKind::PermissionDenied
        );
        assert_eq!(
            refused(&|wanted| wanted.subnets.push(subnet("192.0.2.0/25"))),
            ErrorKind::PermissionDenied
        );
        for (key, value, kind) in [
            ("com.docker.network.driver.mtu", "67", ErrorKind::InvalidArgument),
            ("com.docker.network.driver.mtu", "x", ErrorKind::InvalidArgument),
            (
                "com.docker.network.bridge.name",
                "../x",
                ErrorKind::InvalidArgument,
            ),
            (
                "com.docker.network.bridge.name",
                "sixteen-letters-",
                ErrorKind::InvalidArgument,
            ),
            (
                "com.docker.network.bridge.enable_icc",
                "maybe",
                ErrorKind::InvalidArgument,
            ),
            ("parent", "eth0", ErrorKind::Unsupported),
            ("isolate", "false", ErrorKind::Unsupported),
            ("no_default_route", "maybe", ErrorKind::InvalidArgument),
        ] {
            assert_eq!(refused(&option(key, value)), kind, "{key}={value}");
        }
        for (key, value, kind) in [
            ("parent", "no-such0", ErrorKind::NotFound),
            ("mode", "l2", ErrorKind::InvalidArgument),
            ("com.docker.network.bridge.name", "br7", ErrorKind::Unsupported),
        ] {
            let macvlan = |wanted: &mut CreateNetwork| {
                wanted.driver = Some("macvlan".into());
                option(key, value)(wanted);
            };
            assert_eq!(refused(&macvlan), kind, "{key}={value}");
        }
    });
}

#[test]
fn options_set_mtu_and_name_of_the_bridge() {
    with_world(|world| {
        let network = world.network("odd", |wanted| {
            wanted
                .options
                .insert("com.docker.network.driver.mtu".into(), "1300".into());
            wanted
                .options
                .insert("com.docker.network.bridge.name".into(), "odd0".into());
        });
        let one = world.container(&network, 1, &[]);
        assert_eq!(network.device, "odd0");
        assert!(inside(&world.host, || sh("ip -o link show odd0")).contains("mtu 1300"));
        assert!(inside(&one.netns, || sh("ip -o link show eth0")).contains("mtu 1300"));
    });
}

#[test]
fn a_device_that_is_no_bridge_is_left_alone() {
    with_world(|world| {
        inside(&world.host, || sh("ip link add odd0 type veth peer name odd1"));
        let network = world.network("odd", |wanted| {
            wanted
                .options
                .insert("com.docker.network.bridge.name".into(), "odd0".into());
        });
        let netns = dhow_network::sandbox().unwrap();
        let request_id = id(1);
        let request = dhow_network::EndpointRequest::new(&request_id);
        use std::os::fd::AsFd as _;
        let refused = world
            .networks
            .attach(&network, netns.as_fd(), &request)
            .unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
        assert!(inside(&world.host, || sh("ip -o link show odd0")).contains("odd0"));
        assert!(world.networks.endpoints(&network).unwrap().is_empty());
    });
}
