use std::collections::HashMap;
use std::path::{Path, PathBuf};

use dhow_reference::Reference;
use dhow_types::ErrorKind;
use proptest::prelude::*;

use super::*;

fn conf(text: &str) -> Registries {
    let mut registries = Registries::default();
    registries.conf.lay_over(text, Path::new("/etc/r.conf")).unwrap();
    registries
}

fn refused(text: &str) -> String {
    let error = Conf::default()
        .lay_over(text, Path::new("/etc/r.conf"))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    error.to_string()
}

/// The places of a name as `host/repository`, with these `hosts.toml`.
fn places(registries: &Registries, name: &str, hosts: &[(&str, &str)]) -> Vec<Endpoint> {
    let hosts: HashMap<&str, &str> = hosts.iter().copied().collect();
    let mut files = |host: &str| {
        let path = PathBuf::from(format!("/certs/{host}/hosts.toml"));
        let parsed = hosts
            .get(host)
            .map(|text| hosts::parse(text, &path))
            .transpose()?;
        Ok(HostFiles {
            hosts: parsed,
            ..HostFiles::default()
        })
    };
    registries
        .endpoints(&Reference::parse(name).unwrap(), &mut files)
        .unwrap()
}

fn names(registries: &Registries, name: &str) -> Vec<String> {
    let places = places(registries, name, &[]);
    places
        .iter()
        .map(|place| format!("{}/{}", place.host, place.repository))
        .collect()
}

#[test]
fn a_registry_of_which_nothing_is_said_is_asked_itself() {
    assert_eq!(
        names(&Registries::default(), "debian:12"),
        ["docker.io/library/debian"]
    );
    assert_eq!(
        names(&conf("[[registry]]\nlocation='a.example'\n"), "b.example/x"),
        ["b.example/x"]
    );
}

#[test]
fn the_longest_prefix_decides_and_ends_at_a_slash() {
    let registries = conf(
        r#"
        [[registry]]
        location = "a.example"
        [[registry.mirror]]
        location = "whole.example/cache"
        [[registry]]
        prefix = "a.example/team"
        location = "b.example:5000/other"
        [[registry]]
        prefix = "*.corp.example"
        location = "cache.example/corp"
        [[registry]]
        prefix = "sub.corp.example"
        "#,
    );
    assert_eq!(
        names(&registries, "a.example/x/y"),
        ["whole.example/cache/x/y", "a.example/x/y"]
    );
    assert_eq!(
        names(&registries, "a.example/team/app"),
        ["b.example:5000/other/app"]
    );
    assert_eq!(
        names(&registries, "a.example/teams/app"),
        ["whole.example/cache/teams/app", "a.example/teams/app"]
    );
    assert_eq!(
        names(&registries, "x.y.corp.example:8443/app"),
        ["cache.example/corp/app"]
    );
    assert_eq!(
        names(&registries, "sub.corp.example/app"),
        ["sub.corp.example/app"]
    );
    assert_eq!(names(&registries, "corp.example/app"), ["corp.example/app"]);
    assert_eq!(names(&registries, "xcorp.example/app"), ["xcorp.example/app"]);
}

#[test]
fn a_blocked_registry_is_refused_with_the_file_that_says_so() {
    let registries = conf("[[registry]]\nprefix='a.example/bad'\nblocked=true\n");
    let blocked = |name: &str| {
        registries.endpoints(
            &Reference::parse(name).unwrap(),
            &mut |_| Ok(HostFiles::default()),
        )
    };
    let error = blocked("a.example/bad/x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(
        error.to_string(),
        "registry a.example/bad is blocked in /etc/r.conf"
    );
    assert!(blocked("a.example/badly/x").is_ok());
}

#[test]
fn mirrors_may_be_for_digests_or_tags_only() {
    let registries = conf(
        r#"
        [[registry]]
        location = "a.example"
        [[registry.mirror]]
        location = "d.example"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "t.example"
        pull-from-mirror = "tag-only"
        insecure = true
        [[registry]]
        location = "b.example"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "d.example"
        "#,
    );
    let only: Vec<_> = places(&registries, "a.example/x", &[])
        .iter()
        .map(|place| (place.only, place.insecure))
        .collect();
    assert_eq!(
        only,
        [(Only::Digests, false), (Only::Tags, true), (Only::All, false)]
    );
    assert_eq!(places(&registries, "b.example/x", &[])[0].only, Only::Digests);
    assert!(
        !places(&registries, "a.example/x", &[])[0].can.push,
        "a mirror is not pushed to"
    );
}

