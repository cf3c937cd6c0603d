//! Keyrings: primary keys with what is bound to them (RFC 9580 section 10.1).

use dhow_types::ErrorKind;

use super::key::PublicKey;
use super::packet::{self, Packets};
use super::signature::{self, Signature};
use super::{Fingerprint, Rejection, Signer, armor};
use crate::Error;

/// Debian's whole keyring is 50 kB.
const MAX_KEYRING: usize = 16 << 20;
const MAX_PACKETS: usize = 100_000;

/// Public keys whose signatures are trusted.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    certificates: Vec<Certificate>,
}

/// A primary key, its user ids and subkeys, each with the signatures that follow it in the file.
#[derive(Clone, Debug)]
struct Certificate {
    primary: PublicKey,
    direct: Vec<Signature>,
    users: Vec<(Vec<u8>, Vec<Signature>)>,
    subkeys: Vec<(PublicKey, Vec<Signature>)>,
    /// There is a revocation that cannot be checked.
    doubtful: bool,
}

/// A key that may have made a signature.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub(super) key: &'a PublicKey,
    certificate: &'a Certificate,
}

impl Candidate<'_> {
    pub(super) fn signer(&self, created: i64) -> Signer {
        let user = self.certificate.users.first().map(|(user, _)| user.as_slice());
        Signer {
            key: self.key.fingerprint,
            primary: self.certificate.primary.fingerprint,
            user: String::from_utf8_lossy(user.unwrap_or_default()).into_owned(),
            created,
        }
    }
}

impl Keyring {
    /// A keyring without keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the keys of a keyring file: packets (`.gpg`) or armor (`.asc`). Keys of other versions are left out.
    ///
    /// # Errors
    /// When the file is neither, or has no key at all.
    pub fn add(&mut self, file: &[u8]) -> Result<(), Error> {
        if file.len() > MAX_KEYRING {
            return Err(Error::new(
                ErrorKind::ResourceExhausted,
                "a keyring is over 16 MiB",
            ));
        }
        if file.get(8..12) == Some(b"KBXf") {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a keyring is in the keybox format of gnupg",
            )
            .with_hint("export it with: gpg --export"));
        }
        let packets = if armor::is_armored(file) {
            armor::decode_all(file, "PGP PUBLIC KEY BLOCK")?
        } else {
            file.to_vec()
        };
        let before = self.certificates.len();
        self.read(&packets)?;
        if self.certificates.len() == before {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "a keyring without a usable key",
            ));
        }
        Ok(())
    }

    fn read(&mut self, packets: &[u8]) -> Result<(), Error> {
        /// What the signatures that come next are about.
        enum About {
            Nothing,
            Primary,
            User,
            Subkey,
        }
        let mut about = About::Nothing;
        let mut current: Option<Certificate> = None;
        for (count, packet) in Packets::new(packets).enumerate() {
            let packet = packet?;
            if count == MAX_PACKETS {
                return Err(Error::new(
                    ErrorKind::ResourceExhausted,
                    "too many packets in a keyring",
                ));
            }
            if packet.tag == packet::PUBLIC_KEY {
                self.certificates.extend(current.take());
                current = PublicKey::parse(packet.body).map(Certificate::new);
                about = About::Primary;
                continue;
            }
            let Some(certificate) = &mut current else { continue };
            match packet.tag {
                packet::USER_ID => {
                    certificate.users.push((packet.body.to_vec(), Vec::new()));
                    about = About::User;
                }
                packet::PUBLIC_SUBKEY => match PublicKey::parse(packet.body) {
                    Some(key) => {
                        certificate.subkeys.push((key, Vec::new()));
                        about = About::Subkey;
                    }
                    None => about = About::Nothing,
                },
                packet::USER_ATTRIBUTE => about = About::Nothing,
                packet::SIGNATURE => {
                    let Ok(signature) = Signature::parse(packet.body) else {
                        // Old versions and weak hashes stand in every keyring: they prove nothing. But a revocation
                        // that cannot be checked is no reason to go on trusting the key.
                        let kind = packet.body.get(1).copied();
                        certificate.doubt(kind);
                        if kind == Some(signature::SUBKEY_REVOCATION) {
                            about = About::Nothing;
                        }
                        continue;
                    };
                    let list = match about {
                        About::Nothing => continue,
                        About::Primary => Some(&mut certificate.direct),
                        About::User => certificate.users.last_mut().map(|(_, list)| list),
                        About::Subkey => certificate.subkeys.last_mut().map(|(_, list)| list),
                    };
                    if let Some(list) = list {
                        list.push(signature);
                    }
                }
                // Trust and marker packets of old keyrings.
                _ => (),
            }
        }
        self.certificates.extend(current.take());
        Ok(())
    }

    /// Keeps only the keys with these fingerprints (of a primary key or subkey, in upper case).
    pub fn restrict(&mut self, fingerprints: &[String]) {
        self.certificates.retain(|certificate| {
            let subkeys = certificate.subkeys.iter().map(|(key, _)| key);
            let mut keys = std::iter::once(&certificate.primary).chain(subkeys);
            keys.any(|key| fingerprints.contains(&key.fingerprint.to_string()))
        });
    }

    /// Fingerprints of all primary keys.
    pub fn primaries(&self) -> impl Iterator<Item = Fingerprint> + '_ {
        self.certificates
            .iter()
            .map(|certificate| certificate.primary.fingerprint)
    }

    /// The keys that `signature` may be by, each with why it does not count at `now`, if so.
    pub(super) fn signers<'a>(
        &'a self,
        signature: &'a Signature,
        now: i64,
    ) -> impl Iterator<Item = Result<Candidate<'a>, Rejection>> + 'a {
        self.certificates.iter().flat_map(move |certificate| {
            let subkeys = certificate
                .subkeys
                .iter()
                .map(|(key, bindings)| (key, Some(bindings)));
            std::iter::once((&certificate.primary, None))
                .chain(subkeys)
                .filter(|(key, _)| signature.may_be_by(key))
                .map(move |(key, bindings)| {
                    match bindings {
                        None => certificate.check_primary(now, true)?,
                        Some(bindings) => {
                            certificate.check_primary(now, false)?;
                            certificate.check_subkey(key, bindings, now)?;
                        }
                    }
                    Ok(Candidate { key, certificate })
                })
        })
    }
}

