//! apt's lists of sources (sources.list(5)): which archives the host trusts, and for which suites.

use std::path::PathBuf;

use dhow_types::ErrorKind;

use crate::control::{Paragraph, Paragraphs};
use crate::{Context, Error, SourceFile, Target};

/// Which keys may sign a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignedBy {
    /// Keyring files.
    Files(Vec<PathBuf>),
    /// Armored keys inside the source itself.
    Inline(String),
    /// Fingerprints of keys of the usual keyrings.
    Fingerprints(Vec<String>),
}

/// One source of binary packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Archive roots without a slash at the end.
    pub uris: Vec<String>,
    /// Suites.
    pub suites: Vec<String>,
    /// Components.
    pub components: Vec<String>,
    /// Keys that may sign it; `None` means the usual keyrings.
    pub signed_by: Option<SignedBy>,
    /// Architectures; none means the machine's own.
    pub architectures: Vec<String>,
    /// `Trusted: yes`: the owner of the host waives signatures.
    pub trusted: bool,
}

/// One suite of one archive to take packages from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Archive root without a slash at the end.
    pub uri: String,
    /// Suite: `bookworm-security`.
    pub suite: String,
    /// Components.
    pub components: Vec<String>,
    /// Keys that may sign it; `None` means the usual keyrings.
    pub signed_by: Option<SignedBy>,
    /// Whether the owner of the host waives signatures.
    pub trusted: bool,
    /// Whether it may be missing: a guess, not something that a source names.
    pub optional: bool,
}

/// Reads all sources of binary packages from the files of apt; disabled ones are left out.
///
/// # Errors
/// When a file breaks its grammar: a typing error must not quietly drop the security suite.
pub fn parse(files: &[SourceFile]) -> Result<Vec<Source>, Error> {
    let mut sources = Vec::new();
    for file in files {
        let deb822 = file.name.ends_with(".sources");
        let found = if deb822 {
            paragraphs(&file.text)
        } else {
            lines(&file.text)
        };
        sources.extend(found.context(|| format!("cannot read the sources in {}", file.name))?);
    }
    Ok(sources)
}

fn paragraphs(text: &str) -> Result<Vec<Source>, Error> {
    let mut sources = Vec::new();
    let mut stream = Paragraphs::new(text.as_bytes());
    while let Some(text) = stream.next_text()? {
        let paragraph = Paragraph::parse(text)?;
        let words = |name: &str| -> Vec<String> {
            paragraph
                .get(name)
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        };
        let yes = |name: &str| matches!(paragraph.get(name), Some("yes" | "true" | "1" | "on" | "enable"));
        if paragraph.is_empty() || (paragraph.get("Enabled").is_some() && !yes("Enabled")) {
            continue;
        }
        paragraph.need("Types")?;
        if !words("Types").iter().any(|kind| kind == "deb") {
            continue;
        }
        paragraph.need("URIs")?;
        paragraph.need("Suites")?;
        sources.push(Source {
            uris: words("URIs").iter().map(|uri| clean_uri(uri)).collect(),
            suites: words("Suites"),
            components: words("Components"),
            signed_by: paragraph.get("Signed-By").map(signed_by).transpose()?,
            architectures: words("Architectures"),
            trusted: yes("Trusted"),
        });
    }
    Ok(sources)
}

/// One line each: `deb [arch=amd64 signed-by=/path] uri suite component...`.
fn lines(text: &str) -> Result<Vec<Source>, Error> {
    let mut sources = Vec::new();
    for line in text.lines() {
        let content = line.split('#').next().unwrap_or_default().trim();
        if content.is_empty() {
            continue;
        }
        let bad = || {
            let hint = "the form is: deb [option=value] uri suite component";
            Error::new(ErrorKind::InvalidArgument, format!("not a source: {line:?}")).with_hint(hint)
        };
        let (kind, rest) = content.split_once(char::is_whitespace).ok_or_else(bad)?;
        match kind {
            "deb" => (),
            "deb-src" => continue,
            _ => return Err(bad()),
        }
        let (mut signed, mut architectures, mut trusted) = (None, Vec::new(), false);
        let mut rest = rest.trim_start();
        if let Some(inner) = rest.strip_prefix('[') {
            let (options, after) = inner.split_once(']').ok_or_else(bad)?;
            for option in options.split_whitespace() {
                let (name, value) = option.split_once('=').ok_or_else(bad)?;
                match name.trim_end_matches(['+', '-']) {
                    "arch" => architectures = value.split(',').map(str::to_owned).collect(),
                    "signed-by" => signed = Some(signed_by(&value.replace(',', " "))?),
                    "trusted" => trusted = matches!(value, "yes" | "true" | "1"),
                    // The others (lang, target, pdiffs, by-hash ...) tell apt how to work, not whom to trust.
                    _ => (),
                }
            }
            rest = after.trim_start();
        }
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next().ok_or_else(bad)?, words.next().ok_or_else(bad)?);
        sources.push(Source {
            uris: vec![clean_uri(uri)],
            suites: vec![suite.to_owned()],
            components: words.map(str::to_owned).collect(),
            signed_by: signed,
            architectures,
            trusted,
        });
    }
    Ok(sources)
}

