//! What is broken is found, and healed on request.

use dhow_content::ContentStore as _;
use dhow_image::{Check, Store};
use dhow_layer::{Backend, Unpack};
use dhow_reference::Reference;
use dhow_types::{Digest, ErrorKind, ImageId};

use crate::{World, image};

fn pulled() -> (World, ImageId, String) {
    let world = World::new();
    world.registry.put_image("app", "1", &image("a"));
    let id = world.pull("app:1").unwrap().image;
    let name = world.registry.name("app:1");
    (world, id, name)
}

fn repair(world: &World) -> dhow_image::Report {
    world
        .store
        .check(Check {
            repair: true,
            deep: true,
        })
        .unwrap()
}

/// One finding that contains these words, not healed; then healed; then nothing.
fn found_and_healed(world: &World, words: &str) {
    let before = world.check();
    assert!(
        before.findings.iter().any(|finding| finding.what.contains(words)),
        "{before:?}"
    );
    assert!(!before.clean());
    let healed = repair(world);
    assert!(healed.clean(), "{healed:?}");
    assert_eq!(world.check().findings, vec![]);
}

#[test]
fn a_lost_index_is_made_again_from_the_files() {
    let (world, id, name) = pulled();
    world.store.tag(&id, &Reference::parse("web:1").unwrap()).unwrap();
    let before = world.store.list().unwrap();
    for file in ["meta.db", "meta.db-wal", "meta.db-shm"] {
        drop(std::fs::remove_file(world.root().join(file)));
    }
    let again = Store::open(world.root()).unwrap();
    assert_eq!(again.list().unwrap(), before);
    assert_eq!(again.resolve(&name).unwrap().id, id);
}

#[test]
fn images_without_a_name_come_back_by_a_rebuild() {
    let (world, id, name) = pulled();
    let file = |name: &str| world.root().join("refs").join(name.replace('/', "+"));
    std::fs::remove_file(file(&name)).unwrap();
    std::fs::remove_file(file(
        &world.registry.name(&format!("app@{}", image("a").digest())),
    ))
    .unwrap();
    world.store.meta.reset().unwrap();
    assert_eq!(world.store.list().unwrap(), vec![]);
    world.store.rebuild().unwrap();
    let found = world.store.image(&id).unwrap();
    assert_eq!(
        (found.names.len(), found.record.manifest),
        (0, Some(image("a").digest()))
    );
}

