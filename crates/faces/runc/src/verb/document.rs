//! `features` and `spec`: documents that are printed or written.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::SPEC_VERSION;
use crate::args::{Given, Until, on, value};
use crate::{Context, Failure, Verb, print};

pub(crate) const FEATURES: Verb = Verb {
    name: "features",
    about: "print what this runtime can do",
    words: "",
    flags: &[],
    until: Until::End,
    count: (0, 0),
    run: |context, _| {
        let mut document = features();
        if context.is_crun() {
            crate::crun::features(&mut document);
        }
        let text = serde_json::to_string_pretty(&document).unwrap_or_default();
        print(&(text + "\n"))
    },
};

pub(crate) const SPEC: Verb = Verb {
    name: "spec",
    about: "write a config.json to begin with",
    words: "",
    flags: &[
        value(
            "bundle",
            Some('b'),
            "folder of the bundle [default: the working directory]",
        ),
        on("rootless", None, "for a container without root"),
    ],
    until: Until::End,
    count: (0, 0),
    run: spec,
};

fn capability(name: &&str) -> String {
    format!("CAP_{name}")
}

/// The features document (runtime-spec, features.md). It says what there is code for, whatever the host can.
fn features() -> Value {
    let capabilities: Vec<String> = CAPABILITIES.iter().map(capability).collect();
    let checkpoints = super::ALL.iter().any(|verb| verb.name == "checkpoint");
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": MOUNT_OPTIONS,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
                    "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
                ],
                "archs": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
                "knownFlags": SECCOMP_FLAGS,
                "supportedFlags": SECCOMP_FLAGS,
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "memoryPolicy": { "modes": MEMORY_MODES, "flags": MEMORY_FLAGS },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
        },
        "annotations": {
            "org.dhow.version": env!("CARGO_PKG_VERSION"),
            "org.opencontainers.runc.checkpoint.enabled": checkpoints.to_string(),
        },
        "potentiallyUnsafeConfigAnnotations": ["org.systemd.property."],
    })
}

const MEMORY_MODES: [&str; 7] = [
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

const MEMORY_FLAGS: [&str; 3] = [
    "MPOL_F_NUMA_BALANCING",
    "MPOL_F_RELATIVE_NODES",
    "MPOL_F_STATIC_NODES",
];

const SECCOMP_FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

#[rustfmt::skip]
const CAPABILITIES: &[&str] = &[
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
];

#[rustfmt::skip]
const MOUNT_OPTIONS: &[&str] = &[
    "async", "atime", "bind", "copy-symlink", "defaults", "dest-nofollow", "dev", "diratime", "dirsync", "exec", "idmap",
    "lazytime", "mand", "noatime",
    "nodev", "nodiratime", "noexec", "nolazytime", "nomand", "norelatime", "nostrictatime", "nosuid",
    "nosymfollow", "private", "ratime", "rbind", "rdev", "rdiratime", "relatime", "remount", "rexec", "ridmap", "rnoatime",
    "rnodev", "rnodiratime", "rnoexec", "rnorelatime", "rnostrictatime", "rnosuid", "rnosymfollow", "ro",
    "rprivate", "rrelatime", "rro", "rrw", "rshared", "rslave", "rstrictatime", "rsuid", "rsymfollow",
    "runbindable", "rw", "shared", "slave", "src-nofollow", "strictatime", "suid", "symfollow", "sync",
    "tmpcopyup", "unbindable",
];

fn spec(_: &Context, given: &Given) -> Result<ExitCode, Failure> {
    let folder = Path::new(given.text("bundle").unwrap_or("."));
    let path = folder.join("config.json");
    let mut document = example();
    if given.is_on("rootless") {
        make_rootless(&mut document);
    }
    let text = serde_json::to_string_pretty(&document).unwrap_or_default();
    let created = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path);
    let mut file = match created {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Failure::new("File config.json exists. Remove it first"));
        }
        created => {
            created.map_err(|error| Failure::from(error).during(&format!("open {}", path.display())))?
        }
    };
    std::io::Write::write_all(&mut file, text.as_bytes())
        .map_err(|error| Failure::from(error).during(&format!("write {}", path.display())))?;
    Ok(ExitCode::SUCCESS)
}

