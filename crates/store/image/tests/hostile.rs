//! Every misbehaviour gives one clear error, and leaves the store clean.

use std::time::Duration;

use dhow_oci::media_type;
use dhow_testkit::{Fault, Layer, Tar, TinyImage, gzip};
use dhow_types::{Digest, ErrorKind};
use serde_json::json;

use crate::{World, base, chain, image, layer};

/// The image that the faults happen to.
fn victim(world: &World) -> TinyImage {
    let image = TinyImage::oci(vec![base(), layer("big", &noise(200_000))]);
    world.registry.put_image("app", "1", &image);
    image
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(length)
    .collect()
}

/// Pulls, wants a failure of this kind that says these words, and a clean store without the image.
fn refused(world: &World, name: &str, kind: ErrorKind, words: &[&str]) {
    let error = world.pull(name).unwrap_err();
    let text = chain(&error);
    assert_eq!(error.kind(), kind, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(text.contains(&world.registry.host()), "says on what: {text}");
    assert!(world.store.list().unwrap().is_empty());
    world.assert_clean();
}

/// Faults of one layer that no retry mends.
#[test]
fn a_layer_that_is_not_what_its_digest_says_is_refused() {
    for fault in [
        Fault::WrongBytes,
        Fault::Body(gzip(b"something else")),
        Fault::Body(Vec::new()),
    ] {
        let world = World::new();
        let image = victim(&world);
        world.registry.fail(
            "GET",
            &image.layers[1].descriptor().digest.hex(),
            99,
            fault.clone(),
        );
        let error = world.pull("app:1").unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::DataLoss | ErrorKind::Unavailable),
            "{fault:?}: {}",
            chain(&error)
        );
        assert!(
            chain(&error).contains(&image.layers[1].descriptor().digest.short()),
            "{}",
            chain(&error)
        );
        assert!(world.store.list().unwrap().is_empty());
        world.assert_clean();
        // What is right later is taken.
        let other = World::new();
        other.registry.put_image("app", "1", &image);
        other.pull("app:1").unwrap();
    }
}

#[test]
fn a_layer_that_is_always_cut_off_is_refused() {
    for fault in [Fault::Truncate(0), Fault::Reset(0)] {
        let world = World::new();
        let image = victim(&world);
        world
            .registry
            .fail("GET", &image.layers[1].descriptor().digest.hex(), 999, fault);
        refused(&world, "app:1", ErrorKind::Unavailable, &["pull layer"]);
    }
}

#[test]
fn a_layer_that_breaks_once_is_resumed() {
    for fault in [
        Fault::Truncate(50_000),
        Fault::Reset(50_000),
        Fault::Status(503, vec![]),
    ] {
        let world = World::new();
        let image = victim(&world);
        let hex = image.layers[1].descriptor().digest.hex();
        world.registry.fail("GET", &hex, 1, fault.clone());
        world
            .pull("app:1")
            .unwrap_or_else(|error| panic!("{fault:?}: {}", chain(&error)));
        assert!(world.registry.count("GET", &hex) >= 2);
        world.assert_clean();
    }
}

#[test]
fn a_slow_registry_is_waited_for() {
    let world = World::new();
    let image = victim(&world);
    let fault = Fault::Slow(20_000, Duration::from_millis(20));
    world
        .registry
        .fail("GET", &image.layers[1].descriptor().digest.hex(), 1, fault);
    world.pull("app:1").unwrap();
    world.assert_clean();
}

#[test]
fn a_rate_limit_is_waited_for_when_short_and_an_error_when_it_stays() {
    let world = World::new();
    let image = victim(&world);
    let wait = Fault::Status(429, vec![("Retry-After", "0".to_owned())]);
    world.registry.fail("GET", "/manifests/", 1, wait.clone());
    assert_eq!(world.pull("app:1").unwrap().image, image.id());
    let world = World::new();
    victim(&world);
    world.registry.fail("GET", "/manifests/", 999, wait);
    refused(&world, "app:1", ErrorKind::ResourceExhausted, &["429"]);
}

#[test]
fn a_blob_is_fetched_from_where_the_registry_points_to() {
    let world = World::new();
    let image = victim(&world);
    let hex = image.layers[1].descriptor().digest.hex();
    world.registry.put_blob("elsewhere", &image.layers[1].blob);
    let url = format!("http://{}/v2/elsewhere/blobs/sha256:{hex}", world.registry.host());
    world
        .registry
        .fail("GET", &format!("app/blobs/sha256:{hex}"), 1, Fault::Redirect(url));
    world.pull("app:1").unwrap();
    assert_eq!(world.registry.count("GET", "elsewhere"), 1);
}

