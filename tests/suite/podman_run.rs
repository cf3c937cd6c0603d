//! What podman's `run` and `create` take besides docker's flags, and what they do without being asked.

use std::os::unix::process::CommandExt as _;
use std::time::Instant;

use crate::world::{World, eventually, finish};

const RUN: &str = "run --rm --network none";

#[test]
fn a_run_that_takes_too_long_is_ended_with_255() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let begun = Instant::now();
    world
        .podman("run --network none --name slow --timeout 1 busybox sleep 60")
        .exits(255);
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    assert_eq!(
        world.podman("inspect --format {{.State.ExitCode}} slow").ok(),
        "-1"
    );
    // What ends in time keeps its own exit code.
    world
        .podman(&format!("{RUN} --timeout 60 busybox false"))
        .exits(1);
}

#[test]
fn a_time_zone_that_the_image_has_is_a_link_to_it() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    if !std::fs::exists("/usr/share/zoneinfo/Europe/Berlin").unwrap() {
        eprintln!("skipped: it needs the time zones of the host (package tzdata)");
        return;
    }
    let fill = "mkdir -p /usr/share/zoneinfo/Europe; echo x >/usr/share/zoneinfo/Europe/Berlin; echo old >/etc/localtime";
    world
        .podman_of(&[
            "run",
            "--network",
            "none",
            "--name",
            "made",
            "busybox",
            "sh",
            "-c",
            fill,
        ])
        .ok();
    world.podman("commit -q made zoned").ok();
    for users in ["", "--uidmap 0:200000:1000 "] {
        let link = format!("{RUN} {users}--tz Europe/Berlin zoned readlink /etc/localtime");
        assert_eq!(
            world.podman(&link).ok().trim(),
            "../usr/share/zoneinfo/Europe/Berlin"
        );
    }
    // Without it, or where nothing can be written, it is the host's file.
    for (flags, image) in [("", "busybox"), ("--read-only ", "zoned")] {
        let kept = format!("{RUN} {flags}--tz Europe/Berlin {image} head -c 4 /etc/localtime");
        assert_eq!(world.podman(&kept).ok(), "TZif");
    }
    world.podman("rm made").ok();
}

#[test]
fn hooks_of_the_host_run_when_a_container_begins_and_ends() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let folder = world.path("hooks");
    let log = world.path("log");
    let hook = |name: &str, script: &str, when: &str, stages: &str| {
        let program = world.file(&format!("hooks/{name}.sh"), format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let text = format!(
            r#"{{"version": "1.0.0", "hook": {{"path": "{}", "args": ["{name}", "word"]}}, "when": {when}, "stages": [{stages}]}}"#,
            program.display()
        );
        world.file(&format!("hooks/{name}.json"), text)
    };
    let told = format!("cat >>{0}; echo >>{0}", log.display());
    hook(
        "all",
        &told,
        r#"{"always": true}"#,
        r#""prestart", "poststart", "poststop""#,
    );
    hook("other", &told, r#"{"commands": ["^/no/such$"]}"#, r#""prestart""#);
    let line = format!(
        "run --name con --network none --restart on-failure:1 --hooks-dir {} busybox false",
        folder.display()
    );
    world.podman(&line).exits(1);
    let lines = || -> Vec<String> {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let states = text.lines().filter(|line| !line.is_empty());
        states
            .map(|line| {
                let state: serde_json::Value = serde_json::from_str(line).unwrap();
                let ended = state["pid"].as_i64() == Some(0);
                assert_eq!(ended, state["status"] == "stopped", "{line}");
                state["status"].as_str().unwrap().to_owned()
            })
            .collect()
    };
    // Twice: it was started again with the same hooks.
    eventually("the hooks have run", || lines().len() == 6);
    assert_eq!(
        lines(),
        ["created", "running", "stopped", "created", "running", "stopped"]
    );
    world.podman("rm -f -t 0 con").ok();
    // One that fails keeps the program from running.
    let bad = hook(
        "bad",
        "echo no such luck >&2; exit 3",
        r#"{"always": true}"#,
        r#""createRuntime""#,
    );
    let line = format!(
        "run --rm --network none --hooks-dir {} busybox echo ran",
        folder.display()
    );
    world
        .podman(&line)
        .exits(126)
        .silent()
        .says("error running createRuntime hook #0")
        .says("no such luck");
    for (text, words) in [
        (r#"{"version": "1.0.0"}"#, "it is no hook"),
        (
            r#"{"version": "0.1.0", "hook": {"path": "/x"}}"#,
            "version \"0.1.0\" is not supported",
        ),
        (
            r#"{"version": "1.0.0", "hook": {"path": "/x"}, "when": {"always": true}, "stages": ["later"]}"#,
            "there is no stage \"later\"",
        ),
    ] {
        std::fs::write(&bad, text).unwrap();
        world.podman(&line).silent().says(words);
    }
}

#[test]
fn a_hook_may_be_a_program_of_the_image_that_runs_in_the_container() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let text = r#"{"version": "1.0.0", "hook": {"path": "/bin/sh", "args": ["sh", "-c", "echo inside > /made"]},
        "when": {"always": true}, "stages": ["startContainer"]}"#;
    let inside = world.file("inside/one.json", text);
    let line = format!(
        "run --rm --network none --hooks-dir {} busybox cat /made",
        inside.parent().unwrap().display()
    );
    assert_eq!(world.podman(&line).ok(), "inside");
}

