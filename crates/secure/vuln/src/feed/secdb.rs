//! Alpine's secdb: for each package the versions that fixed something, and what.

use std::collections::BTreeMap;

use dhow_types::ErrorKind;
use serde_json::Value;

use super::{line, name};
use crate::Error;
use crate::advisory::{Advisory, Affected, Range, State};

pub(super) fn advisories(document: &Value, refused: &mut Vec<String>) -> Result<Vec<Advisory>, Error> {
    let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default();
    let bad = |why: &str| Error::new(ErrorKind::InvalidArgument, format!("secdb: {why}"));
    let release = text("distroversion");
    // Wolfi and Chainguard have one release that rolls, and say so in the names of their repositories.
    let ecosystem = match release {
        "" | "os" | "edge" if text("urlprefix").contains("wolfi") || text("apkurl").contains("wolfi") => {
            "Wolfi".to_owned()
        }
        "" | "os" if text("urlprefix").contains("cgr") || text("reponame") == "chainguard" => {
            "Chainguard".to_owned()
        }
        release => format!(
            "Alpine:{}",
            name(release).ok_or_else(|| bad("it names no release"))?
        ),
    };
    let packages = document.get("packages").and_then(Value::as_array);
    let mut advisories: BTreeMap<String, Advisory> = BTreeMap::new();
    for entry in packages.ok_or_else(|| bad("it has no list of packages"))? {
        let package = entry.pointer("/pkg/name").and_then(Value::as_str).and_then(name);
        let fixes = entry.pointer("/pkg/secfixes").and_then(Value::as_object);
        let Some(package) = package else {
            refused.push("a package without a name".to_owned());
            continue;
        };
        for (version, issues) in fixes.into_iter().flatten() {
            let Some(version) = name(version) else {
                refused.push(format!("{package}: {} is no version", line(version)));
                continue;
            };
            // One text may have a name and its aliases: "CVE-2019-1 GHSA-x".
            for issue in issues.as_array().into_iter().flatten().filter_map(Value::as_str) {
                let mut names = issue.split_ascii_whitespace().filter_map(name);
                let Some(id) = names.next() else { continue };
                let advisory = advisories.entry(id).or_insert_with_key(|id| Advisory {
                    id: format!("ALPINE-{id}"),
                    aliases: vec![id.clone()],
                    ..Advisory::default()
                });
                for alias in names {
                    if !advisory.aliases.contains(&alias) {
                        advisory.aliases.push(alias);
                    }
                }
                advisory.affected.push(concerned(&ecosystem, &package, &version));
            }
        }
    }
    Ok(advisories.into_values().collect())
}

/// Version 0 says that the package never had it.
fn concerned(ecosystem: &str, package: &str, version: &str) -> Affected {
    let never = version == "0";
    Affected {
        ecosystem: ecosystem.to_owned(),
        package: package.to_owned(),
        ranges: vec![Range {
            introduced: "0".to_owned(),
            fixed: (!never).then(|| version.to_owned()),
            last: None,
        }],
        state: if never {
            State::NotAffected
        } else {
            State::Affected
        },
        ..Affected::default()
    }
}
