//! A scripted HTTP server: each request is handed to a closure that writes whatever bytes it likes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dhow_reference::Reference;
use dhow_transport::{Client, Settings, Timeouts};

/// One request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Serves every connection in a thread of its own; `script` gets the number of the request, counted from 0 over
    /// all connections, and the connection to answer on. `false` closes it.
    pub(crate) fn start(
        script: impl Fn(usize, &Request, &mut TcpStream) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (script, log) = (Arc::new(script), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), script, log) = (stream, Arc::clone(&script), Arc::clone(&log)) else {
                    return;
                };
                std::thread::spawn(move || {
                    let mut out = stream.try_clone().unwrap();
                    let mut input = BufReader::new(stream);
                    while let Some(request) = read_request(&mut input) {
                        let number = {
                            let mut log = log.lock().unwrap();
                            log.push(request.clone());
                            log.len() - 1
                        };
                        if !script(number, &request, &mut out) {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, seen }
    }

    pub(crate) fn reference(&self, rest: &str) -> Reference {
        Reference::parse(&format!("{}/{rest}", self.address)).unwrap()
    }

    /// The requests other than the first look at `/v2/`.
    pub(crate) fn requests(&self) -> Vec<Request> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|request| !is_probe(request))
            .cloned()
            .collect()
    }
}

/// A scripted registry that is there: answers the first look by itself and does not count it.
pub(crate) fn registry(
    script: impl Fn(usize, &Request, &mut TcpStream) -> bool + Send + Sync + 'static,
) -> Server {
    let counter = std::sync::atomic::AtomicUsize::new(0);
    Server::start(move |_, request, out| {
        if is_probe(request) {
            return answer(out, "200 OK", "", b"{}");
        }
        let number = counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        script(number, request, out)
    })
}

fn is_probe(request: &Request) -> bool {
    request.method == "GET" && request.path == "/v2/"
}

fn read_request(input: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if input.read_line(&mut head).ok()? == 0 {
            return None;
        }
        if head[before..].trim().is_empty() {
            break;
        }
    }
    let mut words = head.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut request = Request {
        method,
        path,
        head,
        body: Vec::new(),
    };
    if let Some(length) = request.header("content-length") {
        let mut body = vec![0; length.parse().ok()?];
        input.read_exact(&mut body).ok()?;
        request.body = body;
    } else if request.header("transfer-encoding") == Some("chunked") {
        loop {
            let mut line = String::new();
            input.read_line(&mut line).ok()?;
            let mut chunk = vec![0; usize::from_str_radix(line.trim(), 16).ok()? + 2];
            input.read_exact(&mut chunk).ok()?;
            if chunk.len() == 2 {
                break;
            }
            request.body.extend_from_slice(&chunk[..chunk.len() - 2]);
        }
    }
    Some(request)
}

/// Writes a whole answer; `headers` are lines that end in CRLF.
pub(crate) fn answer(out: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> bool {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    out.write_all(head.as_bytes())
        .and_then(|()| out.write_all(body))
        .is_ok()
}

/// Settings that wait for nothing long.
pub(crate) fn hasty() -> Settings {
    Settings {
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(2),
            stall: Duration::from_millis(300),
            backoff: Duration::from_millis(5),
            longest_pause: Duration::from_secs(2),
        },
        ..Settings::default()
    }
}

pub(crate) fn client() -> Client {
    Client::new(hasty()).unwrap()
}

/// A client with these credentials, and the file that holds them.
pub(crate) fn client_with(auths: &str) -> (Client, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file: PathBuf = directory.path().join("config.json");
    std::fs::write(&file, format!("{{\"auths\":{{{auths}}}}}")).unwrap();
    (
        Client::new(Settings {
            auth: vec![file],
            ..hasty()
        })
        .unwrap(),
        directory,
    )
}

/// Bytes that are not all the same.
pub(crate) fn content(length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| u8::try_from((i * 31 + i / 251) % 256).unwrap())
        .collect()
}
