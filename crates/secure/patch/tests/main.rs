//! Merges.

use std::collections::BTreeMap;

use dhow_patch::{Treatment, merge};
use proptest::prelude::*;

const DPKG: Treatment = Treatment::Paragraphs(&["Package", "Architecture"]);

fn paragraph(name: &str, version: &str) -> String {
    format!(
        "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\nDescription: d\n more\n .\n end\n\n"
    )
}

fn status(packages: &[(&str, &str)]) -> Vec<u8> {
    let paragraphs = packages.iter().map(|(name, version)| paragraph(name, version));
    paragraphs.collect::<String>().into_bytes()
}

#[test]
fn what_the_base_mended_is_mended_and_what_the_image_added_stays() {
    let old = status(&[("libc6", "1"), ("openssl", "1"), ("gone", "1")]);
    let new = status(&[("libc6", "1"), ("openssl", "2"), ("fresh", "1")]);
    let own = status(&[("libc6", "1"), ("openssl", "1"), ("gone", "1"), ("nginx", "5")]);
    let merged = merge(DPKG, &old, &new, &own).unwrap();
    assert_eq!(
        String::from_utf8(merged).unwrap(),
        String::from_utf8(status(&[
            ("libc6", "1"),
            ("openssl", "2"),
            ("nginx", "5"),
            ("fresh", "1")
        ]))
        .unwrap()
    );
}

#[test]
fn what_both_changed_is_told_and_not_chosen() {
    let old = status(&[("curl", "1"), ("openssl", "1")]);
    let new = status(&[("curl", "2"), ("openssl", "2")]);
    let own = status(&[("curl", "3"), ("openssl", "1")]);
    let clashes = merge(DPKG, &old, &new, &own).unwrap_err();
    assert_eq!(clashes.len(), 1);
    assert_eq!(clashes[0].entry, "curl:amd64");
    // The same change twice is one.
    let own = status(&[("curl", "2"), ("openssl", "1")]);
    assert_eq!(merge(DPKG, &old, &new, &own).unwrap(), new);
}

#[test]
fn a_package_that_one_removes_and_the_other_changes_is_a_clash() {
    let old = status(&[("curl", "1")]);
    let new = status(&[("curl", "2")]);
    assert!(merge(DPKG, &old, &new, b"other").is_err());
    assert!(merge(DPKG, &old, b"", &status(&[("curl", "3")])).is_err());
}

#[test]
fn users_and_triggers_are_merged_by_line() {
    let merged = merge(
        Treatment::Named,
        b"root:x:0\nbin:x:1\n",
        b"root:x:0\nbin:x:1\n_apt:x:100\n",
        b"root:x:0\nbin:x:1\nwww:x:33\n",
    );
    assert_eq!(merged.unwrap(), b"root:x:0\nbin:x:1\nwww:x:33\n_apt:x:100\n");
    // Who has another shell in both has it from nobody.
    assert!(merge(Treatment::Named, b"a:/bin/sh\n", b"a:/bin/no\n", b"a:/bin/zsh\n").is_err());
    let merged = merge(Treatment::Lines, b"x\ny\n", b"y\nz\n", b"x\ny\nw");
    assert_eq!(merged.unwrap(), b"y\nw\nz\n");
}

#[test]
fn files_are_known_by_their_whole_path() {
    assert_eq!(Treatment::of("var/lib/dpkg/status"), Some(DPKG));
    assert_eq!(Treatment::of("var/log/apt/history.log"), Some(Treatment::Own));
    assert_eq!(Treatment::of("opt/var/lib/dpkg/status"), None);
    assert_eq!(Treatment::of("usr/lib/x86_64-linux-gnu/libssl.so.3"), None);
}

proptest! {
    /// Changes of different entries never clash, and all of them are there afterwards.
    #[test]
    fn changes_of_different_entries_are_all_there(
        base in prop::collection::btree_map("[a-z]{1,4}", 0_u8..3, 0..12),
        theirs in prop::collection::btree_map("[a-m]{1,4}", prop::option::of(3_u8..6), 0..6),
        ours in prop::collection::btree_map("[n-z]{1,4}", prop::option::of(6_u8..9), 0..6),
    ) {
        let text = |map: &BTreeMap<String, u8>| {
            map.iter().map(|(name, version)| paragraph(name, &version.to_string())).collect::<String>().into_bytes()
        };
        let changed = |changes: &BTreeMap<String, Option<u8>>| {
            let mut map = base.clone();
            for (name, version) in changes {
                match version {
                    Some(version) => map.insert(name.clone(), *version),
                    None => map.remove(name),
                };
            }
            map
        };
        let mut both = changed(&theirs);
        for (name, version) in &ours {
            match version {
                Some(version) => both.insert(name.clone(), *version),
                None => both.remove(name),
            };
        }
        let merged = merge(DPKG, &text(&base), &text(&changed(&theirs)), &text(&changed(&ours))).unwrap();
        let mut lines: Vec<&[u8]> = merged.split(|byte| *byte == b'\n').filter(|l| l.starts_with(b"Package") || l.starts_with(b"Version")).collect();
        let wanted = text(&both);
        let mut expected: Vec<&[u8]> = wanted.split(|byte| *byte == b'\n').filter(|l| l.starts_with(b"Package") || l.starts_with(b"Version")).collect();
        lines.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(lines, expected);
    }

    /// Whatever the bytes are, it ends, and what one side left alone is the other side's.
    #[test]
    fn any_bytes_are_taken(old in any::<Vec<u8>>(), new in any::<Vec<u8>>()) {
        for treatment in [DPKG, Treatment::Named, Treatment::Lines] {
            prop_assert_eq!(merge(treatment, &old, &new, &old).unwrap(), if old == new { old.clone() } else { new.clone() });
            prop_assert_eq!(merge(treatment, &old, &old, &new).unwrap(), new.clone());
            let _merged = merge(treatment, &old, &new, &[old.clone(), new.clone()].concat());
        }
    }
}
