//! Fetches tokens from a registry's token server (distribution `spec/auth/token.md` and `oauth.md`).

use std::sync::Arc;
use std::time::Duration;

use dhow_types::ErrorKind;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode, Uri};
use serde::Deserialize;

use crate::challenge::Bearer;
use crate::core::Core;
use crate::credentials::Login;
use crate::exchange::{Answer, Call, Redirects};
use crate::failure::bounded;
use crate::host::{Host, basic};
use crate::outgoing::Outgoing;
use crate::{Error, place};

/// Largest answer of a token server.
const MAX_ANSWER: usize = 1 << 20;
/// How long a token is good for when the server does not say, and at least (token.md).
const DEFAULT_LIFETIME: u64 = 60;
/// Longer lifetimes are not believed.
const MAX_LIFETIME: u64 = 24 * 3600;
/// How we call ourselves to the token server.
const CLIENT_ID: &str = "dhow";

/// A token and how long it is good for.
pub(crate) struct Token {
    pub(crate) token: String,
    pub(crate) lifetime: Duration,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// Fetches a token for `scopes` from the server that the registry at `base` names.
pub(crate) async fn fetch(
    core: &Core,
    host: &Arc<Host>,
    bearer: &Bearer,
    scopes: &[&str],
    login: Option<&Login>,
) -> Result<Token, Error> {
    let realm = trusted_realm(core, host, &bearer.realm).await?;
    let asking = Asking {
        core,
        host,
        realm: &realm,
        service: bearer.service.as_deref(),
        scopes,
    };
    let answer = match login {
        Some(Login::Identity(refresh)) => {
            asking
                .post(&[("grant_type", "refresh_token"), ("refresh_token", refresh)])
                .await?
        }
        None => asking.get(None).await?,
        Some(Login::Password { user, password }) => {
            let answer = asking.get(Some((user, password))).await?;
            // Every token server has GET (token.md), but for those that speak OAuth2 alone.
            if matches!(answer.status().as_u16(), 404 | 405 | 501) {
                let grant = [
                    ("grant_type", "password"),
                    ("username", user),
                    ("password", password),
                ];
                asking.post(&grant).await?
            } else {
                answer
            }
        }
    };
    let asked = answer.asked.clone();
    let answer = answer.expect(&[StatusCode::OK]).await.map_err(|error| {
        let hint = "the token server does not accept the credentials: log in again";
        if login.is_some() {
            error.with_hint(hint)
        } else {
            error
        }
    })?;
    let bad = |why: String| {
        Error::new(
            ErrorKind::Unavailable,
            format!("{asked}: unusable token answer: {why}"),
        )
    };
    let body = bounded(answer.response.into_body(), MAX_ANSWER, answer.stall).await;
    let body = body.map_err(|why| bad(why.to_string()))?;
    // serde_json's message would quote the text, and the text is secret.
    let body: Body =
        serde_json::from_slice(&body).map_err(|_| bad("not the JSON it should be".to_owned()))?;
    let token = [body.token, body.access_token]
        .into_iter()
        .flatten()
        .find(|token| !token.is_empty());
    let token = token.ok_or_else(|| bad("it holds no token".to_owned()))?;
    let seconds = body
        .expires_in
        .unwrap_or(DEFAULT_LIFETIME)
        .clamp(DEFAULT_LIFETIME, MAX_LIFETIME);
    Ok(Token {
        token,
        lifetime: Duration::from_secs(seconds),
    })
}

/// The realm, if a token (and perhaps a password) may travel there: over TLS, or where the registry itself is trusted
/// in clear text. A registry on the network must not send us to a server on this machine.
async fn trusted_realm(core: &Core, host: &Arc<Host>, realm: &str) -> Result<Uri, Error> {
    let base = host.base(core).await?;
    let realm = place::parse(realm)?;
    let local = |uri: &Uri| place::is_loopback(place::host(uri)) || place::is_local_only(place::host(uri));
    let refused = if local(&realm) && !local(base) {
        Some("on this machine")
    } else if place::is_https(&realm)
        || local(&realm)
        || core.is_insecure(&realm)
        || place::same_origin(&realm, base)
        || host.is_insecure_at(&realm)
    {
        None
    } else {
        Some("in clear text")
    };
    match refused {
        None => Ok(realm),
        Some(why) => {
            let message = format!(
                "{} names a token server {why}: {}",
                place::host_and_port(base),
                place::shown(&realm)
            );
            Err(Error::new(ErrorKind::PermissionDenied, message))
        }
    }
}

/// A request for one token.
struct Asking<'a> {
    core: &'a Core,
    host: &'a Arc<Host>,
    realm: &'a Uri,
    service: Option<&'a str>,
    scopes: &'a [&'a str],
}

impl Asking<'_> {
    fn call(&self, method: Method, url: Uri) -> Call {
        let mut call = Call::new(method, url, &self.core.settings);
        call.redirects = Redirects::Keep;
        call.trust = Some(Arc::clone(self.host));
        call
    }

    /// The way of token.md.
    async fn get(&self, login: Option<(&str, &str)>) -> Result<Answer, Error> {
        let mut fields: Vec<(&str, &str)> = self
            .service
            .map(|service| ("service", service))
            .into_iter()
            .collect();
        fields.extend(self.scopes.iter().map(|scope| ("scope", *scope)));
        fields.extend(login.map(|(user, _)| ("account", user)));
        let url = if fields.is_empty() {
            self.realm.clone()
        } else {
            place::with_query(self.realm, &form(&fields))?
        };
        let mut call = self.call(Method::GET, url);
        if let Some((user, password)) = login {
            call.headers.push((AUTHORIZATION, basic(user, password)?));
        }
        Box::pin(self.core.send(call)).await
    }

    /// The way of oauth.md.
    async fn post(&self, grant: &[(&str, &str)]) -> Result<Answer, Error> {
        let joined = self.scopes.join(" ");
        let mut fields: Vec<(&str, &str)> = self
            .service
            .map(|service| ("service", service))
            .into_iter()
            .collect();
        fields.extend(grant);
        fields.extend([("client_id", CLIENT_ID), ("scope", &joined)]);
        let mut call = self.call(Method::POST, self.realm.clone());
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        call.headers.push((CONTENT_TYPE, kind));
        call.body = Outgoing::Bytes(form(&fields).into());
        Box::pin(self.core.send(call)).await
    }
}

/// `application/x-www-form-urlencoded`.
fn form(fields: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in fields {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        escape(value, &mut out);
    }
    out
}

/// A text as a value of a query.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::new();
    escape(text, &mut out);
    out
}

fn escape(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/,".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_fields_are_escaped() {
        assert_eq!(
            form(&[("scope", "repository:a/b:pull,push"), ("x", "a&b=c d\u{e9}+%")]),
            "scope=repository:a/b:pull,push&x=a%26b%3Dc%20d%C3%A9%2B%25"
        );
    }
}
