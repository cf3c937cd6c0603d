//! The runtime in the hands of a normal user: ids by newuidmap or one alone, no control group, what is refused and how.
//!
//! The user is made for the test: in a mount namespace of its own, where `/etc/passwd` and `/etc/subuid` have a line more.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::world::{Ran, binary, finish, program};
use crate::yard::Yard;

/// A user who owns a yard.
struct Person {
    yard: Yard,
    binary: PathBuf,
    /// Whether the user has a range of subordinate ids.
    range: bool,
    path: &'static str,
}

const ID: u32 = 54_321;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Becomes the user: `$1` to `$3` are passwd, group and the ranges.
const BECOME: &str = "mount --bind $1 /etc/passwd && mount --bind $2 /etc/group || exit 125; \
    for file in subuid subgid; do [ ! -e /etc/$file ] || mount --bind $3 /etc/$file || exit 125; done; \
    cd $4 || exit 125; shift 4; exec setpriv --reuid 54321 --regid 54321 --clear-groups \"$@\"";

impl Person {
    fn new() -> Option<Self> {
        if !program("setpriv") || !program("unshare") {
            return None;
        }
        let yard = Yard::new()?;
        let binary = yard.path("dhow");
        // By another process: a file that this one writes would be busy in what other tests fork meanwhile.
        assert!(
            Command::new("cp")
                .arg(crate::world::binary())
                .arg(&binary)
                .status()
                .unwrap()
                .success()
        );
        let copy = |name: &str, line: &str| {
            let text = fs::read_to_string(format!("/etc/{name}")).unwrap_or_default();
            fs::write(yard.path(name), text + line).unwrap();
        };
        copy("passwd", "person:x:54321:54321::/tmp:/bin/sh\n");
        copy("group", "person:x:54321:\n");
        fs::write(yard.path("ranges"), "person:300000:65536\n").unwrap();
        fs::write(yard.path("nobodys"), "somebody:300000:65536\n").unwrap();
        let folder = yard.path("");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let owner = Command::new("chown")
            .args(["-R", "54321:54321"])
            .arg(&folder)
            .status();
        assert!(owner.unwrap().success());
        Some(Self {
            yard,
            binary,
            range: true,
            path: PATH,
        })
    }

