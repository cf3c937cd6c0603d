//! Documents and archives with random damage: an error or an image, never a panic, and always a clean store.

use std::sync::OnceLock;

use dhow_image::Store;
use dhow_oci::media_type;
use dhow_testkit::TinyImage;
use dhow_types::Silent;
use proptest::prelude::*;

use crate::{World, base, image, layer};

/// Damage: at a place, these bytes instead of others.
fn damage() -> impl Strategy<Value = Vec<(prop::sample::Index, Vec<u8>)>> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..8),
        Just(b"-1".to_vec()),
        Just(b"null".to_vec()),
        Just(b"[]".to_vec()),
        Just(b"{".to_vec()),
        Just(b"99999999999999999999".to_vec()),
        Just(b"sha256:".to_vec()),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), bytes), 1..5)
}

fn spoil(mut bytes: Vec<u8>, damage: &[(prop::sample::Index, Vec<u8>)]) -> Vec<u8> {
    for (place, new) in damage {
        let at = place.index(bytes.len());
        let end = (at + new.len()).min(bytes.len());
        bytes.splice(at..end, new.iter().copied());
    }
    bytes
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(World::new)
}

/// An archive as this program writes it.
fn archive() -> &'static [u8] {
    static ARCHIVE: OnceLock<Vec<u8>> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let world = World::new();
        world.registry.put_image(
            "app",
            "1",
            &TinyImage::oci(vec![base(), layer("x", b"x"), base()]),
        );
        world.pull("app:1").unwrap();
        let mut archive = Vec::new();
        world
            .store
            .save(&[&world.registry.name("app:1")], &mut archive)
            .unwrap();
        archive
    })
}

fn load(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    // Most damage is found; some changes nothing that matters, such as an owner's name.
    let loaded = store.load(bytes, &Silent);
    assert_eq!(
        store.check(dhow_image::Check::default()).unwrap().findings,
        vec![]
    );
    if loaded.is_err() {
        assert!(store.list().unwrap().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_damaged_manifest_is_an_error_or_harmless(damage in damage()) {
        let world = world();
        let image = image("a");
        world.registry.put_image("fuzz", "m", &image);
        world.registry.put_manifest("fuzz", "m", media_type::OCI_MANIFEST, &spoil(image.manifest.clone(), &damage));
        drop(world.pull("fuzz:m"));
    }

    #[test]
    fn a_damaged_config_is_an_error_or_harmless(damage in damage()) {
        let world = world();
        let mut image = image("a");
        image.config = spoil(image.config, &damage);
        image.seal();
        world.registry.put_image("fuzz", "c", &image);
        if world.pull("fuzz:c").is_ok() {
            let found = world.store.image(&image.id()).unwrap();
            prop_assert!(world.store.history(&found).is_ok());
        }
    }

    #[test]
    fn a_damaged_archive_is_an_error_or_harmless(damage in damage()) {
        load(&spoil(archive().to_vec(), &damage));
    }

    #[test]
    fn a_cut_archive_is_an_error_or_harmless(length in any::<prop::sample::Index>()) {
        load(&archive()[..length.index(archive().len())]);
    }

    #[test]
    fn noise_is_no_archive(noise in prop::collection::vec(any::<u8>(), 0..3000)) {
        load(&noise);
    }

    #[test]
    fn any_text_is_found_or_refused(text in ".{0,200}") {
        drop(world().store.resolve(&text));
    }
}
