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
/// minor version and the repository (`Red Hat:enterprise_linux:9::appstream`), which no image says it is of; so have SUSE's a product, a
/// module, and how long it is supported (`SUSE:Linux Enterprise Module for Basesystem 15 SP5`, `SUSE:Linux Enterprise Server 15 SP4-LTSS`).
fn release_of(ecosystem: &str) -> String {
    const RED_HAT: &str = "Red Hat:enterprise_linux:";
    if let Some(version) = ecosystem.strip_prefix(RED_HAT) {
        let major = version.split([':', '.']).next().unwrap_or(version);
        return format!("{RED_HAT}{major}");
    }
    const SUSE: &str = "SUSE:Linux Enterprise ";
    if let Some(release) = ecosystem.strip_prefix(SUSE).and_then(suse_release) {
        return format!("{SUSE}{release}");
    }
    ecosystem.strip_suffix(":LTS").unwrap_or(ecosystem).to_owned()
}

/// `15 SP5`, `12`, `16.0` at the end of a name of SUSE's; none for what has releases of its own (Micro).
fn suse_release(product: &str) -> Option<String> {
    if product.starts_with("Micro") {
        return None;
    }
    let mut words = product.split(' ').rev();
    // `15-LTSS`, `SP4-ESPOS`.
    let plain = |word: &'_ str| word.split('-').next().unwrap_or_default().to_owned();
    let is_number = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_digit())
            && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    let last = plain(words.next()?);
    if is_number(&last) {
        return Some(last);
    }
    let pack = last.strip_prefix("SP").filter(|pack| is_number(pack))?;
    let major = words.next().filter(|major| is_number(major))?;
    Some(format!("{major} SP{pack}"))
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
        let fixed = range.fixed.as_deref();
        if ecosystem == Ecosystem::Rpm
            && fixed.is_some_and(|fixed| is_of_module(fixed) != is_of_module(version))
        {
            continue;
        }
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

/// Whether a package was built as a part of a module (`1:20.9.0-1.module+el8.9.0+20473+c4e3d824`): modules have packages of the same names as the
/// distribution itself, in other versions, and an advisory about those says nothing of these. Of which stream, no record says.
fn is_of_module(version: &str) -> bool {
    let release = version.rsplit_once('-').map_or("", |(_, release)| release);
    release.contains(".module+") || release.contains(".module_")
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
