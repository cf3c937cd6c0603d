//! Bodies that are sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// What a request carries.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// Nothing, or bytes that are at hand and may be sent again.
    Bytes(Bytes),
    /// Pieces from a thread that reads them somewhere; only once.
    Pieces(Pieces),
}

/// A body that another thread feeds. `None` ends it; a feeder that goes away without that breaks the request, so that
/// the other side never takes half a body for a whole one.
#[derive(Debug)]
pub(crate) struct Pieces {
    pub(crate) feed: mpsc::Receiver<Option<Bytes>>,
    /// Bytes still to come, when the length is known.
    pub(crate) length: Option<u64>,
    /// Counts pieces taken by the connection, and whether one is being waited for.
    pub(crate) pace: Arc<Pace>,
    pub(crate) ended: bool,
}

/// How an upload is getting on: tells a slow reader here from a stuck connection.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    steps: AtomicU64,
    sent: AtomicBool,
}

impl Pace {
    /// Even while the connection has a piece to send, odd while it waits for one; ever growing.
    fn advance(&self, waiting: bool) {
        let now = self.steps.load(Ordering::Relaxed);
        if (now % 2 == 1) != waiting {
            self.steps.store(now + 1, Ordering::Relaxed);
        } else if !waiting {
            self.steps.store(now + 2, Ordering::Relaxed);
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Whether the connection took the whole body.
    pub(crate) fn is_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether the connection made no step between two looks though it had something to send.
    pub(crate) fn stuck(before: u64, after: u64) -> bool {
        before == after && after.is_multiple_of(2)
    }
}

impl Outgoing {
    pub(crate) const fn empty() -> Self {
        Self::Bytes(Bytes::new())
    }

    /// The same body once more, if it may be sent again.
    pub(crate) fn again(&self) -> Option<Self> {
        match self {
            Self::Bytes(bytes) => Some(Self::Bytes(bytes.clone())),
            Self::Pieces(_) => None,
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
            Self::Pieces(pieces) => pieces.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Pieces(pieces) => pieces.ended || pieces.length == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Pieces(pieces) => pieces.length.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

impl Pieces {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = match self.feed.poll_recv(cx) {
            Poll::Pending => {
                self.pace.advance(true);
                return Poll::Pending;
            }
            Poll::Ready(piece) => piece,
        };
        self.pace.advance(false);
        match piece {
            Some(Some(bytes)) => {
                if let Some(left) = &mut self.length {
                    let Some(rest) = left.checked_sub(bytes.len() as u64) else {
                        return Poll::Ready(Some(Err(io::Error::other("body is longer than announced"))));
                    };
                    *left = rest;
                    // hyper does not ask again after the last byte of a known length.
                    self.pace.sent.store(rest == 0, Ordering::Relaxed);
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(None) if self.length.is_none_or(|left| left == 0) => {
                self.ended = true;
                self.pace.sent.store(true, Ordering::Relaxed);
                Poll::Ready(None)
            }
            Some(None) | None => {
                self.ended = true;
                Poll::Ready(Some(Err(io::Error::other("upload was given up"))))
            }
        }
    }
}
