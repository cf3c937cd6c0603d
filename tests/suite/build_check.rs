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

/// The rules that a check of a Dockerfile finds broken, with their lines, and its error.
fn broken(world: &World, text: &str, flags: &[&str]) -> (Vec<(String, u64)>, String) {
    let folder = context(world, text);
    let call = [&["build", "--call", "check,format=json"], flags, &[&folder]].concat();
    let ran = world.dhow(&call);
    let found: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    let warnings = found["warnings"].as_array().cloned().unwrap_or_default();
    let of = |warning: &Value| {
        let rule = warning["ruleName"].as_str().unwrap().to_owned();
        let line = &warning["location"]["ranges"][0]["start"]["line"];
        (rule, line.as_u64().unwrap())
    };
    let error = found["buildError"]["message"].as_str().unwrap_or_default();
    (warnings.iter().map(of).collect(), error.to_owned())
}

#[test]
fn rules_are_skipped_and_made_errors_by_a_line_and_by_an_argument() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let bad = "FROM scratch as base\ncopy Dockerfile .\n";
    let casing = "ConsistentInstructionCasing";
    let build = |line: &str, flags: &[&str]| {
        let folder = context(&world, &format!("#check={line}\n{bad}"));
        let args = [&["build", "-o", "type=cacheonly"], flags, &[&folder]].concat();
        world.dhow(&args)
    };
    for line in [
        "skip=all",
        "skip=all;error=true",
        "skip=ConsistentInstructionCasing,FromAsCasing",
        "skip=ConsistentInstructionCasing,FromAsCasing;error=true",
    ] {
        let ran = build(line, &[]).exits(0);
        assert!(!ran.stderr.contains("warning"), "{line}: {ran:?}");
    }
    let ran = build(&format!("skip={casing}"), &[]).exits(0);
    assert!(
        ran.stderr.contains("1 warning found") && ran.stderr.contains("FromAsCasing: 'as' and 'FROM'"),
        "{ran:?}"
    );
    let words = "lint violation found for rules: FromAsCasing";
    build(&format!("skip={casing};error=true"), &[])
        .exits(1)
        .says(words);
    // What an argument says counts instead of the line.
    let argument = format!("BUILDKIT_DOCKERFILE_CHECK=skip={casing};error=true");
    build("skip=all", &["--build-arg", &argument])
        .exits(1)
        .says(words);
    let argument = "BUILDKIT_DOCKERFILE_CHECK=skip=all";
    build("error=true", &["--build-arg", argument]).exits(0);
}

#[test]
fn a_check_looks_at_all_stages_and_a_build_at_those_that_it_needs() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let text = "FROM scratch AS first\nENV colour red\nCOPY $foo .\nFROM scratch AS second\nCOPY $bar .\n";
    let (rules, _) = broken(&world, text, &[]);
    let of = |rule: &str, line| (rule.to_owned(), line);
    assert_eq!(
        rules,
        [
            of("LegacyKeyValueFormat", 2),
            of("UndefinedVar", 3),
            of("UndefinedVar", 5)
        ]
    );
    let folder = context(&world, text);
    let ran = world
        .dhow(&["build", "-o", "type=cacheonly", &folder])
        .exits_any();
    assert!(
        ran.stderr
            .contains("UndefinedVar: Usage of undefined variable '$bar' (line 5)")
            && !ran.stderr.contains("'$foo'"),
        "{ran:?}"
    );
    // Warnings come before the error that ends the reading.
    let text = "FROM scratch AS BadStageName\nMAINTAINER me\nBADCMD\n";
    let folder = context(&world, text);
    let ran = world.dhow(&["build", "--check", &folder]).exits(1);
    for part in ["StageNameCasing", "MaintainerDeprecated"] {
        assert!(ran.stdout.contains(part), "{ran:?}");
    }
    assert!(ran.stderr.contains("unknown instruction: BADCMD"), "{ran:?}");
}

#[test]
fn a_platform_that_is_empty_is_told_with_the_argument_that_was_meant() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for good in [
        "ARG base=scratch\nFROM $base\n",
        "FROM --platform=$BUILDPLATFORM scratch\n",
        "ARG DEBUG\nFROM scratch${DEBUG}\n",
        "ARG DEBUG\nFROM scra${DEBUG:-tch}\n",
        "ARG DEBUG=\"\"\nFROM scratch${DEBUG-@bogus}\n",
    ] {
        let text = format!("{good}COPY Dockerfile .\n");
        assert_eq!(broken(&world, &text, &[]), (Vec::new(), String::new()), "{good}");
    }
    for (from, words, meant) in [
        (
            "FROM --platform=$BULIDPLATFORM scratch\n",
            "empty platform value from expression $BULIDPLATFORM",
            "did you mean BUILDPLATFORM?",
        ),
        (
            "ARG MY_ARCH=amd64\nFROM --platform=linux/${MYARCH} busybox\n",
            "failed to parse platform linux/${MYARCH}",
            "did you mean MY_ARCH?",
        ),
    ] {
        let text = format!("{from}COPY Dockerfile .\n");
        let (rules, error) = broken(&world, &text, &[]);
        assert_eq!(rules[0].0, "UndefinedArgInFrom");
        assert!(error.contains(words), "{error}");
        let folder = context(&world, &text);
        world.dhow(&["build", &folder]).exits(1).says(words).says(meant);
    }
}

