use std::path::PathBuf;

use super::*;
use crate::testing::{Shelf, Warnings};

/// 2020-01-02, when the test archive was signed; it is good for a week.
const MADE: i64 = 1_577_923_200;
const WEEK: i64 = 7 * 86_400;
const BASE: &str = "http://host/debian/dists/bookworm";

macro_rules! data {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/openpgp/", $name))
    };
}

struct Case {
    request: Request,
    repository: Repository,
    shelf: Shelf,
    warnings: Warnings,
    cache: tempfile::TempDir,
}

fn case() -> Case {
    let cache = tempfile::tempdir().unwrap();
    let key = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/openpgp/ed25519.asc"
    ));
    let request = Request {
        target: "debian:bookworm".parse().unwrap(),
        architecture: "amd64".to_owned(),
        sources: Vec::new(),
        mirror: None,
        keyrings: vec![key],
        only_keyrings: false,
        include: Vec::new(),
        root: PathBuf::new(),
        cache: cache.path().to_owned(),
        now: MADE + 3600,
        insecure: false,
        only: false,
        leave_out: Vec::new(),
        accept_expired: false,
    };
    let repository = Repository {
        uri: "http://host/debian".to_owned(),
        suite: "bookworm".to_owned(),
        components: vec!["main".to_owned()],
        signed_by: None,
        trusted: false,
        optional: false,
    };
    let packages = format!("{BASE}/main/binary-amd64/Packages.gz");
    let shelf = Shelf::new(&[
        (format!("{BASE}/InRelease").as_str(), data!("InRelease")),
        (packages.as_str(), data!("Packages.gz")),
    ]);
    Case {
        request,
        repository,
        shelf,
        warnings: Warnings::default(),
        cache,
    }
}

impl Case {
    fn run(&self) -> Result<Option<(Suite, Universe)>, Error> {
        let downloads = Downloads::new(self.cache.path(), &self.shelf, &self.warnings)?;
        let archive = Archive {
            request: &self.request,
            downloads: &downloads,
            observer: &self.warnings,
        };
        let Some(suite) = archive.suite(&self.repository)? else {
            return Ok(None);
        };
        let universe = archive.packages(&suite)?;
        Ok(Some((suite, universe)))
    }

    fn failure(&self) -> String {
        let Err(error) = self.run() else {
            return "no failure".to_owned();
        };
        let cause = std::error::Error::source(&error)
            .map(ToString::to_string)
            .unwrap_or_default();
        format!("{error}: {cause}")
    }

    fn warned(&self) -> String {
        self.warnings.0.lock().unwrap().join("\n")
    }

    fn put(&mut self, path: &str, body: &[u8]) {
        self.shelf.bodies.insert(format!("{BASE}/{path}"), body.to_vec());
    }
}

#[test]
fn a_signed_suite_gives_its_packages() {
    let case = case();
    let (suite, universe) = case.run().unwrap().unwrap();
    assert!(suite.signer.unwrap().user.starts_with("Archive ed25519"));
    assert_eq!(
        &*universe.get("aa").unwrap().url,
        "http://host/debian/pool/aa.deb"
    );
    assert_eq!(case.warned(), "");
}

#[test]
fn the_index_is_asked_for_by_its_hash_first() {
    let mut case = case();
    case.run().unwrap().unwrap();
    let asked = case.shelf.asked.lock().unwrap().clone();
    assert!(
        asked[1].contains("/main/binary-amd64/by-hash/SHA256/"),
        "{asked:?}"
    );
    let by_hash = asked[1]
        .strip_prefix(BASE)
        .unwrap()
        .trim_start_matches('/')
        .to_owned();
    case.put(&by_hash, data!("Packages.gz"));
    case.put("main/binary-amd64/Packages.gz", b"a newer one");
    case.cache = tempfile::tempdir().unwrap();
    assert!(case.run().unwrap().is_some());
}

#[test]
fn an_index_that_is_not_the_signed_one_is_refused() {
    let mut case = case();
    let mut changed = data!("Packages.gz").to_vec();
    changed[20] ^= 1;
    case.put("main/binary-amd64/Packages.gz", &changed);
    assert!(case.failure().contains("hash"), "{}", case.failure());
    case.request.insecure = true;
    assert!(
        case.run().is_err(),
        "insecure waives the signature, never the hashes"
    );
}

