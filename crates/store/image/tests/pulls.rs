use dhow_content::ContentStore as _;
use dhow_image::{Pull, Store};
use dhow_oci::media_type;
use dhow_testkit::{Auth, Layer, Recorder, Tar, TinyImage, index};
use dhow_types::{ErrorKind, ImageId, Silent};

use crate::{World, base, chain, image, layer};

#[test]
fn an_oci_image_is_pulled_with_its_layers_config_and_manifest() {
    let world = World::new();
    let image = image("a");
    world.registry.put_image("app", "1", &image);
    let (pulled, recorder) = world.pull_seen("app:1");
    assert_eq!(pulled.image, image.id());
    assert_eq!(pulled.digest, image.digest());
    assert!(pulled.updated);
    assert_eq!(
        pulled.status,
        format!("Downloaded newer image for {}", world.registry.name("app:1"))
    );
    let found = world.store.resolve(&world.registry.name("app:1")).unwrap();
    assert_eq!(
        found.record.layers,
        image.layers.iter().map(Layer::diff_id).collect::<Vec<_>>()
    );
    assert_eq!(found.record.manifest, Some(image.digest()));
    assert_eq!(found.config.config.cmd, Some(vec!["true".to_owned()]));
    assert_eq!(
        world.store.content.read(&image.digest(), 1 << 20).unwrap(),
        image.manifest
    );
    let file = world
        .store
        .layers
        .layer(&image.layers[1].diff_id())
        .unwrap()
        .fs()
        .join("srv/a");
    assert_eq!(std::fs::read(file).unwrap(), b"a");
    for layer in &image.layers {
        let short = layer.descriptor().digest.short();
        for what in ["Pulling fs layer", "Downloading", "Extracting", "Pull complete"] {
            assert!(
                recorder.saw(&format!("{short}: {what}")),
                "{what}: {:?}",
                recorder.lines()
            );
        }
    }
    assert!(recorder.saw(&format!("Digest: {}", image.digest())));
    world.assert_clean();
}

#[test]
fn a_docker_schema_2_image_is_pulled() {
    let world = World::new();
    let image = TinyImage::docker(vec![base(), layer("d", b"d")]);
    world.registry.put_image("app", "1", &image);
    world.pull("app:1").unwrap();
    let found = world.store.resolve(&world.registry.name("app:1")).unwrap();
    assert_eq!(found.record.media_type, media_type::DOCKER_MANIFEST);
    world.assert_clean();
}

#[test]
fn the_index_that_an_image_was_chosen_from_stays_as_long_as_its_name() {
    let world = World::new();
    let image = image("a");
    let host = dhow_types::Platform::host().to_string();
    let bytes = index(&[
        (&image, &host),
        (&TinyImage::oci(vec![base()]), "unknown/unknown"),
    ]);
    world.registry.put_image("app", "own", &image);
    world
        .registry
        .put_manifest("app", "1", media_type::OCI_INDEX, &bytes);
    let pulled = world.pull("app:1").unwrap();
    let kept = || world.store.content.read(&pulled.digest, 1 << 20);
    world.store.sweep(&[]).unwrap();
    assert_eq!(kept().unwrap(), bytes);
    world
        .store
        .remove(&world.registry.name("app:1"), true, &[])
        .unwrap();
    world.store.sweep(&[]).unwrap();
    assert!(kept().is_err());
    world.assert_clean();
}

#[test]
fn an_image_without_layers_and_one_with_the_same_layer_twice_are_pulled() {
    let world = World::new();
    world.registry.put_image("app", "none", &TinyImage::oci(vec![]));
    world.registry.put_image(
        "app",
        "twice",
        &TinyImage::oci(vec![base(), layer("x", b"x"), base()]),
    );
    world.pull("app:none").unwrap();
    world.pull("app:twice").unwrap();
    assert_eq!(world.store.list().unwrap().len(), 2);
    assert_eq!(world.registry.count("GET", &base().descriptor().digest.hex()), 1);
    world.assert_clean();
}

