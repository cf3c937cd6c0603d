//! What BuildKit says of an image beside it stays with the image.

use dhow_content::ContentStore as _;
use dhow_image::{Attestation, Store};
use dhow_oci::{Descriptor, Document, Index, media_type};
use dhow_testkit::{FakeRegistry, Fault, Recorder, TinyImage};
use dhow_types::{Digest, Silent};
use serde_json::{Value, json};

use crate::{World, base, chain, image, layer};

const STATEMENT: &str = "application/vnd.in-toto+json";

/// A manifest with its config and two statements, as BuildKit makes it.
struct Made {
    manifest: Vec<u8>,
    blobs: Vec<Vec<u8>>,
}

fn attestation(of: &str) -> Made {
    let config = json!({"architecture": "unknown", "os": "unknown", "config": {},
        "rootfs": {"type": "layers", "diff_ids": []}});
    let config = serde_json::to_vec(&config).unwrap();
    let statement = |kind: &str| format!("{{\"predicateType\":\"{kind}\",\"of\":\"{of}\"}}").into_bytes();
    let kinds = ["https://slsa.dev/provenance/v1", "https://spdx.dev/Document"];
    let mut layers = Vec::new();
    let mut blobs = vec![config.clone()];
    for kind in kinds {
        let mut layer = Descriptor::of(STATEMENT, &statement(kind));
        let kind_label = ("in-toto.io/predicate-type".to_owned(), kind.to_owned());
        layer.annotations.extend([kind_label]);
        layers.push(layer);
        blobs.push(statement(kind));
    }
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": Descriptor::of(media_type::OCI_CONFIG, &config), "layers": layers});
    Made {
        manifest: serde_json::to_vec(&manifest).unwrap(),
        blobs,
    }
}

/// The entry of an attestation in an index.
fn entry(made: &Made, about: &Digest) -> Value {
    let mut descriptor = Descriptor::of(media_type::OCI_MANIFEST, &made.manifest);
    descriptor.platform = Some("unknown/unknown".parse().unwrap());
    descriptor.annotations.extend([
        (
            "vnd.docker.reference.type".to_owned(),
            "attestation-manifest".to_owned(),
        ),
        ("vnd.docker.reference.digest".to_owned(), about.to_string()),
    ]);
    serde_json::to_value(descriptor).unwrap()
}

fn own_entry(image: &TinyImage, platform: &str) -> Value {
    let mut descriptor = Descriptor::of(&image.media_type, &image.manifest);
    descriptor.platform = Some(platform.parse().unwrap());
    serde_json::to_value(descriptor).unwrap()
}

fn put(registry: &FakeRegistry, made: &Made) {
    for blob in &made.blobs {
        registry.put_blob("app", blob);
    }
    let digest = Digest::of(&made.manifest).to_string();
    registry.put_manifest("app", &digest, media_type::OCI_MANIFEST, &made.manifest);
}

/// `app:1`: this machine's image with its attestation; with `more`, that of another machine with its own.
fn published(registry: &FakeRegistry, more: bool) -> (TinyImage, Made, Vec<u8>) {
    let own = image("own");
    let other = TinyImage::on(vec![base(), layer("other", b"x")], "linux/s390x");
    let (said, other_said) = (attestation("own"), attestation("other"));
    registry.put_image("app", "own", &own);
    put(registry, &said);
    let host = format!("linux/{}", dhow_types::Platform::host().architecture);
    let mut manifests = vec![own_entry(&own, &host), entry(&said, &own.digest())];
    if more {
        registry.put_image("app", "other", &other);
        put(registry, &other_said);
        manifests.push(own_entry(&other, "linux/s390x"));
        manifests.push(entry(&other_said, &other.digest()));
    }
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests});
    let index = serde_json::to_vec(&index).unwrap();
    registry.put_manifest("app", "1", media_type::OCI_INDEX, &index);
    (own, said, index)
}

fn said(store: &Store, name: &str) -> Vec<Attestation> {
    store.attestations(&store.resolve(name).unwrap()).unwrap()
}

