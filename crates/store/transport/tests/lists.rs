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

#[test]
fn what_refers_to_a_manifest_is_listed_under_a_tag_where_the_registry_does_not_list_it() {
    use std::sync::{Arc, Mutex};
    let subject = Digest::of(b"subject");
    let manifest = format!(
        r#"{{"schemaVersion":2,"artifactType":"sig","config":{{"mediaType":"c","digest":"{subject}","size":2}},
            "layers":[],"subject":{{"mediaType":"m","digest":"{subject}","size":7}},"annotations":{{"a":"b"}}}}"#
    );
    for has_api in [false, true] {
        let list = Arc::new(Mutex::new(Some(index(&[descriptor("old", "sbom")]))));
        let kept = Arc::clone(&list);
        let tag = format!("/v2/a/manifests/sha256-{}", subject.hex());
        let server = registry(move |_, request, out| {
            let mut kept = kept.lock().unwrap();
            match (request.method.as_str(), request.path == tag) {
                ("PUT", true) => {
                    *kept = Some(request.body.clone());
                    answer(out, "201 Created", "", b"")
                }
                ("GET", true) => answer(out, "200 OK", "", kept.as_ref().unwrap()),
                ("PUT", false) if has_api => answer(out, "201 Created", "OCI-Subject: sha256:x\r\n", b""),
                ("PUT", false) => answer(out, "201 Created", "", b""),
                _ => answer(out, "404 Not Found", "", b""),
            }
        });
        let name = server.reference("a:1");
        for _twice in 0..2 {
            client().push_referrer(&name, manifest.as_bytes()).unwrap();
        }
        let kept = String::from_utf8(list.lock().unwrap().clone().unwrap()).unwrap();
        let expected = Digest::of(manifest.as_bytes()).to_string();
        let listed = kept.matches(&expected).count();
        assert_eq!(listed, usize::from(!has_api), "{kept}");
        assert!(kept.contains(&Digest::of(b"old").to_string()), "{kept}");
        assert_eq!(kept.contains(r#""artifactType":"sig""#), !has_api, "{kept}");
    }
    let plain = br#"{"schemaVersion":2,"config":{"mediaType":"c","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},"layers":[]}"#;
    let server = registry(|_, _, out| answer(out, "500 Never Asked", "", b""));
    let error = client()
        .push_referrer(&server.reference("a:1"), plain)
        .unwrap_err();
    assert_eq!(error.kind(), dhow_types::ErrorKind::InvalidArgument);
}
