//! Bodies that are received: pumped into a bounded channel, resumed where they broke.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use dhow_types::ErrorKind;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderValue, IF_NONE_MATCH,
    IF_RANGE, LAST_MODIFIED, RANGE,
};
use hyper::{Method, StatusCode, Uri};
use tokio::sync::mpsc;

use crate::Error;
use crate::core::Core;
use crate::exchange::{Answer, Call, Identity, Redirects};
use crate::failure::chain;
use crate::ranges::Watch;

/// Chunks in flight to the caller; hyper makes them at most 512 KiB, so that three layers take 12 MiB of a pull's 64.
const DEPTH: usize = 8;
/// Breaks in a row without this much progress between them count as the same failure.
const PROGRESS: u64 = 64 << 10;
/// Breaks of one download that are mended, however much comes between them.
const MAX_BREAKS: u32 = 200;
/// How long a connection that has given all its bytes may take to say so.
const LINGER: Duration = Duration::from_secs(2);

/// What is being downloaded, and how far it is.
pub(crate) struct Download {
    pub(crate) core: Arc<Core>,
    pub(crate) url: Uri,
    pub(crate) identity: Option<Identity>,
    pub(crate) redirects: Redirects,
    /// Length of the whole, when known: from the descriptor, else from the server.
    pub(crate) size: Option<u64>,
    pub(crate) offset: u64,
    /// Credentials for the origin of the URL.
    authorization: Option<HeaderValue>,
    /// Tells whether the thing is still the same when a download of unknown digest goes on.
    validator: Option<HeaderValue>,
    resumable: bool,
    /// How often the first request is tried.
    attempts: u32,
    pub(crate) watch: Watch,
}

/// A download whose first answer came.
pub(crate) struct Opened {
    /// Length of the whole, when known.
    pub(crate) size: Option<u64>,
    /// When it was changed last, in seconds since 1970, when the server says it.
    pub(crate) modified: Option<u64>,
    pub(crate) tag: Option<String>,
    pub(crate) chunks: mpsc::Receiver<Result<Bytes, Error>>,
}

/// What a body did.
pub(crate) enum Step {
    Ended,
    /// Nobody reads any more.
    Abandoned,
    Broken(Error),
    /// Trying again would not help.
    Wrong(Error),
    /// One connection is what holds it up.
    Slow,
}

impl Download {
    pub(crate) fn new(core: Arc<Core>, url: Uri, identity: Option<Identity>, size: Option<u64>) -> Self {
        let redirects = if identity.is_some() {
            Redirects::Follow
        } else {
            Redirects::FollowAnywhere
        };
        let resumable = size.is_some();
        Self {
            attempts: core.settings.attempts.max(1),
            watch: Watch::new(core.settings.ranges),
            core,
            url,
            identity,
            redirects,
            size,
            offset: 0,
            authorization: None,
            validator: None,
            resumable,
        }
    }

    /// The same, with the first request tried so often.
    pub(crate) fn trying(self, attempts: u32) -> Self {
        Self { attempts, ..self }
    }

    /// The same with credentials for the origin of the URL.
    pub(crate) fn authorized(self, authorization: Option<HeaderValue>) -> Self {
        Self {
            authorization,
            ..self
        }
    }

    /// Makes the first request; its errors are the caller's at once, later ones come through the channel.
    pub(crate) async fn open(self) -> Result<Opened, Error> {
        let mut call = self.call();
        call.attempts = self.attempts;
        let answer = self.core.send(call).await?.expect(&[StatusCode::OK]).await?;
        self.begin(answer)
    }

    /// The same, unless what is there still has this tag.
    pub(crate) async fn open_unless(self, tag: HeaderValue) -> Result<Option<Opened>, Error> {
        let mut call = self.call();
        call.attempts = self.attempts;
        call.headers.push((IF_NONE_MATCH, tag));
        let expected = [StatusCode::OK, StatusCode::NOT_MODIFIED];
        let answer = self.core.send(call).await?.expect(&expected).await?;
        if answer.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        self.begin(answer).map(Some)
    }