#[test]
fn of_an_index_the_image_for_this_machine_or_the_wanted_one_is_pulled() {
    let world = World::new();
    let (here, there) = (
        image("here"),
        TinyImage::on(vec![layer("arm", b"arm")], "linux/s390x"),
    );
    let host = dhow_types::Platform::host().to_string();
    world.registry.put_image("app", "here", &here);
    world.registry.put_image("app", "there", &there);
    let list = index(&[(&there, "linux/s390x"), (&here, &host)]);
    world
        .registry
        .put_manifest("app", "multi", media_type::OCI_INDEX, &list);
    let pulled = world.pull("app:multi").unwrap();
    assert_eq!(pulled.image, here.id());
    assert_eq!(pulled.digest, dhow_types::Digest::of(&list));
    let how = Pull {
        platform: Some("linux/s390x".parse().unwrap()),
        ..Pull::default()
    };
    let name = world.reference("app:multi");
    let pulled = world.store.pull(&world.client, &name, &how, &Silent).unwrap();
    assert_eq!(pulled.image, there.id());
    let how = Pull {
        platform: Some("linux/riscv64".parse().unwrap()),
        ..Pull::default()
    };
    let error = world.store.pull(&world.client, &name, &how, &Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        chain(&error).contains("no matching manifest for linux/riscv64"),
        "{}",
        chain(&error)
    );
    world.assert_clean();
}

/// `app:1` and `app:2`, one index of an image for this machine and one for another.
pub(crate) fn published(world: &World) -> (TinyImage, TinyImage) {
    let host = dhow_types::Platform::host().to_string();
    let here = image("here");
    let there = TinyImage::on(vec![layer("there", b"there")], "linux/s390x");
    world.registry.put_image("app", "here", &here);
    world.registry.put_image("app", "there", &there);
    let list = index(&[(&there, "linux/s390x"), (&here, &host)]);
    for tag in ["1", "2"] {
        world
            .registry
            .put_manifest("app", tag, media_type::OCI_INDEX, &list);
    }
    (here, there)
}

pub(crate) fn foreign() -> Pull {
    Pull {
        platform: Some("linux/s390x".parse().unwrap()),
        ..Pull::default()
    }
}

/// The images of a name: the one that it means, and the one for the other machine.
fn named(world: &World, name: &str) -> (ImageId, Option<ImageId>) {
    let name = world.registry.name(name);
    let other = world.store.resolve_for(&name, foreign().platform.as_ref());
    (
        world.store.resolve(&name).unwrap().id,
        other.ok().map(|image| image.id),
    )
}

#[test]
fn a_name_stays_with_this_machines_image_when_another_platform_is_pulled() {
    let world = World::new();
    let (here, there) = published(&world);
    let pull = |name: &str, how: &Pull| {
        let name = world.reference(name);
        world.store.pull(&world.client, &name, how, &Silent).unwrap()
    };
    let by_digest = |digest| format!("app@{digest}");
    // Until this machine's is here, the other has the name.
    let pulled = pull("app:1", &foreign());
    assert_eq!((pulled.image, pulled.updated), (there.id(), true));
    let digest = by_digest(pulled.digest);
    assert_eq!(named(&world, "app:1"), (there.id(), Some(there.id())));
    assert!(pull("app:1", &Pull::default()).updated);
    assert_eq!(named(&world, "app:1"), (here.id(), Some(there.id())));

    world
        .store
        .remove_for(
            &world.registry.name("app:1"),
            &[foreign().platform.unwrap()],
            false,
            &[],
        )
        .unwrap();
    assert_eq!(named(&world, "app:1"), (here.id(), None));
    let pulled = pull("app:1", &foreign());
    assert_eq!((pulled.image, pulled.updated), (there.id(), false));
    assert!(pulled.status.starts_with("Downloaded newer image"), "{pulled:?}");
    assert!(
        pull("app:1", &foreign())
            .status
            .starts_with("Image is up to date")
    );
    // A new name of the same index, too, by tag and by digest.
    assert!(pull("app:2", &foreign()).updated);
    pull(&digest, &foreign());
    for name in ["app:1", "app:2", &digest] {
        assert_eq!(named(&world, name), (here.id(), Some(there.id())), "{name}");
    }
    let moved = Pull {
        takes_name: true,
        ..foreign()
    };
    assert!(pull("app:2", &moved).updated);
    assert_eq!(named(&world, "app:2"), (there.id(), Some(there.id())));
    assert_eq!(named(&world, "app:1").0, here.id());
    world.assert_clean();
}