#[test]
fn a_detached_signature_takes_the_place_of_an_inline_one() {
    let mut case = case();
    case.shelf.bodies.remove(&format!("{BASE}/InRelease"));
    case.put("Release", data!("Release"));
    case.put("Release.gpg", data!("Release.gpg"));
    assert!(case.run().unwrap().unwrap().0.signer.is_some());
    case.put("Release.gpg", data!("ed25519.detached"));
    assert!(case.failure().contains("does not match"), "{}", case.failure());
}

#[test]
fn what_nobody_signed_is_taken_only_when_asked_for_and_loudly() {
    let mut case = case();
    let changed = String::from_utf8(data!("InRelease").to_vec())
        .unwrap()
        .replace("12.0", "12.1");
    case.put("InRelease", changed.as_bytes());
    assert!(
        case.failure().contains("does not match the text"),
        "{}",
        case.failure()
    );
    case.request.insecure = true;
    assert!(case.run().unwrap().unwrap().0.signer.is_none());
    assert!(case.warned().contains("NOT VERIFIED"), "{}", case.warned());
    case.request.insecure = false;
    case.repository.trusted = true;
    assert!(case.run().unwrap().unwrap().0.signer.is_none());
    assert!(case.warned().contains("Trusted: yes"));
}

#[test]
fn a_bare_release_file_without_signature_needs_insecure() {
    let mut case = case();
    case.shelf.bodies.remove(&format!("{BASE}/InRelease"));
    case.put("Release", data!("Release"));
    assert!(case.run().is_err());
    case.request.insecure = true;
    assert!(case.run().unwrap().unwrap().0.signer.is_none());
    assert!(case.warned().contains("NOT VERIFIED"));
}

#[test]
fn a_stale_release_is_refused_unless_it_is_accepted() {
    let mut case = case();
    case.request.now = MADE + WEEK + 3600;
    assert!(case.failure().contains("Valid-Until"));
    case.request.accept_expired = true;
    assert!(case.run().unwrap().is_some());
    assert!(case.warned().contains("Valid-Until"));
    case.request.now = MADE - 3 * 86_400;
    assert!(case.run().is_err());
}

#[test]
fn another_suite_under_the_name_is_refused() {
    let mut case = case();
    case.repository.suite = "trixie".to_owned();
    let body = data!("InRelease").to_vec();
    case.shelf
        .bodies
        .insert("http://host/debian/dists/trixie/InRelease".to_owned(), body);
    assert!(
        case.failure().contains("release file of \"bookworm\""),
        "{}",
        case.failure()
    );
}

#[test]
fn a_vendor_with_the_same_suite_name_is_left_out() {
    let mut case = case();
    case.request.target = "ubuntu:noble".parse().unwrap();
    assert!(case.run().unwrap().is_none());
    case.request.mirror = Some("http://host/debian".to_owned());
    assert!(case.run().unwrap().is_some());
}

#[test]
fn only_a_guess_may_be_missing() {
    let mut case = case();
    case.shelf.bodies.clear();
    assert!(case.run().is_err());
    case.repository.optional = true;
    assert!(case.run().unwrap().is_none());
    assert!(case.warned().contains("does not exist"));
}

#[test]
fn without_a_key_nothing_is_trusted() {
    let mut case = case();
    case.request.keyrings.clear();
    assert!(case.failure().contains("no key"), "{}", case.failure());
    case.request.keyrings = vec![concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/openpgp/rsa.asc").into()];
    assert!(case.failure().contains("does not have the key"));
    let inline = String::from_utf8(data!("ed25519.asc").to_vec()).unwrap();
    case.repository.signed_by = Some(SignedBy::Inline(inline));
    assert!(case.run().unwrap().is_some());
    case.request.only_keyrings = true;
    assert!(
        case.failure().contains("does not have the key"),
        "a keyring that the person named counts more than the source's"
    );
    case.request.only_keyrings = false;
    case.repository.signed_by = Some(SignedBy::Fingerprints(vec!["0".repeat(40)]));
    assert!(case.run().is_err());
}