#[test]
fn the_image_goes_with_the_container_unless_another_has_it() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.podman("create --name other busybox true").ok();
    world
        .podman("run --rmi --network none busybox true")
        .says("image is in use by a container")
        .ok();
    world.podman("image exists busybox").exits(0);
    world.podman("rm other").ok();
    world
        .podman("run --rmi --rm=false busybox true")
        .exits(125)
        .says("the --rmi option does not work without --rm");
    world
        .podman("run -d --rmi --network none --name last busybox sleep 100")
        .ok();
    assert_eq!(
        world
            .podman("inspect --format {{.HostConfig.AutoRemove}},{{.HostConfig.AutoRemoveImage}} last")
            .ok(),
        "true,true"
    );
    world.podman("stop -t 0 last").ok();
    world.podman("image exists busybox").exits(1);
}

#[test]
fn files_get_the_numbers_of_program_and_monitor_and_the_id_goes_with_the_container() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let file = |name: &str| world.path(name).display().to_string();
    let (pid, monitor, id) = (file("pid"), file("monitor"), file("id"));
    world
        .podman(&format!(
            "run -d --network none --name here --pidfile {pid} --conmon-pidfile {monitor} --cidfile {id} busybox sleep 100"
        ))
        .ok();
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    let told = world
        .podman("inspect --format {{.State.Pid}},{{.State.ConmonPid}},{{.Id}} here")
        .ok();
    assert_eq!(told, format!("{},{},{}", read(&pid), read(&monitor), read(&id)));
    world.podman("rm -f -t 0 here").ok();
    assert!(!std::path::Path::new(&id).exists());
}

#[test]
fn only_the_streams_that_are_named_are_shown() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let both = |streams: &str| {
        let mut words: Vec<&str> = RUN.split(' ').chain(streams.split(' ')).collect();
        words.extend(["busybox", "sh", "-c", "echo out; echo err >&2"]);
        world.podman_of(&words)
    };
    let ran = both("-a stdout");
    assert_eq!((ran.stdout.trim(), ran.stderr.trim()), ("out", ""));
    let ran = both("--attach STDERR --detach-keys=");
    assert_eq!((ran.stdout.trim(), ran.stderr.trim()), ("", "err"));
    // Nothing is shown, so the id is.
    assert_eq!(both("-a stdin").stdout.trim().len(), 64);
    world
        .podman("run -d -a stdout busybox true")
        .exits(125)
        .says("--attach and --detach");
    world
        .podman("run --detach-keys ctrl-1 busybox true")
        .exits(125)
        .says("detach keys");
}

#[test]
fn the_environment_can_be_bare_and_taken_by_the_beginning_of_names() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let bare = world
        .podman(&format!("{RUN} --unsetenv-all --env A=1 busybox env"))
        .ok();
    assert!(bare.contains("A=1"), "{bare}");
    for name in ["container=", "TERM="] {
        assert!(!bare.contains(name), "{bare}");
    }
    let mut words: Vec<&str> = RUN.split(' ').collect();
    words.extend(["-e", "DHOW_TEST_*", "busybox", "env"]);
    let mut command = world.command(&words);
    command
        .arg0("podman")
        .env("DHOW_TEST_ONE", "1")
        .env("DHOW_TEST_TWO", "2");
    let ran = finish(command, Vec::new()).ok();
    assert!(
        ran.contains("DHOW_TEST_ONE=1") && ran.contains("DHOW_TEST_TWO=2"),
        "{ran}"
    );
}

