use dhow_types::Digest;

use crate::server::{answer, client, registry};

fn descriptor(name: &str, kind: &str) -> String {
    let digest = Digest::of(name.as_bytes());
    format!(
        r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{},"artifactType":"{kind}"}}"#,
        name.len()
    )
}

fn index(entries: &[String]) -> Vec<u8> {
    format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(",")).into_bytes()
}

#[test]
fn referrers_come_over_all_pages_and_are_filtered_here_too() {
    let subject = Digest::of(b"subject");
    let server = registry(move |_, request, out| {
        assert!(
            request.path.starts_with(&format!("/v2/a/referrers/{subject}")),
            "{}",
            request.path
        );
        if request.path.contains("page=2") {
            return answer(out, "200 OK", "", &index(&[descriptor("c", "sig")]));
        }
        let link = format!("Link: </v2/a/referrers/{subject}?page=2>; rel=\"next\"\r\n");
        answer(
            out,
            "200 OK",
            &link,
            &index(&[descriptor("a", "sig"), descriptor("b", "sbom")]),
        )
    });
    let name = server.reference("a:1");
    assert_eq!(client().referrers(&name, &subject, None).unwrap().len(), 3);
    let signatures = client().referrers(&name, &subject, Some("sig")).unwrap();
    assert_eq!(
        signatures.iter().map(|found| found.digest).collect::<Vec<_>>(),
        [Digest::of(b"a"), Digest::of(b"c")]
    );
    assert!(server.requests().last().unwrap().path.contains("page=2"));
    assert!(server.requests()[2].path.ends_with("?artifactType=sig"));
}

#[test]
fn a_registry_without_referrers_has_them_under_a_tag_or_has_none() {
    let subject = Digest::of(b"subject");
    let tag = format!("/v2/a/manifests/sha256-{}", subject.hex());
    let server = registry(move |_, request, out| match request.path.as_str() {
        path if path == tag => answer(out, "200 OK", "", &index(&[descriptor("a", "sig")])),
        _ => answer(out, "404 Not Found", "", b""),
    });
    assert_eq!(
        client()
            .referrers(&server.reference("a:1"), &subject, None)
            .unwrap()
            .len(),
        1
    );
    assert!(
        client()
            .referrers(&server.reference("b:1"), &subject, None)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_search_is_docker_hubs_or_else_a_look_through_the_catalog() {
    let hub = registry(|_, request, out| {
        // The first look at a registry on this machine: which scheme it speaks.
        if request.path == "/v1/" {
            return answer(out, "404 Not Found", "", b"");
        }
        assert_eq!(request.path, "/v1/search?q=deb%20ian&n=2");
        let body = br#"{"results":[
            {"name":"debian","description":"a \u001b[31msystem","star_count":5,"is_official":true},
            {"name":"no name!"},{"name":"x/debian"},{"name":"y/debian"}]}"#;
        answer(out, "200 OK", "", body)
    });
    let found = client().search(&hub.address.to_string(), "deb ian", 2).unwrap();
    assert_eq!(
        found.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(),
        ["debian", "x/debian"]
    );
    assert!(found[0].official && found[0].stars == 5 && found[0].description == "a [31msystem");
    let plain = registry(|_, request, out| match request.path.as_str() {
        "/v2/_catalog?n=1000" => answer(
            out,
            "200 OK",
            "",
            br#"{"repositories":["a/debian","b","debian"]}"#,
        ),
        _ => answer(out, "404 Not Found", "", b""),
    });
    let found = client().search(&plain.address.to_string(), "debian", 25).unwrap();
    assert_eq!(
        found.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(),
        ["a/debian", "debian"]
    );
}
