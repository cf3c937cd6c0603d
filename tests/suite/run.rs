//! What the program inside sees, and how it is spoken to.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::world::{PATIENCE, World, binary, program, wait};

#[test]
fn environment_comes_from_flags_files_and_the_person() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let file = world.file("env", "# a comment\nFROM_FILE=two words\nINHERITED\n");
    let mut command = world.command(&[
        "run",
        "--rm",
        "--network",
        "none",
        "-e",
        "A=1",
        "-e",
        "INHERITED",
        "--env-file",
    ]);
    command
        .arg(file)
        .args(["busybox", "env"])
        .env("INHERITED", "mine");
    let env = crate::world::finish(command, Vec::new()).ok();
    for line in ["A=1", "FROM_FILE=two words", "INHERITED=mine", "HOME=/root"] {
        assert!(env.lines().any(|found| found == line), "{line} in {env}");
    }
    assert!(
        env.contains("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        "{env}"
    );
    assert!(env.contains("HOSTNAME="), "{env}");
}

#[test]
fn workdir_user_and_groups_are_what_the_flags_say() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    assert_eq!(
        world.sh("--network none -w /made/for/me", "pwd").ok(),
        "/made/for/me"
    );
    assert_eq!(
        world.sh("--network none -u ada", "id -u; id -g; id -G").ok(),
        "1000\n1000\n1000 10"
    );
    assert_eq!(
        world.sh("--network none -u 1234:99", "id -u; id -g").ok(),
        "1234\n99"
    );
    assert_eq!(world.sh("--network none -u ada:wheel", "id -g").ok(), "10");
    assert_eq!(world.sh("--network none -u ada", "echo $HOME").ok(), "/home");
    assert!(
        world
            .sh("--network none -u 1000 --group-add 77", "id -G")
            .ok()
            .contains("77")
    );
}

#[test]
fn hostname_is_the_short_id_or_what_the_flag_says() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    assert_eq!(
        world
            .sh("--network none --hostname ship", "hostname; cat /etc/hostname")
            .ok(),
        "ship\nship"
    );
    let id = world.say("run -d busybox hostname").ok();
    world.dhow(&["wait", &id]).ok();
    assert_eq!(world.dhow(&["logs", &id]).ok(), id[..12]);
    let hosts = world
        .sh("--hostname ship --add-host peer:10.1.2.3", "cat /etc/hosts")
        .ok();
    assert!(
        hosts.contains("ship") && hosts.contains("10.1.2.3\tpeer"),
        "{hosts}"
    );
}

#[test]
fn a_read_only_container_writes_only_to_its_mounts() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .sh("--network none --read-only", "touch /x")
        .exits(1)
        .says("read-only file system");
    let script = "touch /data/x /vol/y /dev/shm/z && grep ' /data ' /proc/mounts";
    let mounts = world
        .sh(
            "--network none --read-only --tmpfs /data:size=1m,noexec -v named:/vol",
            script,
        )
        .ok();
    assert!(
        mounts.starts_with("tmpfs ") && mounts.contains("noexec") && mounts.contains("size=1024k"),
        "{mounts}"
    );
}

#[test]
fn the_program_is_process_one_with_little_power() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    assert_eq!(world.sh("--network none", "echo $$").ok(), "1");
    let status = world
        .sh(
            "--network none",
            "grep -E '^(CapInh|CapEff|CapBnd|Seccomp):' /proc/self/status",
        )
        .ok();
    assert!(status.contains("CapInh:\t0000000000000000"), "{status}");
    assert!(
        status.contains("CapEff:\t00000000a80425fb"),
        "docker's default set: {status}"
    );
    assert!(status.contains("Seccomp:\t2"), "{status}");
    let none = world
        .sh(
            "--network none --cap-drop ALL --cap-add chown",
            "grep CapEff /proc/self/status",
        )
        .ok();
    assert!(none.ends_with("0000000000000001"), "{none}");
    world.sh("--network none", "mount -t tmpfs none /tmp").exits(1);
    world
        .sh("--network none", "echo 1 > /proc/sys/kernel/panic")
        .exits(1);
    world
        .sh(
            "--network none",
            "test ! -s /proc/keys && test ! -e /proc/kcore -o ! -s /proc/kcore",
        )
        .ok();
    let seen = world.sh("--network none", "ls /proc/self/fd").ok();
    assert_eq!(seen.lines().count(), 4, "no descriptor of the host: {seen}");
}

#[test]
fn entrypoint_and_labels_are_kept() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("run --name it --network none --entrypoint echo -l a=b --label c busybox one two")
        .exits(0)
        .prints("one two");
    assert_eq!(
        world.inspect("it", "{{json .Config.Entrypoint}} {{json .Config.Cmd}}"),
        r#"["echo"] ["one","two"]"#
    );
    assert_eq!(world.inspect("it", "{{index .Config.Labels \"a\"}}"), "b");
    assert_eq!(
        world.say("ps -a --filter label=a=b --format {{.Names}}").ok(),
        "it"
    );
    assert_eq!(world.say("ps -a --filter label=a=x --format {{.Names}}").ok(), "");
}

#[test]
fn standard_input_is_a_pipe_with_i_and_empty_without() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let flags = ["run", "--rm", "-i", "--network", "none", "busybox"];
    let long = crate::samples::noise(3_000_000, 7);
    let mut args = flags.to_vec();
    args.push("cat");
    let ran = world.feed(&args, long.clone()).exits(0);
    assert!(
        ran.bytes == long,
        "3 MB there and back: {} bytes came",
        ran.bytes.len()
    );
    let mut args = flags.to_vec();
    args.retain(|word| *word != "-i");
    args.extend(["sh", "-c", "wc -c"]);
    assert_eq!(world.feed(&args, "not for you").ok(), "0");
}