#[test]
fn a_drop_in_replaces_a_rule_as_a_whole() {
    let mut conf = Conf::default();
    let first =
        "unqualified-search-registries=['quay.io']\n[[registry]]\nlocation='a.example'\nblocked=true\n";
    conf.lay_over(first, Path::new("1")).unwrap();
    conf.lay_over(
        "[[registry]]\nlocation='a.example'\ninsecure=true\n",
        Path::new("2"),
    )
    .unwrap();
    assert_eq!(conf.rules.len(), 1);
    assert!(!conf.rules[0].blocked && conf.rules[0].insecure);
    assert_eq!(conf.search, ["quay.io"]);
    conf.lay_over("unqualified-search-registries=[]\n", Path::new("3"))
        .unwrap();
    assert!(conf.search.is_empty());
}

#[test]
fn what_is_wrong_in_registries_conf_is_said_with_file_and_line() {
    for (text, said) in [
        ("[[registry]]\n", "neither prefix nor location"),
        ("[[registry]]\nlocation='https://a.example'\n", "without a scheme"),
        ("[[registry]]\nlocation='a.example/UPPER'\n", "no repository"),
        ("[[registry]]\nlocation='a b'\n", "begin with a host"),
        ("[[registry]]\nprefix='*'\nlocation='a'\n", "begin with a host"),
        ("[[registry]]\nprefix='*.a.example/x'\n", "wildcard"),
        ("[[registry]]\nlocation='a'\n[[registry.mirror]]\n", "no location"),
        (
            "[[registry]]\nlocation='a'\n[[registry.mirror]]\nlocation='b'\npull-from-mirror='never'\n",
            "digest-only",
        ),
        ("[registries.search]\nregistries=['a']\n", "version 1"),
        ("\n\n[[registry]]\nblocked=3\n", "line 4"),
        ("[[registry", "line 1"),
    ] {
        let error = refused(text);
        assert!(
            error.starts_with("read /etc/r.conf: ") && error.contains(said),
            "{text}: {error}"
        );
    }
}

#[test]
fn the_places_of_hosts_toml_come_in_the_order_of_the_file_and_the_server_last() {
    let text = r#"
        server = "https://registry-1.docker.io"
        [host."https://z.example"]
        capabilities = ["pull", "resolve"]
        skip_verify = true
        ca = "ca.pem"
        client = [["c.pem", "/abs/k.pem"]]
        [host."https://z.example".header]
        x-one = "1"
        x-two = ["2", "3"]
        [host."http://a.example:5000/v2/proxy"]
        override_path = true
        capabilities = ["pull"]
    "#;
    let places = places(&Registries::default(), "debian", &[("docker.io", text)]);
    let shown: Vec<_> = places
        .iter()
        .map(|place| {
            (
                place.host.as_str(),
                place.https,
                place.root.as_str(),
                place.namespace.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("z.example", Some(true), "/v2", Some("docker.io")),
            ("a.example:5000", Some(false), "/v2/proxy", Some("docker.io")),
            ("registry-1.docker.io", Some(true), "/v2", None),
        ]
    );
    let first = &places[0];
    assert!(first.can.resolve && !first.can.push && first.mirror && first.wire.any_certificate);
    assert_eq!(first.wire.ca, [Path::new("/certs/docker.io/ca.pem")]);
    assert_eq!(
        first.wire.client,
        [(
            PathBuf::from("/certs/docker.io/c.pem"),
            PathBuf::from("/abs/k.pem")
        )]
    );
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        first.headers,
        [header("x-one", "1"), header("x-two", "2"), header("x-two", "3")]
    );
    assert!(places[1].can.pull && !places[1].can.resolve);
    assert!(places[2].can.push && !places[2].mirror && !places[2].wire.any_certificate);
}

#[test]
fn what_is_said_of_a_registry_is_not_said_of_those_that_stand_for_it() {
    let registries = conf("[[registry]]\nlocation='r.example'\ninsecure=true\n");
    let places = places(
        &registries,
        "r.example/x",
        &[("r.example", "[host.'https://m.example']\n")],
    );
    let insecure: Vec<_> = places
        .iter()
        .map(|place| (place.host.as_str(), place.insecure))
        .collect();
    assert_eq!(insecure, [("m.example", false), ("r.example", true)]);
}

