//! Trees that are looked through, and images of several layers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use dhow_inventory::{Delta, Inventory, Scanner, Subject, Tree, cyclonedx, spdx2, spdx3};
use dhow_rootpath::Root;
use dhow_types::Digest;

/// A directory with these files.
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir
}

fn scan(dir: &Path) -> Delta {
    let root = Root::open(dir).unwrap();
    Scanner.delta(&Tree { root: &root }).unwrap()
}

fn delta(files: &[(&str, &str)]) -> Delta {
    scan(tree(files).path())
}

fn stanza(name: &str, version: &str) -> String {
    format!("Package: {name}\nStatus: install ok installed\nVersion: {version}\nArchitecture: amd64\n\n")
}

const STATUS: &str = "var/lib/dpkg/status";

fn status(packages: &[(&str, &str)]) -> String {
    packages
        .iter()
        .map(|(name, version)| stanza(name, version))
        .collect()
}

#[test]
fn lock_files_count_in_source_and_only_for_what_is_not_there() {
    let lock = r#"{"packages":{"node_modules/a":{"version":"1.0.0"},"node_modules/b":{"version":"2.0.0"}}}"#;
    let there = (
        "app/node_modules/a/package.json",
        r#"{"name":"a","version":"1.0.0"}"#,
    );
    let source = |files: &[(&str, &str)]| {
        let dir = tree(files);
        let root = Root::open(dir.path()).unwrap();
        let delta = Scanner.source_delta(&Tree { root: &root }).unwrap();
        let inventory = Inventory::of(&[&delta]);
        let line =
            |installed: &dhow_inventory::Installed| format!("{} {}", installed.package.name, installed.path);
        inventory.packages.iter().map(line).collect::<Vec<_>>()
    };
    let (a, b) = (format!("a {}", there.0), "b app/package-lock.json".to_owned());
    assert_eq!(source(&[("app/package-lock.json", lock), there]), [a.clone(), b]);
    // In a system they say nothing, nor in a layer.
    let system = ("etc/os-release", "ID=debian\n");
    assert_eq!(source(&[("app/package-lock.json", lock), there, system]), [a]);
    assert!(delta(&[("app/package-lock.json", lock)]).records.is_empty());
}

