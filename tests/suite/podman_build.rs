//! Called by the name `podman`: how a build looks, what its flags mean, what it says when it fails.

use std::os::unix::process::CommandExt as _;

use crate::world::{Ran, World, finish};

/// A folder with a Containerfile.
fn folder(world: &World, text: &str) -> String {
    world.file("c/Containerfile", text);
    world.path("c").display().to_string()
}

fn build(world: &World, flags: &str, text: &str) -> Ran {
    let folder = folder(world, text);
    world.podman(&format!("build {flags} {folder}"))
}

#[test]
fn the_steps_are_buildahs_and_the_last_line_is_the_id() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let text = "FROM busybox\nRUN echo hello\n";
    let out = build(&world, "--network none -t one -t two:2", text).ok();
    let lines: Vec<&str> = out.lines().collect();
    let id = world.podman("inspect --format {{.Id}} one").ok();
    let expected = [
        "STEP 1/2: FROM docker.io/library/busybox:latest",
        "STEP 2/2: RUN echo hello",
        "hello",
        "COMMIT one",
        &format!("--> {}", &id[..12]),
        "Successfully tagged localhost/one:latest",
        "Successfully tagged localhost/two:2",
        &id,
    ];
    assert_eq!(lines, expected);
    let again = build(&world, "--network none -t one", text).ok();
    assert!(again.contains("--> Using cache\n"), "{again}");
    for flags in ["--layers=false", "--no-cache"] {
        let again = build(&world, &format!("--network none -t one {flags}"), text).ok();
        assert!(!again.contains("Using cache"), "{flags}: {again}");
    }
    assert_eq!(build(&world, "-q -t one", text).ok().len(), 64);
    let log = world.path("log");
    let quiet = build(&world, &format!("-t one --logfile {}", log.display()), text).ok();
    assert_eq!(quiet, "");
    assert!(std::fs::read_to_string(log).unwrap().contains("COMMIT one\n"));
}

#[test]
fn a_failure_names_the_step_and_has_the_commands_exit_code() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    build(&world, "--network none", "FROM busybox\nRUN exit 7\n")
        .exits(7)
        .says("Error: building at STEP \"RUN exit 7\": ");
    build(&world, "", "FROM busybox\nCOPY http://x.test/a /\n")
        .exits(125)
        .says("building at STEP \"COPY http://x.test/a /\": source can't be a URL for COPY");
    build(&world, "--pull-never", "FROM quay.io/no/such:1\n")
        .exits(125)
        .says("Error: creating build container: quay.io/no/such:1: image not known");
    build(&world, "--squash --squash-all", "FROM scratch\n")
        .exits(125)
        .says("Error: cannot specify --squash-all with --squash");
    build(&world, "--authfile /no/such/file", "FROM scratch\n")
        .exits(125)
        .says("credential file is not accessible: faccessat /no/such/file: no such file or directory");
}

#[test]
fn several_files_are_one_and_the_context_may_be_left_out() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let folder = folder(&world, "FROM busybox\nCOPY data /copied\n");
    world.file("c/data", "here");
    let more = world.file("more", "RUN echo more >> /copied\n");
    let files = format!("-f {folder}/Containerfile -f {}", more.display());
    world
        .podman(&format!("build --network none -t it {files} {folder}"))
        .ok();
    assert_eq!(
        world.podman("run --rm --network none it cat /copied").ok(),
        "heremore"
    );
    world
        .podman(&format!("build -t it -f {folder}/Containerfile"))
        .ok();
    assert_eq!(
        world.podman("run --rm --network none it cat /copied").ok(),
        "here"
    );
    let mut command = world.command(&["build", "-t", "it", "-f", "-"]);
    command.arg0("podman");
    finish(command, b"FROM busybox\nENV A=b\n".to_vec()).ok();
    // Docker wants to be told.
    world
        .say(&format!("build -f {folder}/Containerfile"))
        .exits_any()
        .says("required");
}

