//! Called by the name `podman`: its names, words, exit codes and JSON, over the same containers and images.

use std::os::unix::process::CommandExt as _;

use serde_json::Value;

use crate::world::{Ran, World, eventually, finish};

impl World {
    /// Runs the binary under the name `podman`.
    pub(crate) fn podman(&self, line: &str) -> Ran {
        self.podman_of(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// The same, of words that may have spaces.
    pub(crate) fn podman_of(&self, words: &[&str]) -> Ran {
        let mut command = self.command(words);
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
    // No beginning of an id.
    world.podman("tag busybox tool other").ok();
    world
        .podman("untag busybox nothing")
        .exits(125)
        .says("Error: localhost/nothing:latest: tag not known");
    world.podman("untag busybox tool").ok();
    world.podman("image exists tool").exits(1).silent();
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
    for (line, code) in [("stop nope", 125), ("wait nope", 125), ("start nope", 125)] {
        world.podman(line).exits(code).says(missing);
    }
    world
        .podman("rm nope")
        .exits(1)
        .says("Error: no container with ID or name \"nope\" found: no such container");
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
            .is_some_and(|all| all.iter().any(|one| one["name"] == "podman")),
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
    world.say("rm --all x").exits(1).says("not both");
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
    // As docker has it: what is not looked at any more is not healthy.
    assert_eq!(world.inspect("hale", "{{.State.Health.Status}}"), "unhealthy");
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
fn a_check_that_dies_with_its_container_says_nothing_of_its_health() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let words = "run -d --name hale --network none --health-interval disable --health-retries 1 --health-cmd";
    let mut args: Vec<&str> = words.split(' ').collect();
    args.extend(["echo >/begun; exec sleep 61", "busybox", "sleep", "600"]);
    world.dhow(&args).ok();
    let check = std::thread::scope(|scope| {
        let check = scope.spawn(|| world.say("healthcheck run hale"));
        crate::world::eventually("the check runs", || world.say("exec hale cat /begun").code == 0);
        world.say("stop -t 0 hale").ok();
        check.join().unwrap()
    });
    assert_eq!(check.exits(1).stdout.trim(), "stopped");
    let shown = "{{.State.Status}} {{.State.Health.Status}} {{.State.Health.FailingStreak}} {{len .State.Health.Log}}";
    let podman = ["inspect", "--format", shown, "hale"];
    assert_eq!(world.podman_of(&podman).ok(), "exited stopped 0 0");
    assert_eq!(world.inspect("hale", shown), "exited unhealthy 0 0");
    world.say("start hale").ok();
    assert_eq!(world.inspect("hale", shown), "running starting 0 0");
    // One that is killed while the container runs on has failed.
    let check = std::thread::scope(|scope| {
        let check = scope.spawn(|| world.say("healthcheck run hale"));
        let kill = "for p in /proc/[0-9]*; do \
                    case $(tr '\\0' ' ' <$p/cmdline) in 'sleep 61 ') kill -9 ${p#/proc/};; esac; done";
        crate::world::eventually("the check is over", || {
            // Until it is there to be killed.
            drop(world.dhow(&["exec", "hale", "sh", "-c", kill]));
            world.inspect("hale", "{{len .State.Health.Log}}") != "0"
        });
        check.join().unwrap()
    });
    check.exits(1).prints("unhealthy");
    assert_eq!(world.inspect("hale", "{{.State.Status}}"), "running");
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

#[test]
fn copies_begin_at_the_workdir_and_go_between_containers() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let source = world.file("note", "from the host\n");
    for name in ["one", "two"] {
        world
            .podman(&format!(
                "run -d --name {name} -w /data --network none busybox sleep 60"
            ))
            .ok();
    }
    world.podman(&format!("cp {} one:note", source.display())).ok();
    assert_eq!(world.say("exec one cat /data/note").ok(), "from the host");
    world.podman("cp one:note two:other").ok();
    assert_eq!(world.say("exec two cat /data/other").ok(), "from the host");
    world.say("exec one mkdir -p /tree/below").ok();
    world
        .podman(&format!("cp {} one:/tree/below/leaf", source.display()))
        .ok();
    world.podman("cp one:/tree two:/data").ok();
    assert_eq!(
        world.say("exec two cat /data/tree/below/leaf").ok(),
        "from the host"
    );
    world
        .podman("cp one:/nope two:/data")
        .exits(125)
        .says("Error: \"/nope\" could not be found on container one: no such file or directory");
    // Docker's: relative to the root, and not between containers.
    world.say(&format!("cp {} one:note", source.display())).ok();
    assert_eq!(world.say("exec one cat /note").ok(), "from the host");
}

#[test]
fn filters_choose_containers_for_every_verb() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let create = "create --network none";
    let again = world
        .say(&format!(
            "{create} --name again --restart always busybox sleep 60"
        ))
        .ok();
    world
        .say(&format!("{create} --name once --label keep=1 busybox sleep 60"))
        .ok();
    assert_eq!(world.say("start --filter restart-policy=always").ok(), again);
    assert_eq!(world.say("start --filter label=keep once again").ok(), "once");
    assert_eq!(
        world.say("ps -q --no-trunc --filter restart-policy=always").ok(),
        again
    );
    world
        .say("start --filter restart-policy=sometimes")
        .exits(1)
        .says("sometimes invalid restart policy");
    assert_eq!(world.say("stop -t 0 --filter label=keep").ok().lines().count(), 1);
    assert_eq!(
        world
            .say("ps -a --format {{.Names}} --filter status=stopped")
            .ok(),
        "once"
    );
    assert_eq!(
        world.say("ps -a --format {{.Names}} --sort names").ok(),
        "again\nonce"
    );
}

#[test]
fn what_is_printed_can_go_to_a_file_or_nowhere() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let file = world.path("out");
    let line = format!("--out {} create --name quiet busybox true", file.display());
    world.say(&line).exits(0).silent();
    let id = world.inspect("quiet", "{{.Id}}");
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), id);
    world.say("--noout rm quiet").exits(0).silent();
    world.say("--noout rm quiet").exits(1).says("No such container");
    world
        .say("--out /nonexistent/x ps")
        .exits(1)
        .says("/nonexistent/x");
}

