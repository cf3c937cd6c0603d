//! Called by the name `podman`: its names, words, exit codes and JSON, over the same containers and images.

use std::os::unix::process::CommandExt as _;

use serde_json::Value;

use crate::world::{Ran, World, eventually, finish};

impl World {
    /// Runs the binary under the name `podman`.
    fn podman(&self, line: &str) -> Ran {
        let mut command = self.command(&line.split_whitespace().collect::<Vec<_>>());
        command.arg0("podman");
        finish(command, Vec::new())
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_name_without_a_registry_is_podmans_localhost() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .podman("tag docker.io/library/busybox tool tool:2 quay.io/team/tool")
        .ok();
    let names = world
        .podman("images --noheading --sort repository --format {{.Repository}}:{{.Tag}}")
        .ok();
    let expected = [
        "docker.io/library/busybox:latest",
        "localhost/tool:2",
        "localhost/tool:latest",
        "quay.io/team/tool:latest",
    ];
    assert_eq!(names.lines().collect::<Vec<_>>(), expected);
    assert_eq!(world.podman("run --rm --network none tool:2 echo hi").ok(), "hi");
    world.podman("create --name of-tool tool true").ok();
    assert_eq!(
        world.podman("ps -a --noheading --format {{.Image}}").ok(),
        "localhost/tool:latest"
    );
    // The last part of a path is a name to look for.
    assert_eq!(world.podman("images -q tool").ok().lines().count(), 3);
    world.podman("rm of-tool").ok();
    // With docker's words the same name leads elsewhere.
    world
        .say("run --rm --network none --pull never tool:2 true")
        .exits(125);
    world
        .podman("rmi tool:2")
        .prints("Untagged: localhost/tool:2")
        .ok();
}

#[test]
fn untag_takes_names_and_leaves_the_image() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let id = world.podman("inspect --format {{.ID}} busybox").ok();
    assert_eq!(id.len(), 64);
    world.podman("tag busybox a b").ok();
    world
        .podman("untag busybox nothing")
        .exits(125)
        .says("Error: untag image");
    world.podman("untag busybox a").ok();
    world.podman("image exists a").exits(1).silent();
    world.podman(&format!("untag {id}")).ok();
    world.podman("image exists busybox").exits(1);
    world.podman(&format!("image exists {id}")).exits(0).silent();
}

#[test]
fn exists_answers_with_its_exit_code_alone() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("create --name here busybox true").ok();
    world.say("volume create data").ok();
    for (group, name) in [
        ("container", "here"),
        ("image", "busybox"),
        ("volume", "data"),
        ("network", "bridge"),
    ] {
        assert_eq!(
            world
                .say(&format!("{group} exists {name}"))
                .exits(0)
                .silent()
                .stderr,
            ""
        );
        assert_eq!(
            world
                .say(&format!("{group} exists nope"))
                .exits(1)
                .silent()
                .stderr,
            ""
        );
    }
}

#[test]
fn failures_have_podmans_words_and_codes() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let missing = "Error: no container with name or ID \"nope\" found: no such container";
    for (line, code) in [
        ("stop nope", 125),
        ("rm nope", 1),
        ("wait nope", 125),
        ("start nope", 125),
    ] {
        world.podman(line).exits(code).says(missing);
    }
    world.podman("rm --ignore nope").exits(0);
    world.podman("stop --ignore nope").exits(0);
    assert_eq!(world.podman("wait --ignore nope").ok(), "-1");
    assert_eq!(world.podman("rm --force nope").exits(0).stderr, "");
    world
        .podman("run --pull never nope true")
        .exits(125)
        .says("Error: ")
        .says("nope: image not known");
    world.podman("rmi nope").exits(1).says("nope: image not known");
    world.podman("rmi --ignore nope").exits(0);
    world
        .podman("volume rm nope")
        .exits(1)
        .says("no volume with name \"nope\" found: no such volume");
    world
        .podman("network rm nope")
        .says("unable to find network with name or ID nope: network not found");
    world.podman("ps --nope").exits(125);
    let id = world.podman("run -d --network none busybox sleep 60").ok();
    world.podman(&format!("rm {id}")).exits(2);
    world.podman("rmi busybox").exits(2);
    // Docker's words are what they were.
    world
        .say("stop nope")
        .exits(1)
        .says("dhow: No such container: nope");
}

