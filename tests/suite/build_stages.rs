//! Stages, triggers, named contexts, and where a build finds its parts.

use std::fs;

use crate::recipe::Recipe;
use crate::world::{Ran, World};

#[test]
fn names_of_stages_are_found_in_any_case_and_hide_images() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.files(&[("foo", "foo")]);
    recipe
        .output(&[], "FROM scratch\nCOPY --from=busybox /etc/group test\n")
        .holds(&[("test", "root:x:0:\nada:x:1000:\nwheel:x:10:ada\n")]);
    let text = "FROM busybox AS golang\nRUN echo own > /f\nFROM scratch\nCOPY --from=golang /f f\n";
    recipe.output(&[], text).holds(&[("f", "own\n")]);
    let text = "FROM scratch AS STAge0\nCOPY foo bar\nFROM scratch AS staGE1\nCOPY --from=staGE0 bar baz\n\
                FROM scratch\nCOPY --from=stage1 baz bax\n";
    recipe
        .output(&["--target", "Stage1"], text)
        .holds(&[("baz", "foo")]);
    for source in ["/", "/d2"] {
        let text = format!(
            "FROM busybox AS target\nCOPY --from=build {source} /out\nFROM busybox AS build\nCOPY foo /d2\nFROM target\n"
        );
        recipe.bad(&[], &text, "cannot copy from stage");
        recipe.bad(&[], &text, "needs to be defined before current stage");
    }
    recipe.bad(&[], "ARG foo=bar", "dockerfile contains no stages to build");
    let text = "FROM scratch AS build\nCOPY foo /out\nFROM scratch\nCOPY --from=build /out /\n";
    let words = "target stage \"bulid\" could not be found";
    recipe.bad(&["--target", "bulid"], text, words);
    recipe.bad(&["--target", "bulid"], text, "did you mean build?");
}

#[test]
fn steps_are_named_with_their_stage_and_number() {
    let Some(recipe) = Recipe::new() else { return };
    let text = "FROM busybox AS base\nWORKDIR /out\nRUN echo \"base\" > base\nFROM scratch\n\
                COPY --from=base --chmod=0644 /out /out\n";
    let ran = recipe.good(&[], text);
    for name in [
        "[base 3/3] RUN echo \"base\" > base",
        "[stage-1 1/1] COPY --from=base --chmod=0644 /out /out",
    ] {
        assert!(ran.stderr.contains(name), "{name}: {ran:?}");
    }
}

#[test]
fn a_dockerfile_is_found_beside_its_context_through_a_link_and_in_lower_case() {
    let Some(recipe) = Recipe::new() else { return };
    let world = &recipe.world;
    recipe.files(&[("foo", "bar"), ("real.Dockerfile", "FROM scratch\nCOPY foo /\n")]);
    std::os::unix::fs::symlink("real.Dockerfile", recipe.at("Dockerfile")).unwrap();
    let context = recipe.at("").display().to_string();
    recipe.output_of(&[], &context).holds(&[("foo", "bar")]);
    fs::rename(recipe.at("Dockerfile"), recipe.at("dockerfile")).unwrap();
    recipe.output_of(&[], &context).holds(&[("foo", "bar")]);
    // Relative paths are those of who calls.
    let mut command = world.command(&["build", "-o", "type=cacheonly", "."]);
    command.current_dir(recipe.at(""));
    crate::world::finish(command, Vec::new()).exits(0);
    let elsewhere = world.file("other/Dockerfile", "FROM scratch\nCOPY foo /two\n");
    let flags = ["-f", &elsewhere.display().to_string()];
    recipe.output_of(&flags, &context).holds(&[("two", "bar")]);
}

#[test]
fn labels_and_ports_are_those_of_the_file_and_of_the_flags() {
    let Some(recipe) = Recipe::new() else { return };
    let text =
        "FROM scratch\nLABEL foo=bar\nARG PORTS=\"3000 4000/udp\"\nEXPOSE $PORTS\nEXPOSE 5000\nENV x=y\n";
    recipe.build(&["-t", "l", "--label", "bar=baz"], text).exits(0);
    let config = recipe.config("l");
    assert_eq!(config["Labels"], serde_json::json!({"foo": "bar", "bar": "baz"}));
    let ports: Vec<&String> = config["ExposedPorts"].as_object().unwrap().keys().collect();
    assert_eq!(ports, ["3000/tcp", "4000/udp", "5000/tcp"]);
    let env = config["Env"].to_string();
    assert!(env.contains("x=y") && env.contains("PATH="), "{env}");
    assert_eq!(config["WorkingDir"], "/");
    let layers = recipe.world.inspect("l", "{{len .RootFS.Layers}}");
    assert_eq!(layers, "0", "nothing was copied");
    // Something may be built of it all the same.
    recipe.files(&[("foo", "foo")]);
    recipe
        .build(&["-t", "m"], "FROM l\nLABEL more=1\nCOPY foo .\n")
        .exits(0);
    let config = recipe.config("m");
    assert_eq!(config["Labels"]["foo"], "bar");
    assert_eq!(config["Labels"]["more"], "1");
    assert_eq!(recipe.world.inspect("m", "{{len .RootFS.Layers}}"), "1");
}