#[test]
fn a_name_means_the_index_that_it_was_pulled_by_last() {
    let world = World::new();
    let (here, first) = published(&world);
    let host = dhow_types::Platform::host().to_string();
    let second = TinyImage::on(vec![layer("there", b"second")], "linux/s390x");
    world.registry.put_image("app", "second", &second);
    // This machine's image is the same in both.
    for there in [&second, &first, &second] {
        let list = index(&[(&here, &host), (there, "linux/s390x")]);
        world
            .registry
            .put_manifest("app", "1", media_type::OCI_INDEX, &list);
        for how in [Pull::default(), foreign()] {
            let name = world.reference("app:1");
            world.store.pull(&world.client, &name, &how, &Silent).unwrap();
        }
        assert_eq!(named(&world, "app:1"), (here.id(), Some(there.id())));
        let mut listed = world
            .store
            .variants(&world.store.image(&here.id()).unwrap())
            .unwrap();
        assert_eq!(listed.pop().unwrap().image, Some(there.id()));
        // The files say it, not the index of the store.
        world.store.rebuild().unwrap();
        assert_eq!(named(&world, "app:1"), (here.id(), Some(there.id())));
    }
    world.assert_clean();
}

#[test]
fn an_image_of_an_index_that_is_here_is_not_fetched_again() {
    let world = World::new();
    let (here, there) = published(&world);
    let pull = |how: &Pull| {
        let name = world.reference("app:1");
        world
            .store
            .pull(&world.client, &name, how, &Silent)
            .unwrap()
            .image
    };
    assert_eq!(
        (pull(&Pull::default()), pull(&foreign())),
        (here.id(), there.id())
    );
    for (how, image) in [(foreign(), &there), (Pull::default(), &here), (foreign(), &there)] {
        world.registry.forget_requests();
        assert_eq!(pull(&how), image.id());
        let paths: Vec<String> = world
            .registry
            .requests()
            .into_iter()
            .map(|one| one.path)
            .collect();
        assert_eq!(paths, ["/v2/app/manifests/1"]);
    }
    // One that lost a layer is.
    let lost = there.layers[0].diff_id();
    world.store.layers.remove(&lost).unwrap();
    world.store.layers.sweep().unwrap();
    assert_eq!(pull(&foreign()), there.id());
    assert!(world.store.layers.contains(&lost));
    world.assert_clean();
}

#[test]
fn a_single_image_for_another_machine_is_a_warning_or_when_asked_for_an_error() {
    let world = World::new();
    world
        .registry
        .put_image("app", "1", &TinyImage::on(vec![base()], "linux/s390x"));
    let (_, recorder) = world.pull_seen("app:1");
    assert!(recorder.saw("warning: "), "{:?}", recorder.lines());
    let how = Pull {
        platform: Some("linux/riscv64".parse().unwrap()),
        ..Pull::default()
    };
    let error = world
        .store
        .pull(&world.client, &world.reference("app:1"), &how, &Silent)
        .unwrap_err();
    assert!(
        chain(&error).contains("does not match the specified platform"),
        "{}",
        chain(&error)
    );
}

#[test]
fn a_pull_that_is_up_to_date_costs_one_request() {
    let world = World::new();
    world.registry.put_image("app", "1", &image("a"));
    world.pull("app:1").unwrap();
    world.registry.forget_requests();
    let (pulled, _) = world.pull_seen("app:1");
    assert!(!pulled.updated);
    assert!(
        pulled.status.starts_with("Image is up to date for "),
        "{}",
        pulled.status
    );
    let manifests = world.registry.count("GET", "/manifests/") + world.registry.count("HEAD", "/manifests/");
    assert_eq!((manifests, world.registry.count("", "/blobs/")), (1, 0));
    assert_eq!(
        world
            .registry
            .requests()
            .iter()
            .filter(|r| r.path.contains("/blobs/"))
            .count(),
        0
    );
}

