//! Connections: names to addresses, addresses raced, proxies, TLS.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hyper::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use dhow_types::ErrorKind;

use crate::proxy::Route;
use crate::registries::{self, Registries, Wire};
use crate::{Error, Settings, place, tls};

/// How long one address has before the next is tried beside it (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Why there is no connection. The pool wraps it; shared, so that it can be taken out again.
#[derive(Debug)]
pub(crate) struct ConnectFailure(pub(crate) Arc<Error>);

impl std::fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for ConnectFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// Opens connections for the pool.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Wiring>);

struct Wiring {
    settings: Arc<Settings>,
    route: Arc<Route>,
    registries: Arc<Registries>,
    wire: Wire,
    resolver: OnceLock<TokioResolver>,
    verified: OnceLock<Arc<ClientConfig>>,
    unverified: OnceLock<Arc<ClientConfig>>,
}

impl Connector {
    pub(crate) fn new(
        settings: Arc<Settings>,
        route: Arc<Route>,
        registries: Arc<Registries>,
        wire: Wire,
    ) -> Self {
        Self(Arc::new(Wiring {
            settings,
            route,
            registries,
            wire,
            resolver: OnceLock::new(),
            verified: OnceLock::new(),
            unverified: OnceLock::new(),
        }))
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = ConnectFailure;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Stream>, ConnectFailure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<(), ConnectFailure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let wiring = Arc::clone(&self.0);
        Box::pin(async move {
            let limit = wiring.settings.timeouts.connect;
            let outcome = match tokio::time::timeout(limit, wiring.open(&uri)).await {
                Ok(stream) => stream,
                Err(_) => {
                    let message = format!(
                        "connect to {}: no connection within {} seconds",
                        place::host_and_port(&uri),
                        limit.as_secs_f32()
                    );
                    Err(Error::new(ErrorKind::Unavailable, message))
                }
            };
            outcome
                .map(TokioIo::new)
                .map_err(|error| ConnectFailure(Arc::new(error)))
        })
    }
}

impl Wiring {
    async fn open(&self, uri: &Uri) -> Result<Stream, Error> {
        let (host, port) = (place::host(uri), place::port(uri));
        let proxy = self.route.choose(uri);
        let mut tcp = match proxy {
            Some(proxy) => self.dial(&proxy.host, proxy.port).await?,
            None => self.dial(host, port).await?,
        };
        if !place::is_https(uri) {
            return Ok(Stream {
                io: Io::Plain(tcp),
                proxied: proxy.is_some(),
            });
        }
        if let Some(proxy) = proxy {
            proxy.tunnel(&mut tcp, host, port).await?;
        }
        let doing = || format!("connect to {} with TLS", place::host_and_port(uri));
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| Error::because(ErrorKind::InvalidArgument, doing(), error))?;
        let connector = tokio_rustls::TlsConnector::from(self.tls_for(uri)?);
        let stream = connector
            .connect(name, tcp)
            .await
            .map_err(|error| tls_failure(doing(), error))?;
        Ok(Stream {
            io: Io::Tls(Box::new(stream)),
            proxied: false,
        })
    }

    fn tls_for(&self, uri: &Uri) -> Result<Arc<ClientConfig>, Error> {
        let anything = self.trusts_anything(uri);
        let cell = if anything {
            &self.unverified
        } else {
            &self.verified
        };
        if let Some(config) = cell.get() {
            return Ok(Arc::clone(config));
        }
        let config = if anything {
            tls::unverified(&self.wire.client)?
        } else {
            tls::verified(
                self.settings.ca_files.iter().chain(&self.wire.ca),
                &self.wire.client,
            )?
        };
        Ok(Arc::clone(cell.get_or_init(|| config)))
    }

    /// Whether any certificate will do for this URL: where the person said so, and on this machine, unless they
    /// named an authority for it.
    fn trusts_anything(&self, uri: &Uri) -> bool {
        let here = place::is_loopback(place::host(uri)) && self.wire.ca.is_empty();
        here || self.wire.any_certificate || is_insecure(&self.settings, &self.registries, uri)
    }

    /// Connects to the first address that answers; a slow one does not hold up the next (RFC 8305).
    async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, Error> {
        let addresses = self.resolve(host).await?;
        let mut waiting = interleave(&addresses)
            .into_iter()
            .map(|address| SocketAddr::new(address, port));
        let mut racing = JoinSet::new();
        let mut last: Option<io::Error> = None;
        loop {
            if let Some(address) = waiting.next() {
                racing.spawn(TcpStream::connect(address));
            } else if racing.is_empty() {
                let error = last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
                return Err(
                    Error::wrap(error, format!("connect to {host}:{port}")).with_kind(ErrorKind::Unavailable)
                );
            }
            let next = tokio::time::sleep(if waiting.len() == 0 {
                Duration::MAX
            } else {
                HEAD_START
            });
            tokio::select! {
                Some(outcome) = racing.join_next() => match outcome {
                    Ok(Ok(stream)) => return Ok(prepared(stream)),
                    Ok(Err(error)) => last = Some(error),
                    Err(_) => {}
                },
                () = next => {}
            }
        }
    }

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, Error> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        // Never asked of a server: RFC 6761 section 6.3.
        if host.eq_ignore_ascii_case("localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let answer = self
            .resolver()?
            .lookup_ip(host)
            .await
            .map_err(|error| lookup_failure(host, error))?;
        let addresses: Vec<IpAddr> = answer.iter().take(MAX_ADDRESSES).collect();
        if addresses.is_empty() {
            return Err(no_such_host(host));
        }
        Ok(addresses)
    }

    fn resolver(&self) -> Result<&TokioResolver, Error> {
        if let Some(resolver) = self.resolver.get() {
            return Ok(resolver);
        }
        // Without /etc/resolv.conf there is still /etc/hosts.
        let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|_| {
            let nowhere = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
            TokioResolver::builder_with_config(nowhere, TokioRuntimeProvider::default())
        });
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        let resolver = builder
            .build()
            .map_err(|error| Error::because(ErrorKind::Internal, "set up name resolution", error))?;
        Ok(self.resolver.get_or_init(|| resolver))
    }
}