#[test]
fn redirects_without_an_end_are_refused() {
    let world = World::new();
    let image = victim(&world);
    let hex = image.layers[1].descriptor().digest.hex();
    let url = format!("http://{}/v2/app/blobs/sha256:{hex}", world.registry.host());
    world.registry.fail("GET", &hex, 9999, Fault::Redirect(url));
    assert!(world.pull("app:1").is_err());
    world.assert_clean();
}

#[test]
fn statuses_of_the_registry_are_told_apart() {
    for (status, kind) in [
        (401, ErrorKind::Unauthenticated),
        (403, ErrorKind::PermissionDenied),
        (404, ErrorKind::NotFound),
        (500, ErrorKind::Unavailable),
        (503, ErrorKind::Unavailable),
    ] {
        let world = World::new();
        victim(&world);
        world
            .registry
            .fail("GET", "/manifests/", 999, Fault::Status(status, vec![]));
        refused(&world, "app:1", kind, &["app:1"]);
    }
}

#[test]
fn a_manifest_under_a_wrong_digest_is_refused() {
    let world = World::new();
    let image = victim(&world);
    world.registry.fail("GET", "/manifests/", 99, Fault::WrongBytes);
    let name = format!("app@{}", image.digest());
    assert_eq!(world.pull(&name).unwrap_err().kind(), ErrorKind::DataLoss);
    let header = Fault::Header("Docker-Content-Digest", Digest::of(b"lie").to_string());
    let world = World::new();
    victim(&world);
    world.registry.fail("GET", "/manifests/", 99, header);
    refused(&world, "app:1", ErrorKind::DataLoss, &[]);
}

/// Serves a manifest made by hand.
fn with_manifest(document: &serde_json::Value) -> World {
    let world = World::new();
    victim(&world);
    let bytes = serde_json::to_vec(document).unwrap();
    world
        .registry
        .put_manifest("app", "1", media_type::OCI_MANIFEST, &bytes);
    world
}

fn manifest_of(image: &TinyImage) -> serde_json::Value {
    serde_json::from_slice(&image.manifest).unwrap()
}

#[test]
fn malformed_manifests_are_refused() {
    let good = manifest_of(&image("a"));
    let mut cases = vec![json!([]), json!({}), json!(null), json!({"schemaVersion": 2})];
    for (pointer, value) in [
        ("/layers/0/size", json!(-1)),
        ("/layers/0/size", json!(1.5)),
        ("/layers/0/size", json!(u64::MAX)),
        ("/layers/0/digest", json!("sha256:../../etc/passwd")),
        ("/layers/0/digest", json!("md5:d41d8cd98f00b204e9800998ecf8427e")),
        ("/config/digest", json!("")),
        ("/config/size", json!(-5)),
        ("/layers", json!({})),
        ("/schemaVersion", json!("2")),
        ("/schemaVersion", json!(2.5)),
        ("/schemaVersion", json!(-2)),
        ("/mediaType", json!(["a"])),
        ("/config", json!(null)),
        ("/config", json!([])),
        ("/config/mediaType", json!(7)),
        ("/config/digest", json!(null)),
        ("/config/digest", json!("sha256")),
        ("/config/digest", json!("sha256:")),
        ("/config/digest", json!(format!("sha256:{}", "A".repeat(64)))),
        ("/config/digest", json!(format!("sha256:{}", "a".repeat(63)))),
        ("/config/digest", json!(format!("sha256:{}", "a".repeat(65)))),
        ("/config/digest", json!(format!("sha256:{}\n", "a".repeat(64)))),
        ("/config/size", json!("5")),
        ("/config/size", json!(null)),
        ("/layers", json!("none")),
        ("/layers", json!([null])),
        ("/layers", json!([[]])),
        ("/layers/0", json!("sha256:x")),
        ("/layers/0/size", json!(true)),
        ("/layers/0/digest", json!({"sha256": "x"})),
        ("/layers/0/mediaType", json!({})),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        cases.push(bad);
    }
    assert!(cases.len() >= 35, "{}", cases.len());
    for case in cases {
        let world = with_manifest(&case);
        refused(&world, "app:1", ErrorKind::InvalidArgument, &[]);
    }
}

