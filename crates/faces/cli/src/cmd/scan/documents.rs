//! What was found, as documents that others read: SARIF, CycloneDX, OpenVEX.

use std::collections::BTreeMap;

use dhow_engine::sbom;
use dhow_engine::vuln::{Exploit, Level, State, VexStatus};
use dhow_engine::{Clearer, Vulnerable};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Scanned;
use super::assess::cyclonedx_state;

/// SARIF 2.1.0 (OASIS), for those who gather findings of all kinds.
pub(super) fn sarif(scanned: &[Scanned]) -> Value {
    let mut rules: BTreeMap<String, Value> = BTreeMap::new();
    let mut results = Vec::new();
    for one in scanned {
        let inventory = &one.target.contents.inventory;
        for vulnerable in &one.scan.found {
            let installed = &inventory.packages[vulnerable.package];
            let finding = &vulnerable.finding;
            let id = finding.advisory.known_as().to_owned();
            let severity = &finding.severity;
            let kind = match severity.level {
                Level::Critical | Level::High => "error",
                Level::Medium => "warning",
                _ => "note",
            };
            rules.entry(id.clone()).or_insert_with(|| {
                let mut rule = json!({
                    "id": id,
                    "shortDescription": {"text": if finding.advisory.summary.is_empty() { &id } else { &finding.advisory.summary }},
                    "properties": {"tags": ["vulnerability", severity.level.name()]},
                });
                if let Some(score) = severity.score {
                    rule["properties"]["security-severity"] = format!("{}.{}", score / 10, score % 10).into();
                }
                rule
            });
            let fix = finding.fixed.as_ref().map_or_else(
                || "no version mends it".to_owned(),
                |fixed| format!("{fixed} mends it"),
            );
            let by = one
                .brought
                .get(installed.layer)
                .map_or_else(String::new, |image| format!(", brought by {image}"));
            results.push(json!({
                "ruleId": id,
                "level": kind,
                "message": {"text": format!(
                    "{} {} in {}{by}: {id}, {fix}",
                    installed.package.name, installed.package.version, one.target.name
                )},
                "locations": [{"physicalLocation": {
                    "artifactLocation": {"uri": installed.path, "uriBaseId": "ROOTPATH"},
                    "region": {"startLine": 1},
                }}],
            }));
        }
    }
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "dhow",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.into_values().collect::<Vec<_>>(),
            }},
            "originalUriBaseIds": {"ROOTPATH": {"uri": "file:///"}},
            "results": results,
        }],
    })
}

/// The bill of materials with what was found in it (CycloneDX 1.6, "Vulnerabilities").
pub(super) fn cyclonedx(one: &Scanned) -> Value {
    let inventory = &one.target.contents.inventory;
    let mut document = sbom::cyclonedx(inventory, &one.target.subject());
    // Packages come behind the operating system.
    let first = usize::from(inventory.os.is_some());
    let references: Vec<Value> = (0..inventory.packages.len())
        .map(|at| document["components"][first + at]["bom-ref"].clone())
        .collect();
    let mut all: BTreeMap<(String, Option<String>), (Value, Vec<Value>)> = BTreeMap::new();
    let found = one.scan.found.iter().map(|vulnerable| (vulnerable, None));
    let suppressed = one.scan.suppressed.iter().map(|one| (&one.vulnerable, Some(one)));
    for (vulnerable, cleared) in found.chain(suppressed) {
        let id = vulnerable.finding.advisory.known_as().to_owned();
        let why = cleared.map(dhow_engine::Suppressed::why);
        let entry = all.entry((id, why.clone())).or_insert_with(|| {
            let mut value = vulnerability(vulnerable);
            let state = match cleared.map(|cleared| cleared.by) {
                Some(Clearer::Vex(status)) => Some(status),
                Some(Clearer::Ignored) => None,
                None => vulnerable.vex,
            };
            if let Some(status) = state {
                value["analysis"] = json!({"state": cyclonedx_state(status)});
                if let Some(why) = &why {
                    value["analysis"]["detail"] = why.clone().into();
                }
            } else if let Some(why) = why {
                // Somebody does not want to see it, which says nothing of whether it is there.
                value["properties"] = json!([{"name": "dhow:suppressed", "value": why}]);
            }
            (value, Vec::new())
        });
        entry.1.push(json!({"ref": references[vulnerable.package]}));
    }
    document["vulnerabilities"] = all
        .into_values()
        .map(|(mut value, affects)| {
            value["affects"] = affects.into();
            value
        })
        .collect();
    document
}

