//! What a build says of an image beside it.

use std::fs;

use serde_json::Value;

use crate::recipe::Recipe;
use crate::served::Served;
use crate::web::{Page, Web};
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
    said(layout, PROVENANCE)
}

pub(crate) const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

/// The same with the statement of another kind.
pub(crate) fn said(layout: &std::path::Path, predicate: &str) -> (Value, Value, Value) {
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
    let layers = manifest["layers"].as_array().unwrap();
    let layer = layers
        .iter()
        .find(|layer| layer["annotations"]["in-toto.io/predicate-type"] == predicate)
        .unwrap_or_else(|| panic!("{manifest}"));
    assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
    let statement = blob(&layer["digest"]);
    assert_eq!(statement["predicateType"], predicate);
    (index, image, statement)
}

#[test]
fn what_is_in_an_image_is_said_beside_it() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let registry = Served::start(&world.path("registry"));
    let text = "FROM busybox\nCOPY <<EOF /var/lib/dpkg/status\nPackage: zebra\nStatus: install ok installed\n\
                Architecture: all\nVersion: 1.2-3\nDescription: stripes\nEOF\n";
    for (tag, flags, several) in [
        ("one", &["--sbom", "--provenance"][..], false),
        (
            "two",
            &["--attest", "type=sbom", "--platform", "linux/amd64,linux/arm64"],
            true,
        ),
    ] {
        let name = registry.name(&format!("team/s:{tag}"));
        let args = [&["build", "--push", "-t", &name], flags, &["-"]].concat();
        // Of another machine there is no busybox here.
        let text = if several {
            text.replace("FROM busybox", "FROM scratch")
        } else {
            text.to_owned()
        };
        world.feed(&args, text).exits(0);
        let layout = world.path(tag);
        let to = format!("oci:{}", layout.display());
        world
            .dhow(&["copy", "--all", &format!("docker://{name}"), &to])
            .exits(0);
        let (index, image, statement) = said(&layout, "https://spdx.dev/Document");
        let hex = statement["subject"][0]["digest"]["sha256"].as_str().unwrap();
        assert_eq!(image["digest"], format!("sha256:{hex}"));
        let document = &statement["predicate"];
        assert_eq!(document["spdxVersion"], "SPDX-2.3");
        let packages = document["packages"].as_array().unwrap();
        let zebra = packages
            .iter()
            .find(|package| package["name"] == "zebra")
            .unwrap();
        assert_eq!(zebra["versionInfo"], "1.2-3");
        assert_eq!(
            index["manifests"].as_array().unwrap().len(),
            if several { 4 } else { 2 }
        );
        if !several {
            said(&layout, PROVENANCE);
        }
    }
}

/// The Dockerfile of `build`: bytes, as BuildKit has them.
const DOCKERFILE_IN_BASE64: &str =
    "RlJPTSBidXN5Ym94CkFSRyBDT0xPVVIKUlVOIC0tbW91bnQ9dHlwZT1zZWNyZXQsaWQ9cyBlY2hvICRDT0xPVVIgPiAvYwo=";

fn recorded(statement: &Value) -> &Value {
    let metadata = &statement["predicate"]["runDetails"]["metadata"]["buildkit_metadata"];
    &metadata["source"]["infos"][0]["data"]
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
    assert_eq!(recorded(&statement), DOCKERFILE_IN_BASE64);
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
    build(&world, &["--attest", "type=vex"]).one_error(1).says("vex");
    world.clean();
}

