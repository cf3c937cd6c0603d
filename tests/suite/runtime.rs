//! The standard's command line: bundles made here, and every verb on them.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{binary, eventually, finish, names};
use crate::yard::Yard;

#[test]
fn a_runtime_container_is_created_started_killed_and_deleted() {
    let Some(yard) = Yard::new() else { return };
    yard.create("one");
    assert_eq!(yard.status("one"), "created");
    let pid = yard.pid("one");
    assert!(pid > 1);
    yard.say("start one").ok();
    assert_eq!(yard.status("one"), "running");
    assert_eq!(yard.pid("one"), pid);
    yard.say("start one")
        .exits(1)
        .says("cannot start an already running container");
    yard.say("delete one")
        .exits(1)
        .says("that is not stopped: running");
    assert_eq!(yard.say("list -q").ok(), "one");
    yard.say("list").ok();
    let list: Value = serde_json::from_str(&yard.say("list --format json").ok()).unwrap();
    assert_eq!(list[0]["status"], "running");
    assert_eq!(list[0]["owner"], "root");
    yard.say("kill one KILL").ok();
    eventually("it is stopped", || yard.status("one") == "stopped");
    assert_eq!(yard.pid("one"), 0);
    yard.say("kill one").exits(1).says("container not running");
    yard.say("kill --all one 9").ok();
    yard.say("start one")
        .exits(1)
        .says("cannot start a container that has stopped");
    yard.say("exec one true")
        .exits(255)
        .says("cannot exec in a stopped container");
    yard.say("delete one").ok();
    yard.say("state one").exits(1).says("container does not exist");
    yard.say("delete one").exits(1).says("container does not exist");
    yard.say("delete --force one").ok();
    yard.nothing_left();
}

#[test]
fn options_of_the_runtime_stand_on_both_sides_of_the_id() {
    let Some(yard) = Yard::new() else { return };
    let bundle = yard.path("bundle").display().to_string();
    let pid = yard.path("pid").display().to_string();
    yard.create(&format!("--bundle {bundle} --pid-file {pid} a"));
    assert_eq!(fs::read_to_string(&pid).unwrap(), yard.pid("a").to_string());
    yard.say("delete a").ok();
    yard.create(&format!("a --bundle={bundle} --pid-file {pid}"));
    assert_eq!(fs::read_to_string(&pid).unwrap(), yard.pid("a").to_string());
    yard.say("delete a --force").ok();
    yard.say("create --nope a").exits(1).says("not defined: --nope");
    yard.say("create").exits(1).says("requires exactly 1 argument");
    yard.say("nope").exits(3);
    yard.nothing_left();
}

#[test]
fn a_foreground_run_passes_streams_exit_codes_and_signals() {
    let Some(yard) = Yard::new() else { return };
    yard.sh("cat; echo err >&2; exit 7");
    let ran = finish(yard.command(&["run", "a"]), b"typed".to_vec()).exits(7);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("typed", "err\n"));
    yard.sh("kill -9 $$");
    // As the first process of its namespace it cannot kill itself; a child can be.
    yard.sh("sh -c 'kill -9 $$'; exit $?");
    yard.say("run a").exits(137);
    yard.config(|config| config["process"]["args"] = json!(["nope"]));
    yard.say("run a")
        .exits(1)
        .says("run failed")
        .says("executable file not found in $PATH");
    yard.config(|config| config["process"]["args"] = json!(["/etc/passwd"]));
    yard.say("run a").exits(1).says("permission denied");
    yard.sh("trap 'exit 9' TERM; while :; do sleep 0.05; done");
    let mut child = yard.command(&["run", "a"]).stdin(Stdio::null()).spawn().unwrap();
    eventually("it runs", || yard.say("state a").stdout.contains("running"));
    std::thread::sleep(Duration::from_millis(200));
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert_eq!(crate::world::wait(&mut child, crate::world::PATIENCE), Some(9));
    yard.nothing_left();
}

