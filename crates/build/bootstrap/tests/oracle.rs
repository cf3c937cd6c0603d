//! Compares with a tree that debootstrap made from the same suite.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use dhow_bootstrap::{SourceFile, bootstrap, sources};

use crate::tree::{self, Node};
use crate::{Notes, chroot, http, obstacle, request};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Paths where the two may differ: what debootstrap leaves and we clean or replace, and what we add.
fn is_expected(path: &str) -> bool {
    let exact = [
        // The settings of apt and dpkg for containers, the sources, and the policy against starting services.
        "etc/apt/apt.conf.d/dhow",
        "etc/apt/apt.conf.d/docker-clean",
        "etc/apt/sources.list",
        "etc/apt/sources.list.d/debian.sources",
        "etc/dpkg/dpkg.cfg.d/dhow",
        "usr/sbin/policy-rc.d",
        // Files of the host, caches, old copies, locks and logs.
        "etc/hostname",
        "etc/resolv.conf",
        "var/cache/ldconfig/aux-cache",
        "var/lib/dpkg/lock",
        "var/lib/dpkg/lock-frontend",
        "var/lib/dpkg/triggers/Lock",
        // What dselect would read.
        "var/lib/dpkg/available",
    ];
    let backup = path.ends_with('-') || path.ends_with("-old") || path.ends_with(".lock");
    let below = [
        "dev/",
        "proc/",
        "sys/",
        "run/",
        "var/log/",
        "var/cache/apt/",
        "var/lib/apt/lists/",
        "debootstrap",
    ];
    exact.contains(&path) || backup || below.iter().any(|start| path.starts_with(start))
}

/// Files whose content holds a date, an order of installation or a random salt.
fn may_have_other_content(path: &str) -> bool {
    let exact = [
        "etc/shadow",
        "var/lib/dpkg/status",
        "etc/ld.so.cache",
        "var/lib/apt/extended_states",
    ];
    exact.contains(&path) || path.starts_with("var/cache/debconf/")
}

/// Files of packages keep the time that the package gives them; whatever is newer than the suite was touched.
fn compare(path: &str, ours: &Node, theirs: &Node, created: i64, report: &mut Vec<String>) {
    // awk is a stand-in of ours until mawk is configured, and keeps the time of that.
    let untouched = theirs.kind != 'd' && theirs.mtime <= created && path != "usr/bin/awk";
    let same = ours.kind == theirs.kind
        && (!untouched || ours.mtime == theirs.mtime)
        && ours.mode == theirs.mode
        && ours.owner == theirs.owner
        && ours.links == theirs.links
        && (ours.content == theirs.content || may_have_other_content(path));
    if !same {
        report.push(format!("{path}: ours {ours:?}, theirs {theirs:?}"));
    }
}

#[test]
#[ignore = "runs debootstrap, which takes a minute"]
fn the_standard_variant_is_what_debootstrap_makes() {
    if let Some(why) = obstacle() {
        eprintln!("skipped: {why}");
        return;
    }
    if Command::new("debootstrap").arg("--version").output().is_err() {
        eprintln!("skipped: debootstrap is not installed");
        return;
    }
    let known = sources::parse(&crate::sources()).unwrap();
    let archive = known
        .iter()
        .find(|source| source.suites.iter().any(|suite| suite == "bookworm"))
        .unwrap();
    let place = tempfile::tempdir().unwrap();
    let (ours, theirs) = (place.path().join("ours"), place.path().join("theirs"));
    let made = Command::new("debootstrap")
        .args(["--variant=minbase", &format!("--keyring={KEYRING}"), "bookworm"])
        .arg(&theirs)
        .arg(&archive.uris[0])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));

    std::fs::create_dir_all(&ours).unwrap();
    let mut request = request("debian:bookworm", &ours, &place.path().join("cache"));
    let text = format!("deb [signed-by={KEYRING}] {} bookworm main\n", archive.uris[0]);
    request.sources = vec![SourceFile {
        name: "test.list".to_owned(),
        text,
    }];
    let outcome = bootstrap(&request, &http::Http, &chroot::Chroot, &Notes::default()).unwrap();

    let packages = |root: &Path| -> BTreeSet<String> {
        let format = "${binary:Package} ${Version} ${db:Status-Abbrev}\n";
        chroot::output(root, &["dpkg-query", "-W", "-f", format])
            .lines()
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(packages(&ours), packages(&theirs));

    let (ours, theirs) = (tree::read(&ours), tree::read(&theirs));
    let mut report = Vec::new();
    for (path, node) in &ours {
        match theirs.get(path) {
            None if !is_expected(path) => report.push(format!("only ours: {path}")),
            Some(other) if !is_expected(path) => compare(path, node, other, outcome.created, &mut report),
            _ => (),
        }
    }
    let missing = theirs
        .keys()
        .filter(|path| !ours.contains_key(*path) && !is_expected(path));
    report.extend(missing.map(|path| format!("only theirs: {path}")));
    assert!(report.is_empty(), "{report:#?}");
    // The fast way writes the same files of dpkg, line by line.
    let lists = ours
        .keys()
        .filter(|path| path.starts_with("var/lib/dpkg/info/"))
        .count();
    assert!(lists > 300, "{lists}");
}
