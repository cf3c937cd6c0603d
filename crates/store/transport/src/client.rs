use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use dhow_oci::{Descriptor, MAX_DOCUMENT, media_type};
use dhow_reference::Reference;
use dhow_types::{Digest, ErrorKind};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, LINK};
use hyper::{Method, StatusCode, Uri};
use serde::Deserialize;

use crate::background::Background;
use crate::blob::{BlobReader, Body, Download, Fetched};
use crate::exchange::{Answer, Call, Core, Identity, Redirects};
use crate::failure::{Unread, bounded};
use crate::proxy::Route;
use crate::{Error, Settings, download, place};

/// What registries call the digest of what they serve.
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// Pages of a list that are read, and bytes of one.
const MAX_PAGES: usize = 10_000;
const MAX_PAGE: usize = 8 << 20;
/// Tags of one repository that are kept.
const MAX_TAGS: usize = 1_000_000;

/// Talks to registries. Cheap to clone; see the crate's story. Its functions block and must not be called from
/// asynchronous code.
#[derive(Clone)]
pub struct Client(pub(crate) Arc<Shared>);

/// What the clones of a client share. The thread starts with the first request.
pub(crate) struct Shared {
    settings: Arc<Settings>,
    route: Arc<Route>,
    running: OnceLock<Running>,
    starting: Mutex<()>,
}

struct Running {
    core: Arc<Core>,
    background: Background,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn running(&self) -> Result<&Running, Error> {
        let _once = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = self.running.get() {
            return Ok(running);
        }
        let background = Background::start()?;
        let core = Arc::new(Core::new(Arc::clone(&self.settings), Arc::clone(&self.route)));
        Ok(self.running.get_or_init(|| Running { core, background }))
    }

    /// Runs asynchronous work on the background thread and waits for it.
    pub(crate) fn run<T, F>(&self, work: impl FnOnce(Arc<Core>) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let running = self.running()?;
        running.background.run(work(Arc::clone(&running.core)))
    }
}

/// Where something of a repository is, and for which rights it is asked.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) registry: String,
    pub(crate) path: String,
    pub(crate) scope: String,
}

impl Place {
    /// `rest` of the URL below `/v2/<repository>/`, for reading.
    pub(crate) fn pull(reference: &Reference, rest: &str) -> Self {
        Self::of(reference, rest, "pull")
    }

    /// The same for writing.
    pub(crate) fn push(reference: &Reference, rest: &str) -> Self {
        Self::of(reference, rest, "pull,push")
    }

    fn of(reference: &Reference, rest: &str, actions: &str) -> Self {
        let repository = reference.repository();
        Self {
            registry: reference.registry().to_owned(),
            path: format!("/v2/{repository}/{rest}"),
            scope: format!("repository:{repository}:{actions}"),
        }
    }

    /// The request for it.
    pub(crate) async fn call(self, core: &Core, method: Method) -> Result<Call, Error> {
        let host = core.host(&self.registry);
        let url = place::join(host.base(core).await?, &self.path)?;
        let mut call = Call::new(method, url, &core.settings);
        call.identity = Some(Identity {
            host,
            scope: self.scope,
        });
        Ok(call)
    }
}