#[test]
fn what_is_wrong_in_hosts_toml_is_said() {
    for (text, said) in [
        ("server = 3", "server is no text"),
        ("host = 3", "host is no table"),
        ("[host.'ftp://x']", "address"),
        ("[host.'https://u:p@x']", "address"),
        ("[host.'https://x/a?b']", "address"),
        ("[host.'https://x']\ncapabilities=['fly']", "fly"),
        ("[host.'https://x']\nskip_verify='yes'", "neither true nor false"),
        ("[host.'https://x']\nclient=[['a','b','c']]", "client is"),
        ("[host.'https://x'.header]\n'bad name'='x'", "cannot be sent"),
        ("[host.'https://x'.header]\na=\"x\\ny\"", "cannot be sent"),
    ] {
        let error = hosts::parse(text, Path::new("/c/hosts.toml"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("read /c/hosts.toml: ") && error.contains(said),
            "{text}: {error}"
        );
    }
}

#[test]
fn dockers_mirrors_are_for_the_hub_only() {
    let text = r#"{"registry-mirrors":["https://m.example/","http://10.0.0.1:5000"],"insecure-registries":["10.0.0.0/8","reg.example:5000"],"debug":true}"#;
    let registries = Registries {
        daemon: daemon::parse(text, Path::new("d")).unwrap(),
        ..Registries::default()
    };
    assert_eq!(
        names(&registries, "debian"),
        [
            "m.example/library/debian",
            "10.0.0.1:5000/library/debian",
            "docker.io/library/debian"
        ]
    );
    assert_eq!(names(&registries, "quay.io/x"), ["quay.io/x"]);
    assert!(registries.is_insecure("10.9.9.9", 5000) && registries.is_insecure("reg.example", 5000));
    assert!(!registries.is_insecure("reg.example", 443) && !registries.is_insecure("11.0.0.1", 80));
    assert!(
        !registries.is_insecure("10.0.0.0.example", 80),
        "a name is not looked up"
    );
    assert_eq!(
        registries.hub_mirrors(),
        ["https://m.example/", "http://10.0.0.1:5000/"]
    );
    for bad in [
        r#"{"registry-mirrors":["m.example"]}"#,
        r#"{"registry-mirrors":"x"}"#,
        "[1]",
    ] {
        assert!(daemon::parse(bad, Path::new("d")).is_err(), "{bad}");
    }
    assert_eq!(daemon::parse(" ", Path::new("d")).unwrap(), Daemon::default());
}

#[test]
fn a_name_that_rewriting_breaks_is_an_error() {
    let registries = conf("[[registry]]\nprefix='a.example/x'\nlocation='b.example'\n");
    let name = Reference::parse("a.example/x").unwrap();
    let error = registries
        .endpoints(&name, &mut |_| Ok(HostFiles::default()))
        .unwrap_err();
    assert!(error.to_string().contains("b.example"), "{error}");
}

#[test]
fn the_folders_of_a_host_are_read_like_dockers_and_containerds() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("r.example:5000/ca.crt", "");
    write("r.example:5000/client.cert", "");
    write("r.example:5000/client.key", "");
    write("r.example_5000_/hosts.toml", "[host.'https://m.example']\n");
    write("_default/hosts.toml", "[host.'https://d.example']\n");
    write("broken.example/client.cert", "");
    let read = |host: &str| HostFiles::read(&[folder.path().to_owned()], host);
    let found = read("r.example:5000").unwrap();
    assert_eq!((found.ca.len(), found.client.len()), (1, 1));
    assert_eq!(found.hosts.unwrap().places[0].host, "m.example");
    assert_eq!(
        read("other.example").unwrap().hosts.unwrap().places[0].host,
        "d.example"
    );
    assert!(
        read("broken.example")
            .unwrap_err()
            .to_string()
            .contains("client.key")
    );
    for outside in ["..", "../r.example:5000", "", "/etc"] {
        assert_eq!(read(outside).unwrap(), HostFiles::default(), "{outside}");
    }
}

fn toml_like() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("[[registry]]".to_owned()),
        Just("[[registry.mirror]]".to_owned()),
        Just("[host.\"https://m.example\"]".to_owned()),
        "(prefix|location|blocked|insecure|server|ca|client|capabilities|header|mirror) = (true|3|'[a-z.*/:]{0,20}'|\\['[a-z./:]{0,9}'\\])",
        "\\PC{0,30}",
    ];
    proptest::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn any_text_is_parsed_without_panic_and_what_is_taken_makes_sound_names(text in toml_like(), name in "[a-z]{1,5}(\\.[a-z]{1,5}){0,2}/[a-z]{1,5}(/[a-z]{1,5}){0,2}") {
        drop(hosts::parse(&text, Path::new("/c/hosts.toml")));
        drop(daemon::parse(&text, Path::new("d")));
        let mut registries = Registries::default();
        if registries.conf.lay_over(&text, Path::new("/etc/r.conf")).is_ok() {
            let name = Reference::parse(&name).unwrap();
            for place in registries.endpoints(&name, &mut |_| Ok(HostFiles::default())).unwrap_or_default() {
                prop_assert!(dhow_reference::valid_repository(&place.repository));
                let url = format!("https://{}/v2/{}/", place.host, place.repository);
                prop_assert!(place::parse(&url).is_ok(), "{}", url);
            }
        }
    }
}
