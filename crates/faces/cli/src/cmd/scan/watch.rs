//! `scan --watch`: what is new since the last time. Each look is a process of its own, since whoever looks through layers must have no
//! threads, and a webhook makes some.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Args;
use dhow_engine::{Engine, Vulnerable};
use dhow_types::parse_duration;
use serde_json::{Value, json};

use super::{FOUND, ScanFlags, Scanned};
use crate::render::{note, say_line};
use crate::{CliError, dialect};

#[derive(Args, Debug)]
pub(super) struct WatchFlags {
    /// Tell only what is new since the last time, and look again whenever the advisory data or the images change
    #[arg(long)]
    watch: bool,
    /// With --watch: look once, and exit with 2 when there is something new (with --fail-on: of that kind)
    #[arg(long, requires = "watch")]
    once: bool,
    /// With --watch: how often it is checked whether anything changed
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = every, requires = "watch")]
    every: Duration,
    /// With --watch: send what is new to this URL, as JSON
    #[arg(long, value_name = "URL", requires = "watch")]
    webhook: Option<String>,
}

fn every(text: &str) -> Result<Duration, String> {
    let every = parse_duration(text).map_err(|error| error.to_string())?;
    if every < Duration::from_millis(100) {
        return Err("it is less than 100ms".to_owned());
    }
    Ok(every)
}

impl WatchFlags {
    pub(super) fn is_wanted(&self) -> bool {
        self.watch
    }

    pub(super) fn is_endless(&self) -> bool {
        self.watch && !self.once
    }
}

/// Looks again and again, until it is ended by a signal.
pub(super) fn endless(engine: &Engine, flags: &WatchFlags) -> Result<ExitCode, CliError> {
    let wrong = |error: std::io::Error| CliError::plain(format!("look again: {error}"));
    let mut last = None;
    loop {
        let now = engine.scan_inputs();
        if last.as_ref() != Some(&now) {
            let mut look = Command::new("/proc/self/exe");
            for word in std::env::args_os().skip(1) {
                let is_flag = word == "--watch";
                look.arg(word).args(is_flag.then_some("--once"));
            }
            let status = look.status().map_err(wrong)?;
            // What it could not do it has said; the next change may mend it.
            let known = [0, i32::from(FOUND)];
            if !status.code().is_some_and(|code| known.contains(&code)) {
                note(&dialect::warning("this look was not done to its end"));
            }
            last = Some(now);
        }
        std::thread::sleep(flags.every);
    }
}

/// Tells what is new since the last time.
pub(super) fn once(engine: &Engine, flags: &ScanFlags, scanned: &[Scanned]) -> Result<ExitCode, CliError> {
    let mut found: BTreeMap<String, BTreeMap<String, &Vulnerable>> = BTreeMap::new();
    for one in scanned {
        let own = one
            .scan
            .found
            .iter()
            .map(|vulnerable| (one.line(vulnerable), vulnerable));
        found.entry(one.target.name.clone()).or_default().extend(own);
    }
    let lines = found
        .iter()
        .map(|(name, own)| (name.clone(), own.keys().cloned().collect::<BTreeSet<_>>()))
        .collect();
    let changed = engine.findings_changed(lines, flags.all)?;
    let mut told = Vec::new();
    let mut fails = false;
    for one in scanned {
        let (Some(changed), Some(own)) = (changed.get(&one.target.name), found.remove(&one.target.name))
        else {
            continue;
        };
        let new: Vec<&Vulnerable> = changed
            .new
            .iter()
            .filter_map(|line| own.get(line).copied())
            .collect();
        let counts = |vulnerable: &&Vulnerable| flags.fail_on.is_empty() || flags.fails(vulnerable);
        fails |= new.iter().any(counts);
        for vulnerable in &new {
            tell(engine, one, vulnerable);
        }
        if !new.is_empty() || !changed.gone.is_empty() {
            told.push(json!({
                "Name": one.target.name,
                "ID": one.target.image.as_ref().map(|image| image.id.to_string()),
                "New": new.iter().map(|vulnerable| one.finding(vulnerable)).collect::<Vec<_>>(),
                "Gone": changed.gone,
            }));
        }
        if flags.format != "json" {
            let name = &one.target.name;
            changed
                .new
                .iter()
                .try_for_each(|line| say_line(&format!("new\t{name}\t{line}")))?;
            changed
                .gone
                .iter()
                .try_for_each(|line| say_line(&format!("gone\t{name}\t{line}")))?;
        }
    }
    if flags.format == "json" {
        told.iter().try_for_each(|one| say_line(&one.to_string()))?;
    }
    if let (Some(url), false) = (&flags.watch.webhook, told.is_empty()) {
        engine.post_json(url, Value::from(told).to_string().into_bytes())?;
    }
    Ok(ExitCode::from(if fails { FOUND } else { 0 }))
}

fn tell(engine: &Engine, one: &Scanned, vulnerable: &Vulnerable) {
    if let Some(image) = &one.target.image {
        let finding = &vulnerable.finding;
        let package = &one.target.contents.inventory.packages[vulnerable.package].package;
        let severity = finding.severity.level.name();
        engine.tell_vulnerable(
            &image.id,
            &one.target.name,
            finding.advisory.known_as(),
            &package.name,
            severity,
        );
    }
}

impl Scanned {
    /// A finding as one line, the same as long as nothing of it changes.
    fn line(&self, vulnerable: &Vulnerable) -> String {
        let package = &self.target.contents.inventory.packages[vulnerable.package].package;
        let finding = &vulnerable.finding;
        format!(
            "{}\t{}\t{} {}\t{}",
            finding.advisory.known_as(),
            finding.severity.level.name(),
            package.name,
            package.version,
            finding.fixed.as_deref().unwrap_or("-"),
        )
    }
}
