//! Lists: tags, repositories, referrers.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue, LINK};

use crate::db;
use crate::digest::Digest;
use crate::fault::Fault;
use crate::registry::State;
use crate::reply::{self, OCI_FILTERS, Reply, escape};
use crate::route::{Name, parameter};

/// Entries of a page: when the client does not say, and at most.
const PAGE: usize = 1000;
const MAX_PAGE: usize = 10_000;
/// Bytes of a page of referrers, whose annotations may be large.
const MAX_REFERRERS: usize = 4 << 20;

/// What a client asks of a list.
struct Page {
    size: usize,
    /// The last entry that it has; empty before all others.
    last: String,
}

impl Page {
    fn parse(query: Option<&str>) -> Result<Self, Fault> {
        let size = match parameter(query, "n")? {
            None => PAGE,
            Some(text) => {
                let size = text
                    .parse::<usize>()
                    .map_err(|_| Fault::query_invalid("n is no number"))?;
                size.min(MAX_PAGE)
            }
        };
        Ok(Self {
            size,
            last: parameter(query, "last")?.unwrap_or_default(),
        })
    }

    /// One more than the page, to see whether there is another.
    fn limit(&self) -> i64 {
        i64::try_from(self.size).unwrap_or(i64::MAX).saturating_add(1)
    }
}

/// Cuts a list to its page; says how to go on.
fn cut(entries: &mut Vec<String>, page: &Page, path: &str) -> Option<HeaderValue> {
    if entries.len() <= page.size || page.size == 0 {
        entries.truncate(page.size);
        return None;
    }
    entries.truncate(page.size);
    let last = entries.last().map_or("", String::as_str);
    Some(reply::header(format!(
        "<{path}?n={}&last={}>; rel=\"next\"",
        page.size,
        escape(last)
    )))
}

fn listed(value: &serde_json::Value, link: Option<HeaderValue>) -> Reply {
    let mut reply = reply::json(StatusCode::OK, value);
    if let Some(link) = link {
        reply.headers_mut().insert(LINK, link);
    }
    reply
}

/// `GET .../tags/list`.
pub(crate) async fn tags(state: &Arc<State>, name: Name, query: Option<&str>) -> Result<Reply, Fault> {
    let page = Page::parse(query)?;
    let (owner, last, limit) = (name.clone(), page.last.clone(), page.limit());
    let found = state.db.read(move |connection| {
        let Some(repository) = db::repository(connection, owner.as_str())? else {
            return Ok(None);
        };
        let text = "SELECT name FROM tag WHERE repository = ?1 AND name > ?2 ORDER BY name LIMIT ?3";
        let mut statement = connection.prepare_cached(text)?;
        let rows = statement.query_map((repository, last, limit), |row| row.get::<_, String>(0))?;
        rows.collect::<rusqlite::Result<Vec<_>>>().map(Some)
    });
    let mut tags = found.await?.ok_or_else(Fault::name_unknown)?;
    let link = cut(&mut tags, &page, &format!("/v2/{}/tags/list", name.as_str()));
    Ok(listed(
        &serde_json::json!({ "name": name.as_str(), "tags": tags }),
        link,
    ))
}

/// `GET /v2/_catalog`.
pub(crate) async fn catalog(state: &Arc<State>, query: Option<&str>) -> Result<Reply, Fault> {
    let page = Page::parse(query)?;
    let (last, limit) = (page.last.clone(), page.limit());
    let found = state.db.read(move |connection| {
        let text = "SELECT name FROM repository WHERE name > ?1 ORDER BY name LIMIT ?2";
        let mut statement = connection.prepare_cached(text)?;
        let rows = statement.query_map((last, limit), |row| row.get::<_, String>(0))?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    });
    let mut names = found.await?;
    let link = cut(&mut names, &page, "/v2/_catalog");
    Ok(listed(&serde_json::json!({ "repositories": names }), link))
}

/// `GET .../referrers/<digest>`: an index, empty when nothing refers to it, never 404.
pub(crate) async fn referrers(
    state: &Arc<State>,
    name: Name,
    subject: Digest,
    query: Option<&str>,
) -> Result<Reply, Fault> {
    let wanted = parameter(query, "artifactType")?;
    let page = Page::parse(query)?;
    let (owner, about, kind) = (name.clone(), subject.clone(), wanted.clone());
    let (last, limit) = (page.last, i64::try_from(page.size).unwrap_or(i64::MAX));
    let found = state.db.read(move |connection| {
        let mut entries = Vec::new();
        let Some(repository) = db::repository(connection, owner.as_str())? else {
            return Ok((entries, None));
        };
        let text = "SELECT digest, referrer FROM manifest
            WHERE repository = ?1 AND subject = ?2 AND digest > ?3 AND (?4 IS NULL OR artifact_type = ?4)
            ORDER BY digest";
        let mut statement = connection.prepare_cached(text)?;
        let mut rows = statement.query((repository, about.as_str(), last, kind))?;
        let (mut bytes, mut before) = (0, None);
        while let Some(row) = rows.next()? {
            let (digest, referrer): (String, String) = (row.get(0)?, row.get(1)?);
            bytes += referrer.len();
            let full = i64::try_from(entries.len()).unwrap_or(i64::MAX) >= limit;
            if full || (bytes > MAX_REFERRERS && !entries.is_empty()) {
                return Ok((entries, before));
            }
            entries.push(referrer);
            before = Some(digest);
        }
        Ok((entries, None))
    });
    let (entries, more) = found.await?;
    // The entries are JSON already.
    let body = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#,
        dhow_oci::media_type::OCI_INDEX,
        entries.join(",")
    );
    let mut reply = reply::bytes(StatusCode::OK, body.into());
    reply.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static(dhow_oci::media_type::OCI_INDEX),
    );
    if wanted.is_some() {
        reply
            .headers_mut()
            .insert(OCI_FILTERS, HeaderValue::from_static("artifactType"));
    }
    if let Some(last) = more {
        let filter = wanted.map_or_else(String::new, |kind| format!("&artifactType={}", escape(&kind)));
        let path = format!("/v2/{}/referrers/{subject}", name.as_str());
        reply::set(
            &mut reply,
            LINK,
            format!("<{path}?n={}&last={last}{filter}>; rel=\"next\"", page.size),
        );
    }
    Ok(reply)
}
