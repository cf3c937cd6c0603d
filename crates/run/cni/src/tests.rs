//! Chains of plugins that are scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use dhow_types::{ContainerId, ErrorKind};
use serde_json::{Map, Value, json};

use crate::{Added, Error, Place, Plugins};

/// Says what it was told, one line for each run, and gives an answer.
const USUAL: &str = r#"
config=$(cat)
echo "$CNI_COMMAND @NAME $CNI_IFNAME ${CNI_NETNS:-none} $config" >>@LOG
case $CNI_COMMAND in
ADD) printf '{"cniVersion":"1.0.0","interfaces":[{"name":"%s","mac":"02:00:00:00:00:0@N","sandbox":"%s"}],
      "ips":[{"address":"10.7.0.@N/24","gateway":"10.7.0.1","interface":0}],"by":"@NAME"}' "$CNI_IFNAME" "$CNI_NETNS" ;;
esac
"#;

struct World {
    root: tempfile::TempDir,
    plugins: Plugins,
    id: ContainerId,
}

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let below = |name: &str| root.path().join(name);
        for folder in ["lists", "programs"] {
            fs::create_dir(below(folder)).unwrap();
        }
        let plugins = Plugins {
            lists: vec![below("lists")],
            programs: vec![below("programs")],
            records: below("records"),
            patience: Duration::from_secs(20),
        };
        Self {
            plugins,
            root,
            id: ContainerId::from_random([7; 32]),
        }
    }

    fn program(&self, name: &str, script: &str) {
        let script = script
            .replace("@LOG", self.root.path().join("log").to_str().unwrap())
            .replace("@NAME", name)
            .replace("@N", &name[1..]);
        let path = self.root.path().join("programs").join(name);
        // Written beside its place: one that is open for writing by a test beside this cannot be executed.
        let next = path.with_extension("next");
        fs::write(&next, format!("#!/bin/sh\n{script}")).unwrap();
        fs::set_permissions(&next, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&next, &path).unwrap();
    }

    fn list(&self, file: &str, document: &Value) {
        fs::write(self.root.path().join("lists").join(file), document.to_string()).unwrap();
    }

    fn add(&self, runtime: Value) -> Result<Added, Error> {
        let list = self.plugins.find("n").unwrap().unwrap();
        let Value::Object(runtime) = runtime else { panic!() };
        let place = Place {
            container: &self.id,
            netns: Path::new("/proc/self/ns/net"),
            interface: "eth0",
            runtime,
        };
        // A test beside this one may have a script open at the moment of its fork.
        for _ in 0..50 {
            match self.plugins.add(&list, &place) {
                Err(error) if format!("{error:?}").contains("Text file busy") => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                added => return added,
            }
        }
        panic!("a plugin stays busy");
    }

    fn delete(&self) -> Result<(), Error> {
        self.plugins.delete(&self.id, "eth0", None)
    }

    /// What plugins were told: command, plugin, and configuration.
    fn log(&self) -> Vec<(String, String, Value)> {
        let text = fs::read_to_string(self.root.path().join("log")).unwrap_or_default();
        let line = |line: &str| {
            let mut words = line.splitn(5, ' ');
            let mut next = || words.next().unwrap().to_owned();
            let (command, name) = (next(), next());
            assert_eq!(next(), "eth0");
            let netns = next();
            assert!(netns != "none" || command == "DEL");
            (command, name, serde_json::from_str(&next()).unwrap())
        };
        text.lines().map(line).collect()
    }

    fn steps(&self) -> Vec<String> {
        self.log()
            .into_iter()
            .map(|(command, name, _)| format!("{command} {name}"))
            .collect()
    }
}

fn chain(types: &[&str]) -> Value {
    let plugins: Vec<Value> = types.iter().map(|kind| json!({"type": kind})).collect();
    json!({"cniVersion": "1.0.0", "name": "n", "plugins": plugins})
}

