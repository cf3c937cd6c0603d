//! Documents and archives with random damage: an error or an image, never a panic, and always a clean store.

use std::sync::OnceLock;

use dhow_image::{Import, Store};
use dhow_oci::media_type;
use dhow_testkit::{Tar, TinyImage};
use dhow_types::Silent;
use proptest::prelude::*;

use crate::archives::files;
use crate::{World, base, image, imports, layer};

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

/// The same archive with one of its documents changed, and what only some readers look at left out.
fn with_document(name: &str, without: &[&str], change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let mut files = files(archive());
    without.iter().for_each(|name| drop(files.remove(*name)));
    let document = files.remove(name).unwrap();
    files.insert(name.to_owned(), change(document));
    let tar = files
        .iter()
        .fold(Tar::new(), |tar, (name, bytes)| tar.file(name, 0o644, bytes));
    tar.finish()
}

/// Imports into a store of its own; a failure leaves no image, and the store is whole either way.
fn import(tar: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let imported = store.import(tar, &Import::default());
    let findings = store.check(dhow_image::Check::default()).unwrap().findings;
    assert_eq!(findings, vec![]);
    match imported {
        Ok(imported) => drop(store.image(&imported.image).unwrap()),
        Err(_) => assert!(store.list().unwrap().is_empty()),
    }
}

fn foreign(name: &str, document: &[u8]) -> Vec<u8> {
    imports::root(Tar::new().file(name, 0o644, document)).finish()
}

/// JSON of any shape, with the words that the documents are made of.
fn anything(words: &'static [&'static str]) -> impl Strategy<Value = serde_json::Value> {
    let word = prop::sample::select(words).prop_map(str::to_owned);
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        word.clone().prop_map(Into::into),
        ".{0,20}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let key = prop_oneof![word.clone(), ".{0,6}".prop_map(String::from)];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map(key, inner, 0..6)
                .prop_map(|map| { serde_json::Value::Object(map.into_iter().collect()) }),
        ]
    })
}

const ACI: &[&str] = &[
    "acKind",
    "ImageManifest",
    "acVersion",
    "name",
    "labels",
    "value",
    "os",
    "linux",
    "arch",
    "app",
    "exec",
    "user",
    "group",
    "0",
    "ports",
    "protocol",
    "tcp",
    "port",
    "count",
    "mountPoints",
    "path",
    "isolators",
    "dependencies",
    "imageName",
    "pathWhitelist",
    "annotations",
    "created",
    "eventHandlers",
    "supplementaryGIDs",
];
const LXD: &[&str] = &[
    "architecture",
    "x86_64",
    "creation_date",
    "expiry_date",
    "properties",
    "description",
    "templates",
    "when",
    "template",
];
const DOCKER: &[&str] = &[
    "Config",
    "RepoTags",
    "Layers",
    "blobs/sha256/",
    "../../etc/passwd",
    "app:1",
    "parent",
    "layer.tar",
];
const INDEX: &[&str] = &[
    "schemaVersion",
    "mediaType",
    "manifests",
    "digest",
    "sha256:",
    "size",
    "platform",
    "os",
    "linux",
    "architecture",
    "annotations",
    "artifactType",
    "subject",
    "config",
    "layers",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_damaged_manifest_of_an_aci_is_an_error_or_harmless(damage in damage()) {
        let manifest = imports::manifest().to_string().into_bytes();
        import(&foreign("manifest", &spoil(manifest, &damage)));
    }

    #[test]
    fn any_json_as_the_manifest_of_an_aci_is_an_error_or_harmless(
        json in anything(ACI), app in anything(ACI), merged in any::<bool>()
    ) {
        let mut manifest = imports::manifest();
        if merged {
            manifest["app"] = app;
            manifest["labels"] = json;
        } else {
            manifest = json;
        }
        import(&foreign("manifest", manifest.to_string().as_bytes()));
    }

    #[test]
    fn a_damaged_metadata_yaml_is_an_error_or_harmless(damage in damage()) {
        import(&foreign("metadata.yaml", &spoil(imports::METADATA.into(), &damage)));
    }

    #[test]
    fn any_yaml_as_metadata_is_an_error_or_harmless(json in anything(LXD), noise in "[-:&*!|>{}\\[\\]#%@`'\"? a-z0-9\n]{0,200}") {
        // JSON is YAML, too.
        import(&foreign("metadata.yaml", json.to_string().as_bytes()));
        import(&foreign("metadata.yaml", noise.as_bytes()));
    }

    #[test]
    fn a_damaged_document_of_an_archive_is_an_error_or_harmless(damage in damage(), which in 0..4_usize) {
        let (name, without): (_, &[&str]) = [
            ("manifest.json", &[][..]),
            ("repositories", &[][..]),
            ("index.json", &["manifest.json", "repositories"][..]),
            ("oci-layout", &["manifest.json", "repositories"][..]),
        ][which];
        load(&with_document(name, without, |bytes| spoil(bytes, &damage)));
    }

    #[test]
    fn any_json_as_a_document_of_an_archive_is_an_error_or_harmless(
        docker in anything(DOCKER), index in anything(INDEX), which in 0..4_usize
    ) {
        let text = |json: &serde_json::Value| json.to_string().into_bytes();
        let list = serde_json::json!([docker]);
        let manifests = serde_json::json!({ "schemaVersion": 2, "manifests": [index] });
        load(&match which {
            0 => with_document("manifest.json", &[], |_| text(&docker)),
            1 => with_document("manifest.json", &[], |_| text(&list)),
            2 => with_document("index.json", &["manifest.json"], |_| text(&index)),
            _ => with_document("index.json", &["manifest.json"], |_| text(&manifests)),
        });
    }

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
