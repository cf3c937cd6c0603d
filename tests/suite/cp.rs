//! `cp`: both ways, as files and as tar streams, running and stopped, with hostile archives.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use dhow_testkit::Tar;

use crate::world::World;

/// A container that runs, or one that ran, with a file, a folder and links in it.
fn container(runs: bool) -> Option<World> {
    let world = World::with_busybox()?;
    let script = "mkdir -p /d/sub; echo one > /d/one; echo two > /d/sub/two; ln -s one /d/link; chmod 750 /d/sub; \
                  chown 7:8 /d/one; ln -s /etc/passwd /out; ln -s / /up; echo done";
    let then = if runs { "exec sleep 1000" } else { "true" };
    let script = format!("{script}; {then}");
    let args = [
        "run",
        "-d",
        "--name",
        "box",
        "--network",
        "none",
        "-v",
        "vol:/vol",
        "busybox",
        "sh",
        "-c",
        &script,
    ];
    world.dhow(&args).ok();
    crate::world::eventually("it has its files", || world.say("logs box").ok() == "done");
    if !runs {
        world.say("wait box").ok();
    }
    Some(world)
}

#[test]
fn files_and_folders_come_out_by_dockers_rules() {
    for runs in [true, false] {
        let Some(world) = container(runs) else { return };
        let out = world.path("out");
        fs::create_dir(&out).unwrap();
        let shown = out.display().to_string();
        // To a name that is not there, into a folder, over a file.
        world.dhow(&["cp", "box:/d/one", &format!("{shown}/new")]).ok();
        world.dhow(&["cp", "box:d/one", &shown]).ok();
        world
            .dhow(&["cp", "box:/d/sub/two", &format!("{shown}/new")])
            .ok();
        assert_eq!(fs::read_to_string(out.join("new")).unwrap(), "two\n");
        assert_eq!(fs::read_to_string(out.join("one")).unwrap(), "one\n");
        assert_eq!(fs::metadata(out.join("one")).unwrap().uid(), 0);
        world
            .dhow(&["cp", "-a", "box:/d/one", &format!("{shown}/owned")])
            .ok();
        assert_eq!(fs::metadata(out.join("owned")).unwrap().gid(), 8);
        // A folder: below one that is there, as one that is not, and only what is in it.
        world.dhow(&["cp", "box:/d", &shown]).ok();
        assert_eq!(fs::read_to_string(out.join("d/sub/two")).unwrap(), "two\n");
        assert_eq!(fs::metadata(out.join("d/sub")).unwrap().mode() & 0o777, 0o750);
        world.dhow(&["cp", "box:/d", &format!("{shown}/e")]).ok();
        assert!(out.join("e/sub/two").exists() && !out.join("e/d").exists());
        world.dhow(&["cp", "box:/d/sub/.", &shown]).ok();
        assert!(out.join("two").exists());
        // A link is a link unless it is to be followed.
        world.dhow(&["cp", "box:/d/link", &shown]).ok();
        assert_eq!(fs::read_link(out.join("link")).unwrap().to_str(), Some("one"));
        world
            .dhow(&["cp", "-L", "box:/d/link", &format!("{shown}/followed")])
            .ok();
        assert_eq!(fs::read_to_string(out.join("followed")).unwrap(), "one\n");
        // A link of the container is followed in the container.
        let own = world.dhow(&["cp", "-L", "box:/out", "-"]).exits(0).bytes;
        assert!(!String::from_utf8_lossy(&own).contains("/root:/bin/bash"));
        for (from, to, why) in [
            (
                "box:/none",
                shown.as_str(),
                "Could not find the file /none in container box",
            ),
            ("box:/d/one", "/nonexistent/dir/", "no such directory"),
            ("box:/d", &format!("{shown}/one"), "cannot copy directory"),
            ("box:/d/one/", shown.as_str(), "not a directory"),
            ("box:/d", "box:/e", "copying between containers is not supported"),
            ("/etc", "/tmp/x", "must specify at least one container source"),
            ("nobody:/d", shown.as_str(), "No such container: nobody"),
        ] {
            world.dhow(&["cp", from, to]).one_error(1).says(why);
        }
        world.clean();
    }
}

