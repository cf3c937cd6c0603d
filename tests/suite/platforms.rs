//! Images that one name has for several machines, once they are here: the verbs that take `--platform`.

use crate::served::Served;
use crate::world::World;

/// A file that says for which machine it was made, in an image for each of two.
const EACH: &str = "FROM --platform=$BUILDPLATFORM busybox AS maker\nARG TARGETARCH\n\
                    RUN --network=none echo built for $TARGETARCH > /out\nFROM scratch\nCOPY --from=maker /out /out\n";
const BOTH: &str = "linux/amd64,linux/arm64";

/// What is asked of an image about its machine.
const MACHINE: [&str; 2] = ["--format", "{{.Architecture}}"];

/// `team/many:1` in a registry, for amd64 and arm64.
fn published(maker: &World) -> (Served, String) {
    maker.import_busybox("busybox");
    let registry = Served::start(&maker.path("registry"));
    let name = registry.name("team/many:1");
    let args = ["build", "--platform", BOTH, "-t", &name, "--push", "-"];
    maker.feed(&args, EACH).exits(0);
    (registry, name)
}

/// A root that pulled the image for both, amd64 last: that one has the name.
fn pulled(name: &str) -> World {
    let world = World::new().unwrap();
    for platform in ["linux/arm64", "linux/amd64"] {
        world.dhow(&["pull", "-q", "--platform", platform, name]).ok();
    }
    world
}

fn machine(world: &World, platform: &str, name: &str) -> String {
    let args = ["image", "inspect", "--platform", platform];
    world.dhow(&[&args[..], &MACHINE, &[name]].concat()).ok()
}

fn id(world: &World, platform: &str, name: &str) -> String {
    let args = ["image", "inspect", "--platform", platform, "-f", "{{.Id}}", name];
    world.dhow(&args).ok()
}

#[test]
fn a_name_has_an_image_for_each_platform_that_was_pulled() {
    let Some(maker) = World::new() else { return };
    let (_registry, name) = published(&maker);
    let world = pulled(&name);
    assert_eq!(world.inspect(&name, "{{.Architecture}}"), "amd64");
    assert_eq!(machine(&world, "linux/amd64", &name), "amd64");
    assert_eq!(machine(&world, "linux/arm64/v8", &name), "arm64");
    for verb in ["image inspect", "history", "save -o /dev/null", "push", "rmi"] {
        world
            .say(&format!("{verb} --platform linux/s390x {name}"))
            .exits(1)
            .says("was found but does not provide the specified platform (linux/s390x)")
            .says("it is here for linux/amd64, linux/arm64");
    }
    // An id is one image, whatever the index of its name lists.
    let amd = id(&world, "linux/amd64", &name);
    world
        .say(&format!("history --platform linux/arm64 {amd}"))
        .exits(1)
        .says("it is here for linux/amd64\n");
    let arm = id(&world, "linux/arm64", &name);
    assert_ne!(arm, amd);
    let history = |platform: &str| {
        let line = format!("history -q --no-trunc --platform {platform} {name}");
        world.say(&line).ok().lines().next().unwrap().to_owned()
    };
    assert_eq!(history("linux/arm64"), arm);
    assert_eq!(history("linux/amd64"), amd);
    world.clean();
}

#[test]
fn the_image_of_one_platform_is_saved_loaded_and_pushed() {
    let Some(maker) = World::new() else { return };
    let (registry, name) = published(&maker);
    let world = pulled(&name);
    let arm = id(&world, "linux/arm64", &name);
    let saved = world
        .say(&format!("save --platform linux/arm64 {name}"))
        .exits(0)
        .bytes;
    let far = World::new().unwrap();
    far.feed(&["load", "--platform", "linux/amd64"], saved.clone())
        .exits(1)
        .says("the archive has no image for linux/amd64")
        .says("it has linux/arm64");
    assert_eq!(far.say("images -aq").ok(), "");
    far.feed(&["load", "--platform", "linux/arm64"], saved)
        .exits(0)
        .prints(&format!("Loaded image: {name}"));
    assert_eq!(far.inspect(&name, "{{.Id}}"), arm);

    let again = registry.name("team/many:arm");
    world.dhow(&["tag", &name, &again]).ok();
    world
        .dhow(&["push", "-q", "--platform", "linux/arm64", &again])
        .ok();
    let manifest = world.dhow(&["manifest", "inspect", &again]).ok();
    assert!(!manifest.contains("\"manifests\""), "no index: {manifest}");
    assert!(manifest.contains(arm.as_str()), "{manifest}");
    world.clean();
}

#[test]
fn a_layout_of_several_platforms_is_loaded_for_one() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let file = world.path("both.tar").display().to_string();
    let to = format!("type=oci,dest={file}");
    let args = ["build", "--platform", BOTH, "-t", "many:1", "-o", &to, "-"];
    world.feed(&args, EACH).exits(0);
    world
        .dhow(&["load", "-i", &file, "--platform", "linux/s390x"])
        .exits(1)
        .says("the archive has no image for linux/s390x")
        .says("it has linux/amd64, linux/arm64");
    for machine in ["arm64", "amd64"] {
        let platform = format!("linux/{machine}");
        world.dhow(&["load", "-i", &file, "--platform", &platform]).ok();
        assert_eq!(world.inspect("many:1", "{{.Architecture}}"), machine);
    }
    world.clean();
}

