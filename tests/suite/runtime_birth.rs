//! A container between `create` and its program: what hooks find, what the process that waits still holds, what is said
//! when the program cannot be executed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::world::program;
use crate::yard::Yard;

#[test]
fn a_process_that_waits_for_its_start_holds_nothing_of_the_host() {
    let Some(yard) = Yard::new() else { return };
    yard.create("a");
    let folder = format!("/proc/{}/fd", yard.pid("a"));
    let mut held = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let target = fs::read_link(format!("{folder}/{name}")).unwrap();
        let number: u32 = name.parse().unwrap();
        if number > 2 {
            held.push(target.to_string_lossy().into_owned());
        }
    }
    // A file of a control group or a folder of the host would keep what it is in busy for as long as nobody starts it.
    let harmless = |target: &&String| target.starts_with("socket:[") || target.starts_with("anon_inode:");
    assert!(
        !held.is_empty() && held.iter().all(|target| harmless(&target)),
        "{held:?}"
    );
    yard.say("start a").ok();
    assert_eq!(yard.status("a"), "running");
    yard.say("delete --force a").ok();
    yard.nothing_left();
}

#[test]
fn descriptors_that_are_passed_on_outlive_the_wait() {
    let Some(yard) = Yard::new() else { return };
    yard.sh("cat <&3 >/tmp/passed; sleep 1000");
    let passed = yard.path("passed");
    fs::write(&passed, "content").unwrap();
    let mut command = std::process::Command::new("sh");
    let script = format!(
        "exec {} runtime --root {} create --preserve-fds 1 a 3<{} </dev/null >/dev/null 2>&1",
        crate::world::binary().display(),
        yard.path("root").display(),
        passed.display()
    );
    command.args(["-c", &script]).current_dir(yard.path("bundle"));
    assert!(command.status().unwrap().success());
    yard.say("start a").ok();
    let inside = yard.path("bundle/rootfs/tmp/passed");
    crate::world::eventually("it read the descriptor", || {
        fs::read_to_string(&inside).is_ok_and(|text| text == "content")
    });
    yard.say("delete --force a").ok();
    yard.nothing_left();
}

#[test]
fn hooks_reach_the_root_by_its_path_on_the_host_and_may_write_a_read_only_one() {
    let Some(yard) = Yard::new() else { return };
    if !program("nsenter") {
        return;
    }
    let root = yard.path("bundle/rootfs").display().to_string();
    let given = yard.path("given");
    fs::write(&given, "by a hook\n").unwrap();
    let given = given.display();
    // As hooks that bring drivers do it: into the container's mount namespace, and there to the root of the bundle.
    let enter = format!(
        "pid=$(sed -n 's/.*\"pid\":\\([0-9]*\\).*/\\1/p'); : >{root}/etc/one; \
         nsenter -m -t $pid mount --bind {given} {root}/etc/one"
    );
    let inside = format!(": >./etc/two && mount --bind {given} ./etc/two");
    let hook = |script: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] }]);
    yard.config(|config| {
        config["hooks"] = json!({ "createRuntime": hook(&enter), "createContainer": hook(&inside) });
        config["root"]["readonly"] = json!(true);
        config["process"]["args"] = json!([
            "sh",
            "-c",
            "cat /etc/one /etc/two; echo x >/etc/x || echo refused"
        ]);
    });
    assert_eq!(yard.say("run a").ok(), "by a hook\nby a hook\nrefused");
    assert!(
        fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .lines()
            .all(|line| !line.contains(&root))
    );
    yard.nothing_left();
}

