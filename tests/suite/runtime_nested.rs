//! The runtime inside of a container that it made: as root with all rights, without some, in a user namespace.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::world::Ran;
use crate::yard::Yard;

const ALL: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
];

/// What a container inside prints: who it is, its first process, a device that works, what it sees of groups.
const INSIDE: &str = "echo user $(id -u); echo first $(cat /proc/1/comm); echo word >/dev/null && echo null; \
                      busybox stat -c %t:%T /dev/zero; busybox touch /sys/fs/cgroup/x 2>/dev/null || echo sealed";
const SEEN: &str = "user 0\nfirst sh\nnull\n1:5\nsealed";

/// A bundle in a bundle, and the runtime beside both.
struct Nest {
    yard: Yard,
}

impl Nest {
    fn new() -> Option<Self> {
        let yard = Yard::new()?;
        let copied = Command::new("cp")
            .arg(crate::world::binary())
            .arg(yard.path("dhow"))
            .status();
        assert!(copied.unwrap().success());
        let copied = Command::new("cp")
            .arg("-a")
            .arg(yard.path("bundle"))
            .arg(yard.path("inner"))
            .status();
        assert!(copied.unwrap().success());
        let nest = Self { yard };
        nest.inner(|_| {});
        Some(nest)
    }

    /// The spec of the container inside.
    fn inner(&self, change: impl FnOnce(&mut Value)) {
        self.yard.config(|config| {
            config["process"]["args"] = json!(["sh", "-c", INSIDE]);
            config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.push(json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] }));
            mounts.push(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] }));
            change(config);
        });
        fs::rename(
            self.yard.path("bundle/config.json"),
            self.yard.path("inner/config.json"),
        )
        .unwrap();
    }

    /// The container inside gets a user namespace; `host` is what its root is in the container around it.
    fn inner_of_users(&self) {
        self.inner(|config| {
            let map = json!([{ "containerID": 0, "hostID": 0, "size": 1000 }]);
            let linux = &mut config["linux"];
            (linux["uidMappings"], linux["gidMappings"]) = (map.clone(), map);
            linux["namespaces"]
                .as_array_mut()
                .unwrap()
                .push(json!({ "type": "user" }));
        });
    }

    /// Runs the inner container, with more words for the runtime, in a container with these changes.
    fn run(&self, words: &str, change: impl FnOnce(&mut Value)) -> Ran {
        let folder = self.yard.path("").display().to_string();
        self.yard.config(|config| {
            let script = format!("mkdir -p /run/in && cd {folder}/inner && {folder}/dhow runtime --root /run/in {words} run in");
            let process = &mut config["process"];
            process["args"] = json!(["busybox", "sh", "-c", script]);
            process["env"] = json!(["PATH=/bin:/usr/bin"]);
            process["capabilities"] = json!({ "bounding": ALL, "effective": ALL, "permitted": ALL });
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.push(json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs" }));
            mounts.push(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup" }));
            mounts.push(json!({ "destination": "/run", "type": "tmpfs", "source": "tmpfs" }));
            mounts.push(json!({ "destination": folder, "type": "bind", "source": folder, "options": ["rbind"] }));
            // For a binary that is not static.
            for library in ["/lib", "/lib64", "/usr/lib"] {
                if Path::new(library).exists() {
                    let bind = json!({ "destination": library, "type": "bind", "source": library, "options": ["rbind", "ro"] });
                    mounts.push(bind);
                }
            }
            config["linux"]["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
            change(config);
        });
        let ran = self.yard.run(&["run", "out"]);
        self.yard.nothing_left();
        ran
    }
}

/// An outer container as engines make theirs: settings and control groups cannot be written, parts of procfs are hidden.
fn sealed(config: &mut Value) {
    config["linux"]["maskedPaths"] = json!(["/proc/kcore", "/proc/keys", "/proc/timer_list"]);
    config["linux"]["readonlyPaths"] = json!(["/proc/bus", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]);
    for mount in config["mounts"].as_array_mut().unwrap() {
        if mount["type"] == "sysfs" || mount["type"] == "cgroup" {
            mount["options"] = json!(["ro"]);
        }
    }
}

/// The outer container has a user namespace, and owns its files.
fn users(nest: &Nest, config: &mut Value) {
    let map = json!([{ "containerID": 0, "hostID": 200_000, "size": 65536 }]);
    let linux = &mut config["linux"];
    (linux["uidMappings"], linux["gidMappings"]) = (map.clone(), map);
    linux["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "type": "user" }));
    let folder = nest.yard.path("");
    let script = format!(
        "chmod 755 {0}; chown -R 200000:200000 {0}/inner {0}/bundle/rootfs",
        folder.display()
    );
    assert!(
        Command::new("sh")
            .args(["-c", &script])
            .status()
            .unwrap()
            .success()
    );
}

fn without(capability: &str, config: &mut Value) {
    for set in ["bounding", "effective", "permitted"] {
        let set = config["process"]["capabilities"][set].as_array_mut().unwrap();
        set.retain(|one| one != capability);
    }
}

#[test]
fn a_privileged_container_runs_containers() {
    let Some(nest) = Nest::new() else { return };
    assert_eq!(nest.run("", |_| {}).ok(), SEEN);
    nest.inner_of_users();
    assert_eq!(nest.run("", |_| {}).ok(), SEEN);
}

#[test]
fn without_mknod_the_devices_of_the_container_around_are_bound() {
    let Some(nest) = Nest::new() else { return };
    assert_eq!(nest.run("", |config| without("CAP_MKNOD", config)).ok(), SEEN);
}

#[test]
fn where_control_groups_are_read_only_a_container_runs_in_the_group_around_it() {
    let Some(nest) = Nest::new() else { return };
    assert_eq!(nest.run("", sealed).ok(), SEEN);
    // Unless that is not wanted, or it asks for a group or a limit.
    nest.run("--rootless=false", sealed)
        .exits(1)
        .says("unable to apply cgroup configuration: permission denied");
    nest.inner(|config| config["linux"]["cgroupsPath"] = json!("/wanted"));
    nest.run("", sealed).exits(1).says("create the control group");
    nest.inner(|config| config["linux"]["resources"] = json!({ "pids": { "limit": 9 } }));
    nest.run("", sealed).exits(1).says("create the control group");
}

#[test]
fn without_the_right_to_make_namespaces_it_is_said() {
    let Some(nest) = Nest::new() else { return };
    nest.run("", |config| without("CAP_SYS_ADMIN", config))
        .exits(1)
        .says("clone the container's process")
        .says("CAP_SYS_ADMIN");
}

#[test]
fn a_container_in_a_user_namespace_runs_containers() {
    let Some(nest) = Nest::new() else { return };
    assert_eq!(nest.run("", |config| users(&nest, config)).ok(), SEEN);
    nest.inner_of_users();
    assert_eq!(nest.run("", |config| users(&nest, config)).ok(), SEEN);
}

/// The kernel grants no new procfs in a user namespace where the one around is covered in part (mount_too_revealing): what
/// is there is bound, with its covers. Its processes are those of the container around, and none of them can be touched.
#[test]
fn a_procfs_that_is_refused_is_the_one_around_with_its_masks() {
    let Some(nest) = Nest::new() else { return };
    nest.inner_of_users();
    let path = nest.yard.path("inner/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["process"]["args"] = json!([
        "sh",
        "-c",
        "echo user $(id -u); busybox head -c 1 /proc/kcore | busybox wc -c; echo core >/proc/sys/kernel/core_pattern; \
         ls /proc/1/root/ 2>&1 >/dev/null"
    ]);
    fs::write(&path, config.to_string()).unwrap();
    let ran = nest.run("", |config| {
        users(&nest, config);
        sealed(config);
        config["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "type": "cgroup" }));
    });
    let ran = ran.says("/proc/sys/kernel/core_pattern").exits_any();
    assert!(
        ran.stdout.starts_with("user 0\n0\n") && ran.stdout.contains("ermission denied"),
        "{ran:?}"
    );
}