#[test]
fn lists_are_one_array_of_whole_things() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let id = world
        .podman("run -d --name web --label team=blue --network none busybox sleep 60")
        .ok();
    world.say("volume create --label v=1 data").ok();
    world.podman("tag busybox other").ok();
    let containers = json(&world.podman("ps --format json").ok());
    let one = &containers[0];
    assert_eq!(one["Id"], *id);
    assert_eq!(one["Names"][0], "web");
    assert_eq!(one["Labels"]["team"], "blue");
    assert_eq!(one["State"], "running");
    assert_eq!(one["Command"][0], "sleep");
    assert!(one["Pid"].as_i64().is_some_and(|pid| pid > 0), "{one}");
    let images = json(&world.podman("images --format json").ok());
    assert_eq!(images.as_array().map(Vec::len), Some(1), "{images}");
    assert_eq!(images[0]["Names"].as_array().map(Vec::len), Some(2), "{images}");
    assert_eq!(images[0]["Containers"], 1);
    assert_eq!(
        json(&world.podman("volume ls --format json").ok())[0]["Labels"]["v"],
        "1"
    );
    let networks = json(&world.podman("network ls --format json").ok());
    assert!(
        networks
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one["name"] == "bridge")),
        "{networks}"
    );
    assert_eq!(
        world.podman("ps --format {{.Names}}:{{.Labels.team}}").ok(),
        "web:blue"
    );
    assert_eq!(world.podman("inspect --format {{.Name}} web").ok(), "web");
    // Docker prints a line for each.
    assert_eq!(json(&world.say("ps --format json").ok())["Names"], "web");
}

#[test]
fn containers_are_chosen_all_at_once_newest_or_by_a_file() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let file = world.path("cid");
    let run = "run -d --stop-timeout 0 --network none";
    let first = world
        .say(&format!("{run} --cidfile {} busybox sleep 60", file.display()))
        .ok();
    let second = world.say(&format!("{run} busybox sleep 60")).ok();
    assert_eq!(world.say("stop --latest").ok(), second);
    assert_eq!(world.say("start --all").ok(), second);
    assert_eq!(
        world.say(&format!("stop --cidfile {}", file.display())).ok(),
        first
    );
    assert_eq!(world.say("kill --all").ok(), second);
    let gone = world.path("no-cid");
    world
        .say(&format!("rm --cidfile {}", gone.display()))
        .exits(1)
        .says("reading CIDFile");
    assert_eq!(
        world
            .say(&format!("rm --ignore --cidfile {}", gone.display()))
            .ok(),
        ""
    );
    world.say("rm --all x").exits(125);
    let removed = world.say("rm --all").ok();
    assert_eq!(removed.lines().count(), 2, "{removed}");
    assert_eq!(world.containers(), Vec::<String>::new());
    world.say("volume create aa").ok();
    world.say("volume create bb").ok();
    assert_eq!(world.say("volume rm --all").ok(), "aa\nbb");
    world.say("rmi --all").ok();
    assert_eq!(world.say("images -q").ok(), "");
}

#[test]
fn rm_with_a_time_lets_the_program_end_by_itself() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let out = world.path("out");
    std::fs::create_dir(&out).unwrap();
    let volume = format!("{}:/out", out.display());
    let script = "trap 'echo bye >/out/last; exit 0' TERM; echo up >/out/up; while :; do sleep 0.05; done";
    world
        .dhow(&[
            "run",
            "-d",
            "--name",
            "polite",
            "--network",
            "none",
            "-v",
            &volume,
            "busybox",
            "sh",
            "-c",
            script,
        ])
        .ok();
    eventually("it runs", || out.join("up").exists());
    world.say("rm --force --time 20 polite").ok();
    assert_eq!(std::fs::read_to_string(out.join("last")).unwrap(), "bye\n");
}

