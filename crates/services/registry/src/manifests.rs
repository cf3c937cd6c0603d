//! `.../manifests/<tag or digest>`: read, push, delete.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, LOCATION};
use hyper::{Method, Request, StatusCode};
use rusqlite::{Connection, OptionalExtension as _};

use crate::Error;
use crate::db::{self, Doomed};
use crate::digest::{Algorithm, Digest};
use crate::fault::Fault;
use crate::manifest::Manifest;
use crate::registry::{State, Stored, key};
use crate::reply::{self, CONTENT_DIGEST, OCI_SUBJECT, OCI_TAG, Outgoing, Reply};
use crate::route::{self, Name, Target};
use crate::uploads::forget_link;

/// Tags that one push may set beside its digest.
const MAX_TAGS: usize = 100;

pub(crate) async fn serve(
    state: &Arc<State>,
    name: Name,
    target: Target,
    request: Request<Incoming>,
) -> Result<Reply, Fault> {
    match *request.method() {
        Method::GET | Method::HEAD => {
            let stored = find(state, &name, &target)
                .await?
                .ok_or_else(Fault::manifest_unknown)?;
            Ok(read(&stored, &request))
        }
        Method::PUT => push(state, name, target, request).await,
        Method::DELETE => delete(state, name, target).await,
        _ => Err(Fault::method()),
    }
}

fn read(stored: &Stored, request: &Request<Incoming>) -> Reply {
    let same = request.headers().get(IF_NONE_MATCH) == Some(&stored.etag);
    let mut reply = reply::empty(if same {
        StatusCode::NOT_MODIFIED
    } else {
        StatusCode::OK
    });
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, stored.media_type.clone());
    headers.insert(CONTENT_DIGEST, stored.digest.clone());
    headers.insert(ETAG, stored.etag.clone());
    if !same {
        *reply.body_mut() = match *request.method() {
            Method::HEAD => Outgoing::Announced(stored.bytes.len() as u64),
            _ => Outgoing::Bytes(stored.bytes.clone()),
        };
    }
    reply
}

fn tag_key(name: &Name, tag: &str) -> String {
    format!("{}:{tag}", name.as_str())
}

fn target_key(name: &Name, target: &Target) -> String {
    match target {
        Target::Tag(tag) => tag_key(name, tag),
        Target::Digest(digest) => key(name, digest),
    }
}

async fn find(state: &Arc<State>, name: &Name, target: &Target) -> Result<Option<Arc<Stored>>, Error> {
    let key = target_key(name, target);
    let epoch = match state.manifests.get(&key, weight) {
        Ok(stored) => return Ok(Some(stored)),
        Err(epoch) => epoch,
    };
    let (name, target) = (name.clone(), target.clone());
    let row = state
        .db
        .read(move |connection| row(connection, &name, &target))
        .await?;
    let Some((digest, media_type, bytes)) = row else {
        return Ok(None);
    };
    let stored = Arc::new(Stored {
        bytes: bytes.into(),
        media_type: reply::header(media_type),
        etag: reply::header(format!("\"{digest}\"")),
        digest: reply::header(digest),
    });
    state
        .manifests
        .put(&key, Arc::clone(&stored), weight(&stored), epoch);
    Ok(Some(stored))
}

/// What a manifest weighs in memory, with its headers and its place in the tables.
fn weight(stored: &Arc<Stored>) -> usize {
    stored.bytes.len() + 1024
}

type Row = (String, String, Vec<u8>);

fn row(connection: &Connection, name: &Name, target: &Target) -> rusqlite::Result<Option<Row>> {
    let Some(repository) = db::repository(connection, name.as_str())? else {
        return Ok(None);
    };
    let text = match target {
        Target::Digest(_) => {
            "SELECT digest, media_type, bytes FROM manifest WHERE repository = ?1 AND digest = ?2"
        }
        Target::Tag(_) => {
            "SELECT manifest.digest, media_type, bytes FROM tag
             JOIN manifest ON manifest.repository = tag.repository AND manifest.digest = tag.digest
             WHERE tag.repository = ?1 AND tag.name = ?2"
        }
    };
    let mut statement = connection.prepare_cached(text)?;
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    statement
        .query_row((repository, target.as_str()), read)
        .optional()
}

