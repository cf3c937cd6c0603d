//! `COPY --parents`: what is copied with the directories that lead to it.

use std::path::Path;

use dhow_types::ErrorKind;

use crate::failure::Error;
use crate::ignore::{Glob, Patterns, Stars};
use crate::source::{Item, Pick, Source, clip, filter, resolve};

/// `--parents`: what the path, its `/./` marking where the kept part begins, matches; with the directories that
/// lead there.
pub(crate) fn with_parents(
    source: &dyn Source,
    written: &str,
    how: &Pick,
) -> Result<Vec<(Vec<u8>, Item)>, Error> {
    let (base, pattern) = written.split_once("/./").unwrap_or(("", written));
    let (base, pattern) = (clip(base), clip(pattern));
    let wild = |text: &str| text.contains(['*', '?', '[']);
    let bases = if wild(&base) {
        directories(source, &base)?
    } else {
        let found = resolve(source, base.as_bytes())?.filter(Item::is_dir);
        vec![found.ok_or_else(|| missing(written))?]
    };
    let mut wanted = Vec::new();
    for top in &bases {
        let mut all = Vec::new();
        source.walk(&top.path, &mut all)?;
        let skip = if top.path.is_empty() {
            0
        } else {
            top.path.len() + 1
        };
        let relative = all.into_iter().map(|item| (item.path[skip..].to_vec(), item));
        if pattern.is_empty() {
            wanted.extend(relative);
        } else {
            wanted.extend(filter(relative, &Patterns::compile([&pattern])?, true));
        }
    }
    if wanted.is_empty() && !wild(&pattern) && !wild(&base) && !pattern.is_empty() {
        return Err(missing(written));
    }
    if how.excludes.is_empty() {
        return Ok(wanted);
    }
    Ok(filter(wanted.into_iter(), &how.excludes, false))
}

/// The directories that a pattern with `**` matches, in order.
fn directories(source: &dyn Source, pattern: &str) -> Result<Vec<Item>, Error> {
    let glob = Glob::compile(pattern, Stars::Cross)?;
    let mut all = Vec::new();
    source.walk(b"", &mut all)?;
    all.retain(|item| item.is_dir() && glob.matches(&item.path));
    Ok(all)
}

fn missing(path: &str) -> Error {
    let path = Path::new("/").join(path.trim_start_matches('/'));
    Error::new(
        ErrorKind::NotFound,
        format!("failed to compute cache key: {path:?}: not found"),
    )
}
