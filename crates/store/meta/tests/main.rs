//! The index as its users see it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests, which say what they skip"
)]

mod home;

use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dhow_meta::{
    BlobRecord, CacheRecord, Deed, Due, Error, ImageRecord, Lease, Meta, Owner, Sweep, live_pins,
    sweep_leases,
};
use dhow_types::{DiffId, Digest, ErrorKind, ImageId};
use proptest::prelude::*;

fn meta(root: &Path) -> Meta {
    Meta::open(&root.join("meta.db")).unwrap()
}

fn image(seed: &str) -> ImageRecord {
    ImageRecord {
        id: ImageId(Digest::of(seed.as_bytes())),
        manifest: Some(Digest::of(b"manifest")),
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        created: 1_700_000_000,
        layers: vec![DiffId(Digest::of(b"base")), DiffId(Digest::of(seed.as_bytes()))],
        size: 172_000_000,
        platform: "linux/amd64".to_owned(),
        parent: None,
    }
}

fn store() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("leases")).unwrap();
    std::fs::create_dir(root.path().join("locks")).unwrap();
    root
}

#[test]
fn an_image_record_reads_back_as_written_in_another_process_view() {
    let root = store();
    let record = image("a");
    meta(root.path()).put_image(&record).unwrap();
    let again = meta(root.path());
    assert_eq!(again.image(&record.id).unwrap(), Some(record.clone()));
    assert_eq!(again.images().unwrap(), vec![record]);
    assert_eq!(again.image(&ImageId(Digest::of(b"other"))).unwrap(), None);
}

#[test]
fn removing_an_image_forgets_its_names() {
    let root = store();
    let meta = meta(root.path());
    let (a, b) = (image("a"), image("b"));
    meta.put_image(&a).unwrap();
    meta.put_image(&b).unwrap();
    meta.tag("docker.io/library/a:1", &a.id).unwrap();
    meta.tag("docker.io/library/b:1", &b.id).unwrap();
    let manifest = Digest::of(b"m");
    meta.add_digest("docker.io/library/a", &manifest, &a.id).unwrap();
    assert_eq!(
        meta.by_digest("docker.io/library/a", &manifest).unwrap(),
        Some(a.id)
    );
    assert!(meta.remove_image(&a.id).unwrap());
    assert!(!meta.remove_image(&a.id).unwrap());
    assert_eq!(
        meta.tags().unwrap(),
        vec![("docker.io/library/b:1".to_owned(), b.id)]
    );
    assert_eq!(meta.digests().unwrap(), vec![]);
    assert!(meta.untag("docker.io/library/b:1").unwrap());
    assert_eq!(meta.tagged("docker.io/library/b:1").unwrap(), None);
}

#[test]
fn an_edit_that_fails_changes_nothing() {
    let root = store();
    let meta = meta(root.path());
    let record = image("a");
    let outcome: Result<(), Error> = meta.edit(|edit| {
        edit.put_image(&record)?;
        edit.tag("x/y:z", &record.id)?;
        Err(Error::new(ErrorKind::Cancelled, "stop"))
    });
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(meta.images().unwrap(), vec![]);
    assert_eq!(meta.tags().unwrap(), vec![]);
}

#[test]
fn blobs_are_found_by_layer_and_by_digest_with_their_homes() {
    let root = store();
    let meta = meta(root.path());
    let blob = BlobRecord {
        diff: DiffId(Digest::of(b"layer")),
        digest: Digest::of(b"gzip"),
        size: 7,
        media_type: "m".to_owned(),
    };
    meta.record_blob(&blob, Some("a/x")).unwrap();
    meta.record_blob(&blob, Some("a/y")).unwrap();
    meta.record_blob(&blob, None).unwrap();
    assert_eq!(meta.blobs_of(&blob.diff).unwrap(), vec![blob.clone()]);
    assert_eq!(meta.by_blob(&blob.digest).unwrap(), Some(blob.diff));
    assert_eq!(meta.homes_of(&blob.digest).unwrap(), ["a/x", "a/y"]);
    meta.edit(|edit| edit.forget_blobs(&blob.diff)).unwrap();
    assert_eq!(meta.blobs_of(&blob.diff).unwrap(), vec![]);
    assert!(meta.homes_of(&blob.digest).unwrap().is_empty());
}

