//! Where a build's result goes.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use serde_json::Value;

use crate::served::Served;
use crate::world::{Ran, World};

const TEXT: &str = "FROM busybox AS base
RUN echo out > /result; mkdir -p /d/e; echo deep > /d/e/f; ln -s /etc/passwd /d/link; chmod 4750 /d/e/f
FROM scratch
COPY --from=base /result /result
COPY --from=base /d /d
CMD [\"/none\"]
";

fn build(world: &World, flags: &[&str]) -> Ran {
    let mut args = vec!["build", "--progress", "plain"];
    args.extend(flags);
    args.push("-");
    world.feed(&args, TEXT)
}

fn json(path: &std::path::Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_build_into_a_folder_leaves_files_and_no_image() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let before = world.say("images -aq").ok();
    let out = world.path("out");
    let text = out.display().to_string();
    build(&world, &["-o", &text]).exits(0);
    assert_eq!(fs::read_to_string(out.join("result")).unwrap(), "out\n");
    assert_eq!(fs::read_to_string(out.join("d/e/f")).unwrap(), "deep\n");
    assert_eq!(
        fs::metadata(out.join("d/e/f")).unwrap().permissions().mode() & 0o7777,
        0o750
    );
    // It is the caller's now, and must not run as its owner.
    assert_eq!(fs::metadata(out.join("result")).unwrap().uid(), 0);
    assert_eq!(
        fs::read_link(out.join("d/link")).unwrap().to_str(),
        Some("/etc/passwd")
    );
    assert_eq!(world.say("images -aq").ok(), before, "no image was asked for");
    // Again, beside what is there.
    fs::write(out.join("mine"), "kept").unwrap();
    build(&world, &["--output", &format!("type=local,dest={text}")]).exits(0);
    assert_eq!(fs::read_to_string(out.join("mine")).unwrap(), "kept");
    world.say("builder prune -af").exits(0);
    world.clean();
}

#[test]
fn a_build_into_a_folder_follows_no_link_out_of_it() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let outside = world.path("outside");
    fs::create_dir_all(outside.join("e")).unwrap();
    fs::write(outside.join("result"), "before").unwrap();
    let out = world.path("out");
    fs::create_dir(&out).unwrap();
    // Both a link of a folder's name and one of a file's, absolute and relative.
    symlink(&outside, out.join("d")).unwrap();
    symlink("../outside/result", out.join("result")).unwrap();
    let ran = build(&world, &["-o", &out.display().to_string()]);
    assert_eq!(
        fs::read_to_string(outside.join("result")).unwrap(),
        "before",
        "{ran:?}"
    );
    assert_eq!(
        crate::world::names(&outside.join("e")),
        Vec::<String>::new(),
        "{ran:?}"
    );
    assert!(!outside.join("link").exists(), "{ran:?}");
    // The same when the image brings the link first: /x leads out, and /x/y is below it in a later layer.
    let text = "FROM busybox AS a\nRUN mkdir /r && ln -s ../outside /r/x\nFROM scratch\nCOPY --from=a /r /\n";
    let out = world.path("out2");
    let flag = out.display().to_string();
    world.feed(&["build", "-o", &flag, "-"], text).exits(0);
    assert_eq!(fs::read_link(out.join("x")).unwrap().to_str(), Some("../outside"));
    build(&world, &["-o", &world.path("file").display().to_string()]).exits(0);
    fs::write(world.path("taken"), "a file").unwrap();
    build(&world, &["-o", &world.path("taken").display().to_string()])
        .exits(1)
        .says("taken");
}

#[test]
fn a_build_goes_to_standard_output_as_a_tar_and_to_several_places_at_once() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let ran = build(&world, &["-o", "-"]).exits(0);
    let listed = listing(&world, &ran.bytes);
    assert!(listed.contains("result") && listed.contains("d/e/f"), "{listed}");
    let (folder, tar, oci) = (world.path("o"), world.path("o.tar"), world.path("oci.tar"));
    let ran = build(
        &world,
        &[
            "-t",
            "many:1",
            "--load",
            "-o",
            &format!("type=local,dest={}", folder.display()),
            "-o",
            &format!("type=tar,dest={}", tar.display()),
            "-o",
            &format!("type=oci,dest={}", oci.display()),
            "-o",
            "type=cacheonly",
        ],
    );
    ran.exits(0).silent();
    assert!(folder.join("result").is_file());
    assert!(listing(&world, &fs::read(&tar).unwrap()).contains("d/e/f"));
    let id = world.say("images -q --no-trunc many:1").ok();
    assert!(id.starts_with("sha256:"), "{id}");
    world.say("rmi many:1").ok();
    let loaded = world.dhow(&["load", "-i", &oci.display().to_string()]).ok();
    assert!(loaded.contains("many:1"), "{loaded}");
    assert_eq!(world.say("images -q --no-trunc many:1").ok(), id);
    world
        .dhow(&["build", "-o", "-", "-o", "type=tar", "."])
        .one_error(1)
        .says("standard output");
    world.clean();
}

