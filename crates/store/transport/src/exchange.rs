//! One request and its answer: redirects, credentials, tries.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use dhow_types::{ErrorKind, Failure as _};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue, LOCATION, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};

use crate::connect::ConnectFailure;
use crate::core::Core;
use crate::failure::{chain, seconds};
use crate::host::Host;
use crate::outgoing::{Outgoing, Pace};
use crate::{Context as _, Error, Settings, place};

/// Redirects of one request that are followed.
const MAX_REDIRECTS: usize = 10;
/// How much longer than [`Timeouts::answer`](crate::Timeouts) a registry may take over an upload that it got whole.
const DIGEST_TIME: u32 = 10;

/// A request.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Uri,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Outgoing,
    /// Whom it is made to, and for which rights; without, no credentials are sent anywhere.
    pub(crate) identity: Option<Identity>,
    /// How often it is tried in all.
    pub(crate) attempts: u32,
    /// What to do with an answer that points elsewhere.
    pub(crate) redirects: Redirects,
    /// Credentials for the origin of the URL and no other, when there is no identity.
    pub(crate) authorization: Option<HeaderValue>,
    /// The registry whose way of connecting counts where the URL leads to its host, when there is no identity.
    pub(crate) trust: Option<Arc<Host>>,
}

/// The registry that a request is for, and the token scopes that it needs, separated by spaces.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) host: Arc<Host>,
    pub(crate) scope: String,
    /// Credentials may be those of one repository.
    pub(crate) repository: String,
}

/// What to do with an answer that points elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Redirects {
    /// Hand it to the caller.
    Keep,
    /// Follow, never from TLS to clear text.
    Follow,
    /// Follow anywhere: the caller verifies what it gets by other means.
    FollowAnywhere,
}

/// The head of an answer; its body is still to be read.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    /// Method and URL without secrets, for messages.
    pub(crate) asked: String,
    /// Where it came from, after redirects.
    pub(crate) url: Uri,
    pub(crate) stall: Duration,
}

/// Why there is no answer.
enum Trouble {
    /// The request itself failed; another try may not.
    Broken(Error),
    /// No token could be had, and that was tried often enough.
    Final(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    }
}

impl Call {
    pub(crate) fn new(method: Method, url: Uri, settings: &Settings) -> Self {
        Self {
            method,
            url,
            headers: Vec::new(),
            body: Outgoing::empty(),
            identity: None,
            attempts: settings.attempts.max(1),
            redirects: Redirects::Follow,
            authorization: None,
            trust: None,
        }
    }

    /// The same request once more; none for a body that can be sent only once.
    pub(crate) fn again(&self) -> Option<Self> {
        Some(Self {
            method: self.method.clone(),
            url: self.url.clone(),
            headers: self.headers.clone(),
            body: self.body.again()?,
            identity: self.identity.clone(),
            attempts: self.attempts,
            redirects: self.redirects,
            authorization: self.authorization.clone(),
            trust: self.trust.clone(),
        })
    }

    pub(crate) fn asked(&self) -> String {
        format!("{} {}", self.method, place::shown(&self.url))
    }
}

