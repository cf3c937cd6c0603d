//! `scan --watch`: what is new since the last time. Each look is a process of its own, since whoever looks through layers must have no
//! threads, and a webhook makes some.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Args;
use dhow_engine::{Changed, Engine, Findings, Vulnerable};
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
            let known = [0, i32::from(FOUND)];
            if status.code().is_some_and(|code| known.contains(&code)) {
                last = Some(now);
            } else {
                // What it could not do it has said.
                note(&dialect::warning(
                    "this look was not done to its end: it is done again",
                ));
            }
        }
        std::thread::sleep(flags.every);
    }
}

/// What is new of one target.
struct News<'s> {
    of: &'s Scanned,
    new: Vec<&'s Vulnerable>,
    changed: Changed,
}

impl News<'_> {
    fn document(&self) -> Value {
        json!({
            "Name": self.of.target.name,
            "ID": self.of.target.image.as_ref().map(|image| image.id.to_string()),
            "New": self.new.iter().map(|vulnerable| self.of.finding(vulnerable)).collect::<Vec<_>>(),
            "Gone": self.changed.gone,
        })
    }
}

/// Tells what is new since the last time, the webhook first: when that fails nothing counts as told, and is told the next time.
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
    let lines: Findings = found
        .iter()
        .map(|(name, own)| (name.clone(), own.keys().cloned().collect()))
        .collect();
    let mut changed = engine.findings_changed(&lines)?;
    let news: Vec<News<'_>> = scanned
        .iter()
        .filter_map(|of| {
            // A name that was given twice is told once.
            let changed = changed.remove(&of.target.name)?;
            let own = &found[&of.target.name];
            let new = changed.new.iter().filter_map(|line| own.get(line).copied());
            Some(News {
                of,
                new: new.collect(),
                changed,
            })
        })
        .filter(|news| !news.new.is_empty() || !news.changed.gone.is_empty())
        .collect();
    let documents: Vec<Value> = news.iter().map(News::document).collect();
    if let (Some(url), false) = (&flags.watch.webhook, documents.is_empty()) {
        engine.post_json(url, Value::from(documents.clone()).to_string().into_bytes())?;
    }
    for one in &news {
        one.new
            .iter()
            .for_each(|vulnerable| tell(engine, one.of, vulnerable));
    }
    if flags.format == "json" {
        documents.iter().try_for_each(|one| say_line(&one.to_string()))?;
    } else {
        news.iter().try_for_each(print)?;
    }
    engine.keep_findings(lines, flags.all)?;
    let counts = |vulnerable: &&Vulnerable| flags.fail_on.is_empty() || flags.fails(vulnerable);
    let fails = news.iter().flat_map(|one| &one.new).any(counts);
    Ok(ExitCode::from(if fails { FOUND } else { 0 }))
}

fn print(news: &News<'_>) -> Result<(), CliError> {
    let name = &news.of.target.name;
    for (what, lines) in [("new", &news.changed.new), ("gone", &news.changed.gone)] {
        lines
            .iter()
            .try_for_each(|line| say_line(&format!("{what}\t{name}\t{line}")))?;
    }
    Ok(())
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