#[test]
fn a_container_gets_a_zone_less_of_its_environment_and_the_place_of_another() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let run = "run --rm --network none";
    if std::path::Path::new("/usr/share/zoneinfo/Asia/Tokyo").exists() {
        let script = "test -s /etc/localtime && grep -c ' /etc/localtime ' /proc/mounts";
        let mounted = world.dhow(&[
            "run",
            "--rm",
            "--network",
            "none",
            "--tz",
            "Asia/Tokyo",
            "busybox",
            "sh",
            "-c",
            script,
        ]);
        assert_eq!(mounted.ok(), "1");
    }
    world
        .say(&format!("{run} --tz ../../etc/shadow busybox true"))
        .exits(125)
        .says("finding timezone");
    let change = "ENV KEPT=1 TAKEN=1";
    world
        .dhow(&[
            "commit",
            "-c",
            change,
            &world.say("create busybox true").ok(),
            "set",
        ])
        .ok();
    let env = world.say(&format!("{run} --unsetenv TAKEN set env")).ok();
    assert!(env.contains("KEPT=1") && !env.contains("TAKEN"), "{env}");
    assert!(
        world
            .podman(&format!("{run} docker.io/library/set env"))
            .ok()
            .contains("container=podman")
    );
    let first = world
        .say("run -d --name web --network none busybox sleep 60")
        .ok();
    world.say("create --name web busybox true").exits(125);
    let second = world.say("create --replace --name /web busybox true").ok();
    assert_ne!(first, second);
    assert_eq!(
        world
            .containers()
            .into_iter()
            .filter(|id| *id == first || *id == second)
            .count(),
        1
    );
    let words = world.dhow(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--entrypoint",
        r#"["echo", "a  b"]"#,
        "busybox",
        "c",
    ]);
    assert_eq!(words.ok(), "a  b c");
}

#[test]
fn ports_that_a_network_cannot_publish_are_left_out_with_a_word() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .podman("run --rm --network none -p 8080 busybox echo on")
        .says(
            "Port mappings have been discarded because \"none\" network namespace mode does not support them",
        )
        .prints("on")
        .exits(0);
    world
        .say("run --rm --network none -p 8080 busybox true")
        .exits(125);
}

#[test]
fn a_program_that_had_to_be_killed_is_a_warning() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for name in ["deaf", "dumb"] {
        world
            .podman(&format!("run -d --name {name} --network none busybox sleep 60"))
            .ok();
    }
    world
        .podman("stop -t 1 deaf")
        .says("level=warning msg=\"StopSignal SIGTERM failed to stop container deaf in 1 seconds, resorting to SIGKILL\"")
        .exits(0);
    assert_eq!(world.podman("stop -t 0 dumb").exits(0).stderr, "");
}

