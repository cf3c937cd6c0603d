use dhow_dockerfile::{Node, nodes};

fn shown(node: &Node) -> String {
    let flags: Vec<&str> = node.flags.iter().map(|flag| flag.name.as_str()).collect();
    let trigger = node.trigger.as_deref().map_or_else(String::new, shown);
    format!("{} {flags:?} {:?} {trigger}", node.keyword, node.words)
        .trim()
        .to_owned()
}

#[test]
fn instructions_are_split_whether_they_make_sense_or_not() {
    let table: &[(&str, &[&str])] = &[
        ("from a as b", &[r#"from [] ["a", "as", "b"]"#]),
        ("COPY --link -- a [b\n", &[r#"copy ["link"] ["a", "[b"]"#]),
        (
            "CMD [\"a\", \"b c\"]\nCMD [a]",
            &[r#"cmd [] ["a", "b c"]"#, r#"cmd [] ["[a]"]"#],
        ),
        (
            "ENV a b  c\nENV a=b d='e f'",
            &[
                r#"env [] ["a", "b  c", ""]"#,
                r#"env [] ["a", "b", "=", "d", "'e f'", "="]"#,
            ],
        ),
        ("ONBUILD RUN <<E\nx\nE\n", &[r#"onbuild [] [] run [] ["<<E"]"#]),
        (
            "HEALTHCHECK --retries=1 CMD [\"a\"]",
            &[r#"healthcheck ["retries"] ["CMD", "a"]"#],
        ),
        ("NONSENSE a b\nRUN", &["nonsense [] []", "run [] []"]),
        ("# escape=`\nRUN a `\n b\n", &[r#"run [] ["a  b"]"#]),
    ];
    for (text, wanted) in table {
        let found: Vec<String> = nodes(text).unwrap().iter().map(shown).collect();
        assert_eq!(found, *wanted, "{text}");
    }
    let found = nodes("ONBUILD RUN <<E\nx\nE\nRUN [\"<<E\"]\n").unwrap();
    assert_eq!(found[0].heredocs[0].content, "x\n");
    assert!(found[1].heredocs.is_empty());
}

#[test]
fn what_cannot_be_split_is_an_error() {
    for text in ["", "# only\n", "ENV a\n", "CMD [1]\n", "RUN <<E\nx\n"] {
        assert!(nodes(text).is_err(), "{text}");
    }
}
