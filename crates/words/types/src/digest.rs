use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// Hash of stored bytes: SHA-256, the algorithm that every OCI implementation must support
/// (image-spec `descriptor.md`, "Registered algorithms").
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// Why a text is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseDigestError {
    /// The part after the colon is not 64 lower-case hexadecimal characters.
    BadHex,
    /// There is no `algorithm:` part.
    MissingAlgorithm,
    /// The algorithm is not `sha256`.
    UnsupportedAlgorithm,
}

impl fmt::Display for ParseDigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadHex => "a sha256 digest has 64 lower-case hexadecimal characters",
            Self::MissingAlgorithm => "a digest has the form sha256:<hex>",
            Self::UnsupportedAlgorithm => "only sha256 digests are supported",
        })
    }
}

impl std::error::Error for ParseDigestError {}

impl Digest {
    /// Digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digest whose 32 raw bytes are given.
    #[must_use]
    pub const fn from_bytes(raw: [u8; 32]) -> Self {
        Self(raw)
    }

    /// The 32 raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hexadecimal characters without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut out = String::with_capacity(64);
        for byte in self.0 {
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        out
    }

    /// The first twelve hexadecimal characters, as docker prints ids.
    #[must_use]
    pub fn short(&self) -> String {
        let mut hex = self.hex();
        hex.truncate(12);
        hex
    }

    /// The digest with these 64 lower-case hexadecimal characters.
    ///
    /// # Errors
    /// [`ParseDigestError::BadHex`].
    pub fn from_hex(hex: &str) -> Result<Self, ParseDigestError> {
        let bytes = hex.as_bytes();
        if bytes.len() != 64 {
            return Err(ParseDigestError::BadHex);
        }
        let mut raw = [0; 32];
        for (out, pair) in raw.iter_mut().zip(bytes.chunks_exact(2)) {
            *out = (nibble(pair[0])? << 4) | nibble(pair[1])?;
        }
        Ok(Self(raw))
    }
}

const fn nibble(character: u8) -> Result<u8, ParseDigestError> {
    match character {
        b'0'..=b'9' => Ok(character - b'0'),
        b'a'..=b'f' => Ok(character - b'a' + 10),
        _ => Err(ParseDigestError::BadHex),
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (algorithm, hex) = text.split_once(':').ok_or(ParseDigestError::MissingAlgorithm)?;
        if algorithm != "sha256" {
            return Err(ParseDigestError::UnsupportedAlgorithm);
        }
        Self::from_hex(hex)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes a [`Digest`] piece by piece.
#[derive(Clone, Debug, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was added.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

macro_rules! digest_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl $name {
            /// The 64 hexadecimal characters.
            #[must_use]
            pub fn hex(&self) -> String {
                self.0.hex()
            }

            /// The first twelve hexadecimal characters.
            #[must_use]
            pub fn short(&self) -> String {
                self.0.short()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

digest_newtype! {
    /// Hash of an uncompressed layer tar (image-spec `config.md`, "Layer DiffID").
    DiffId
}
digest_newtype! {
    /// Hash of a stack of layers (image-spec `config.md`, "Layer ChainID").
    ChainId
}
digest_newtype! {
    /// Hash of an image's config document: what docker calls the image id.
    ImageId
}

impl ChainId {
    /// Chain id of a stack, lowest layer first; `None` for an empty stack.
    #[must_use]
    pub fn of(stack: &[DiffId]) -> Option<Self> {
        let (first, rest) = stack.split_first()?;
        Some(rest.iter().fold(Self(first.0), |chain, diff| chain.push(*diff)))
    }

    /// Chain id of this stack with one more layer on top.
    #[must_use]
    pub fn push(self, diff: DiffId) -> Self {
        Self(Digest::of(format!("{self} {diff}").as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_nothing_is_the_known_constant() {
        assert_eq!(
            Digest::of(b"").to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn digest_refuses_other_algorithms_upper_case_and_wrong_lengths() {
        let hex = "a".repeat(64);
        assert_eq!(hex.parse::<Digest>(), Err(ParseDigestError::MissingAlgorithm));
        assert_eq!(
            format!("md5:{hex}").parse::<Digest>(),
            Err(ParseDigestError::UnsupportedAlgorithm)
        );
        assert_eq!(
            format!("sha256:{}", "A".repeat(64)).parse::<Digest>(),
            Err(ParseDigestError::BadHex)
        );
        assert_eq!(
            "sha256:../../etc/passwd".parse::<Digest>(),
            Err(ParseDigestError::BadHex)
        );
        assert_eq!(
            format!("sha256:{hex}0").parse::<Digest>(),
            Err(ParseDigestError::BadHex)
        );
    }

    #[test]
    fn chain_id_of_one_layer_is_its_diff_id_and_of_two_hashes_the_text() {
        let (a, b) = (DiffId(Digest::of(b"a")), DiffId(Digest::of(b"b")));
        assert_eq!(ChainId::of(&[a]), Some(ChainId(a.0)));
        assert_eq!(
            ChainId::of(&[a, b]),
            Some(ChainId(Digest::of(format!("{a} {b}").as_bytes())))
        );
        assert_eq!(ChainId::of(&[]), None);
    }
}
