//! What is signed: in-toto statements (in-toto attestation framework, v1) in DSSE envelopes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_oci::Labels;
use dhow_types::{Digest, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;

/// A statement in an envelope.
pub(crate) const STATEMENT: &str = "application/vnd.in-toto+json";
const TYPE: &str = "https://in-toto.io/Statement/v1";
const OLD_TYPE: &str = "https://in-toto.io/Statement/v0.1";
/// Says no more than that somebody signed (cosign 3).
pub const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";
/// Most subjects of one statement.
const MAX_SUBJECTS: usize = 1024;

/// The short words for what a statement says, as cosign has them, and its predicate type.
const PREDICATES: &[(&str, &str)] = &[
    ("spdx", "https://spdx.dev/Document"),
    ("spdxjson", "https://spdx.dev/Document"),
    ("cyclonedx", "https://cyclonedx.org/bom"),
    ("slsaprovenance", "https://slsa.dev/provenance/v0.2"),
    ("slsaprovenance02", "https://slsa.dev/provenance/v0.2"),
    ("slsaprovenance1", "https://slsa.dev/provenance/v1"),
    ("link", "https://in-toto.io/Link/v1"),
    ("vuln", "https://cosign.sigstore.dev/attestation/vuln/v1"),
    ("openvex", "https://openvex.dev/ns"),
    ("custom", "https://cosign.sigstore.dev/attestation/v1"),
];

/// The predicate type of a word or of a URI.
///
/// # Errors
/// `InvalidArgument` for what is neither.
pub fn predicate_type(word: &str) -> Result<String, Error> {
    if let Some((_, uri)) = PREDICATES.iter().find(|(known, _)| *known == word) {
        return Ok((*uri).to_owned());
    }
    let has_scheme = word.split_once(':').is_some_and(|(scheme, rest)| {
        !rest.is_empty()
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    });
    if has_scheme && word.len() <= 1024 && !word.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Ok(word.to_owned());
    }
    let words: Vec<&str> = PREDICATES.iter().map(|(word, _)| *word).collect();
    let message = format!("{word:?} is no type of a statement");
    Err(Error::new(ErrorKind::InvalidArgument, message)
        .with_hint(format!("write one of {}, or a URI", words.join(", "))))
}

/// What a statement is about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Subject {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(default)]
    digest: Labels,
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    annotations: Labels,
}

/// A statement about an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    /// What kind of thing it says.
    pub predicate_type: String,
    /// What it says.
    #[serde(default)]
    pub predicate: Value,
}

impl Statement {
    /// A statement about a manifest.
    #[must_use]
    pub fn new(
        name: &str,
        digest: &Digest,
        predicate_type: &str,
        predicate: Value,
        annotations: Labels,
    ) -> Self {
        Self {
            kind: TYPE.to_owned(),
            subject: vec![Subject {
                name: name.to_owned(),
                digest: Labels::from([("sha256".to_owned(), digest.hex())]),
                annotations,
            }],
            predicate_type: predicate_type.to_owned(),
            predicate,
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let statement: Self = serde_json::from_slice(bytes)
            .map_err(|error| Error::because(ErrorKind::InvalidArgument, "read the statement", error))?;
        let bad = |why: String| {
            Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("the statement {why}"),
            ))
        };
        if statement.kind != TYPE && statement.kind != OLD_TYPE {
            return bad(format!(
                "is of the type {:?}, which is not known",
                shortened(&statement.kind)
            ));
        }
        if statement.subject.len() > MAX_SUBJECTS {
            return bad(format!("has more than {MAX_SUBJECTS} subjects"));
        }
        Ok(statement)
    }

    /// Whether it only says that somebody signed.
    #[must_use]
    pub fn is_signature(&self) -> bool {
        self.predicate_type == SIGNED
    }

    /// What was said of the subject beside its digest.
    #[must_use]
    pub fn annotations(&self, about: &Digest) -> Labels {
        let own = self.subject.iter().find(|subject| subject.is(about));
        own.map(|subject| subject.annotations.clone()).unwrap_or_default()
    }

    pub(crate) fn check_subject(&self, digest: &Digest) -> Result<(), Error> {
        if self.subject.iter().any(|subject| subject.is(digest)) {
            return Ok(());
        }
        let other = self
            .subject
            .iter()
            .find_map(|subject| subject.digest.get("sha256"));
        let other = other.map_or("nothing", |other| shortened(other));
        let message = format!("the statement is about {other}, not about {}", digest.hex());
        Err(Error::new(ErrorKind::PermissionDenied, message))
    }

    pub(crate) fn bytes(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self)
            .map_err(|error| Error::because(ErrorKind::Internal, "write a statement", error))
    }
}

impl Subject {
    fn is(&self, digest: &Digest) -> bool {
        self.digest.get("sha256").is_some_and(|hex| *hex == digest.hex())
    }
}

/// The beginning of a foreign text, for a message.
pub(crate) fn shortened(text: &str) -> &str {
    let end = text.char_indices().nth(100).map_or(text.len(), |(at, _)| at);
    &text[..end]
}

/// A DSSE envelope (secure-systems-lab/dsse, `envelope.md`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Envelope {
    pub(crate) payload: String,
    pub(crate) payload_type: String,
    pub(crate) signatures: Vec<EnvelopeSignature>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EnvelopeSignature {
    pub(crate) sig: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) keyid: String,
}

impl Envelope {
    /// What is signed of a payload: its type and itself, with their lengths (DSSE, `protocol.md`, "PAE").
    pub(crate) fn signed_bytes(kind: &str, payload: &[u8]) -> Vec<u8> {
        let mut bytes = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
        bytes.extend_from_slice(payload);
        bytes
    }

    /// The statement in it, its bytes, and the only signature.
    pub(crate) fn open(&self) -> Result<(Statement, Vec<u8>, Vec<u8>), Error> {
        let bad = |why: &str| Error::new(ErrorKind::InvalidArgument, format!("the envelope {why}"));
        if self.payload_type != STATEMENT {
            return Err(bad("has no in-toto statement"));
        }
        // One, and no more: else some verifiers look at one and some at another (sigstore/protobuf-specs, `Bundle`).
        let [signature] = self.signatures.as_slice() else {
            return Err(bad("has not exactly one signature"));
        };
        let payload = STANDARD
            .decode(&self.payload)
            .map_err(|_| bad("has a payload that is no base64"))?;
        let signature = STANDARD
            .decode(&signature.sig)
            .map_err(|_| bad("has a signature that is no base64"))?;
        Ok((Statement::parse(&payload)?, payload, signature))
    }
}
