//! Debian's dpkg: `status` (deb822(5), dpkg(1) "Package states"), `status.d/` of distroless images, lists of files.

use crate::kind::{Asked, Said, plain, utf8};
use crate::{Kind, Package, Source};

/// `var/lib/dpkg/status`, or one file of `status.d/`.
pub(crate) fn status(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let text = utf8(bytes);
    let mut packages = Vec::new();
    let mut incomplete = 0;
    for paragraph in text.split("\n\n") {
        if paragraph.trim().is_empty() {
            continue;
        }
        match package(paragraph) {
            Some(Some(package)) => packages.push(package),
            Some(None) => {}
            None => incomplete += 1,
        }
    }
    if packages.is_empty() && incomplete > 0 {
        return Err(format!("none of its {incomplete} paragraphs is a package"));
    }
    packages.sort();
    packages.dedup();
    Ok(Said::packages(packages))
}

/// A paragraph; `Some(None)` for what is known and not installed.
fn package(paragraph: &str) -> Option<Option<Package>> {
    let field = |name: &str| {
        paragraph.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let name = plain(field("Package")?)?;
    if let Some(status) = field("Status") {
        // Files of a package in any other state are there, whatever its scripts said.
        let state = status.split_ascii_whitespace().next_back()?;
        if matches!(state, "not-installed" | "config-files") {
            return Some(None);
        }
    }
    let version = plain(field("Version")?)?;
    let mut package = Package::new(Kind::Deb, name, version);
    package.arch = field("Architecture").and_then(plain);
    let built_using = field("Built-Using");
    package.source = field("Source").and_then(|source| {
        let (name, version) = match source.split_once('(') {
            Some((name, version)) => (name, version.trim_end().strip_suffix(')')?),
            None => (source, package.version.as_str()),
        };
        let source = Source {
            name: plain(name)?,
            version: plain(version)?,
        };
        let source = signed(&source, built_using).unwrap_or(source);
        (source.name != package.name || source.version != package.version).then_some(source)
    });
    Some(Some(package))
}

/// What a package was built from that a source package only signed (`linux-signed-amd64` of `linux`): the package says it in
/// `Built-Using`, and advisories name that.
fn signed(source: &Source, built_using: Option<&str>) -> Option<Source> {
    let (of, _) = source.name.split_once("-signed")?;
    built_using?.split(',').find_map(|part| {
        let (name, version) = part.trim().split_once(" (= ")?;
        (of == name || of.starts_with(&format!("{name}-"))).then_some(())?;
        Some(Source {
            name: plain(name)?,
            version: plain(version.strip_suffix(')')?)?,
        })
    })
}

/// `info/NAME[:ARCH].list`.
pub(crate) fn list(path: &str, bytes: &[u8], asked: Asked<'_>) -> Result<Said, String> {
    Ok(owned(path, ".list", utf8(bytes).lines(), asked))
}

/// `status.d/NAME.md5sums`: a sum, two blanks, a path.
pub(crate) fn sums(path: &str, bytes: &[u8], asked: Asked<'_>) -> Result<Said, String> {
    let text = utf8(bytes);
    let lines = text
        .lines()
        .filter_map(|line| Some(line.split_once(' ')?.1.trim_start()));
    Ok(owned(path, ".md5sums", lines, asked))
}

fn owned<'a>(path: &str, end: &str, lines: impl Iterator<Item = &'a str>, asked: Asked<'_>) -> Said {
    let name = path.rsplit('/').next().unwrap_or(path);
    let name = name.strip_suffix(end).unwrap_or(name);
    let name = name.split(':').next().unwrap_or(name);
    Said {
        owns: lines
            .map(|line| line.trim_start_matches("./").trim_start_matches('/'))
            .filter(|path| asked(path))
            .map(|path| (path.to_owned(), name.to_owned()))
            .collect(),
        ..Said::default()
    }
}
