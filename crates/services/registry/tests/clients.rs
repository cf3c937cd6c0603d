//! Real clients: ours, and skopeo where it is installed.

use std::io::Read as _;
use std::process::Command;

use dhow_oci::{Descriptor, Manifest, media_type};
use dhow_reference::Reference;
use dhow_transport::{Client, Settings};
use dhow_types::{Digest, ErrorKind};

use crate::fixture::{Fixture, content, serve};

fn client() -> Client {
    Client::new(Settings::default()).unwrap()
}

fn reference(server: &Fixture, rest: &str) -> Reference {
    Reference::parse(&format!("{}/{rest}", server.address)).unwrap()
}

#[test]
fn our_client_pushes_and_pulls_an_image() {
    let server = serve();
    let (client, image) = (client(), reference(&server, "a/b:1"));
    let (config, layer) = (b"{}".to_vec(), content(2_000_000));
    let config_descriptor = Descriptor::of(media_type::OCI_CONFIG, &config);
    let layer_descriptor = Descriptor::of(media_type::OCI_LAYER, &layer);
    assert!(!client.has_blob(&image, &layer_descriptor.digest).unwrap());
    client
        .push_blob(&image, &config_descriptor, &mut config.as_slice())
        .unwrap();
    let (digest, size) = client.push_stream(&image, &mut layer.as_slice()).unwrap();
    assert_eq!((digest, size), (layer_descriptor.digest, layer_descriptor.size));
    assert!(client.has_blob(&image, &digest).unwrap());
    let manifest = Manifest::new(config_descriptor, vec![layer_descriptor.clone()]);
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let pushed = client
        .push_manifest(&image, media_type::OCI_MANIFEST, &bytes)
        .unwrap();

    let fetched = client.manifest(&image).unwrap();
    assert_eq!((fetched.bytes, fetched.descriptor.digest), (bytes, pushed));
    client.manifest_at(&image, &pushed).unwrap();
    let mut out = Vec::new();
    client
        .blob(&image, &layer_descriptor)
        .unwrap()
        .read_to_end(&mut out)
        .unwrap();
    assert!(out == layer);
    assert_eq!(client.tags(&image).unwrap(), ["1"]);
    let other = reference(&server, "c:1");
    assert!(client.mount_blob(&other, &digest, "a/b").unwrap());
    assert!(!client.mount_blob(&other, &Digest::of(b"none"), "a/b").unwrap());
    let missing = client.manifest(&reference(&server, "a/b:2")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("manifest unknown"), "{missing}");
}

#[test]
fn our_client_lists_tags_over_several_pages() {
    let server = serve();
    server.blob("many", b"{}");
    let text = crate::fixture::manifest(b"{}", &[], "");
    let digest = Digest::of(text.as_bytes());
    for hundred in 0..11 {
        let tags: Vec<String> = (0..100).map(|n| format!("tag=t{hundred:02}{n:02}")).collect();
        server
            .manifest("many", &format!("{digest}?{}", tags.join("&")), &text)
            .is(201);
    }
    let tags = client().tags(&reference(&server, "many")).unwrap();
    assert_eq!(tags.len(), 1100);
    assert!(tags.is_sorted());
}

#[test]
fn skopeo_copies_an_image_in_and_out() {
    if Command::new("skopeo").arg("--version").output().is_err() {
        println!("skipped: skopeo is not installed");
        return;
    }
    let server = serve();
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    // An OCI layout made by hand: one config, one layer.
    server.image("src", "1", &[&content(100_000)]);
    let copy = |source: &str, target: &str| {
        let args = [
            "copy",
            "--insecure-policy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            source,
            target,
        ];
        let done = Command::new("skopeo").args(args).output().unwrap();
        assert!(
            done.status.success(),
            "{source} -> {target}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    };
    copy(
        &format!("docker://{}/src:1", server.address),
        &format!("dir:{}", from.display()),
    );
    copy(
        &format!("dir:{}", from.display()),
        &format!("docker://{}/dst/x:2", server.address),
    );
    copy(
        &format!("docker://{}/dst/x:2", server.address),
        &format!("dir:{}", to.display()),
    );
    let read = |path: &std::path::Path| std::fs::read(path.join("manifest.json")).unwrap();
    assert_eq!(read(&from), read(&to));
}