#[test]
fn a_cache_hit_is_noted_once_an_hour() {
    let root = store();
    let meta = meta(root.path());
    let key = Digest::of(b"step");
    let record = CacheRecord {
        key,
        value: vec![1, 2, 3],
        layers: vec![DiffId(Digest::of(b"l"))],
        bytes: u64::MAX,
        seconds: 1.5,
        created: 10,
        used: 10,
    };
    meta.put_cache(&record).unwrap();
    let first = meta.cache(&key).unwrap().unwrap();
    assert_eq!((first.used, first.bytes), (10, i64::MAX as u64));
    let second = meta.cache(&key).unwrap().unwrap();
    assert!(second.used > 1_000_000_000, "{}", second.used);
    assert_eq!(meta.cache(&key).unwrap().unwrap().used, second.used);
    assert!(meta.remove_cache(&key).unwrap());
    assert_eq!(meta.caches().unwrap(), vec![]);
}

#[test]
fn the_cache_is_measured_without_an_overflow() {
    let root = store();
    let meta = meta(root.path());
    assert_eq!(meta.most_cache_bytes().unwrap(), 0);
    let put = |key: &[u8], bytes| {
        let record = CacheRecord {
            key: Digest::of(key),
            value: Vec::new(),
            layers: Vec::new(),
            bytes,
            seconds: 0.0,
            created: 1,
            used: 1,
        };
        meta.put_cache(&record).unwrap();
    };
    put(b"one", 40);
    put(b"two", 2);
    assert_eq!(meta.most_cache_bytes().unwrap(), 42);
    put(b"three", u64::MAX);
    put(b"four", u64::MAX);
    assert_eq!(meta.most_cache_bytes().unwrap(), i64::MAX as u64);
}

#[test]
fn the_names_that_an_image_had_are_known_until_it_is_gone() {
    let scratch = tempfile::tempdir().unwrap();
    let meta = Meta::open(&scratch.path().join("meta.db")).unwrap();
    let (one, two) = (image("one"), image("two"));
    meta.put_image(&one).unwrap();
    meta.put_image(&two).unwrap();
    let past = || -> Vec<_> {
        let all = meta.past_tags().unwrap();
        all.into_iter()
            .map(|(name, id)| format!("{name} {}", if id == one.id { 1 } else { 2 }))
            .collect()
    };
    meta.tag("h/a:1", &one.id).unwrap();
    meta.tag("h/b:1", &one.id).unwrap();
    meta.untag("h/a:1").unwrap();
    // One that goes on to another image is a name of both, and one that comes again the newest.
    meta.tag("h/b:1", &two.id).unwrap();
    meta.tag("h/a:1", &one.id).unwrap();
    assert_eq!(past(), ["h/a:1 1", "h/b:1 2", "h/b:1 1"]);
    // Forth and back.
    meta.tag("h/b:1", &one.id).unwrap();
    meta.tag("h/b:1", &two.id).unwrap();
    assert_eq!(past(), ["h/b:1 2", "h/b:1 1", "h/a:1 1"]);
    for number in 0..150 {
        meta.tag(&format!("h/c:{number}"), &one.id).unwrap();
    }
    assert_eq!(past().iter().filter(|line| line.ends_with(" 1")).count(), 100);
    meta.remove_image(&one.id).unwrap();
    assert_eq!(past(), ["h/b:1 2"]);
}

#[test]
fn an_older_format_keeps_the_names_that_there_are() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("meta.db");
    let one = image("one");
    {
        let meta = Meta::open(&path).unwrap();
        meta.put_image(&one).unwrap();
        meta.tag("h/a:1", &one.id).unwrap();
    }
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.execute_batch("DROP TABLE due; DROP TABLE names; DROP TRIGGER name_was_given; DROP TRIGGER name_was_moved; DROP TRIGGER image_is_gone;")
        .unwrap();
    raw.pragma_update(None, "user_version", 1).unwrap();
    drop(raw);
    let meta = Meta::open(&path).unwrap();
    assert_eq!(meta.past_tags().unwrap(), [("h/a:1".to_owned(), one.id)]);
}

/// What a deed wrote down is taken away by it alone, and of a process that lives only while the deed goes on.
#[test]
fn what_is_due_has_an_owner() {
    let dir = store();
    let meta = meta(dir.path());
    let due = |owner: &str| Due {
        name: "h/a:1".to_owned(),
        image: None,
        by: Some(Digest::of(b"index")),
        was: None,
        owner: owner.to_owned(),
    };
    let put = |due: &Due| meta.edit(|edit| edit.put_due(due)).unwrap();
    let (first, second) = (Deed::begin().unwrap(), Deed::begin().unwrap());
    put(&due(first.name()));
    put(&due(second.name()));
    meta.edit(|edit| edit.done("h/a:1", first.name())).unwrap();
    let found = meta.due_of("h/a:1").unwrap().unwrap();
    assert_eq!(found, due(second.name()));
    assert_eq!(meta.due().unwrap().len(), 1);
    assert_eq!(found.owner().unwrap(), Owner::Lives);
    drop(second);
    assert_eq!(found.owner().unwrap(), Owner::Died);
    assert_eq!(due("1-1-00000000-1-1").owner().unwrap(), Owner::BeforeBoot);
    let (own, boot) = (first.name(), first.name().split('-').nth(2).unwrap());
    assert_eq!(due(&format!("1-1-{boot}-1-1")).owner().unwrap(), Owner::Died);
    assert_eq!(due(own).owner().unwrap(), Owner::Lives);
    meta.edit(|edit| edit.done("h/a:1", &found.owner)).unwrap();
    assert_eq!(meta.due_of("h/a:1").unwrap(), None);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let root = store();
    let path = root.path().join("meta.db");
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    drop(raw);
    let error = meta(root.path()).images().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    let raw = rusqlite::Connection::open(&path).unwrap();
    let version: i64 = raw
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    assert_eq!(version, 99);
}

