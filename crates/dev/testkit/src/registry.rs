//! A registry in the test's own process.

mod http;
mod routes;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dhow_types::Digest;

use crate::image::TinyImage;

/// What goes wrong with an answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Another status, with an error body and these headers (`Retry-After`).
    Status(u16, Vec<(&'static str, String)>),
    /// One byte of the body is another one; length and headers are right.
    WrongBytes,
    /// The announced length is larger by this, and the connection closes after the body.
    TooShort(u64),
    /// The body ends after so many bytes, and the connection closes; the announced length is that of the whole.
    Truncate(usize),
    /// The connection is reset after so many bytes of the body.
    Reset(usize),
    /// The body comes in pieces of so many bytes with a pause after each.
    Slow(usize, Duration),
    /// 307 to this URL.
    Redirect(String),
    /// A header has this value instead of the right one.
    Header(&'static str, String),
    /// Another body under the same headers, except for its length.
    Body(Vec<u8>),
    /// These bytes instead of an answer, and the connection closes.
    Raw(Vec<u8>),
    /// This head, and then bytes without end.
    Endless(&'static str),
    /// This head one byte at a time with a pause after each, for as long as anybody listens.
    Drip(Duration),
    /// The right head, no body, and silence for so long.
    Hang(Duration),
}

/// How a person must show who they are.
#[derive(Clone, Debug)]
pub enum Auth {
    /// `Authorization: Basic` with this name and password.
    Basic(&'static str, &'static str),
    /// A token from `/token`, for anybody.
    Token,
    /// A token from `/token`, for this name and password.
    TokenFor(&'static str, &'static str),
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// The query, without the question mark.
    pub query: String,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a header; `name` in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| unescape(value))
            .next()
    }
}

struct Rule {
    method: String,
    part: String,
    times: usize,
    fault: Fault,
}

#[derive(Default)]
struct State {
    blobs: HashMap<(String, Digest), Arc<Vec<u8>>>,
    manifests: HashMap<(String, String), (String, Vec<u8>)>,
    uploads: HashMap<String, Vec<u8>>,
    serial: u64,
    rules: Vec<Rule>,
    auth: Option<Auth>,
    log: Vec<Request>,
}

/// A registry on 127.0.0.1; gone when dropped.
pub struct FakeRegistry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
}

impl std::fmt::Debug for FakeRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeRegistry")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for a connection.
        drop(TcpStream::connect(self.address));
    }
}

impl FakeRegistry {
    /// Starts on a free port.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let registry = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
            stop: Arc::default(),
        };
        let (state, stop, address) = (
            Arc::clone(&registry.state),
            Arc::clone(&registry.stop),
            registry.address,
        );
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (state, stop) = (Arc::clone(&state), Arc::clone(&stop));
                // A connection that breaks is the client's doing, or a fault that was asked for.
                std::thread::spawn(move || {
                    stream.and_then(|stream| http::serve(stream, address, &state, &stop))
                });
            }
        });
        registry
    }

    /// `127.0.0.1:port`: what comes before the first slash of a reference.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// `127.0.0.1:port/<name>`.
    #[must_use]
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Stores an image with all its blobs under a tag.
    pub fn put_image(&self, repository: &str, tag: &str, image: &TinyImage) {
        self.put_blob(repository, &image.config);
        for layer in &image.layers {
            self.put_blob(repository, &layer.blob);
        }
        self.put_manifest(repository, tag, &image.media_type, &image.manifest);
    }

    /// Stores a manifest or index under a tag and under its digest; nothing is checked.
    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) {
        let mut state = lock(&self.state);
        for reference in [tag.to_owned(), Digest::of(bytes).to_string()] {
            let key = (repository.to_owned(), reference);
            state
                .manifests
                .insert(key, (media_type.to_owned(), bytes.to_vec()));
        }
    }

    /// Stores a blob.
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) {
        self.put_blob_as(repository, Digest::of(bytes), bytes);
    }

    /// Stores bytes under a digest that may be another's.
    pub fn put_blob_as(&self, repository: &str, digest: Digest, bytes: &[u8]) {
        lock(&self.state)
            .blobs
            .insert((repository.to_owned(), digest), Arc::new(bytes.to_vec()));
    }

    /// The manifest under a tag or digest, with its media type.
    #[must_use]
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<(String, Vec<u8>)> {
        lock(&self.state)
            .manifests
            .get(&(repository.to_owned(), reference.to_owned()))
            .cloned()
    }

    /// A blob.
    #[must_use]
    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Vec<u8>> {
        lock(&self.state)
            .blobs
            .get(&(repository.to_owned(), *digest))
            .map(|bytes| bytes.to_vec())
    }

    /// Asks for credentials from now on.
    pub fn require(&self, auth: Auth) {
        lock(&self.state).auth = Some(auth);
    }

    /// The next `times` answers to `method` (empty: any) on a path that contains `part` go wrong.
    pub fn fail(&self, method: &str, part: &str, times: usize, fault: Fault) {
        lock(&self.state).rules.push(Rule {
            method: method.to_owned(),
            part: part.to_owned(),
            times,
            fault,
        });
    }

    /// Every request so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.state).log.clone()
    }

    /// How many requests of this method had a path that contains `part`.
    #[must_use]
    pub fn count(&self, method: &str, part: &str) -> usize {
        let requests = self.requests();
        requests
            .iter()
            .filter(|request| request.method == method && request.path.contains(part))
            .count()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        lock(&self.state).log.clear();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail
            .get(..2)
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