#[test]
fn an_archive_and_a_layout_hold_the_image_and_metadata_says_which() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let (oci, meta, iid) = (world.path("layout"), world.path("meta"), world.path("iid"));
    let output = format!("type=oci,dest={},tar=false,compression=gzip", oci.display());
    let before = world.say("images -aq").ok();
    build(
        &world,
        &[
            "-t",
            "arch:1",
            "-o",
            &output,
            "--annotation",
            "org.example.note=kept",
            "--metadata-file",
            &meta.display().to_string(),
            "--iidfile",
            &iid.display().to_string(),
        ],
    )
    .exits(0);
    assert_eq!(world.say("images -aq").ok(), before);
    let told = json(&meta);
    let index = json(&oci.join("index.json"));
    let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(told["containerimage.digest"], digest.as_str());
    assert_eq!(told["image.name"], "docker.io/library/arch:1");
    assert_eq!(
        told["containerimage.config.digest"],
        fs::read_to_string(&iid).unwrap().as_str()
    );
    assert_eq!(
        told["containerimage.descriptor"]["size"],
        index["manifests"][0]["size"]
    );
    let blob = |digest: &str| {
        oci.join("blobs/sha256")
            .join(digest.trim_start_matches("sha256:"))
    };
    let manifest = json(&blob(&digest));
    assert_eq!(manifest["annotations"]["org.example.note"], "kept");
    assert_eq!(manifest["config"]["digest"], told["containerimage.config.digest"]);
    let layer = &manifest["layers"][0];
    assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    let bytes = fs::read(blob(layer["digest"].as_str().unwrap())).unwrap();
    assert!(bytes.starts_with(&[0x1f, 0x8b]) && bytes.len() as u64 == layer["size"].as_u64().unwrap());
    let copied = format!("oci:{}", oci.display());
    let archive = world.path("docker.tar");
    world
        .dhow(&[
            "copy",
            &copied,
            &format!("docker-archive:{}:x:1", archive.display()),
        ])
        .exits(0);
    world.dhow(&["load", "-i", &archive.display().to_string()]).ok();
    assert_eq!(world.inspect("x:1", "{{.Id}}"), fs::read_to_string(&iid).unwrap());
    let docker = world.path("d.tar");
    build(
        &world,
        &["-o", &format!("type=docker,dest={},name=named", docker.display())],
    )
    .exits(0);
    assert!(
        world
            .dhow(&["load", "-i", &docker.display().to_string()])
            .ok()
            .contains("named:latest")
    );
}

#[test]
fn a_build_pushes_with_its_annotations_and_says_the_digest() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let registry = Served::start(&world.path("registry"));
    let (name, meta) = (registry.name("team/app:1"), world.path("meta"));
    let flags = [
        "-t",
        &name,
        "--push",
        "--annotation",
        "a.b=c",
        "--metadata-file",
        &meta.display().to_string(),
    ];
    build(&world, &flags).exits(0);
    let digest = json(&meta)["containerimage.digest"].as_str().unwrap().to_owned();
    let shown: Value = serde_json::from_str(&world.dhow(&["manifest", "inspect", &name]).ok()).unwrap();
    assert_eq!(shown["annotations"]["a.b"], "c");
    let pulled = World::new().unwrap();
    pulled
        .dhow(&["pull", &format!("{}@{digest}", registry.name("team/app"))])
        .exits(0);
    let other = registry.name("team/other:2");
    build(&world, &["-o", &format!("type=registry,name={other}")]).exits(0);
    pulled.dhow(&["pull", &other]).exits(0);
    assert_eq!(
        world.inspect(&other, "{{.Id}}"),
        pulled.inspect(&other, "{{.Id}}")
    );
    build(&world, &["--push"]).one_error(1).says("tag is needed");
    build(
        &world,
        &["-t", &registry.name("team/third:1"), "-o", "type=cacheonly"],
    )
    .exits(0);
    pulled.dhow(&["pull", &registry.name("team/third:1")]).exits(1);
}

#[test]
fn progress_as_raw_json_is_a_line_for_each_event() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let args = ["build", "--progress", "rawjson", "-t", "r", "-"];
    let ran = world.feed(&args, "FROM busybox\nRUN echo hello\n").exits(0);
    let lines: Vec<Value> = ran
        .stderr
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let log = lines
        .iter()
        .find_map(|line| line["logs"][0]["data"].as_str())
        .unwrap();
    assert_eq!(log, "aGVsbG8K");
    let done = lines
        .iter()
        .filter(|line| line["vertexes"][0]["completed"].is_string())
        .count();
    assert_eq!(done, 2, "{ran:?}");
    let ran = world.feed(&args, "FROM busybox\nRUN echo hello\n").exits(0);
    assert!(ran.stderr.contains("\"cached\":true"), "{ran:?}");
}