#[test]
fn a_damaged_file_is_an_error_with_a_hint_and_reset_heals_it() {
    let root = store();
    std::fs::write(root.path().join("meta.db"), [7; 8192]).unwrap();
    let meta = meta(root.path());
    let error = meta.images().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    assert!(dhow_types::Failure::hint(&error).unwrap().contains("--repair"));
    meta.reset().unwrap();
    meta.verify().unwrap();
    assert_eq!(meta.images().unwrap(), vec![]);
}

#[test]
fn eight_writers_at_once_lose_nothing() {
    let root = store();
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let (root, barrier) = (root.path(), &barrier);
            scope.spawn(move || {
                let meta = meta(root);
                barrier.wait();
                for step in 0..20 {
                    let record = image(&format!("{writer}-{step}"));
                    meta.put_image(&record).unwrap();
                    meta.tag(&format!("h/r{writer}:{step}"), &record.id).unwrap();
                }
            });
        }
    });
    assert_eq!(meta(root.path()).tags().unwrap().len(), 160);
}

#[test]
fn many_that_open_a_new_store_at_once_all_get_in() {
    for _ in 0..40 {
        let dir = store();
        let start = Barrier::new(16);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    start.wait();
                    assert!(meta(dir.path()).images().unwrap().is_empty());
                });
            }
        });
    }
}

#[test]
fn a_living_lease_pins_and_a_dropped_one_does_not() {
    let root = store();
    let digest = Digest::of(b"pinned");
    let lease = Lease::acquire(root.path()).unwrap();
    assert!(!live_pins(root.path()).unwrap().contains(&digest));
    lease.pin(&digest).unwrap();
    lease.pin_many(&[Digest::of(b"1"), Digest::of(b"2")]).unwrap();
    let pins = live_pins(root.path()).unwrap();
    assert!(pins.contains(&digest) && pins.digests.len() == 3 && !pins.everything);
    lease.pin_everything().unwrap();
    assert!(live_pins(root.path()).unwrap().contains(&Digest::of(b"any")));
    drop(lease);
    assert_eq!(live_pins(root.path()).unwrap(), dhow_meta::Pins::default());
}

#[test]
fn the_lease_of_a_dead_process_is_void_and_swept() {
    let root = store();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let leases = root.path().join("leases");
    let line = format!("{}\n", Digest::of(b"x").hex());
    for name in [
        format!("{pid}-1-00000000-1"),
        "1-1-ffffffff-2".to_owned(),
        "junk".to_owned(),
    ] {
        std::fs::write(leases.join(name), &line).unwrap();
    }
    let mine = Lease::acquire(root.path()).unwrap();
    assert!(!live_pins(root.path()).unwrap().contains(&Digest::of(b"x")));
    assert_eq!(sweep_leases(root.path(), false).unwrap(), 3);
    assert_eq!(sweep_leases(root.path(), true).unwrap(), 3);
    assert_eq!(std::fs::read_dir(&leases).unwrap().count(), 1);
    drop(mine);
}

/// Whether `pin` was done within a moment; what it pins, the sweeper sees at once.
fn pinned(root: &Path, digest: &Digest, pin: impl Fn(&Lease) -> Result<(), Error> + Sync) -> bool {
    let lease = Lease::acquire(root).unwrap();
    std::thread::scope(|scope| {
        let pinning = scope.spawn(|| pin(&lease).unwrap());
        let moment = Instant::now() + Duration::from_millis(100);
        while !pinning.is_finished() && Instant::now() < moment {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(live_pins(root).unwrap().contains(digest));
        pinning.is_finished()
    })
}

#[test]
fn a_pin_waits_for_the_renames_of_a_sweep_of_the_same_thing() {
    let root = store();
    let digest = Digest::of(b"late");
    let mut sweep = Sweep::announce(root.path(), &[Digest::of(b"other"), digest]).unwrap();
    assert!(sweep.begin().unwrap(), "nobody needs it");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(!pinned(root.path(), &digest, |lease| lease.pin(&digest)));
            assert!(over.load(Ordering::SeqCst), "went on before the end");
        });
        scope.spawn(|| assert!(!pinned(root.path(), &digest, Lease::pin_everything)));
        std::thread::sleep(Duration::from_millis(250));
        over.store(true, Ordering::SeqCst);
        drop(sweep);
    });
    assert!(pinned(root.path(), &digest, |lease| lease.pin(&digest)));
    assert_eq!(sweep_leases(root.path(), false).unwrap(), 0);
}