fn vulnerability(vulnerable: &Vulnerable) -> Value {
    let finding = &vulnerable.finding;
    let severity = &finding.severity;
    let level = match severity.level {
        Level::Negligible => "info",
        level => level.name(),
    };
    let mut rating = json!({"severity": level, "source": {"name": severity.source}});
    if let Some(vector) = &severity.vector {
        rating["vector"] = vector.clone().into();
        let method = match vector {
            vector if vector.starts_with("CVSS:3.1/") => "CVSSv31",
            vector if vector.starts_with("CVSS:3.0/") => "CVSSv3",
            vector if vector.starts_with("CVSS:4.0/") => "CVSSv4",
            _ => "other",
        };
        rating["method"] = method.into();
    }
    if let Some(score) = severity.score {
        rating["score"] = (f64::from(score) / 10.0).into();
    }
    let mut ratings = vec![rating];
    if let Some(epss) = finding.exploit.epss {
        let share = Exploit::share(epss);
        ratings.push(json!({"source": {"name": "EPSS"}, "score": share, "method": "other"}));
    }
    let mut value = json!({"id": finding.advisory.known_as(), "ratings": ratings});
    if !finding.advisory.summary.is_empty() {
        value["description"] = finding.advisory.summary.clone().into();
    }
    if !finding.advisory.published.is_empty() {
        value["published"] = finding.advisory.published.clone().into();
    }
    if let Some(fixed) = &finding.fixed {
        value["recommendation"] = format!("{fixed} or later").into();
    }
    let source = json!({"name": finding.advisory.id});
    value["references"] = json!([{"id": finding.advisory.id, "source": source}]);
    value
}

/// What is known of each finding, as OpenVEX 0.2.0 says it: for others, or to be completed by people.
pub(super) fn openvex(scanned: &[Scanned]) -> Value {
    let mut statements = Vec::new();
    let mut text = String::new();
    for one in scanned {
        let inventory = &one.target.contents.inventory;
        let product = product(one);
        let found = one.scan.found.iter().map(|vulnerable| (vulnerable, None));
        let suppressed = one.scan.suppressed.iter().filter_map(|one| match one.by {
            Clearer::Vex(status) => Some((&one.vulnerable, Some((status, one.reason.as_str())))),
            Clearer::Ignored => None,
        });
        for (vulnerable, cleared) in found.chain(suppressed) {
            let purl = inventory.packages[vulnerable.package]
                .package
                .purl(inventory.os.as_ref());
            let mut subject = json!({"@id": purl});
            if let Some(product) = &product {
                subject = json!({"@id": product, "subcomponents": [subject]});
            }
            let statement = statement(vulnerable, cleared, subject);
            text.push_str(&statement.to_string());
            statements.push(statement);
        }
    }
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok();
    let epoch = epoch.and_then(|text| Timestamp::from_second(text.parse().ok()?).ok());
    json!({
        "@context": "https://openvex.dev/ns/v0.2.0",
        "@id": format!("urn:dhow:vex:{}", dhow_types::Digest::of(text.as_bytes()).hex()),
        "author": "dhow scan",
        "timestamp": epoch.unwrap_or_else(Timestamp::now).strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "version": 1,
        "statements": statements,
    })
}

fn statement(vulnerable: &Vulnerable, cleared: Option<(VexStatus, &str)>, product: Value) -> Value {
    let finding = &vulnerable.finding;
    // What a distribution has judged is known; the rest is to be looked into by somebody.
    let status = match (cleared, vulnerable.vex, finding.state) {
        (Some((status, _)), ..) | (None, Some(status), _) => status,
        (None, None, State::Undetermined) => VexStatus::UnderInvestigation,
        (None, None, State::NotAffected) => VexStatus::NotAffected,
        _ => VexStatus::Affected,
    };
    let mut said = json!({
        "vulnerability": {"name": finding.advisory.known_as(), "aliases": finding.advisory.aliases},
        "products": [product],
        "status": status.name(),
    });
    match status {
        VexStatus::Affected => {
            let action = finding.fixed.as_ref().map_or_else(
                || {
                    format!(
                        "no version mends it yet; the distribution says: {}",
                        finding.state.name()
                    )
                },
                |fixed| format!("update to {fixed} or later"),
            );
            said["action_statement"] = action.into();
        }
        VexStatus::NotAffected => {
            let reason = cleared.map_or("", |(_, reason)| reason);
            let (word, detail) = reason.split_once(": ").unwrap_or((reason, ""));
            if JUSTIFICATIONS.contains(&word) {
                said["justification"] = word.into();
                if !detail.is_empty() {
                    said["impact_statement"] = detail.into();
                }
            } else {
                let reason = if reason.is_empty() {
                    "somebody said so"
                } else {
                    reason
                };
                said["impact_statement"] = reason.into();
            }
        }
        _ => {}
    }
    said
}

/// OpenVEX's words for why a product is not affected.
const JUSTIFICATIONS: [&str; 5] = [
    "component_not_present",
    "vulnerable_code_not_present",
    "vulnerable_code_not_in_execute_path",
    "vulnerable_code_cannot_be_controlled_by_adversary",
    "inline_mitigations_already_exist",
];

/// An image as OpenVEX names it: `pkg:oci/NAME@sha256:...`.
fn product(one: &Scanned) -> Option<String> {
    let image = one.target.image.as_ref()?;
    let Some((repository, digest)) = image.digests.first() else {
        return Some(image.id.to_string());
    };
    let name = repository.rsplit('/').next().unwrap_or(repository);
    let escaped = repository.replace('/', "%2F");
    Some(format!(
        "pkg:oci/{name}@sha256%3A{}?repository_url={escaped}",
        digest.hex()
    ))
}
