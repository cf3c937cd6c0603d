//! Save, load, import.

use std::collections::BTreeSet;
use std::io::Read as _;

use dhow_image::{Import, Store};
use dhow_layer::tar::Reader;
use dhow_oci::media_type;
use dhow_reference::Reference;
use dhow_testkit::{Layer, Tar, TinyImage, gzip, index};
use dhow_types::{Digest, ErrorKind, Silent};
use serde_json::json;

use crate::{World, base, chain, image, layer};

/// Files of an archive by name.
pub(crate) fn files(archive: &[u8]) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut tar = Reader::new(archive);
    let mut files = std::collections::BTreeMap::new();
    while let Some(entry) = tar.next_entry().unwrap() {
        let mut body = Vec::new();
        tar.read_to_end(&mut body).unwrap();
        files.insert(String::from_utf8(entry.path).unwrap(), body);
    }
    files
}

fn other() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

fn two_images() -> World {
    let world = World::new();
    world.registry.put_image("app", "1", &image("a"));
    world.registry.put_image("app", "2", &image("b"));
    world.pull("app:1").unwrap();
    world.pull("app:2").unwrap();
    world
}

#[test]
fn several_images_are_saved_and_loaded_with_the_same_ids_and_names() {
    let world = two_images();
    let repository = world.registry.name("app");
    let mut archive = Vec::new();
    world.store.save(&[&repository], &mut archive).unwrap();
    for archive in [archive.clone(), gzip(&archive)] {
        let (_dir, store) = other();
        let loaded = store.load(archive.as_slice(), &Silent).unwrap();
        let ids: BTreeSet<_> = loaded.iter().map(|one| one.image).collect();
        assert_eq!(ids, BTreeSet::from([image("a").id(), image("b").id()]));
        for tag in ["app:1", "app:2"] {
            let name = world.registry.name(tag);
            assert_eq!(
                store.resolve(&name).unwrap().config,
                world.store.resolve(&name).unwrap().config
            );
        }
        // What is loaded is saved as the same bytes.
        let mut again = Vec::new();
        store.save(&[&repository], &mut again).unwrap();
        assert_eq!(files(&again), files(archive_plain(&archive, &again)));
    }
}

/// The archive itself when it is a tar; else the copy it is compared with.
fn archive_plain<'a>(archive: &'a [u8], again: &'a [u8]) -> &'a [u8] {
    if archive.starts_with(&[0x1f, 0x8b]) {
        again
    } else {
        archive
    }
}

