use std::path::Path;

use dhow_registry::Options;
use dhow_types::Digest;

use crate::fixture::{serve, serve_at};

fn files(directory: &Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        count += if entry.file_type().unwrap().is_dir() {
            files(&entry.path())
        } else {
            1
        };
    }
    count
}

#[test]
fn a_deleted_tag_is_gone_and_its_manifest_is_not() {
    let server = serve();
    let (digest, _) = server.image("a", "1", &[]);
    server.get("/v2/a/manifests/1").is(200);
    server.delete("/v2/a/manifests/1").is(202);
    server.get("/v2/a/manifests/1").is(404);
    server.delete("/v2/a/manifests/1").is(404);
    server.get(&format!("/v2/a/manifests/{digest}")).is(200);
    assert_eq!(
        server.get("/v2/a/tags/list").is(200).json()["tags"],
        serde_json::json!([])
    );
}

#[test]
fn a_deleted_manifest_takes_its_tags_with_it() {
    let server = serve();
    let (digest, text) = server.image("a", "1", &[]);
    server.manifest("a", "2", &text).is(201);
    for target in ["1", "2", &digest.to_string()] {
        server.get(&format!("/v2/a/manifests/{target}")).is(200);
    }
    server.delete(&format!("/v2/a/manifests/{digest}")).is(202);
    for target in ["1", "2", &digest.to_string()] {
        server.get(&format!("/v2/a/manifests/{target}")).is(404);
    }
    server.delete(&format!("/v2/a/manifests/{digest}")).is(404);
    server.delete("/v2/none/manifests/1").is(404);
}

#[test]
fn a_blob_in_use_is_not_deleted_and_one_out_of_use_is_freed_by_the_last_repository() {
    let directory = tempfile::tempdir().unwrap();
    let server = serve_at(
        directory.path(),
        Options {
            durable: false,
            ..Options::default()
        },
    );
    let (manifest, _) = server.image("a", "1", &[b"layer"]);
    let layer = Digest::of(b"layer");
    let (in_a, in_b) = (format!("/v2/a/blobs/{layer}"), format!("/v2/b/blobs/{layer}"));
    server.blob("b", b"layer");
    assert_eq!(server.delete(&in_a).is(405).code(), "DENIED");
    server.delete(&format!("/v2/a/manifests/{manifest}")).is(202);
    server.delete(&in_a).is(202);
    server.get(&in_a).is(404);
    server.delete(&in_a).is(404);
    assert_eq!(server.get(&in_b).is(200).body, b"layer");
    let before = files(&directory.path().join("blobs"));
    server.delete(&in_b).is(202);
    server.get(&in_b).is(404);
    assert_eq!(files(&directory.path().join("blobs")), before - 1);
    server.blob("b", b"layer");
    assert_eq!(server.get(&in_b).is(200).body, b"layer");
}

#[test]
fn a_deleted_image_frees_the_blobs_that_no_other_needs() {
    let directory = tempfile::tempdir().unwrap();
    let options = || Options {
        durable: false,
        ..Options::default()
    };
    let first = serve_at(directory.path(), options());
    let (one, _) = first.image("a", "1", &[b"shared", b"own"]);
    first.image("a", "2", &[b"shared"]);
    first.delete(&format!("/v2/a/manifests/{one}")).is(202);
    // Just pushed: another push may count on it.
    first.head(&format!("/v2/a/blobs/{}", Digest::of(b"own"))).is(200);
    let (one, _) = first.image("a", "1", &[b"shared", b"own"]);
    drop(first);
    // After a restart nobody counts on anything.
    let second = serve_at(directory.path(), options());
    second.delete(&format!("/v2/a/manifests/{one}")).is(202);
    second
        .head(&format!("/v2/a/blobs/{}", Digest::of(b"own")))
        .is(404);
    second
        .head(&format!("/v2/a/blobs/{}", Digest::of(b"shared")))
        .is(200);
    assert_eq!(
        files(&directory.path().join("blobs")),
        2,
        "the shared layer and the config of tag 2"
    );
    assert_eq!(files(&directory.path().join("trash")), 0);
}

#[test]
fn pushes_and_deletes_of_one_blob_at_once_never_leave_a_row_without_a_file() {
    let server = serve();
    let digest = Digest::of(b"contended");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let server = &server;
            scope.spawn(move || {
                for _ in 0..50 {
                    let name = format!("repo{thread}");
                    server.blob(&name, b"contended");
                    let path = format!("/v2/{name}/blobs/{digest}");
                    assert_eq!(server.get(&path).is(200).body, b"contended");
                    server.delete(&path).is(202);
                    server.get(&path).is(404);
                }
            });
        }
    });
}
