//! Addresses of services, and connections to them.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dhow_types::ErrorKind;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::Error;
use crate::options::bad;

/// How long a service may take to take a connection or a line.
const PATIENCE: Duration = Duration::from_secs(10);
/// Larger files of certificates are not read.
const MAX_PEM: u64 = 4 << 20;

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
    let invalid = |what: &str, error: rustls::Error| Error::because(ErrorKind::InvalidArgument, what, error);
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::because(ErrorKind::Internal, "set up TLS", error))?;
    let builder = if tls.skip_verify {
        let verifier = Arc::new(AnyCertificate(aws_lc_rs::default_provider()));
        builder.dangerous().with_custom_certificate_verifier(verifier)
    } else {
        let mut roots = RootCertStore::empty();
        let bundle = Path::new("/etc/ssl/certs/ca-certificates.crt");
        for certificate in certificates(tls.authority.as_deref().unwrap_or(bundle))? {
            roots
                .add(certificate)
                .map_err(|error| invalid("trust the authority of the log service", error))?;
        }
        builder.with_root_certificates(roots)
    };
    let config = match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => {
            let secret = PrivateKeyDer::from_pem_slice(&pem(key)?).map_err(|error| {
                let what = format!("read the key in {}", key.display());
                Error::because(ErrorKind::InvalidArgument, what, error)
            })?;
            builder
                .with_client_auth_cert(certificates(certificate)?, secret)
                .map_err(|error| invalid("use the certificate for the log service", error))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn pem(file: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|open| open.take(MAX_PEM).read_to_end(&mut bytes));
    read.map_err(|error| Error::wrap(error, format!("read {}", file.display())))?;
    Ok(bytes)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = pem(file)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    all.map_err(|error| {
        let what = format!("read the certificates in {}", file.display());
        Error::because(ErrorKind::InvalidArgument, what, error)
    })
}

/// For `syslog-tls-skip-verify`: the person said so.
#[derive(Debug)]
struct AnyCertificate(CryptoProvider);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
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