#[test]
fn only_the_layers_that_are_not_here_are_fetched() {
    let world = World::new();
    world.registry.put_image("app", "1", &image("a"));
    world.pull("app:1").unwrap();
    world.registry.put_image("app", "1", &image("b"));
    let (pulled, recorder) = world.pull_seen("app:1");
    assert!(pulled.updated);
    let shared = base().descriptor().digest;
    assert!(recorder.saw(&format!("{}: Already exists", shared.short())));
    assert_eq!(world.registry.count("GET", &shared.hex()), 1);
    // The image that lost its tag is still here, under its digest.
    assert_eq!(world.store.list().unwrap().len(), 2);
    assert!(
        world
            .store
            .resolve(&world.registry.name(&format!("app@{}", image("a").digest())))
            .is_ok()
    );
    world.assert_clean();
}

#[test]
fn a_pull_by_digest_makes_no_tag() {
    let world = World::new();
    let image = image("a");
    world.registry.put_image("app", "1", &image);
    let name = format!("app@{}", image.digest());
    world.pull(&name).unwrap();
    let found = world.store.resolve(&world.registry.name(&name)).unwrap();
    assert_eq!(found.names, Vec::<String>::new());
    assert_eq!(found.repo_digests(), vec![world.registry.name(&name)]);
    assert!(!world.pull(&name).unwrap().updated);
}

#[test]
fn a_registry_that_asks_for_a_token_is_pulled_from() {
    let world = World::new();
    world.registry.put_image("app", "1", &image("a"));
    world.registry.require(Auth::Token);
    world.pull("app:1").unwrap();
    assert!(world.registry.count("GET", "/token") >= 1);
    world.registry.require(Auth::Basic("me", "secret"));
    let other = tempfile::tempdir().unwrap();
    let store = Store::open(other.path()).unwrap();
    let error = store
        .pull(
            &world.client,
            &world.reference("app:1"),
            &Pull::default(),
            &Silent,
        )
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{}", chain(&error));
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn layers_of_every_compression_are_pulled() {
    let world = World::new();
    let tar = |name: &str| Tar::new().file(name, 0o600, name.as_bytes()).finish();
    let mut zstd = Layer::plain(tar("z"));
    let mut compressed = Vec::new();
    dhow_layer::compress(
        zstd.tar.as_slice(),
        &mut compressed,
        dhow_layer::Compression::Zstd,
    )
    .unwrap();
    zstd.blob = compressed;
    zstd.media_type = media_type::OCI_LAYER_ZSTD.to_owned();
    let image = TinyImage::oci(vec![Layer::plain(tar("plain")), zstd, Layer::gzip(tar("gzip"))]);
    world.registry.put_image("app", "1", &image);
    world.pull("app:1").unwrap();
    for layer in &image.layers {
        let known = world.store.meta.blobs_of(&layer.diff_id()).unwrap();
        assert_eq!(known.len(), 1);
        assert_eq!(known[0].digest, layer.descriptor().digest);
        assert_eq!(known[0].media_type, layer.media_type);
    }
    world.assert_clean();
}

#[test]
fn many_layers_come_in_parallel_and_all_arrive() {
    let world = World::new();
    let layers: Vec<Layer> = (0..40)
        .map(|number| layer(&format!("f{number}"), &vec![number; 10_000 + usize::from(number)]))
        .collect();
    let image = TinyImage::oci(layers);
    world.registry.put_image("app", "1", &image);
    let recorder = Recorder::new();
    world
        .store
        .pull(
            &world.client,
            &world.reference("app:1"),
            &Pull::default(),
            &recorder,
        )
        .unwrap();
    assert_eq!(
        recorder
            .lines()
            .iter()
            .filter(|line| line.ends_with("Pull complete"))
            .count(),
        40
    );
    world.assert_clean();
}

#[test]
fn eight_pulls_of_one_image_at_once_give_one_image() {
    let world = World::new();
    world.registry.put_image("app", "1", &image("a"));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let store = Store::open(world.root()).unwrap();
                store
                    .pull(
                        &world.client,
                        &world.reference("app:1"),
                        &Pull::default(),
                        &Silent,
                    )
                    .unwrap();
            });
        }
    });
    assert_eq!(world.store.list().unwrap().len(), 1);
    world.assert_clean();
}