fn signed_by(value: &str) -> Result<SignedBy, Error> {
    if value.contains("-----BEGIN") {
        // deb822 cannot hold an empty line; a lone dot stands for it.
        let lines = value.lines().map(|line| match line.trim() {
            "." => "",
            other => other,
        });
        return Ok(SignedBy::Inline(
            lines.collect::<Vec<_>>().join("\n").trim_start().to_owned(),
        ));
    }
    let words: Vec<&str> = value
        .split([' ', '\t', '\n', ','])
        .filter(|word| !word.is_empty())
        .collect();
    if !words.is_empty() && words.iter().all(|word| word.starts_with('/')) {
        return Ok(SignedBy::Files(words.into_iter().map(PathBuf::from).collect()));
    }
    let fingerprint = |word: &str| {
        let word = word.trim_end_matches('!');
        word.len() == 40 && word.bytes().all(|b| b.is_ascii_hexdigit())
    };
    if !words.is_empty() && words.iter().all(|word| fingerprint(word)) {
        let upper = words
            .iter()
            .map(|word| word.trim_end_matches('!').to_ascii_uppercase());
        return Ok(SignedBy::Fingerprints(upper.collect()));
    }
    let message = format!(
        "Signed-By is neither a path, a fingerprint nor a key: {:?}",
        value.trim()
    );
    Err(Error::new(ErrorKind::InvalidArgument, message))
}

fn clean_uri(uri: &str) -> String {
    uri.trim_end_matches('/').to_owned()
}

/// A URI without user name and password: what may stand in an image that others get.
#[must_use]
pub fn without_credentials(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return uri.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{}", &rest[end..]),
        None => uri.to_owned(),
    }
}

/// What follows the name of a suite in the names of its parts, the main part first.
const PARTS: [&str; 3] = ["", "-updates", "-security"];
/// Other names that a Debian-like source may go by: their archive has the wanted suite too.
const ROLES: [&str; 5] = ["stable", "oldstable", "oldoldstable", "testing", "unstable"];

/// The repositories that offer the target's suite, in the order of the sources. With `mirror` the sources are not
/// looked at. When no source names the suite, the archives that are known to carry its sisters are asked for it.
///
/// # Errors
/// `NotFound` when there is none.
pub fn choose(
    sources: &[Source],
    mirror: Option<&str>,
    target: &Target,
    architecture: &str,
) -> Result<Vec<Repository>, Error> {
    if let Some(mirror) = mirror {
        return Ok(from_mirror(&clean_uri(mirror), target));
    }
    let usable = |source: &&Source| {
        let http = |uri: &String| uri.starts_with("http://") || uri.starts_with("https://");
        let here = source.architectures.is_empty() || source.architectures.iter().any(|a| a == architecture);
        here && !source.components.is_empty() && source.uris.iter().any(http)
    };
    let part = |suite: &str, name: &str| -> Option<&'static str> {
        PARTS
            .into_iter()
            .find(|part| suite.strip_suffix(part) == Some(name))
    };
    let mut found = Vec::new();
    for source in sources.iter().filter(usable) {
        for suite in source
            .suites
            .iter()
            .filter(|suite| part(suite, &target.suite).is_some())
        {
            push(&mut found, source, suite, false);
        }
    }
    if !found
        .iter()
        .any(|repository: &Repository| repository.suite == target.suite)
    {
        found.clear();
        for source in sources.iter().filter(usable) {
            let sisters = Target::suites_of(&target.distribution).chain(ROLES);
            for sister in sisters {
                for part in source.suites.iter().filter_map(|suite| part(suite, sister)) {
                    push(
                        &mut found,
                        source,
                        &format!("{}{part}", target.suite),
                        !part.is_empty(),
                    );
                }
            }
        }
    }
    if found.iter().any(|repository| repository.suite == target.suite) {
        return Ok(found);
    }
    Err(Error::new(
        ErrorKind::NotFound,
        format!("no apt source of this host offers {target}"),
    )
    .with_hint("name an archive with --mirror and its key with --keyring"))
}

fn push(found: &mut Vec<Repository>, source: &Source, suite: &str, optional: bool) {
    for uri in source
        .uris
        .iter()
        .filter(|uri| uri.starts_with("http://") || uri.starts_with("https://"))
    {
        if found
            .iter()
            .any(|known| known.uri == *uri && known.suite == suite)
        {
            continue;
        }
        found.push(Repository {
            uri: uri.clone(),
            suite: suite.to_owned(),
            components: source.components.clone(),
            signed_by: source.signed_by.clone(),
            trusted: source.trusted,
            optional,
        });
    }
}

/// The suite and its updates at the mirror, its security part beside it (`.../debian` and `.../debian-security`).
fn from_mirror(mirror: &str, target: &Target) -> Vec<Repository> {
    let components = if target.distribution == "ubuntu" {
        vec!["main", "universe"]
    } else {
        vec!["main"]
    };
    let one = |uri: String, part: &str| Repository {
        uri,
        suite: format!("{}{part}", target.suite),
        components: components.iter().map(|name| (*name).to_owned()).collect(),
        signed_by: None,
        trusted: false,
        optional: !part.is_empty(),
    };
    let beside = if target.distribution == "ubuntu" {
        ""
    } else {
        "-security"
    };
    vec![
        one(mirror.to_owned(), ""),
        one(mirror.to_owned(), "-updates"),
        one(format!("{mirror}{beside}"), "-security"),
    ]
}

#[cfg(test)]
mod tests;
