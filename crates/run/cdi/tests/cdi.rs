//! Devices by the Container Device Interface: files, conflicts, versions, and what they change.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use dhow_cdi::{Catalogue, Document, apply};
use dhow_oci::runtime::{Linux, Namespace, Process, Spec};
use dhow_types::ErrorKind;
use proptest::prelude::*;

/// What a vendor of network cards might write: all that version 1.1 has.
const WHOLE: &str = r#"{
  "cdiVersion": "1.1.0", "kind": "vendor.com/card", "annotations": {"a": "b"},
  "containerEdits": {"env": ["CARDS=1", "PATH=/opt/bin"], "additionalGids": [0, 44, 44]},
  "devices": [
    {"name": "null", "containerEdits": {
      "deviceNodes": [{"path": "/dev/card0", "hostPath": "/dev/null", "permissions": "rw", "uid": 7}],
      "mounts": [
        {"hostPath": "/usr/lib/a.so", "containerPath": "/usr/lib/deep/a.so", "options": ["ro", "rbind"]},
        {"hostPath": "/etc/card", "containerPath": "/etc/card", "options": ["bind"], "type": "none"}],
      "hooks": [{"hookName": "createContainer", "path": "/usr/bin/hook", "args": ["hook", "x"], "timeout": 5}],
      "intelRdt": {"closID": "fast", "schemata": ["MB:0=50"], "enableMonitoring": true},
      "netDevices": [{"hostInterfaceName": "eth1", "name": "card0"}]}},
    {"name": "0", "containerEdits": {"env": ["ONE=1"]}}
  ]
}"#;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn read(folders: &[&Path]) -> Catalogue {
    let folders: Vec<PathBuf> = folders.iter().map(|folder| folder.to_path_buf()).collect();
    Catalogue::read(&folders)
}

fn names(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A file of one device with one variable.
fn plain(kind: &str, device: &str, value: &str) -> String {
    format!(
        r#"{{"cdiVersion": "0.5.0", "kind": "{kind}", "devices": [
            {{"name": "{device}", "containerEdits": {{"env": ["WHICH={value}"]}}}}]}}"#
    )
}

fn empty_spec() -> Spec {
    Spec {
        process: Some(Process {
            env: vec!["PATH=/bin".to_owned()],
            ..Process::default()
        }),
        linux: Some(Linux::default()),
        ..Spec::default()
    }
}

#[test]
fn all_that_a_file_says_comes_into_the_spec() {
    let folder = folder(&[("card.json", WHOLE)]);
    let catalogue = read(&[folder.path()]);
    assert!(catalogue.problems().is_empty());
    let edits = catalogue
        .edits(&names(&["vendor.com/card=null", "vendor.com/card=0"]))
        .unwrap();
    let mut spec = empty_spec();
    apply(&edits, &mut spec).unwrap();
    let process = spec.process.unwrap();
    // What the file says of all its devices is there once; a variable takes the place of its name.
    assert_eq!(process.env, ["PATH=/opt/bin", "CARDS=1", "ONE=1"]);
    assert_eq!(process.user.additional_gids, [44]);
    let linux = spec.linux.unwrap();
    let node = &linux.devices[0];
    assert_eq!(
        (
            node.path.to_str().unwrap(),
            node.kind.as_str(),
            node.major,
            node.minor,
            node.uid,
            node.gid
        ),
        ("/dev/card0", "c", 1, 3, Some(7), Some(0))
    );
    let rule = &linux.resources.unwrap().devices[0];
    assert_eq!(
        (rule.allow, rule.major, rule.minor, rule.access.as_deref()),
        (true, Some(1), Some(3), Some("rw"))
    );
    assert_eq!(linux.net_devices["eth1"].name.as_deref(), Some("card0"));
    let rdt = linux.intel_rdt.unwrap();
    assert_eq!(
        (rdt.clos_id.as_deref(), rdt.schemata.len(), rdt.enable_monitoring),
        (Some("fast"), 1, true)
    );
    let places: Vec<_> = spec
        .mounts
        .iter()
        .map(|mount| mount.destination.to_str().unwrap())
        .collect();
    assert_eq!(places, ["/etc/card", "/usr/lib/deep/a.so"]);
    assert_eq!(spec.mounts[1].options, ["ro", "rbind"]);
    let hook = &spec.hooks.unwrap().create_container[0];
    assert_eq!(
        (hook.path.to_str().unwrap(), hook.timeout),
        ("/usr/bin/hook", Some(5))
    );
}

