//! Filters: what they refuse, and the agent that some calls are asked of.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use dhow_oci::runtime::{Seccomp, Spec, State, SyscallRule};
use dhow_runtime::{Create, Plan, Rootfs, Settings, create, run};
use dhow_types::ErrorKind;

use super::tests;
use crate::fixture::{Image, chain, finish, linux, null_stdio, piped, process};

tests! {
    an_agent_answers_the_calls_of_the_container
    an_agent_may_be_asked_about_everything_between_filter_and_program
    an_agent_answers_for_a_process_that_joins
    an_agent_gets_the_listener_when_a_created_container_starts
    the_listener_is_not_in_the_container
    an_agent_that_is_not_there_ends_the_container
    a_filter_that_asks_needs_to_know_whom
    an_empty_filter_is_none
    an_errno_of_the_profile_is_what_the_program_sees
}

/// An agent in a process of its own, which ends with it.
struct Agent {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Agent {
    /// None, said, where there is no Python to run it.
    fn start(image: &Image) -> Option<Self> {
        let folder = image.beside("agent");
        let (socket, log) = (folder.join("socket"), folder.join("log"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixture/agent.py");
        let Ok(child) = Command::new("python3").arg(script).arg(&socket).arg(&log).spawn() else {
            println!("skipped: the agent needs python3");
            return None;
        };
        let agent = Self { child, socket, log };
        agent.said("ready");
        Some(agent)
    }

    /// Waits until it wrote this; all that it wrote.
    fn said(&self, word: &str) -> String {
        let start = Instant::now();
        loop {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            if log.contains(word) {
                return log;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "no {word:?}: {log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A spec whose process asks it about these calls.
    fn spec(&self, script: &str, calls: &[&str], no_new_privileges: bool) -> Spec {
        Image::shell(script, |spec| {
            process(spec).no_new_privileges = no_new_privileges;
            linux(spec).seccomp = Some(asking(calls, Some(self.socket.clone())));
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn asking(calls: &[&str], listener_path: Option<PathBuf>) -> Seccomp {
    Seccomp {
        default_action: "SCMP_ACT_ALLOW".to_owned(),
        listener_path,
        listener_metadata: Some("about it".to_owned()),
        syscalls: vec![SyscallRule {
            names: calls.iter().map(|name| (*name).to_owned()).collect(),
            action: "SCMP_ACT_NOTIFY".to_owned(),
            ..SyscallRule::default()
        }],
        ..Seccomp::default()
    }
}

/// Runs a spec with a state; exit code and output.
fn run_with_state(image: &Image, spec: &Spec) -> (u8, String) {
    let state = State {
        oci_version: "1.3.0".to_owned(),
        id: "asked".to_owned(),
        status: "creating".to_owned(),
        ..State::default()
    };
    let plan = Plan::prepare(spec, &Settings::default()).unwrap();
    let (stdio, output) = piped();
    let running = run(Create {
        plan: &plan,
        rootfs: Rootfs::Path(image.root()),
        stdio,
        group: None,
        namespaces: Vec::new(),
        state: Some(&state),
    })
    .unwrap_or_else(|error| panic!("{}", chain(&error)));
    let outcome = finish(&running, output);
    (outcome.code, outcome.out)
}

fn an_agent_answers_the_calls_of_the_container() {
    let image = Image::new();
    let Some(agent) = Agent::start(&image) else { return };
    for no_new_privileges in [true, false] {
        let spec = agent.spec("mkdir /tmp/a 2>&1", &["mkdir", "mkdirat"], no_new_privileges);
        let (code, out) = run_with_state(&image, &spec);
        assert!(
            code != 0 && out.to_lowercase().contains("cross-device"),
            "{code} {out}"
        );
    }
    let log = agent.said("call");
    let state = log.lines().find_map(|line| line.strip_prefix("state ")).unwrap();
    let (state, fds) = state.rsplit_once(' ').unwrap();
    let state: serde_json::Value = serde_json::from_str(state).unwrap();
    assert_eq!(fds, "1");
    assert_eq!(state["fds"], serde_json::json!(["seccompFd"]));
    assert_eq!(state["metadata"], "about it");
    assert_eq!(
        (&state["state"]["id"], &state["state"]["status"]),
        (&"asked".into(), &"creating".into())
    );
    assert_eq!(state["pid"], state["state"]["pid"]);
    assert!(state["pid"].as_i64().unwrap() > 1, "{state}");
}

fn an_agent_may_be_asked_about_everything_between_filter_and_program() {
    let image = Image::new();
    let Some(agent) = Agent::start(&image) else { return };
    let calls = [
        "read",
        "sendmsg",
        "recvmsg",
        "close",
        "fcntl",
        "openat",
        "memfd_create",
        "execve",
        "execveat",
        "prctl",
        "capset",
        "capget",
    ];
    for no_new_privileges in [true, false] {
        let (code, out) = run_with_state(&image, &agent.spec("echo done", &calls, no_new_privileges));
        assert_eq!((code, out.as_str()), (0, "done\n"));
    }
}

fn an_agent_answers_for_a_process_that_joins() {
    let image = Image::new();
    let Some(agent) = Agent::start(&image) else { return };
    let sleeper = image.sleeping(|_| ());
    let profile = asking(&["mkdir", "mkdirat"], Some(agent.socket.clone()));
    let mut spec = Image::shell("mkdir /tmp/b", |_| ());
    let state = State {
        id: "joined".to_owned(),
        pid: sleeper.0.pid,
        ..State::default()
    };
    let (stdio, output) = piped();
    let running = dhow_runtime::exec(dhow_runtime::Exec {
        init: std::os::fd::AsFd::as_fd(&sleeper.0.pidfd),
        process: process(&mut spec),
        seccomp: Some(&profile),
        linux: None,
        annotations: None,
        group: None,
        stdio,
        settings: &Settings::default(),
        state: Some(&state),
    })
    .unwrap();
    assert_ne!(finish(&running, output).code, 0);
    let log = agent.said("call");
    assert!(
        log.contains(&format!("\"pid\":{},\"metadata\"", running.pid)),
        "{log}"
    );
    assert!(log.contains(&format!("\"pid\":{}", sleeper.0.pid)), "{log}");
}

fn an_agent_gets_the_listener_when_a_created_container_starts() {
    let image = Image::new();
    let Some(agent) = Agent::start(&image) else { return };
    let plan = Plan::prepare(
        &agent.spec("mkdir /tmp/c", &["mkdir", "mkdirat"], true),
        &Settings::default(),
    )
    .unwrap();
    let created = create(Create {
        plan: &plan,
        rootfs: Rootfs::Path(image.root()),
        stdio: null_stdio(),
        group: None,
        namespaces: Vec::new(),
        state: None,
    })
    .unwrap();
    let running = created.start().unwrap();
    assert_ne!(
        dhow_runtime::wait(std::os::fd::AsFd::as_fd(&running.pidfd))
            .unwrap()
            .code(),
        0
    );
    agent.said("call");
}

fn the_listener_is_not_in_the_container() {
    let image = Image::new();
    let Some(agent) = Agent::start(&image) else { return };
    let spec = agent.spec("ls -l /proc/self/fd; ls -l /proc/1/fd", &["mkdir"], true);
    let (_, out) = run_with_state(&image, &spec);
    assert!(!out.contains("seccomp"), "{out}");
}

fn an_agent_that_is_not_there_ends_the_container() {
    let image = Image::new();
    for path in ["/nowhere/agent.sock", "@dhow-nobody-listens", &"/long".repeat(50)] {
        let spec = Image::shell("echo ran", |spec| {
            linux(spec).seccomp = Some(asking(&["mkdir"], Some(path.into())));
        });
        let (_, message) = image.refused(&spec);
        assert!(
            message.contains("failed to connect with seccomp agent"),
            "{message}"
        );
    }
}

fn a_filter_that_asks_needs_to_know_whom() {
    let image = Image::new();
    let (kind, message) = image.refused(&Image::shell("true", |spec| {
        linux(spec).seccomp = Some(asking(&["mkdir"], None));
    }));
    assert_eq!(kind, ErrorKind::InvalidArgument);
    assert!(message.contains("listenerPath"), "{message}");
    let (_, message) = image.refused(&Image::shell("true", |spec| {
        linux(spec).seccomp = Some(asking(&["write"], Some("/x".into())));
    }));
    assert!(
        message.contains("SCMP_ACT_NOTIFY cannot be used for the write syscall"),
        "{message}"
    );
    // Nobody is asked, so nobody has to be there.
    let out = image.sh("echo fine", |spec| {
        linux(spec).seccomp.as_mut().unwrap().listener_path = Some("/nowhere".into());
    });
    assert_eq!(out, "fine\n");
}

fn an_empty_filter_is_none() {
    let image = Image::new();
    let out = image.sh("grep Seccomp: /proc/self/status", |spec| {
        linux(spec).seccomp = Some(Seccomp::default())
    });
    assert_eq!(out, "Seccomp:\t0\n");
}

fn an_errno_of_the_profile_is_what_the_program_sees() {
    let image = Image::new();
    let out = image.sh("mkdir /tmp/d 2>&1; true", |spec| {
        let mut profile = asking(&["mkdir", "mkdirat"], None);
        profile.syscalls[0].action = "SCMP_ACT_ERRNO".to_owned();
        profile.syscalls[0].errno_ret = Some(libc::ENOSPC.cast_unsigned());
        linux(spec).seccomp = Some(profile);
    });
    assert!(out.contains("No space left"), "{out}");
}
