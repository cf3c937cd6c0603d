//! Containers in the background: logs, exec, stop, restart, health; and when their monitor is killed.

use crate::world::{World, eventually, wait};

fn status(world: &World, name: &str) -> String {
    world.inspect(name, "{{.State.Status}}")
}

#[test]
fn a_detached_container_is_seen_logged_entered_and_stopped() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let script = "echo started; echo wrong >&2; trap 'echo bye; exit 0' TERM; while :; do sleep 0.1; done";
    let id = world
        .dhow(&["run", "-d", "--name", "web", "busybox", "sh", "-c", script])
        .ok();
    assert_eq!(id.len(), 64);
    let ps = world.say("ps").ok();
    let mut lines = ps.lines();
    let columns: Vec<_> = lines
        .next()
        .unwrap()
        .split("  ")
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect();
    assert_eq!(
        columns,
        [
            "CONTAINER ID",
            "IMAGE",
            "COMMAND",
            "CREATED",
            "STATUS",
            "PORTS",
            "NAMES"
        ]
    );
    let line = lines.next().unwrap();
    assert!(
        line.starts_with(&id[..12]) && line.contains("Up ") && line.ends_with("web"),
        "{ps}"
    );
    eventually("both lines are logged", || {
        world.say("logs web").exits(0).stderr.contains("wrong")
    });
    let logs = world.say("logs web").exits(0);
    assert_eq!(
        (logs.stdout.as_str(), logs.stderr.as_str()),
        ("started\n", "wrong\n")
    );
    assert_eq!(
        world
            .dhow(&["exec", "web", "sh", "-c", "echo $0 in $(hostname)"])
            .ok(),
        format!("sh in {}", &id[..12])
    );
    world.say("stop web").ok();
    assert_eq!(
        world.inspect("web", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 0"
    );
    assert!(world.say("logs --tail 1 web").exits(0).stdout.contains("bye"));
    world.say("exec web true").one_error(1).says("is not running");
    world.say("rm web").ok();
    world.nothing_left(&id);
}

#[test]
fn a_detached_container_keeps_nothing_of_its_caller_open() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let lock = world.file("lock", "");
    let dhow = format!(
        "{} --root {}",
        crate::world::binary().display(),
        world.root().display()
    );
    let script = format!(
        "( flock 9 && {dhow} run -d --network none busybox sleep 100 ) 9>{0} && flock -n {0} echo free",
        lock.display()
    );
    let mut command = std::process::Command::new("bash");
    command.args(["-c", &script]);
    let ran = crate::world::finish(command, Vec::new()).exits(0);
    assert!(ran.stdout.ends_with("free\n"), "{ran:?}");
}

#[test]
fn logs_follow_until_the_end_and_tell_times() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .dhow(&[
            "run",
            "-d",
            "--name",
            "talk",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            "for i in 1 2 3; do echo $i; sleep 0.2; done",
        ])
        .ok();
    assert_eq!(world.say("logs -f talk").ok(), "1\n2\n3");
    assert_eq!(world.say("logs --tail 2 talk").ok(), "2\n3");
    let stamped = world.say("logs -t --tail 1 talk").ok();
    assert!(
        stamped.ends_with(" 3") && stamped.contains('T') && stamped.contains('Z'),
        "{stamped}"
    );
    world
        .say("logs no-such")
        .one_error(1)
        .says("no such container: no-such");
}

