//! The Notary Project's signatures (notaryproject/specifications, `signature-envelope-jws.md` and `signature-envelope-cose.md`): a
//! JWS in JSON, or COSE, with the certificates of whoever signed.

mod cose;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use dhow_oci::{Descriptor, Labels};
use dhow_types::{Digest, ErrorKind};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::key::Scheme;
use crate::x509::{MAX_CHAIN, Purpose};
use crate::{Certificate, Error, PrivateKey};

/// What such a manifest is.
pub const ARTIFACT: &str = "application/vnd.cncf.notary.signature";
/// The envelopes, as layers.
pub const JWS: &str = "application/jose+json";
/// See [`JWS`].
pub const COSE: &str = "application/cose";
/// Names the certificates, as an annotation of the manifest.
pub const THUMBPRINTS: &str = "io.cncf.notary.x509chain.thumbprint#S256";
const PAYLOAD: &str = "application/vnd.cncf.notary.payload.v1+json";
const X509: &str = "notary.x509";
const SIGNING_SCHEME: &str = "io.cncf.notary.signingScheme";
const SIGNING_TIME: &str = "io.cncf.notary.signingTime";
const EXPIRY: &str = "io.cncf.notary.expiry";
const AGENT: &str = "io.cncf.notary.signingAgent";
const OURS: &str = concat!("dhow/", env!("CARGO_PKG_VERSION"));

/// In which envelope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Envelope {
    /// JSON Web Signature.
    #[default]
    Jws,
    /// CBOR Object Signing and Encryption (RFC 9052).
    Cose,
}

impl Envelope {
    /// What such a layer is.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Jws => JWS,
            Self::Cose => COSE,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Jws {
    payload: String,
    protected: String,
    header: Header,
    signature: String,
}

#[derive(Serialize, Deserialize)]
struct Header {
    x5c: Vec<String>,
    #[serde(
        rename = "io.cncf.notary.signingAgent",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    agent: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Protected {
    alg: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    crit: Vec<String>,
    cty: String,
    #[serde(rename = "io.cncf.notary.signingScheme")]
    scheme: String,
    #[serde(
        rename = "io.cncf.notary.signingTime",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    signed: Option<Timestamp>,
    #[serde(
        rename = "io.cncf.notary.expiry",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    expiry: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    target_artifact: Target,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    annotations: Labels,
}

/// How to sign.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The certificates, that of the key first.
    pub chain: &'a [Certificate],
    /// The envelope.
    pub envelope: Envelope,
    /// The time of signing, in seconds since 1970.
    pub now: i64,
    /// When the signature ends to count.
    pub expiry: Option<i64>,
    /// What is said beside.
    pub annotations: &'a Labels,
}

/// Signs a manifest: the envelope, and the annotations of the manifest that holds it.
///
/// # Errors
/// `InvalidArgument` when the first certificate is not the key's; `Unsupported` for a key that notation does not know.
pub fn sign(key: &PrivateKey, target: &Descriptor, how: &Request<'_>) -> Result<(Vec<u8>, Labels), Error> {
    let leaf = how.chain.first().filter(|leaf| leaf.key() == key.public());
    if leaf.is_none() {
        let message = "the first certificate is not that of the key";
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let alg = key.public().kind().jose().ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            "the Notary Project has no signatures of Ed25519 keys",
        )
        .with_hint("sign with an ECDSA or RSA key")
    })?;
    let json = |error| Error::because(ErrorKind::Internal, "write a signature", error);
    let time = |at: i64| {
        Timestamp::from_second(at)
            .map_err(|error| Error::because(ErrorKind::InvalidArgument, format!("{at} is no time"), error))
    };
    let mut crit = vec![SIGNING_SCHEME.to_owned()];
    if how.expiry.is_some() {
        crit.push(EXPIRY.to_owned());
    }
    let protected = Protected {
        alg: alg.to_owned(),
        crit,
        cty: PAYLOAD.to_owned(),
        scheme: X509.to_owned(),
        signed: Some(time(how.now)?),
        expiry: how.expiry.map(time).transpose()?,
    };
    let payload = Payload {
        target_artifact: Target {
            media_type: target.media_type.clone(),
            digest: target.digest.to_string(),
            size: target.size,
            annotations: how.annotations.clone(),
        },
    };
    let payload = serde_json::to_vec(&payload).map_err(json)?;
    let envelope = match how.envelope {
        Envelope::Jws => signed_jws(key, &protected, &payload, how.chain)?,
        Envelope::Cose => cose::sign(key, &protected, &payload, how.chain)?,
    };
    let thumbprints: Vec<String> = how.chain.iter().map(|one| one.thumbprint().hex()).collect();
    let thumbprints = serde_json::to_string(&thumbprints).map_err(json)?;
    let annotations = Labels::from([
        (THUMBPRINTS.to_owned(), thumbprints),
        (
            "org.opencontainers.image.created".to_owned(),
            crate::x509::shown(how.now),
        ),
    ]);
    Ok((envelope, annotations))
}

fn signed_jws(
    key: &PrivateKey,
    protected: &Protected,
    payload: &[u8],
    chain: &[Certificate],
) -> Result<Vec<u8>, Error> {
    let json = |error| Error::because(ErrorKind::Internal, "write a signature", error);
    let protected = URL_SAFE_NO_PAD.encode(serde_json::to_vec(protected).map_err(json)?);
    let payload = URL_SAFE_NO_PAD.encode(payload);
    let signature = key.sign(Scheme::Jose, format!("{protected}.{payload}").as_bytes())?;
    let envelope = Jws {
        payload,
        protected,
        header: Header {
            x5c: chain.iter().map(|one| STANDARD.encode(one.der())).collect(),
            agent: Some(OURS.to_owned()),
        },
        signature: URL_SAFE_NO_PAD.encode(signature),
    };
    serde_json::to_vec(&envelope).map_err(json)
}

