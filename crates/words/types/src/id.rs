use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not an id or a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseIdError(String);

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseIdError {}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub struct $name(String);

        impl $name {
            /// The id with these 32 random bytes.
            #[must_use]
            pub fn from_random(raw: [u8; 32]) -> Self {
                Self(crate::Digest::from_bytes(raw).hex())
            }

            /// All 64 characters.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first twelve characters, as docker prints it.
            #[must_use]
            pub fn short(&self) -> &str {
                &self.0[..12]
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let good = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                if good {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(ParseIdError("an id has 64 lower-case hexadecimal characters".to_owned()))
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_id! {
    /// Id of a container.
    ContainerId
}
hex_id! {
    /// Id of a network.
    NetworkId
}

/// Checks a name of a container, network or volume against docker's rule `[a-zA-Z0-9][a-zA-Z0-9_.-]+`
/// (moby `daemon/names`), here with an upper bound of 255 bytes, since a name is also a file name.
///
/// # Errors
/// The rule, when the name breaks it.
pub fn validate_name(name: &str) -> Result<(), ParseIdError> {
    let bytes = name.as_bytes();
    let good = bytes.len() >= 2
        && bytes.len() <= 255
        && bytes[0].is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if good {
        Ok(())
    } else {
        Err(ParseIdError(format!(
            "invalid name {name:?}: use two or more of [a-zA-Z0-9_.-], the first a letter or digit"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_be_paths_are_refused() {
        for bad in [
            "",
            "a",
            "../x",
            "a/b",
            ".hidden",
            "-flag",
            "a\nb",
            &"x".repeat(256),
        ] {
            assert!(validate_name(bad).is_err(), "{bad:?}");
        }
        for good in ["ab", "web_1", "a.b-c"] {
            assert!(validate_name(good).is_ok(), "{good:?}");
        }
    }
}