#[test]
fn a_million_packages_are_left_out_and_said() {
    let mut text = String::new();
    for number in 0..1_000_000 {
        text.push_str(&format!("Package: p{number}\nVersion: 1\n\n"));
    }
    let delta = delta(&[
        (STATUS, &text),
        ("srv/node_modules/a/package.json", r#"{"name":"a","version":"1"}"#),
    ]);
    // What else is there is read.
    assert_eq!(Inventory::of(&[&delta]).packages.len(), 1);
    assert!(
        delta.problems[0].contains("more than 500000 packages"),
        "{:?}",
        delta.problems
    );
}

/// Name, version, layer that brought it, layer where the name first came.
fn lines(inventory: &Inventory) -> Vec<(&str, &str, usize, usize)> {
    inventory
        .packages
        .iter()
        .map(|installed| {
            (
                installed.package.name.as_str(),
                installed.package.version.as_str(),
                installed.layer,
                installed.first,
            )
        })
        .collect()
}

#[test]
fn a_package_is_of_the_layer_from_which_on_it_is_there() {
    let base = delta(&[
        (STATUS, &status(&[("curl", "1"), ("libc", "1"), ("gone", "1")])),
        ("etc/os-release", "ID=debian\nVERSION_ID=12\n"),
    ]);
    let upgraded = delta(&[(STATUS, &status(&[("curl", "2"), ("libc", "1")]))]);
    let nothing = delta(&[("etc/motd", "hello")]);
    let back = delta(&[(
        STATUS,
        &status(&[("curl", "2"), ("gone", "1"), ("libc", "1"), ("new", "1")]),
    )]);
    let inventory = Inventory::of(&[&base, &upgraded, &nothing, &back]);
    assert_eq!(
        lines(&inventory),
        [
            ("curl", "2", 1, 0),
            // It was gone between: the last layer brought it again.
            ("gone", "1", 3, 0),
            ("libc", "1", 0, 0),
            ("new", "1", 3, 3)
        ]
    );
    assert_eq!(inventory.os.unwrap().version, "12");
}

#[test]
fn a_downgrade_and_a_return_count_from_the_last_time() {
    let one = delta(&[(STATUS, &status(&[("a", "1")]))]);
    let two = delta(&[(STATUS, &status(&[("a", "2")]))]);
    let inventory = Inventory::of(&[&one, &two, &one]);
    assert_eq!(lines(&inventory), [("a", "1", 2, 0)]);
}

#[test]
fn what_a_layer_deletes_hides_or_empties_is_gone() {
    let package = "app/node_modules/a/package.json";
    let base = delta(&[(package, r#"{"name":"a","version":"1"}"#)]);
    let with = |change: fn(&mut Delta)| {
        let mut upper = delta(&[]);
        change(&mut upper);
        Inventory::of(&[&base, &upper]).packages.len()
    };
    assert_eq!(with(|_| ()), 1);
    assert_eq!(with(|upper| upper.deleted.push("app/node_modules".to_owned())), 0);
    assert_eq!(
        with(|upper| upper.deleted.push("app/node_modules/a/package.json".to_owned())),
        0
    );
    assert_eq!(with(|upper| upper.opaque.push("app".to_owned())), 0);
    assert_eq!(with(|upper| upper.opaque.push(String::new())), 0);
    // Not a path below it, though it begins so.
    assert_eq!(with(|upper| upper.deleted.push("app/node".to_owned())), 1);
    // A file that says nothing any more.
    let emptied = delta(&[(package, "{}")]);
    assert_eq!(Inventory::of(&[&base, &emptied]).packages.len(), 0);
    // A link where the directory was.
    let dir = tree(&[]);
    fs::create_dir(dir.path().join("app")).unwrap();
    symlink("/elsewhere", dir.path().join("app/node_modules")).unwrap();
    assert_eq!(Inventory::of(&[&base, &scan(dir.path())]).packages.len(), 0);
}

#[test]
fn what_the_system_brought_is_the_systems_to_patch() {
    let metadata = "Name: yaml\nVersion: 6\n";
    let owned = "usr/lib/python3/dist-packages/yaml.dist-info/METADATA";
    let own = "usr/local/lib/python3/dist-packages/yaml.dist-info/METADATA";
    let base = delta(&[
        (STATUS, &status(&[("python3-yaml", "6-1")])),
        (
            "var/lib/dpkg/info/python3-yaml.list",
            &format!("/usr\n/{owned}\n"),
        ),
        (owned, metadata),
        (own, metadata),
    ]);
    let inventory = Inventory::of(&[&base]);
    let owner = |path: &str| {
        let installed = inventory.packages.iter().find(|found| found.path == path);
        installed.unwrap().owner.clone()
    };
    assert_eq!(owner(owned).as_deref(), Some("python3-yaml"));
    assert_eq!(owner(own), None);
    // The package went, its list and the file stayed.
    let removed = delta(&[(STATUS, &status(&[("other", "1")]))]);
    let inventory = Inventory::of(&[&base, &removed]);
    assert!(
        inventory
            .packages
            .iter()
            .all(|installed| installed.owner.is_none())
    );
}

#[test]
fn a_broken_file_is_a_problem_of_its_own() {
    let base = delta(&[
        (STATUS, &status(&[("a", "1")])),
        ("app/node_modules/b/package.json", "{not json"),
    ]);
    assert_eq!(base.problems.len(), 1);
    assert!(
        base.problems[0].starts_with("app/node_modules/b/package.json: no JSON"),
        "{:?}",
        base.problems
    );
    assert_eq!(Inventory::of(&[&base]).packages.len(), 1);
}

#[test]
fn links_and_pipes_are_not_followed_nor_waited_for() {
    let dir = tree(&[("secret", &status(&[("outside", "1")]))]);
    let image = dir.path().join("image");
    fs::create_dir_all(image.join("var/lib/dpkg")).unwrap();
    symlink(dir.path().join("secret"), image.join(STATUS)).unwrap();
    fs::create_dir_all(image.join("app/node_modules/x")).unwrap();
    let pipe = image.join("app/node_modules/x/package.json");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let found = scan(&image);
    assert_eq!(found.problems, Vec::<String>::new());
    assert_eq!(Inventory::of(&[&found]).packages, []);
}

#[test]
fn programs_are_looked_into_and_scripts_are_not() {
    let dir = tree(&[("usr/local/bin/script", &"#!/bin/sh\n".repeat(4000))]);
    let script = dir.path().join("usr/local/bin/script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let found = scan(dir.path());
    assert_eq!((found.records.len(), found.problems.len()), (0, 0));
}

#[test]
fn a_delta_is_kept_and_read_back_and_another_form_is_not() {
    let made = delta(&[
        (STATUS, &status(&[("a", "1")])),
        ("etc/os-release", "ID=debian\n"),
    ]);
    assert_eq!(Delta::decode(&made.encode()), Some(made.clone()));
    let mut newer = made;
    newer.form += 1;
    assert_eq!(Delta::decode(&newer.encode()), None);
    assert_eq!(Delta::decode(b"{"), None);
}

#[test]
fn the_same_tree_gives_the_same_documents() {
    let base = delta(&[
        (
            "etc/os-release",
            "ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"Debian 12\"\n",
        ),
        (STATUS, &status(&[("a", "1"), ("b", "2")])),
        (
            "x/node_modules/n/package.json",
            r#"{"name":"n","version":"1","license":"see LICENSE"}"#,
        ),
    ]);
    let inventory = Inventory::of(&[&base]);
    let subject = Subject {
        name: "example.org/app:1".to_owned(),
        digest: Some(Digest::of(b"x")),
        image: true,
        layers: vec!["sha256:00".to_owned()],
        tool: ("dhow".to_owned(), "0".to_owned()),
        created: "2026-01-01T00:00:00Z".to_owned(),
    };
    let document = cyclonedx(&inventory, &subject);
    assert_eq!(document, cyclonedx(&inventory, &subject));
    assert_eq!(document["components"][0]["type"], "operating-system");
    assert_eq!(
        document["components"][1]["purl"],
        "pkg:deb/debian/a@1?arch=amd64&distro=debian-12"
    );
    assert_eq!(
        document["components"][3]["licenses"][0]["license"]["name"],
        "see LICENSE"
    );
    let document = spdx2(&inventory, &subject);
    assert_eq!(document["packages"].as_array().unwrap().len(), 4);
    assert_eq!(document["packages"][3]["licenseDeclared"], "NOASSERTION");
    let document = spdx3(&inventory, &subject);
    let graph = document["@graph"].as_array().unwrap();
    assert!(graph.iter().any(|element| element["type"] == "SpdxDocument"));
}
