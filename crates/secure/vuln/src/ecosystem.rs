//! The ecosystems by their names in advisories.

use std::cmp::Ordering;

use dhow_types::ErrorKind;

use crate::version::{apk, dpkg, gem, maven, pep440, php, plain, rpm, semver};
use crate::{Error, MAX_VERSION};

/// A family of packages whose versions have one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ecosystem {
    /// Alpine, Wolfi and other users of apk.
    Apk,
    /// R packages.
    Cran,
    /// Debian, Ubuntu and other users of dpkg.
    Dpkg,
    /// Haskell packages.
    Hackage,
    /// Java artifacts.
    Maven,
    /// .NET packages.
    NuGet,
    /// PHP packages of composer.
    Packagist,
    /// Dart packages.
    Pub,
    /// Python packages.
    PyPi,
    /// Red Hat, SUSE and other users of rpm.
    Rpm,
    /// Ruby gems.
    RubyGems,
    /// Semantic versions: npm, crates.io, Go, Hex and others.
    Semver,
}

/// Names in lower case. The first of each is that of the OSV schema ("Affected package ecosystems").
const NAMES: &[(&str, Ecosystem)] = &[
    ("alpine", Ecosystem::Apk),
    ("alpaquita", Ecosystem::Apk),
    ("apk", Ecosystem::Apk),
    ("bellsoft hardened containers", Ecosystem::Apk),
    ("chainguard", Ecosystem::Apk),
    ("minimos", Ecosystem::Apk),
    ("wolfi", Ecosystem::Apk),
    ("cran", Ecosystem::Cran),
    ("debian", Ecosystem::Dpkg),
    ("deb", Ecosystem::Dpkg),
    ("dpkg", Ecosystem::Dpkg),
    ("echo", Ecosystem::Dpkg),
    ("ubuntu", Ecosystem::Dpkg),
    ("hackage", Ecosystem::Hackage),
    ("maven", Ecosystem::Maven),
    ("nuget", Ecosystem::NuGet),
    ("packagist", Ecosystem::Packagist),
    ("composer", Ecosystem::Packagist),
    ("pub", Ecosystem::Pub),
    ("pypi", Ecosystem::PyPi),
    ("pep440", Ecosystem::PyPi),
    ("red hat", Ecosystem::Rpm),
    ("redhat", Ecosystem::Rpm),
    ("almalinux", Ecosystem::Rpm),
    ("amazon", Ecosystem::Rpm),
    ("azure linux", Ecosystem::Rpm),
    ("fedora", Ecosystem::Rpm),
    ("mageia", Ecosystem::Rpm),
    ("openeuler", Ecosystem::Rpm),
    ("opensuse", Ecosystem::Rpm),
    ("oracle", Ecosystem::Rpm),
    ("photon os", Ecosystem::Rpm),
    ("rocky linux", Ecosystem::Rpm),
    ("rpm", Ecosystem::Rpm),
    ("suse", Ecosystem::Rpm),
    ("rubygems", Ecosystem::RubyGems),
    ("gem", Ecosystem::RubyGems),
    ("semver", Ecosystem::Semver),
    ("bioconductor", Ecosystem::Semver),
    ("bitnami", Ecosystem::Semver),
    ("cargo", Ecosystem::Semver),
    ("conancenter", Ecosystem::Semver),
    ("crates.io", Ecosystem::Semver),
    ("docker hardened images", Ecosystem::Semver),
    ("ghc", Ecosystem::Semver),
    ("go", Ecosystem::Semver),
    ("golang", Ecosystem::Semver),
    ("hex", Ecosystem::Semver),
    ("julia", Ecosystem::Semver),
    ("npm", Ecosystem::Semver),
    ("swifturl", Ecosystem::Semver),
];

impl Ecosystem {
    /// The ecosystem of a name as advisories and package URLs have it, with or without a release (`Debian:12`), in any case.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is not known; the hint lists the known ones.
    pub fn parse(name: &str) -> Result<Self, Error> {
        let family = name.split_once(':').map_or(name, |(family, _)| family).trim();
        NAMES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(family))
            .map(|(_, ecosystem)| *ecosystem)
            .ok_or_else(|| {
                let known: Vec<&str> = NAMES.iter().map(|(known, _)| *known).collect();
                Error::new(
                    ErrorKind::InvalidArgument,
                    format!("no order of versions is known for the ecosystem {family:?}"),
                )
                .with_hint(format!("known: {}", known.join(", ")))
            })
    }

    /// How version `a` stands to version `b`.
    ///
    /// Most ecosystems order any text whatever, as their tools do. Two versions may be equal that are not the same text
    /// (`1.0` and `1.0.0`).
    ///
    /// # Errors
    /// `InvalidArgument` for a version that the ecosystem's tool refuses, or one of more than [`MAX_VERSION`] bytes.
    pub fn compare(self, a: &str, b: &str) -> Result<Ordering, Error> {
        for version in [a, b] {
            if version.len() > MAX_VERSION {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    format!(
                        "a version of {} bytes is longer than {MAX_VERSION}",
                        version.len()
                    ),
                ));
            }
        }
        match self {
            Self::Apk => Ok(apk::compare(a, b)),
            Self::Cran => plain::compare(a, b, &['.', '-']),
            Self::Dpkg => dpkg::compare(a, b),
            Self::Hackage => plain::compare(a, b, &['.']),
            Self::Maven => Ok(maven::compare(a, b)),
            Self::NuGet => Ok(semver::compare_nuget(a, b)),
            Self::Packagist => Ok(php::compare(a, b)),
            Self::Pub => Ok(semver::compare_pub(a, b)),
            Self::PyPi => Ok(pep440::compare(a, b)),
            Self::Rpm => Ok(rpm::compare(a, b)),
            Self::RubyGems => Ok(gem::compare(a, b)),
            Self::Semver => Ok(semver::compare(a, b)),
        }
    }
}