#[test]
fn the_umask_is_that_of_the_flag_and_of_exec_too() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    assert_eq!(world.podman(&format!("{RUN} busybox sh -c umask")).ok(), "0022");
    world
        .podman("run -d --network none --umask 0724 --name masked busybox sleep 100")
        .ok();
    assert_eq!(world.podman("exec masked sh -c umask").ok(), "0724");
    world
        .podman("run --umask 0888 busybox true")
        .exits(125)
        .says("octal");
}

#[test]
fn a_program_finds_out_where_it_is() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for more in ["", "--tmpfs /run", "--read-only", "--systemd always"] {
        let size = world
            .podman(&format!("{RUN} {more} busybox stat -c %s /run/.containerenv"))
            .ok();
        assert_eq!(size, "0", "{more}");
    }
    let told = world
        .podman(&format!(
            "{RUN} --privileged --name me busybox cat /run/.containerenv"
        ))
        .ok();
    assert!(
        told.contains("name=\"me\"") && told.contains("rootless=0"),
        "{told}"
    );
    // With docker's words nobody puts a file there.
    world
        .say(&format!("{RUN} busybox test -e /run/.containerenv"))
        .exits(1);
}

#[test]
fn a_working_directory_that_a_person_names_must_be_there() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .podman(&format!("{RUN} --workdir /not/there busybox pwd"))
        .exits(126)
        .says("workdir \"/not/there\" does not exist on container");
    let folder = world.path("data");
    std::fs::create_dir(&folder).unwrap();
    let mount = format!("-v {}:/mounted/below", folder.display());
    for place in ["/mounted/below", "/mounted"] {
        let there = world
            .podman(&format!("{RUN} {mount} --workdir {place} busybox pwd"))
            .ok();
        assert_eq!(there, place);
    }
    // Docker makes it.
    assert_eq!(
        world.say(&format!("{RUN} --workdir /not/there busybox pwd")).ok(),
        "/not/there"
    );
}

#[test]
fn a_read_only_root_has_memory_where_programs_write() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let touch = |flags: &str, path: &str| {
        world
            .podman(&format!("{RUN} --read-only {flags} busybox touch {path}"))
            .code
    };
    for path in ["/tmp/a", "/var/tmp/b", "/run/c", "/dev/d", "/dev/shm/e"] {
        assert_eq!(touch("", path), 0, "{path}");
        assert_eq!(touch("--read-only-tmpfs=false", path), 1, "{path}");
    }
    assert_eq!(touch("", "/etc/f"), 1);
    // Docker's has none.
    world
        .say(&format!("{RUN} --read-only busybox touch /tmp/a"))
        .exits(1);
}

#[test]
fn a_systemd_has_its_memory_and_its_signal() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let made = world.podman("create --network none --name init --systemd always busybox sleep 1");
    // Also where the host's control groups are too old for it: podman's clients take every line for an answer.
    assert_eq!(made.stderr, "");
    made.ok();
    let told = world.podman("inspect --format {{.Config.StopSignal}} init").ok();
    assert_eq!(told, "SIGRTMIN+3");
    let mounts = world
        .podman(&format!(
            "{RUN} --systemd=always busybox cat /proc/self/mountinfo"
        ))
        .ok();
    for place in ["/run", "/run/lock", "/tmp", "/var/log/journal"] {
        assert!(mounts.contains(&format!(" {place} rw")), "{place}: {mounts}");
    }
    world
        .podman("create --network none --name plain busybox sleep 1")
        .ok();
    let told = world.podman("inspect --format {{.Config.StopSignal}} plain").ok();
    assert_eq!(told, "SIGTERM");
}

