//! Copies: the bytes that arrive are those that were there, wherever they come from and go to.

use std::path::Path;

use dhow_image::{Copied, Copy, Location, copy};
use dhow_oci::{Descriptor, media_type};
use dhow_testkit::{FakeRegistry, Fault, Layer, TinyImage, index};
use dhow_types::{Digest, ErrorKind, Silent};
use serde_json::{Value, json};

use crate::{base, chain, client, image, layer};

fn place(text: &str) -> Location {
    text.parse().unwrap()
}

fn all() -> Copy {
    Copy {
        all: true,
        ..Copy::default()
    }
}

fn copied(from: &str, to: &str, how: &Copy) -> Copied {
    copy(&client(), &place(from), &place(to), how, &Silent)
        .unwrap_or_else(|error| panic!("{}", chain(&error)))
}

fn refused(from: &str, to: &str, how: &Copy) -> dhow_image::Error {
    copy(&client(), &place(from), &place(to), how, &Silent).unwrap_err()
}

fn at(registry: &FakeRegistry, name: &str) -> String {
    format!("docker://{}", registry.name(name))
}

/// An index of two platforms with an attestation, stored under `app:1`.
fn several(registry: &FakeRegistry) -> (Vec<u8>, Vec<TinyImage>) {
    let own = image("own");
    let arm = TinyImage::on(vec![base(), layer("arm", b"arm")], "linux/arm64/v8");
    let mut attestation = TinyImage::oci(vec![layer("statement", b"{}")]);
    attestation.media_type = media_type::OCI_MANIFEST.to_owned();
    let own_platform = format!("linux/{}", dhow_types::Platform::host().architecture);
    for image in [&own, &arm, &attestation] {
        registry.put_image("app", &image.digest().hex()[..8], image);
    }
    let bytes = index(&[
        (&own, &own_platform),
        (&arm, "linux/arm64/v8"),
        (&attestation, "unknown/unknown"),
    ]);
    registry.put_manifest("app", "1", media_type::OCI_INDEX, &bytes);
    (bytes, vec![own, arm, attestation])
}

/// Fails unless the registry has the image with all its blobs.
fn has(registry: &FakeRegistry, repository: &str, image: &TinyImage) {
    let manifest = registry.manifest(repository, &image.digest().to_string());
    assert_eq!(manifest.map(|(_, bytes)| bytes), Some(image.manifest.clone()));
    assert_eq!(
        registry.blob(repository, &image.id().0),
        Some(image.config.clone())
    );
    for layer in &image.layers {
        assert_eq!(
            registry.blob(repository, &Digest::of(&layer.blob)),
            Some(layer.blob.clone())
        );
    }
}

#[test]
fn an_index_with_all_its_platforms_goes_through_every_kind_of_place_unchanged() {
    let (first, last) = (FakeRegistry::start(), FakeRegistry::start());
    let (bytes, images) = several(&first);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let layout = format!("oci:{}:v1", path("layout"));
    let archive = format!("oci-archive:{}:v2", path("a.tar"));
    let chain = [at(&first, "app:1"), layout, archive, at(&last, "copy:1")];
    for pair in chain.windows(2) {
        let done = copied(&pair[0], &pair[1], &all());
        assert_eq!((done.digest, done.documents), (Digest::of(&bytes), 4), "{pair:?}");
    }
    assert_eq!(
        last.manifest("copy", "1").unwrap(),
        (media_type::OCI_INDEX.to_owned(), bytes)
    );
    images.iter().for_each(|image| has(&last, "copy", image));
}

