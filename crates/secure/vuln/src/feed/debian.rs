//! Debian's security tracker (`data/json`): packages, their CVEs, and what is said of each in each release.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{line, name};
use crate::advisory::{Advisory, Affected, Level, Range, Severity, State};

/// Releases by their names; what is not here yet is unstable.
const RELEASES: [(&str, &str); 9] = [
    ("wheezy", "7"),
    ("jessie", "8"),
    ("stretch", "9"),
    ("buster", "10"),
    ("bullseye", "11"),
    ("bookworm", "12"),
    ("trixie", "13"),
    ("forky", "14"),
    ("duke", "15"),
];

pub(super) fn is_tracker(object: &Map<String, Value>) -> bool {
    let mut issues = object.values().take(50).filter_map(Value::as_object).flatten();
    issues
        .next()
        .is_some_and(|(_, issue)| issue.get("releases").is_some())
}

pub(super) fn advisories(object: &Map<String, Value>, refused: &mut Vec<String>) -> Vec<Advisory> {
    let mut advisories: BTreeMap<String, Advisory> = BTreeMap::new();
    for (package, issues) in object {
        let (Some(package), Some(issues)) = (name(package), issues.as_object()) else {
            refused.push(format!("{}: it has no issues", line(package)));
            continue;
        };
        for (id, issue) in issues {
            let Some(id) = name(id) else {
                refused.push(format!("{package}: an issue without a name"));
                continue;
            };
            let releases = issue.get("releases").and_then(Value::as_object);
            let affected: Vec<Affected> = releases
                .into_iter()
                .flatten()
                .filter_map(|(release, says)| concerned(&package, release, says))
                .collect();
            let advisory = advisories.entry(id).or_insert_with_key(|id| Advisory {
                id: format!("DEBIAN-{id}"),
                aliases: vec![id.clone()],
                summary: line(
                    issue
                        .get("description")
                        .and_then(Value::as_str)
                        .unwrap_or_default(),
                ),
                ..Advisory::default()
            });
            advisory.affected.extend(affected);
        }
    }
    advisories
        .into_values()
        .filter(|advisory| !advisory.affected.is_empty())
        .collect()
}

fn concerned(package: &str, release: &str, says: &Value) -> Option<Affected> {
    let text = |key: &str| says.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = RELEASES
        .iter()
        .find(|(name, _)| *name == release)
        .map(|(_, number)| (*number).to_owned())
        // `sid`, and suites such as `bookworm-security`, whose packages are those of their release.
        .or_else(|| (release == "sid").then(|| "unstable".to_owned()))?;
    let mut affected = Affected {
        ecosystem: format!("Debian:{number}"),
        package: package.to_owned(),
        ..Affected::default()
    };
    let fixed = text("fixed_version");
    match text("status") {
        // "0" says that no version of the release ever had it.
        "resolved" if fixed == "0" => affected.state = State::NotAffected,
        "resolved" if fixed.is_empty() => return None,
        "undetermined" => affected.state = State::Undetermined,
        _ => {}
    }
    let urgency = text("urgency");
    if affected.state == State::Affected {
        affected.state = match (urgency, text("nodsa_reason")) {
            ("unimportant", _) => State::Unimportant,
            ("end-of-life", _) => State::EndOfLife,
            (_, "postponed") => State::Postponed,
            (_, "ignored") => State::Ignored,
            _ => State::Affected,
        };
    }
    affected.severity = Level::parse(urgency.trim_end_matches('*')).map(|level| Severity {
        level,
        source: "Debian".to_owned(),
        ..Severity::default()
    });
    affected.ranges = vec![Range {
        introduced: "0".to_owned(),
        fixed: name(fixed).filter(|fixed| fixed != "0"),
        last: None,
    }];
    Some(affected)
}
