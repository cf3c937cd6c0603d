use dhow_image::{Pull, Store};
use dhow_layer::Unpack;
use dhow_oci::{Document, ImageConfig, media_type};
use dhow_reference::Reference;
use dhow_testkit::{FakeRegistry, Fault, Recorder, Tar, TinyImage};
use dhow_types::{Digest, ErrorKind, ImageId, Silent};

use crate::{World, base, chain, image, layer};

/// Makes an image in the store as a build does: of layers that no registry has seen.
fn built(world: &World, name: &str, files: &[(&str, &[u8])]) -> ImageId {
    let mut config = ImageConfig {
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        created: Some("2024-01-01T00:00:00Z".to_owned()),
        ..ImageConfig::default()
    };
    for (path, content) in files {
        let tar = Tar::new().file(path, 0o644, content).finish();
        let unpacked = world
            .store
            .layers
            .unpack(tar.as_slice(), &Unpack::default())
            .unwrap();
        config.rootfs.diff_ids.push(unpacked.layer.diff_id());
    }
    world.store.commit(config, &[world.reference(name)]).unwrap()
}

fn push(world: &World, name: &str) -> (dhow_image::Pushed, Recorder) {
    let recorder = Recorder::new();
    let pushed = world.store.push(&world.client, &world.reference(name), &recorder);
    (
        pushed.unwrap_or_else(|error| panic!("{}", chain(&error))),
        recorder,
    )
}

#[test]
fn a_built_image_comes_back_with_the_same_digests_after_push_removal_and_pull() {
    let world = World::new();
    let id = built(&world, "app:1", &[("a", b"one"), ("b", &[7; 300_000])]);
    let (pushed, recorder) = push(&world, "app:1");
    assert!(recorder.saw("Preparing") && recorder.saw("Pushing") && recorder.saw("Pushed"));
    assert!(recorder.saw(&format!("1: digest: {} size: {}", pushed.digest, pushed.size)));
    let (kind, bytes) = world.registry.manifest("app", "1").unwrap();
    assert_eq!(kind, media_type::OCI_MANIFEST);
    assert_eq!(
        (Digest::of(&bytes), bytes.len() as u64),
        (pushed.digest, pushed.size)
    );
    let removed = world
        .store
        .remove(&world.registry.name("app:1"), false, &[])
        .unwrap();
    assert!(removed.contains(&dhow_image::Removed::Deleted(id)), "{removed:?}");
    assert!(world.store.layers.list().unwrap().is_empty());
    let pulled = world.pull("app:1").unwrap();
    assert_eq!((pulled.image, pulled.digest), (id, pushed.digest));
    assert_eq!(push(&world, "app:1").0, pushed);
    world.assert_clean();
}

#[test]
fn the_second_push_sends_no_layer() {
    let world = World::new();
    built(&world, "app:1", &[("a", b"one")]);
    let (first, _) = push(&world, "app:1");
    world.registry.forget_requests();
    let (second, recorder) = push(&world, "app:1");
    assert_eq!(first, second);
    assert!(recorder.saw("Layer already exists"), "{:?}", recorder.lines());
    assert_eq!(world.registry.count("POST", "/blobs/uploads/"), 0);
}

#[test]
fn a_layer_of_another_repository_of_the_registry_is_mounted() {
    let world = World::new();
    let image = image("a");
    world.registry.put_image("library/base", "1", &image);
    let id = world.pull("library/base:1").unwrap().image;
    world.store.tag(&id, &world.reference("app:1")).unwrap();
    world.registry.forget_requests();
    let (pushed, recorder) = push(&world, "app:1");
    assert_eq!(pushed.digest, image.digest());
    assert!(
        recorder.saw("Mounted from library/base"),
        "{:?}",
        recorder.lines()
    );
    assert_eq!(
        world.registry.count("PATCH", "") + world.registry.count("PUT", "/blobs/"),
        1,
        "only the config"
    );
}

#[test]
fn what_another_made_keeps_its_digest_where_its_blobs_are_and_its_id_elsewhere() {
    let world = World::new();
    let image = TinyImage::docker(vec![base(), layer("d", b"d")]);
    world.registry.put_image("app", "1", &image);
    let id = world.pull("app:1").unwrap().image;
    world.store.tag(&id, &world.reference("app:2")).unwrap();
    assert_eq!(push(&world, "app:2").0.digest, image.digest());
    // Another registry has none of the blobs: the layers are compressed anew.
    let elsewhere = FakeRegistry::start();
    let name = Reference::parse(&elsewhere.name("copy:1")).unwrap();
    world.store.tag(&id, &name).unwrap();
    let pushed = world.store.push(&world.client, &name, &Silent).unwrap();
    let (kind, bytes) = elsewhere.manifest("copy", "1").unwrap();
    assert_eq!(kind, media_type::DOCKER_MANIFEST);
    let Document::Manifest(manifest) = Document::parse(&bytes, Some(&kind)).unwrap() else {
        panic!("a manifest")
    };
    assert!(
        manifest
            .layers
            .iter()
            .all(|layer| layer.media_type == media_type::DOCKER_LAYER_GZIP)
    );
    let other = tempfile::tempdir().unwrap();
    let store = Store::open(other.path()).unwrap();
    let pulled = store
        .pull(&world.client, &name, &Pull::default(), &Silent)
        .unwrap();
    assert_eq!((pulled.image, pulled.digest), (id, pushed.digest));
}

#[test]
fn an_upload_that_breaks_is_done_again() {
    for fault in [Fault::Status(503, vec![]), Fault::Reset(0)] {
        let world = World::new();
        built(&world, "app:1", &[("a", b"one")]);
        world.registry.fail("POST", "/blobs/uploads/", 1, fault.clone());
        world.registry.fail("PATCH", "/blobs/uploads/", 1, fault.clone());
        push(&world, "app:1");
        assert!(world.registry.manifest("app", "1").is_some());
        world.assert_clean();
    }
}

#[test]
fn a_registry_that_refuses_the_upload_is_one_clear_error() {
    for (method, part, status, kind) in [
        ("POST", "/blobs/uploads/", 401, ErrorKind::Unauthenticated),
        ("POST", "/blobs/uploads/", 403, ErrorKind::PermissionDenied),
        ("", "/blobs/uploads/", 500, ErrorKind::Unavailable),
        ("PUT", "/manifests/", 403, ErrorKind::PermissionDenied),
    ] {
        let world = World::new();
        built(&world, "app:1", &[("a", b"one"), ("b", &[3; 100_000])]);
        world
            .registry
            .fail(method, part, 999, Fault::Status(status, vec![]));
        let error = world
            .store
            .push(&world.client, &world.reference("app:1"), &Silent)
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{method} {status}: {}", chain(&error));
        assert!(chain(&error).contains("app"), "{}", chain(&error));
        world.assert_clean();
    }
}

#[test]
fn a_push_that_may_not_ask_for_a_blob_sends_it() {
    let world = World::new();
    built(&world, "app:1", &[("a", b"one")]);
    world
        .registry
        .fail("HEAD", "/blobs/", 999, Fault::Status(403, vec![]));
    push(&world, "app:1");
}

#[test]
fn only_a_tag_that_is_here_can_be_pushed() {
    let world = World::new();
    let error = world
        .store
        .push(&world.client, &world.reference("app:none"), &Silent)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        chain(&error).contains("does not exist locally with the tag"),
        "{}",
        chain(&error)
    );
    let pinned = world.reference("app:1").with_digest(Digest::of(b"x"));
    let error = world.store.push(&world.client, &pinned, &Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(world.registry.requests().is_empty());
}