async fn push(
    state: &Arc<State>,
    name: Name,
    target: Target,
    request: Request<Incoming>,
) -> Result<Reply, Fault> {
    let content_type = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let content_type = content_type.map(str::to_owned);
    let query = request.uri().query().map(str::to_owned);
    let mut tags = Vec::new();
    for tag in route::parameters(query.as_deref(), "tag").take(MAX_TAGS + 1) {
        let tag = tag?;
        if !dhow_reference::valid_tag(&tag) {
            return Err(Fault::tag_invalid(&tag));
        }
        tags.push(tag);
    }
    if tags.len() > MAX_TAGS {
        let message = format!("a push may set at most {MAX_TAGS} tags");
        return Err(Fault::new(StatusCode::URI_TOO_LONG, "MANIFEST_INVALID", message));
    }
    let bytes = collect(state, request.into_body()).await?;
    let digest = match &target {
        Target::Digest(wanted) => {
            let found = Digest::of(wanted.algorithm(), &bytes);
            if found != *wanted {
                return Err(Fault::digest_mismatch());
            }
            found
        }
        Target::Tag(_) => Digest::of(Algorithm::Sha256, &bytes),
    };
    let manifest = Manifest::parse(&bytes, content_type.as_deref())?;
    let mut reply = pushed(&name, &digest, manifest.subject.as_ref(), &tags);
    if let Target::Tag(tag) = target {
        tags.push(tag.into());
    }
    let keys: Vec<String> = tags
        .iter()
        .map(|tag| tag_key(&name, tag))
        .chain([key(&name, &digest)])
        .collect();
    let work = move |connection: &Connection, _: &mut Doomed| {
        store(connection, &name, &digest, &manifest, &bytes, &tags)
    };
    let shared = Arc::clone(state);
    let after = move |(): &()| keys.iter().for_each(|key| shared.manifests.forget(key));
    state.db.write(None, work, after).await?;
    *reply.status_mut() = StatusCode::CREATED;
    Ok(reply)
}

