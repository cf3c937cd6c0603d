//! Keys: what signs, and what verifies.
//!
//! How a signature is checked follows from the key alone, never from what the signed document says of itself: a document
//! that asks for another algorithm, or for none, is refused (RFC 8725, section 3.1).

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self as crypto, KeyPair as _, UnparsedPublicKey, VerificationAlgorithm};
use dhow_types::{Digest, ErrorKind};

use crate::der::{self, Reader};
use crate::{Error, pem, sealed};

/// Smallest RSA modulus that is accepted, in bits (NIST SP 800-131A).
const LEAST_RSA: usize = 2048;

pub(crate) const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const OID_ED25519: &[u8] = &[0x2b, 0x65, 0x70];
pub(crate) const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const OID_P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const OID_P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];

/// What a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    P256,
    P384,
    P521,
    Ed25519,
    /// With the bits of its modulus.
    Rsa(usize),
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Sigstore's: ECDSA in ASN.1, RSA with PKCS #1 v1.5.
    Plain,
    /// JOSE's (RFC 7518): ECDSA as two numbers, RSA with PSS.
    Jose,
}

impl Kind {
    /// The kind that an algorithm identifier names; `rsa` gives the bits where it is RSA.
    fn of(algorithm: &mut Reader<'_>, rsa: impl FnOnce() -> Result<usize, Error>) -> Result<Self, Error> {
        let kind = match algorithm.expect(der::OID)? {
            OID_EC => match algorithm.expect(der::OID)? {
                OID_P256 => Self::P256,
                OID_P384 => Self::P384,
                OID_P521 => Self::P521,
                _ => return Err(unsupported("its curve is none of P-256, P-384 and P-521")),
            },
            OID_ED25519 => Self::Ed25519,
            OID_RSA => match rsa()? {
                bits if bits < LEAST_RSA => {
                    return Err(unsupported(&format!(
                        "RSA with {bits} bits is too weak, {LEAST_RSA} are the least"
                    )));
                }
                bits => Self::Rsa(bits),
            },
            _ => return Err(unsupported("it is neither ECDSA, Ed25519 nor RSA")),
        };
        Ok(kind)
    }

    /// The name of its algorithm in JOSE (RFC 7518, section 3.1; Notary Project, `signature-specification.md`,
    /// "Algorithm selection"); none for what notation does not sign with.
    pub(crate) const fn jose(self) -> Option<&'static str> {
        match self {
            Self::P256 => Some("ES256"),
            Self::P384 => Some("ES384"),
            Self::P521 => Some("ES512"),
            Self::Ed25519 => None,
            Self::Rsa(3072) => Some("PS384"),
            Self::Rsa(4096) => Some("PS512"),
            Self::Rsa(_) => Some("PS256"),
        }
    }

    /// The algorithms that a signature may have been made with, the usual one first.
    fn verifying(self, scheme: Scheme) -> Vec<&'static dyn VerificationAlgorithm> {
        match (scheme, self) {
            (Scheme::Plain, Self::P256) => vec![&crypto::ECDSA_P256_SHA256_ASN1],
            // cosign hashed with SHA-256 whatever the key, until its version 3.
            (Scheme::Plain, Self::P384) => {
                vec![&crypto::ECDSA_P384_SHA384_ASN1, &crypto::ECDSA_P384_SHA256_ASN1]
            }
            (Scheme::Plain, Self::P521) => {
                vec![&crypto::ECDSA_P521_SHA512_ASN1, &crypto::ECDSA_P521_SHA256_ASN1]
            }
            (_, Self::Ed25519) => vec![&crypto::ED25519],
            (Scheme::Plain, Self::Rsa(_)) => vec![&crypto::RSA_PKCS1_2048_8192_SHA256],
            (Scheme::Jose, Self::P256) => vec![&crypto::ECDSA_P256_SHA256_FIXED],
            (Scheme::Jose, Self::P384) => vec![&crypto::ECDSA_P384_SHA384_FIXED],
            (Scheme::Jose, Self::P521) => vec![&crypto::ECDSA_P521_SHA512_FIXED],
            (Scheme::Jose, Self::Rsa(3072)) => vec![&crypto::RSA_PSS_2048_8192_SHA384],
            (Scheme::Jose, Self::Rsa(4096)) => vec![&crypto::RSA_PSS_2048_8192_SHA512],
            (Scheme::Jose, Self::Rsa(_)) => vec![&crypto::RSA_PSS_2048_8192_SHA256],
        }
    }
}