#[test]
fn a_systemd_is_known_by_its_name_whoever_asks_and_gets_an_id_of_its_own() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let signal = |more: &str, program: &str| {
        let id = world
            .say(&format!("create --network none {more} busybox {program}"))
            .ok();
        world
            .say(&format!("inspect --format {{{{.Config.StopSignal}}}} {id}"))
            .ok()
    };
    assert_eq!(signal("", "/sbin/init"), "SIGRTMIN+3");
    assert_eq!(signal("", "/lib/systemd/systemd"), "SIGRTMIN+3");
    // Not the first process, or not wanted, or another program.
    assert_ne!(signal("--init", "/sbin/init"), "SIGRTMIN+3");
    assert_ne!(signal("--systemd=false", "/sbin/init"), "SIGRTMIN+3");
    assert_ne!(signal("", "/sbin/initial"), "SIGRTMIN+3");
    // What its machine id is made of ("The Container Interface"): 32 digits, those of the container's own id.
    let run = |more: &str| {
        world
            .say(&format!("{RUN} --systemd=always {more} busybox env"))
            .ok()
    };
    let id = |seen: &str| {
        seen.lines()
            .find_map(|line| line.strip_prefix("container_uuid=").map(str::to_owned))
    };
    let (first, second) = (run(""), run(""));
    assert!(first.lines().any(|line| line == "container=oci"), "{first}");
    let (first, second) = (id(&first).expect("an id"), id(&second).expect("an id"));
    assert!(
        first.len() == 32 && first.bytes().all(|digit| digit.is_ascii_hexdigit()),
        "{first}"
    );
    assert_ne!(first, second);
    assert_eq!(id(&run("-e container_uuid=mine")).as_deref(), Some("mine"));
    assert_eq!(id(&world.say(&format!("{RUN} busybox env")).ok()), None);
}

#[test]
fn a_privileged_container_has_the_hosts_devices_and_a_systemd_no_virtual_terminals() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let count = |more: &str| {
        let line = format!("{RUN} --privileged {more} busybox find /dev -maxdepth 1 -name tty[0-9]*");
        world.podman(&line).ok().lines().count()
    };
    let host = std::fs::read_dir("/dev").unwrap().flatten().filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.strip_prefix("tty")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    assert_eq!(count(""), host.count());
    assert_eq!(count("--systemd always"), 0);
}

#[test]
fn the_first_check_comes_before_the_usual_ones_and_a_folder_gets_the_results() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let folder = world.path("checks");
    std::fs::create_dir(&folder).unwrap();
    let start = format!(
        "run -d --network none --name checked --health-cmd true --health-interval 1s --health-startup-cmd [\"test\",\"-e\",\"/ready\"] \
         --health-startup-interval 1s --health-max-log-count 2 --health-log-destination {} busybox sleep 100",
        folder.display()
    );
    let id = world.podman(&start).ok();
    let status = || {
        world
            .podman("inspect --format {{.State.Health.Status}} checked")
            .ok()
    };
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(status(), "starting");
    world.podman("exec checked touch /ready").ok();
    eventually("the usual checks have begun", || status() == "healthy");
    let file = folder.join(format!("{id}-healthcheck.log"));
    let told = std::fs::read_to_string(file).unwrap();
    assert_eq!(told.matches("ExitCode").count(), 2, "{told}");
    world
        .podman("create --health-log-destination /not/there --health-cmd true busybox true")
        .exits(125)
        .says("HealthCheck Log");
}

#[test]
fn podmans_exec_has_the_terminal_and_the_groups_of_its_container() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .podman("run -d -t --network none --group-add 7,8 --name tty busybox sleep 1000")
        .ok();
    let env = world.podman("exec tty env").ok();
    assert!(env.contains("TERM=xterm"), "{env}");
    assert_eq!(world.podman("exec --user 5:5 tty id -G").ok(), "5 7 8");
    // Docker's groups do not follow another user.
    assert_eq!(world.say("exec --user 5:5 tty id -G").ok(), "5");
    world
        .podman("exec tty")
        .exits(125)
        .says("must provide a non-empty command");
    world.podman("exec -d tty /nothing").exits(125);
    world.podman("exec tty /nothing").exits(127);
}