#[test]
fn an_absent_program_fails_create_and_leaves_nothing() {
    let Some(yard) = Yard::new() else { return };
    for (args, words) in [
        (json!(["nope"]), "executable file not found in $PATH"),
        (json!(["/nope"]), "no such file or directory"),
        (json!(["/etc/passwd"]), "permission denied"),
        (json!([]), "args is empty"),
    ] {
        yard.config(|config| config["process"]["args"] = args);
        yard.say("create a")
            .exits(1)
            .says("error")
            .says("create failed")
            .says(words);
        yard.nothing_left();
    }
}

#[test]
fn hooks_run_in_order_with_the_state_of_their_stage() {
    let Some(yard) = Yard::new() else { return };
    yard.config(|config| {
        config["annotations"] = json!({ "key": "value" });
        config["hooks"] = json!({
            "prestart": [yard.hook("prestart", "true")],
            "createRuntime": [yard.hook("createRuntime", "true"), yard.hook("second", "true")],
            "createContainer": [yard.hook("createContainer", "true")],
            "startContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", "cat >/tmp/state; env >/tmp/env; pwd >/tmp/pwd"] }],
            "poststart": [yard.hook("poststart", "true")],
            "poststop": [yard.hook("poststop", "true")],
        });
    });
    yard.create("a");
    let pid = yard.pid("a");
    let stages = |trace: &[String]| -> Vec<String> {
        trace
            .iter()
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        stages(&yard.trace()),
        ["prestart", "createRuntime", "second", "createContainer"]
    );
    assert!(!yard.path("bundle/rootfs/tmp/state").exists());
    yard.say("start a").ok();
    assert_eq!(stages(&yard.trace())[4..], ["poststart"]);
    let inside: Value =
        serde_json::from_slice(&fs::read(yard.path("bundle/rootfs/tmp/state")).unwrap()).unwrap();
    assert_eq!(
        (&inside["status"], &inside["pid"]),
        (&json!("created"), &json!(1))
    );
    // A hook without an environment has the program's.
    assert!(
        fs::read_to_string(yard.path("bundle/rootfs/tmp/env"))
            .unwrap()
            .contains("PATH=/bin")
    );
    yard.say("kill a KILL").ok();
    eventually("it is stopped", || yard.status("a") == "stopped");
    yard.say("delete a").ok();
    let trace = yard.trace();
    assert_eq!(stages(&trace)[5..], ["poststop"]);
    for line in &trace {
        let (stage, state) = line.split_once(' ').unwrap();
        let state: Value = serde_json::from_str(state).unwrap();
        let status = match stage {
            "poststart" => "running",
            "poststop" => "stopped",
            _ => "created",
        };
        assert_eq!(state["status"], status, "{line}");
        assert_eq!(state["id"], "a");
        assert_eq!(state["annotations"]["key"], "value");
        assert_eq!(
            state["bundle"],
            json!(fs::canonicalize(yard.path("bundle")).unwrap())
        );
        match stage {
            "createContainer" => assert_eq!(state["pid"], 1),
            "poststop" => {}
            _ => assert_eq!(state["pid"], pid, "{line}"),
        }
    }
    yard.nothing_left();
}

#[test]
fn a_hook_of_the_image_is_under_the_filter_of_its_program() {
    let Some(yard) = Yard::new() else { return };
    yard.config(|config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }],
        });
        let script = "grep Seccomp: /proc/self/status; grep CapEff /proc/self/status; exit 1";
        config["hooks"] =
            json!({ "startContainer": [{ "path": "/bin/busybox", "args": ["sh", "-c", script] }] });
    });
    let told = yard.say("run a").exits(1).says("startContainer hook #0").stderr;
    assert!(
        told.contains("Seccomp:\\t2") && told.contains("CapEff:\\t0000000000000000"),
        "{told}"
    );
}

