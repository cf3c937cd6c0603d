//! Whether what was found beside an image is a signature of it, and by whom.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_oci::Labels;
use dhow_types::{Digest, ErrorKind};
use regex_lite::Regex;

use crate::bundle::{Bundle, LogEntry};
use crate::key::Scheme;
use crate::log::{self, Evidence};
use crate::root::TrustedRoot;
use crate::statement::{Envelope, STATEMENT, Statement};
use crate::x509::{MAX_CHAIN, Purpose, shown};
use crate::{Certificate, Error, PublicKey, notation, pem, simple};

/// Largest document of each form: a bundle may carry a bill of materials.
const MAX_BUNDLE: usize = 32 << 20;
const MAX_OTHER: usize = 1 << 20;
/// Keys, and longest pattern, that are tried.
const MAX_KEYS: usize = 64;
const MAX_PATTERN: usize = 1024;

const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const PROMISE: &str = "dev.sigstore.cosign/bundle";

/// In which form something is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// cosign's simple signing.
    Simple,
    /// Sigstore's bundle.
    Bundle,
    /// A DSSE envelope alone, with what a bundle would have in annotations (cosign's attestations before its version 3).
    Envelope,
    /// The Notary Project's JWS.
    Notation,
}

impl Form {
    /// The form by its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Simple => "cosign",
            Self::Bundle => "bundle",
            Self::Envelope => "envelope",
            Self::Notation => "notation",
        }
    }
}

/// A signature as it was found: nothing of it is known to be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its form.
    pub form: Form,
    /// The layer.
    pub content: Vec<u8>,
    /// The layer's annotations.
    pub annotations: Labels,
}

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Digest of the manifest.
    pub digest: Digest,
    /// The manifest.
    pub bytes: &'a [u8],
}

/// A name that is wanted.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// This one.
    Exactly(String),
    /// One that this expression fits as a whole.
    Like(Box<Regex>),
    /// This one, and it must be an address of mail.
    Email(String),
}

impl Pattern {
    /// An expression.
    ///
    /// # Errors
    /// `InvalidArgument` for what is none.
    pub fn like(expression: &str) -> Result<Self, Error> {
        let wrong = |why: String| {
            let message = format!(
                "{:?} is no regular expression: {why}",
                crate::statement::shortened(expression)
            );
            Error::new(ErrorKind::InvalidArgument, message)
        };
        if expression.len() > MAX_PATTERN {
            return Err(wrong("it is too long".to_owned()));
        }
        // Whole names only: what fits somewhere in the middle fits a name that another person chose.
        let whole = format!("^(?:{expression})$");
        Regex::new(&whole)
            .map(|regex| Self::Like(Box::new(regex)))
            .map_err(|error| wrong(error.to_string()))
    }

    fn fits(&self, name: &str) -> bool {
        match self {
            Self::Exactly(wanted) | Self::Email(wanted) => wanted == name,
            Self::Like(regex) => regex.is_match(name),
        }
    }
}

/// Somebody who is trusted, by name.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The address, URI or subject of the certificate.
    pub name: Pattern,
    /// Who vouched for it.
    pub issuer: Option<Pattern>,
}

/// Whom to trust.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Keys.
    pub keys: Vec<PublicKey>,
    /// Authorities for notation's certificates.
    pub authorities: Vec<Certificate>,
    /// Logs and authorities for signatures with short-lived certificates. Beside keys, it asks for a log entry of them, too.
    pub root: Option<TrustedRoot>,
    /// Authorities for certificates of those who sign as cosign does, without a log.
    pub pki: Option<Pki>,
    /// The names that certificates must have one of. None are needed for notation: its authorities are trusted whole.
    pub identities: Vec<Identity>,
    /// The time, in seconds since 1970.
    pub now: i64,
}

/// Certificates that live as long as others do, and count as long as they are good.
#[derive(Clone, Debug, Default)]
pub struct Pki {
    /// Who is trusted.
    pub roots: Vec<Certificate>,
    /// Who may stand between a root and a signer, beside those that a signature brings.
    pub between: Vec<Certificate>,
    /// The address of mail that a signer's certificate must be for.
    pub email: Option<String>,
    /// The host that it must be for. Of the two one must be named at least: else it counts for nobody.
    pub host: Option<String>,
}

