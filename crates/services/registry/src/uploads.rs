//! Pushing blobs: in one request, in one stream, in chunks, or by a link from another repository
//! (distribution-spec, "Pushing blobs").

use std::sync::Arc;

use bytes::Bytes;
use dhow_types::ErrorKind;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use hyper::{HeaderMap, Method, Request, StatusCode};
use tokio::sync::mpsc;

use crate::Error;
use crate::db::{self, Publish};
use crate::digest::{Algorithm, Digest};
use crate::fault::Fault;
use crate::registry::{State, key};
use crate::reply::{self, CONTENT_DIGEST, Reply, UPLOAD_UUID};
use crate::route::{self, Name, UploadId};
use crate::sessions::{Fed, Guard, OnCut, Session, on_disk};

/// Pieces of a body between the connection and the disk.
const DEPTH: usize = 8;

/// `POST .../blobs/uploads/`: a mount, a whole blob, or a new upload.
pub(crate) async fn start(
    state: &Arc<State>,
    name: Name,
    request: Request<Incoming>,
) -> Result<Reply, Fault> {
    let query = request.uri().query().map(str::to_owned);
    let query = query.as_deref();
    if let Some(mount) = route::parameter(query, "mount")? {
        let from = route::parameter(query, "from")?
            .map(|from| Name::parse(&from))
            .transpose()?;
        if let Ok(digest) = mount.parse::<Digest>()
            && mounted(state, &name, &digest, from).await?
        {
            return Ok(created(&name, &digest));
        }
    }
    let digest = route::parameter(query, "digest")?
        .map(|text| route::digest(&text))
        .transpose()?;
    let named = route::parameter(query, "digest-algorithm")?;
    let named = named
        .map(|text| Algorithm::parse(&text).ok_or_else(|| Fault::digest_invalid(&text)))
        .transpose()?;
    let algorithm = digest
        .as_ref()
        .map(Digest::algorithm)
        .or(named)
        .unwrap_or(Algorithm::Sha256);
    let id = open(state, &name, algorithm).await?;
    let Some(digest) = digest else {
        return Ok(progress(StatusCode::ACCEPTED, &name, &id, 0));
    };
    let session = lock(state, &name, &id).await?;
    match receive(state, session, request, OnCut::Undo).await {
        Ok((session, Fed::Whole)) => finish(state, name, id, session, digest).await,
        other => {
            // Nobody was told of this upload: nobody could go on with it.
            let session = lock(state, &name, &id).await?;
            drop_upload(state, &name, &id, session)?;
            Err(other
                .err()
                .unwrap_or_else(|| Fault::upload_invalid("the body ended early")))
        }
    }
}

/// `.../blobs/uploads/<id>`.
pub(crate) async fn go_on(
    state: &Arc<State>,
    name: Name,
    id: UploadId,
    request: Request<Incoming>,
) -> Result<Reply, Fault> {
    match *request.method() {
        Method::GET | Method::HEAD => {
            let session = lock(state, &name, &id).await?;
            Ok(progress(StatusCode::NO_CONTENT, &name, &id, session.size()))
        }
        Method::PATCH => patch(state, name, id, request).await,
        Method::PUT => put(state, name, id, request).await,
        Method::DELETE => {
            let session = lock(state, &name, &id).await?;
            drop_upload(state, &name, &id, session)?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(Fault::method()),
    }
}

async fn patch(
    state: &Arc<State>,
    name: Name,
    id: UploadId,
    request: Request<Incoming>,
) -> Result<Reply, Fault> {
    let session = lock(state, &name, &id).await?;
    let on_cut = check_range(&name, &id, &session, request.headers())?;
    let (session, fed) = receive(state, session, request, on_cut).await?;
    if fed == Fed::CutOff {
        return Err(Fault::upload_invalid("the body ended early"));
    }
    Ok(progress(StatusCode::ACCEPTED, &name, &id, session.size()))
}

async fn put(
    state: &Arc<State>,
    name: Name,
    id: UploadId,
    request: Request<Incoming>,
) -> Result<Reply, Fault> {
    let digest = route::parameter(request.uri().query(), "digest")?;
    let digest = digest.ok_or_else(|| Fault::digest_invalid("the digest is missing"))?;
    let digest = route::digest(&digest)?;
    let session = lock(state, &name, &id).await?;
    check_range(&name, &id, &session, request.headers())?;
    let (session, fed) = receive(state, session, request, OnCut::Undo).await?;
    if fed == Fed::CutOff {
        return Err(Fault::upload_invalid("the body ended early"));
    }
    finish(state, name, id, session, digest).await
}

/// Makes a session and its file.
async fn open(state: &Arc<State>, name: &Name, algorithm: Algorithm) -> Result<UploadId, Fault> {
    let mut raw = [0; 16];
    rustix::rand::getrandom(&mut raw, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Error::wrap(std::io::Error::from(error), "make an upload id"))?;
    let id = UploadId::from_random(raw);
    let (state, name, made) = (Arc::clone(state), name.clone(), id.clone());
    let opened = tokio::task::spawn_blocking(move || {
        if state.files.uploads()? >= state.options.max_uploads {
            return Ok(false);
        }
        let file = state.files.create_upload(&name, &made)?;
        state.sessions.insert(&name, &made, Session::new(file, algorithm));
        Ok(true)
    });
    match opened
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "an upload broke")))?
    {
        true => Ok(id),
        false => Err(Fault::too_many()),
    }
}

