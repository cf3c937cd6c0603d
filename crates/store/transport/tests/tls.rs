//! Who is trusted with what. `0.0.0.0` reaches this machine without being loopback, so that it stands for a registry
//! on the network.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use dhow_reference::Reference;
use dhow_transport::{Client, Proxies, Settings};
use dhow_types::{ErrorKind, Failure as _};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::server::{Server, answer, hasty, registry};

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/tls")
        .join(name)
}

/// A TLS server that answers every request with its HTTP version.
fn tls_server(protocols: &[&[u8]]) -> u16 {
    serve(protocols, Arc::new(rustls::server::NoClientAuth))
}

/// The same, for those who show a certificate of our authority.
fn tls_server_asking() -> u16 {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(data("authority.pem")).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    serve(&[], verifier.build().unwrap())
}

fn serve(protocols: &[&[u8]], clients: Arc<dyn rustls::server::danger::ClientCertVerifier>) -> u16 {
    let certificate = CertificateDer::from_pem_file(data("certificate.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(data("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut first = [0; 1];
                    stream.peek(&mut first).await.unwrap();
                    if first[0] != 0x16 {
                        // What Go's servers say to those who speak clear text.
                        use tokio::io::AsyncWriteExt as _;
                        let text = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
                        return stream.write_all(text).await.unwrap_or_default();
                    }
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
                        let text = format!("{:?}", request.version());
                        Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(text))))
                    });
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    builder.serve_connection(TokioIo::new(stream), service).await.unwrap_or_default();
                });
            }
        });
    });
    port
}

fn with(change: impl FnOnce(&mut Settings)) -> Client {
    let mut settings = Settings {
        attempts: 1,
        ..hasty()
    };
    change(&mut settings);
    Client::new(settings).unwrap()
}

fn trusting() -> Client {
    with(|settings| settings.ca_files.push(data("authority.pem")))
}

fn image(host: &str, port: u16) -> Reference {
    Reference::parse(&format!("{host}:{port}/a:1")).unwrap()
}

fn version(client: &Client, reference: &Reference) -> String {
    String::from_utf8(client.manifest(reference).unwrap().bytes).unwrap()
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused_with_advice() {
    let port = tls_server(&[]);
    let error = with(|_| ()).manifest(&image("0.0.0.0", port)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    assert!(error.hint().unwrap().contains("certificate authority"));
}

#[test]
fn a_named_authority_is_trusted_and_both_versions_of_http_are_spoken() {
    let image = |port| image("0.0.0.0", port);
    assert_eq!(
        version(&trusting(), &image(tls_server(&[b"http/1.1"]))),
        "HTTP/1.1"
    );
    assert_eq!(
        version(&trusting(), &image(tls_server(&[b"h2", b"http/1.1"]))),
        "HTTP/2.0"
    );
    assert_eq!(version(&trusting(), &image(tls_server(&[]))), "HTTP/1.1");
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let port = tls_server(&[]);
    // The listener is on 127.0.0.1, which 127.0.0.2 does not reach; a name from the hosts file would need root. The
    // address of the request is not in the certificate when it is written in another way.
    let error = trusting().manifest(&image("[::ffff:0:0]", port));
    if let Err(error) = error {
        assert!(
            matches!(
                error.kind(),
                ErrorKind::FailedPrecondition | ErrorKind::Unavailable
            ),
            "{error}"
        );
    } else {
        panic!("accepted");
    }
}

#[test]
fn a_registry_on_the_network_is_never_spoken_to_in_clear_text() {
    let server = registry(|_, _, out| answer(out, "200 OK", "", b"{}"));
    let error = with(|_| ())
        .manifest(&image("0.0.0.0", server.address.port()))
        .unwrap_err();
    assert!(
        matches!(
            error.kind(),
            ErrorKind::FailedPrecondition | ErrorKind::Unavailable
        ),
        "{error}"
    );
    assert!(
        server.seen.lock().unwrap().is_empty(),
        "no request came in clear text"
    );
}

#[test]
fn a_registry_named_as_insecure_may_have_any_certificate_or_none() {
    let port = tls_server(&[]);
    let client = with(|settings| settings.insecure.push(format!("0.0.0.0:{port}")));
    assert_eq!(version(&client, &image("0.0.0.0", port)), "HTTP/1.1");
    let server = registry(|_, _, out| answer(out, "200 OK", "", b"{}"));
    let client = with(|settings| settings.insecure.push("0.0.0.0".to_owned()));
    client.manifest(&image("0.0.0.0", server.address.port())).unwrap();
}

#[test]
fn a_loopback_registry_with_tls_is_found_out_by_itself() {
    for host in ["localhost", "127.0.0.1"] {
        assert_eq!(
            version(&with(|_| ()), &image(host, tls_server(&[b"h2"]))),
            "HTTP/2.0"
        );
    }
}

#[test]
fn a_redirect_from_tls_to_clear_text_is_refused() {
    let plain = Server::start(|_, _, out| answer(out, "200 OK", "", b"leak"));
    let target = format!("Location: http://0.0.0.0:{}/blob\r\n", plain.address.port());
    // A registry on loopback may be anything; the redirect leads off it only by name.
    let server = registry(move |_, _, out| answer(out, "307 Temporary Redirect", &target, b""));
    let client = with(|settings| {
        settings
            .insecure
            .push(format!("0.0.0.0:{}", server.address.port()))
    });
    let error = client
        .manifest(&image("0.0.0.0", server.address.port()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    let local = Server::start(|_, _, out| answer(out, "200 OK", "", b"internal"));
    let target = format!("Location: http://127.0.0.1:{}/secret\r\n", local.address.port());
    let server = registry(move |_, _, out| answer(out, "307 Temporary Redirect", &target, b""));
    let client = with(|settings| {
        settings
            .insecure
            .push(format!("0.0.0.0:{}", server.address.port()))
    });
    let error = client
        .manifest(&image("0.0.0.0", server.address.port()))
        .unwrap_err();
    assert!(error.to_string().contains("this machine"), "{error}");
    assert!(local.seen.lock().unwrap().is_empty() && plain.seen.lock().unwrap().is_empty());
}

#[test]
fn a_plain_request_goes_through_the_proxy_with_its_password_and_the_whole_url() {
    let proxy = Server::start(|_, request, out| {
        assert_eq!(request.path, "http://archive.test/file");
        assert_eq!(request.header("proxy-authorization"), Some("Basic dTpw"));
        answer(out, "200 OK", "", b"by proxy")
    });
    let client = with(|settings| {
        settings.proxies = Proxies {
            http: Some(format!("http://u:p@{}", proxy.address)),
            ..Proxies::default()
        };
    });
    let mut out = String::new();
    client
        .get("http://archive.test/file")
        .unwrap()
        .body
        .read_to_string(&mut out)
        .unwrap();
    assert_eq!(out, "by proxy");
}

/// A proxy that opens tunnels to `port` here, whatever host is asked for; remembers what was asked.
fn tunnels(port: u16) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            log.lock().unwrap().push(String::from_utf8(head).unwrap());
            stream
                .write_all(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n")
                .unwrap();
            let target = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (mut from, mut to) = (stream.try_clone().unwrap(), target.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to).map(drop).unwrap_or_default());
            let (mut from, mut to) = (target, stream);
            std::thread::spawn(move || std::io::copy(&mut from, &mut to).map(drop).unwrap_or_default());
        }
    });
    (address, asked)
}

