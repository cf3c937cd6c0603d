//! What people say of findings: VEX documents and ignore files. What they clear is no finding any more, but is kept with the reason.

use dhow_content::ContentStore;
use dhow_image::Image;
use dhow_inventory::{Inventory, Os, Package};
use dhow_layer::EntryKind;
use dhow_reference::Reference;
use dhow_sign::Trust;
use dhow_types::{ErrorKind, ImageId, Purl};
use dhow_vuln::vex::{self, Status};
use dhow_vuln::{Finding, ignore};

use crate::algebra::merge::Merged;
use crate::{Context as _, Engine, Error, Scan, Vulnerable};

/// Most documents in an image that are read, and bytes of one.
const MOST_EMBEDDED: usize = 64;
const MOST_DOCUMENT: u64 = 16 << 20;

/// What somebody says of findings.
#[derive(Clone, Debug, Default)]
pub struct Assessment {
    /// Of several that say something of a finding the last one counts.
    documents: Vec<Document>,
    rules: Vec<ignore::Rule>,
}

/// What a VEX document says.
#[derive(Clone, Debug)]
struct Document {
    /// The image that it came with, and that it can only be about.
    of: Option<ImageId>,
    statements: Vec<vex::Statement>,
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
        let statements = vex::read(bytes).context(|| format!("read {name}"))?;
        self.documents.push(Document { of: None, statements });
        Ok(())
    }

    /// Adds the rules of an ignore file that is called `name`, in YAML (Trivy's, Grype's) when that ends so; gives those that do not count any more on a day, `YYYY-MM-DD`.
    ///
    /// # Errors
    /// `InvalidArgument` with what is not understood.
    pub fn add_ignore(&mut self, name: &str, text: &str, day: &str) -> Result<Vec<ignore::Rule>, Error> {
        let is_yaml = [".yaml", ".yml"].iter().any(|end| name.ends_with(end));
        let rules = if is_yaml {
            ignore::read_yaml(text)
        } else {
            ignore::read(text)
        };
        let rules = rules.context(|| format!("read {name}"))?;
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
            let about_it = |document: &&Document| {
                document
                    .of
                    .is_none_or(|of| image.is_some_and(|image| image.id == of))
            };
            let mut documents = self.documents.iter().rev().filter(about_it);
            let said = documents.find_map(|document| vex::last_word(&document.statements, &asked));
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
            fixed: vulnerable.finding.fixed.is_some(),
        };
        let rule = self.rules.iter().find(|rule| rule.is_about(&asked))?;
        Some((Clearer::Ignored, rule.reason.clone()))
    }
}

fn is_vex(predicate: &str) -> bool {
    predicate.starts_with("https://openvex.dev/ns") || predicate.starts_with("https://cyclonedx.org/")
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
                if is_vex(&statement.predicate_type) {
                    let said = vex::statements(&statement.predicate);
                    assessment.documents.push(Document {
                        of: Some(image.id),
                        statements: said
                            .context(|| format!("read what is attested of {repository}@{digest}"))?,
                    });
                }
            }
        }
        Ok(refused)
    }

    /// Adds what whoever made an image says in it (files `*.vex.json`, as Docker Scout reads them) and beside it, which nobody signed; gives
    /// why others of these documents do not count.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn add_embedded_vex(&self, assessment: &mut Assessment, image: &Image) -> Result<Vec<String>, Error> {
        let mut refused = Vec::new();
        let mut add = |name: &str, said: Result<Vec<vex::Statement>, Error>| match said {
            Ok(statements) => assessment.documents.push(Document {
                of: Some(image.id),
                statements,
            }),
            Err(error) => refused.push(format!("{name}: {}", crate::worker::chain(&error))),
        };
        let store = self.store()?;
        let tree = Merged::of(store, &image.record.layers, false)?;
        let files = tree
            .paths
            .iter()
            .filter(|(path, found)| path.ends_with(b".vex.json") && found.entry.kind == EntryKind::File);
        for (path, found) in files.take(MOST_EMBEDDED) {
            let name = format!("/{}", String::from_utf8_lossy(path));
            let said = self.layer_bytes(&found.layer, &found.original, MOST_DOCUMENT);
            add(
                &name,
                said.and_then(|bytes| vex::read(&bytes).context(|| "read it")),
            );
        }
        let attestations = store.attestations(image);
        let attestations =
            attestations.context(|| format!("look for attestations of image {}", image.id.short()))?;
        let statements = attestations
            .iter()
            .flat_map(|attestation| &attestation.statements);
        for (kind, blob) in statements.filter(|(kind, _)| is_vex(kind)) {
            let bytes = ContentStore::read(&store.content, &blob.digest, MOST_DOCUMENT);
            let said = bytes.context(|| "read it").and_then(|bytes| {
                let statement: serde_json::Value = serde_json::from_slice(&bytes)
                    .map_err(|error| Error::because(ErrorKind::InvalidArgument, "read it", error))?;
                vex::statements(&statement["predicate"]).context(|| "read it")
            });
            add(kind, said);
        }
        Ok(refused)
    }
}
