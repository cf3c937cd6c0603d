//! What a registry has: tags, referrers, what a search finds. All of it in pages, all of it bounded.

use dhow_oci::{Descriptor, Document, media_type};
use dhow_reference::Reference;
use dhow_types::{Digest, ErrorKind};
use hyper::header::{ACCEPT, HeaderValue, LINK};
use hyper::{Method, StatusCode, Uri};
use serde::Deserialize;

use crate::ask::Place;
use crate::core::Core;
use crate::exchange::{Answer, Call, Identity};
use crate::failure::bounded;
use crate::registries::{Endpoint, Want};
use crate::{Client, Error, place, token};

/// Pages of a list that are read, and bytes of one.
const MAX_PAGES: usize = 10_000;
const MAX_PAGE: usize = 8 << 20;
/// Tags of one repository that are kept.
const MAX_TAGS: usize = 1_000_000;
/// Referrers of one manifest, and names of a catalog, that are kept.
const MAX_ENTRIES: usize = 10_000;
/// Where Docker Hub is searched; its registry has no search.
const HUB_SEARCH: &str = "index.docker.io";
/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Found {
    /// The repository, as the registry names it.
    #[serde(default)]
    pub name: String,
    /// Its makers' words.
    #[serde(default)]
    pub description: String,
    /// How many people like it.
    #[serde(default, rename = "star_count")]
    pub stars: u64,
    /// Whether it is one of the hub's own.
    #[serde(default, rename = "is_official")]
    pub official: bool,
    /// Whether the hub builds it.
    #[serde(default, rename = "is_automated")]
    pub automated: bool,
}

impl Client {
    /// All tags of a repository, over as many pages as the registry gives.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest).
    pub fn tags(&self, reference: &Reference) -> Result<Vec<String>, Error> {
        let place = Place::new(reference, Want::List, "tags/list");
        self.0.run(|core| async move {
            let first = core.call(&place, Method::GET).await?;
            let mut tags = Vec::new();
            let mut pages = Pages::of(first);
            while let Some(answer) = pages.next(&core).await? {
                tags.extend(read_tags(answer).await?);
                if tags.len() >= MAX_TAGS {
                    break;
                }
            }
            Ok(tags)
        })
    }

    /// What refers to a manifest (signatures, bills of materials): from the referrers API, or where the registry has
    /// none, from the tag that stands for it (distribution-spec, "Referrers Tag Schema").
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest), `NotFound` excepted; `InvalidArgument` for a list that is none.
    pub fn referrers(
        &self,
        reference: &Reference,
        digest: &Digest,
        kind: Option<&str>,
    ) -> Result<Vec<Descriptor>, Error> {
        let query = kind.map_or_else(String::new, |kind| {
            format!("?artifactType={}", token::escaped(kind))
        });
        let place = Place::new(reference, Want::List, &format!("referrers/{digest}{query}"));
        let listed = self.0.run(|core| async move {
            let mut pages = Pages::of(core.call(&place, Method::GET).await?);
            pages.accept = Some(media_type::OCI_INDEX);
            let Some(first) = pages.first(&core).await? else {
                return Ok(None);
            };
            let mut all = Vec::new();
            let mut answer = Some(first);
            while let Some(page) = answer {
                all.extend(read_index(page).await?);
                if all.len() >= MAX_ENTRIES {
                    break;
                }
                answer = pages.next(&core).await?;
            }
            Ok(Some(all))
        })?;
        let mut all = match listed {
            Some(all) => all,
            None => self.referrers_by_tag(reference, digest)?,
        };
        // Not every registry filters, and those that do may say so or not.
        all.retain(|found| kind.is_none_or(|kind| found.artifact_type.as_deref() == Some(kind)));
        all.truncate(MAX_ENTRIES);
        Ok(all)
    }

    fn referrers_by_tag(&self, reference: &Reference, digest: &Digest) -> Result<Vec<Descriptor>, Error> {
        let tag = format!("sha256-{}", digest.hex());
        let place = Place::new(reference, Want::List, &format!("manifests/{tag}"));
        self.0.run(|core| async move {
            let mut pages = Pages::of(core.call(&place, Method::GET).await?);
            pages.accept = Some(media_type::OCI_INDEX);
            match pages.first(&core).await? {
                Some(answer) => read_index(answer).await,
                None => Ok(Vec::new()),
            }
        })
    }

    /// Searches a registry: by Docker Hub's API of old, and where there is none, in the list of all repositories.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest).
    pub fn search(&self, registry: &str, term: &str, limit: usize) -> Result<Vec<Found>, Error> {
        let (registry, term) = (registry.to_owned(), term.to_owned());
        self.0.run(|core| async move {
            let name = if registry == "docker.io" {
                HUB_SEARCH
            } else {
                &registry
            };
            let query = format!("search?q={}&n={limit}", token::escaped(&term));
            let call = whole(&core, name, "/v1", &query, "").await?;
            let good = [
                StatusCode::OK,
                StatusCode::NOT_FOUND,
                StatusCode::METHOD_NOT_ALLOWED,
            ];
            let answer = core.send(call).await?.expect(&good).await?;
            let mut found = if answer.status() == StatusCode::OK {
                read_found(answer).await?
            } else {
                catalog(&core, &registry, &term, limit).await?
            };
            found.truncate(limit);
            Ok(found)
        })
    }
}

