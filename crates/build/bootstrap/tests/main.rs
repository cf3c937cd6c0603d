//! Makes whole base systems from the archive that this host's apt uses. Skipped without root, network or Debian.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(
    clippy::print_stderr,
    reason = "what a test skips and how long it took is for people"
)]

mod chroot;
mod http;
mod oracle;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use dhow_bootstrap::{Outcome, Request, SourceFile, bootstrap};
use dhow_types::{ErrorKind, Observer, Progress};

/// Notes what was said, for the tests and for a person who runs them with `--nocapture`.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) warnings: Mutex<Vec<String>>,
    pub(crate) downloads: Mutex<usize>,
}

impl Observer for Notes {
    fn observe(&self, progress: Progress<'_>) {
        match progress {
            Progress::Warning(text) => self.warnings.lock().unwrap().push(text.to_owned()),
            Progress::Begin {
                what: "Downloading", ..
            } => *self.downloads.lock().unwrap() += 1,
            Progress::Message(text) => eprintln!("  {text}"),
            _ => (),
        }
    }
}

pub(crate) fn sources() -> Vec<SourceFile> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir("/etc/apt/sources.list.d")
        .map(|list| list.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.push("/etc/apt/sources.list".into());
    paths.sort();
    let wanted = |path: &PathBuf| {
        path.extension()
            .is_some_and(|ending| ending == "list" || ending == "sources")
    };
    paths
        .iter()
        .filter(|path| wanted(path))
        .filter_map(|path| {
            let text = std::fs::read_to_string(path).ok()?;
            Some(SourceFile {
                name: path.to_string_lossy().into_owned(),
                text,
            })
        })
        .collect()
}

pub(crate) fn request(target: &str, root: &Path, cache: &Path) -> Request {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    Request {
        target: target.parse().unwrap(),
        architecture: Request::architecture_of(&dhow_types::Platform::host().architecture)
            .unwrap()
            .to_owned(),
        sources: sources(),
        mirror: None,
        keyrings: vec!["/usr/share/keyrings/debian-archive-keyring.gpg".into()],
        only_keyrings: false,
        include: Vec::new(),
        root: root.to_owned(),
        cache: cache.to_owned(),
        now: i64::try_from(now).unwrap(),
        insecure: false,
        only: false,
        leave_out: Vec::new(),
        accept_expired: true,
    }
}

/// Why the big tests cannot run here, if so.
pub(crate) fn obstacle() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root");
    }
    if !Path::new("/usr/share/keyrings/debian-archive-keyring.gpg").exists() || sources().is_empty() {
        return Some("this host is not a Debian");
    }
    if !http::reachable(&sources()) {
        return Some("the archive cannot be reached");
    }
    None
}

pub(crate) fn make(target: &str, root: &Path, cache: &Path, notes: &Notes) -> Outcome {
    std::fs::create_dir_all(root).unwrap();
    let begun = Instant::now();
    let request = request(target, root, cache);
    let outcome = bootstrap(&request, &http::Http, &chroot::Chroot, notes);
    eprintln!("bootstrap of {target}: {:.1} s", begun.elapsed().as_secs_f64());
    outcome.unwrap_or_else(|error| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            text.push_str(&format!(": {inner}"));
            cause = inner.source();
        }
        panic!("{text}");
    })
}

#[test]
fn the_same_inputs_make_the_same_tree_and_the_packages_inside_are_whole() {
    if let Some(why) = obstacle() {
        eprintln!("skipped: {why}");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let cache = place.path().join("cache");
    let mut pairs = (0..3).map(|attempt| {
        let (one, two) = (
            place.path().join(format!("one{attempt}")),
            place.path().join(format!("two{attempt}")),
        );
        let first = make("debian:bookworm-slim", &one, &cache, &Notes::default());
        let again = Notes::default();
        let second = make("debian:12-slim", &two, &cache, &again);
        (one, two, first, second, again)
    });
    // When the archive is renewed between the two, they had not the same inputs: then another pair.
    let mut pair = pairs.next().unwrap();
    while *pair.4.downloads.lock().unwrap() > 0
        && let Some(next) = pairs.next()
    {
        pair = next;
    }
    let (one, two, first, second, again) = pair;
    assert_eq!(
        *again.downloads.lock().unwrap(),
        0,
        "the second bootstrap downloads nothing but releases"
    );
    assert_eq!(first.packages, second.packages);
    assert_eq!(first.labels, second.labels);
    assert_eq!(first.created, second.created);
    let differences = tree::differences(&tree::read(&one), &tree::read(&two));
    assert!(differences.is_empty(), "{differences:#?}");
    check_inside(&one, &first);
}

/// dpkg inside is content with every package, and nothing of the making is left.
fn check_inside(root: &Path, outcome: &Outcome) {
    let dpkg = |arguments: &[&str]| chroot::output(root, arguments);
    assert_eq!(dpkg(&["dpkg", "--audit"]), "");
    let missing: Vec<String> = dpkg(&["dpkg", "--verify"])
        .lines()
        .filter(|line| {
            let path = line.split_whitespace().last().unwrap_or_default();
            let slim = ["doc", "man", "locale", "info", "lintian/overrides"];
            !slim
                .iter()
                .any(|part| path.starts_with(&format!("/usr/share/{part}/")))
        })
        .map(str::to_owned)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    let states = dpkg(&["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n"]);
    assert_eq!(states.lines().count(), outcome.packages.len());
    assert!(
        states.lines().all(|line| line.ends_with(" installed")),
        "{states}"
    );
    assert!(
        dpkg(&[
            "sh",
            "-c",
            "id -un; awk 'BEGIN { print 6 * 7 }'; getent passwd _apt"
        ])
        .starts_with("root\n42\n_apt:")
    );
    for gone in [
        "etc/resolv.conf",
        "etc/hostname",
        "var/log/dpkg.log",
        "var/cache/ldconfig/aux-cache",
        "dev/null",
    ] {
        assert!(!root.join(gone).exists(), "{gone}");
    }
    for there in [
        "etc/apt/sources.list.d/debian.sources",
        "etc/dpkg/dpkg.cfg.d/dhow-slim",
        "usr/share/doc/bash/copyright",
    ] {
        assert!(root.join(there).exists(), "{there}");
    }
    assert!(!root.join("usr/share/man/man1").exists());
    let newest = tree::read(root)
        .into_values()
        .map(|node| node.mtime)
        .max()
        .unwrap();
    assert!(newest <= outcome.created, "{newest} {}", outcome.created);
    let left: Vec<String> = tree::read(root)
        .into_keys()
        .filter(|path| path.contains(".dpkg-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_package_that_is_not_the_signed_one_never_reaches_the_tree() {
    if let Some(why) = obstacle() {
        eprintln!("skipped: {why}");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    std::fs::create_dir_all(&root).unwrap();
    let cache = place.path().join("cache");
    for (part, kind) in [
        ("/pool/", ErrorKind::DataLoss),
        ("InRelease", ErrorKind::DataLoss),
    ] {
        let request = request("debian:bookworm-slim", &root, &cache);
        let notes = Notes::default();
        let error = bootstrap(&request, &http::Tampering(part), &chroot::Chroot, &notes).unwrap_err();
        assert_eq!(error.kind(), kind, "{part}: {error}");
        std::fs::remove_dir_all(&root).unwrap();
        std::fs::create_dir_all(&root).unwrap();
    }
}
