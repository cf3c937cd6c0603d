use dhow_network::Protocol;

use crate::world::*;

/// Every prefix of the steps of an attach, made by hand, is undone by release_stale.
#[test]
fn what_a_killed_attach_leaves_is_released() {
    with_world(|world| {
        let network = world.networks.default_bridge().unwrap();
        let live = world.container(&network, 1, &[publish(None, 8080, 80, Protocol::Tcp)]);
        let directory = world.root.path().join("networks/bridge");
        let stays = live.id.to_string();
        let gone = |id: &str| (id != stays).then_some(());
        // Killed after the lease.
        std::os::unix::fs::symlink(id(2).as_str(), directory.join("leases").join("10.250.0.9")).unwrap();
        assert!(world.networks.release_stale(gone).unwrap().is_empty());
        // Killed after the record (its temporary file too), before the link.
        let dead = world.container(&network, 3, &[publish(None, 8081, 80, Protocol::Tcp)]);
        let veth = dead.endpoint.veth.clone();
        inside(&world.host, move || sh(&format!("ip link del {veth}")));
        std::fs::write(directory.join("endpoints").join(".half.json"), b"{").unwrap();
        assert_eq!(world.networks.release_stale(gone).unwrap(), [dead.endpoint]);
        // Killed at the very end.
        let dead = world.container(&network, 4, &[publish(None, 8082, 80, Protocol::Tcp)]);
        assert_eq!(world.networks.release_stale(gone).unwrap(), [dead.endpoint]);
        assert_eq!(world.networks.endpoints(&network).unwrap(), [live.endpoint]);
        assert_eq!(std::fs::read_dir(directory.join("leases")).unwrap().count(), 1);
        let links = inside(&world.host, || sh("ip -o link show type veth | grep -c veth"));
        assert_eq!(links.trim(), "1");
        if has_nft() {
            let rules = inside(&world.host, || sh("nft list ruleset"));
            assert!(
                rules.contains("8080") && !rules.contains("8081") && !rules.contains("8082"),
                "{rules}"
            );
        }
    });
}

/// A record without content says nothing; what it stood for did not survive the power cut either.
#[test]
fn an_endpoint_that_a_power_cut_emptied_does_not_stop_its_network() {
    with_world(|world| {
        let network = world.networks.default_bridge().unwrap();
        let lost = world.container(&network, 1, &[]);
        let directory = world.root.path().join("networks/bridge");
        let record = directory.join("endpoints").join(format!("{}.json", lost.id));
        std::fs::write(&record, b"").unwrap();
        assert_eq!(world.networks.endpoints(&network).unwrap(), []);
        world.networks.release_stale(|_| Some(())).unwrap();
        assert!(!record.exists());
        assert_eq!(std::fs::read_dir(directory.join("leases")).unwrap().count(), 0);
        let again = world.container(&network, 2, &[]);
        assert_eq!(world.networks.endpoints(&network).unwrap(), [again.endpoint]);
    });
}

/// The process is killed at random moments of attaching and detaching; afterwards nothing is left.
#[test]
fn kill_nine_at_any_moment_leaves_nothing_that_release_stale_does_not_find() {
    with_world(|world| {
        let network = world.networks.default_bridge().unwrap();
        let first = world.container(&network, 250, &[]);
        world.networks.detach(&first.endpoint).unwrap();
        let program = std::env::current_exe().unwrap();
        for round in 0..40u64 {
            let mut child = std::process::Command::new(&program)
                .args([
                    "--exact",
                    "crash::attach_and_detach_for_ever",
                    "--ignored",
                    "--test-threads=1",
                ])
                .env("DHOW_NETWORK_TEST_ROOT", world.root.path())
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(std::time::Duration::from_micros(4_000 + round * 977));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        world.networks.release_stale(|_| Some(())).unwrap();
        let leases = std::fs::read_dir(world.root.path().join("networks/bridge/leases"))
            .unwrap()
            .count();
        assert_eq!(leases, 0);
        assert!(world.networks.endpoints(&network).unwrap().is_empty());
        let links = inside(&world.host, || {
            sh("ip -o link show type veth | grep -v ' up0' | wc -l")
        });
        assert_eq!(links.trim(), "0");
        // And the network still works.
        let one = world.container(&network, 1, &[publish(None, 8080, 80, Protocol::Tcp)]);
        tcp_server(&one.netns, 80);
        assert_eq!(tcp(&world.outside, HOST, 8080), Ok(OUTSIDE.to_string()));
        if has_nft() {
            let rules = inside(&world.host, || sh("nft list ruleset"));
            assert!(!rules.contains("8099"), "{rules}");
        }
    });
}

/// Not a test by itself: what the test above kills.
#[test]
#[ignore = "run by another test, which kills it"]
fn attach_and_detach_for_ever() {
    let Some(root) = std::env::var_os("DHOW_NETWORK_TEST_ROOT") else {
        return;
    };
    let networks = dhow_network::Networks::open(std::path::Path::new(&root)).unwrap();
    let network = networks.default_bridge().unwrap();
    for number in 0.. {
        use std::os::fd::AsFd as _;
        let netns = dhow_network::sandbox().unwrap();
        let container = id(number);
        let ports = [publish(None, 8099, 80, Protocol::Tcp)];
        let request = dhow_network::EndpointRequest {
            ports: &ports,
            held: &[],
            ..dhow_network::EndpointRequest::new(&container)
        };
        if let Ok((endpoint, _held)) = networks.attach(&network, netns.as_fd(), &request) {
            networks.detach(&endpoint).unwrap();
        }
        if number == 200 {
            return;
        }
    }
}
