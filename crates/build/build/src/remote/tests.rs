use super::*;

#[test]
fn urls_and_repositories_are_told_apart_as_docker_does() {
    for (text, http, git) in [
        ("https://example.test/a.txt", true, false),
        ("HTTP://example.test/a", true, false),
        ("https://example.test/a.git", false, true),
        ("https://example.test/a.git#main:sub", false, true),
        ("https://example.test/a.git?tag=v1", false, true),
        ("https://example.test/a?x=.git", true, false),
        ("git://example.test/a", false, true),
        ("ssh://git@example.test/a", false, true),
        ("git@example.test:a/b", false, true),
        ("./git@example.test:a", false, false),
        ("file:///a.git", false, false),
        ("ext::sh -c id", false, false),
        ("a/b", false, false),
        ("c:\\a@b:c", false, false),
    ] {
        assert_eq!((is_http(text), is_git(text)), (http, git), "{text}");
    }
}

#[test]
fn a_file_is_named_by_the_path_of_its_url() {
    for (url, name) in [
        ("https://example.test/a/b.tar.gz?x=y#z", "b.tar.gz"),
        ("https://example.test/a/b/", "b"),
        ("https://example.test/a%20b", "a b"),
        ("https://example.test/%2e%2e", "__unnamed__"),
        ("https://example.test/a%2Fb", "__unnamed__"),
        ("https://example.test/%ff", "%ff"),
        ("https://example.test", "__unnamed__"),
        ("https://example.test/?a/b", "__unnamed__"),
    ] {
        assert_eq!(file_name(url), name, "{url}");
    }
}

#[test]
fn a_repository_is_read_with_its_fragment_or_query() {
    let remote = "https://example.test/a.git".to_owned();
    let wanted = GitSource {
        remote,
        reference: Some("v1/x".to_owned()),
        subdir: "c/d".to_owned(),
        submodules: true,
        ..GitSource::default()
    };
    for text in [
        "https://example.test/a.git#v1/x:c/d",
        "https://example.test/a.git#v1/x:/c//d/",
        "https://example.test/a.git#v1/x:../c/d",
        "https://example.test/a.git?ref=v1%2Fx&subdir=c/d",
        "https://example.test/a.git?ref=v1/x#:c/d",
    ] {
        assert_eq!(GitSource::parse(text).unwrap(), wanted, "{text}");
    }
    let more =
        GitSource::parse("git@example.test:a?tag=v1&checksum=0123456789&keep-git-dir&submodules=false")
            .unwrap();
    assert_eq!(more.remote, "git@example.test:a");
    assert_eq!(more.reference.as_deref(), Some("refs/tags/v1"));
    assert_eq!(more.commit.as_deref(), Some("0123456789"));
    assert_eq!((more.keep_git_dir, more.submodules), (Some(true), false));
}

#[test]
fn what_could_be_an_option_or_run_a_program_is_refused() {
    for text in [
        "https://example.test/a.git#-upload-pack=x",
        "https://example.test/a.git#--output=/etc/x",
        "https://example.test/a.git#a..b",
        "https://example.test/a.git#HEAD@{1}",
        "https://example.test/a.git#a b",
        "https://example.test/a.git#a\nb",
        "ssh://-oProxyCommand=x/a",
        "ssh://git@-oProxyCommand=x/a",
        "git@-oProxyCommand=x:a",
        "https://example.test/a.git?checksum=--help",
        "https://example.test/a.git?checksum=012",
        "https://example.test/a.git?upload-pack=x",
        "https://example.test/a.git?ref=",
        "https://example.test/a.git?ref=a#b",
        "https://example.test/a.git?submodules=maybe",
        "ext::sh -c id",
        "file:///etc.git",
    ] {
        assert!(GitSource::parse(text).is_err(), "{text}");
    }
}

mod properties {
    use proptest::prelude::*;

    use super::super::*;

    proptest! {
        #[test]
        fn no_text_becomes_an_option_or_another_transport(text in "(https?://|ssh://|git://|git@|)[-a-z0-9@:/.#?=&%~^{}\\[\\] \\t]{0,60}(\\.git)?[#?]?[-a-z0-9:=/&.%]{0,40}") {
            if let Ok(source) = GitSource::parse(&text) {
                let arguments = [Some(&source.remote), source.reference.as_ref(), source.commit.as_ref()];
                for argument in arguments.into_iter().flatten() {
                    prop_assert!(!argument.starts_with('-') && !argument.contains(['\0', '\n', ' ']), "{source:?}");
                }
                let known = SCHEMES.iter().any(|scheme| source.remote.starts_with(&format!("{scheme}://")));
                prop_assert!(known || is_scp_like(&source.remote), "{source:?}");
                prop_assert!(!source.subdir.split('/').any(|part| part == ".."), "{source:?}");
            }
        }

        #[test]
        fn a_file_name_is_one_component(url in "\\PC{0,80}") {
            let name = file_name(&format!("https://{url}"));
            prop_assert!(!name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']), "{name:?}");
        }
    }
}

#[test]
fn what_a_build_is_made_of_has_no_user_and_the_algorithm_of_its_commit() {
    let source = GitSource::parse("https://me:hush@h.test/a.git#v1:sub").unwrap();
    for (length, algorithm) in [(40, "sha1"), (64, "sha256")] {
        let made_of = source.material(&"a".repeat(length));
        assert_eq!(made_of.uri, "https://h.test/a.git#v1");
        assert_eq!(made_of.algorithm, algorithm);
    }
    let file = Material::file("http://me:hush@h.test:8/f", &Digest::of(b""));
    assert_eq!(file.uri, "http://h.test:8/f");
    assert_eq!(without_user("http://h.test/a@b"), "http://h.test/a@b");
}
