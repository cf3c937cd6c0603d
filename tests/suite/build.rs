//! Builds: stages, contexts, failures with their place.

use std::fs;

use crate::world::{Ran, World};

/// Builds a Dockerfile without a context.
fn stdin(world: &World, flags: &str, text: &str) -> Ran {
    let mut args = vec!["build"];
    args.extend(flags.split_whitespace());
    args.push("-");
    world.feed(&args, text)
}

fn run(world: &World, image: &str, script: &str) -> String {
    world
        .dhow(&["run", "--rm", "--network", "none", image, "sh", "-c", script])
        .ok()
}

#[test]
fn a_build_of_several_stages_keeps_what_the_last_one_has() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.file("ctx/src/main.txt", "source\n");
    let text = "# syntax is docker's
ARG BASE=busybox
FROM $BASE AS maker
WORKDIR /src
COPY src/ .
RUN tr a-z A-Z < main.txt > /made && echo tool > /tool

FROM busybox
LABEL kind=shop
ENV GREETING=ahoy PATH=/opt:$PATH
ARG WHO=nobody
RUN mkdir /opt
COPY --from=maker --chown=ada --chmod=640 /made /opt/made
RUN echo \"$GREETING $WHO\" > /opt/hello
USER ada
WORKDIR /opt
EXPOSE 80/tcp
VOLUME /keep
STOPSIGNAL SIGUSR1
HEALTHCHECK --interval=5s CMD true
ENTRYPOINT [\"sh\", \"-c\"]
CMD [\"cat hello made; id -u; pwd\"]
";
    world.file("ctx/Dockerfile", text);
    let folder = world.path("ctx").display().to_string();
    world
        .dhow(&[
            "build",
            "-t",
            "shop:1",
            "-t",
            "shop:latest",
            "--build-arg",
            "WHO=world",
            &folder,
        ])
        .exits(0);
    assert_eq!(
        world.say("run --rm --network none shop:1").ok(),
        "ahoy world\nSOURCE\n1000\n/opt"
    );
    assert_eq!(world.say("images shop").exits(0).stdout.lines().count(), 3);
    let config: serde_json::Value =
        serde_json::from_str(&world.inspect("shop:1", "{{json .Config}}")).unwrap();
    assert_eq!(config["Labels"]["kind"], "shop");
    assert_eq!(config["User"], "ada");
    assert_eq!(config["StopSignal"], "SIGUSR1");
    assert!(
        config["ExposedPorts"]["80/tcp"].is_object() && config["Volumes"]["/keep"].is_object(),
        "{config}"
    );
    assert_eq!(config["Healthcheck"]["Interval"], 5_000_000_000_u64);
    let seen = world
        .dhow(&[
            "run",
            "--rm",
            "--network",
            "none",
            "shop:1",
            "ls /tool /src 2>&1; stat -c '%a %U' /opt/made",
        ])
        .exits(0);
    assert!(
        seen.stdout.contains("No such file") && seen.stdout.contains("640 ada"),
        "{seen:?}"
    );
    let history = world.say("history --no-trunc shop:1").ok();
    assert!(
        history.contains("STOPSIGNAL") && history.contains("echo \"$GREETING $WHO\""),
        "{history}"
    );
    world.clean();
}

#[test]
fn the_id_is_printed_with_q_and_written_with_iidfile() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let file = world.path("iid").display().to_string();
    let id = stdin(
        &world,
        &format!("-q --iidfile {file}"),
        "FROM busybox\nRUN true\n",
    )
    .ok();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), id);
}

#[test]
fn a_step_that_fails_shows_its_exit_code_output_and_place() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let ran = stdin(
        &world,
        "-t f:1",
        "FROM busybox\nENV A=b\nRUN echo this is why >&2; exit 37\nRUN echo later\n",
    )
    .exits(1);
    for part in ["this is why", "exit code: 37", "exit 37"] {
        assert!(ran.stderr.contains(part), "{part}: {ran:?}");
    }
    assert!(
        ran.stderr
            .lines()
            .any(|line| line.contains(">>>") && line.contains("RUN echo this is why")),
        "{ran:?}"
    );
    assert!(
        !ran.stderr.contains("later\n") || !ran.stdout.contains("later"),
        "{ran:?}"
    );
    assert_eq!(world.say("images -q f").ok(), "");
    assert_eq!(world.say("ps -aq").ok(), "");
    world.clean();
}