#[test]
fn standard_output_and_error_stay_apart() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let ran = world
        .sh("--network none", "echo out; echo err >&2; exit 3")
        .exits(3);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn a_terminal_is_a_terminal() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    if !program("script") {
        return;
    }
    let line = format!(
        "{} --root {} run --rm -it --network none busybox sh -c 'tty; read line; echo got $line; exit 5'",
        binary().display(),
        world.root().display()
    );
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        drop(stdout.read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    });
    let mut stdin = child.stdin.take().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    stdin.write_all(b"hello\n").unwrap();
    let code = wait(&mut child, PATIENCE);
    drop(stdin);
    drop(child.kill());
    let text = reader.join().unwrap();
    assert_eq!(code, Some(5), "{text}");
    assert!(
        text.contains("/dev/pts/0") && text.contains("got hello"),
        "{text}"
    );
}

#[test]
fn a_tty_without_a_terminal_is_refused_as_docker_does() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("run --rm -it --network none busybox true")
        .one_error(1)
        .says("not a TTY");
    world
        .say("run --rm -t --network none busybox tty")
        .exits(0)
        .prints("/dev/pts/0");
}

#[test]
fn signals_of_the_command_reach_the_program() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let mut child = world
        .command(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", script])
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 6];
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"ready\n");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(wait(&mut child, PATIENCE), Some(9));
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "caught\n");
}

#[test]
fn a_reader_that_leaves_ends_neither_with_a_panic() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let line = format!(
        "{} --root {} run --rm --network none busybox seq 200000 | head -n 1",
        binary().display(),
        world.root().display()
    );
    let mut command = Command::new("bash");
    command.args(["-c", &line]);
    let ran = crate::world::finish(command, Vec::new()).exits(0);
    assert_eq!(ran.stdout, "1\n");
}

#[test]
fn a_long_root_path_is_no_hindrance() {
    let Some(world) = World::new() else { return };
    let long = World::at(world.path(&format!("{}/{}", "a".repeat(60), "b".repeat(60))));
    long.import_busybox("busybox");
    let id = long.say("run -d --network none busybox sleep 100").ok();
    assert_eq!(long.dhow(&["exec", &id, "echo", "in"]).ok(), "in");
    long.dhow(&["rm", "-f", &id]).ok();
    long.clean();
}

/// `inspect` says what was asked for: where a device is on the host, and capabilities by their whole names.
#[test]
fn devices_and_capabilities_are_inspected_as_they_were_asked_for() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("create --name dev --device /dev/null:/dev/other:rw --cap-add net_admin --cap-drop CAP_CHOWN busybox true")
        .ok();
    assert_eq!(
        world.inspect(
            "dev",
            "{{json .HostConfig.Devices}} {{.HostConfig.CapAdd}} {{.HostConfig.CapDrop}}"
        ),
        "[{\"PathOnHost\":\"/dev/null\",\"PathInContainer\":\"/dev/other\",\"CgroupPermissions\":\"rw\"}] [CAP_NET_ADMIN] [CAP_CHOWN]"
    );
}

/// What was typed before the container's terminal is there reaches it: the mode of the own terminal changes at once, and what
/// waits in it is not thrown away.
#[test]
fn what_was_typed_ahead_reaches_the_containers_terminal() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use std::io::{Read as _, Write as _};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let open = || {
        std::fs::File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap()
    };
    let mut master = std::fs::File::from(master);
    let slave = open();
    master.write_all(b"echo ahead$((1+1)); exit 7\n").unwrap();
    let mut child = world
        .command(&["run", "--rm", "-it", "--network", "none", "busybox", "sh"])
        .stdin(open())
        .stdout(open())
        .stderr(open())
        .spawn()
        .unwrap();
    let code = crate::world::wait(&mut child, std::time::Duration::from_secs(60));
    assert_eq!(code, Some(7));
    let mut shown = vec![0; 4096];
    let count = master.read(&mut shown).unwrap();
    drop(slave);
    let shown = String::from_utf8_lossy(&shown[..count]).into_owned();
    assert!(shown.contains("ahead2"), "{shown:?}");
}

#[test]
fn what_contradicts_itself_is_refused_in_dockers_words() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("run -d --name web --network none busybox sleep 600")
        .ok();
    for (flags, word) in [
        ("--uts host --hostname me", "hostname and the UTS mode"),
        (
            "--uts host --domainname example.com",
            "domainname and the UTS mode",
        ),
        (
            "--network container:web --hostname me",
            "hostname and the network mode",
        ),
        (
            "--network container:web --dns 192.0.2.1",
            "dns and the network mode",
        ),
        (
            "--network container:web --add-host a:192.0.2.1",
            "host-to-IP mapping and the network mode",
        ),
        ("--no-healthcheck --health-cmd true", "--no-healthcheck conflicts"),
    ] {
        world
            .say(&format!("run --rm {flags} busybox true"))
            .one_error(125)
            .says(word);
    }
    world
        .dhow(&[
            "create",
            "--name",
            "unchecked",
            "--health-cmd",
            "",
            "-v",
            "data",
            "-v",
            "./more",
            "busybox",
            "true",
        ])
        .exits(0);
    assert_eq!(
        world.inspect("unchecked", "{{.Config.Healthcheck}}"),
        "<no value>"
    );
    let mut mounts: Vec<String> = world
        .inspect("unchecked", "{{range .Mounts}}{{.Destination}} {{end}}")
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    mounts.sort();
    assert_eq!(mounts, ["/data", "/more"]);
    world
        .say("create -v ../up busybox true")
        .one_error(125)
        .says("absolute");
}