#[test]
fn a_failing_hook_ends_the_container_and_is_named() {
    let Some(yard) = Yard::new() else { return };
    let bad = json!({ "path": "/bin/sh", "args": ["sh", "-c", "echo told; echo why >&2; exit 3"] });
    for stage in [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
    ] {
        yard.config(|config| {
            config["hooks"] = json!({
                stage: [{ "path": "/bin/true" }, bad],
                "poststop": [yard.hook("poststop", "true")],
            });
        });
        // The image has no /bin/true of the host, but one of its own.
        fs::write(yard.path("trace"), "").unwrap();
        let ran = yard.say("run a").exits(1).says(&format!(
            "error running {stage} hook #1: exit status 3, stdout: told, stderr: why"
        ));
        assert_eq!(ran.stdout, "");
        assert_eq!(yard.trace().len(), 1, "{stage}: the last hooks run all the same");
        yard.nothing_left();
    }
    // With create and start apart, the failure of a late one is told by start, and the container is stopped.
    for stage in ["startContainer", "poststart"] {
        yard.config(|config| config["hooks"] = json!({ stage: [bad] }));
        yard.create("a");
        yard.say("start a")
            .exits(1)
            .says(&format!("error running {stage} hook #0"));
        eventually("it is stopped", || yard.status("a") == "stopped");
        yard.say("delete a").ok();
    }
}

// runtime-spec, "Lifecycle", step 13, and what crun's tests want; runc ends there, and contest's `poststop_fail` wants that.
#[test]
fn a_hook_that_fails_at_the_end_is_a_warning_and_an_error_for_clients_of_runc() {
    let Some(yard) = Yard::new() else { return };
    let bad = json!({ "path": "/bin/sh", "args": ["sh", "-c", "exit 3"] });
    yard.config(|config| config["hooks"] = json!({ "poststop": [bad, yard.hook("poststop", "true")] }));
    let deleted = |name: &str| {
        fs::write(yard.path("trace"), "").unwrap();
        yard.create("a");
        let ran = match name {
            "dhow" => yard.say("delete a"),
            name => finish(yard.called(name, "delete a"), Vec::new()),
        };
        yard.nothing_left();
        ran
    };
    let words = "error running poststop hook #0: exit status 3";
    for name in ["dhow", "crun"] {
        deleted(name).exits(0).says(words);
        assert_eq!(yard.trace().len(), 1, "{name}: the others run all the same");
    }
    deleted("runc").exits(1).says(words);
    assert_eq!(yard.trace().len(), 0, "runc runs no other");
    yard.config(|config| {
        config["process"]["args"] = json!(["true"]);
        config["hooks"] = json!({ "poststop": [bad, yard.hook("poststop", "true")] });
    });
    fs::write(yard.path("trace"), "").unwrap();
    let ran = finish(yard.called("runc", "run a"), Vec::new());
    ran.exits(0).says(words);
    assert_eq!(yard.trace().len(), 0);
    yard.nothing_left();
}

// As runc, crun and youki, which do not wait for a startContainer hook; youki's test `hooks` wants it.
#[test]
fn what_comes_after_the_start_comes_also_when_a_hook_in_the_container_failed() {
    let Some(yard) = Yard::new() else { return };
    let bad = json!({ "path": "/bin/sh", "args": ["sh", "-c", "exit 3"] });
    yard.config(|config| {
        config["hooks"] = json!({
            "startContainer": [bad],
            "poststart": [yard.hook("poststart", "true"), yard.hook("poststart", "true")],
        });
    });
    yard.create("a");
    let failed = "error running startContainer hook #0: exit status 3";
    yard.say("start a").exits(1).says(failed);
    assert_eq!(yard.trace().len(), 2, "{:?}", yard.trace());
    yard.say("delete a").ok();
    yard.say("run a").exits(1).says(failed);
    assert_eq!(yard.trace().len(), 4);
    yard.nothing_left();
}

#[test]
fn a_late_hook_is_killed_with_what_it_started() {
    let Some(yard) = Yard::new() else { return };
    let slow = json!({ "path": "/bin/sh", "args": ["sh", "-c", "sleep 54321 & sleep 54321"], "timeout": 1 });
    for stage in ["createRuntime", "createContainer", "poststart"] {
        yard.config(|config| config["hooks"] = json!({ stage: [slow] }));
        yard.say("run a").exits(1).says(&format!(
            "{stage} hook #0: hook ran past specified timeout of 1.0s"
        ));
        yard.nothing_left();
    }
    let asleep = || {
        names(Path::new("/proc"))
            .iter()
            .filter_map(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok())
            .any(|line| line.starts_with(b"sleep\x0054321"))
    };
    eventually("nothing of the hooks sleeps on", || !asleep());
    yard.config(|config| config["hooks"] = json!({ "prestart": [{ "path": "relative" }] }));
    yard.say("run a")
        .exits(1)
        .says("prestart hook #0")
        .says("not absolute");
    yard.config(|config| config["hooks"] = json!({ "prestart": [{ "path": "/nope" }] }));
    yard.say("run a")
        .exits(1)
        .says("prestart hook #0")
        .says("no such file or directory");
}

