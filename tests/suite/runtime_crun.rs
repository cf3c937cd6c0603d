//! The runtime by the name of crun: its options, annotations and words; and what both names have of crun's suite.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use crate::world::{eventually, finish, groups, names, program};
use crate::yard::Yard;

#[test]
fn without_control_groups_a_container_runs_in_those_of_its_caller() {
    let Some(yard) = Yard::new() else { return };
    yard.config(|config| config["linux"]["resources"] = json!({ "pids": { "limit": 5 } }));
    yard.begin(yard.command(&["--cgroup-manager", "disabled", "run", "-d", "a"]));
    assert!(groups(&yard.id).is_empty(), "{:?}", groups(&yard.id));
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let of_container = fs::read_to_string(format!("/proc/{}/cgroup", yard.pid("a"))).unwrap();
    assert_eq!(own, of_container);
    yard.say("pause a").exits(1).says("no control group of its own");
    yard.run(&["exec", "a", "echo", "in"]).ok();
    yard.say("delete --force a").ok();
    yard.run(&["--cgroup-manager", "none", "run", "a"])
        .exits(1)
        .says("unsupported cgroup manager: none");
    yard.nothing_left();
}

#[test]
fn an_expression_means_all_containers_in_whose_id_it_is_found() {
    let Some(yard) = Yard::new() else { return };
    for id in ["web-1", "web-2", "db-1"] {
        yard.config(|config| config["linux"]["cgroupsPath"] = json!(format!("/{}-{id}", yard.id)));
        yard.begin(yard.command(&["run", "-d", id]));
    }
    yard.say("kill --regex ^web-[0-9]$ KILL").ok();
    for id in ["web-1", "web-2"] {
        eventually("it is stopped", || yard.status(id) == "stopped");
    }
    assert_eq!(yard.status("db-1"), "running");
    yard.say("delete --regex b-1$")
        .exits(1)
        .says("container db-1")
        .says("not stopped");
    yard.say("delete --regex -- -1$").exits(1).says("container db-1");
    // One that cannot be deleted does not keep the others.
    let mut left = names(&yard.path("root"));
    left.sort();
    assert_eq!(left, ["db-1", "web-2"]);
    yard.say("delete --regex (")
        .exits(1)
        .says("invalid regular expression (");
    yard.say("delete --regex nothing").ok();
    yard.say("delete -f --regex (web|db)-*").ok();
    yard.nothing_left();
}

#[test]
fn who_asks_during_create_hears_of_a_container_that_is_there() {
    let Some(yard) = Yard::new() else { return };
    for turn in 0..10 {
        let id = format!("a{turn}");
        let log = fs::File::create(yard.path("log")).unwrap();
        let mut creator = yard.command(&["create", &id]);
        creator
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let mut creator = creator.spawn().unwrap();
        let first = loop {
            let asked = yard.say(&format!("state {id}"));
            if asked.code == 0 {
                break asked;
            }
            asked.says("container does not exist");
        };
        let state: Value = serde_json::from_str(&first.ok()).unwrap();
        assert_eq!(state["status"], "created");
        yard.say(&format!("start {id}")).ok();
        assert!(creator.wait().unwrap().success());
        yard.say(&format!("delete --force {id}")).ok();
    }
    yard.nothing_left();
}

#[test]
fn a_state_waits_for_a_creator_and_for_no_longer() {
    let Some(yard) = Yard::new() else { return };
    let folder = yard.path("root/a");
    fs::create_dir_all(&folder).unwrap();
    let creator = fs::File::open(&folder).unwrap();
    flock(&creator, FlockOperation::LockExclusive).unwrap();
    let mut asked = yard.command(&["state", "a"]);
    let mut asked = asked.stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(asked.try_wait().unwrap(), None, "it did not wait");
    let freed = Instant::now();
    drop(creator);
    assert!(asked.wait().unwrap().success());
    assert!(freed.elapsed() < Duration::from_secs(2));
    yard.say("delete a").ok();
    // A hook that asks is answered at once: create waits for the hook.
    let root = yard.path("root").display().to_string();
    let program = crate::world::binary().display().to_string();
    let asks = format!("{program} runtime --root {root} state a >{root}/../answer");
    yard.config(|config| config["hooks"] = json!({ "createRuntime": [yard.hook("createRuntime", &asks)] }));
    yard.create("a");
    let answer: Value = serde_json::from_slice(&fs::read(yard.path("answer")).unwrap()).unwrap();
    assert_eq!(answer["status"], "creating");
    yard.say("delete a").ok();
    yard.nothing_left();
}