/// Dockerfiles with a mistake, the line of it, and a word that the message must have.
const MISTAKES: &[(&str, usize, &str)] = &[
    ("FROM busybox\nRUNN true\n", 2, "RUNN"),
    ("FROM busybox\n\n# c\nCOPY onlyone\n", 4, "COPY"),
    ("RUN true\n", 1, "FROM"),
    ("FROM busybox\nENV\n", 2, "ENV"),
    ("FROM busybox\nEXPOSE many\n", 2, "many"),
    ("FROM busybox\nCOPY --from=nowhere /a /b\n", 2, "nowhere"),
    ("FROM busybox\nRUN --mount=type=nonsense true\n", 2, "nonsense"),
    ("FROM busybox\nRUN --nosuch true\n", 2, "nosuch"),
    ("FROM busybox AS Bad!\n", 1, "Bad!"),
    ("FROM busybox\nLABEL a=\"open\n", 2, ""),
    ("FROM busybox\nHEALTHCHECK --interval=soon CMD true\n", 2, "soon"),
    ("FROM busybox\nUSER\n", 2, "USER"),
    ("FROM busybox\nSTOPSIGNAL NOPE\n", 2, "NOPE"),
    ("FROM busybox\nRUN <<EOF\ntrue\n", 2, "EOF"),
];

#[test]
fn a_mistake_in_the_dockerfile_names_its_line() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let mut wrong = Vec::new();
    for (text, line, word) in MISTAKES {
        let ran = stdin(&world, "", text);
        let named = ran.stderr.contains(&format!(":{line}")) || ran.stderr.contains(&format!("line {line}"));
        if ran.code != 1 || !named || !ran.stderr.contains(word) || ran.stderr.contains("panicked") {
            wrong.push(format!("{text:?}: exit {}: {}", ran.code, ran.stderr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (text, word) in [
        ("", "no instructions"),
        ("# only a comment\n", "no instructions"),
        ("FROM \u{0}\n", ""),
        ("FROM Bad:Ref:x\n", "Bad:Ref:x"),
    ] {
        let ran = stdin(&world, "", text).exits(1);
        assert!(ran.stderr.contains(word), "{text:?}: {ran:?}");
    }
    world.clean();
}

#[test]
fn dockerignore_keeps_files_out_of_the_context() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.file("ctx/.dockerignore", "*.log\nsecret\n!keep.log\n**/deep.txt\n");
    for name in [
        "a.txt",
        "b.log",
        "keep.log",
        "secret/key",
        "x/y/deep.txt",
        "x/y/other",
    ] {
        world.file(&format!("ctx/{name}"), name);
    }
    world.file("ctx/Dockerfile", "FROM busybox\nCOPY . /ctx\n");
    let folder = world.path("ctx").display().to_string();
    world.dhow(&["build", "-t", "i", &folder]).exits(0);
    let found = run(&world, "i", "cd /ctx; find . -type f | sort");
    assert_eq!(
        found,
        "./.dockerignore\n./Dockerfile\n./a.txt\n./keep.log\n./x/y/other"
    );
    world.file("ctx/Dockerfile", "FROM busybox\nCOPY secret/key /\n");
    world
        .dhow(&["build", &folder])
        .exits(1)
        .says("secret/key")
        .says("dockerignore");
}

#[test]
fn a_context_cannot_be_left() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.file("outside", "not yours");
    world.file("ctx/inside", "yours");
    std::os::unix::fs::symlink("../outside", world.path("ctx/link")).unwrap();
    std::os::unix::fs::symlink("..", world.path("ctx/up")).unwrap();
    let folder = world.path("ctx").display().to_string();
    for source in ["../outside", "/../outside", "up/outside"] {
        world.file("ctx/Dockerfile", format!("FROM busybox\nCOPY {source} /got\n"));
        world
            .dhow(&["build", "-t", "c", &folder])
            .exits(1)
            .says("outside");
    }
    world.file("ctx/Dockerfile", "FROM busybox\nCOPY link* inside /got/\n");
    let ran = world.dhow(&["build", "-t", "c", &folder]);
    if ran.code == 0 {
        let seen = run(&world, "c", "cat /got/link 2>/dev/null; cat /got/inside");
        assert_eq!(
            seen, "yours",
            "a link out of the context brings nothing of the host"
        );
    }
    world.file("ctx/Dockerfile", "FROM busybox\nCOPY missing /x\n");
    world.dhow(&["build", &folder]).exits(1).says("missing");
    world
        .dhow(&["build", "/no/such/folder"])
        .exits(1)
        .says("/no/such/folder");
    world
        .dhow(&["build", "-f", "/no/such/file", &folder])
        .exits(1)
        .says("/no/such/file");
    world.clean();
}

#[test]
fn a_build_sees_its_mounts_secrets_and_network_but_not_the_host() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let secret = world.file("token", "s3cr3t");
    let text = "FROM busybox
RUN --mount=type=secret,id=token cat /run/secrets/token | sha256sum > /sum
RUN --mount=type=cache,target=/cache echo x >> /cache/count; wc -l < /cache/count > /count
RUN --mount=type=tmpfs,target=/t touch /t/f
RUN --network=none ls /sys/class/net > /none
RUN ls /sys/class/net > /net; ls / > /root-has
";
    let flags = format!("-t m --secret id=token,src={}", secret.display());
    stdin(&world, &flags, text).exits(0);
    assert_eq!(
        run(
            &world,
            "m",
            "cat /count /none; grep -c eth0 /net; ls /run/secrets /cache 2>/dev/null | wc -l; test -e /t/f || echo gone"
        ),
        "1\nlo\n1\n0\ngone"
    );
    let saved = world.dhow(&["save", "m"]).exits(0).bytes;
    assert!(
        !saved.windows(6).any(|part| part == b"s3cr3t"),
        "a secret is in no layer"
    );
    assert!(!world.say("history --no-trunc m").ok().contains("s3cr3t"));
    stdin(
        &world,
        "",
        "FROM busybox\nRUN --mount=type=secret,id=absent,required=true true\n",
    )
    .exits(1)
    .says("absent");
}

