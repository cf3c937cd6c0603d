//! Registries that lie, as a table: whatever comes instead of an answer, a pull gives one clear error soon, keeps to its
//! memory, sends no credentials elsewhere and leaves nothing behind.

use std::time::{Duration, Instant};

use dhow_image::Pull;
use dhow_testkit::{Auth, FakeRegistry, Fault, TinyImage, gzip};
use dhow_transport::{Client, Settings, Timeouts};
use dhow_types::{ErrorKind, Silent};

use crate::{World, base, chain, image, layer};

/// Where the lie is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Manifest,
    Config,
    Layer,
    Token,
}

use At::{Config, Layer, Manifest, Token};
use ErrorKind::{
    DataLoss, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, ResourceExhausted,
    Unauthenticated, Unavailable, Unsupported,
};

/// One lie: where, what, which kinds of error are right, and a word that the error must have.
type Lie = (&'static str, At, Fault, &'static [ErrorKind], &'static str);

/// How long one lie may hold a pull up, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn status(code: u16) -> Fault {
    Fault::Status(code, Vec::new())
}

fn challenge(text: &str) -> Fault {
    Fault::Status(401, vec![("WWW-Authenticate", text.to_owned())])
}

fn redirect(to: &str) -> Fault {
    Fault::Redirect(to.to_owned())
}

fn raw(text: &str) -> Fault {
    Fault::Raw(text.as_bytes().to_vec())
}

fn body(text: &str) -> Fault {
    Fault::Body(text.as_bytes().to_vec())
}

const PLAIN: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const PIXEL: &str = r#"{"schemaVersion":2,"config":{"mediaType":"a","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},"layers":[]"#;

#[rustfmt::skip]
fn refusals() -> Vec<Lie> {
    vec![
        ("no such manifest", Manifest, status(404), &[NotFound], "404"),
        ("gone", Manifest, status(410), &[NotFound], "410"),
        ("forbidden", Manifest, status(403), &[PermissionDenied], "403"),
        ("a challenge without one", Manifest, status(401), &[Unauthenticated], "401"),
        ("a challenge that is noise", Manifest, challenge("=,,\"\\"), &[Unauthenticated], "401"),
        ("a challenge of a kind that nobody speaks", Manifest, challenge("Negotiate"), &[Unauthenticated], "401"),
        ("a limit for an hour", Manifest, Fault::Status(429, vec![("Retry-After", "3600".into())]), &[ResourceExhausted], "429"),
        ("an error for ever", Manifest, status(500), &[Unavailable], "500"),
        ("an error that is no HTTP status", Manifest, status(999), &[ErrorKind::Internal, Unavailable, InvalidArgument], "999"),
        ("success without content", Manifest, status(204), &[ErrorKind::Internal, Unavailable], "204"),
        ("no such config", Config, status(404), &[NotFound], "404"),
        ("no such layer", Layer, status(404), &[NotFound], "404"),
        ("a forbidden layer", Layer, status(403), &[PermissionDenied], "403"),
        ("a part of a layer that nobody asked for", Layer, status(206), &[ErrorKind::Internal, DataLoss], "206"),
        ("a token server that fails", Token, status(503), &[Unavailable], "503"),
        ("a token server that refuses", Token, status(403), &[PermissionDenied], "403"),
    ]
}

#[rustfmt::skip]
fn documents() -> Vec<Lie> {
    let deep = "[".repeat(200_000);
    let huge = Fault::Body(vec![b' '; 5 << 20]);
    vec![
        ("an empty manifest", Manifest, body(""), &[DataLoss, InvalidArgument], "manifest"),
        ("half a manifest", Manifest, body("{"), &[DataLoss, InvalidArgument], "manifest"),
        ("a manifest that is nothing", Manifest, body("null"), &[DataLoss, InvalidArgument], "manifest"),
        ("a manifest that is a list", Manifest, body("[]"), &[DataLoss, InvalidArgument], "manifest"),
        ("a manifest without bottom", Manifest, body(&deep), &[DataLoss, InvalidArgument], "manifest"),
        ("a manifest of 5 MiB", Manifest, huge, &[ResourceExhausted], "bytes"),
        ("a manifest with one other byte", Manifest, Fault::WrongBytes, &[DataLoss], "digest"),
        ("a manifest under another's digest", Manifest, Fault::Header("Docker-Content-Digest", format!("sha256:{}", "0".repeat(64))), &[DataLoss], "digest"),
        ("a manifest that is an index too", Manifest, typed(&format!("{PIXEL},\"manifests\":[]}}")), &[InvalidArgument], "two ways"),
        ("a manifest of schema 1", Manifest, typed("{\"schemaVersion\":1}"), &[Unsupported], "schema 1"),
        ("a config of another size", Manifest, typed(&PIXEL.replace("\"size\":0", "\"size\":18446744073709551615")), &[InvalidArgument, ResourceExhausted, DataLoss], "manifest"),
        ("a negative size", Manifest, typed(&format!("{}}}", PIXEL.replace("\"size\":0", "\"size\":-1"))), &[InvalidArgument], "manifest"),
        ("a digest that is a path", Manifest, typed(&format!("{}}}", PIXEL.replace("sha256:e3", "sha256:../"))), &[InvalidArgument], "manifest"),
        ("a config with one other byte", Config, Fault::WrongBytes, &[DataLoss], "digest"),
        ("an empty config", Config, body(""), &[DataLoss], "bytes"),
        ("a config that is longer", Config, Fault::Body(vec![b' '; 100_000]), &[DataLoss], "bytes"),
        ("a layer with one other byte", Layer, Fault::WrongBytes, &[DataLoss, InvalidArgument], "layer"),
        ("another layer", Layer, Fault::Body(gzip(b"something else")), &[DataLoss], "bytes"),
        ("an empty layer", Layer, body(""), &[DataLoss], "bytes"),
        ("a token that is no JSON", Token, body("token"), &[Unavailable], "token"),
        ("a token that is empty", Token, body("{\"token\":\"\"}"), &[Unavailable], "no token"),
        ("a token with a line end", Token, body("{\"token\":\"a\\r\\nX: y\"}"), &[InvalidArgument], "header"),
        ("a token of 2 MiB", Token, Fault::Body(vec![b' '; 2 << 20]), &[Unavailable], "token"),
    ]
}

