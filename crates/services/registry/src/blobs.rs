//! `.../blobs/<digest>`: read, look, delete.

use std::fs::File;
use std::sync::Arc;

use dhow_types::ErrorKind;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, Method, Request, StatusCode};

use crate::Error;
use crate::db;
use crate::digest::Digest;
use crate::fault::Fault;
use crate::registry::State;
use crate::reply::{self, CONTENT_DIGEST, FileBody, Outgoing, Reply};
use crate::route::Name;
use crate::uploads::forget_link;

pub(crate) async fn serve(
    state: &Arc<State>,
    name: Name,
    digest: Digest,
    request: Request<Incoming>,
) -> Result<Reply, Fault> {
    match *request.method() {
        Method::GET => read(state, &name, &digest, request.headers()).await,
        Method::HEAD => {
            // Before the answer: a delete that comes between must know.
            state.told_of(&name, &digest);
            let size = state
                .blob_size(&name, &digest)
                .await?
                .ok_or_else(Fault::blob_unknown)?;
            let mut reply = described(StatusCode::OK, &digest, Outgoing::Announced(size));
            // hyper says nothing of a body of no bytes, and clients of HEAD want to know.
            reply::set(&mut reply, CONTENT_LENGTH, size.to_string());
            Ok(reply)
        }
        Method::DELETE => delete(state, name, digest).await,
        _ => Err(Fault::method()),
    }
}

async fn read(state: &Arc<State>, name: &Name, digest: &Digest, headers: &HeaderMap) -> Result<Reply, Fault> {
    let size = state
        .blob_size(name, digest)
        .await?
        .ok_or_else(Fault::blob_unknown)?;
    let range = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let range = match range.map_or(Range::Whole, |text| parse_range(text, size)) {
        Range::Whole => None,
        Range::Part(start, end) => Some((start, end)),
        Range::Outside => {
            let message = "the range is not in the blob";
            return Err(
                Fault::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", message)
                    .with(CONTENT_RANGE, reply::header(format!("bytes */{size}"))),
            );
        }
    };
    let file = open(state, digest, size)?;
    let (status, (start, end)) = match range {
        None => (StatusCode::OK, (0, size)),
        Some(part) => (StatusCode::PARTIAL_CONTENT, part),
    };
    let body = Outgoing::File(FileBody::new(file, start, end, &state.buffers));
    let mut reply = described(status, digest, body);
    if status == StatusCode::PARTIAL_CONTENT {
        reply::set(
            &mut reply,
            CONTENT_RANGE,
            format!("bytes {start}-{}/{size}", end - 1),
        );
    }
    Ok(reply)
}

/// Opens a blob's file. What is not as long as it was is not served: the client would learn it only at the end.
fn open(state: &State, digest: &Digest, size: u64) -> Result<File, Error> {
    let path = state.files.blob(digest);
    let doing = || format!("open {}", path.display());
    let lost = |why: std::io::Error| Error::wrap(why, doing()).with_kind(ErrorKind::DataLoss);
    let file = File::open(&path).map_err(lost)?;
    let found = file.metadata().map_err(lost)?.len();
    if found != size {
        let message = format!("{} has {found} bytes instead of {size}", path.display());
        return Err(Error::new(ErrorKind::DataLoss, message));
    }
    Ok(file)
}

fn described(status: StatusCode, digest: &Digest, body: Outgoing) -> Reply {
    let mut reply = reply::empty(status);
    *reply.body_mut() = body;
    let headers = reply.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(ACCEPT_RANGES, hyper::header::HeaderValue::from_static("bytes"));
    // Somebody else's bytes: a browser must not guess what they are.
    headers.insert(
        X_CONTENT_TYPE_OPTIONS,
        hyper::header::HeaderValue::from_static("nosniff"),
    );
    reply::set(&mut reply, CONTENT_DIGEST, digest.as_str());
    reply::set(&mut reply, ETAG, format!("\"{digest}\""));
    reply
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    Whole,
    /// From the first up to, without, the second.
    Part(u64, u64),
    Outside,
}

/// RFC 9110 section 14.2: one range in bytes; several, or what is none, count as not asked for. An inverted range is
/// refused rather than ignored, as other registries do.
fn parse_range(text: &str, size: u64) -> Range {
    let Some(spec) = text.strip_prefix("bytes=").filter(|spec| !spec.contains(',')) else {
        return Range::Whole;
    };
    let Some((start, end)) = spec.trim().split_once('-') else {
        return Range::Whole;
    };
    let number = |text: &str| {
        text.parse::<u64>()
            .ok()
            .filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
    };
    match (start.is_empty(), end.is_empty()) {
        (true, true) => Range::Whole,
        (true, false) => match number(end) {
            None => Range::Whole,
            Some(0) => Range::Outside,
            Some(_) if size == 0 => Range::Outside,
            Some(last) => Range::Part(size.saturating_sub(last), size),
        },
        (false, _) => {
            let Some(start) = number(start) else {
                return Range::Whole;
            };
            let last = if end.is_empty() {
                Some(u64::MAX)
            } else {
                number(end)
            };
            match last {
                None => Range::Whole,
                Some(last) if start >= size || last < start => Range::Outside,
                Some(last) => Range::Part(start, last.saturating_add(1).min(size)),
            }
        }
    }
}

/// Takes a blob from the repository; the last repository that had it frees it.
async fn delete(state: &Arc<State>, name: Name, digest: Digest) -> Result<Reply, Fault> {
    let (owner, doomed_digest) = (name.clone(), digest.clone());
    let work = move |connection: &rusqlite::Connection, doomed: &mut db::Doomed| {
        let Some(repository) = db::repository(connection, owner.as_str())? else {
            return Err(Fault::blob_unknown());
        };
        let text = "SELECT 1 FROM edge WHERE repository = ?1 AND child = ?2 AND kind = 0";
        if connection
            .prepare_cached(text)?
            .exists((repository, doomed_digest.as_str()))?
        {
            let message = "the blob is part of a manifest: delete that first";
            return Err(Fault::new(StatusCode::METHOD_NOT_ALLOWED, "DENIED", message));
        }
        if db::unlink(connection, repository, &doomed_digest, doomed)? {
            Ok(())
        } else {
            Err(Fault::blob_unknown())
        }
    };
    let shared = Arc::clone(state);
    state
        .db
        .write(None, work, move |()| forget_link(&shared, &name, &digest))
        .await?;
    Ok(reply::empty(StatusCode::ACCEPTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_the_rfc_and_inverted_ones_are_refused() {
        for (text, expected) in [
            ("bytes=0-0", Range::Part(0, 1)),
            ("bytes=500-1499", Range::Part(500, 1500)),
            ("bytes=500-", Range::Part(500, 3000)),
            ("bytes=-500", Range::Part(2500, 3000)),
            ("bytes=-5000", Range::Part(0, 3000)),
            ("bytes=2000-5000", Range::Part(2000, 3000)),
            ("bytes=0-18446744073709551615", Range::Part(0, 3000)),
            ("bytes=500-0", Range::Outside),
            ("bytes=5000-10000", Range::Outside),
            ("bytes=3000-", Range::Outside),
            ("bytes=-0", Range::Outside),
            ("bytes=0-1,2-3", Range::Whole),
            ("bytes=-", Range::Whole),
            ("bytes=a-b", Range::Whole),
            ("bytes=99999999999999999999-", Range::Whole),
            ("items=0-1", Range::Whole),
        ] {
            assert_eq!(parse_range(text, 3000), expected, "{text}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Range::Outside);
    }
}
