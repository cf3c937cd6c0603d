use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use dhow_oci::{Descriptor, MAX_DOCUMENT, media_type};
use dhow_reference::Reference;
use dhow_types::{Digest, ErrorKind};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use serde::Deserialize;

use crate::ask::Place;
use crate::background::Background;
use crate::blob::{BlobReader, Body, Download, Fetched};
use crate::core::Core;
use crate::exchange::{Answer, Call, Identity, Redirects};
use crate::failure::{Unread, bounded};
use crate::outgoing::Outgoing;
use crate::proxy::Route;
use crate::registries::{Endpoint, Want};
use crate::{Error, Settings, download, place};

/// What registries call the digest of what they serve.
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
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
        let core = Arc::new(Core::new(Arc::clone(&self.settings), Arc::clone(&self.route))?);
        let background = Background::start()?;
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
        let place = Place::new(reference, Want::Resolve, &format!("manifests/{named}"));
        self.fetch_manifest(place, None)
    }

    /// Fetches a manifest by digest from the repository of `reference`.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest).
    pub fn manifest_at(&self, reference: &Reference, digest: &Digest) -> Result<Fetched, Error> {
        let place = Place::new(reference, Want::Pull, &format!("manifests/{digest}"));
        self.fetch_manifest(place, Some(*digest))
    }

    fn fetch_manifest(&self, place: Place, digest: Option<Digest>) -> Result<Fetched, Error> {
        self.0.run(|core| async move {
            core.first(&place, |core, mut call| {
                let accept = HeaderValue::from_static(ACCEPT_MANIFESTS);
                call.headers.push((ACCEPT, accept));
                fetch_document(core, call, digest)
            })
            .await
        })
    }

    /// Opens a blob for reading; see [`BlobReader`].
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest), when the first answer is an error.
    pub fn blob(&self, reference: &Reference, descriptor: &Descriptor) -> Result<BlobReader, Error> {
        let place = Place::new(reference, Want::Pull, &format!("blobs/{}", descriptor.digest));
        let size = descriptor.size;
        let opened = self.0.run(|core| async move {
            core.first(&place, |core, call| {
                download::Download::new(core, call.url, call.identity, Some(size))
                    .trying(call.attempts)
                    .open()
            })
            .await
        })?;
        Ok(BlobReader::new(
            Body::new(opened.chunks, Arc::clone(&self.0)),
            descriptor,
        ))
    }

    /// Whether the repository has this blob.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest), `NotFound` excepted.
    pub fn has_blob(&self, reference: &Reference, digest: &Digest) -> Result<bool, Error> {
        // Asked before a push: with the token that the push needs, not with one more.
        let place = Place::new(reference, Want::Push, &format!("blobs/{digest}"));
        self.0.run(|core| async move {
            let call = core.call(&place, Method::HEAD).await?;
            let answer = core
                .send(call)
                .await?
                .expect(&[StatusCode::OK, StatusCode::NOT_FOUND])
                .await?;
            Ok(answer.status() == StatusCode::OK)
        })
    }

    /// Plain download of a URL: redirects are followed (bounded), a break is resumed, connections are kept and
    /// shared by all threads. No credentials are sent. The bytes are not verified: the caller has their digest.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest); `InvalidArgument` for a URL that is not `http` or `https`.
    pub fn get(&self, url: &str) -> Result<Download, Error> {
        self.get_as(url, None)
    }

    /// The same with an `Authorization` header, which goes to the origin of the URL only, not to where it redirects.
    ///
    /// # Errors
    /// As [`get`](Self::get); `InvalidArgument` for a text that is no header.
    pub fn get_as(&self, url: &str, authorization: Option<&str>) -> Result<Download, Error> {
        let url = place::parse(url)?;
        let header = authorization.map(|text| {
            let mut header = header("the authorization", text)?;
            header.set_sensitive(true);
            Ok::<_, Error>(header)
        });
        let header = header.transpose()?;
        let opened = self.0.run(|core| async move {
            let download = download::Download::new(core, url, None, None);
            download.authorized(header).open().await
        })?;
        Ok(self.download(opened))
    }

    /// As [`get`](Self::get), unless what is there still has the tag that it had: `None`.
    ///
    /// # Errors
    /// As [`get`](Self::get); `InvalidArgument` for a text that is no header.
    pub fn get_unless(&self, url: &str, tag: &str) -> Result<Option<Download>, Error> {
        let (url, tag) = (place::parse(url)?, header("the tag", tag)?);
        let opened = self.0.run(|core| async move {
            let download = download::Download::new(core, url, None, None);
            download.open_unless(tag).await
        })?;
        Ok(opened.map(|opened| self.download(opened)))
    }

    /// Sends JSON to a URL, once; redirects are not followed.
    ///
    /// # Errors
    /// `InvalidArgument` for a URL that is not `http` or `https`; `Unavailable`, or what the status says.
    pub fn post_json(&self, url: &str, body: Vec<u8>) -> Result<(), Error> {
        let url = place::parse(url)?;
        self.0.run(|core| async move {
            let mut call = Call::new(Method::POST, url, &core.settings);
            call.attempts = 1;
            call.redirects = Redirects::Keep;
            call.headers
                .push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
            call.body = Outgoing::Bytes(body.into());
            let good = [
                StatusCode::OK,
                StatusCode::CREATED,
                StatusCode::ACCEPTED,
                StatusCode::NO_CONTENT,
            ];
            core.send(call).await?.expect(&good).await.map(drop)
        })
    }

    fn download(&self, opened: download::Opened) -> Download {
        Download {
            length: opened.size,
            modified: opened.modified,
            tag: opened.tag,
            body: Body::new(opened.chunks, Arc::clone(&self.0)),
        }
    }

    /// Whether the registry lets these credentials in; stores nothing. `Ok` also when the registry asks for none.
    ///
    /// # Errors
    /// `Unauthenticated` when it does not; as [`manifest`](Self::manifest) otherwise.
    pub fn check_login(&self, registry: &str, user: &str, password: &str) -> Result<(), Error> {
        let (registry, login) = (registry.to_owned(), (user.to_owned(), password.to_owned()));
        self.0.run(|core| async move {
            // The registry itself, by the way in which its own folder says that it is spoken to.
            let probe = Reference::parse(&format!("{registry}/x"));
            let own = match probe {
                Ok(name) => core.endpoints(&name)?.into_iter().find(|place| !place.mirror),
                Err(_) => None,
            };
            let own = own.unwrap_or_else(|| Endpoint::plain(&registry, "x"));
            let host = Arc::new(crate::host::Host::new(&own).with_login(login.0, login.1));
            let url = place::join(host.base(&core).await?, &format!("{}/", own.root))?;
            let mut call = Call::new(Method::GET, url, &core.settings);
            call.identity = Some(Identity {
                host,
                scope: String::new(),
                repository: String::new(),
            });
            call.redirects = Redirects::Keep;
            core.send(call).await?.expect(&[StatusCode::OK]).await.map(drop)
        })
    }
}

