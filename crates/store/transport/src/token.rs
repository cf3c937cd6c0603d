//! Fetches tokens from a registry's token server (distribution `spec/auth/token.md` and `oauth.md`).

use std::time::Duration;

use dhow_types::ErrorKind;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode, Uri};
use serde::Deserialize;

use crate::challenge::Bearer;
use crate::connect::is_insecure;
use crate::credentials::Login;
use crate::exchange::{Answer, Call, Core, Redirects};
use crate::failure::bounded;
use crate::host::basic;
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
    base: &Uri,
    bearer: &Bearer,
    scopes: &[&str],
    login: Option<&Login>,
) -> Result<Token, Error> {
    let realm = trusted_realm(core, base, &bearer.realm)?;
    let mut fields: Vec<(&str, &str)> = Vec::new();
    if let Some(service) = &bearer.service {
        fields.push(("service", service));
    }
    let answer = match login {
        Some(Login::Identity(refresh)) => {
            let joined = scopes.join(" ");
            fields.extend([
                ("grant_type", "refresh_token"),
                ("refresh_token", refresh),
                ("client_id", CLIENT_ID),
                ("scope", &joined),
            ]);
            post(core, &realm, &fields).await?
        }
        other => {
            fields.extend(scopes.iter().map(|scope| ("scope", *scope)));
            let password = match other {
                Some(Login::Password { user, password }) => Some((user, password)),
                _ => None,
            };
            if let Some((user, _)) = password {
                fields.push(("account", user));
            }
            get(
                core,
                &realm,
                &fields,
                password.map(|(u, p)| basic(u, p)).transpose()?,
            )
            .await?
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
fn trusted_realm(core: &Core, base: &Uri, realm: &str) -> Result<Uri, Error> {
    let realm = place::parse(realm)?;
    let local = |uri: &Uri| place::is_loopback(place::host(uri)) || place::is_local_only(place::host(uri));
    let refused = if local(&realm) && !local(base) {
        Some("on this machine")
    } else if place::is_https(&realm)
        || local(&realm)
        || is_insecure(&core.settings, &realm)
        || place::same_origin(&realm, base)
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

async fn get(
    core: &Core,
    realm: &Uri,
    fields: &[(&str, &str)],
    authorization: Option<HeaderValue>,
) -> Result<Answer, Error> {
    let url = if fields.is_empty() {
        realm.clone()
    } else {
        place::with_query(realm, &form(fields))?
    };
    let mut call = Call::new(Method::GET, url, &core.settings);
    call.redirects = Redirects::Keep;
    call.headers
        .extend(authorization.map(|value| (AUTHORIZATION, value)));
    Box::pin(core.send(call)).await
}

async fn post(core: &Core, realm: &Uri, fields: &[(&str, &str)]) -> Result<Answer, Error> {
    let mut call = Call::new(Method::POST, realm.clone(), &core.settings);
    call.redirects = Redirects::Keep;
    call.headers.push((
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    ));
    call.body = Outgoing::Bytes(form(fields).into());
    Box::pin(core.send(call)).await
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
