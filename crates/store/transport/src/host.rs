//! One registry: where it is, how it wants to be asked, what tokens we have for it.
//!
//! No lock is held over a request, except that tokens are fetched one at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_types::{ErrorKind, Failure as _};
use hyper::header::{HeaderName, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Uri};

use crate::challenge::{self, Bearer, Challenge};
use crate::core::{Core, Http};
use crate::credentials::{Login, Stored};
use crate::exchange::{Answer, Call, Identity, Redirects};
use crate::registries::{Endpoint, Wire};
use crate::{Error, place};

/// Where `docker.io` answers.
const HUB: &str = "registry-1.docker.io";
/// What registries say of themselves.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// Tokens are renewed this long before they end.
const MARGIN: Duration = Duration::from_secs(10);
/// How long a mirror that did not answer is left alone.
const DOWN: Duration = Duration::from_secs(60);
/// Tokens for more scopes than this are forgotten: pulls of many repositories should not grow the table for ever.
const MAX_TOKENS: usize = 1024;

/// What is known of one registry.
pub(crate) struct Host {
    /// As references name it.
    name: String,
    /// The scheme, where a file says one.
    https: Option<bool>,
    /// Path of the API: `/v2`.
    root: String,
    insecure: bool,
    wire: Wire,
    /// Sent with every request to it.
    headers: Vec<(HeaderName, HeaderValue)>,
    http: OnceLock<Http>,
    base: tokio::sync::OnceCell<Uri>,
    /// A login that is in no file.
    given: Option<Login>,
    known: Mutex<Known>,
    fetching: tokio::sync::Mutex<()>,
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    challenge: Option<Challenge>,
    /// Scopes that the registry asked for in answer to requests of a scope of ours.
    wanted: HashMap<String, String>,
    tokens: HashMap<String, Token>,
    /// By repository.
    logins: HashMap<String, Stored>,
    /// When it did not answer, and is not asked again while others stand for it.
    down: Option<Instant>,
}

#[derive(Clone)]
struct Token {
    header: HeaderValue,
    until: Instant,
}

