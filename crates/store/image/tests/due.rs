//! The index has a change of a name first, the file of the name after it: what is seen between the two, and who ends it.

use std::os::unix::fs::MetadataExt as _;

use dhow_image::Store;
use dhow_meta::{Deed, Due};
use dhow_reference::Reference;
use dhow_types::{Digest, ErrorKind, ImageId};

use crate::{World, image};

const WEB: &str = "docker.io/library/web:1";

/// A world with two images.
fn two() -> (World, ImageId, ImageId) {
    let world = World::new();
    world.registry.put_image("app", "1", &image("a"));
    world.registry.put_image("app", "2", &image("b"));
    let one = world.pull("app:1").unwrap().image;
    let two = world.pull("app:2").unwrap().image;
    (world, one, two)
}

fn web() -> Reference {
    Reference::parse("web:1").unwrap()
}

fn file(world: &World) -> std::path::PathBuf {
    world.root().join("refs/docker.io+library+web:1")
}

/// The image that the file of the name has.
fn says(world: &World) -> Option<String> {
    let text = std::fs::read_to_string(file(world)).ok()?;
    Some(text.lines().next().unwrap().to_owned())
}

/// As the index is when who changed the name was killed before the file: `owner` is the deed.
fn killed(store: &Store, image: Option<ImageId>, owner: &str) {
    let changed: Result<(), dhow_meta::Error> = store.meta.edit(|edit| {
        match &image {
            Some(id) => edit.tag(WEB, id)?,
            None => drop(edit.untag(WEB)?),
        }
        edit.put_due(&Due {
            name: WEB.to_owned(),
            image,
            by: None,
            was: None,
            owner: owner.to_owned(),
        })?;
        edit.set_fact("refs", i64::MIN)
    });
    changed.unwrap();
}

fn dead() -> String {
    let deed = Deed::begin().unwrap();
    deed.name().to_owned()
}

/// Nothing is due, and the index agrees with the files.
fn assert_settled(world: &World) {
    assert_eq!(world.store.meta.due().unwrap(), []);
    let refs = std::fs::metadata(world.root().join("refs")).unwrap();
    let time = refs.mtime() * 1_000_000_000 + refs.mtime_nsec();
    assert_eq!(world.store.meta.fact("refs").unwrap(), Some(time));
    world.assert_clean();
}

#[test]
fn what_a_dead_process_did_not_come_to_is_done_by_the_next() {
    let (world, one, two) = two();
    // A new name, one that is moved, one that goes.
    for image in [Some(one), Some(two), None] {
        killed(&world.store, image, &dead());
        let found = Store::open(world.root()).unwrap().resolve("web:1");
        assert_eq!(found.ok().map(|found| found.id), image);
        assert_eq!(says(&world), image.map(|id| id.to_string()));
        assert_settled(&world);
    }
}

#[test]
fn an_edit_does_it_too_and_then_its_own() {
    let (world, one, two) = two();
    killed(&world.store, Some(one), &dead());
    Store::open(world.root()).unwrap().tag(&two, &web()).unwrap();
    assert_eq!(says(&world), Some(two.to_string()));
    assert_settled(&world);
    // The file knows that the first was there, since that is where the name falls back to.
    let text = std::fs::read_to_string(file(&world)).unwrap();
    assert!(text.contains(&format!("was {one}")), "{text}");
}

#[test]
fn after_a_boot_the_files_are_the_truth() {
    let (world, one, two) = two();
    world.store.tag(&one, &web()).unwrap();
    killed(&world.store, Some(two), "7-7-00000000-7-7");
    let store = Store::open(world.root()).unwrap();
    assert_eq!(store.resolve("web:1").unwrap().record.id, one);
    assert_eq!(says(&world), Some(one.to_string()));
    assert_settled(&world);
}

#[test]
fn nobody_waits_for_a_name_that_waits_for_its_file() {
    let (world, one, two) = two();
    world.store.tag(&one, &web()).unwrap();
    // As a disk that takes its time.
    let slow = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(world.root().join("locks/names"))
        .unwrap();
    let hash = Digest::of(WEB.as_bytes());
    let at = u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap()) >> 1;
    dhow_sys::file::lock_byte(&slow, at).unwrap();
    std::thread::scope(|scope| {
        let tags = scope.spawn(|| Store::open(world.root()).unwrap().tag(&two, &web()));
        while world.store.meta.due().unwrap().is_empty() {
            std::thread::yield_now();
        }
        let store = Store::open(world.root()).unwrap();
        let other = Reference::parse("other:1").unwrap();
        store.tag(&one, &other).unwrap();
        store.remove("other:1", false, &[]).unwrap();
        // The change is there, the file is not: also for who reads all names again.
        assert_eq!(store.resolve("web:1").unwrap().record.id, two);
        store.rebuild().unwrap();
        assert_eq!(store.resolve("web:1").unwrap().record.id, two);
        assert_eq!(world.check().findings, []);
        assert_eq!(says(&world), Some(one.to_string()));
        assert!(!tags.is_finished());
        drop(slow);
        tags.join().unwrap().unwrap();
    });
    assert_eq!(says(&world), Some(two.to_string()));
    assert_settled(&world);
}

#[test]
fn a_name_whose_file_cannot_be_written_is_not_given() {
    let (world, one, _) = two();
    std::fs::create_dir(file(&world)).unwrap();
    let error = world.store.tag(&one, &web()).unwrap_err();
    assert!(error.to_string().contains("docker.io+library+web:1"), "{error}");
    let missing = world.store.resolve("web:1").unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert_eq!(world.store.meta.due().unwrap(), []);
    std::fs::remove_dir(file(&world)).unwrap();
    world.store.tag(&one, &web()).unwrap();
    assert_settled(&world);
}

#[test]
fn a_name_that_many_change_is_in_its_file_what_it_is_in_the_index() {
    let (world, one, two) = two();
    let names = ["web:1", "web:2", "web:3"];
    std::thread::scope(|scope| {
        for number in 0..6 {
            let world = &world;
            scope.spawn(move || {
                let store = Store::open(world.root()).unwrap();
                for round in 0..150 {
                    let name = Reference::parse(names[(number + round) % 3]).unwrap();
                    let image = if (number + round / 3) % 2 == 0 { one } else { two };
                    match round % 5 {
                        // Somebody else may have taken it.
                        4 => drop(store.remove(&name.familiar(), true, &[])),
                        _ => store.tag(&image, &name).unwrap(),
                    }
                }
            });
        }
    });
    for name in names {
        let canonical = Reference::parse(name).unwrap().canonical();
        let path = world.root().join("refs").join(canonical.replace('/', "+"));
        let text = std::fs::read_to_string(path).ok();
        let said = text.map(|text| text.lines().next().unwrap().to_owned());
        let known = world.store.meta.tagged(&canonical).unwrap();
        assert_eq!(said, known.map(|id| id.to_string()), "{name}");
    }
    assert_settled(&world);
}
