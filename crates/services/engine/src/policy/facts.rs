//! What is known of an image that is here: only what a rule looks at.

use std::collections::BTreeSet;

use dhow_image::Image;
use dhow_inventory::Inventory;
use dhow_lifecycle::Standing;
use dhow_policy::{Facts, Known, Licence, Lifecycle, Point, Policy, Severity, Vulnerability};
use dhow_reference::Reference;
use dhow_vuln::{Level, State};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::algebra::BASE_NAME;
use crate::signature::now;
use crate::{Engine, Error};

/// A fact, or why it is not known.
fn known<T>(found: Result<T, Error>) -> Known<T> {
    match found {
        Ok(found) => Known::Is(found),
        Err(error) => {
            let hint =
                dhow_types::Failure::hint(&error).map_or_else(String::new, |hint| format!(" ({hint})"));
            Known::Unknown(format!("{}{hint}", crate::worker::chain(&error)))
        }
    }
}

impl Engine {
    /// The facts of an image that a policy looks at, at a point.
    pub(super) fn facts(&self, policy: &Policy, point: Point, image: &Image, name: &str) -> Facts {
        let reference = wanted_as(image, name);
        let shown = reference
            .as_ref()
            .map_or_else(|| name.to_owned(), Reference::familiar);
        let mut facts = Facts::new(point, reference, shown, now());
        let needs = policy.needs(point, facts.name.as_ref());
        if needs.signers {
            facts.signers = self.signers_of(policy, image);
        }
        if needs.created {
            facts.created = created(image);
        }
        if needs.lifecycle {
            facts.lifecycle = Known::Is(self.lifecycle_of(image));
        }
        if needs.bases {
            facts.bases = known(self.bases_of(image));
        }
        if needs.vulnerabilities || needs.licences {
            let inventory = self.inventory_for_policy(image);
            if needs.licences {
                facts.licences = match &inventory {
                    Ok(inventory) => Known::Is(licences(inventory)),
                    Err(why) => Known::Unknown(why.clone()),
                };
            }
            if needs.vulnerabilities {
                facts.vulnerabilities = match &inventory {
                    Ok(inventory) => known(self.vulnerabilities(inventory)),
                    Err(why) => Known::Unknown(why.clone()),
                };
            }
        }
        facts
    }

    fn signers_of(&self, policy: &Policy, image: &Image) -> Known<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        let mut looked = false;
        for (repository, digest) in &image.digests {
            let Some(kept) = self.kept_signatures(repository, digest) else {
                continue;
            };
            looked = true;
            match super::signers(policy, &kept) {
                Known::Is(found) => names.extend(found),
                unknown => return unknown,
            }
        }
        // One that never was in a registry cannot have signatures there.
        if !looked && !image.digests.is_empty() {
            let why = "its signatures were not kept, since there was no such policy when it was pulled: pull it again";
            return Known::Unknown(why.to_owned());
        }
        Known::Is(names)
    }

    fn lifecycle_of(&self, image: &Image) -> Option<Lifecycle> {
        let statement = self.statement_about(&image.id)?;
        let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
        let begins = statement.date.to_zoned(TimeZone::UTC);
        Some(Lifecycle {
            end_of_life: begins.map_or(i64::MAX, |begins| begins.timestamp().as_second()),
            revoked: statement.on(today) == Standing::Revoked,
            successor: statement.successor,
            reason: statement.reason,
            signed: statement.signed,
        })
    }

    /// What an image says that it was made of, and the names of images here whose layers it has.
    fn bases_of(&self, image: &Image) -> Result<Vec<Reference>, Error> {
        let said = image.config.config.labels.get(BASE_NAME).cloned();
        let mut names: Vec<String> = said.into_iter().collect();
        let graph = self.lineage_of(&[&image.record.layers])?;
        if let Some(own) = graph.nodes().iter().position(|node| node.id == image.id) {
            let above = graph.line(own).into_iter().filter(|node| *node != own);
            names.extend(above.flat_map(|node| graph.nodes()[node].names.clone()));
        }
        Ok(names
            .iter()
            .filter_map(|name| Reference::parse(name).ok())
            .collect())
    }

    /// What is in it. Whoever looks through layers is forked, which only a process without threads may do: one that has some
    /// knows what was looked through before.
    fn inventory_for_policy(&self, image: &Image) -> Result<Inventory, String> {
        let single = std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1);
        if !single && !self.knows_deltas(&image.record.layers) {
            return Err(format!(
                "its layers were not looked through yet: dhow sbom {} does that",
                image.id.short()
            ));
        }
        let contents = self
            .contents(image)
            .map_err(|error| crate::worker::chain(&error))?;
        match contents.inventory.problems.first() {
            Some((layer, problem)) => Err(format!("layer {layer} cannot be read: {problem}")),
            None => Ok(contents.inventory),
        }
    }

    fn vulnerabilities(&self, inventory: &Inventory) -> Result<Vec<Vulnerability>, Error> {
        let scan = self.scan(inventory, &self.advisories()?)?;
        if let Some((ecosystem, packages)) = scan.unknown.first() {
            let message = format!("the advisory data knows nothing of {ecosystem} ({packages} packages)");
            return Err(
                Error::new(dhow_types::ErrorKind::NotFound, message).with_hint("dhow scan import FILE")
            );
        }
        let one = |vulnerable: crate::Vulnerable| Vulnerability {
            id: vulnerable.finding.advisory.known_as().to_owned(),
            severity: severity(vulnerable.finding.severity.level),
            package: inventory.packages[vulnerable.package].package.name.clone(),
            fixed: vulnerable.finding.fixed.is_some(),
            exploited: vulnerable.finding.exploit.known.is_some(),
            epss: vulnerable.finding.exploit.epss,
        };
        let counts = |vulnerable: &crate::Vulnerable| vulnerable.finding.state != State::NotAffected;
        Ok(scan.found.into_iter().filter(counts).map(one).collect())
    }
}

const fn severity(level: Level) -> Severity {
    match level {
        Level::Unknown => Severity::Unknown,
        Level::Negligible => Severity::Negligible,
        Level::Low => Severity::Low,
        Level::Medium => Severity::Medium,
        Level::High => Severity::High,
        Level::Critical => Severity::Critical,
    }
}

fn licences(inventory: &Inventory) -> Vec<Licence> {
    let packages = inventory.packages.iter().map(|installed| &installed.package);
    let licensed = packages.filter_map(|package| {
        Some(Licence {
            package: package.name.clone(),
            licence: package.licence.clone()?,
        })
    });
    licensed.collect()
}

fn created(image: &Image) -> Known<i64> {
    let text = image.config.created.as_deref();
    match text.and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(at) => Known::Is(at.as_second()),
        None => Known::Unknown("its config does not say".to_owned()),
    }
}

/// The name by which it is wanted, when that is one of its names; else, by its id, the first of them.
fn wanted_as(image: &Image, name: &str) -> Option<Reference> {
    let parsed = Reference::parse(name).ok().map(Reference::or_latest);
    let is_own = |reference: &Reference| {
        let repository = reference.name();
        image.names.iter().any(|own| *own == reference.canonical())
            || image
                .digests
                .iter()
                .any(|(own, digest)| *own == repository && reference.digest() == Some(digest))
    };
    let first = || image.names.first().and_then(|name| Reference::parse(name).ok());
    parsed.filter(is_own).or_else(first)
}
