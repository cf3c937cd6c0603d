use std::time::Duration;

use dhow_dockerfile::{
    Form, Healthcheck, Mount, MountKind, Network, Op, Security, is_builtin_frontend, parse_trigger,
};

use crate::{bad, good, one, op};

fn shell(text: &str) -> Form {
    Form::Shell(text.to_owned())
}

fn exec(words: &[&str]) -> Form {
    Form::Exec(words.iter().map(|word| (*word).to_owned()).collect())
}

#[test]
fn stages_have_lower_case_names_bases_platforms_and_global_args() {
    let file = good(
        "ARG V=1\n# base stage\nfrom --platform=$BUILDPLATFORM debian:$V As Base\nFROM base\nFROM scratch\n",
    );
    assert_eq!(file.args.len(), 1);
    assert_eq!(file.stages.len(), 3);
    let first = &file.stages[0];
    assert_eq!(
        (first.base.as_str(), first.name.as_deref()),
        ("debian:$V", Some("base"))
    );
    assert_eq!(first.platform.as_deref(), Some("$BUILDPLATFORM"));
    assert_eq!(first.comments, ["base stage"]);
    assert_eq!(file.stages[1].base, "base");
}

#[test]
fn only_valid_json_is_the_exec_form() {
    for (text, form) in [
        (r#"RUN ["echo", "hi"]"#, exec(&["echo", "hi"])),
        (r#"CMD []"#, exec(&[])),
        (r#"RUN ['echo']"#, shell("['echo']")),
        (r#"RUN ["echo", "a""#, shell(r#"["echo", "a""#)),
        (r#"RUN [ -f /x ] && true"#, shell("[ -f /x ] && true")),
        (r#"RUN  [ "a" , "\u00e9" ]  "#, exec(&["a", "é"])),
        ("RUN   a  b ", shell("a  b")),
    ] {
        let found = match op(text) {
            Op::Run(run) => run.command.form,
            Op::Cmd(command) | Op::Entrypoint(command) => command.form,
            other => panic!("{other:?}"),
        };
        assert_eq!(found, form, "{text}");
    }
    assert_eq!(
        bad("FROM a\nRUN [1]").message,
        "only string type is supported in a JSON array"
    );
}

#[test]
fn continuations_comments_and_the_escape_directive() {
    let Op::Run(run) = op("RUN a \\\n  # comment\n  b \\  \n c") else {
        panic!()
    };
    assert_eq!(run.command.form, shell("a   b  c"));
    let file = good("# escape=`\nFROM a\nRUN dir c:\\ `\n x\n");
    assert_eq!(file.escape, '`');
    let Op::Run(run) = &file.stages[0].instructions[0].op else {
        panic!()
    };
    assert_eq!(run.command.form, shell("dir c:\\  x"));
    // Behind a comment it is a comment.
    assert_eq!(good("# x\n# escape=`\nFROM a\n").escape, '\\');
    let file = good("FROM a\nRUN b \\\n\n c\n");
    assert_eq!(file.warnings.len(), 1);
}

#[test]
fn env_and_label_take_quoted_words_and_the_old_form() {
    let Op::Env(pairs) = op(r#"ENV a=1 b="x y" c='$z' d=e\ f"#) else {
        panic!()
    };
    let found: Vec<(&str, &str)> = pairs.iter().map(|p| (p.key.as_str(), p.value.as_str())).collect();
    assert_eq!(
        found,
        [("a", "1"), ("b", "\"x y\""), ("c", "'$z'"), ("d", "e\\ f")]
    );
    let Op::Label(pairs) = op("LABEL key  the rest = of it") else {
        panic!()
    };
    assert_eq!(
        (pairs[0].key.as_str(), pairs[0].value.as_str()),
        ("key", "the rest = of it")
    );
    assert!(pairs[0].legacy);
}

#[test]
fn run_flags_are_typed() {
    let instruction = one(
        "RUN --mount=type=cache,target=/c,sharing=locked --mount=type=secret,id=k --network=none --security=insecure --device=vendor.com/x=y make",
    );
    let Op::Run(run) = &instruction.op else { panic!() };
    assert_eq!(run.command.form, shell("make"));
    assert_eq!((run.network, run.security), (Network::None, Security::Insecure));
    assert_eq!(run.devices, ["vendor.com/x=y"]);
    let mount = Mount::parse(&run.mounts[0].text, &mut |v| Ok(v.to_owned())).unwrap();
    assert_eq!(
        (mount.kind, mount.target.as_deref()),
        (MountKind::Cache, Some("/c"))
    );
    assert_eq!(instruction.flags.len(), 5);
}

#[test]
fn copy_and_add_flags_json_and_many_sources() {
    let Op::Copy(copy) =
        op("COPY --from=b --chown=1:2 --chmod=u=rwX --link --parents --exclude=*.o --exclude=x a b /c/")
    else {
        panic!()
    };
    assert_eq!(copy.paths, ["a", "b"]);
    assert_eq!(copy.destination, "/c/");
    assert_eq!(copy.from.as_deref(), Some("b"));
    assert_eq!(copy.excludes, ["*.o", "x"]);
    assert!(copy.link && copy.parents);
    let Op::Add(add) = op(r#"ADD --keep-git-dir=false --checksum=sha256:0 --unpack ["a b", "/c d"]"#) else {
        panic!()
    };
    assert_eq!((add.paths[0].as_str(), add.destination.as_str()), ("a b", "/c d"));
    assert_eq!((add.keep_git_dir, add.unpack), (Some(false), Some(true)));
}

#[test]
fn heredocs_of_run_copy_and_onbuild() {
    let Op::Run(run) = op("RUN <<EOF\n  a\n# not a comment \\\nEOF") else {
        panic!()
    };
    assert_eq!(run.command.form, shell("<<EOF"));
    assert_eq!(run.command.heredocs[0].content, "  a\n# not a comment \\\n");

    let Op::Copy(copy) = op("COPY <<-\"A\" <<B x /d/\n\tone $x\n\tA\ntwo\nB") else {
        panic!()
    };
    assert_eq!(copy.paths, ["x"]);
    assert_eq!(copy.files[0].body(), "one $x\n");
    assert!(!copy.files[0].expand && copy.files[1].expand);
    assert_eq!(copy.files[1].content, "two\n");

    let Op::Run(run) = op("RUN 3<<X cat <<Y && echo 1\na\nX\nb\nY") else {
        panic!()
    };
    assert_eq!(run.command.heredocs[0].descriptor, 3);
    assert_eq!(run.command.heredocs[1].content, "b\n");

    let Op::Onbuild(text) = op("ONBUILD RUN <<EOF\necho\nEOF") else {
        panic!()
    };
    assert_eq!(text, "RUN <<EOF\necho\nEOF");
    let Op::Run(run) = parse_trigger(&text).unwrap().op else {
        panic!()
    };
    assert_eq!(run.command.heredocs[0].content, "echo\n");
    // Not in the JSON form, and not where the shell would see none.
    assert!(matches!(op(r#"RUN ["echo", "<<EOF"]"#), Op::Run(run) if run.command.heredocs.is_empty()));
    assert!(matches!(op("RUN echo $((1<<2))"), Op::Run(run) if run.command.heredocs.is_empty()));
    assert!(matches!(op("CMD cat <<EOF"), Op::Cmd(command) if command.heredocs.is_empty()));
}

#[test]
fn healthcheck_durations_are_typed() {
    let Op::Healthcheck(check) =
        op("HEALTHCHECK --interval=1m30s --retries=3 --start-interval=500ms CMD curl -f x")
    else {
        panic!()
    };
    let Healthcheck::Check {
        command,
        interval,
        retries,
        start_interval,
        timeout,
        ..
    } = check
    else {
        panic!()
    };
    assert_eq!(command.form, shell("curl -f x"));
    assert_eq!(interval, Duration::from_secs(90));
    assert_eq!(start_interval, Duration::from_millis(500));
    assert_eq!((retries, timeout), (3, Duration::ZERO));
    assert_eq!(op("HEALTHCHECK NONE"), Op::Healthcheck(Healthcheck::None));
}

#[test]
fn the_small_instructions() {
    assert_eq!(
        op("EXPOSE 443 80/udp 1-3"),
        Op::Expose(vec!["1-3".into(), "443".into(), "80/udp".into()])
    );
    assert_eq!(
        op(r#"VOLUME ["/a b", "/c"]"#),
        Op::Volume(vec!["/a b".into(), "/c".into()])
    );
    assert_eq!(op("volume /a /b"), Op::Volume(vec!["/a".into(), "/b".into()]));
    assert_eq!(op("WORKDIR /a b"), Op::Workdir("/a b".into()));
    assert_eq!(op("USER 1:2"), Op::User("1:2".into()));
    assert_eq!(op("STOPSIGNAL SIGINT"), Op::StopSignal("SIGINT".into()));
    assert_eq!(op("MAINTAINER a <b@c>"), Op::Maintainer("a <b@c>".into()));
    assert_eq!(
        op(r#"SHELL ["/bin/bash", "-c"]"#),
        Op::Shell(vec!["/bin/bash".into(), "-c".into()])
    );
    let Op::Arg(args) = op("ARG a b= c=\"d e\"") else {
        panic!()
    };
    assert_eq!(
        args.iter().map(|a| a.default.as_deref()).collect::<Vec<_>>(),
        [None, Some(""), Some("\"d e\"")]
    );
}

#[test]
fn syntax_lines_of_docker_are_built_in_and_others_are_refused() {
    for image in [
        "docker/dockerfile",
        "docker/dockerfile:1",
        "docker/dockerfile:1.26-labs",
        "docker.io/docker/dockerfile:1@sha256:00",
        "docker/dockerfile-upstream:master",
    ] {
        assert!(is_builtin_frontend(image), "{image}");
        good(&format!(
            "# syntax={image}\n# check=skip=all;error=true\nFROM a\n"
        ));
    }
    assert!(!is_builtin_frontend("evil/docker/dockerfile"));
    assert!(!is_builtin_frontend("docker/dockerfilex"));
    for text in [
        "# syntax=r2d4/mockerfile\nFROM a\n",
        "#!/bin/x\n# Syntax = r2d4/mockerfile extra\nFROM a\n",
        "// syntax=r2d4/mockerfile\n",
        "{\"syntax\": \"r2d4/mockerfile\"}",
    ] {
        let error = bad(text);
        assert!(error.message.contains("r2d4/mockerfile"), "{text}: {error:?}");
        assert!(error.hint.is_some());
    }
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_text() {
    let file = good("\u{feff}FROM a\r\nRUN b \\\r\n c\r\n");
    assert_eq!(file.stages[0].at.start, 3);
    let Op::Run(run) = &file.stages[0].instructions[0].op else {
        panic!()
    };
    assert_eq!(run.command.form, shell("b  c"));
}
