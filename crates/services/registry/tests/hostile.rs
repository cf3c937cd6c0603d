use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use dhow_registry::Options;
use dhow_types::Digest;

use crate::fixture::{content, serve, serve_with};

#[test]
fn names_that_are_paths_lead_nowhere() {
    let server = serve();
    for name in [
        "../../etc",
        "a/../../b",
        "A",
        "a//b",
        ".a",
        "a%2f..%2f..%2fetc",
        "%00",
        "a\\b",
        "-a",
        "a_",
    ] {
        for rest in ["manifests/1", "tags/list", "blobs/uploads/"] {
            let method = if rest.ends_with('/') { "POST" } else { "GET" };
            let answer = server.send(method, &format!("/v2/{name}/{rest}"), &[], b"");
            assert!(
                matches!(answer.status, 400 | 404),
                "{name} {rest}: {}",
                answer.status
            );
        }
    }
    let long = format!("/v2/{}/tags/list", "a".repeat(300));
    assert_eq!(server.get(&long).is(400).code(), "NAME_INVALID");
    assert!(
        server
            .get(&format!("/v2/{}/tags/list", "a".repeat(255)))
            .is(404)
            .code()
            == "NAME_UNKNOWN"
    );
}

#[test]
fn manifests_that_are_none_are_refused() {
    let server = serve();
    let deep = "[".repeat(100_000);
    for text in [
        "",
        "{}",
        "null",
        "[]",
        "{\"schemaVersion\":1}",
        "\u{0}",
        deep.as_str(),
    ] {
        assert_eq!(
            server.manifest("a", "1", text).is(400).code(),
            "MANIFEST_INVALID",
            "{text:.40}"
        );
    }
    assert_eq!(
        server.manifest("a", "%2e%2e", "{}").is(400).code(),
        "MANIFEST_INVALID"
    );
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_chunk_leaves_the_upload_as_it_was() {
    let server = serve();
    let location = server.upload("a");
    server
        .send("PATCH", &location, &[("Content-Range", "0-9")], &content(10))
        .is(202);
    let mut stream = server.connect();
    let head = format!(
        "PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Range: 10-1000009\r\nContent-Length: 1000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&content(500_000)).unwrap();
    drop(stream);
    assert_eq!(server.get(&location).is(204).header("range"), Some("0-9"));
    let rest = &content(100)[10..];
    server
        .send("PATCH", &location, &[("Content-Range", "10-99")], rest)
        .is(202);
    let digest = Digest::of(&content(100));
    server
        .send("PUT", &format!("{location}?digest={digest}"), &[], b"")
        .is(201);
}

#[test]
fn a_stream_that_breaks_off_keeps_what_came_and_says_how_much() {
    let server = serve();
    let location = server.upload("a");
    let mut stream = server.connect();
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&content(300_000)).unwrap();
    drop(stream);
    // The question comes on a connection of its own and may overtake the stream; once it is heard, all of it counts.
    let deadline = Instant::now() + Duration::from_secs(30);
    let came = loop {
        let status = server.get(&location).is(204);
        let range = status.header("range").unwrap().to_owned();
        if range != "0-0" || Instant::now() > deadline {
            break range;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(came, "0-299999");
}

#[test]
fn a_client_that_sends_nothing_more_is_not_waited_for() {
    let options = Options {
        patience: Duration::from_millis(300),
        durable: false,
        ..Options::default()
    };
    let server = serve_with(options);
    let location = server.upload("a");
    let mut stream = server.connect();
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nxx");
    stream.write_all(head.as_bytes()).unwrap();
    let started = Instant::now();
    let answer = crate::fixture::read_answer(stream, "PATCH");
    assert_eq!(answer.status, 408);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn endless_headers_and_garbage_are_refused() {
    let server = serve();
    let many: String = (0..150).map(|n| format!("X-{n}: y\r\n")).collect();
    let answer = server.raw(
        "GET",
        format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes(),
    );
    assert_eq!(answer.status, 431);
    let long = format!(
        "GET /v2/ HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "y".repeat(100_000)
    );
    assert_eq!(server.raw("GET", long.as_bytes()).status, 431);
    let mut stream = server.connect();
    stream
        .write_all(b"\x16\x03\x01 this is not HTTP at all\r\n\r\n")
        .unwrap();
    let mut out = Vec::new();
    // Either an error answer or a closed connection.
    stream.read_to_end(&mut out).unwrap_or_default();
    assert!(out.is_empty() || out.starts_with(b"HTTP/1.1 400"));
    server.get("/v2/").is(200);
}

#[test]
fn two_requests_that_close_one_upload_make_one_blob() {
    let server = serve();
    for round in 0..20_u32 {
        let bytes = [content(50_000), round.to_le_bytes().to_vec()].concat();
        let digest = Digest::of(&bytes);
        let location = server.upload("a");
        server.send("PATCH", &location, &[], &bytes).is(202);
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let closing: Vec<_> = (0..4)
                .map(|thread| {
                    let (server, location) = (&server, &location);
                    scope.spawn(move || match thread {
                        // Whoever comes late must not write into what is published.
                        3 => server.send("PATCH", location, &[], b"more").status,
                        _ => {
                            server
                                .send("PUT", &format!("{location}?digest={digest}"), &[], b"")
                                .status
                        }
                    })
                })
                .collect();
            closing.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let served = server.get(&format!("/v2/a/blobs/{digest}"));
        if statuses.contains(&201) {
            assert!(served.is(200).body == bytes, "{statuses:?}");
        } else {
            served.is(404);
        }
    }
}
