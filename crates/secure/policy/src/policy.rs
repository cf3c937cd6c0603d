//! Our own policy file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use dhow_types::ErrorKind;
use jiff::civil::Date;
use serde::Deserialize;

use crate::facts::{Point, Severity, Vulnerability};
use crate::pattern::ImagePattern;
use crate::{Error, MAX_FILE};

/// Most rules, exceptions and signers.
const MAX_RULES: usize = 1000;
/// Most days of an age.
const MAX_DAYS: u32 = 36_500;

/// A policy: rules about images, exceptions from them, and who may sign.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The form of this file: 1.
    version: u32,
    /// Who may sign, by the names that rules have for them.
    #[serde(default, rename = "signer")]
    pub signers: BTreeMap<String, SignerDocument>,
    /// The rules; all that fit an image count.
    #[serde(default, rename = "rule")]
    pub rules: Vec<Rule>,
    /// Who may say of images that they are not to be used any more.
    #[serde(default, rename = "lifecycle")]
    pub lifecycles: Vec<Retirers>,
    /// What is let through all the same.
    #[serde(default, rename = "exception")]
    pub exceptions: Vec<Exception>,
}

/// Somebody who may sign: by any of these keys; by a certificate of these authorities (notation); or by a short-lived
/// certificate of a trusted root (Sigstore), which needs both names.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SignerDocument {
    /// Files with public keys.
    pub keys: Vec<PathBuf>,
    /// Files with certificate authorities.
    pub authorities: Vec<PathBuf>,
    /// A file with logs and authorities.
    pub trusted_root: Option<PathBuf>,
    /// The name in the certificate.
    pub identity: Option<String>,
    /// Who vouched for it.
    pub issuer: Option<String>,
}

/// What happens when a rule is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is said.
    Warn,
    /// It is refused.
    Deny,
}

/// From which state of its life on an image breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LifecycleState {
    /// Its end has a date.
    Deprecated,
    /// The date has come.
    EndOfLife,
    /// It was called back.
    Revoked,
}

/// A rule about some images. Each condition that it has is judged on its own.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rule {
    /// Its name, for messages and exceptions.
    pub name: String,
    /// The images that it is about; all when there is none.
    #[serde(default)]
    pub images: Vec<ImagePattern>,
    /// Where it is asked; everywhere when nothing is said.
    #[serde(default)]
    pub at: Vec<Point>,
    /// What happens when it is broken.
    pub action: Action,
    /// One of these must have signed.
    #[serde(default)]
    pub signed_by: Option<Vec<String>>,
    /// One of them must also have stated, with an end that is not over, that the tag points to it; and nobody a newer thing.
    #[serde(default)]
    pub tag_stated: bool,
    /// No vulnerability may be as bad as this, or worse.
    #[serde(default)]
    pub severity: Option<Severity>,
    /// No vulnerability may be one that attackers are known to use.
    #[serde(default)]
    pub known_exploited: bool,
    /// No vulnerability may be used by them soon with this probability or more, from 0 to 1.
    #[serde(default)]
    pub epss: Option<f64>,
    /// Only those count for which there is a fix.
    #[serde(default)]
    pub only_fixed: bool,
    /// Days since it was made.
    #[serde(default)]
    pub max_age_days: Option<u32>,
    /// It must be made of one of these.
    #[serde(default)]
    pub base: Option<Vec<ImagePattern>>,
    /// Its life must not have come so far.
    #[serde(default)]
    pub lifecycle: Option<LifecycleState>,
    /// No package may have one of these licences; `*` stands for anything.
    #[serde(default)]
    pub denied_licences: Option<Vec<String>>,
}

/// Whose signed statements about the end of images count, so that what they call back is refused.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Retirers {
    /// The images that it is about; all when there is none.
    #[serde(default)]
    pub images: Vec<ImagePattern>,
    /// Any of these.
    pub signed_by: Vec<String>,
}

/// What is let through all the same, for a reason and until a day.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Exception {
    /// The rule that it is from.
    pub rule: String,
    /// The images that it is for; all when there is none.
    #[serde(default)]
    pub images: Vec<ImagePattern>,
    /// Only these vulnerabilities, packages or licences; the whole rule when there is none.
    #[serde(default)]
    pub ids: Vec<String>,
    /// Why.
    pub reason: String,
    /// The last day, in UTC.
    #[serde(deserialize_with = "date")]
    pub until: Date,
}

