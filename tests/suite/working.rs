//! Working images: an image made step by step.

use std::fs;

use crate::world::World;

#[test]
fn an_image_is_made_step_by_step_and_has_one_layer_for_all() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    assert_eq!(world.say("working from busybox").ok(), "busybox");
    world.say("working from busybox").one_error(1).says("already");
    assert_eq!(world.say("working from --name w busybox").ok(), "w");
    assert_eq!(world.say("working ls").ok(), "busybox\nw");
    world.say("working rm busybox").ok();
    // Names with what means something to the builder, and a file that says what is to be left out.
    world.file("src/a$HOME[1]*", "odd");
    world.file("src/.dockerignore", "*\n");
    world.file("tree/sub/f", "deep");
    let odd = world.path("src/a$HOME[1]*").display().to_string();
    let tree = world.path("tree").display().to_string();
    world
        .dhow(&[
            "working", "copy", "--chown", "ada", "--chmod", "640", "w", &odd, "/odd",
        ])
        .exits(0);
    world
        .dhow(&["working", "copy", "w", &tree, "/etc/group", "/opt"])
        .exits(0);
    let tar = dhow_testkit::Tar::new()
        .file("in/side", 0o644, b"packed")
        .finish();
    let tar = world.file("a.tar", tar).display().to_string();
    world.dhow(&["working", "add", "w", &tar, "/un"]).exits(0);
    let run = [
        "working",
        "run",
        "--network",
        "none",
        "w",
        "sh",
        "-c",
        "cat /odd /opt/sub/f > /both; cat /proc/sys/kernel/random/uuid > /when; rm /data/seed",
    ];
    world.dhow(&run).exits(0);
    let set = [
        "working",
        "config",
        "-e",
        "A=1",
        "--cmd",
        "[\"cat\",\"/both\"]",
        "-w",
        "/opt",
        "w",
    ];
    world.dhow(&set).ok();
    let id = world.dhow(&["working", "commit", "w", "made:1"]).ok();
    assert_eq!(world.inspect("made:1", "{{.Id}}"), id);
    assert_eq!(world.say("run --rm --network none made:1").ok(), "odddeep");
    let seen = world.sh_in(
        "made:1",
        "stat -c '%a %U' /odd; cat /un/in/side; echo; pwd; echo $A; ls /data /opt",
    );
    assert_eq!(seen, "640 ada\npacked\n/opt\n1\n/data:\n\n/opt:\ngroup\nsub");
    let layers: Vec<String> =
        serde_json::from_str(&world.inspect("made:1", "{{json .RootFS.Layers}}")).unwrap();
    let base: Vec<String> =
        serde_json::from_str(&world.inspect("busybox", "{{json .RootFS.Layers}}")).unwrap();
    assert_eq!(layers.len(), base.len() + 1, "one layer for all steps");
    assert_eq!(layers[..base.len()], base);
    world.clean();
}

#[test]
fn a_working_image_goes_on_after_a_commit_and_leaves_nothing() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("working from --name w busybox").ok();
    let when = [
        "working",
        "run",
        "--network",
        "none",
        "w",
        "sh",
        "-c",
        "cat /proc/sys/kernel/random/uuid > /when",
    ];
    world.dhow(&when).exits(0);
    world.say("working config -e A=1 w").ok();
    world.say("working commit w made:1").ok();
    let before = world.sh_in("made:1", "cat /when");
    // The same command is done again.
    world.dhow(&when).exits(0);
    world.dhow(&["working", "run", "w", "false"]).exits(1);
    world
        .dhow(&["working", "commit", "--layers", "--rm", "w", "made:2"])
        .ok();
    assert_ne!(world.sh_in("made:2", "cat /when"), before);
    assert_eq!(world.say("working ls").ok(), "");
    let left = world.say("images -aq --filter dangling=true").ok();
    assert!(
        left.lines().count() <= 1,
        "states on the way are not kept: {left}"
    );
    world.say("working rm w").exits(1).says("no working image");
    world.clean();
}

#[test]
fn a_working_image_begins_with_nothing_and_words_are_words() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("working from --name s scratch").ok();
    let file = world.file("f", "x");
    world
        .dhow(&["working", "copy", "s", &file.display().to_string(), "/f"])
        .exits(0);
    world.say("working commit --rm s only:1").ok();
    let out = world.path("out");
    world
        .feed(&["build", "-o", &out.display().to_string(), "-"], "FROM only:1\n")
        .exits(0);
    assert_eq!(fs::read_to_string(out.join("f")).unwrap(), "x");
    world.say("working from busybox").ok();
    let hostile = "x\nRUN touch /owned";
    for args in [
        &[
            "working",
            "copy",
            "--chown",
            hostile,
            "busybox",
            "/etc/group",
            "/g",
        ][..],
        &["working", "copy", "busybox", "/no/such", "/g"],
        &["working", "copy", "busybox/../x", "/etc/group", "/g"],
        &["working", "commit", "nothing", "made:1"],
        &["working", "from", "--name", "a/b", "busybox"],
    ] {
        world.dhow(args).one_error(1);
    }
    world
        .dhow(&[
            "working",
            "copy",
            "busybox",
            "/etc/group",
            &format!("/{hostile}/"),
        ])
        .exits(0);
    world.say("working commit busybox odd:1").ok();
    assert_eq!(world.sh_in("odd:1", "ls /owned 2>&1 | grep -c 'No such'"), "1");
}
