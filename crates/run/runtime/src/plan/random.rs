//! Specs that nobody would write: a plan is made or refused, never more.

use dhow_oci::runtime::Spec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Plan, Settings};

/// A spec that uses every part a plan has code for.
fn everything() -> Value {
    let ids = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    json!({
        "ociVersion": "1.3.0", "hostname": "h", "domainname": "d",
        "root": {"path": "rootfs", "readonly": true},
        "process": {
            "terminal": true, "consoleSize": {"height": 1, "width": 2}, "args": ["sh", "-c"], "env": ["PATH=/bin"], "cwd": "/",
            "user": {"uid": 1, "gid": 2, "umask": 3, "additionalGids": [4]}, "oomScoreAdj": 5, "noNewPrivileges": true,
            "capabilities": {"bounding": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]},
            "rlimits": [{"type": "RLIMIT_CORE", "hard": 2, "soft": 1}],
            "scheduler": {"policy": "SCHED_DEADLINE", "runtime": 5000, "deadline": 6000, "period": 7000, "flags": ["SCHED_FLAG_RECLAIM"]},
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 7},
            "execCPUAffinity": {"initial": "0-3", "final": "7"}
        },
        "mounts": [
            {"destination": "/a", "type": "tmpfs", "source": "t", "options": ["tmpcopyup", "mode=755", "rro", "rslave"]},
            {"destination": "/b", "type": "bind", "source": "b", "options": ["ridmap", "rbind"], "uidMappings": ids, "gidMappings": ids},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro"]}
        ],
        "hooks": {"prestart": [{"path": "/h", "timeout": 1}]},
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "user"}, {"type": "time"}, {"type": "ipc", "path": "/i"}],
            "uidMappings": ids, "gidMappings": ids, "sysctl": {"kernel.shmmax": "1", "fs.mqueue.x": "2"},
            "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 2, "fileMode": 438, "uid": 1, "gid": 2}],
            "maskedPaths": ["/proc/x"], "readonlyPaths": ["/proc/y"], "rootfsPropagation": "rshared",
            "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0,2-3", "flags": ["MPOL_F_STATIC_NODES"]},
            "personality": {"domain": "LINUX32"},
            "timeOffsets": {"monotonic": {"secs": -1, "nanosecs": 2}},
            "resources": {"cpu": {"cpus": "0"}}
        }
    })
}

/// The value at the `at`th place of a document, counted through all of it.
fn place<'a>(value: &'a mut Value, at: &mut usize) -> Option<&'a mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| place(item, at)),
        Value::Object(fields) => fields.values_mut().find_map(|field| place(field, at)),
        _ => None,
    }
}

fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        Just(json!(true)),
        any::<i64>().prop_map(|number| json!(number)),
        any::<u64>().prop_map(|number| json!(number)),
        "[-0-9,/.\\x00a-z=]{0,24}".prop_map(|text| json!(text)),
        prop::sample::select(vec![
            "",
            "/",
            "..",
            "/proc/../..",
            "0-99999999999999999999",
            "0-8191",
            "bind",
            "idmap",
            "time",
            "net.ipv4.x"
        ])
        .prop_map(|text| json!(text)),
        (0_usize..5000).prop_map(|length| json!("x,".repeat(length))),
    ]
}

proptest! {
    #[test]
    fn a_spec_changed_at_random_is_planned_or_refused(changes in prop::collection::vec((0_usize..220, odd()), 1..4)) {
        let mut document = everything();
        for (mut at, value) in changes {
            if let Some(found) = place(&mut document, &mut at) {
                *found = value;
            }
        }
        if let Ok(spec) = Spec::parse(document.to_string().as_bytes()) {
            let settings = Settings { bundle: Some("/bundle".into()), ..Settings::default() };
            if let Ok(plan) = Plan::prepare(&spec, &settings) {
                prop_assert!(plan.mounts.len() <= spec.mounts.len());
                prop_assert!(plan.mounts.iter().all(|mount| mount.target.is_relative()));
            }
        }
    }
}

#[test]
fn the_spec_that_uses_everything_is_planned() {
    let spec = Spec::parse(everything().to_string().as_bytes()).unwrap();
    let settings = Settings {
        bundle: Some("/bundle".into()),
        ..Settings::default()
    };
    Plan::prepare(&spec, &settings).unwrap();
}
