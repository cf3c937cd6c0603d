//! Files that say which findings do not matter, why, and until when.
//!
//! ```text
//! # a line of its own is a remark
//! CVE-2026-1                                        # the reason
//! CVE-2026-2 until:2027-01-31 package:curl          # not reachable here
//! *          package:linux-libc-dev state:unimportant # headers only
//! ```
//! `until:` is the last day, in UTC; `exp:` is the same, as Trivy's `.trivyignore` writes it, whose lines are read. Beside the name of a
//! vulnerability, or `*`, each of `package:`, `path:`, `state:` and a package URL must fit where it is given.

mod yaml;

use dhow_types::{ErrorKind, Purl};

use crate::feed::line;
use crate::{Error, State};

/// Largest file, and most rules of one.
const MOST_BYTES: usize = 4 << 20;
const MOST: usize = 100_000;

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The vulnerability; `*` for any.
    pub id: String,
    /// Why; empty when nothing is said.
    pub reason: String,
    /// The last day on which it counts, `YYYY-MM-DD`.
    pub until: Option<String>,
    package: Option<String>,
    path: Option<String>,
    state: Option<String>,
    purl: Option<Purl>,
    version: Option<String>,
    /// The type of its package URL.
    kind: Option<String>,
    fix: Option<yaml::FixState>,
}

/// A finding that is asked about.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// The vulnerability, by all its names.
    pub vulnerability: Vec<&'a str>,
    /// The package, and what it was built from.
    pub packages: [&'a str; 2],
    /// The file that says that it is installed.
    pub path: &'a str,
    /// What the distribution says of it.
    pub state: State,
    /// The same packages as package URLs.
    pub purls: &'a [Purl],
    /// Whether there is a version that mends it.
    pub fixed: bool,
}

impl Rule {
    /// Whether it counts on a day, `YYYY-MM-DD`.
    #[must_use]
    pub fn counts_on(&self, day: &str) -> bool {
        self.until.as_deref().is_none_or(|until| day <= until)
    }

    /// Whether it is about a finding.
    #[must_use]
    pub fn is_about(&self, asked: &Asked<'_>) -> bool {
        let name = self.id == "*"
            || asked
                .vulnerability
                .iter()
                .any(|name| name.eq_ignore_ascii_case(&self.id));
        let package = |pattern: &String| asked.packages.iter().any(|package| fits(pattern, package));
        name && self.package.as_ref().is_none_or(package)
            && self.path.as_ref().is_none_or(|pattern| fits(pattern, asked.path))
            && self
                .state
                .as_ref()
                .is_none_or(|state| state == asked.state.name())
            && self
                .purl
                .as_ref()
                .is_none_or(|purl| asked.purls.iter().any(|own| purl.fits(own)))
            && self.version.as_deref().is_none_or(|version| {
                let mut own = asked.purls.iter();
                own.any(|own| own.version() == Some(version))
            })
            && self
                .kind
                .as_deref()
                .is_none_or(|kind| asked.purls.iter().any(|own| own.kind() == kind))
            && self.fix.is_none_or(|fix| {
                let never = matches!(asked.state, State::Ignored | State::EndOfLife);
                let unknown = asked.state == State::Undetermined;
                match fix {
                    yaml::FixState::Fixed => asked.fixed,
                    yaml::FixState::NotFixed => !asked.fixed && !never && !unknown,
                    yaml::FixState::WontFix => !asked.fixed && never,
                    yaml::FixState::Unknown => !asked.fixed && unknown,
                }
            })
    }

    /// Whether it is about some packages only, or about findings of some sort.
    fn is_narrow(&self) -> bool {
        let conditions = [&self.package, &self.path, &self.state, &self.version, &self.kind];
        conditions.iter().any(|condition| condition.is_some()) || self.purl.is_some() || self.fix.is_some()
    }
}

/// Reads a file of Trivy's or Grype's in YAML.
///
/// # Errors
/// `InvalidArgument` for what is none, or has a condition that is not known here; `ResourceExhausted` for one that is too large.
pub fn read_yaml(text: &str) -> Result<Vec<Rule>, Error> {
    within_bounds(text)?;
    yaml::read(text)
}

fn within_bounds(text: &str) -> Result<(), Error> {
    if text.len() > MOST_BYTES {
        let message = format!("the ignore file has more than {MOST_BYTES} bytes");
        return Err(Error::new(ErrorKind::ResourceExhausted, message));
    }
    Ok(())
}

