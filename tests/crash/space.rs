//! No room, at every step: a file system of ever more bytes, and one of ever more inodes, until the verb fits.
//!
//! Where it does not fit there is one error that says so, and the store is whole; after the rest of the room is given
//! back, the same verb works. `DHOW_SPACE_STEPS` says in how many steps the room grows.

use std::collections::BTreeSet;
use std::path::PathBuf;

use dhow_testkit::{FakeRegistry, Layer, Tar, TinyImage};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use super::{change, how_many, tar_of, words};
use crate::samples::{docker_archive, noise};
use crate::world::{Ran, World};

/// What runs out.
#[derive(Clone, Copy, Debug)]
enum Scarce {
    /// Pages of memory, which are what a tmpfs has for blocks.
    Bytes,
    Inodes,
}

/// A tmpfs with a root folder in it, whose room can be taken away and given back.
struct Tight {
    world: World,
    place: PathBuf,
    outer: World,
}

const PLENTY: (u64, u64) = (256 << 20, 200_000);

impl Tight {
    fn new() -> Option<Self> {
        let outer = World::new()?;
        let place = outer.path("tight");
        std::fs::create_dir_all(&place).unwrap();
        let options = std::ffi::CString::new(format!("size={},nr_inodes={}", PLENTY.0, PLENTY.1)).unwrap();
        mount(
            "dhow-test",
            &place,
            "tmpfs",
            MountFlags::empty(),
            options.as_c_str(),
        )
        .unwrap();
        let world = World::at(place.join("r"));
        world.import_busybox("busybox");
        world.feed(&["import", "-", "kept:1"], tar_of("kept")).ok();
        Some(Self { world, place, outer })
    }

    fn used(&self) -> (u64, u64) {
        let stat = rustix::fs::statvfs(&self.place).unwrap();
        (
            (stat.f_blocks - stat.f_bfree) * stat.f_frsize,
            stat.f_files - stat.f_ffree,
        )
    }

    /// Sets how much room there is in all.
    fn resize(&self, (bytes, inodes): (u64, u64)) {
        let options = std::ffi::CString::new(format!("size={bytes},nr_inodes={inodes}")).unwrap();
        mount_remount(&self.place, MountFlags::empty(), options.as_c_str()).unwrap();
    }
}

impl Drop for Tight {
    fn drop(&mut self) {
        drop(self.world.say("system teardown"));
        unmount(&self.place, UnmountFlags::DETACH).unwrap_or(());
    }
}

/// A verb that brings the image `name`.
struct Verb<'a> {
    name: String,
    prepare: &'a dyn Fn(&Tight),
    words: Vec<String>,
}

/// The room that a verb takes at its height is not known before: it grows by a part of what it takes in the end, and a
/// bit more each time, until the verb fits.
fn grow(tight: &Tight, verb: &Verb<'_>, scarce: Scarce) -> usize {
    let run = || tight.world.dhow(&verb.words);
    clear(tight, verb);
    (verb.prepare)(tight);
    let before = tight.used();
    run().exits(0);
    let after = tight.used();
    let steps = how_many("DHOW_SPACE_STEPS", 8) as u64;
    let (mut failed, mut errors) = (0, BTreeSet::new());
    for step in 0..4 * steps {
        clear(tight, verb);
        (verb.prepare)(tight);
        let here = tight.used();
        match scarce {
            Scarce::Bytes => tight.resize((here.0 + (after.0 - before.0) * step / steps, PLENTY.1)),
            Scarce::Inodes => tight.resize((PLENTY.0, here.1 + (after.1 - before.1) * step / steps)),
        }
        let ran = run();
        let what = format!("{:?} with {step} of {steps} parts of {scarce:?}", verb.words);
        let still = tight.world.say("system check");
        assert!(!still.stderr.contains("panicked"), "{what}: {still:?}");
        tight.resize(PLENTY);
        if ran.code == 0 {
            works(tight, verb, &what);
            eprintln!("{}: it fits after {failed} failures: {errors:#?}", verb.words[0]);
            return failed;
        }
        failed += 1;
        errors.insert(says_so(&ran, &what));
        tight.world.clean_or_healed();
        assert_eq!(
            tight.world.dhow(&["images", "-q", &verb.name]).ok(),
            "",
            "{what}: {ran:?}"
        );
        assert_eq!(tight.world.sh_in("kept:1", "cat /id"), "kept", "{what}");
        let left = crate::world::names(&tight.world.root().join("tmp"));
        assert_eq!(left, Vec::<String>::new(), "{what}");
        // With room it works, whatever the failure left.
        run().exits(0);
        works(tight, verb, &what);
    }
    panic!(
        "{:?} never fits in {before:?} to {after:?}: {errors:#?}",
        verb.words
    );
}