fn deepest(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[test]
fn a_chain_is_run_forwards_with_what_each_said_and_backwards_from_the_record() {
    let world = World::new();
    world.program("p1", USUAL);
    world.program("p2", USUAL);
    world.list(
        "10-n.conflist",
        &json!({"cniVersion": "1.0.0", "name": "n", "plugins": [
            {"type": "p1", "ipam": {"type": "host-local"}, "prevResult": "foreign"},
            {"type": "p2", "capabilities": {"portMappings": true, "bandwidth": true}}]}),
    );
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    let added = world.add(json!({"portMappings": ports})).unwrap();
    assert_eq!(
        added.addresses,
        ["10.7.0.2/24".parse().unwrap()],
        "the last one's answer counts"
    );
    assert_eq!(added.mac, "02:00:00:00:00:02");
    let again = world.add(json!({})).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    assert_eq!(world.plugins.interfaces(&world.id), ["eth0"]);
    world
        .plugins
        .check(&world.id, "eth0", Path::new("/proc/self/ns/net"))
        .unwrap();
    // The list may have changed since, or be gone.
    fs::remove_file(world.root.path().join("lists/10-n.conflist")).unwrap();
    world.delete().unwrap();
    assert_eq!(
        world.steps(),
        ["ADD p1", "ADD p2", "CHECK p1", "CHECK p2", "DEL p2", "DEL p1"]
    );
    let log = world.log();
    let (first, second) = (&log[0].2, &log[1].2);
    assert_eq!(
        *first,
        json!({"type": "p1", "ipam": {"type": "host-local"}, "cniVersion": "1.0.0", "name": "n"})
    );
    assert_eq!(second["prevResult"]["by"], "p1");
    assert_eq!(second["runtimeConfig"], json!({"portMappings": ports}));
    assert!(second.get("capabilities").is_none());
    for late in &log[2..] {
        assert_eq!(late.2["prevResult"]["by"], "p2", "{late:?}");
    }
    assert_eq!(log[4].2["runtimeConfig"], second["runtimeConfig"]);
    assert!(!world.root.path().join("records").join(world.id.as_str()).exists());
    world.delete().unwrap();
    assert_eq!(world.log().len(), 6, "what is gone is done");
}

#[test]
fn a_failure_takes_apart_what_was_made_and_says_what_the_plugin_said() {
    let world = World::new();
    world.program("p1", USUAL);
    let failing = |answer: &str| {
        world.program(
            "p2",
            &format!("echo \"$CNI_COMMAND @NAME $CNI_IFNAME x $(cat)\" >>@LOG\n[ $CNI_COMMAND = DEL ] && exit 0\n{answer}\nexit 3"),
        );
        drop(fs::remove_file(world.root.path().join("log")));
        world.list("n.conflist", &chain(&["p1", "p2"]));
        let error = world.add(json!({})).unwrap_err();
        assert_eq!(world.steps(), ["ADD p1", "ADD p2", "DEL p2", "DEL p1"]);
        assert!(world.plugins.interfaces(&world.id).is_empty());
        (error.kind(), deepest(&error))
    };
    let (kind, text) =
        failing(r#"echo '{"cniVersion":"1.0.0","code":7,"msg":"bad subnet","details":"10.0.0.0/33"}'"#);
    assert_eq!(kind, ErrorKind::InvalidArgument);
    assert!(text.ends_with("bad subnet: 10.0.0.0/33"), "{text}");
    let (kind, text) = failing("printf 'no way\\033[31m out' >&2");
    assert_eq!(kind, ErrorKind::FailedPrecondition);
    assert!(text.ends_with("no way [31m out"), "{text:?}");
    let (kind, text) = failing("kill -9 $$");
    assert_eq!(kind, ErrorKind::FailedPrecondition);
    assert!(text.contains("signal: 9"), "{text}");
    for nonsense in ["echo nonsense; exit 0", "echo '[]'; exit 0", "exit 0"] {
        let (kind, _) = failing(nonsense);
        assert_eq!(kind, ErrorKind::InvalidArgument, "{nonsense}");
    }
}

#[test]
fn a_plugin_that_never_ends_or_never_stops_to_write_is_ended_with_its_children() {
    let mut world = World::new();
    world.plugins.patience = Duration::from_secs(1);
    world.list("n.conflist", &chain(&["p1"]));
    world.program(
        "p1",
        "[ $CNI_COMMAND = DEL ] && exit 0\necho $$ >@LOG\nsleep 1000 & sleep 1000",
    );
    let begun = Instant::now();
    assert_eq!(world.add(json!({})).unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(20));
    let group = fs::read_to_string(world.root.path().join("log")).unwrap();
    let alive = || {
        fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
            fields.len() > 2 && fields[2] == group.trim() && fields[0] != "Z"
        })
    };
    let until = Instant::now() + Duration::from_secs(5);
    while alive() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!alive(), "its children are left");
    world.plugins.patience = Duration::from_secs(60);
    for endless in ["exec yes", "exec yes >&2"] {
        world.program("p1", &format!("[ $CNI_COMMAND = DEL ] && exit 0\n{endless}"));
        assert_eq!(
            world.add(json!({})).unwrap_err().kind(),
            ErrorKind::ResourceExhausted
        );
    }
}

