//! One suite for every place that holds blobs.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::io::{Read as _, Write as _};
use std::path::Path;

use dhow_content::{ContentStore, Local, Memory};
use dhow_types::{Digest, ErrorKind};

/// What every store promises.
fn suite(store: &dyn ContentStore) {
    a_blob_comes_back(store);
    a_wrong_digest_is_refused(store);
    a_dropped_ingest_is_gone(store);
    reads_are_bounded(store);
    missing_blobs_are_not_found(store);
    equal_blobs_meet(store);
}

fn a_blob_comes_back(store: &dyn ContentStore) {
    let bytes = vec![7; 300_000];
    let mut ingest = store.begin().unwrap();
    for part in bytes.chunks(1000) {
        ingest.write_all(part).unwrap();
    }
    assert_eq!(ingest.size(), 300_000);
    let digest = ingest.commit(Some(&Digest::of(&bytes))).unwrap();
    assert_eq!(store.size(&digest).unwrap(), Some(300_000));
    assert!(store.list().unwrap().contains(&digest));
    let mut reader = store.open(&digest).unwrap();
    let mut back = Vec::new();
    reader.read_to_end(&mut back).unwrap();
    assert!(back == bytes);
    let empty = store.put(b"").unwrap();
    assert_eq!(store.read(&empty, 0).unwrap(), b"");
    store.remove(&digest).unwrap();
    assert_eq!(store.size(&digest).unwrap(), None);
}

fn a_wrong_digest_is_refused(store: &dyn ContentStore) {
    let before = store.list().unwrap();
    let mut ingest = store.begin().unwrap();
    ingest.write_all(b"these bytes").unwrap();
    let error = ingest.commit(Some(&Digest::of(b"other bytes"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    assert_eq!(store.list().unwrap(), before);
}

fn a_dropped_ingest_is_gone(store: &dyn ContentStore) {
    let before = store.list().unwrap();
    let mut ingest = store.begin().unwrap();
    ingest.write_all(b"never finished").unwrap();
    drop(ingest);
    assert_eq!(store.list().unwrap(), before);
}

fn reads_are_bounded(store: &dyn ContentStore) {
    let digest = store.put(b"12345").unwrap();
    assert_eq!(store.read(&digest, 5).unwrap(), b"12345");
    assert_eq!(
        store.read(&digest, 4).unwrap_err().kind(),
        ErrorKind::ResourceExhausted
    );
}

fn missing_blobs_are_not_found(store: &dyn ContentStore) {
    let digest = Digest::of(b"nobody stored this");
    assert_eq!(store.open(&digest).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.remove(&digest).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.size(&digest).unwrap(), None);
}

fn equal_blobs_meet(store: &dyn ContentStore) {
    let ids: Vec<Digest> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| store.put(&[9; 50_000]).unwrap()))
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(
        store.list().unwrap().iter().filter(|id| **id == ids[0]).count(),
        1
    );
}

fn names(path: &Path) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

#[test]
fn memory_keeps_the_promises() {
    suite(&Memory::new());
}

#[test]
fn local_keeps_the_promises_and_leaves_nothing_in_tmp() {
    let dir = tempfile::tempdir().unwrap();
    suite(&Local::open(dir.path()).unwrap());
    assert_eq!(names(&dir.path().join("tmp")), 0);
    let again = Local::open(dir.path()).unwrap();
    assert_eq!(
        again.read(&Digest::of(b"12345"), 5).unwrap(),
        b"12345",
        "another process sees it"
    );
}

/// A store with one blob and the path of its file.
fn one(dir: &Path, bytes: &[u8]) -> (Local, Digest, std::path::PathBuf) {
    let store = Local::open(dir).unwrap();
    let digest = store.put(bytes).unwrap();
    let hex = digest.hex();
    let path = dir.join("blobs/sha256").join(&hex[..2]).join(&hex);
    assert!(path.is_file());
    (store, digest, path)
}

#[test]
fn damage_on_disk_is_found_by_whoever_reads() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = vec![1; 200_000];
    let (store, digest, path) = one(dir.path(), &bytes);
    let mut damaged = bytes.clone();
    damaged[150_000] = 2;
    let longer = [bytes.as_slice(), b"x"].concat();
    for (what, content) in [
        ("flipped", damaged.as_slice()),
        ("cut", &bytes[..1000]),
        ("empty", b""),
        ("longer", &longer),
    ] {
        std::fs::write(&path, content).unwrap();
        let error = store.read(&digest, 1 << 20).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss, "{what}");
        let mut reader = store.open(&digest).unwrap();
        let mut exact = vec![0; usize::try_from(reader.size()).unwrap()];
        assert!(
            exact.is_empty() || reader.read_exact(&mut exact).is_err(),
            "{what}: not even without its end"
        );
    }
}

#[test]
fn an_ingest_that_dies_is_swept_by_its_lock() {
    let dir = tempfile::tempdir().unwrap();
    let store = Local::open(dir.path()).unwrap();
    let mut ingest = store.begin().unwrap();
    ingest.write_all(b"x").unwrap();
    let staged = std::fs::read_dir(dir.path().join("tmp"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let name = staged.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(
        name.starts_with(&format!("blob-{}-", std::process::id())),
        "{name}"
    );
    let other = std::fs::File::open(&staged).unwrap();
    let held = rustix::fs::flock(&other, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    assert!(held.is_err(), "the living hold it");
    drop(ingest);
    assert!(!staged.exists());
}

mod arbitrary {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_in_any_pieces_come_back(bytes in prop::collection::vec(any::<u8>(), 0..5000), piece in 1_usize..600) {
            let store = Memory::new();
            let mut ingest = store.begin().unwrap();
            for part in bytes.chunks(piece) {
                ingest.write_all(part).unwrap();
            }
            let digest = ingest.commit(None).unwrap();
            prop_assert_eq!(digest, Digest::of(&bytes));
            let mut reader = store.open(&digest).unwrap();
            let mut back = Vec::new();
            let mut buffer = vec![0; piece];
            loop {
                let count = reader.read(&mut buffer).unwrap();
                if count == 0 {
                    break;
                }
                back.extend_from_slice(&buffer[..count]);
            }
            prop_assert_eq!(back, bytes);
        }
    }
}