#[test]
fn a_damaged_index_is_found_and_healed() {
    let (world, id, name) = pulled();
    world.store.meta.reset().unwrap();
    std::fs::write(world.root().join("meta.db"), vec![0xaa; 20_000]).unwrap();
    let error = world.store.check(Check::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    assert!(dhow_types::Failure::hint(&error).unwrap().contains("--repair"));
    let report = repair(&world);
    assert!(report.clean() && report.findings.len() == 1, "{report:?}");
    assert_eq!(world.store.resolve(&name).unwrap().id, id);
    world.assert_clean();
}

#[test]
fn a_process_killed_between_name_file_and_index_is_noticed_by_the_next() {
    let (world, id, name) = pulled();
    let refs = world.root().join("refs");
    std::fs::write(
        refs.join("docker.io+library+ghost:1"),
        format!("{id}\ndocker.io/library/ghost:1\n"),
    )
    .unwrap();
    assert_eq!(world.store.resolve("ghost:1").unwrap().id, id);
    std::fs::remove_file(refs.join(name.replace('/', "+"))).unwrap();
    assert_eq!(
        world.store.resolve(&name).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        world.store.resolve(&id.hex()).unwrap().names,
        ["docker.io/library/ghost:1"]
    );
    world.assert_clean();
}

#[test]
fn name_files_that_make_no_sense_are_found_and_removed() {
    let (world, _, name) = pulled();
    let refs = world.root().join("refs");
    std::fs::write(refs.join("junk"), b"\xff\xfe").unwrap();
    std::fs::write(refs.join("empty"), b"").unwrap();
    found_and_healed(&world, "name file \"junk\"");
    let nowhere = ImageId(Digest::of(b"nowhere"));
    std::fs::write(
        refs.join("docker.io+library+x:1"),
        format!("{nowhere}\ndocker.io/library/x:1\n"),
    )
    .unwrap();
    found_and_healed(&world, "which is not here");
    assert!(world.store.resolve(&name).is_ok());
}

#[test]
fn a_damaged_layer_takes_its_image_along_and_the_next_pull_heals_it() {
    let (world, id, name) = pulled();
    let layer = world.store.layers.layer(&image("a").layers[1].diff_id()).unwrap();
    std::fs::write(layer.fs().join("srv/a"), b"").unwrap();
    found_and_healed(&world, "layer sha256:");
    assert_eq!(
        world.store.resolve(&name).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(world.pull("app:1").unwrap().image, id);
    world.assert_clean();
}

#[test]
fn a_layer_that_lost_its_index_is_found_without_a_deep_look() {
    let (world, _, _) = pulled();
    let layer = world.store.layers.layer(&image("a").layers[1].diff_id()).unwrap();
    std::fs::remove_file(layer.fs().parent().unwrap().join("index")).unwrap();
    let report = world.store.check(Check::default()).unwrap();
    assert!(
        report
            .findings
            .iter()
            .any(|finding| finding.what.contains("is damaged")),
        "{report:?}"
    );
    assert!(repair(&world).clean());
    world.assert_clean();
}

#[test]
fn a_damaged_config_or_manifest_is_found_and_healed() {
    let (world, id, _) = pulled();
    let path = |digest: &Digest| {
        let hex = digest.hex();
        world.root().join("blobs/sha256").join(&hex[..2]).join(&hex)
    };
    std::fs::write(path(&image("a").digest()), b"").unwrap();
    found_and_healed(&world, "blob sha256:");
    assert_eq!(world.store.image(&id).unwrap().record.manifest, None);
    std::fs::write(path(&id.0), b"zero bytes are what a power cut leaves").unwrap();
    found_and_healed(&world, "blob sha256:");
    assert!(world.store.image(&id).is_err());
    assert_eq!(world.pull("app:1").unwrap().image, id);
    assert_eq!(
        world.store.content.read(&image("a").digest(), 1 << 20).unwrap(),
        image("a").manifest
    );
    world.assert_clean();
}

#[test]
fn what_dead_processes_left_is_swept_by_any_check() {
    let (world, _, _) = pulled();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let tmp = world.root().join("tmp");
    std::fs::create_dir_all(tmp.join(format!("unpack-{pid}-0/fs"))).unwrap();
    std::fs::write(tmp.join(format!("blob-{pid}-0")), b"half").unwrap();
    std::fs::write(tmp.join(format!("ref-{pid}-0")), b"half").unwrap();
    std::fs::create_dir_all(world.root().join("trash/1-2-3/fs/deep")).unwrap();
    let hidden = ["snapshots", "containers"].map(|folder| world.root().join(folder).join(".gone-1-2-3"));
    for hidden in &hidden {
        std::fs::create_dir_all(hidden.join("upper/deep")).unwrap();
    }
    std::fs::write(world.root().join(format!("leases/{pid}-1-00000000-0")), b"*\n").unwrap();
    let report = world.store.check(Check::default()).unwrap();
    assert!(report.clean());
    assert_eq!(report.findings.len(), 3, "{report:?}");
    assert!(
        report
            .findings
            .iter()
            .any(|finding| finding.what.starts_with("3 removed things")),
        "{report:?}"
    );
    assert!(!hidden.iter().any(|hidden| hidden.exists()));
    world.assert_clean();
    assert!(
        std::fs::read_dir(world.root().join("trash"))
            .unwrap()
            .next()
            .is_none()
    );
}

#[test]
fn a_store_of_a_newer_program_is_left_alone() {
    let (world, _, _) = pulled();
    std::fs::write(world.root().join("store.json"), br#"{"format":99}"#).unwrap();
    assert_eq!(
        Store::open(world.root()).unwrap_err().kind(),
        ErrorKind::FailedPrecondition
    );
    std::fs::write(world.root().join("store.json"), b"").unwrap();
    assert_eq!(Store::open(world.root()).unwrap_err().kind(), ErrorKind::DataLoss);
}

#[test]
fn sync_makes_the_store_durable() {
    let (world, _, _) = pulled();
    world.store.sync().unwrap();
    world.assert_clean();
}

#[test]
fn a_store_may_hold_layers_of_both_kinds_and_older_programs_are_told() {
    let (world, _, _) = pulled();
    let file = || std::fs::read_to_string(world.root().join("store.json")).unwrap();
    assert_eq!(file(), r#"{"format":1}"#);
    if let Err(error) = world.store.keep_layers_as(Backend::Erofs) {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(file(), r#"{"format":1}"#);
        return;
    }
    assert_eq!(file(), r#"{"format":2,"layers":"erofs"}"#);
    let store = Store::open(world.root()).unwrap();
    assert_eq!(store.layers.backend(), Backend::Erofs);
    // Fetched again, it comes back as an image; the others stay.
    let kept = store.layers.list().unwrap();
    let diff = kept[0];
    let mut tar = Vec::new();
    std::io::Read::read_to_end(&mut store.layers.layer(&diff).unwrap().tar().unwrap(), &mut tar).unwrap();
    store.layers.remove(&diff).unwrap();
    store.layers.sweep().unwrap();
    let again = store.layers.unpack(tar.as_slice(), &Unpack::default()).unwrap();
    assert!(again.layer.image().is_some());
    assert_eq!(store.layers.list().unwrap(), kept);
    let found = store
        .check(Check {
            repair: false,
            deep: true,
        })
        .unwrap();
    assert_eq!(found.findings, []);
    // What damages an image is found, and healed as that of a directory is.
    let image = again.layer.image().unwrap();
    std::fs::write(&image, b"gone").unwrap();
    let found = store
        .check(Check {
            repair: false,
            deep: true,
        })
        .unwrap();
    assert_ne!(found.findings, []);
    store.keep_layers_as(Backend::Directories).unwrap();
    assert_eq!(file(), r#"{"format":2}"#);
}