#[test]
fn tls_goes_through_a_tunnel_of_the_proxy_and_is_verified_there() {
    let (proxy, asked) = tunnels(tls_server(&[b"http/1.1"]));
    let proxied = |settings: &mut Settings| {
        settings.proxies = Proxies {
            https: Some(format!("http://{proxy}")),
            ..Proxies::default()
        };
    };
    let client = with(|settings| {
        proxied(settings);
        settings.ca_files.push(data("authority.pem"));
    });
    assert_eq!(version(&client, &image("registry.test", 443)), "HTTP/1.1");
    assert!(asked.lock().unwrap()[0].starts_with("CONNECT registry.test:443 HTTP/1.1\r\n"));
    let error = client.manifest(&image("other.test", 443)).unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::FailedPrecondition,
        "the certificate is for another name: {error}"
    );
    let error = with(proxied).manifest(&image("registry.test", 443)).unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::FailedPrecondition,
        "the authority is not trusted: {error}"
    );
}

#[test]
fn a_proxy_that_refuses_says_so() {
    for (status, kind) in [
        ("403 Forbidden", ErrorKind::FailedPrecondition),
        ("407 Proxy Authentication Required", ErrorKind::Unauthenticated),
    ] {
        let proxy = Server::start(move |_, _, out| answer(out, status, "", b""));
        let client = with(|settings| {
            settings.proxies = Proxies {
                https: Some(format!("http://{}", proxy.address)),
                ..Proxies::default()
            };
        });
        let error = client.manifest(&image("registry.test", 443)).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[test]
fn a_name_that_does_not_exist_is_not_tried_again() {
    let started = std::time::Instant::now();
    let client = Client::new(Settings::default()).unwrap();
    let error = client.get("http://no-such-host.invalid/").unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable),
        "{error}"
    );
    if error.kind() == ErrorKind::NotFound {
        assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
        assert!(started.elapsed() < std::time::Duration::from_secs(20));
    }
}

#[test]
fn the_folder_of_a_host_says_whom_to_trust_there_and_only_there() {
    let folder = tempfile::tempdir().unwrap();
    let (known, other) = (tls_server(&[]), tls_server(&[]));
    let own = folder.path().join(format!("0.0.0.0:{known}"));
    std::fs::create_dir(&own).unwrap();
    std::fs::copy(data("authority.pem"), own.join("ca.crt")).unwrap();
    let client = with(|settings| settings.registries.hosts = vec![folder.path().to_owned()]);
    client.manifest(&image("0.0.0.0", known)).unwrap();
    let error = client.manifest(&image("0.0.0.0", other)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
}

#[test]
fn a_client_certificate_is_shown_to_the_host_that_it_is_for() {
    let folder = tempfile::tempdir().unwrap();
    let port = tls_server_asking();
    let own = folder.path().join(format!("0.0.0.0:{port}"));
    std::fs::create_dir(&own).unwrap();
    std::fs::copy(data("authority.pem"), own.join("ca.crt")).unwrap();
    let client = || with(|settings| settings.registries.hosts = vec![folder.path().to_owned()]);
    client().manifest(&image("0.0.0.0", port)).unwrap_err();
    std::fs::copy(data("certificate.pem"), own.join("client.cert")).unwrap();
    std::fs::copy(data("key.pem"), own.join("client.key")).unwrap();
    client().manifest(&image("0.0.0.0", port)).unwrap();
}
