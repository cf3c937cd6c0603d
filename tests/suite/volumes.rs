//! Volumes and bind mounts.

use std::fs;

use crate::world::World;

#[test]
fn a_named_volume_lives_longer_than_its_containers() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.sh("--network none -v keep:/v", "echo one > /v/f").ok();
    assert_eq!(world.sh("--network none -v keep:/v", "cat /v/f").ok(), "one");
    assert_eq!(
        world
            .sh(
                "--network none --mount type=volume,source=keep,target=/w",
                "cat /w/f"
            )
            .ok(),
        "one"
    );
    assert_eq!(world.say("volume ls -q").ok(), "keep");
    let place = world.say("volume inspect --format {{.Mountpoint}} keep").ok();
    assert_eq!(fs::read_to_string(format!("{place}/f")).unwrap(), "one\n");
}

#[test]
fn a_volume_in_use_is_not_removed() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("create --name user -v mine:/v busybox true").ok();
    world.say("volume rm mine").one_error(1).says("in use");
    world.say("rm user").ok();
    assert_eq!(world.say("volume rm mine").ok(), "mine");
    world
        .say("volume rm mine")
        .one_error(1)
        .says("mine: no such volume");
    world.say("volume rm -f mine").exits(0);
}

#[test]
fn an_empty_volume_is_filled_from_the_image_once() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    assert_eq!(
        world.sh("--network none -v filled:/data", "cat /data/seed").ok(),
        "from the image"
    );
    world
        .sh(
            "--network none -v filled:/data",
            "rm /data/seed; echo x > /data/other",
        )
        .ok();
    assert_eq!(
        world.sh("--network none -v filled:/data", "ls /data").ok(),
        "other",
        "only once"
    );
    assert_eq!(
        world.sh("--network none -v plain:/data:nocopy", "ls /data").ok(),
        ""
    );
}

#[test]
fn an_anonymous_volume_goes_with_rm_v() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("create --name anon -v /scratch busybox true").ok();
    let name = world.say("volume ls -q").ok();
    assert_eq!(name.len(), 64, "{name}");
    world.say("rm anon").ok();
    assert_eq!(world.say("volume ls -q").ok(), name, "rm alone keeps it");
    world.say("volume prune -f").exits(0);
    assert_eq!(world.say("volume ls -q").ok(), "");
    world.say("create --name anon -v /scratch busybox true").ok();
    world.say("rm -v anon").ok();
    assert_eq!(world.say("volume ls -q").ok(), "");
}

#[test]
fn a_bind_mount_shows_the_hosts_files() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let file = world.file("host/file", "of the host");
    let folder = file.parent().unwrap().display().to_string();
    assert_eq!(
        world
            .sh(
                &format!("--network none -v {folder}:/h"),
                "cat /h/file; echo new > /h/new"
            )
            .ok(),
        "of the host"
    );
    assert_eq!(fs::read_to_string(format!("{folder}/new")).unwrap(), "new\n");
    world
        .sh(&format!("--network none -v {folder}:/h:ro"), "echo x > /h/file")
        .exits(1)
        .says("read-only");
    let flag = format!("--network none --mount type=bind,src={folder}/file,dst=/one,readonly");
    world
        .sh(&flag, "cat /one; echo x > /one")
        .exits(1)
        .prints("of the host")
        .says("read-only");
    assert_eq!(fs::read_to_string(&file).unwrap(), "of the host");
}

#[test]
fn a_bind_source_that_is_missing_is_made_by_v_and_refused_by_mount() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let made = world.path("made/by/v");
    world
        .sh(
            &format!("--network none -v {}:/h", made.display()),
            "echo x > /h/f",
        )
        .ok();
    assert!(made.join("f").exists());
    let missing = world.path("missing");
    let flag = format!(
        "--network none --mount type=bind,source={},target=/h",
        missing.display()
    );
    world.sh(&flag, "true").one_error(125).says("missing");
    assert!(!missing.exists());
}

#[test]
fn a_link_in_the_image_cannot_lead_a_mount_out() {
    let Some(world) = World::new() else { return };
    let outside = world.path("outside");
    fs::create_dir_all(&outside).unwrap();
    let target = outside.display().to_string();
    // The folders of the target path exist on the host: a mount that followed the link there would succeed.
    let bin = crate::samples::busybox_tar();
    let tar = dhow_testkit::Tar::new()
        .raw(&bin[..bin.len() - 1024])
        .symlink("door", &target)
        .finish();
    world.feed(&["import", "-", "trap"], tar).ok();
    let host = world.file("bound/f", "x");
    let bound = format!("{}:/door/in", host.parent().unwrap().display());
    for flags in [
        ["-v", &bound],
        ["-w", "/door/work"],
        ["--tmpfs", "/door/t"],
        ["-v", "named:/door/v"],
    ] {
        let mut args = vec!["run", "--rm", "--network", "none"];
        args.extend(flags);
        args.extend(["trap", "true"]);
        let ran = world.dhow(&args);
        assert!([0, 125, 127].contains(&ran.code), "{ran:?}");
        assert_eq!(
            fs::read_dir(&outside).unwrap().count(),
            0,
            "{flags:?} made something on the host"
        );
    }
}

