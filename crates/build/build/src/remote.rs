//! What `ADD` and named contexts may name outside of the context: URLs of files, and git repositories.
//!
//! A repository is written as docker writes it (moby/buildkit `dfgitutil` at 1.26): `URL#REF:SUBDIR`, or with a query
//! `URL?ref=..&subdir=..&checksum=..&keep-git-dir=..&submodules=..`. What ends up as an argument of the `git` program
//! is checked here: nothing of it may look like an option, or name a transport that runs a program.

use dhow_types::Digest;
use serde::{Deserialize, Serialize};

use crate::failure::{Error, invalid};

/// A git repository and what of it is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitSource {
    /// Where it is: `http`, `https`, `git` or `ssh`, or `user@host:path`.
    pub remote: String,
    /// Branch, tag or commit; what `HEAD` is there when `None`.
    pub reference: Option<String>,
    /// Directory in it, without leading `/`; empty for all of it.
    pub subdir: String,
    /// What the commit's id must begin with.
    pub commit: Option<String>,
    /// Whether `.git` stays.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules come along.
    pub submodules: bool,
}

/// Something from elsewhere that a build was made of.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Material {
    /// Where it is, without credentials.
    pub uri: String,
    /// The algorithm of its digest: `sha256`, of commits mostly `sha1`.
    pub algorithm: String,
    /// The digest in hexadecimal digits.
    pub digest: String,
}

impl Material {
    /// A file of a web server.
    pub(crate) fn file(url: &str, digest: &Digest) -> Self {
        Self {
            uri: without_user(url),
            algorithm: "sha256".to_owned(),
            digest: digest.hex(),
        }
    }
}

/// Transports by which a repository may be fetched. `ext` and `file` would run programs or read files of this host.
const SCHEMES: [&str; 4] = ["http", "https", "git", "ssh"];

fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once("://")?;
    let plain = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then_some(scheme)
}

/// `user@host:path`, as ssh writes it.
fn is_scp_like(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else {
        return false;
    };
    let word = |text: &str, more: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let Some((host, path)) = rest.split_once(':') else {
        return false;
    };
    word(user, "-_") && word(host, "-.") && !path.is_empty()
}

/// A URL without user and password.
fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}/{path}")
}

/// Whether a source is the URL of a file.
pub(crate) fn is_http(text: &str) -> bool {
    let known = |scheme: &str| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    scheme(text).is_some_and(known) && !is_git(text)
}

/// Whether a source is a git repository; a web address is one when its path ends in `.git`.
pub(crate) fn is_git(text: &str) -> bool {
    match scheme(text).map(str::to_ascii_lowercase).as_deref() {
        Some("git" | "ssh") => true,
        Some("http" | "https") => {
            let path = text.split(['#', '?']).next().unwrap_or(text);
            path.ends_with(".git")
        }
        Some(_) => false,
        None => is_scp_like(text),
    }
}

/// The name of the file that a URL gives when it goes into a directory.
pub(crate) fn file_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let name = match path.split_once('/') {
        Some((_, path)) => path.trim_end_matches('/').rsplit('/').next().unwrap_or(""),
        None => "",
    };
    let name = unescape(name);
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return "__unnamed__".to_owned();
    }
    name
}

/// Replaces `%41`; what is no good escape, or no text afterwards, stays as it is.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

