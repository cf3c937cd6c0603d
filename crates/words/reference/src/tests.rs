use proptest::prelude::*;

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn parts(text: &str) -> (String, String, Option<String>) {
    let r = Reference::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    (
        r.registry().to_owned(),
        r.repository().to_owned(),
        r.tag().map(str::to_owned),
    )
}

/// The tables of distribution/reference (`normalize_test.go`, `reference_test.go`): text, registry, repository, tag.
#[test]
fn known_names_get_dockers_meaning() {
    let table: &[(&str, &str, &str, Option<&str>)] = &[
        ("debian", "docker.io", "library/debian", None),
        ("debian:12", "docker.io", "library/debian", Some("12")),
        ("library/debian", "docker.io", "library/debian", None),
        ("docker.io/debian", "docker.io", "library/debian", None),
        ("docker.io/library/debian", "docker.io", "library/debian", None),
        (
            "index.docker.io/debian:1",
            "docker.io",
            "library/debian",
            Some("1"),
        ),
        ("index.docker.io/a/b", "docker.io", "a/b", None),
        ("foo/bar", "docker.io", "foo/bar", None),
        ("foo/bar/baz", "docker.io", "foo/bar/baz", None),
        ("localhost", "docker.io", "library/localhost", None),
        ("localhost/foo", "localhost", "foo", None),
        ("localhost:5000/foo", "localhost:5000", "foo", None),
        ("localhost:5000", "docker.io", "library/localhost", Some("5000")),
        ("foo.bar/x", "foo.bar", "x", None),
        ("foo:5000/x", "foo:5000", "x", None),
        ("foo:5000/x:T", "foo:5000", "x", Some("T")),
        ("Uppercase/lowercase", "Uppercase", "lowercase", None),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000", "a/b", None),
        ("[::1]:5000/repo:tag", "[::1]:5000", "repo", Some("tag")),
        ("[2001:db8::1]/repo", "[2001:db8::1]", "repo", None),
        ("xn--n3h.com/myimage", "xn--n3h.com", "myimage", None),
        ("a-b.c-d/e", "a-b.c-d", "e", None),
        ("test_com/foo", "docker.io", "test_com/foo", None),
        (
            "foo_bar.com:8080",
            "docker.io",
            "library/foo_bar.com",
            Some("8080"),
        ),
        (
            "foo/foo_bar.com:8080",
            "docker.io",
            "foo/foo_bar.com",
            Some("8080"),
        ),
        ("a__b/c--d.e", "docker.io", "a__b/c--d.e", None),
        ("dmcgowan/mycontainer-", "", "", None),
    ];
    for (text, registry, repository, tag) in table {
        if registry.is_empty() {
            assert!(Reference::parse(text).is_err(), "{text}");
            continue;
        }
        let want = (
            (*registry).to_owned(),
            (*repository).to_owned(),
            tag.map(str::to_owned),
        );
        assert_eq!(parts(text), want, "{text}");
    }
}

#[test]
fn texts_that_docker_refuses_are_refused() {
    let long = "a/".repeat(128) + "a";
    let long_tag = format!("a:{}", "t".repeat(129));
    let bad = [
        "",
        ":justtag",
        "@sha256:e3b0",
        "repo@sha256:ffff",
        "Uppercase:tag",
        "test:5000/Uppercase/lowercase:tag",
        "lowercase:Uppercase/x",
        "docker///docker",
        "/docker",
        "docker/",
        "-docker/x",
        "doc..ker",
        "a___b",
        "a._b",
        "a b",
        "aé",
        "a:\n",
        "../etc/passwd",
        "foo.bar/../x",
        "repo:",
        "repo:.dot",
        "repo:-dash",
        "a:b:c",
        "foo:65536/x",
        "[::1/x",
        "[zz]:1/x",
        "[fe80::1%25eth0]/x",
        "[::ffff:127.0.0.1]:5000/x",
        "aa/asdf$$^/aa",
        "https://github.com/docker/docker",
        "docker/docker@sha256:short",
        "a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855@x",
        HEX,
        &long,
        &long_tag,
        &"x".repeat(100_000),
    ];
    for text in bad {
        let error = Reference::parse(text).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}");
        assert!(error.to_string().len() < 1000);
    }
}

#[test]
fn upper_case_in_a_repository_is_said_in_dockers_words() {
    let error = Reference::parse("Foo").unwrap_err().to_string();
    assert_eq!(
        error,
        "invalid reference format: repository name (library/Foo) must be lowercase"
    );
}