/// A request about a registry as a whole.
async fn whole(core: &Core, registry: &str, root: &str, rest: &str, scope: &str) -> Result<Call, Error> {
    let mut endpoint = Endpoint::plain(registry, "");
    root.clone_into(&mut endpoint.root);
    // The way in which its own folder says that it is spoken to.
    if let Ok(name) = Reference::parse(&format!("{registry}/x"))
        && let Some(own) = core.endpoints(&name)?.into_iter().find(|place| !place.mirror)
    {
        (endpoint.wire, endpoint.https, endpoint.insecure) = (own.wire, own.https, own.insecure);
    }
    let host = core.host(&endpoint);
    let url = place::join(host.base(core).await?, &format!("{root}/{rest}"))?;
    let mut call = Call::new(Method::GET, url, &core.settings);
    call.identity = Some(Identity {
        host,
        scope: scope.to_owned(),
        repository: String::new(),
    });
    Ok(call)
}

async fn catalog(core: &Core, registry: &str, term: &str, limit: usize) -> Result<Vec<Found>, Error> {
    #[derive(Deserialize)]
    struct Page {
        repositories: Option<Vec<String>>,
    }
    let mut found = Vec::new();
    let mut pages = Pages::of(whole(core, registry, "/v2", "_catalog?n=1000", "registry:catalog:*").await?);
    while let Some(answer) = pages.next(core).await? {
        let page: Page = read_json(answer, "list of repositories").await?;
        let names = page.repositories.unwrap_or_default().into_iter();
        let named = names.filter(|name| name.contains(term) && dhow_reference::valid_repository(name));
        found.extend(named.map(|name| Found {
            name,
            ..Found::default()
        }));
        if found.len() >= limit {
            break;
        }
    }
    Ok(found)
}

/// A list that comes page by page.
struct Pages {
    call: Option<Call>,
    accept: Option<&'static str>,
    read: usize,
}

impl Pages {
    const fn of(call: Call) -> Self {
        Self {
            call: Some(call),
            accept: None,
            read: 0,
        }
    }

    /// The first page; none when the registry has no such list.
    async fn first(&mut self, core: &Core) -> Result<Option<Answer>, Error> {
        let answer = self.ask(core, &[StatusCode::OK, StatusCode::NOT_FOUND]).await?;
        Ok(answer.filter(|answer| answer.status() == StatusCode::OK))
    }

    async fn next(&mut self, core: &Core) -> Result<Option<Answer>, Error> {
        self.ask(core, &[StatusCode::OK]).await
    }

    async fn ask(&mut self, core: &Core, good: &[StatusCode]) -> Result<Option<Answer>, Error> {
        let Some(mut call) = self.call.take() else {
            return Ok(None);
        };
        let again = call.again();
        if let Some(accept) = self.accept {
            call.headers.push((ACCEPT, HeaderValue::from_static(accept)));
        }
        let url = call.url.clone();
        let answer = core.send(call).await?.expect(good).await?;
        self.read += 1;
        self.call = match (next_page(&answer)?, again) {
            (Some(next), Some(again)) if next != url && self.read < MAX_PAGES => {
                Some(Call { url: next, ..again })
            }
            _ => None,
        };
        Ok(Some(answer))
    }
}

/// The page after this one: `Link: <url>; rel="next"` (RFC 8288).
fn next_page(answer: &Answer) -> Result<Option<Uri>, Error> {
    let Some(link) = answer.header(&LINK) else {
        return Ok(None);
    };
    let target = link.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let next = parameters.split(';').any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or(("", ""));
            name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"') == "next"
        });
        next.then_some(target)
    });
    target.map(|target| place::join(&answer.url, target)).transpose()
}

async fn read_tags(answer: Answer) -> Result<Vec<String>, Error> {
    #[derive(Deserialize)]
    struct Page {
        tags: Option<Vec<String>>,
    }
    let page: Page = read_json(answer, "list of tags").await?;
    // What is no tag could not be asked for either, and will be printed.
    let tags = page
        .tags
        .unwrap_or_default()
        .into_iter()
        .filter(|tag| dhow_reference::valid_tag(tag));
    Ok(tags.collect())
}

async fn read_json<T: serde::de::DeserializeOwned>(answer: Answer, what: &str) -> Result<T, Error> {
    let (bytes, bad) = read(answer, what).await?;
    serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))
}

async fn read(answer: Answer, what: &str) -> Result<(bytes::Bytes, impl Fn(String) -> Error + use<>), Error> {
    let (asked, what) = (answer.asked.clone(), what.to_owned());
    let bad =
        move |why: String| Error::new(ErrorKind::Unavailable, format!("{asked}: unusable {what}: {why}"));
    match bounded(answer.response.into_body(), MAX_PAGE, answer.stall).await {
        Ok(bytes) => Ok((bytes, bad)),
        Err(why) => Err(bad(why.to_string())),
    }
}

async fn read_index(answer: Answer) -> Result<Vec<Descriptor>, Error> {
    let (bytes, bad) = read(answer, "list of referrers").await?;
    match Document::parse(&bytes, None) {
        Ok(Document::Index(index)) => Ok(index.manifests),
        Ok(Document::Manifest(_)) => Err(bad("it is no index".to_owned())),
        Err(error) => Err(bad(error.to_string())),
    }
}

async fn read_found(answer: Answer) -> Result<Vec<Found>, Error> {
    #[derive(Deserialize)]
    struct Page {
        #[serde(default)]
        results: Vec<Found>,
    }
    let page: Page = read_json(answer, "result of a search").await?;
    // What is no name could not be pulled either; the rest will be printed.
    let clean = |text: &str| {
        text.chars()
            .filter(|c| !c.is_control())
            .take(1000)
            .collect::<String>()
    };
    let sound = page
        .results
        .into_iter()
        .filter(|found| Reference::parse(&found.name).is_ok());
    Ok(sound
        .map(|found| Found {
            description: clean(&found.description),
            ..found
        })
        .take(MAX_ENTRIES)
        .collect())
}
