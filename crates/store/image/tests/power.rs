//! What a power cut leaves: layers and documents without content, and names whose new image never reached the disk.

use dhow_image::Check;
use dhow_layer::Unpack;
use dhow_oci::ImageConfig;
use dhow_testkit::TinyImage;
use dhow_types::{Digest, ErrorKind};

use crate::{World, chain, image};

fn pulled() -> (World, TinyImage) {
    let world = World::new();
    let image = image("a");
    world.registry.put_image("app", "1", &image);
    world.pull("app:1").unwrap();
    (world, image)
}

/// Layers of an image are as another boot wrote them, none of them known to be on the disk.
fn of_another_boot(world: &World, image: &TinyImage) {
    for layer in &image.layers {
        let path = world.store.layers.layer(&layer.diff_id()).unwrap().fs();
        let state = path.parent().unwrap().join("state");
        let text = std::fs::read_to_string(&state).unwrap();
        let lines = text.lines().map(|line| match line.split_once(' ') {
            Some(("boot", _)) => "boot 00000000-0000-4000-8000-000000000000\n".to_owned(),
            Some(("durable", _)) => "durable 0\n".to_owned(),
            _ => format!("{line}\n"),
        });
        std::fs::write(&state, lines.collect::<String>()).unwrap();
    }
}

#[test]
fn a_layer_that_a_power_cut_emptied_is_not_run() {
    let (world, image) = pulled();
    of_another_boot(&world, &image);
    let diff = image.layers[1].diff_id();
    let file = world.store.layers.layer(&diff).unwrap().fs().join("srv/a");
    let content = std::fs::read(&file).unwrap();
    std::fs::write(&file, b"").unwrap();
    let error = world.store.layers.sound(&diff).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    assert!(chain(&error).contains("power cut"), "{}", chain(&error));
    // What is whole is looked at once.
    std::fs::write(&file, content).unwrap();
    world.store.layers.sound(&diff).unwrap();
    assert!(!world.store.layers.suspects().unwrap().contains(&diff));
}

#[test]
fn a_name_falls_back_to_the_image_that_the_disk_has() {
    let (world, old) = pulled();
    world.store.sync().unwrap();
    let tag = |image: &TinyImage| {
        let config: ImageConfig = serde_json::from_slice(&image.config).unwrap();
        world.store.commit(config, &[world.reference("app:1")]).unwrap()
    };
    // Two images later, neither of which the disk has: only the first is sure to be whole.
    let mut last = old.id();
    for name in ["b", "c"] {
        let new = image(name);
        for layer in &new.layers {
            world
                .store
                .layers
                .unpack(layer.blob.as_slice(), &Unpack::default())
                .unwrap();
        }
        let mut new = new;
        let mut config: serde_json::Value = serde_json::from_slice(&new.config).unwrap();
        config["author"] = serde_json::json!(name);
        new.config = serde_json::to_vec(&config).unwrap();
        last = tag(&new);
        let top = new.layers[1].diff_id();
        world.store.layers.remove(&top).unwrap();
    }
    assert_ne!(last, old.id());
    let check = |repair| world.store.check(Check { repair, deep: false }).unwrap();
    assert!(!check(false).clean());
    assert!(check(true).clean());
    assert_eq!(check(false).findings, vec![]);
    let name = world.reference("app:1").canonical();
    assert_eq!(world.store.resolve(&name).unwrap().id, old.id());
    assert_eq!(world.pull("app:1").unwrap().image, old.id());
}

#[test]
fn a_check_reads_every_blob() {
    let (world, image) = pulled();
    let hex = Digest::of(&image.manifest).hex();
    let blob = world.root().join("blobs/sha256").join(&hex[..2]).join(&hex[..]);
    std::fs::write(blob, b"").unwrap();
    let check = |repair| world.store.check(Check { repair, deep: false }).unwrap();
    assert!(!check(false).clean());
    assert!(check(true).clean());
    assert_eq!(check(false).findings, vec![]);
}