#[test]
fn a_hook_without_an_environment_has_that_of_the_caller() {
    let Some(yard) = Yard::new() else { return };
    let tells = |name: &str, env: Value| {
        let path = yard.path(name).display().to_string();
        let mut hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", format!("echo \"$WORD\" >{path}")] });
        if !env.is_null() {
            hook["env"] = env;
        }
        hook
    };
    yard.config(|config| {
        config["hooks"] = json!({
            "createRuntime": [tells("bare", Value::Null), tells("own", json!(["WORD=hook"]))],
            "poststart": [tells("late", Value::Null)],
            "poststop": [tells("last", Value::Null)],
        });
    });
    for verb in ["create a", "start a", "delete --force a"] {
        let mut command = yard.command(&verb.split(' ').collect::<Vec<_>>());
        let log = fs::File::create(yard.path("log")).unwrap();
        command
            .env("WORD", verb)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        assert!(command.status().unwrap().success());
    }
    for (name, word) in [
        ("bare", "create a"),
        ("own", "hook"),
        ("late", "start a"),
        ("last", "delete --force a"),
    ] {
        assert_eq!(
            fs::read_to_string(yard.path(name)).unwrap().trim(),
            word,
            "{name}"
        );
    }
    yard.nothing_left();
}

#[test]
fn all_last_hooks_run_whatever_becomes_of_the_others() {
    let Some(yard) = Yard::new() else { return };
    let bad = json!({ "path": "/bin/sh", "args": ["sh", "-c", "exit 3"] });
    let set = |program: &str| {
        fs::write(yard.path("trace"), "").unwrap();
        yard.config(|config| {
            config["process"]["args"] = json!([program]);
            config["hooks"] = json!({ "poststop": [bad, { "path": "/nope" }, yard.hook("last", "true")] });
        });
    };
    set("true");
    let ran = yard
        .say("run a")
        .exits(0)
        .says("error running poststop hook #0: exit status 3");
    ran.says("poststop hook #1").says("no such file");
    assert_eq!(yard.trace().len(), 1);
    yard.nothing_left();
    set("true");
    yard.say_as_crun("run a")
        .exits(0)
        .says("level=warning")
        .says("poststop hook failed with exit code: 3");
    assert_eq!(yard.trace().len(), 1);
}

#[test]
fn a_start_whose_last_hook_fails_leaves_no_container_to_crun() {
    let Some(yard) = Yard::new() else { return };
    yard.config(|config| config["hooks"] = json!({ "poststart": [{ "path": "/bin/false" }] }));
    yard.create("a");
    yard.say_as_crun("start a")
        .exits(1)
        .says("error running poststart hook #0");
    yard.say_as_crun("state a").exits(1).says("does not exist");
    yard.nothing_left();
}

#[test]
fn annotations_of_hooks_lead_their_output_into_files() {
    let Some(yard) = Yard::new() else { return };
    let (out, err) = (
        yard.path("out").display().to_string(),
        yard.path("err").display().to_string(),
    );
    let says = |word: &str| json!({ "path": "/bin/sh", "args": ["sh", "-c", format!("echo {word}; echo not {word} >&2")] });
    yard.config(|config| {
        config["process"]["args"] = json!(["true"]);
        config["annotations"] = json!({ "run.oci.hooks.stdout": out, "run.oci.hooks.stderr": err });
        config["hooks"] = json!({
            "createRuntime": [says("one")], "createContainer": [says("two")], "startContainer": [says("three")],
            "poststart": [says("four")], "poststop": [says("five")],
        });
    });
    // They belong to crun: whoever calls it otherwise has not asked for a file of the host to be written.
    yard.say("run a").ok();
    assert!(!Path::new(&out).exists());
    yard.say_as_crun("run a").ok();
    assert_eq!(fs::read_to_string(&out).unwrap(), "one\ntwo\nthree\nfour\nfive\n");
    assert_eq!(fs::read_to_string(&err).unwrap().lines().count(), 5);
    yard.config(|config| config["annotations"] = json!({ "run.oci.hooks.stdout": "/nope/out" }));
    yard.say_as_crun("run a").exits(1).says("open /nope/out");
    yard.nothing_left();
}

