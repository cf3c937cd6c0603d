//! User namespaces of containers: whose ids are whose, inside, on the host and on disk.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::process::Command;

use crate::world::{Ran, World, finish, program};

const MAPPED: &str = "--network none --uidmap 0:200000:5000";

/// Owner and group of a file of the host.
fn owner(path: &std::path::Path) -> (u32, u32) {
    let status = fs::symlink_metadata(path).unwrap();
    (status.uid(), status.gid())
}

/// Runs a command with these ranges in `/etc/subuid` and `/etc/subgid`; none where a host has no such files to lie over.
fn with_ranges(world: &World, ranges: &str, words: &str) -> Option<Ran> {
    if !program("unshare")
        || !["/etc/subuid", "/etc/subgid"]
            .iter()
            .all(|file| fs::exists(file).unwrap())
    {
        eprintln!("skipped: it needs unshare, /etc/subuid and /etc/subgid");
        return None;
    }
    let file = world.file("ranges", ranges);
    let inner = world.command(&words.split_whitespace().collect::<Vec<_>>());
    let script = "mount --bind $0 /etc/subuid && mount --bind $0 /etc/subgid && exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["-m", "--propagation", "private", "sh", "-c", script])
        .arg(file);
    command.arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Some(finish(command, Vec::new()))
}

#[test]
fn the_ids_of_a_container_are_others_on_the_host_and_its_files_are_its_own() {
    for world in World::of_each_back_end() {
        world.import_busybox("busybox");
        let script = "cat /proc/self/uid_map; stat -c %u:%g / /bin /etc/hosts /etc/resolv.conf /dev/shm; stat -Lc %u:%g /dev/stdout; \
                      touch /made && stat -c %u:%g /made; echo x >>/etc/passwd && stat -c %u:%g /etc/passwd; \
                      echo out >/dev/stdout";
        let ran = world.sh(MAPPED, script);
        let lines: Vec<String> = ran
            .ok()
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(lines[0], "0 200000 5000");
        assert!(lines[1..9].iter().all(|line| line == "0:0"), "{lines:?}");
        assert_eq!(lines.last().unwrap(), "out");
        // No id of the host is one of its own.
        world.file("mine/of-root", "x");
        let folder = world.path("mine");
        let bind = format!("{MAPPED} -v {}:/mine", folder.display());
        world
            .sh(&bind, "stat -c %u:%g /mine; touch /mine/new")
            .exits_any()
            .says("Permission denied");
    }
}

