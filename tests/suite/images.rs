//! Images without a registry: import, save, load, tag, rmi, history, inspect, prune.

use std::fs;

use crate::samples;
use crate::world::World;

#[test]
fn a_mounted_image_is_seen_read_only_and_kept_until_it_is_unmounted() {
    let Some(world) = World::new() else { return };
    world.import_busybox("box:1");
    let path = world.say("image mount box:1").ok();
    assert_eq!(world.say("image mount box:1").ok(), path, "mounted once");
    let program = std::path::Path::new(&path).join("bin/busybox");
    assert_eq!(fs::read(&program).unwrap(), fs::read("/bin/busybox").unwrap());
    let refused = fs::write(std::path::Path::new(&path).join("new"), "").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(30), "EROFS: {refused}");
    let listed = world.say("image mount").ok();
    assert!(listed.ends_with(&path) && listed.lines().count() == 1, "{listed}");

    let held = world.say("rmi box:1");
    assert!(held.stderr.contains("it is mounted on"), "{}", held.stderr);
    held.exits(1);
    world.say("image prune -af").ok();
    world.say("system prune -af").ok();
    assert!(program.exists(), "what is mounted stays");
    world.say("system check").exits(0);

    let file = fs::File::open(&program).unwrap();
    let busy = world.say("image unmount box:1");
    assert!(busy.stderr.contains("--force"), "{}", busy.stderr);
    busy.exits(1);
    world.say("image umount --force box:1").ok();
    drop(file);
    assert!(!program.exists());
    assert!(world.say("image unmount box:1").stderr.contains("not mounted"));
    world.say("image mount box:1").ok();
    // As after a reboot: the mount is gone, and what was made for it is a rest.
    let host = std::process::Command::new("umount").arg(&path).status().unwrap();
    assert!(host.success());
    assert_eq!(world.say("image mount").ok(), "");
    world.say("image mount box:1").ok();
    assert!(program.exists());
    world.say("image unmount --all").ok();
    world.say("rmi box:1").ok();
    world.clean();
}

#[test]
fn an_archive_of_lxd_is_imported_from_a_url_and_runs() {
    let Some(world) = World::new() else { return };
    let metadata =
        b"architecture: x86_64\ncreation_date: 1704067200\ntemplates: {/etc/hosts: {template: hosts.tpl}}\n";
    let busybox = fs::read("/bin/busybox").unwrap();
    let tar = dhow_testkit::Tar::new()
        .file("metadata.yaml", 0o644, metadata)
        .file("rootfs/bin/busybox", 0o755, &busybox)
        .symlink("rootfs/bin/cat", "busybox")
        .file("rootfs/etc/made", 0o644, b"by lxd")
        .file("templates/hosts.tpl", 0o644, b"{{ name }}")
        .finish();
    let url = crate::world::served_once(dhow_testkit::gzip(&tar));
    let imported = world.dhow(&["import", &url, "system:1"]);
    assert!(
        imported.stderr.contains("cannot hold: template /etc/hosts"),
        "{}",
        imported.stderr
    );
    imported.ok();
    let run = world.say("run --rm --network none system:1 /bin/cat /etc/made");
    assert_eq!(run.ok(), "by lxd");
    assert_eq!(
        world
            .dhow(&["inspect", "--format", "{{json .Config.Cmd}}", "system:1"])
            .ok(),
        r#"["/sbin/init"]"#
    );
    // As it is, it is a root file system like another.
    let plain = ["import", "--format", "tar", "-", "plain:1"];
    world.feed(&plain, tar).ok();
    let run = world.say("run --rm --network none plain:1 /rootfs/bin/busybox cat /metadata.yaml");
    assert!(run.ok().starts_with("architecture:"));
    world.clean();
}