#[test]
fn a_digest_and_a_tag_may_stand_together_and_another_algorithm_is_unsupported() {
    let r = Reference::parse(&format!("debian:12@sha256:{HEX}")).unwrap();
    assert_eq!(r.tag(), Some("12"));
    assert_eq!(r.digest().unwrap().hex(), HEX);
    assert_eq!(r.familiar(), format!("debian:12@sha256:{HEX}"));
    assert_eq!(
        r.clone().without_tag().canonical(),
        format!("docker.io/library/debian@sha256:{HEX}")
    );
    assert_eq!(r.without_digest().canonical(), "docker.io/library/debian:12");
    let other = Reference::parse(&format!("debian@sha512:{HEX}{HEX}")).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Unsupported);
}

#[test]
fn sixty_four_hex_characters_are_an_id_but_only_as_the_whole_text() {
    assert!(Reference::parse(HEX).is_err());
    assert!(Reference::parse(&HEX[..63]).is_ok());
    let named = Reference::parse(&format!("docker.io/library/{HEX}")).unwrap();
    assert_eq!(named.familiar(), format!("library/{HEX}"));
}

#[test]
fn familiar_names_drop_what_docker_drops() {
    for (text, familiar) in [
        ("docker.io/library/debian:12", "debian:12"),
        ("docker.io/foo/bar", "foo/bar"),
        ("docker.io/library/foo/bar", "library/foo/bar"),
        ("ghcr.io/foo/bar:1", "ghcr.io/foo/bar:1"),
        ("localhost:5000/x", "localhost:5000/x"),
        ("docker.io/foo.bar/x", "docker.io/foo.bar/x"),
        ("docker.io/localhost/x", "docker.io/localhost/x"),
    ] {
        assert_eq!(Reference::parse(text).unwrap().familiar(), familiar);
    }
}

#[test]
fn latest_is_added_only_where_nothing_is_said() {
    let latest = |text: &str| Reference::parse(text).unwrap().or_latest().familiar();
    assert_eq!(latest("debian"), "debian:latest");
    assert_eq!(latest("debian:12"), "debian:12");
    assert_eq!(
        latest(&format!("debian@sha256:{HEX}")),
        format!("debian@sha256:{HEX}")
    );
    let tagged = Reference::parse("debian:12").unwrap().with_tag("13").unwrap();
    assert_eq!(tagged.familiar(), "debian:13");
    assert!(tagged.with_tag("no/slash").is_err());
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("docker.io/".to_owned()),
        Just("index.docker.io/".to_owned()),
        "[a-zA-Z0-9]([a-zA-Z0-9-]{0,8}[a-zA-Z0-9])?(\\.[a-z0-9]{1,5}){0,3}(:[1-9][0-9]{0,3})?/",
        Just("[::1]:5000/".to_owned()),
    ]
}

const COMPONENT: &str = "[a-z0-9]{1,6}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}";

proptest! {
    #[test]
    fn every_grammatical_text_parses_and_prints_to_the_same_reference(
        host in host(),
        mut path in proptest::collection::vec(COMPONENT, 1..5),
        tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
        raw in proptest::option::of(any::<[u8; 32]>()),
    ) {
        if host.is_empty() && path.len() > 1 {
            // With a stop in it, the first component would be read as a registry.
            path[0] = path[0].replace(['.', '_'], "");
        }
        let mut text = host + &path.join("/");
        if let Some(tag) = &tag {
            text = format!("{text}:{tag}");
        }
        if let Some(raw) = raw {
            text = format!("{text}@{}", Digest::from_bytes(raw));
        }
        let parsed = Reference::parse(&text).unwrap();
        prop_assert_eq!(parsed.tag(), tag.as_deref());
        prop_assert_eq!(parsed.digest().copied(), raw.map(Digest::from_bytes));
        prop_assert_eq!(&Reference::parse(&parsed.canonical()).unwrap(), &parsed);
        prop_assert_eq!(&Reference::parse(&parsed.familiar()).unwrap(), &parsed);
    }

    #[test]
    fn any_text_is_an_error_or_a_reference_that_round_trips(text in "\\PC{0,80}|[a-zA-Z0-9:/@._\\[\\]-]{0,80}") {
        if let Ok(parsed) = Reference::parse(&text) {
            prop_assert!(parsed.repository().len() <= MAX_REPOSITORY);
            prop_assert!(!parsed.repository().split('/').any(|part| part.is_empty() || part == ".."));
            prop_assert_eq!(&Reference::parse(&parsed.familiar()).unwrap(), &parsed);
            prop_assert_eq!(&Reference::parse(&parsed.canonical()).unwrap(), &parsed);
        }
    }
}