#[test]
fn exec_has_its_own_user_folder_environment_and_exit_code() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("run -d --name inn --network none -e FROM=run busybox sleep 100")
        .ok();
    let exec = |flags: &str, script: &str| {
        let mut args = vec!["exec"];
        args.extend(flags.split_whitespace());
        args.extend(["inn", "sh", "-c", script]);
        world.dhow(&args)
    };
    assert_eq!(
        exec("-u ada -w /tmp -e X=y", "id -u; pwd; echo $X $FROM").ok(),
        "1000\n/tmp\ny run"
    );
    exec("", "exit 7").exits(7);
    exec("", "kill -9 $$").exits(137);
    world.say("exec inn nosuch").one_error(127).says("nosuch");
    world.say("exec inn /etc/not-a-program").one_error(126);
    assert_eq!(
        world.feed(&["exec", "-i", "inn", "cat"], "through").ok(),
        "through"
    );
    exec("-d", "sleep 50").exits(0);
    assert!(world.say("top inn").ok().contains("sleep 50"));
    let status = exec("", "grep -E '^(CapInh|CapEff|Seccomp):' /proc/self/status").ok();
    assert!(
        status.contains("CapInh:\t0000000000000000") && status.contains("00000000a80425fb"),
        "{status}"
    );
    assert!(status.contains("Seccomp:\t2"), "{status}");
}

#[test]
fn stop_kills_after_the_time_and_uses_the_signal_that_was_asked_for() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let stubborn = "trap '' TERM; while :; do sleep 0.1; done";
    world
        .dhow(&[
            "run",
            "-d",
            "--name",
            "stubborn",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            stubborn,
        ])
        .ok();
    world.say("stop -t 1 stubborn").ok();
    assert_eq!(world.inspect("stubborn", "{{.State.ExitCode}}"), "137");
    let picky = "trap 'exit 4' USR1; echo ready; while :; do sleep 0.1; done";
    world
        .dhow(&[
            "run",
            "-d",
            "--name",
            "picky",
            "--network",
            "none",
            "--stop-signal",
            "SIGUSR1",
            "busybox",
            "sh",
            "-c",
            picky,
        ])
        .ok();
    eventually("the trap is set", || world.say("logs picky").ok() == "ready");
    world.say("stop picky").ok();
    assert_eq!(world.inspect("picky", "{{.State.ExitCode}}"), "4");
    world.say("stop picky").ok();
    world.say("kill picky").one_error(1).says("is not running");
    world.say("kill -s NOSUCH stubborn").exits(1);
}

#[test]
fn a_stopped_container_starts_again_with_its_files() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .dhow(&[
            "create",
            "--name",
            "again",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            "echo x >> /count; wc -l < /count",
        ])
        .ok();
    assert_eq!(status(&world, "again"), "created");
    assert_eq!(world.say("start -a again").ok(), "1");
    assert_eq!(world.say("start -a again").ok(), "2");
    world.say("restart again").ok();
    assert_eq!(world.say("wait again").ok(), "0");
    assert_eq!(world.say("logs again").ok(), "1\n2\n3");
}

#[test]
fn a_restart_policy_starts_it_again_as_often_as_it_says() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .dhow(&[
            "run",
            "-d",
            "--name",
            "twice",
            "--network",
            "none",
            "--restart",
            "on-failure:2",
            "busybox",
            "sh",
            "-c",
            "echo try; exit 3",
        ])
        .ok();
    eventually("it gave up", || {
        world.inspect("twice", "{{.State.Status}} {{.RestartCount}}") == "exited 2"
    });
    assert_eq!(world.say("logs twice").ok(), "try\ntry\ntry");
    assert_eq!(world.inspect("twice", "{{.State.ExitCode}}"), "3");
    world
        .say("run -d --name forever --network none --restart always busybox sleep 0.2")
        .ok();
    eventually("it was started again", || {
        world
            .inspect("forever", "{{.RestartCount}}")
            .parse::<u32>()
            .unwrap()
            >= 2
    });
    world.say("stop forever").ok();
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(status(&world, "forever"), "exited", "a stopped one stays stopped");
    world
        .say("run -d --name fine --network none --restart on-failure busybox true")
        .ok();
    eventually("it ended", || {
        world.inspect("fine", "{{.State.Status}} {{.RestartCount}}") == "exited 0"
    });
}

