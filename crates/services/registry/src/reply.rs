//! Answers and their bodies. Blobs are sent in pieces of [`PIECE`] bytes from buffers that are used again.

use std::fs::File;
use std::future::Future as _;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use rustix::io::ReadWriteFlags;
use tokio::task::JoinHandle;

use crate::fault::Fault;

/// Bytes of a blob that are read and sent at once: what is read is still in the processor's cache when it is sent.
const PIECE: usize = 256 << 10;
/// Buffers that are kept.
const MAX_BUFFERS: usize = 64;

pub(crate) const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
pub(crate) const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
pub(crate) const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
pub(crate) const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
pub(crate) const OCI_FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

pub(crate) type Reply = Response<Outgoing>;

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Bytes(Bytes),
    File(FileBody),
    /// What `HEAD` says there would be.
    Announced(u64),
}

/// A reply without a body.
pub(crate) fn empty(status: StatusCode) -> Reply {
    bytes(status, Bytes::new())
}

pub(crate) fn bytes(status: StatusCode, body: Bytes) -> Reply {
    let mut reply = Response::new(Outgoing::Bytes(body));
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    reply
}

pub(crate) fn json(status: StatusCode, value: &serde_json::Value) -> Reply {
    let mut reply = bytes(status, value.to_string().into());
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

impl From<Fault> for Reply {
    fn from(fault: Fault) -> Self {
        let mut reply = bytes(fault.status, fault.body().into());
        reply
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        reply.headers_mut().extend(fault.headers);
        reply
    }
}

/// A header value made of checked parts: names, digests, ids and escaped text have no other characters.
pub(crate) fn header(text: impl Into<String>) -> HeaderValue {
    HeaderValue::try_from(text.into()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Sets a header.
pub(crate) fn set(reply: &mut Reply, name: HeaderName, text: impl Into<String>) {
    reply.headers_mut().insert(name, header(text));
}

/// Escapes what a query may not hold.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Buffers of [`PIECE`] bytes, given back when the connection has sent them.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<Box<[u8]>>>);

struct Buffer {
    bytes: Box<[u8]>,
    used: usize,
    pool: Arc<Buffers>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut idle = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_BUFFERS {
            idle.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl Buffers {
    fn take(self: &Arc<Self>) -> Buffer {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = idle.unwrap_or_else(|| vec![0; PIECE].into_boxed_slice());
        Buffer {
            bytes,
            used: 0,
            pool: Arc::clone(self),
        }
    }
}

/// A part of a file.
#[derive(Debug)]
pub(crate) struct FileBody {
    file: Arc<File>,
    at: u64,
    end: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    buffers: Arc<Buffers>,
}

impl FileBody {
    /// The bytes from `at` to `end`, which the file has.
    pub(crate) fn new(file: File, at: u64, end: u64, buffers: &Arc<Buffers>) -> Self {
        Self {
            file: Arc::new(file),
            at,
            end,
            reading: None,
            buffers: Arc::clone(buffers),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let outcome = if let Some(reading) = &mut self.reading {
            match Pin::new(reading).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(outcome) => {
                    self.reading = None;
                    outcome.unwrap_or_else(|error| Err(io::Error::other(error)))
                }
            }
        } else {
            if self.at >= self.end {
                return Poll::Ready(None);
            }
            let length = usize::try_from(self.end - self.at).unwrap_or(PIECE).min(PIECE);
            match self.read_cached(length) {
                Ok(bytes) => Ok(bytes),
                Err(Some(error)) => Err(error),
                Err(None) => {
                    let (file, at, mut buffer) = (Arc::clone(&self.file), self.at, self.buffers.take());
                    self.reading = Some(tokio::task::spawn_blocking(move || {
                        file.read_exact_at(&mut buffer.bytes[..length], at)?;
                        buffer.used = length;
                        Ok(Bytes::from_owner(buffer))
                    }));
                    return self.poll(cx);
                }
            }
        };
        Poll::Ready(Some(outcome.map(|bytes| {
            self.at += bytes.len() as u64;
            Frame::data(bytes)
        })))
    }

    /// Reads what the kernel has in memory, which most blobs are when they are asked for; `Err(None)` when it would
    /// have to wait for the disk. Without this, each piece would cost two thread switches.
    fn read_cached(&self, length: usize) -> Result<Bytes, Option<io::Error>> {
        let mut buffer = self.buffers.take();
        let mut slices = [IoSliceMut::new(&mut buffer.bytes[..length])];
        match rustix::io::preadv2(&self.file, &mut slices, self.at, ReadWriteFlags::NOWAIT) {
            Ok(0) => Err(Some(io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => {
                buffer.used = read;
                Ok(Bytes::from_owner(buffer))
            }
            Err(_) => Err(None),
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::File(file) => file.poll(cx),
            Self::Announced(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::File(file) => file.at >= file.end && file.reading.is_none(),
            Self::Announced(length) => *length == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(file) => file.end - file.at,
            Self::Announced(length) => *length,
        })
    }
}