/// Who signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signer {
    /// Whoever has this key, by its fingerprint.
    Key(Digest),
    /// The subject of a certificate, with its thumbprint.
    Certificate(String, Digest),
    /// Somebody whom an issuer knew by this name.
    Identity(String, String),
}

impl std::fmt::Display for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(digest) => write!(f, "key {digest}"),
            Self::Certificate(subject, _) => write!(f, "{subject}"),
            Self::Identity(name, issuer) => write!(f, "{name} (by {issuer})"),
        }
    }
}

/// What a signature was found to be.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Its form.
    pub form: Form,
    /// Who signed.
    pub signer: Signer,
    /// What was stated, of a bundle with a statement.
    pub statement: Option<Statement>,
    /// The name under which it was signed, where the form has one. It is part of what was signed.
    pub reference: Option<String>,
    /// What was said beside.
    pub annotations: Labels,
    /// When, in seconds since 1970: by a log, or, of notation, by the signer.
    pub signed_at: Option<i64>,
    /// Whether a log that is trusted has it.
    pub logged: bool,
}

impl Verified {
    /// Whether it is a signature, and not a statement about something else.
    #[must_use]
    pub fn is_signature(&self) -> bool {
        self.statement.as_ref().is_none_or(Statement::is_signature)
    }
}

