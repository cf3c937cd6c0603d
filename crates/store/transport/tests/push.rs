use dhow_oci::Descriptor;
use dhow_types::{Digest, ErrorKind};

use crate::server::{answer, client, content, registry};

#[test]
fn a_blob_is_pushed_in_one_piece_to_where_the_registry_says() {
    let body = content(1_000_000);
    let expected = body.clone();
    let server = registry(move |_, request, out| match request.method.as_str() {
        "POST" => answer(out, "202 Accepted", "Location: /upload/7?state=s\r\n", b""),
        "PUT" => {
            assert_eq!(
                request.path,
                format!("/upload/7?state=s&digest={}", Digest::of(&expected))
            );
            assert_eq!(request.header("content-length"), Some("1000000"));
            assert!(request.body == expected);
            answer(out, "201 Created", "", b"")
        }
        other => panic!("{other}"),
    });
    let descriptor = Descriptor::of("x", &body);
    client()
        .push_blob(&server.reference("a:1"), &descriptor, &mut body.as_slice())
        .unwrap();
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn content_that_is_not_the_blob_never_becomes_a_whole_upload() {
    let server = registry(|_, request, out| match request.method.as_str() {
        "POST" => answer(out, "202 Accepted", "Location: /upload/7\r\n", b""),
        "DELETE" => answer(out, "204 No Content", "", b""),
        other => panic!("{other} was completed"),
    });
    let descriptor = Descriptor::of("x", &content(500_000));
    let mut other = content(500_000);
    other[499_999] ^= 1;
    let short = content(499_999);
    let long = content(500_001);
    for wrong in [&other, &short, &long, &Vec::new()] {
        let error = client()
            .push_blob(&server.reference("a:1"), &descriptor, &mut wrong.as_slice())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
    }
}

#[test]
fn a_stream_is_patched_then_closed_with_its_digest() {
    let body = content(700_000);
    let (expected, digest) = (body.clone(), Digest::of(&body));
    let server = registry(move |_, request, out| match request.method.as_str() {
        "POST" => answer(out, "202 Accepted", "Location: /upload/7\r\n", b""),
        "PATCH" => {
            assert_eq!(request.header("transfer-encoding"), Some("chunked"));
            assert!(request.body == expected);
            answer(out, "202 Accepted", "Location: /upload/8\r\n", b"")
        }
        _ => {
            assert_eq!(request.path, format!("/upload/8?digest={digest}"));
            answer(out, "201 Created", "", b"")
        }
    });
    let pushed = client()
        .push_stream(&server.reference("a:1"), &mut body.as_slice())
        .unwrap();
    assert_eq!(pushed, (digest, 700_000));
    let nothing = registry(|_, request, out| match request.method.as_str() {
        "PUT" => answer(out, "201 Created", "", b""),
        _ => answer(out, "202 Accepted", "Location: /upload/7\r\n", b""),
    });
    let pushed = client()
        .push_stream(&nothing.reference("a:1"), &mut [].as_slice())
        .unwrap();
    assert_eq!(pushed, (Digest::of(b""), 0));
}

#[test]
fn an_upload_that_the_registry_refuses_half_way_is_told_in_its_words() {
    let server = crate::server::Server::start(|_, request, out| match request.method.as_str() {
        "GET" => answer(out, "200 OK", "", b"{}"),
        _ => answer(
            out,
            "403 Forbidden",
            "",
            br#"{"errors":[{"code":"DENIED","message":"quota"}]}"#,
        ),
    });
    let body = content(1000);
    let error = client().push_blob(
        &server.reference("a:1"),
        &Descriptor::of("x", &body),
        &mut body.as_slice(),
    );
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("denied: quota"), "{error}");
}

