use crate::fixture::{OCI_MANIFEST, content, serve};

#[test]
fn the_base_says_which_api_this_is() {
    let server = serve();
    server.get("/v2/").is(200);
    server.get("/v2").is(200);
    server.send("POST", "/v2/", &[], b"").is(405);
    assert_eq!(server.get("/v1/search?q=x").is(404).code(), "UNSUPPORTED");
}

#[test]
fn a_manifest_is_served_byte_for_byte_by_tag_and_digest() {
    let server = serve();
    let (digest, text) = server.image("a/b", "1.0", &[b"layer"]);
    for target in ["1.0", &digest.to_string()] {
        let path = format!("/v2/a/b/manifests/{target}");
        let answer = server.get(&path).is(200);
        assert_eq!(answer.body, text.as_bytes());
        assert_eq!(answer.header("content-type"), Some(OCI_MANIFEST));
        assert_eq!(
            answer.header("docker-content-digest"),
            Some(digest.to_string().as_str())
        );
        let head = server.head(&path).is(200);
        assert_eq!(
            head.header("content-length"),
            Some(text.len().to_string().as_str())
        );
        assert_eq!(
            head.header("docker-content-digest"),
            answer.header("docker-content-digest")
        );
        let etag = answer.header("etag").unwrap();
        server.send("GET", &path, &[("If-None-Match", etag)], b"").is(304);
    }
    assert_eq!(
        server.get("/v2/a/b/manifests/2.0").is(404).code(),
        "MANIFEST_UNKNOWN"
    );
    assert_eq!(
        server.get("/v2/other/manifests/1.0").is(404).code(),
        "MANIFEST_UNKNOWN"
    );
    assert!(server.head("/v2/a/b/manifests/2.0").is(404).body.is_empty());
}

#[test]
fn a_moved_tag_is_seen_at_once() {
    let server = serve();
    for round in 0..20_u32 {
        let (digest, _) = server.image("a", "latest", &[&round.to_le_bytes()]);
        let answer = server.get("/v2/a/manifests/latest").is(200);
        assert_eq!(
            answer.header("docker-content-digest"),
            Some(digest.to_string().as_str())
        );
    }
}

#[test]
fn blobs_are_served_whole_and_in_ranges() {
    let server = serve();
    let bytes = content(3000);
    let digest = server.blob("a", &bytes);
    let path = format!("/v2/a/blobs/{digest}");
    let whole = server.get(&path).is(200);
    assert!(whole.body == bytes);
    assert_eq!(
        whole.header("docker-content-digest"),
        Some(digest.to_string().as_str())
    );
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    assert_eq!(server.head(&path).is(200).header("content-length"), Some("3000"));
    for (range, start, end) in [
        ("500-1499", 500, 1500),
        ("500-", 500, 3000),
        ("-500", 2500, 3000),
        ("2000-5000", 2000, 3000),
        ("0-0", 0, 1),
    ] {
        let answer = server
            .send("GET", &path, &[("Range", &format!("bytes={range}"))], b"")
            .is(206);
        assert!(answer.body == bytes[start..end], "{range}");
        let expected = format!("bytes {start}-{}/3000", end - 1);
        assert_eq!(answer.header("content-range"), Some(expected.as_str()));
    }
    for range in ["500-0", "5000-10000", "-0"] {
        let answer = server
            .send("GET", &path, &[("Range", &format!("bytes={range}"))], b"")
            .is(416);
        assert_eq!(answer.header("content-range"), Some("bytes */3000"));
    }
}

#[test]
fn a_large_blob_and_an_empty_one_come_whole() {
    let server = serve();
    for size in [0, 1, 256 << 10, (256 << 10) + 1, 5_000_000] {
        let bytes = content(size);
        let digest = server.blob("a", &bytes);
        assert!(
            server.get(&format!("/v2/a/blobs/{digest}")).is(200).body == bytes,
            "{size}"
        );
        let head = server.head(&format!("/v2/a/blobs/{digest}")).is(200);
        assert_eq!(head.header("content-length"), Some(size.to_string().as_str()));
    }
}

#[test]
fn a_repository_does_not_serve_the_blobs_of_another() {
    let server = serve();
    let digest = server.blob("mine", b"secret");
    let path = format!("/v2/other/blobs/{digest}");
    assert_eq!(server.get(&path).is(404).code(), "BLOB_UNKNOWN");
    server.head(&path).is(404);
    server.delete(&path).is(404);
    server.blob("other", b"something");
    server.head(&path).is(404);
    let (manifest, _) = server.image("mine", "1", &[b"secret"]);
    server.get(&format!("/v2/other/manifests/{manifest}")).is(404);
}

#[test]
fn a_blob_that_was_damaged_on_disk_is_not_served() {
    let directory = tempfile::tempdir().unwrap();
    let server = crate::fixture::serve_at(directory.path(), dhow_registry::Options::default());
    let digest = server.blob("a", b"whole");
    let file = directory
        .path()
        .join("blobs/sha256")
        .join(&digest.hex()[..2])
        .join(digest.hex());
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, b"ha").unwrap();
    server.get(&format!("/v2/a/blobs/{digest}")).is(500);
}
