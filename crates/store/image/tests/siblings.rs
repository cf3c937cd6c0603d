//! What a name has for other machines: it is no image of its own, and goes with the name.

use dhow_image::{Prune, Pull, Removed, Use};
use dhow_oci::media_type;
use dhow_testkit::{TinyImage, index};
use dhow_types::{ErrorKind, ImageId, Silent};

use crate::pulls::{foreign, published};
use crate::{World, image};

/// A store that pulled the images for this machine and another under these tags of `app`.
fn both(tags: &[&str]) -> (World, TinyImage, TinyImage) {
    let world = World::new();
    let (here, there) = published(&world);
    for tag in tags {
        for how in [Pull::default(), foreign()] {
            let name = world.reference(&format!("app:{tag}"));
            world.store.pull(&world.client, &name, &how, &Silent).unwrap();
        }
    }
    (world, here, there)
}

fn used(image: &TinyImage) -> [Use; 1] {
    [Use {
        image: image.id(),
        container: "c0ffee".repeat(10),
        running: false,
        layers: Vec::new(),
    }]
}

fn stored(world: &World) -> Vec<ImageId> {
    let mut ids: Vec<ImageId> = world.store.list().unwrap().iter().map(|image| image.id).collect();
    ids.sort();
    ids
}

fn ids(images: &[&TinyImage]) -> Vec<ImageId> {
    let mut ids: Vec<ImageId> = images.iter().map(|image| image.id()).collect();
    ids.sort();
    ids
}

fn prune(world: &World, all: bool, uses: &[Use]) -> Vec<Removed> {
    let what = Prune {
        all,
        ..Prune::default()
    };
    world.store.prune(&what, uses).unwrap().removed
}

#[test]
fn prune_leaves_what_a_name_has_for_other_machines() {
    let (world, here, there) = both(&["1"]);
    let sibling = |world: &World| {
        let mut summaries = world.store.summaries().unwrap().into_iter();
        summaries.find(|one| one.record.id == there.id()).unwrap()
    };
    let found = sibling(&world);
    assert_eq!((found.named_by.clone(), found.dangling), (ids(&[&here]), false));
    assert!(found.is_beside());
    assert_eq!(prune(&world, false, &[]), []);
    // A name is used with each image that it has.
    for user in [&here, &there] {
        assert_eq!(prune(&world, true, &used(user)), []);
    }
    assert_eq!(stored(&world), ids(&[&here, &there]));

    // The name moves on to another index: nothing has a tag any more.
    let new = image("new");
    let host = dhow_types::Platform::host().to_string();
    world.registry.put_image("app", "new", &new);
    let list = index(&[(&new, &host)]);
    world
        .registry
        .put_manifest("app", "1", media_type::OCI_INDEX, &list);
    world.pull("app:1").unwrap();
    let found = sibling(&world);
    assert_eq!((found.named_by.clone(), found.dangling), (ids(&[&here]), true));
    let removed = prune(&world, false, &[]);
    for image in [&here, &there] {
        assert!(removed.contains(&Removed::Deleted(image.id())), "{removed:?}");
    }
    assert_eq!(stored(&world), ids(&[&new]));
    world.assert_clean();
}

#[test]
fn prune_of_all_takes_a_name_with_all_of_its_images() {
    let (world, ..) = both(&["1", "2"]);
    prune(&world, true, &[]);
    assert_eq!(stored(&world), []);
    assert_eq!(world.store.layers.list().unwrap(), []);
    world.assert_clean();
}

#[test]
fn what_a_name_has_for_other_machines_goes_with_the_last_name() {
    let (world, here, there) = both(&["1", "2"]);
    let remove = |name: &str| {
        world
            .store
            .remove(&world.registry.name(name), false, &[])
            .unwrap()
    };
    let untagged = |name: &str| Removed::Untagged(world.registry.name(name));
    assert_eq!(remove("app:1"), [untagged("app:1")]);
    assert_eq!(stored(&world), ids(&[&here, &there]));
    let removed = remove("app:2");
    assert_eq!(removed[0], untagged("app:2"));
    assert_eq!(
        removed[2..],
        [Removed::Deleted(here.id()), Removed::Deleted(there.id())]
    );
    assert_eq!(world.store.layers.list().unwrap(), []);

    // By the id of the one that has the name, too; by its own it goes alone.
    let (world, here, _) = both(&["1"]);
    world.store.remove(&here.id().to_string(), false, &[]).unwrap();
    assert_eq!(stored(&world), []);
    let (world, here, there) = both(&["1"]);
    let removed = world.store.remove(&there.id().to_string(), false, &[]).unwrap();
    assert_eq!(removed, [Removed::Deleted(there.id())]);
    assert_eq!(stored(&world), ids(&[&here]));
    world.assert_clean();
}

#[test]
fn another_name_of_the_image_keeps_what_the_first_had_for_other_machines() {
    let (world, here, there) = both(&["1"]);
    let host = dhow_types::Platform::host();
    let platform = foreign().platform.unwrap();
    let name = |text: &str| dhow_reference::Reference::parse(text).unwrap();
    world.store.tag(&here.id(), &name("mine:1")).unwrap();
    let removed = world
        .store
        .remove(&world.registry.name("app:1"), false, &[])
        .unwrap();
    assert!(
        !removed.iter().any(|one| matches!(one, Removed::Deleted(_))),
        "{removed:?}"
    );
    world.store.sweep(&[]).unwrap();
    for (platform, image) in [(&platform, &there), (&host, &here)] {
        let found = world.store.resolve_for("mine:1", Some(platform)).unwrap();
        assert_eq!(found.id, image.id());
    }
    assert_eq!(prune(&world, false, &[]), []);
    let removed = world.store.remove("mine:1", false, &[]).unwrap();
    assert_eq!(
        removed.len(),
        4,
        "the tag, its digest and two images: {removed:?}"
    );
    assert_eq!(stored(&world), []);
    world.assert_clean();
}

#[test]
fn a_name_stays_while_a_container_uses_what_it_has_for_another_machine() {
    let (world, here, there) = both(&["1"]);
    let name = world.registry.name("app:1");
    let error = world.store.remove(&name, false, &used(&there)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    let said = format!(
        "container c0ffeec0ffee is using its referenced image {}",
        there.id().short()
    );
    assert!(error.to_string().contains(&said), "{error}");
    assert_eq!(stored(&world), ids(&[&here, &there]));
    // By force the container keeps its image, without a name.
    let removed = world.store.remove(&name, true, &used(&there)).unwrap();
    assert_eq!(removed.last(), Some(&Removed::Deleted(here.id())));
    assert_eq!(stored(&world), ids(&[&there]));
    assert!(world.store.summaries().unwrap()[0].dangling);
    world.assert_clean();
}

#[test]
fn disk_use_counts_a_name_once() {
    let (world, here, there) = both(&["1"]);
    let usage = world.store.disk_usage(&used(&there)).unwrap();
    let [one] = usage.images.as_slice() else {
        panic!("{usage:?}")
    };
    assert_eq!((one.image, one.containers), (here.id(), 1));
    assert_eq!((one.size, one.shared), (usage.layers_total, 0));
    assert_eq!(usage.layers.len(), 3);
    assert_eq!(usage.reclaimable, 0, "a prune would leave all of it");
    let unused = world.store.disk_usage(&[]).unwrap();
    assert_eq!(unused.reclaimable, unused.layers_total);
}
