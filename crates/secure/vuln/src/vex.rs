//! What somebody says of a vulnerability in a product: VEX documents in the forms of OpenVEX and of CycloneDX.
//!
//! A statement is about vulnerabilities, products and perhaps components of these. The product is the image that is scanned, or
//! the package itself; a component is a package. What a document is silent about it says nothing of.

use std::collections::HashMap;

use dhow_types::{ErrorKind, Purl};
use serde_json::Value;

use crate::Error;
use crate::feed::{line, name};

/// Most statements of a document, and most products or components of one of them.
const MOST: usize = 100_000;

/// What is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// The product does not have it.
    NotAffected,
    /// It has it.
    Affected,
    /// It was mended in it.
    Fixed,
    /// Nobody knows yet.
    UnderInvestigation,
}

impl Status {
    /// OpenVEX's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotAffected => "not_affected",
            Self::Affected => "affected",
            Self::Fixed => "fixed",
            Self::UnderInvestigation => "under_investigation",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "not_affected" | "false_positive" => Self::NotAffected,
            "affected" | "exploitable" => Self::Affected,
            "fixed" | "resolved" | "resolved_with_pedigree" => Self::Fixed,
            "under_investigation" | "in_triage" => Self::UnderInvestigation,
            _ => return None,
        })
    }

    /// Whether a finding of which this is said is none.
    #[must_use]
    pub fn clears(self) -> bool {
        matches!(self, Self::NotAffected | Self::Fixed)
    }
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The vulnerability, by all the names that the document has for it.
    pub vulnerability: Vec<String>,
    /// What is said.
    pub status: Status,
    /// Why it is not affected, in the word of the document's form.
    pub justification: String,
    /// The same, or what to do, for people.
    pub detail: String,
    /// When it was said, RFC 3339; empty when nothing is said.
    time: String,
    products: Vec<Product>,
}

/// What a statement is about: all of these names are of one thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Product {
    names: Vec<Name>,
    /// Its components; the whole product when there is none.
    components: Vec<Vec<Name>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Purl(Purl),
    /// A digest, or the name of an image.
    Text(String),
}

impl Name {
    fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        Some(match Purl::parse(text) {
            Some(purl) => Self::Purl(purl),
            None => Self::Text(name(text)?),
        })
    }
}

/// The image that is scanned, by what a document may call it.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Its names, with tag or digest, as people write them and in full.
    pub names: Vec<String>,
    /// Digests of its manifest and config: `sha256:...`.
    pub digests: Vec<String>,
}

impl Image {
    /// Whether a name of a product is one of this image.
    fn is(&self, product: &Name) -> bool {
        let text = match product {
            Name::Text(text) => text,
            Name::Purl(purl) => return self.is_purl(purl),
        };
        let digest = text.rsplit_once('@').map_or(text.as_str(), |(_, digest)| digest);
        self.names.contains(text) || (digest.contains(':') && self.digests.iter().any(|own| own == digest))
    }

    /// `pkg:oci/NAME@sha256:...?repository_url=...&tag=...`: the name is the last part of the repository's, and what is left out
    /// fits all.
    fn is_purl(&self, purl: &Purl) -> bool {
        if purl.kind() != "oci" {
            return false;
        }
        if let Some(version) = purl.version()
            && !self.digests.iter().any(|own| own == version)
        {
            return false;
        }
        self.names.iter().any(|own| {
            let own = own.split_once('@').map_or(own.as_str(), |(own, _)| own);
            let (repository, tag) = match own.rsplit_once(':') {
                Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
                _ => (own, None),
            };
            let last = repository.rsplit('/').next().unwrap_or(repository);
            last == purl.name()
                && purl.qualifier("repository_url").is_none_or(|url| {
                    // With or without the name at its end, both are written.
                    let url = url.trim_end_matches('/');
                    url == repository
                        || repository
                            .strip_suffix(last)
                            .is_some_and(|above| above.trim_end_matches('/') == url)
                })
                && purl.qualifier("tag").is_none_or(|wanted| tag == Some(wanted))
        })
    }
}

/// A finding that is asked about.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// The vulnerability, by all its names.
    pub vulnerability: Vec<&'a str>,
    /// The package, and the source package that it was built from.
    pub packages: Vec<Purl>,
    /// The image that it is in, if it is in one.
    pub image: Option<&'a Image>,
}