    fn begin(mut self, answer: Answer) -> Result<Opened, Error> {
        self.check_length(&answer)?;
        let modified = answer.header(&LAST_MODIFIED).and_then(crate::when::http_date);
        let tag = answer.header(&ETAG).map(str::to_owned);
        if self.identity.is_none() {
            self.size = self.size.or_else(|| length(&answer));
            let headers = answer.response.headers();
            let strong = headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
            self.validator = strong.or_else(|| headers.get(LAST_MODIFIED)).cloned();
            self.resumable = self.size.is_some()
                && (self.validator.is_some() || answer.header(&ACCEPT_RANGES) == Some("bytes"));
        }
        let (sender, receiver) = mpsc::channel(DEPTH);
        let size = self.size;
        tokio::spawn(self.pump(answer.response.into_body(), sender));
        Ok(Opened {
            size,
            modified,
            tag,
            chunks: receiver,
        })
    }

    pub(crate) fn call(&self) -> Call {
        let mut call = Call::new(Method::GET, self.url.clone(), &self.core.settings);
        call.identity.clone_from(&self.identity);
        call.redirects = self.redirects;
        call.authorization.clone_from(&self.authorization);
        call
    }

    fn check_length(&self, answer: &Answer) -> Result<(), Error> {
        let (Some(expected), Some(found)) = (self.size, length(answer)) else {
            return Ok(());
        };
        if expected == found {
            return Ok(());
        }
        let message = format!("{}: has {found} bytes instead of {expected}", answer.asked);
        Err(Error::new(ErrorKind::DataLoss, message))
    }

    async fn pump(mut self, body: Incoming, sender: mpsc::Sender<Result<Bytes, Error>>) {
        let (mut skip, mut breaks, mut in_a_row) = (0, 0, 0);
        let mut body = Some(body);
        loop {
            let before = self.offset;
            let step = match body.take() {
                Some(mut body) => self.drain(&mut body, skip, &sender).await,
                None => self.spread(&sender).await,
            };
            let failure = match step {
                Step::Ended | Step::Abandoned => return,
                Step::Broken(error) => error,
                Step::Wrong(error) => return fail(&sender, error).await,
                // Its connection is dropped with what is under way on it, which is little.
                Step::Slow => continue,
            };
            breaks += 1;
            in_a_row = if self.offset - before >= PROGRESS {
                1
            } else {
                in_a_row + 1
            };
            if !self.resumable || in_a_row >= self.core.settings.attempts || breaks > MAX_BREAKS {
                return fail(&sender, failure).await;
            }
            tokio::time::sleep(self.core.pause(in_a_row, None)).await;
            match self.resume().await {
                Ok((next, to_skip)) => (body, skip) = (Some(next), to_skip),
                Err(error) => return fail(&sender, error).await,
            }
        }
    }

    /// Hands a body over chunk by chunk, without its first `skip` bytes.
    async fn drain(
        &mut self,
        body: &mut Incoming,
        mut skip: u64,
        sender: &mpsc::Sender<Result<Bytes, Error>>,
    ) -> Step {
        let stall = self.core.settings.timeouts.stall;
        loop {
            if Some(self.offset) == self.size && skip == 0 {
                return self.finish(body).await;
            }
            let asked = std::time::Instant::now();
            let frame = match tokio::time::timeout(stall, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Step::Broken(self.broken(&chain(&error))),
                Ok(None) if self.size.is_none() => return Step::Ended,
                Ok(None) => return Step::Broken(self.broken("the body ended early")),
                Err(_) => {
                    return Step::Broken(
                        self.broken(&format!("nothing came for {} seconds", stall.as_secs_f32())),
                    );
                }
            };
            let Ok(mut data) = frame.into_data() else { continue };
            let skipped = skip.min(data.len() as u64);
            skip -= skipped;
            data.advance(usize::try_from(skipped).unwrap_or(data.len()));
            if data.is_empty() {
                continue;
            }
            self.offset += data.len() as u64;
            self.watch.came(data.len(), asked.elapsed());
            if self.size.is_some_and(|size| self.offset > size) {
                return Step::Wrong(self.too_long());
            }
            if sender.send(Ok(data)).await.is_err() {
                return Step::Abandoned;
            }
            let left = self.size.map_or(0, |size| size.saturating_sub(self.offset));
            if self.identity.is_some() && skip == 0 && self.watch.is_slow(left) {
                return Step::Slow;
            }
        }
    }

