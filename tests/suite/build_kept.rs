//! The build cache: what hits, what misses, what is the same every time.

use crate::world::{Ran, World};

fn build(world: &World, flags: &[&str]) -> Ran {
    let folder = world.path("ctx").display().to_string();
    let mut args = vec!["build", "--progress", "plain", "-t", "k"];
    args.extend(flags);
    args.push(&folder);
    world.dhow(&args).exits(0)
}

/// How many steps came from the cache.
fn cached(ran: &Ran) -> usize {
    format!("{}{}", ran.stdout, ran.stderr).matches("CACHED").count()
}

fn id(world: &World) -> String {
    world.inspect("k", "{{.Id}}")
}

const TEXT: &str = "FROM busybox
ARG COLOUR=red
COPY file /file
RUN cat /file > /copy; date +%N > /when 2>/dev/null; cat /proc/sys/kernel/random/uuid >> /when
ENV A=1
RUN echo $COLOUR > /colour
";

fn world() -> Option<World> {
    let world = World::with_busybox()?;
    world.file("ctx/Dockerfile", TEXT);
    world.file("ctx/file", "one");
    Some(world)
}

#[test]
fn a_second_build_takes_every_step_from_the_cache() {
    let Some(world) = world() else { return };
    assert_eq!(cached(&build(&world, &[])), 0);
    let first = id(&world);
    assert_eq!(cached(&build(&world, &[])), 3);
    assert_eq!(id(&world), first);
    // Neither its time nor its owner's umask make a file another one.
    std::fs::File::options()
        .append(true)
        .open(world.path("ctx/file"))
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    assert_eq!(cached(&build(&world, &[])), 3);
    world.say("rmi -f k").ok();
    assert_eq!(
        cached(&build(&world, &[])),
        3,
        "the cache lives longer than the image"
    );
    assert_eq!(id(&world), first);
}

#[test]
fn a_changed_file_argument_or_variable_misses_from_there_on() {
    let Some(world) = world() else { return };
    build(&world, &[]);
    let first = id(&world);
    let ran = build(&world, &["--build-arg", "COLOUR=blue"]);
    assert!(cached(&ran) < 3, "{ran:?}");
    assert_eq!(world.sh_in("k", "cat /colour"), "blue");
    world.file("ctx/file", "two");
    assert_eq!(cached(&build(&world, &[])), 0);
    assert_eq!(world.sh_in("k", "cat /copy"), "two");
    world.file("ctx/file", "one");
    assert_eq!(cached(&build(&world, &[])), 3, "and back again");
    assert_eq!(id(&world), first);
    world.file("ctx/Dockerfile", TEXT.replace("A=1", "A=2"));
    let ran = build(&world, &[]);
    assert_eq!(cached(&ran), 2, "what stands before ENV is as it was: {ran:?}");
    world.file("ctx/new", "not copied");
    assert_eq!(cached(&build(&world, &[])), 3, "a file that no step uses");
}

#[test]
fn no_cache_and_a_pruned_cache_do_everything_again() {
    let Some(world) = world() else { return };
    build(&world, &[]);
    let first = id(&world);
    assert_eq!(cached(&build(&world, &["--no-cache"])), 0);
    assert_ne!(id(&world), first, "the step with a random number ran again");
    world.say("builder prune -af").exits(0);
    assert_eq!(cached(&build(&world, &[])), 0);
    world.clean();
}

#[test]
fn a_base_that_changed_is_noticed() {
    let Some(world) = world() else { return };
    build(&world, &[]);
    world
        .feed(
            &["build", "-t", "busybox", "-"],
            "FROM busybox\nRUN echo new > /new\n",
        )
        .exits(0);
    assert_eq!(cached(&build(&world, &[])), 0);
    assert_eq!(world.sh_in("k", "cat /new"), "new");
}

#[test]
fn the_same_input_gives_the_same_image_in_another_store() {
    let mut ids = Vec::new();
    for _ in 0..2 {
        let Some(other) = World::new() else { return };
        let base = crate::samples::docker_archive("busybox:latest", &crate::samples::busybox_tar());
        other.feed(&["load"], base).ok();
        let args = ["build", "-q", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", "-"];
        ids.push(
            other
                .feed(
                    &args,
                    "FROM busybox\nRUN echo fixed > /f; mkdir /d; ln -s f /d/l\n",
                )
                .ok(),
        );
    }
    assert_eq!(ids[0], ids[1]);
}
