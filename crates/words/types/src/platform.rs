use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What machine an image is for (image-spec `image-index.md`, "platform").
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// CPU architecture in Go's words: `amd64`, `arm64`.
    pub architecture: String,
    /// Operating system in Go's words: `linux`.
    pub os: String,
    /// Version of the operating system (Windows).
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features of the operating system (Windows).
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// Variant of the CPU: `v7`, `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A text that is no platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsePlatformError(String);

impl fmt::Display for ParsePlatformError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a platform: write os/architecture[/variant], such as linux/amd64",
            self.0
        )
    }
}

impl std::error::Error for ParsePlatformError {}

impl Platform {
    /// The platform that this program was built for.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            os_version: None,
            os_features: Vec::new(),
            variant: None,
        }
    }

    /// Whether an image for `offered` runs where `self` is wanted. The variants that mean "the plain one"
    /// (`arm64/v8`, `amd64/v1`) count as none (containerd `platforms.Normalize`).
    #[must_use]
    pub fn accepts(&self, offered: &Self) -> bool {
        self.os == offered.os
            && self.architecture == offered.architecture
            && self.plain_variant() == offered.plain_variant()
    }

    /// The one spelling of what has several: `arm` is `arm/v7`, `arm64/v8` and `amd64/v1` are without a variant (containerd
    /// `platforms.Normalize`).
    #[must_use]
    pub fn normalized(mut self) -> Self {
        self.variant = match (self.architecture.as_str(), self.plain_variant()) {
            ("arm", None) => Some("v7".to_owned()),
            (_, variant) => variant.map(str::to_owned),
        };
        self
    }

    fn plain_variant(&self) -> Option<&str> {
        match (self.architecture.as_str(), self.variant.as_deref()) {
            ("arm64", Some("v8")) | ("amd64", Some("v1")) | (_, Some("")) => None,
            (_, variant) => variant,
        }
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParsePlatformError(text.chars().take(64).collect());
        let mut parts = text.split('/');
        let (os, architecture, variant) = (parts.next(), parts.next(), parts.next());
        let word = |part: &str| {
            !part.is_empty()
                && part.len() <= 32
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        let (Some(os), Some(architecture), None) = (os, architecture, parts.next()) else {
            return Err(bad());
        };
        if !word(os) || !word(architecture) || !variant.is_none_or(word) {
            return Err(bad());
        }
        let architecture = match architecture {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Ok(Self {
            architecture: architecture.to_owned(),
            os: os.to_owned(),
            os_version: None,
            os_features: Vec::new(),
            variant: variant.map(str::to_owned),
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if let Some(variant) = &self.variant {
            write!(f, "/{variant}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arm64_v8_is_plain_arm64_but_arm_v7_is_not_plain_arm() {
        let parse = |text: &str| text.parse::<Platform>().unwrap();
        assert!(parse("linux/arm64").accepts(&parse("linux/arm64/v8")));
        assert!(!parse("linux/arm").accepts(&parse("linux/arm/v7")));
        assert!(!parse("linux/amd64").accepts(&parse("windows/amd64")));
    }

    #[test]
    fn what_has_several_spellings_is_normalized_to_one() {
        for (text, wanted) in [
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/amd64", "linux/amd64"),
        ] {
            let platform: Platform = text.parse().unwrap();
            assert_eq!(platform.normalized().to_string(), wanted, "{text}");
        }
    }

    #[test]
    fn half_a_platform_is_refused() {
        for bad in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/am d64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad:?}");
        }
    }
}
