//! Volumes that are more than a folder, and what podman's verbs of volumes do besides docker's.

use crate::world::World;

const RUN: &str = "run --rm --network none";

#[test]
fn a_volume_can_be_a_folder_of_the_host() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let folder = world.path("data");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("word"), "here").unwrap();
    let create = format!(
        "volume create -o type=none -o o=bind -o device={} bound",
        folder.display()
    );
    world.say(&create).ok();
    assert_eq!(
        world.say(&format!("{RUN} -v bound:/v busybox cat /v/word")).ok(),
        "here"
    );
    world.say("volume rm bound").ok();
    assert!(folder.join("word").exists());
    world
        .say("volume create -o type=bind -o device=/not/there xx")
        .exits(1)
        .says("no such file or directory");
    world
        .say("volume create -o colour=red xx")
        .exits(1)
        .says("colour");
}

#[test]
fn a_volume_can_be_a_file_system_that_is_mounted_while_containers_have_it() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("volume create -o type=tmpfs -o device=tmpfs -o o=size=2m,noexec memory")
        .ok();
    let told = world.say("volume inspect --format {{.Options.type}} memory").ok();
    assert_eq!(told, "tmpfs");
    world
        .say("run -d --network none -v memory:/v --name one busybox sleep 1000")
        .ok();
    let mounts = world.say("exec one grep /v /proc/mounts").ok();
    assert!(
        mounts.contains("tmpfs") && mounts.contains("size=2048k") && mounts.contains("noexec"),
        "{mounts}"
    );
    // Two containers have the same one.
    world.say("exec one touch /v/word").ok();
    world
        .say(&format!("{RUN} -v memory:/v busybox test -e /v/word"))
        .ok();
    world.say("exec one test -e /v/word").exits(0);
    let place = world.say("volume inspect --format {{.Mountpoint}} memory").ok();
    let mounted = || {
        std::fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .contains(&place)
    };
    assert!(mounted());
    world.say("rm -f one").ok();
    crate::world::eventually("nothing is mounted", || !mounted());
    world
        .say(&format!("{RUN} -v memory:/v busybox test -e /v/word"))
        .exits(1);
    assert_eq!(world.podman("volume mount memory").ok(), place);
    assert!(mounted());
    world.podman("volume unmount memory").ok();
    assert!(!mounted());
    world.say("volume rm memory").ok();
    world.clean();
}

#[test]
fn a_mount_can_be_without_programs_and_the_images_volumes_be_left_out() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let script = world.file("bin/hello", "#!/bin/sh\necho hi\n");
    std::os::unix::fs::PermissionsExt::set_mode(
        &mut std::fs::metadata(&script).unwrap().permissions(),
        0o755,
    );
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let folder = script.parent().unwrap().display().to_string();
    assert_eq!(
        world.say(&format!("{RUN} -v {folder}:/x busybox /x/hello")).ok(),
        "hi"
    );
    world
        .say(&format!("{RUN} -v {folder}:/x:noexec busybox /x/hello"))
        .exits(126);
    world.say("create --network none --name made busybox true").ok();
    world
        .dhow(&["commit", "-c", "VOLUME /data", "made", "voluminous"])
        .ok();
    let is_mount = |mode: &str| {
        world
            .say(&format!("{RUN} {mode} voluminous grep -q /data /proc/mounts"))
            .code
    };
    assert_eq!((is_mount(""), is_mount("--image-volume ignore")), (0, 1));
    let kind = world
        .say(&format!(
            "{RUN} --image-volume tmpfs voluminous stat -f -c %T /data"
        ))
        .ok();
    assert_eq!(kind, "tmpfs");
}

#[test]
fn podmans_volumes_are_refused_and_pruned_in_its_way() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.podman("volume create one").ok();
    world
        .podman("volume create one")
        .exits(125)
        .says("already exists");
    world.podman("volume create --ignore one").ok();
    world
        .podman("create --network none -v one:/v -v one:/v --name user busybox true")
        .ok();
    world
        .podman("create -v one:/v -v two:/v busybox true")
        .exits(125)
        .says("Error: /v: duplicate mount destination");
    world
        .podman("volume rm one")
        .exits(2)
        .says("volume one is being used by the following container(s)");
    world.podman("volume create two").ok();
    assert_eq!(world.podman("volume prune --force").ok(), "two");
    world.podman("volume rm --force one").ok();
    assert_eq!(world.podman("ps -aq").ok(), "");
}