fn unsupported(why: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("the key is of no use here: {why}"),
    )
}

fn rejected(error: impl fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("the key is damaged: {error}"))
}

/// A key that verifies.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: Kind,
    /// The key as the library wants it: a point, 32 bytes, or an `RSAPublicKey`.
    raw: Vec<u8>,
    spki: Vec<u8>,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?} {})", self.kind, self.fingerprint().short())
    }
}

impl PublicKey {
    /// The key of a PEM file: `PUBLIC KEY`, or that of a `CERTIFICATE`.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no such file, `Unsupported` for a key that is not ECDSA on a NIST curve, Ed25519 or
    /// RSA of 2048 bits or more.
    pub fn from_pem(text: &[u8]) -> Result<Self, Error> {
        let blocks = pem::blocks(text)?;
        for (label, bytes) in &blocks {
            match label.as_str() {
                "PUBLIC KEY" => return Self::from_spki(bytes),
                "CERTIFICATE" => return Ok(crate::Certificate::parse(bytes)?.key().clone()),
                _ => {}
            }
        }
        let is_private = blocks.iter().any(|(label, _)| label.ends_with("PRIVATE KEY"));
        let message = if is_private {
            "the file has a private key, and the public one is asked for"
        } else {
            "the file has no public key"
        };
        Err(Error::new(ErrorKind::InvalidArgument, message))
    }

    /// The key of a `SubjectPublicKeyInfo` (RFC 5280, section 4.1.2.7).
    ///
    /// # Errors
    /// As [`PublicKey::from_pem`].
    pub fn from_spki(spki: &[u8]) -> Result<Self, Error> {
        let mut outer = Reader::only(spki, der::SEQUENCE)?;
        let mut algorithm = outer.inside(der::SEQUENCE)?;
        let raw = outer.bits()?;
        outer.end()?;
        let kind = Kind::of(&mut algorithm, || {
            let mut numbers = Reader::only(raw, der::SEQUENCE)?;
            let modulus = numbers.expect(der::INTEGER)?;
            let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
            let spare = modulus.first().map_or(0, |first| first.leading_zeros() as usize);
            Ok(modulus.len() * 8 - spare)
        })?;
        Ok(Self {
            kind,
            raw: raw.to_vec(),
            spki: spki.to_vec(),
        })
    }

    /// The key as a PEM file.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &self.spki)
    }

    /// The digest of its `SubjectPublicKeyInfo`: what names it.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.spki)
    }

    pub(crate) fn spki(&self) -> &[u8] {
        &self.spki
    }

    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn verify(&self, scheme: Scheme, message: &[u8], signature: &[u8]) -> bool {
        self.kind.verifying(scheme).into_iter().any(|algorithm| {
            UnparsedPublicKey::new(algorithm, &self.raw)
                .verify(message, signature)
                .is_ok()
        })
    }
}

/// A key that signs.
#[derive(Clone)]
pub struct PrivateKey {
    kind: Kind,
    /// PKCS #8, SEC 1 or PKCS #1.
    der: Vec<u8>,
    public: PublicKey,
}

/// Never the key itself.
impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?})", self.public)
    }
}

impl PrivateKey {
    /// A new key: ECDSA on P-256, what every verifier knows.
    ///
    /// # Errors
    /// `Internal` when the host has no random numbers.
    pub fn generate() -> Result<Self, Error> {
        let made = crypto::EcdsaKeyPair::generate_pkcs8(
            &crypto::ECDSA_P256_SHA256_ASN1_SIGNING,
            &SystemRandom::new(),
        );
        let made =
            made.map_err(|_| Error::new(ErrorKind::Internal, "make a key: the host gave no random numbers"))?;
        Self::from_pkcs8(made.as_ref())
    }