#[test]
fn a_person_who_ends_a_container_is_written_down() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let by_person = || world.podman("inspect --format {{.State.StoppedByUser}} one").ok();
    world
        .podman("run -d --network none --name one busybox sleep 1000")
        .ok();
    assert_eq!(by_person(), "false");
    world.podman("kill one").ok();
    assert_eq!(by_person(), "true");
    world.podman("start one").ok();
    crate::world::eventually("a new run is nobody's end", || by_person() == "false");
    for (signal, said) in [
        ("0", "invalid signal: 0"),
        ("-BAD", "invalid signal: BAD"),
        ("99", "valid signals are 1 through 64"),
    ] {
        world
            .podman(&format!("kill -s {signal} one"))
            .exits(125)
            .says(said);
        world
            .podman(&format!("pod kill -s {signal} none"))
            .exits(125)
            .says(said);
    }
}

#[test]
fn containers_conf_stands_before_the_flags_of_the_person() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let conf = world.file(
        "containers.conf",
        "[containers]\nenv = [\"ONE=1\", \"TWO=2\"]\nread_only = true\ndefault_ulimits = [\"nofile=77:77\"]\n\
         default_capabilities = [\"CHOWN\", \"KILL\"]\noom_score_adj = 5\n",
    );
    let with = |name: &str, flags: &str| {
        let line = format!("{RUN} {flags} busybox");
        let mut words: Vec<&str> = line.split_whitespace().collect();
        words.extend([
            "sh",
            "-c",
            "echo $ONE $TWO $(ulimit -n) $(cat /proc/self/oom_score_adj) $(grep CapBnd /proc/self/status); touch /x",
        ]);
        let mut command = world.command(&words);
        command.arg0(name).env("CONTAINERS_CONF", &conf);
        finish(command, Vec::new())
    };
    let ran = with("podman", "");
    assert_eq!(
        (ran.stdout.trim(), ran.code),
        ("1 2 77 5 CapBnd: 0000000000000021", 1)
    );
    let ran = with(
        "podman",
        "-e TWO=3 --ulimit nofile=78 --read-only=false --oom-score-adj 6 --cap-drop KILL",
    );
    assert_eq!(
        (ran.stdout.trim(), ran.code),
        ("1 3 78 6 CapBnd: 0000000000000001", 0)
    );
    // Docker's words know no such file.
    assert_eq!(with("docker", "").code, 0);
}

#[test]
fn podmans_top_has_columns_by_name_and_the_ids_of_the_container() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .podman("run -d --network none --name one busybox sleep 1000")
        .ok();
    let told = world.podman("top one").ok();
    let mut lines = told
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let titles = lines.next().unwrap();
    assert_eq!(
        titles,
        ["USER", "PID", "PPID", "%CPU", "ELAPSED", "TTY", "TIME", "COMMAND"]
    );
    let first = lines.next().unwrap();
    assert_eq!(
        (first[0], first[1], first[2], first[7]),
        ("root", "1", "0", "sleep")
    );
    assert_eq!(world.podman("top one -eo pid,comm").ok().lines().count(), 2);
    world
        .podman("top one nonsense")
        .exits(125)
        .says("unknown descriptor");
}

#[test]
fn a_folder_of_the_host_can_be_the_root() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let folder = world.path("root");
    std::fs::create_dir_all(folder.join("bin")).unwrap();
    let tar = crate::samples::busybox_tar();
    let file = world.file("busybox.tar", tar);
    let unpacked = std::process::Command::new("tar")
        .arg("-C")
        .arg(&folder)
        .arg("-xf")
        .arg(&file)
        .status();
    assert!(unpacked.unwrap().success());
    let path = folder.display();
    assert_eq!(
        world
            .say(&format!("{RUN} --rootfs {path}:O busybox touch /word"))
            .code,
        0
    );
    assert!(!folder.join("word").exists());
    world
        .say(&format!("{RUN} --rootfs {path} busybox touch /word"))
        .ok();
    assert!(folder.join("word").exists());
    world
        .say(&format!("{RUN} --rootfs /not/there busybox true"))
        .exits(125)
        .says("no folder of this host");
    assert_eq!(world.say("images -q").ok().lines().count(), 1);
}

#[test]
fn mtab_is_made_where_the_image_has_none() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .podman("run --network none --name made busybox mkdir -p /etc")
        .ok();
    world.podman("commit -q made etc").ok();
    assert_eq!(
        world.podman(&format!("{RUN} etc readlink /etc/mtab")).ok(),
        "/proc/mounts"
    );
}

