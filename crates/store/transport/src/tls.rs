//! Which certificates are trusted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use dhow_types::ErrorKind;

use crate::{Context as _, Error};

/// Where distributions keep the bundle of authorities; the first that is there is taken.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Larger bundles are not read.
const MAX_BUNDLE: u64 = 16 << 20;

/// Whom a connection that is no registry's trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The system's authorities, or Mozilla's where it has none.
    System,
    /// Those in this file alone.
    Only(PathBuf),
    /// Anybody: the person said so.
    Anyone,
}

/// TLS for a service that is no registry, with the certificate and key to show, if any. No protocol is negotiated.
///
/// # Errors
/// Files that cannot be read, or hold nothing of the kind.
pub fn client_tls(trust: &Trust, client: Option<(PathBuf, PathBuf)>) -> Result<ClientConfig, Error> {
    let builder = match trust {
        Trust::Anyone => unverified_builder()?,
        Trust::System => builder()?.with_root_certificates(system_roots()),
        Trust::Only(file) => {
            let mut roots = RootCertStore::empty();
            trust_file(&mut roots, file)?;
            builder()?.with_root_certificates(roots)
        }
    };
    shown(builder, client.as_slice())
}

/// A configuration that trusts the system's authorities (or Mozilla's, where the system has none) and `extra`, and
/// shows the first of the `client` certificates to who asks for one.
pub(crate) fn verified<'a>(
    extra: impl Iterator<Item = &'a PathBuf>,
    client: &[(PathBuf, PathBuf)],
) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = system_roots();
    for file in extra {
        trust_file(&mut roots, file)?;
    }
    identified(builder()?.with_root_certificates(roots), client)
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for bundle in BUNDLES {
        if let Ok(found) = certificates(Path::new(bundle)) {
            // A bundle may hold a certificate that rustls does not take; the others still count.
            roots.add_parsable_certificates(found);
        }
        if !roots.is_empty() {
            break;
        }
    }
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

fn trust_file(roots: &mut RootCertStore, file: &Path) -> Result<(), Error> {
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| {
            let message = format!("trust the certificate in {}", file.display());
            Error::because(ErrorKind::InvalidArgument, message, error)
        })?;
    }
    Ok(())
}

/// A configuration that takes any certificate: for loopback and for registries that the person named as insecure.
pub(crate) fn unverified(client: &[(PathBuf, PathBuf)]) -> Result<Arc<ClientConfig>, Error> {
    identified(unverified_builder()?, client)
}

type Verified = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn unverified_builder() -> Result<Verified, Error> {
    let verifier = Arc::new(AnyCertificate(aws_lc_rs::default_provider()));
    Ok(builder()?.dangerous().with_custom_certificate_verifier(verifier))
}

/// With the protocols of registries.
fn identified(builder: Verified, client: &[(PathBuf, PathBuf)]) -> Result<Arc<ClientConfig>, Error> {
    shown(builder, client).map(with_protocols)
}

/// Says who we are, where there is a certificate for that.
fn shown(builder: Verified, client: &[(PathBuf, PathBuf)]) -> Result<ClientConfig, Error> {
    let Some((certificate, key)) = client.first() else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(certificate)?;
    let doing = || format!("read the client key from {}", key.display());
    let pem = crate::files::read(key, MAX_BUNDLE).context(doing)?;
    let secret = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| Error::because(ErrorKind::InvalidArgument, doing(), error))?;
    builder.with_client_auth_cert(chain, secret).map_err(|error| {
        let message = format!("use the client certificate {}", certificate.display());
        Error::because(ErrorKind::InvalidArgument, message, error)
    })
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::because(ErrorKind::Internal, "set up TLS", error))
}

fn with_protocols(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let doing = || format!("read certificates from {}", file.display());
    let pem = crate::files::read(file, MAX_BUNDLE).context(doing)?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Error::because(ErrorKind::InvalidArgument, doing(), error))
}

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
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