impl Statement {
    /// Whether it is about a finding.
    #[must_use]
    pub fn is_about(&self, asked: &Asked<'_>) -> bool {
        let mut names = self.vulnerability.iter();
        names.any(|name| asked.vulnerability.contains(&name.as_str()))
            && self.products.iter().any(|product| product.has(asked))
    }
}

impl Product {
    fn has(&self, asked: &Asked<'_>) -> bool {
        let is_package = |names: &[Name]| {
            names.iter().any(|name| match name {
                Name::Purl(purl) => asked.packages.iter().any(|package| purl.fits(package)),
                Name::Text(_) => false,
            })
        };
        let is_image = || {
            asked
                .image
                .is_some_and(|image| self.names.iter().any(|name| image.is(name)))
        };
        if self.components.is_empty() {
            return is_package(&self.names) || is_image();
        }
        is_image() && self.components.iter().any(|component| is_package(component))
    }
}

/// What counts of all that is said of a finding: the last word, by the time of the statement, then by its place.
#[must_use]
pub fn last_word<'s>(statements: &'s [Statement], asked: &Asked<'_>) -> Option<&'s Statement> {
    let about = statements.iter().filter(|statement| statement.is_about(asked));
    about.max_by(|a, b| a.time.cmp(&b.time))
}

/// Reads a document of either form.
///
/// # Errors
/// `InvalidArgument` for what is none, or has a word that is not known: half of what was said may be the other way round.
pub fn read(bytes: &[u8]) -> Result<Vec<Statement>, Error> {
    let document: Value =
        serde_json::from_slice(bytes).map_err(|error| bad(&format!("the document is no JSON: {error}")))?;
    statements(&document)
}

/// The same of a document that was read already, as it stands in an attestation.
///
/// # Errors
/// As [`read`].
pub fn statements(document: &Value) -> Result<Vec<Statement>, Error> {
    let context = document.get("@context").map(Value::to_string).unwrap_or_default();
    if context.contains("openvex.dev/ns") {
        return openvex(document);
    }
    if document.get("bomFormat").and_then(Value::as_str) == Some("CycloneDX") {
        return cyclonedx(document);
    }
    Err(bad("the document is neither OpenVEX nor CycloneDX"))
}

fn bad(why: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("read a VEX document: {why}"))
}

fn list<'v>(value: &'v Value, key: &str) -> Result<&'v [Value], Error> {
    let list = value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    if list.len() > MOST {
        return Err(bad(&format!("it has {} {key}", list.len())));
    }
    Ok(list)
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn status(word: &str) -> Result<Status, Error> {
    Status::parse(word).ok_or_else(|| bad(&format!("{:?} is no status", line(word))))
}

/// OpenVEX 0.2.0, and 0.0.1 where products and vulnerabilities are plain texts.
fn openvex(document: &Value) -> Result<Vec<Statement>, Error> {
    let issued = text(document, "timestamp");
    let mut statements = Vec::new();
    for said in list(document, "statements")? {
        let mut vulnerability = Vec::new();
        match said.get("vulnerability") {
            Some(Value::String(one)) => vulnerability.extend(name(one)),
            Some(one) => {
                vulnerability.extend(name(text(one, "name")));
                // An identifier is often a URL that ends with the name.
                vulnerability.extend(text(one, "@id").rsplit('/').next().and_then(name));
                vulnerability.extend(
                    list(one, "aliases")?
                        .iter()
                        .filter_map(Value::as_str)
                        .filter_map(name),
                );
            }
            None => {}
        }
        if vulnerability.is_empty() {
            return Err(bad("a statement names no vulnerability"));
        }
        let mut products = Vec::new();
        for product in list(said, "products")? {
            let mut components = Vec::new();
            for component in list(product, "subcomponents")? {
                components.push(openvex_names(component));
            }
            products.push(Product {
                names: openvex_names(product),
                components,
            });
        }
        let time = [text(said, "last_updated"), text(said, "timestamp"), issued];
        statements.push(Statement {
            vulnerability,
            status: status(text(said, "status"))?,
            justification: line(text(said, "justification")),
            detail: line(
                [
                    text(said, "impact_statement"),
                    text(said, "action_statement"),
                    text(said, "status_notes"),
                ]
                .into_iter()
                .find(|text| !text.is_empty())
                .unwrap_or_default(),
            ),
            time: time
                .into_iter()
                .find(|time| !time.is_empty())
                .map(line)
                .unwrap_or_default(),
            products,
        });
    }
    Ok(statements)
}