fn example() -> Value {
    let few = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount"];
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        namespaces.push("cgroup");
    }
    let namespaces: Vec<Value> = namespaces.iter().map(|kind| json!({ "type": kind })).collect();
    json!({
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": few, "effective": few, "permitted": few },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "dhow",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// What a user alone cannot have goes: other ids, a network of its own, limits.
fn make_rootless(document: &mut Value) {
    let map = |host: u32| json!([{ "containerID": 0, "hostID": host, "size": 1 }]);
    let linux = &mut document["linux"];
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({ "type": "user" }));
    }
    linux["uidMappings"] = map(rustix::process::geteuid().as_raw());
    linux["gidMappings"] = map(rustix::process::getegid().as_raw());
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    for mount in document["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            *mount = json!({
                "destination": "/sys", "type": "none", "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
            });
        } else if let Some(options) = mount["options"].as_array_mut() {
            let is_id = |option: &Value| {
                let text = option.as_str().unwrap_or_default();
                text.starts_with("uid=") || text.starts_with("gid=")
            };
            options.retain(|option| !is_id(option));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_are_specs() {
        let mut document = example();
        let spec = dhow_oci::runtime::Spec::parse(document.to_string().as_bytes()).unwrap();
        assert_eq!(spec.process.unwrap().args, ["sh"]);
        make_rootless(&mut document);
        let spec = dhow_oci::runtime::Spec::parse(document.to_string().as_bytes()).unwrap();
        let linux = spec.linux.unwrap();
        assert_eq!(linux.uid_mappings.len(), 1);
        assert!(linux.namespaces.iter().any(|one| one.kind == "user"));
        assert!(!linux.namespaces.iter().any(|one| one.kind == "network"));
        assert!(!document["mounts"].to_string().contains("gid="));
    }

    #[test]
    fn features_are_the_document_of_the_standard() {
        let read: dhow_oci::runtime::features::Features = serde_json::from_value(features()).unwrap();
        assert_eq!(read.hooks.unwrap().len(), 6);
        assert_eq!(read.oci_version_max, SPEC_VERSION);
        let mut options = MOUNT_OPTIONS.to_vec();
        options.sort_unstable();
        options.dedup();
        assert_eq!(options.len(), MOUNT_OPTIONS.len());
    }

    /// What a spec that asks for this compiles to.
    fn compiled(linux: &Value) -> Result<dhow_runtime::Plan, dhow_runtime::Error> {
        let mut document = example();
        document["process"]["terminal"] = json!(false);
        for (name, value) in linux.as_object().unwrap() {
            document["linux"][name] = value.clone();
        }
        let spec = dhow_oci::runtime::Spec::parse(document.to_string().as_bytes()).unwrap();
        dhow_runtime::Plan::prepare(&spec, &dhow_runtime::Settings::default())
    }

    #[test]
    fn features_say_what_specs_may_ask_for() {
        let known = features();
        let policy = |mode: &str, flags: &[&str]| {
            compiled(&json!({ "memoryPolicy": { "mode": mode, "nodes": "0", "flags": flags } }))
        };
        for mode in MEMORY_MODES {
            policy(mode, &MEMORY_FLAGS).unwrap();
        }
        policy("MPOL_NOPE", &[]).unwrap_err();
        let seccomp = &known["linux"]["seccomp"];
        let words = |name: &str| -> Vec<String> { serde_json::from_value(seccomp[name].clone()).unwrap() };
        let rule = |action: &str, operator: &str| json!({ "names": ["personality"], "action": action, "args": [{ "index": 0, "value": 1, "op": operator }] });
        let filter = |rules: Vec<Value>| {
            compiled(&json!({ "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW", "architectures": words("archs"), "flags": words("supportedFlags"),
                "listenerPath": "/run/agent", "syscalls": rules,
            } }))
        };
        for action in words("actions")
            .iter()
            .filter(|action| *action != "SCMP_ACT_ALLOW")
        {
            let rules = words("operators")
                .iter()
                .map(|operator| rule(action, operator))
                .collect();
            filter(rules).unwrap();
        }
        filter(vec![rule("SCMP_ACT_NOPE", "SCMP_CMP_EQ")]).unwrap_err();
        for (name, asked) in [
            ("intelRdt", json!({ "closID": "a" })),
            ("netDevices", json!({ "eth0": {} })),
        ] {
            let answer = compiled(&json!({ name: asked })).is_ok();
            assert_eq!(known["linux"][name]["enabled"], json!(answer), "{name}");
        }
    }
}
