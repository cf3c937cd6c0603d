//! Who signed a text: the part of OpenPGP (RFC 4880, RFC 9580) that apt's archives use, and nothing else.
//!
//! Version 4 keys and signatures; RSA of 2048 to 8192 bits and Ed25519 in both codings; SHA-256, SHA-384, SHA-512.
//! SHA-1 and MD5 are refused even in the self-signatures of keys. A key counts only with a valid self-signature, a
//! subkey only with a binding by its primary key and a back-signature of its own; expiry and revocation are judged
//! against the caller's clock. Of a cleartext-signed file only what the signature covers is ever given out, and a file
//! with anything before or after the frame is refused: a reader that skips such text and another that does not would
//! see different files (the root of CVE-2018-12020 and of apt's CVE-2016-1252).

mod armor;
mod key;
mod keyring;
mod packet;
mod signature;
#[cfg(test)]
mod tests;

use std::fmt;

use dhow_types::ErrorKind;

pub use keyring::Keyring;

use crate::Error;
use signature::Signature;

/// Clocks of signers and hosts differ a little; apt itself allows no more for `Date`.
const CLOCK_TOLERANCE: i64 = 36 * 3600;
/// Debian signs with three keys; this is a bound against work for nothing.
const MAX_SIGNATURES: usize = 64;
/// Text of a signed index; Debian's are 150 kB.
const MAX_DOCUMENT: usize = 64 << 20;

/// SHA-1 over a key, as RFC 4880 12.2 names keys; it names and is never trusted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 20]);

impl Fingerprint {
    /// The last eight bytes, which old signatures name keys by.
    fn id(&self) -> [u8; 8] {
        let mut id = [0; 8];
        id.copy_from_slice(&self.0[12..]);
        id
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The key whose good signature was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The key that made the signature.
    pub key: Fingerprint,
    /// The primary key that it belongs to.
    pub primary: Fingerprint,
    /// The first user id of the primary key.
    pub user: String,
    /// Seconds since 1970 when the signature was made, as it says.
    pub created: i64,
}

/// Why a signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    BadSignature,
    FromTheFuture,
    KeyCannotSign,
    KeyExpired,
    KeyRevoked,
    KeyUnbound,
    NoKey,
    NotOfThisKind,
    SignatureExpired,
    WeakOrUnknownAlgorithm,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadSignature => "the signature does not match the text",
            Self::FromTheFuture => "it is dated in the future",
            Self::KeyCannotSign => "the key is not meant to sign",
            Self::KeyExpired => "the key has expired",
            Self::KeyRevoked => "the key is revoked",
            Self::KeyUnbound => "the key has no valid binding",
            Self::NoKey => "the keyring does not have the key",
            Self::NotOfThisKind => "it is not a signature over a document",
            Self::SignatureExpired => "the signature has expired",
            Self::WeakOrUnknownAlgorithm => "its algorithm is weak or unknown",
        })
    }
}

/// Checks a cleartext-signed file (`InRelease`) and gives the signed text: lines without trailing blanks, ended by `\n`.
///
/// # Errors
/// `DataLoss` when no signature by a key of `keyring` is good at `now` (seconds since 1970); `FailedPrecondition` when
/// the keyring has none of the keys; `InvalidArgument` when the file is not one whole signed frame.
pub fn verify_cleartext(file: &[u8], keyring: &Keyring, now: i64) -> Result<(String, Signer), Error> {
    let frame = armor::cleartext(bounded(file)?)?;
    let signer = verify(
        &frame.canonical,
        &frame.signatures,
        keyring,
        now,
        &[signature::TEXT],
    )?;
    Ok((frame.text, signer))
}

/// Checks a signature that is kept in its own file (`Release.gpg`, armored or not) over `document`.
///
/// # Errors
/// As [`verify_cleartext`].
pub fn verify_detached(
    document: &[u8],
    signatures: &[u8],
    keyring: &Keyring,
    now: i64,
) -> Result<Signer, Error> {
    let packets = if armor::is_armored(signatures) {
        armor::decode_one(bounded(signatures)?, "PGP SIGNATURE")?
    } else {
        bounded(signatures)?.to_vec()
    };
    verify(bounded(document)?, &packets, keyring, now, &[signature::BINARY])
}

/// The text of a cleartext-signed file that nobody vouches for: only for a caller who said aloud that it is not verified.
///
/// # Errors
/// `InvalidArgument` when the file is not one whole signed frame.
pub fn unverified_text(file: &[u8]) -> Result<String, Error> {
    Ok(armor::cleartext(bounded(file)?)?.text)
}

fn bounded(bytes: &[u8]) -> Result<&[u8], Error> {
    if bytes.len() > MAX_DOCUMENT {
        return Err(Error::new(
            ErrorKind::ResourceExhausted,
            "a signed file is over 64 MiB",
        ));
    }
    Ok(bytes)
}

/// Takes the first signature that is good.
fn verify(
    document: &[u8],
    packets: &[u8],
    keyring: &Keyring,
    now: i64,
    kinds: &[u8],
) -> Result<Signer, Error> {
    let mut rejected: Vec<(String, Rejection)> = Vec::new();
    for (index, packet) in packet::Packets::new(packets).enumerate() {
        let packet = packet?;
        if index == MAX_SIGNATURES {
            return Err(Error::new(
                ErrorKind::ResourceExhausted,
                "more than 64 signatures",
            ));
        }
        if packet.tag != packet::SIGNATURE {
            continue;
        }
        let outcome = match Signature::parse(packet.body) {
            Ok(signature) => {
                check(document, &signature, keyring, now, kinds).map_err(|why| (signature.issuer_text(), why))
            }
            Err(why) => Err(("an unknown key".to_owned(), why)),
        };
        match outcome {
            Ok(signer) => return Ok(signer),
            Err(why) => rejected.push(why),
        }
    }
    if rejected.is_empty() {
        return Err(Error::new(ErrorKind::DataLoss, "there is no signature"));
    }
    let unknown = rejected.iter().all(|(_, why)| *why == Rejection::NoKey);
    let list: Vec<String> = rejected
        .iter()
        .map(|(key, why)| format!("{key}: {why}"))
        .collect();
    let message = format!("no good signature ({})", list.join("; "));
    if unknown {
        return Err(Error::new(ErrorKind::FailedPrecondition, message)
            .with_hint("the archive may be newer than the host's keyring: update the keyring package"));
    }
    Err(Error::new(ErrorKind::DataLoss, message))
}

fn check(
    document: &[u8],
    signature: &Signature,
    keyring: &Keyring,
    now: i64,
    kinds: &[u8],
) -> Result<Signer, Rejection> {
    if !kinds.contains(&signature.kind) {
        return Err(Rejection::NotOfThisKind);
    }
    let created = signature.created_at(now)?;
    let mut worst = Rejection::NoKey;
    for found in keyring.signers(signature, now) {
        let outcome = found.and_then(|candidate| {
            if candidate.key.created > created {
                return Err(Rejection::BadSignature);
            }
            signature.verify(candidate.key, &[document])?;
            Ok(candidate.signer(created))
        });
        match outcome {
            Ok(signer) => return Ok(signer),
            Err(why) => worst = why,
        }
    }
    Err(worst)
}