    /// The bundle as a user writes it: all ids of the range, or the own one alone.
    fn config(&self, all: bool, change: impl FnOnce(&mut Value)) {
        self.yard.config(|config| {
            let linux = &mut config["linux"];
            linux.as_object_mut().unwrap().remove("cgroupsPath");
            let mut map = vec![json!({ "containerID": 0, "hostID": ID, "size": 1 })];
            if all {
                map.push(json!({ "containerID": 1, "hostID": 300_000, "size": 65536 }));
            }
            (linux["uidMappings"], linux["gidMappings"]) = (json!(map), json!(map));
            linux["namespaces"]
                .as_array_mut()
                .unwrap()
                .push(json!({ "type": "user" }));
            change(config);
        });
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        let ranges = if self.range { "ranges" } else { "nobodys" };
        command.args(["-m", "sh", "-c", BECOME, "sh"]);
        for name in ["passwd", "group", ranges, "bundle"] {
            command.arg(self.yard.path(name));
        }
        command
            .args(["env", &format!("PATH={}", self.path)])
            .arg(&self.binary)
            .args(["runtime", "--root"])
            .arg(self.yard.path("state"))
            .args(args)
            .env_remove("NOTIFY_SOCKET")
            .env_remove("XDG_RUNTIME_DIR");
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args), Vec::new())
    }

    fn say(&self, line: &str) -> Ran {
        self.run(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// `create`, with standard streams that the container may keep.
    #[track_caller]
    fn create(&self, id: &str) {
        let log = fs::File::create(self.yard.path("log")).unwrap();
        let mut command = self.command(&["create", id]);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let status = command.status().unwrap();
        assert!(
            status.success(),
            "{}",
            fs::read_to_string(self.yard.path("log")).unwrap()
        );
    }

    fn status(&self, id: &str) -> String {
        let state: Value = serde_json::from_str(&self.say(&format!("state {id}")).ok()).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }

    fn shell(&self, all: bool, script: &str) -> Ran {
        self.config(all, |config| {
            config["process"]["args"] = json!(["sh", "-c", script])
        });
        self.say("run a")
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        for id in crate::world::names(&self.yard.path("state")) {
            drop(self.run(&["delete", "--force", &id]));
        }
    }
}

/// With the ids of a range, and with the own id alone.
#[test]
fn a_user_has_every_verb_of_a_containers_life() {
    let Some(person) = Person::new() else { return };
    for all in [false, true] {
        if all && !program("newuidmap") {
            continue;
        }
        person.config(all, |_| {});
        person.create("a");
        assert_eq!(person.status("a"), "created");
        person.say("start a").ok();
        assert_eq!(person.status("a"), "running");
        // What enters has no right to enter the host's clocks and control groups once more.
        assert_eq!(person.run(&["exec", "a", "id", "-u"]).ok(), "0");
        let namespaces = "for kind in ipc mnt net pid user uts; do for process in self 1; do \
                          busybox readlink /proc/$process/ns/$kind; done; done";
        let told = person.run(&["exec", "a", "sh", "-c", namespaces]).ok();
        let told: Vec<&str> = told.lines().collect();
        assert!(
            told.len() == 12 && told.chunks(2).all(|pair| pair[0] == pair[1]),
            "{told:?}"
        );
        if all {
            assert_eq!(
                person
                    .run(&["exec", "-u", "7:8", "a", "sh", "-c", "id -u; id -g"])
                    .ok(),
                "7\n8"
            );
        }
        for verb in ["pause a", "update --memory 64M a", "events --stats a"] {
            person
                .say(verb)
                .exits(1)
                .says("container has no control group of its own");
        }
        person.say("kill a KILL").ok();
        crate::world::eventually("it is stopped", || person.status("a") == "stopped");
        person.say("delete a").ok();
        assert!(crate::world::names(&person.yard.path("state")).is_empty());
    }
}

#[test]
fn a_user_has_the_ids_that_the_maps_say() {
    let Some(person) = Person::new() else { return };
    let map = "cat /proc/self/uid_map | busybox tr -s ' '; cat /proc/self/gid_map | busybox tr -s ' '";
    let one = " 0 54321 1";
    assert_eq!(
        person.shell(false, map).ok().trim(),
        format!("{one}\n{one}").trim()
    );
    // One id alone is had without groups, so that none can be shed (CVE-2018-7169).
    assert_eq!(person.shell(false, "cat /proc/self/setgroups").ok(), "deny");
    if !program("newuidmap") {
        return;
    }
    let two = format!("{one}\n 1 300000 65536");
    assert_eq!(
        person.shell(true, map).ok().trim(),
        format!("{two}\n{two}").trim()
    );
    person.config(true, |config| {
        config["process"]["user"] = json!({ "uid": 5, "gid": 6, "additionalGids": [7] });
        config["process"]["args"] = json!(["sh", "-c", "id -u; id -g; id -G; echo x >/tmp/file"]);
    });
    fs::set_permissions(
        person.yard.path("bundle/rootfs/tmp"),
        fs::Permissions::from_mode(0o1777),
    )
    .unwrap();
    assert_eq!(person.say("run a").ok(), "5\n6\n6 7");
    use std::os::unix::fs::MetadataExt as _;
    let file = fs::metadata(person.yard.path("bundle/rootfs/tmp/file")).unwrap();
    assert_eq!((file.uid(), file.gid()), (300_004, 300_005));
}

#[test]
fn a_user_is_told_what_is_missing_for_more_ids() {
    let Some(mut person) = Person::new() else { return };
    person.config(true, |_| {});
    person.path = "/nonexistent";
    // The shell finds `env` by its own PATH; the runtime finds no helper by this one.
    person
        .say("run a")
        .exits(1)
        .says("newuidmap is needed to map more than one id without root")
        .says("uidmap");
    person.path = PATH;
    if program("newuidmap") {
        person.range = false;
        person
            .say("run a")
            .exits(1)
            .says("newuidmap failed")
            .says("/etc/subuid");
    }
    assert!(crate::world::names(&person.yard.path("state")).is_empty());
}

#[test]
fn a_user_goes_without_a_control_group_unless_one_is_asked_for() {
    let Some(person) = Person::new() else { return };
    let plain = |config: &mut Value| config["process"]["args"] = json!(["true"]);
    person.config(false, plain);
    for option in [None, Some("--rootless=auto"), Some("--rootless=true")] {
        let args: Vec<&str> = option.into_iter().chain(["run", "a"]).collect();
        let ran = person.run(&args).exits(0);
        assert_eq!(ran.stderr, "", "{option:?}");
    }
    person
        .say("--rootless=false run a")
        .exits(1)
        .says("unable to apply cgroup configuration: permission denied");
    person
        .say("--rootless=maybe run a")
        .exits(1)
        .says("invalid value for --rootless");
    person.config(false, |config| {
        plain(config);
        config["linux"]["resources"] = json!({ "memory": { "limit": 64 << 20 } });
    });
    person
        .say("run a")
        .exits(1)
        .says("delegate a control group to this user");
    person.config(false, |config| {
        plain(config);
        config["linux"]["cgroupsPath"] = json!("/here");
    });
    person
        .say("run a")
        .exits(1)
        .says("unable to apply cgroup configuration: permission denied");
    // Nothing could end its processes for sure: that is run all the same, and said.
    person.config(false, |config| {
        plain(config);
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    person
        .say("run a")
        .exits(0)
        .says("no cgroup and no private pid namespace");
    assert!(crate::world::names(&person.yard.path("state")).is_empty());
}

#[test]
fn a_user_has_a_network_of_nothing_or_the_hosts_and_a_root_by_chroot() {
    let Some(person) = Person::new() else { return };
    let devices = |config: &mut Value, sysfs: Value| {
        config["process"]["args"] = json!(["sh", "-c", "cat /proc/net/dev"]);
        config["mounts"].as_array_mut().unwrap().push(sysfs);
    };
    let count = |ran: Ran| ran.ok().lines().skip(2).count();
    person.config(false, |config| {
        devices(
            config,
            json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] }),
        );
    });
    assert_eq!(count(person.say("run a")), 1, "the loopback device alone");
    // In the host's network the host's sysfs is all there can be; the one asked for stands for it.
    for sysfs in [
        json!({ "destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "ro"] }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] }),
    ] {
        person.config(false, |config| {
            devices(config, sysfs);
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "network");
        });
        let host = fs::read_to_string("/proc/net/dev")
            .unwrap()
            .lines()
            .skip(2)
            .count();
        assert_eq!(count(person.say("run a")), host);
    }
    person.config(false, |config| {
        config["process"]["args"] = json!(["sh", "-c", "id -u; ls /bin/busybox || echo gone"])
    });
    assert!(person.say("run --no-pivot a").ok().starts_with("0\n"));
}

/// The binary is a copy that the user can reach: the test itself would fail otherwise.
#[test]
fn a_user_cannot_reach_the_containers_of_root() {
    let Some(person) = Person::new() else { return };
    assert!(binary().exists());
    person.yard.create("a");
    let root = person.yard.path("root");
    let owner = Command::new("chown").arg("0:0").arg(&root).status().unwrap();
    assert!(owner.success());
    fs::set_permissions(&root, fs::Permissions::from_mode(0o711)).unwrap();
    for verb in [
        &["kill", "a", "KILL"][..],
        &["exec", "a", "true"],
        &["delete", "--force", "a"],
    ] {
        let mut args = vec!["--root", root.to_str().unwrap()];
        args.extend(verb);
        let ran = person.run(&args);
        assert_ne!(ran.code, 0, "{verb:?}: {ran:?}");
    }
    assert_eq!(person.yard.status("a"), "created");
    person.yard.say("delete --force a").ok();
    person.yard.nothing_left();
}