impl Trust {
    /// Checks one signature of a manifest.
    ///
    /// # Errors
    /// `PermissionDenied` when it is not what it says or not by whom it should be; `FailedPrecondition` when something is
    /// missing to judge it; `InvalidArgument` for what is no signature; `Unsupported`, `ResourceExhausted`.
    pub fn verify(&self, found: &Found, target: &Target<'_>) -> Result<Verified, Error> {
        let limit = match found.form {
            Form::Bundle | Form::Envelope => MAX_BUNDLE,
            Form::Simple | Form::Notation => MAX_OTHER,
        };
        if found.content.len() > limit {
            let message = format!(
                "the signature has {} bytes, the limit is {limit}",
                found.content.len()
            );
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
        if Digest::of(target.bytes) != target.digest {
            return Err(Error::new(ErrorKind::DataLoss, "the manifest has another digest"));
        }
        match found.form {
            Form::Simple => self.simple(found, target),
            Form::Bundle => self.bundle(found, target),
            Form::Envelope => self.envelope(found, target),
            Form::Notation => self.notation(found, target),
        }
    }

    fn simple(&self, found: &Found, target: &Target<'_>) -> Result<Verified, Error> {
        let lacks = || Error::new(ErrorKind::InvalidArgument, "the layer has no signature beside it");
        let signature = found.annotations.get(simple::SIGNATURE).ok_or_else(lacks)?;
        let signature = STANDARD
            .decode(signature)
            .map_err(|_| Error::new(ErrorKind::InvalidArgument, "the signature is no base64"))?;
        let payload = simple::read(&found.content, &target.digest)?;
        let (chain, entry) = beside(found)?;
        let signed = Signed {
            message: &found.content,
            signature: &signature,
            content: Digest::of(&found.content),
            chain: &chain,
            entries: entry.as_slice(),
            stamps: &[],
        };
        let (signer, signed_at, logged) = self.who(&signed)?;
        Ok(Verified {
            form: Form::Simple,
            signer,
            statement: None,
            reference: Some(payload.reference),
            annotations: payload.annotations,
            signed_at,
            logged,
        })
    }

    fn bundle(&self, found: &Found, target: &Target<'_>) -> Result<Verified, Error> {
        let bundle = Bundle::parse(&found.content)?;
        let certificate = bundle
            .certificate()?
            .map(|der| Certificate::parse(&der))
            .transpose()?;
        let material = &bundle.verification_material;
        let stamps = material.timestamp_verification_data.as_ref();
        let stamps = stamps.map_or(&[][..], |data| &data.rfc3161_timestamps);
        let (statement, message, content, signature) = if let Some(envelope) = &bundle.dsse_envelope {
            let (statement, payload, signature) = envelope.open()?;
            statement.check_subject(&target.digest)?;
            let message = Envelope::signed_bytes(STATEMENT, &payload);
            (Some(statement), message, Digest::of(&payload), signature)
        } else {
            let signed = bundle.message_signature.as_ref();
            let signed = signed.ok_or_else(|| crate::bundle::bad("it has no signature"))?;
            let said = crate::bundle::decoded(&signed.message_digest.digest, "a digest")?;
            if signed.message_digest.algorithm != "SHA2_256" || said != target.digest.as_bytes() {
                let message = format!("the signature is of other bytes than {}", target.digest);
                return Err(Error::new(ErrorKind::PermissionDenied, message));
            }
            let signature = crate::bundle::decoded(&signed.signature, "the signature")?;
            (None, target.bytes.to_vec(), target.digest, signature)
        };
        let (signer, signed_at, logged) = self.who(&Signed {
            message: &message,
            signature: &signature,
            content,
            chain: certificate.as_slice(),
            entries: &material.tlog_entries,
            stamps,
        })?;
        let annotations = statement
            .as_ref()
            .map(|statement| statement.annotations(&target.digest));
        Ok(Verified {
            form: Form::Bundle,
            signer,
            statement,
            reference: None,
            annotations: annotations.unwrap_or_default(),
            signed_at,
            logged,
        })
    }

    fn envelope(&self, found: &Found, target: &Target<'_>) -> Result<Verified, Error> {
        let envelope: Envelope = serde_json::from_slice(&found.content)
            .map_err(|error| Error::because(ErrorKind::InvalidArgument, "read the envelope", error))?;
        let (statement, payload, signature) = envelope.open()?;
        statement.check_subject(&target.digest)?;
        let (chain, entry) = beside(found)?;
        let (signer, signed_at, logged) = self.who(&Signed {
            message: &Envelope::signed_bytes(STATEMENT, &payload),
            signature: &signature,
            content: Digest::of(&payload),
            chain: &chain,
            entries: entry.as_slice(),
            stamps: &[],
        })?;
        Ok(Verified {
            form: Form::Envelope,
            signer,
            annotations: statement.annotations(&target.digest),
            statement: Some(statement),
            reference: None,
            signed_at,
            logged,
        })
    }

    fn notation(&self, found: &Found, target: &Target<'_>) -> Result<Verified, Error> {
        if self.authorities.is_empty() {
            let message = "the signature has a certificate, and no certificate authority is trusted";
            return Err(Error::new(ErrorKind::FailedPrecondition, message)
                .with_hint("name the file of one with --certificate-authority"));
        }
        let signed = notation::check(&found.content, &target.digest, &self.authorities, self.now)?;
        let subject = signed.leaf.subject();
        let fits = |identity: &Identity| {
            identity.issuer.is_none()
                && (identity.name.fits(&subject)
                    || signed.leaf.names().iter().any(|name| identity.name.fits(name)))
        };
        if !self.identities.is_empty() && !self.identities.iter().any(fits) {
            let message = format!("the signature is by {subject}, who is not asked for");
            return Err(Error::new(ErrorKind::PermissionDenied, message));
        }
        Ok(Verified {
            form: Form::Notation,
            signer: Signer::Certificate(subject, signed.leaf.thumbprint()),
            statement: None,
            reference: None,
            annotations: signed.annotations,
            signed_at: signed.signed_at,
            logged: false,
        })
    }

    /// Who signed, since when it is known, and whether a log has it.
    fn who(&self, signed: &Signed<'_>) -> Result<(Signer, Option<i64>, bool), Error> {
        let Some((certificate, between)) = signed.chain.split_first() else {
            return self.by_key(signed);
        };
        if let Some(pki) = &self.pki {
            return self.by_pki(signed, certificate, between, pki);
        }
        // Who trusts keys alone has no use for what a certificate says.
        let has_authorities = self
            .root
            .as_ref()
            .is_some_and(|root| !root.authorities.is_empty());
        if has_authorities || self.keys.is_empty() {
            return self.by_certificate(signed, certificate, between);
        }
        self.by_key(signed)
    }

    fn by_key(&self, signed: &Signed<'_>) -> Result<(Signer, Option<i64>, bool), Error> {
        if self.keys.is_empty() {
            let message = "the signature is by a key, and no key is trusted";
            return Err(Error::new(ErrorKind::FailedPrecondition, message)
                .with_hint("name the file of the public key with --key"));
        }
        // By trying: the hint in a bundle is the signer's word.
        let mut keys = self.keys.iter().take(MAX_KEYS);
        let Some(key) = keys.find(|key| key.verify(Scheme::Plain, signed.message, signed.signature)) else {
            let message = "the signature is by no key that is trusted, or what was signed has changed";
            return Err(Error::new(ErrorKind::PermissionDenied, message));
        };
        let signer = Signer::Key(key.fingerprint());
        let Some(root) = &self.root else {
            return Ok((signer, None, false));
        };
        let evidence = Evidence {
            signature: signed.signature,
            verifier: key.spki(),
            content: signed.content,
        };
        let at = logged(signed.entries, root, &evidence)?;
        Ok((signer, at, true))
    }

    fn by_certificate(
        &self,
        signed: &Signed<'_>,
        certificate: &Certificate,
        between: &[Certificate],
    ) -> Result<(Signer, Option<i64>, bool), Error> {
        let missing = |what: &str, hint: &str| {
            let message = format!("the signature has a certificate, and {what}");
            Err(Error::new(ErrorKind::FailedPrecondition, message).with_hint(hint))
        };
        let Some(root) = &self.root else {
            return missing(
                "there is no trusted root to judge it by",
                "name Sigstore's trusted_root.json with --trusted-root",
            );
        };
        if self.identities.is_empty() {
            let hint = "name the signer with --certificate-identity and --certificate-oidc-issuer";
            return missing("nobody is named who may have signed: anybody can have one", hint);
        }
        signed.is_by(certificate)?;
        let evidence = Evidence {
            signature: signed.signature,
            verifier: certificate.der(),
            content: signed.content,
        };
        let by_log = logged(signed.entries, root, &evidence)?;
        let by_clock = crate::clock::check(signed.stamps, root, signed.signature)?;
        // The certificate lives for minutes: what counts is that it lived when the signature was made.
        let Some(at) = by_log.or(by_clock) else {
            return missing(
                "nobody who is trusted says when it was made: it has neither a log's promise nor a time stamp",
                "sign again with a log that promises (Rekor 1), or with a time stamp authority",
            );
        };
        if root.authorities.is_empty() {
            return missing(
                "the trusted root has no certificate authority",
                "name another file with --trusted-root",
            );
        }
        let mut last = None;
        for authority in root
            .authorities
            .iter()
            .filter(|authority| authority.valid.has(at))
        {
            let anchors = std::slice::from_ref(&authority.root);
            let between = [&authority.between, between].concat();
            match certificate.check_chain(&between, anchors, Purpose::Code, at) {
                Ok(()) => {
                    crate::transparency::check(certificate, authority, root)?;
                    return Ok((self.known(certificate)?, Some(at), true));
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            let message = format!(
                "no certificate authority of the trusted root was in use on {}",
                shown(at)
            );
            Error::new(ErrorKind::PermissionDenied, message)
        }))
    }

    /// By a certificate that must be good now: nobody says when it was made.
    fn by_pki(
        &self,
        signed: &Signed<'_>,
        certificate: &Certificate,
        between: &[Certificate],
        pki: &Pki,
    ) -> Result<(Signer, Option<i64>, bool), Error> {
        signed.is_by(certificate)?;
        let between = [&pki.between, between].concat();
        certificate.check_chain(&between, &pki.roots, Purpose::OwnCode, self.now)?;
        let email = pki
            .email
            .as_ref()
            .map(|email| certificate.emails().contains(email));
        let host = pki.host.as_ref().map(|host| certificate.is_for_host(host));
        if [email, host].contains(&Some(false)) || (email, host) == (None, None) {
            let message = format!(
                "the signature is by {}, who is not asked for",
                certificate.named()
            );
            return Err(Error::new(ErrorKind::PermissionDenied, message));
        }
        let signer = Signer::Certificate(certificate.named(), certificate.thumbprint());
        Ok((signer, None, false))
    }

    /// Who a certificate is of, when that is somebody who is asked for.
    fn known(&self, certificate: &Certificate) -> Result<Signer, Error> {
        let issuer = certificate.oidc_issuer().unwrap_or_default();
        for name in certificate.names() {
            let fits = |identity: &Identity| {
                let right =
                    !matches!(identity.name, Pattern::Email(_)) || certificate.emails().contains(name);
                right
                    && identity.name.fits(name)
                    && identity.issuer.as_ref().is_some_and(|wanted| wanted.fits(issuer))
            };
            if self.identities.iter().any(fits) {
                return Ok(Signer::Identity(name.clone(), issuer.to_owned()));
            }
        }
        let name = certificate.named();
        let message = format!("the signature is by {name} (by {issuer}), who is not asked for");
        Err(Error::new(ErrorKind::PermissionDenied, message))
    }
}

/// What was found signed.
struct Signed<'a> {
    message: &'a [u8],
    signature: &'a [u8],
    /// Digest of what a log would have.
    content: Digest,
    /// The certificate of who signed, then what it comes with: none of a key.
    chain: &'a [Certificate],
    entries: &'a [LogEntry],
    stamps: &'a [crate::bundle::Timestamp],
}