/// Names in a tar, by busybox of the image.
fn listing(world: &World, tar: &[u8]) -> String {
    let file = world.file("listed.tar", tar);
    let output = std::process::Command::new("tar")
        .arg("-tf")
        .arg(file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn several_platforms_give_an_index() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let text = "FROM --platform=$BUILDPLATFORM busybox AS maker
ARG TARGETARCH
RUN echo built for $TARGETARCH > /out
FROM scratch
COPY --from=maker /out /out
";
    let registry = Served::start(&world.path("registry"));
    let (name, meta, layout, local) = (
        registry.name("team/many:1"),
        world.path("meta"),
        world.path("layout"),
        world.path("local"),
    );
    let (oci, files) = (
        format!("type=oci,dest={},tar=false", layout.display()),
        format!("type=local,dest={}", local.display()),
    );
    let args = [
        "build",
        "--platform",
        "linux/amd64,linux/arm64",
        "-t",
        &name,
        "--push",
        "-o",
        &oci,
        "-o",
        &files,
        "--annotation",
        "a=b",
        "--metadata-file",
        &meta.display().to_string(),
        "-",
    ];
    let before = world.say("images -aq").ok();
    world.feed(&args, text).exits(0);
    assert_eq!(
        world.say("images -aq").ok(),
        before,
        "the store has one image for a name"
    );
    let machines = |index: &Value| -> Vec<String> {
        let manifests = index["manifests"].as_array().unwrap();
        let of = |entry: &Value| entry["platform"]["architecture"].as_str().unwrap().to_owned();
        manifests.iter().map(of).collect()
    };
    let pushed: Value = serde_json::from_str(&world.dhow(&["manifest", "inspect", &name]).ok()).unwrap();
    assert_eq!(machines(&pushed), ["amd64", "arm64"]);
    let top = json(&layout.join("index.json"))["manifests"][0]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let index = json(
        &layout
            .join("blobs/sha256")
            .join(top.trim_start_matches("sha256:")),
    );
    assert_eq!(machines(&index), ["amd64", "arm64"]);
    assert_eq!(json(&meta)["containerimage.descriptor"]["digest"], top.as_str());
    for machine in ["amd64", "arm64"] {
        let out = local.join(format!("linux_{machine}/out"));
        assert_eq!(fs::read_to_string(out).unwrap(), format!("built for {machine}\n"));
    }
    let far = World::new().unwrap();
    far.dhow(&["pull", "--platform", "linux/arm64", &name]).exits(0);
    assert_eq!(far.inspect(&name, "{{.Architecture}}"), "arm64");
    let load = ["build", "--platform", "linux/amd64,linux/arm64", "-t", "x", "-"];
    world.feed(&load, text).one_error(1).says("one image for a name");
    // A command for another machine cannot run here; s390x is emulated nowhere that tests run.
    let args = ["build", "--platform", "linux/s390x", "-o", "type=cacheonly", "-"];
    world
        .feed(&args, "FROM scratch\nRUN true\n")
        .exits(1)
        .says("emulation is not supported");
    world.feed(&args, "FROM scratch\nLABEL a=b\n").exits(0);
    world.clean();
}

#[test]
fn layers_are_pushed_in_the_compression_that_was_asked_for() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let registry = Served::start(&world.path("registry"));
    let name = registry.name("team/c:1");
    let text = "FROM scratch\nCOPY <<EOF /f\nsome text\nEOF\n";
    let kind = |options: &str, flags: &[&str]| {
        let output = format!("type=registry,name={name}{options}");
        let args = [&["build", "-o", &output], flags, &["-"]].concat();
        world.feed(&args, text).exits(0);
        let layout = world.path("layout");
        drop(fs::remove_dir_all(&layout));
        let to = format!("oci:{}", layout.display());
        world
            .dhow(&["copy", "--all", &format!("docker://{name}"), &to])
            .exits(0);
        let read = |digest: &Value| -> Value {
            let hex = digest.as_str().unwrap().trim_start_matches("sha256:");
            let bytes = fs::read(layout.join("blobs/sha256").join(hex)).unwrap();
            serde_json::from_slice(&bytes).unwrap()
        };
        let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        let mut manifest = read(&index["manifests"][0]["digest"]);
        if !manifest["manifests"].is_null() {
            manifest = read(&manifest["manifests"][0]["digest"]);
        }
        let kind = manifest["layers"][0]["mediaType"].as_str().unwrap();
        kind.trim_start_matches("application/vnd.oci.image.layer.v1.")
            .to_owned()
    };
    assert_eq!(kind(",compression=zstd", &[]), "tar+zstd");
    // It is there already, and stays as it is.
    assert_eq!(kind("", &[]), "tar+zstd");
    let forced = ",compression=uncompressed,force-compression=true";
    assert_eq!(kind(forced, &[]), "tar");
    let both = ["--platform", "linux/amd64,linux/arm64"];
    assert_eq!(
        kind(",compression=zstd,force-compression=true", &both),
        "tar+zstd"
    );
}
