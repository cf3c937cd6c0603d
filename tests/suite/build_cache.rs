//! The build cache as a thing of its own: what it takes, what goes, and how it travels.

use std::fs;

use crate::served::Served;
use crate::world::{Ran, World};

const TEXT: &str = "FROM busybox AS one
RUN mkdir /made; cat /proc/sys/kernel/random/uuid > /made/one
FROM busybox
ARG MORE
COPY --from=one /made/one /one
RUN --mount=type=cache,target=/cache,id=shop cat /cache/seed 2>/dev/null; echo x >> /cache/seed; cat /proc/sys/kernel/random/uuid > /two
";

fn build(world: &World, flags: &[&str]) -> Ran {
    let mut args = vec!["build", "--progress", "plain", "-t", "c"];
    args.extend(flags);
    args.push("-");
    world.feed(&args, TEXT)
}

fn cached(ran: &Ran) -> usize {
    ran.stderr.matches("CACHED").count()
}

/// A store with the base image, the same in all.
fn other() -> World {
    let world = World::new().unwrap();
    let base = crate::samples::docker_archive("busybox:latest", &crate::samples::busybox_tar());
    world.feed(&["load"], base).ok();
    world
}

#[test]
fn what_the_cache_takes_is_listed_once_and_goes_by_filter() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    build(&world, &[]).exits(0);
    let listed = world.say("builder du").ok();
    let rows = listed
        .lines()
        .filter(|line| line.contains(" true ") || line.contains(" false "))
        .count();
    assert_eq!(rows, 4, "three layers, each once, and a cache mount: {listed}");
    for word in [
        "ID",
        "RECLAIMABLE",
        "Shared:",
        "Private:",
        "Reclaimable:",
        "Total:",
    ] {
        assert!(listed.contains(word), "{word}: {listed}");
    }
    let verbose = world.say("builder du --verbose").ok();
    assert!(
        verbose.contains("RUN mkdir /made") && verbose.contains("exec.cachemount"),
        "{verbose}"
    );
    assert!(verbose.contains("cache mount shop"), "{verbose}");
    let mounts = world
        .dhow(&["builder", "du", "--filter", "type=exec.cachemount", "--verbose"])
        .ok();
    assert_eq!(mounts.matches("ID:").count(), 1, "{mounts}");
    // The layers of the image are shared with it: without --all they stay.
    world
        .dhow(&["builder", "prune", "-f", "--filter", "type=regular"])
        .exits(0);
    let kept = world.dhow(&["builder", "du", "--verbose"]).ok();
    assert!(
        !kept.contains("RUN mkdir /made") && kept.contains("COPY --from"),
        "{kept}"
    );
    build(&world, &[]).exits(0);
    let gone = world
        .dhow(&["builder", "prune", "-f", "--filter", "type=exec.cachemount"])
        .ok();
    assert!(gone.contains("Total:"), "{gone}");
    let ran = build(&world, &["--no-cache-filter", "1"]).exits(0);
    assert!(!ran.stderr.contains(" x\n"), "the mount is empty: {ran:?}");
    world
        .dhow(&["builder", "prune", "-f", "--filter", "until=24h"])
        .exits(0);
    assert_eq!(cached(&build(&world, &[]).exits(0)), 3, "nothing is that old");
    world
        .dhow(&["builder", "prune", "-af", "--filter", "description~=COPY --from"])
        .exits(0);
    assert_eq!(cached(&build(&world, &[]).exits(0)), 2, "one of the three went");
    world
        .say("builder prune -f --filter colour=red")
        .one_error(1)
        .says("colour");
    world
        .say("builder prune -f --filter type=x")
        .one_error(1)
        .says("type=x");
    world.say("builder prune -af").exits(0);
    assert_eq!(cached(&build(&world, &[]).exits(0)), 0);
    world.clean();
}

/// A Dockerfile whose one step makes a layer of so many MiB.
fn heavy(name: &str, megabytes: u32) -> String {
    format!("FROM busybox\nRUN dd if=/dev/zero of=/{name} bs=1M count={megabytes} 2>/dev/null\n")
}

#[test]
fn the_cache_keeps_its_budget_and_what_is_costly_to_make() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let build = |text: &str, budget: &str| {
        let mut command = world.command(&["build", "--progress", "plain", "-o", "type=cacheonly", "-"]);
        command.env("DHOW_BUILD_CACHE", budget);
        crate::world::finish(command, text.as_bytes().to_vec()).exits(0)
    };
    let slow = heavy("slow", 8).replace("RUN dd", "RUN sleep 2; dd");
    // The older one, so that a slow machine does not make it worth more than the other.
    build(&heavy("quick", 8), "unlimited");
    build(&slow, "unlimited");
    std::thread::sleep(std::time::Duration::from_secs(2));
    // 24 MiB are there and 20 may stay: the one that is cheap to make goes.
    build(&heavy("third", 8), "20m");
    assert_eq!(cached(&build(&slow, "unlimited")), 1);
    assert_eq!(cached(&build(&heavy("third", 8), "unlimited")), 1);
    assert_eq!(cached(&build(&heavy("quick", 8), "unlimited")), 0);
    let gone = world.say("builder prune -f --reserved-space 12m").ok();
    assert!(gone.contains("Total:") && gone.contains("true"), "{gone}");
    let left = world.say("builder du --filter type=regular").ok();
    assert_eq!(left.matches(" true ").count(), 1, "one of 8 MiB has room: {left}");
    let mut command = world.command(&["build", "-"]);
    command.env("DHOW_BUILD_CACHE", "lots");
    crate::world::finish(command, slow.into_bytes())
        .one_error(1)
        .says("DHOW_BUILD_CACHE=lots");
    world.say("builder prune -f --keep-storage 0").ok();
    assert_eq!(cached(&build(&heavy("third", 8), "unlimited")), 0);
    world.clean();
}