impl Certificate {
    fn new(primary: PublicKey) -> Self {
        Self {
            primary,
            direct: Vec::new(),
            users: Vec::new(),
            subkeys: Vec::new(),
            doubtful: false,
        }
    }

    /// Takes note of a signature of some kind that cannot be checked.
    fn doubt(&mut self, kind: Option<u8>) {
        match kind {
            Some(signature::KEY_REVOCATION) => self.doubtful = true,
            // The subkey it is about is the last one that was read.
            Some(signature::SUBKEY_REVOCATION) => drop(self.subkeys.pop()),
            _ => (),
        }
    }

    /// Whether `signature` is a valid one by the primary key over itself and `part`, and when it was made.
    fn own(&self, signature: &Signature, part: &[u8], now: i64) -> Option<i64> {
        let created = signature.created_at(now).ok()?;
        let primary = self.primary.hashed()?;
        let good =
            signature.may_be_by(&self.primary) && signature.verify(&self.primary, &[&primary, part]).is_ok();
        good.then_some(created)
    }

    /// The newest valid self-signature of a list whose kind `wanted` accepts.
    fn newest<'a>(
        &self,
        list: &'a [Signature],
        part: &[u8],
        now: i64,
        wanted: impl Fn(u8) -> bool,
    ) -> Option<(i64, &'a Signature)> {
        list.iter()
            .filter(|signature| wanted(signature.kind))
            .filter_map(|signature| Some((self.own(signature, part, now)?, signature)))
            .max_by_key(|(created, _)| *created)
    }

    /// Whether the primary key is bound, alive and not revoked; with `signing` also whether it may sign documents.
    fn check_primary(&self, now: i64, signing: bool) -> Result<(), Rejection> {
        let direct = self.newest(&self.direct, &[], now, |kind| kind == signature::DIRECT);
        let user = self
            .users
            .iter()
            .filter_map(|(user, list)| {
                let part = user_hashed(user)?;
                let certified = self.newest(list, &part, now, signature::certifies)?;
                let revocation = |kind| kind == signature::CERTIFICATION_REVOCATION;
                let revoked = self.newest(list, &part, now, revocation);
                let stands = revoked.is_none_or(|(at, _)| at < certified.0);
                stands.then_some(certified)
            })
            .max_by_key(|(created, _)| *created);
        if direct.is_none() && user.is_none() {
            return Err(Rejection::KeyUnbound);
        }
        if self.doubtful || self.is_revoked(now) {
            return Err(Rejection::KeyRevoked);
        }
        // The user's signature usually has the expiry, the direct one the revokers; where both speak the earlier ends it.
        let both = [user, direct]
            .into_iter()
            .flatten()
            .map(|(_, signature)| signature);
        let life = both.clone().filter_map(Signature::key_expires).min();
        alive(self.primary.created, life, now)?;
        let may_sign = both.into_iter().find_map(Signature::may_sign);
        if signing && may_sign == Some(false) {
            return Err(Rejection::KeyCannotSign);
        }
        Ok(())
    }

    /// A revocation by the key itself counts when it is valid; one that says it is by a designated revoker always does:
    /// the revoker's key is seldom in the keyring, and doubt is no reason to trust.
    fn is_revoked(&self, now: i64) -> bool {
        let revokers: Vec<Fingerprint> = self
            .direct
            .iter()
            .chain(self.users.iter().flat_map(|(_, list)| list))
            .flat_map(Signature::revokers)
            .copied()
            .collect();
        self.direct
            .iter()
            .filter(|signature| signature.kind == signature::KEY_REVOCATION)
            .any(|signature| self.own(signature, &[], now).is_some() || signature.claims_one_of(&revokers))
    }

    /// Whether a subkey is bound for signing by both sides, alive and not revoked.
    fn check_subkey(&self, key: &PublicKey, bindings: &[Signature], now: i64) -> Result<(), Rejection> {
        let part = key.hashed().ok_or(Rejection::KeyUnbound)?;
        let revocation = |kind| kind == signature::SUBKEY_REVOCATION;
        if self.newest(bindings, &part, now, revocation).is_some() {
            return Err(Rejection::KeyRevoked);
        }
        let binding = |kind| kind == signature::SUBKEY_BINDING;
        let (_, binding) = self
            .newest(bindings, &part, now, binding)
            .ok_or(Rejection::KeyUnbound)?;
        alive(key.created, binding.key_expires(), now)?;
        if binding.may_sign() != Some(true) {
            return Err(Rejection::KeyCannotSign);
        }
        // Without the back-signature anybody could adopt another's subkey, and with it that one's signatures.
        let primary = self.primary.hashed().ok_or(Rejection::KeyUnbound)?;
        let back = binding.embedded().any(|signature| {
            signature.kind == signature::PRIMARY_BINDING
                && signature.created_at(now).is_ok()
                && signature.verify(key, &[&primary, &part]).is_ok()
        });
        if back { Ok(()) } else { Err(Rejection::KeyUnbound) }
    }
}

fn alive(created: i64, life: Option<u32>, now: i64) -> Result<(), Rejection> {
    match life {
        Some(seconds) if created + i64::from(seconds) < now => Err(Rejection::KeyExpired),
        _ => Ok(()),
    }
}

/// A user id as signatures over it hash it (RFC 9580 5.2.4).
fn user_hashed(user: &[u8]) -> Option<Vec<u8>> {
    let mut part = vec![0xB4];
    part.extend(u32::try_from(user.len()).ok()?.to_be_bytes());
    part.extend_from_slice(user);
    Some(part)
}
