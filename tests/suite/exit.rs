//! Exit codes, and what is left after the end.

use crate::world::{World, eventually};

#[test]
fn the_exit_code_of_the_program_is_that_of_run() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for code in [0, 1, 42, 125, 126, 127, 255] {
        world.sh("--network none", &format!("exit {code}")).exits(code);
    }
}

#[test]
fn a_program_that_a_signal_ends_gives_128_and_the_number() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("SEGV", 139), ("USR1", 138)] {
        // Not as process 1, which the kernel shields; the shell hands the code on.
        world
            .sh("--network none", &format!("sh -c 'kill -{signal} $$'; exit $?"))
            .exits(code);
    }
    let id = world.say("run -d --network none busybox sleep 100").ok();
    world.dhow(&["kill", &id]).ok();
    assert_eq!(world.dhow(&["wait", &id]).ok(), "137");
}

#[test]
fn a_program_that_is_not_there_gives_127_and_one_that_is_none_gives_126() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("run --rm --network none busybox /no/such/program")
        .one_error(127)
        .says("/no/such/program");
    world
        .say("run --rm --network none busybox nosuchprogram")
        .one_error(127)
        .says("nosuchprogram");
    world
        .say("run --rm --network none busybox /etc/not-a-program")
        .one_error(126)
        .says("permission denied");
    world
        .say("run --rm --network none busybox /etc")
        .one_error(126)
        .says("/etc");
    assert_eq!(
        world.say("ps -aq").ok(),
        "",
        "--rm also holds for what never started"
    );
}

#[test]
fn what_dhow_itself_refuses_gives_125() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for line in [
        "run --rm --no-such-flag busybox true",
        "run --rm --memory lots busybox true",
        "run --rm --cpus -1 busybox true",
        "run --rm -p nonsense busybox true",
        "run --rm -v /a:/b:/c:/d busybox true",
        "run --rm -v relative/path:/b busybox true",
        "run --rm --network no-such-network busybox true",
        "run --rm --user no-such-user busybox true",
        "run --rm --restart sometimes busybox true",
        "run --rm --restart always busybox true",
        "run --rm --name -bad busybox true",
        "run --rm --cap-add NOT_A_CAP busybox true",
        "run --rm --env-file /no/such/file busybox true",
        "run --rm --pull never no-such-image true",
        "run --rm Bad_Reference: true",
        "run --rm --ulimit nofile=x busybox true",
        "run --rm --workdir relative busybox true",
        "run --rm --sysctl kernel.panic=1 busybox true",
        "run --rm --device /dev/no-such-device busybox true",
        "run --rm --network none --ip 10.0.0.1 -p 1:1 --network host busybox true",
    ] {
        world.say(line).one_error(125);
    }
    assert_eq!(world.say("ps -aq").ok(), "");
    world.clean();
}

#[test]
fn rm_leaves_no_process_mount_group_or_folder() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let file = world.path("id");
    let flag = format!(
        "--cidfile {} -v anonymous-is-gone:/named -v /scratch",
        file.display()
    );
    world.sh(&flag, "echo data > /scratch/x; true").ok();
    let id = std::fs::read_to_string(&file).unwrap();
    assert_eq!(id.trim().len(), 64, "the id in full: {id}");
    world.nothing_left(id.trim());
    assert_eq!(
        world.say("volume ls -q").ok(),
        "anonymous-is-gone",
        "anonymous volumes go, named ones stay"
    );
    world.clean();
}

#[test]
fn a_hundred_ends_leave_no_device_behind() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let devices = || crate::world::names(std::path::Path::new("/sys/class/net"));
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(world.say("run -d busybox sleep 100").ok());
    }
    let during = devices()
        .iter()
        .filter(|name| name.starts_with("veth") || name.starts_with("dhow"))
        .count();
    assert!(during >= 5, "each has a device: {:?}", devices());
    let links = |id: &String| world.inspect(id, "{{.State.Pid}}");
    assert!(ids.iter().all(|id| links(id) != "0"));
    let mut args = vec!["rm", "-f"];
    args.extend(ids.iter().map(String::as_str));
    world.dhow(&args).ok();
    for id in &ids {
        world.nothing_left(id);
    }
    world.say("system teardown").ok();
    eventually("no process of this root", || world.processes().is_empty());
    world.clean();
}

#[test]
fn without_rm_the_container_stays_with_its_exit_code() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("run --name once --network none busybox sh -c false")
        .exits(1);
    assert_eq!(
        world.inspect("once", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 1"
    );
    assert!(world.say("ps -a").ok().contains("Exited (1)"));
    assert_eq!(world.say("ps -q").ok(), "", "ps without -a shows what runs");
    world.say("rm once").ok();
    world.say("rm once").one_error(1).says("no such container: once");
}

#[test]
fn who_looks_while_a_container_ends_never_sees_another_code() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .dhow(&[
            "create",
            "--network",
            "none",
            "--name",
            "three",
            "busybox",
            "sh",
            "-c",
            "exit 3",
        ])
        .exits(0);
    for _ in 0..30 {
        world.dhow(&["start", "three"]).exits(0);
        loop {
            match world
                .inspect("three", "{{.State.Status}} {{.State.ExitCode}}")
                .as_str()
            {
                "running 0" => {}
                "exited 3" => break,
                other => panic!("{other}"),
            }
        }
    }
    world.dhow(&["rm", "three"]).exits(0);
    world.clean();
}