/// Reads a file.
///
/// # Errors
/// `InvalidArgument` with the number of a line that has a word that is not known.
pub fn read(text: &str) -> Result<Vec<Rule>, Error> {
    within_bounds(text)?;
    let mut rules = Vec::new();
    for (number, written) in text.lines().enumerate() {
        let (words, reason) = match written.split_once('#') {
            Some((words, reason)) if words.is_empty() || words.ends_with(char::is_whitespace) => {
                (words, reason)
            }
            _ => (written, ""),
        };
        if words.trim().is_empty() {
            continue;
        }
        let mut rule = rule(words).map_err(|why| {
            let message = format!("the ignore file, line {}: {why}", number + 1);
            Error::new(ErrorKind::InvalidArgument, message).with_hint(
                "CVE-2026-1 [until:2027-01-31] [package:NAME] [path:GLOB] [state:WORD] [pkg:...] # reason",
            )
        })?;
        rule.reason = line(reason);
        rules.push(rule);
        if rules.len() > MOST {
            let message = format!("the ignore file has more than {MOST} rules");
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
    }
    Ok(rules)
}

fn rule(words: &str) -> Result<Rule, String> {
    let mut words = words.split_whitespace();
    let mut rule = Rule {
        id: words.next().unwrap_or_default().to_owned(),
        ..Rule::default()
    };
    if rule.id.contains(':') {
        return Err(format!("{:?} is no name of a vulnerability", rule.id));
    }
    for word in words {
        if word.starts_with("pkg:") {
            rule.purl = Some(Purl::parse(word).ok_or_else(|| format!("{word:?} is no package URL"))?);
            continue;
        }
        let (key, value) = word.split_once(':').unwrap_or((word, ""));
        let value = value.to_owned();
        match key {
            _ if value.is_empty() => return Err(format!("{word:?} is no condition")),
            "until" | "exp" if is_day(&value) => rule.until = Some(value),
            "until" | "exp" => return Err(format!("{value:?} is no day: write 2027-01-31")),
            "package" => rule.package = Some(value),
            "path" => rule.path = Some(value.trim_start_matches('/').to_owned()),
            "state" => rule.state = Some(value),
            _ => return Err(format!("{word:?} is no condition")),
        }
    }
    if rule.id == "*" && !rule.is_narrow() {
        return Err("it is about everything".to_owned());
    }
    Ok(rule)
}

/// `YYYY-MM-DD`, whose order is that of its letters.
fn is_day(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let number = |at: usize, digits: usize, most: u32| {
        let part: &str = parts.get(at).copied().unwrap_or_default();
        part.len() == digits
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && part.parse().is_ok_and(|number: u32| (1..=most).contains(&number))
    };
    parts.len() == 3 && number(0, 4, 9999) && number(1, 2, 12) && number(2, 2, 31)
}

/// Whether a pattern, in which `*` stands for anything, fits a text.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        if let Some(middle) = last.replace(part) {
            let Some(at) = rest.find(middle) else {
                return false;
            };
            rest = &rest[at + middle.len()..];
        }
    }
    last.map_or(rest.is_empty(), |end| rest.ends_with(end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Asked, fits, read};
    use crate::{Purl, State};

    fn about(text: &str) -> bool {
        let purls = [Purl::parse("pkg:deb/debian/libcurl4@1-1?arch=amd64").unwrap()];
        let asked = Asked {
            vulnerability: vec!["CVE-2026-1", "DEBIAN-CVE-2026-1"],
            packages: ["libcurl4", "curl"],
            path: "var/lib/dpkg/status",
            state: State::Unimportant,
            purls: &purls,
            fixed: false,
        };
        read(text).unwrap()[0].is_about(&asked)
    }

    #[test]
    fn every_condition_of_a_line_must_fit() {
        for line in [
            "CVE-2026-1",
            "cve-2026-1 # why",
            "DEBIAN-CVE-2026-1 package:curl",
            "* package:lib* state:unimportant path:/var/lib/*",
            "* pkg:deb/debian/libcurl4",
        ] {
            assert!(about(line), "{line}");
        }
        for line in [
            "CVE-2026-2",
            "CVE-2026-1 package:cur",
            "CVE-2026-1 package:curl state:ignored",
            "CVE-2026-1 path:srv/*",
            "CVE-2026-1 pkg:deb/debian/libcurl4@2",
        ] {
            assert!(!about(line), "{line}");
        }
    }

    #[test]
    fn a_rule_has_a_reason_and_an_end() {
        let rules =
            read("# a remark\n\nCVE-2026-1 exp:2026-12-31\t# nobody calls #it\nCVE-2026-2#x\n").unwrap();
        assert_eq!(rules[0].reason, "nobody calls #it");
        assert!(rules[0].counts_on("2026-12-31") && !rules[0].counts_on("2027-01-01"));
        assert_eq!((rules[1].id.as_str(), rules.len()), ("CVE-2026-2#x", 2));
        for (wrong, why) in [
            ("CVE-1 until:tomorrow", "line 1"),
            ("\nCVE-1 until:2026-13-01", "line 2"),
            ("CVE-1 nobody", "no condition"),
            ("CVE-1 who:me", "no condition"),
            ("CVE-1 package:", "no condition"),
            ("CVE-1 pkg:x", "no package URL"),
            ("package:curl", "no name"),
            ("*", "everything"),
            ("* until:2026-01-01", "everything"),
        ] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_star_stands_for_anything(a in "[ab]{0,4}", b in "[ab]{0,4}", any in "[abc]{0,6}") {
            let all = format!("{a}{any}{b}");
            prop_assert!(fits(&format!("{a}*{b}"), &all), "{}", all);
            prop_assert!(fits(&format!("*{any}*"), &all), "{}", all);
            prop_assert_eq!(fits(&all, &format!("{all}c")), false);
        }

        #[test]
        fn no_text_stops_the_reader(text in "\\PC{0,200}") {
            drop(read(&text));
        }
    }
}
