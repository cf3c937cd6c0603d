//! Arch's pacman: `local/NAME-VERSION/desc` and `files` (alpm database, version 9).

use crate::kind::{Asked, Said, plain, utf8};
use crate::{Kind, Package, Source};

/// Values of a section `%NAME%`.
fn section<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let heading = format!("%{name}%");
    text.lines()
        .skip_while(move |line| line.trim() != heading)
        .skip(1)
        .take_while(|line| !line.trim().is_empty())
}

pub(crate) fn desc(_: &str, bytes: &[u8]) -> Result<Said, String> {
    let text = utf8(bytes);
    let first = |name| section(&text, name).next().and_then(plain);
    let (Some(name), Some(version)) = (first("NAME"), first("VERSION")) else {
        return Err("it has no NAME or no VERSION".to_owned());
    };
    let source = first("BASE").filter(|base| *base != name).map(|base| Source {
        name: base,
        version: version.clone(),
    });
    let licences: Vec<String> = section(&text, "LICENSE").filter_map(plain).collect();
    Ok(Said::packages(vec![Package {
        arch: first("ARCH"),
        source,
        licence: (!licences.is_empty()).then(|| licences.join(" AND ")),
        ..Package::new(Kind::Alpm, name, version)
    }]))
}

pub(crate) fn files(path: &str, bytes: &[u8], asked: Asked<'_>) -> Result<Said, String> {
    let text = utf8(bytes);
    // The folder is NAME-VERSION-RELEASE.
    let folder = path.rsplit('/').nth(1).unwrap_or_default();
    let Some(owner) = folder.rsplitn(3, '-').nth(2).and_then(plain) else {
        return Ok(Said::default());
    };
    Ok(Said {
        owns: section(&text, "FILES")
            .filter(|path| asked(path))
            .map(|path| (path.to_owned(), owner.clone()))
            .collect(),
        ..Said::default()
    })
}
