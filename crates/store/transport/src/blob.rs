use std::fmt;
use std::io::{self, BufRead, Read};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use dhow_hash::{Hasher, Piece, Stream};
use dhow_oci::Descriptor;
use dhow_types::{Digest, ErrorKind};
use tokio::sync::mpsc;

use crate::Error;
use crate::client::Shared;

/// A manifest or index as a registry served it.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// What it is: media type, digest, size.
    pub descriptor: Descriptor,
    /// Its bytes, verified against the digest.
    pub bytes: Vec<u8>,
}

/// An answer to [`Client::get`](crate::Client::get).
#[derive(Debug)]
pub struct Download {
    /// Length of the body in bytes, when the server says it.
    pub length: Option<u64>,
    /// When it was changed last, in seconds since 1970, when the server says it.
    pub modified: Option<u64>,
    /// Its tag (`ETag`), when the server says one.
    pub tag: Option<String>,
    /// The body.
    pub body: Body,
}

/// A body that is being downloaded. Shorter than announced is an error. Must not be read from asynchronous code.
pub struct Body {
    chunks: mpsc::Receiver<Result<Bytes, Error>>,
    current: Bytes,
    broken: bool,
    /// Keeps the background thread alive.
    _shared: Arc<Shared>,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

impl Body {
    pub(crate) fn new(chunks: mpsc::Receiver<Result<Bytes, Error>>, shared: Arc<Shared>) -> Self {
        Self {
            chunks,
            current: Bytes::new(),
            broken: false,
            _shared: shared,
        }
    }

    /// The next chunk; `None` at the end. An error repeats: what failed must not look like an end.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.broken {
            return Err(io::Error::other("download failed before"));
        }
        match self.chunks.blocking_recv() {
            Some(Ok(bytes)) => Ok(Some(bytes)),
            Some(Err(error)) => {
                self.broken = true;
                Err(into_io(error))
            }
            None => Ok(None),
        }
    }
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() {
            match self.next()? {
                Some(bytes) => self.current = bytes,
                None => break,
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        self.current.advance(amount);
    }
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        copy_out(self, out)
    }
}

/// The bytes of a blob, verified while they are read: a wrong length or digest is an error, never an early end.
/// Must not be read from asynchronous code.
pub struct BlobReader {
    body: Body,
    current: Bytes,
    hash: Hash,
    seen: u64,
    size: u64,
    digest: Digest,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Verified,
    Wrong,
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("BlobReader");
        shown
            .field("digest", &self.digest)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

/// Bytes of a blob from which on another thread hashes it.
const LARGE: u64 = 1 << 20;

/// Pieces of a blob that wait to be hashed. They are what the network gave at once, up to 512 KiB.
const UNHASHED: usize = 4;

/// How a blob is hashed.
enum Hash {
    /// By who reads it.
    Here(Hasher),
    /// By another thread, beside the tar in it.
    Beside(Stream),
}

impl Hash {
    fn of(size: u64) -> Self {
        // Without another thread this one does it.
        match (size >= LARGE).then(Stream::begin) {
            Some(Ok(stream)) => Self::Beside(stream),
            _ => Self::Here(Hasher::new()),
        }
    }

    fn update(&mut self, bytes: &Bytes) {
        match self {
            Self::Here(hasher) => hasher.update(bytes),
            Self::Beside(stream) => stream.push(Box::new(Received(bytes.clone())), UNHASHED),
        }
    }

    fn finish(self) -> Digest {
        match self {
            Self::Here(hasher) => hasher.finish(),
            Self::Beside(stream) => stream.finish().0,
        }
    }
}

/// A piece of a blob that its reader has, too.
struct Received(Bytes);

impl Piece for Received {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn hashed(self: Box<Self>) {}
}

impl BlobReader {
    pub(crate) fn new(body: Body, descriptor: &Descriptor) -> Self {
        Self {
            body,
            current: Bytes::new(),
            hash: Hash::of(descriptor.size),
            seen: 0,
            size: descriptor.size,
            digest: descriptor.digest,
            state: State::Reading,
        }
    }

    fn take(&mut self) -> io::Result<()> {
        let Some(bytes) = self.body.next()? else {
            return self.verify();
        };
        self.seen += bytes.len() as u64;
        if self.seen > self.size {
            self.state = State::Wrong;
            let message = format!("blob {} is longer than its {} bytes", self.digest, self.size);
            return Err(into_io(Error::new(ErrorKind::DataLoss, message)));
        }
        self.hash.update(&bytes);
        self.current = bytes;
        Ok(())
    }

    fn verify(&mut self) -> io::Result<()> {
        self.state = State::Wrong;
        if self.seen != self.size {
            let message = format!(
                "blob {} ended after {} of {} bytes",
                self.digest, self.seen, self.size
            );
            return Err(into_io(Error::new(ErrorKind::DataLoss, message)));
        }
        let found = std::mem::replace(&mut self.hash, Hash::of(0)).finish();
        if found == self.digest {
            self.state = State::Verified;
            return Ok(());
        }
        let message = format!(
            "blob {} has the digest {found}: it was changed or damaged",
            self.digest
        );
        Err(into_io(Error::new(ErrorKind::DataLoss, message)))
    }
}

impl BufRead for BlobReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() {
            match self.state {
                State::Reading => self.take()?,
                State::Verified => break,
                State::Wrong => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "blob failed verification",
                    ));
                }
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        self.current.advance(amount);
    }
}

impl Read for BlobReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        copy_out(self, out)
    }
}

fn copy_out(from: &mut impl BufRead, out: &mut [u8]) -> io::Result<usize> {
    if out.is_empty() {
        return Ok(0);
    }
    let available = from.fill_buf()?;
    let amount = available.len().min(out.len());
    out[..amount].copy_from_slice(&available[..amount]);
    from.consume(amount);
    Ok(amount)
}

/// Our error inside an `io::Error` of the kind that maps back to ours.
fn into_io(error: Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::DataLoss => io::ErrorKind::InvalidData,
        ErrorKind::InvalidArgument => io::ErrorKind::InvalidInput,
        ErrorKind::NotFound => io::ErrorKind::NotFound,
        ErrorKind::PermissionDenied | ErrorKind::Unauthenticated => io::ErrorKind::PermissionDenied,
        ErrorKind::ResourceExhausted => io::ErrorKind::QuotaExceeded,
        ErrorKind::Unavailable => io::ErrorKind::ConnectionAborted,
        ErrorKind::Unsupported => io::ErrorKind::Unsupported,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