/// The index under a tag of the registry.
fn index_at(registry: &FakeRegistry, repository: &str, tag: &str) -> (Vec<u8>, Index) {
    let (_, bytes) = registry.manifest(repository, tag).unwrap();
    let Document::Index(index) = Document::parse(&bytes, None).unwrap() else {
        panic!("no index: {}", String::from_utf8_lossy(&bytes));
    };
    (bytes, index)
}

#[test]
fn a_pull_keeps_those_of_its_platform_as_long_as_the_image() {
    let world = World::new();
    let (own, made, _) = published(&world.registry, true);
    let name = world.registry.name("app:1");
    world.pull("app:1").unwrap();
    let found = said(&world.store, &name);
    assert_eq!(found.len(), 1, "not that of the other machine");
    assert_eq!(found[0].manifest.digest, Digest::of(&made.manifest));
    assert_eq!(found[0].about, own.digest());
    let kinds: Vec<_> = found[0]
        .statements
        .iter()
        .map(|(kind, _)| kind.as_str())
        .collect();
    assert_eq!(
        kinds,
        ["https://slsa.dev/provenance/v1", "https://spdx.dev/Document"]
    );
    world.store.sweep(&[]).unwrap();
    assert_eq!(said(&world.store, &name), found, "the sweep leaves them");
    assert_eq!(world.store.list().unwrap().len(), 1, "they are no image");
    world.assert_clean();
    // The index made again from the files knows no image more.
    world.store.rebuild().unwrap();
    assert_eq!(world.store.list().unwrap().len(), 1);
    assert_eq!(said(&world.store, &name), found);
    world.registry.forget_requests();
    world.pull("app:1").unwrap();
    assert_eq!(
        world.registry.count("GET", "/manifests/"),
        1,
        "they are not asked for again"
    );
    world.store.remove(&name, false, &[]).unwrap();
    assert_eq!(world.store.content.list().unwrap(), [], "and go with it");
}

#[test]
fn a_push_takes_them_along_under_the_digest_that_was_pulled() {
    let world = World::new();
    let (_, made, index) = published(&world.registry, false);
    world.pull("app:1").unwrap();
    let image = world.store.resolve(&world.registry.name("app:1")).unwrap();
    world.store.tag(&image.id, &world.reference("copy:2")).unwrap();
    let pushed = world
        .store
        .push(&world.client, &world.reference("copy:2"), &Silent);
    assert_eq!(pushed.unwrap().digest, Digest::of(&index));
    assert_eq!(index_at(&world.registry, "copy", "2").0, index);
    let digest = Digest::of(&made.manifest).to_string();
    assert_eq!(world.registry.manifest("copy", &digest).unwrap().1, made.manifest);
    for blob in &made.blobs {
        assert!(world.registry.blob("copy", &Digest::of(blob)).is_some());
    }
    let repo_digests = world.store.image(&image.id).unwrap().repo_digests();
    let pinned = format!("{}@{}", world.registry.name("copy"), Digest::of(&index));
    assert!(repo_digests.contains(&pinned), "{repo_digests:?}");
    world.assert_clean();
}

#[test]
fn a_push_of_one_platform_lists_that_and_what_is_about_it() {
    let world = World::new();
    let (own, made, index) = published(&world.registry, true);
    world.pull("app:1").unwrap();
    let image = world.store.resolve(&world.registry.name("app:1")).unwrap();
    world.store.tag(&image.id, &world.reference("copy:2")).unwrap();
    let pushed = world
        .store
        .push(&world.client, &world.reference("copy:2"), &Silent)
        .unwrap();
    assert_ne!(pushed.digest, Digest::of(&index));
    let (_, listed) = index_at(&world.registry, "copy", "2");
    let digests: Vec<_> = listed.manifests.iter().map(|manifest| manifest.digest).collect();
    assert_eq!(digests, [own.digest(), Digest::of(&made.manifest)]);
    assert_eq!(listed.manifests[0].platform, Some(dhow_types::Platform::host()));
    // Again the same, and from there it comes back whole.
    let again = world
        .store
        .push(&world.client, &world.reference("copy:2"), &Silent)
        .unwrap();
    assert_eq!(again, pushed);
    world.store.remove(&image.id.to_string(), true, &[]).unwrap();
    world.pull("copy:2").unwrap();
    assert_eq!(said(&world.store, &world.registry.name("copy:2")).len(), 1);
}

