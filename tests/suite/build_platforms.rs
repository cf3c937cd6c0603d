//! Builds for several platforms at once, and for systems that are not Linux.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::recipe::Recipe;
use crate::served::Served;
use crate::world::World;

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// An OCI layout on disk.
struct Layout(PathBuf);

impl Layout {
    fn place(&self, digest: &Value) -> PathBuf {
        let hex = digest.as_str().unwrap().trim_start_matches("sha256:");
        self.0.join("blobs/sha256").join(hex)
    }

    fn blob(&self, digest: &Value) -> Value {
        json(&self.place(digest))
    }

    /// The entries of the index of images.
    fn images(&self) -> Vec<Value> {
        let top = json(&self.0.join("index.json"));
        let index = self.blob(&top["manifests"][0]["digest"]);
        index["manifests"].as_array().unwrap().clone()
    }

    fn config(&self, entry: &Value) -> Value {
        let manifest = self.blob(&entry["digest"]);
        self.blob(&manifest["config"]["digest"])
    }
}

/// `os/architecture/variant` of an entry.
fn platform(entry: &Value) -> String {
    let part = |key: &str| entry["platform"][key].as_str().map(str::to_owned);
    let parts = [part("os"), part("architecture"), part("variant")];
    parts.into_iter().flatten().collect::<Vec<_>>().join("/")
}

fn layout(recipe: &Recipe, flags: &[&str], text: &str) -> Layout {
    let folder = recipe.world.path("layout");
    drop(fs::remove_dir_all(&folder));
    let output = format!("type=oci,dest={},tar=false", folder.display());
    recipe.build(&[&["-o", &output], flags].concat(), text).exits(0);
    Layout(folder)
}

fn names_in(tar: &[u8]) -> Vec<(String, String)> {
    use std::io::Read as _;
    let mut archive = tar::Archive::new(tar);
    let files = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (entry.path().unwrap().display().to_string(), text)
    });
    files.filter(|(name, _)| !name.ends_with('/')).collect()
}

#[test]
fn each_platform_has_its_folder_in_a_tree_and_in_a_tar() {
    let Some(recipe) = Recipe::new() else { return };
    recipe.files(&[
        ("amd64", "I am amd64"),
        ("arm", "I am arm"),
        ("s390x", "I am s390x"),
    ]);
    let text = "FROM scratch\nARG TARGETARCH\nARG TARGETPLATFORM\nLABEL target=$TARGETPLATFORM\nCOPY $TARGETARCH whoami\n";
    let flags = ["--platform", "windows/amd64,linux/arm,linux/s390x"];
    recipe.output(&flags, text).holds(&[
        ("windows_amd64/whoami", "I am amd64"),
        ("linux_arm_v7/whoami", "I am arm"),
        ("linux_s390x/whoami", "I am s390x"),
    ]);
    let flags = ["--platform", "windows/amd64,linux/arm/v6,linux/s390x"];
    let layout = layout(&recipe, &flags, text);
    let images = layout.images();
    let found: Vec<String> = images.iter().map(platform).collect();
    assert_eq!(found, ["windows/amd64", "linux/arm/v6", "linux/s390x"]);
    for entry in &images {
        let config = layout.config(entry);
        assert_eq!(config["os"], entry["platform"]["os"]);
        assert_eq!(config["architecture"], entry["platform"]["architecture"]);
        assert_eq!(config["config"]["Labels"]["target"], platform(entry).as_str());
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 1);
    }
    let text = "FROM scratch AS for-linux\nCOPY amd64 /linux\nFROM scratch AS for-darwin\nCOPY arm /darwin\nFROM for-$TARGETOS\n";
    let tar = recipe.build(&["-o", "-"], text).exits(0).bytes;
    assert_eq!(names_in(&tar), [("linux".to_owned(), "I am amd64".to_owned())]);
    let flags = ["--platform", "linux/amd64,darwin/amd64", "-o", "-"];
    let tar = recipe.build(&flags, text).exits(0).bytes;
    let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    assert_eq!(
        names_in(&tar),
        [
            pair("linux_amd64/linux", "I am amd64"),
            pair("darwin_amd64/darwin", "I am arm")
        ]
    );
}

