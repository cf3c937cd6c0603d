//! What an advisory says.

use serde::{Deserialize, Serialize};

/// How bad, in five steps and one for what nobody has judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nobody has said.
    #[default]
    Unknown,
    /// Of no consequence in practice (Debian's `unimportant`).
    Negligible,
    /// CVSS 0.1 to 3.9.
    Low,
    /// CVSS 4.0 to 6.9.
    Medium,
    /// CVSS 7.0 to 8.9.
    High,
    /// CVSS 9.0 to 10.0.
    Critical,
}

impl Level {
    /// Every level, the least first.
    pub const ALL: [Self; 6] = [
        Self::Unknown,
        Self::Negligible,
        Self::Low,
        Self::Medium,
        Self::High,
        Self::Critical,
    ];

    /// A word for it; GitHub says `moderate`, Red Hat `important`.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word.trim().to_ascii_lowercase().as_str() {
            "unknown" | "none" => Self::Unknown,
            "negligible" | "unimportant" | "minimal" => Self::Negligible,
            "low" => Self::Low,
            "medium" | "moderate" => Self::Medium,
            "high" | "important" => Self::High,
            "critical" => Self::Critical,
            _ => return None,
        })
    }

    /// Its name in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Negligible => "negligible",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The level of a CVSS base score in tenths (CVSS 3.1 specification, table 14).
    #[must_use]
    pub fn of_score(tenths: u8) -> Self {
        match tenths {
            0 => Self::Negligible,
            1..=39 => Self::Low,
            40..=69 => Self::Medium,
            70..=89 => Self::High,
            _ => Self::Critical,
        }
    }
}

/// How bad, and who says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Severity {
    /// The step.
    pub level: Level,
    /// Who says so: `CVSS_V3`, `Debian`, `GHSA`.
    pub source: String,
    /// The CVSS vector, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector: Option<String>,
    /// The base score in tenths, where it can be computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<u8>,
}

/// What a distribution says of a vulnerability in a release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is there; a fix comes or came.
    #[default]
    Affected,
    /// The release never had it.
    NotAffected,
    /// It is fixed with something more important later (Debian's `postponed`).
    Postponed,
    /// It will not be fixed (Debian's `ignored`).
    Ignored,
    /// It does no harm in what the distribution builds (Debian's `unimportant`).
    Unimportant,
    /// The release gets no fixes any more for this package.
    EndOfLife,
    /// Nobody has looked yet (Debian's `undetermined`).
    Undetermined,
}

impl State {
    /// Its name, as documents have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Affected => "affected",
            Self::NotAffected => "not-affected",
            Self::Postponed => "postponed",
            Self::Ignored => "ignored",
            Self::Unimportant => "unimportant",
            Self::EndOfLife => "end-of-life",
            Self::Undetermined => "undetermined",
        }
    }
}

/// Versions from one on, up to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first that has it; `0` is before all.
    pub introduced: String,
    /// The first that has it no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<String>,
    /// The last that has it, where no fix is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
}

/// One package of one release that an advisory is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affected {
    /// The ecosystem with the release, as OSV names it: `Debian:12`, `PyPI`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ecosystem: String,
    /// The package; of distributions the source package.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub package: String,
    /// Versions that have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Range>,
    /// Single versions that have it, beside the ranges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<String>,
    /// What the distribution says of it.
    #[serde(default)]
    pub state: State,
    /// How bad it is there, where that is said apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
}

/// One advisory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advisory {
    /// Its name: `DSA-5764-1`, `DEBIAN-CVE-2024-6119`, `GHSA-...`.
    pub id: String,
    /// Other names of the same: the CVE.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// One line on what it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// How bad it is.
    #[serde(default)]
    pub severity: Severity,
    /// When it was published, RFC 3339.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub published: String,
    /// Whom it concerns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub affected: Vec<Affected>,
}

impl Advisory {
    /// The name under which people know it: its CVE, if it is about one, else its own.
    #[must_use]
    pub fn known_as(&self) -> &str {
        let mut cves = self.aliases.iter().filter(|name| name.starts_with("CVE-"));
        match (cves.next(), cves.next()) {
            (Some(cve), None) if !self.id.starts_with("CVE-") => cve,
            _ => &self.id,
        }
    }
}
