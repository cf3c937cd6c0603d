//! `kill -9` at any moment: what is left is whole, or healed by `system check --repair`, and the next command works.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use dhow_testkit::{FakeRegistry, Layer, Tar, TinyImage};

use crate::samples::{busybox_tar, noise};
use crate::served::Served;
use crate::world::{PATIENCE, World, wait};

pub(crate) const ROUNDS: u32 = 20;

/// Kills the command, or its whole group, after a part of the time that it takes.
pub(crate) fn killed(mut child: Child, round: u32, whole: Duration) {
    // Two thirds of the rounds spread over the whole time, the rest cluster at its beginning.
    let part = if round.is_multiple_of(3) { round } else { round * 3 };
    std::thread::sleep(whole.mul_f64(f64::from(part) / f64::from(ROUNDS * 3)));
    let pid = rustix::process::Pid::from_child(&child);
    // It may have ended already.
    if round.is_multiple_of(2) {
        rustix::process::kill_process_group(pid, rustix::process::Signal::KILL).unwrap_or(());
    } else {
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap_or(());
    }
    wait(&mut child, PATIENCE).expect("what was killed ends");
}

/// Nothing that a killed command forked may still be at work when its traces are looked at.
fn settle(world: &World) {
    crate::world::eventually("its children end, too", || world.processes().is_empty());
}

pub(crate) fn timed(deed: impl FnOnce()) -> Duration {
    let began = Instant::now();
    deed();
    began.elapsed()
}

#[test]
fn a_killed_pull_is_taken_up_again() {
    let Some(world) = World::new() else { return };
    let registry = FakeRegistry::start();
    let more = Tar::new().file("noise", 0o644, &noise(2_000_000, 5)).finish();
    let image = TinyImage::oci(vec![Layer::gzip(busybox_tar()), Layer::gzip(more)]);
    registry.put_image("box", "1", &image);
    let name = registry.name("box:1");
    let whole = timed(|| drop(world.dhow(&["pull", &name]).ok()));
    for round in 0..ROUNDS {
        world.dhow(&["rmi", "-f", &name]).exits_any();
        killed(world.spawn(&["pull", &name]), round, whole);
        settle(&world);
        world.clean_or_healed();
    }
    world.dhow(&["pull", &name]).ok();
    assert_eq!(
        world
            .dhow(&["run", "--rm", "--network", "none", &name, "echo", "ran"])
            .ok(),
        "ran"
    );
    world.clean();
    assert_eq!(
        crate::world::names(&world.root().join("tmp")),
        Vec::<String>::new()
    );
}

#[test]
fn a_killed_push_is_taken_up_again() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let served = Served::start(&world.path("registry"));
    let mut whole = Duration::from_millis(300);
    for round in 0..ROUNDS {
        let name = served.name(&format!("box{round}:1"));
        world.dhow(&["tag", "busybox", &name]).ok();
        if round == 0 {
            whole = timed(|| drop(world.dhow(&["push", &name]).ok()));
        }
        killed(world.spawn(&["push", &name]), round, whole);
        if round % 5 == 4 {
            settle(&world);
            world.clean_or_healed();
            world.dhow(&["push", &name]).ok();
            world.dhow(&["rmi", &name]).ok();
            world.dhow(&["pull", &name]).ok();
        }
    }
    world.clean();
}

#[test]
fn a_killed_build_is_taken_up_again() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.file("ctx/file", "x");
    let folder = world.path("ctx").display().to_string();
    let dockerfile = |round: u32| {
        format!(
            "FROM busybox\nCOPY file /f{round}\nRUN echo {round} > /r; sleep 0.05\nRUN dd if=/dev/zero of=/big bs=1M count=3 2>/dev/null\n"
        )
    };
    world.file("ctx/Dockerfile", dockerfile(1000));
    let whole = timed(|| drop(world.dhow(&["build", "-t", "t:1000", &folder]).exits(0)));
    for round in 0..ROUNDS {
        world.file("ctx/Dockerfile", dockerfile(round));
        killed(
            world.spawn(&["build", "-t", &format!("t:{round}"), &folder]),
            round,
            whole,
        );
        settle(&world);
        world.clean_or_healed();
        if round % 5 == 4 {
            world
                .dhow(&["build", "-t", &format!("t:{round}"), &folder])
                .exits(0);
            let script = format!("cat /r; test -e /f{round}");
            assert_eq!(
                world
                    .dhow(&[
                        "run",
                        "--rm",
                        "--network",
                        "none",
                        &format!("t:{round}"),
                        "sh",
                        "-c",
                        &script
                    ])
                    .ok(),
                round.to_string()
            );
        }
    }
    world.clean();
    assert_eq!(
        crate::world::mounts(&world.root().to_string_lossy()),
        Vec::<String>::new()
    );
}

#[test]
fn a_killed_run_leaves_what_can_be_seen_and_removed() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let whole = timed(|| drop(world.say("run --rm busybox true").exits(0)));
    for round in 0..ROUNDS {
        let name = format!("r{round}");
        killed(
            world.spawn(&[
                "run",
                "--name",
                &name,
                "-v",
                &format!("v{round}:/v"),
                "busybox",
                "sleep",
                "0.1",
            ]),
            round,
            whole,
        );
        // The monitor of a container that was started goes on, and must: wait until it is done.
        crate::world::eventually("the container ends", || {
            let status = world.dhow(&["inspect", "--format", "{{.State.Status}}", &name]);
            status.code != 0 || !["running", "created"].contains(&status.stdout.trim()) || { settled(&world) }
        });
        world.clean_or_healed();
        world.dhow(&["rm", "-f", &name]).exits_any();
        assert_eq!(
            world
                .dhow(&["run", "--rm", "--name", &name, "busybox", "echo", "ran"])
                .ok(),
            "ran",
            "round {round}"
        );
    }
    assert_eq!(world.say("ps -aq").ok(), "");
    assert_eq!(world.containers(), Vec::<String>::new());
    world.clean();
}

