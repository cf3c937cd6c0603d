//! `registries.conf` of the containers tools, version 2 (containers-registries.conf(5)).

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{MAX_RULES, bad, toml_failure};
use crate::Error;

/// What a file, or several over each other, say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conf {
    pub(crate) rules: Vec<Rule>,
    /// Read and shown, but not searched: a short name means Docker Hub here, as with docker.
    pub(crate) search: Vec<String>,
    /// Programs that are asked for credentials after all files.
    pub(crate) helpers: Vec<String>,
}

/// One `[[registry]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// `host[:port][/path]`, or `*.domain`.
    pub(crate) prefix: String,
    /// What takes the place of the prefix; empty leaves the name as it is.
    pub(crate) location: String,
    pub(crate) blocked: bool,
    pub(crate) insecure: bool,
    pub(crate) mirrors: Vec<Mirror>,
    /// The file that it stands in.
    pub(crate) source: PathBuf,
}

/// One `[[registry.mirror]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mirror {
    pub(crate) location: String,
    pub(crate) insecure: bool,
    pub(crate) only: Only,
}

/// Which references a mirror is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Only {
    #[default]
    All,
    Digests,
    Tags,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Text {
    unqualified_search_registries: Option<Vec<String>>,
    credential_helpers: Option<Vec<String>>,
    registry: Vec<RegistryText>,
    /// Version 1.
    registries: Option<toml::Table>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct RegistryText {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<MirrorText>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct MirrorText {
    location: String,
    insecure: bool,
    pull_from_mirror: String,
}

impl Conf {
    /// Lays a file over what was read before: a rule of the same prefix is replaced as a whole, so is a list.
    ///
    /// # Errors
    /// `InvalidArgument` with the place in the file.
    pub(crate) fn lay_over(&mut self, text: &str, source: &Path) -> Result<(), Error> {
        let text: Text = toml::from_str(text).map_err(|error| toml_failure(source, text, &error))?;
        if text.registries.is_some() {
            let message = "it has version 1 of the format, which nobody writes any more";
            return Err(bad(source, message)
                .with_hint("write [[registry]] tables, see containers-registries.conf(5)"));
        }
        for registry in text.registry {
            let rule = registry.checked(source)?;
            match self.rules.iter_mut().find(|other| other.prefix == rule.prefix) {
                Some(other) => *other = rule,
                None => self.rules.push(rule),
            }
        }
        if self.rules.len() > MAX_RULES {
            return Err(bad(
                source,
                &format!("there are more than {MAX_RULES} registries"),
            ));
        }
        self.search = text
            .unqualified_search_registries
            .unwrap_or_else(|| std::mem::take(&mut self.search));
        self.helpers = text
            .credential_helpers
            .unwrap_or_else(|| std::mem::take(&mut self.helpers));
        Ok(())
    }

    /// The rule with the longest prefix of `registry/repository`, and how much of the name the prefix takes.
    pub(crate) fn matching(&self, registry: &str, repository: &str) -> Option<(&Rule, usize)> {
        let name = format!("{registry}/{repository}");
        self.rules
            .iter()
            .filter_map(|rule| Some((rule, rule.covers(registry, &name)?)))
            .max_by_key(|(rule, _)| rule.prefix.len())
    }
}

impl Rule {
    fn covers(&self, registry: &str, name: &str) -> Option<usize> {
        if let Some(domain) = self.prefix.strip_prefix('*') {
            let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
            return (host.len() > domain.len() && host.ends_with(domain)).then_some(registry.len());
        }
        let rest = name.strip_prefix(self.prefix.as_str())?;
        (rest.is_empty() || rest.starts_with('/')).then_some(self.prefix.len())
    }
}

impl RegistryText {
    fn checked(self, source: &Path) -> Result<Rule, Error> {
        let location = location(&self.location, source)?;
        let prefix = match self.prefix.trim_end_matches('/') {
            "" if location.is_empty() => {
                return Err(bad(source, "a registry has neither prefix nor location"));
            }
            "" => location.clone(),
            wildcard if wildcard.starts_with("*.") => {
                let domain = &wildcard[1..];
                if domain.contains(['/', '*', ':']) || self::location(&wildcard[2..], source).is_err() {
                    let message = format!("prefix {wildcard:?}: a wildcard has the form *.domain");
                    return Err(bad(source, &message));
                }
                wildcard.to_owned()
            }
            plain => self::location(plain, source)?,
        };
        let by_digest = self.mirror_by_digest_only;
        let mirrors = self
            .mirror
            .into_iter()
            .map(|mirror| mirror.checked(by_digest, source));
        let mirrors = mirrors.collect::<Result<Vec<_>, _>>()?;
        if mirrors.len() > MAX_RULES {
            return Err(bad(
                source,
                &format!("{prefix} has more than {MAX_RULES} mirrors"),
            ));
        }
        Ok(Rule {
            location: if location == prefix {
                String::new()
            } else {
                location
            },
            prefix,
            blocked: self.blocked,
            insecure: self.insecure,
            mirrors,
            source: source.to_owned(),
        })
    }
}

impl MirrorText {
    fn checked(self, by_digest: bool, source: &Path) -> Result<Mirror, Error> {
        let location = location(&self.location, source)?;
        if location.is_empty() {
            return Err(bad(source, "a mirror has no location"));
        }
        let only = match (self.pull_from_mirror.as_str(), by_digest) {
            ("", true) => Only::Digests,
            ("" | "all", false) => Only::All,
            ("digest-only", false) => Only::Digests,
            ("tag-only", false) => Only::Tags,
            (_, true) => {
                let message = "pull-from-mirror cannot be given beside mirror-by-digest-only";
                return Err(bad(source, message));
            }
            (other, false) => {
                let message =
                    format!("pull-from-mirror is {other:?}: it is one of all, digest-only, tag-only");
                return Err(bad(source, &message));
            }
        };
        Ok(Mirror {
            location,
            insecure: self.insecure,
            only,
        })
    }
}

/// `host[:port][/path]`, checked; empty stays empty.
fn location(text: &str, source: &Path) -> Result<String, Error> {
    let text = text.trim_end_matches('/');
    if text.is_empty() {
        return Ok(String::new());
    }
    let refuse = |why: &str| bad(source, &format!("location {:?}: {why}", super::clip(text)));
    if text.contains("://") {
        return Err(refuse("it has the form host[:port][/path], without a scheme"));
    }
    let (host, path) = text.split_once('/').unwrap_or((text, ""));
    if !super::valid_authority(host) {
        return Err(refuse("it does not begin with a host"));
    }
    if !path.is_empty() && !dhow_reference::valid_repository(path) {
        return Err(refuse("its path is no repository"));
    }
    Ok(text.to_owned())
}