#[test]
fn another_system_has_its_own_shell_and_runs_nothing_here() {
    let Some(recipe) = Recipe::new() else { return };
    let text = "FROM scratch\nENTRYPOINT foo bar\nCOPY Dockerfile .\n";
    let flags = ["--platform", "windows/amd64,linux/amd64"];
    let layout = layout(&recipe, &flags, text);
    let configs: Vec<Value> = layout
        .images()
        .iter()
        .map(|entry| layout.config(entry)["config"].clone())
        .collect();
    assert_eq!(
        configs[0]["Entrypoint"],
        serde_json::json!(["cmd", "/S", "/C", "foo bar"])
    );
    assert!(configs[0]["Env"].is_null(), "{}", configs[0]);
    assert_eq!(
        configs[1]["Entrypoint"],
        serde_json::json!(["/bin/sh", "-c", "foo bar"])
    );
    assert!(
        configs[1]["Env"][0]
            .as_str()
            .unwrap()
            .starts_with("PATH=/usr/local/sbin:")
    );
    let flags = ["--platform", "windows/amd64"];
    recipe.bad(&flags, "FROM scratch\nRUN dir\n", "emulation is not supported");
}

#[test]
fn nothing_at_all_is_an_image_for_each_platform_and_the_same_twice_is_one() {
    let Some(recipe) = Recipe::new() else { return };
    let both = ["--platform", "linux/arm64,linux/amd64"];
    let nothing = layout(&recipe, &both, "FROM scratch\n").images();
    let found: Vec<String> = nothing.iter().map(platform).collect();
    assert_eq!(found, ["linux/arm64", "linux/amd64"]);
    let flags = ["--platform", "linux/amd64,linux/amd64", "-t", "one"];
    recipe.build(&flags, "FROM busybox\n").exits(0);
    assert_eq!(recipe.world.inspect("one", "{{.Architecture}}"), "amd64");
    for flags in [&[][..], &both] {
        recipe.bad(flags, "FROM scratch\nCOPY badfile /\n", "\"/badfile\": not found");
    }
}

#[test]
fn a_layout_has_an_entry_for_each_name() {
    let Some(recipe) = Recipe::new() else { return };
    let text = "FROM scratch\nCOPY <<EOF /foo\nhello\nEOF\n";
    let names = "\"name=org/repo:tag1,org/repo:tag2\"";
    let folder = recipe.world.path("named");
    let output = format!("type=oci,dest={},tar=false,{names}", folder.display());
    recipe.build(&["-o", &output], text).exits(0);
    let tar = recipe.world.path("named.tar");
    let output = format!("type=oci,dest={},{names}", tar.display());
    recipe.build(&["-o", &output], text).exits(0);
    let files = names_in(&fs::read(&tar).unwrap());
    let index = files.iter().find(|(name, _)| name == "index.json").unwrap();
    for index in [
        json(&folder.join("index.json")),
        serde_json::from_str(&index.1).unwrap(),
    ] {
        let entries = index["manifests"].as_array().unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0]["digest"], entries[1]["digest"]);
        for (entry, tag) in entries.iter().zip(["tag1", "tag2"]) {
            let said = &entry["annotations"];
            assert_eq!(
                said["io.containerd.image.name"],
                format!("docker.io/org/repo:{tag}")
            );
            assert_eq!(said["org.opencontainers.image.ref.name"], tag);
        }
    }
}

/// Two files: the architecture, and what is never the same again.
const UNIQUE: &str = "FROM --platform=$BUILDPLATFORM busybox AS base\nARG TARGETARCH\n\
    RUN echo $TARGETARCH > arch && cat /proc/sys/kernel/random/uuid > unique\n\
    FROM scratch\nCOPY --from=base unique arch /\n";

#[test]
fn several_platforms_have_files_caches_and_provenance_as_one_has() {
    let Some(recipe) = Recipe::new() else { return };
    let world = &recipe.world;
    let registry = Served::start(&world.path("registry"));
    let name = registry.name("team/multi:1");
    let (iid, meta) = (world.path("iid"), world.path("meta"));
    let flags = [
        "--platform",
        "linux/amd64,linux/arm/v7",
        "-t",
        &name,
        "--push",
        "--cache-to",
        "type=inline",
        "--provenance=mode=max",
        "--build-arg",
        "FOO=bar",
        "--iidfile",
        &iid.display().to_string(),
        "--metadata-file",
        &meta.display().to_string(),
    ];
    recipe.build(&flags, UNIQUE).exits(0);
    let digest = json(&meta)["containerimage.digest"].clone();
    assert_eq!(fs::read_to_string(&iid).unwrap(), digest.as_str().unwrap());
    let seen = |folder: &str| {
        let layout = Layout(world.path(folder));
        let to = format!("oci:{}", layout.0.display());
        world
            .dhow(&["copy", "--all", &format!("docker://{name}"), &to])
            .exits(0);
        layout
    };
    let first = seen("first");
    let images = first.images();
    let found: Vec<String> = images.iter().map(platform).collect();
    assert_eq!(found.len(), 4, "{images:#?}");
    assert_eq!(found[..2], ["linux/amd64", "linux/arm/v7"]);
    for (image, about) in images[..2].iter().zip(&images[2..]) {
        assert_eq!(
            about["annotations"]["vnd.docker.reference.type"],
            "attestation-manifest"
        );
        assert_eq!(
            about["annotations"]["vnd.docker.reference.digest"],
            image["digest"]
        );
        let manifest = first.blob(&about["digest"]);
        let statement = first.blob(&manifest["layers"][0]["digest"]);
        let subject = format!(
            "sha256:{}",
            statement["subject"][0]["digest"]["sha256"].as_str().unwrap()
        );
        assert_eq!(image["digest"], subject.as_str());
        let request = &statement["predicate"]["buildDefinition"]["externalParameters"]["request"];
        assert_eq!(request["args"]["build-arg:FOO"], "bar");
    }
    // From the images alone, both are the same again.
    world.say("builder prune -af").exits(0);
    let again = [
        &flags[..4],
        &["--push", "--cache-from", &name, "--cache-to", "type=inline"],
    ]
    .concat();
    recipe.build(&again, UNIQUE).exits(0);
    let second = seen("second");
    let layers = |layout: &Layout| -> Vec<Value> {
        let images = layout.images();
        images[..2]
            .iter()
            .map(|entry| layout.blob(&entry["digest"])["layers"].clone())
            .collect()
    };
    assert_eq!(layers(&first), layers(&second));
}

