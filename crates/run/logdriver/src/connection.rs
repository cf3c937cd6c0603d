//! Addresses of services, and connections to them.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dhow_transport::Trust;
use dhow_types::ErrorKind;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::Error;
use crate::options::bad;

/// How long a service may take to take a connection or a line.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// `tcp://host:port`.
    Tcp(String),
    /// `tcp+tls://host:port`.
    Tls(String),
    /// `udp://host:port`.
    Udp(String),
    /// `unix://path`.
    Unix(PathBuf),
    /// `unixgram://path`.
    Datagram(PathBuf),
}

impl Address {
    /// Reads `scheme://rest` where the scheme is among `schemes`; a host without a port gets `port`.
    pub(crate) fn parse(option: &str, text: &str, schemes: &[&str], port: u16) -> Result<Self, Error> {
        let wrong = || {
            let forms = schemes.iter().map(|scheme| match *scheme {
                "unix" | "unixgram" => format!("{scheme}://PATH"),
                scheme => format!("{scheme}://HOST:PORT"),
            });
            bad(
                option,
                text,
                &format!("write {}", forms.collect::<Vec<_>>().join(" or ")),
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        if !schemes.contains(&scheme) || rest.is_empty() {
            return Err(wrong());
        }
        if matches!(scheme, "unix" | "unixgram") {
            let path = PathBuf::from(rest);
            if !path.is_absolute() {
                return Err(wrong());
            }
            return Ok(if scheme == "unix" {
                Self::Unix(path)
            } else {
                Self::Datagram(path)
            });
        }
        let host = rest.strip_suffix('/').unwrap_or(rest);
        let with_port = match host.rsplit_once(':') {
            Some((name, digits)) if !digits.contains(']') => {
                let number = digits.parse::<u16>();
                if name.is_empty() || number.is_err() {
                    return Err(wrong());
                }
                host.to_owned()
            }
            _ => format!("{host}:{port}"),
        };
        if with_port.contains(['/', '?', '#', '@', ' ']) {
            return Err(wrong());
        }
        Ok(match scheme {
            "tcp" => Self::Tcp(with_port),
            "tcp+tls" => Self::Tls(with_port),
            _ => Self::Udp(with_port),
        })
    }
}

/// Who is trusted, and who we are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tls {
    pub(crate) authority: Option<PathBuf>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) skip_verify: bool,
}

/// A way to a service.
pub(crate) enum Connection {
    Stream(Box<dyn Write>),
    Udp(UdpSocket),
    Datagram(UnixDatagram),
}

impl Connection {
    /// Connects.
    pub(crate) fn open(address: &Address, tls: &Tls) -> Result<Self, Error> {
        let failed = |error: io::Error, to: String| {
            Error::because(
                ErrorKind::Unavailable,
                format!("connect to the log service {to}"),
                error,
            )
        };
        Ok(match address {
            Address::Tcp(host) => {
                let stream = tcp(host).map_err(|error| failed(error, format!("tcp://{host}")))?;
                Self::Stream(Box::new(stream))
            }
            Address::Tls(host) => {
                let stream = tcp(host).map_err(|error| failed(error, format!("tcp+tls://{host}")))?;
                let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
                Self::Stream(Box::new(secured(stream, name, tls)?))
            }
            Address::Udp(host) => {
                let opened = resolve(host).and_then(|all| {
                    let first = all.first().ok_or(io::ErrorKind::NotFound)?;
                    let own = if first.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                    let socket = UdpSocket::bind(own)?;
                    socket.connect(first)?;
                    Ok(socket)
                });
                Self::Udp(opened.map_err(|error| failed(error, format!("udp://{host}")))?)
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).and_then(|stream| {
                    stream.set_write_timeout(Some(PATIENCE))?;
                    Ok(stream)
                });
                Self::Stream(Box::new(
                    stream.map_err(|error| failed(error, path.display().to_string()))?,
                ))
            }
            Address::Datagram(path) => {
                let opened = UnixDatagram::unbound().and_then(|socket| {
                    socket.connect(path)?;
                    socket.set_write_timeout(Some(PATIENCE))?;
                    Ok(socket)
                });
                Self::Datagram(opened.map_err(|error| failed(error, path.display().to_string()))?)
            }
        })
    }

    /// Sends one message whole.
    pub(crate) fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Stream(stream) => stream.write_all(message).and_then(|()| stream.flush()),
            Self::Udp(socket) => socket.send(message).map(drop),
            Self::Datagram(socket) => socket.send(message).map(drop),
        }
    }
}

fn resolve(host: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(host.to_socket_addrs()?.collect())
}

fn tcp(host: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in resolve(host)? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn secured(
    stream: TcpStream,
    name: &str,
    tls: &Tls,
) -> Result<rustls::StreamOwned<rustls::ClientConnection, TcpStream>, Error> {
    let wrong = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::because(
            ErrorKind::Unavailable,
            format!("secure the connection to the log service {name}"),
            error,
        )
    };
    let name = name.trim_matches(['[', ']']).to_owned();
    let server = ServerName::try_from(name.clone()).map_err(|error| wrong(error.into()))?;
    let connection = rustls::ClientConnection::new(configuration(tls)?, server);
    let connection = connection.map_err(|error| wrong(error.into()))?;
    let mut stream = rustls::StreamOwned::new(connection, stream);
    while stream.conn.is_handshaking() {
        stream
            .conn
            .complete_io(&mut stream.sock)
            .map_err(|error| wrong(error.into()))?;
    }
    Ok(stream)
}

fn configuration(tls: &Tls) -> Result<Arc<ClientConfig>, Error> {
    let trust = match &tls.authority {
        _ if tls.skip_verify => Trust::Anyone,
        Some(file) => Trust::Only(file.clone()),
        None => Trust::System,
    };
    let client = tls.certificate.clone().zip(tls.key.clone());
    let config = dhow_transport::client_tls(&trust, client);
    config
        .map(Arc::new)
        .map_err(|error| Error::wrap(error, "set up TLS for the log service"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused() {
        let read =
            |text: &str| Address::parse("a", text, &["tcp", "tcp+tls", "udp", "unix", "unixgram"], 514);
        assert_eq!(read("udp://host").unwrap(), Address::Udp("host:514".to_owned()));
        assert_eq!(
            read("tcp://1.2.3.4:5").unwrap(),
            Address::Tcp("1.2.3.4:5".to_owned())
        );
        assert_eq!(read("tcp://[::1]").unwrap(), Address::Tcp("[::1]:514".to_owned()));
        assert_eq!(
            read("tcp+tls://[::1]:6").unwrap(),
            Address::Tls("[::1]:6".to_owned())
        );
        assert_eq!(read("unix:///dev/log").unwrap(), Address::Unix("/dev/log".into()));
        assert_eq!(
            read("unixgram:///dev/log").unwrap(),
            Address::Datagram("/dev/log".into())
        );
        for wrong in [
            "",
            "host:1",
            "http://host",
            "tcp://",
            "tcp://host:port",
            "tcp://:5",
            "unix://log",
            "tcp://a/b",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