#[test]
fn a_volume_name_is_checked() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for name in ["../up", "a/b", ".", "-x", "a b"] {
        world.dhow(&["volume", "create", "--", name]).one_error(1);
    }
    assert_eq!(world.say("volume create --label a=b good").ok(), "good");
    assert_eq!(world.say("volume create good").ok(), "good", "twice is once");
    assert_eq!(world.say("volume ls -q --filter label=a").ok(), "good");
}

#[test]
fn what_is_in_a_volume_goes_to_an_archive_and_comes_back() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let script = "mkdir -p /v/deep/er && echo kept >/v/deep/er/leaf && ln -s er/leaf /v/deep/link && chmod 640 /v/deep/er/leaf && \
                  chown 7:8 /v/deep/er/leaf";
    world.sh("--network none -v first:/v", script).ok();
    let archive = world.path("first.tar");
    world
        .say(&format!("volume export first -o {}", archive.display()))
        .exits(0)
        .silent();
    world.say("volume create second").ok();
    world
        .say(&format!("volume import second {}", archive.display()))
        .exits(0)
        .silent();
    let look = "cat /v/deep/link; stat -c '%a %u:%g' /v/deep/er/leaf";
    assert_eq!(
        world.sh("--network none -v second:/v", look).ok(),
        "kept\n640 7:8"
    );
    // By standard output and input, over what is there.
    world
        .sh(
            "--network none -v second:/v",
            "echo own >/v/mine; rm /v/deep/er/leaf",
        )
        .ok();
    let bytes = world.say("volume export first").exits(0).bytes;
    world.feed(&["volume", "import", "second", "-"], bytes).exits(0);
    assert_eq!(
        world
            .sh("--network none -v second:/v", "cat /v/mine /v/deep/link")
            .ok(),
        "own\nkept"
    );
    world.say("volume export nope").exits(1).says("no such volume");
    assert!(!world.path("nope.tar").exists());
    world.say("volume import nope -").exits(1).says("no such volume");
    world
        .feed(
            &["volume", "import", "second", "-"],
            "this is no archive, and longer than a tar's block".repeat(20),
        )
        .exits(1);
}

#[test]
fn an_archive_leads_nowhere_out_of_a_volume() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("volume create safe").ok();
    let outside = world.path("outside");
    std::fs::create_dir(&outside).unwrap();
    let hostile = dhow_testkit::Tar::new()
        .symlink("door", &outside.to_string_lossy())
        .file("door/loot", 0o644, b"out")
        .finish();
    world
        .feed(&["volume", "import", "safe", "-"], hostile)
        .exits_any();
    assert!(!outside.join("loot").exists());
}

#[test]
fn volumes_from_brings_volumes_and_binds_and_their_rights() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let folder = world.path("bound");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("f"), "bound\n").unwrap();
    let bind = format!("{}:/b", folder.display());
    world
        .dhow(&[
            "create", "--name", "from", "-v", &bind, "-v", "kept:/v", "-v", "/anon", "--tmpfs", "/t",
            "busybox", "true",
        ])
        .exits(0);
    let ran = world.sh(
        "--network none --volumes-from from",
        "echo x > /v/f; echo y > /anon/f; cat /b/f; mount | grep -c ' /t '; true",
    );
    assert_eq!(ran.ok(), "bound\n0");
    let ran = world.sh(
        "--network none --volumes-from from:ro -v kept:/w",
        "cat /v/f /anon/f; echo z > /v/g || echo refused; echo z > /w/g",
    );
    assert_eq!(ran.exits(0).prints("x\ny\nrefused").ok(), "x\ny\nrefused");
    // What the image's own container had is not gone with those that shared it.
    world.say("rm -v from").ok();
    assert_eq!(world.say("volume ls -q").ok(), "kept");
    world
        .say("run --volumes-from nobody busybox true")
        .one_error(125)
        .says("No such container: nobody");
    world.say("create --name from busybox true").exits(0);
    world
        .say("run --volumes-from from:wx busybox true")
        .one_error(125)
        .says("invalid mode");
}

#[test]
fn a_bind_that_may_make_its_source_and_volumes_that_are_none() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let folder = world.path("not/yet");
    let mount = format!("type=bind,src={},dst=/m", folder.display());
    let run = |mount: &str| {
        world.dhow(&[
            "run",
            "--rm",
            "--network",
            "none",
            "--mount",
            mount,
            "busybox",
            "ls",
            "/m",
        ])
    };
    run(&mount).one_error(125).says("bind source path does not exist");
    run(&format!("{mount},bind-create-src=false")).one_error(125);
    run(&format!("{mount},bind-create-src")).exits(0);
    assert!(folder.is_dir());
    run("type=tmpfs,dst=/m,bind-create-src")
        .one_error(125)
        .says("cannot mix 'bind-*' options with mount type 'tmpfs'");
    world
        .say("create -v :/volume busybox true")
        .one_error(125)
        .says("empty section between colons");
    world
        .dhow(&["create", "-v", "", "busybox", "true"])
        .one_error(125)
        .says("invalid empty volume spec");
    world
        .dhow(&["rename", "", "new"])
        .one_error(1)
        .says("invalid container name or ID: value is empty");
    world
        .dhow(&["rename", "old", ""])
        .one_error(1)
        .says("new name cannot be blank");
}
