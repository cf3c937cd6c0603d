//! Prints the runtime spec of a default container as `config.json`, for running the same container with another runtime:
//! `cargo run -p dhow-bundle --example spec -- true > bundle/config.json`, with the root file system in `bundle/rootfs`.

#![allow(clippy::print_stdout, reason = "an example speaks to its terminal")]

use dhow_bundle::{Host, Limits, Request};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let request = Request {
        args: std::env::args().skip(1).collect(),
        hostname: "bench".to_owned(),
        limits: Limits {
            memory: Some(256 << 20),
            pids: Some(100),
            ..Limits::default()
        },
        cgroup_path: "/bench".to_owned(),
        ..Request::default()
    };
    let cgroup_v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let spec = dhow_bundle::spec(
        &request,
        &Host {
            cgroup_v2,
            rootless: false,
            kernel: (6, 1),
        },
    )?;
    println!("{}", serde_json::to_string_pretty(&spec)?);
    Ok(())
}