#[test]
fn a_program_is_executed_in_a_runtime_container_in_all_its_forms() {
    let Some(yard) = Yard::new() else { return };
    yard.create("a");
    // Also before the start.
    assert_eq!(yard.run(&["exec", "a", "echo", "early"]).ok(), "early");
    yard.say("start a").ok();
    assert_eq!(
        yard.run(&["exec", "a", "sh", "-c", "echo $HOME; exit 5"])
            .exits(5)
            .stdout,
        "/root\n"
    );
    assert_eq!(
        yard.run(&[
            "exec",
            "-u",
            "5:5",
            "-g",
            "7",
            "--cwd",
            "/tmp",
            "-e",
            "A=b",
            "a",
            "sh",
            "-c",
            "id -G; pwd; echo $A $HOME"
        ])
        .ok(),
        "5 7\n/tmp\nb /home/u"
    );
    yard.say("exec a nope")
        .exits(255)
        .says("exec failed")
        .says("executable file not found");
    yard.say("exec a /etc/passwd")
        .exits(255)
        .says("permission denied");
    yard.say("exec a").exits(255).says("exec args cannot be empty");
    yard.say("exec nope true")
        .exits(255)
        .says("container does not exist");
    let process = json!({ "args": ["sh", "-c", "echo file $(id -u)"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 9, "gid": 9 } });
    fs::write(yard.path("process.json"), process.to_string()).unwrap();
    let file = yard.path("process.json").display().to_string();
    assert_eq!(yard.say(&format!("exec --process {file} a")).ok(), "file 9");
    assert_eq!(yard.say(&format!("exec a -p {file}")).ok(), "file 9");
    let pid_file = yard.path("pid").display().to_string();
    let mut detached = yard.command(&["exec", "-d", "--pid-file", &pid_file, "a", "sleep", "1000"]);
    assert!(
        detached
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    let pid = fs::read_to_string(&pid_file).unwrap();
    let pids: Vec<i64> = serde_json::from_str(&yard.say("ps --format json a").ok()).unwrap();
    assert!(
        pids.contains(&pid.parse().unwrap()) && pids.len() == 2,
        "{pids:?} {pid}"
    );
    yard.say("pause a").ok();
    assert_eq!(yard.status("a"), "paused");
    yard.say("pause a").exits(1);
    yard.say("exec a true").exits(255).says("paused");
    yard.say("resume a").ok();
    assert_eq!(yard.status("a"), "running");
    yard.say("resume a").exits(1).says("not paused");
    yard.say("pause a").ok();
    yard.say("delete --force a").ok();
    yard.nothing_left();
}

/// Takes what is sent to a console socket: the bytes and the descriptor.
pub(crate) fn receive(listener: &std::os::unix::net::UnixListener) -> (Vec<u8>, std::os::fd::OwnedFd) {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let (socket, _) = listener.accept().unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 4096];
    let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
    let length = recvmsg(socket.as_fd(), &mut parts, &mut control, RecvFlags::empty())
        .unwrap()
        .bytes;
    let fd = control.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    (bytes[..length].to_vec(), fd.unwrap())
}

