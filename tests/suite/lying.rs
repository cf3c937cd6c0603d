//! Images that are looked at where they lie: what is found is what is found after a load, and nothing is kept.

use std::fs;

use serde_json::{Value, json};

use crate::security::{chain, json_of};
use crate::world::World;

fn path(world: &World, name: &str) -> String {
    world.path(name).display().to_string()
}

/// What is said of an image, but for what it was called.
fn said(world: &World, verb: &[&str], target: &str) -> Value {
    let mut document = json_of(world, &[verb, &["--format", "json", target]].concat());
    let one = if document.is_array() {
        &mut document[0]
    } else {
        &mut document
    };
    for field in ["Name", "Target"] {
        one.as_object_mut().unwrap().remove(field);
    }
    // Whom an image derives from is known of those that are here.
    for finding in one["Vulnerabilities"].as_array_mut().into_iter().flatten() {
        for field in ["BroughtBy", "FixAt"] {
            finding.as_object_mut().unwrap().remove(field);
        }
    }
    one.clone()
}

/// The image `app` of [`chain`] in every form, by the arguments that name it.
fn places(world: &World) -> Vec<String> {
    world.dhow(&["save", "-o", &path(world, "app.tar"), "app"]).ok();
    world.file("Dockerfile", "FROM app\n");
    let folder = path(world, "");
    for (output, compression) in [
        ("gzip.tar", "gzip"),
        ("zstd.tar", "zstd"),
        ("plain.tar", "uncompressed"),
    ] {
        let output = path(world, output);
        let wanted = format!("type=oci,dest={output},compression={compression},force-compression=true");
        world
            .dhow(&["build", "-q", "--network", "none", "--output", &wanted, &folder])
            .exits(0);
    }
    let folder = path(world, "layout");
    fs::create_dir(&folder).unwrap();
    let unpacked = std::process::Command::new("tar")
        .args(["-xf", &path(world, "gzip.tar"), "-C", &folder])
        .status();
    assert!(unpacked.unwrap().success());
    vec![
        path(world, "app.tar"),
        format!("docker-archive:{}:app", path(world, "app.tar")),
        path(world, "gzip.tar"),
        format!("oci-archive:{}", path(world, "zstd.tar")),
        path(world, "plain.tar"),
        format!("oci:{folder}"),
    ]
}

#[test]
fn an_archive_says_what_the_image_says_and_leaves_nothing() {
    let Some(world) = chain() else { return };
    let places = places(&world);
    let elsewhere = World::anyone();
    let data = path(&world, "osv.json");
    elsewhere.dhow(&["scan", "import", &data]).exits(0);
    let wanted = |verb: &[&str]| said(&world, verb, "app");
    let (sbom, scan) = (wanted(&["sbom"]), wanted(&["scan"]));
    assert_eq!(sbom["Packages"].as_array().unwrap().len(), 4);
    assert_eq!(scan["Vulnerabilities"].as_array().unwrap().len(), 2);
    for place in &places {
        for (flags, wanted) in [
            (&["sbom"][..], &sbom),
            (&["sbom", "--verify"], &sbom),
            (&["scan"], &scan),
        ] {
            let found = said(&elsewhere, flags, place);
            let of_build = !place.contains("app.tar");
            for (key, value) in wanted.as_object().unwrap() {
                // A build writes another config.
                if key != "ID" || !of_build {
                    assert_eq!(&found[key], value, "{place} {flags:?}: {key}");
                }
            }
        }
    }
    let root = elsewhere.root();
    assert!(!root.join("cache/inventory").exists());
    for folder in ["layers", "blobs", "tmp", "trash"] {
        let found = std::process::Command::new("find")
            .arg(root.join(folder))
            .args(["-type", "f"])
            .output();
        assert_eq!(String::from_utf8_lossy(&found.unwrap().stdout), "", "{folder}");
    }
    assert_eq!(elsewhere.say("images -q").ok(), "");
}

#[test]
fn an_archive_that_lies_of_its_layers_is_told_when_it_is_asked_for() {
    let Some(world) = chain() else { return };
    let archive = path(&world, "app.tar");
    world.dhow(&["save", "-o", &archive, "app"]).ok();
    let mut bytes = fs::read(&archive).unwrap();
    let name = b"\"name\":\"left";
    let at = bytes.windows(name.len()).position(|text| text == name).unwrap() + name.len() - 4;
    bytes[at..at + 4].copy_from_slice(b"soft");
    fs::write(&archive, &bytes).unwrap();
    // What is found is what is there.
    world.dhow(&["sbom", &archive]).exits(0).prints("soft-pad");
    for verb in ["sbom", "scan"] {
        world
            .dhow(&[verb, "--verify", &archive])
            .exits(1)
            .says("but its bytes are sha256:");
    }
    // As a load says that has not the layer already.
    let elsewhere = World::anyone();
    elsewhere
        .dhow(&["load", "-i", &archive])
        .exits(1)
        .says("its bytes are sha256:");
}

#[test]
fn what_cannot_be_looked_at_where_it_lies_says_so() {
    let Some(world) = chain() else { return };
    let archive = path(&world, "both.tar");
    world.dhow(&["save", "-o", &archive, "app", "other"]).ok();
    world
        .dhow(&["sbom", &archive])
        .exits(1)
        .says("it has app:latest, other:latest");
    let other = format!("docker-archive:{archive}:other");
    world.dhow(&["sbom", &other]).exits(0).prints("libssl3");
    let none = format!("docker-archive:{archive}:none");
    world
        .dhow(&["scan", &none])
        .exits(1)
        .says("no single image named none");
    for vex in ["attested", "embedded"] {
        let mut words = vec!["scan", "--vex", vex];
        let key = path(&world, "key");
        if vex == "attested" {
            words.extend(["--key", &key]);
        }
        words.push(&other);
        world.dhow(&words).exits(1).says("load it first");
    }
    world
        .dhow(&["why", "CVE-2026-2", &other])
        .exits(1)
        .says("load it first");
    let folder = path(&world, "folder");
    fs::create_dir(&folder).unwrap();
    world
        .dhow(&["sbom", "--verify", &folder])
        .exits(1)
        .says("is none");
    world
        .dhow(&["sbom", "--platform", "linux/arm64", "app"])
        .exits(1)
        .says("--platform is for");
    let arm = format!("oci-archive:{archive}");
    world.dhow(&["sbom", &arm]).exits(1).says("several images");
    world.file("empty.tar", json!({}).to_string());
    world
        .dhow(&["sbom", &path(&world, "empty.tar")])
        .exits(1)
        .says("neither CycloneDX nor SPDX");
}
