use dhow_registry::Options;
use dhow_types::Digest;

use crate::fixture::{Fixture, OCI_INDEX, content, manifest, serve, serve_with};

fn close(server: &Fixture, location: &str, digest: &str, body: &[u8]) -> crate::fixture::Answer {
    server.send("PUT", &format!("{location}?digest={digest}"), &[], body)
}

#[test]
fn a_blob_is_pushed_by_post_and_put() {
    let server = serve();
    let bytes = content(100_000);
    let digest = Digest::of(&bytes);
    let answer = close(&server, &server.upload("a"), &digest.to_string(), &bytes).is(201);
    assert_eq!(
        answer.header("location"),
        Some(format!("/v2/a/blobs/{digest}").as_str())
    );
    assert!(server.get(answer.header("location").unwrap()).is(200).body == bytes);
}

#[test]
fn a_stream_without_content_range_is_taken_as_docker_sends_it() {
    let server = serve();
    let location = server.upload("a");
    let chunked = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let answer = server
        .send("PATCH", &location, &[("Transfer-Encoding", "chunked")], chunked)
        .is(202);
    assert_eq!(answer.header("range"), Some("0-10"));
    let location = answer.header("location").unwrap();
    close(&server, location, &Digest::of(b"hello world").to_string(), b"").is(201);
}

#[test]
fn chunks_must_come_in_order_and_an_upload_says_how_far_it_is() {
    let server = serve();
    let (bytes, digest) = (content(300), Digest::of(&content(300)));
    let location = server.upload("a");
    let chunk = |start: usize, end: usize| {
        let range = format!("{start}-{}", end - 1);
        server.send(
            "PATCH",
            &location,
            &[("Content-Range", &range)],
            &bytes[start..end],
        )
    };
    assert_eq!(chunk(100, 200).is(416).header("range"), Some("0-0"));
    assert_eq!(chunk(0, 100).is(202).header("range"), Some("0-99"));
    let again = chunk(0, 100).is(416);
    assert_eq!(again.header("range"), Some("0-99"));
    assert_eq!(again.header("location"), Some(location.as_str()));
    chunk(200, 300).is(416);
    let status = server.get(&location).is(204);
    assert_eq!(status.header("range"), Some("0-99"));
    chunk(100, 200).is(202);
    let short = server
        .send("PATCH", &location, &[("Content-Range", "200-299")], b"short")
        .is(400);
    assert_eq!(short.code(), "BLOB_UPLOAD_INVALID");
    let wrong = format!("{location}?digest={digest}");
    server
        .send("PUT", &wrong, &[("Content-Range", "0-99")], &bytes[..100])
        .is(416);
    server
        .send("PUT", &wrong, &[("Content-Range", "200-299")], &bytes[200..])
        .is(201);
    assert!(server.get(&format!("/v2/a/blobs/{digest}")).is(200).body == bytes);
    assert_eq!(server.get(&location).is(404).code(), "BLOB_UPLOAD_UNKNOWN");
}

#[test]
fn a_wrong_or_unknown_digest_is_refused_and_nothing_is_stored() {
    let server = serve();
    let other = Digest::of(b"other").to_string();
    let answer = close(&server, &server.upload("a"), &other, b"bytes").is(400);
    assert_eq!(answer.code(), "DIGEST_INVALID");
    server.head(&format!("/v2/a/blobs/{other}")).is(404);
    for bad in [
        "sha256:baddigeststring",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "",
        "sha256:../../x",
    ] {
        let answer = close(&server, &server.upload("a"), bad, b"bytes").is(400);
        assert_eq!(answer.code(), "DIGEST_INVALID", "{bad}");
    }
    server.send("PUT", &server.upload("a"), &[], b"bytes").is(400);
    let post = format!("/v2/a/blobs/uploads/?digest={other}");
    server.send("POST", &post, &[], b"bytes").is(400);
}

#[test]
fn sha512_is_taken_everywhere() {
    let server = serve();
    let (bytes, digest) = (
        b"foobar",
        "sha512:0a50261ebd1a390fed2bf326f2673c145582a6342d523204973d0219337f81616a8069b012587cf5635f6925f1b56c360230c19b273500ee013e030601bf2425",
    );
    close(&server, &server.upload("a"), digest, bytes).is(201);
    assert!(server.get(&format!("/v2/a/blobs/{digest}")).is(200).body == bytes);
    let post = server
        .send("POST", "/v2/a/blobs/uploads/?digest-algorithm=sha512", &[], b"")
        .is(202);
    close(&server, post.header("location").unwrap(), digest, bytes).is(201);
    server
        .send("POST", "/v2/a/blobs/uploads/?digest-algorithm=md5", &[], b"")
        .is(400);
    server.head(&format!("/v2/a/blobs/{}", Digest::of(bytes))).is(404);
}

#[test]
fn an_upload_is_cancelled_and_belongs_to_one_repository() {
    let server = serve();
    let location = server.upload("a");
    server.get(&location.replace("/a/", "/b/")).is(404);
    server
        .send("PATCH", &location.replace("/a/", "/b/"), &[], b"x")
        .is(404);
    server.delete(&location).is(204);
    server.get(&location).is(404);
    server.delete(&location).is(404);
}