    /// All bytes are there: the connection can be used again if the body ends here, as it must.
    async fn finish(&self, body: &mut Incoming) -> Step {
        if body.is_end_stream() {
            return Step::Ended;
        }
        match tokio::time::timeout(LINGER, body.frame()).await {
            Ok(Some(Ok(frame))) if frame.data_ref().is_some_and(|data| !data.is_empty()) => {
                Step::Wrong(self.too_long())
            }
            _ => Step::Ended,
        }
    }

    /// Asks for the rest. A server that sends the whole again instead is taken at its word, from the start.
    async fn resume(&mut self) -> Result<(Incoming, u64), Error> {
        let mut call = self.call();
        let range = HeaderValue::try_from(format!("bytes={}-", self.offset));
        let asked = call.asked();
        call.headers.extend(range.map(|range| (RANGE, range)).ok());
        call.headers
            .extend(self.validator.clone().map(|validator| (IF_RANGE, validator)));
        let answer = self
            .core
            .send(call)
            .await?
            .expect(&[StatusCode::OK, StatusCode::PARTIAL_CONTENT])
            .await?;
        if answer.status() == StatusCode::OK {
            self.check_length(&answer)?;
            if self.identity.is_none() && self.offset > 0 {
                // Without a digest of its own the second copy cannot be joined to the first.
                let message = format!(
                    "{asked}: the file changed, or cannot be resumed, after {} bytes",
                    self.offset
                );
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            return Ok((answer.response.into_body(), self.offset));
        }
        let range = answer.header(&CONTENT_RANGE).and_then(content_range);
        let fits = range.is_some_and(|(start, total)| {
            start == self.offset && total.is_none_or(|total| self.size.is_none_or(|size| size == total))
        });
        if !fits {
            let message = format!(
                "{asked}: asked for bytes {}-, got a range that is another",
                self.offset
            );
            return Err(Error::new(ErrorKind::DataLoss, message));
        }
        Ok((answer.response.into_body(), 0))
    }

    pub(crate) fn broken(&self, why: &str) -> Error {
        let of = self.size.map_or_else(String::new, |size| format!(" of {size}"));
        let message = format!(
            "{}: broke off after {}{of} bytes: {why}",
            self.call().asked(),
            self.offset
        );
        Error::new(ErrorKind::Unavailable, message)
    }

    fn too_long(&self) -> Error {
        let size = self.size.unwrap_or_default();
        Error::new(
            ErrorKind::DataLoss,
            format!("{}: sends more than the {size} bytes it has", self.call().asked()),
        )
    }
}

async fn fail(sender: &mpsc::Sender<Result<Bytes, Error>>, error: Error) {
    // Nobody reads any more when this fails.
    sender.send(Err(error)).await.unwrap_or_default();
}

/// `Content-Length` of a body that is sent as it is.
fn length(answer: &Answer) -> Option<u64> {
    let plain = answer
        .header(&CONTENT_ENCODING)
        .is_none_or(|encoding| encoding == "identity");
    answer.header(&CONTENT_LENGTH).filter(|_| plain)?.parse().ok()
}

/// Start and total of `bytes <start>-<end>/<total>` (RFC 9110 section 14.4); the total may be `*`.
pub(crate) fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
    let total = if total == "*" {
        None
    } else {
        Some(total.parse().ok()?)
    };
    (start <= end && total.is_none_or(|total| end < total)).then_some((start, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sound_content_ranges_count() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in [
            "bytes */10",
            "bytes 5-10/10",
            "bytes 9-5/10",
            "5-9/10",
            "bytes 5-9",
            "bytes -9/10",
            "",
        ] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
