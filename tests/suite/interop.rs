//! With skopeo: both directions, byte for byte.

use std::process::Command;

use crate::samples::tree;
use crate::served::Served;
use crate::world::{Ran, World, finish, program};

fn skopeo(world: &World, args: &[&str]) -> Ran {
    let mut command = Command::new("skopeo");
    let policy = world.file(
        "policy.json",
        r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
    );
    command.arg("--policy").arg(policy).args(args);
    finish(command, Vec::new())
}

#[test]
fn skopeo_takes_what_dhow_pushed_and_gives_it_back_byte_for_byte() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    if !program("skopeo") {
        return;
    }
    let served = Served::start(&world.path("registry"));
    let ours = served.name("ours:1");
    world.dhow(&["tag", "busybox", &ours]).ok();
    world.dhow(&["push", &ours]).ok();
    let (first, second) = (world.path("first"), world.path("second"));
    let first_dir = format!("dir:{}", first.display());
    skopeo(
        &world,
        &[
            "copy",
            "--src-tls-verify=false",
            &format!("docker://{ours}"),
            &first_dir,
        ],
    )
    .ok();
    let theirs = served.name("theirs:1");
    skopeo(
        &world,
        &[
            "copy",
            "--dest-tls-verify=false",
            &first_dir,
            &format!("docker://{theirs}"),
        ],
    )
    .ok();
    let other = World::new().unwrap();
    other.dhow(&["pull", &theirs]).ok();
    assert_eq!(
        other.inspect(&theirs, "{{.Id}}"),
        world.inspect("busybox", "{{.Id}}")
    );
    assert_eq!(
        other
            .dhow(&["run", "--rm", "--network", "none", &theirs, "echo", "ran"])
            .ok(),
        "ran"
    );
    let third = served.name("third:1");
    other.dhow(&["tag", &theirs, &third]).ok();
    other.dhow(&["push", &third]).ok();
    let second_dir = format!("dir:{}", second.display());
    skopeo(
        &world,
        &[
            "copy",
            "--src-tls-verify=false",
            &format!("docker://{third}"),
            &second_dir,
        ],
    )
    .ok();
    assert_eq!(
        tree(&first),
        tree(&second),
        "there and back, every blob and the manifest are the same"
    );
}

#[test]
fn skopeo_reads_what_dhow_saves_and_dhow_loads_what_skopeo_writes() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    if !program("skopeo") {
        return;
    }
    let saved = world.path("saved.tar").display().to_string();
    world.dhow(&["save", "-o", &saved, "busybox"]).ok();
    let id = world.inspect("busybox", "{{.Id}}");
    for kind in ["oci-archive", "docker-archive"] {
        let out = world.path(&format!("{kind}.tar")).display().to_string();
        skopeo(
            &world,
            &[
                "copy",
                &format!("docker-archive:{saved}"),
                &format!("{kind}:{out}:again:1"),
            ],
        )
        .ok();
        let other = World::new().unwrap();
        let said = other.dhow(&["load", "-i", &out]).ok();
        assert!(said.starts_with("Loaded image"), "{said}");
        let name = said
            .lines()
            .last()
            .unwrap()
            .rsplit(' ')
            .next()
            .unwrap()
            .to_owned();
        assert_eq!(
            other
                .dhow(&["run", "--rm", "--network", "none", &name, "echo", "ran"])
                .ok(),
            "ran"
        );
        if kind == "docker-archive" {
            assert_eq!(other.inspect(&name, "{{.Id}}"), id);
        }
    }
}

#[test]
fn skopeo_compression_of_other_kinds_is_understood() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    if !program("skopeo") {
        return;
    }
    let saved = world.path("saved.tar").display().to_string();
    world.dhow(&["save", "-o", &saved, "busybox"]).ok();
    for (tag, flags) in [
        ("zstd", vec!["--dest-compress-format", "zstd", "--format", "oci"]),
        ("v2s2", vec!["--format", "v2s2"]),
    ] {
        // A registry each: skopeo remembers which compressed blobs a registry has, and offers them for both.
        let served = Served::start(&world.path(tag));
        let name = served.name(&format!("box:{tag}"));
        let mut args = vec!["copy", "--dest-tls-verify=false"];
        args.extend(flags);
        let (from, to) = (format!("docker-archive:{saved}"), format!("docker://{name}"));
        args.extend([from.as_str(), to.as_str()]);
        skopeo(&world, &args).ok();
        let other = World::new().unwrap();
        other.dhow(&["pull", &name]).ok();
        assert_eq!(
            other
                .dhow(&["run", "--rm", "--network", "none", &name, "echo", tag])
                .ok(),
            tag
        );
    }
}