#[test]
fn an_imported_image_has_what_change_says() {
    let Some(world) = World::new() else { return };
    let args = [
        "import",
        "-c",
        "CMD [\"echo\", \"hi\"]",
        "-c",
        "ENV A=b",
        "-m",
        "made by hand",
        "-",
        "mine:1",
    ];
    let id = world.feed(&args, samples::busybox_tar()).ok();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    assert_eq!(world.say("run --rm --network none mine:1").ok(), "hi");
    assert_eq!(
        world
            .dhow(&["inspect", "--format", "{{json .Config.Env}}", "mine:1"])
            .ok(),
        r#"["A=b"]"#
    );
    assert!(world.say("history mine:1").ok().contains("made by hand"));
    assert_eq!(world.say("images -q --no-trunc mine").ok(), id);
    // One line for each tag, as docker has it.
    world.say("tag mine:1 mine:2").ok();
    assert_eq!(world.say("images -q --no-trunc mine").ok(), format!("{id}\n{id}"));
    assert_eq!(world.say("images -q mine").ok().lines().count(), 2);
    assert!(
        world.say("images").ok().starts_with("REPOSITORY"),
        "docker's columns"
    );
    assert!(world.say("images").ok().contains("TAG"), "docker's columns");
}

#[test]
fn what_is_saved_comes_back_as_the_same_image() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("tag busybox box:two").ok();
    let id = world.say("images -q --no-trunc box:two").ok();
    let file = world.path("saved.tar").display().to_string();
    world.dhow(&["save", "-o", &file, "busybox", "box:two"]).ok();
    let again = world.dhow(&["save", "busybox", "box:two"]).exits(0).bytes;
    assert!(
        fs::read(&file).unwrap() == again,
        "saving twice gives the same bytes"
    );
    world.say("rmi busybox box:two").ok();
    assert_eq!(world.say("images -q").ok(), "");
    let said = world.dhow(&["load", "-i", &file]).ok();
    assert!(
        said.contains("Loaded image: busybox:latest") && said.contains("Loaded image: box:two"),
        "{said}"
    );
    assert_eq!(world.say("images -q --no-trunc box:two").ok(), id);
    let third = world.dhow(&["save", "busybox", "box:two"]).exits(0).bytes;
    assert!(third == again, "and saved again, too");
    let other = World::new().unwrap();
    other.feed(&["load", "-q"], again).ok();
    assert_eq!(other.say("images -q --no-trunc busybox").ok(), id);
    assert_eq!(
        other.say("run --rm --network none busybox echo works").ok(),
        "works"
    );
}

#[test]
fn archives_of_docker_and_of_the_oci_are_loaded() {
    let Some(world) = World::new() else { return };
    let layer = samples::busybox_tar();
    world
        .feed(&["load"], samples::docker_archive("old:1", &layer))
        .exits(0)
        .prints("Loaded image: old:1");
    let oci = samples::oci_archive("docker.io/library/new:1", &layer, &|_, bytes| bytes);
    world.feed(&["load"], oci).exits(0).prints("Loaded image: new:1");
    let id = |name: &str| world.inspect(name, "{{.Id}}");
    assert_eq!(id("old:1"), id("new:1"), "the same config is the same image");
    world
        .feed(
            &["load"],
            dhow_testkit::gzip(&samples::docker_archive("zipped:1", &layer)),
        )
        .exits(0)
        .prints("zipped:1");
    world.say("run --rm --network none old:1").exits(0);
}

#[test]
fn tags_move_and_images_go_with_their_last_name() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("tag busybox a:1").ok();
    world.say("tag a:1 b:1").ok();
    let said = world.say("rmi busybox a:1").ok();
    assert_eq!(said, "Untagged: busybox:latest\nUntagged: a:1");
    let id = world.inspect("b:1", "{{.Id}}");
    world.say("create --name user b:1 true").ok();
    world
        .say("rmi b:1")
        .one_error(1)
        .says("container")
        .says("must force");
    let short = &id["sha256:".len()..][..12];
    world.say(&format!("tag {short} c:1")).ok();
    world.say(&format!("rmi {short}")).one_error(1);
    world.say("rm user").ok();
    let said = world.say("rmi b:1 c:1").ok();
    assert!(said.contains(&format!("Deleted: {id}")), "{said}");
    world.say("rmi b:1").one_error(1).says("no such image: b:1");
    world.say("tag b:1 d:1").one_error(1).says("no such image: b:1");
    world.clean();
}