#[test]
fn history_has_a_line_for_each_instruction_of_the_last_stage() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.files(&[("foo", "foo")]);
    let text = "FROM busybox AS base\nENV foo=bar\nCOPY foo /foo2\nFROM busybox\nLABEL lbl=val\nARG a=1\nARG b=2\nARG a=3\n\
                COPY --from=base foo2 foo3\nWORKDIR /\nRUN echo bar > foo4\nRUN [\"ls\"]\nEXPOSE 2375 5000 1234/udp\n";
    recipe.build(&["-t", "h"], text).exits(0);
    let tar = recipe.world.path("h.tar");
    let output = format!("type=docker,dest={}", tar.display());
    recipe.build(&["-t", "h", "-o", &output], text).exits(0);
    let lines = recipe
        .world
        .say("history --no-trunc --format {{.CreatedBy}} h")
        .ok();
    // Newest first.
    let lines: Vec<&str> = lines.lines().collect();
    for (line, part) in lines.iter().zip([
        "EXPOSE [1234/udp 2375/tcp 5000/tcp]",
        "RUN |2 a=3 b=2 ls",
        "RUN |2 a=3 b=2 /bin/sh -c echo bar > foo4",
        "WORKDIR /",
        "COPY foo2 foo3",
        "ARG a=3",
        "ARG b=2",
        "ARG a=1",
        "LABEL lbl=val",
    ]) {
        assert!(line.contains(part), "{part}: {lines:#?}");
    }
    assert!(!lines.iter().any(|line| line.contains("foo=bar")), "{lines:#?}");
    assert_eq!(
        recipe.world.inspect("h", "{{len .RootFS.Layers}}"),
        "4",
        "that of the base, COPY, RUN, RUN"
    );
}

#[test]
fn triggers_run_once_and_not_again_in_a_stage_of_the_stage() {
    let Some(recipe) = Recipe::new() else { return };
    let base = "FROM busybox\nONBUILD RUN mkdir -p /out && echo 11 >> /out/foo\n";
    recipe.build(&["-t", "base"], base).exits(0);
    recipe.build(&["-t", "child"], "FROM base\n").exits(0);
    let out = "FROM child AS it\nFROM scratch\nCOPY --from=it /out /\n";
    recipe.output(&[], out).holds(&[("foo", "11\n")]);
    recipe.good(
        &[],
        "FROM base AS one\nRUN test -f /out/foo && rm /out/foo\nFROM one AS two\nRUN test ! -e /out/foo\n",
    );
    // Those of a stage of this very file, also with what they copy of another.
    let text = "FROM busybox AS src\nRUN mkdir /in && echo 12 > /in/file\nFROM busybox AS base\n\
                ONBUILD RUN mkdir -p /out && echo 11 > /out/foo\nONBUILD COPY --from=src /in/file /out/bar\n\
                FROM base AS mid\nRUN cat /out/foo /out/bar > /both\nFROM scratch\nCOPY --from=mid /both /\n";
    recipe.output(&[], text).holds(&[("both", "11\n12\n")]);
    let cache =
        "FROM busybox\nONBUILD RUN --mount=type=cache,target=/cache echo 42 > /cache/foo && echo 11 > /bar\n";
    recipe.build(&["-t", "cached"], cache).exits(0);
    recipe.good(
        &[],
        "FROM cached\nRUN --mount=type=cache,target=/cache test \"$(cat /cache/foo /bar | tr -d '\\n')\" = 4211\n",
    );
    let heredoc = "FROM busybox\nONBUILD RUN <<EOF\necho hello > /dest\necho world >> /dest\nEOF\n";
    recipe.build(&["-t", "doc"], heredoc).exits(0);
    recipe
        .output(&[], "FROM doc AS it\nFROM scratch\nCOPY --from=it /dest /\n")
        .holds(&[("dest", "hello\nworld\n")]);
}