#[test]
fn a_terminal_goes_to_the_console_socket() {
    let Some(yard) = Yard::new() else { return };
    let terminal = |config: &mut Value| {
        config["process"]["terminal"] = json!(true);
        config["process"]["consoleSize"] = json!({ "height": 11, "width": 22 });
        config["process"]["args"] = json!(["sh", "-c", "tty; cat"]);
    };
    yard.config(terminal);
    yard.say("create a")
        .exits(1)
        .says("without setting console socket");
    let path = yard.path("console");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let socket = path.display().to_string();
    yard.create(&format!("--console-socket {socket} a"));
    let (name, master) = receive(&listener);
    assert!(!name.is_empty());
    let size = rustix::termios::tcgetwinsize(&master).unwrap();
    assert_eq!((size.ws_row, size.ws_col), (11, 22));
    yard.say("start a").ok();
    let read = |wanted: &str| {
        let mut said = String::new();
        eventually("the terminal says it", || {
            let mut bytes = [0; 512];
            let mut fds = [rustix::event::PollFd::new(&master, rustix::event::PollFlags::IN)];
            let now = rustix::event::Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            if rustix::event::poll(&mut fds, Some(&now)).unwrap() > 0 {
                let length = rustix::io::read(&master, &mut bytes).unwrap_or(0);
                said.push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
            said.contains(wanted)
        });
    };
    read("/dev/pts/0");
    rustix::io::write(&master, b"typed\n").unwrap();
    read("typed");
    let mut exec = yard.command(&[
        "exec",
        "-d",
        "-t",
        "--console-socket",
        &socket,
        "a",
        "sh",
        "-c",
        "tty; sleep 100",
    ]);
    assert!(exec.stdout(Stdio::null()).status().unwrap().success());
    let (_, second) = receive(&listener);
    assert!(rustix::termios::isatty(&second));
    yard.config(|_| {});
    yard.say(&format!("create --console-socket {socket} b"))
        .exits(1)
        .says("cannot use console socket if runc will not detach or allocate tty");
}

#[test]
fn two_runtime_containers_cannot_have_one_id() {
    let Some(yard) = Yard::new() else { return };
    yard.create("a");
    let pid = yard.pid("a");
    yard.say("create a")
        .exits(1)
        .says("container with given ID already exists");
    yard.say("run a")
        .exits(1)
        .says("container with given ID already exists");
    assert_eq!((yard.pid("a"), yard.status("a").as_str()), (pid, "created"));
    // Nor one control group with somebody in it.
    yard.say("create b")
        .exits(1)
        .says("container's cgroup is not empty");
    assert_eq!(yard.say("list -q").ok(), "a");
}

#[test]
fn hostile_ids_are_refused_by_every_verb() {
    let Some(yard) = Yard::new() else { return };
    fs::create_dir_all(yard.path("root")).unwrap();
    fs::create_dir_all(yard.path("victim")).unwrap();
    let long = "x".repeat(256);
    for id in ["..", ".", "../victim", "a/b", "/", "a b", "é", "", long.as_str()] {
        for verb in [
            "create", "run", "start", "state", "kill", "delete", "pause", "resume", "ps", "update",
        ] {
            yard.run(&[verb, id]).exits(1).says("error");
        }
        yard.run(&["delete", "--force", id]).exits(1);
        yard.run(&["exec", id, "true"]).exits(255);
    }
    assert!(yard.path("victim").exists() && yard.path("bundle").exists());
    yard.nothing_left();
}

#[test]
fn malformed_bundles_are_refused_and_leave_nothing() {
    let Some(yard) = Yard::new() else { return };
    let deep = "[".repeat(100_000);
    let big = format!("{{\"ociVersion\": \"{}\"}}", "x".repeat(5 << 20));
    for text in [
        "",
        "null",
        "{}",
        "[]",
        "{",
        "\0",
        "{\"ociVersion\": 1}",
        deep.as_str(),
        big.as_str(),
    ] {
        fs::write(yard.path("bundle/config.json"), text).unwrap();
        yard.say("create a").exits(1).says("error");
        yard.say("run a").exits(1).says("error");
    }
    fs::remove_file(yard.path("bundle/config.json")).unwrap();
    yard.say("create a")
        .exits(1)
        .says("JSON specification file config.json not found");
    for (field, value) in [
        ("/ociVersion", json!("2.0.0")),
        ("/ociVersion", json!("latest")),
        ("/root/path", json!("nope")),
        ("/process/cwd", json!("relative")),
        ("/process/user/uid", json!(u32::MAX)),
        ("/linux/namespaces/0/type", json!("nope")),
        ("/linux/namespaces/0", json!({ "type": "pid", "path": "/nope" })),
    ] {
        yard.config(|config| *config.pointer_mut(field).unwrap() = value);
        yard.say("create a").exits(1).says("error");
    }
    yard.say("create --bundle /nope a").exits(1).says("no such file");
    yard.nothing_left();
}

#[test]
fn a_runtime_container_survives_the_kill_of_any_command_on_it() {
    let Some(yard) = Yard::new() else { return };
    yard.config(|config| {
        config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/true" }], "createContainer": [{ "path": "/bin/true" }] });
    });
    for round in 0..40_u64 {
        let mut create = yard.command(&["create", "a"]);
        create
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = create.spawn().unwrap();
        std::thread::sleep(Duration::from_micros(round * round * 37 % 20_000));
        child.kill().unwrap();
        child.wait().unwrap();
        if names(&yard.path("root")).is_empty() {
            continue;
        }
        // Whatever is there has a status, and goes when it is told to.
        yard.say("list").exits(0);
        let state = yard.say("state a").exits(0);
        if state.stdout.contains("\"status\": \"created\"") {
            let mut start = yard
                .command(&["start", "a"])
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_micros(round * 97 % 5_000));
            start.kill().unwrap();
            start.wait().unwrap();
            assert!(["created", "running", "stopped"].contains(&yard.status("a").as_str()));
        }
        yard.say("delete --force a").exits(0);
        assert!(names(&yard.path("root")).is_empty(), "round {round}");
    }
    yard.nothing_left();
}