/// A day, as a text.
fn date<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Date, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|_| serde::de::Error::custom(format!("{text:?} is no day: write \"2027-01-31\"")))
}

/// Which facts a policy looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of seven")]
pub struct Needs {
    /// Who signed.
    pub signers: bool,
    /// What is stated of its tag.
    pub tag: bool,
    /// When it was made.
    pub created: bool,
    /// Vulnerabilities.
    pub vulnerabilities: bool,
    /// What it was made of.
    pub bases: bool,
    /// Licences.
    pub licences: bool,
    /// The end of its life.
    pub lifecycle: bool,
}

impl Policy {
    /// Reads a policy: TOML, or JSON when it begins with a brace.
    ///
    /// # Errors
    /// `InvalidArgument` for what is none, also for a word that is not known: a rule that is not understood protects nobody.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() as u64 > MAX_FILE {
            let message = format!("the policy has more than {MAX_FILE} bytes");
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
        let what = "read the policy";
        let policy: Self = if text.trim_start().starts_with('{') {
            serde_json::from_str(text)
                .map_err(|error| Error::because(ErrorKind::InvalidArgument, what, error))?
        } else {
            toml::from_str(text).map_err(|error| Error::because(ErrorKind::InvalidArgument, what, error))?
        };
        policy.check()?;
        Ok(policy)
    }

    fn check(&self) -> Result<(), Error> {
        let bad = |why: String| {
            Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("the policy {why}"),
            ))
        };
        if self.version != 1 {
            return bad(format!("has version {}, and only 1 is known", self.version));
        }
        let most = [
            self.rules.len(),
            self.exceptions.len(),
            self.signers.len(),
            self.lifecycles.len(),
        ];
        if most.into_iter().any(|count| count > MAX_RULES) {
            return bad(format!("has more than {MAX_RULES} of a kind"));
        }
        for (name, signer) in &self.signers {
            if signer.keys.is_empty() && signer.authorities.is_empty() && signer.trusted_root.is_none() {
                return bad(format!(
                    "has a signer {name:?} without keys, authorities and trusted root"
                ));
            }
            if signer.trusted_root.is_some() && (signer.identity.is_none() || signer.issuer.is_none()) {
                return bad(format!(
                    "has a signer {name:?} with a trusted root, but without identity and issuer"
                ));
            }
            let paths = signer
                .keys
                .iter()
                .chain(&signer.authorities)
                .chain(&signer.trusted_root);
            if let Some(path) = paths.into_iter().find(|path| !path.is_absolute()) {
                return bad(format!(
                    "has a signer {name:?} with a path that is not absolute: {}",
                    path.display()
                ));
            }
        }
        let mut retirers = self.lifecycles.iter().flat_map(|one| &one.signed_by);
        if let Some(unknown) = retirers.find(|name| !self.signers.contains_key(*name)) {
            return bad(format!(
                "has a lifecycle of a signer {unknown:?}, who is not in it"
            ));
        }
        if self.lifecycles.iter().any(|one| one.signed_by.is_empty()) {
            return bad("has a lifecycle that nobody may sign".to_owned());
        }
        for (at, rule) in self.rules.iter().enumerate() {
            let name = &rule.name;
            if self.rules[..at].iter().any(|other| other.name == *name) {
                return bad(format!("has two rules {name:?}"));
            }
            rule.check(&self.signers)
                .or_else(|why| bad(format!("has a rule {name:?} that {why}")))?;
        }
        for exception in &self.exceptions {
            if !self.rules.iter().any(|rule| rule.name == exception.rule) {
                return bad(format!(
                    "has an exception from a rule {:?}, which it does not have",
                    exception.rule
                ));
            }
            if exception.reason.trim().is_empty() {
                return bad(format!(
                    "has an exception from {:?} without a reason",
                    exception.rule
                ));
            }
        }
        Ok(())
    }

    /// The rules that are about an image, at a point.
    pub(crate) fn fitting<'a>(
        &'a self,
        point: Point,
        name: Option<&'a dhow_reference::Reference>,
    ) -> impl Iterator<Item = &'a Rule> {
        self.rules.iter().filter(move |rule| {
            let at = rule.at.is_empty() || rule.at.contains(&point);
            at && (rule.images.is_empty() || rule.images.iter().any(|pattern| pattern.fits(name)))
        })
    }

    /// Who may say of an image that it is not to be used any more.
    #[must_use]
    pub fn retirers(&self, name: &dhow_reference::Reference) -> BTreeSet<&str> {
        let fitting = self
            .lifecycles
            .iter()
            .filter(|one| one.images.is_empty() || one.images.iter().any(|pattern| pattern.fits(Some(name))));
        fitting
            .flat_map(|one| one.signed_by.iter().map(String::as_str))
            .collect()
    }

    /// Which facts it looks at for an image, at a point.
    #[must_use]
    pub fn needs(&self, point: Point, name: Option<&dhow_reference::Reference>) -> Needs {
        let mut needs = Needs::default();
        for rule in self.fitting(point, name) {
            // A pull knows what the registry says; what is in the image is judged when it is used.
            let content = point != Point::Pull;
            needs.signers |= rule.signed_by.is_some();
            // A tag is what is pulled; what is here is an image.
            needs.tag |= point == Point::Pull && rule.tag_stated;
            needs.lifecycle |= content && rule.lifecycle.is_some();
            needs.created |= content && rule.max_age_days.is_some();
            needs.vulnerabilities |= content && rule.asks_for_vulnerabilities();
            needs.bases |= content && rule.base.is_some();
            needs.licences |= content && rule.denied_licences.is_some();
        }
        needs
    }
}