#[test]
fn a_node_and_a_mount_take_the_place_of_what_was_there() {
    let folder = folder(&[("card.json", WHOLE)]);
    let catalogue = read(&[folder.path()]);
    let edits = catalogue.edits(&names(&["vendor.com/card=null"])).unwrap();
    let mut spec = empty_spec();
    apply(&edits, &mut spec).unwrap();
    spec.linux.get_or_insert_default().namespaces.push(Namespace {
        kind: "user".to_owned(),
        path: None,
    });
    apply(&edits, &mut spec).unwrap();
    assert_eq!((spec.mounts.len(), spec.linux.unwrap().devices.len()), (2, 1));
    // In a user namespace the host's files keep their owners.
    assert_eq!(spec.mounts[1].options, ["ro", "rbind", "ridmap"]);
}

#[test]
fn yaml_says_the_same_as_json() {
    let text = "
cdiVersion: '0.5.0'
kind: vendor.com/card
containerEdits: {}
devices:
- name: 'null'
  containerEdits:
    deviceNodes:
    - {path: /dev/x, hostPath: /dev/null, fileMode: 0640}
";
    let json = r#"{"cdiVersion": "0.5.0", "kind": "vendor.com/card", "devices": [{"name": "null", "containerEdits":
        {"deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/null", "fileMode": 416}]}}]}"#;
    let (yaml, json) = (
        Document::parse(text.as_bytes(), true),
        Document::parse(json.as_bytes(), false),
    );
    assert_eq!(yaml.unwrap(), json.unwrap());
}

