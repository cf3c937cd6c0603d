//! A blob over several connections, where one is what holds it up.
//!
//! One connection is watched first. When it waits for the network most of the time, gives little, and much is left, the
//! rest is fetched in ranges, a few at a time, and handed over in order. The oldest range is always waited for, so none
//! starves; when a range fails, or the ranges are hardly faster than the one connection was, the download goes on over
//! one again, and stays there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dhow_types::ErrorKind;
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::header::{CONTENT_RANGE, HeaderValue, RANGE};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;

use crate::core::Core;
use crate::download::{Download, Step, content_range};
use crate::exchange::Call;
use crate::failure::chain;
use crate::{Error, Ranges};

/// Ranges that may be in memory at once, of all blobs together: with 2 MiB each they leave a pull within its 64 MiB.
pub(crate) const MOST: usize = 12;
/// Ranges after which the gain is looked at.
const TRIAL: u32 = 6;

/// How one connection is doing.
#[derive(Debug)]
pub(crate) struct Watch {
    ranges: Ranges,
    began: Option<Instant>,
    bytes: u64,
    /// Time in which the network was waited for, and not the reader.
    waited: Duration,
    /// Ranges did not help.
    single: bool,
}

impl Watch {
    pub(crate) const fn new(ranges: Ranges) -> Self {
        Self {
            single: ranges.connections < 2,
            ranges,
            began: None,
            bytes: 0,
            waited: Duration::ZERO,
        }
    }

    /// Takes note of bytes that came after a wait.
    pub(crate) fn came(&mut self, bytes: usize, waited: Duration) {
        self.began.get_or_insert_with(Instant::now);
        self.bytes += bytes as u64;
        self.waited += waited;
    }

    /// Whether more connections may help.
    pub(crate) fn is_slow(&self, left: u64) -> bool {
        let Some(began) = self.began.filter(|_| !self.single && left >= self.ranges.least) else {
            return false;
        };
        let elapsed = began.elapsed();
        elapsed >= self.ranges.after
            && self.waited >= elapsed.mul_f64(0.7)
            && rate(self.bytes, elapsed) < self.ranges.enough as f64
    }

    fn rate(&self) -> f64 {
        self.began.map_or(0.0, |began| rate(self.bytes, began.elapsed()))
    }
}

fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64().max(0.001)
}

/// A range that came whole, and its share of the memory.
struct Piece {
    chunks: Vec<Bytes>,
    _share: OwnedSemaphorePermit,
}

impl Download {
    /// Fetches the rest in ranges. What ends in `Broken` goes on over one connection.
    pub(crate) async fn spread(&mut self, sender: &mpsc::Sender<Result<Bytes, Error>>) -> Step {
        let (Some(size), single) = (self.size, self.watch.rate()) else {
            return Step::Broken(self.broken("its length is not known"));
        };
        // Whatever comes of it, it is tried once.
        self.watch.single = true;
        let (began, start) = (Instant::now(), self.offset);
        let mut window = Window {
            pieces: VecDeque::new(),
            next: self.offset,
        };
        let mut done = 0;
        loop {
            self.fill(&mut window, size).await;
            let Some(oldest) = window.pieces.pop_front() else {
                return Step::Ended;
            };
            let piece = match oldest.await {
                Ok(Ok(piece)) => piece,
                Ok(Err(error)) => return Step::Broken(error),
                Err(_) => return Step::Broken(self.broken("a range was given up")),
            };
            for chunk in piece.chunks {
                self.offset += chunk.len() as u64;
                if sender.send(Ok(chunk)).await.is_err() {
                    return Step::Abandoned;
                }
            }
            done += 1;
            if done == TRIAL && rate(self.offset - start, began.elapsed()) < single * 1.15 {
                return Step::Broken(self.broken("ranges are no faster"));
            }
        }
    }

    /// Asks for more ranges, as far as connections and memory allow.
    async fn fill(&self, window: &mut Window, size: u64) {
        let ranges = self.core.settings.ranges;
        while window.pieces.len() < ranges.connections && window.next < size {
            let spare = Arc::clone(&self.core.spare);
            let share = match spare.clone().try_acquire_owned() {
                Ok(share) => share,
                Err(_) if !window.pieces.is_empty() => return,
                // Without any range under way there is nothing else to wait for. Others hand theirs over meanwhile.
                Err(_) => match spare.acquire_owned().await {
                    Ok(share) => share,
                    Err(_) => return,
                },
            };
            let end = size.min(window.next + ranges.piece.max(1));
            let fetching = fetch(Arc::clone(&self.core), self.call(), window.next..end, size, share);
            window.pieces.push_back(tokio::spawn(fetching));
            window.next = end;
        }
    }
}

/// Ranges under way, the oldest first. Those that nobody waits for any more are ended.
struct Window {
    pieces: VecDeque<JoinHandle<Result<Piece, Error>>>,
    next: u64,
}

impl Drop for Window {
    fn drop(&mut self) {
        self.pieces.iter().for_each(JoinHandle::abort);
    }
}

async fn fetch(
    core: Arc<Core>,
    mut call: Call,
    range: std::ops::Range<u64>,
    size: u64,
    share: OwnedSemaphorePermit,
) -> Result<Piece, Error> {
    let text = format!("bytes={}-{}", range.start, range.end - 1);
    call.headers
        .extend(HeaderValue::try_from(text).map(|value| (RANGE, value)).ok());
    let answer = core
        .send(call)
        .await?
        .expect(&[StatusCode::PARTIAL_CONTENT])
        .await?;
    let asked = answer.asked.clone();
    let broken = |why: String| Error::new(ErrorKind::Unavailable, format!("{asked}: bytes {range:?}: {why}"));
    let got = answer.header(&CONTENT_RANGE).and_then(content_range);
    if !got.is_some_and(|(start, total)| start == range.start && total.is_none_or(|total| total == size)) {
        return Err(broken("the range is another one".to_owned()));
    }
    let (mut left, stall) = (range.end - range.start, answer.stall);
    let mut body = answer.response.into_body();
    let mut chunks = Vec::new();
    while left > 0 {
        let frame = match tokio::time::timeout(stall, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(broken(chain(&error))),
            Ok(None) => return Err(broken("it ended early".to_owned())),
            Err(_) => {
                return Err(broken(format!(
                    "nothing came for {} seconds",
                    stall.as_secs_f32()
                )));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        left = left
            .checked_sub(data.len() as u64)
            .ok_or_else(|| broken("it is longer".to_owned()))?;
        chunks.push(data);
    }
    Ok(Piece {
        chunks,
        _share: share,
    })
}