impl Rule {
    /// Whether it looks at vulnerabilities.
    pub(crate) fn asks_for_vulnerabilities(&self) -> bool {
        self.severity.is_some() || self.known_exploited || self.epss.is_some()
    }

    /// Whether a vulnerability breaks it, by any of its conditions.
    pub(crate) fn is_broken_by(&self, one: &Vulnerability) -> bool {
        let bad = self.severity.is_some_and(|limit| one.severity >= limit);
        let used = self.known_exploited && one.exploited;
        let likely = self
            .epss
            .is_some_and(|limit| one.epss.is_some_and(|epss| f64::from(epss) / 100_000.0 >= limit));
        (bad || used || likely) && (one.fixed || !self.only_fixed)
    }

    fn check(&self, signers: &BTreeMap<String, SignerDocument>) -> Result<(), String> {
        let none = self.signed_by.is_none()
            && !self.asks_for_vulnerabilities()
            && self.max_age_days.is_none()
            && self.base.is_none()
            && self.lifecycle.is_none()
            && self.denied_licences.is_none();
        if none {
            return Err("asks for nothing".to_owned());
        }
        if self.tag_stated && self.signed_by.is_none() {
            return Err("has tag-stated without signed-by".to_owned());
        }
        if self.only_fixed && !self.asks_for_vulnerabilities() {
            return Err("has only-fixed without severity, known-exploited or epss".to_owned());
        }
        if self.epss.is_some_and(|epss| !(0.0..=1.0).contains(&epss)) {
            return Err("has an epss that is not from 0 to 1".to_owned());
        }
        if self.signed_by.as_ref().is_some_and(Vec::is_empty) || self.base.as_ref().is_some_and(Vec::is_empty)
        {
            return Err("nothing can fulfil: a list in it is empty".to_owned());
        }
        if let Some(unknown) = self
            .signed_by
            .iter()
            .flatten()
            .find(|name| !signers.contains_key(*name))
        {
            return Err(format!("asks for a signer {unknown:?}, who is not in the policy"));
        }
        if self.max_age_days.is_some_and(|days| days > MAX_DAYS) {
            return Err(format!("has more than {MAX_DAYS} days"));
        }
        Ok(())
    }
}

impl Exception {
    /// Whether it is for this rule and image, on a day.
    pub(crate) fn is_for(&self, rule: &Rule, name: Option<&dhow_reference::Reference>) -> bool {
        self.rule == rule.name
            && (self.images.is_empty() || self.images.iter().any(|pattern| pattern.fits(name)))
    }
}