#[test]
fn triggers_bring_images_stages_and_contexts_that_the_file_does_not_name() {
    let Some(recipe) = Recipe::new() else { return };
    let world = &recipe.world;
    recipe
        .build(&["-t", "data"], "FROM scratch\nCOPY <<EOF /release\nr1\nEOF\n")
        .exits(0);
    let first = "FROM busybox\nONBUILD COPY --from=data /release /out/release\n";
    recipe.build(&["-t", "first"], first).exits(0);
    let text =
        "FROM first AS base\nRUN cat /out/release > /out/again\nFROM scratch\nCOPY --from=base /out /\n";
    recipe.output(&[], text).holds(&[("again", "r1\n")]);
    let second = "FROM busybox\nONBUILD RUN --mount=type=bind,target=/in,from=inputstage \
                  mkdir /out && cat /in/foo /in/out/release > /out/bar\n";
    recipe.build(&["-t", "second"], second).exits(0);
    let text = "FROM first AS inputstage\nRUN echo foo > /foo\nFROM second AS base\nRUN echo more >> /out/bar\n\
                FROM scratch\nCOPY --from=base /out /\n";
    recipe.output(&[], text).holds(&[("bar", "foo\nr1\nmore\n")]);
    // The base comes of a layout, and its trigger wants a stage of this file.
    let layout = world.path("layout");
    let output = format!("type=oci,dest={},tar=false", layout.display());
    let text = "FROM busybox\nONBUILD COPY --from=otherstage /f /out/foo\n";
    recipe.build(&["-t", "b:1", "-o", &output], text).exits(0);
    let text = "FROM busybox AS otherstage\nRUN echo hello > /f\nFROM base AS input\nFROM scratch\n\
                COPY --from=input /out/foo /bar\n";
    let context = format!("base=oci-layout://{}:1", layout.display());
    recipe
        .output(&["--build-context", &context], text)
        .holds(&[("bar", "hello\n")]);
}

#[test]
fn named_contexts_replace_bases_and_stages_and_are_not_asked_for_in_vain() {
    let Some(recipe) = Recipe::new() else { return };
    let made = "FROM busybox\nENV PATH=/foobar:$PATH FOOBAR=foobar\nRUN echo made > /made\n";
    recipe.build(&["-t", "made"], made).exits(0);
    let context = ["--build-context", "alpine=docker-image://made"];
    recipe.good(
        &context,
        "FROM alpine AS base\nRUN test -f /made && test \"$FOOBAR\" = foobar && echo $PATH | grep -q ^/foobar:\n",
    );
    // A stage that stands on another one.
    recipe.good(
        &["--build-context", "base=docker-image://made"],
        "FROM busybox AS parent\nFROM parent AS base\nRUN echo base > /out\nFROM base\nRUN test -f /made -a ! -e /out\n",
    );
    let text = "FROM alpine AS build\nCOPY <<EOF /out\nhello\nEOF\n";
    let out = recipe.output(&["--build-context", "alpine=docker-image://scratch"], text);
    out.holds(&[("out", "hello\n")]);
    assert_eq!(crate::world::names(&out.path("")), ["out"]);
    // What no stage needs is not looked for.
    let text = "FROM broken AS notused\nFROM busybox AS base\nRUN echo base > /foo\nFROM also-broken AS other\n\
                FROM scratch\nCOPY --from=base /foo /foo\n";
    let flags = [
        "--build-context",
        "notused=docker-image://127.0.0.1:9/none:1",
        "--build-context",
        "also-broken=docker-image://127.0.0.1:9/none:2",
    ];
    recipe.output(&flags, text).holds(&[("foo", "base\n")]);
    // The image's own time, not that of the context.
    recipe
        .build(
            &["-t", "derived", context[0], context[1]],
            "FROM alpine\nRUN echo foo > /test\n",
        )
        .exits(0);
    let created = |name: &str| recipe.world.inspect(name, "{{.Created}}");
    assert!(created("derived") > created("made"));
}

