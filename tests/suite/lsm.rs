//! `--security-opt` for AppArmor, SELinux and system paths.

use std::path::Path;

use crate::world::World;

fn apparmor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

fn selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

#[test]
fn a_profile_for_a_module_that_the_host_has_not_is_refused() {
    if apparmor() {
        eprintln!("skipped: this kernel has AppArmor");
        return;
    }
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .sh("--network none --security-opt apparmor=mine", "echo ran")
        .one_error(125)
        .says("apparmor not supported");
    world
        .sh("--network none --security-opt apparmor=unconfined", "echo ran")
        .ok();
    world
        .say("run -d --name plain --network none busybox sleep 1000")
        .ok();
    assert_eq!(world.inspect("plain", "{{.AppArmorProfile}}"), "");
    world.clean();
}

#[test]
fn a_container_is_under_the_default_profile() {
    if !apparmor() || !Path::new("/sbin/apparmor_parser").exists() {
        eprintln!("skipped: this host has no AppArmor, or no apparmor_parser");
        return;
    }
    let Some(world) = World::with_busybox() else {
        return;
    };
    let current = "cat /proc/self/attr/current";
    assert_eq!(world.sh("--network none", current).ok(), "dhow-default (enforce)");
    for option in ["--privileged", "--security-opt apparmor=unconfined"] {
        assert_eq!(
            world.sh(&format!("--network none {option}"), current).ok(),
            "unconfined"
        );
    }
    // What masked and read-only paths refuse, the profile refuses without them.
    let bare = "--network none --security-opt systempaths=unconfined";
    world.sh(bare, "echo 1 > /proc/sys/kernel/panic").exits(1);
    world.sh(bare, "head -c 1 /proc/kcore").exits(1);
    world
        .say("run -d --name under --network none busybox sleep 1000")
        .ok();
    assert_eq!(world.inspect("under", "{{.AppArmorProfile}}"), "dhow-default");
    let joined = world
        .dhow(&["exec", "under", "cat", "/proc/self/attr/current"])
        .ok();
    assert_eq!(joined, "dhow-default (enforce)");
    world.dhow(&["stop", "-t", "0", "under"]).ok();
    world.clean();
}

#[test]
fn labels_are_refused_where_there_is_no_selinux_but_to_have_none() {
    if selinux() {
        eprintln!("skipped: this kernel has SELinux");
        return;
    }
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .sh("--network none --security-opt label=disable", "echo ran")
        .ok();
    world
        .sh("--network none --security-opt label=type:container_t", "echo ran")
        .one_error(125)
        .says("selinux is disabled or not supported");
    world
        .sh("--network none --security-opt label=colour:red", "echo ran")
        .one_error(125)
        .says("colour:red");
    world.clean();
}

#[test]
fn two_containers_have_labels_of_their_own_and_share_what_is_marked() {
    if !selinux() || !Path::new("/etc/selinux/targeted/contexts/lxc_contexts").exists() {
        eprintln!("skipped: this host has no SELinux with a policy for containers");
        return;
    }
    let Some(world) = World::with_busybox() else {
        return;
    };
    let current = "cat /proc/self/attr/current";
    let (one, two) = (
        world.sh("--network none", current).ok(),
        world.sh("--network none", current).ok(),
    );
    assert!(
        one.contains(":container_t:s0:c") && two.contains(":container_t:s0:c"),
        "{one} {two}"
    );
    assert_ne!(one, two);
    let shared = world.path("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("file"), "word").unwrap();
    for mark in ["z", "Z"] {
        let volume = format!("--network none -v {}:/data:{mark}", shared.display());
        assert_eq!(
            world.sh(&volume, "cat /data/file && touch /data/new").ok(),
            "word"
        );
    }
    world
        .say("run -d --name labelled --network none busybox sleep 1000")
        .ok();
    let label = world.inspect("labelled", "{{.ProcessLabel}} {{.MountLabel}}");
    assert!(
        label.contains("container_t") && label.contains("container_file_t"),
        "{label}"
    );
    world.clean();
}

#[test]
fn system_paths_are_open_when_asked_and_privileges_stay_when_told() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let open = world
        .sh(
            "--network none --security-opt systempaths=unconfined",
            "grep -c ' /proc/' /proc/mounts; true",
        )
        .ok();
    assert_eq!(open, "0");
    for (option, state) in [
        ("no-new-privileges", "1"),
        ("no-new-privileges=true", "1"),
        ("no-new-privileges:false", "0"),
    ] {
        let line = world
            .sh(
                &format!("--network none --security-opt {option}"),
                "grep NoNewPrivs /proc/self/status",
            )
            .ok();
        assert_eq!(line, format!("NoNewPrivs:\t{state}"), "{option}");
    }
    world.clean();
}