impl Client {
    /// A client; no thread is started and nothing is read before the first request.
    ///
    /// # Errors
    /// `InvalidArgument` when a proxy URL is malformed.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let route = Arc::new(Route::parse(&settings.proxies)?);
        let (running, starting) = (OnceLock::new(), Mutex::new(()));
        Ok(Self(Arc::new(Shared {
            settings: Arc::new(settings),
            route,
            running,
            starting,
        })))
    }

    /// Fetches the manifest or index that `reference` names: by its digest if it has one, else by its tag, else
    /// `latest`.
    ///
    /// # Errors
    /// `NotFound`, `Unauthenticated`, `PermissionDenied`, `Unavailable`, `ResourceExhausted` (rate limit, over
    /// 4 MiB), `DataLoss` when bytes and digest disagree.
    pub fn manifest(&self, reference: &Reference) -> Result<Fetched, Error> {
        let named = match reference.digest() {
            Some(digest) => return self.manifest_at(reference, digest),
            None => reference.tag().unwrap_or("latest"),
        };
        self.fetch_manifest(Place::pull(reference, &format!("manifests/{named}")), None)
    }

    /// Fetches a manifest by digest from the repository of `reference`.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest).
    pub fn manifest_at(&self, reference: &Reference, digest: &Digest) -> Result<Fetched, Error> {
        self.fetch_manifest(
            Place::pull(reference, &format!("manifests/{digest}")),
            Some(*digest),
        )
    }

    fn fetch_manifest(&self, place: Place, digest: Option<Digest>) -> Result<Fetched, Error> {
        self.0.run(|core| async move {
            let mut tried = 0;
            loop {
                tried += 1;
                let mut call = place.clone().call(&core, Method::GET).await?;
                let accept = HeaderValue::from_static(ACCEPT_MANIFESTS);
                call.headers.push((ACCEPT, accept));
                let answer = core.send(call).await?.expect(&[StatusCode::OK]).await?;
                let asked = answer.asked.clone();
                let declared = answer.header(&CONTENT_DIGEST).map(str::to_owned);
                let content_type = answer.header(&CONTENT_TYPE).map(plain_type);
                match read_document(answer).await {
                    // The answer began and broke: a document is small, so all of it is asked for again.
                    Err(error)
                        if error.kind() == ErrorKind::Unavailable && tried < core.settings.attempts =>
                    {
                        tokio::time::sleep(core.pause(tried, None)).await;
                    }
                    Err(error) => return Err(error),
                    Ok(bytes) => {
                        let descriptor = verified(&asked, &bytes, digest, declared.as_deref(), content_type)?;
                        return Ok(Fetched { descriptor, bytes });
                    }
                }
            }
        })
    }

    /// Opens a blob for reading; see [`BlobReader`].
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest), when the first answer is an error.
    pub fn blob(&self, reference: &Reference, descriptor: &Descriptor) -> Result<BlobReader, Error> {
        let place = Place::pull(reference, &format!("blobs/{}", descriptor.digest));
        let size = descriptor.size;
        let (_, chunks) = self.0.run(|core| async move {
            let call = place.call(&core, Method::GET).await?;
            download::Download::new(core, call.url, call.identity, Some(size))
                .open()
                .await
        })?;
        Ok(BlobReader::new(
            Body::new(chunks, Arc::clone(&self.0)),
            descriptor,
        ))
    }

    /// Whether the repository has this blob.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest), `NotFound` excepted.
    pub fn has_blob(&self, reference: &Reference, digest: &Digest) -> Result<bool, Error> {
        // Asked before a push: with the token that the push needs, not with one more.
        let place = Place::push(reference, &format!("blobs/{digest}"));
        self.0.run(|core| async move {
            let call = place.call(&core, Method::HEAD).await?;
            let answer = core
                .send(call)
                .await?
                .expect(&[StatusCode::OK, StatusCode::NOT_FOUND])
                .await?;
            Ok(answer.status() == StatusCode::OK)
        })
    }

    /// All tags of a repository, over as many pages as the registry gives.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest).
    pub fn tags(&self, reference: &Reference) -> Result<Vec<String>, Error> {
        let place = Place::pull(reference, "tags/list");
        self.0.run(|core| async move {
            let first = place.call(&core, Method::GET).await?;
            let (identity, mut url) = (first.identity, first.url);
            let mut tags = Vec::new();
            for _ in 0..MAX_PAGES {
                let mut call = Call::new(Method::GET, url.clone(), &core.settings);
                call.identity.clone_from(&identity);
                let answer = core.send(call).await?.expect(&[StatusCode::OK]).await?;
                let next = next_page(&answer)?;
                tags.extend(read_tags(answer).await?);
                match next {
                    Some(next) if next != url && tags.len() < MAX_TAGS => url = next,
                    _ => break,
                }
            }
            Ok(tags)
        })
    }

    /// Plain download of a URL: redirects are followed (bounded), a break is resumed, connections are kept and
    /// shared by all threads. No credentials are sent. The bytes are not verified: the caller has their digest.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest); `InvalidArgument` for a URL that is not `http` or `https`.
    pub fn get(&self, url: &str) -> Result<Download, Error> {
        let url = place::parse(url)?;
        let (length, chunks) = self
            .0
            .run(|core| async move { download::Download::new(core, url, None, None).open().await })?;
        Ok(Download {
            length,
            body: Body::new(chunks, Arc::clone(&self.0)),
        })
    }

    /// Whether the registry lets these credentials in; stores nothing. `Ok` also when the registry asks for none.
    ///
    /// # Errors
    /// `Unauthenticated` when it does not; as [`manifest`](Self::manifest) otherwise.
    pub fn check_login(&self, registry: &str, user: &str, password: &str) -> Result<(), Error> {
        let (registry, login) = (registry.to_owned(), (user.to_owned(), password.to_owned()));
        self.0.run(|core| async move {
            let host = crate::host::Host::with_login(&registry, login.0, login.1);
            let host = Arc::new(host);
            let url = place::join(host.base(&core).await?, "/v2/")?;
            let mut call = Call::new(Method::GET, url, &core.settings);
            call.identity = Some(Identity {
                host,
                scope: String::new(),
            });
            call.redirects = Redirects::Keep;
            core.send(call).await?.expect(&[StatusCode::OK]).await.map(drop)
        })
    }
}

