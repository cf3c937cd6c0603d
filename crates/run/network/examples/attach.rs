//! Measures attach and detach on a bridge: `cargo run --profile quick -p dhow-network --example attach [rounds]`.
//! Runs in a network namespace of its own; needs root.

#![allow(clippy::print_stdout, reason = "it is run for what it prints")]

use std::error::Error;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use dhow_network::{EndpointRequest, Networks, PortMapping, Protocol, sandbox};
use dhow_types::ContainerId;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

fn main() -> Result<(), Box<dyn Error>> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(100), |text| text.parse())?;
    let host = sandbox()?;
    move_into_link_name_space(host.as_fd(), Some(LinkNameSpaceType::Network))?;
    let root = std::env::temp_dir().join(format!("dhow-network-bench-{}", std::process::id()));
    std::fs::create_dir_all(&root)?;
    let networks = Networks::open(&root)?;
    let network = networks.default_bridge()?;
    let mut times: [Vec<Duration>; 5] = Default::default();
    let ports = [PortMapping {
        host_ip: None,
        host_port: Some(8080),
        host_last: None,
        container_port: 80,
        protocol: Protocol::Tcp,
    }];
    for round in 0..rounds {
        let container = ContainerId::from_random([u8::try_from(round % 256)?; 32]);
        let mut start = Instant::now();
        let mut lap = |slot: usize| {
            times[slot].push(start.elapsed());
            start = Instant::now();
        };
        let netns = sandbox()?;
        lap(0);
        let request = EndpointRequest {
            ports: &ports,
            held: &[],
            ..EndpointRequest::new(&container)
        };
        let (endpoint, held) = networks.attach(&network, netns.as_fd(), &request)?;
        lap(1);
        let retired = networks.retire(&endpoint)?;
        lap(2);
        networks.bury(retired)?;
        lap(3);
        drop((netns, held));
        lap(4);
    }
    std::fs::remove_dir_all(&root)?;
    for (name, mut laps) in ["sandbox", "attach", "retire", "bury", "close"]
        .into_iter()
        .zip(times)
    {
        println!("{name}: first {:?}", laps[0]);
        laps.sort();
        println!(
            "{name}: median {:?}, best {:?}, worst {:?}",
            laps[laps.len() / 2],
            laps[0],
            laps[laps.len() - 1]
        );
    }
    Ok(())
}