#[test]
fn wait_waits_for_a_condition() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("run -d --name web --network none busybox sleep 60")
        .ok();
    assert_eq!(world.say("wait --condition running web").ok(), "-1");
    world.say("kill web").ok();
    assert_eq!(
        world.say("wait --condition exited --condition paused web").ok(),
        "137"
    );
    world.say("wait --condition purple web").exits(1).says("purple");
}

#[test]
fn health_is_checked_when_a_person_asks() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let run = "run -d --network none --health-interval disable --health-retries 2";
    let check = ["--health-cmd", "test ! -e /bad", "busybox", "sleep", "60"];
    let mut args: Vec<&str> = run.split(' ').collect();
    args.extend(["--name", "hale"]);
    args.extend(check);
    world.dhow(&args).ok();
    assert_eq!(
        world.inspect("hale", "{{.State.Health.Status}} {{len .State.Health.Log}}"),
        "starting 0"
    );
    assert_eq!(world.say("healthcheck run hale").ok(), "");
    assert_eq!(
        world.inspect("hale", "{{.State.Health.Status}} {{len .State.Health.Log}}"),
        "healthy 1"
    );
    world.say("exec hale touch /bad").ok();
    world.say("healthcheck run hale").exits(1).prints("unhealthy");
    assert_eq!(
        world.inspect("hale", "{{.State.Health.Status}} {{.State.Health.FailingStreak}}"),
        "healthy 1"
    );
    world.say("healthcheck run hale").exits(1);
    assert_eq!(world.inspect("hale", "{{.State.Health.Status}}"), "unhealthy");
    assert_eq!(world.inspect("hale", "{{.State.Running}}"), "true");
    world.say("kill hale").ok();
    world
        .say("healthcheck run hale")
        .exits(125)
        .says("is not running");
    world
        .say("run -d --name plain --network none busybox sleep 60")
        .ok();
    world
        .say("healthcheck run plain")
        .exits(125)
        .says("has no defined healthcheck");
}

#[test]
fn an_unhealthy_container_is_killed_stopped_or_started_again_as_was_asked() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for action in ["kill", "stop", "restart"] {
        let name = format!("to-{action}");
        world
            .dhow(&[
                "run",
                "-d",
                "--name",
                &name,
                "--network",
                "none",
                "--stop-timeout",
                "1",
                "--health-interval",
                "disable",
                "--health-retries",
                "1",
                "--health-on-failure",
                action,
                "--health-cmd",
                "test ! -e /dev/shm/bad",
                "busybox",
                "sleep",
                "60",
            ])
            .ok();
        world.dhow(&["healthcheck", "run", &name]).ok();
        let before = world.inspect(&name, "{{.State.Pid}}");
        world.dhow(&["exec", &name, "touch", "/dev/shm/bad"]).ok();
        world.dhow(&["healthcheck", "run", &name]).exits(1);
        if action == "restart" {
            eventually("it runs again", || {
                let now = world.inspect(&name, "{{.State.Status}} {{.State.Pid}}");
                now.starts_with("running ") && now != format!("running {before}")
            });
            assert_eq!(world.inspect(&name, "{{.RestartCount}}"), "1");
            world.dhow(&["healthcheck", "run", &name]).ok();
        } else {
            eventually("it has ended", || {
                world.inspect(&name, "{{.State.Status}}") == "exited"
            });
        }
    }
    world
        .say("create --health-on-failure kill busybox true")
        .exits(125)
        .says("cannot set on-failure action to kill without a health check");
}