fn openvex_names(component: &Value) -> Vec<Name> {
    if let Some(text) = component.as_str() {
        return Name::new(text).into_iter().collect();
    }
    let identifiers = component.get("identifiers");
    let purl = identifiers.map_or("", |identifiers| text(identifiers, "purl"));
    let mut names: Vec<Name> = [text(component, "@id"), purl]
        .into_iter()
        .filter_map(Name::new)
        .collect();
    let hash = component.pointer("/hashes/sha-256").and_then(Value::as_str);
    names.extend(hash.and_then(|hash| Name::new(&format!("sha256:{hash}"))));
    names
}

/// CycloneDX 1.4 and later: `vulnerabilities` with an `analysis`, about components of the same document, or of another one by a
/// link (`urn:cdx:SERIAL/VERSION#REF`), where the reference itself must be a package URL.
fn cyclonedx(document: &Value) -> Result<Vec<Statement>, Error> {
    let mut known: HashMap<&str, Vec<Name>> = HashMap::new();
    let mut waiting: Vec<&Value> = list(document, "components")?.iter().collect();
    let subject = document.pointer("/metadata/component");
    while let Some(component) = waiting.pop() {
        let names = Name::new(text(component, "purl")).into_iter().collect();
        known.insert(text(component, "bom-ref"), names);
        waiting.extend(list(component, "components")?);
    }
    let mut statements = Vec::new();
    for said in list(document, "vulnerabilities")? {
        let Some(analysis) = said.get("analysis") else {
            continue;
        };
        let state = text(analysis, "state");
        if state.is_empty() {
            continue;
        }
        let mut vulnerability: Vec<String> = name(text(said, "id")).into_iter().collect();
        for reference in list(said, "references")? {
            vulnerability.extend(name(text(reference, "id")));
        }
        let mut products = Vec::new();
        for affected in list(said, "affects")? {
            let reference = text(affected, "ref");
            products.extend(cyclonedx_product(reference, &known, subject));
        }
        statements.push(Statement {
            vulnerability,
            status: status(state)?,
            justification: line(text(analysis, "justification")),
            detail: line(text(analysis, "detail")),
            time: [text(analysis, "lastUpdated"), text(analysis, "firstIssued")]
                .into_iter()
                .find(|time| !time.is_empty())
                .map(line)
                .unwrap_or_default(),
            products,
        });
    }
    Ok(statements)
}

