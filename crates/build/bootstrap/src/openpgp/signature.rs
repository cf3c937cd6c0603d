//! Signature packets of version 4 (RFC 9580 section 5.2).

use super::key::{Hash, PublicKey, Values};
use super::packet::Cursor;
use super::{CLOCK_TOLERANCE, Fingerprint, Rejection};

pub(super) const BINARY: u8 = 0x00;
pub(super) const TEXT: u8 = 0x01;
pub(super) const SUBKEY_BINDING: u8 = 0x18;
pub(super) const PRIMARY_BINDING: u8 = 0x19;
pub(super) const DIRECT: u8 = 0x1F;
pub(super) const KEY_REVOCATION: u8 = 0x20;
pub(super) const SUBKEY_REVOCATION: u8 = 0x28;
pub(super) const CERTIFICATION_REVOCATION: u8 = 0x30;

/// Whether a kind certifies a user id.
pub(super) const fn certifies(kind: u8) -> bool {
    matches!(kind, 0x10..=0x13)
}

/// What a signature says about itself in its subpackets.
#[derive(Clone, Debug, Default)]
struct Claims {
    created: Option<i64>,
    /// Seconds after `created` when the signature ends; 0 is never.
    expires: Option<u32>,
    /// Seconds after the key's creation when the key ends; 0 is never.
    key_expires: Option<u32>,
    flags: Option<u8>,
    issuer: Option<[u8; 8]>,
    issuer_fingerprint: Option<Fingerprint>,
    revokers: Vec<Fingerprint>,
    embedded: Vec<Vec<u8>>,
    /// A subpacket that must be understood and is not.
    unknown: bool,
}

/// One signature.
#[derive(Clone, Debug)]
pub(super) struct Signature {
    pub(super) kind: u8,
    hash: Hash,
    /// From the version to the end of the hashed subpackets: the part that signs itself.
    hashed: Vec<u8>,
    /// The first two bytes of the hash.
    start: [u8; 2],
    values: Values,
    claims: Claims,
}

