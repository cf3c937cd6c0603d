//! The Notary Project's signatures (notaryproject/specifications, `signature-envelope-jws.md`): a JWS in JSON with the
//! certificates of whoever signed.

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
/// The envelope, as a layer.
pub const ENVELOPE: &str = "application/jose+json";
/// The other envelope that the project has, which is not read here.
pub const COSE: &str = "application/cose";
/// Names the certificates, as an annotation of the manifest.
pub const THUMBPRINTS: &str = "io.cncf.notary.x509chain.thumbprint#S256";
const PAYLOAD: &str = "application/vnd.cncf.notary.payload.v1+json";
const X509: &str = "notary.x509";
const SIGNING_SCHEME: &str = "io.cncf.notary.signingScheme";
const EXPIRY: &str = "io.cncf.notary.expiry";

#[derive(Serialize, Deserialize)]
struct Envelope {
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
    let protected = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&protected).map_err(json)?);
    let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&payload).map_err(json)?);
    let signature = key.sign(Scheme::Jose, format!("{protected}.{payload}").as_bytes())?;
    let envelope = Envelope {
        payload,
        protected,
        header: Header {
            x5c: how.chain.iter().map(|one| STANDARD.encode(one.der())).collect(),
            agent: Some(concat!("dhow/", env!("CARGO_PKG_VERSION")).to_owned()),
        },
        signature: URL_SAFE_NO_PAD.encode(signature),
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
    Ok((serde_json::to_vec(&envelope).map_err(json)?, annotations))
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

/// Checks an envelope against certificate authorities, at a time.
pub(crate) fn check(
    envelope: &[u8],
    digest: &Digest,
    authorities: &[Certificate],
    now: i64,
) -> Result<Signed, Error> {
    let envelope: Envelope = serde_json::from_slice(envelope).map_err(|error| {
        Error::because(ErrorKind::InvalidArgument, "read the signature's envelope", error)
    })?;
    let decoded = |text: &str, what: &str| {
        URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| bad(&format!("has a {what} that is no base64")))
    };
    let protected: Protected = serde_json::from_slice(&decoded(&envelope.protected, "header")?)
        .map_err(|error| Error::because(ErrorKind::InvalidArgument, "read the signature's header", error))?;
    let x5c = &envelope.header.x5c;
    if x5c.is_empty() || x5c.len() > MAX_CHAIN {
        return Err(bad(&format!("has not 1 to {MAX_CHAIN} certificates")));
    }
    let mut chain = Vec::new();
    for one in x5c {
        let der = STANDARD
            .decode(one)
            .map_err(|_| bad("has a certificate that is no base64"))?;
        chain.push(Certificate::parse(&der)?);
    }
    let leaf = chain.remove(0);
    check_header(&protected, &leaf, now)?;
    let signature = decoded(&envelope.signature, "signature")?;
    let signed = format!("{}.{}", envelope.protected, envelope.payload);
    if !leaf.key().verify(Scheme::Jose, signed.as_bytes(), &signature) {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            "the signature is not that of its certificate's key",
        ));
    }
    let payload: Payload = serde_json::from_slice(&decoded(&envelope.payload, "payload")?)
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