#[test]
fn what_a_mapped_container_wrote_is_committed_copied_and_exported_with_the_ids_inside() {
    for world in World::of_each_back_end() {
        world.import_busybox("busybox");
        let line = format!("run -d --name con {MAPPED} --user 7:8 -v /data busybox sleep 600");
        world.say(&line).ok();
        let exec = |user: &str, script: &str| {
            world
                .dhow(&["exec", "--user", user, "con", "sh", "-c", script])
                .ok()
        };
        exec("0", "mkdir /w && chmod 777 /w && rm /bin/stty");
        assert_eq!(
            exec("7:8", "echo 7 >/w/seven; id -u; stat -c %u:%g /w/seven").trim(),
            "7\n7:8"
        );
        let pid = world.inspect("con", "{{.State.Pid}}");
        let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
        assert!(status.contains("Uid:\t200007\t200007"), "{status}");

        // Out of and into one that runs.
        let back = world.path("back");
        world.say(&format!("cp -a con:/w/seven {}", back.display())).ok();
        assert_eq!(owner(&back), (7, 8));
        let there = world.file("there", "there");
        chown(&there, Some(11), Some(12)).unwrap();
        let tar = Command::new("tar")
            .arg("-C")
            .arg(world.path(""))
            .args(["-cf", "-", "there"])
            .output()
            .unwrap();
        world.feed(&["cp", "-", "con:/w"], tar.stdout).ok();
        assert_eq!(exec("0", "stat -c %u:%g /w/there").trim(), "11:12");

        // The same when it does not run, and when it runs again.
        world.say("stop -t 0 con").ok();
        let still = world.path("still");
        world.say(&format!("cp -a con:/w/there {}", still.display())).ok();
        assert_eq!(owner(&still), (11, 12));
        world.say("start con").ok();
        assert_eq!(exec("0", "stat -c %u:%g /w/there /w/seven").trim(), "11:12\n7:8");
        world.say("restart -t 0 con").ok();
        assert_eq!(exec("0", "stat -c %u:%g /w/there").trim(), "11:12");

        world.say("diff con").prints("D /bin/stty").prints("A /w/seven");
        world.say("commit con made").ok();
        let script = "stat -c %u:%g /w /w/seven /w/there; ls /bin/stty 2>/dev/null || echo gone";
        assert_eq!(world.sh_in("made", script).trim(), "0:0\n7:8\n11:12\ngone");
        assert_eq!(world.sh(MAPPED, "true").code, 0);
        let tar = world.path("export.tar");
        world.say(&format!("export -o {} con", tar.display())).ok();
        // A whole number of records, so that tar(1) can change it.
        assert_eq!(fs::metadata(&tar).unwrap().len() % 10_240, 0);
        let listed = Command::new("tar")
            .args(["--numeric-owner", "-tvf"])
            .arg(&tar)
            .output()
            .unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let line = |name: &str| {
            listed
                .lines()
                .find(|line| line.ends_with(name))
                .unwrap()
                .to_owned()
        };
        assert!(line("w/seven").contains(" 7/8 "), "{}", line("w/seven"));
        assert!(line("w/there").contains(" 11/12 "), "{}", line("w/there"));
        world.say("rm -f con").ok();
        world.clean();
    }
}

#[test]
fn volumes_belong_to_the_root_of_the_container_or_have_the_ids_inside() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let source = |name: &str| {
        let path = world
            .say(&format!("volume inspect -f {{{{.Mountpoint}}}} {name}"))
            .ok();
        std::path::PathBuf::from(path.trim())
    };
    // Of an image that has nothing there, and of one that has.
    world
        .sh(
            &format!("{MAPPED} -v new:/new -v etc:/etc"),
            "touch /new/x /etc/x",
        )
        .ok();
    assert_eq!(owner(&source("new")), (200_000, 200_000));
    assert_eq!(owner(&source("new").join("x")), (200_000, 200_000));
    assert_eq!(owner(&source("etc").join("passwd")), (200_000, 200_000));
    // One that is mapped is the same to everyone.
    for first in [200_000, 300_000] {
        let flags = format!("--network none --uidmap 0:{first}:5000 -v mapped:/etc:idmap");
        let seen = world
            .sh(&flags, "touch /etc/x; stat -c %u:%g /etc/passwd /etc/x")
            .ok();
        assert_eq!(seen.trim(), "0:0\n0:0");
    }
    assert_eq!(owner(&source("mapped").join("x")), (0, 0));
    world
        .sh("--network none -v mapped:/etc:idmap", "true")
        .exits(125)
        .says("idmap is for containers in a user namespace of their own");
    // One that is given away.
    let file = world.file("given/f/x", "x");
    let folder = world.path("given");
    std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).unwrap();
    let flags = format!("{MAPPED} --user 3:4 -v {}:/g:U", folder.display());
    assert_eq!(
        world.sh(&flags, "stat -c %u:%g /g /g/f/x").ok().trim(),
        "3:4\n3:4"
    );
    assert_eq!(owner(&file), (200_003, 200_004));
    assert_eq!(owner(&folder.join("link")), (200_003, 200_004));
    assert_eq!(owner(std::path::Path::new("/etc/passwd")).0, 0);
}

