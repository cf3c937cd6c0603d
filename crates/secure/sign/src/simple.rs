//! "Simple signing" with cosign's envelope (sigstore/cosign, `specs/SIGNATURE_SPEC.md`): a small document that names the
//! manifest, and its signature beside it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_oci::Labels;
use dhow_types::{Digest, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::key::Scheme;
use crate::statement::shortened;
use crate::{Error, PrivateKey};

/// The payload, as a layer.
pub const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// What such a manifest is, when it refers to the image instead of being named after it.
pub const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
/// The signature, as an annotation of that layer.
pub const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const KIND: &str = "cosign container image signature";

#[derive(Serialize, Deserialize)]
struct Document {
    critical: Critical,
    #[serde(default)]
    optional: Option<Map<String, Value>>,
}

#[derive(Serialize, Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Serialize, Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Serialize, Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// What a payload says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Payload {
    pub(crate) reference: String,
    pub(crate) annotations: Labels,
}

/// The tag in an image's own repository that holds what cosign says of a manifest: `sha256-<hex>.sig`.
#[must_use]
pub fn tag(digest: &Digest) -> String {
    format!("sha256-{}.sig", digest.hex())
}

/// Signs a manifest under a name: the payload, and the annotations of its layer.
///
/// # Errors
/// As signing itself.
pub fn sign(
    key: &PrivateKey,
    reference: &str,
    digest: &Digest,
    annotations: &Labels,
) -> Result<(Vec<u8>, Labels), Error> {
    let optional = annotations
        .iter()
        .map(|(key, value)| (key.clone(), Value::from(value.as_str())));
    let document = Document {
        critical: Critical {
            identity: Identity {
                reference: reference.to_owned(),
            },
            image: Image {
                digest: digest.to_string(),
            },
            kind: KIND.to_owned(),
        },
        optional: Some(optional.collect()),
    };
    let payload = serde_json::to_vec(&document)
        .map_err(|error| Error::because(ErrorKind::Internal, "write a signature's payload", error))?;
    let signature = STANDARD.encode(key.sign(Scheme::Plain, &payload)?);
    Ok((payload, Labels::from([(SIGNATURE.to_owned(), signature)])))
}

/// What a payload says, when it is about this manifest.
pub(crate) fn read(payload: &[u8], digest: &Digest) -> Result<Payload, Error> {
    let document: Document = serde_json::from_slice(payload)
        .map_err(|error| Error::because(ErrorKind::InvalidArgument, "read the signature's payload", error))?;
    if document.critical.kind != KIND {
        let message = format!("the payload is a {:?}", shortened(&document.critical.kind));
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    if document.critical.image.digest != digest.to_string() {
        let other = shortened(&document.critical.image.digest);
        let message = format!("the signature is of {other}, not of {digest}");
        return Err(Error::new(ErrorKind::PermissionDenied, message));
    }
    let texts = document.optional.unwrap_or_default().into_iter();
    let texts = texts.filter_map(|(key, value)| Some((key, value.as_str()?.to_owned())));
    Ok(Payload {
        reference: document.critical.identity.reference,
        annotations: texts.collect(),
    })
}
