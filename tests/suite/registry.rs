//! Our own registry: the same digests come back, also after a crash.

use crate::served::Served;
use crate::world::{World, http};

#[test]
fn what_was_pushed_comes_back_with_the_same_digests() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let served = Served::start(&world.path("registry"));
    let name = served.name("fleet/box:1");
    world.dhow(&["tag", "busybox", &name]).ok();
    let said = world.dhow(&["push", &name]).all();
    let digest = said
        .lines()
        .find_map(|line| line.strip_prefix("1: digest: "))
        .unwrap_or_else(|| panic!("{said}"));
    let digest = digest.split(' ').next().unwrap().to_owned();
    let format = "{{.Id}} {{index .RepoDigests 0}}";
    let before = world.inspect(&name, format);
    assert!(
        before.ends_with(&format!("/fleet/box@{digest}")),
        "{before} {digest}"
    );
    world.dhow(&["rmi", &name, "busybox"]).ok();
    assert!(world.dhow(&["pull", &name]).all().contains(&digest));
    assert_eq!(world.inspect(&name, format), before);
    let other = World::new().unwrap();
    other.dhow(&["pull", &name]).ok();
    assert_eq!(other.inspect(&name, format), before);
    assert_eq!(
        other
            .dhow(&["run", "--rm", "--network", "none", &name, "echo", "ran"])
            .ok(),
        "ran"
    );
    let listed = http(served.host(), "/v2/fleet/box/tags/list").unwrap();
    let tags: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(tags["tags"], serde_json::json!(["1"]));
    assert!(http(served.host(), "/v2/_catalog").unwrap().contains("fleet/box"));
}

#[test]
fn a_second_push_sends_nothing_and_another_repository_takes_what_is_there() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let served = Served::start(&world.path("registry"));
    for name in ["a:1", "a:2", "b:1"] {
        let name = served.name(name);
        world.dhow(&["tag", "busybox", &name]).ok();
        world.dhow(&["push", &name]).ok();
    }
    let ran = world.dhow(&["push", &served.name("a:1")]).exits(0);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines[0].starts_with("The push refers to repository ["), "{ran:?}");
    assert!(
        lines[1].ends_with(": Preparing") && lines[2].ends_with(": Layer already exists"),
        "{ran:?}"
    );
    assert!(
        lines[3].starts_with("1: digest: sha256:") && lines.len() == 4,
        "{ran:?}"
    );
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_registry_that_was_killed_has_all_that_it_said_it_had() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let mut served = Served::start(&world.path("registry"));
    world.dhow(&["tag", "busybox", &served.name("a:1")]).ok();
    world.dhow(&["push", &served.name("a:1")]).ok();
    let id = world.inspect("busybox", "{{.Id}}");
    served.crash();
    let name = served.name("a:1");
    world.dhow(&["pull", &name]).ok();
    assert_eq!(world.inspect(&name, "{{.Id}}"), id);
}

#[test]
fn what_is_not_there_is_told_with_the_registrys_words() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let served = Served::start(&world.path("registry"));
    world
        .dhow(&["pull", &served.name("no/such:1")])
        .one_error(1)
        .says("not found");
    world
        .dhow(&["push", &served.name("not/tagged:1")])
        .one_error(1)
        .says("not/tagged");
    world
        .dhow(&["push", "--no-such-flag", &served.name("a:1")])
        .one_error(125)
        .says("--no-such-flag");
}

#[test]
fn a_second_registry_on_the_same_port_is_refused() {
    let Some(world) = World::new() else { return };
    let served = Served::start(&world.path("registry"));
    let other = world.path("other").display().to_string();
    let args = ["registry", "serve", "--listen", served.host(), "--root", &other];
    world.dhow(&args).one_error(1).says("in use");
}