#[test]
fn health_goes_from_starting_to_healthy_to_unhealthy() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let flags = [
        "run",
        "-d",
        "--name",
        "hale",
        "--network",
        "none",
        "--health-interval",
        "200ms",
        "--health-retries",
        "2",
    ];
    let mut args = flags.to_vec();
    args.extend([
        "--health-cmd",
        "test -e /ok",
        "busybox",
        "sh",
        "-c",
        "touch /ok; sleep 100",
    ]);
    world.dhow(&args).ok();
    let health = || world.inspect("hale", "{{.State.Health.Status}}");
    eventually("healthy", || health() == "healthy");
    assert!(world.say("ps").ok().contains("(healthy)"));
    world.say("exec hale rm /ok").ok();
    eventually("unhealthy", || health() == "unhealthy");
    assert_eq!(
        world.say("ps --filter health=unhealthy --format {{.Names}}").ok(),
        "hale"
    );
    assert_eq!(
        status(&world, "hale"),
        "running",
        "an unhealthy container is not killed"
    );
}

#[test]
fn pause_freezes_and_unpause_lets_go() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("run -d --name ice --network none busybox sleep 100")
        .ok();
    world.say("pause ice").ok();
    assert_eq!(status(&world, "ice"), "paused");
    assert!(world.say("ps").ok().contains("(Paused)"));
    world.say("exec ice true").one_error(1).says("paused");
    world.say("unpause ice").ok();
    assert_eq!(status(&world, "ice"), "running");
    world.say("pause ice").ok();
    world.say("rm -f ice").ok();
}

#[test]
fn a_running_container_is_removed_only_by_force() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let id = world
        .say("run -d --name busy --network none busybox sleep 100")
        .ok();
    world.say("rm busy").one_error(1).says("running");
    assert_eq!(status(&world, "busy"), "running");
    assert_eq!(world.say("rm -f busy").ok(), "busy");
    world.nothing_left(&id);
    world.say("rm -f busy").exits(0);
}

#[test]
fn a_name_in_use_is_refused_with_dockers_words() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let id = world.say("create --name taken busybox true").ok();
    let ran = world.say("run -d --name taken busybox true").one_error(125);
    ran.says("name \"/taken\" is already in use by container")
        .says(&id);
    assert_eq!(
        world.say("ps -aq --no-trunc").ok(),
        id,
        "nothing is left of the refused one"
    );
    world.say("rename taken free").ok();
    world.say("create --name taken busybox true").ok();
    world.say("rename free taken").one_error(1).says("already in use");
    world.clean();
}

#[test]
fn a_killed_monitor_is_noticed_and_the_rest_can_be_stopped_and_removed() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for deed in ["rm -f", "stop -t 1", "system check --repair", "kill"] {
        let id = world.say("run -d --name orphan busybox sleep 1000").ok();
        let init: u32 = world.inspect("orphan", "{{.State.Pid}}").parse().unwrap();
        let monitor = parent(init);
        assert!(monitor > 1, "the container's parent is its monitor");
        kill(monitor);
        eventually("the monitor is gone", || {
            !std::path::Path::new(&format!("/proc/{monitor}")).exists()
        });
        world.say("ps -a").exits(0).prints("orphan");
        world.inspect("orphan", "{{.Name}}");
        let line = if deed.starts_with("system") {
            deed.to_owned()
        } else {
            format!("{deed} orphan")
        };
        world.dhow(&line.split(' ').collect::<Vec<_>>()).exits(0);
        if deed != "rm -f" {
            eventually("it is not running", || status(&world, "orphan") != "running");
            world.say("rm -f orphan").exits(0);
        }
        world.clean_or_healed();
        world.nothing_left(&id);
        eventually(&format!("it is dead after {deed}"), || dead(init));
        assert_eq!(world.say("run --rm --name orphan busybox echo fine").ok(), "fine");
    }
}

