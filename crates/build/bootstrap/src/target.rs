use std::fmt;
use std::str::FromStr;

use dhow_types::ErrorKind;

use crate::Error;

/// How much of the distribution to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Essential and required packages and apt, with documentation.
    Standard,
    /// The same packages without documentation, manual pages and translations.
    Slim,
}

/// What an image name such as `debian:bookworm-slim` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `debian` or `ubuntu`.
    pub distribution: String,
    /// The suite by its code name: `bookworm`.
    pub suite: String,
    /// How much of it.
    pub variant: Variant,
    /// The tags that mean the same thing, the asked one first: `bookworm-slim`, `12-slim`.
    pub tags: Vec<String>,
}

/// Distribution, code name, version: the names that may stand for a suite.
const SUITES: &[(&str, &str, &str)] = &[
    ("debian", "buster", "10"),
    ("debian", "bullseye", "11"),
    ("debian", "bookworm", "12"),
    ("debian", "trixie", "13"),
    ("debian", "forky", "14"),
    ("debian", "sid", "unstable"),
    ("ubuntu", "jammy", "22.04"),
    ("ubuntu", "noble", "24.04"),
];

impl Target {
    /// The code names of a distribution's suites.
    pub(crate) fn suites_of(distribution: &str) -> impl Iterator<Item = &'static str> {
        SUITES
            .iter()
            .filter(move |(of, ..)| *of == distribution)
            .map(|(_, suite, _)| *suite)
    }

    /// The version number that stands for the suite in tags, if the suite has one.
    #[must_use]
    pub fn version(&self) -> Option<&'static str> {
        SUITES
            .iter()
            .find(|(distribution, suite, _)| *distribution == self.distribution && *suite == self.suite)
            .map(|(_, _, version)| *version)
    }
}

impl FromStr for Target {
    type Err = Error;

    /// Reads `debian:bookworm-slim`, `debian:12`, `bookworm-slim`; a leading registry or `library/` is no part of it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |why: &str| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!("cannot bootstrap {text:?}: {why}"),
            )
            .with_hint("name a distribution and a suite, such as debian:bookworm-slim or debian:12")
        };
        let (distribution, tag) = text.split_once(':').unwrap_or(("debian", text));
        if !matches!(distribution, "debian" | "ubuntu") {
            return Err(bad("only debian and ubuntu are made from packages"));
        }
        let (name, variant) = match tag.strip_suffix("-slim") {
            Some(name) => (name, Variant::Slim),
            None => (tag, Variant::Standard),
        };
        let word = !name.is_empty()
            && name.len() <= 64
            && name
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
            && name.as_bytes()[0].is_ascii_alphanumeric();
        if !word {
            return Err(bad("this is not the name of a suite"));
        }
        let known = SUITES
            .iter()
            .find(|(of, suite, version)| *of == distribution && (name == *suite || name == *version));
        let names = match known {
            Some((_, suite, version)) if name == *version => vec![*version, *suite],
            Some((_, suite, version)) => vec![*suite, *version],
            None if name.as_bytes()[0].is_ascii_digit() || name == "latest" => {
                return Err(bad("no suite is known under this number"));
            }
            None => vec![name],
        };
        let ending = if variant == Variant::Slim { "-slim" } else { "" };
        Ok(Self {
            distribution: distribution.to_owned(),
            suite: known.map_or(name, |(_, suite, _)| suite).to_owned(),
            variant,
            tags: names.iter().map(|name| format!("{name}{ending}")).collect(),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ending = if self.variant == Variant::Slim {
            "-slim"
        } else {
            ""
        };
        write!(f, "{}:{}{ending}", self.distribution, self.suite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_code_name_mean_the_same_suite_and_the_asked_name_comes_first() {
        let by_number: Target = "debian:12-slim".parse().unwrap();
        assert_eq!(by_number.suite, "bookworm");
        assert_eq!(by_number.variant, Variant::Slim);
        assert_eq!(by_number.tags, ["12-slim", "bookworm-slim"]);
        let by_name: Target = "debian:bookworm".parse().unwrap();
        assert_eq!(by_name.tags, ["bookworm", "12"]);
        assert_eq!(by_name.to_string(), "debian:bookworm");
        assert_eq!(by_name.version(), Some("12"));
        assert_eq!("trixie".parse::<Target>().unwrap().suite, "trixie");
    }

    #[test]
    fn names_that_are_no_suite_are_refused() {
        for bad in [
            "",
            "debian:",
            "debian:-slim",
            "debian:../etc",
            "fedora:40",
            "debian:99",
            "debian:a b",
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?}");
        }
    }
}