#[test]
fn info_and_version_have_podmans_fields() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let info = json(&world.podman("info --format json").ok());
    assert_eq!(info["store"]["graphRoot"], *world.root().to_string_lossy());
    assert_eq!(info["store"]["imageStore"]["number"], 1);
    assert_eq!(info["host"]["security"]["rootless"], false);
    assert_eq!(
        world
            .podman("info --format {{.Host.OCIRuntime.Name}}:{{.Store.GraphDriverName}}")
            .ok(),
        "dhow:overlay"
    );
    world
        .podman("info")
        .prints("\nstore:\n")
        .prints("  graphDriverName: overlay\n");
    let version = json(&world.podman("version -f json").ok())["Client"]["Version"].clone();
    assert_eq!(
        world.podman("version --format {{.Client.Version}}").ok(),
        version.as_str().unwrap()
    );
    world
        .podman("version")
        .prints(&format!("Version:      {}", version.as_str().unwrap()));
}

#[test]
fn a_containerfile_is_a_dockerfile_by_another_name() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let folder = world.path("context");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(
        folder.join("Containerfile"),
        "FROM busybox\nLABEL from=containerfile\n",
    )
    .unwrap();
    let label = |name: &str| world.inspect(name, "{{.Config.Labels.from}}");
    world.say(&format!("build -q -t built {}", folder.display())).ok();
    assert_eq!(label("built"), "containerfile");
    std::fs::write(folder.join("Dockerfile"), "FROM busybox\nLABEL from=dockerfile\n").unwrap();
    world.say(&format!("build -q -t built {}", folder.display())).ok();
    assert_eq!(label("built"), "dockerfile");
    world
        .podman(&format!("build -q -t built {}", folder.display()))
        .ok();
    assert_eq!(label("localhost/built"), "containerfile");
}

#[test]
fn a_container_can_be_stopped_by_a_real_time_signal() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let out = world.path("out");
    std::fs::create_dir(&out).unwrap();
    let volume = format!("{}:/out", out.display());
    // 37 is what systemd as a container's init is stopped by.
    let script = "trap 'echo got >/out/got; exit 0' 37; echo up >/out/up; while :; do sleep 0.05; done";
    let mut args = vec![
        "run",
        "-d",
        "--name",
        "init",
        "--network",
        "none",
        "--stop-signal",
        "SIGRTMIN+3",
    ];
    args.extend(["-v", &volume, "busybox", "sh", "-c", script]);
    world.dhow(&args).ok();
    eventually("it runs", || out.join("up").exists());
    world.say("stop -t 20 init").ok();
    assert_eq!(std::fs::read_to_string(out.join("got")).unwrap(), "got\n");
    // A first process gets no signal that it does not take: until its trap is there, the next one would be lost.
    std::fs::remove_file(out.join("up")).unwrap();
    world.say("start init").ok();
    eventually("it runs again", || out.join("up").exists());
    world.say("kill -s RTMAX+1 init").exits(1).says("Invalid signal");
    world
        .podman("kill -s 0 nope")
        .exits(125)
        .says("Error: invalid signal: 0");
    world.say("kill -s 37 init").ok();
    assert_eq!(world.say("wait init").ok(), "0");
}

#[test]
fn inspect_prints_what_it_found_before_what_it_did_not() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .say("run -d --name web --network none busybox sleep 60")
        .ok();
    let ran = world
        .say("inspect --format {{.Name}} nope web")
        .exits(1)
        .says("No such object: nope");
    assert_eq!(ran.stdout, "/web\n");
    assert_eq!(world.podman("inspect nope").exits(125).stdout, "[]\n");
    let monitor = world.podman("inspect --format {{.State.ConmonPid}} web").ok();
    let name = std::fs::read_to_string(format!("/proc/{monitor}/comm")).unwrap();
    assert!(name.starts_with("dhow-monitor"), "{name}");
    assert_eq!(
        world.podman("inspect --format {{.State.StoppedByUser}} web").ok(),
        "false"
    );
    world
        .podman("rm web")
        .exits(2)
        .says("as it is running - running or paused containers cannot be removed without force: container state improper");
    let history = json(&world.podman("history --format json busybox").ok());
    assert_eq!(history[0]["id"].as_str().map(str::len), Some(64), "{history}");
}
