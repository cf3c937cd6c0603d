use std::time::Duration;

use dhow_dockerfile::{Expand, MAX_ERRORS, MAX_INSTRUCTIONS, MAX_SIZE, Mount, parse, parse_trigger};
use proptest::prelude::*;

use crate::bad;

/// Processor time of this thread: the machine may be busy with other things.
fn processor_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// How long the parse of a text takes.
fn timed(text: &str) -> Duration {
    let start = processor_time();
    let result = parse(text);
    let took = processor_time() - start;
    if let Err(errors) = result {
        assert!(!errors.is_empty() && errors.len() <= MAX_ERRORS);
    }
    took
}

#[test]
fn a_text_of_four_times_the_length_takes_no_more_than_about_four_times_as_long() {
    const SMALL: usize = 48 << 10;
    for piece in [
        "a ",
        "\\\n",
        "\"",
        "'",
        "$",
        "${a:-",
        "<<E ",
        "<",
        "--x ",
        "--mount=target=/a ",
        "[",
        "\"a\",",
        "#\n",
        "\n",
        "=",
        "a=b ",
        "é",
        "\t",
        "a \\\n",
        "\\",
        ",",
    ] {
        for head in [
            "",
            "RUN ",
            "ENV a=",
            "COPY ",
            "FROM ",
            "HEALTHCHECK CMD ",
            "ONBUILD RUN ",
            "# syntax=",
            "LABEL a ",
            "ARG ",
        ] {
            let text = |size: usize| format!("FROM a\n{head}{}", piece.repeat(size / piece.len()));
            let (small, large) = (timed(&text(SMALL)), timed(&text(4 * SMALL)));
            // Quadratic would be sixteen times.
            let bound = small * 8 + Duration::from_millis(100);
            assert!(large < bound, "{head:?} {piece:?}: {small:?}, then {large:?}");
        }
    }
}

#[test]
fn the_largest_text_is_read() {
    let text = format!("FROM a\nRUN {}", "x \\\n".repeat((MAX_SIZE - 64) / 4));
    assert!(text.len() <= MAX_SIZE);
    assert!(parse(&text).is_ok());
}

#[test]
fn a_text_over_the_limit_is_refused_at_once() {
    let error = bad(&"x".repeat(MAX_SIZE + 1));
    assert!(
        error.message.contains("more than the 10485760 allowed"),
        "{error:?}"
    );
}

#[test]
fn too_many_instructions_words_and_levels_are_errors() {
    let error = bad(&format!("FROM a\n{}", "USER b\n".repeat(MAX_INSTRUCTIONS)));
    assert!(error.message.contains("instructions"), "{error:?}");
    let error = bad(&format!("FROM a\nEXPOSE {}", "1 ".repeat(70_000)));
    assert!(error.message.contains("words"), "{error:?}");
    let error = Expand::default()
        .word(&"${a:-".repeat(100_000), &|_| None)
        .unwrap_err();
    assert!(error.message.contains("levels deep"), "{error:?}");
    // Nested JSON is no recursion of ours, and no exec form.
    assert!(parse(&format!("FROM a\nRUN {}", "[".repeat(1_000_000))).is_ok());
}

#[test]
fn a_pattern_that_backtracks_elsewhere_is_quick_here() {
    let value = "a".repeat(1000);
    let start = processor_time();
    for word in ["${v##*a*a*a*a*a*a*a*b}", "${v//*a*a*a*a*b/x}", "${v%%b*a*a*a*a*}"] {
        let found = Expand::default().word(word, &|_| Some(value.clone())).unwrap();
        assert_eq!(found, value);
    }
    assert!(processor_time() - start < Duration::from_secs(2));
}

/// Words of the language in any order find more than random characters do.
fn soup() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "FROM ",
        "RUN ",
        "COPY ",
        "ADD ",
        "ENV ",
        "ARG ",
        "ONBUILD ",
        "HEALTHCHECK ",
        "CMD ",
        "LABEL ",
        "SHELL ",
        "VOLUME ",
        "EXPOSE ",
        "scratch",
        " AS ",
        "--mount=",
        "type=cache,target=/a",
        "--from=x",
        "--",
        "=",
        "\"",
        "'",
        "\\",
        "\\\n",
        "\n",
        "<<EOF",
        "<<-'E'",
        "EOF\n",
        "\tE\n",
        "[\"a\"]",
        "[",
        "]",
        "$",
        "${",
        "}",
        ":-",
        "##",
        "//",
        "# ",
        "# escape=`\n",
        "# syntax=",
        "`",
        " ",
        "\t",
        "\r\n",
        "é",
        "한",
        "\u{feff}",
        "a",
        "\0",
        "NONE",
        "--interval=1s",
        "{\"syntax\":1}",
    ]);
    prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn parse_never_panics_and_every_place_is_in_the_text(text in prop_oneof![soup(), ".{0,200}"]) {
        match parse(&text) {
            Ok(file) => {
                prop_assert!(!file.stages.is_empty());
                for stage in &file.stages {
                    for instruction in &stage.instructions {
                        prop_assert!(text.get(instruction.at.start..instruction.at.end).is_some());
                    }
                }
            }
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                for error in errors {
                    prop_assert!(error.at.start <= error.at.end && error.at.end <= text.len());
                    prop_assert!(text.is_char_boundary(error.at.start), "{error:?}");
                }
            }
        }
        drop(parse_trigger(&text));
    }

    #[test]
    fn expansion_never_panics_and_keeps_its_limit(text in prop_oneof![soup(), "[$a-z{}:/#%?*\\\\'\"-]{0,80}"]) {
        let lookup = |name: &str| (name.len() == 1).then(|| "a*b/c".to_owned());
        let settings = Expand { limit: 4096, ..Expand::default() };
        if let Ok(found) = settings.word(&text, &lookup) {
            prop_assert!(found.len() <= 8192);
        }
        if let Ok(words) = settings.words(&text, &lookup) {
            prop_assert!(words.iter().all(|word| !word.is_empty()));
        }
    }

    #[test]
    fn text_without_special_characters_expands_to_itself(text in "[a-z0-9 ./:=,]{0,60}") {
        prop_assert_eq!(Expand::default().word(&text, &|_| None).unwrap(), text);
    }

    #[test]
    fn mounts_never_panic(text in "[a-z=,\"/$ ]{0,60}") {
        drop(Mount::parse(&text, &mut |value| Ok(value.to_owned())));
    }
}
