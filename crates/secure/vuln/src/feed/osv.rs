//! OSV records, schema 1.7.

use std::cmp::Ordering;

use serde_json::Value;

use super::{line, name};
use crate::advisory::{Advisory, Affected, Level, Range, Severity, State};
use crate::cvss::base_score;
use crate::{Ecosystem, MAX_VERSION};

/// Most packages of one record, and most events or versions of one package.
const MOST: usize = 100_000;

pub(super) fn is_record(value: &Value) -> bool {
    value.get("id").is_some_and(Value::is_string)
        && value.get("modified").is_some_and(Value::is_string)
        && value.get("packages").is_none()
}

pub(super) fn records(list: &[Value], refused: &mut Vec<String>) -> Vec<Advisory> {
    let mut advisories = Vec::with_capacity(list.len());
    for record in list {
        let id = record.get("id").and_then(Value::as_str).unwrap_or_default();
        match advisory(record) {
            Ok(Some(advisory)) => advisories.push(advisory),
            Ok(None) => {}
            Err(why) => refused.push(format!("{}: {why}", line(id))),
        }
    }
    advisories
}

/// None when it was withdrawn, or concerns no package that can be installed.
fn advisory(record: &Value) -> Result<Option<Advisory>, String> {
    if record.get("withdrawn").is_some_and(|when| !when.is_null()) {
        return Ok(None);
    }
    let text = |key: &str| record.get(key).and_then(Value::as_str);
    let mut advisory = Advisory {
        id: text("id").and_then(name).ok_or("its id is no name")?,
        summary: line(text("summary").or_else(|| text("details")).unwrap_or_default()),
        published: text("published").and_then(name).unwrap_or_default(),
        ..Advisory::default()
    };
    // Records of distributions name the CVE as what they were made from.
    for key in ["aliases", "upstream"] {
        let names = record.get(key).and_then(Value::as_array).into_iter().flatten();
        for alias in names.filter_map(Value::as_str).filter_map(name) {
            if alias != advisory.id && !advisory.aliases.contains(&alias) {
                advisory.aliases.push(alias);
            }
        }
    }
    advisory.severity = severity(record).unwrap_or_default();
    let affected = record.get("affected").and_then(Value::as_array);
    let affected = affected.map(Vec::as_slice).unwrap_or_default();
    if affected.len() > MOST {
        return Err(format!("it concerns {} packages", affected.len()));
    }
    for entry in affected {
        advisory.affected.extend(concerned(entry)?);
    }
    if advisory.aliases.iter().all(|alias| !alias.starts_with("CVE-")) && of_distribution(&advisory) {
        let related = record
            .get("related")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let cves = related.filter_map(Value::as_str).filter_map(name);
        advisory
            .aliases
            .extend(cves.filter(|related| related.starts_with("CVE-")));
    }
    Ok((!advisory.affected.is_empty()).then_some(advisory))
}

/// Whether it is one of a distribution, about its own packages: AlmaLinux and Rocky Linux name the CVEs that it mends as `related`.
fn of_distribution(advisory: &Advisory) -> bool {
    !advisory.id.contains("CVE-")
        && advisory.affected.iter().all(|affected| {
            let family = Ecosystem::parse(&affected.ecosystem);
            matches!(family, Ok(Ecosystem::Dpkg | Ecosystem::Rpm | Ecosystem::Apk))
        })
}

/// What a record says of how bad it is, in any of the places where records say it.
fn severity(record: &Value) -> Option<Severity> {
    let list = record.get("severity").and_then(Value::as_array);
    let mut found: Option<Severity> = None;
    for entry in list.into_iter().flatten() {
        let source = entry.get("type").and_then(Value::as_str).unwrap_or_default();
        let score = entry.get("score").and_then(Value::as_str).unwrap_or_default();
        if source == "Ubuntu" {
            return Some(Severity {
                level: Level::parse(score)?,
                source: source.to_owned(),
                ..Severity::default()
            });
        }
        let tenths = base_score(score);
        let better = found
            .as_ref()
            .is_none_or(|found| found.score.is_none() && tenths.is_some());
        if better && let Some(vector) = name(score) {
            found = Some(Severity {
                level: tenths.map_or(Level::Unknown, Level::of_score),
                source: line(source),
                vector: Some(vector),
                score: tenths,
            });
        }
    }
    let word = ["/database_specific/severity", "/ecosystem_specific/severity"]
        .iter()
        .find_map(|place| record.pointer(place)?.as_str());
    match (found, word.and_then(Level::parse)) {
        (Some(found), _) if found.score.is_some() => Some(found),
        // A vector of version 4, whose score nobody computes here; its database has a word for it.
        (Some(found), Some(level)) => Some(Severity { level, ..found }),
        (found, None) => found,
        (None, Some(level)) => Some(Severity {
            level,
            source: "database".to_owned(),
            ..Severity::default()
        }),
    }
}