#[test]
fn one_platform_is_taken_from_an_index_unless_all_are_wanted() {
    let (from, to) = (FakeRegistry::start(), FakeRegistry::start());
    let (_, images) = several(&from);
    assert_eq!(
        copied(&at(&from, "app:1"), &at(&to, "app:own"), &Copy::default()).digest,
        images[0].digest()
    );
    let arm = Copy {
        platform: Some("linux/arm64".parse().unwrap()),
        ..Copy::default()
    };
    assert_eq!(
        copied(&at(&from, "app:1"), &at(&to, "app:arm"), &arm).digest,
        images[1].digest()
    );
    assert_eq!(to.manifest("app", &images[2].digest().to_string()), None);
    let none = Copy {
        platform: Some("linux/s390x".parse().unwrap()),
        ..Copy::default()
    };
    assert_eq!(
        refused(&at(&from, "app:1"), &at(&to, "app:none"), &none).kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn a_docker_archive_is_what_docker_loads_and_is_read_back() {
    let (from, to) = (FakeRegistry::start(), FakeRegistry::start());
    let image = TinyImage::docker(vec![base(), layer("d", b"d")]);
    from.put_image("app", "1", &image);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("d.tar");
    let archive = format!("docker-archive:{}:shop:2", file.display());
    copied(&at(&from, "app:1"), &archive, &Copy::default());
    let listed = member(&file, "manifest.json");
    let list: Value = serde_json::from_slice(&listed).unwrap();
    assert_eq!(list[0]["RepoTags"], json!(["shop:2"]));
    assert_eq!(list[0]["Config"], format!("blobs/sha256/{}", image.id().0.hex()));
    for from in [archive.as_str(), &format!("docker-archive:{}", file.display())] {
        copied(from, &at(&to, "back:1"), &Copy::default());
        // The archive has no manifest of its own, but every blob is the same.
        for layer in &image.layers {
            assert_eq!(
                to.blob("back", &Digest::of(&layer.blob)),
                Some(layer.blob.clone())
            );
        }
        assert_eq!(to.blob("back", &image.id().0), Some(image.config.clone()));
    }
    let error = refused(&at(&from, "app:1"), &archive, &Copy::default());
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let missing = format!("docker-archive:{}:other:1", file.display());
    assert_eq!(
        refused(&missing, &at(&to, "x:1"), &Copy::default()).kind(),
        ErrorKind::NotFound
    );
    // The store's own loader takes it too.
    let store = dhow_image::Store::open(&folder.path().join("store")).unwrap();
    let loaded = store.load(std::fs::File::open(&file).unwrap(), &Silent).unwrap();
    assert_eq!(
        (loaded[0].image, loaded[0].names.as_slice()),
        (image.id(), &["shop:2".to_owned()][..])
    );
}

fn member(file: &Path, name: &str) -> Vec<u8> {
    let mut tar = dhow_layer::tar::Reader::new(std::fs::File::open(file).unwrap());
    while let Some(entry) = tar.next_entry().unwrap() {
        if entry.path == name.as_bytes() {
            return tar.body(1 << 20).unwrap();
        }
    }
    panic!("no {name}");
}

#[test]
fn what_docker_saved_is_copied_with_the_layers_as_they_are() {
    let to = FakeRegistry::start();
    let folder = tempfile::tempdir().unwrap();
    let image = TinyImage::oci(vec![Layer::plain(base().tar)]);
    let file = folder.path().join("old.tar");
    // As docker before 25 wrote it: a layer, and a link for one that comes twice.
    let config = format!("{}.json", image.id().0.hex());
    let list = json!([{"Config": config, "RepoTags": ["old:1"], "Layers": ["abc/layer.tar"]}]).to_string();
    let tar = dhow_testkit::Tar::new()
        .directory("abc", 0o755)
        .file("def/layer.tar", 0o644, &image.layers[0].tar)
        .symlink("abc/layer.tar", "../def/layer.tar")
        .file(&config, 0o644, &image.config)
        .file("manifest.json", 0o644, list.as_bytes())
        .finish();
    std::fs::write(&file, tar).unwrap();
    copied(
        &format!("docker-archive:{}:old:1", file.display()),
        &at(&to, "new:1"),
        &Copy::default(),
    );
    assert_eq!(
        to.blob("new", &Digest::of(&image.layers[0].tar)),
        Some(image.layers[0].tar.clone())
    );
    // A layer that is not the one of the config is no layer of the image.
    let tar = dhow_testkit::Tar::new()
        .file("abc/layer.tar", 0o644, &layer("x", b"x").tar)
        .file(&config, 0o644, &image.config)
        .file("manifest.json", 0o644, list.as_bytes())
        .finish();
    std::fs::write(&file, tar).unwrap();
    let error = refused(
        &format!("docker-archive:{}", file.display()),
        &at(&to, "bad:1"),
        &Copy::default(),
    );
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    assert_eq!(to.manifest("bad", "1"), None);
}

#[test]
fn within_one_registry_blobs_are_mounted_and_what_is_there_is_not_sent() {
    let registry = FakeRegistry::start();
    let image = image("a");
    registry.put_image("one", "1", &image);
    copied(&at(&registry, "one:1"), &at(&registry, "two:1"), &Copy::default());
    has(&registry, "two", &image);
    assert_eq!(registry.count("PUT", "/blobs/"), 0);
    assert_eq!(registry.count("GET", "/blobs/"), 0);
    registry.forget_requests();
    let again = copied(&at(&registry, "one:1"), &at(&registry, "two:1"), &Copy::default());
    assert_eq!(again.blobs, 0);
    assert_eq!(registry.count("POST", "/blobs/"), 0);
}

#[test]
fn what_refers_to_an_image_comes_along_when_it_is_wanted() {
    let (from, to) = (FakeRegistry::start(), FakeRegistry::start());
    let subject = image("a");
    from.put_image("app", "1", &subject);
    let mut signature = TinyImage::oci(vec![layer("sig", b"sig")]);
    let mut manifest: Value = serde_json::from_slice(&signature.manifest).unwrap();
    manifest["subject"] = json!(Descriptor::of(&subject.media_type, &subject.manifest));
    signature.manifest = serde_json::to_vec(&manifest).unwrap();
    from.put_image("app", "sig", &signature);
    let listed = index(&[(&signature, "unknown/unknown")]);
    let tag = format!("sha256-{}", subject.digest().hex());
    from.put_manifest("app", &tag, media_type::OCI_INDEX, &listed);
    copied(&at(&from, "app:1"), &at(&to, "without:1"), &Copy::default());
    assert_eq!(to.manifest("without", &signature.digest().to_string()), None);
    let with = Copy {
        referrers: true,
        ..Copy::default()
    };
    copied(&at(&from, "app:1"), &at(&to, "with:1"), &with);
    has(&to, "with", &signature);
    // A layout lists what refers to its images, and gives it on.
    let folder = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}:1", folder.path().join("l").display());
    copied(&at(&from, "app:1"), &layout, &with);
    copied(&layout, &at(&to, "through:1"), &with);
    has(&to, "through", &signature);
}

#[test]
fn bytes_that_are_wrong_never_get_a_name() {
    for fault in [
        Fault::WrongBytes,
        Fault::Body(b"short".to_vec()),
        Fault::Truncate(0),
    ] {
        let (from, to) = (FakeRegistry::start(), FakeRegistry::start());
        let image = image("a");
        from.put_image("app", "1", &image);
        from.fail(
            "GET",
            &image.layers[1].descriptor().digest.hex(),
            usize::MAX,
            fault.clone(),
        );
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        for target in [
            at(&to, "app:1"),
            format!("oci:{}:1", path("layout")),
            format!("oci-archive:{}:1", path("o.tar")),
            format!("docker-archive:{}:x:1", path("d.tar")),
        ] {
            let error = refused(&at(&from, "app:1"), &target, &Copy::default());
            let kinds = [ErrorKind::DataLoss, ErrorKind::Unavailable];
            assert!(
                kinds.contains(&error.kind()),
                "{fault:?} {target}: {}",
                chain(&error)
            );
        }
        assert_eq!(to.manifest("app", "1"), None);
        assert!(!folder.path().join("layout/index.json").exists());
        let left: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["layout"], "{fault:?}");
    }
}

