//! Where a request goes: hosts, loopback, URLs relative to others, URLs fit to be shown.

use hyper::Uri;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};

use dhow_types::ErrorKind;

use crate::Error;

/// Longest URL that is taken from a person or a server, in bytes.
const MAX_URL: usize = 8 << 10;

/// Parses an absolute `http` or `https` URL without user information.
pub(crate) fn parse(text: &str) -> Result<Uri, Error> {
    let bad = |why: &str| {
        let shown: String = redact(text).chars().take(200).collect();
        Error::new(
            ErrorKind::InvalidArgument,
            format!("invalid URL {shown:?}: {why}"),
        )
    };
    if text.len() > MAX_URL {
        return Err(bad("it is too long"));
    }
    let uri: Uri = text.parse().map_err(|_| bad("it is malformed"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(bad("only http and https are spoken"));
    }
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => {
            Err(bad("it must not hold a user or password"))
        }
        Some(authority) if !authority.host().is_empty() => Ok(uri),
        _ => Err(bad("it names no host")),
    }
}

/// Resolves what a `Location` or `Link` says against the URL that was asked (RFC 3986 section 5, without `..`).
pub(crate) fn join(base: &Uri, target: &str) -> Result<Uri, Error> {
    if let Some(scheme) = scheme_of(target) {
        let spoken = scheme.to_ascii_lowercase();
        if matches!(spoken.as_str(), "http" | "https") {
            return parse(&format!("{spoken}{}", &target[scheme.len()..]));
        }
        let shown: String = redact(target).chars().take(200).collect();
        let message = format!("refused to go to {shown:?}: only http and https are spoken");
        return Err(Error::new(ErrorKind::PermissionDenied, message));
    }
    let scheme = base.scheme_str().unwrap_or("https");
    let host = base.authority().map_or("", Authority::as_str);
    if let Some(rest) = target.strip_prefix("//") {
        return parse(&format!("{scheme}://{rest}"));
    }
    if target.starts_with('/') {
        return parse(&format!("{scheme}://{host}{target}"));
    }
    let directory = match base.path().rfind('/') {
        Some(_) if target.starts_with('?') => base.path(),
        Some(slash) => &base.path()[..=slash],
        None => "/",
    };
    parse(&format!("{scheme}://{host}{directory}{target}"))
}

/// What stands before the first colon, if that can be a scheme (RFC 3986 section 3.1).
fn scheme_of(target: &str) -> Option<&str> {
    let (scheme, _) = target.split_once(':')?;
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let fits = scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.bytes().all(letters);
    fits.then_some(scheme)
}

/// The URL with `name=value` added to its query; both must need no escapes.
pub(crate) fn with_query(uri: &Uri, addition: &str) -> Result<Uri, Error> {
    let separator = if uri.query().is_some() { '&' } else { '?' };
    parse(&format!("{uri}{separator}{addition}"))
}

/// The URL as it may be shown: what follows `?` may be a signature that grants access.
pub(crate) fn shown(uri: &Uri) -> String {
    let path = uri.path_and_query().map_or("", PathAndQuery::path);
    let tail = if uri.query().is_some() { "?..." } else { "" };
    let scheme = uri.scheme_str().unwrap_or("https");
    format!("{scheme}://{}{path}{tail}", host_and_port(uri))
}

/// Cuts user information and query off a text that may not even be a URL.
fn redact(text: &str) -> String {
    let text = text.split('?').next().unwrap_or("");
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://{}", &text[..scheme], &text[at + 1..]),
        _ => text.to_owned(),
    }
}

/// `host:port` of a URL, the port only when it is written.
pub(crate) fn host_and_port(uri: &Uri) -> &str {
    uri.authority().map_or("", |authority| {
        let text = authority.as_str();
        text.rsplit_once('@').map_or(text, |(_, rest)| rest)
    })
}

/// The host of a URL without brackets.
pub(crate) fn host(uri: &Uri) -> &str {
    uri.host()
        .unwrap_or("")
        .trim_start_matches('[')
        .trim_end_matches(']')
}

/// The port of a URL, written or by its scheme.
pub(crate) fn port(uri: &Uri) -> u16 {
    let default = if is_https(uri) { 443 } else { 80 };
    uri.port_u16().unwrap_or(default)
}

/// Whether the URL is `https`.
pub(crate) fn is_https(uri: &Uri) -> bool {
    uri.scheme() == Some(&Scheme::HTTPS)
}

/// Whether two URLs have the same scheme, host and port: where credentials for one may go to the other.
pub(crate) fn same_origin(a: &Uri, b: &Uri) -> bool {
    is_https(a) == is_https(b) && host(a).eq_ignore_ascii_case(host(b)) && port(a) == port(b)
}

/// Whether the host is this machine by name or literal address; other names are not looked up.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    match host.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(address)) => address.is_loopback(),
        Ok(std::net::IpAddr::V6(address)) => {
            address.is_loopback() || address.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback())
        }
        Err(_) => false,
    }
}

/// Whether the host is a literal address that never is a registry for others: link-local (cloud metadata lives
/// there) or unspecified.
pub(crate) fn is_local_only(host: &str) -> bool {
    match host.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(address)) => address.is_link_local() || address.is_unspecified(),
        Ok(std::net::IpAddr::V6(address)) => {
            address.is_unspecified()
                || address.is_unicast_link_local()
                || address
                    .to_ipv4_mapped()
                    .is_some_and(|v4| v4.is_link_local() || v4.is_unspecified())
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved_against_what_was_asked() {
        let base = parse("https://r.example:5000/v2/a/blobs/uploads/?x=1").unwrap();
        for (target, want) in [
            (
                "/v2/a/blobs/uploads/1?state=z",
                "https://r.example:5000/v2/a/blobs/uploads/1?state=z",
            ),
            ("http://other/x", "http://other/x"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("abc", "https://r.example:5000/v2/a/blobs/uploads/abc"),
            ("?n=2", "https://r.example:5000/v2/a/blobs/uploads/?n=2"),
        ] {
            assert_eq!(join(&base, target).unwrap().to_string(), want);
        }
        assert_eq!(
            join(&base, "HTTPS://other/x").unwrap().to_string(),
            "https://other/x"
        );
        for other in [
            "file:/etc/passwd",
            "file:///etc/passwd",
            "ftp://h/x",
            "data:,x",
            "javascript:x",
        ] {
            let error = join(&base, other).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{other}");
            assert!(error.to_string().contains(other), "{error}");
        }
        for bad in ["http://user:pw@host/x", "https://", "https:///x", "/a b"] {
            assert!(join(&base, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_in_urls_are_not_shown() {
        let uri = parse("https://h/p?X-Signature=secret").unwrap();
        assert_eq!(shown(&uri), "https://h/p?...");
        let error = parse("https://user:hunter2@h/p?token=t").unwrap_err().to_string();
        assert!(!error.contains("hunter2") && !error.contains("token"), "{error}");
        let error = parse("ftp://user:hunter2@h/p").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn loopback_is_known_by_name_and_address_only() {
        for yes in [
            "localhost",
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "[::1]",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in [
            "localhost.example",
            "127.0.0.1.example",
            "10.0.0.1",
            "128.0.0.1",
            "",
        ] {
            assert!(!is_loopback(no), "{no}");
        }
        assert!(is_local_only("169.254.169.254") && !is_local_only("10.0.0.1"));
    }
}