#[test]
fn a_platform_is_removed_and_the_name_stays_with_the_other() {
    let Some(maker) = World::new() else { return };
    let (_registry, name) = published(&maker);
    let world = pulled(&name);
    let (amd, arm) = (id(&world, "linux/amd64", &name), id(&world, "linux/arm64", &name));
    world.dhow(&["create", "--name", "user", &name, "/out"]).ok();
    let remove = |platform: &str| world.dhow(&["rmi", "--platform", platform, &name]);
    remove("linux/amd64").exits(1).says("container");
    assert_eq!(world.inspect(&name, "{{.Id}}"), amd);
    world.say("rm user").ok();
    assert_eq!(remove("linux/amd64").ok(), format!("Deleted: {amd}"));
    assert_eq!(world.inspect(&name, "{{.Id}}"), arm, "the name is the other's");
    remove("linux/amd64")
        .exits(1)
        .says("it is here for linux/arm64\n");
    let last = remove("linux/arm64").ok();
    assert!(
        last.contains(&format!("Untagged: {name}")) && last.ends_with(&format!("Deleted: {arm}")),
        "{last}"
    );
    assert_eq!(world.say("images -aq").ok(), "");

    // The one that has not the name goes without it; and both at once.
    let world = pulled(&name);
    let removed = world.dhow(&["rmi", "--platform", "linux/arm64", &name]).ok();
    assert_eq!(removed, format!("Deleted: {arm}"));
    assert_eq!(world.inspect(&name, "{{.Id}}"), amd);
    let world = pulled(&name);
    world.dhow(&["rmi", "--platform", BOTH, &name]).ok();
    assert_eq!(world.say("images -aq").ok(), "");
    world.clean();
}

#[test]
fn the_tree_shows_the_platforms_of_images() {
    let Some(maker) = World::new() else { return };
    let (_registry, name) = published(&maker);
    let world = World::new().unwrap();
    world
        .dhow(&["pull", "-q", "--platform", "linux/amd64", &name])
        .ok();
    world.import_busybox("box:1");
    world.say("tag box:1 box:2").ok();
    world.say("create --name user box:1 true").ok();
    let tree = world.say("images --tree").ok();
    let cells = |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
    let lines: Vec<Vec<String>> = tree.lines().map(cells).collect();
    assert_eq!(
        lines[0],
        ["IMAGE", "ID", "DISK", "USAGE", "CONTENT", "SIZE", "EXTRA"]
    );
    let at = |name: &str| {
        lines
            .iter()
            .position(|line| line[0] == name)
            .unwrap_or_else(|| panic!("{tree}"))
    };
    let many = at(&name);
    let amd = id(&world, "linux/amd64", &name);
    assert_eq!(lines[many][1], amd[7..19]);
    assert_eq!(lines[many + 1][..3], ["├─", "linux/amd64", &amd[7..19]]);
    assert_ne!(lines[many + 1][4], "0B", "what a registry has of it: {tree}");
    assert_eq!(lines[many + 2][..2], ["└─", "linux/arm64"]);
    assert_eq!(lines[many + 2][3..], ["0B", "0B"], "not here: {tree}");
    assert_eq!(lines[at("box:1")], ["box:1"], "another name of the same");
    assert_eq!(lines[at("box:2")].last().unwrap(), "U", "{tree}");
    let one = world.say("images --tree --filter reference=box:1").ok();
    assert!(one.contains("box:2") && !one.contains("many"), "{one}");
    for flag in ["-q", "--digests", "--no-trunc", "--format json"] {
        world
            .say(&format!("images --tree {flag}"))
            .exits(1)
            .says("is not yet supported with --tree");
    }
    world.clean();
}

#[test]
fn an_untagged_parent_goes_with_its_last_child_unless_it_is_to_stay() {
    let Some(world) = World::new() else { return };
    for (flag, stays) in [("--no-prune", true), ("", false)] {
        world.import_busybox("base:1");
        let base = world.inspect("base:1", "{{.Id}}");
        world.say("create --name maker base:1 true").ok();
        world.say("commit maker child:1").ok();
        world.say("tag child:1 child:2").ok();
        world.say("commit -m other maker other:1").ok();
        world.say("rm maker").ok();
        // The name of the base moves on: what is left of it is a parent without a name.
        world.say("tag other:1 base:1").ok();
        let has = || world.say("images -aq --no-trunc").ok().contains(&base);
        world.say(&format!("rmi {flag} child:2")).ok();
        world.say(&format!("rmi {flag} child:1")).ok();
        assert!(has(), "another child is left");
        world.say(&format!("rmi {flag} base:1")).ok();
        let removed = world.say(&format!("rmi {flag} other:1")).ok();
        assert_eq!(has(), stays, "{removed}");
        assert_eq!(removed.contains(&format!("Deleted: {base}")), !stays, "{removed}");
        world.say("image prune -f").ok();
    }
    world.clean();
}
