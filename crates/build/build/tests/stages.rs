use crate::bench::bench;

#[test]
fn a_stage_copies_from_an_earlier_one_and_only_reached_stages_run() {
    let Some(bench) = bench() else { return };
    bench.file("src/a.txt", "A");
    let built = bench.build(
        "FROM base:1 AS build\nCOPY src /src\nRUN copy /src/a.txt /out\n\
         FROM base:1 AS never\nRUN exit 1\n\
         FROM scratch\nCOPY --from=build /out /result\nCOPY --from=0 /src/ /dir/\n",
    );
    let tree = bench.tree(&built.image);
    assert_eq!(tree["result"], "f 644 0:0 A");
    assert_eq!(tree["dir/a.txt"], "f 644 0:0 A");
    assert!(!tree.contains_key("etc/passwd"));
    assert_eq!(bench.shell.runs(), 1);
    assert_eq!(built.image.config.rootfs.diff_ids.len(), 2);
    drop(built);
    bench.assert_clean();
}

#[test]
fn a_target_is_a_name_or_a_number_and_a_wrong_one_is_guessed() {
    let Some(bench) = bench() else { return };
    let mut request = bench.request("FROM base:1 AS one\nENV x=1\nFROM base:1 AS two\nENV x=2\n");
    for (target, value) in [
        ("one", "x=1"),
        ("ONE", "x=1"),
        ("0", "x=1"),
        ("two", "x=2"),
        ("", "x=2"),
    ] {
        request.target = Some(target.to_owned());
        let env = bench.built(&request).image.config.config.env;
        assert!(env.contains(&value.to_owned()), "{target}: {env:?}");
    }
    request.target = Some("tow".to_owned());
    let failed = bench.try_build(&request).unwrap_err();
    assert!(
        crate::bench::chain(&failed).contains("did you mean two?"),
        "{failed}"
    );
}

#[test]
fn args_before_from_are_for_from_and_defaults_and_env_wins_over_arg() {
    let Some(bench) = bench() else { return };
    let mut request = bench.request(
        "ARG TAG=1\nARG G=global\nFROM base:${TAG}\nARG G\nARG D=def-$G\nARG UNSET\nARG TARGETARCH\n\
         ENV E=env\nARG E=arg\nARG FROM_BASE=arg\n\
         ENV OLD=1\nENV OLD=2 NEW=$OLD\n\
         RUN env G /g; env D /d; env UNSET /u; env E /e; env FROM_BASE /b; env NEW /n; env TAG /t; env TARGETARCH /ta\n",
    );
    request.build_args.insert("E".into(), "given".into());
    let tree = bench.tree(&bench.built(&request).image);
    let content = |path: &str| tree[path].split(' ').nth(3).unwrap().to_owned();
    assert_eq!(content("g"), "global");
    assert_eq!(content("d"), "def-global");
    assert_eq!(content("u"), "unset");
    assert_eq!(content("e"), "env");
    assert_eq!(content("b"), "yes");
    assert_eq!(content("n"), "1");
    assert_eq!(content("t"), "unset");
    assert_eq!(content("ta"), dhow_types::Platform::host().architecture);
}

#[test]
fn config_and_history_are_what_docker_writes() {
    let Some(bench) = bench() else { return };
    bench.file("f", "x");
    let mut request = bench.request(
        "FROM base:1\nARG V=1\nENV A=b \"C d\"=e\nLABEL l=\"x y\"\nWORKDIR /w\nWORKDIR sub\nUSER app:staff\n\
         EXPOSE 80 443/udp 9000-9001\nVOLUME /v [\nSTOPSIGNAL SIGINT\nSHELL [\"/bin/sh\", \"-e\", \"-c\"]\n\
         RUN write /x 1\nCOPY --chown=5 f /f\nENTRYPOINT [\"/e\"]\nHEALTHCHECK --retries=2 CMD true\n\
         ONBUILD RUN x\nMAINTAINER me\n",
    );
    request.labels.insert("given".into(), "1".into());
    let image = bench.built(&request).image;
    let config = &image.config.config;
    assert_eq!(config.working_dir, "/w/sub");
    assert_eq!(config.user, "app:staff");
    assert_eq!(
        config.exposed_ports.keys().collect::<Vec<_>>(),
        ["443/udp", "80/tcp", "9000/tcp", "9001/tcp"]
    );
    assert_eq!(config.labels["l"], "x y");
    assert_eq!(config.labels["given"], "1");
    assert_eq!(config.on_build, ["RUN x"]);
    // An inherited CMD goes with a new ENTRYPOINT.
    assert_eq!(config.cmd, None);
    assert_eq!(config.healthcheck.as_ref().unwrap().test, ["CMD-SHELL", "true"]);
    assert_eq!(image.config.author.as_deref(), Some("me"));
    let lines: Vec<(String, bool)> = image
        .config
        .history
        .iter()
        .map(|line| (line.created_by.clone().unwrap(), line.empty_layer))
        .collect();
    let wanted = [
        ("ARG V=1", true),
        ("ENV A=b C d=e", true),
        ("LABEL l=x y", true),
        ("WORKDIR /w", false),
        ("WORKDIR /w/sub", false),
        ("USER app:staff", true),
        ("EXPOSE [443/udp 80/tcp 9000/tcp 9001/tcp]", true),
        ("VOLUME [/v []", true),
        ("STOPSIGNAL SIGINT", true),
        ("SHELL [/bin/sh -e -c]", true),
        ("RUN |1 V=1 /bin/sh -e -c write /x 1 # buildkit", false),
        ("COPY --chown=5 f /f # buildkit", false),
        ("ENTRYPOINT [\"/e\"]", true),
        (
            "HEALTHCHECK {Test:[CMD-SHELL true] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:2}",
            true,
        ),
        ("MAINTAINER me", true),
    ];
    assert_eq!(lines, wanted.map(|(text, empty)| (text.to_owned(), empty)));
    let layers = lines.iter().filter(|(_, empty)| !empty).count();
    assert_eq!(image.config.rootfs.diff_ids.len(), 1 + layers);
    assert!(image.config.history.iter().all(|line| line.created.is_some()));
}