impl GitSource {
    /// Reads a repository with its fragment or query.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no such text, and for what could be taken for an option of `git`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| invalid(format!("invalid git repository {text:?}: {why}"));
        if !is_git(text) {
            return Err(bad("it is no URL of one"));
        }
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(bad("it has a space or a control character"));
        }
        let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (remote, query) = text.split_once('?').unwrap_or((text, ""));
        let mut source = Self {
            remote: remote.to_owned(),
            submodules: true,
            ..Self::default()
        };
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        source.reference = Some(reference.to_owned()).filter(|reference| !reference.is_empty());
        subdir.clone_into(&mut source.subdir);
        for field in query.split('&').filter(|field| !field.is_empty()) {
            source.set(field).map_err(|why| bad(&why))?;
        }
        source.subdir = crate::source::clip(&source.subdir);
        if source.subdir.contains(['*', '?', '[', '\\']) {
            return Err(bad("the directory in it has a wildcard"));
        }
        source.check().map_err(|why| bad(&why))?;
        Ok(source)
    }

    /// For messages: without user and password.
    pub(crate) fn shown(&self) -> String {
        without_user(&self.remote)
    }

    /// What a build is made of when it uses this commit of it.
    #[must_use]
    pub fn material(&self, commit: &str) -> Material {
        let reference = self.reference.as_deref().unwrap_or_default();
        let fragment = if reference.is_empty() { "" } else { "#" };
        let algorithm = if commit.len() == 64 { "sha256" } else { "sha1" };
        Material {
            uri: format!("{}{fragment}{reference}", self.shown()),
            algorithm: algorithm.to_owned(),
            digest: commit.to_owned(),
        }
    }

    fn set(&mut self, field: &str) -> Result<(), String> {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        let value = unescape(value);
        let flag = matches!(key, "keep-git-dir" | "submodules");
        if value.is_empty() && !flag {
            return Err(format!("query {key:?} has no value"));
        }
        match key {
            "ref" => self.set_reference(value),
            "tag" => self.set_reference(full_name(value, "refs/tags/")),
            "branch" => self.set_reference(full_name(value, "refs/heads/")),
            "subdir" if !self.subdir.is_empty() && self.subdir != value => {
                Err(format!("subdir conflicts: {:?} and {value:?}", self.subdir))
            }
            "subdir" => {
                self.subdir = value;
                Ok(())
            }
            "checksum" | "commit" => {
                self.commit = Some(value);
                Ok(())
            }
            "keep-git-dir" => {
                self.keep_git_dir = Some(boolean(&value)?);
                Ok(())
            }
            "submodules" => {
                self.submodules = boolean(&value)?;
                Ok(())
            }
            _ => Err(format!("unexpected query {key:?}")),
        }
    }

    fn set_reference(&mut self, value: String) -> Result<(), String> {
        match &self.reference {
            Some(known) if *known != value => Err(format!("ref conflicts: {known:?} and {value:?}")),
            _ => {
                self.reference = Some(value);
                Ok(())
            }
        }
    }

    /// Nothing may be an option, and the transport must be one of [`SCHEMES`].
    fn check(&self) -> Result<(), String> {
        if let Some(scheme) = scheme(&self.remote)
            && !SCHEMES.contains(&scheme.to_ascii_lowercase().as_str())
        {
            return Err(format!("the transport {scheme} is not allowed"));
        }
        let after = self
            .remote
            .split_once("://")
            .map_or(self.remote.as_str(), |(_, rest)| rest);
        // CVE-2017-1000117: ssh takes a host that begins with a dash for an option.
        let host = after.rsplit_once('@').map_or(after, |(_, host)| host);
        if after.is_empty() || after.starts_with('-') || host.starts_with('-') {
            return Err("the host begins with a dash".to_owned());
        }
        if let Some(reference) = &self.reference {
            let refused = reference.starts_with('-')
                || reference.contains("..")
                || reference.contains("@{")
                || reference.contains(['~', '^', ':', '?', '*', '[', '\\', ' '])
                || reference.chars().any(char::is_control);
            if refused {
                return Err(format!("{reference:?} is no name of a branch, tag or commit"));
            }
        }
        match &self.commit {
            Some(commit) => check_commit(commit),
            None => Ok(()),
        }
    }
}

/// A commit's id, or its beginning, of either hash of git.
pub(crate) fn check_commit(commit: &str) -> Result<(), String> {
    let hex = commit
        .bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if hex && (7..=64).contains(&commit.len()) {
        return Ok(());
    }
    Err(format!(
        "{commit:?} is no id of a commit: write 7 to 64 of 0-9a-f"
    ))
}

fn full_name(value: String, prefix: &str) -> String {
    if value.starts_with(prefix) {
        value
    } else {
        format!("{prefix}{value}")
    }
}

fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("{other:?} is neither true nor false")),
    }
}

#[cfg(test)]
mod tests;
