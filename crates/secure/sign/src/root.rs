//! What a person trusts for signatures without keys: Sigstore's `trusted_root.json` (sigstore/protobuf-specs,
//! `sigstore_trustroot.proto`), as a file.

use dhow_types::ErrorKind;
use serde::Deserialize;

use crate::bundle::{Chain, LogId, Raw, decoded};
use crate::x509::MAX_CHAIN;
use crate::{Certificate, Error, PublicKey};

/// Largest file, and most entries of each kind in it.
const MAX_BYTES: usize = 4 << 20;
const MAX_ENTRIES: usize = 64;
const KNOWN: &str = "application/vnd.dev.sigstore.trustedroot";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    media_type: String,
    #[serde(default)]
    tlogs: Vec<LogDocument>,
    #[serde(default)]
    ctlogs: Vec<LogDocument>,
    #[serde(default)]
    certificate_authorities: Vec<AuthorityDocument>,
    #[serde(default)]
    timestamp_authorities: Vec<AuthorityDocument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogDocument {
    public_key: KeyDocument,
    log_id: LogId,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyDocument {
    raw_bytes: String,
    #[serde(default)]
    valid_for: Period,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorityDocument {
    cert_chain: Chain,
    #[serde(default)]
    valid_for: Period,
}

/// From and until when something counts.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Period {
    start: Option<jiff::Timestamp>,
    end: Option<jiff::Timestamp>,
}

impl Period {
    pub(crate) fn has(&self, at: i64) -> bool {
        self.start.is_none_or(|start| start.as_second() <= at)
            && self.end.is_none_or(|end| at <= end.as_second())
    }
}

/// A log of signatures.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) id: Vec<u8>,
    pub(crate) key: PublicKey,
    pub(crate) valid: Period,
}

/// Who vouches for names, or for times: a root, and what stands between it and the leaves.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    pub(crate) root: Certificate,
    pub(crate) between: Vec<Certificate>,
    pub(crate) valid: Period,
}

/// Logs and authorities that are trusted.
#[derive(Clone, Debug)]
pub struct TrustedRoot {
    pub(crate) logs: Vec<Log>,
    pub(crate) certificate_logs: Vec<Log>,
    pub(crate) authorities: Vec<Authority>,
    pub(crate) clocks: Vec<Authority>,
}

impl TrustedRoot {
    /// Logs by their keys, and certificates of authorities that are each trusted by themselves, whenever they are good.
    #[must_use]
    pub fn of(authorities: Vec<Certificate>, logs: Vec<PublicKey>) -> Self {
        let authority = |root| Authority {
            root,
            between: Vec::new(),
            valid: Period::default(),
        };
        let log = |key: PublicKey| Log {
            id: key.fingerprint().as_bytes().to_vec(),
            key,
            valid: Period::default(),
        };
        Self {
            logs: logs.into_iter().map(log).collect(),
            certificate_logs: Vec::new(),
            authorities: authorities.into_iter().map(authority).collect(),
            clocks: Vec::new(),
        }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no such file, `ResourceExhausted` for one beyond all measure.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let limit = |what: &str| {
            let message = format!("the trusted root has too many {what}");
            Error::new(ErrorKind::ResourceExhausted, message)
        };
        if bytes.len() > MAX_BYTES {
            return Err(limit("bytes"));
        }
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|error| Error::because(ErrorKind::InvalidArgument, "read the trusted root", error))?;
        if !document.media_type.starts_with(KNOWN) {
            let shown = crate::statement::shortened(&document.media_type);
            let message = format!("the trusted root is of the type {shown:?}, which is not known");
            return Err(Error::new(ErrorKind::InvalidArgument, message)
                .with_hint("cosign trusted-root create makes one; Sigstore's own is trusted_root.json of its TUF repository"));
        }
        let logs = |all: Vec<LogDocument>| {
            if all.len() > MAX_ENTRIES {
                return Err(limit("logs"));
            }
            let mut logs = Vec::new();
            for log in all {
                let key = decoded(&log.public_key.raw_bytes, "a log's key")?;
                // A key of another kind is another log's matter: what that log says is then unknown.
                let Ok(key) = PublicKey::from_spki(&key) else {
                    continue;
                };
                logs.push(Log {
                    id: decoded(&log.log_id.key_id, "a log's id")?,
                    key,
                    valid: log.public_key.valid_for,
                });
            }
            Ok(logs)
        };
        let has_certificate_logs = !document.ctlogs.is_empty();
        let authorities = |all: Vec<AuthorityDocument>| {
            if all.len() > MAX_ENTRIES {
                return Err(limit("authorities"));
            }
            all.into_iter()
                .map(Authority::read)
                .collect::<Result<Vec<_>, Error>>()
        };
        let certificate_logs = logs(document.ctlogs)?;
        if has_certificate_logs && certificate_logs.is_empty() {
            let message = "the trusted root has certificate logs, and none with a key that is of use here";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        Ok(Self {
            logs: logs(document.tlogs)?,
            certificate_logs,
            authorities: authorities(document.certificate_authorities)?,
            clocks: authorities(document.timestamp_authorities)?,
        })
    }
}

impl Authority {
    /// Whose key signed a certificate of this authority.
    pub(crate) fn issuer_of(&self, certificate: &Certificate) -> &Certificate {
        let mut between = self.between.iter();
        between
            .find(|one| certificate.is_issued_by(one))
            .unwrap_or(&self.root)
    }

    fn read(document: AuthorityDocument) -> Result<Self, Error> {
        let chain = document.cert_chain.certificates;
        if chain.len() > MAX_CHAIN {
            return Err(Error::new(
                ErrorKind::ResourceExhausted,
                "the trusted root has a chain that is too long",
            ));
        }
        let read = |raw: &Raw| Certificate::parse(&decoded(&raw.raw_bytes, "a certificate")?);
        let mut chain = chain.iter().map(read).collect::<Result<Vec<_>, Error>>()?;
        // The root comes last.
        let root = chain
            .pop()
            .ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "the trusted root has an empty chain"))?;
        Ok(Self {
            root,
            between: chain,
            valid: document.valid_for,
        })
    }
}
