//! `scan`: known vulnerabilities in images and folders.

mod assess;
mod documents;
pub(super) mod html;
mod report;
mod watch;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::life::{Date, Table};
use dhow_engine::sbom::Kind;
use dhow_engine::tree::Graph;
use dhow_engine::vuln::Level;
use dhow_engine::{Advisories, Engine, Scan, Vulnerable, today};
use dhow_types::DiffId;
use serde_json::json;

use self::assess::{AssessFlags, Condition};
use super::lifecycle::{ENDED, standing};
use super::sbom::{LyingFlags, Target, pretty};
use crate::render::{note, say};
use crate::{CliError, Context, Verb, dialect};

pub(crate) const VERB: Verb = Verb {
    name: "scan",
    about: "Find known vulnerabilities in images, and name the image of the chain that brought each",
    flags: |command| ScanFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct ScanFlags {
    /// Format output: table, json, sarif, cyclonedx (1.6, with what is in it), openvex (0.2.0) or html
    #[arg(long, default_value = "table", value_parser = ["table", "json", "sarif", "cyclonedx", "openvex", "html"])]
    format: String,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Every image that is here
    #[arg(short, long, conflicts_with = "targets")]
    all: bool,
    /// Exit with 2 when something of this severity or worse is shown, whatever the distribution means to do about it; "kev": that
    /// attackers use, "epss=0.5": that they use with this probability or more; "eol": that the
    /// distribution, or a program that it did not bring, gets no fixes any more; "incomplete": that something could not be read or looked
    /// up; several, separated by commas: any of them
    #[arg(long, value_name = "CONDITION", value_parser = Condition::parse, value_delimiter = ',')]
    fail_on: Vec<Condition>,
    /// Show only this severity and worse
    #[arg(long, value_name = "SEVERITY", value_parser = level)]
    severity: Option<Level>,
    /// Show only what a new version of the package mends
    #[arg(long)]
    only_fixed: bool,
    /// Advisory data to use instead of what was imported
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    #[command(flatten)]
    assess: AssessFlags,
    #[command(flatten)]
    watch: watch::WatchFlags,
    #[command(flatten)]
    lying: LyingFlags,
    /// Images, folders (paths with a slash), files with a bill of materials (CycloneDX or SPDX, JSON), or images where they lie: files of
    /// docker save or OCI archives, docker-archive:FILE[:NAME], oci-archive:FILE[:NAME], oci:FOLDER[:NAME]
    #[arg(value_name = "IMAGE|FOLDER|SBOM|ARCHIVE", required_unless_present = "all")]
    targets: Vec<String>,
}

fn level(text: &str) -> Result<Level, String> {
    Level::parse(text).ok_or_else(|| format!("it is one of {}", levels()))
}

fn levels() -> String {
    let known: Vec<&str> = Level::ALL.iter().rev().map(|level| level.name()).collect();
    known.join(", ")
}

/// Exit status when `--fail-on` found something: 1 is that of a scan that could not be done.
const FOUND: u8 = 2;

/// A target and what was found in it.
struct Scanned {
    target: Target,
    scan: Scan,
    /// For each layer the image of the chain that brought it, by name.
    brought: Vec<String>,
    /// What in it has an end: the distribution, and what no package of it brought.
    ends: Vec<End>,
}

/// Until when something gets fixes.
struct End {
    /// What: `debian 10`.
    what: String,
    /// How it stands today.
    state: &'static str,
    /// The day.
    until: Date,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: ScanFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    if flags.watch.is_endless() {
        return watch::endless(engine, &flags.watch);
    }
    let scanned = scan(engine, &flags)?;
    if flags.watch.is_wanted() {
        return watch::once(engine, &flags, &scanned);
    }
    let text = match flags.format.as_str() {
        "json" => pretty(&json!(scanned.iter().map(Scanned::document).collect::<Vec<_>>())),
        "sarif" => pretty(&documents::sarif(&scanned)),
        "cyclonedx" => pretty(&documents::cyclonedx(only_one(&scanned, "cyclonedx")?)),
        "openvex" => pretty(&documents::openvex(&scanned)),
        "html" => html::page(&scanned),
        _ => {
            let listed = scanned.iter().map(|one| one.listed(flags.assess.show_suppressed));
            listed.collect::<Vec<_>>().join("\n")
        }
    };
    match &flags.output {
        Some(path) => fs::write(path, &text)
            .map_err(|error| CliError::plain(format!("write {}: {error}", path.display())))?,
        None => say(&text)?,
    }
    let mut found = scanned.iter().flat_map(|one| &one.scan.found);
    let asks = |condition| flags.fail_on.contains(&condition);
    let whole = asks(Condition::Ended) && scanned.iter().any(Scanned::is_over)
        || asks(Condition::Incomplete) && scanned.iter().any(Scanned::is_incomplete);
    Ok(match whole || found.any(|vulnerable| flags.fails(vulnerable)) {
        true => ExitCode::from(FOUND),
        false => ExitCode::SUCCESS,
    })
}

/// Everything that was asked for, judged.
fn scan(engine: &Engine, flags: &ScanFlags) -> Result<Vec<Scanned>, CliError> {
    let advisories = match &flags.data {
        Some(path) => engine.advisories_at(path)?,
        None => engine.advisories()?,
    };
    let names = if flags.all {
        all(engine)?
    } else {
        flags.targets.clone()
    };
    let looked: Vec<(Target, Scan)> = names
        .iter()
        .map(|name| look_at(engine, &advisories, name, &flags.lying))
        .collect::<Result<_, _>>()?;
    if let Some((target, _)) = looked.iter().find(|(target, _)| target.lying)
        && let Some(what) = flags.assess.asks_the_store()
    {
        let message = format!("--vex {what}: {} is not in the store", target.name);
        return Err(CliError::plain(message).with_hint("load it first"));
    }
    let images = looked.iter().filter_map(|(target, _)| target.image.as_ref());
    let stacks: Vec<&[DiffId]> = images.map(|image| image.record.layers.as_slice()).collect();
    let graph = engine.lineage_of(&stacks)?;
    let ends = engine.ends()?;
    let scanned = looked
        .into_iter()
        .map(|(target, scan)| Scanned::of(target, scan, &graph, &ends));
    let mut scanned: Vec<Scanned> = scanned.collect();
    // Only now: what asks registries has threads, and whoever looks through layers must have none.
    let images = scanned.iter().filter_map(|one| one.target.image.as_ref());
    let assessment = flags.assess.assessment(engine, images)?;
    for one in &mut scanned {
        let inventory = &one.target.contents.inventory;
        assessment.judge(&mut one.scan, inventory, one.target.image.as_ref());
        one.scan.found.retain(|vulnerable| shown(flags, vulnerable));
        one.scan
            .suppressed
            .retain(|suppressed| shown(flags, &suppressed.vulnerable));
        one.warn();
    }
    Ok(scanned)
}

fn only_one<'s>(scanned: &'s [Scanned], format: &str) -> Result<&'s Scanned, CliError> {
    match scanned {
        [one] => Ok(one),
        _ => Err(CliError::plain(format!(
            "--format {format} is a document of one image"
        ))),
    }
}