#[test]
fn an_archive_takes_them_along() {
    let world = World::new();
    let (_, made, _) = published(&world.registry, true);
    world.pull("app:1").unwrap();
    let name = world.registry.name("app:1");
    let mut archive = Vec::new();
    world.store.save(&[&name], &mut archive).unwrap();
    let other = World::new();
    let loaded = other.store.load(archive.as_slice(), &Silent).unwrap();
    assert_eq!(loaded.len(), 1, "{loaded:?}");
    let found = said(&other.store, &name);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].manifest.digest, Digest::of(&made.manifest));
    let kept = other
        .store
        .content
        .read(&found[0].statements[1].1.digest, 1 << 20);
    assert_eq!(kept.unwrap(), made.blobs[2]);
    other.store.sweep(&[]).unwrap();
    assert_eq!(said(&other.store, &name), found);
    other.assert_clean();
    // The same archive again, and a push of it: about the manifest that it has there.
    let mut again = Vec::new();
    other.store.save(&[&name], &mut again).unwrap();
    assert!(again == archive, "an archive of an archive is the same");
    let id = loaded[0].image;
    other.store.tag(&id, &other.reference("copy:2")).unwrap();
    other
        .store
        .push(&other.client, &other.reference("copy:2"), &Silent)
        .unwrap();
    let (_, listed) = index_at(&other.registry, "copy", "2");
    let about = listed.manifests[1].annotations.get("vnd.docker.reference.digest");
    assert_eq!(about, Some(&listed.manifests[0].digest.to_string()));
    assert_eq!(listed.manifests[1].digest, Digest::of(&made.manifest));
}

#[test]
fn an_image_is_pulled_also_when_what_is_said_of_it_cannot_be_had() {
    for fault in [
        Fault::Status(404, vec![]),
        Fault::WrongBytes,
        Fault::Body(b"{}".to_vec()),
    ] {
        for part in ["manifests/", "blobs/"] {
            let world = World::new();
            let (_, made, _) = published(&world.registry, false);
            let digest = if part == "blobs/" {
                Digest::of(&made.blobs[1])
            } else {
                Digest::of(&made.manifest)
            };
            world
                .registry
                .fail("GET", &format!("{part}{digest}"), 100, fault.clone());
            let (pulled, recorder) = world.pull_seen("app:1");
            assert!(recorder.saw("is not kept"), "{part} {fault:?}");
            assert_eq!(said(&world.store, &world.registry.name("app:1")), []);
            // It is pushed as it is, without them.
            let image = world.store.image(&pulled.image).unwrap();
            world.store.tag(&image.id, &world.reference("copy:2")).unwrap();
            let pushed = world
                .store
                .push(&world.client, &world.reference("copy:2"), &Recorder::new());
            assert_eq!(
                pushed.unwrap_or_else(|error| panic!("{}", chain(&error))).digest,
                image.record.manifest.unwrap()
            );
            world.store.sweep(&[]).unwrap();
            world.assert_clean();
        }
    }
}

#[test]
fn a_statement_larger_than_any_is_not_fetched() {
    let world = World::new();
    let (own, _, _) = published(&world.registry, false);
    let config = attestation("own").blobs[0].clone();
    let huge = Descriptor::new(STATEMENT, Digest::of(b"huge"), 65 << 20);
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": Descriptor::of(media_type::OCI_CONFIG, &config), "layers": [huge]});
    let made = Made {
        manifest: serde_json::to_vec(&manifest).unwrap(),
        blobs: vec![config],
    };
    put(&world.registry, &made);
    let host = format!("linux/{}", dhow_types::Platform::host().architecture);
    let manifests = [own_entry(&own, &host), entry(&made, &own.digest())];
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests});
    let bytes = serde_json::to_vec(&index).unwrap();
    world
        .registry
        .put_manifest("app", "2", media_type::OCI_INDEX, &bytes);
    let (_, recorder) = world.pull_seen("app:2");
    assert!(recorder.saw("the limit is"));
    assert_eq!(world.registry.count("GET", &Digest::of(b"huge").to_string()), 0);
}