#[test]
fn annotations_of_crun_are_done_or_refused_by_name() {
    let Some(yard) = Yard::new() else { return };
    for (name, value) in [
        ("run.oci.handler", "krun"),
        ("run.oci.seccomp.plugins", "/a.so"),
        ("run.oci.seccomp_bpf_data", "BgAAAAAA/38="),
        ("run.oci.systemd.force_cgroup_v1", "/sys/fs/cgroup"),
        ("run.oci.systemd.subgroup", "below"),
        ("run.oci.delegate-cgroup", "below"),
        ("run.oci.mount_context_type", "rootcontext"),
    ] {
        yard.config(|config| config["annotations"] = json!({ name: value }));
        yard.say_as_crun("run a")
            .exits(1)
            .says(&format!("annotation {name}={value} is not supported"));
    }
    yard.sh("echo fine");
    let harmless =
        json!({ "run.oci.systemd.subgroup": "", "run.oci.mount_context_type": "context", "other": "x" });
    yard.config(|config| {
        config["process"]["args"] = json!(["echo", "fine"]);
        config["annotations"] = harmless;
    });
    assert_eq!(yard.say_as_crun("run a").ok(), "fine");
    // A name that no kernel has is passed over, unless asked not to.
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["getcwd", "no_such_call"], "action": "SCMP_ACT_LOG" }] });
    for (annotations, code) in [
        (json!({}), 0),
        (json!({ "run.oci.seccomp_fail_unknown_syscall": "1" }), 1),
    ] {
        yard.config(|config| {
            config["process"]["args"] = json!(["true"]);
            config["linux"]["seccomp"] = profile.clone();
            config["annotations"] = annotations;
        });
        let ran = yard.say_as_crun("run a").exits(code);
        assert_eq!(ran.stderr.contains("no_such_call"), code == 1, "{ran:?}");
    }
    yard.nothing_left();
}

