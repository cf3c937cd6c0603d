//! The agent of a filter (`SCMP_ACT_NOTIFY`): when it hears of a container, and what of it the container's hooks see.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::runtime::receive;
use crate::world::eventually;
use crate::yard::Yard;

/// An agent that takes one listener and answers nothing; what it is told, and the listener.
fn agent(yard: &Yard) -> JoinHandle<(Value, OwnedFd)> {
    let listener = UnixListener::bind(yard.path("agent")).unwrap();
    std::thread::spawn(move || {
        let (state, fd) = receive(&listener);
        (serde_json::from_slice(&state).unwrap(), fd)
    })
}

/// A filter that asks about acct, which nothing here calls, with one more rule.
fn ask(yard: &Yard, config: &mut Value, more: Value) {
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": yard.path("agent"),
        "listenerMetadata": "about it",
        "syscalls": [{ "names": ["acct"], "action": "SCMP_ACT_NOTIFY" }, more],
    });
}

#[test]
fn an_agent_hears_of_a_container_when_it_is_created() {
    let Some(yard) = Yard::new() else { return };
    for no_new_privileges in [true, false] {
        yard.config(|config| {
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            let none = json!({ "names": ["swapon"], "action": "SCMP_ACT_ERRNO" });
            ask(&yard, config, none);
        });
        let agent = agent(&yard);
        yard.create("a");
        let (told, listener) = agent.join().unwrap();
        assert_eq!(
            (&told["state"]["id"], &told["state"]["status"], &told["metadata"]),
            (&json!("a"), &json!("creating"), &json!("about it"))
        );
        assert_eq!(told["fds"], json!(["seccompFd"]));
        assert_eq!(told["pid"], json!(yard.pid("a")));
        assert_eq!(yard.status("a"), "created");
        yard.say("start a").ok();
        assert_eq!(yard.status("a"), "running");
        yard.say("delete --force a").ok();
        drop(listener);
        fs::remove_file(yard.path("agent")).unwrap();
    }
    // One that was not started yet is ended by a signal all the same.
    let agent = agent(&yard);
    yard.create("b");
    let told = agent.join().unwrap();
    yard.say("kill b TERM").ok();
    eventually("it ends", || yard.status("b") == "stopped");
    drop(told);
    yard.say("delete b").ok();
    yard.nothing_left();
}

#[test]
fn an_agent_that_is_not_there_fails_the_creation() {
    let Some(yard) = Yard::new() else { return };
    yard.config(|config| {
        let none = json!({ "names": ["swapon"], "action": "SCMP_ACT_ERRNO" });
        ask(&yard, config, none);
    });
    yard.say("create a")
        .exits(1)
        .says("failed to connect with seccomp agent");
    yard.nothing_left();
}

#[test]
fn a_filter_under_which_a_container_could_not_wait_is_loaded_at_its_start() {
    let Some(yard) = Yard::new() else { return };
    yard.config(|config| {
        let rule = json!({ "names": ["accept4", "poll", "ppoll"], "action": "SCMP_ACT_ERRNO" });
        ask(&yard, config, rule);
    });
    let agent = agent(&yard);
    yard.create("a");
    assert_eq!(yard.status("a"), "created");
    assert!(!agent.is_finished());
    yard.say("start a").ok();
    let (told, _listener) = agent.join().unwrap();
    assert_eq!(told["pid"], json!(yard.pid("a")));
    assert_eq!(yard.status("a"), "running");
    yard.say("delete --force a").ok();
    yard.nothing_left();
}

#[test]
fn a_hook_of_the_image_is_under_the_filter_that_asks_and_has_no_descriptor_of_it() {
    let Some(yard) = Yard::new() else { return };
    yard.config(|config| {
        config["process"]["args"] = json!(["true"]);
        let none = json!({ "names": ["swapon"], "action": "SCMP_ACT_ERRNO" });
        ask(&yard, config, none);
        let script = "ls /proc/self/fd >/tmp/fds; grep Seccomp: /proc/self/status >/tmp/mode";
        config["hooks"] =
            json!({ "startContainer": [{ "path": "/bin/busybox", "args": ["sh", "-c", script] }] });
    });
    let agent = agent(&yard);
    yard.say("run a").ok();
    let _listener = agent.join().unwrap();
    let inside = |name: &str| fs::read_to_string(yard.path("bundle/rootfs/tmp").join(name)).unwrap();
    assert_eq!(inside("mode"), "Seccomp:\t2\n");
    // Three streams, and the folder that is listed.
    assert_eq!(inside("fds").lines().count(), 4, "{}", inside("fds"));
    yard.nothing_left();
}
