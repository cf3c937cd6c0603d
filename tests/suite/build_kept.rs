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

/// What `--why` says of a step.
#[track_caller]
fn verdict(ran: &Ran, step: &str) -> String {
    let mut lines = ran.stderr.lines();
    let found = lines
        .by_ref()
        .skip_while(|line| !(line.starts_with('[') && line.contains(step)));
    let said = found.skip(1).find(|line| line.starts_with("    "));
    said.unwrap_or_else(|| panic!("{step} is not explained: {ran:?}"))
        .trim()
        .to_owned()
}

#[test]
fn why_names_the_first_input_that_differed() {
    let Some(world) = world() else { return };
    let why = |flags: &[&str]| build(&world, &[&["--why"], flags].concat());
    let ran = why(&[]);
    assert_eq!(
        verdict(&ran, "COPY file"),
        "not cached: it was not built here before"
    );
    let ran = why(&[]);
    assert_eq!(verdict(&ran, "COPY file"), "cached");
    assert_eq!(verdict(&ran, "RUN echo"), "cached");
    let ran = why(&["--build-arg", "COLOUR=blue"]);
    assert_eq!(
        verdict(&ran, "RUN cat"),
        "not cached: build argument COLOUR was \"red\" and is \"blue\""
    );
    world.file("ctx/file", "two");
    let ran = why(&["--build-arg", "COLOUR=blue"]);
    assert_eq!(verdict(&ran, "COPY file"), "not cached: file file has changed");
    assert_eq!(
        verdict(&ran, "RUN cat"),
        "not cached: the step before has another result"
    );
    world.file(
        "ctx/Dockerfile",
        TEXT.replace("COPY file /file", "COPY . /ctx/\nCOPY file /file"),
    );
    let ran = why(&[]);
    assert_eq!(
        verdict(&ran, "COPY . "),
        "not cached: the instruction is another one: it was COPY file /file # buildkit"
    );
    world.file("ctx/added", "");
    assert_eq!(verdict(&why(&[]), "COPY . "), "not cached: file added is new");
    std::fs::remove_file(world.path("ctx/added")).unwrap();
    world.say("builder prune -af").ok();
    assert_eq!(verdict(&why(&[]), "COPY . "), "not cached: file added is gone");
    world.say("rmi -f k").ok();
    world.say("builder prune -af").ok();
    let ran = why(&[]);
    assert_eq!(
        verdict(&ran, "COPY . "),
        "not cached: its result is no longer in the cache"
    );
    let ran = why(&["--no-cache"]);
    assert_eq!(
        verdict(&ran, "COPY . "),
        "not cached: the cache was not to be used"
    );
    world
        .feed(
            &["build", "-t", "busybox", "-"],
            "FROM busybox\nRUN echo new > /new\n",
        )
        .exits(0);
    let ran = why(&[]);
    assert_eq!(
        verdict(&ran, "COPY . "),
        "not cached: the base image docker.io/library/busybox:latest is another one"
    );
    assert!(!build(&world, &[]).stderr.contains("not cached:"));
    // A secret in an argument is told apart and not told.
    let text = "FROM busybox\nARG API_TOKEN\nRUN true\n";
    for (value, wanted) in [("one", "before"), ("two", "build argument API_TOKEN has changed")] {
        let argument = format!("API_TOKEN={value}hush");
        let ran = world
            .feed(&["build", "--why", "--build-arg", &argument, "-"], text)
            .exits(0);
        assert!(verdict(&ran, "RUN true").contains(wanted), "{ran:?}");
    }
    let kept = std::process::Command::new("grep")
        .args(["-r", "hush"])
        .arg(world.root().join("cache"))
        .output();
    assert_eq!(kept.unwrap().stdout, b"", "the value is not kept");
}

#[test]
fn a_build_is_done_twice_to_see_whether_it_is_reproducible() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let build = |text: &str, flags: &[&str]| {
        let mut args = vec!["build", "--verify-reproducible", "-t", "v"];
        args.extend(flags);
        args.push("-");
        world.feed(&args, text)
    };
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=1700000000"];
    let good = "FROM busybox\nRUN mkdir /d; echo x > /d/f\nWORKDIR /w\n";
    build(good, &epoch)
        .exits(0)
        .says("the second build gave the same image");
    build(good, &[]).exits(0).says("but for times");
    let bad =
        "FROM busybox\nRUN echo x > /same\nRUN echo x > /a; cat /proc/sys/kernel/random/uuid > /random\n";
    for flags in [&epoch[..], &[]] {
        build(bad, flags)
            .exits(1)
            .says("not reproducible")
            .says("/random: content (layer of RUN")
            .says("random/uuid");
    }
    // What was in the cache stays there: the second build is for comparison only.
    let text = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /r\n";
    world.feed(&["build", "-t", "kept", "-"], text).exits(0);
    let id = world.inspect("kept", "{{.Id}}");
    build(text, &[]).exits(1);
    world.feed(&["build", "-t", "kept", "-"], text).exits(0);
    assert_eq!(world.inspect("kept", "{{.Id}}"), id);
    world.say("rmi -f v kept").ok();
    let images = |world: &World| -> std::collections::BTreeSet<String> {
        world.say("images -aq").ok().lines().map(str::to_owned).collect()
    };
    let before = images(&world);
    build(bad, &[]).exits(1);
    assert_eq!(images(&world), before, "the second build leaves no image");
    let output = format!(
        "type=oci,dest={},rewrite-timestamp=true",
        world.path("o").display()
    );
    world
        .feed(&["build", "-o", &output, "-"], good)
        .one_error(1)
        .says("SOURCE_DATE_EPOCH");
    let mut args = vec!["build", "-o", &output];
    args.extend(epoch);
    args.push("-");
    world.feed(&args, good).exits(0);
    world.clean();
}
