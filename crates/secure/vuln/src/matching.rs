//! Whether an advisory concerns a package.

use std::cmp::Ordering;

use crate::advisory::{Advisory, Affected, Range, Severity, State};
use crate::{Ecosystem, Error, Exploit};

/// A package that is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Query {
    /// Its ecosystem with the release: `Debian:12`.
    pub ecosystem: String,
    /// Its name; of distributions that of the source package.
    pub name: String,
    /// Its version; of distributions that of the source package.
    pub version: String,
}

/// An advisory that concerns a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The number of the query.
    pub query: usize,
    /// The advisory, without whom else it concerns.
    pub advisory: Advisory,
    /// What the source says of it in this release.
    pub state: State,
    /// The version that has it no more, the least that is greater than the package's.
    pub fixed: Option<String>,
    /// How bad it is here: what the distribution says before what others say.
    pub severity: Severity,
    /// What is known of attacks.
    pub exploit: Exploit,
}

impl Finding {
    /// What an advisory says of a package that it concerns.
    #[must_use]
    pub fn of(query: usize, advisory: &Advisory, affected: &Affected, fixed: Option<String>) -> Self {
        Self {
            query,
            state: affected.state,
            fixed,
            severity: severity(affected, advisory),
            exploit: Exploit::default(),
            advisory: Advisory {
                affected: Vec::new(),
                ..advisory.clone()
            },
        }
    }
}

/// What the distribution says of its release counts before what others say of the vulnerability; of what it calls unimportant
/// that word is taken.
fn severity(affected: &Affected, advisory: &Advisory) -> Severity {
    if let Some(severity) = &affected.severity {
        return severity.clone();
    }
    if affected.state == State::Unimportant {
        return Severity {
            level: crate::Level::Negligible,
            source: "Debian".to_owned(),
            ..advisory.severity.clone()
        };
    }
    advisory.severity.clone()
}

/// The form of an ecosystem and a name under which packages are looked up: without case where the ecosystem has none.
#[must_use]
pub fn key_of(ecosystem: &str, name: &str) -> (String, String) {
    let release = release_of(ecosystem);
    let name = match Ecosystem::parse(ecosystem) {
        Ok(Ecosystem::PyPi) => normal_pypi(name),
        Ok(Ecosystem::NuGet | Ecosystem::Packagist) => name.to_ascii_lowercase(),
        _ => name.to_owned(),
    };
    (release, name)
}

/// Releases with long support have a word more in some records (`Ubuntu:22.04:LTS`), and Red Hat's, which are pieces of CPE names, a
/// minor version and the repository (`Red Hat:enterprise_linux:9::appstream`), which no image says it is of.
fn release_of(ecosystem: &str) -> String {
    const RED_HAT: &str = "Red Hat:enterprise_linux:";
    if let Some(version) = ecosystem.strip_prefix(RED_HAT) {
        let major = version.split([':', '.']).next().unwrap_or(version);
        return format!("{RED_HAT}{major}");
    }
    ecosystem.strip_suffix(":LTS").unwrap_or(ecosystem).to_owned()
}

/// PEP 503: runs of `-`, `_` and `.` are one `-`, and letters have no case.
fn normal_pypi(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for char in name.chars() {
        if matches!(char, '-' | '_' | '.') {
            if !out.ends_with('-') {
                out.push('-');
            }
        } else {
            out.push(char.to_ascii_lowercase());
        }
    }
    out
}

/// Whether a version has what an advisory is about; the version that fixes it, if it has.
///
/// # Errors
/// `InvalidArgument` for versions that the ecosystem's tool refuses.
pub fn concerns(affected: &Affected, version: &str) -> Result<Option<Option<String>>, Error> {
    if affected.state == State::NotAffected {
        return Ok(None);
    }
    let ecosystem = Ecosystem::parse(&affected.ecosystem)?;
    let mut unordered = None;
    let mut found = false;
    let mut fix: Option<String> = None;
    for range in &affected.ranges {
        match within(ecosystem, range, version) {
            Ok(true) => found = true,
            Ok(false) => continue,
            Err(error) => {
                unordered = Some(error);
                continue;
            }
        }
        if let Some(fixed) = &range.fixed
            && fix.as_ref().is_none_or(|fix| {
                ecosystem
                    .compare(fixed, fix)
                    .is_ok_and(|order| order == Ordering::Less)
            })
        {
            fix = Some(fixed.clone());
        }
    }
    if !found {
        for single in &affected.versions {
            found |= single == version
                || ecosystem
                    .compare(single, version)
                    .is_ok_and(|order| order == Ordering::Equal);
        }
    }
    match unordered {
        Some(error) if !found => Err(error),
        _ => Ok(found.then_some(fix)),
    }
}

fn within(ecosystem: Ecosystem, range: &Range, version: &str) -> Result<bool, Error> {
    // "0" is before every version, also where the ecosystem's tool knows earlier ones, as `0~rc1` of dpkg.
    if range.introduced != "0" && ecosystem.compare(version, &range.introduced)? == Ordering::Less {
        return Ok(false);
    }
    if let Some(fixed) = &range.fixed {
        return Ok(ecosystem.compare(version, fixed)? == Ordering::Less);
    }
    match &range.last {
        Some(last) => Ok(ecosystem.compare(version, last)? != Ordering::Greater),
        None => Ok(true),
    }
}