#[test]
fn a_named_folder_has_its_own_ignore_file_and_a_layout_its_config() {
    let Some(recipe) = Recipe::new() else { return };
    let world = &recipe.world;
    world.file("lib/out", "folder");
    world.file("lib/out2", "ignored");
    world.file("lib/.dockerignore", "out2\n");
    let text = "FROM busybox AS base\nRUN exit 1\nFROM scratch\nCOPY --from=base /o* /\n";
    let context = format!("base={}", world.path("lib").display());
    let out = recipe.output(&["--build-context", &context], text);
    out.holds(&[("out", "folder")]).lacks(&["out2"]);
    let layout = world.path("layout");
    let output = format!("type=oci,dest={},tar=false", layout.display());
    let text = "FROM busybox\nWORKDIR /test\nRUN echo first > out && echo second > out2\nENV foo=bar\n";
    recipe.build(&["-t", "x:1", "-o", &output], text).exits(0);
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let named = |name: &str| format!("{name}=oci-layout://{}@{digest}", layout.display());
    let (base, foo) = (named("base"), named("foo"));
    let flags = ["--build-context", &base, "--build-context", &foo];
    let text = "FROM busybox AS base\nRUN exit 1\nFROM foo AS imported\nRUN echo $foo > outfoo\nFROM scratch\n\
                COPY --from=base /test/o* /\nCOPY --from=imported /test/outfoo /\n";
    recipe
        .output(&flags, text)
        .holds(&[("out", "first\n"), ("out2", "second\n"), ("outfoo", "bar\n")]);
    recipe
        .build(&["-t", "again", flags[2], flags[3]], "FROM foo AS base\n")
        .exits(0);
    let config = recipe.config("again");
    assert_eq!(config["WorkingDir"], "/test");
    assert!(config["Env"].to_string().contains("foo=bar"), "{config}");
}

#[test]
fn a_named_context_may_be_meant_for_one_platform() {
    let Some(recipe) = Recipe::new() else { return };
    let world = &recipe.world;
    world.file("amd/f", "amd64");
    world.file("arm/f", "arm64");
    let named = |platform: &str, folder: &str| {
        let folder = world.path(folder).display().to_string();
        ["--build-context".to_owned(), format!("src::{platform}={folder}")]
    };
    let contexts = [named("linux/amd64", "amd"), named("linux/arm64", "arm")].concat();
    let mut flags: Vec<&str> = contexts.iter().map(String::as_str).collect();
    flags.extend(["--platform", "linux/amd64,linux/arm64"]);
    let out = recipe.output(&flags, "FROM scratch\nCOPY --from=src f /\n");
    out.holds(&[("linux_amd64/f", "amd64"), ("linux_arm64/f", "arm64")]);
}

/// Builds a Dockerfile with a mistake; its place is shown.
fn place(recipe: &Recipe, text: &str) -> Ran {
    recipe.build(&["-o", "type=cacheonly"], text).exits(1)
}

#[test]
fn every_error_shows_the_lines_that_it_is_about() {
    let Some(recipe) = Recipe::new() else { return };
    for (text, lines) in [
        ("from busybox\nenv", &[2][..]),
        ("#syntax=foobar\nfrom busybox", &[1]),
        ("from scratch\nenv foo=bar\nrun what", &[3]),
        ("from scratch\nenv foo=bar\ncopy foo bar\nenv bar=baz", &[3]),
        ("from scratch\nenv foo=bar\ncopy --foo=bar / /\nenv bar=baz", &[3]),
        (
            "from scratch\nenv foo=bar\ncopy --from=invalid foo bar\nenv bar=baz",
            &[3],
        ),
        ("from scratch\nrun wh\\\nat\nenv bar=baz", &[2, 3]),
    ] {
        let ran = place(&recipe, text);
        let marked: Vec<usize> = ran
            .stderr
            .lines()
            .filter(|line| line.contains(">>>"))
            .filter_map(|line| line.split('|').next()?.trim().parse().ok())
            .collect();
        assert_eq!(marked, lines, "{text}: {ran:?}");
    }
}

#[test]
fn what_a_build_left_is_all_given_back_by_a_prune() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.files(&[("foo", "foo")]);
    let world = &recipe.world;
    let text = "FROM busybox\nCOPY foo /\nRUN --mount=type=cache,target=/c touch /c/x\n";
    let listed = |world: &World| world.dhow(&["builder", "du"]).ok();
    recipe.good(&[], text);
    let first = listed(world);
    recipe.good(&[], text);
    let rows = |text: &str| text.lines().count();
    assert_eq!(
        rows(&listed(world)),
        rows(&first),
        "the same build again takes nothing more"
    );
    world.say("builder prune -af").exits(0);
    let left = listed(world);
    assert!(!left.contains(" true ") && !left.contains(" false "), "{left}");
    world.clean();
}