#[test]
fn a_cache_travels_by_a_folder_with_its_cache_mounts() {
    if !crate::world::root() {
        return;
    }
    let world = other();
    let folder = world.path("cache");
    let place = folder.display().to_string();
    build(
        &world,
        &[
            "--cache-to",
            &format!("type=local,dest={place},mode=max,mounts=true"),
        ],
    )
    .exits(0);
    let id = world.inspect("c", "{{.Id}}");
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("index.json")).unwrap()).unwrap();
    assert_eq!(
        index["manifests"][0]["artifactType"],
        "application/vnd.dhow.buildcache.v1"
    );
    let far = other();
    let ran = build(&far, &["--cache-from", &format!("type=local,src={place}")]).exits(0);
    assert_eq!(cached(&ran), 3, "{ran:?}");
    assert_eq!(far.inspect("c", "{{.Id}}"), id);
    // Now a step that is not in it, with the cache mount that is.
    let far = other();
    let ran = build(
        &far,
        &[
            "--build-arg",
            "MORE=1",
            "--cache-from",
            &format!("type=local,src={place}"),
        ],
    )
    .exits(0);
    assert!(
        ran.stderr.lines().any(|line| line.ends_with(" x")),
        "the mount had its content: {ran:?}"
    );
    // What is wrong with a cache is told, and the build goes on without it.
    for entry in fs::read_dir(folder.join("blobs/sha256")).unwrap().flatten() {
        fs::write(entry.path(), "damaged").unwrap();
    }
    let far = other();
    let ran = build(&far, &["--cache-from", &format!("type=local,src={place}")]).exits(0);
    assert_eq!(cached(&ran), 0);
    assert!(ran.stderr.contains("importing cache manifest"), "{ran:?}");
    let more = ["--build-arg", "MORE=2", "--cache-from", "type=local,src=/no/such"];
    build(&far, &more).exits(0).says("/no/such");
    build(&far, &["--cache-to", "type=local,dest=/proc/no"])
        .exits(1)
        .says("/proc/no");
    build(
        &far,
        &["--cache-to", "type=local,dest=/proc/no,ignore-error=true"],
    )
    .exits(0);
    far.clean();
}

#[test]
fn a_cache_travels_by_a_registry_and_inline_in_an_image() {
    if !crate::world::root() {
        return;
    }
    let world = other();
    let registry = Served::start(&world.path("registry"));
    let name = registry.name("team/cache:main");
    build(&world, &["--cache-to", &format!("type=registry,ref={name}")]).exits(0);
    let id = world.inspect("c", "{{.Id}}");
    let far = other();
    // mode=min: the layers of the image itself, to which the step of the other stage does not belong.
    let ran = build(&far, &["--cache-from", &name]).exits(0);
    assert!(cached(&ran) < 3, "{ran:?}");
    build(
        &world,
        &["--cache-to", &format!("type=registry,ref={name},mode=max")],
    )
    .exits(0);
    let far = other();
    let ran = build(&far, &["--cache-from", &format!("type=registry,ref={name}")]).exits(0);
    assert_eq!(cached(&ran), 3, "{ran:?}");
    assert_eq!(far.inspect("c", "{{.Id}}"), id);
    far.dhow(&["pull", &name]).exits(1).says("artifact");
    // Inline: the image is its own cache.
    let image = registry.name("team/app:1");
    let text = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /r\n";
    let push = ["build", "-t", &image, "--push", "--cache-to", "type=inline", "-"];
    world.feed(&push, text).exits(0);
    let far = other();
    let ran = far
        .feed(
            &[
                "build",
                "--progress",
                "plain",
                "-t",
                "i",
                "--cache-from",
                &image,
                "-",
            ],
            text,
        )
        .exits(0);
    assert_eq!(cached(&ran), 1, "{ran:?}");
    assert_eq!(far.sh_in("i", "cat /r"), world.sh_in(&image, "cat /r"));
    let other = text.replace("> /r", "> /s");
    let ran = far
        .feed(
            &["build", "--cache-from", &registry.name("no/such:1"), "-"],
            other,
        )
        .exits(0);
    assert!(ran.stderr.contains("importing cache manifest"), "{ran:?}");
    far.clean();
}
