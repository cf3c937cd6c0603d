use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use dhow_registry::{Options, Registry, Server};
use dhow_types::{Digest, ErrorKind};

use crate::fixture::{Fixture, content, serve_at};

#[test]
fn one_process_serves_a_root_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let open = Registry::open(directory.path()).unwrap();
    let error = Registry::open(directory.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    drop(open);
    Registry::open(directory.path()).unwrap();
}

#[test]
fn an_index_of_a_newer_program_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    drop(Registry::open(directory.path()).unwrap());
    let index = directory.path().join("registry.db");
    let connection = rusqlite::Connection::open(&index).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    assert_eq!(
        Registry::open(directory.path()).unwrap_err().kind(),
        ErrorKind::FailedPrecondition
    );
}

#[test]
fn an_upload_goes_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let options = || Options {
        durable: false,
        ..Options::default()
    };
    let bytes = content(400_000);
    let first = serve_at(directory.path(), options());
    let (location, untouched) = (first.upload("a"), first.upload("a"));
    first
        .send(
            "PATCH",
            &location,
            &[("Content-Range", "0-199999")],
            &bytes[..200_000],
        )
        .is(202);
    drop(first);
    let second = serve_at(directory.path(), options());
    assert_eq!(second.get(&location).is(204).header("range"), Some("0-199999"));
    second.get(&untouched).is(204);
    second.get(&location.replace("/a/", "/b/")).is(404);
    second
        .send(
            "PATCH",
            &location,
            &[("Content-Range", "200000-399999")],
            &bytes[200_000..],
        )
        .is(202);
    let digest = Digest::of(&bytes);
    second
        .send("PUT", &format!("{location}?digest={digest}"), &[], b"")
        .is(201);
    assert!(second.get(&format!("/v2/a/blobs/{digest}")).is(200).body == bytes);
}

/// Not a test of its own: the process that the next one kills.
#[test]
#[ignore = "started by the test below"]
fn server_to_be_killed() {
    let Some(root) = std::env::var_os("DHOW_TEST_REGISTRY_ROOT") else {
        return;
    };
    let registry = Registry::open(Path::new(&root)).unwrap();
    let server = Server::bind(registry, "127.0.0.1:0".parse().unwrap()).unwrap();
    println!("\nserving {}", server.address());
    server.run(std::future::pending()).unwrap();
}

fn spawn(root: &Path) -> (Child, std::net::SocketAddr) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "restart::server_to_be_killed",
            "--ignored",
            "--nocapture",
        ])
        .env("DHOW_TEST_REGISTRY_ROOT", root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines
        .find_map(|line| line.ok()?.strip_prefix("serving ")?.parse().ok())
        .unwrap();
    (child, address)
}

#[test]
fn what_was_acknowledged_survives_kill_9_and_what_was_not_can_be_done_again() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = content(1_000_000);
    let mut pushed: Vec<(String, Digest)> = Vec::new();
    for round in 0..5 {
        let (mut child, address) = spawn(directory.path());
        let name = format!("round{round}");
        let server = Fixture::remote(address);
        let (manifest, _) = server.image(&name, "1", &[b"layer", name.as_bytes()]);
        pushed.push((name.clone(), manifest));
        let location = server.upload(&name);
        server.send("PATCH", &location, &[], &bytes[..500_000]).is(202);
        // Half of a push is under way when the process dies.
        let mut stream = server.connect();
        let head = format!(
            "PUT {location}?digest={} HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n",
            Digest::of(&bytes)
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream
            .write_all(&bytes[500_000..500_000 + 100_000 * round])
            .unwrap();
        child.kill().unwrap();
        child.wait().unwrap();

        let after = serve_at(directory.path(), Options::default());
        for (name, manifest) in &pushed {
            after.get(&format!("/v2/{name}/manifests/1")).is(200);
            after.get(&format!("/v2/{name}/manifests/{manifest}")).is(200);
            assert_eq!(
                after
                    .get(&format!("/v2/{name}/blobs/{}", Digest::of(b"layer")))
                    .is(200)
                    .body,
                b"layer"
            );
        }
        after
            .head(&format!("/v2/{name}/blobs/{}", Digest::of(&bytes)))
            .is(404);
        let range = after.get(&location).is(204).header("range").unwrap().to_owned();
        let came: usize = range.strip_prefix("0-").unwrap().parse().unwrap();
        assert!((499_999..1_000_000).contains(&came), "{range}");
        let rest = &bytes[came + 1..];
        after
            .send(
                "PUT",
                &format!("{location}?digest={}", Digest::of(&bytes)),
                &[],
                rest,
            )
            .is(201);
        after
            .delete(&format!("/v2/{name}/blobs/{}", Digest::of(&bytes)))
            .is(202);
    }
}