#[test]
fn a_layout_that_was_changed_is_not_copied() {
    let registry = FakeRegistry::start();
    let image = image("a");
    registry.put_image("app", "1", &image);
    let folder = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}:1", folder.path().display());
    copied(&at(&registry, "app:1"), &layout, &Copy::default());
    let blob = |digest: &Digest| folder.path().join("blobs/sha256").join(digest.hex());
    let bytes = &image.layers[1].blob;
    let mut other = bytes.clone();
    other[20] ^= 1;
    for wrong in [&other[..], &bytes[1..], &[bytes.as_slice(), b"x"].concat()] {
        std::fs::write(blob(&Digest::of(bytes)), wrong).unwrap();
        let error = refused(&layout, &at(&registry, "bad:1"), &Copy::default());
        assert_eq!(error.kind(), ErrorKind::DataLoss, "{}", chain(&error));
    }
    assert_eq!(registry.manifest("bad", "1"), None);
    // A link out of the layout is not followed.
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), &image.manifest).unwrap();
    std::fs::remove_file(blob(&image.digest())).unwrap();
    std::os::unix::fs::symlink(secret.path(), blob(&image.digest())).unwrap();
    let error = refused(&layout, &at(&registry, "bad:1"), &Copy::default());
    assert_eq!(error.kind(), ErrorKind::NotFound, "{}", chain(&error));
}

#[test]
fn names_in_a_layout_are_replaced_and_told_apart() {
    let registry = FakeRegistry::start();
    let (one, two) = (image("one"), image("two"));
    registry.put_image("app", "1", &one);
    registry.put_image("app", "2", &two);
    let folder = tempfile::tempdir().unwrap();
    let layout = |name: &str| format!("oci:{}{name}", folder.path().display());
    copied(&at(&registry, "app:1"), &layout(":a"), &Copy::default());
    copied(&at(&registry, "app:2"), &layout(":b"), &Copy::default());
    let error = refused(&layout(""), &at(&registry, "x:1"), &Copy::default());
    assert!(error.to_string().contains("read oci:"), "{error}");
    assert!(chain(&error).contains("several images"), "{}", chain(&error));
    copied(&at(&registry, "app:2"), &layout(":a"), &Copy::default());
    assert_eq!(
        copied(&layout(":a"), &at(&registry, "x:1"), &Copy::default()).digest,
        two.digest()
    );
    let index: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
}

#[test]
fn indexes_without_bottom_are_refused() {
    let registry = FakeRegistry::start();
    let image = image("a");
    registry.put_image("app", "0", &image);
    let mut below = Descriptor::of(&image.media_type, &image.manifest);
    for depth in 1..9 {
        let bytes =
            json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [below]}).to_string();
        registry.put_manifest("app", &depth.to_string(), media_type::OCI_INDEX, bytes.as_bytes());
        below = Descriptor::of(media_type::OCI_INDEX, bytes.as_bytes());
    }
    let to = FakeRegistry::start();
    copied(&at(&registry, "app:3"), &at(&to, "app:3"), &all());
    let error = refused(&at(&registry, "app:8"), &at(&to, "app:8"), &all());
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
}