impl Host {
    pub(crate) fn new(endpoint: &Endpoint) -> Self {
        let header = |(name, value): &(String, String)| {
            let mut value = HeaderValue::try_from(value).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::try_from(name).ok()?, value))
        };
        let mut wire = endpoint.wire.clone();
        wire.any_certificate |= endpoint.insecure;
        Self {
            name: endpoint.host.clone(),
            https: endpoint.https,
            root: endpoint.root.clone(),
            insecure: endpoint.insecure,
            wire,
            headers: endpoint.headers.iter().filter_map(header).collect(),
            http: OnceLock::new(),
            base: tokio::sync::OnceCell::new(),
            given: None,
            known: Mutex::new(Known::default()),
            fetching: tokio::sync::Mutex::new(()),
            asking: tokio::sync::Mutex::new(()),
        }
    }

    /// The same with credentials that are in no file: to find out whether they are good.
    pub(crate) fn with_login(self, user: String, password: String) -> Self {
        Self {
            given: Some(Login::Password { user, password }),
            ..self
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// Its own pool of connections, where it is spoken to in a way of its own.
    pub(crate) fn http<'a>(&'a self, core: &'a Core) -> &'a Http {
        if self.wire.is_default() {
            return core.http();
        }
        self.http.get_or_init(|| core.pool(&self.wire))
    }

    fn authority(&self) -> &str {
        if self.name == "docker.io" { HUB } else { &self.name }
    }

    /// Whether a URL leads to its host and port, whatever the scheme.
    pub(crate) fn at_authority(&self, url: &Uri) -> bool {
        place::parse(&format!(
            "{}://{}/",
            url.scheme_str().unwrap_or("https"),
            self.authority()
        ))
        .is_ok_and(|own| {
            place::host(&own).eq_ignore_ascii_case(place::host(url)) && place::port(&own) == place::port(url)
        })
    }

    /// Whether the person said that this host may speak in clear text, and the URL leads to it.
    pub(crate) fn is_insecure_at(&self, url: &Uri) -> bool {
        let own = place::parse(&format!("https://{}/", self.authority()));
        self.insecure && own.is_ok_and(|own| place::host(&own).eq_ignore_ascii_case(place::host(url)))
    }

    /// Remembers that it does not answer.
    pub(crate) fn mark_down(&self) {
        self.known().down = Some(Instant::now());
    }

    /// Whether it did not answer a short time ago.
    pub(crate) fn is_down(&self) -> bool {
        self.known().down.is_some_and(|since| since.elapsed() < DOWN)
    }

    /// Whether the URL is this registry's own: where its credentials may go.
    pub(crate) fn is_at(&self, url: &Uri) -> bool {
        self.base.get().is_some_and(|base| place::same_origin(base, url))
    }

    /// Scheme, host and port of the registry. TLS, except on loopback and where the person named the registry as
    /// insecure: there both are tried, once.
    pub(crate) async fn base(self: &Arc<Self>, core: &Core) -> Result<&Uri, Error> {
        self.base.get_or_try_init(|| self.find(core)).await
    }

    async fn find(self: &Arc<Self>, core: &Core) -> Result<Uri, Error> {
        let authority = self.authority();
        let https = place::parse(&format!("https://{authority}/"))?;
        let http = place::parse(&format!("http://{authority}/"))?;
        match self.https {
            Some(true) => return Ok(https),
            Some(false) => return Ok(http),
            None => {}
        }
        // Who named an authority for it means TLS, on this machine too.
        let loopback = place::is_loopback(place::host(&https)) && self.wire.ca.is_empty();
        let insecure = self.insecure || core.is_insecure(&https) || core.is_insecure(&http);
        let candidates = match (loopback, insecure) {
            (false, false) => return Ok(https),
            (true, _) if https.port_u16() != Some(443) => [http, https],
            _ => [https, http],
        };
        let (mut failure, mut doubtful) = (None, None);
        for base in candidates {
            match self.answers(core, &base).await {
                Ok(true) => return Ok(base),
                Ok(false) => doubtful = doubtful.or(Some(base)),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if let Some(base) = doubtful {
            return Ok(base);
        }
        Err(failure.unwrap_or_else(|| {
            Error::new(
                ErrorKind::Unavailable,
                format!("{}: speaks neither HTTP nor HTTPS", self.name),
            )
        }))
    }

    /// Whether a registry speaks this scheme. A TLS server that is spoken to in clear text answers 400, if at all;
    /// what it says there may be lost with the connection, so that only the status counts.
    async fn answers(self: &Arc<Self>, core: &Core, base: &Uri) -> Result<bool, Error> {
        let url = place::join(base, &format!("{}/", self.root))?;
        let mut call = Call::new(Method::GET, url, &core.settings);
        call.redirects = Redirects::Keep;
        call.trust = Some(Arc::clone(self));
        call.attempts = 1;
        let answer = Box::pin(core.send(call)).await?;
        Ok(place::is_https(base) || answer.status() != 400 || answer.header(&API_VERSION).is_some())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who we are for a repository. A helper may be asked, once, in a thread that ends before this returns.
    async fn stored(&self, core: &Core, repository: &str) -> Result<Stored, Error> {
        if let Some(login) = &self.given {
            return Ok(Stored::Login(login.clone()));
        }
        let _one_at_a_time = self.asking.lock().await;
        if let Some(stored) = self.known().logins.get(repository) {
            return Ok(stored.clone());
        }
        let credentials = core.credentials()?;
        let (name, wanted) = (self.name.clone(), repository.to_owned());
        let stored = crate::background::apart(move || credentials.find(&name, &wanted)).await?;
        let mut known = self.known();
        if known.logins.len() >= MAX_TOKENS {
            known.logins.clear();
        }
        known.logins.insert(repository.to_owned(), stored.clone());
        Ok(stored)
    }

    /// What to send as `Authorization`; nothing as long as the registry did not ask, or when there is nothing.
    pub(crate) async fn authorization(
        self: &Arc<Self>,
        core: &Core,
        identity: &Identity,
    ) -> Result<Option<HeaderValue>, Error> {
        let scope = identity.scope.as_str();
        if let Some(token) = self.token(scope) {
            return Ok(Some(token));
        }
        let challenge = self.known().challenge.clone();
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => match self.stored(core, &identity.repository).await? {
                Stored::Login(Login::Password { user, password }) => basic(&user, &password).map(Some),
                _ => Ok(None),
            },
            Some(Challenge::Bearer(bearer)) => {
                let _one_at_a_time = self.fetching.lock().await;
                match self.token(scope) {
                    Some(token) => Ok(Some(token)),
                    None => self.fetch_token(core, identity, &bearer).await.map(Some),
                }
            }
        }
    }

    async fn fetch_token(
        self: &Arc<Self>,
        core: &Core,
        identity: &Identity,
        bearer: &Bearer,
    ) -> Result<HeaderValue, Error> {
        let scope = identity.scope.as_str();
        let wanted = self.known().wanted.get(scope).cloned();
        let mut scopes: Vec<&str> = scope.split_ascii_whitespace().collect();
        for more in wanted.as_deref().unwrap_or("").split_ascii_whitespace() {
            if !scopes.contains(&more) {
                scopes.push(more);
            }
        }
        let login = match self.stored(core, &identity.repository).await? {
            Stored::Login(login) => Some(login),
            Stored::Nothing => None,
        };
        let asked = Instant::now();
        let token = crate::token::fetch(core, self, bearer, &scopes, login.as_ref()).await?;
        let until = (asked + token.lifetime).checked_sub(MARGIN).unwrap_or(asked);
        let header = secret(format!("Bearer {}", token.token))?;
        let mut known = self.known();
        if known.tokens.len() >= MAX_TOKENS {
            known.tokens.clear();
        }
        let token = Token {
            header: header.clone(),
            until,
        };
        known.tokens.insert(scope.to_owned(), token);
        Ok(header)
    }

    fn token(&self, scope: &str) -> Option<HeaderValue> {
        let known = self.known();
        let token = known
            .tokens
            .get(scope)
            .filter(|token| token.until > Instant::now())?;
        Some(token.header.clone())
    }

    /// Takes a 401 in. `false` when there is nothing new to try.
    pub(crate) fn learn(&self, answer: &Answer, scope: &str, sent: Option<&HeaderValue>) -> bool {
        let headers = answer.response.headers().get_all(WWW_AUTHENTICATE);
        let Some(challenge) = challenge::choose(headers.iter().filter_map(|value| value.to_str().ok()))
        else {
            return false;
        };
        let mut known = self.known();
        // Another request may have brought a new token meanwhile: only the one that was refused is dropped.
        if known
            .tokens
            .get(scope)
            .is_some_and(|token| Some(&token.header) == sent)
        {
            known.tokens.remove(scope);
        }
        let basic_refused = challenge == Challenge::Basic && sent.is_some();
        if let Challenge::Bearer(bearer) = &challenge
            && let Some(wanted) = &bearer.scope
            && known.wanted.len() < MAX_TOKENS
        {
            known.wanted.insert(scope.to_owned(), wanted.clone());
        }
        known.challenge = Some(challenge);
        !basic_refused
    }

    /// Turns a final 401 into an error that says what is missing.
    pub(crate) async fn explain(&self, core: &Core, answer: Answer, identity: &Identity) -> Error {
        let stored = match self.stored(core, &identity.repository).await {
            Ok(stored) => stored,
            Err(error) => return error,
        };
        let error = answer.into_error().await;
        match stored {
            Stored::Login(_) => {
                let hint = format!("the credentials for {} do not suffice: log in again", self.name);
                error.with_hint(hint)
            }
            Stored::Nothing => {
                let hint = error
                    .hint()
                    .unwrap_or("log in")
                    .replace("the registry", &self.name);
                error.with_hint(hint)
            }
        }
    }
}

pub(crate) fn basic(user: &str, password: &str) -> Result<HeaderValue, Error> {
    secret(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

/// A header value that does not show up in debug output.
fn secret(text: String) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::try_from(text).map_err(|_| {
        Error::new(
            ErrorKind::InvalidArgument,
            "token or password has characters that no header may have",
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}