/// [`media_type::ACCEPT_MANIFESTS`] as one header; a test holds them together.
const ACCEPT_MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// The media type without parameters.
fn plain_type(value: &str) -> String {
    value.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

async fn read_document(answer: Answer) -> Result<Vec<u8>, Error> {
    let asked = answer.asked.clone();
    let max = usize::try_from(MAX_DOCUMENT).unwrap_or(usize::MAX);
    match bounded(answer.response.into_body(), max, answer.stall).await {
        Ok(bytes) => Ok(bytes.into()),
        Err(why @ Unread::TooLarge(_)) => {
            let message = format!("{asked}: the manifest has {why}");
            Err(Error::new(ErrorKind::ResourceExhausted, message))
        }
        Err(why) => Err(Error::new(ErrorKind::Unavailable, format!("{asked}: {why}"))),
    }
}

fn verified(
    asked: &str,
    bytes: &[u8],
    wanted: Option<Digest>,
    declared: Option<&str>,
    content_type: Option<String>,
) -> Result<Descriptor, Error> {
    let found = Digest::of(bytes);
    if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
        let message = format!("{asked}: the manifest has the digest {found} instead of {wanted}");
        return Err(Error::new(ErrorKind::DataLoss, message));
    }
    // Registries may name another algorithm in the header; then it says nothing about this digest.
    let declared = declared.filter(|text| text.starts_with("sha256:"));
    if let Some(declared) = declared.filter(|declared| *declared != found.to_string()) {
        let shown: String = declared.chars().take(80).collect();
        let message = format!("{asked}: the manifest has the digest {found}, the registry says {shown}");
        return Err(Error::new(ErrorKind::DataLoss, message));
    }
    #[derive(Deserialize)]
    struct Named {
        #[serde(rename = "mediaType")]
        media_type: Option<String>,
    }
    let generic = |text: &str| text.is_empty() || text == "application/json" || text.starts_with("text/");
    let media_type = content_type.filter(|text| !generic(text)).or_else(|| {
        serde_json::from_slice::<Named>(bytes)
            .ok()
            .and_then(|named| named.media_type)
    });
    let media_type = media_type.unwrap_or_else(|| media_type::OCI_MANIFEST.to_owned());
    Ok(Descriptor::new(&media_type, found, bytes.len() as u64))
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
    let asked = answer.asked.clone();
    let bad = |why: String| {
        Error::new(
            ErrorKind::Unavailable,
            format!("{asked}: unusable list of tags: {why}"),
        )
    };
    let body = bounded(answer.response.into_body(), MAX_PAGE, answer.stall).await;
    let body = body.map_err(|why| bad(why.to_string()))?;
    let page: Page = serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
    // What is no tag could not be asked for either, and will be printed.
    let tags = page
        .tags
        .unwrap_or_default()
        .into_iter()
        .filter(|tag| dhow_reference::valid_tag(tag));
    Ok(tags.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_header_names_what_we_read() {
        assert_eq!(ACCEPT_MANIFESTS, media_type::ACCEPT_MANIFESTS.join(", "));
    }
}