#[test]
fn an_archive_has_the_form_of_docker_and_of_the_oci_at_once() {
    let world = two_images();
    let name = world.registry.name("app:1");
    let mut archive = Vec::new();
    world.store.save(&[&name], &mut archive).unwrap();
    let files = files(&archive);
    let a = image("a");
    let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    assert_eq!(manifest[0]["Config"], blob(&a.id().0));
    assert_eq!(manifest[0]["RepoTags"], json!([name]));
    assert_eq!(manifest[0]["Layers"][1], blob(&a.layers[1].diff_id().0));
    let repositories: serde_json::Value = serde_json::from_slice(&files["repositories"]).unwrap();
    assert_eq!(
        repositories[world.registry.name("app")]["1"],
        a.layers[1].diff_id().hex()
    );
    assert_eq!(files["oci-layout"], br#"{"imageLayoutVersion":"1.0.0"}"#);
    let index: serde_json::Value = serde_json::from_slice(&files["index.json"]).unwrap();
    assert_eq!(
        index["manifests"][0]["annotations"]["io.containerd.image.name"],
        name
    );
    for layer in &a.layers {
        assert_eq!(files[&blob(&layer.diff_id().0)], layer.tar);
    }
    for (path, bytes) in files.iter().filter(|(path, _)| path.len() > 70) {
        assert_eq!(*path, blob(&Digest::of(bytes)));
    }
    assert_eq!(files[&blob(&a.id().0)], a.config);
}

#[test]
fn an_id_is_saved_without_a_name() {
    let world = two_images();
    let mut archive = Vec::new();
    world
        .store
        .save(&[&image("a").id().short()], &mut archive)
        .unwrap();
    let (_dir, store) = other();
    let loaded = store.load(archive.as_slice(), &Silent).unwrap();
    assert_eq!((loaded[0].image, loaded[0].names.len()), (image("a").id(), 0));
    assert_eq!(
        world
            .store
            .save(&["nothing"], &mut Vec::new())
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        world.store.save(&[], &mut Vec::new()).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
}

/// What docker 1.10 to 24 wrote: a directory for each layer, links for layers that come twice.
fn old_docker(image: &TinyImage) -> Vec<u8> {
    let config = format!("{}.json", image.id().hex());
    let ids: Vec<String> = (0..image.layers.len())
        .map(|number| Digest::of(&number.to_ne_bytes()).hex())
        .collect();
    let manifest = json!([{
        "Config": config,
        "RepoTags": ["old:1"],
        "Layers": ids.iter().map(|id| format!("{id}/layer.tar")).collect::<Vec<_>>(),
    }]);
    let mut tar = Tar::new().file(&config, 0o644, &image.config);
    for (number, (id, layer)) in ids.iter().zip(&image.layers).enumerate() {
        let path = format!("{id}/layer.tar");
        tar = tar
            .directory(id, 0o755)
            .file(&format!("{id}/VERSION"), 0o644, b"1.0")
            .file(&format!("{id}/json"), 0o644, b"{}");
        let first = image
            .layers
            .iter()
            .position(|other| other.tar == layer.tar)
            .unwrap();
        tar = if first < number {
            tar.symlink(&path, &format!("../{}/layer.tar", &ids[first]))
        } else {
            tar.file(&path, 0o644, &layer.tar)
        };
    }
    tar.file("manifest.json", 0o644, manifest.to_string().as_bytes())
        .file("repositories", 0o644, b"{}")
        .finish()
}

#[test]
fn archives_of_old_dockers_are_loaded() {
    let image = TinyImage::docker(vec![base(), layer("x", b"x"), base()]);
    let (_dir, store) = other();
    // The paths of old archives are longer than the links of ustar may be; these are cut to fit.
    let loaded = store
        .load(old_docker(&image).as_slice(), &Silent)
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(
        (loaded[0].image, &loaded[0].names),
        (image.id(), &vec!["old:1".to_owned()])
    );
}

/// An OCI layout of one top document.
fn layout(top: &serde_json::Value, images: &[&TinyImage], more: &[&[u8]]) -> Vec<u8> {
    let path = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let mut tar = Tar::new()
        .file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", 0o644, top.to_string().as_bytes());
    for image in images {
        tar = tar.file(&path(&image.config), 0o644, &image.config).file(
            &path(&image.manifest),
            0o644,
            &image.manifest,
        );
        for layer in &image.layers {
            tar = tar.file(&path(&layer.blob), 0o644, &layer.blob);
        }
    }
    for bytes in more {
        tar = tar.file(&path(bytes), 0o644, bytes);
    }
    tar.finish()
}

fn top(descriptors: &[serde_json::Value]) -> serde_json::Value {
    json!({"schemaVersion": 2, "manifests": descriptors})
}

fn descriptor(image: &TinyImage, name: &str) -> serde_json::Value {
    json!({
        "mediaType": image.media_type, "digest": image.digest(), "size": image.manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": name},
    })
}

#[test]
fn an_oci_layout_with_compressed_layers_keeps_its_manifest_and_is_pushed_as_it_was() {
    let world = World::new();
    let image = image("a");
    let name = world.registry.name("app:1");
    let archive = layout(&top(&[descriptor(&image, &name)]), &[&image], &[]);
    let loaded = world.store.load(archive.as_slice(), &Silent).unwrap();
    assert_eq!(loaded[0].names, vec![name.clone()]);
    let record = world.store.resolve(&name).unwrap().record;
    assert_eq!(record.manifest, Some(image.digest()));
    for layer in &image.layers {
        world.registry.put_blob("app", &layer.blob);
    }
    let pushed = world
        .store
        .push(&world.client, &Reference::parse(&name).unwrap(), &Silent)
        .unwrap();
    assert_eq!(pushed.digest, image.digest());
    world.assert_clean();
}

#[test]
fn of_an_index_in_a_layout_the_image_for_this_machine_is_loaded() {
    let (here, there) = (
        image("here"),
        TinyImage::on(vec![layer("arm", b"arm")], "linux/s390x"),
    );
    let host = dhow_types::Platform::host().to_string();
    let list = index(&[(&there, "linux/s390x"), (&here, &host)]);
    let descriptor =
        json!({"mediaType": media_type::OCI_INDEX, "digest": Digest::of(&list), "size": list.len()});
    let archive = layout(&top(&[descriptor]), &[&there, &here], &[&list]);
    let (_dir, store) = other();
    let loaded = store.load(archive.as_slice(), &Silent).unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].image, here.id());
}

