//! The runtime and what starts it: systemd, a supervisor that waits for word, a terminal.

use std::fs;
use std::path::Path;

use crate::yard::Yard;

#[test]
fn without_systemd_its_control_groups_are_refused_by_name() {
    let Some(yard) = Yard::new() else { return };
    if Path::new("/run/systemd/system").exists() {
        println!("skipped: systemd runs here (tests/vm has cases for it)");
        return;
    }
    for option in ["--systemd-cgroup", "--cgroup-manager=systemd"] {
        for verb in ["create", "run"] {
            yard.run(&[option, verb, "a"])
                .exits(1)
                .says("systemd not running on this host, cannot use systemd cgroups manager");
        }
    }
    assert!(fs::read_dir(yard.path("root")).unwrap().next().is_none());
    yard.nothing_left();
}