#[test]
fn files_and_folders_go_in_by_dockers_rules() {
    for runs in [true, false] {
        let Some(world) = container(runs) else { return };
        let file = world.file("in/file", "text");
        symlink("file", world.path("in/link")).unwrap();
        std::os::unix::fs::chown(&file, Some(11), Some(12)).unwrap();
        let folder = world.path("in").display().to_string();
        let file = file.display().to_string();
        world.dhow(&["cp", &file, "box:/d/new"]).ok();
        world.dhow(&["cp", &file, "box:/d"]).ok();
        world.dhow(&["cp", &folder, "box:/d"]).ok();
        world.dhow(&["cp", &folder, "box:/fresh"]).ok();
        world.dhow(&["cp", &format!("{folder}/."), "box:/d/sub"]).ok();
        world.dhow(&["cp", &file, "box:/vol/kept"]).ok();
        // Absolute links of the container lead through its own tree.
        world.dhow(&["cp", &file, "box:/up/through"]).ok();
        assert!(!std::path::Path::new("/through").exists());
        if !runs {
            world.say("start box").ok();
            crate::world::eventually("it ran again", || world.say("ps -q").ok().is_empty());
        }
        let out = world.path("seen").display().to_string();
        world.dhow(&["cp", "box:/", &out]).ok();
        for (path, expected) in [
            ("d/new", "text"),
            ("d/file", "text"),
            ("d/in/file", "text"),
            ("fresh/file", "text"),
            ("d/sub/file", "text"),
            ("through", "text"),
        ] {
            let path = world.path("seen").join(path);
            assert_eq!(fs::read_to_string(&path).unwrap(), expected, "{}", path.display());
        }
        assert_eq!(world.sh("--network none -v vol:/v", "cat /v/kept").ok(), "text");
        let stat = world.dhow(&["cp", "box:/d/new", "-"]).exits(0).bytes;
        assert_eq!(&stat[108..123], b"0000013\x000000014");
        world
            .dhow(&["cp", &folder, "box:/d/one"])
            .one_error(1)
            .says("cannot copy directory");
        world
            .dhow(&["cp", &file, "box:/none/x"])
            .one_error(1)
            .says("no such directory");
        world
            .dhow(&["cp", "/nonexistent-file", "box:/x"])
            .one_error(1)
            .says("no such file or directory");
        world.clean();
    }
}

#[test]
fn tar_streams_go_both_ways() {
    for runs in [true, false] {
        let Some(world) = container(runs) else { return };
        let tar = world.dhow(&["cp", "box:/d", "-"]).exits(0).bytes;
        world.feed(&["cp", "-", "box:/vol"], tar).ok();
        assert_eq!(
            world
                .sh(
                    "--network none -v vol:/v",
                    "cat /v/d/sub/two; stat -c %u /v/d/one"
                )
                .ok(),
            "two\n7"
        );
        world
            .feed(&["cp", "-", "box:/d/one"], Tar::new().finish())
            .one_error(1)
            .says("must be a directory");
        world
            .feed(&["cp", "-", "box:/d"], b"this is no archive".repeat(100))
            .one_error(1)
            .says("tar");
    }
}

#[test]
fn a_tar_from_standard_input_may_be_compressed() {
    let Some(world) = container(false) else { return };
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &Tar::new().file("in/packed", 0o644, b"x").finish()).unwrap();
    world.feed(&["cp", "-", "box:/d"], packed.finish().unwrap()).ok();
    let out = world.path("packed");
    world
        .dhow(&["cp", "box:/d/in/packed", &out.display().to_string()])
        .ok();
    assert_eq!(fs::read_to_string(out).unwrap(), "x");
    let mut command = world.command(&["cp", "-", "box:/d"]);
    std::os::unix::process::CommandExt::arg0(&mut command, "podman");
    crate::world::finish(command, b"no archive at all, however long it is".repeat(40))
        .exits(125)
        .says("source must be a (compressed) tar archive when copying from stdin");
}

#[test]
fn a_hostile_archive_or_container_stays_in_its_place() {
    let Some(world) = container(true) else { return };
    let host = world.path("host");
    fs::create_dir(&host).unwrap();
    let trap = host.display().to_string();
    for (what, tar) in [
        ("up", Tar::new().file("../../../../up", 0o644, b"x").finish()),
        (
            "link",
            Tar::new()
                .symlink("l", &trap)
                .file("l/caught", 0o644, b"x")
                .finish(),
        ),
        (
            "up by link",
            Tar::new()
                .symlink("m", "../../../../../..")
                .file(&format!("m{trap}/caught"), 0o644, b"x")
                .finish(),
        ),
        (
            "hard link",
            Tar::new().hardlink("h", "../../../etc/passwd").finish(),
        ),
    ] {
        drop(world.feed(&["cp", "-", "box:/d"], tar));
        assert_eq!(fs::read_dir(&host).unwrap().count(), 0, "{what}");
    }
    // A container whose tree is full of links that lead out, copied to the host.
    let script = format!(
        "mkdir -p /evil/a; ln -s {trap} /evil/a/x; ln -s ../../../../../../../.. /evil/a/y; ln -s {trap} /evil/z"
    );
    world.dhow(&["exec", "box", "sh", "-c", &script]).ok();
    let out = world.path("got").display().to_string();
    world.dhow(&["cp", "box:/evil", &out]).ok();
    world.dhow(&["cp", "box:/evil/.", &out]).ok();
    assert_eq!(fs::read_dir(&host).unwrap().count(), 0);
    assert_eq!(fs::read_link(world.path("got/a/x")).unwrap(), host);
    // The kernel's own trees are no files of the container.
    let all = world.dhow(&["cp", "box:/", "-"]).exits(0).bytes;
    assert!(!all.windows(12).any(|text| text == b"proc/version"));
    world.clean();
}
