//! Images that are looked at in archives and layouts: what load would make of them, without a copy.

use std::path::Path;

use dhow_image::{Copy, Location, LyingImage, copy};
use dhow_layer::{Limits, Survey};
use dhow_testkit::{Layer, Tar, TinyImage, gzip};
use dhow_types::{Digest, ErrorKind, ImageId, Platform, Silent};
use serde_json::json;

use crate::{World, chain, client, image};

fn look(place: &str) -> Result<LyingImage, dhow_image::Error> {
    LyingImage::at(&place.parse::<Location>().unwrap(), &Platform::host())
}

fn in_file(path: &Path) -> Result<Option<LyingImage>, dhow_image::Error> {
    LyingImage::in_file(path, &Platform::host())
}

/// The paths in each layer, read where it lies.
fn paths(image: &LyingImage) -> Vec<Vec<String>> {
    let limits = Limits::default();
    let of = |extent| {
        let survey = Survey::passing(extent, &limits, &mut |_, _, _| Ok(())).unwrap();
        let entries = survey.entries.iter();
        entries
            .map(|surveyed| String::from_utf8(surveyed.entry.path.clone()).unwrap())
            .collect()
    };
    image.layers.iter().map(of).collect()
}

fn of_the_store(world: &World, name: &str) -> (ImageId, Vec<Vec<String>>) {
    let image = world.store.resolve(&world.registry.name(name)).unwrap();
    let layers = image.record.layers.iter().map(|diff| {
        let index = world.store.layers.layer(diff).unwrap().index().unwrap();
        let entries = index.entries();
        entries
            .map(|entry| String::from_utf8(entry.path).unwrap())
            .collect()
    });
    (image.id, layers.collect())
}

#[test]
fn an_image_is_the_same_in_every_place() {
    let world = World::new();
    world.registry.put_image("app", "1", &image("a"));
    world.pull("app:1").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let name = world.registry.name("app:1");
    let mut saved = Vec::new();
    world.store.save(&[&name], &mut saved).unwrap();
    std::fs::write(path("saved.tar"), &saved).unwrap();
    let from: Location = format!("docker://{name}").parse().unwrap();
    for to in [
        "oci:layout:x",
        "oci-archive:layout.tar:x",
        "docker-archive:docker.tar:app:1",
    ] {
        let (kind, rest) = to.split_once(':').unwrap();
        let to = format!("{kind}:{}", path(rest)).parse().unwrap();
        copy(&client(), &from, &to, &Copy::default(), &Silent).unwrap();
    }
    let wanted = of_the_store(&world, "app:1");
    let places = [
        format!("docker-archive:{}", path("saved.tar")),
        format!("docker-archive:{}:{name}", path("saved.tar")),
        format!("docker-archive:{}:app:1", path("docker.tar")),
        format!("oci:{}", path("layout")),
        format!("oci:{}:x", path("layout")),
        format!("oci-archive:{}", path("layout.tar")),
    ];
    for place in places {
        let found = look(&place).unwrap_or_else(|error| panic!("{place}: {}", chain(&error)));
        assert_eq!((found.image.id, paths(&found)), wanted, "{place}");
        let plain = place.contains("saved.tar");
        let digest = (!plain).then(|| image("a").digest());
        assert_eq!(found.image.record.manifest, digest, "{place}");
    }
    // A bare tag is no name.
    for (file, names) in [("saved.tar", 1), ("docker.tar", 1), ("layout.tar", 0)] {
        let found = in_file(Path::new(&path(file))).unwrap().unwrap();
        assert_eq!((found.image.id, paths(&found)), wanted, "{file}");
        assert_eq!(found.image.names.len(), names, "{file}: {:?}", found.image.names);
    }
}

/// A docker archive, with this for a list of images.
fn archive(image: &TinyImage, change: impl FnOnce(&mut serde_json::Value), layers: &[Layer]) -> Vec<u8> {
    archive_as(
        &format!("{}.json", Digest::of(&image.config).hex()),
        image,
        change,
        layers,
    )
}

/// The same with this for the name of the config.
fn archive_as(
    config: &str,
    image: &TinyImage,
    change: impl FnOnce(&mut serde_json::Value),
    layers: &[Layer],
) -> Vec<u8> {
    let names: Vec<String> = (0..layers.len())
        .map(|number| format!("{number}/layer.tar"))
        .collect();
    let mut list = json!([{"Config": config, "RepoTags": ["app:1"], "Layers": names}]);
    change(&mut list);
    let mut tar = Tar::new().file(config, 0o644, &image.config);
    for (name, layer) in names.iter().zip(layers) {
        tar = tar.file(name, 0o644, &layer.blob);
    }
    tar.file("manifest.json", 0o644, list.to_string().as_bytes())
        .finish()
}

#[test]
fn what_is_no_image_or_is_damaged_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.tar");
    let layers = [Layer::plain(Tar::new().file("a", 0o644, b"a").finish())];
    let image = TinyImage::docker(layers.to_vec());
    let look = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        in_file(&file).map_err(|error| error.kind())
    };
    let good = archive(&image, |_| {}, &layers);
    assert_eq!(look(&good).unwrap().unwrap().image.id, image.id());
    assert!(look(b"{\"bomFormat\": \"CycloneDX\"}").unwrap().is_none());
    assert!(look(b"").unwrap().is_none());
    let refused = |bytes: &[u8]| look(bytes).map(drop).unwrap_err();
    assert_eq!(refused(&gzip(&good)), ErrorKind::Unsupported);
    assert_eq!(
        refused(&Tar::new().file("a", 0o644, b"a").finish()),
        ErrorKind::InvalidArgument
    );
    // The layer is cut off.
    assert_eq!(refused(&good[..2500]), ErrorKind::DataLoss);
    // More layers than the config names, none of that name, and two images.
    let twice = [layers[0].clone(), layers[0].clone()];
    assert_eq!(
        refused(&archive(&image, |_| {}, &twice)),
        ErrorKind::InvalidArgument
    );
    let nowhere = |list: &mut serde_json::Value| list[0]["Layers"][0] = "../0/layer.tar".into();
    assert_eq!(refused(&archive(&image, nowhere, &layers)), ErrorKind::NotFound);
    let two = |list: &mut serde_json::Value| *list = json!([list[0], list[0]]);
    assert_eq!(refused(&archive(&image, two, &layers)), ErrorKind::NotFound);
    // The config is another one than its name says.
    let wrong = format!("{}.json", Digest::of(b"another").hex());
    assert_eq!(
        refused(&archive_as(&wrong, &image, |_| {}, &layers)),
        ErrorKind::DataLoss
    );
}