/// Finds and locks a session, in memory or, after a restart, by its file.
async fn lock(state: &Arc<State>, name: &Name, id: &UploadId) -> Result<Guard, Fault> {
    if let Some(session) = state.sessions.find(name, id) {
        let session = session.lock_owned().await;
        return if session.is_open() {
            Ok(session)
        } else {
            Err(Fault::upload_unknown())
        };
    }
    let (shared, owner, wanted) = (Arc::clone(state), name.clone(), id.clone());
    let resumed = tokio::task::spawn_blocking(move || {
        let file = shared.files.open_upload(&owner, &wanted)?;
        file.map(Session::resume).transpose()
    });
    let resumed = resumed
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "an upload broke")))?;
    let session = resumed.ok_or_else(Fault::upload_unknown)?;
    let session = state.sessions.insert(name, id, session).lock_owned().await;
    if session.is_open() && session.is_at(&state.files.upload(name, id)) {
        return Ok(session);
    }
    state.sessions.remove(id);
    Err(Fault::upload_unknown())
}

/// A chunk must begin where the last one ended, and be as long as it says.
fn check_range(name: &Name, id: &UploadId, session: &Session, headers: &HeaderMap) -> Result<OnCut, Fault> {
    let Some(range) = headers.get(CONTENT_RANGE) else {
        return Ok(OnCut::Keep);
    };
    let parsed = range.to_str().ok().and_then(|text| {
        // `bytes ` is not in the specification, but clients of HTTP write it.
        let text = text.strip_prefix("bytes ").unwrap_or(text);
        let (start, end) = text.split('/').next()?.split_once('-')?;
        Some((start.parse::<u64>().ok()?, end.parse::<u64>().ok()?))
    });
    let (start, end) = parsed.ok_or_else(|| Fault::upload_invalid("invalid Content-Range"))?;
    if start != session.size() {
        let mut fault = Fault::upload_invalid("the chunk does not begin where the last one ended");
        fault.status = StatusCode::RANGE_NOT_SATISFIABLE;
        return Err(fault
            .with(LOCATION, reply::header(location(name, id)))
            .with(RANGE, reply::header(received(session.size())))
            .with(UPLOAD_UUID, reply::header(id.as_str())));
    }
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let said = end.checked_sub(start).and_then(|last| last.checked_add(1));
    if said.is_none() || length.is_some_and(|length| Some(length) != said) {
        return Err(Fault::upload_invalid("Content-Range and Content-Length differ"));
    }
    Ok(OnCut::Undo)
}

/// Takes a body in. The connection is read here; hashing and writing happen on a thread of their own.
async fn receive(
    state: &Arc<State>,
    session: Guard,
    request: Request<Incoming>,
    on_cut: OnCut,
) -> Result<(Guard, Fed), Fault> {
    use hyper::body::Body as _;
    let mut body = request.into_body();
    if body.is_end_stream() {
        return Ok((session, Fed::Whole));
    }
    let _permit = state.transfers.try_acquire().map_err(|_| Fault::too_many())?;
    let mut room = state
        .options
        .max_blob
        .map(|max| max.saturating_sub(session.size()));
    if room
        .zip(body.size_hint().exact())
        .is_some_and(|(room, length)| length > room)
    {
        return Err(Fault::too_large("the blob is larger than this registry takes"));
    }
    let (pieces, mut queue) = mpsc::channel::<Option<Bytes>>(DEPTH);
    let writing = tokio::spawn(on_disk(session, move |session| session.feed(&mut queue, on_cut)));
    let cut = loop {
        let frame = match tokio::time::timeout(state.options.patience, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break None,
            Ok(Some(Err(_))) => break Some(Fault::upload_invalid("the body broke off")),
            Err(_) => {
                let mut fault = Fault::upload_invalid("the body does not come");
                fault.status = StatusCode::REQUEST_TIMEOUT;
                break Some(fault);
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        if let Some(room) = &mut room {
            match room.checked_sub(data.len() as u64) {
                Some(rest) => *room = rest,
                None => break Some(Fault::too_large("the blob is larger than this registry takes")),
            }
        }
        if pieces.send(Some(data)).await.is_err() {
            break None;
        }
    };
    if cut.is_none() {
        // When the writer has ended already, its outcome says why.
        pieces.send(None).await.unwrap_or_default();
    }
    drop(pieces);
    let outcome = writing
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "an upload broke")))?;
    cut.map_or(Ok(outcome), Err)
}

