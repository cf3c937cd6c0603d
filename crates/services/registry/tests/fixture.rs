//! A server on a port of its own, and an HTTP client that hides nothing.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;

use dhow_registry::{Options, Registry, Server};
use dhow_types::Digest;

pub(crate) struct Fixture {
    pub(crate) address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
    /// Kept until the server is gone.
    _directory: Option<tempfile::TempDir>,
}

pub(crate) fn serve() -> Fixture {
    serve_with(Options {
        durable: false,
        ..Options::default()
    })
}

pub(crate) fn serve_with(options: Options) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let mut fixture = serve_at(directory.path(), options);
    fixture._directory = Some(directory);
    fixture
}

/// A test beside this one that starts a process has every descriptor twice until that process executes, and with them the
/// lock of a registry that was just stopped here: that passes.
fn opened(root: &Path, options: &Options) -> Registry {
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(5);
    loop {
        match Registry::open_with(root, options.clone()) {
            Err(error)
                if error.kind() == dhow_types::ErrorKind::FailedPrecondition
                    && std::time::Instant::now() < patience =>
            {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            opened => return opened.unwrap(),
        }
    }
}

pub(crate) fn serve_at(root: &Path, options: Options) -> Fixture {
    let registry = opened(root, &options);
    let server = Server::bind(registry, "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = server.address();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = std::thread::spawn(move || {
        server
            .run(async move { stopped.await.unwrap_or_default() })
            .unwrap();
    });
    Fixture {
        address,
        stop: Some(stop),
        running: Some(running),
        _directory: None,
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(running) = self.running.take() {
            running.join().unwrap();
        }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).into_iter().next()
    }

    pub(crate) fn headers(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The code of the first error.
    pub(crate) fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(
            self.status,
            status,
            "{} {}",
            self.head,
            String::from_utf8_lossy(&self.body)
        );
        assert_eq!(
            self.header("docker-distribution-api-version"),
            Some("registry/2.0")
        );
        self
    }
}

impl Fixture {
    /// A server that somebody else runs.
    pub(crate) fn remote(address: SocketAddr) -> Self {
        Self {
            address,
            stop: None,
            running: None,
            _directory: None,
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    pub(crate) fn head(&self, path: &str) -> Answer {
        self.send("HEAD", path, &[], b"")
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], b"")
    }

    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        if !headers
            .iter()
            .any(|(name, _)| *name == "Transfer-Encoding" || *name == "Content-Length")
        {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        self.raw(method, &[request.as_bytes(), body].concat())
    }

    /// Sends bytes as they are and reads one answer.
    pub(crate) fn raw(&self, method: &str, bytes: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        // A server that answers before it has read everything may close on us.
        stream.write_all(bytes).unwrap_or_default();
        read_answer(stream, method)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    /// Pushes a blob in one piece.
    pub(crate) fn blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        self.send("POST", &path, &[], bytes).is(201);
        digest
    }

    /// Pushes an image of one config and these layers under a tag.
    pub(crate) fn image(&self, name: &str, tag: &str, layers: &[&[u8]]) -> (Digest, String) {
        let config = format!("{{\"tag\":\"{tag}\"}}");
        self.blob(name, config.as_bytes());
        for layer in layers {
            self.blob(name, layer);
        }
        let manifest = manifest(config.as_bytes(), layers, "");
        self.manifest(name, tag, &manifest).is(201);
        (Digest::of(manifest.as_bytes()), manifest)
    }

    pub(crate) fn manifest(&self, name: &str, target: &str, text: &str) -> Answer {
        let path = format!("/v2/{name}/manifests/{target}");
        self.send("PUT", &path, &[("Content-Type", type_of(text))], text.as_bytes())
    }

    /// Opens an upload; gives its location.
    pub(crate) fn upload(&self, name: &str) -> String {
        let answer = self
            .send("POST", &format!("/v2/{name}/blobs/uploads/"), &[], b"")
            .is(202);
        assert_eq!(answer.header("range"), Some("0-0"));
        answer.header("location").unwrap().to_owned()
    }
}

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn type_of(text: &str) -> &'static str {
    if text.contains("\"manifests\"") {
        OCI_INDEX
    } else {
        OCI_MANIFEST
    }
}

/// The text of a manifest; `more` is put in as it is.
pub(crate) fn manifest(config: &[u8], layers: &[&[u8]], more: &str) -> String {
    let descriptor = |kind: &str, bytes: &[u8]| {
        format!(
            r#"{{"mediaType":"{kind}","digest":"{}","size":{}}}"#,
            Digest::of(bytes),
            bytes.len()
        )
    };
    let layers: Vec<String> = layers
        .iter()
        .map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", layer))
        .collect();
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{},"layers":[{}]{more}}}"#,
        descriptor("application/vnd.oci.image.config.v1+json", config),
        layers.join(",")
    )
}

pub(crate) fn read_answer(stream: TcpStream, method: &str) -> Answer {
    let mut input = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(
            input.read_line(&mut head).unwrap_or(0) > 0,
            "no answer to {method}: {head:?}"
        );
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut answer = Answer {
        status,
        head,
        body: Vec::new(),
    };
    if method != "HEAD" {
        let length = answer
            .header("content-length")
            .map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        input.read_exact(&mut body).unwrap();
        answer.body = body;
    }
    answer
}

/// Bytes that are not all the same.
pub(crate) fn content(length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| u8::try_from((i * 31 + i / 251) % 256).unwrap())
        .collect()
}
