//! Which requests go through a proxy, and how a tunnel through one is opened.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_types::ErrorKind;
use hyper::Uri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{Error, Proxies, place};

/// Longest answer head of a proxy to `CONNECT`.
const MAX_HEAD: usize = 8 << 10;

/// One HTTP proxy.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Value of `Proxy-Authorization`.
    pub(crate) authorization: Option<String>,
}

/// The password stays out of logs.
impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The proxies of the settings, parsed.
#[derive(Debug)]
pub(crate) struct Route {
    http: Option<Proxy>,
    https: Option<Proxy>,
    direct: Vec<Direct>,
}

/// An entry of `no_proxy`.
#[derive(Debug)]
enum Direct {
    All,
    Network(IpAddr, u8),
    Name(String, Option<u16>),
}

impl Route {
    pub(crate) fn parse(proxies: &Proxies) -> Result<Self, Error> {
        let parse = |text: &Option<String>| {
            text.as_deref()
                .map(str::trim)
                .filter(|text| !text.is_empty())
                .map(Proxy::parse)
                .transpose()
        };
        let direct = proxies
            .no_proxy
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty());
        Ok(Self {
            http: parse(&proxies.http)?,
            https: parse(&proxies.https)?,
            direct: direct.map(Direct::parse).collect(),
        })
    }

    /// The proxy for this URL, if it is not reached directly.
    pub(crate) fn choose(&self, uri: &Uri) -> Option<&Proxy> {
        let proxy = if place::is_https(uri) {
            self.https.as_ref()
        } else {
            self.http.as_ref()
        }?;
        let (host, port) = (place::host(uri), place::port(uri));
        let direct = place::is_loopback(host) || self.direct.iter().any(|entry| entry.covers(host, port));
        (!direct).then_some(proxy)
    }
}

impl Proxy {
    fn parse(text: &str) -> Result<Self, Error> {
        let bad = || {
            Error::new(
                ErrorKind::InvalidArgument,
                "a proxy has the form http://[user:password@]host:port",
            )
        };
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some(_) => return Err(bad().with_hint("only http proxies are spoken to")),
            None => text,
        };
        let rest = rest.trim_end_matches('/');
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        let uri: Uri = format!("http://{rest}").parse().map_err(|_| bad())?;
        let host = place::host(&uri).to_owned();
        if host.is_empty() || uri.path() != "/" {
            return Err(bad());
        }
        let authorization = user.map(|user| format!("Basic {}", STANDARD.encode(unescape(user))));
        Ok(Self {
            host,
            port: place::port(&uri),
            authorization,
        })
    }

    /// Asks the proxy for a tunnel to `host:port` on an open connection.
    pub(crate) async fn tunnel(&self, stream: &mut TcpStream, host: &str, port: u16) -> Result<(), Error> {
        let target = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
        }
        request.push_str("\r\n");
        let broken = |error| {
            let message = format!("ask proxy {self:?} for a tunnel to {target}");
            Error::because(ErrorKind::Unavailable, message, error)
        };
        stream.write_all(request.as_bytes()).await.map_err(broken)?;
        let mut head = Vec::with_capacity(256);
        // Byte by byte: what follows the head is not for us, and the head is short.
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= MAX_HEAD {
                let message = format!("proxy {self:?} answers CONNECT with an endless head");
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            head.push(stream.read_u8().await.map_err(broken)?);
        }
        let line: String = String::from_utf8_lossy(&head)
            .lines()
            .next()
            .unwrap_or("")
            .chars()
            .take(100)
            .collect();
        match line.split(' ').nth(1) {
            Some(status) if line.starts_with("HTTP/1.") && status.len() == 3 && status.starts_with('2') => {
                Ok(())
            }
            Some("407") => {
                let message = format!("proxy {self:?} wants a user and password");
                Err(Error::new(ErrorKind::Unauthenticated, message))
            }
            _ => {
                let message = format!("proxy {self:?} refuses a tunnel to {target}: {line}");
                Err(Error::new(ErrorKind::FailedPrecondition, message))
            }
        }
    }
}