#[test]
fn manifests_that_are_no_json_are_refused() {
    let good = serde_json::to_vec(&manifest_of(&image("a"))).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("a blank", b" ".to_vec()),
        ("a cut", good[..good.len() / 2].to_vec()),
        ("more after it", [good.as_slice(), b"x"].concat()),
        ("two of them", [good.as_slice(), good.as_slice()].concat()),
        ("zeros", vec![0; 100]),
        ("a zero after it", [good.as_slice(), b"\0"].concat()),
        ("UTF-16", utf16),
        (
            "bytes that are no UTF-8",
            text.replace("schemaVersion", "schema\u{0}")
                .into_bytes()
                .iter()
                .map(|byte| if *byte == 0 { 0xff } else { *byte })
                .collect(),
        ),
        ("gzip", gzip(&good)),
        (
            "a key twice",
            text.replacen('{', "{\"layers\":[],", 1).into_bytes(),
        ),
        (
            "a number that is no number",
            text.replace("\"schemaVersion\":2", "\"schemaVersion\":NaN")
                .into_bytes(),
        ),
        (
            "a number without an end",
            text.replace(
                "\"schemaVersion\":2",
                &format!("\"schemaVersion\":{}", "9".repeat(100_000)),
            )
            .into_bytes(),
        ),
        ("a comment", [b"/* */".as_slice(), &good].concat()),
    ];
    for (what, bytes) in cases {
        let world = World::new();
        victim(&world);
        world
            .registry
            .put_manifest("app", "1", media_type::OCI_MANIFEST, &bytes);
        let error = world.pull("app:1").expect_err(what);
        assert_eq!(
            error.kind(),
            ErrorKind::InvalidArgument,
            "{what}: {}",
            chain(&error)
        );
        assert!(world.store.list().unwrap().is_empty());
        world.assert_clean();
    }
}

/// An image whose config has this in place of that, if it has that.
fn with_config(pointer: &str, value: &serde_json::Value) -> World {
    let mut image = image("a");
    let mut config: serde_json::Value = serde_json::from_slice(&image.config).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    config.pointer_mut(parent).unwrap()[key] = value.clone();
    image.config = serde_json::to_vec(&config).unwrap();
    image.seal();
    let world = World::new();
    world.registry.put_image("app", "1", &image);
    world
}

#[test]
fn a_config_with_wrong_types_is_refused() {
    for (pointer, value) in [
        ("/os", json!(1)),
        ("/architecture", json!([])),
        ("/created", json!({})),
        ("/config", json!("x")),
        ("/config/Env", json!("A=b")),
        ("/config/Env", json!([1])),
        ("/config/Env", json!({"A": "b"})),
        ("/config/Cmd", json!({})),
        ("/config/Cmd", json!([["a"]])),
        ("/config/Entrypoint", json!(1)),
        ("/config/Labels", json!(["a"])),
        ("/config/Labels", json!({"a": 1})),
        ("/config/User", json!({})),
        ("/config/WorkingDir", json!(["/"])),
        ("/config/ExposedPorts", json!(["80/tcp"])),
        ("/config/Volumes", json!("x")),
        ("/config/StopSignal", json!(9)),
        ("/config/Healthcheck", json!("x")),
        ("/config/Healthcheck", json!({"Test": "x"})),
        ("/rootfs", json!([])),
        ("/rootfs/diff_ids", json!("x")),
        ("/rootfs/diff_ids", json!([1, 2])),
        ("/rootfs/diff_ids", json!([null, null])),
        ("/history", json!({})),
        ("/history", json!(["x"])),
    ] {
        let world = with_config(pointer, &value);
        let error = world.pull("app:1").expect_err(pointer);
        assert_eq!(
            error.kind(),
            ErrorKind::InvalidArgument,
            "{pointer} {value}: {}",
            chain(&error)
        );
        assert!(world.store.list().unwrap().is_empty());
        world.assert_clean();
    }
}

#[test]
fn a_document_that_is_manifest_and_index_at_once_is_refused() {
    let mut both = manifest_of(&image("a"));
    both["manifests"] = json!([]);
    refused(
        &with_manifest(&both),
        "app:1",
        ErrorKind::InvalidArgument,
        &["both layers and manifests"],
    );
}

#[test]
fn a_manifest_deeper_than_a_stack_or_larger_than_the_limit_is_refused() {
    let world = World::new();
    victim(&world);
    world.registry.put_manifest(
        "app",
        "1",
        media_type::OCI_MANIFEST,
        "[".repeat(200_000).as_bytes(),
    );
    refused(&world, "app:1", ErrorKind::InvalidArgument, &[]);
    world
        .registry
        .put_manifest("app", "1", media_type::OCI_MANIFEST, &vec![b' '; 5 << 20]);
    refused(&world, "app:1", ErrorKind::ResourceExhausted, &[]);
}