#[test]
fn a_container_whose_monitor_was_killed_gets_another_that_goes_on_where_it_was() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("network create sea").ok();
    world
        .say("run -d --name peer --network sea busybox sleep 1000")
        .ok();
    let script = "trap 'echo bye; exit 7' TERM; while read line; do echo got $line; done < /pipe & while :; do sleep 0.1; done";
    let orphan = |name: &str| {
        let made = format!("mkfifo /pipe; exec 3<>/pipe; {script}");
        world
            .dhow(&[
                "run",
                "-d",
                "--name",
                name,
                "--network",
                "sea",
                "busybox",
                "sh",
                "-c",
                &made,
            ])
            .ok();
        let init: u32 = world.inspect(name, "{{.State.Pid}}").parse().unwrap();
        let monitor = parent(init);
        kill(monitor);
        eventually("the monitor is gone", || {
            !std::path::Path::new(&format!("/proc/{monitor}")).exists()
        });
        init
    };
    let init = orphan("one");
    let before = world.inspect("one", "{{.State.StartedAt}}");
    assert_eq!(world.say("start one").ok(), "one");
    // The same program, as if nothing had been.
    assert_eq!(world.inspect("one", "{{.State.Pid}}"), init.to_string());
    assert_eq!(world.inspect("one", "{{.State.StartedAt}}"), before);
    assert_eq!(status(&world, "one"), "running");
    world.say("start one").ok();
    // Its output is logged again, and it finds names.
    world.dhow(&["exec", "one", "sh", "-c", "echo word > /pipe"]).ok();
    eventually("the log goes on", || {
        world.say("logs one").stdout.contains("got word")
    });
    world.say("exec one nslookup peer").ok();
    world.say("stop one").ok();
    assert_eq!(status(&world, "one"), "exited");
    let code = world.inspect("one", "{{.State.ExitCode}}");
    // Kernels before 6.15 tell an exit code to the parent alone.
    assert!(code == "7" || code == "255", "{code}");
    assert!(world.say("logs one").stdout.contains("bye"));
    world.say("start one").ok();
    world.say("rm -f one").ok();
    // What comes back with the machine takes care of those that never went.
    let init = orphan("two");
    assert_eq!(world.say("boot").ok(), "two");
    assert_eq!(world.say("boot").ok(), "", "it has a monitor now");
    assert!(world.inspect("two", "{{.State.Pid}}") == init.to_string());
    kill(init);
    eventually("its end is noticed", || status(&world, "two") == "exited");
    world.say("rm two").ok();
    world.say("rm -f peer").ok();
    world.say("network rm sea").ok();
    world.clean();
}

#[test]
fn a_killed_command_leaves_a_foreground_container_that_can_be_removed() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let mut child = world.spawn(&[
        "run",
        "--name",
        "fg",
        "--network",
        "none",
        "busybox",
        "sleep",
        "1000",
    ]);
    eventually("it runs", || world.say("ps -q --filter name=fg").stdout.len() > 5);
    drop(child.kill());
    assert_eq!(wait(&mut child, crate::world::PATIENCE), Some(137));
    assert_eq!(
        status(&world, "fg"),
        "running",
        "the container does not need the command"
    );
    world.say("rm -f fg").ok();
    world.clean();
}

#[test]
fn what_a_container_changed_is_listed_exported_and_committed() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let script = "echo mark > /mark; rm /data/seed; chmod 600 /etc/group";
    world
        .dhow(&[
            "run",
            "--name",
            "one",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            script,
        ])
        .ok();
    let diff = world.say("diff one").ok();
    for line in ["A /mark", "D /data/seed", "C /etc/group", "C /etc"] {
        assert!(diff.lines().any(|found| found == line), "{line}: {diff}");
    }
    let tar = world.say("export one").exits(0).bytes;
    let names: Vec<String> = tar::Archive::new(&tar[..])
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .map(|name| name.trim_start_matches("./").to_owned())
        .collect();
    assert!(
        names.contains(&"mark".to_owned()) && !names.contains(&"data/seed".to_owned()),
        "{names:?}"
    );
    let id = world
        .dhow(&[
            "commit",
            "-m",
            "marked",
            "-c",
            "CMD [\"cat\", \"/mark\"]",
            "one",
            "marked:1",
        ])
        .ok();
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(world.say("run --rm --network none marked:1").ok(), "mark");
    world
        .say("run --rm --network none marked:1 test -e /data/seed")
        .exits(1);
    assert_eq!(world.inspect("marked:1", "{{len .RootFS.Layers}}"), "2");
    assert!(world.say("history marked:1").ok().contains("marked"));
}