/// A whole answer with a document that has no digest of its own to betray it.
fn typed(text: &str) -> Fault {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
    Fault::Raw(format!("{head}\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into_bytes())
}

#[rustfmt::skip]
fn wires() -> Vec<Lie> {
    let long = format!("HTTP/1.1 200 OK\r\nX-Long: {}\r\n\r\n", "x".repeat(2 << 20));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-Many: 1\r\n".repeat(100_000));
    let dripping = Fault::Drip(Duration::from_millis(50));
    let silent = Fault::Hang(Duration::from_secs(3));
    vec![
        ("a manifest without end", Manifest, Fault::Endless(PLAIN), &[ResourceExhausted], "bytes"),
        ("a manifest that is cut", Manifest, Fault::Truncate(50), &[Unavailable], ""),
        ("a manifest shorter than announced", Manifest, Fault::TooShort(10), &[Unavailable], ""),
        ("a reset before the answer", Manifest, Fault::Reset(0), &[Unavailable], ""),
        ("a head that drips", Manifest, dripping.clone(), &[Unavailable], "no answer within"),
        ("a head and then silence", Manifest, silent.clone(), &[Unavailable], ""),
        ("a head of 2 MiB", Manifest, raw(&long), &[Unavailable], ""),
        ("a head of 100,000 lines", Manifest, raw(&many), &[Unavailable], ""),
        ("another protocol", Manifest, raw("SSH-2.0-OpenSSH_9.2\r\n"), &[Unavailable], ""),
        ("no head at all", Manifest, raw("{\"schemaVersion\":2}"), &[Unavailable], ""),
        ("a negative length", Manifest, raw("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}"), &[Unavailable], ""),
        ("two lengths", Manifest, raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}}"), &[Unavailable], ""),
        ("a chunk without a size", Manifest, Fault::Raw(format!("{CHUNKED}zz\r\n{{}}").into_bytes()), &[Unavailable], ""),
        ("a chunk as large as numbers go", Manifest, Fault::Raw(format!("{CHUNKED}ffffffffffffffff\r\n{{}}").into_bytes()), &[Unavailable], ""),
        ("an endless config", Config, Fault::Endless(PLAIN), &[DataLoss], ""),
        ("a config that is cut", Config, Fault::Truncate(10), &[Unavailable], ""),
        ("an endless layer", Layer, Fault::Endless(PLAIN), &[DataLoss, InvalidArgument], "layer"),
        ("a layer that is always cut", Layer, Fault::Truncate(0), &[Unavailable], "layer"),
        ("a layer that is always reset", Layer, Fault::Reset(0), &[Unavailable], "layer"),
        ("a layer shorter than announced", Layer, Fault::TooShort(10), &[DataLoss], "bytes"),
        ("a layer that drips", Layer, dripping.clone(), &[Unavailable], "layer"),
        ("a layer and then silence", Layer, silent, &[Unavailable], "layer"),
        ("an endless token", Token, Fault::Endless(PLAIN), &[Unavailable], "token"),
        ("a token server that drips", Token, dripping, &[Unavailable], "no answer within"),
    ]
}

#[rustfmt::skip]
fn elsewhere() -> Vec<Lie> {
    let realm = |text: &str| challenge(&format!("Bearer realm=\"{text}\",service=\"s\""));
    vec![
        ("a redirect to where it is", Manifest, redirect("?again"), &[FailedPrecondition], "redirects"),
        ("a redirect to a file", Manifest, redirect("file:///etc/passwd"), &[PermissionDenied], "file"),
        ("a redirect with a password", Manifest, redirect("http://user:secret@127.0.0.1:1/"), &[InvalidArgument], "password"),
        ("a redirect to nothing", Manifest, redirect("http://"), &[InvalidArgument], "redirect"),
        ("a layer that is where it is", Layer, redirect("?again"), &[FailedPrecondition], "redirects"),
        ("a layer in a file", Layer, redirect("file:///etc/shadow"), &[PermissionDenied], "file"),
        ("a token server in clear text elsewhere", Manifest, realm("http://registry.example/token"), &[PermissionDenied], "in clear text"),
        ("a token server that is a file", Manifest, realm("file:///etc/passwd"), &[InvalidArgument], "invalid URL"),
        ("a token server with a password", Manifest, realm("https://u:p@registry.example/"), &[InvalidArgument], "password"),
        ("a token server that sends us on", Token, redirect("http://127.0.0.1:1/token"), &[ErrorKind::Internal, Unavailable], "307"),
    ]
}

fn hasty() -> Client {
    Client::new(Settings {
        attempts: 2,
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            answer: Duration::from_millis(1500),
            stall: Duration::from_millis(500),
            backoff: Duration::from_millis(1),
            longest_pause: Duration::from_secs(2),
        },
        ..Settings::default()
    })
    .unwrap()
}

