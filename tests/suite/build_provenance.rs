//! What a build says of an image beside it.

use std::fs;

use serde_json::Value;

use crate::served::Served;
use crate::world::{Ran, World};

fn build(world: &World, flags: &[&str]) -> Ran {
    let mut args = vec!["build", "--progress", "plain", "--build-arg", "COLOUR=red"];
    args.extend(flags);
    args.push("-");
    let text = "FROM busybox\nARG COLOUR\nRUN --mount=type=secret,id=s echo $COLOUR > /c\n";
    world.feed(&args, text)
}

/// The statements of an image as `image inspect` lists them.
fn attested(world: &World, image: &str) -> usize {
    let text = world.dhow(&["image", "inspect", image]).ok();
    let images: Value = serde_json::from_str(&text).unwrap();
    images[0]["Manifests"].as_array().map_or(0, Vec::len)
}

/// The index, the image's manifest and the statement of an OCI layout on disk.
fn read(layout: &std::path::Path) -> (Value, Value, Value) {
    let json =
        |path: &std::path::Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let blob = |digest: &Value| {
        let hex = digest.as_str().unwrap().trim_start_matches("sha256:").to_owned();
        json(&layout.join("blobs/sha256").join(hex))
    };
    let mut index = json(&layout.join("index.json"));
    if index["manifests"][0]["mediaType"]
        .as_str()
        .unwrap()
        .contains("index")
    {
        index = blob(&index["manifests"][0]["digest"]);
    }
    let is_about =
        |entry: &&Value| entry["annotations"]["vnd.docker.reference.type"] == "attestation-manifest";
    let entries = index["manifests"].as_array().unwrap().clone();
    let about = entries.iter().find(is_about).unwrap().clone();
    let image = entries.iter().find(|entry| !is_about(entry)).unwrap().clone();
    assert_eq!(
        about["annotations"]["vnd.docker.reference.digest"],
        image["digest"]
    );
    assert_eq!(about["platform"]["os"], "unknown");
    let manifest = blob(&about["digest"]);
    let layer = &manifest["layers"][0];
    assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
    assert_eq!(
        layer["annotations"]["in-toto.io/predicate-type"],
        "https://slsa.dev/provenance/v1"
    );
    let statement = blob(&layer["digest"]);
    (index, image, statement)
}

#[test]
fn an_image_has_its_provenance_when_it_is_asked_for() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    build(&world, &["-t", "p:1"]).exits(0);
    assert_eq!(attested(&world, "p:1"), 0, "none by default");
    let registry = Served::start(&world.path("registry"));
    let name = registry.name("team/p:1");
    let (meta, token) = (world.path("meta"), world.file("token", "s3cr3t"));
    let flags = [
        "-t",
        &name,
        "--push",
        "--provenance=mode=max,builder-id=https://ci.example/7",
        "--secret",
        &format!("id=s,src={}", token.display()),
        "--metadata-file",
        &meta.display().to_string(),
    ];
    build(&world, &flags).exits(0);
    assert_eq!(attested(&world, &name), 1);
    let layout = world.path("layout");
    let to = format!("oci:{}", layout.display());
    world
        .dhow(&["copy", "--all", &format!("docker://{name}"), &to])
        .exits(0);
    let (_, image, statement) = read(&layout);
    let subject = &statement["subject"][0];
    let digest = subject["digest"]["sha256"].as_str().unwrap();
    assert_eq!(
        image["digest"].as_str().unwrap(),
        format!("sha256:{digest}"),
        "it is about what was pushed"
    );
    assert!(
        subject["name"].as_str().unwrap().starts_with("pkg:docker/"),
        "{subject}"
    );
    let definition = &statement["predicate"]["buildDefinition"];
    let request = &definition["externalParameters"]["request"];
    assert_eq!(request["args"]["build-arg:COLOUR"], "red");
    assert_eq!(request["secrets"][0]["id"], "s");
    assert!(
        definition["resolvedDependencies"][0]["uri"]
            .as_str()
            .unwrap()
            .starts_with("pkg:docker/busybox@latest")
    );
    assert_eq!(
        statement["predicate"]["runDetails"]["builder"]["id"],
        "https://ci.example/7"
    );
    assert!(!statement.to_string().contains("s3cr3t"));
    let told: Value = serde_json::from_slice(&fs::read(&meta).unwrap()).unwrap();
    let pulled = World::new().unwrap();
    let pinned = format!(
        "{}@{}",
        registry.name("team/p"),
        told["containerimage.digest"].as_str().unwrap()
    );
    pulled.dhow(&["pull", &pinned]).exits(0);
    assert_eq!(attested(&pulled, &pinned), 1);
    // In an archive it goes along; least is least.
    let archive = world.path("oci");
    let output = format!("type=oci,dest={},tar=false", archive.display());
    build(&world, &["-t", "p:2", "--load", "-o", &output, "--provenance"]).exits(0);
    let (_, _, least) = read(&archive);
    assert!(!least.to_string().contains("COLOUR"), "{least}");
    build(&world, &["-t", "p:2", "--attest", "type=provenance,mode=max"]).exits(0);
    assert_eq!(
        attested(&world, "p:2"),
        1,
        "the newer takes the place of the older"
    );
    build(&world, &["-o", &output, "--provenance"])
        .one_error(1)
        .says("--tag");
    build(&world, &["--attest", "type=vex"])
        .one_error(1)
        .says("vex");
    world.clean();
}