    /// The key of a PEM file: plain (`PRIVATE KEY`, `EC PRIVATE KEY`, `RSA PRIVATE KEY`) or encrypted as cosign does it
    /// (`ENCRYPTED SIGSTORE PRIVATE KEY`). `pass_phrase` is asked for an encrypted one only.
    ///
    /// # Errors
    /// `Unauthenticated` for a wrong pass phrase; as [`PublicKey::from_pem`]; what `pass_phrase` said.
    pub fn from_pem<E: From<Error>>(
        text: &[u8],
        pass_phrase: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        for (label, bytes) in pem::blocks(text)? {
            let key = match label.as_str() {
                "PRIVATE KEY" => Self::from_pkcs8(&bytes),
                "EC PRIVATE KEY" => Self::from_sec1(bytes),
                "RSA PRIVATE KEY" => Self::from_rsa(bytes),
                sealed::LABEL | sealed::OLD_LABEL => {
                    Self::from_pkcs8(&sealed::open(&bytes, &pass_phrase()?)?)
                }
                "ENCRYPTED PRIVATE KEY" => Err(Error::new(
                    ErrorKind::Unsupported,
                    "the key is encrypted as PKCS #5, which is not read here",
                )
                .with_hint(
                    "openssl pkey -in KEY writes it plain; cosign import-key-pair makes cosign's form of it",
                )),
                _ => continue,
            };
            return Ok(key?);
        }
        Err(Error::new(ErrorKind::InvalidArgument, "the file has no private key").into())
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, Error> {
        let mut outer = Reader::only(der, der::SEQUENCE)?;
        outer.expect(der::INTEGER)?;
        let mut algorithm = outer.inside(der::SEQUENCE)?;
        let rsa = || {
            let pair = crypto::RsaKeyPair::from_pkcs8(der).map_err(rejected)?;
            Ok(pair.public_modulus_len() * 8)
        };
        let kind = Kind::of(&mut algorithm, rsa)?;
        Self::of(kind, der.to_vec())
    }

    fn from_sec1(der: Vec<u8>) -> Result<Self, Error> {
        let mut outer = Reader::only(&der, der::SEQUENCE)?;
        outer.expect(der::INTEGER)?;
        outer.expect(der::OCTETS)?;
        let curve = match outer.optional(der::context(0))? {
            Some(curve) => curve.to_vec(),
            None => return Err(rejected("it does not say its curve")),
        };
        let oid = der::element(der::OID, &[OID_EC]);
        let algorithm = [oid, curve].concat();
        let none = || Err(rejected("it is no RSA key"));
        let kind = Kind::of(&mut Reader::new(&algorithm), none)?;
        Self::of(kind, der)
    }

    fn from_rsa(der: Vec<u8>) -> Result<Self, Error> {
        let pair = crypto::RsaKeyPair::from_der(&der).map_err(rejected)?;
        match pair.public_modulus_len() * 8 {
            bits if bits < LEAST_RSA => Err(unsupported(&format!("RSA with {bits} bits is too weak"))),
            bits => Self::of(Kind::Rsa(bits), der),
        }
    }

    fn of(kind: Kind, der: Vec<u8>) -> Result<Self, Error> {
        let algorithm = |parts: &[&[u8]]| der::sequence(parts);
        let oid = |oid: &[u8]| der::element(der::OID, &[oid]);
        let (algorithm, raw) = match kind {
            Kind::P256 | Kind::P384 | Kind::P521 => {
                let (signing, curve) = curve(kind, Scheme::Plain);
                let pair = crypto::EcdsaKeyPair::from_private_key_der(signing, &der).map_err(rejected)?;
                (
                    algorithm(&[&oid(OID_EC), &oid(curve)]),
                    pair.public_key().as_ref().to_vec(),
                )
            }
            Kind::Ed25519 => {
                let pair = crypto::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(rejected)?;
                (
                    algorithm(&[&oid(OID_ED25519)]),
                    pair.public_key().as_ref().to_vec(),
                )
            }
            Kind::Rsa(_) => {
                let pair = rsa(&der)?;
                let null = der::element(der::NULL, &[]);
                (
                    algorithm(&[&oid(OID_RSA), &null]),
                    pair.public_key().as_ref().to_vec(),
                )
            }
        };
        let public = PublicKey::from_spki(&der::sequence(&[&algorithm, &der::bits(&raw)]))?;
        Ok(Self { kind, der, public })
    }

    /// The key that verifies what this one signs.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The key as a PEM file: encrypted in cosign's form when there is a pass phrase.
    ///
    /// # Errors
    /// `Unsupported` for a key that was not read as PKCS #8; `Internal` when the host has no random numbers.
    pub fn to_pem(&self, pass_phrase: Option<&[u8]>) -> Result<String, Error> {
        let mut outer = Reader::only(&self.der, der::SEQUENCE)?;
        outer.expect(der::INTEGER)?;
        outer
            .expect(der::SEQUENCE)
            .map_err(|_| unsupported("only a PKCS #8 key is written"))?;
        Ok(match pass_phrase {
            Some(pass_phrase) => pem::encode(sealed::LABEL, &sealed::seal(&self.der, pass_phrase)?),
            None => pem::encode("PRIVATE KEY", &self.der),
        })
    }

    /// The signature of a message.
    ///
    /// # Errors
    /// `Unsupported` for a key that the scheme has no algorithm for; `Internal` when signing fails.
    pub(crate) fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |_| Error::new(ErrorKind::Internal, "make a signature");
        let random = SystemRandom::new();
        match self.kind {
            Kind::P256 | Kind::P384 | Kind::P521 => {
                let (signing, _) = curve(self.kind, scheme);
                let pair =
                    crypto::EcdsaKeyPair::from_private_key_der(signing, &self.der).map_err(rejected)?;
                Ok(pair.sign(&random, message).map_err(failed)?.as_ref().to_vec())
            }
            Kind::Ed25519 => {
                let pair = crypto::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&self.der).map_err(rejected)?;
                Ok(pair.sign(message).as_ref().to_vec())
            }
            Kind::Rsa(bits) => {
                let pair = rsa(&self.der)?;
                let how: &dyn crypto::RsaEncoding = match (scheme, bits) {
                    (Scheme::Plain, _) => &crypto::RSA_PKCS1_SHA256,
                    (Scheme::Jose, 3072) => &crypto::RSA_PSS_SHA384,
                    (Scheme::Jose, 4096) => &crypto::RSA_PSS_SHA512,
                    (Scheme::Jose, _) => &crypto::RSA_PSS_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(how, &random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
        }
    }
}

fn rsa(der: &[u8]) -> Result<crypto::RsaKeyPair, Error> {
    crypto::RsaKeyPair::from_pkcs8(der)
        .or_else(|_| crypto::RsaKeyPair::from_der(der))
        .map_err(rejected)
}

/// How a curve signs, and its name.
const fn curve(kind: Kind, scheme: Scheme) -> (&'static crypto::EcdsaSigningAlgorithm, &'static [u8]) {
    match (kind, scheme) {
        (Kind::P384, Scheme::Plain) => (&crypto::ECDSA_P384_SHA384_ASN1_SIGNING, OID_P384),
        (Kind::P384, Scheme::Jose) => (&crypto::ECDSA_P384_SHA384_FIXED_SIGNING, OID_P384),
        (Kind::P521, Scheme::Plain) => (&crypto::ECDSA_P521_SHA512_ASN1_SIGNING, OID_P521),
        (Kind::P521, Scheme::Jose) => (&crypto::ECDSA_P521_SHA512_FIXED_SIGNING, OID_P521),
        (_, Scheme::Plain) => (&crypto::ECDSA_P256_SHA256_ASN1_SIGNING, OID_P256),
        (_, Scheme::Jose) => (&crypto::ECDSA_P256_SHA256_FIXED_SIGNING, OID_P256),
    }
}
