//! Arguments: what is not supported is an error that names it.

use crate::world::{Ran, World, finish};

fn verbs(world: &World, group: &[&str]) -> Vec<String> {
    let mut args = group.to_vec();
    args.push("--help");
    let help = world.dhow(&args).exits(0).stdout;
    let lines = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    lines
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|verb| verb != "help")
        .collect()
}

/// Every verb with the words that lead to it.
fn every(world: &World) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for verb in verbs(world, &[]) {
        let below = verbs(world, &[&verb]);
        if below.is_empty() {
            found.push(vec![verb]);
        } else {
            found.extend(below.into_iter().map(|inner| vec![verb.clone(), inner]));
        }
    }
    found
}

#[test]
fn unprivileged_every_verb_names_a_flag_that_it_does_not_have() {
    let world = World::anyone();
    let all = every(&world);
    assert!(all.len() > 40, "the help lists every verb: {all:?}");
    let mut wrong = Vec::new();
    for verb in all {
        let mut args = verb.clone();
        args.push("--no-such-flag".to_owned());
        let ran = world.dhow(&args);
        if ran.code != 125 || !ran.stderr.contains("'--no-such-flag'") || !ran.stdout.is_empty() {
            wrong.push(format!(
                "{verb:?}: exit {}: {}{}",
                ran.code, ran.stdout, ran.stderr
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!world.root().exists(), "nothing is made for a wrong command");
}

#[test]
fn unprivileged_every_verb_has_help_that_exits_with_0() {
    let world = World::anyone();
    for verb in every(&world) {
        let mut args = verb.clone();
        args.push("--help".to_owned());
        let ran = world.dhow(&args).exits(0);
        assert!(ran.stdout.contains("Usage: dhow"), "{verb:?}: {ran:?}");
        assert_eq!(ran.stderr, "", "{verb:?}");
    }
}

#[test]
fn unprivileged_a_slip_of_the_finger_gets_a_suggestion() {
    let world = World::anyone();
    for (wrong, right) in [
        ("runn", "run"),
        ("imagess", "images"),
        ("pul", "pull"),
        ("biuld", "build"),
        ("inspekt", "inspect"),
    ] {
        let ran = world.dhow(&[wrong]).exits(1);
        assert!(
            ran.stderr.contains(&format!("'{wrong}'")) && ran.stderr.contains(&format!("'{right}'")),
            "{ran:?}"
        );
    }
    let ran = world.dhow(&["images", "--quite"]).exits(125);
    assert!(ran.stderr.contains("--quiet"), "{ran:?}");
}

#[test]
fn unprivileged_nothing_is_said_on_standard_output_by_an_error() {
    let world = World::anyone();
    world.dhow::<&str>(&[]).exits_any().silent();
    world.dhow(&["no-such-verb"]).exits(1).silent();
    world.dhow(&["tag", "one"]).exits(1).silent();
    world.dhow(&["run"]).exits(1).silent();
    world.dhow(&["network", "no-such"]).exits(1).silent();
}

#[test]
fn a_short_name_means_docker_io_library() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for name in [
        "busybox",
        "library/busybox",
        "docker.io/busybox",
        "docker.io/library/busybox:latest",
        "index.docker.io/busybox",
    ] {
        assert_eq!(
            world
                .dhow(&["inspect", "--format", "{{index .RepoTags 0}}", name])
                .ok(),
            "busybox:latest",
            "{name}"
        );
    }
    world.dhow(&["inspect", "localhost/busybox"]).exits(1);
    world.dhow(&["inspect", "someone/busybox"]).exits(1);
    // Without a way to the registry, the error names the whole reference.
    let mut command = world.command(&["pull", "no-such-image-of-ours"]);
    command.env(
        "https_proxy",
        format!("http://127.0.0.1:{}", crate::world::free_port()),
    );
    finish(command, Vec::new())
        .exits(1)
        .prints("Using default tag: latest")
        .says("docker.io/v2/library/no-such-image-of-ours");
}

#[test]
fn values_out_of_range_are_refused_with_the_flag_named() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for (flag, value) in [
        ("--memory", "-1"),
        ("--memory", "1z"),
        ("--memory", "99999999999999999999"),
        ("--memory", "1k"),
        ("--shm-size", "x"),
        ("--pids-limit", "many"),
        ("--publish", "70000:80"),
        ("--publish", "80:0"),
        ("--publish", "1-5:1-3"),
        ("--publish", "80:80/icmp"),
        ("--publish", "not-an-ip:80:80"),
        ("--volume", ":/a"),
        ("--volume", "a:"),
        ("--volume", "a:b"),
        ("--volume", "/a:/b:bad"),
        ("--mount", "type=nonsense,dst=/a"),
        ("--mount", "type=bind,source=/tmp"),
        ("--mount", "nonsense"),
        ("--tmpfs", "relative"),
        ("--tmpfs", "/a:bad-option"),
        (
            "--hostname",
            "a-name-of-more-than-sixty-four-letters-is-more-than-the-kernel-has-room-for",
        ),
        ("--name", "a/b"),
        ("--name", ""),
        ("--name", "../x"),
        ("--env", "=x"),
        ("--label", "=x"),
        ("--add-host", "no-address"),
        ("--dns", "not-an-ip"),
        ("--ip", "300.1.1.1"),
        ("--mac-address", "zz:zz"),
        ("--restart", "on-failure:x"),
        ("--stop-signal", "SIGNOPE"),
        ("--security-opt", "nonsense"),
        ("--health-interval", "soon"),
        ("--cpuset-cpus", "0-99999"),
        ("--cpus", "0"),
        ("--ulimit", "nosuch=1"),
        ("--user", "a:b:c"),
        ("--platform", "x/y/z/w"),
        ("--pull", "sometimes"),
        ("--cgroupns", "nope"),
        ("--log-driver", "nope"),
    ] {
        let args = [
            "run",
            "--rm",
            "--network",
            "bridge",
            &format!("{flag}={value}"),
            "busybox",
            "true",
        ];
        let ran: Ran = world.dhow(&args);
        assert_eq!(ran.code, 125, "{flag}={value}: {ran:?}");
        assert!(
            !ran.stderr.contains("panicked") && !ran.stderr.is_empty(),
            "{flag}={value}: {ran:?}"
        );
    }
    assert_eq!(world.say("ps -aq").ok(), "");
    world.clean();
}

#[test]
fn unprivileged_versions_are_compared_as_their_ecosystem_does() {
    let world = World::anyone();
    let sign =
        |ecosystem: &str, a: &str, b: &str| world.dhow(&["scan", "compare", ecosystem, a, b]).exits(0).stdout;
    assert_eq!(sign("Debian:12", "3.0.17-1~deb12u2", "3.0.17-1"), "<\n");
    assert_eq!(sign("PyPI", "1.0", "1.0.0"), "=\n");
    assert_eq!(sign("maven", "1.0", "1.0-rc1"), ">\n");
    let ran = world.dhow(&["scan", "compare", "Ultrix", "1", "2"]).exits(1);
    assert!(
        ran.stderr.contains("\"Ultrix\"") && ran.stderr.contains("debian"),
        "{}",
        ran.stderr
    );
}
