//! `--init`: a first process that reaps, sends signals on, and ends as the program does.

use std::time::{Duration, Instant};

use crate::world::{Ran, World, eventually, program};

impl World {
    /// A shell script as the program behind an init.
    fn behind_init(&self, script: &str) -> Ran {
        self.dhow(&[
            "run",
            "--rm",
            "--init",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            script,
        ])
    }

    /// How many processes of a container ended and wait for somebody who looks after them.
    fn zombies(&self, name: &str) -> String {
        let count = "cat /proc/[0-9]*/status 2>/dev/null | grep -c '^State:.Z'; true";
        self.dhow(&["exec", name, "sh", "-c", count]).ok()
    }
}

#[test]
fn what_nobody_waits_for_is_reaped() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    // A flag that changes nothing in place of none.
    for (flag, left) in [("--init", "0"), ("--quiet", "9")] {
        let args = ["run", "-d", "--name", "some", flag, "--network", "none"];
        let args = args.into_iter().chain(["busybox", "sleep", "1000"]);
        world.dhow(&args.collect::<Vec<_>>()).ok();
        let orphans = "for i in 1 2 3 4 5 6 7 8 9; do (sleep 0.05 &); done";
        world.dhow(&["exec", "some", "sh", "-c", orphans]).ok();
        // Without an init `sleep` is the first process, which waits for nobody.
        eventually(&format!("{flag} leaves {left}"), || world.zombies("some") == left);
        world.say("rm -f some").ok();
    }
}

#[test]
fn it_ends_as_its_program_does() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.behind_init("exit 3").exits(3);
    world.behind_init("kill -KILL $$").exits(137);
    world.behind_init("kill -TERM $$").exits(143);
    world
        .behind_init("test $$ = 2 && cat /proc/1/comm")
        .exits(0)
        .prints("docker-init");
    // What is not there is said as without an init, and no program wrote it.
    let run = |program: &str| world.dhow(&["run", "--rm", "--init", "--network", "none", "busybox", program]);
    run("/no/such").one_error(127).says("no such file");
    run("nosuch").one_error(127).says("executable file not found");
    run("/etc/passwd").one_error(126).says("permission denied");
    world.clean();
}

#[test]
fn signals_reach_the_program() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let script = "trap 'echo usr; exit 7' USR1; trap 'echo rt' 37; trap 'echo child' CHLD
        echo ready; while :; do sleep 0.05; done";
    let args = [
        "run",
        "-d",
        "--name",
        "some",
        "--init",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        script,
    ];
    world.dhow(&args).ok();
    eventually("ready", || world.say("logs some").ok().contains("ready"));
    world.say("kill -s 37 some").ok();
    eventually("rt", || world.say("logs some").ok().contains("rt"));
    world.say("kill -s USR1 some").ok();
    assert_eq!(world.say("wait some").ok(), "7");
    // The kernel gives the first process no signal that it has no handler for: without an init this waits for ten
    // seconds, and kills.
    world
        .say("run -d --name plain --init --network none busybox sleep 1000")
        .ok();
    let begin = Instant::now();
    world.say("stop plain").ok();
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    assert_eq!(
        world.inspect("plain", "{{.State.ExitCode}} {{.HostConfig.Init}}"),
        "143 true"
    );
}

#[test]
fn keys_reach_the_program_once() {
    let Some(world) = World::with_busybox().filter(|_| program("script")) else {
        return;
    };
    let inside =
        "trap 'echo interrupt' INT; echo ready; for i in 1 2 3 4 5 6 7 8; do sleep 0.2; done; echo end";
    let line = format!(
        "{} --root {} run --rm -it --init --network none busybox sh -c \"{inside}\"",
        crate::world::binary().display(),
        world.root().display()
    );
    let mut child = std::process::Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut read = String::new();
    while !read.contains("ready") {
        assert!(
            std::io::BufRead::read_line(&mut output, &mut read).unwrap() > 0,
            "{read}"
        );
    }
    std::io::Write::write_all(&mut input, b"\x03").unwrap();
    std::io::Read::read_to_string(&mut output, &mut read).unwrap();
    drop(input);
    assert_eq!(read.matches("interrupt").count(), 1, "{read}");
    assert!(read.contains("end"), "{read}");
    child.wait().unwrap();
}

