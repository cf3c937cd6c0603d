//! Archives of App Container images, and of LXC and LXD.

use dhow_image::{Image, Import, Packing};
use dhow_layer::tar::Reader;
use dhow_reference::Reference;
use dhow_testkit::{Tar, gzip};
use dhow_types::ErrorKind;
use serde_json::json;

use crate::World;

pub(crate) const METADATA: &str = "architecture: x86_64
creation_date: 1704067200
expiry_date: 1735689600
properties:
  description: 'A small system: for tests'
  release: 7
templates:
  /etc/hostname:
    when: [create, copy]
    template: hostname.tpl
";

pub(crate) fn manifest() -> serde_json::Value {
    json!({
        "acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/app",
        "labels": [
            {"name": "os", "value": "linux"}, {"name": "arch", "value": "aarch64"},
            {"name": "version", "value": "1.2"}
        ],
        "app": {
            "exec": ["/bin/app", "--serve"], "user": "7", "group": "8", "workingDirectory": "/srv",
            "environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "x=y"}],
            "mountPoints": [{"name": "data", "path": "/data", "readOnly": false}],
            "ports": [
                {"name": "web", "protocol": "tcp", "port": 80},
                {"name": "many", "protocol": "udp", "port": 4000, "count": 2}
            ],
            "isolators": [{"name": "resource/memory", "value": {"limit": "1G"}}]
        },
        "annotations": [
            {"name": "created", "value": "2015-02-18T12:34:01Z"}, {"name": "authors", "value": "somebody"}
        ]
    })
}

pub(crate) fn root(tar: Tar) -> Tar {
    tar.directory("rootfs/", 0o755)
        .directory("rootfs/bin/", 0o755)
        .file("rootfs/bin/app", 0o755, b"program")
        .hardlink("rootfs/bin/same", "rootfs/bin/app")
        .symlink("rootfs/sbin", "bin")
}

fn import(world: &World, tar: &[u8], how: &Import) -> Result<(Image, Vec<String>), dhow_image::Error> {
    let named = Import {
        tags: vec![Reference::parse("made:1").unwrap()],
        ..how.clone()
    };
    let imported = world.store.import(tar, &named)?;
    let image = world.store.resolve("made:1")?;
    assert_eq!(image.id, imported.image);
    Ok((image, imported.left_out))
}

/// Names and links of the one layer of an image.
fn names(world: &World, image: &Image) -> Vec<String> {
    let mut archive = Vec::new();
    world.store.save(&[&image.id.to_string()], &mut archive).unwrap();
    let mut outer = Reader::new(archive.as_slice());
    let layer = format!("blobs/sha256/{}", image.config.rootfs.diff_ids[0].0.hex());
    while let Some(entry) = outer.next_entry().unwrap() {
        if entry.path != layer.as_bytes() {
            continue;
        }
        let mut names = Vec::new();
        let mut inner = Reader::new(&mut outer);
        while let Some(entry) = inner.next_entry().unwrap() {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            names.push(
                format!("{} {}", text(&entry.path), text(&entry.link))
                    .trim()
                    .to_owned(),
            );
        }
        return names;
    }
    panic!("the archive has no {layer}");
}

#[test]
fn an_app_container_image_becomes_an_image_with_its_settings() {
    let world = World::new();
    let manifest = manifest().to_string();
    // As the tools of its time write it: the manifest first, or behind everything.
    let first = root(Tar::new().file("manifest", 0o644, manifest.as_bytes())).finish();
    let last = root(Tar::new())
        .file("manifest", 0o644, manifest.as_bytes())
        .finish();
    for tar in [first, gzip(&last)] {
        let (image, left_out) = import(&world, &tar, &Import::default()).unwrap();
        let run = &image.config.config;
        assert_eq!(run.entrypoint.as_deref().unwrap(), ["/bin/app", "--serve"]);
        assert_eq!(
            (run.cmd.as_ref(), run.user.as_str(), run.working_dir.as_str()),
            (None, "7:8", "/srv")
        );
        assert_eq!(run.env, ["A=1", "B=x=y"]);
        assert_eq!(run.volumes.keys().collect::<Vec<_>>(), ["/data"]);
        let ports: Vec<_> = run.exposed_ports.keys().collect();
        assert_eq!(ports, ["4000/udp", "4001/udp", "80/tcp"]);
        assert_eq!(run.labels["org.opencontainers.image.title"], "example.com/app");
        assert_eq!(run.labels["org.opencontainers.image.version"], "1.2");
        assert_eq!(run.labels["org.opencontainers.image.authors"], "somebody");
        assert_eq!(image.config.created.as_deref(), Some("2015-02-18T12:34:01Z"));
        assert_eq!(image.config.platform().to_string(), "linux/arm64");
        assert_eq!(left_out, ["isolator resource/memory"]);
        assert_eq!(
            names(&world, &image),
            ["", "bin", "bin/app", "bin/same bin/app", "sbin bin"]
        );
    }
    world.assert_clean();
}