/// Fetches a manifest or index and verifies it. An answer that begins and breaks is asked for again as a whole: a
/// document is small.
async fn fetch_document(core: Arc<Core>, call: Call, digest: Option<Digest>) -> Result<Fetched, Error> {
    let mut tried = 0;
    loop {
        tried += 1;
        let attempts = call.attempts;
        let Some(again) = call.again() else {
            return Err(Error::new(
                ErrorKind::Internal,
                "a question cannot be asked twice",
            ));
        };
        let answer = core.send(again).await?.expect(&[StatusCode::OK]).await?;
        let asked = answer.asked.clone();
        let declared = answer.header(&CONTENT_DIGEST).map(str::to_owned);
        let content_type = answer.header(&CONTENT_TYPE).map(plain_type);
        match read_document(answer).await {
            Err(error) if error.kind() == ErrorKind::Unavailable && tried < attempts => {
                tokio::time::sleep(core.pause(tried, None)).await;
            }
            Err(error) => return Err(error),
            Ok(bytes) => {
                let descriptor = verified(&asked, &bytes, digest, declared.as_deref(), content_type)?;
                return Ok(Fetched { descriptor, bytes });
            }
        }
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

/// A text of the caller's as a header.
fn header(what: &str, text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::try_from(text)
        .map_err(|error| Error::because(ErrorKind::InvalidArgument, format!("{what} is no header"), error))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_header_names_what_we_read() {
        assert_eq!(ACCEPT_MANIFESTS, media_type::ACCEPT_MANIFESTS.join(", "));
    }
}
