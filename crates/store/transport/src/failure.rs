//! Answers that are errors, as errors: what was asked, what came back, in whose words, what to do.

use std::time::Duration;

use bytes::Bytes;
use dhow_types::ErrorKind;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{DATE, RETRY_AFTER};
use hyper::{HeaderMap, StatusCode};
use serde::Deserialize;

use crate::Error;
use crate::exchange::Answer;
use crate::when::http_date;

/// Most of an error body that is read.
const MAX_BODY: usize = 64 << 10;
/// Most of it that is shown, in characters.
const MAX_SHOWN: usize = 500;

/// The body of a registry's error (distribution-spec, "Error Codes"), and of a token server's.
#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<Entry>,
    #[serde(default, alias = "message", alias = "error_description")]
    details: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Answer {
    /// The answer when its status is one of `good`, else the error that it is.
    pub(crate) async fn expect(self, good: &[StatusCode]) -> Result<Self, Error> {
        if good.contains(&self.status()) {
            Ok(self)
        } else {
            Err(self.into_error().await)
        }
    }

    /// This answer as an error; reads its body.
    pub(crate) async fn into_error(self) -> Error {
        let status = self.status();
        let asked = self.asked.clone();
        let limit = Limit::of(self.response.headers());
        let stall = self.stall;
        // Without a body the status says enough.
        let body = bounded(self.response.into_body(), MAX_BODY, stall)
            .await
            .unwrap_or_default();
        describe(&asked, status, &body, &limit)
    }
}

/// What an answer says of how much may be asked.
#[derive(Debug, Default)]
struct Limit {
    retry_after: Option<u64>,
    /// `100 in 21600 s`, from `ratelimit-limit: 100;w=21600` (Docker Hub; an IETF draft since).
    allowed: Option<String>,
    remaining: Option<String>,
    /// Whom the limit is for: an address or an account (Docker Hub).
    source: Option<String>,
}

impl Limit {
    fn of(headers: &HeaderMap) -> Self {
        let text = |names: [&str; 2]| {
            let value = names.iter().find_map(|name| headers.get(*name))?.to_str().ok()?;
            let quantity = match value.split_once(";w=") {
                Some((count, window)) => format!("{} in {} s", count.trim(), window.trim()),
                None => value.trim().to_owned(),
            };
            Some(clean(&quantity).chars().take(60).collect::<String>()).filter(|text| !text.is_empty())
        };
        Self {
            retry_after: seconds(headers),
            allowed: text(["ratelimit-limit", "x-ratelimit-limit"]),
            remaining: text(["ratelimit-remaining", "x-ratelimit-remaining"]),
            source: text(["docker-ratelimit-source", "docker-ratelimit-source"]),
        }
    }

    fn hint(&self) -> String {
        let mut hint = "the registry limits how much is asked".to_owned();
        let parts: Vec<String> = [
            ("allowed", &self.allowed),
            ("left", &self.remaining),
            ("counted for", &self.source),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}: {}", value.as_ref()?)))
        .collect();
        if !parts.is_empty() {
            hint.push_str(&format!(" ({})", parts.join(", ")));
        }
        match self.retry_after {
            Some(seconds) => hint.push_str(&format!(": try again in {seconds} seconds, or log in")),
            None => hint.push_str(": try again later, or log in"),
        }
        hint
    }
}

/// Why a body was not read.
#[derive(Debug)]
pub(crate) enum Unread {
    TooLarge(usize),
    Broken(String),
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge(max) => write!(f, "more than {max} bytes"),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

/// Reads a body of at most `max` bytes, whose next bytes come within `stall`, and all of it within ten times that.
pub(crate) async fn bounded(mut body: Incoming, max: usize, stall: Duration) -> Result<Bytes, Unread> {
    let mut out: Vec<u8> = Vec::new();
    let end = tokio::time::Instant::now() + stall * 10;
    let late = |_| Unread::Broken("the body does not come to its end".to_owned());
    loop {
        let limit = end.min(tokio::time::Instant::now() + stall);
        let Some(frame) = tokio::time::timeout_at(limit, body.frame()).await.map_err(late)? else {
            return Ok(out.into());
        };
        let Ok(data) = frame.map_err(|error| Unread::Broken(chain(&error)))?.into_data() else {
            continue;
        };
        if out.len() + data.len() > max {
            return Err(Unread::TooLarge(max));
        }
        out.extend_from_slice(&data);
    }
}

/// `Retry-After` in seconds. A date is taken against the answer's own `Date`, so that a wrong clock here does no harm;
/// without one it counts as absent.
pub(crate) fn seconds(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    text.parse().ok().or_else(|| {
        let now = http_date(headers.get(DATE)?.to_str().ok()?)?;
        Some(http_date(text)?.saturating_sub(now))
    })
}

/// The message of an error and its causes, since hyper's own says little.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut out = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !out.ends_with(&text) {
            out.push_str(": ");
            out.push_str(&text);
        }
        cause = inner.source();
    }
    out
}