#[test]
fn a_unified_tarball_of_lxd_becomes_an_image_that_boots() {
    let world = World::new();
    let unified = |init: &str| {
        let tar = Tar::new()
            .directory("./", 0o755)
            .file("./metadata.yaml", 0o644, METADATA.as_bytes())
            .directory("./templates/", 0o755)
            .file("./templates/hostname.tpl", 0o644, b"{{ container.name }}");
        root(tar).symlink("rootfs/usr/sbin/init", init).finish()
    };
    let (image, left_out) = import(&world, &unified("../lib/systemd/systemd"), &Import::default()).unwrap();
    let run = &image.config.config;
    assert_eq!(run.cmd.as_deref().unwrap(), ["/sbin/init"]);
    assert_eq!(run.stop_signal.as_deref(), Some("SIGRTMIN+3"));
    assert_eq!(
        run.labels["org.opencontainers.image.description"],
        "A small system: for tests"
    );
    assert_eq!(run.labels["lxd.release"], "7");
    assert_eq!(image.config.created.as_deref(), Some("2024-01-01T00:00:00Z"));
    assert_eq!(image.config.platform().to_string(), "linux/amd64");
    assert_eq!(left_out, ["template /etc/hostname"]);
    assert!(
        !names(&world, &image).iter().any(|name| name.contains("template")),
        "templates stay out"
    );
    let (image, _) = import(&world, &unified("/bin/busybox"), &Import::default()).unwrap();
    assert_eq!(image.config.config.stop_signal.as_deref(), Some("SIGPWR"));
    world.assert_clean();
}

#[test]
fn a_bomb_in_an_archive_is_refused() {
    let world = World::new();
    let tar = root(Tar::new().file("manifest", 0o644, manifest().to_string().as_bytes()))
        .file("rootfs/zeros", 0o644, &vec![0; 32 << 20])
        .finish();
    let mut how = Import::default();
    (how.limits.ratio_free, how.limits.ratio) = (8 << 20, 50);
    let error = import(&world, &gzip(&tar), &how).unwrap_err();
    assert!(format!("{error:?}").contains("decompression bomb"), "{error:?}");
    world.assert_clean();
    // What is not compressed is none.
    import(&world, &tar, &how).unwrap();
}

#[test]
fn what_a_request_sets_wins_over_the_archive() {
    let world = World::new();
    let tar = root(Tar::new().file("manifest", 0o644, manifest().to_string().as_bytes())).finish();
    let how = Import {
        config: dhow_oci::RunConfig {
            cmd: Some(vec!["--other".into()]),
            env: vec!["A=2".into()],
            user: "root".into(),
            ..dhow_oci::RunConfig::default()
        },
        platform: Some("linux/amd64".parse().unwrap()),
        created: Some("2024-05-05T00:00:00Z".into()),
        ..Import::default()
    };
    let (image, _) = import(&world, &tar, &how).unwrap();
    let run = &image.config.config;
    assert_eq!(run.env, ["B=x=y", "A=2"]);
    assert_eq!(run.user, "root");
    assert_eq!(run.cmd.as_deref().unwrap(), ["--other"]);
    assert_eq!(run.entrypoint.as_deref().unwrap(), ["/bin/app", "--serve"]);
    assert_eq!(image.config.platform().to_string(), "linux/amd64");
    assert_eq!(image.config.created.as_deref(), Some("2024-05-05T00:00:00Z"));
}

#[test]
fn what_is_none_of_them_is_said_and_plain_is_taken_as_it_is() {
    let world = World::new();
    let refused = |tar: &[u8], packing: Packing| {
        let how = Import {
            packing,
            ..Import::default()
        };
        let error = import(&world, tar, &how).unwrap_err();
        world.assert_clean();
        (error.kind(), error.to_string())
    };
    let bare = root(Tar::new()).finish();
    let (kind, message) = refused(&bare, Packing::Auto);
    assert_eq!(kind, ErrorKind::InvalidArgument);
    assert!(
        message.contains("neither of `manifest` and `metadata.yaml`"),
        "{message}"
    );
    let more = root(Tar::new()).file("etc/passwd", 0o644, b"").finish();
    let (kind, message) = refused(&more, Packing::Auto);
    assert_eq!(kind, ErrorKind::InvalidArgument);
    assert!(message.contains("\"etc/passwd\" beside `rootfs`"), "{message}");
    // A link to what is beside the root file system.
    let outside = Tar::new()
        .directory("rootfs/", 0o755)
        .hardlink("rootfs/x", "manifest")
        .finish();
    assert_eq!(refused(&outside, Packing::Aci).0, ErrorKind::InvalidArgument);
    for (change, word) in [
        (
            json!({"dependencies": [{"imageName": "example.com/base"}]}),
            "example.com/base",
        ),
        (json!({"pathWhitelist": ["/bin/app"]}), "pathWhitelist"),
        (json!({"acKind": "PodManifest"}), "PodManifest"),
        (
            json!({"app": {"exec": [], "user": "0", "group": "0", "ports": [{"name": "x", "port": 65535, "count": 2}]}}),
            "2 ports",
        ),
        (
            json!({"app": {"exec": [], "user": "0", "group": "0", "ports": [{"name": "x", "port": 1, "count": 4_000_000_000_u32}]}}),
            "ports",
        ),
        (json!({"labels": 7}), "`manifest`"),
    ] {
        let mut manifest = manifest();
        manifest
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let tar = root(Tar::new().file("manifest", 0o644, manifest.to_string().as_bytes())).finish();
        let message = refused(&tar, Packing::Auto).1;
        assert!(message.contains(word), "{message}");
    }
    // Nine times nine and so on: aliases that grow without end.
    let mut bomb = "architecture: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for step in 1..30 {
        let list = vec![format!("*a{}", step - 1); 9].join(", ");
        bomb.push_str(&format!("k{step}: &a{step} [{list}]\n"));
    }
    for yaml in [bomb.as_str(), "architecture: [", "just words", "a: b"] {
        let tar = root(Tar::new().file("metadata.yaml", 0o644, yaml.as_bytes())).finish();
        assert_eq!(
            refused(&tar, Packing::Auto).0,
            ErrorKind::InvalidArgument,
            "{yaml:.40}"
        );
    }
    let plain = Import {
        packing: Packing::Plain,
        ..Import::default()
    };
    let (image, _) = import(&world, &bare, &plain).unwrap();
    assert!(names(&world, &image).contains(&"rootfs/bin/app".to_owned()));
}