/// The answer to a `--call`.
fn call(world: &World, text: &str, call: &str, flags: &[&str]) -> Value {
    let folder = context(world, text);
    let call = format!("{call},format=json");
    let args = [&["build", "--call", &call], flags, &[&folder]].concat();
    let ran = world.dhow(&args).exits(0);
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn targets_are_listed_with_what_they_stand_on() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let text = "\n# build makes the program\nFROM busybox AS build\nRUN true\n\nFROM busybox:2 as second\nRUN false\n\n\
                FROM alpine\n\n# binary is what comes out\nFROM second AS binary\n";
    let found = call(&world, text, "targets", &[]);
    let shown = |target: &Value| {
        let text = |name: &str| target[name].as_str().unwrap_or_default().to_owned();
        let line = target["location"]["ranges"][0]["start"]["line"].as_u64().unwrap();
        (
            text("name"),
            text("description"),
            text("base"),
            target["default"] == true,
            line,
        )
    };
    let targets: Vec<_> = found["targets"].as_array().unwrap().iter().map(shown).collect();
    let target = |name: &str, about: &str, base: &str, default, line| {
        (name.to_owned(), about.to_owned(), base.to_owned(), default, line)
    };
    assert_eq!(
        targets,
        [
            target("build", "makes the program", "busybox", false, 3),
            target("second", "", "busybox:2", false, 6),
            target("", "", "alpine", false, 9),
            target("binary", "is what comes out", "second", true, 12),
        ]
    );
}

#[test]
fn outlines_follow_stages_arguments_and_mounts() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let text = "ARG inherited=box\nARG inherited2=box2\nARG unused=abc${inherited2}\n# sfx is a suffix\nARG sfx=\"usy${inherited}\"\n\
                FROM b${sfx} AS first\n# this is not for FOO\nARG FOO=123\n# BAR is a number\nARG BAR=456\n\
                RUN --mount=type=secret,target=/etc/passwd,required=true --mount=type=ssh true\n\
                FROM alpine${unused} AS second\nARG BAZ\nRUN --mount=type=secret,id=unused --mount=type=ssh,id=ssh2 true\n\
                FROM scratch AS third\nARG ABC=a\n# check=skip=all\nARG password\n# other_password will be seen\n# check=skip=all\n\
                ARG other_password\nARG N\nRUN --mount=type=secret,id=second${N} true\n\
                # target is what is made\nFROM third AS target\nCOPY --from=first /etc/passwd /\n\
                RUN --mount=type=ssh,id=ssh3,required true\nFROM second\n";
    let flags = [
        "--target",
        "target",
        "--build-arg",
        "BAR=678",
        "--build-arg",
        "N=9",
    ];
    let found = call(&world, text, "outline", &flags);
    assert_eq!(found["description"], "is what is made");
    let args: Vec<[String; 3]> = found["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|arg| {
            ["name", "value", "description"].map(|key| arg[key].as_str().unwrap_or_default().to_owned())
        })
        .collect();
    assert_eq!(
        args,
        [
            ["inherited", "box", ""],
            ["sfx", "usybox", "is a suffix"],
            ["FOO", "123", ""],
            ["BAR", "678", "is a number"],
            ["ABC", "a", ""],
            ["password", "", ""],
            ["other_password", "", "will be seen"],
            ["N", "9", ""],
        ]
    );
    let named = |key: &str| -> Vec<(String, bool)> {
        let all = found[key].as_array().unwrap().iter();
        all.map(|one| (one["name"].as_str().unwrap().to_owned(), one["required"] == true))
            .collect()
    };
    let pair = |name: &str, required| (name.to_owned(), required);
    assert_eq!(named("secrets"), [pair("passwd", true), pair("second9", false)]);
    assert_eq!(named("ssh"), [pair("default", false), pair("ssh3", true)]);
    // Each name once, with the last value that it gets.
    let text = "ARG FOO=123\nARG ABC=abc\nARG DEF=def\nARG FOO=${FOO}${ABC}\nARG BAR=${FOO}456\nARG FOO=${FOO}456${BAR}\n\
                FROM scratch\nARG FOO\nARG INFOO=123\nARG INBAR=${INFOO}456\nARG INFOO=${INFOO}456${INBAR}\n";
    let found = call(&world, text, "outline", &[]);
    let mut args: Vec<[&str; 2]> = found["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|arg| ["name", "value"].map(|key| arg[key].as_str().unwrap()))
        .collect();
    args.sort_unstable();
    assert_eq!(
        args,
        [
            ["ABC", "abc"],
            ["BAR", "123abc456"],
            ["FOO", "123abc456123abc456"],
            ["INBAR", "123456"],
            ["INFOO", "123456123456"],
        ]
    );
}