impl Core {
    /// Makes the request, again if need be; gives the last answer, whatever its status.
    pub(crate) async fn send(&self, mut call: Call) -> Result<Answer, Error> {
        let mut tried = 0;
        loop {
            tried += 1;
            let body = call.body.again();
            let repeatable = body.is_some();
            let body = body.unwrap_or_else(|| std::mem::replace(&mut call.body, Outgoing::empty()));
            let outcome = self.authorized(&call, body).await;
            let last = tried >= call.attempts || !repeatable;
            let outcome = match outcome {
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Broken(error)) => Err(error),
                Ok(answer) => Ok(answer),
            };
            let asked_pause = match &outcome {
                Ok(answer) if is_passing(answer.status()) => seconds(answer.response.headers()),
                Err(error) if may_pass(error, &call.url) => None,
                _ => return outcome,
            };
            let pause = self.pause(tried, asked_pause);
            if last || pause > self.settings.timeouts.longest_pause {
                return outcome;
            }
            drop(outcome);
            tokio::time::sleep(pause).await;
        }
    }

    /// The pause before the next try: doubling, with up to a quarter more at random so that many clients do not come
    /// back at once, and never less than the server asks.
    pub(crate) fn pause(&self, tried: u32, asked: Option<u64>) -> Duration {
        let timeouts = &self.settings.timeouts;
        let doubled = timeouts
            .backoff
            .saturating_mul(1 << (tried - 1).min(10))
            .min(timeouts.longest_pause);
        let random = self.jitter.hash_one((tried, std::time::Instant::now()));
        let quarter = (doubled / 4).mul_f64((random % 1000) as f64 / 1000.0);
        let own = (doubled + quarter).min(timeouts.longest_pause);
        asked.map_or(own, |seconds| own.max(Duration::from_secs(seconds)))
    }

    /// One try with credentials, where the registry wants any.
    async fn authorized(&self, call: &Call, body: Outgoing) -> Result<Answer, Trouble> {
        let Some(identity) = &call.identity else {
            return Ok(self.followed(call, body, None).await?);
        };
        let (host, scope) = (&identity.host, identity.scope.as_str());
        let again = body.again();
        let authorization = host.authorization(self, identity).await.map_err(Trouble::Final)?;
        let answer = self.followed(call, body, authorization.as_ref()).await?;
        let refused =
            |answer: &Answer| answer.status() == StatusCode::UNAUTHORIZED && host.is_at(&answer.url);
        if !refused(&answer) {
            return Ok(answer);
        }
        let learned = host.learn(&answer, scope, authorization.as_ref());
        let Some(body) = again.filter(|_| learned) else {
            return Err(Trouble::Final(host.explain(self, answer, identity).await));
        };
        let Some(authorization) = host.authorization(self, identity).await.map_err(Trouble::Final)? else {
            return Err(Trouble::Final(host.explain(self, answer, identity).await));
        };
        let answer = self.followed(call, body, Some(&authorization)).await?;
        if refused(&answer) {
            host.learn(&answer, scope, Some(&authorization));
            return Err(Trouble::Final(host.explain(self, answer, identity).await));
        }
        Ok(answer)
    }

    async fn followed(
        &self,
        call: &Call,
        mut body: Outgoing,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, Error> {
        let mut url = call.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            // CVE-2020-15157: what is for the registry goes to the registry only.
            let ours = call
                .identity
                .as_ref()
                .is_some_and(|identity| identity.host.is_at(&url));
            let again = body.again();
            let own = call
                .authorization
                .as_ref()
                .filter(|_| place::same_origin(&url, &call.url));
            let answer = self
                .once(call, &url, body, authorization.filter(|_| ours).or(own))
                .await?;
            let reading = matches!(call.method, Method::GET | Method::HEAD);
            let follows = match answer.status().as_u16() {
                301..=303 => reading,
                307 | 308 => true,
                _ => false,
            };
            let (true, Some(target)) = (
                follows && call.redirects != Redirects::Keep,
                answer.header(&LOCATION),
            ) else {
                return Ok(answer);
            };
            let target =
                place::join(&url, target).context(|| format!("{}: follow a redirect", call.asked()))?;
            self.allow_redirect(call, &url, &target)?;
            let Some(next) = again else {
                let message = format!(
                    "{}: answered with a redirect after the body was sent",
                    answer.asked
                );
                return Err(Error::new(ErrorKind::Unsupported, message));
            };
            (url, body) = (target, next);
        }
        let message = format!("{}: more than {MAX_REDIRECTS} redirects", call.asked());
        Err(Error::new(ErrorKind::FailedPrecondition, message))
    }

    /// A redirect must not take a request out of TLS, nor from a registry on the network to this machine.
    fn allow_redirect(&self, call: &Call, from: &Uri, to: &Uri) -> Result<(), Error> {
        let refuse = |why: &str| {
            let message = format!(
                "{}: refused a redirect to {}: {why}",
                call.asked(),
                place::shown(to)
            );
            Err(Error::new(ErrorKind::PermissionDenied, message))
        };
        let here = |uri: &Uri| place::is_loopback(place::host(uri));
        if (here(to) || place::is_local_only(place::host(to))) && !here(&call.url) {
            return refuse("it leads to this machine");
        }
        let clear = place::is_https(from) && !place::is_https(to);
        let excused = here(to) || self.is_insecure(to) || call.redirects == Redirects::FollowAnywhere;
        if clear && !excused {
            return refuse("it leads from TLS to clear text");
        }
        Ok(())
    }

    /// One request on one connection.
    pub(crate) async fn once(
        &self,
        call: &Call,
        url: &Uri,
        body: Outgoing,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, Error> {
        let asked = format!("{} {}", call.method, place::shown(url));
        let broken = |why: String| Error::new(ErrorKind::Unavailable, format!("{asked}: {why}"));
        let pace = match &body {
            Outgoing::Pieces(pieces) => Some(Arc::clone(&pieces.pace)),
            Outgoing::Bytes(_) => None,
        };
        let theirs = call
            .identity
            .as_ref()
            .map(|identity| &identity.host)
            .or(call.trust.as_ref());
        let theirs = theirs.filter(|host| host.at_authority(url));
        let http = match theirs {
            Some(host) => host.http(self).clone(),
            None => self.http_for(url)?,
        };
        let headers = theirs.map_or(&[][..], |host| host.headers());
        let request = self
            .request(call, url, body, authorization, headers)
            .map_err(|error| {
                Error::because(
                    ErrorKind::InvalidArgument,
                    format!("{asked}: make the request"),
                    error,
                )
            })?;
        let timeouts = &self.settings.timeouts;
        let answering = http.request(request);
        let outcome = match pace {
            None => tokio::time::timeout(timeouts.answer, answering)
                .await
                .map_err(|_| {
                    broken(format!(
                        "no answer within {} seconds",
                        timeouts.answer.as_secs_f32()
                    ))
                })?,
            Some(pace) => tokio::select! {
                outcome = answering => outcome,
                why = stuck(&pace, timeouts.stall, timeouts.answer * DIGEST_TIME) => return Err(broken(why)),
            },
        };
        let response = outcome.map_err(|error| connection_failure(&asked, &error))?;
        Ok(Answer {
            response,
            asked,
            url: url.clone(),
            stall: timeouts.stall,
        })
    }

    fn request(
        &self,
        call: &Call,
        url: &Uri,
        body: Outgoing,
        authorization: Option<&HeaderValue>,
        more: &[(HeaderName, HeaderValue)],
    ) -> Result<Request<Outgoing>, hyper::http::Error> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(url.clone())
            .header(USER_AGENT, self.settings.user_agent.as_str());
        // What is ours for this request stands over what the file adds to all of them.
        let ours = |name: &HeaderName| {
            call.headers.iter().any(|(own, _)| own == name)
                || (*name == AUTHORIZATION && authorization.is_some())
        };
        for (name, value) in call
            .headers
            .iter()
            .chain(more.iter().filter(|(name, _)| !ours(name)))
        {
            request = request.header(name, value);
        }
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        if !place::is_https(url)
            && let Some(value) = self
                .route
                .choose(url)
                .and_then(|proxy| proxy.authorization.as_deref())
        {
            request = request.header(PROXY_AUTHORIZATION, value);
        }
        request.body(body)
    }
}