fn cyclonedx_product(
    reference: &str,
    known: &HashMap<&str, Vec<Name>>,
    subject: Option<&Value>,
) -> Option<Product> {
    let product = |names: Vec<Name>| Product {
        names,
        components: Vec::new(),
    };
    if let Some(names) = known.get(reference) {
        return Some(product(names.clone()));
    }
    if let Some(subject) =
        subject.filter(|subject| text(subject, "bom-ref") == reference && !reference.is_empty())
    {
        let texts = [
            text(subject, "purl"),
            text(subject, "name"),
            text(subject, "version"),
        ];
        return Some(product(texts.into_iter().filter_map(Name::new).collect()));
    }
    let purl = match reference.strip_prefix("urn:cdx:") {
        Some(link) => Purl::parse_escaped(link.split_once('#')?.1)?,
        None => Purl::parse(reference)?,
    };
    Some(product(vec![Name::Purl(purl)]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::{Asked, Image, Status, last_word, read, statements};
    use crate::Purl;

    fn image() -> Image {
        Image {
            names: vec!["shop/app:1".to_owned(), "docker.io/shop/app:1".to_owned()],
            digests: vec![format!("sha256:{}", "a".repeat(64))],
        }
    }

    fn said(document: &serde_json::Value, vulnerability: &str, purl: &str) -> Option<Status> {
        let image = image();
        let asked = Asked {
            vulnerability: vec![vulnerability],
            packages: vec![Purl::parse(purl).unwrap()],
            image: Some(&image),
        };
        last_word(&statements(document).unwrap(), &asked).map(|statement| statement.status)
    }

    fn openvex(products: serde_json::Value, status: &str) -> serde_json::Value {
        json!({
            "@context": "https://openvex.dev/ns/v0.2.0", "@id": "x", "author": "a", "timestamp": "2026-01-01T00:00:00Z",
            "statements": [{"vulnerability": {"name": "CVE-2026-1", "aliases": ["GHSA-x"]}, "products": products,
                "status": status, "justification": "vulnerable_code_not_present"}],
        })
    }

    #[test]
    fn openvex_names_the_image_and_its_parts_or_the_package() {
        let hex = "a".repeat(64);
        let package = "pkg:deb/debian/curl@1-1?arch=amd64";
        for (products, about) in [
            (json!([{"@id": "pkg:deb/debian/curl@1-1"}]), true),
            (
                json!([{"@id": "urn:x", "identifiers": {"purl": "pkg:deb/debian/curl"}}]),
                true,
            ),
            (json!(["pkg:deb/debian/curl"]), true),
            (json!([{"@id": format!("pkg:oci/app@sha256%3A{hex}")}]), true),
            (
                json!([{"@id": "pkg:oci/app?repository_url=docker.io/shop/app&tag=1"}]),
                true,
            ),
            (
                json!([{"@id": "pkg:oci/app?repository_url=docker.io/shop", "subcomponents": [{"@id": "pkg:deb/debian/curl"}]}]),
                true,
            ),
            (
                json!([{"@id": "shop/app:1", "subcomponents": [{"@id": "pkg:deb/debian/openssl"}]}]),
                false,
            ),
            (json!([{"@id": "pkg:oci/app?tag=2"}]), false),
            (json!([{"@id": "pkg:oci/app@sha256:00"}]), false),
            (json!([{"@id": "pkg:oci/other"}]), false),
            (json!([{"@id": "pkg:deb/debian/curl@2-1"}]), false),
            (json!([]), false),
        ] {
            let document = openvex(products, "not_affected");
            let wanted = about.then_some(Status::NotAffected);
            assert_eq!(said(&document, "CVE-2026-1", package), wanted, "{document}");
            assert_eq!(said(&document, "GHSA-x", package), wanted);
            assert_eq!(said(&document, "CVE-2026-2", package), None);
        }
    }

    #[test]
    fn the_last_word_counts() {
        let mut document = openvex(json!(["pkg:deb/debian/curl"]), "not_affected");
        let mut later = document["statements"][0].clone();
        later["status"] = "affected".into();
        later["timestamp"] = "2026-02-01T00:00:00Z".into();
        document["statements"].as_array_mut().unwrap().insert(0, later);
        assert_eq!(
            said(&document, "CVE-2026-1", "pkg:deb/debian/curl@1"),
            Some(Status::Affected)
        );
    }

    #[test]
    fn cyclonedx_names_components_by_reference_and_by_link() {
        let document = |reference: &str, state: &str| {
            json!({
                "bomFormat": "CycloneDX", "specVersion": "1.6",
                "metadata": {"component": {"bom-ref": "subject", "name": "shop/app:1"}},
                "components": [{"bom-ref": "1", "components": [{"bom-ref": "2", "purl": "pkg:npm/left-pad@1.0.0"}]}],
                "vulnerabilities": [{"id": "CVE-2026-1", "analysis": {"state": state, "justification": "code_not_reachable"},
                    "affects": [{"ref": reference}]}],
            })
        };
        for reference in [
            "2",
            "pkg:npm/left-pad",
            "urn:cdx:f0/1#pkg%3Anpm%2Fleft-pad%401.0.0",
            "subject",
        ] {
            let found = said(
                &document(reference, "false_positive"),
                "CVE-2026-1",
                "pkg:npm/left-pad@1.0.0",
            );
            assert_eq!(found, Some(Status::NotAffected), "{reference}");
        }
        for reference in ["1", "", "3", "urn:cdx:f0/1"] {
            let found = said(
                &document(reference, "exploitable"),
                "CVE-2026-1",
                "pkg:npm/left-pad@1.0.0",
            );
            assert_eq!(found, None, "{reference}");
        }
    }

    #[test]
    fn what_is_no_statement_is_refused() {
        for bytes in [
            &b"{}"[..],
            b"",
            b"[1]",
            br#"{"@context": "https://openvex.dev/ns/v0.2.0", "statements": [{}]}"#,
        ] {
            assert!(read(bytes).is_err());
        }
        assert!(statements(&openvex(json!([]), "perhaps")).is_err());
    }

    proptest! {
        #[test]
        fn no_document_stops_the_reader(text in "\\PC{0,80}", number in any::<i64>()) {
            for document in [
                openvex(json!([text, {"@id": text, "subcomponents": [number, {"@id": text}]}, number]), "fixed"),
                json!({"bomFormat": "CycloneDX", "components": [text, {"bom-ref": text, "components": [{"purl": text}]}],
                    "vulnerabilities": [{"id": text, "analysis": {"state": "resolved"}, "affects": [{"ref": text}, number]}, number]}),
            ] {
                drop(statements(&document));
            }
        }
    }
}
