//! Root file systems as plain copies, for hosts and file systems without overlayfs.

use std::fs;

use crate::world::{World, root};

/// A root that makes plain copies, with busybox.
fn copies() -> Option<World> {
    let world = World::new()?;
    world.say("system snapshots copy").ok();
    world.import_busybox("busybox");
    Some(world)
}

#[test]
fn the_form_of_snapshots_is_chosen_and_shown() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    assert_eq!(world.say("system snapshots").ok(), "overlay");
    assert_eq!(world.say("info --format {{.Driver}}").ok(), "overlay");
    world.say("run --name before busybox touch /made").ok();
    world.say("system snapshots copy").ok();
    assert_eq!(world.say("system snapshots").ok(), "copy");
    assert_eq!(world.say("info --format {{.Driver}}").ok(), "copy");
    let store = fs::read_to_string(world.root().join("store.json")).unwrap();
    assert!(
        store.contains("\"format\":3"),
        "an older program must not read it: {store}"
    );
    world.say("run --name after busybox touch /made").ok();
    // Both go on as they are, whatever is made now.
    for _ in 0..2 {
        for name in ["before", "after"] {
            assert!(
                world.say(&format!("diff {name}")).ok().contains("A /made"),
                "{name}"
            );
            world.say(&format!("start {name}")).ok();
            world.say(&format!("wait {name}")).ok();
        }
        world.say("system snapshots overlay").ok();
    }
    world.say("system snapshots nonsense").exits(1).says("overlay");
    world.say("rm before after").ok();
    world.clean();
}

#[test]
fn what_a_container_changes_in_a_copy_is_seen_committed_copied_and_exported() {
    let Some(world) = copies() else { return };
    let script =
        "echo new > /new; rm /etc/passwd; mv /bin/true /bin/wahr; chmod 700 /etc; mkdir /d; ln /new /d/new";
    world
        .dhow(&["run", "--name", "box", "busybox", "sh", "-c", script])
        .ok();
    let diff = world.say("diff box").ok();
    for line in [
        "C /etc",
        "D /etc/passwd",
        "D /bin/true",
        "A /bin/wahr",
        "A /new",
        "A /d/new",
    ] {
        assert!(diff.lines().any(|found| found == line), "{line}: {diff}");
    }
    assert!(
        !diff.contains("/bin/busybox") && !diff.contains("/proc"),
        "{diff}"
    );
    world.say("commit box changed").ok();
    let seen = "cat /new; stat -c '%a %h' /etc /d/new; ls /bin/true /etc/passwd 2>/dev/null; ls /bin/wahr";
    assert_eq!(world.sh_in("changed", seen), "new\n700 2\n644 2\n/bin/wahr");
    let file = world.file("file", "from outside");
    world.dhow(&["cp", &file.display().to_string(), "box:/in"]).ok();
    assert!(world.say("cp box:/in -").exits(0).stdout.contains("from outside"));
    assert!(world.say("diff box").ok().contains("A /in"));
    let tar = world.say("export box").exits(0).bytes;
    world.feed(&["import", "-", "whole"], tar).ok();
    assert_eq!(
        world.sh_in("whole", "cat /in; ls /etc/passwd 2>&1 | wc -l"),
        "from outside1"
    );
    assert_eq!(world.inspect("box", "{{.GraphDriver.Name}}"), "vfs");
    let id = world.inspect("box", "{{.Id}}");
    world.say("rm box").ok();
    world.nothing_left(&id);
    world.clean();
}

#[test]
fn what_runs_on_a_copy_does_not_reach_the_image() {
    let Some(world) = copies() else { return };
    world
        .sh("", "echo broken > /bin/busybox; echo x > /etc/passwd")
        .exits_any();
    world.sh("", "test -x /bin/busybox && grep root /etc/passwd").ok();
    world.say("system check --full").exits_any();
    world.clean();
    let shown = world.say("image mount busybox").ok();
    assert!(
        fs::write(format!("{shown}/new"), "x").is_err(),
        "an image is mounted read-only"
    );
    world.say("image unmount busybox").ok();
    world
        .sh("--read-only", "touch /x 2>/dev/null && exit 1; exit 0")
        .ok();
    world.sh("-v /volume", "touch /volume/x && ls /volume").ok();
}

#[test]
fn a_build_on_copies_makes_the_layers_that_one_on_overlays_makes() {
    let (Some(copies), Some(overlays)) = (copies(), World::with_busybox()) else {
        return;
    };
    let text = "FROM busybox AS base\n\
        COPY --chmod=640 file /dir/file\n\
        RUN rm /etc/passwd && echo more >> /dir/file && ln /dir/file /link && mkdir -m 1777 /open\n\
        RUN --mount=type=secret,id=s,target=/run/secrets/s --mount=type=cache,target=/var/cache/c touch /var/cache/c/x\n\
        WORKDIR /srv/dir\n\
        RUN true\n\
        FROM base\n\
        COPY --from=base /dir /again\n";
    let layers = |world: &World| {
        world.file("ctx/Dockerfile", text);
        world.file("ctx/file", "one");
        let context = world.path("ctx").display().to_string();
        let secret = format!("id=s,src={}", world.path("ctx/file").display());
        let args = ["--build-arg", "SOURCE_DATE_EPOCH=1700000000", "--secret", &secret];
        let mut all = vec!["build", "-q", "-t", "made"];
        all.extend(args);
        all.push(&context);
        world.dhow(&all).ok();
        world.inspect("made", "{{json .RootFS.Layers}}")
    };
    assert_eq!(layers(&copies), layers(&overlays));
    assert_eq!(
        copies.sh_in("made", "cat /again/file; pwd; stat -c %h /link"),
        "onemore\n/srv/dir\n2"
    );
}

#[test]
fn a_store_on_a_file_system_that_overlayfs_refuses_makes_copies_by_itself() {
    if !root() {
        return;
    }
    let world = World::anyone();
    let part = |name: &str| {
        let path = world.path(name);
        fs::create_dir_all(&path).unwrap();
        path.display().to_string()
    };
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        part("l"),
        part("u"),
        part("w")
    );
    fs::create_dir_all(world.root()).unwrap();
    let target = world.root().display().to_string();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "overlay", "overlay", "-o", &options, &target])
        .status();
    assert!(mounted.unwrap().success());
    assert_eq!(world.say("system snapshots").ok(), "copy");
    world.say("system snapshots overlay").exits(1).says("copies");
    world.import_busybox("busybox");
    world
        .dhow(&[
            "run",
            "--name",
            "box",
            "busybox",
            "sh",
            "-c",
            "rm /etc/passwd; echo x > /x",
        ])
        .ok();
    // A deletion that no file of this store can say.
    world.say("commit box changed").ok();
    assert_eq!(world.sh_in("changed", "ls /etc/passwd 2>/dev/null; cat /x"), "x");
    let saved = world.say("save changed").exits(0).bytes;
    world.say("rm box").ok();
    world.say("rmi -f changed").ok();
    world.feed(&["load"], saved).ok();
    assert_eq!(world.sh_in("changed", "ls /etc/passwd 2>/dev/null; cat /x"), "x");
    world.clean();
}