#[test]
fn a_target_and_an_output_of_a_stage_can_be_chosen() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let text = "FROM busybox AS one\nRUN echo 1 > /one\nFROM one AS two\nRUN exit 1\n";
    stdin(&world, "-t one --target one", text).exits(0);
    assert_eq!(run(&world, "one", "cat /one"), "1");
    stdin(&world, "--target nowhere", text).exits(1).says("nowhere");
}

#[test]
fn scratch_is_empty_and_add_unpacks() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let tar = dhow_testkit::Tar::new()
        .file("in/side", 0o644, b"packed")
        .finish();
    world.file("ctx/a.tar.gz", dhow_testkit::gzip(&tar));
    let folder = world.path("ctx").display().to_string();
    world.file("ctx/Dockerfile", "FROM scratch\nADD a.tar.gz /\nCOPY --from=busybox /bin/busybox /bin/cat\nCMD [\"/bin/cat\", \"/in/side\"]\n");
    world.dhow(&["build", "-t", "s", &folder]).exits(0);
    assert_eq!(world.say("run --rm --network none s").ok(), "packed");
    let hostile = dhow_testkit::Tar::new()
        .file("first", 0o644, b"x")
        .file("../../escaped", 0o644, b"x")
        .finish();
    world.file("ctx/a.tar.gz", dhow_testkit::gzip(&hostile));
    world.dhow(&["build", "-t", "s2", &folder]).exits(1);
    world.clean();
}

#[test]
fn a_context_comes_as_a_tar_on_standard_input_or_from_a_url() {
    use dhow_testkit::{Tar, gzip};
    let Some(world) = World::with_busybox() else {
        return;
    };
    let dockerfile = b"FROM busybox\nCOPY in /in\nRUN cat /in\n";
    let tar = Tar::new()
        .file("Dockerfile", 0o644, dockerfile)
        .file("other/Dockerfile", 0o644, b"FROM busybox\nCOPY in /other\n")
        .file("in", 0o600, b"inside")
        .finish();
    for (tag, bytes) in [("plain", tar.clone()), ("zipped", gzip(&tar))] {
        world.feed(&["build", "-t", tag, "-"], bytes).exits(0);
        assert_eq!(world.sh_in(tag, "cat /in"), "inside");
    }
    world
        .feed(
            &["build", "-t", "other", "-f", "other/Dockerfile", "-"],
            tar.clone(),
        )
        .exits(0);
    assert_eq!(world.sh_in("other", "cat /other"), "inside");
    // A Dockerfile that is a link out of the context is looked for in it.
    let trap = Tar::new().symlink("Dockerfile", "/etc/passwd").finish();
    world
        .feed(&["build", "-"], trap)
        .one_error(1)
        .says("failed to read dockerfile");
    let hostile = Tar::new().file("../up", 0o644, b"x").finish();
    world
        .feed(&["build", "-"], hostile)
        .one_error(1)
        .says("leads out of the root");
    world
        .feed(&["build", "-"], tar[..700].to_vec())
        .one_error(1)
        .says("build context");
    world
        .feed(&["build", "-f", "-", "-"], tar.clone())
        .one_error(1)
        .says("both build context and dockerfile");
    let url = crate::world::served_once(gzip(&tar));
    world.dhow(&["build", "-t", "fetched", &url]).exits(0);
    assert_eq!(world.sh_in("fetched", "cat /in"), "inside");
    let url = crate::world::served_once(b"FROM busybox\nRUN echo alone > /alone\n".to_vec());
    world.dhow(&["build", "-t", "alone", &url]).exits(0);
    assert_eq!(world.sh_in("alone", "cat /alone"), "alone");
    world.clean();
}
