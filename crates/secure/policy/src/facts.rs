use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use dhow_reference::Reference;
use serde::Deserialize;

/// Where a verdict is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Point {
    /// An image comes from a registry.
    Pull,
    /// A container is made of it.
    Run,
    /// A build begins with it.
    Build,
    /// It goes to a registry.
    Push,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pull, Self::Run, Self::Build, Self::Push];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Run => "run",
            Self::Build => "build",
            Self::Push => "push",
        }
    }
}

/// How bad a vulnerability is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nobody said.
    Unknown,
    /// Hardly.
    Negligible,
    /// Little.
    Low,
    /// Somewhat.
    Medium,
    /// Bad.
    High,
    /// As bad as it gets.
    Critical,
}

impl Severity {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Negligible => "negligible",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// A known vulnerability in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vulnerability {
    /// What it is called: `CVE-2026-1234`.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// The package that has it.
    pub package: String,
    /// Whether a version without it is there.
    pub fixed: bool,
    /// Whether attackers are known to use it (KEV).
    pub exploited: bool,
    /// How likely they are to use it soon, in hundred-thousandths (EPSS).
    pub epss: Option<u32>,
}

/// The licence of a package in an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Licence {
    /// The package.
    pub package: String,
    /// Its licence, as the package says it.
    pub licence: String,
}

/// What is stated of the end of an image's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// From when it must not be used any more, in seconds since 1970.
    pub end_of_life: i64,
    /// Whether it was called back: from now on, whatever the date.
    pub revoked: bool,
    /// What to use instead.
    pub successor: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Whether somebody who is trusted signed the statement. What is not signed can only warn: else whoever can write beside
    /// an image could take it away from everybody.
    pub signed: bool,
}

/// What is stated of where a tag points to: the newest statement that somebody in the policy signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagFact {
    /// The signers of the policy who signed it.
    pub signers: BTreeSet<String>,
    /// Its number: a newer one has a greater one.
    pub counter: u64,
    /// Until when it counts, in seconds since 1970.
    pub expires: i64,
}

/// What is known of where a tag points to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagFacts {
    /// The statements about this tag and this image, each signer's newest.
    pub stated: Vec<TagFact>,
    /// The greatest number that was seen here for this tag before.
    pub seen: Option<u64>,
}

/// Something that is known, or why it is not.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Known<T> {
    /// Nobody looked, since no rule asks.
    #[default]
    NotAsked,
    /// It could not be found out.
    Unknown(String),
    /// It is this.
    Is(T),
}

/// What is known of an image when a verdict is asked for.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where.
    pub point: Point,
    /// Its name; none of an image without one.
    pub name: Option<Reference>,
    /// What it is called in messages.
    pub shown: String,
    /// The time, in seconds since 1970.
    pub now: i64,
    /// The signers of the policy who signed it, by their names there.
    pub signers: Known<BTreeSet<String>>,
    /// What is stated of its tag; none for one that is wanted by digest.
    pub tag: Known<Option<TagFacts>>,
    /// When it was made, in seconds since 1970.
    pub created: Known<i64>,
    /// Known vulnerabilities in it.
    pub vulnerabilities: Known<Vec<Vulnerability>>,
    /// The images that it was made of, by their names.
    pub bases: Known<Vec<Reference>>,
    /// Licences of its packages.
    pub licences: Known<Vec<Licence>>,
    /// What is stated of its end; none when nothing is.
    pub lifecycle: Known<Option<Lifecycle>>,
}

impl Facts {
    /// Facts of an image of which nothing was looked up.
    #[must_use]
    pub fn new(point: Point, name: Option<Reference>, shown: impl Into<String>, now: i64) -> Self {
        Self {
            point,
            name,
            shown: shown.into(),
            now,
            signers: Known::NotAsked,
            tag: Known::NotAsked,
            created: Known::NotAsked,
            vulnerabilities: Known::NotAsked,
            bases: Known::NotAsked,
            licences: Known::NotAsked,
            lifecycle: Known::NotAsked,
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Point {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|point| point.as_str() == text)
            .ok_or_else(|| {
                let message = format!("{text:?} is none of pull, run, build and push");
                crate::Error::new(dhow_types::ErrorKind::InvalidArgument, message)
            })
    }
}