impl Direct {
    fn parse(entry: &str) -> Self {
        if entry == "*" {
            return Self::All;
        }
        if let Some((address, bits)) = entry.split_once('/')
            && let (Ok(address), Ok(bits)) = (address.parse::<IpAddr>(), bits.parse::<u8>())
        {
            return Self::Network(address, bits);
        }
        if let Ok(address) = entry
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
        {
            return Self::Network(address, 128);
        }
        let (name, port) = match entry.rsplit_once(':') {
            Some((name, port)) if port.parse::<u16>().is_ok() => (name, port.parse().ok()),
            _ => (entry, None),
        };
        let name = name.trim_start_matches('*').trim_start_matches('.');
        Self::Name(name.to_ascii_lowercase(), port)
    }

    fn covers(&self, host: &str, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Network(network, bits) => host
                .parse::<IpAddr>()
                .is_ok_and(|address| in_network(address, *network, *bits)),
            Self::Name(name, wanted) => {
                let host = host.to_ascii_lowercase();
                let named = host == *name
                    || host
                        .strip_suffix(name.as_str())
                        .is_some_and(|front| front.ends_with('.'));
                named && !name.is_empty() && wanted.is_none_or(|wanted| wanted == port)
            }
        }
    }
}

/// Whether a host is a literal address of a block in CIDR notation.
pub(crate) fn in_block(block: &str, host: &str) -> bool {
    let Some((network, bits)) = block.split_once('/') else {
        return false;
    };
    match (network.parse(), bits.parse(), host.parse()) {
        (Ok(network), Ok(bits), Ok(address)) => in_network(address, network, bits),
        _ => false,
    }
}

fn in_network(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let same = |a: &[u8], b: &[u8]| {
        let bits = usize::from(bits).min(a.len() * 8);
        let (whole, rest) = (bits / 8, bits % 8);
        a[..whole] == b[..whole] && (rest == 0 || (a[whole] ^ b[whole]) >> (8 - rest) == 0)
    };
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(&a.octets(), &b.octets()),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(&a.octets(), &b.octets()),
        _ => false,
    }
}

/// Undoes `%41` in the user part; anything malformed stays as it is.
fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        out.push(escaped.unwrap_or(bytes[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(no_proxy: &str) -> Route {
        Route::parse(&Proxies {
            http: Some("http://plain:3128".to_owned()),
            https: Some("http://us%40er:p@secure:8080/".to_owned()),
            no_proxy: no_proxy.to_owned(),
        })
        .unwrap()
    }

    #[test]
    fn hosts_of_no_proxy_and_loopback_are_reached_directly() {
        let route = route("internal.example, .corp, 10.0.0.0/8, odd.example:8443, 2001:db8::/32");
        let direct = |url: &str| route.choose(&url.parse().unwrap()).is_none();
        for url in [
            "http://internal.example/",
            "https://a.internal.example/",
            "https://x.corp/",
            "http://10.200.0.1:5000/",
            "https://odd.example:8443/",
            "http://localhost:5000/",
            "http://[::1]/",
            "http://[2001:db8::5]/",
        ] {
            assert!(direct(url), "{url}");
        }
        for url in [
            "http://external.example/",
            "https://odd.example/",
            "http://11.0.0.1/",
            "https://notcorp/",
        ] {
            assert!(!direct(url), "{url}");
        }
    }

    #[test]
    fn each_scheme_has_its_proxy_and_the_password_is_not_shown() {
        let route = route("");
        let https = route.choose(&"https://h/".parse().unwrap()).unwrap();
        assert_eq!((https.host.as_str(), https.port), ("secure", 8080));
        assert_eq!(https.authorization.as_deref(), Some("Basic dXNAZXI6cA=="));
        assert_eq!(format!("{https:?}"), "secure:8080");
        assert!(Proxy::parse("socks5://h:1").is_err());
        assert!(Proxy::parse("http://").is_err());
    }
}
