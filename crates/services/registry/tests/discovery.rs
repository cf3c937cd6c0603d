use dhow_types::Digest;

use crate::fixture::{Fixture, OCI_INDEX, manifest, serve};

fn next(answer: &crate::fixture::Answer) -> Option<String> {
    let link = answer.header("link")?;
    let (target, rest) = link.strip_prefix('<')?.split_once('>')?;
    assert_eq!(rest, "; rel=\"next\"");
    Some(target.to_owned())
}

#[test]
fn tags_are_listed_in_order_and_in_pages() {
    let server = serve();
    let mut expected = Vec::new();
    for tag in ["b", "a", "10", "9", "C", "z_-.9"] {
        server.image("x/y", tag, &[]);
        expected.push(tag);
    }
    expected.sort_unstable();
    let all = server.get("/v2/x/y/tags/list").is(200).json();
    assert_eq!(all, serde_json::json!({"name": "x/y", "tags": expected}));
    let mut seen = Vec::new();
    let mut path = Some("/v2/x/y/tags/list?n=4".to_owned());
    while let Some(page) = path {
        let answer = server.get(&page).is(200);
        seen.extend(
            answer.json()["tags"]
                .as_array()
                .unwrap()
                .iter()
                .map(|tag| tag.as_str().unwrap().to_owned()),
        );
        path = next(&answer);
    }
    assert_eq!(seen, expected);
    let none = server.get("/v2/x/y/tags/list?n=0").is(200);
    assert!(none.json()["tags"].as_array().unwrap().is_empty() && none.header("link").is_none());
    let after = server.get("/v2/x/y/tags/list?last=a").is(200).json();
    assert_eq!(after["tags"], serde_json::json!(["b", "z_-.9"]));
    assert!(next(&server.get("/v2/x/y/tags/list?n=6").is(200)).is_none());
    server.get("/v2/x/y/tags/list?n=-1").is(400);
    assert_eq!(server.get("/v2/nothing/tags/list").is(404).code(), "NAME_UNKNOWN");
}

#[test]
fn the_catalog_is_listed_in_pages() {
    let server = serve();
    for name in ["b", "a/c", "a"] {
        server.blob(name, b"x");
    }
    assert_eq!(
        server.get("/v2/_catalog").is(200).json()["repositories"],
        serde_json::json!(["a", "a/c", "b"])
    );
    let first = server.get("/v2/_catalog?n=2").is(200);
    let rest = server.get(&next(&first).unwrap()).is(200);
    assert_eq!(rest.json()["repositories"], serde_json::json!(["b"]));
}

/// Pushes an artifact about `subject`; gives its digest.
fn refer(server: &Fixture, subject: Digest, kind: &str, note: &str) -> Digest {
    server.blob("a", b"{}");
    let more = format!(
        r#","artifactType":"{kind}","subject":{{"mediaType":"x/y","digest":"{subject}","size":1}},"annotations":{{"note":"{note}"}}"#
    );
    let text = manifest(b"{}", &[], &more);
    let digest = Digest::of(text.as_bytes());
    let answer = server.manifest("a", &digest.to_string(), &text).is(201);
    assert_eq!(answer.header("oci-subject"), Some(subject.to_string().as_str()));
    digest
}

#[test]
fn referrers_are_listed_filtered_and_paged_and_never_missing() {
    let server = serve();
    // The subject need not be there.
    let subject = Digest::of(b"a manifest that comes later");
    let path = format!("/v2/a/referrers/{subject}");
    let empty = server.get(&path).is(200);
    assert_eq!(empty.header("content-type"), Some(OCI_INDEX));
    assert_eq!(empty.json()["manifests"], serde_json::json!([]));
    let signature = refer(&server, subject, "application/x.signature", "one");
    let sbom = refer(&server, subject, "application/x.sbom", "two");
    let listed = server.get(&path).is(200).json();
    assert_eq!(listed["schemaVersion"], 2);
    let found: Vec<&str> = listed["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["digest"].as_str().unwrap())
        .collect();
    let mut expected = [signature.to_string(), sbom.to_string()];
    expected.sort_unstable();
    assert_eq!(found, expected);
    let filtered = server
        .get(&format!("{path}?artifactType=application/x.sbom"))
        .is(200);
    assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));
    let only = &filtered.json()["manifests"];
    assert_eq!(only.as_array().unwrap().len(), 1);
    assert_eq!(only[0]["annotations"]["note"], "two");
    assert_eq!(only[0]["artifactType"], "application/x.sbom");
    let first = server.get(&format!("{path}?n=1")).is(200);
    let second = server.get(&next(&first).unwrap()).is(200);
    assert_ne!(
        first.json()["manifests"][0]["digest"],
        second.json()["manifests"][0]["digest"]
    );
    assert!(next(&second).is_none());
    assert_eq!(
        server.get("/v2/a/referrers/sha256:nonsense").is(400).code(),
        "DIGEST_INVALID"
    );
    server.delete(&format!("/v2/a/manifests/{sbom}")).is(202);
    assert_eq!(
        server.get(&path).is(200).json()["manifests"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn referrers_with_large_annotations_come_in_pages_by_bytes() {
    let server = serve();
    let subject = Digest::of(b"subject");
    for number in 0..3 {
        refer(
            &server,
            subject,
            "x/y",
            &format!("{number}{}", "n".repeat(3_000_000)),
        );
    }
    let (mut pages, mut seen) = (0, 0);
    let mut path = Some(format!("/v2/a/referrers/{subject}"));
    while let Some(page) = path {
        let answer = server.get(&page).is(200);
        seen += answer.json()["manifests"].as_array().unwrap().len();
        assert!(answer.body.len() < 5_000_000);
        (pages, path) = (pages + 1, next(&answer));
    }
    assert_eq!((pages, seen), (3, 3));
}