/// Completes, with the reason, when an upload makes no progress: the connection takes nothing for `stall`, or it took
/// the whole body and no answer comes for `answer`.
async fn stuck(pace: &Pace, stall: Duration, answer: Duration) -> String {
    let mut quiet = Duration::ZERO;
    loop {
        let before = pace.now();
        tokio::time::sleep(stall).await;
        let still = Pace::stuck(before, pace.now());
        quiet = if still { quiet + stall } else { Duration::ZERO };
        if still && !pace.is_sent() {
            return format!("the other side took nothing for {} seconds", stall.as_secs_f32());
        }
        if quiet >= answer {
            return format!(
                "no answer within {} seconds after the upload",
                quiet.as_secs_f32()
            );
        }
    }
}

/// Whether an answer may be different next time.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// Whether a failure may be different next time. Nobody starts a server on this machine while we wait.
fn may_pass(error: &Error, url: &Uri) -> bool {
    error.kind() == ErrorKind::Unavailable && !(place::is_loopback(place::host(url)) && is_refused(error))
}

fn is_refused(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        let io = inner.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// A failure to connect says its own kind; any other break may be different next time.
fn connection_failure(asked: &str, error: &hyper_util::client::legacy::Error) -> Error {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(ConnectFailure(ours)) = inner.downcast_ref::<ConnectFailure>() {
            let made = Error::because(ours.kind(), asked, ConnectFailure(Arc::clone(ours)));
            return match ours.hint() {
                Some(hint) => made.with_hint(hint),
                None => made,
            };
        }
        cause = inner.source();
    }
    Error::new(ErrorKind::Unavailable, format!("{asked}: {}", chain(error)))
}