#[test]
fn the_groups_of_the_caller_are_kept_when_crun_is_asked_to() {
    let Some(yard) = Yard::new() else { return };
    if !program("setpriv") {
        return;
    }
    let with_groups = |command: Command| {
        let mut outer = Command::new("setpriv");
        outer.args(["--groups", "7,8"]).arg("sh").arg("-c");
        let words: Vec<_> = command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let folder = yard.path("crun");
        if !folder.exists() {
            std::os::unix::fs::symlink(crate::world::binary(), &folder).unwrap();
        }
        outer.arg(format!("exec {} {}", folder.display(), words.join(" ")));
        outer.current_dir(yard.path("bundle"));
        finish(outer, Vec::new())
    };
    let users = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    for (annotation, own_users, expected) in [
        (true, false, "0 7 8"),
        (false, false, "0"),
        (true, true, "0 65534 65534"),
    ] {
        yard.config(|config| {
            config["process"]["args"] = json!(["sh", "-c", "echo $(id -G)"]);
            config["root"]["readonly"] = json!(true);
            if annotation {
                config["annotations"] = json!({ "run.oci.keep_original_groups": "1" });
            }
            if own_users {
                config["linux"]["namespaces"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({ "type": "user" }));
                config["linux"]["uidMappings"] = users.clone();
                config["linux"]["gidMappings"] = users.clone();
            }
        });
        fs::set_permissions(yard.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(with_groups(yard.crun("run a")).ok(), expected);
    }
    yard.nothing_left();
}

#[test]
fn a_receiver_gets_the_process_of_a_container() {
    let Some(yard) = Yard::new() else { return };
    let path = yard.path("receiver");
    let listener = UnixListener::bind(&path).unwrap();
    yard.config(|config| config["annotations"] = json!({ "run.oci.pidfd_receiver": path }));
    yard.begin(yard.crun("run -d a"));
    let (stream, _) = listener.accept().unwrap();
    let mut word = [0; 16];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let flags = rustix::net::RecvFlags::CMSG_CLOEXEC;
    let parts = &mut [std::io::IoSliceMut::new(&mut word)];
    rustix::net::recvmsg(&stream, parts, &mut control, flags).unwrap();
    let fds: Vec<_> = control
        .drain()
        .filter_map(|message| match message {
            rustix::net::RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(fds.len(), 1);
    let about = fs::read_to_string(format!(
        "/proc/self/fdinfo/{}",
        std::os::fd::AsRawFd::as_raw_fd(&fds[0])
    ));
    assert!(about.unwrap().contains(&format!("Pid:\t{}", yard.pid("a"))));
    yard.say_as_crun("delete -f a").ok();
    yard.nothing_left();
}

#[test]
fn crun_knows_its_options_and_documents() {
    let Some(yard) = Yard::new() else { return };
    let version = yard.say_as_crun("--version").ok();
    assert!(
        version.starts_with("crun version ") && version.contains("\nspec: 1."),
        "{version}"
    );
    assert!(
        version
            .lines()
            .any(|line| line.starts_with('+') && line.contains("+SECCOMP")),
        "{version}"
    );
    let document: Value = serde_json::from_str(&yard.say_as_crun("features").ok()).unwrap();
    let unsafe_ones = document["potentiallyUnsafeConfigAnnotations"].as_array().unwrap();
    assert!(unsafe_ones.contains(&json!("run.oci.")), "{unsafe_ones:?}");
    let plain: Value = serde_json::from_str(&yard.say("features").ok()).unwrap();
    assert!(!plain.to_string().contains("run.oci."), "{plain}");
    for id in [".a", "..", "."] {
        yard.say_as_crun(&format!("run {id}"))
            .exits(1)
            .says("invalid container ID");
    }
    let log = yard.path("log");
    yard.say_as_crun(&format!("--log file:{} start nobody", log.display()))
        .exits(1);
    assert!(fs::read_to_string(&log).unwrap().contains("does not exist"));
    yard.say_as_crun("--log journald:x start nobody")
        .exits(1)
        .says("journald: is not supported");
    // Warnings are left out when only errors are wanted.
    yard.config(|config| {
        config["process"]["args"] = json!(["true"]);
        config["hooks"] = json!({ "poststop": [{ "path": "/bin/false" }] });
    });
    assert_eq!(yard.say_as_crun("--log-level error run a").exits(0).stderr, "");
    yard.say_as_crun("--log-level warning run a")
        .exits(0)
        .says("poststop hook failed");
    yard.say_as_crun("--log-level loud run a")
        .exits(1)
        .says("invalid log-level: loud");
    yard.nothing_left();
}

#[test]
fn crun_writes_its_own_file_about_a_container() {
    let Some(yard) = Yard::new() else { return };
    yard.config(|_| {});
    yard.begin(yard.crun("run -d a"));
    let status: Value = serde_json::from_slice(&fs::read(yard.path("root/a/status")).unwrap()).unwrap();
    assert_eq!(status["pid"], yard.pid("a"));
    assert_eq!(status["cgroup-path"], format!("/{}", yard.id));
    assert_eq!(status["owner"], "root");
    assert_eq!(status["detached"], true);
    let streams: Vec<String> =
        serde_json::from_str(status["external_descriptors"].as_str().unwrap()).unwrap();
    assert_eq!(streams.len(), 3);
    assert!(streams[1].ends_with("/log"), "{streams:?}");
    yard.say_as_crun("delete -f a").ok();
    yard.nothing_left();
}

#[test]
fn crun_passes_sockets_that_its_caller_got() {
    let Some(yard) = Yard::new() else { return };
    yard.sh("echo $LISTEN_FDS $LISTEN_PID");
    for (pid, crun, expected) in [
        (None, true, "1 1"),
        (Some("1"), true, "1 1"),
        (Some("1"), false, ""),
    ] {
        let mut command = if crun {
            yard.crun("run a")
        } else {
            yard.command(&["run", "a"])
        };
        command.env("LISTEN_FDS", "1").env_remove("LISTEN_PID");
        if let Some(pid) = pid {
            command.env("LISTEN_PID", pid);
        }
        assert_eq!(finish(command, Vec::new()).ok(), expected);
    }
    yard.nothing_left();
}

#[test]
fn crun_gives_the_place_of_the_supervisors_socket_to_the_program() {
    let Some(yard) = Yard::new() else { return };
    yard.sh("echo $NOTIFY_SOCKET; ls ${NOTIFY_SOCKET%/*}");
    std::os::unix::fs::symlink("busybox", yard.path("bundle/rootfs/bin/ls")).unwrap();
    let mut command = yard.crun("run a");
    command.env("NOTIFY_SOCKET", "/tmp/nobody/listens");
    let ran = finish(command, Vec::new()).exits(0).says("/tmp/nobody/listens");
    assert_eq!(ran.stdout, "/tmp/nobody/listens/notify.sock\nnotify.sock\n");
    let mut command = yard.command(&["run", "a"]);
    command.env("NOTIFY_SOCKET", "/tmp/nobody/listens");
    finish(command, Vec::new()).exits(1).says("dial unixgram");
    yard.nothing_left();
}

#[test]
fn a_node_that_the_host_has_not_is_there_in_a_user_namespace() {
    let Some(yard) = Yard::new() else { return };
    let ids = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    fs::set_permissions(yard.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let set = |device: Value, script: &str| {
        yard.config(|config| {
            config["process"]["args"] = json!(["sh", "-c", script]);
            config["linux"]["namespaces"]
                .as_array_mut()
                .unwrap()
                .push(json!({ "type": "user" }));
            config["linux"]["uidMappings"] = ids.clone();
            config["linux"]["gidMappings"] = ids.clone();
            config["linux"]["devices"] = json!([device]);
        });
    };
    for name in ["stat", "wc", "head"] {
        std::os::unix::fs::symlink("busybox", yard.path("bundle/rootfs/bin").join(name)).unwrap();
    }
    let zero = json!({ "path": "/dev/inner/none", "type": "c", "major": 1, "minor": 5, "fileMode": 0o644, "uid": 10, "gid": 11 });
    set(
        zero,
        "stat -c '%F %a %u:%g %t,%T' /dev/inner/none; head -c 4 /dev/inner/none | wc -c",
    );
    assert_eq!(yard.say("run a").ok(), "character special file 644 10:11 1,5\n4");
    // Of an owner that the container's ids do not include, the host's node is the one to bind: none is there.
    let strange = json!({ "path": "/dev/none", "type": "c", "major": 1, "minor": 5, "uid": 70_000 });
    set(strange, "true");
    yard.say("run a")
        .exits(1)
        .says("unable to make device node /dev/none");
    // One that is not known to the host's user is no node of the host.
    let null = json!({ "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600 });
    set(null, "stat -c '%a %u' /dev/null; stat -c %u /dev/zero");
    assert_eq!(yard.say("run a").ok(), "600 0\n65534");
    yard.nothing_left();
}

#[test]
fn a_process_in_a_frozen_group_of_somebody_else_is_deleted() {
    let Some(yard) = Yard::new() else { return };
    let freezer = Path::new("/sys/fs/cgroup/freezer");
    if !freezer.join("cgroup.procs").exists() {
        println!("skipped: no freezer of control groups version 1 here (in version 2 the frozen die)");
        return;
    }
    yard.config(|_| {});
    yard.begin(yard.command(&["run", "-d", "a"]));
    let other = freezer.join(format!("{}-frozen", yard.id));
    fs::create_dir(&other).unwrap();
    fs::write(other.join("cgroup.procs"), yard.pid("a").to_string()).unwrap();
    fs::write(other.join("freezer.state"), "FROZEN").unwrap();
    let began = Instant::now();
    let deleted = yard.say("delete --force a");
    let removed = fs::remove_dir(&other);
    if removed.is_err() {
        fs::write(other.join("freezer.state"), "THAWED").unwrap();
        eventually("the group is empty", || fs::remove_dir(&other).is_ok());
    }
    deleted.ok();
    removed.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    yard.nothing_left();
}

#[test]
fn an_agent_that_is_named_hears_of_every_container_of_crun() {
    let Some(yard) = Yard::new() else { return };
    let path = yard.path("agent");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let set = |annotations: Value, agent: Value| {
        yard.config(|config| {
            config["process"]["args"] = json!(["true"]);
            config["annotations"] = annotations;
            config["linux"]["seccomp"] =
                json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "words" });
            if !agent.is_null() {
                config["linux"]["seccomp"]["listenerPath"] = agent;
            }
        });
    };
    let heard = || {
        let (mut stream, _) = listener.accept().ok()?;
        stream.set_nonblocking(false).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
        Some(serde_json::from_str::<Value>(&text).unwrap())
    };
    // The standard speaks of an agent only where a rule asks one.
    set(json!({}), json!(path));
    yard.say("run a").ok();
    assert!(heard().is_none());
    for (annotations, agent) in [
        (json!({}), json!(path)),
        (json!({ "run.oci.seccomp.receiver": path }), Value::Null),
    ] {
        set(annotations, agent);
        yard.say_as_crun("run a").ok();
        let message = heard().unwrap();
        assert_eq!(message["metadata"], "words");
        assert_eq!(message["fds"], json!(["seccompFd"]));
        assert_eq!(message["state"]["id"], "a");
    }
    set(json!({ "run.oci.seccomp.receiver": "relative" }), Value::Null);
    yard.say_as_crun("run a").exits(1).says("not an absolute path");
    yard.nothing_left();
}
