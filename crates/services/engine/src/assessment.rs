//! What people say of findings: VEX documents and ignore files. What they clear is no finding any more, but is kept with the reason.

use dhow_image::Image;
use dhow_inventory::{Inventory, Os, Package};
use dhow_reference::Reference;
use dhow_sign::Trust;
use dhow_types::{ErrorKind, Purl};
use dhow_vuln::vex::{self, Status};
use dhow_vuln::{Finding, ignore};

use crate::{Context as _, Engine, Error, Scan, Vulnerable};

/// What somebody says of findings.
#[derive(Clone, Debug, Default)]
pub struct Assessment {
    /// Those of each document: of several that say something of a finding the last one counts.
    documents: Vec<Vec<vex::Statement>>,
    rules: Vec<ignore::Rule>,
}

/// Who says that a finding is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clearer {
    /// A VEX document, with this status.
    Vex(Status),
    /// An ignore file.
    Ignored,
}

/// A finding that somebody says is none.
#[derive(Clone, Debug)]
pub struct Suppressed {
    /// It.
    pub vulnerable: Vulnerable,
    /// Who says so.
    pub by: Clearer,
    /// Why.
    pub reason: String,
}

impl Suppressed {
    /// Who says so and why, in one line.
    #[must_use]
    pub fn why(&self) -> String {
        let who = match self.by {
            Clearer::Vex(status) => format!("vex: {}", status.name()),
            Clearer::Ignored => "ignored".to_owned(),
        };
        if self.reason.is_empty() {
            return who;
        }
        format!("{who}: {}", self.reason)
    }
}

impl Assessment {
    /// Adds a VEX document that is called `name`.
    ///
    /// # Errors
    /// `InvalidArgument` for what is none.
    pub fn add_vex(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.documents
            .push(vex::read(bytes).context(|| format!("read {name}"))?);
        Ok(())
    }

    /// Adds the rules of an ignore file that is called `name`; gives those that do not count any more on a day, `YYYY-MM-DD`.
    ///
    /// # Errors
    /// `InvalidArgument` with the line that is not understood.
    pub fn add_ignore(&mut self, name: &str, text: &str, day: &str) -> Result<Vec<ignore::Rule>, Error> {
        let rules = ignore::read(text).context(|| format!("read {name}"))?;
        let (counting, over) = rules.into_iter().partition(|rule| rule.counts_on(day));
        self.rules.extend::<Vec<_>>(counting);
        Ok(over)
    }

    /// Takes what is cleared from the findings of a scan.
    pub fn judge(&self, scan: &mut Scan, inventory: &Inventory, image: Option<&Image>) {
        if self.documents.is_empty() && self.rules.is_empty() {
            return;
        }
        let names = image.map(names_of);
        let os = inventory.os.as_ref();
        for mut vulnerable in std::mem::take(&mut scan.found) {
            let installed = &inventory.packages[vulnerable.package];
            let purls = purls_of(&installed.package, os);
            if let Some((by, reason)) = self.ignored(&vulnerable, &installed.package, &installed.path, &purls)
            {
                scan.suppressed.push(Suppressed {
                    vulnerable,
                    by,
                    reason,
                });
                continue;
            }
            let asked = vex::Asked {
                vulnerability: all_names(&vulnerable.finding),
                packages: purls,
                image: names.as_ref(),
            };
            let mut documents = self.documents.iter().rev();
            let said = documents.find_map(|document| vex::last_word(document, &asked));
            vulnerable.vex = said.map(|said| said.status);
            match said.filter(|said| said.status.clears()) {
                Some(said) => {
                    let reasons = [said.justification.as_str(), &said.detail];
                    let reasons: Vec<&str> =
                        reasons.into_iter().filter(|reason| !reason.is_empty()).collect();
                    scan.suppressed.push(Suppressed {
                        by: Clearer::Vex(said.status),
                        reason: reasons.join(": "),
                        vulnerable,
                    });
                }
                None => scan.found.push(vulnerable),
            }
        }
    }

    fn ignored(
        &self,
        vulnerable: &Vulnerable,
        package: &Package,
        path: &str,
        purls: &[Purl],
    ) -> Option<(Clearer, String)> {
        let asked = ignore::Asked {
            vulnerability: all_names(&vulnerable.finding),
            packages: [&package.name, package.source().0],
            path,
            state: vulnerable.finding.state,
            purls,
        };
        let rule = self.rules.iter().find(|rule| rule.is_about(&asked))?;
        Some((Clearer::Ignored, rule.reason.clone()))
    }
}

/// Every name of a vulnerability.
fn all_names(finding: &Finding) -> Vec<&str> {
    let advisory = &finding.advisory;
    let aliases = advisory.aliases.iter().map(String::as_str);
    std::iter::once(advisory.id.as_str()).chain(aliases).collect()
}

/// A package, and the source package that it was built from.
fn purls_of(package: &Package, os: Option<&Os>) -> Vec<Purl> {
    let mut purls: Vec<Purl> = Purl::parse(&package.purl(os)).into_iter().collect();
    if let Some(source) = &package.source {
        let mut of = Package::new(package.kind, &source.name, &source.version);
        of.arch = Some("source".to_owned());
        purls.extend(Purl::parse(&of.purl(os)));
    }
    purls
}

/// What documents may call an image.
fn names_of(image: &Image) -> vex::Image {
    let mut names = vex::Image {
        digests: vec![image.id.to_string()],
        ..vex::Image::default()
    };
    names
        .digests
        .extend(image.record.manifest.map(|digest| digest.to_string()));
    for name in &image.names {
        names.names.push(name.clone());
        names
            .names
            .extend(Reference::parse(name).map(|name| name.familiar()));
    }
    for (repository, digest) in &image.digests {
        names.names.push(format!("{repository}@{digest}"));
        names.digests.push(digest.to_string());
    }
    names
}

impl Engine {
    /// Adds what trusted people attested of an image in the registries that it came from; gives why other attestations do not count.
    ///
    /// # Errors
    /// `NotFound` when it never was in a registry; what registries said.
    pub fn add_attested_vex(
        &self,
        assessment: &mut Assessment,
        image: &Image,
        trust: &Trust,
    ) -> Result<Vec<String>, Error> {
        if image.digests.is_empty() {
            let message = format!(
                "{} never was in a registry: nothing is attested of it",
                image.id.short()
            );
            return Err(Error::new(ErrorKind::NotFound, message).with_hint("push or pull it, or name a file"));
        }
        let mut refused = Vec::new();
        for (repository, digest) in &image.digests {
            let verification = self.verify(&format!("{repository}@{digest}"), trust)?;
            refused.extend(verification.refused);
            for statement in verification
                .verified
                .iter()
                .filter_map(|one| one.statement.as_ref())
            {
                let kind = &statement.predicate_type;
                if kind.starts_with("https://openvex.dev/ns") || kind.starts_with("https://cyclonedx.org/") {
                    let said = vex::statements(&statement.predicate);
                    assessment
                        .documents
                        .push(said.context(|| format!("read what is attested of {repository}@{digest}"))?);
                }
            }
        }
        Ok(refused)
    }
}