#[test]
fn the_later_folder_wins_and_two_files_of_one_folder_cancel_each_other() {
    let weak = folder(&[("a.json", &plain("vendor.com/x", "one", "weak"))]);
    let strong = folder(&[("a.json", &plain("vendor.com/x", "one", "strong"))]);
    let catalogue = read(&[weak.path(), strong.path()]);
    let edits = catalogue.edits(&names(&["vendor.com/x=one"])).unwrap();
    assert_eq!(edits[1].env, ["WHICH=strong"]);
    let twice = folder(&[
        ("a.json", &plain("vendor.com/x", "one", "a")),
        ("b.json", &plain("vendor.com/x", "one", "b")),
    ]);
    let catalogue = read(&[twice.path()]);
    assert_eq!(catalogue.devices().count(), 0);
    let error = catalogue.edits(&names(&["vendor.com/x=one"])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let hint = dhow_types::Failure::hint(&error).unwrap();
    assert!(hint.contains("a.json as well"), "{hint}");
    // A conflict of the weak folder is settled by the strong one.
    let catalogue = read(&[twice.path(), strong.path()]);
    assert_eq!(
        catalogue.edits(&names(&["vendor.com/x=one"])).unwrap()[1].env,
        ["WHICH=strong"]
    );
}

#[test]
fn what_is_missing_is_named_with_the_folders_and_what_there_is() {
    let folder = folder(&[
        ("a.json", &plain("vendor.com/x", "one", "a")),
        ("b.json", "{"),
        ("c.txt", "x"),
    ]);
    let catalogue = read(&[folder.path(), Path::new("/nonexistent/cdi")]);
    let error = catalogue
        .edits(&names(&["vendor.com/x=two", "vendor.com/x=one"]))
        .unwrap_err();
    let text = error.to_string();
    assert!(text.contains("devices vendor.com/x=two:"), "{text}");
    assert!(text.contains("/nonexistent/cdi"), "{text}");
    let hint = dhow_types::Failure::hint(&error).unwrap().to_owned();
    assert!(hint.contains("b.json"), "{hint}");
    // The broken file hides no other.
    assert_eq!(catalogue.problems().len(), 1);
    assert!(catalogue.edits(&names(&["vendor.com/x=one"])).is_ok());
    fs::remove_file(folder.path().join("b.json")).unwrap();
    let error = read(&[folder.path()])
        .edits(&names(&["vendor.com/x=two"]))
        .unwrap_err();
    assert_eq!(
        dhow_types::Failure::hint(&error),
        Some("of vendor.com/x there is: one")
    );
}

#[test]
fn a_file_may_use_only_what_its_version_has() {
    let at = |version: &str, kind: &str, name: &str, edits: &str| {
        let text = format!(
            r#"{{"cdiVersion": "{version}", "kind": "{kind}", "devices": [{{"name": "{name}", "containerEdits": {edits}}}]}}"#
        );
        Document::parse(text.as_bytes(), false)
    };
    let first = [
        ("0.3.0", "v.com/c", "d", r#"{"env": ["A=b"]}"#),
        (
            "0.4.0",
            "v.com/c",
            "d",
            r#"{"mounts": [{"hostPath": "/a", "containerPath": "/b", "type": "none"}]}"#,
        ),
        ("0.5.0", "v.com/c", "0", r#"{"env": ["A=b"]}"#),
        (
            "0.5.0",
            "v.com/c",
            "d",
            r#"{"deviceNodes": [{"path": "/dev/a", "hostPath": "/dev/b"}]}"#,
        ),
        ("0.6.0", "v.com/c.d", "d", r#"{"env": ["A=b"]}"#),
        ("0.7.0", "v.com/c", "d", r#"{"intelRdt": {"closID": "a"}}"#),
        ("0.7.0", "v.com/c", "d", r#"{"additionalGids": [1]}"#),
        (
            "1.1.0",
            "v.com/c",
            "d",
            r#"{"netDevices": [{"hostInterfaceName": "a", "name": "b"}]}"#,
        ),
        ("1.1.0", "v.com/c", "d", r#"{"intelRdt": {"schemata": []}}"#),
    ];
    let versions = [
        "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0",
    ];
    for (needed, kind, name, edits) in first {
        for version in versions {
            let read = at(version, kind, name, edits);
            assert_eq!(read.is_ok(), version >= needed, "{version} {edits}: {read:?}");
        }
    }
    assert!(at("v1.0.0", "v.com/c", "d", r#"{"env": ["A=b"]}"#).is_ok());
    for version in ["", "0.2.0", "1.2.0", "0.3", "0.3.1", "0.3.0.0", "x"] {
        assert!(
            at(version, "v.com/c", "d", r#"{"env": ["A=b"]}"#).is_err(),
            "{version}"
        );
    }
    // Gone with 1.1.
    let old = r#"{"intelRdt": {"enableCMT": true}}"#;
    assert!(at("0.7.0", "v.com/c", "d", old).is_ok());
    assert!(at("1.1.0", "v.com/c", "d", old).is_err());
}

#[test]
fn what_means_nothing_is_refused() {
    let edits = [
        "{}",
        r#"{"unknown": 1}"#,
        r#"{"env": ["=b"]}"#,
        r#"{"env": ["A"]}"#,
        r#"{"env": ["A=\u0000"]}"#,
        r#"{"deviceNodes": [{"path": "dev/a"}]}"#,
        r#"{"deviceNodes": [{"path": "/dev/../a"}]}"#,
        r#"{"deviceNodes": [{"path": "/dev/a", "type": "x"}]}"#,
        r#"{"deviceNodes": [{"path": "/dev/a", "permissions": "rx"}]}"#,
        r#"{"mounts": [{"hostPath": "", "containerPath": "/a"}]}"#,
        r#"{"mounts": [{"hostPath": "/a", "containerPath": "/../a"}]}"#,
        r#"{"hooks": [{"hookName": "afterwards", "path": "/a"}]}"#,
        r#"{"hooks": [{"hookName": "poststop", "path": "a"}]}"#,
        r#"{"hooks": [{"hookName": "poststop", "path": "/a", "timeout": 0}]}"#,
        r#"{"intelRdt": {"closID": "../x"}}"#,
        r#"{"netDevices": [{"hostInterfaceName": "a", "name": "x"}, {"hostInterfaceName": "b", "name": "x"}]}"#,
    ];
    for edits in edits {
        let text = format!(
            r#"{{"cdiVersion": "1.1.0", "kind": "v.com/c", "devices": [{{"name": "d", "containerEdits": {edits}}}]}}"#
        );
        assert!(Document::parse(text.as_bytes(), false).is_err(), "{edits}");
        // JSON is YAML.
        assert!(Document::parse(text.as_bytes(), true).is_err(), "{edits}");
    }
    let twice = r#"{"cdiVersion": "1.1.0", "kind": "v.com/c", "devices": [
        {"name": "d", "containerEdits": {"env": ["A=b"]}}, {"name": "d", "containerEdits": {"env": ["A=b"]}}]}"#;
    assert!(Document::parse(twice.as_bytes(), false).is_err());
    let none = r#"{"cdiVersion": "1.1.0", "kind": "v.com/c", "devices": []}"#;
    assert!(Document::parse(none.as_bytes(), false).is_err());
}

#[test]
fn a_device_of_the_host_that_is_missing_or_of_another_type_is_an_error() {
    let spec = |node: &str| {
        let text = format!(
            r#"{{"cdiVersion": "1.0.0", "kind": "v.com/c", "devices": [{{"name": "d", "containerEdits": {{"deviceNodes": [{node}]}}}}]}}"#
        );
        let document = Document::parse(text.as_bytes(), false).unwrap();
        let mut spec = empty_spec();
        apply(&[&document.devices[0].container_edits], &mut spec).map(|()| spec)
    };
    let missing = spec(r#"{"path": "/dev/none-such"}"#).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("/dev/none-such"));
    assert!(spec(r#"{"path": "/dev/null", "type": "b"}"#).is_err());
    assert!(spec(r#"{"path": "/etc"}"#).is_err());
    // A vendor may say all of it, and then the host need not have it.
    let said =
        spec(r#"{"path": "/dev/none-such", "type": "c", "major": 195, "minor": 1, "permissions": "none"}"#);
    let linux = said.unwrap().linux.unwrap();
    assert_eq!((linux.devices[0].major, linux.devices[0].minor), (195, 1));
    assert_eq!(linux.resources, None);
}

#[test]
fn a_pipe_or_a_huge_file_holds_nobody_up() {
    let folder = folder(&[("good.json", &plain("vendor.com/x", "one", "a"))]);
    let pipe = folder.path().join("pipe.json");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let huge = fs::File::create(folder.path().join("huge.yaml")).unwrap();
    huge.set_len(1 << 40).unwrap();
    let catalogue = read(&[folder.path()]);
    assert_eq!((catalogue.devices().count(), catalogue.problems().len()), (1, 2));
}

proptest! {
    #[test]
    fn damaged_files_are_refused_or_read_and_never_more(
        at in 0..WHOLE.len(), byte in any::<u8>(), cut in 0..WHOLE.len(), yaml in any::<bool>()
    ) {
        let mut bytes = WHOLE.as_bytes().to_vec();
        bytes[at] = byte;
        if let Ok(document) = Document::parse(&bytes, yaml) {
            for device in &document.devices {
                // The host may not have the device; that is all that can go wrong now.
                drop(apply(&[&document.container_edits, &device.container_edits], &mut empty_spec()));
            }
        }
        prop_assert!(Document::parse(&bytes[..cut.min(WHOLE.len() - 2)], false).is_err());
    }

    #[test]
    fn no_text_is_taken_for_a_device_that_is_none(text in "\\PC{0,40}") {
        if dhow_cdi::QualifiedName::is_meant(&text) {
            prop_assert!(!text.starts_with('/') && text.contains('/') && text.contains('='));
        }
    }
}
