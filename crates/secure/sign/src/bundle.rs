//! Sigstore's bundle, version 0.3 (sigstore/protobuf-specs, `sigstore_bundle.proto`): what was signed, with which key or
//! certificate, and what a log or a time stamp says of it, in one document.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_types::ErrorKind;
use serde::{Deserialize, Serialize};

use crate::key::Scheme;
use crate::statement::{Envelope, EnvelopeSignature, STATEMENT, Statement};
use crate::{Error, PrivateKey};

/// What it is, as an artifact and as a layer.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// Older ways to write the same.
const KNOWN: &[&str] = &[
    BUNDLE,
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
    "application/vnd.dev.sigstore.bundle+json;version=0.2",
    "application/vnd.dev.sigstore.bundle+json;version=0.1",
];
/// Most log entries and time stamps of one bundle.
const MAX_ENTRIES: usize = 8;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Bundle {
    pub(crate) media_type: String,
    pub(crate) verification_material: Material,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dsse_envelope: Option<Envelope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message_signature: Option<MessageSignature>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Material {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) public_key: Option<Hint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<Raw>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) x509_certificate_chain: Option<Chain>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tlog_entries: Vec<LogEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timestamp_verification_data: Option<Timestamps>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Hint {
    #[serde(default)]
    pub(crate) hint: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Raw {
    pub(crate) raw_bytes: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Chain {
    pub(crate) certificates: Vec<Raw>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Timestamps {
    pub(crate) rfc3161_timestamps: Vec<Timestamp>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Timestamp {
    pub(crate) signed_timestamp: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageSignature {
    pub(crate) message_digest: MessageDigest,
    pub(crate) signature: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MessageDigest {
    pub(crate) algorithm: String,
    pub(crate) digest: String,
}

/// An entry of a log. Numbers of 64 bits are texts (proto3's JSON).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogEntry {
    #[serde(default)]
    pub(crate) log_index: Number,
    pub(crate) log_id: LogId,
    pub(crate) kind_version: KindVersion,
    #[serde(default)]
    pub(crate) integrated_time: Number,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) inclusion_promise: Option<Promise>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) inclusion_proof: Option<Proof>,
    pub(crate) canonicalized_body: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogId {
    pub(crate) key_id: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct KindVersion {
    pub(crate) kind: String,
    pub(crate) version: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Promise {
    pub(crate) signed_entry_timestamp: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Proof {
    #[serde(default)]
    pub(crate) log_index: Number,
    pub(crate) root_hash: String,
    pub(crate) tree_size: Number,
    #[serde(default)]
    pub(crate) hashes: Vec<String>,
    pub(crate) checkpoint: Checkpoint,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) envelope: String,
}

/// A number that is a text in JSON, or a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Number(pub(crate) i64);

impl Serialize for Number {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(i64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(number) => Ok(Self(number)),
            Either::Text(text) => text.parse().map(Self).map_err(serde::de::Error::custom),
        }
    }
}

pub(crate) fn decoded(text: &str, what: &str) -> Result<Vec<u8>, Error> {
    STANDARD
        .decode(text)
        .map_err(|_| bad(&format!("{what} is no base64")))
}

pub(crate) fn bad(why: &str) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("the bundle is damaged: {why}"),
    )
}

impl Bundle {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let bundle: Self = serde_json::from_slice(bytes)
            .map_err(|error| Error::because(ErrorKind::InvalidArgument, "read the bundle", error))?;
        if !KNOWN.contains(&bundle.media_type.as_str()) {
            let shown = crate::statement::shortened(&bundle.media_type);
            let message = format!("the bundle is of the type {shown:?}, which is not known");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let material = &bundle.verification_material;
        let ways = [
            material.public_key.is_some(),
            material.certificate.is_some(),
            material.x509_certificate_chain.is_some(),
        ];
        if ways.into_iter().filter(|way| *way).count() != 1 {
            return Err(bad("it has not exactly one of key, certificate and chain"));
        }
        if bundle.dsse_envelope.is_some() == bundle.message_signature.is_some() {
            return Err(bad("it has not exactly one of envelope and signature"));
        }
        let stamps = material
            .timestamp_verification_data
            .as_ref()
            .map_or(0, |data| data.rfc3161_timestamps.len());
        if material.tlog_entries.len() > MAX_ENTRIES || stamps > MAX_ENTRIES {
            return Err(bad("it has too many log entries or time stamps"));
        }
        Ok(bundle)
    }

    /// The certificate of whoever signed, as DER.
    pub(crate) fn certificate(&self) -> Result<Option<Vec<u8>>, Error> {
        let material = &self.verification_material;
        let raw = match (&material.certificate, &material.x509_certificate_chain) {
            (Some(raw), _) => Some(raw),
            // Of a chain only the leaf counts: what is above it comes from the trusted root.
            (None, Some(chain)) => Some(
                chain
                    .certificates
                    .first()
                    .ok_or_else(|| bad("its chain is empty"))?,
            ),
            (None, None) => None,
        };
        raw.map(|raw| decoded(&raw.raw_bytes, "its certificate"))
            .transpose()
    }
}

/// Signs a statement with a key.
///
/// # Errors
/// As signing itself.
pub fn sign(key: &PrivateKey, statement: &Statement) -> Result<Vec<u8>, Error> {
    let payload = statement.bytes()?;
    let signature = key.sign(Scheme::Plain, &Envelope::signed_bytes(STATEMENT, &payload))?;
    let bundle = Bundle {
        media_type: BUNDLE.to_owned(),
        verification_material: Material {
            public_key: Some(Hint {
                hint: STANDARD.encode(key.public().fingerprint().as_bytes()),
            }),
            ..Material::default()
        },
        dsse_envelope: Some(Envelope {
            payload: STANDARD.encode(payload),
            payload_type: STATEMENT.to_owned(),
            signatures: vec![EnvelopeSignature {
                sig: STANDARD.encode(signature),
                keyid: String::new(),
            }],
        }),
        message_signature: None,
    };
    serde_json::to_vec(&bundle).map_err(|error| Error::because(ErrorKind::Internal, "write a bundle", error))
}
