//! Public keys (RFC 9580 section 5.5.2) and the mathematics behind them.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RsaPublicKeyComponents, UnparsedPublicKey,
};

use super::packet::Cursor;
use super::{Fingerprint, Rejection};

const RSA: u8 = 1;
const RSA_SIGN_ONLY: u8 = 3;
const EDDSA_LEGACY: u8 = 22;
const ED25519_NEW: u8 = 27;
/// 1.3.6.1.4.1.11591.15.1, "Ed25519Legacy".
const ED25519_OID: &[u8] = &[0x2B, 0x06, 0x01, 0x04, 0x01, 0xDA, 0x47, 0x0F, 0x01];

/// The hashes that may carry trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    pub(super) fn of_id(id: u8) -> Option<Self> {
        Some(match id {
            8 => Self::Sha256,
            9 => Self::Sha384,
            10 => Self::Sha512,
            _ => return None,
        })
    }

    pub(super) fn of(self, message: &[u8]) -> digest::Digest {
        let algorithm = match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, message)
    }
}

#[derive(Clone, Debug)]
enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    Ed25519([u8; 32]),
    /// A key that cannot sign for us: for encryption, or of an algorithm that is not supported.
    Other,
}

/// The numbers of a signature.
#[derive(Clone, Debug)]
pub(super) enum Values {
    Rsa(Vec<u8>),
    Ed25519([u8; 64]),
}

impl Values {
    /// Reads the numbers of a signature by a key of `algorithm`.
    pub(super) fn parse(algorithm: u8, cursor: &mut Cursor<'_>) -> Option<Self> {
        match algorithm {
            RSA | RSA_SIGN_ONLY => cursor.integer().map(|value| Self::Rsa(value.to_vec())),
            EDDSA_LEGACY => {
                let (r, s) = (cursor.integer()?, cursor.integer()?);
                let mut both = [0; 64];
                // The integers lost their leading zeros; the curve's coding has fixed places.
                both[..32]
                    .get_mut(32_usize.checked_sub(r.len())?..)?
                    .copy_from_slice(r);
                both[32..]
                    .get_mut(32_usize.checked_sub(s.len())?..)?
                    .copy_from_slice(s);
                Some(Self::Ed25519(both))
            }
            ED25519_NEW => cursor.take(64)?.try_into().ok().map(Self::Ed25519),
            _ => None,
        }
    }
}

/// A primary key or subkey of version 4.
#[derive(Clone, Debug)]
pub(super) struct PublicKey {
    pub(super) fingerprint: Fingerprint,
    pub(super) created: i64,
    /// The packet's body, which signatures over the key cover.
    body: Vec<u8>,
    material: Material,
}

impl PublicKey {
    /// Reads the body of a public key packet; `None` when it is malformed or not of version 4.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(body);
        if cursor.byte()? != 4 {
            return None;
        }
        let created = i64::from(cursor.u32()?);
        let material = match cursor.byte()? {
            RSA | RSA_SIGN_ONLY => {
                let (modulus, exponent) = (cursor.integer()?.to_vec(), cursor.integer()?.to_vec());
                Material::Rsa { modulus, exponent }
            }
            EDDSA_LEGACY => {
                let length = usize::from(cursor.byte()?);
                let curve = cursor.take(length)?;
                match (curve == ED25519_OID, cursor.integer()?.split_first()) {
                    (true, Some((0x40, point))) => Material::Ed25519(point.try_into().ok()?),
                    _ => Material::Other,
                }
            }
            ED25519_NEW => Material::Ed25519(cursor.take(32)?.try_into().ok()?),
            _ => Material::Other,
        };
        let mut key = Self {
            fingerprint: Fingerprint([0; 20]),
            created,
            body: body.to_vec(),
            material,
        };
        // SHA-1 names the key (RFC 4880 12.2); what is trusted is the key itself, not its name.
        let named = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &key.hashed()?);
        key.fingerprint.0.copy_from_slice(named.as_ref());
        Some(key)
    }

    /// The key as signatures over it hash it (RFC 9580 5.2.4).
    pub(super) fn hashed(&self) -> Option<Vec<u8>> {
        let length = u16::try_from(self.body.len()).ok()?;
        let mut bytes = vec![0x99];
        bytes.extend(length.to_be_bytes());
        bytes.extend_from_slice(&self.body);
        Some(bytes)
    }

    /// Checks the numbers of a signature over `message`, to be hashed with `hash`.
    pub(super) fn check(&self, hash: Hash, message: &[u8], values: &Values) -> Result<(), Rejection> {
        match (&self.material, values) {
            (Material::Rsa { modulus, exponent }, Values::Rsa(value)) => {
                let parameters = match hash {
                    Hash::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
                    Hash::Sha384 => &RSA_PKCS1_2048_8192_SHA384,
                    Hash::Sha512 => &RSA_PKCS1_2048_8192_SHA512,
                };
                let missing = modulus
                    .len()
                    .checked_sub(value.len())
                    .ok_or(Rejection::BadSignature)?;
                let mut padded = vec![0; missing];
                padded.extend_from_slice(value);
                RsaPublicKeyComponents {
                    n: modulus,
                    e: exponent,
                }
                .verify(parameters, message, &padded)
                .map_err(|_| Rejection::BadSignature)
            }
            (Material::Ed25519(point), Values::Ed25519(both)) => {
                // OpenPGP signs the hash of the message with the plain (not prehashed) variant.
                UnparsedPublicKey::new(&ED25519, point)
                    .verify(hash.of(message).as_ref(), both)
                    .map_err(|_| Rejection::BadSignature)
            }
            _ => Err(Rejection::WeakOrUnknownAlgorithm),
        }
    }
}