#[test]
fn a_blob_is_mounted_from_a_repository_that_has_it() {
    let server = serve();
    let digest = server.blob("from", b"layer");
    let mount = |query: &str| server.send("POST", &format!("/v2/to/blobs/uploads/?{query}"), &[], b"");
    let missing = Digest::of(b"missing");
    mount(&format!("mount={missing}&from=from")).is(202);
    mount(&format!("mount={digest}&from=elsewhere")).is(202);
    server.head(&format!("/v2/to/blobs/{digest}")).is(404);
    let answer = mount(&format!("mount={digest}&from=from")).is(201);
    assert_eq!(
        answer.header("location"),
        Some(format!("/v2/to/blobs/{digest}").as_str())
    );
    assert_eq!(
        server.get(answer.header("location").unwrap()).is(200).body,
        b"layer"
    );
    let anonymous = format!("/v2/third/blobs/uploads/?mount={digest}");
    server.send("POST", &anonymous, &[], b"").is(201);
    mount("mount=garbage&from=from").is(202);
    mount(&format!("mount={digest}&from=..%2f..%2fetc")).is(400);
}

#[test]
fn a_manifest_whose_parts_are_missing_is_refused() {
    let server = serve();
    server.blob("a", b"{}");
    server.blob("elsewhere", b"layer");
    let text = manifest(b"{}", &[b"layer"], "");
    assert_eq!(
        server.manifest("a", "1", &text).is(400).code(),
        "MANIFEST_BLOB_UNKNOWN"
    );
    server.get("/v2/a/manifests/1").is(404);
    server.blob("a", b"layer");
    server.manifest("a", "1", &text).is(201);
    let child = Digest::of(b"no such manifest");
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{{"mediaType":"x/y","digest":"{child}","size":1}}]}}"#
    );
    assert_eq!(
        server.manifest("a", "i", &index).is(400).code(),
        "MANIFEST_BLOB_UNKNOWN"
    );
}

#[test]
fn a_manifest_is_pushed_by_its_digest_with_tags_beside_it() {
    let server = serve();
    server.blob("a", b"{}");
    let text = manifest(b"{}", &[], "");
    let digest = Digest::of(text.as_bytes());
    let answer = server
        .manifest("a", &format!("{digest}?tag=1&tag=2"), &text)
        .is(201);
    assert_eq!(answer.headers("oci-tag"), ["1", "2"]);
    assert_eq!(
        answer.header("docker-content-digest"),
        Some(digest.to_string().as_str())
    );
    server.get("/v2/a/manifests/1").is(200);
    server.get("/v2/a/manifests/2").is(200);
    let other = Digest::of(b"other");
    assert_eq!(
        server.manifest("a", &other.to_string(), &text).is(400).code(),
        "DIGEST_INVALID"
    );
    assert_eq!(
        server
            .manifest("a", "sha256:baddigeststring", &text)
            .is(400)
            .code(),
        "DIGEST_INVALID"
    );
}

#[test]
fn a_manifest_of_four_mebibytes_is_taken_and_a_larger_one_is_not() {
    let server = serve();
    server.blob("a", b"{}");
    let padding = "x".repeat(3_900_000);
    let text = manifest(b"{}", &[], &format!(r#","annotations":{{"a":"{padding}"}}"#));
    server.manifest("a", "big", &text).is(201);
    assert_eq!(server.get("/v2/a/manifests/big").is(200).body.len(), text.len());
    let text = manifest(
        b"{}",
        &[],
        &format!(r#","annotations":{{"a":"{padding}{padding}"}}"#),
    );
    server.manifest("a", "bigger", &text).is(413);
}

#[test]
fn a_blob_over_the_limit_is_refused_however_it_is_sent() {
    let server = serve_with(Options {
        max_blob: Some(1000),
        durable: false,
        ..Options::default()
    });
    let bytes = content(1001);
    let digest = Digest::of(&bytes).to_string();
    close(&server, &server.upload("a"), &digest, &bytes).is(413);
    let location = server.upload("a");
    server.send("PATCH", &location, &[], &bytes[..600]).is(202);
    server.send("PATCH", &location, &[], &bytes[600..]).is(413);
    let chunked = [b"3e9\r\n".as_slice(), &bytes, b"\r\n0\r\n\r\n"].concat();
    server
        .send(
            "PATCH",
            &server.upload("a"),
            &[("Transfer-Encoding", "chunked")],
            &chunked,
        )
        .is(413);
    close(
        &server,
        &server.upload("a"),
        &Digest::of(&bytes[..1000]).to_string(),
        &bytes[..1000],
    )
    .is(201);
}

#[test]
fn too_many_unfinished_uploads_are_refused_for_now() {
    let server = serve_with(Options {
        max_uploads: 3,
        durable: false,
        ..Options::default()
    });
    let first = server.upload("a");
    server.upload("a");
    server.upload("b");
    let refused = server.send("POST", "/v2/a/blobs/uploads/", &[], b"").is(429);
    assert_eq!(
        (refused.code().as_str(), refused.header("retry-after")),
        ("TOOMANYREQUESTS", Some("1"))
    );
    server.delete(&first).is(204);
    server.upload("a");
}
