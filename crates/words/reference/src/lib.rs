//! Image references: what a person types, what docker shows, what the database keeps.
//!
//! [`Reference::parse`] takes every text that docker takes and gives it docker's meaning (distribution/reference:
//! `grammar` and `normalize`): `debian` is `docker.io/library/debian`, `localhost/x` and `foo.bar/x` name a registry,
//! `foo/x` does not. A parsed reference is valid for good: nobody splits on `:` again. Parsing is total, linear in the
//! text, and bounded ([`MAX_REPOSITORY`], [`MAX_TAG`], [`MAX_HOST`]).
//!
//! Three ways to print: [`canonical`](Reference::canonical) for the database, [`familiar`](Reference::familiar) for
//! people, [`name`](Reference::name) without tag and digest. The first two parse back to the same reference; where
//! docker's familiar form would not (`docker.io/foo.bar/x`), ours keeps the registry.

#![forbid(unsafe_code)]

mod grammar;

use std::fmt;
use std::str::FromStr;

use dhow_types::{Digest, ErrorKind};

pub use grammar::{MAX_HOST, MAX_REPOSITORY, MAX_TAG, valid_repository, valid_tag};

dhow_types::define_error! {
    /// A text that is no image reference.
    pub struct Error;
}

/// Registry of names that name none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The same registry under its name of 2014.
const LEGACY_REGISTRY: &str = "index.docker.io";
/// Where the default registry keeps names of one component.
const OFFICIAL: &str = "library/";
/// Tag of references that have neither tag nor digest.
const DEFAULT_TAG: &str = "latest";

/// The name of an image in a registry, with an optional tag and an optional digest.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses `text` by docker's grammar and normalisation.
    ///
    /// # Errors
    /// `InvalidArgument` for whatever docker refuses, `Unsupported` for a digest that is not sha256.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(invalid(text, "it is empty"));
        }
        if text.len() > grammar::MAX_REFERENCE {
            return Err(invalid(text, "it is too long"));
        }
        if grammar::is_identifier(text) {
            let message =
                format!("invalid repository name ({text}), cannot specify 64-byte hexadecimal strings");
            return Err(Error::new(ErrorKind::InvalidArgument, message)
                .with_hint("64 hexadecimal characters are an image id, not a name"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(text, digest)?)),
            None => (text, None),
        };
        let (registry, remainder) = split_registry(rest);
        let (path, tag) = match remainder.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (remainder, None),
        };
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("{OFFICIAL}{path}")
        } else {
            path.to_owned()
        };
        if repository.bytes().any(|b| b.is_ascii_uppercase()) {
            let message =
                format!("invalid reference format: repository name ({repository}) must be lowercase");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        if !grammar::valid_host(registry) {
            return Err(invalid(text, "the registry is no host name"));
        }
        if repository.len() > MAX_REPOSITORY {
            return Err(invalid(text, "the repository name has more than 255 characters"));
        }
        if !valid_repository(&repository) {
            return Err(invalid(
                text,
                "the repository name may have only a-z, 0-9 and single separators",
            ));
        }
        let tag = tag.map(|tag| checked_tag(text, tag)).transpose()?;
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag,
            digest,
        })
    }

    /// Host, and port if any, of the registry: `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Repository in the registry: `library/debian`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if there is one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one. Where there are both, the digest decides.
    #[must_use]
    pub const fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same name with this tag instead of its own; a digest stays.
    ///
    /// # Errors
    /// `InvalidArgument` when `tag` is no tag.
    pub fn with_tag(mut self, tag: &str) -> Result<Self, Error> {
        self.tag = Some(checked_tag(tag, tag)?);
        Ok(self)
    }

    /// The same name with this digest instead of its own; a tag stays.
    #[must_use]
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// The same without a tag.
    #[must_use]
    pub fn without_tag(mut self) -> Self {
        self.tag = None;
        self
    }

    /// The same without a digest.
    #[must_use]
    pub fn without_digest(mut self) -> Self {
        self.digest = None;
        self
    }

    /// The same, tagged `latest` when it has neither tag nor digest.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// Registry and repository: `docker.io/library/debian`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The name as people write it: `debian`, `foo/bar`, `ghcr.io/foo/bar`.
    #[must_use]
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        match self.repository.strip_prefix(OFFICIAL) {
            Some(rest) if !rest.contains('/') && !grammar::is_identifier(rest) => rest.to_owned(),
            // Without the registry this would read as another registry.
            _ if names_registry(self.repository.split('/').next().unwrap_or("")) => self.name(),
            _ => self.repository.clone(),
        }
    }

    /// The whole reference as people write it: `debian:12`, `debian@sha256:...`.
    #[must_use]
    pub fn familiar(&self) -> String {
        self.familiar_name() + &self.suffix()
    }

    /// The whole reference as the database keeps it: `docker.io/library/debian:12`.
    #[must_use]
    pub fn canonical(&self) -> String {
        self.name() + &self.suffix()
    }

    fn suffix(&self) -> String {
        let mut out = String::new();
        if let Some(tag) = &self.tag {
            out.push(':');
            out.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            out.push('@');
            out.push_str(&digest.to_string());
        }
        out
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

/// The canonical form.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

/// Whether the part before the first `/` is a registry (distribution/reference `splitDockerDomain`): an upper-case
/// letter counts, since namespaces have none.
fn names_registry(first: &str) -> bool {
    first == "localhost"
        || first
            .bytes()
            .any(|b| matches!(b, b'.' | b':') || b.is_ascii_uppercase())
}

fn split_registry(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((LEGACY_REGISTRY, rest)) => (DEFAULT_REGISTRY, rest),
        Some((first, rest)) if names_registry(first) => (first, rest),
        _ => (DEFAULT_REGISTRY, text),
    }
}

fn parse_digest(text: &str, digest: &str) -> Result<Digest, Error> {
    use dhow_types::ParseDigestError;
    match digest.parse::<Digest>() {
        Ok(digest) => Ok(digest),
        Err(error @ ParseDigestError::UnsupportedAlgorithm) if grammar::digest_shaped(digest) => {
            Err(Error::new(
                ErrorKind::Unsupported,
                format!("unsupported digest in {text:?}: {error}"),
            ))
        }
        Err(error) => Err(invalid(text, &error.to_string())),
    }
}

fn checked_tag(text: &str, tag: &str) -> Result<String, Error> {
    if valid_tag(tag) {
        return Ok(tag.to_owned());
    }
    Err(invalid(
        text,
        "a tag has 1 to 128 of [A-Za-z0-9_.-] and begins with none of . and -",
    ))
}

/// Docker's words first: scripts look for them. The text is cut, since it may be anything.
fn invalid(text: &str, why: &str) -> Error {
    let shown: String = text.chars().take(300).collect();
    Error::new(
        ErrorKind::InvalidArgument,
        format!("invalid reference format: {shown:?}: {why}"),
    )
}

#[cfg(test)]
mod tests;