#[test]
fn auto_gives_each_container_ids_of_its_own_until_it_is_removed() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let ranges = "other:1:5\ncontainers:300000:2500\n";
    let create = |name: &str, flags: &str| {
        let words = format!("create --name {name} --network none {flags} busybox cat /proc/self/uid_map");
        with_ranges(&world, ranges, &words)
    };
    let Some(first) = create("ca", "--userns auto") else {
        return;
    };
    first.ok();
    let first = |name: &str| {
        let maps = world.inspect(name, "{{json .HostConfig.IDMappings}}");
        let maps: serde_json::Value = serde_json::from_str(maps.trim()).unwrap();
        maps["UidMap"][0].as_str().unwrap().to_owned()
    };
    create("cb", "--userns auto:size=500").unwrap().ok();
    create("cc", "--userns auto:size=900,uidmapping=5:77:1")
        .unwrap()
        .ok();
    assert_eq!(first("ca"), "0:300000:1024");
    assert_eq!(first("cb"), "0:301024:500");
    assert_eq!(first("cc"), "0:301524:5");
    let full = "not enough unused IDs in user namespace";
    create("cd", "--userns auto:size=500")
        .unwrap()
        .exits(125)
        .says(full)
        .says("/etc/subuid");
    world.say("rm cb").ok();
    create("cd", "--userns auto:size=500").unwrap().ok();
    assert_eq!(first("cd"), "0:301024:500");
    // It has them at each start, whatever the file says by then.
    for _ in 0..2 {
        let map = world.say("start -a cd").ok();
        assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "301024", "500"]);
    }
    let map = world.say("start -a cc").ok();
    let map: Vec<&str> = map.split_whitespace().collect();
    assert_eq!(map, ["0", "301524", "5", "5", "77", "1", "6", "301529", "894"]);
    with_ranges(&world, "other:1:5\n", "create --userns auto busybox true")
        .unwrap()
        .exits(125)
        .says("no subordinate ids for \"containers\" in /etc/subuid");
    // The names of others can be used as a whole.
    let words = "run --rm --network none --subuidname other busybox cat /proc/self/gid_map";
    let map = with_ranges(&world, ranges, words).unwrap().ok();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "1", "5"]);
}

#[test]
fn containers_created_at_once_have_no_id_in_common() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let script = "for n in 1 2 3 4 5 6 7 8; do $0 --root $1 create --network none --userns auto:size=100 busybox true & done; wait";
    let file = world.file("ranges", "containers:300000:800\n");
    if !fs::exists("/etc/subuid").unwrap() || !fs::exists("/etc/subgid").unwrap() || !program("unshare") {
        return;
    }
    let whole = format!(
        "mount --bind {0} /etc/subuid && mount --bind {0} /etc/subgid; {script}",
        file.display()
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", &whole]);
    command.arg(crate::world::binary()).arg(world.root());
    finish(command, Vec::new()).ok();
    let names = world.say("ps -aq").ok();
    let mut firsts: Vec<String> = names
        .lines()
        .map(|id| world.inspect(id, "{{json .HostConfig.IDMappings.UidMap}}"))
        .collect();
    firsts.sort();
    firsts.dedup();
    assert_eq!(firsts.len(), 8, "{firsts:?}");
}