#[test]
fn the_log_of_the_runtime_has_a_line_of_json_for_an_error() {
    let Some(yard) = Yard::new() else { return };
    let log = yard.path("log.json").display().to_string();
    yard.run(&["--log", &log, "--log-format", "json", "state", "nope"])
        .exits(1)
        .says("container does not exist");
    let line: Value = serde_json::from_str(fs::read_to_string(&log).unwrap().trim()).unwrap();
    assert_eq!(line["level"], "error");
    assert_eq!(line["msg"], "container does not exist");
    assert!(line["time"].as_str().unwrap().contains('T'));
    yard.run(&["--log-format", "xml", "list"])
        .exits(1)
        .says("invalid log-format");
    yard.run(&["--root", "/", "list"])
        .exits(1)
        .says("should not be set to /");
    assert!(yard.run(&["--version"]).ok().contains("spec: 1."));
    assert!(yard.run(&["--help"]).ok().contains("COMMANDS"));
    assert!(yard.run(&["create", "--help"]).ok().contains("--console-socket"));
}

#[test]
fn called_by_the_name_runc_it_is_the_runtime() {
    let Some(yard) = Yard::new() else { return };
    let link = yard.path("runc");
    std::os::unix::fs::symlink(binary(), &link).unwrap();
    let mut command = Command::new(&link);
    command
        .arg("--root")
        .arg(yard.path("root"))
        .args(["state", "nope"]);
    finish(command, Vec::new())
        .exits(1)
        .says("container does not exist");
    let mut command = Command::new(&link);
    command.arg("features");
    let features: Value = serde_json::from_str(&finish(command, Vec::new()).ok()).unwrap();
    assert!(features["linux"]["namespaces"].as_array().unwrap().len() >= 7);
}

#[test]
fn a_written_spec_runs_once_it_needs_no_terminal() {
    let Some(yard) = Yard::new() else { return };
    let path = yard.path("bundle/config.json");
    yard.say("spec").exits(1).says("exists. Remove it first");
    fs::remove_file(&path).unwrap();
    yard.say("spec").ok();
    let mut spec: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["echo", "ran"]);
    spec["linux"]["cgroupsPath"] = json!(format!("/{}", yard.id));
    // Raising a hard limit needs a right that root may lack.
    spec["process"]["rlimits"] = json!([]);
    fs::write(&path, spec.to_string()).unwrap();
    assert_eq!(yard.say("run a").ok(), "ran");
    yard.nothing_left();
}