#[test]
fn a_pin_of_what_a_sweep_is_about_to_take_puts_a_stop_to_it() {
    let root = store();
    let (digest, other) = (Digest::of(b"needed"), Digest::of(b"other"));
    for (pin, of_all) in [
        (
            &(|lease: &Lease| lease.pin(&digest)) as &(dyn Fn(&Lease) -> _ + Sync),
            false,
        ),
        (&Lease::pin_everything, true),
    ] {
        let mut sweep = Sweep::announce(root.path(), &[other, digest]).unwrap();
        let mut second = Sweep::announce(root.path(), &[digest]).unwrap();
        let mut third = Sweep::announce(root.path(), &[]).unwrap();
        assert!(pinned(root.path(), &digest, pin), "waits for who only looks");
        assert!(!sweep.begin().unwrap() && !second.begin().unwrap());
        assert_eq!(third.begin().unwrap(), !of_all);
        // The sweepers know that they do nothing: nobody waits for them any more.
        assert!(pinned(root.path(), &other, |lease| lease.pin(&other)));
    }
    assert_eq!(
        std::fs::read_dir(root.path().join("locks/sweeps"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_sweep_alone_stops_every_pin() {
    let root = store();
    let digest = Digest::of(b"needed");
    let mut sweep = Sweep::alone(root.path()).unwrap();
    assert!(sweep.begin().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(!pinned(root.path(), &digest, |lease| lease.pin(&digest))));
        std::thread::sleep(Duration::from_millis(250));
        drop(sweep);
    });
    assert!(pinned(root.path(), &digest, |lease| lease.pin(&digest)));
}

#[test]
fn a_pin_of_something_else_does_not_wait_for_a_sweep() {
    let root = store();
    let lease = Lease::acquire(root.path()).unwrap();
    let mut sweep = Sweep::announce(root.path(), &[Digest::of(b"swept")]).unwrap();
    let mut other = Sweep::announce(root.path(), &[]).unwrap();
    assert!(sweep.begin().unwrap());
    let (done, pinned) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        lease.pin_many(&[Digest::of(b"a"), Digest::of(b"b")]).unwrap();
        done.send(()).unwrap();
    });
    assert_eq!(pinned.recv_timeout(Duration::from_secs(10)), Ok(()));
    assert!(other.begin().unwrap(), "was stopped for nothing");
}

#[test]
fn the_sweep_of_a_dead_process_holds_nobody_up_and_is_forgotten() {
    let root = store();
    drop(Sweep::announce(root.path(), &[]).unwrap());
    let sweeps = root.path().join("locks/sweeps");
    let digest = Digest::of(b"x");
    let dead = |name: &str, what: &str| std::fs::write(sweeps.join(name), format!("{what}\n")).unwrap();
    dead("999999999-1-00000000-0", &digest.hex());
    dead("999999999-1-00000000-1", &Digest::of(b"y").hex());
    dead(".999999999-1-00000000-2", "*");
    let lease = Lease::acquire(root.path()).unwrap();
    lease.pin(&digest).unwrap();
    assert_eq!(sweep_leases(root.path(), true).unwrap(), 3);
    assert_eq!(std::fs::read_dir(&sweeps).unwrap().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_prefix_finds_exactly_the_ids_that_start_with_it(seeds in prop::collection::hash_set(0_u32..500, 1..40), length in 1_usize..4) {
        let root = store();
        let meta = meta(root.path());
        let records: Vec<_> = seeds.iter().map(|seed| image(&seed.to_string())).collect();
        meta.edit(|edit| records.iter().try_for_each(|record| edit.put_image(record))).unwrap();
        let prefix = records[0].id.hex()[..length].to_owned();
        let mut expected: Vec<_> = records.iter().map(|r| r.id).filter(|id| id.hex().starts_with(&prefix)).collect();
        expected.sort();
        prop_assert_eq!(meta.by_prefix(&prefix).unwrap(), expected);
    }

    #[test]
    fn any_text_is_a_harmless_prefix(text in ".{0,80}") {
        let root = store();
        let meta = meta(root.path());
        prop_assert!(meta.by_prefix(&text).is_ok());
    }
}