/// What a signature says.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    pub(crate) leaf: Certificate,
    pub(crate) signed_at: Option<i64>,
    pub(crate) annotations: Labels,
}

fn bad(why: &str) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("the signature's envelope {why}"),
    )
}

/// What is in an envelope: nothing of it is known to be true.
struct Opened {
    protected: Protected,
    chain: Vec<Certificate>,
    /// The bytes that are signed.
    message: Vec<u8>,
    signature: Vec<u8>,
    payload: Vec<u8>,
}

fn open_jws(envelope: &[u8]) -> Result<Opened, Error> {
    let envelope: Jws = serde_json::from_slice(envelope).map_err(|error| {
        Error::because(ErrorKind::InvalidArgument, "read the signature's envelope", error)
    })?;
    let decoded = |text: &str, what: &str| {
        URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| bad(&format!("has a {what} that is no base64")))
    };
    let protected = serde_json::from_slice(&decoded(&envelope.protected, "header")?)
        .map_err(|error| Error::because(ErrorKind::InvalidArgument, "read the signature's header", error))?;
    let mut ders = Vec::new();
    for one in envelope.header.x5c.iter().take(MAX_CHAIN + 1) {
        let der = STANDARD.decode(one);
        ders.push(der.map_err(|_| bad("has a certificate that is no base64"))?);
    }
    Ok(Opened {
        protected,
        chain: chain_of(&ders.iter().map(Vec::as_slice).collect::<Vec<_>>())?,
        message: format!("{}.{}", envelope.protected, envelope.payload).into_bytes(),
        signature: decoded(&envelope.signature, "signature")?,
        payload: decoded(&envelope.payload, "payload")?,
    })
}

fn chain_of(ders: &[&[u8]]) -> Result<Vec<Certificate>, Error> {
    if ders.is_empty() || ders.len() > MAX_CHAIN {
        return Err(bad(&format!("has not 1 to {MAX_CHAIN} certificates")));
    }
    ders.iter().map(|der| Certificate::parse(der)).collect()
}

/// Checks an envelope of either kind against certificate authorities, at a time.
pub(crate) fn check(
    envelope: &[u8],
    digest: &Digest,
    authorities: &[Certificate],
    now: i64,
) -> Result<Signed, Error> {
    let opened = if cose::is_one(envelope) {
        cose::open(envelope)?
    } else {
        open_jws(envelope)?
    };
    let mut chain = opened.chain;
    let leaf = chain.remove(0);
    let protected = opened.protected;
    check_header(&protected, &leaf, now)?;
    if !leaf
        .key()
        .verify(Scheme::Jose, &opened.message, &opened.signature)
    {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            "the signature is not that of its certificate's key",
        ));
    }
    let payload: Payload = serde_json::from_slice(&opened.payload)
        .map_err(|error| Error::because(ErrorKind::InvalidArgument, "read the signature's payload", error))?;
    let target = payload.target_artifact;
    if target.digest != digest.to_string() {
        let other = crate::statement::shortened(&target.digest);
        let message = format!("the signature is of {other}, not of {digest}");
        return Err(Error::new(ErrorKind::PermissionDenied, message));
    }
    // Without a time stamp of somebody else, what the signer says of the time does not count: it must be good now.
    let between: Vec<Certificate> = chain.into_iter().filter(|one| !one.is_self_issued()).collect();
    leaf.check_chain(&between, authorities, Purpose::CodeOrAny, now)?;
    Ok(Signed {
        leaf,
        signed_at: protected.signed.map(Timestamp::as_second),
        annotations: target.annotations,
    })
}

fn check_header(protected: &Protected, leaf: &Certificate, now: i64) -> Result<(), Error> {
    // The key says how; what the header says must be that. `none`, and the names of others, are refused.
    if leaf.key().kind().jose() != Some(protected.alg.as_str()) {
        let shown = crate::statement::shortened(&protected.alg);
        let message =
            format!("the signature says that it is made with {shown:?}, which is not its key's algorithm");
        return Err(Error::new(ErrorKind::PermissionDenied, message));
    }
    if protected.cty != PAYLOAD {
        return Err(bad("has a payload of another type"));
    }
    if protected.scheme != X509 {
        let message = format!(
            "the signing scheme {:?} is not known",
            crate::statement::shortened(&protected.scheme)
        );
        return Err(Error::new(ErrorKind::Unsupported, message).with_hint(format!("{X509} is")));
    }
    let known = [SIGNING_SCHEME, EXPIRY];
    if let Some(other) = protected.crit.iter().find(|name| !known.contains(&name.as_str())) {
        let shown = crate::statement::shortened(other);
        let message = format!("the signature says that {shown:?} must be understood, and it is not known");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let is_critical = |name: &str| protected.crit.iter().any(|listed| listed == name);
    if !is_critical(SIGNING_SCHEME) || protected.expiry.is_some() && !is_critical(EXPIRY) {
        return Err(bad("does not name what is critical in it"));
    }
    match protected.expiry {
        Some(expiry) if expiry.as_second() <= now => {
            let message = format!("the signature expired on {expiry}");
            Err(Error::new(ErrorKind::PermissionDenied, message))
        }
        _ => Ok(()),
    }
}
