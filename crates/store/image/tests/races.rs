//! Works that meet in one store.

use std::sync::atomic::{AtomicBool, Ordering};

use dhow_content::ContentStore as _;
use dhow_image::{Pull, Store};
use dhow_oci::media_type;
use dhow_testkit::{TinyImage, index};
use dhow_types::Silent;

use crate::pulls::foreign;
use crate::{World, base};

#[test]
fn a_sweep_never_gets_in_the_way_of_what_is_being_made() {
    let world = World::new();
    let tar = base();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    world.store.layers.sweep().unwrap();
                }
            });
        }
        let made = (0..400_u32).try_for_each(|number| {
            let blob = world.store.content.put(&number.to_le_bytes());
            blob.map_err(|error| crate::chain(&error))?;
            let how = dhow_layer::Unpack::default();
            let layer = world.store.layers.unpack(tar.blob.as_slice(), &how);
            layer.map(drop).map_err(|error| crate::chain(&error))
        });
        over.store(true, Ordering::Relaxed);
        assert_eq!(made, Ok(()));
    });
}

/// A pull of what is here, a removal and a new name for it: whoever comes last, a name has its image.
#[test]
fn a_name_never_outlives_its_image_whoever_removes_it_meanwhile() {
    let world = World::new();
    world.registry.put_image("app", "1", &crate::image("app"));
    let id = world.pull("app:1").unwrap().image;
    let (name, other) = (world.registry.name("app:1"), world.reference("other:1"));
    let over = AtomicBool::new(false);
    // Each with a store of its own, as processes have.
    let open = || dhow_image::Store::open(world.root()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let store = open();
            for round in 0_u64.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                // Now and then, so that it is mostly there when the others look.
                std::thread::sleep(std::time::Duration::from_micros(round * 97 % 4000));
                // It may be gone already, or be called otherwise.
                drop(store.remove(&name, true, &[]));
                drop(store.remove(&other.familiar(), true, &[]));
            }
        });
        scope.spawn(|| {
            let store = open();
            while !over.load(Ordering::Relaxed) {
                drop(store.tag(&id, &other));
            }
        });
        // What is so for a moment only, while another removes or pulls, is not wrong.
        let orphans = || {
            let findings = world.check().findings.into_iter().map(|finding| finding.what);
            findings
                .filter(|what| what.contains("which is not here"))
                .collect::<Vec<_>>()
        };
        let mut found = Vec::new();
        for _ in 0..600 {
            if let Err(error) = world.pull("app:1") {
                found = vec![crate::chain(&error)];
                break;
            }
            found = orphans();
            if !found.is_empty() && found == orphans() {
                break;
            }
            found.clear();
        }
        over.store(true, Ordering::Relaxed);
        assert_eq!(found, Vec::<String>::new());
    });
}

/// Processes have stores of their own, and one process may have two of one folder.
#[test]
fn two_stores_of_one_process_give_names_at_once() {
    let world = World::new();
    world.registry.put_image("app", "1", &crate::image("app"));
    let id = world.pull("app:1").unwrap().image;
    std::thread::scope(|scope| {
        let give = |whose: &'static str| {
            let (world, id) = (&world, &id);
            scope.spawn(move || {
                let store = dhow_image::Store::open(world.root()).unwrap();
                (0..400).try_for_each(|number| {
                    let name = world.reference(&format!("{whose}:{number}"));
                    store.tag(id, &name).map_err(|error| crate::chain(&error))
                })
            })
        };
        let both = ["one", "other"].map(give);
        for given in both {
            assert_eq!(given.join().unwrap(), Ok(()));
        }
    });
    assert_eq!(world.store.summaries().unwrap()[0].names.len(), 801);
}