/// Whether the person named the host of this URL, or host and port, as insecure.
pub(crate) fn is_insecure(settings: &Settings, registries: &Registries, uri: &Uri) -> bool {
    let (host, port) = (place::host(uri), place::port(uri));
    // A star is all of them: what a person asks for at one call.
    let named = |entry: &String| entry == "*" || registries::covers(entry, host, port);
    settings.insecure.iter().any(named) || registries.is_insecure(host, port)
}

/// Alternates the families, beginning with the first address's.
fn interleave(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first_is_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (mut ours, mut others): (Vec<IpAddr>, Vec<IpAddr>) = addresses
        .iter()
        .rev()
        .copied()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut out = Vec::with_capacity(addresses.len());
    while !(ours.is_empty() && others.is_empty()) {
        out.extend(ours.pop());
        out.extend(others.pop());
    }
    out
}

fn prepared(stream: TcpStream) -> TcpStream {
    // Requests are small and wait for an answer; a kernel that refuses the option only makes them slower.
    stream.set_nodelay(true).unwrap_or_default();
    stream
}

fn lookup_failure(host: &str, error: NetError) -> Error {
    if error.is_no_records_found() {
        return no_such_host(host);
    }
    Error::because(ErrorKind::Unavailable, format!("look up {host}"), error)
}

fn no_such_host(host: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("look up {host}: no such host"))
}

fn tls_failure(doing: String, error: io::Error) -> Error {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(_)) => Error::because(
            ErrorKind::FailedPrecondition,
            doing,
            error,
        )
        .with_hint(
            "add the registry's certificate authority to the trusted ones, or name the registry as insecure",
        ),
        Some(rustls::Error::InvalidMessage(_)) => Error::because(ErrorKind::FailedPrecondition, doing, error)
            .with_hint(
                "if the registry speaks plain HTTP, name it as insecure: DHOW_INSECURE_REGISTRIES=host:port",
            ),
        Some(_) => Error::because(ErrorKind::FailedPrecondition, doing, error),
        None => Error::because(ErrorKind::Unavailable, doing, error),
    }
}

/// A connection, plain or TLS.
#[derive(Debug)]
pub(crate) struct Stream {
    io: Io,
    proxied: bool,
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match &self.io {
            Io::Plain(_) => Connected::new().proxy(self.proxied),
            Io::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                Connected::new().negotiated_h2()
            }
            Io::Tls(_) => Connected::new(),
        }
    }
}

macro_rules! delegate {
    ($self:ident, $method:ident($($argument:expr),*)) => {
        match &mut $self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).$method($($argument),*),
            Io::Tls(stream) => Pin::new(stream.as_mut()).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Poller<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Poller<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Poller<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate_beginning_with_the_first() {
        let parse = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect::<Vec<IpAddr>>();
        let got = interleave(&parse(&["::1", "::2", "::3", "1.1.1.1", "2.2.2.2"]));
        assert_eq!(got, parse(&["::1", "1.1.1.1", "::2", "2.2.2.2", "::3"]));
        assert!(interleave(&[]).is_empty());
    }

    #[test]
    fn insecure_entries_match_host_and_port_exactly() {
        let settings = Settings {
            insecure: vec![
                "reg.example:5000".to_owned(),
                "10.0.0.1".to_owned(),
                "10.1.0.0/16".to_owned(),
            ],
            ..Settings::default()
        };
        let none = Registries::default();
        let insecure = |url: &str| is_insecure(&settings, &none, &url.parse().unwrap());
        assert!(insecure("http://reg.example:5000/") && insecure("https://10.0.0.1/"));
        assert!(insecure("http://10.0.0.1:81/"));
        assert!(insecure("http://10.1.2.3:5000/") && !insecure("http://10.2.0.1/"));
        assert!(!insecure("https://reg.example/") && !insecure("http://evil-reg.example:5000/"));
    }
}