fn settled(world: &World) -> bool {
    world.processes().is_empty()
}

#[test]
fn what_a_kill_between_two_steps_leaves_is_found_and_healed() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let id = world.say("create --name lost busybox true").ok();
    // No process has so high a number.
    let unfinished = world.root().join("containers/.new-2147483647-0123456789ab");
    std::fs::create_dir(&unfinished).unwrap();
    std::fs::remove_file(world.root().join("names/lost")).unwrap();
    std::fs::write(world.root().join("names/nobody"), "0".repeat(64)).unwrap();
    world
        .say("system check")
        .exits(1)
        .prints("not finished")
        .prints("\"lost\"")
        .prints("nobody");
    world.say("system check --repair").exits(0);
    world.clean();
    assert!(!unfinished.exists());
    assert_eq!(world.inspect("lost", "{{.Id}}"), id);
    std::fs::write(world.root().join("names/lost"), &id[..12]).unwrap();
    world.say("system check").exits(1);
    world.say("rm -f lost").exits_any();
    world.say("system check --repair").exits(0);
    world.clean();
}

/// Directories of the groups below which this root's groups are, one for each hierarchy.
pub(crate) fn parents_of_groups(world: &World) -> Vec<PathBuf> {
    let id = world.say("run -d --network none busybox sleep 300").ok();
    let found = crate::world::groups(&id);
    world.dhow(&["rm", "-f", &id]).ok();
    assert!(!found.is_empty(), "a container has a control group");
    let parent = |path: &String| Path::new(path).parent().unwrap().to_owned();
    found.iter().map(parent).collect()
}

pub(crate) fn groups_in(parents: &[PathBuf]) -> Vec<PathBuf> {
    let below = |parent: &PathBuf| {
        let parent = parent.clone();
        let names = crate::world::names(&parent).into_iter();
        names
            .map(move |name| parent.join(name))
            .filter(|path| path.is_dir())
    };
    parents.iter().flat_map(below).collect()
}

/// Starts a build whose step sleeps with a stage mounted, and kills all of it but the step's own program.
fn kill_a_build_in_its_step(world: &World, parents: &[PathBuf]) {
    world.file(
        "ctx/Dockerfile",
        "FROM busybox\nRUN --network=none --mount=from=busybox,target=/m sleep 300\n",
    );
    let folder = world.path("ctx").display().to_string();
    let mut build = world.spawn(&["build", "--no-cache", &folder]);
    let sleeps = || {
        groups_in(parents).iter().any(|group| {
            let pids = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            let mut names = pids
                .lines()
                .map(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")));
            names.any(|name| name.is_ok_and(|name| name.trim() == "sleep"))
        })
    };
    crate::world::eventually("the step sleeps", sleeps);
    let pid = rustix::process::Pid::from_child(&build);
    rustix::process::kill_process_group(pid, rustix::process::Signal::KILL).unwrap();
    wait(&mut build, PATIENCE).expect("what was killed ends");
    settle(world);
    assert!(sleeps(), "the step's program goes on");
    let mounts = crate::world::mounts(&world.root().to_string_lossy());
    assert_eq!(mounts.len(), 1, "the stage is still mounted: {mounts:?}");
}

#[test]
fn a_build_killed_in_its_step_is_found_and_taken_apart() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let parents = parents_of_groups(&world);
    let nothing_left = || {
        let root = world.root().to_string_lossy().into_owned();
        assert_eq!(crate::world::mounts(&root), Vec::<String>::new());
        assert_eq!(groups_in(&parents), Vec::<PathBuf>::new());
        let run = crate::world::names(&world.root().join("run"));
        assert!(!run.iter().any(|name| name.contains("step-")), "{run:?}");
        world.clean();
    };
    kill_a_build_in_its_step(&world, &parents);
    world.say("system check").exits(1).prints("build step was killed");
    world.say("system check --repair").exits(0);
    nothing_left();
    // The next build does it by itself.
    kill_a_build_in_its_step(&world, &parents);
    world.file("ctx/Dockerfile", "FROM busybox\nRUN true\n");
    let folder = world.path("ctx").display().to_string();
    world.dhow(&["build", &folder]).exits(0);
    nothing_left();
}

#[test]
fn a_control_group_of_nobody_is_found_and_removed_and_one_of_another_root_is_not() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let other = World::with_busybox().unwrap();
    let parents = parents_of_groups(&world);
    let running = other.say("run -d --network none busybox sleep 300").ok();
    assert!(
        !crate::world::groups(&running)
            .iter()
            .any(|path| parents.iter().any(|parent| Path::new(path).starts_with(parent)))
    );
    let id = "5".repeat(64);
    for parent in &parents {
        std::fs::create_dir(parent.join(&id)).unwrap();
    }
    world.say("system check").exits(1).prints(&id);
    world.say("system check --repair").exits(0);
    world.clean();
    assert_eq!(crate::world::groups(&id), Vec::<String>::new());
    assert_eq!(other.inspect(&running, "{{.State.Status}}"), "running");
    // The same of a container that is still known.
    let id = world.say("create --network none busybox true").ok();
    std::fs::create_dir(parents[0].join(&id)).unwrap();
    world.say("system check").exits(1).prints(&id[..12]);
    world.say("system check --repair").exits(0);
    world.clean();
    assert_eq!(crate::world::groups(&id), Vec::<String>::new());
}