#[test]
fn who_ends_the_command_ends_the_container_with_a_terminal_too() {
    let Some(world) = World::with_busybox().filter(|_| program("script")) else {
        return;
    };
    let pid = world.path("pid");
    let line = format!(
        "echo $$ > {}; exec {} --root {} run -it --name some --init --network none busybox sleep 1000",
        pid.display(),
        crate::world::binary().display(),
        world.root().display()
    );
    let mut child = std::process::Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("it runs", || {
        world.say("inspect -f {{.State.Running}} some").stdout.trim() == "true"
    });
    let number: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    let process = rustix::process::Pid::from_raw(number).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    eventually("it ended", || {
        world.inspect("some", "{{.State.Status}}") == "exited"
    });
    assert_eq!(world.inspect("some", "{{.State.ExitCode}}"), "143");
    child.wait().unwrap();
}

#[test]
fn there_is_no_program_of_ours_to_write_over() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    // Bytes of it, whether it can be written, and whether there is a file of it in the container.
    let script = "wc -c < /proc/1/exe; (echo x >> /proc/1/exe) 2>/dev/null && echo written; ls /sbin/docker-init 2>/dev/null; true";
    for flags in ["--init", "--init --privileged", "--init --read-only"] {
        let said = world.sh(&format!("--network none {flags}"), script).ok();
        let bytes: u32 = said.parse().unwrap_or_else(|_| panic!("{flags}: {said}"));
        assert!(bytes < 4096, "{flags}: {said}");
    }
    let binary = std::fs::metadata(crate::world::binary()).unwrap().len();
    assert!(binary > 1 << 20);
}

#[test]
fn exec_health_top_and_restart_are_as_without() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let args = "run -d --name some --init --network none --health-interval 50ms --health-cmd";
    let mut args: Vec<&str> = args.split(' ').collect();
    args.extend([
        "test $(cat /proc/1/comm) = docker-init",
        "busybox",
        "sleep",
        "1000",
    ]);
    world.dhow(&args).ok();
    eventually("healthy", || {
        world.inspect("some", "{{.State.Health.Status}}") == "healthy"
    });
    let top = world.say("top some").ok();
    // A health check may be among them.
    let has = |command: &str| top.lines().any(|line| line.ends_with(command));
    assert!(has(" docker-init -- sleep 1000") && has("   sleep 1000"), "{top}");
    world.say("exec some sh -c true").ok();
    world.say("restart -t 5 some").ok();
    eventually("healthy", || {
        world.inspect("some", "{{.State.Health.Status}}") == "healthy"
    });
    world.say("pause some").ok();
    world.say("unpause some").ok();
    let before = world.inspect("some", "{{.State.Pid}}");
    world.say("kill -s KILL some").ok();
    assert_eq!(world.say("wait some").ok(), "137");
    world.say("start some").ok();
    assert_ne!(world.inspect("some", "{{.State.Pid}}"), before);
    // A normal user in the container.
    let user = world.sh(
        "--init -u 1000 --cap-drop ALL --network none",
        "cat /proc/1/status | grep ^Uid",
    );
    user.exits(0).prints("1000");
    // The host's processes: it reaps as a subreaper there.
    world
        .sh("--init --pid host --network none", "cat /proc/$PPID/comm")
        .exits(0)
        .prints("docker-init");
}

#[test]
fn podmans_name_and_a_program_of_the_host() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let said = world
        .podman("run --name some --init --network none busybox cat /proc/1/cmdline")
        .ok();
    assert_eq!(
        said.replace('\0', " ").trim(),
        "podman-init -- cat /proc/1/cmdline"
    );
    let path = world.podman("inspect --format {{.Path}} some").ok();
    assert_eq!(path, "/run/podman-init");
    let own = world.file("own-init", "#!/bin/sh\necho first $0 $1\nshift\nexec \"$@\"\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&own, mode).unwrap();
    let own = own.display().to_string();
    let run = |flags: &[&str]| {
        let mut args = vec!["run", "--rm", "--network", "none"];
        args.extend(flags);
        args.extend(["busybox", "echo", "second"]);
        world.dhow(&args)
    };
    let said = run(&["--init", "--init-path", &own]).ok();
    assert_eq!(said, "first /sbin/docker-init --\nsecond");
    run(&["--init", "--init-path", "/etc/passwd"])
        .exits(125)
        .says("it is no program");
    run(&["--init-path", &own]).exits(1).says("--init");
}