fn describe(asked: &str, status: StatusCode, body: &[u8], limit: &Limit) -> Error {
    let mut message = format!("{asked}: {status}");
    let (words, codes) = words(body);
    if !words.is_empty() {
        message.push_str(": ");
        message.push_str(&words);
    }
    let error = Error::new(kind_of(status), message);
    match hint(status, &codes, limit) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

pub(crate) const fn kind_of(status: StatusCode) -> ErrorKind {
    match status.as_u16() {
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::PermissionDenied,
        404 | 410 => ErrorKind::NotFound,
        405 | 501 => ErrorKind::Unsupported,
        409 | 412 => ErrorKind::FailedPrecondition,
        413 | 429 | 507 => ErrorKind::ResourceExhausted,
        408 | 500..=599 => ErrorKind::Unavailable,
        400..=499 => ErrorKind::InvalidArgument,
        _ => ErrorKind::Internal,
    }
}

/// The registry's own words, fit for one line of a terminal, and its error codes.
fn words(body: &[u8]) -> (String, String) {
    if let Ok(parsed) = serde_json::from_slice::<Body>(body) {
        let mut codes = String::new();
        let mut out: Vec<String> = Vec::new();
        for entry in parsed.errors.iter().take(5) {
            codes.push_str(&entry.code);
            codes.push(' ');
            let both = [entry.code.to_lowercase().replace('_', " "), entry.message.clone()];
            let said: Vec<String> = both.into_iter().filter(|part| !part.is_empty()).collect();
            out.push(said.join(": "));
        }
        out.extend(parsed.details);
        return (clean(&out.join("; ")), codes);
    }
    let text = String::from_utf8_lossy(body);
    // A page for browsers says nothing that the status does not.
    let text = if text.trim_start().starts_with('<') {
        String::new()
    } else {
        clean(&text)
    };
    (text, String::new())
}

/// Control characters could drive the terminal.
fn clean(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars()
        .filter(|character| !character.is_control())
        .take(MAX_SHOWN)
        .collect()
}

fn hint(status: StatusCode, codes: &str, limit: &Limit) -> Option<String> {
    match status.as_u16() {
        401 => {
            Some("log in to the registry, or check the name: private and missing images look the same".into())
        }
        403 if codes.contains("DENIED") || codes.is_empty() => {
            Some("log in to the registry as someone who may do this, or check the name".into())
        }
        429 => Some(limit.hint()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrys_words_are_shown_without_what_could_drive_a_terminal() {
        let body = br#"{"errors":[{"code":"DENIED","message":"requested \u001b[31maccess\nis denied"}]}"#;
        let error = describe(
            "GET https://r/v2/x/manifests/1",
            StatusCode::FORBIDDEN,
            body,
            &Limit::default(),
        );
        assert_eq!(
            error.to_string(),
            "GET https://r/v2/x/manifests/1: 403 Forbidden: denied: requested [31maccess is denied"
        );
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        let page = describe(
            "GET u",
            StatusCode::BAD_GATEWAY,
            b"<html>long</html>",
            &Limit::default(),
        );
        assert_eq!(page.to_string(), "GET u: 502 Bad Gateway");
        let long = describe(
            "GET u",
            StatusCode::BAD_REQUEST,
            &vec![b'x'; 60_000],
            &Limit::default(),
        );
        assert!(long.to_string().len() < 600);
    }

    #[test]
    fn a_rate_limit_says_how_long_to_wait() {
        use dhow_types::Failure as _;
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("retry-after", "90"),
            ("ratelimit-limit", "100;w=21600"),
            ("ratelimit-remaining", "0;w=21600"),
            ("docker-ratelimit-source", "192.0.2.7"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let error = describe("GET u", StatusCode::TOO_MANY_REQUESTS, b"", &Limit::of(&headers));
        assert_eq!(
            error.hint().unwrap(),
            "the registry limits how much is asked (allowed: 100 in 21600 s, left: 0 in 21600 s, \
             counted for: 192.0.2.7): try again in 90 seconds, or log in"
        );
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
    }

    #[test]
    fn a_time_to_come_back_may_be_a_date_against_the_servers_own_clock() {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT".parse().unwrap());
        assert_eq!(seconds(&headers), None, "against which clock?");
        headers.insert("date", "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
        assert_eq!(seconds(&headers), Some(60));
        headers.insert("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT".parse().unwrap());
        assert_eq!(seconds(&headers), Some(0));
    }
}
