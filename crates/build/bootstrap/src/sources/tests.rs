use proptest::prelude::*;

use super::*;

const DEB822: &str = "Types: deb\n# a comment\nURIs: http://host/debian/\nSuites: bookworm bookworm-updates\n\
    Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
    Types: deb deb-src\nURIs: http://host/debian-security\nSuites: bookworm-security\nComponents: main contrib\n\n\
    Enabled: no\nTypes: deb\nURIs: http://off/debian\nSuites: bookworm\nComponents: main\n";

fn file(name: &str, text: &str) -> SourceFile {
    SourceFile {
        name: name.to_owned(),
        text: text.to_owned(),
    }
}

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

#[test]
fn both_syntaxes_say_the_same() {
    let old = "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://host/debian bookworm main\n\
        deb-src http://host/debian bookworm main\n# deb http://off/debian bookworm main\n\n\
        deb http://host/debian-security/ bookworm-security main contrib # security\n";
    let sources = parse(&[file("/etc/apt/sources.list", old)]).unwrap();
    assert_eq!(sources.len(), 2);
    assert_eq!(sources[0].architectures, ["amd64"]);
    let modern = parse(&[file("debian.sources", DEB822)]).unwrap();
    assert_eq!(modern.len(), 2);
    assert_eq!(sources[0].signed_by, modern[0].signed_by);
    assert_eq!(sources[1].uris, modern[1].uris);
    assert_eq!(sources[1].components, modern[1].components);
}

#[test]
fn only_sources_of_the_suite_are_chosen() {
    let vendors = "deb https://vendor/apt vendor-bookworm main\ndeb https://other/node nodistro main\n\
        deb cdrom:[Debian]/ bookworm main\ndeb [arch=i386] http://host/i386 bookworm main\n";
    let sources = parse(&[file("a.list", vendors), file("debian.sources", DEB822)]).unwrap();
    let chosen = choose(&sources, None, &target("debian:bookworm-slim"), "amd64").unwrap();
    let names: Vec<String> = chosen
        .iter()
        .map(|one| format!("{} {}", one.uri, one.suite))
        .collect();
    assert_eq!(
        names,
        [
            "http://host/debian bookworm",
            "http://host/debian bookworm-updates",
            "http://host/debian-security bookworm-security"
        ]
    );
    assert!(chosen.iter().all(|one| !one.optional));
}

#[test]
fn a_sister_suite_is_asked_for_at_the_same_archive() {
    let sources = parse(&[file("debian.sources", DEB822)]).unwrap();
    let chosen = choose(&sources, None, &target("debian:trixie"), "amd64").unwrap();
    assert_eq!(chosen[0].suite, "trixie");
    assert!(!chosen[0].optional);
    let last = chosen.last().unwrap();
    assert_eq!(
        (last.uri.as_str(), last.suite.as_str()),
        ("http://host/debian-security", "trixie-security")
    );
    assert!(last.optional);
}

#[test]
fn a_mirror_takes_the_place_of_all_sources() {
    let chosen = choose(&[], Some("http://near/debian/"), &target("debian:12"), "amd64").unwrap();
    let names: Vec<String> = chosen
        .iter()
        .map(|one| format!("{} {}", one.uri, one.suite))
        .collect();
    assert_eq!(
        names,
        [
            "http://near/debian bookworm",
            "http://near/debian bookworm-updates",
            "http://near/debian-security bookworm-security"
        ]
    );
}

#[test]
fn no_source_for_the_suite_is_an_error_with_a_way_out() {
    let error = choose(&[], None, &target("debian:12"), "amd64").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(dhow_types::Failure::hint(&error).unwrap().contains("--mirror"));
}

#[test]
fn keys_may_be_paths_fingerprints_or_inline() {
    let inline = "Types: deb\nURIs: http://h/d\nSuites: sid\nComponents: main\nSigned-By:\n \
        -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n aaaa\n -----END PGP PUBLIC KEY BLOCK-----\n";
    let sources = parse(&[file("x.sources", inline)]).unwrap();
    let Some(SignedBy::Inline(key)) = &sources[0].signed_by else {
        panic!("{:?}", sources[0].signed_by)
    };
    assert!(
        key.starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\naaaa\n"),
        "{key}"
    );
    let print = "4d64fec119c2029067d6e791f8d2585b8783d481";
    assert_eq!(
        signed_by(print).unwrap(),
        SignedBy::Fingerprints(vec![print.to_uppercase()])
    );
    assert!(signed_by("relative/path.gpg").is_err());
    assert!(signed_by("").is_err());
}

#[test]
fn credentials_do_not_reach_the_image() {
    assert_eq!(
        without_credentials("https://me:secret@host:8/debian"),
        "https://host:8/debian"
    );
    assert_eq!(without_credentials("http://host/a@b"), "http://host/a@b");
}

#[test]
fn typing_errors_are_not_passed_over() {
    for bad in [
        "deb",
        "deb http://host/debian",
        "dbe http://host/debian bookworm main",
        "deb [arch=x http://h s m",
    ] {
        assert!(parse(&[file("a.list", bad)]).is_err(), "{bad:?}");
    }
    assert!(parse(&[file("a.sources", "Types: deb\nSuites: x\n")]).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(deb|Types|URIs|Suites|Signed-By|[ :\\[\\]=#/a-c\\n]){0,30}") {
        for name in ["a.list", "a.sources"] {
            if let Ok(sources) = parse(&[file(name, &text)]) {
                prop_assert!(sources.iter().all(|source| !source.suites.is_empty()));
            }
        }
    }
}