/// An image goes between a look at the index and one at its config: it is not damaged, it is gone.
#[test]
fn who_looks_at_an_image_that_is_removed_meanwhile_hears_that_it_is_not_there() {
    let world = World::new();
    world.registry.put_image("app", "1", &crate::image("app"));
    world.pull("app:1").unwrap();
    let name = world.registry.name("app:1");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let store = dhow_image::Store::open(world.root()).unwrap();
            while !over.load(Ordering::Relaxed) {
                store.remove(&name, true, &[]).unwrap();
                world.pull("app:1").unwrap();
            }
        });
        let store = dhow_image::Store::open(world.root()).unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(3);
        let mut wrong = None;
        while wrong.is_none() && std::time::Instant::now() < until {
            let resolved = store.resolve(&name).map(drop);
            let listed = store.list().map(drop);
            let failures = [resolved, listed].into_iter().filter_map(Result::err);
            wrong = failures
                .map(|error| crate::chain(&error))
                .find(|error| !error.contains("no such image"));
        }
        over.store(true, Ordering::Relaxed);
        assert_eq!(wrong, None);
    });
}

/// Whichever of two pulls of one index is done last.
#[test]
fn pulls_of_two_platforms_at_once_leave_the_name_with_this_machines_image() {
    let world = World::new();
    let host = dhow_types::Platform::host().to_string();
    for round in 0..40 {
        let own = crate::image(&format!("own {round}"));
        let content = format!("other {round}");
        let other = TinyImage::on(vec![crate::layer("other", content.as_bytes())], "linux/s390x");
        for image in [&own, &other] {
            world.registry.put_image("app", &image.digest().hex(), image);
        }
        let list = index(&[(&other, "linux/s390x"), (&own, &host)]);
        let tag = format!("app:{round}");
        world
            .registry
            .put_manifest("app", &round.to_string(), media_type::OCI_INDEX, &list);
        std::thread::scope(|scope| {
            for how in [Pull::default(), foreign()] {
                let (world, tag) = (&world, &tag);
                scope.spawn(move || {
                    let store = Store::open(world.root()).unwrap();
                    store
                        .pull(&world.client, &world.reference(tag), &how, &Silent)
                        .unwrap();
                });
            }
        });
        let name = world.registry.name(&tag);
        assert_eq!(world.store.resolve(&name).unwrap().id, own.id(), "round {round}");
        let found = world.store.resolve_for(&name, foreign().platform.as_ref());
        assert_eq!(found.unwrap().id, other.id());
    }
    world.assert_clean();
}

/// The pull of another platform and the removal of this machine's image: the name is of what is left.
#[test]
fn a_name_is_of_the_other_platform_when_this_machines_image_goes_during_its_pull() {
    let world = World::new();
    let (own, other) = crate::pulls::published(&world);
    let host = dhow_types::Platform::host();
    let tags = ["app:1", "app:2"].map(|tag| world.reference(tag));
    for round in 0..100_u64 {
        for how in [foreign(), Pull::default()] {
            world.store.pull(&world.client, &tags[0], &how, &Silent).unwrap();
        }
        let (first, second) = (tags[0].canonical(), tags[1].canonical());
        std::thread::scope(|scope| {
            let platform = host.clone();
            let (world, first) = (&world, &first);
            scope.spawn(move || {
                let store = Store::open(world.root()).unwrap();
                // Sooner or later during the pull.
                std::thread::sleep(std::time::Duration::from_micros(40 * round));
                store.remove_for(first, &[platform], true, &[]).unwrap();
            });
            let store = Store::open(world.root()).unwrap();
            store.pull(&world.client, &tags[1], &foreign(), &Silent).unwrap();
        });
        for name in [&first, &second] {
            let found = world.store.resolve_for(name, foreign().platform.as_ref());
            assert_eq!(
                found.map(|image| image.id).ok(),
                Some(other.id()),
                "round {round}: {name}"
            );
        }
        let left = world.store.resolve(&second).unwrap().id;
        assert!([own.id(), other.id()].contains(&left), "round {round}");
        world.store.remove(&second, true, &[]).unwrap();
    }
    assert_eq!(world.check().findings, vec![]);
}