#[test]
fn cmd_of_the_same_stage_survives_an_entrypoint() {
    let Some(bench) = bench() else { return };
    let image = bench
        .build("FROM base:1\nCMD [\"c\"]\nENTRYPOINT [\"e\"]\n")
        .image;
    assert_eq!(image.config.config.cmd, Some(vec!["c".to_owned()]));
    let image = bench.build("FROM base:1\nENTRYPOINT []\n").image;
    assert_eq!(
        (image.config.config.entrypoint, image.config.config.cmd),
        (None, None)
    );
    let image = bench.build("FROM base:1\nCMD x y\n").image;
    assert_eq!(image.config.config.cmd.unwrap(), ["/bin/sh", "-c", "x y"]);
}

#[test]
fn triggers_run_after_from_once_and_are_not_inherited() {
    let Some(bench) = bench() else { return };
    bench.file("app", "code");
    bench.image("onbuild:1", &[("x", "x")], |config| {
        config.config.on_build = vec![
            "COPY app /app".into(),
            "RUN copy /app /done".into(),
            "ENV T=1".into(),
        ];
    });
    let built = bench.build("FROM onbuild:1 AS a\nRUN copy /done /after\nFROM a\nRUN write /last 1\n");
    let tree = bench.tree(&built.image);
    assert_eq!(tree["after"], "f 644 0:0 code");
    assert!(built.image.config.config.on_build.is_empty());
    assert_eq!(built.stats.steps, 4);
    let log = bench.log.take();
    let wanted = "[a 2/4] ONBUILD COPY app /app";
    assert!(log.iter().any(|line| line.ends_with(wanted)), "{log:?}");
    bench.image("broken:1", &[("x", "x")], |config| {
        config.config.on_build = vec!["COPPY a b".into()]
    });
    let failed = bench.fails("FROM broken:1\n");
    assert!(
        failed.to_string().contains("malformed ONBUILD trigger"),
        "{failed}"
    );
    assert_eq!(failed.place.unwrap().span.start, 0);
}

#[test]
fn steps_are_named_as_docker_names_them() {
    let Some(bench) = bench() else { return };
    bench.build("FROM base:1\nENV A=b\nRUN say $A $NO; write /x 1\nWORKDIR /w\n");
    let log = bench.log.take();
    let names: Vec<&str> = log
        .iter()
        .filter_map(|line| line.split_once("start "))
        .map(|(_, name)| name)
        .collect();
    assert_eq!(
        names,
        [
            "[1/3] FROM docker.io/library/base:1",
            "[2/3] RUN say b $NO; write /x 1",
            "[3/3] WORKDIR /w"
        ]
    );
    assert!(log.iter().any(|line| line.ends_with("says $A $NO")));
}

#[test]
fn scratch_has_a_path_and_a_missing_base_is_asked_for_once() {
    let Some(bench) = bench() else { return };
    let image = bench.build("FROM scratch\nLABEL a=b\n").image;
    assert_eq!(
        image.config.config.env[0],
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    );
    assert_eq!(image.config.config.working_dir, "/");
    assert!(bench.hub.asked.lock().unwrap().is_empty());
    let failed = bench.fails("FROM nowhere/none:9\nRUN x\n");
    assert_eq!(
        failed.to_string(),
        "failed to solve: nowhere/none:9: failed to resolve source metadata"
    );
    assert_eq!(failed.step.unwrap(), "[1/2] FROM docker.io/nowhere/none:9");
    assert_eq!(*bench.hub.asked.lock().unwrap(), ["docker.io/nowhere/none:9"]);
}

