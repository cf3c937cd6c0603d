use dhow_dockerfile::{parse, parse_trigger};

use crate::bad;

/// Text, message, hint, and the text that the place covers.
const CASES: &[(&str, &str, Option<&str>, &str)] = &[
    (
        "FORM a",
        "unknown instruction: FORM",
        Some("did you mean FROM?"),
        "FORM",
    ),
    (
        "FROM a\nRUM x",
        "unknown instruction: RUM",
        Some("did you mean RUN?"),
        "RUM",
    ),
    (
        "FROM a\nCOPY --form=b x y",
        "unknown flag: --form",
        Some("did you mean --from?"),
        "--form=b",
    ),
    (
        "FROM a\nCOPY \\\n  --chwon=1 x y",
        "unknown flag: --chwon",
        Some("did you mean --chown?"),
        "--chwon=1",
    ),
    (
        "FROM a\nRUN --mount=tpye=cache,target=/x y",
        "unexpected key 'tpye' in 'tpye=cache'",
        Some("did you mean type?"),
        "--mount=tpye=cache,target=/x",
    ),
    (
        "FROM a\nRUN --network=nonne x",
        "invalid value \"nonne\" of --network",
        Some("use one of default, host, none"),
        "--network=nonne",
    ),
    (
        "FROM a\nCOPY --link --link x y",
        "duplicate flag specified: --link",
        None,
        "--link",
    ),
    (
        "FROM a\nCOPY --chown x y",
        "missing a value on flag: --chown",
        None,
        "--chown",
    ),
    (
        "FROM a\nCOPY --link=maybe x y",
        "expecting boolean value for flag --link, not: maybe",
        None,
        "--link=maybe",
    ),
    ("FROM a\nCMD --x y", "unknown flag: --x", None, "--x"),
    (
        "FROM a b",
        "FROM requires either one or three arguments",
        Some("write FROM <image> or FROM <image> AS <name>"),
        "a b",
    ),
    (
        "FROM a AS 1b",
        "invalid name for build stage: \"1b\", name can't start with a number or contain symbols",
        None,
        "a AS 1b",
    ),
    (
        "RUN x",
        "no build stage in current context",
        Some("begin with FROM <image> or FROM scratch"),
        "RUN x",
    ),
    (
        "# only\n",
        "file with no instructions",
        Some("begin with FROM <image> or FROM scratch"),
        "#",
    ),
    (
        "ARG a\n",
        "dockerfile contains no stages to build",
        Some("begin with FROM <image> or FROM scratch"),
        "A",
    ),
    ("FROM a\nENV x", "ENV must have two arguments", None, "x"),
    (
        "FROM a\nENV a=b c",
        "syntax error - can't find = in \"c\": must be of the form name=value",
        None,
        "a=b c",
    ),
    ("FROM a\nENV =b", "ENV names can not be blank", None, "=b"),
    ("FROM a\nARG =b", "ARG names can not be blank", None, "=b"),
    (
        "FROM a\nCOPY x",
        "COPY requires at least two arguments, but only one was provided: destination could not be determined",
        None,
        "x",
    ),
    (
        "FROM a\nCOPY x <<EOF\nEOF",
        "COPY cannot accept a heredoc as a destination",
        None,
        "x <<EOF",
    ),
    (
        "FROM a\nRUN <<EOF\nx\n",
        "unterminated heredoc",
        Some("end it with a line that holds only EOF"),
        "RUN <<EOF",
    ),
    (
        "FROM a\nSHELL bash -c",
        "SHELL requires the arguments to be in JSON form",
        Some("write SHELL [\"executable\", \"parameters\"]"),
        "bash -c",
    ),
    (
        "FROM a\nHEALTHCHECK --interval=1us CMD x",
        "interval \"interval\" cannot be less than 1ms",
        None,
        "--interval=1us",
    ),
    (
        "FROM a\nHEALTHCHECK --retries=-1 CMD x",
        "--retries must be a number from 0 on, not \"-1\"",
        None,
        "--retries=-1",
    ),
    (
        "FROM a\nHEALTHCHECK NONE x",
        "HEALTHCHECK NONE takes no arguments",
        None,
        "NONE x",
    ),
    (
        "FROM a\nHEALTHCHECK CMD",
        "missing command after HEALTHCHECK CMD",
        None,
        "CMD",
    ),
    (
        "FROM a\nONBUILD FROM b",
        "FROM isn't allowed as an ONBUILD trigger",
        None,
        "FROM b",
    ),
    (
        "FROM a\nONBUILD ONBUILD RUN b",
        "chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        None,
        "ONBUILD RUN b",
    ),
    (
        "FROM a\nONBUILD RUNN b",
        "unknown instruction: RUNN",
        Some("did you mean RUN?"),
        "RUNN b",
    ),
    (
        "FROM a\nVOLUME [\"\"]",
        "VOLUME specified can not be an empty string",
        None,
        "[\"\"]",
    ),
    ("FROM a\nUSER", "USER requires exactly one argument", None, "USER"),
    (
        "FROM a\nEXPOSE",
        "EXPOSE requires at least one argument",
        None,
        "EXPOSE",
    ),
    (
        "# escape=x\nFROM a",
        "invalid escape token \"x\"",
        Some("use ` or \\"),
        "# escape=x",
    ),
    (
        "# escape=\\\n# escape=\\\nFROM a",
        "only one escape parser directive can be used",
        None,
        "# escape=\\",
    ),
    (
        "# check=skp=a\nFROM a",
        "invalid check option \"skp=a\"",
        Some("write check=skip=<rules>;error=true"),
        "# check=skp=a",
    ),
];

#[test]
fn each_error_says_what_where_and_what_to_do() {
    for (text, message, hint, place) in CASES {
        let error = bad(text);
        assert_eq!(error.message, *message, "{text}");
        assert_eq!(error.hint.as_deref(), *hint, "{text}");
        assert_eq!(&text[error.at.start..error.at.end], *place, "{text}");
    }
}

#[test]
fn several_errors_are_told_at_once_and_a_bad_from_brings_no_more() {
    let errors = parse("FROM\nRUM x\nENV y\nRUN ok").unwrap_err();
    let messages: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "FROM requires either one or three arguments",
            "unknown instruction: RUM",
            "ENV must have two arguments"
        ]
    );
}

#[test]
fn a_trigger_is_one_instruction() {
    for bad in [
        "",
        "RUN a\nRUN b",
        "FROM x",
        "ONBUILD RUN a",
        "MAINTAINER x",
        "# x",
    ] {
        assert!(parse_trigger(bad).is_err(), "{bad:?}");
    }
    assert!(parse_trigger("COPY --from=x a b").is_ok());
}