#[test]
fn a_user_namespace_is_shared_by_name_by_path_and_by_a_pod() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say(&format!("run -d --name con {MAPPED} busybox sleep 600"))
        .ok();
    let map = "cat /proc/self/uid_map; readlink /proc/self/ns/user; stat -c %u:%g /bin/sh";
    let own = world.dhow(&["exec", "con", "sh", "-c", map]).ok();
    assert!(own.contains("200000"), "{own}");
    assert_eq!(world.sh("--network none --userns container:con", map).ok(), own);
    let pid = world.inspect("con", "{{.State.Pid}}");
    let path = format!("--network none --userns ns:/proc/{}/ns/user", pid.trim());
    assert_eq!(world.sh(&path, map).ok(), own);
    // With its network, too: what is the namespace's own can be set up there.
    world
        .sh(
            "--network container:con --userns container:con",
            "ls /sys/class/net/lo",
        )
        .ok();
    world
        .sh(
            "--network container:con --uidmap 0:300000:10",
            "cat /proc/self/uid_map",
        )
        .prints("300000");
    world.say("rm -f con").ok();

    world
        .podman("pod create --name pod --network none --uidmap 0:200000:5000")
        .ok();
    let inside = world
        .podman("run --rm --pod pod busybox cat /proc/self/uid_map")
        .ok();
    assert!(inside.contains("200000"), "{inside}");
    world
        .podman("run --rm --pod pod --userns auto busybox true")
        .exits(125)
        .says("--userns and --pod cannot be set together");
    world.podman("pod rm -f pod").ok();
}

#[test]
fn networks_health_and_namespaces_of_the_host_go_with_a_user_namespace() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let line = "run -d --name con --uidmap 0:200000:5000 --health-interval 1s -p 127.0.0.1::80 --health-cmd true busybox \
                httpd -f -h /etc";
    world.say(line).ok();
    crate::world::eventually("the check is good", || {
        world.inspect("con", "{{.State.Health.Status}}").trim() == "healthy"
    });
    let port = world.say("port con 80").ok();
    let page = Command::new("busybox")
        .args(["wget", "-qO-", &format!("http://{}/passwd", port.trim())])
        .output();
    assert!(String::from_utf8(page.unwrap().stdout).unwrap().contains("root"));
    // Root inside is root of its network.
    let added = world.sh(
        "--uidmap 0:200000:5000 --cap-add NET_ADMIN",
        "ip link set lo down && ip link show lo",
    );
    assert!(!added.ok().contains("LOOPBACK,UP"));
    for shared in ["--network host", "--pid host", "--ipc host", "--uts host"] {
        if shared == "--ipc host" && !fs::exists("/dev/mqueue").unwrap() {
            continue;
        }
        let flags = format!("--uidmap 0:200000:5000 {shared}");
        world
            .sh(&flags, "cat /proc/self/uid_map; ls /sys/class/net")
            .prints("200000");
    }
    world
        .sh(
            "--network none --userns keep-id --user 5",
            "cat /proc/self/uid_map; id -u",
        )
        .prints("4294967295");
}

#[test]
fn what_is_no_user_namespace_is_refused() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for (flags, words) in [
        ("--userns mine", "--userns mine is not supported"),
        ("--userns nomap", "nomap is only supported in rootless mode"),
        (
            "--userns auto --uidmap 0:1:1",
            "--userns is not for use with --uidmap",
        ),
        ("--uidmap 0:1:x", "is not [FLAGS]CONTAINER:HOST[:COUNT]"),
        ("--uidmap 1:100000:10", "must have a user 0 and a group 0"),
        (
            "--uidmap 0:100000:10 --uidmap 5:200000:10",
            "overlaps another one",
        ),
        ("--userns ns:/etc/passwd", "it is no user namespace"),
        ("--userns ns:/proc/self/ns/user", "it is the host's own"),
        ("--userns container:nobody", "nobody"),
        ("--subuidname nobody-has-this", "no subordinate ids for"),
    ] {
        world.sh(flags, "true").exits(125).says(words);
    }
    // An owner that nobody is inside cannot be written there.
    world
        .say("run -d --name con --network none --uidmap 0:200000:10 busybox sleep 600")
        .ok();
    let file = world.file("far", "x");
    chown(&file, Some(500), Some(500)).unwrap();
    let tar = Command::new("tar")
        .arg("-C")
        .arg(world.path(""))
        .args(["-cf", "-", "far"])
        .output()
        .unwrap();
    world
        .feed(&["cp", "-", "con:/"], tar.stdout)
        .exits_any()
        .says("nobody in the container is its owner 500:500");
}
