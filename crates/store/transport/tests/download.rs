use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use dhow_oci::{Descriptor, media_type};
use dhow_transport::{Client, Ranges, Settings};
use dhow_types::{Digest, ErrorKind, Failure as _};

use crate::server::{Request, Server, answer, client, content, hasty, registry};

fn layer(bytes: &[u8]) -> Descriptor {
    Descriptor::of(media_type::OCI_LAYER, bytes)
}

/// Reads a blob to its end; the error as the kind that it maps to.
/// What a person sees of an error: all of its layers.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}"))
}

fn pull(client: &Client, server: &Server, descriptor: &Descriptor) -> Result<Vec<u8>, (ErrorKind, String)> {
    let mut out = Vec::new();
    let mut blob = client
        .blob(&server.reference("a/b:1"), descriptor)
        .map_err(|error| (error.kind(), chain(&error)))?;
    match blob.read_to_end(&mut out) {
        Ok(_) => Ok(out),
        Err(error) => {
            let again = blob.read(&mut [0; 8]);
            assert!(again.is_err(), "a failed blob must not look like an ended one");
            Err((error.kind_of(), error.to_string()))
        }
    }
}

trait KindOf {
    fn kind_of(&self) -> ErrorKind;
}

impl KindOf for std::io::Error {
    fn kind_of(&self) -> ErrorKind {
        dhow_types::Failure::kind(self)
    }
}