fn clear(tight: &Tight, verb: &Verb<'_>) {
    tight.world.dhow(&["rmi", "-f", &verb.name]).exits_any();
    tight.world.say("system prune -f").ok();
    tight.world.say("builder prune -af").ok();
}

#[track_caller]
fn works(tight: &Tight, verb: &Verb<'_>, what: &str) {
    assert_eq!(tight.world.sh_in(&verb.name, "cat /id"), "new", "{what}");
    tight.world.clean();
}

/// The one error, which says that there is no room.
#[track_caller]
fn says_so(ran: &Ran, what: &str) -> String {
    let errors: Vec<&str> = ran
        .stderr
        .lines()
        .filter(|line| line.starts_with("dhow: ") || line.starts_with("error: "))
        .collect();
    assert!(
        !ran.stderr.contains("panicked") && ran.code < 128,
        "{what}: {ran:?}"
    );
    assert!(
        ran.stderr.to_lowercase().contains("no space left")
            || ran.stderr.contains("database or disk is full"),
        "{what}: {ran:?}"
    );
    errors.join("; ")
}

fn image() -> TinyImage {
    let more = Tar::new().directory("d", 0o755);
    let more = (0..60).fold(more, |tar, at| {
        tar.file(&format!("d/{at}"), 0o644, &noise(9000, at))
    });
    TinyImage::oci(vec![Layer::gzip(tar_of("new")), Layer::gzip(more.finish())])
}

fn both(verb: &Verb<'_>, tight: &Tight) {
    for scarce in [Scarce::Bytes, Scarce::Inodes] {
        assert!(
            grow(tight, verb, scarce) > 2,
            "{:?}: there was room all the time",
            verb.words
        );
    }
}

#[test]
fn a_pull_without_room_at_any_step_is_an_error_and_works_later() {
    let Some(tight) = Tight::new() else { return };
    let registry = FakeRegistry::start();
    registry.put_image("box", "1", &image());
    let name = registry.name("box:1");
    let verb = Verb {
        words: vec!["pull".to_owned(), name.clone()],
        name,
        prepare: &|_| (),
    };
    both(&verb, &tight);
}

#[test]
fn a_load_without_room_at_any_step_is_an_error_and_works_later() {
    let Some(tight) = Tight::new() else { return };
    let archive = tight
        .outer
        .file("archive", docker_archive("loaded:1", &tar_of("new")));
    let words = words(&format!("load -i {}", archive.display()));
    both(
        &Verb {
            words,
            name: "loaded:1".to_owned(),
            prepare: &|_| (),
        },
        &tight,
    );
}

#[test]
fn a_build_without_room_at_any_step_is_an_error_and_works_later() {
    let Some(tight) = Tight::new() else { return };
    tight.outer.file("ctx/id", "new");
    let make =
        "i=0; while [ $i -lt 60 ]; do dd if=/dev/zero of=/f$i bs=9000 count=1 || exit 1; i=$((i+1)); done";
    tight.outer.file(
        "ctx/Dockerfile",
        format!("FROM busybox\nCOPY id /id\nRUN --network=none {make}\n"),
    );
    let words = words(&format!("build -t built:1 {}", tight.outer.path("ctx").display()));
    both(
        &Verb {
            words,
            name: "built:1".to_owned(),
            prepare: &|_| (),
        },
        &tight,
    );
}

#[test]
fn a_commit_without_room_at_any_step_is_an_error_and_works_later() {
    let Some(tight) = Tight::new() else { return };
    let prepare = |tight: &Tight| {
        let script = "mkdir /d; for i in $(seq 60); do dd if=/dev/zero of=/d/$i bs=9000 count=1 2>/dev/null; done; printf new > /id";
        change(&tight.world, "busybox", script);
    };
    let verb = Verb {
        words: words("commit changed committed:1"),
        name: "committed:1".to_owned(),
        prepare: &prepare,
    };
    both(&verb, &tight);
}