impl ScanFlags {
    fn fails(&self, vulnerable: &Vulnerable) -> bool {
        self.fail_on.iter().any(|condition| condition.holds(vulnerable))
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
    lying: &LyingFlags,
) -> Result<(Target, Scan), CliError> {
    let target = Target::find(engine, name, lying)?;
    let scan = engine.scan(&target.contents.inventory, advisories)?;
    Ok((target, scan))
}

fn shown(flags: &ScanFlags, vulnerable: &Vulnerable) -> bool {
    let finding = &vulnerable.finding;
    flags.severity.is_none_or(|least| finding.severity.level >= least)
        && (!flags.only_fixed || finding.fixed.is_some())
}

/// The distribution, and programs that it did not bring, with their ends.
fn ends_of(target: &Target, table: &Table) -> Vec<End> {
    let inventory = &target.contents.inventory;
    let os = inventory
        .os
        .iter()
        .map(|os| (os.id.as_str(), os.version.as_str()));
    let programs = inventory.packages.iter().filter_map(|installed| {
        let package = &installed.package;
        match package.kind {
            Kind::Generic if package.name == "node" => Some(("nodejs", package.version.as_str())),
            Kind::Generic => Some((package.name.as_str(), package.version.as_str())),
            Kind::Golang if package.name == "stdlib" && installed.owner.is_none() => {
                Some(("go", package.version.as_str()))
            }
            _ => None,
        }
    });
    let mut ends: Vec<End> = os
        .chain(programs)
        .filter_map(|(product, version)| {
            let (release, end) = table.release(product, version)?;
            let (state, until) = standing(end, today())?;
            let what = format!("{product} {release}");
            Some(End { what, state, until })
        })
        .collect();
    // One is often there several times.
    ends.sort_by(|a, b| a.what.cmp(&b.what));
    ends.dedup_by(|a, b| a.what == b.what);
    ends
}

impl Scanned {
    fn of(target: Target, scan: Scan, graph: &Graph, ends: &Table) -> Self {
        let node = target.image.as_ref().and_then(|image| graph.find(&image.id));
        let brought = node.map_or_else(Vec::new, |node| {
            (0..target.contents.layers.len())
                .map(|layer| super::tree::name(graph, graph.brought(node, layer)))
                .collect()
        });
        Self {
            ends: ends_of(&target, ends),
            target,
            scan,
            brought,
        }
    }

    /// Whether something in it gets no fixes any more.
    fn is_over(&self) -> bool {
        self.ends.iter().any(|end| end.state == ENDED)
    }

    /// Whether something could not be read, or was not looked up: each is a warning.
    fn is_incomplete(&self) -> bool {
        let unread = !self.target.contents.inventory.problems.is_empty();
        unread || !self.scan.unknown.is_empty() || self.scan.programs > 0
    }

    fn warn(&self) {
        self.target.warn();
        if self.target.contents.inventory.os.is_none() && !self.target.contents.inventory.packages.is_empty()
        {
            note(&dialect::warning(&format!(
                "{}: it does not say which distribution it is of",
                self.target.name
            )));
        }
        for end in self.ends.iter().filter(|end| end.state == ENDED) {
            note(&dialect::warning(&format!(
                "{}: {} gets no fixes since {}: that nothing is found in it means little",
                self.target.name, end.what, end.until
            )));
        }
        for (ecosystem, packages) in &self.scan.unknown {
            note(&dialect::warning(&format!(
                "{}: the advisory data has nothing on {ecosystem}: {packages} packages were not looked up",
                self.target.name
            )));
        }
        if self.scan.programs > 0 {
            note(&dialect::warning(&format!(
                "{}: the advisory data has nothing on programs that no package brought: {} were not looked up",
                self.target.name, self.scan.programs
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
}
