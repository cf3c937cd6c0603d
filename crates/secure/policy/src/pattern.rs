use std::fmt;

use dhow_reference::Reference;
use dhow_types::ErrorKind;
use serde::Deserialize;

use crate::Error;

/// Longest pattern.
const MAX: usize = 512;

/// Which images a rule is about: `registry.example/**`, `debian:12*`, `*`.
///
/// Compared is the whole name (`docker.io/library/debian`), with the tag where the pattern has one. `*` stands for anything
/// within one part of it, `**` for anything. A pattern without a registry is about Docker Hub, as a name is; `*` alone is
/// about all.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ImagePattern {
    written: String,
    name: String,
    tag: Option<String>,
}

impl ImagePattern {
    /// Reads one.
    ///
    /// # Errors
    /// `InvalidArgument` for a text that can be no name.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:*[]".contains(&byte);
        if text.is_empty() || text.len() > MAX || !text.bytes().all(allowed) {
            let shown: String = text.chars().filter(|c| !c.is_control()).take(100).collect();
            let message = format!("{shown:?} is no pattern of image names");
            return Err(Error::new(ErrorKind::InvalidArgument, message)
                .with_hint("write a name, with * for a part of it and ** for several"));
        }
        if text == "*" || text == "**" {
            return Ok(Self {
                written: text.to_owned(),
                name: "**".to_owned(),
                tag: None,
            });
        }
        // A colon in the last part is before a tag, one in an earlier part before a port.
        let (name, tag) = match text.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (text, None),
        };
        let first = name.split('/').next().unwrap_or_default();
        let registry = name.contains('/')
            && (first == "localhost"
                || first.contains(['.', ':', '*'])
                || first.bytes().any(|byte| byte.is_ascii_uppercase()));
        let name = match (registry, name.contains('/')) {
            (true, _) => name.to_owned(),
            (false, true) => format!("docker.io/{name}"),
            (false, false) => format!("docker.io/library/{name}"),
        };
        Ok(Self {
            written: text.to_owned(),
            name,
            tag,
        })
    }

    /// Whether it is about an image of this name.
    #[must_use]
    pub fn fits(&self, name: Option<&Reference>) -> bool {
        let Some(name) = name else {
            return self.name == "**" && self.tag.is_none();
        };
        let tag = self
            .tag
            .as_deref()
            .is_none_or(|pattern| name.tag().is_some_and(|tag| matches(pattern, tag)));
        tag && matches(&self.name, &name.name())
    }
}

impl TryFrom<String> for ImagePattern {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl fmt::Debug for ImagePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl fmt::Display for ImagePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// Whether a text is as a pattern says. In time of the product of both lengths, whatever the pattern: one row of a table.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let text = text.as_bytes();
    let mut fits = vec![false; text.len() + 1];
    fits[0] = true;
    let mut pattern = pattern.as_bytes();
    while let [first, rest @ ..] = pattern {
        pattern = rest;
        if *first != b'*' {
            for at in (0..text.len()).rev() {
                fits[at + 1] = fits[at] && text[at] == *first;
            }
            fits[0] = false;
            continue;
        }
        let across = rest.first() == Some(&b'*');
        if across {
            pattern = &rest[1..];
        }
        for at in 0..text.len() {
            fits[at + 1] |= fits[at] && (across || text[at] != b'/');
        }
    }
    fits[text.len()]
}