#[test]
fn limits_of_a_runtime_container_are_updated_and_its_use_is_told() {
    let Some(yard) = Yard::new() else { return };
    yard.config(|config| {
        config["linux"]["resources"] = json!({ "pids": { "limit": 50 }, "memory": { "limit": 64 << 20 } })
    });
    yard.create("a");
    yard.say("start a").ok();
    let stats = |yard: &Yard| -> Value { serde_json::from_str(&yard.say("events --stats a").ok()).unwrap() };
    let told = stats(&yard);
    assert_eq!((&told["type"], &told["id"]), (&json!("stats"), &json!("a")));
    assert_eq!(told["data"]["pids"]["limit"], 50);
    yard.say("update a --pids-limit 20 --memory 32M").ok();
    assert_eq!(stats(&yard)["data"]["pids"]["limit"], 20);
    let resources = json!({ "pids": { "limit": 30 } }).to_string();
    finish(yard.command(&["update", "-r", "-", "a"]), resources.into_bytes()).ok();
    let told = stats(&yard);
    assert_eq!(told["data"]["pids"]["limit"], 30);
    assert_eq!(told["data"]["memory"]["usage"]["limit"], 32 << 20);
    // Zero is a limit (config-linux.md, "PIDs"), written as one; only what is below zero lifts it.
    yard.say("update a --pids-limit 0").ok();
    assert_eq!(stats(&yard)["data"]["pids"]["limit"], 1);
    yard.say("update a --pids-limit -1").ok();
    // As with runc, what has no limit tells none.
    assert_eq!(stats(&yard)["data"]["pids"]["limit"], Value::Null);
    yard.say("update a --memory lots")
        .exits(1)
        .says("invalid value for memory");
}

#[test]
fn descriptors_are_passed_only_when_asked_for() {
    let Some(yard) = Yard::new() else { return };
    yard.config(|config| config["process"]["args"] = json!(["sh", "-c", "cat <&3 2>/dev/null; echo end"]));
    fs::write(yard.path("secret"), "passed").unwrap();
    let secret = yard.path("secret").display().to_string();
    let dhow = binary().display().to_string();
    let root = yard.path("root").display().to_string();
    let call = |options: &str| {
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                &format!("exec {dhow} runtime --root {root} run {options} a 3<{secret} 9<{secret}"),
            ])
            .current_dir(yard.path("bundle"));
        finish(command, Vec::new())
    };
    assert!(!call("").exits(0).stdout.contains("passed"));
    assert!(call("--preserve-fds 1").exits(0).stdout.contains("passed"));
    // One that is not there is passed over, as crun does.
    assert!(call("--preserve-fds 2").exits(0).stdout.contains("passed"));
    let mode = fs::metadata(yard.path("root")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

/// Why CRIU cannot write processes to files here; none when it can.
fn no_criu() -> Option<String> {
    let mut command = Command::new("criu");
    // Some configurations make it write a log where it is started.
    command.current_dir(std::env::temp_dir());
    match command.arg("check").stdin(Stdio::null()).output() {
        Err(error) => Some(format!("criu cannot be started: {error}")),
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn a_container_goes_to_files_and_comes_back() {
    let Some(yard) = Yard::new() else { return };
    if let Some(why) = no_criu() {
        eprintln!("skipped: {why}");
        return;
    }
    yard.create("one");
    yard.say("checkpoint one")
        .exits(1)
        .says("cannot be checkpointed in created state");
    yard.say("start one").ok();
    yard.say("checkpoint --parent-path /tmp one")
        .exits(1)
        .says("--parent-path");
    let images = yard.path("images").display().to_string();
    yard.say(&format!("checkpoint --leave-running --image-path {images} one"))
        .ok();
    assert_eq!(yard.status("one"), "running");
    yard.say(&format!("checkpoint --image-path {images} one")).ok();
    yard.say("state one").exits(1).says("container does not exist");
    yard.nothing_left();
    let log = fs::File::create(yard.path("log")).unwrap();
    let mut command = yard.command(&["restore", "--detach", "--image-path", &images, "two"]);
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let status = command.status().unwrap();
    assert!(
        status.success(),
        "{}",
        fs::read_to_string(yard.path("log")).unwrap()
    );
    assert_eq!(yard.status("two"), "running");
    assert_eq!(yard.say("exec two echo here").ok(), "here");
    yard.say("restore --no-pivot three").exits(1).says("--no-pivot");
    yard.say("restore --image-path /nonexistent three").exits(1);
    yard.say("delete --force two").ok();
    yard.nothing_left();
}
