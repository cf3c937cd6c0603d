//! What each path answers (distribution-spec, "Endpoints").

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use dhow_oci::Document;
use dhow_types::Digest;
use serde_json::json;

use super::http::Answer;
use super::{Auth, Request, State};

/// The one token that there is.
const TOKEN: &str = "fake-token";

pub(super) fn answer(state: &mut State, request: &Request, address: SocketAddr) -> Answer {
    if request.path == "/token" {
        return token(state, request);
    }
    let Some(rest) = request.path.strip_prefix("/v2/") else {
        return Answer::error(404, "NOT_FOUND");
    };
    if let Some(refusal) = refuse(state, request, rest, address) {
        return refusal;
    }
    if rest.is_empty() {
        return Answer::new(200).with("Docker-Distribution-API-Version", "registry/2.0");
    }
    if let Some((repository, reference)) = rest.rsplit_once("/manifests/") {
        return manifests(state, request, repository, reference);
    }
    if let Some((repository, upload)) = rest.rsplit_once("/blobs/uploads/") {
        return uploads(state, request, repository, upload);
    }
    if let Some((repository, digest)) = rest.rsplit_once("/blobs/") {
        return blobs(state, request, repository, digest);
    }
    if let Some(repository) = rest.strip_suffix("/tags/list") {
        let mut tags: Vec<&String> = state
            .manifests
            .keys()
            .filter(|(repo, reference)| repo == repository && !reference.contains(':'))
            .map(|(_, reference)| reference)
            .collect();
        tags.sort();
        let body = json!({"name": repository, "tags": tags}).to_string();
        return Answer::new(200)
            .with("Content-Type", "application/json")
            .body(body);
    }
    Answer::error(404, "NOT_FOUND")
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

/// The challenge for a request without the right credentials.
fn refuse(state: &State, request: &Request, rest: &str, address: SocketAddr) -> Option<Answer> {
    let auth = state.auth.as_ref()?;
    let given = request.header("authorization").unwrap_or_default();
    let refusal = Answer::error(401, "UNAUTHORIZED");
    match auth {
        Auth::Basic(user, password) => {
            (given != basic(user, password)).then(|| refusal.with("WWW-Authenticate", "Basic realm=\"fake\""))
        }
        Auth::Token | Auth::TokenFor(..) => {
            let repository = ["/manifests/", "/blobs/", "/tags/"]
                .iter()
                .find_map(|part| rest.split_once(part))
                .map_or("", |(repository, _)| repository);
            let actions = if matches!(request.method.as_str(), "GET" | "HEAD") {
                "pull"
            } else {
                "pull,push"
            };
            let challenge = format!(
                "Bearer realm=\"http://{address}/token\",service=\"fake\",scope=\"repository:{repository}:{actions}\""
            );
            (given != format!("Bearer {TOKEN}")).then(|| refusal.with("WWW-Authenticate", challenge))
        }
    }
}

fn token(state: &State, request: &Request) -> Answer {
    if let Some(Auth::TokenFor(user, password)) = &state.auth {
        let form = String::from_utf8_lossy(&request.body).into_owned();
        let by_form =
            form.contains(&format!("password={password}")) && form.contains(&format!("username={user}"));
        if request.header("authorization") != Some(&basic(user, password)) && !by_form {
            return Answer::error(401, "UNAUTHORIZED");
        }
    }
    let body = json!({"token": TOKEN, "access_token": TOKEN, "expires_in": 300}).to_string();
    Answer::new(200)
        .with("Content-Type", "application/json")
        .body(body)
}

fn manifests(state: &mut State, request: &Request, repository: &str, reference: &str) -> Answer {
    if request.method == "PUT" {
        return put_manifest(state, request, repository, reference);
    }
    match state
        .manifests
        .get(&(repository.to_owned(), reference.to_owned()))
    {
        Some((media_type, bytes)) => Answer::new(200)
            .with("Content-Type", media_type.clone())
            .with("Docker-Content-Digest", Digest::of(bytes).to_string())
            .body(bytes.clone()),
        None => Answer::error(404, "MANIFEST_UNKNOWN"),
    }
}

/// As a real registry: what the manifest names must be there.
fn put_manifest(state: &mut State, request: &Request, repository: &str, reference: &str) -> Answer {
    let media_type = request.header("content-type").unwrap_or_default().to_owned();
    let Ok(document) = Document::parse(&request.body, Some(&media_type)) else {
        return Answer::error(400, "MANIFEST_INVALID");
    };
    if let Document::Manifest(manifest) = document {
        let mut named = manifest.layers.iter().chain([&manifest.config]);
        let missing = named.any(|blob| !state.blobs.contains_key(&(repository.to_owned(), blob.digest)));
        if missing {
            return Answer::error(400, "MANIFEST_BLOB_UNKNOWN");
        }
    }
    let digest = Digest::of(&request.body).to_string();
    for name in [reference, &digest] {
        let key = (repository.to_owned(), name.to_owned());
        state
            .manifests
            .insert(key, (media_type.clone(), request.body.clone()));
    }
    Answer::new(201)
        .with("Location", format!("/v2/{repository}/manifests/{digest}"))
        .with("Docker-Content-Digest", digest)
}

fn blobs(state: &State, request: &Request, repository: &str, digest: &str) -> Answer {
    let found = digest
        .parse()
        .ok()
        .and_then(|digest| state.blobs.get(&(repository.to_owned(), digest)));
    let Some(bytes) = found else {
        return Answer::error(404, "BLOB_UNKNOWN");
    };
    let answer = Answer::new(200)
        .with("Content-Type", "application/octet-stream")
        .with("Docker-Content-Digest", digest)
        .with("Accept-Ranges", "bytes");
    let range = request
        .header("range")
        .and_then(|value| value.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
        return answer.body(bytes.to_vec());
    };
    let first: usize = first.parse().unwrap_or(0);
    let end = last
        .parse::<usize>()
        .map_or(bytes.len(), |last| (last + 1).min(bytes.len()));
    let Some(part) = bytes.get(first..end).filter(|part| !part.is_empty()) else {
        return Answer::new(416);
    };
    let mut partial = answer.body(part.to_vec());
    partial.status = 206;
    partial.with(
        "Content-Range",
        format!("bytes {first}-{}/{}", end - 1, bytes.len()),
    )
}

fn uploads(state: &mut State, request: &Request, repository: &str, upload: &str) -> Answer {
    match (request.method.as_str(), upload) {
        ("POST", "") => begin(state, request, repository),
        ("PATCH", _) => {
            let Some(bytes) = state.uploads.get_mut(upload) else {
                return Answer::error(404, "BLOB_UPLOAD_UNKNOWN");
            };
            bytes.extend_from_slice(&request.body);
            let range = format!("0-{}", bytes.len().saturating_sub(1));
            Answer::new(202)
                .with("Location", location(repository, upload))
                .with("Range", range)
        }
        ("PUT", _) => {
            let Some(mut bytes) = state.uploads.remove(upload) else {
                return Answer::error(404, "BLOB_UPLOAD_UNKNOWN");
            };
            bytes.extend_from_slice(&request.body);
            finish(state, request, repository, bytes)
        }
        ("DELETE", _) => {
            state.uploads.remove(upload);
            Answer::new(204)
        }
        _ => Answer::error(405, "UNSUPPORTED"),
    }
}

fn begin(state: &mut State, request: &Request, repository: &str) -> Answer {
    if let (Some(digest), Some(from)) = (request.parameter("mount"), request.parameter("from")) {
        let source = digest.parse().ok().and_then(|digest: Digest| {
            state
                .blobs
                .get(&(from, digest))
                .map(|bytes| (digest, Arc::clone(bytes)))
        });
        if let Some((digest, bytes)) = source {
            state.blobs.insert((repository.to_owned(), digest), bytes);
            return Answer::new(201)
                .with("Location", format!("/v2/{repository}/blobs/{digest}"))
                .with("Docker-Content-Digest", digest.to_string());
        }
    } else if request.parameter("digest").is_some() {
        return finish(state, request, repository, request.body.clone());
    }
    state.serial += 1;
    let upload = format!("upload-{}", state.serial);
    state.uploads.insert(upload.clone(), Vec::new());
    Answer::new(202)
        .with("Location", location(repository, &upload))
        .with("Range", "0-0")
}

fn location(repository: &str, upload: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/{upload}?state=opaque")
}

fn finish(state: &mut State, request: &Request, repository: &str, bytes: Vec<u8>) -> Answer {
    let digest = Digest::of(&bytes);
    if request.parameter("digest") != Some(digest.to_string()) {
        return Answer::error(400, "DIGEST_INVALID");
    }
    state
        .blobs
        .insert((repository.to_owned(), digest), Arc::new(bytes));
    Answer::new(201)
        .with("Location", format!("/v2/{repository}/blobs/{digest}"))
        .with("Docker-Content-Digest", digest.to_string())
}