#[test]
fn descriptors_are_handed_over_when_they_are_named_and_no_others() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let word = world.file("word", "here\n").display().to_string();
    let sh = |flags: &str, script: &str, redirect: &str| {
        let line = format!(
            "exec {} --root {} run --rm --network none {flags} busybox sh -c '{script}' {redirect}",
            crate::world::binary().display(),
            world.root().display()
        );
        std::process::Command::new("sh")
            .args(["-c", &line])
            .output()
            .unwrap()
    };
    let redirect = format!("3</dev/null 4<{word} 7<{word} 9<{word}");
    let out = sh(
        "--preserve-fds 2",
        "cat <&4; test -e /proc/self/fd/9 || echo no",
        &redirect,
    );
    assert_eq!(String::from_utf8_lossy(&out.stdout), "here\nno\n", "{out:?}");
    let out = sh(
        "--preserve-fd 7,9",
        "cat <&7; cat <&9 >/dev/null; test -e /proc/self/fd/4 || echo no",
        &redirect,
    );
    assert_eq!(String::from_utf8_lossy(&out.stdout), "here\nno\n", "{out:?}");
    let out = sh("--preserve-fds 8", "true", &redirect);
    assert_eq!(out.status.code(), Some(125));
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("file descriptor 5 is not available"),
        "{out:?}"
    );
}

#[test]
fn an_archive_says_its_form_and_is_loaded_from_a_url() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for form in ["docker-archive", "oci-archive"] {
        let file = world.path(form).display().to_string();
        world
            .podman(&format!("save -q --format {form} -o {file} busybox"))
            .ok();
        world
            .podman(&format!("load -i {file}"))
            .prints("Loaded image")
            .ok();
    }
    world.podman("save --format zip busybox").exits(125);
    world.podman("tag busybox second").ok();
    world
        .podman("save -o x busybox second")
        .exits(125)
        .says("--multi-image-archive");
    world
        .podman("load -i http://127.0.0.1:1/x.tar")
        .exits(125)
        .says("127.0.0.1");
}

#[test]
fn podmans_own_log_driver_is_a_file_that_logs_reads() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .podman("run --network none --name kept --log-driver k8s-file busybox echo words")
        .ok();
    assert_eq!(world.podman("logs kept").ok(), "words");
    world
        .podman("run --network none --name lost --log-driver none busybox echo words")
        .ok();
    world
        .podman("logs lost")
        .says("this container is using the 'none' log driver, cannot read logs")
        .exits(125);
}

#[test]
fn a_recipe_that_is_not_here_is_looked_for_in_the_context() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let context = world.path("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("other.recipe"), "FROM busybox\nLABEL found=yes\n").unwrap();
    let context = context.to_str().unwrap();
    world
        .podman(&format!("build -t found -f other.recipe {context}"))
        .ok();
    assert_eq!(
        world
            .podman("image inspect --format {{.Labels.found}} found")
            .ok(),
        "yes"
    );
    world
        .podman(&format!("build -f third.recipe {context}"))
        .says("third.recipe")
        .exits(125);
    // Docker looks where it was called, only.
    let refused = world.say(&format!("build -f other.recipe {context}"));
    refused
        .says("failed to read dockerfile: open other.recipe")
        .exits(1);
}

#[test]
fn logs_of_several_containers_say_whose_a_line_is() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let started = |name: &str, script: &str| {
        let run = [
            "run",
            "-d",
            "--network",
            "none",
            "--name",
            name,
            "busybox",
            "sh",
            "-c",
            script,
        ];
        let id = world.dhow(&run).ok();
        id.get(..12).unwrap().to_owned()
    };
    let one = started("one", "echo a1; echo a2");
    let two = started("two", "echo b1; sleep 1; echo b2");
    let mut lines: Vec<_> = world
        .podman("logs -f one two")
        .ok()
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort_by_key(|line| line.split(' ').nth(1).map(str::to_owned));
    let wanted = [
        format!("{one} a1"),
        format!("{one} a2"),
        format!("{two} b1"),
        format!("{two} b2"),
    ];
    assert_eq!(lines, wanted);
    assert_eq!(world.podman("logs -n --tail 1 one two").ok(), "one a2\ntwo b2");
    assert_eq!(world.podman("logs --tail 1 one").ok(), "a2");
    // Docker's has one, and `-n` is how many lines.
    world.say("logs one two").exits(1);
    assert_eq!(world.say("logs -n 1 one").ok(), "a2");
}
