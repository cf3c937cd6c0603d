//! `kill -9` of the runtime at its system calls, one after the other: what it leaves, `delete --force` takes away whole.
//!
//! strace delivers the signal when the n-th call of a name is entered. By default every eleventh point is tried, at another
//! beginning for each verb; `DHOW_KILL_STEP=1` tries all.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::world::{PATIENCE, groups, names, program, wait};
use crate::yard::Yard;

/// A command of the runtime with its output in a file, since a container may keep it.
fn quiet(mut command: Command, yard: &Yard) -> i32 {
    let log = fs::File::create(yard.path("log")).unwrap();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    wait(&mut command.spawn().unwrap(), PATIENCE).expect("what may be killed ends")
}

/// The command under strace with these options.
fn traced(yard: &Yard, options: &[&str], verb: &[&str]) -> Command {
    let plain = yard.command(verb);
    let mut command = Command::new("strace");
    command
        .args(options)
        .arg(plain.get_program())
        .args(plain.get_args());
    command
        .current_dir(yard.path("bundle"))
        .env_remove("NOTIFY_SOCKET");
    command
}

/// The system calls of a command: how often each.
fn calls(yard: &Yard, verb: &[&str]) -> Vec<(String, usize)> {
    let trace = yard.path("calls").display().to_string();
    assert_eq!(
        quiet(traced(yard, &["-o", &trace], verb), yard),
        0,
        "{}",
        fs::read_to_string(yard.path("log")).unwrap()
    );
    let mut counts = BTreeMap::<String, usize>::new();
    for line in fs::read_to_string(&trace).unwrap().lines() {
        let name = line.split('(').next().unwrap_or_default();
        if name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && name != "execve"
        {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
    }
    counts
        .into_iter()
        .flat_map(|(name, count)| (1..=count).map(move |at| (name.clone(), at)))
        .collect()
}

/// Whatever of the yard's containers is there: folders, control groups, processes, mounts.
fn left(yard: &Yard) -> Vec<String> {
    let folder = yard.path("").display().to_string();
    let folder = folder.trim_end_matches('/').to_owned();
    let mut left = names(&yard.path("root"));
    left.extend(groups(&yard.id));
    for pid in names(Path::new("/proc")) {
        let read = |file: &str| {
            let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&text).replace('\0', " ")
        };
        let line = read("cmdline");
        if line.contains(&format!("--root {folder}/root"))
            || read("environ").contains(&format!("YARD={}", yard.id))
        {
            left.push(format!("{pid}: {line}"));
        }
    }
    left.extend(crate::world::mounts(&folder));
    left
}

/// Kills the verb at its calls; `prepare` brings the container where the verb finds it.
fn kill_at_all_calls(yard: &Yard, verb: &[&str], offset: usize, prepare: impl Fn()) {
    prepare();
    let points = calls(yard, verb);
    yard.say("delete --force a").exits_any();
    let step = std::env::var("DHOW_KILL_STEP")
        .ok()
        .and_then(|step| step.parse().ok())
        .unwrap_or(11);
    for (call, at) in points.iter().skip(offset % step).step_by(step) {
        prepare();
        let inject = format!("inject={call}:signal=KILL:when={at}");
        quiet(traced(yard, &["-o", "/dev/null", "-e", &inject], verb), yard);
        yard.say("delete --force a").exits(0);
        // A first process whose creator is gone ends by itself, a moment later.
        let deadline = Instant::now() + PATIENCE;
        while !left(yard).is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(left(yard), Vec::<String>::new(), "{verb:?} killed at {call} {at}");
    }
    eprintln!("{verb:?}: {} points, every {step}.", points.len());
}

fn yard() -> Option<Yard> {
    if !program("strace") {
        return None;
    }
    let yard = Yard::new()?;
    yard.config(|config| {
        // By which its processes are known.
        config["process"]["env"] = json!(["PATH=/bin", format!("YARD={}", yard.id)]);
        config["linux"]["resources"] = json!({ "memory": { "limit": 64 << 20 } });
        let hook = json!({ "path": "/bin/true" });
        config["hooks"] = json!({ "createRuntime": [hook], "poststart": [hook], "poststop": [hook] });
    });
    Some(yard)
}

#[test]
fn a_killed_create_leaves_nothing_that_delete_does_not_take() {
    let Some(yard) = yard() else { return };
    kill_at_all_calls(&yard, &["create", "a"], 0, || ());
    kill_at_all_calls(&yard, &["run", "-d", "a"], 5, || ());
    yard.nothing_left();
}

#[test]
fn a_killed_create_with_a_user_namespace_leaves_nothing_either() {
    let Some(yard) = yard() else { return };
    let text = fs::read_to_string(yard.path("bundle/config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
    (config["linux"]["uidMappings"], config["linux"]["gidMappings"]) = (map.clone(), map);
    config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "type": "user" }));
    fs::write(yard.path("bundle/config.json"), config.to_string()).unwrap();
    kill_at_all_calls(&yard, &["create", "a"], 3, || ());
    yard.nothing_left();
}

#[test]
fn a_killed_start_exec_kill_or_delete_can_be_followed_by_delete() {
    let Some(yard) = yard() else { return };
    let created = || yard.create("a");
    let running = || {
        created();
        yard.say("start a").ok();
    };
    kill_at_all_calls(&yard, &["start", "a"], 1, created);
    kill_at_all_calls(&yard, &["exec", "a", "true"], 2, running);
    kill_at_all_calls(&yard, &["kill", "a", "KILL"], 3, running);
    kill_at_all_calls(&yard, &["delete", "--force", "a"], 4, running);
    kill_at_all_calls(&yard, &["update", "--memory", "80M", "a"], 6, running);
    kill_at_all_calls(&yard, &["pause", "a"], 7, running);
    yard.nothing_left();
}

#[test]
fn a_killed_checkpoint_or_restore_can_be_followed_by_delete() {
    let Some(yard) = yard() else { return };
    if !program("criu") {
        return;
    }
    let images = yard.path("images").display().to_string();
    let running = || {
        yard.create("a");
        yard.say("start a").ok();
    };
    let checkpoint = ["checkpoint", "--image-path", &images, "a"];
    running();
    let dumped = quiet(yard.command(&checkpoint), &yard);
    yard.say("delete --force a").exits_any();
    if dumped != 0 {
        println!(
            "skipped: criu cannot dump here: {}",
            fs::read_to_string(yard.path("log")).unwrap()
        );
        return;
    }
    let kept = yard.path("kept");
    fs::rename(yard.path("images"), &kept).unwrap();
    kill_at_all_calls(&yard, &checkpoint, 8, || {
        drop(fs::remove_dir_all(yard.path("images")));
        running();
    });
    let kept = kept.display().to_string();
    kill_at_all_calls(
        &yard,
        &["restore", "--detach", "--image-path", &kept, "a"],
        9,
        || (),
    );
    yard.nothing_left();
}