fn head(out: &mut TcpStream, status: &str, length: usize, more: &str) {
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{more}\r\n");
    out.write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_manifest_comes_with_its_type_and_digest() {
    let body = br#"{"schemaVersion":2}"#;
    let digest = Digest::of(body);
    let server = registry(move |_, request, out| {
        assert!(
            request
                .header("accept")
                .unwrap()
                .contains(media_type::DOCKER_LIST)
        );
        let headers = format!(
            "Content-Type: {}; charset=utf-8\r\nDocker-Content-Digest: {digest}\r\n",
            media_type::OCI_INDEX
        );
        answer(out, "200 OK", &headers, body)
    });
    let fetched = client().manifest(&server.reference("a/b")).unwrap();
    assert_eq!(fetched.bytes, body);
    assert_eq!(fetched.descriptor, Descriptor::of(media_type::OCI_INDEX, body));
    assert_eq!(server.requests()[0].path, "/v2/a/b/manifests/latest");
}

#[test]
fn a_manifest_that_is_not_its_digest_is_data_loss() {
    let server = registry(|_, request, out| {
        let lie = if request.path.ends_with(":1") {
            ""
        } else {
            "Docker-Content-Digest: sha256:00\r\n"
        };
        answer(out, "200 OK", lie, b"{}")
    });
    let client = client();
    let wanted = Digest::of(b"something else");
    let error = client.manifest_at(&server.reference("a"), &wanted).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    let error = client.manifest(&server.reference("a:2")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss, "the header lies");
}

#[test]
fn a_manifest_without_end_is_cut_at_its_limit() {
    let server = registry(|_, _, out| {
        out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .unwrap();
        let piece = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
        while out.write_all(&piece).is_ok() {}
        false
    });
    let error = client().manifest(&server.reference("a:1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
}

#[test]
fn a_missing_manifest_is_told_in_the_registrys_words_and_asked_for_once() {
    let server = registry(|_, _, out| {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such tag"}]}"#;
        answer(out, "404 Not Found", "", body)
    });
    let error = client().manifest(&server.reference("a:1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let expected = format!(
        "GET http://{}/v2/a/manifests/1: 404 Not Found: manifest unknown: no such tag",
        server.address
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_blob_comes_whole() {
    let body = content(3_000_000);
    let served = body.clone();
    let server = registry(move |_, _, out| answer(out, "200 OK", "", &served));
    assert_eq!(pull(&client(), &server, &layer(&body)).unwrap(), body);
    let empty = registry(|_, _, out| answer(out, "200 OK", "", b""));
    assert_eq!(pull(&client(), &empty, &layer(b"")).unwrap(), b"");
}

#[test]
fn a_blob_with_the_wrong_digest_is_data_loss_at_its_end() {
    let server = registry(|_, _, out| answer(out, "200 OK", "", b"wrong"));
    let (kind, message) = pull(&client(), &server, &layer(b"right")).unwrap_err();
    assert_eq!(kind, ErrorKind::DataLoss, "{message}");
}

#[test]
fn a_large_blob_with_one_wrong_byte_is_data_loss_at_its_end() {
    let body = content(3_000_000);
    let mut served = body.clone();
    served[2_345_678] ^= 1;
    let found = layer(&served).digest;
    let server = registry(move |_, _, out| answer(out, "200 OK", "", &served));
    let (kind, message) = pull(&client(), &server, &layer(&body)).unwrap_err();
    assert_eq!(kind, ErrorKind::DataLoss, "{message}");
    assert!(message.contains(&found.to_string()), "{message}");
}

#[test]
fn a_blob_of_another_length_is_data_loss_before_a_byte_is_read() {
    let server = registry(|_, _, out| answer(out, "200 OK", "", b"longer"));
    let (kind, message) = pull(&client(), &server, &layer(b"long")).unwrap_err();
    assert_eq!(kind, ErrorKind::DataLoss, "{message}");
}

#[test]
fn an_endless_blob_is_stopped_where_it_should_end() {
    let server = registry(|_, _, out| {
        out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .unwrap();
        while out.write_all(b"8\r\nendless!\r\n").is_ok() {}
        false
    });
    let (kind, message) = pull(&client(), &server, &layer(&content(100_000))).unwrap_err();
    assert_eq!(kind, ErrorKind::DataLoss, "{message}");
    assert_eq!(server.requests().len(), 1);
}

/// Serves `body` in pieces that break after `limit` bytes, with ranges.
fn breaking(body: Vec<u8>, limit: usize) -> Server {
    registry(move |_, request, out| {
        let start = range_start(request);
        let (status, more) = match start {
            0 => ("200 OK", String::new()),
            _ => (
                "206 Partial Content",
                format!(
                    "Content-Range: bytes {start}-{}/{}\r\n",
                    body.len() - 1,
                    body.len()
                ),
            ),
        };
        let rest = &body[start..];
        head(out, status, rest.len(), &more);
        out.write_all(&rest[..rest.len().min(limit)]).unwrap();
        rest.len() <= limit
    })
}

fn range_start(request: &Request) -> usize {
    let range = request
        .header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
    range.map_or(0, |start| start.parse().unwrap())
}

#[test]
fn a_blob_that_breaks_off_goes_on_where_it_stopped() {
    let body = content(1_000_000);
    let server = breaking(body.clone(), 300_000);
    assert_eq!(pull(&client(), &server, &layer(&body)).unwrap(), body);
    let starts: Vec<usize> = server.requests().iter().map(range_start).collect();
    assert_eq!(starts, [0, 300_000, 600_000, 900_000]);
}

#[test]
fn a_blob_that_makes_no_progress_is_given_up() {
    let body = content(1_000_000);
    let served = body.clone();
    let server = registry(move |_, request, out| {
        let start = range_start(request);
        let more = format!(
            "Content-Range: bytes {start}-{}/{}\r\n",
            served.len() - 1,
            served.len()
        );
        let status = if start == 0 {
            "200 OK"
        } else {
            "206 Partial Content"
        };
        head(out, status, served.len() - start, &more);
        out.write_all(&served[start..start + 10]).unwrap();
        false
    });
    let (kind, message) = pull(&client(), &server, &layer(&body)).unwrap_err();
    assert_eq!(kind, ErrorKind::Unavailable, "{message}");
    assert!(message.contains("of 1000000 bytes"), "{message}");
    assert_eq!(server.requests().len(), 5);
}

#[test]
fn a_server_without_ranges_is_read_again_from_the_start() {
    let body = content(500_000);
    let served = body.clone();
    let server = registry(move |number, _, out| {
        head(out, "200 OK", served.len(), "");
        let end = if number == 0 { 200_000 } else { served.len() };
        out.write_all(&served[..end]).unwrap();
        number > 0
    });
    assert_eq!(pull(&client(), &server, &layer(&body)).unwrap(), body);
}

#[test]
fn a_range_that_is_not_the_one_asked_for_is_refused() {
    let body = content(500_000);
    let served = body.clone();
    let server = registry(move |number, _, out| {
        if number == 0 {
            head(out, "200 OK", served.len(), "");
            out.write_all(&served[..200_000]).unwrap();
        } else {
            head(
                out,
                "206 Partial Content",
                400_000,
                "Content-Range: bytes 100000-499999/500000\r\n",
            );
            out.write_all(&served[100_000..]).unwrap();
        }
        false
    });
    let (kind, message) = pull(&client(), &server, &layer(&body)).unwrap_err();
    assert_eq!(kind, ErrorKind::DataLoss, "{message}");
}

#[test]
fn a_stalled_blob_is_asked_for_again() {
    let body = content(200_000);
    let served = body.clone();
    let server = registry(move |number, request, out| {
        let start = range_start(request);
        let more = format!(
            "Content-Range: bytes {start}-{}/{}\r\n",
            served.len() - 1,
            served.len()
        );
        head(
            out,
            if start == 0 {
                "200 OK"
            } else {
                "206 Partial Content"
            },
            served.len() - start,
            &more,
        );
        if number == 0 {
            out.write_all(&served[..100_000]).unwrap();
            std::thread::sleep(Duration::from_secs(3));
            return false;
        }
        out.write_all(&served[start..]).is_ok()
    });
    let started = Instant::now();
    assert_eq!(pull(&client(), &server, &layer(&body)).unwrap(), body);
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn failures_of_the_server_and_its_rate_limit_are_waited_out() {
    let server = registry(|number, _, out| match number {
        0 => answer(out, "500 Internal Server Error", "", b""),
        1 => answer(out, "503 Service Unavailable", "Retry-After: 0\r\n", b""),
        2 => answer(out, "429 Too Many Requests", "Retry-After: 1\r\n", b""),
        3 => false,
        _ => answer(out, "200 OK", "", b"ok"),
    });
    let started = Instant::now();
    assert_eq!(pull(&client(), &server, &layer(b"ok")).unwrap(), b"ok");
    assert!(
        started.elapsed() >= Duration::from_secs(1),
        "Retry-After is honoured"
    );
}

#[test]
fn a_rate_limit_that_asks_for_too_long_is_an_error_that_says_so() {
    let server = registry(|_, _, out| answer(out, "429 Too Many Requests", "Retry-After: 3600\r\n", b""));
    let error = client().manifest(&server.reference("a:1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
    assert!(error.hint().unwrap().contains("3600 seconds"));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let server = registry(|_, _, _| {
        std::thread::sleep(Duration::from_secs(5));
        false
    });
    let settings = dhow_transport::Settings {
        attempts: 1,
        ..hasty()
    };
    let client = Client::new(settings).unwrap();
    let error = client.manifest(&server.reference("a:1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.to_string().contains("no answer within 2 seconds"),
        "{error}"
    );
}

#[test]
fn nobody_listening_is_said_at_once() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let reference = dhow_reference::Reference::parse(&format!("localhost:{port}/a:1")).unwrap();
    let started = Instant::now();
    let client = Client::new(dhow_transport::Settings::default()).unwrap();
    let error = client.manifest(&reference).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_redirect_loop_ends() {
    let server = registry(|_, request, out| {
        let headers = format!("Location: {}x\r\n", request.path);
        answer(out, "307 Temporary Redirect", &headers, b"")
    });
    let (kind, message) = pull(&client(), &server, &layer(b"x")).unwrap_err();
    assert_eq!(kind, ErrorKind::FailedPrecondition, "{message}");
    assert_eq!(server.requests().len(), 11);
}

#[test]
fn a_redirect_to_another_scheme_says_so_and_is_asked_once() {
    for target in ["file:///etc/passwd", "file:/etc/passwd", "ftp://127.0.0.1/x"] {
        let server = registry(move |_, _, out| {
            let headers = format!("Location: {target}\r\n");
            answer(out, "307 Temporary Redirect", &headers, b"")
        });
        let (kind, message) = pull(&client(), &server, &layer(b"x")).unwrap_err();
        assert_eq!(kind, ErrorKind::PermissionDenied, "{message}");
        assert!(
            message.contains(target) && message.contains("only http and https"),
            "{message}"
        );
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn a_plain_url_is_fetched_from_many_threads_over_few_connections() {
    let ports = std::sync::Arc::new(std::sync::Mutex::new(std::collections::HashSet::new()));
    let log = std::sync::Arc::clone(&ports);
    let server = Server::start(move |_, request, out| {
        log.lock().unwrap().insert(out.peer_addr().unwrap().port());
        answer(out, "200 OK", "", request.path.as_bytes())
    });
    let client = client();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (client, server) = (client.clone(), &server);
            scope.spawn(move || {
                for file in 0..50 {
                    let path = format!("/pool/{thread}/{file}.deb");
                    let mut download = client.get(&format!("http://{}{path}", server.address)).unwrap();
                    assert_eq!(download.length, Some(path.len() as u64));
                    let mut out = String::new();
                    download.body.read_to_string(&mut out).unwrap();
                    assert_eq!(out, path);
                }
            });
        }
    });
    let used = ports.lock().unwrap().len();
    assert!(used <= 16, "{used} connections for 400 files");
}

#[test]
fn a_plain_url_that_changes_on_the_way_is_not_joined_to_itself() {
    let server = Server::start(|number, request, out| {
        if number == 0 {
            head(out, "200 OK", 100_000, "ETag: \"one\"\r\n");
            out.write_all(&[1; 70_000]).unwrap();
            return false;
        }
        assert_eq!(request.header("if-range"), Some("\"one\""));
        answer(out, "200 OK", "ETag: \"two\"\r\n", &[2; 100_000])
    });
    let mut download = client().get(&format!("http://{}/file", server.address)).unwrap();
    let error = download.body.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind_of(), ErrorKind::Unavailable, "{error}");
}

#[test]
fn credentials_for_a_plain_url_do_not_follow_a_redirect() {
    let other = Server::start(|_, request, out| {
        assert_eq!(request.header("authorization"), None);
        answer(
            out,
            "200 OK",
            "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
            b"there",
        )
    });
    let target = format!("Location: http://{}/file\r\n", other.address);
    let server = Server::start(move |_, request, out| {
        assert_eq!(request.header("authorization"), Some("Bearer hush"));
        match request.path.as_str() {
            "/own" => answer(out, "302 Found", "Location: /elsewhere\r\n", b""),
            "/elsewhere" => answer(out, "302 Found", &target, b""),
            path => panic!("{path}"),
        }
    });
    let url = format!("http://{}/own", server.address);
    let mut download = client().get_as(&url, Some("Bearer hush")).unwrap();
    assert_eq!(download.modified, Some(784_111_777));
    let mut out = Vec::new();
    download.body.read_to_end(&mut out).unwrap();
    assert_eq!(out, b"there");
    assert_eq!((server.requests().len(), other.requests().len()), (2, 1));
    let error = client().get_as(&url, Some("Bearer a\r\nx: y")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

#[test]
fn an_open_body_keeps_the_thread_that_feeds_it() {
    let server = registry(|_, _, out| answer(out, "200 OK", "", b"ok"));
    let client = client();
    let mut reader = client.blob(&server.reference("a:1"), &layer(b"ok")).unwrap();
    drop(client);
    let mut out = Vec::new();
    reader.read_to_end(&mut out).unwrap();
    assert_eq!(out, b"ok");
}

/// Not a test of its own: other tests of the same process have threads of the same name.
#[test]
#[ignore = "started by the test below"]
fn threads_of_a_process_of_its_own() {
    let threads = || {
        let listing = std::fs::read_dir("/proc/self/task").unwrap();
        let names = listing.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.trim() == "dhow-transport").count()
    };
    let server = registry(|_, _, out| answer(out, "200 OK", "", b"ok"));
    let client = client();
    assert_eq!(threads(), 0, "nothing is started before the first request");
    assert_eq!(pull(&client, &server, &layer(b"ok")).unwrap(), b"ok");
    assert_eq!(threads(), 1);
    let clone = client.clone();
    drop(client);
    assert_eq!(threads(), 1);
    drop(clone);
    // The kernel wakes whoever joins a thread just before it takes the thread off the list.
    let waited = std::time::Instant::now();
    while threads() > 0 && waited.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(threads(), 0, "whoever forks now has one thread");
}

#[test]
fn the_thread_is_gone_when_the_last_clone_is() {
    let done = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "download::threads_of_a_process_of_its_own",
            "--ignored",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn tags_are_read_over_all_pages() {
    let server = registry(|_, request, out| match request.path.as_str() {
        "/v2/a/tags/list" => {
            let link = "Link: </v2/a/tags/list?n=2&last=b>; rel=\"next\"\r\n";
            answer(
                out,
                "200 OK",
                link,
                br#"{"name":"a","tags":["a","b","\u001b[31m"]}"#,
            )
        }
        "/v2/a/tags/list?n=2&last=b" => answer(out, "200 OK", "", br#"{"name":"a","tags":["c"]}"#),
        other => panic!("{other}"),
    });
    assert_eq!(client().tags(&server.reference("a")).unwrap(), ["a", "b", "c"]);
    let empty = registry(|_, _, out| answer(out, "200 OK", "", br#"{"name":"a","tags":null}"#));
    assert!(client().tags(&empty.reference("a")).unwrap().is_empty());
}

/// Answers a range in its own way, or leaves it to the registry; whether the connection goes on.
type Answering = fn(&str, &mut TcpStream, &[u8]) -> Option<bool>;

/// A registry that gives each connection 256 KiB in 50 ms, whole or in ranges; how a range is answered is the caller's.
fn throttled(bytes: Vec<u8>, ranges: Answering) -> Server {
    registry(move |_, request, out| {
        let slowly = |out: &mut TcpStream, head: &str, body: &[u8]| {
            let head = format!("HTTP/1.1 {head}Content-Length: {}\r\n\r\n", body.len());
            out.write_all(head.as_bytes()).is_ok()
                && body.chunks(256 << 10).all(|piece| {
                    std::thread::sleep(Duration::from_millis(50));
                    out.write_all(piece).is_ok()
                })
        };
        let Some(range) = request.header("range") else {
            return slowly(out, "200 OK\r\n", &bytes);
        };
        if let Some(more) = ranges(range, out, &bytes) {
            return more;
        }
        let (start, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let start: usize = start.parse().unwrap();
        let end = end.parse().map_or(bytes.len(), |end: usize| end + 1);
        let head = format!(
            "206 Partial Content\r\nContent-Range: bytes {start}-{}/{}\r\n",
            end - 1,
            bytes.len()
        );
        slowly(out, &head, &bytes[start..end])
    })
}

fn spreading() -> Client {
    let ranges = Ranges {
        connections: 4,
        piece: 512 << 10,
        least: 1 << 20,
        after: Duration::from_millis(200),
        ..Ranges::default()
    };
    Client::new(Settings { ranges, ..hasty() }).unwrap()
}

fn fetched(client: &Client, server: &Server, bytes: &[u8]) -> Duration {
    let begun = Instant::now();
    let descriptor = Descriptor::of("application/octet-stream", bytes);
    let mut read = Vec::new();
    let mut blob = client.blob(&server.reference("a:1"), &descriptor).unwrap();
    blob.read_to_end(&mut read).unwrap();
    assert!(read == bytes);
    begun.elapsed()
}

#[test]
fn a_blob_that_one_connection_holds_up_comes_over_several() {
    let bytes = content(16 << 20);
    let server = throttled(bytes.clone(), |_, _, _| None);
    let one = Client::new(Settings {
        ranges: Ranges {
            connections: 1,
            ..Ranges::default()
        },
        ..hasty()
    })
    .unwrap();
    let (slow, fast) = (
        fetched(&one, &server, &bytes),
        fetched(&spreading(), &server, &bytes),
    );
    assert!(fast < slow.mul_f64(0.7), "{fast:?} {slow:?}");
    let ranged = server
        .requests()
        .iter()
        .filter(|request| request.header("range").is_some())
        .count();
    assert!(ranged >= 20, "{ranged}");
}

#[test]
fn ranges_that_fail_lie_or_are_not_there_leave_the_one_connection() {
    let lies: [Answering; 4] = [
        // No ranges at all: everything again.
        |_, out, bytes| Some(answer(out, "200 OK", "", bytes)),
        // Another range than asked for; the one that goes on to the end is right.
        |range, out, bytes| {
            (!range.ends_with('-')).then(|| {
                let head = format!("Content-Range: bytes 0-9/{}\r\n", bytes.len());
                answer(out, "206 Partial Content", &head, &bytes[..10])
            })
        },
        // Less than announced.
        |range, out, bytes| {
            (!range.ends_with('-')).then(|| {
                let (start, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
                let head = format!("Content-Range: bytes {start}-{end}/{}\r\n", bytes.len());
                answer(out, "206 Partial Content", &head, b"short")
            })
        },
        // Refused.
        |range, out, _| (!range.ends_with('-')).then(|| answer(out, "403 Forbidden", "", b"")),
    ];
    for lie in lies {
        let bytes = content(3 << 20);
        let server = throttled(bytes.clone(), lie);
        fetched(&spreading(), &server, &bytes);
    }
}
