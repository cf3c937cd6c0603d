use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use dhow_types::{ErrorKind, Failure as _};

use crate::server::{Server, answer, client, client_with, registry};

fn basic(user_and_password: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(user_and_password)
}

/// A token server; counts its requests.
fn tokens(check: impl Fn(&crate::server::Request) + Send + Sync + 'static) -> Server {
    Server::start(move |number, request, out| {
        check(request);
        let body = format!(r#"{{"token":"T{number}","expires_in":300}}"#);
        answer(out, "200 OK", "", body.as_bytes())
    })
}

fn bearer_registry(realm: String) -> Server {
    registry(move |_, request, out| match request.header("authorization") {
        Some(value) if value.starts_with("Bearer T") => answer(out, "200 OK", "", b"{}"),
        Some(other) => panic!("{other}"),
        None => {
            let challenge = format!(
                "WWW-Authenticate: Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:a/b:pull\"\r\n"
            );
            answer(out, "401 Unauthorized", &challenge, b"")
        }
    })
}

#[test]
fn a_token_is_fetched_once_and_used_again() {
    let realm = tokens(|request| {
        assert_eq!(request.path, "/token?service=s&scope=repository:a/b:pull");
        assert_eq!(request.header("authorization"), None);
    });
    let server = bearer_registry(format!("http://{}/token", realm.address));
    let client = client();
    for _ in 0..3 {
        client.manifest(&server.reference("a/b:1")).unwrap();
    }
    assert_eq!(realm.seen.lock().unwrap().len(), 1);
    assert_eq!(server.requests().len(), 4, "one 401, three manifests");
}

#[test]
fn the_token_server_gets_the_password_and_the_registry_the_token() {
    let realm = tokens(|request| {
        let expected = format!("Basic {}", basic("me:secret"));
        assert_eq!(request.header("authorization"), Some(expected.as_str()));
        assert!(request.path.contains("account=me"));
    });
    let server = bearer_registry(format!("http://{}/token", realm.address));
    let auths = format!(r#""{}":{{"auth":"{}"}}"#, server.address, basic("me:secret"));
    let (client, _directory) = client_with(&auths);
    client.manifest(&server.reference("a/b:1")).unwrap();
    assert_eq!(realm.seen.lock().unwrap().len(), 1);
}

#[test]
fn an_identity_token_is_exchanged_by_post() {
    let realm = tokens(|request| {
        assert_eq!(request.method, "POST");
        let body = String::from_utf8(request.body.clone()).unwrap();
        assert!(
            body.contains("grant_type=refresh_token&refresh_token=R%20%26x&"),
            "{body}"
        );
        assert!(!request.path.contains('?'));
    });
    let server = bearer_registry(format!("http://{}/token", realm.address));
    let auths = format!(r#""{}":{{"identitytoken":"R &x"}}"#, server.address);
    let (client, _directory) = client_with(&auths);
    client.manifest(&server.reference("a/b:1")).unwrap();
    assert_eq!(realm.seen.lock().unwrap().len(), 1);
}

#[test]
fn basic_credentials_are_sent_only_after_the_registry_asks() {
    let expected = format!("Basic {}", basic("me:secret"));
    let server = registry(move |_, request, out| match request.header("authorization") {
        Some(value) => {
            assert_eq!(value, expected);
            answer(out, "200 OK", "", b"{}")
        }
        None => answer(
            out,
            "401 Unauthorized",
            "WWW-Authenticate: Basic realm=\"r\"\r\n",
            b"",
        ),
    });
    let auths = format!(r#""{}":{{"auth":"{}"}}"#, server.address, basic("me:secret"));
    let (client, _directory) = client_with(&auths);
    client.manifest(&server.reference("a:1")).unwrap();
    client.manifest(&server.reference("a:1")).unwrap();
    assert_eq!(server.requests().len(), 3, "asked once, then known");
}

#[test]
fn refused_credentials_are_unauthenticated_and_tried_once() {
    let server = registry(|_, _, out| {
        answer(
            out,
            "401 Unauthorized",
            "WWW-Authenticate: Basic realm=\"r\"\r\n",
            b"",
        )
    });
    let auths = format!(r#""{}":{{"auth":"{}"}}"#, server.address, basic("me:wrong"));
    let (client, _directory) = client_with(&auths);
    let error = client.manifest(&server.reference("a:1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    assert!(error.hint().unwrap().contains("log in again"));
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_redirected_blob_gets_no_credentials_cve_2020_15157() {
    let storage = Server::start(|_, request, out| {
        assert_eq!(request.header("authorization"), None, "credentials leaked");
        answer(out, "200 OK", "", b"blob")
    });
    let target = format!("http://localhost:{}/blob?sig=x", storage.address.port());
    let server = registry(move |_, request, out| match request.header("authorization") {
        Some(_) => answer(
            out,
            "307 Temporary Redirect",
            &format!("Location: {target}\r\n"),
            b"",
        ),
        None => answer(
            out,
            "401 Unauthorized",
            "WWW-Authenticate: Basic realm=\"r\"\r\n",
            b"",
        ),
    });
    let auths = format!(
        r#""{0}":{{"auth":"{1}"}},"localhost:{2}":{{"auth":"{1}"}}"#,
        server.address,
        basic("me:secret"),
        storage.address.port()
    );
    let (client, _directory) = client_with(&auths);
    let descriptor = dhow_oci::Descriptor::of("x", b"blob");
    let mut blob = client.blob(&server.reference("a:1"), &descriptor).unwrap();
    std::io::copy(&mut blob, &mut std::io::sink()).unwrap();
    assert_eq!(storage.seen.lock().unwrap().len(), 1);
}

#[test]
fn a_storage_server_that_asks_for_a_login_does_not_get_the_registrys() {
    let storage = Server::start(|_, request, out| {
        assert_eq!(request.header("authorization"), None, "credentials leaked");
        answer(
            out,
            "401 Unauthorized",
            "WWW-Authenticate: Basic realm=\"evil\"\r\n",
            b"",
        )
    });
    let target = format!("http://localhost:{}/blob", storage.address.port());
    let server = registry(move |_, _, out| answer(out, "302 Found", &format!("Location: {target}\r\n"), b""));
    let auths = format!(r#""{}":{{"auth":"{}"}}"#, server.address, basic("me:secret"));
    let (client, _directory) = client_with(&auths);
    let descriptor = dhow_oci::Descriptor::of("x", b"blob");
    let error = client.blob(&server.reference("a:1"), &descriptor).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    assert_eq!(storage.seen.lock().unwrap().len(), 1);
}

#[test]
fn a_token_server_in_clear_text_on_the_network_is_refused() {
    let asked = std::sync::Arc::new(AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&asked);
    let server = registry(move |_, _, out| {
        count.fetch_add(1, Ordering::SeqCst);
        let challenge = "WWW-Authenticate: Bearer realm=\"http://auth.example/token\",service=\"s\"\r\n";
        answer(out, "401 Unauthorized", challenge, b"")
    });
    let error = client().manifest(&server.reference("a:1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(error.to_string().contains("clear text"), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn a_token_that_ended_is_renewed_once() {
    let realm = tokens(|_| ());
    let address = realm.address;
    let server = registry(move |_, request, out| match request.header("authorization") {
        Some("Bearer T1") => answer(out, "200 OK", "", b"{}"),
        _ => {
            let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{address}/token\"\r\n");
            answer(out, "401 Unauthorized", &challenge, b"")
        }
    });
    let client = client();
    let reference = server.reference("a:1");
    // The first token is refused: one try with it, then an error.
    assert_eq!(
        client.manifest(&reference).unwrap_err().kind(),
        ErrorKind::Unauthenticated
    );
    // It is renewed with the next request, and is good.
    client.manifest(&reference).unwrap();
    assert_eq!(realm.seen.lock().unwrap().len(), 2);
}

#[test]
fn a_token_server_that_is_down_is_tried_as_often_as_any_other_and_no_more() {
    let realm = Server::start(|_, _, out| answer(out, "503 Service Unavailable", "", b""));
    let server = bearer_registry(format!("http://{}/token", realm.address));
    let error = client().manifest(&server.reference("a/b:1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(
        (realm.seen.lock().unwrap().len(), server.requests().len()),
        (5, 1)
    );
}

#[test]
fn a_token_answer_that_is_garbage_is_an_error_that_does_not_quote_it() {
    let realm = Server::start(|_, _, out| answer(out, "200 OK", "", br#"{"token":7,"secret":"hush"}"#));
    let server = bearer_registry(format!("http://{}/token", realm.address));
    let error = client().manifest(&server.reference("a/b:1")).unwrap_err();
    assert!(!error.to_string().contains("hush"), "{error}");
}

#[test]
fn a_helper_that_is_not_there_is_missed_only_when_it_is_needed() {
    let server = registry(|_, request, out| match request.path.as_str() {
        "/v2/public/manifests/1" => answer(out, "200 OK", "", b"{}"),
        _ => answer(
            out,
            "401 Unauthorized",
            "WWW-Authenticate: Basic realm=\"r\"\r\n",
            b"",
        ),
    });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.json");
    std::fs::write(
        &file,
        format!(r#"{{"credHelpers":{{"{}":"pass"}}}}"#, server.address),
    )
    .unwrap();
    let settings = dhow_transport::Settings {
        auth: vec![file],
        ..crate::server::hasty()
    };
    let client = dhow_transport::Client::new(settings).unwrap();
    client.manifest(&server.reference("public:1")).unwrap();
    let error = client.manifest(&server.reference("private:1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let said = said(&error);
    assert!(said.contains("docker-credential-pass"), "{said}");
    assert!(error.hint().unwrap().contains("credHelpers"));
}

fn said(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {}", said(cause)));
    format!("{error}{}", cause.unwrap_or_default())
}

/// A folder with a helper that says `answer` for any server and counts how often it was asked.
fn helper(answer: &str) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("docker-credential-counting");
    let script = format!(
        "#!/bin/sh\nread -r server\necho \"$1 $server\" >> {}/asked\necho '{answer}'\n",
        folder.path().display()
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn a_helper_is_asked_once_and_its_token_is_exchanged_by_post() {
    let realm = tokens(|request| {
        assert_eq!(request.method, "POST");
        let body = String::from_utf8(request.body.clone()).unwrap();
        assert!(body.contains("refresh_token=R1"), "{body}");
    });
    let server = bearer_registry(format!("http://{}/token", realm.address));
    let folder = helper(r#"{"Username":"<token>","Secret":"R1"}"#);
    let file = folder.path().join("config.json");
    std::fs::write(&file, r#"{"credsStore":"counting"}"#).unwrap();
    let settings = dhow_transport::Settings {
        auth: vec![file],
        helpers: vec![folder.path().to_owned()],
        ..crate::server::hasty()
    };
    let client = dhow_transport::Client::new(settings).unwrap();
    for _ in 0..3 {
        client.manifest(&server.reference("a/b:1")).unwrap();
    }
    let asked = std::fs::read_to_string(folder.path().join("asked")).unwrap();
    // The helper has no line end on its input.
    assert_eq!(asked.trim(), format!("get {}", server.address));
}

#[test]
fn a_token_server_that_knows_no_get_is_asked_by_post() {
    let realm = Server::start(|_, request, out| match request.method.as_str() {
        "GET" => answer(out, "405 Method Not Allowed", "", b""),
        _ => {
            let body = String::from_utf8(request.body.clone()).unwrap();
            assert!(
                body.contains("grant_type=password&username=me&password=s%26t&"),
                "{body}"
            );
            answer(out, "200 OK", "", br#"{"access_token":"T","expires_in":300}"#)
        }
    });
    let server = bearer_registry(format!("http://{}/token", realm.address));
    let auths = format!(r#""{}":{{"auth":"{}"}}"#, server.address, basic("me:s&t"));
    let (client, _directory) = client_with(&auths);
    client.manifest(&server.reference("a/b:1")).unwrap();
}

#[test]
fn a_login_is_checked_without_being_stored() {
    let expected = format!("Basic {}", basic("me:secret"));
    let server = Server::start(move |_, request, out| {
        let good = request.header("authorization") == Some(expected.as_str());
        let status = if good { "200 OK" } else { "401 Unauthorized" };
        answer(out, status, "WWW-Authenticate: Basic realm=\"r\"\r\n", b"{}")
    });
    let (client, registry) = (client(), server.address.to_string());
    client.check_login(&registry, "me", "secret").unwrap();
    let error = client.check_login(&registry, "me", "wrong").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
}

#[test]
fn a_token_answer_that_never_ends_is_given_up() {
    let realm = Server::start(|_, _, out| {
        use std::io::Write as _;
        out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            .unwrap();
        std::thread::sleep(std::time::Duration::from_secs(5));
        false
    });
    let server = bearer_registry(format!("http://{}/token", realm.address));
    let started = std::time::Instant::now();
    let error = client().manifest(&server.reference("a/b:1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(started.elapsed() < std::time::Duration::from_secs(3));
}
