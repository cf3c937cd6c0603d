//! `scan`: known vulnerabilities in images and folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::tree::Graph;
use dhow_engine::vuln::Level;
use dhow_engine::{Advisories, Engine, Scan, Vulnerable};
use serde_json::{Value, json};

use super::sbom::{Target, pretty};
use crate::render::{note, say, table};
use crate::{CliError, Context, Verb, dialect};

pub(crate) const VERB: Verb = Verb {
    name: "scan",
    about: "Find known vulnerabilities in images, and name the image of the chain that brought each",
    flags: |command| ScanFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct ScanFlags {
    /// Format output: table, json or sarif
    #[arg(long, default_value = "table", value_parser = ["table", "json", "sarif"])]
    format: String,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Every image that is here
    #[arg(short, long, conflicts_with = "targets")]
    all: bool,
    /// Exit with 2 when something of this severity or worse is shown, whatever the distribution means to do about it
    #[arg(long, value_name = "SEVERITY", value_parser = level)]
    fail_on: Option<Level>,
    /// Show only this severity and worse
    #[arg(long, value_name = "SEVERITY", value_parser = level)]
    severity: Option<Level>,
    /// Show only what a new version of the package mends
    #[arg(long)]
    only_fixed: bool,
    /// Advisory data to use instead of what was imported
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Images, or folders (paths with a slash)
    #[arg(value_name = "IMAGE|FOLDER", required_unless_present = "all")]
    targets: Vec<String>,
}

fn level(text: &str) -> Result<Level, String> {
    Level::parse(text).ok_or_else(|| {
        let known: Vec<&str> = Level::ALL.iter().rev().map(|level| level.name()).collect();
        format!("it is one of {}", known.join(", "))
    })
}

/// Exit status when `--fail-on` found something: 1 is that of a scan that could not be done.
const FOUND: u8 = 2;

/// A target and what was found in it.
struct Scanned {
    target: Target,
    scan: Scan,
    /// For each layer the image of the chain that brought it, by name.
    brought: Vec<String>,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ScanFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let advisories = match &flags.data {
        Some(path) => engine.advisories_at(path)?,
        None => engine.advisories()?,
    };
    let graph = engine.lineage()?;
    let names = if flags.all {
        all(engine)?
    } else {
        flags.targets.clone()
    };
    let mut scanned = Vec::with_capacity(names.len());
    for name in &names {
        let mut one = look(engine, &advisories, &graph, name)?;
        one.scan.found.retain(|vulnerable| shown(&flags, vulnerable));
        one.warn();
        scanned.push(one);
    }
    let text = match flags.format.as_str() {
        "json" => pretty(&json!(scanned.iter().map(Scanned::document).collect::<Vec<_>>())),
        "sarif" => pretty(&sarif(&scanned)),
        _ => scanned.iter().map(Scanned::listed).collect::<Vec<_>>().join("\n"),
    };
    match &flags.output {
        Some(path) => fs::write(path, &text)
            .map_err(|error| CliError::plain(format!("write {}: {error}", path.display())))?,
        None => say(&text)?,
    }
    let worst = scanned
        .iter()
        .flat_map(|one| &one.scan.found)
        .map(|vulnerable| vulnerable.finding.severity.level)
        .max();
    match (flags.fail_on, worst) {
        (Some(limit), Some(worst)) if worst >= limit => Ok(ExitCode::from(FOUND)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Names of all images, one for each.
fn all(engine: &Engine) -> Result<Vec<String>, CliError> {
    let images = engine.images()?;
    Ok(images
        .iter()
        .map(|image| {
            image
                .names
                .first()
                .cloned()
                .unwrap_or_else(|| image.record.id.to_string())
        })
        .collect())
}

pub(super) fn look_at(
    engine: &Engine,
    advisories: &Advisories,
    name: &str,
) -> Result<(Target, Scan), CliError> {
    let target = Target::find(engine, name)?;
    let scan = engine.scan(&target.contents.inventory, advisories)?;
    Ok((target, scan))
}

fn look(engine: &Engine, advisories: &Advisories, graph: &Graph, name: &str) -> Result<Scanned, CliError> {
    let (target, scan) = look_at(engine, advisories, name)?;
    let node = target.image.as_ref().and_then(|image| graph.find(&image.id));
    let brought = node.map_or_else(Vec::new, |node| {
        (0..target.contents.layers.len())
            .map(|layer| super::tree::name(graph, graph.brought(node, layer)))
            .collect()
    });
    Ok(Scanned {
        target,
        scan,
        brought,
    })
}

fn shown(flags: &ScanFlags, vulnerable: &Vulnerable) -> bool {
    let finding = &vulnerable.finding;
    flags.severity.is_none_or(|least| finding.severity.level >= least)
        && (!flags.only_fixed || finding.fixed.is_some())
}

impl Scanned {
    fn warn(&self) {
        self.target.warn();
        if self.target.contents.inventory.os.is_none() && !self.target.contents.inventory.packages.is_empty()
        {
            note(&dialect::warning(&format!(
                "{}: it does not say which distribution it is of",
                self.target.name
            )));
        }
        for (ecosystem, packages) in &self.scan.unknown {
            note(&dialect::warning(&format!(
                "{}: the advisory data has nothing on {ecosystem}: {packages} packages were not looked up",
                self.target.name
            )));
        }
        for (package, advisory) in &self.scan.unordered {
            let package = &self.target.contents.inventory.packages[*package].package;
            note(&dialect::warning(&format!(
                "{} {}: its version cannot be compared with those of {advisory}",
                package.name, package.version
            )));
        }
    }

    fn count(&self) -> BTreeMap<Level, usize> {
        let mut count = BTreeMap::new();
        for vulnerable in &self.scan.found {
            *count.entry(vulnerable.finding.severity.level).or_default() += 1;
        }
        count
    }

    fn listed(&self) -> String {
        let inventory = &self.target.contents.inventory;
        let counts: Vec<String> = self
            .count()
            .iter()
            .rev()
            .map(|(level, count)| format!("{count} {}", level.name()))
            .collect();
        let os = inventory
            .os
            .as_ref()
            .map_or_else(String::new, |os| format!(" ({} {})", os.id, os.version));
        let sum = match counts.len() {
            0 => "nothing found".to_owned(),
            _ => counts.join(", "),
        };
        let mut text = format!(
            "{}{os}: {} packages looked up, {sum}\n",
            self.target.name, self.scan.looked_up
        );
        if self.scan.found.is_empty() {
            return text;
        }
        let mut rows =
            "VULNERABILITY\tSEVERITY\tPACKAGE\tINSTALLED\tFIXED IN\tSTATE\tBROUGHT BY\n".to_owned();
        for vulnerable in &self.scan.found {
            let installed = &inventory.packages[vulnerable.package];
            let finding = &vulnerable.finding;
            let by = match self.brought.get(installed.layer) {
                Some(image) => format!("{image} (layer {})", installed.layer),
                None => installed.path.clone(),
            };
            rows.push_str(&format!(
                "{}\t{}\t{}\t{}\t{}\t{}\t{by}\n",
                finding.advisory.known_as(),
                finding.severity.level.name(),
                installed.package.name,
                installed.package.version,
                finding.fixed.as_deref().unwrap_or(""),
                finding.state.name(),
            ));
        }
        text.push_str(&table::align(&rows));
        text
    }

    fn document(&self) -> Value {
        let inventory = &self.target.contents.inventory;
        let found = self.scan.found.iter().map(|vulnerable| {
            let installed = &inventory.packages[vulnerable.package];
            let finding = &vulnerable.finding;
            json!({
                "ID": finding.advisory.known_as(),
                "Advisory": finding.advisory.id,
                "Aliases": finding.advisory.aliases,
                "Summary": finding.advisory.summary,
                "Severity": finding.severity.level.name(),
                "SeveritySource": finding.severity.source,
                "Vector": finding.severity.vector,
                "Score": finding.severity.score.map(|tenths| f64::from(tenths) / 10.0),
                "State": finding.state.name(),
                "Package": installed.package.name,
                "Installed": installed.package.version,
                "Source": installed.package.source().0,
                "PURL": installed.package.purl(inventory.os.as_ref()),
                "FixedIn": finding.fixed,
                "Path": installed.path,
                "Layer": installed.layer,
                "DiffID": self.target.contents.layers.get(installed.layer).map(ToString::to_string),
                "BroughtBy": self.brought.get(installed.layer),
            })
        });
        json!({
            "Name": self.target.name,
            "ID": self.target.image.as_ref().map(|image| image.id.to_string()),
            "LookedUp": self.scan.looked_up,
            "NotLookedUp": self.scan.unknown.iter().cloned().collect::<BTreeMap<_, _>>(),
            "Vulnerabilities": found.collect::<Vec<_>>(),
        })
    }
}

/// SARIF 2.1.0 (OASIS), for those who gather findings of all kinds.
fn sarif(scanned: &[Scanned]) -> Value {
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