#[test]
fn sources_from_elsewhere_are_among_what_an_image_was_made_of() {
    let Some(recipe) = Recipe::new() else { return };
    let world = &recipe.world;
    let registry = Served::start(&world.path("registry"));
    let web = Web::start();
    let page = web.put("/page", Page::new("page"));
    let made = |folder: &str, flags: &[&str], context: Option<&str>, text: &str| -> Value {
        let name = registry.name(&format!("team/{folder}:1"));
        let flags = [&["--push", "-t", &name, "--provenance"], flags].concat();
        let ran = match context {
            Some(context) => recipe.call(&flags, context),
            None => recipe.build(&flags, text),
        };
        ran.exits(0);
        let layout = world.path(folder);
        let to = format!("oci:{}", layout.display());
        world
            .dhow(&["copy", "--all", &format!("docker://{name}"), &to])
            .exits(0);
        let (_, _, statement) = read(&layout);
        statement["predicate"]["buildDefinition"].clone()
    };
    let layout = world.path("base");
    let output = format!("type=oci,dest={},tar=false", layout.display());
    recipe
        .build(&["-t", "b:1", "-o", &output], "FROM busybox\n")
        .exits(0);
    let context = format!("foo=oci-layout://{}:1", layout.display());
    let text = format!("FROM foo\nADD {page} /\n");
    let made_of = made("layout", &["--build-context", &context], None, &text);
    let all = made_of["resolvedDependencies"].as_array().unwrap();
    assert_eq!(all.len(), 2, "{all:#?}");
    assert_eq!(all[0]["uri"], page.as_str());
    let hex = dhow_types::Digest::of(b"page").hex();
    assert_eq!(all[0]["digest"]["sha256"], hex.as_str());
    assert!(
        all[1]["uri"]
            .as_str()
            .unwrap()
            .starts_with("pkg:oci/base?digest=")
    );
    assert_eq!(
        made_of["externalParameters"]["request"]["locals"][0]["name"],
        "context"
    );
    let Some(repository) = crate::build_remote::on_web(&recipe, &web) else {
        return;
    };
    let secret = repository.url.replace("http://", "http://user:hush@");
    let made_of = made("git", &[], Some(&format!("{secret}#base")), "");
    assert!(!made_of.to_string().contains("hush"), "{made_of}");
    let uri = format!("{}#base", repository.url);
    assert_eq!(made_of["externalParameters"]["configSource"]["uri"], uri.as_str());
    assert!(made_of["externalParameters"]["request"]["locals"].is_null());
    let all = made_of["resolvedDependencies"].as_array().unwrap();
    assert_eq!(all.len(), 1, "{all:#?}");
    assert_eq!(all[0]["uri"], uri.as_str());
    assert_eq!(all[0]["digest"]["sha1"].as_str().unwrap().len(), 40);
}

#[test]
fn files_have_what_is_said_of_them_beside_them() {
    let Some(recipe) = Recipe::new() else { return };
    let text = "FROM scratch\nARG TARGETARCH\nCOPY <<EOF /sub/$TARGETARCH\nok\nEOF\n";
    let made = |options: &str, flags: &[&str]| {
        let folder = recipe.world.path("files");
        drop(fs::remove_dir_all(&folder));
        let output = format!("type=local,dest={}{options}", folder.display());
        let flags = [&["-o", &output, "--provenance=mode=max"], flags].concat();
        recipe.build(&flags, text).exits(0);
        folder
    };
    let one = ["--platform", "linux/amd64"];
    let both = ["--platform", "linux/amd64,linux/arm64"];
    let hex = dhow_types::Digest::of(b"ok\n").hex();
    for (options, flags, name, file) in [
        ("", one, "provenance.json", "amd64"),
        (
            ",platform-split=true",
            one,
            "linux_amd64/provenance.json",
            "amd64",
        ),
        ("", both, "linux_arm64/provenance.json", "arm64"),
        (
            ",platform-split=false",
            both,
            "provenance.linux_arm64.json",
            "arm64",
        ),
    ] {
        let folder = made(options, &flags);
        let text = fs::read(folder.join(name)).unwrap();
        let statement: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(statement["predicateType"], PROVENANCE);
        assert_eq!(statement["subject"][0]["name"], format!("sub/{file}"));
        assert_eq!(statement["subject"][0]["digest"]["sha256"], hex.as_str());
        let split = name.split_once('/').map_or("", |(folder, _)| folder);
        let kept = fs::read(folder.join(split).join("sub").join(file)).unwrap();
        assert_eq!(kept, b"ok\n");
    }
    let folder = made("", &["--sbom", "--provenance=false"]);
    assert!(folder.join("sbom.spdx.json").exists() && !folder.join("provenance.json").exists());
}
