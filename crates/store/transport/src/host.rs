//! One registry: where it is, how it wants to be asked, what tokens we have for it.
//!
//! No lock is held over a request, except that tokens are fetched one at a time.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_types::{ErrorKind, Failure as _};
use hyper::header::{HeaderName, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Uri};

use crate::challenge::{self, Challenge};
use crate::connect::is_insecure;
use crate::credentials::{self, Login, Stored};
use crate::exchange::{Answer, Call, Core, Redirects};
use crate::{Error, place};

/// Where `docker.io` answers.
const HUB: &str = "registry-1.docker.io";
/// What registries say of themselves.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// Tokens are renewed this long before they end.
const MARGIN: Duration = Duration::from_secs(10);
/// Tokens for more scopes than this are forgotten: pulls of many repositories should not grow the table for ever.
const MAX_TOKENS: usize = 1024;

/// What is known of one registry.
pub(crate) struct Host {
    /// As references name it.
    name: String,
    base: tokio::sync::OnceCell<Uri>,
    login: OnceLock<Stored>,
    known: Mutex<Known>,
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    challenge: Option<Challenge>,
    /// Scopes that the registry asked for in answer to requests of a scope of ours.
    wanted: HashMap<String, String>,
    tokens: HashMap<String, Token>,
}

#[derive(Clone)]
struct Token {
    header: HeaderValue,
    until: Instant,
}

impl Host {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            base: tokio::sync::OnceCell::new(),
            login: OnceLock::new(),
            known: Mutex::new(Known::default()),
            fetching: tokio::sync::Mutex::new(()),
        }
    }

    /// A registry with credentials that are in no file: to find out whether they are good.
    pub(crate) fn with_login(name: &str, user: String, password: String) -> Self {
        let host = Self::new(name);
        let login = Stored::Login(Login::Password { user, password });
        Self {
            login: OnceLock::from(login),
            ..host
        }
    }

    /// Whether the URL is this registry's own: where its credentials may go.
    pub(crate) fn is_at(&self, url: &Uri) -> bool {
        self.base.get().is_some_and(|base| place::same_origin(base, url))
    }

    /// Scheme, host and port of the registry. TLS, except on loopback and where the person named the registry as
    /// insecure: there both are tried, once.
    pub(crate) async fn base(&self, core: &Core) -> Result<&Uri, Error> {
        self.base.get_or_try_init(|| self.find(core)).await
    }

    async fn find(&self, core: &Core) -> Result<Uri, Error> {
        let authority = if self.name == "docker.io" { HUB } else { &self.name };
        let https = place::parse(&format!("https://{authority}/"))?;
        let http = place::parse(&format!("http://{authority}/"))?;
        let loopback = place::is_loopback(place::host(&https));
        let candidates = match (
            loopback,
            is_insecure(&core.settings, &https) || is_insecure(&core.settings, &http),
        ) {
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
    async fn answers(&self, core: &Core, base: &Uri) -> Result<bool, Error> {
        let mut call = Call::new(Method::GET, place::join(base, "/v2/")?, &core.settings);
        call.redirects = Redirects::Keep;
        call.attempts = 1;
        let answer = Box::pin(core.send(call)).await?;
        Ok(place::is_https(base) || answer.status() != 400 || answer.header(&API_VERSION).is_some())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stored(&self, core: &Core) -> Result<&Stored, Error> {
        if let Some(stored) = self.login.get() {
            return Ok(stored);
        }
        let stored = credentials::find(&core.settings.auth, &self.name)?;
        Ok(self.login.get_or_init(|| stored))
    }

    /// What to send as `Authorization`; nothing as long as the registry did not ask, or when there is nothing.
    pub(crate) async fn authorization(&self, core: &Core, scope: &str) -> Result<Option<HeaderValue>, Error> {
        if let Some(token) = self.token(scope) {
            return Ok(Some(token));
        }
        let challenge = self.known().challenge.clone();
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => match self.stored(core)? {
                Stored::Login(Login::Password { user, password }) => basic(user, password).map(Some),
                _ => Ok(None),
            },
            Some(Challenge::Bearer(bearer)) => {
                let _one_at_a_time = self.fetching.lock().await;
                if let Some(token) = self.token(scope) {
                    return Ok(Some(token));
                }
                let wanted = self.known().wanted.get(scope).cloned();
                let mut scopes: Vec<&str> = scope.split_ascii_whitespace().collect();
                for more in wanted.as_deref().unwrap_or("").split_ascii_whitespace() {
                    if !scopes.contains(&more) {
                        scopes.push(more);
                    }
                }
                let login = match self.stored(core)? {
                    Stored::Login(login) => Some(login),
                    _ => None,
                };
                let asked = Instant::now();
                let base = self.base(core).await?;
                let token = crate::token::fetch(core, base, &bearer, &scopes, login).await?;
                let until = (asked + token.lifetime).checked_sub(MARGIN).unwrap_or(asked);
                let header = secret(format!("Bearer {}", token.token))?;
                let mut known = self.known();
                if known.tokens.len() >= MAX_TOKENS {
                    known.tokens.clear();
                }
                known.tokens.insert(
                    scope.to_owned(),
                    Token {
                        header: header.clone(),
                        until,
                    },
                );
                Ok(Some(header))
            }
        }
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
    pub(crate) async fn explain(&self, core: &Core, answer: Answer) -> Error {
        let stored = match self.stored(core) {
            Ok(stored) => stored.clone(),
            Err(error) => return error,
        };
        let error = answer.into_error().await;
        match stored {
            Stored::ElsewhereIn(helper) => Error::wrap(error, self.elsewhere(&helper))
                .with_kind(ErrorKind::Unsupported)
                .with_hint(format!(
                    "log in to {} with a configuration that has no credential helper",
                    self.name
                )),
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

    fn elsewhere(&self, helper: &str) -> String {
        let shown: String = helper.chars().filter(|c| !c.is_control()).take(64).collect();
        format!(
            "credentials for {} are kept by docker-credential-{shown}, which is not asked",
            self.name
        )
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