impl Signature {
    /// Reads the body of a signature packet.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Rejection> {
        let mut cursor = Cursor(body);
        let bad = Rejection::BadSignature;
        if cursor.byte().ok_or(bad)? != 4 {
            return Err(Rejection::WeakOrUnknownAlgorithm);
        }
        let kind = cursor.byte().ok_or(bad)?;
        let algorithm = cursor.byte().ok_or(bad)?;
        let hash = cursor.byte().ok_or(bad)?;
        let length = usize::from(cursor.u16().ok_or(bad)?);
        let inside = cursor.take(length).ok_or(bad)?;
        let hashed = body[..6 + length].to_vec();
        let length = usize::from(cursor.u16().ok_or(bad)?);
        let outside = cursor.take(length).ok_or(bad)?;
        let start = cursor.take(2).ok_or(bad)?;
        let hash = Hash::of_id(hash).ok_or(Rejection::WeakOrUnknownAlgorithm)?;
        let values = Values::parse(algorithm, &mut cursor).ok_or(Rejection::WeakOrUnknownAlgorithm)?;
        let mut claims = Claims::default();
        claims.read(inside, true).ok_or(bad)?;
        claims.read(outside, false).ok_or(bad)?;
        if !cursor.0.is_empty() || claims.unknown {
            return Err(bad);
        }
        Ok(Self {
            kind,
            hash,
            hashed,
            start: [start[0], start[1]],
            values,
            claims,
        })
    }

    /// When it was made, if it counts at `now`.
    pub(super) fn created_at(&self, now: i64) -> Result<i64, Rejection> {
        let created = self.claims.created.ok_or(Rejection::BadSignature)?;
        if created > now.saturating_add(CLOCK_TOLERANCE) {
            return Err(Rejection::FromTheFuture);
        }
        match self.claims.expires {
            Some(seconds) if seconds > 0 && created + i64::from(seconds) < now => {
                Err(Rejection::SignatureExpired)
            }
            _ => Ok(created),
        }
    }

    /// Checks it over the parts that its kind covers.
    pub(super) fn verify(&self, key: &PublicKey, parts: &[&[u8]]) -> Result<(), Rejection> {
        let length = u32::try_from(self.hashed.len()).map_err(|_| Rejection::BadSignature)?;
        let mut message = parts.concat();
        message.extend_from_slice(&self.hashed);
        message.extend([4, 0xFF]);
        message.extend(length.to_be_bytes());
        if self.hash.of(&message).as_ref()[..2] != self.start {
            return Err(Rejection::BadSignature);
        }
        key.check(self.hash, &message, &self.values)
    }

    /// Whether it says that `key` made it. One that names nobody may be by anybody.
    pub(super) fn may_be_by(&self, key: &PublicKey) -> bool {
        match (self.claims.issuer_fingerprint, self.claims.issuer) {
            (Some(fingerprint), _) => fingerprint == key.fingerprint,
            (None, Some(id)) => id == key.fingerprint.id(),
            (None, None) => true,
        }
    }

    /// The key that it names, for people.
    pub(super) fn issuer_text(&self) -> String {
        match (self.claims.issuer_fingerprint, self.claims.issuer) {
            (Some(fingerprint), _) => fingerprint.to_string(),
            (None, Some(id)) => id.iter().map(|byte| format!("{byte:02X}")).collect(),
            (None, None) => "an unnamed key".to_owned(),
        }
    }

    /// Seconds of life that it gives to the key it is about.
    pub(super) fn key_expires(&self) -> Option<u32> {
        self.claims.key_expires.filter(|seconds| *seconds > 0)
    }

    /// Whether it allows the key to sign documents; `None` when it does not say.
    pub(super) fn may_sign(&self) -> Option<bool> {
        self.claims.flags.map(|flags| flags & 2 != 0)
    }

    /// Keys that may revoke the one it is about.
    pub(super) fn revokers(&self) -> &[Fingerprint] {
        &self.claims.revokers
    }

    /// Whether it names one of `keys` as its maker.
    pub(super) fn claims_one_of(&self, keys: &[Fingerprint]) -> bool {
        keys.iter()
            .any(|key| self.claims.issuer_fingerprint == Some(*key) || self.claims.issuer == Some(key.id()))
    }

    /// Signatures inside it.
    pub(super) fn embedded(&self) -> impl Iterator<Item = Self> + '_ {
        self.claims
            .embedded
            .iter()
            .filter_map(|body| Self::parse(body).ok())
    }
}

impl Claims {
    /// Reads an area of subpackets (section 5.2.3.7). Outside the hashed area only hints count, and the embedded
    /// signature, which proves itself.
    fn read(&mut self, area: &[u8], hashed: bool) -> Option<()> {
        let mut cursor = Cursor(area);
        while !cursor.0.is_empty() {
            let length = cursor.length()?;
            let mut body = Cursor(cursor.take(length)?);
            let kind = body.byte()?;
            match (kind & 0x7F, hashed) {
                (2, true) => self.created = Some(i64::from(body.u32()?)),
                (3, true) => self.expires = Some(body.u32()?),
                (9, true) => self.key_expires = Some(body.u32()?),
                (12, true) => {
                    let fingerprint = body.0.get(2..22)?.try_into().ok()?;
                    self.revokers.push(Fingerprint(fingerprint));
                }
                (16, _) => self.issuer = Some(body.0.try_into().ok()?),
                (27, true) => self.flags = Some(body.0.first().copied().unwrap_or(0)),
                (32, _) => self.embedded.push(body.0.to_vec()),
                // An issuer of another key version names none of our keys.
                (33, _) if body.byte()? == 4 => {
                    self.issuer_fingerprint = Some(Fingerprint(body.0.try_into().ok()?));
                }
                // Known and without a say in whether a signature is good: trust, regular expression, revocable,
                // preferences, notation, key server, primary user id, policy, signer's id, reason, features, target.
                (4..=7 | 10 | 11 | 20..=26 | 28..=31 | 33..=39, _) => (),
                (_, true) => self.unknown |= kind & 0x80 != 0,
                (_, false) => (),
            }
        }
        Some(())
    }
}