#[test]
fn a_mount_that_is_declined_cancels_the_upload_that_it_opened() {
    let server = registry(|_, request, out| match request.method.as_str() {
        "POST" => {
            assert!(request.path.ends_with("&from=other/repo"), "{}", request.path);
            answer(out, "202 Accepted", "Location: /upload/9\r\n", b"")
        }
        "DELETE" => answer(out, "204 No Content", "", b""),
        other => panic!("{other}"),
    });
    let digest = Digest::of(b"x");
    assert!(
        !client()
            .mount_blob(&server.reference("a:1"), &digest, "other/repo")
            .unwrap()
    );
    assert_eq!(server.requests().last().unwrap().path, "/upload/9");
    let mounted = registry(|_, _, out| answer(out, "201 Created", "", b""));
    assert!(
        client()
            .mount_blob(&mounted.reference("a:1"), &digest, "other/repo")
            .unwrap()
    );
    assert!(
        client()
            .mount_blob(&mounted.reference("a:1"), &digest, "../etc")
            .is_err()
    );
}

#[test]
fn a_manifest_is_put_again_after_a_failure_and_its_digest_compared() {
    let server = registry(|number, request, out| {
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("PUT", "/v2/a/manifests/1")
        );
        match number {
            0 => answer(out, "500 Internal Server Error", "", b""),
            1 => answer(out, "201 Created", "", b""),
            _ => {
                let other = format!("Docker-Content-Digest: {}\r\n", Digest::of(b"other"));
                answer(out, "201 Created", &other, b"")
            }
        }
    });
    let (client, reference) = (client(), server.reference("a:1"));
    assert_eq!(
        client.push_manifest(&reference, "application/x", b"{}").unwrap(),
        Digest::of(b"{}")
    );
    let error = client
        .push_manifest(&reference, "application/x", b"{}")
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    assert!(client.push_manifest(&reference, "bad\ntype", b"{}").is_err());
}

#[test]
fn a_blob_is_looked_for_by_head() {
    let server = registry(|number, request, out| {
        assert_eq!(request.method, "HEAD");
        use std::io::Write as _;
        let status = if number == 0 { "200 OK" } else { "404 Not Found" };
        out.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n").as_bytes())
            .is_ok()
    });
    let (client, reference) = (client(), server.reference("a:1"));
    assert!(client.has_blob(&reference, &Digest::of(b"x")).unwrap());
    assert!(!client.has_blob(&reference, &Digest::of(b"x")).unwrap());
}

#[test]
fn a_server_that_dies_under_an_upload_is_an_error_and_the_client_can_be_dropped() {
    for method in ["PUT", "PATCH"] {
        let server = crate::server::Server::start(move |_, request, out| match request.method.as_str() {
            "GET" => answer(out, "200 OK", "", b"{}"),
            "POST" => answer(out, "202 Accepted", "Location: /upload/7\r\n", b""),
            _ => false,
        });
        let (client, reference) = (client(), server.reference("a:1"));
        let body = content(20_000_000);
        let error = match method {
            "PUT" => {
                let descriptor = Descriptor::of("x", &body);
                client
                    .push_blob(&reference, &descriptor, &mut body.as_slice())
                    .unwrap_err()
            }
            _ => client.push_stream(&reference, &mut body.as_slice()).unwrap_err(),
        };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        drop(client);
    }
}

#[test]
fn clients_start_and_end_without_waiting_for_each_other() {
    let server = registry(|_, _, out| answer(out, "200 OK", "", b"{}"));
    for _ in 0..200 {
        let client = client();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let (client, reference) = (client.clone(), server.reference("a:1"));
                scope.spawn(move || client.has_blob(&reference, &Digest::of(b"x")).unwrap());
            }
        });
        drop(client);
    }
}

#[test]
fn many_threads_that_find_nobody_listening_all_come_back() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let reference = dhow_reference::Reference::parse(&format!("127.0.0.1:{port}/a:1")).unwrap();
    for _ in 0..100 {
        let client = dhow_transport::Client::new(dhow_transport::Settings::default()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let (client, reference) = (&client, &reference);
                scope.spawn(move || {
                    let error = client.has_blob(reference, &Digest::of(b"x")).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Unavailable);
                    client
                        .push_stream(reference, &mut [1; 1000].as_slice())
                        .unwrap_err();
                });
            }
        });
    }
}