fn concerned(entry: &Value) -> Result<Option<Affected>, String> {
    let Some(package) = entry.get("package") else {
        return Ok(None);
    };
    let text = |key: &str| package.get(key).and_then(Value::as_str).unwrap_or_default();
    let (ecosystem, package) = (line(text("ecosystem")), name(text("name")));
    // Ranges of commits alone, and ecosystems whose versions have no known order, are of no use to anybody who installs.
    let (Some(package), Ok(order)) = (package, Ecosystem::parse(&ecosystem)) else {
        return Ok(None);
    };
    let mut affected = Affected {
        ecosystem,
        package,
        severity: severity(entry),
        ..Affected::default()
    };
    match entry
        .pointer("/ecosystem_specific/urgency")
        .and_then(Value::as_str)
    {
        Some("unimportant") => affected.state = State::Unimportant,
        Some("end-of-life") => affected.state = State::EndOfLife,
        Some(word) => {
            // Debian's stars: automatic, or from a person.
            if let Some(level) = Level::parse(word.trim_end_matches('*')) {
                affected.severity = Some(Severity {
                    level,
                    source: "Debian".to_owned(),
                    ..Severity::default()
                });
            }
        }
        None => {}
    }
    for range in entry
        .get("ranges")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        if range.get("type").and_then(Value::as_str) != Some("GIT") {
            affected.ranges.extend(ranges(range, order)?);
        }
    }
    let versions = entry.get("versions").and_then(Value::as_array);
    let versions = versions.map(Vec::as_slice).unwrap_or_default();
    if versions.len() > MOST {
        return Err(format!("it lists {} versions", versions.len()));
    }
    // Where there are ranges the list is what they came to when it was written.
    if affected.ranges.is_empty() {
        affected.versions = versions
            .iter()
            .filter_map(Value::as_str)
            .filter_map(version)
            .collect();
    }
    let says_something = !affected.ranges.is_empty() || !affected.versions.is_empty();
    Ok(says_something.then_some(affected))
}

fn version(text: &str) -> Option<String> {
    (text.len() <= MAX_VERSION).then(|| name(text)).flatten()
}

/// An event of a range.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    Introduced,
    Fixed,
    Last,
}

/// Intervals: `introduced`, then `fixed` or `last_affected`. A record may list its events in any order: that of their versions
/// counts (OSV schema, "Evaluation").
fn ranges(range: &Value, order: Ecosystem) -> Result<Vec<Range>, String> {
    let mut events = events(range)?;
    let version_of_all =
        |(_, version): &(Event, String)| version == "0" || order.compare(version, version).is_ok();
    if events.iter().all(version_of_all) {
        events.sort_by(|(_, a), (_, b)| match (a.as_str(), b.as_str()) {
            ("0", "0") => Ordering::Equal,
            ("0", _) => Ordering::Less,
            (_, "0") => Ordering::Greater,
            (a, b) => order.compare(a, b).unwrap_or(Ordering::Equal),
        });
    }
    let mut ranges: Vec<Range> = Vec::new();
    let mut open = false;
    for (event, version) in events {
        if event == Event::Introduced {
            ranges.push(Range {
                introduced: version,
                ..Range::default()
            });
            open = true;
            continue;
        }
        // A second end of one interval: several fixes of several branches; the first one counts.
        if let Some(range) = ranges.last_mut().filter(|_| open) {
            match event {
                Event::Fixed => range.fixed = Some(version),
                _ => range.last = Some(version),
            }
            open = false;
        }
    }
    Ok(ranges)
}

fn events(range: &Value) -> Result<Vec<(Event, String)>, String> {
    let list = range.get("events").and_then(Value::as_array);
    let list = list.map(Vec::as_slice).unwrap_or_default();
    if list.len() > MOST {
        return Err(format!("a range has {} events", list.len()));
    }
    let mut events = Vec::with_capacity(list.len());
    for event in list {
        for (key, kind) in [
            ("introduced", Event::Introduced),
            ("fixed", Event::Fixed),
            ("last_affected", Event::Last),
        ] {
            if let Some(value) = event.get(key) {
                let version = value.as_str().and_then(version);
                events.push((kind, version.ok_or_else(|| format!("{key} is no version"))?));
            }
        }
    }
    Ok(events)
}