#[test]
fn a_name_that_is_wrong_is_told_so() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for name in [
        "Upper",
        "a:b:c",
        "a@sha256:12",
        "-a",
        "a//b",
        "a:",
        "http://a/b",
        "../a",
        "a:\u{fc}",
    ] {
        world
            .dhow(&["tag", "--", "busybox", name])
            .one_error(1)
            .says("reference");
    }
    let long = "a".repeat(256);
    world.dhow(&["tag", "busybox", &long]).one_error(1);
    world
        .dhow(&["tag", "busybox", &format!("a:{}", "t".repeat(129))])
        .one_error(1);
    world
        .say("inspect no-such")
        .exits(1)
        .says("no such object: no-such");
    world
        .say("image inspect no-such")
        .exits(1)
        .says("no such image: no-such");
    world
        .say("history no-such")
        .one_error(1)
        .says("no such image: no-such");
    world
        .say("save no-such")
        .one_error(1)
        .says("no such image: no-such");
}

#[test]
fn formats_are_dockers() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let id = world.inspect("busybox", "{{.Id}}");
    assert_eq!(
        world
            .dhow(&["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"])
            .ok(),
        format!("busybox:latest {}", &id[7..19])
    );
    let json: serde_json::Value = serde_json::from_str(&world.say("inspect busybox").ok()).unwrap();
    assert_eq!(json[0]["RepoTags"][0], "busybox:latest");
    assert_eq!(json[0]["Os"], "linux");
    assert_eq!(json[0]["RootFS"]["Type"], "layers");
    let line: serde_json::Value =
        serde_json::from_str(&world.dhow(&["images", "--format", "json"]).ok()).unwrap();
    assert_eq!(line["Repository"], "busybox");
    let table = world
        .dhow(&["images", "--format", "table {{.Repository}}\t{{.Size}}"])
        .ok();
    assert!(table.starts_with("REPOSITORY"), "{table}");
    let upper = world
        .dhow(&[
            "inspect",
            "--format",
            "{{upper .Os}} {{len .RootFS.Layers}} {{range .RepoTags}}<{{.}}>{{end}}",
            "busybox",
        ])
        .ok();
    assert_eq!(upper, "LINUX 1 <busybox:latest>");
    for bad in [
        "{{.NoSuch",
        "{{.NoSuchField.Deeper}}",
        "{{nofunc .Id}}",
        "{{range}}",
        "{{end}}",
    ] {
        let ran = world.dhow(&["inspect", "--format", bad, "busybox"]);
        // Docker's: 64 for a template that cannot be read, 1 for one that cannot be followed.
        assert!(ran.code == 64 || ran.code == 1, "{bad}: {ran:?}");
        ran.exits_any().says("template");
    }
    world.say("create --name one busybox true").ok();
    let json: serde_json::Value = serde_json::from_str(&world.say("inspect one").ok()).unwrap();
    assert_eq!(json[0]["Name"], "/one");
    assert_eq!(json[0]["State"]["Running"], false);
}

#[test]
fn prune_and_df_free_and_tell_what_is_not_used() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let df = world.say("system df").ok();
    assert!(
        df.starts_with("TYPE") && df.contains("Images") && df.contains("Build Cache"),
        "{df}"
    );
    world.import_busybox("busybox");
    world.feed(&["import", "-"], samples::busybox_tar()).ok();
    assert!(world.say("images -q --filter dangling=true").ok().len() >= 12);
    world.say("image prune -f").exits(0);
    assert_eq!(world.say("images -q --filter dangling=true").ok(), "");
    assert_eq!(world.say("images -q").ok().len(), 12);
    world.say("create --name idle busybox true").ok();
    world.say("system prune -f").exits(0);
    assert_eq!(world.say("ps -aq").ok(), "");
    world
        .say("system prune -a -f")
        .exits(0)
        .prints("Total reclaimed space");
    assert_eq!(world.say("images -q").ok(), "");
    assert_eq!(
        crate::world::names(&world.root().join("trash")),
        Vec::<String>::new()
    );
    world.clean();
}
