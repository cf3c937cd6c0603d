//! `build --check` and `--call`, and what a build says of its Dockerfile.

use serde_json::{Value, json};

use crate::world::World;

/// A Dockerfile with two things that are not wise.
const UNWISE: &str =
    "FROM busybox AS out\n# NAME whom to greet\nARG NAME=you\nMAINTAINER me\nCMD echo hello\n";

fn context(world: &World, text: &str) -> String {
    world.file("ctx/Dockerfile", text);
    world.path("ctx").display().to_string()
}

#[test]
fn a_check_names_rule_sentence_and_lines_and_fails() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let folder = context(&world, UNWISE);
    let ran = world.dhow(&["build", "--check", &folder]).exits(1);
    let wanted = "Check complete, 2 warnings have been found!

WARNING: MaintainerDeprecated - https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/
Maintainer instruction is deprecated in favor of using label
Dockerfile:4
--------------------
   2 |     # NAME whom to greet
   3 |     ARG NAME=you
   4 | >>> MAINTAINER me
   5 |     CMD echo hello
--------------------

WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/
JSON arguments recommended for CMD to prevent unintended behavior related to OS signals
Dockerfile:5
--------------------
   3 |     ARG NAME=you
   4 |     MAINTAINER me
   5 | >>> CMD echo hello
--------------------
";
    assert_eq!(ran.stdout, wanted);
    assert_eq!(ran.stderr, "");
    // Nothing was built.
    assert_eq!(world.say("images").exits(0).stdout.lines().count(), 2);
    world
        .dhow(&["build", "--call", "check,ignorestatus=true", &folder])
        .exits(0);
    let folder = context(&world, "FROM busybox\nCMD [\"true\"]\n");
    let ran = world.dhow(&["build", "--call", "check", &folder]).exits(0);
    assert_eq!(ran.stdout, "Check complete, no warnings found.\n");
}

#[test]
fn a_check_tells_the_error_beside_the_warnings() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let folder = context(
        &world,
        "FROM busybox\nMAINTAINER me\nCOPY --from=later /a /b\nFROM busybox AS later\n",
    );
    let ran = world.dhow(&["build", "--check", &folder]).exits(1);
    assert!(
        ran.stdout
            .starts_with("Check complete, 1 warning has been found!\n"),
        "{ran:?}"
    );
    assert!(
        ran.stderr.contains("Dockerfile:3") && ran.stderr.contains("ERROR: "),
        "{ran:?}"
    );
    let folder = context(&world, "FROM busybox\nRUNN true\n");
    let ran = world.dhow(&["build", "--check", &folder]).exits(1);
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.contains("unknown instruction: RUNN"), "{ran:?}");
    let folder = context(&world, "FROM busybox as Bad\nRUNN true\nMAINTAINER me\n");
    let ran = world.dhow(&["build", "--check", &folder]).exits(1);
    assert!(
        ran.stdout
            .starts_with("Check complete, 2 warnings have been found!\n"),
        "{ran:?}"
    );
}

#[test]
fn answers_as_json_have_dockers_fields() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let folder = context(&world, UNWISE);
    let call = |call: &str| -> Value {
        let ran = world.dhow(&["build", "--call", call, &folder]);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
    };
    let at = |line: u32| json!({"ranges": [{"start": {"line": line}, "end": {"line": line}}]});
    let found = call("check,format=json");
    assert_eq!(found["warnings"].as_array().unwrap().len(), 2);
    assert_eq!(
        found["warnings"][0],
        json!({
            "ruleName": "MaintainerDeprecated",
            "description": "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
            "url": "https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/",
            "detail": "Maintainer instruction is deprecated in favor of using label",
            "location": at(4),
        })
    );
    assert_eq!(found["sources"][0]["filename"], "Dockerfile");
    assert_eq!(found["sources"][0]["language"], "Dockerfile");
    let found = call("outline,format=json");
    assert_eq!(found["name"], "out");
    assert_eq!(
        found["args"],
        json!([{"name": "NAME", "description": "whom to greet", "value": "you", "location": at(3)}])
    );
    let found = call("targets,format=json");
    assert_eq!(
        found["targets"],
        json!([{"name": "out", "default": true, "base": "busybox", "location": at(1)}])
    );
}

#[test]
fn outlines_and_targets_are_tables() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let folder = context(&world, UNWISE);
    let ran = world.dhow(&["build", "--call", "outline", &folder]).exits(0);
    let wanted = "TARGET: out\n\nBUILD ARG   VALUE   DESCRIPTION\nNAME        you     whom to greet\n\n";
    assert_eq!(ran.stdout, wanted);
    let ran = world.dhow(&["build", "--call", "targets", &folder]).exits(0);
    assert_eq!(ran.stdout, "TARGET        DESCRIPTION\nout (default) \n");
    world
        .dhow(&["build", "--call", "everything", &folder])
        .one_error(1);
}

#[test]
fn a_build_ends_with_what_is_not_wise_and_may_be_told_to_fail_by_it() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let folder = context(&world, UNWISE);
    let ran = world.dhow(&["build", &folder]).exits(0);
    let end = " 2 warnings found (use dhow build --check to see the lines):
 - MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 4)
 - JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 5)
";
    assert!(ran.stderr.ends_with(end), "{}", ran.stderr);
    let quiet = world.dhow(&["build", "-q", &folder]).exits(0);
    assert_eq!(quiet.stderr, "");
    let folder = context(&world, &format!("# check=error=true\n{UNWISE}RUN true\n"));
    let ran = world.dhow(&["build", &folder]).exits(1);
    let error = "lint violation found for rules: JSONArgsRecommended, MaintainerDeprecated";
    assert!(
        ran.stderr.contains(error) && !ran.stderr.contains("RUN true"),
        "{ran:?}"
    );
    let skipping = [
        "build",
        "--build-arg",
        "BUILDKIT_DOCKERFILE_CHECK=skip=all",
        &folder,
    ];
    let ran = world.dhow(&skipping).exits(0);
    assert!(!ran.stderr.contains("found"), "{ran:?}");
}