#[test]
fn an_artifact_that_is_no_image_is_named_as_what_it_is() {
    let mut chart = manifest_of(&image("a"));
    chart["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json");
    let words = [
        "is not a container image",
        "application/vnd.cncf.helm.config.v1+json",
    ];
    refused(&with_manifest(&chart), "app:1", ErrorKind::Unsupported, &words);
    let mut encrypted = manifest_of(&image("a"));
    encrypted["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip+encrypted");
    refused(
        &with_manifest(&encrypted),
        "app:1",
        ErrorKind::Unsupported,
        &["encrypted"],
    );
    let schema1 = json!({"schemaVersion": 1, "name": "app", "fsLayers": []});
    refused(
        &with_manifest(&schema1),
        "app:1",
        ErrorKind::Unsupported,
        &["schema 1"],
    );
}

#[test]
fn numbers_of_layers_that_differ_are_refused() {
    let mut image = image("a");
    let mut config: serde_json::Value = serde_json::from_slice(&image.config).unwrap();
    config["rootfs"]["diff_ids"].as_array_mut().unwrap().pop();
    image.config = serde_json::to_vec(&config).unwrap();
    image.seal();
    let world = World::new();
    world.registry.put_image("app", "1", &image);
    refused(
        &world,
        "app:1",
        ErrorKind::InvalidArgument,
        &["config names 1 layers, its manifest 2"],
    );
}

#[test]
fn more_layers_than_overlayfs_takes_are_refused_before_any_is_fetched() {
    let mut many = manifest_of(&image("a"));
    let one = many["layers"][0].clone();
    many["layers"] = json!(vec![one; 501]);
    let world = with_manifest(&many);
    refused(&world, "app:1", ErrorKind::InvalidArgument, &["501 layers"]);
    assert_eq!(world.registry.count("GET", "/blobs/"), 0);
}

#[test]
fn a_config_that_is_no_config_is_refused() {
    for (config, kind) in [
        (&b"not json"[..], ErrorKind::InvalidArgument),
        (b"[]", ErrorKind::InvalidArgument),
        (
            br#"{"rootfs":{"diff_ids":["sha256:zz","x"]}}"#,
            ErrorKind::InvalidArgument,
        ),
    ] {
        let mut image = image("a");
        image.config = config.to_vec();
        image.seal();
        let world = World::new();
        world.registry.put_image("app", "1", &image);
        refused(&world, "app:1", kind, &[]);
    }
    let mut windows: serde_json::Value = serde_json::from_slice(&image("a").config).unwrap();
    windows["os"] = json!("windows");
    let mut image = image("a");
    image.config = serde_json::to_vec(&windows).unwrap();
    image.seal();
    let world = World::new();
    world.registry.put_image("app", "1", &image);
    refused(&world, "app:1", ErrorKind::Unsupported, &["windows"]);
}

#[test]
fn a_config_over_the_limit_is_refused_before_it_is_fetched() {
    let mut huge = manifest_of(&image("a"));
    huge["config"]["size"] = json!(1_u64 << 40);
    let world = with_manifest(&huge);
    refused(&world, "app:1", ErrorKind::ResourceExhausted, &["config"]);
    assert_eq!(world.registry.count("GET", "/blobs/"), 0);
}

#[test]
fn a_layer_whose_diff_id_is_another_is_refused() {
    let mut image = image("a");
    // The blob is what the manifest says; the config promises something else.
    image.layers[1] = layer("other", b"other");
    image.seal();
    let world = World::new();
    world.registry.put_image("app", "1", &image);
    refused(&world, "app:1", ErrorKind::DataLoss, &["pull layer"]);
}

#[test]
fn layers_that_try_to_escape_or_are_no_tar_are_refused() {
    let evil = [
        Tar::new()
            .file("../../../../tmp/dhow-escaped", 0o644, b"x")
            .finish(),
        Tar::new()
            .symlink("out", "/")
            .file("out/tmp/dhow-escaped", 0o644, b"x")
            .finish(),
        Tar::new().hardlink("shadow", "../../../../etc/shadow").finish(),
    ];
    for tar in evil {
        let world = World::new();
        world
            .registry
            .put_image("app", "1", &TinyImage::oci(vec![base(), Layer::gzip(tar)]));
        // Refused or contained: never outside.
        drop(world.pull("app:1"));
        assert!(!std::path::Path::new("/tmp/dhow-escaped").exists());
        assert_eq!(world.check().findings, vec![]);
    }
    let world = World::new();
    world.registry.put_image(
        "app",
        "1",
        &TinyImage::oci(vec![Layer::gzip(b"this is no tar at all".repeat(100))]),
    );
    assert!(world.pull("app:1").is_err());
    world.assert_clean();
}
