//! What runs again after a reboot.

use std::fs;

use crate::world::{World, eventually};

/// Everything ends at once, nothing is written down, and what is in memory is gone.
fn power_off(world: &World) {
    let kill = |pid: &str| {
        // Some ended with another.
        drop(std::process::Command::new("kill").args(["-9", pid]).status());
    };
    let programs = [
        "always",
        "stopped-always",
        "unless",
        "stopped-unless",
        "failing",
        "never",
    ]
    .map(|name| world.inspect(name, "{{.State.Pid}}"));
    // The monitors first, so that nobody starts a program again.
    for line in world.processes() {
        kill(line.split_whitespace().next().unwrap());
    }
    programs
        .iter()
        .filter(|pid| *pid != "0")
        .for_each(|pid| kill(pid));
    eventually("nothing runs", || {
        // Who is killed takes a moment to die; whether somebody buries it is another matter.
        let dead = |pid: &String| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.map_or(true, |stat| stat.contains(") Z "))
        };
        world.processes().is_empty() && programs.iter().all(dead)
    });
    drop(fs::remove_dir_all(world.root().join("run")));
}

#[test]
fn policies_say_what_starts_after_a_reboot() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let run = |name: &str, policy: &str| {
        world
            .say(&format!(
                "run -d --name {name} --restart {policy} busybox sleep 600"
            ))
            .ok();
    };
    run("always", "always");
    run("stopped-always", "always");
    run("unless", "unless-stopped");
    run("stopped-unless", "unless-stopped");
    run("failing", "on-failure");
    run("never", "no");
    world
        .say("create --name idle --restart always busybox sleep 600")
        .ok();
    world.say("stop -t 0 stopped-always stopped-unless").ok();
    power_off(&world);
    let text = world.say("boot").ok();
    let mut started: Vec<_> = text.lines().collect();
    started.sort_unstable();
    assert_eq!(started, ["always", "stopped-always", "unless"]);
    assert_eq!(world.inspect("always", "{{.State.Running}}"), "true");
    assert_eq!(world.inspect("stopped-unless", "{{.State.Running}}"), "false");
    assert_eq!(world.inspect("idle", "{{.State.Status}}"), "created");
    // Nothing is left to do, and one that was started by hand counts as not stopped.
    assert_eq!(world.say("boot").ok(), "");
    world.say("start stopped-unless").ok();
    power_off(&world);
    assert!(world.say("boot").ok().contains("stopped-unless"));
}

#[test]
fn one_that_needs_another_starts_after_it_and_a_failure_is_told() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("create --name late --restart always busybox sleep 600")
        .ok();
    world
        .say("run -d --name always --restart always busybox sleep 600")
        .ok();
    let gone = world.path("gone");
    fs::create_dir(&gone).unwrap();
    let bind = format!("{}:/gone", gone.display());
    for name in ["stopped-always", "unless", "stopped-unless", "failing"] {
        world.say(&format!("create --name {name} busybox true")).ok();
    }
    world
        .dhow(&[
            "run",
            "-d",
            "--name",
            "never",
            "--restart",
            "always",
            "-v",
            &bind,
            "busybox",
            "sleep",
            "600",
        ])
        .exits(0);
    power_off(&world);
    fs::remove_dir(&gone).unwrap();
    world.say("boot").exits(1).prints("always").says("never");
    let unit = world.say("boot --unit").ok();
    assert!(
        unit.contains("Type=oneshot") && unit.contains("KillMode=process"),
        "{unit}"
    );
}