#[test]
fn source_date_epoch_makes_builds_equal_to_the_bit() {
    let Some(bench) = bench() else { return };
    bench.file("f", "x");
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut request = bench.request("FROM base:1\nCOPY f /d/f\nRUN write /y 1\nWORKDIR /new\n");
        request
            .build_args
            .insert("SOURCE_DATE_EPOCH".into(), "1700000000".into());
        request.no_cache = true;
        let image = bench.built(&request).image;
        assert_eq!(image.config.created.as_deref(), Some("2023-11-14T22:13:20Z"));
        for diff in &image.config.rootfs.diff_ids[1..] {
            let index = bench.store.layers.layer(diff).unwrap().index().unwrap();
            assert!(index.entries().all(|entry| entry.mtime <= 1_700_000_000));
        }
        ids.push(image.id);
    }
    assert_eq!(ids[0], ids[1]);
    // What is no number is a place to look at, and there is none of that name.
    let mut request = bench.request("FROM base:1\n");
    request
        .build_args
        .insert("SOURCE_DATE_EPOCH".into(), "soon".into());
    assert!(
        bench
            .try_build(&request)
            .unwrap_err()
            .to_string()
            .contains("invalid SOURCE_DATE_EPOCH: soon")
    );
}

#[test]
fn stages_of_one_missing_base_share_one_pull() {
    let Some(bench) = bench() else { return };
    let image = bench.store.resolve("base:1").unwrap();
    bench.hub.has.lock().unwrap().replace(image);
    bench.build("FROM far/base:2 AS a\nRUN write /a 1\nFROM far/base:2\nCOPY --from=a /a /\nCOPY --from=far/base:2 /srv /s\n");
    assert_eq!(*bench.hub.asked.lock().unwrap(), ["docker.io/far/base:2"]);
    // With --pull the registry is asked although the image is here.
    bench.hub.asked.lock().unwrap().clear();
    let mut request = bench.request("FROM base:1\nLABEL a=b\n");
    request.pull = true;
    bench.built(&request);
    assert_eq!(*bench.hub.asked.lock().unwrap(), ["docker.io/library/base:1"]);
}

#[test]
fn a_variable_may_say_which_stage_is_copied_from() {
    let Some(bench) = bench() else { return };
    let text = "ARG which=one\nFROM base:1 AS one\nRUN write /f 1\nFROM base:1 AS two\nRUN write /f 2\n\
                FROM base:1\nARG which\nARG other=t\nCOPY --from=$which /f /a\nCOPY --from=${other}wo /f /b\n";
    let tree = bench.tree(&bench.build(text).image);
    assert_eq!((&tree["a"][..], &tree["b"][..]), ("f 644 0:0 1", "f 644 0:0 2"));
    let failed = bench.fails("FROM base:1 AS one\nARG me=one\nCOPY --from=$me /f /a\n");
    assert!(failed.to_string().contains("circular dependency"), "{failed}");
    let failed =
        bench.fails("FROM base:1 AS one\nARG later=two\nCOPY --from=$later /f /a\nFROM one AS two\n");
    assert!(
        failed.to_string().contains("needs to be defined before"),
        "{failed}"
    );
}

#[test]
fn an_argument_that_is_declared_again_without_a_value_keeps_the_one_it_has() {
    let Some(bench) = bench() else { return };
    let image = bench
        .build(
            "ARG GLOBAL=global\nFROM base:1 AS lower\nARG NAME=one GLOBAL=own\nARG NAME\nRUN env NAME /lower\nFROM lower\nARG NAME GLOBAL\n\
             RUN env NAME /upper\nRUN env GLOBAL /global\n",
        )
        .image;
    let tree = bench.tree(&image);
    let content = |path: &str| tree[path].rsplit(' ').next().unwrap().to_owned();
    assert_eq!(
        ["lower", "upper", "global"].map(content),
        ["one", "one", "global"]
    );
    let history: Vec<_> = image
        .config
        .history
        .iter()
        .filter_map(|line| line.created_by.clone())
        .collect();
    assert!(
        history.contains(&"ARG NAME GLOBAL=global".to_owned()),
        "{history:?}"
    );
    assert!(
        history
            .iter()
            .any(|line| line.starts_with("RUN |2 NAME=one GLOBAL=global ")),
        "{history:?}"
    );
}