#[test]
fn archives_that_lie_are_refused_and_no_image_is_loaded() {
    let good = image("a");
    let named = top(&[descriptor(&good, "x:1")]);
    let spoil = |change: fn(&mut TinyImage)| {
        let mut bad = good.clone();
        change(&mut bad);
        bad
    };
    let wrong_layer = {
        // Under the digest of the right blob lies another.
        let path = format!("blobs/sha256/{}", Digest::of(&good.layers[1].blob).hex());
        let mut archive = Tar::new().file("index.json", 0o644, named.to_string().as_bytes());
        for bytes in [&good.config, &good.manifest, &good.layers[0].blob] {
            archive = archive.file(&format!("blobs/sha256/{}", Digest::of(bytes).hex()), 0o644, bytes);
        }
        archive.file(&path, 0o644, &layer("evil", b"evil").blob).finish()
    };
    let cases: Vec<(Vec<u8>, ErrorKind)> = vec![
        (
            Tar::new().file("etc/passwd", 0o644, b"x").finish(),
            ErrorKind::InvalidArgument,
        ),
        (
            Tar::new().file("manifest.json", 0o644, b"[{}]").finish(),
            ErrorKind::InvalidArgument,
        ),
        (
            Tar::new().file("manifest.json", 0o644, b"{").finish(),
            ErrorKind::InvalidArgument,
        ),
        (
            Tar::new()
                .file("manifest.json", 0o644, "[".repeat(100_000).as_bytes())
                .finish(),
            ErrorKind::InvalidArgument,
        ),
        (layout(&named, &[], &[]), ErrorKind::InvalidArgument),
        (
            layout(&named, &[&spoil(|image| drop(image.layers.pop()))], &[]),
            ErrorKind::InvalidArgument,
        ),
        (wrong_layer, ErrorKind::DataLoss),
        (
            old_docker(&spoil(|image| image.layers[1] = layer("evil", b"evil"))),
            ErrorKind::DataLoss,
        ),
        (
            old_docker(&spoil(|image| drop(image.layers.pop()))),
            ErrorKind::InvalidArgument,
        ),
        (
            Tar::new()
                .symlink("a.json", "b.json")
                .symlink("b.json", "a.json")
                .file(
                    "manifest.json",
                    0o644,
                    br#"[{"Config":"a.json","RepoTags":null,"Layers":[]}]"#,
                )
                .finish(),
            ErrorKind::InvalidArgument,
        ),
        (old_docker(&good)[..3000].to_vec(), ErrorKind::DataLoss),
        (gzip(&old_docker(&good))[..200].to_vec(), ErrorKind::DataLoss),
    ];
    for (number, (archive, kind)) in cases.into_iter().enumerate() {
        let (_dir, store) = other();
        let error = store.load(archive.as_slice(), &Silent).unwrap_err();
        assert_eq!(error.kind(), kind, "case {number}: {}", chain(&error));
        assert!(store.list().unwrap().is_empty(), "case {number}");
        // What came with it went with it.
        assert_eq!(store.disk_usage(&[]).unwrap().layers_total, 0, "case {number}");
        assert!(
            store
                .check(dhow_image::Check::default())
                .unwrap()
                .findings
                .is_empty(),
            "case {number}"
        );
    }
}

#[test]
fn a_refused_archive_takes_nothing_that_others_have() {
    let world = two_images();
    let before = world.store.disk_usage(&[]).unwrap().layers_total;
    let good = image("a");
    let mut bad = good.clone();
    bad.layers.push(layer("new", b"new"));
    // Its config has one layer less than its list.
    let error = world
        .store
        .load(old_docker(&bad).as_slice(), &Silent)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{}", chain(&error));
    assert_eq!(world.store.disk_usage(&[]).unwrap().layers_total, before);
    assert!(
        world
            .store
            .check(dhow_image::Check::default())
            .unwrap()
            .findings
            .is_empty()
    );
}

#[test]
fn a_name_in_an_archive_that_is_no_name_is_refused() {
    let mut archive = old_docker(&image("a"));
    let position = archive.windows(5).position(|window| window == b"old:1").unwrap();
    archive[position..position + 5].copy_from_slice(b"OLD:1");
    let (_dir, store) = other();
    assert_eq!(
        store.load(archive.as_slice(), &Silent).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
}

#[test]
fn a_root_file_system_is_imported_with_its_settings() {
    let world = World::new();
    let tar = base().tar;
    let how = Import {
        message: "from a tar".to_owned(),
        tags: vec![Reference::parse("root:1").unwrap()],
        created: Some("2024-01-01T00:00:00Z".to_owned()),
        config: dhow_oci::RunConfig {
            cmd: Some(vec!["sh".to_owned()]),
            ..dhow_oci::RunConfig::default()
        },
        ..Import::default()
    };
    let id = world.store.import(gzip(&tar).as_slice(), &how).unwrap().image;
    assert_eq!(
        world.store.import(tar.as_slice(), &how).unwrap().image,
        id,
        "the same input, the same image"
    );
    let found = world.store.resolve("root:1").unwrap();
    assert_eq!(found.config.rootfs.diff_ids, [Layer::gzip(tar).diff_id()]);
    assert_eq!(found.config.config.cmd, Some(vec!["sh".to_owned()]));
    assert_eq!(world.store.history(&found).unwrap()[0].comment, "from a tar");
    assert!(world.store.import(&b"no tar"[..], &how).is_err());
    world.assert_clean();
}