#[test]
fn what_a_plugin_leaves_running_with_its_outputs_open_is_not_waited_for() {
    let world = World::new();
    world.list("n.conflist", &chain(&["p1"]));
    world.program("p1", &format!("sleep 15 &\n{USUAL}"));
    let begun = Instant::now();
    world.add(json!({})).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
    world.delete().unwrap();
}

#[test]
fn a_configuration_larger_than_a_pipe_reaches_a_plugin_that_reads_late() {
    let world = World::new();
    let mut list = chain(&["p1"]);
    list["plugins"][0]["comment"] = "x".repeat(300 << 10).into();
    world.list("n.conflist", &list);
    world.program("p1", &format!("sleep 0.1\n{USUAL}"));
    world.add(json!({})).unwrap();
    assert_eq!(world.log()[0].2["comment"].as_str().unwrap().len(), 300 << 10);
    world.delete().unwrap();
}

#[test]
fn a_removal_that_fails_runs_the_others_keeps_the_record_and_can_be_done_again() {
    let world = World::new();
    world.program("p1", USUAL);
    world.program("p2", &format!("{USUAL}\n[ $CNI_COMMAND = ADD ]"));
    world.list("n.conflist", &chain(&["p1", "p2"]));
    world.add(json!({})).unwrap();
    let error = world.delete().unwrap_err();
    assert!(deepest(&error).contains("p2 DEL"), "{}", deepest(&error));
    assert_eq!(world.steps()[2..], ["DEL p2", "DEL p1"]);
    assert_eq!(world.plugins.interfaces(&world.id), ["eth0"]);
    // A program that is gone made something all the same.
    fs::remove_file(world.root.path().join("programs/p2")).unwrap();
    let error = world.delete().unwrap_err();
    assert!(
        deepest(&error).contains("failed to find CNI plugin"),
        "{}",
        deepest(&error)
    );
    world.program("p2", USUAL);
    world.delete().unwrap();
    assert!(world.plugins.interfaces(&world.id).is_empty());
}

#[test]
fn a_kill_in_between_leaves_a_record_by_which_everything_is_taken_apart() {
    let world = World::new();
    world.program("p1", USUAL);
    world.list("n.conflist", &chain(&["p1"]));
    world.add(json!({})).unwrap();
    // As it is while plugins run.
    let path = world
        .root
        .path()
        .join("records")
        .join(world.id.as_str())
        .join("eth0.json");
    let mut record: Map<String, Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record.insert("result".into(), Value::Null);
    fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    assert_eq!(world.plugins.interfaces(&world.id), ["eth0"]);
    world.delete().unwrap();
    assert_eq!(world.steps(), ["ADD p1", "DEL p1"]);
    // Half a record is one of before a power cut.
    world.add(json!({})).unwrap();
    fs::write(&path, "{").unwrap();
    world.delete().unwrap();
    assert!(!path.exists());
}

#[test]
fn old_versions_are_not_checked_and_wishes_that_no_plugin_takes_are_refused() {
    let world = World::new();
    world.program("p1", &USUAL.replace("1.0.0", "0.3.1"));
    let mut list = chain(&["p1"]);
    list["cniVersion"] = "0.3.1".into();
    world.list("n.conflist", &list);
    let refused = world.add(json!({"portMappings": []})).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(refused.to_string().contains("portMappings"), "{refused}");
    world.add(json!({})).unwrap();
    world.plugins.check(&world.id, "eth0", Path::new("/x")).unwrap();
    world.delete().unwrap();
    assert_eq!(world.steps(), ["ADD p1", "DEL p1"]);
}

#[test]
fn of_two_lists_of_a_name_the_first_file_counts_and_a_broken_file_is_told_of() {
    let world = World::new();
    world.list("20-n.conflist", &chain(&["second"]));
    world.list(
        "10-n.conf",
        &json!({"cniVersion": "1.0.0", "name": "n", "type": "first"}),
    );
    world.list("30-other.txt", &chain(&["x"]));
    assert_eq!(world.plugins.find("n").unwrap().unwrap().kind(), "first");
    assert_eq!(world.plugins.networks().len(), 1);
    assert!(world.plugins.find("other").unwrap().is_none());
    fs::write(world.root.path().join("lists/40.conflist"), "{").unwrap();
    assert!(world.plugins.find("n").unwrap().is_some());
    assert_eq!(
        world.plugins.find("other").unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    for bad in ["", "..", "a/b", "a b", &"x".repeat(16)] {
        let refused = world.plugins.delete(&world.id, bad, None).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{bad:?}");
    }
}