async fn collect(state: &State, mut body: Incoming) -> Result<Bytes, Fault> {
    let max = state.options.max_manifest;
    let too_large = || Fault::too_large(format!("a manifest may have at most {max} bytes"));
    if body.size_hint().lower() > max as u64 {
        return Err(too_large());
    }
    let mut out = Vec::new();
    while let Some(frame) = tokio::time::timeout(state.options.patience, body.frame())
        .await
        .map_err(|_| {
            Fault::new(
                StatusCode::REQUEST_TIMEOUT,
                "MANIFEST_INVALID",
                "the body does not come",
            )
        })?
    {
        let frame = frame.map_err(|_| Fault::manifest_invalid("the body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if out.len() + data.len() > max {
            return Err(too_large());
        }
        out.extend_from_slice(&data);
    }
    Ok(out.into())
}

fn pushed(name: &Name, digest: &Digest, subject: Option<&Digest>, tags: &[String]) -> Reply {
    let mut reply = reply::empty(StatusCode::CREATED);
    reply::set(
        &mut reply,
        LOCATION,
        format!("/v2/{}/manifests/{digest}", name.as_str()),
    );
    reply::set(&mut reply, CONTENT_DIGEST, digest.as_str());
    if let Some(subject) = subject {
        reply::set(&mut reply, OCI_SUBJECT, subject.as_str());
    }
    for tag in tags {
        reply.headers_mut().append(
            OCI_TAG,
            HeaderValue::from_str(tag).unwrap_or(HeaderValue::from_static("")),
        );
    }
    reply
}

/// Writes a manifest, what it needs, and its tags. What it needs must be in the same repository; its subject need not.
fn store(
    connection: &Connection,
    name: &Name,
    digest: &Digest,
    manifest: &Manifest,
    bytes: &Bytes,
    tags: &[String],
) -> Result<(), Fault> {
    let repository = db::ensure_repository(connection, name.as_str())?;
    check_parts(connection, repository, manifest)?;
    let referrer = manifest
        .subject
        .as_ref()
        .map(|_| descriptor(manifest, digest, bytes.len()));
    let text = "INSERT INTO manifest
        (repository, digest, media_type, bytes, subject, artifact_type, referrer, pushed)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
        ON CONFLICT DO UPDATE SET media_type = excluded.media_type, referrer = excluded.referrer";
    connection.prepare_cached(text)?.execute((
        repository,
        digest.as_str(),
        &manifest.media_type,
        &bytes[..],
        manifest.subject.as_ref().map(Digest::as_str),
        manifest.artifact_type.as_deref(),
        referrer,
        db::now(),
    ))?;
    let text =
        "INSERT INTO edge (repository, parent, child, kind) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    let mut edge = connection.prepare_cached(text)?;
    for (child, _) in &manifest.blobs {
        edge.execute((repository, digest.as_str(), child.as_str(), 0))?;
    }
    for child in &manifest.manifests {
        edge.execute((repository, digest.as_str(), child.as_str(), 1))?;
    }
    let text = "INSERT INTO tag (repository, name, digest, updated) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT DO UPDATE SET digest = excluded.digest, updated = excluded.updated";
    for tag in tags {
        connection
            .prepare_cached(text)?
            .execute((repository, tag, digest.as_str(), db::now()))?;
    }
    Ok(())
}

fn check_parts(connection: &Connection, repository: i64, manifest: &Manifest) -> Result<(), Fault> {
    let missing = |digest: &Digest| {
        let message = format!("the manifest needs {digest}, which this repository does not have");
        Fault::new(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN", message)
    };
    for (digest, size) in &manifest.blobs {
        let found =
            crate::registry::blob_row(connection, repository, digest)?.ok_or_else(|| missing(digest))?;
        if found != *size {
            let message = format!("{digest} has {found} bytes, the manifest says {size}");
            return Err(Fault::manifest_invalid(message));
        }
    }
    let text = "SELECT 1 FROM manifest WHERE repository = ?1 AND digest = ?2";
    let mut statement = connection.prepare_cached(text)?;
    for digest in &manifest.manifests {
        if !statement.exists((repository, digest.as_str()))? {
            return Err(missing(digest));
        }
    }
    Ok(())
}

/// What the referrers list says of a manifest.
fn descriptor(manifest: &Manifest, digest: &Digest, size: usize) -> String {
    let mut value = serde_json::json!({
        "mediaType": manifest.media_type, "digest": digest.as_str(), "size": size,
    });
    if let Some(artifact_type) = &manifest.artifact_type {
        value["artifactType"] = artifact_type.as_str().into();
    }
    if !manifest.annotations.is_empty() {
        value["annotations"] = serde_json::json!(manifest.annotations);
    }
    value.to_string()
}

/// What a delete took away, for the caches.
struct Gone {
    keys: Vec<String>,
    blobs: Vec<Digest>,
}

async fn delete(state: &Arc<State>, name: Name, target: Target) -> Result<Reply, Fault> {
    let (shared, owner) = (Arc::clone(state), name.clone());
    let work = move |connection: &Connection, doomed: &mut Doomed| {
        let repository = db::repository(connection, owner.as_str())?.ok_or_else(Fault::name_unknown)?;
        match &target {
            Target::Tag(tag) => delete_tag(connection, repository, &owner, tag),
            Target::Digest(digest) => {
                delete_manifest(&shared, connection, repository, &owner, digest, doomed)
            }
        }
    };
    let shared = Arc::clone(state);
    let after = move |gone: &Gone| {
        gone.keys.iter().for_each(|key| shared.manifests.forget(key));
        gone.blobs
            .iter()
            .for_each(|digest| forget_link(&shared, &name, digest));
    };
    state.db.write(None, work, after).await?;
    Ok(reply::empty(StatusCode::ACCEPTED))
}

fn delete_tag(connection: &Connection, repository: i64, name: &Name, tag: &str) -> Result<Gone, Fault> {
    let text = "DELETE FROM tag WHERE repository = ?1 AND name = ?2";
    if connection.prepare_cached(text)?.execute((repository, tag))? == 0 {
        return Err(Fault::manifest_unknown());
    }
    Ok(Gone {
        keys: vec![tag_key(name, tag)],
        blobs: Vec::new(),
    })
}

/// Deletes a manifest, its tags, and those of its blobs that no other manifest of the repository needs and that no
/// push can be counting on.
fn delete_manifest(
    state: &State,
    connection: &Connection,
    repository: i64,
    name: &Name,
    digest: &Digest,
    doomed: &mut Doomed,
) -> Result<Gone, Fault> {
    let text = "DELETE FROM manifest WHERE repository = ?1 AND digest = ?2";
    let row = (repository, digest.as_str());
    if connection.prepare_cached(text)?.execute(row)? == 0 {
        return Err(Fault::manifest_unknown());
    }
    let mut keys = vec![key(name, digest)];
    let text = "DELETE FROM tag WHERE repository = ?1 AND digest = ?2 RETURNING name";
    let mut statement = connection.prepare_cached(text)?;
    for tag in statement.query_map(row, |row| row.get::<_, String>(0))? {
        keys.push(tag_key(name, &tag?));
    }
    let text = "DELETE FROM edge WHERE repository = ?1 AND parent = ?2 RETURNING child, kind";
    let mut statement = connection.prepare_cached(text)?;
    let children = statement.query_map(row, |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
    let children = children.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut needed = connection.prepare_cached("SELECT 1 FROM edge WHERE repository = ?1 AND child = ?2")?;
    let mut blobs = Vec::new();
    for (child, _) in children.into_iter().filter(|(_, kind)| *kind == 0) {
        let Ok(child) = child.parse::<Digest>() else {
            continue;
        };
        if needed.exists((repository, child.as_str()))? || state.is_recent(name, &child) {
            continue;
        }
        if db::unlink(connection, repository, &child, doomed)? {
            blobs.push(child);
        }
    }
    Ok(Gone { keys, blobs })
}