#[test]
fn a_right_to_override_modes_counts_before_the_start() {
    let Some(yard) = Yard::new() else { return };
    let script = yard.path("bundle/rootfs/bin/script");
    fs::write(&script, "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o744)).unwrap();
    let with = |sets: &[&str]| {
        yard.config(|config| {
            config["process"]["args"] = json!(["/bin/script"]);
            config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
            for set in sets {
                config["process"]["capabilities"][*set] = json!(["CAP_DAC_OVERRIDE"]);
            }
        });
    };
    with(&["bounding", "permitted"]);
    yard.say("run a").exits(1).says("permission denied");
    with(&["bounding", "permitted", "effective", "inheritable", "ambient"]);
    assert_eq!(yard.say("run a").ok(), "ran");
    yard.nothing_left();
}

#[test]
fn a_program_that_the_kernel_does_not_execute_says_so_itself() {
    let Some(yard) = Yard::new() else { return };
    let script = yard.path("bundle/rootfs/bin/script");
    fs::write(&script, "#!/nope with words\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    yard.create("a");
    yard.say("start a").ok();
    let ran = yard.say("exec a /bin/script").exits(255);
    assert_eq!(ran.stderr, "exec /bin/script: no such file or directory\n");
    // What is not there is told by the runtime, as before.
    yard.say("exec a /bin/nope")
        .exits(255)
        .says("level=error")
        .says("exec: \\\"/bin/nope\\\": stat /bin/nope: no such file or directory");
    let log = yard.path("told");
    yard.run(&[
        "--log",
        log.to_str().unwrap(),
        "--log-format",
        "json",
        "exec",
        "a",
        "/bin/script",
    ])
    .exits(255);
    let told = fs::read_to_string(&log).unwrap();
    assert!(
        told.contains(r#""msg":"exec /bin/script: no such file or directory""#),
        "{told}"
    );
    yard.say("delete --force a").ok();
    yard.config(|config| config["process"]["args"] = json!(["/bin/script"]));
    let ran = yard.say("run a").exits(1);
    assert_eq!(ran.stderr, "exec /bin/script: no such file or directory\n");
    yard.nothing_left();
}

#[test]
fn the_version_names_the_commit_and_the_standard() {
    let Some(yard) = Yard::new() else { return };
    let told = yard.run(&["--version"]).ok();
    let lines: Vec<&str> = told.lines().collect();
    let [version, commit, spec] = lines[..] else {
        panic!("{told}")
    };
    assert!(version.contains(" version "), "{told}");
    assert!(
        commit
            .strip_prefix("commit: ")
            .is_some_and(|commit| !commit.is_empty()),
        "{told}"
    );
    assert!(spec.starts_with("spec: 1."), "{told}");
}

#[test]
fn a_group_below_the_containers_that_exec_cannot_enter_is_told_as_by_runc() {
    let Some(yard) = Yard::new() else { return };
    yard.create("a");
    yard.say("start a").ok();
    for (group, words) in [
        ("..", " .. is not a sub cgroup path"),
        (
            "nonexistent",
            "/nonexistent/cgroup.procs: no such file or directory",
        ),
        ("nonexistent", "error adding pid "),
        ("whaaat:/", "unknown controller whaaat"),
    ] {
        yard.run(&["exec", "--cgroup", group, "a", "true"])
            .exits(255)
            .says(words);
    }
    let own = yard.say("exec a cat /proc/self/cgroup").ok();
    assert_eq!(yard.say("exec --cgroup / a cat /proc/self/cgroup").ok(), own);
    yard.say("delete --force a").ok();
    yard.nothing_left();
}

#[test]
fn a_process_is_read_from_a_pipe_whose_writer_is_late() {
    let Some(yard) = Yard::new() else { return };
    yard.create("a");
    yard.say("start a").ok();
    let process = yard.path("process.json");
    fs::write(
        &process,
        json!({ "args": ["echo", "ran"], "cwd": "/", "env": ["PATH=/bin"] }).to_string(),
    )
    .unwrap();
    let mut command = std::process::Command::new("sh");
    let script = format!(
        "{{ sleep 0.4; cat {}; }} | {} runtime --root {} exec --process /proc/self/fd/0 a",
        process.display(),
        crate::world::binary().display(),
        yard.path("root").display()
    );
    command.args(["-c", &script]);
    assert_eq!(crate::world::finish(command, Vec::new()).ok(), "ran");
    yard.say("delete --force a").ok();
    yard.nothing_left();
}

/// The filter is compiled while the folder and the control group are made.
#[test]
fn a_filter_that_cannot_be_compiled_leaves_nothing() {
    let Some(yard) = Yard::new() else { return };
    yard.config(|config| {
        config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_NOPE", "syscalls": [] });
    });
    for verb in ["create a", "run a"] {
        yard.say(verb).exits(1).says("SCMP_ACT_NOPE");
        yard.nothing_left();
    }
}