#[test]
fn a_cache_of_several_platforms_travels_by_a_folder() {
    let Some(recipe) = Recipe::new() else { return };
    let world = &recipe.world;
    let platforms = ["--platform", "linux/amd64,linux/arm/v7"];
    let cache = world.path("cache");
    let to = format!("type=local,dest={},mode=max", cache.display());
    recipe
        .build(
            &[&platforms[..], &["-o", "type=cacheonly", "--cache-to", &to]].concat(),
            UNIQUE,
        )
        .exits(0);
    let unique = |folder: &str| {
        recipe
            .output(&platforms, UNIQUE)
            .text(&format!("{folder}/unique"))
    };
    let both = [unique("linux_amd64"), unique("linux_arm_v7")];
    world.say("builder prune -af").exits(0);
    let from = format!("type=local,src={}", cache.display());
    let out = recipe.output(&[&platforms[..], &["--cache-from", &from]].concat(), UNIQUE);
    assert_eq!(
        [out.text("linux_amd64/unique"), out.text("linux_arm_v7/unique")],
        both
    );
}

#[test]
fn annotations_go_to_the_index_its_entries_and_the_manifests_that_were_named() {
    let world = World::new().unwrap();
    let registry = Served::start(&world.path("registry"));
    let (name, layout) = (registry.name("team/said:1"), world.path("layout"));
    let oci = format!(
        "type=oci,dest={},tar=false,annotation-index.by=output",
        layout.display()
    );
    let mut args = vec!["build", "--platform", "linux/amd64,linux/arm64", "-t", &name];
    args.extend(["--push", "-o", &oci]);
    for said in [
        "all=1",
        "index,manifest[linux/arm64]:some=2",
        "manifest-descriptor[linux/amd64]:entry=3",
        "index-descriptor:top=4",
    ] {
        args.extend(["--annotation", said]);
    }
    args.push("-");
    world.feed(&args, "FROM scratch\nLABEL a=b\n").exits(0);
    let blob = |digest: &Value| -> Value {
        let hex = digest.as_str().unwrap().trim_start_matches("sha256:");
        serde_json::from_slice(&fs::read(layout.join("blobs/sha256").join(hex)).unwrap()).unwrap()
    };
    let top: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    assert_eq!(top["manifests"][0]["annotations"]["top"], "4");
    let written = blob(&top["manifests"][0]["digest"]);
    assert_eq!(written["annotations"], json!({ "some": "2", "by": "output" }));
    let pushed: Value = serde_json::from_str(&world.dhow(&["manifest", "inspect", &name]).ok()).unwrap();
    assert_eq!(pushed["annotations"], json!({ "some": "2" }));
    for index in [&written, &pushed] {
        let entries = index["manifests"].as_array().unwrap();
        assert_eq!(entries[0]["annotations"], json!({ "entry": "3" }));
        assert!(entries[1]["annotations"].is_null());
        assert_eq!(blob(&entries[0]["digest"])["annotations"], json!({ "all": "1" }));
        let arm = json!({ "all": "1", "some": "2" });
        assert_eq!(blob(&entries[1]["digest"])["annotations"], arm);
    }
    for said in [
        ["--annotation", "index:a=b"],
        ["--annotation", "manifest-descriptor:a=b"],
        ["-o", "type=oci,dest=none,annotation-index.a=b"],
    ] {
        let args = ["build", said[0], said[1], "-"];
        let refused = world.feed(&args, "FROM scratch\nLABEL a=b\n");
        refused.one_error(1).says("one image has no index");
    }
}
