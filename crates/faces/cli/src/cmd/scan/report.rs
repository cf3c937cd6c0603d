//! What was found, as a table for people and as JSON.

use std::collections::BTreeMap;

use dhow_engine::Vulnerable;
use dhow_engine::vuln::{Exploit, Level, VexStatus};
use serde_json::{Value, json};

use super::Scanned;
use crate::render::table;

impl Scanned {
    pub(super) fn count(&self) -> BTreeMap<Level, usize> {
        let mut count = BTreeMap::new();
        for vulnerable in &self.scan.found {
            *count.entry(vulnerable.finding.severity.level).or_default() += 1;
        }
        count
    }

    pub(super) fn listed(&self, show_suppressed: bool) -> String {
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
        let mut sum = match counts.len() {
            0 => "nothing found".to_owned(),
            _ => counts.join(", "),
        };
        if !self.scan.suppressed.is_empty() {
            sum.push_str(&format!("; {} suppressed", self.scan.suppressed.len()));
        }
        let mut text = format!(
            "{}{os}: {} packages looked up, {sum}\n",
            self.target.name, self.scan.looked_up
        );
        let shown_suppressed = if show_suppressed {
            self.scan.suppressed.len()
        } else {
            0
        };
        if self.scan.found.len() + shown_suppressed == 0 {
            return text;
        }
        text.push_str(&table::align(&self.rows(show_suppressed)));
        text
    }

    fn rows(&self, show_suppressed: bool) -> String {
        let attacks = self
            .scan
            .found
            .iter()
            .any(|one| one.finding.exploit != Exploit::default());
        let attack = |exploit: &Exploit| match attacks {
            true => format!("\t{}", attacked(exploit)),
            false => String::new(),
        };
        let head = if attacks { "\tATTACKS" } else { "" };
        let mut rows =
            format!("VULNERABILITY\tSEVERITY{head}\tPACKAGE\tINSTALLED\tFIXED IN\tSTATE\tBROUGHT BY\n");
        let mut row = |vulnerable: &Vulnerable, state: &str, by: &str| {
            let installed = &self.target.contents.inventory.packages[vulnerable.package];
            let finding = &vulnerable.finding;
            rows.push_str(&format!(
                "{}\t{}{}\t{}\t{}\t{}\t{state}\t{by}\n",
                finding.advisory.known_as(),
                finding.severity.level.name(),
                attack(&finding.exploit),
                installed.package.name,
                installed.package.version,
                finding.fixed.as_deref().unwrap_or(""),
            ));
        };
        for vulnerable in &self.scan.found {
            let installed = &self.target.contents.inventory.packages[vulnerable.package];
            let by = match self.brought.get(installed.layer) {
                Some(image) => format!("{image} (layer {})", installed.layer),
                None => installed.path.clone(),
            };
            let state = vulnerable
                .vex
                .map_or(vulnerable.finding.state.name(), VexStatus::name);
            row(vulnerable, state, &by);
        }
        for one in self.scan.suppressed.iter().filter(|_| show_suppressed) {
            row(&one.vulnerable, "suppressed", &one.why().replace('\t', " "));
        }
        rows
    }

    pub(super) fn document(&self) -> Value {
        let found = self.scan.found.iter().map(|vulnerable| self.finding(vulnerable));
        let suppressed = self.scan.suppressed.iter().map(|suppressed| {
            let mut value = self.finding(&suppressed.vulnerable);
            value["Suppressed"] = suppressed.why().into();
            value
        });
        json!({
            "Name": self.target.name,
            "ID": self.target.image.as_ref().map(|image| image.id.to_string()),
            "LookedUp": self.scan.looked_up,
            "NotLookedUp": self.scan.unknown.iter().cloned().collect::<BTreeMap<_, _>>(),
            "Ends": self.ends.iter().map(|end| json!({"Name": end.what, "State": end.state, "Until": end.until.to_string()})).collect::<Vec<_>>(),
            "Vulnerabilities": found.collect::<Vec<_>>(),
            "Suppressed": suppressed.collect::<Vec<_>>(),
        })
    }

    pub(super) fn finding(&self, vulnerable: &Vulnerable) -> Value {
        let inventory = &self.target.contents.inventory;
        let installed = &inventory.packages[vulnerable.package];
        let finding = &vulnerable.finding;
        let exploit = &finding.exploit;
        json!({
            "ID": finding.advisory.known_as(),
            "Advisory": finding.advisory.id,
            "Aliases": finding.advisory.aliases,
            "Summary": finding.advisory.summary,
            "Severity": finding.severity.level.name(),
            "SeveritySource": finding.severity.source,
            "Vector": finding.severity.vector,
            "Score": finding.severity.score.map(|tenths| f64::from(tenths) / 10.0),
            "EPSS": exploit.epss.map(Exploit::share),
            "EPSSPercentile": exploit.percentile.map(Exploit::share),
            "KnownExploited": exploit.known,
            "Ransomware": exploit.ransomware,
            "VEX": vulnerable.vex.map(VexStatus::name),
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
    }
}

/// What is known of attacks, in few letters.
pub(super) fn attacked(exploit: &Exploit) -> String {
    let known = exploit.known.as_ref().map(|_| match exploit.ransomware {
        true => "known (ransomware)".to_owned(),
        false => "known".to_owned(),
    });
    let likely = exploit
        .epss
        .map(|epss| format!("{:.1} %", Exploit::share(epss) * 100.0));
    known.into_iter().chain(likely).collect::<Vec<_>>().join(", ")
}