impl Signed<'_> {
    fn is_by(&self, certificate: &Certificate) -> Result<(), Error> {
        if certificate
            .key()
            .verify(Scheme::Plain, self.message, self.signature)
        {
            return Ok(());
        }
        let message = "the signature is not that of its certificate's key, or what was signed has changed";
        Err(Error::new(ErrorKind::PermissionDenied, message))
    }
}

/// The certificate with what stands between it and an authority, and the log's promise, that cosign keeps in annotations.
fn beside(found: &Found) -> Result<(Vec<Certificate>, Option<LogEntry>), Error> {
    let entry = found.annotations.get(PROMISE);
    let entry = entry.map(|text| log::from_annotation(text)).transpose()?;
    let certificate = found.annotations.get(CERTIFICATE).filter(|pem| !pem.is_empty());
    let Some(leaf) = certificate else {
        return Ok((Vec::new(), entry));
    };
    let mut chain = Certificate::all_from_pem(leaf.as_bytes())?;
    chain.truncate(1);
    if let Some(between) = found.annotations.get(CHAIN).filter(|pem| !pem.is_empty()) {
        let between = Certificate::all_from_pem(between.as_bytes())?;
        if between.len() > MAX_CHAIN {
            let message = "the signature has a chain of certificates that is too long";
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
        // A root is trusted for being named, not for being brought.
        chain.extend(between.into_iter().filter(|one| !one.is_self_issued()));
    }
    Ok((chain, entry))
}

/// Checks all entries: one that does not hold is no smaller matter because another does.
fn logged(entries: &[LogEntry], root: &TrustedRoot, evidence: &Evidence<'_>) -> Result<Option<i64>, Error> {
    if entries.is_empty() {
        let message = "the signature is in no log";
        return Err(Error::new(ErrorKind::FailedPrecondition, message)
            .with_hint("without --trusted-root a signature by a key needs none"));
    }
    let mut at = None;
    for entry in entries {
        at = log::check(entry, root, evidence)?.or(at);
    }
    Ok(at)
}

/// The keys of a PEM file: one, or several one after the other.
///
/// # Errors
/// As [`PublicKey::from_pem`].
pub fn keys(text: &[u8]) -> Result<Vec<PublicKey>, Error> {
    let blocks = pem::blocks(text)?;
    let public = blocks.iter().filter(|(label, _)| label == "PUBLIC KEY");
    let keys = public
        .map(|(_, der)| PublicKey::from_spki(der))
        .collect::<Result<Vec<_>, Error>>()?;
    if keys.is_empty() {
        return PublicKey::from_pem(text).map(|key| vec![key]);
    }
    Ok(keys)
}