/// Most memory that this process has had, in MiB (proc_pid_status(5)).
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_ascii_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1024
}

fn told((what, at, fault, kinds, word): &Lie) {
    let mut world = World::new();
    world.client = hasty();
    let image = TinyImage::oci(vec![base(), layer("a", &[7; 3000])]);
    world.registry.put_image("app", "1", &image);
    if *at == Token {
        world.registry.require(Auth::Token);
    }
    let part = match at {
        Manifest => "/manifests/".to_owned(),
        Config => image.id().0.hex(),
        Layer => image.layers[1].descriptor().digest.hex(),
        Token => "/token".to_owned(),
    };
    world.registry.fail("", &part, usize::MAX, fault.clone());
    let begun = Instant::now();
    let error = world
        .store
        .pull(
            &world.client,
            &world.reference("app:1"),
            &Pull::default(),
            &Silent,
        )
        .unwrap_err();
    let said = chain(&error);
    assert!(
        begun.elapsed() < PATIENCE,
        "{what}: {:?}: {said}",
        begun.elapsed()
    );
    assert!(
        kinds.contains(&error.kind()),
        "{what}: {:?}: {said}",
        error.kind()
    );
    assert!(said.contains(word), "{what}: {word:?} is not in: {said}");
    assert!(
        said.contains(&world.registry.host()),
        "{what}: says on what: {said}"
    );
    assert!(said.len() < 2000 && !said.contains("secret"), "{what}: {said}");
    assert!(world.store.list().unwrap().is_empty(), "{what}");
    world.assert_clean();
}

#[test]
fn there_are_enough_lies() {
    assert!(refusals().len() + documents().len() + wires().len() + elsewhere().len() >= 70);
}

#[test]
fn answers_that_are_refusals_are_told() {
    refusals().iter().for_each(told);
}

#[test]
fn documents_that_are_not_what_they_should_be_are_told() {
    documents().iter().for_each(told);
}

#[test]
fn connections_that_break_drip_or_never_end_are_told() {
    wires().iter().for_each(told);
    // Without bounds the endless ones would have brought gigabytes.
    assert!(most_memory() < 700, "{} MiB", most_memory());
}

#[test]
fn answers_that_lead_elsewhere_are_told() {
    elsewhere().iter().for_each(told);
}

#[test]
fn credentials_stay_behind_when_a_registry_sends_us_to_another_host() {
    let world = World::new();
    let other = FakeRegistry::start();
    let image = image("a");
    world.registry.put_image("app", "1", &image);
    other.put_image("app", "1", &image);
    world.registry.require(Auth::Token);
    let target = |path: String| format!("http://{}{path}", other.host());
    world.registry.fail("GET", "/manifests/1", 1, status(401));
    let digest = image.layers[1].descriptor().digest;
    let blob = target(format!("/v2/app/blobs/{digest}"));
    world.registry.fail("GET", &digest.hex(), 1, redirect(&blob));
    world.pull("app:1").unwrap_or_else(|error| {
        // The 401 without a challenge is final; without it the pull goes through.
        assert_eq!(error.kind(), Unauthenticated);
        world.pull("app:1").unwrap()
    });
    let seen = other.requests();
    assert_eq!(seen.len(), 1);
    assert!(
        seen.iter()
            .all(|request| request.header("authorization").is_none()),
        "{seen:?}"
    );
    world.assert_clean();
}