pub(crate) fn parent(pid: u32) -> u32 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

/// Gone, or dead and not yet buried by whoever inherited it.
fn dead(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |text| text.contains(") Z "))
}

pub(crate) fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn limits_and_the_restart_policy_of_a_running_container_change() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("run -d --name box --memory 64m --network none busybox sleep 1000")
        .ok();
    let changed = world
        .say("update --memory 128m --memory-swap 256m --pids-limit 50 --cpus 0.5 --restart always box")
        .ok();
    assert_eq!(changed, "box");
    assert_eq!(
        world.inspect("box", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}"),
        "134217728 500000000"
    );
    assert_eq!(
        world.inspect("box", "{{.HostConfig.RestartPolicy.Name}}"),
        "always"
    );
    // In force at once: the fork that is one too many fails.
    let forks = "for i in $(seq 60); do sleep 5 & done 2>/dev/null; true";
    let ran = world.dhow(&["exec", "box", "sh", "-c", forks]);
    assert!(ran.code != 0 || ran.stderr.contains("fork"), "{ran:?}");
    // The new policy holds for a program that ends now.
    let first = world.inspect("box", "{{.State.Pid}}");
    world.dhow(&["exec", "box", "kill", "-9", "1"]).exits_any();
    drop(std::process::Command::new("kill").args(["-9", &first]).status());
    crate::world::eventually("it is started again", || {
        let now = world.inspect("box", "{{.State.Running}} {{.State.Pid}}");
        now.starts_with("true ") && !now.ends_with(&format!(" {first}"))
    });
    assert_eq!(world.inspect("box", "{{.HostConfig.Memory}}"), "134217728");
    world
        .say("update box")
        .one_error(1)
        .says("must provide one or more flags");
    world.say("update --memory 1m box").one_error(1).says("6 MiB");
    world
        .say("update --memory 64m nobody")
        .one_error(1)
        .says("No such container: nobody");
    world
        .say("update --restart sometimes box")
        .one_error(125)
        .says("restart policy");
    assert_eq!(world.inspect("box", "{{.HostConfig.Memory}}"), "134217728");
    world.say("rm -f box").ok();
    world.clean();
}

/// As docker's: ten programs that ignore their stop signal end together, not one after the other.
#[test]
fn several_containers_are_stopped_and_removed_at_once_and_told_in_order() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let names: Vec<String> = (0..10).map(|number| format!("deaf{number}")).collect();
    for name in &names {
        world
            .dhow(&[
                "run",
                "-d",
                "--name",
                name,
                "--network",
                "none",
                "busybox",
                "sleep",
                "600",
            ])
            .exits(0);
    }
    let begun = std::time::Instant::now();
    let stopped = world.say(&format!("stop -t 2 {} nobody", names.join(" ")));
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(12),
        "{:?}",
        begun.elapsed()
    );
    let stopped = stopped.exits(1).says("No such container: nobody");
    assert_eq!(stopped.stdout.lines().collect::<Vec<_>>(), names);
    let removed = world.say(&format!("rm {}", names.join(" "))).ok();
    assert_eq!(removed.lines().collect::<Vec<_>>(), names);
}

#[test]
fn a_start_leaves_what_is_between_two_runs_alone() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("run -d --name again --network none --restart always busybox sleep 0.1")
        .ok();
    let begun = std::time::Instant::now();
    while begun.elapsed().as_secs() < 3 {
        world.say("start again").ok();
    }
    world.say("rm --force again").ok();
}