#[test]
fn a_squash_makes_one_layer_of_what_is_new_or_of_all() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let text = "FROM busybox\nRUN echo a > /a\nRUN echo b > /b; rm /a\n";
    let layers = |name: &str| {
        world
            .podman_of(&["inspect", "--format", "{{len .RootFS.Layers}}", name])
            .ok()
    };
    for (flags, count) in [("", "3"), ("--squash", "2"), ("--squash-all", "1")] {
        build(&world, &format!("--network none -t it {flags}"), text).ok();
        assert_eq!(layers("it"), count, "{flags}");
        world.podman("run --rm --network none it cat /a").exits(1);
        assert_eq!(world.podman("run --rm --network none it cat /b").ok(), "b");
    }
    // What was built on the way is no image.
    assert_eq!(world.podman("images -q").ok().lines().count(), 3);
}

#[test]
fn the_format_is_that_of_the_manifest() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for (format, kind) in [
        ("docker", "application/vnd.docker.distribution.manifest.v2+json"),
        ("oci", "application/vnd.oci.image.manifest.v1+json"),
    ] {
        build(
            &world,
            &format!("--network none -t it --format {format}"),
            "FROM busybox\nENV A=b\n",
        )
        .ok();
        assert_eq!(world.podman("inspect --format {{.ManifestType}} it").ok(), kind);
    }
    world.podman("run --network none --name con busybox true").ok();
    world
        .podman("commit -m words con it")
        .exits(125)
        .says("messages are only compatible with the docker image format (-f docker)");
    world.podman("commit -q -f docker -m words con it").ok();
    assert!(
        world
            .podman("inspect --format {{.ManifestType}} it")
            .ok()
            .contains("docker")
    );
}

#[test]
fn the_sandbox_of_the_steps_is_what_is_asked_for() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let seccomp = "FROM busybox\nRUN grep Seccomp: /proc/self/status | tr -d '\\t'\n";
    build(&world, "--network none -t it", seccomp)
        .prints("Seccomp:2")
        .ok();
    // It is part of what the cache knows a step by.
    build(
        &world,
        "--network none -t it --security-opt seccomp=unconfined",
        seccomp,
    )
    .prints("Seccomp:0")
    .ok();
    build(&world, "--security-opt label=disable", seccomp)
        .exits(125)
        .says("--security-opt label=disable: a build has no such option");
    let mounts = "FROM busybox\nRUN umount /etc/hostname\n";
    build(&world, "--network none -t it", mounts).exits_any();
    build(&world, "--network none -t it --cap-add SYS_ADMIN", mounts).ok();
    let resolv = "FROM busybox\nRUN cat /etc/resolv.conf\n";
    build(
        &world,
        "-t it --dns 192.0.2.9 --dns-search a.test --dns-option ndots:3",
        resolv,
    )
    .prints("nameserver 192.0.2.9\nsearch a.test\noptions ndots:3\n")
    .ok();
    let data = world.file("data", "from the host");
    let flags = format!("--network none -t it -v {}:/given:ro", data.display());
    build(
        &world,
        &flags,
        "FROM busybox\nRUN cat /given; ! echo x > /given\n",
    )
    .prints("from the host")
    .ok();
    world.podman("run --rm --network none it ls /given").exits(1);
}

#[test]
fn what_is_no_part_of_the_context_is_in_buildahs_file_first() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for (name, text) in [
        ("c/.containerignore", "two\n"),
        ("c/.dockerignore", "one\n"),
        ("c/one", ""),
        ("c/two", ""),
    ] {
        world.file(name, text);
    }
    let text = "FROM busybox\nCOPY . /c/\n";
    let listed = || world.podman("run --rm --network none it ls /c").ok();
    build(&world, "-t it", text).ok();
    assert_eq!(listed(), "Containerfile\none");
    let other = world.file("other", "Containerfile\n");
    build(&world, &format!("-t it --ignorefile {}", other.display()), text).ok();
    assert_eq!(listed(), "one\ntwo");
    world
        .say(&format!(
            "build -t it -f {0}/Containerfile {0}",
            world.path("c").display()
        ))
        .ok();
    let docker = world.say("run --rm --network none it ls /c").ok();
    assert_eq!(docker, "Containerfile\ntwo");
}