/// Checks the digest, makes the bytes durable, publishes them and links them to the repository.
async fn finish(
    state: &Arc<State>,
    name: Name,
    id: UploadId,
    session: Guard,
    digest: Digest,
) -> Result<Reply, Fault> {
    let (wanted, durable) = (digest.clone(), state.options.durable);
    let (session, good) = on_disk(session, move |session| {
        let good = session.digest(wanted.algorithm())? == wanted;
        if good {
            session.seal(durable)?;
            // From here on the file is the blob's.
            session.close();
        }
        Ok(good)
    })
    .await?;
    if !good {
        drop_upload(state, &name, &id, session)?;
        return Err(Fault::digest_mismatch());
    }
    let size = i64::try_from(session.size()).unwrap_or(i64::MAX);
    let publish = Publish {
        upload: state.files.upload(&name, &id),
        digest: digest.clone(),
    };
    let (owner, stored) = (name.clone(), digest.clone());
    let work = move |connection: &rusqlite::Connection, _: &mut db::Doomed| {
        let text = "INSERT INTO blob (digest, size, created) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        connection
            .prepare_cached(text)?
            .execute((stored.as_str(), size, db::now()))?;
        let repository = db::ensure_repository(connection, owner.as_str())?;
        db::link(connection, repository, &stored)?;
        Ok(())
    };
    state.told_of(&name, &digest);
    state.db.write(Some(publish), work, |()| ()).await?;
    state.sessions.remove(&id);
    Ok(created(&name, &digest))
}

/// Links a blob of another repository into this one. Without `from` any repository will do, as long as everybody may
/// read all of them.
async fn mounted(
    state: &Arc<State>,
    name: &Name,
    digest: &Digest,
    from: Option<Name>,
) -> Result<bool, Fault> {
    let (into, wanted) = (name.clone(), digest.clone());
    let work = move |connection: &rusqlite::Connection, _: &mut db::Doomed| {
        let there = match from {
            Some(from) => match db::repository(connection, from.as_str())? {
                Some(repository) => db::has_link(connection, repository, &wanted)?,
                None => false,
            },
            None => {
                let text = "SELECT 1 FROM link WHERE digest = ?1";
                connection.prepare_cached(text)?.exists([wanted.as_str()])?
            }
        };
        if there {
            let repository = db::ensure_repository(connection, into.as_str())?;
            db::link(connection, repository, &wanted)?;
        }
        Ok(there)
    };
    state.told_of(name, digest);
    state.db.write(None, work, |_| ()).await
}

fn drop_upload(state: &State, name: &Name, id: &UploadId, mut session: Guard) -> Result<(), Fault> {
    let path = state.files.upload(name, id);
    session.close();
    state.sessions.remove(id);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::wrap(error, format!("remove {}", path.display())).into())
        }
        _ => Ok(()),
    }
}

fn location(name: &Name, id: &UploadId) -> String {
    format!("/v2/{}/blobs/uploads/{}", name.as_str(), id.as_str())
}

/// How far an upload came: `0-<last byte>`, and `0-0` also when there is none, as clients expect.
fn received(size: u64) -> String {
    format!("0-{}", size.saturating_sub(1))
}

fn progress(status: StatusCode, name: &Name, id: &UploadId, size: u64) -> Reply {
    let mut reply = reply::empty(status);
    reply::set(&mut reply, LOCATION, location(name, id));
    reply::set(&mut reply, RANGE, received(size));
    reply::set(&mut reply, UPLOAD_UUID, id.as_str());
    reply
}

fn created(name: &Name, digest: &Digest) -> Reply {
    let mut reply = reply::empty(StatusCode::CREATED);
    reply::set(
        &mut reply,
        LOCATION,
        format!("/v2/{}/blobs/{digest}", name.as_str()),
    );
    reply::set(&mut reply, CONTENT_DIGEST, digest.as_str());
    reply
}

/// Forgets what caches say of a blob.
pub(crate) fn forget_link(state: &State, name: &Name, digest: &Digest) {
    state.links.forget(&key(name, digest));
}
