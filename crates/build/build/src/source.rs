//! What `COPY` reads: one view of a context and of a stack of layers.

use std::fs::File;

use dhow_types::Digest;

use crate::failure::{Error, invalid};
use crate::ignore::{Glob, Matched, Patterns, Stars};

/// Most symbolic links that one path may go through, as in the kernel.
const MAX_LINKS: u32 = 40;
/// Most entries that one step copies.
const MAX_ITEMS: usize = 4_000_000;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ItemKind {
    File,
    Directory,
    Symlink(Vec<u8>),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
}

/// One entry of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// Path in the source, without leading or trailing `/`; empty for its root.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: ItemKind,
    /// 12 bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    /// Seconds and nanoseconds since 1970.
    pub(crate) mtime: (i64, u32),
    /// Hash of a file's content, once known.
    pub(crate) content: Option<Digest>,
    /// Digest of the extended attributes, see [`crate::keys::xattr_digest`].
    pub(crate) xattrs: Digest,
    /// What names the same file, when it has several names.
    pub(crate) inode: Option<(u64, u64)>,
}

impl Item {
    pub(crate) fn is_dir(&self) -> bool {
        self.kind == ItemKind::Directory
    }

    /// The last component of the path.
    pub(crate) fn name(&self) -> &[u8] {
        self.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }
}

/// Extended attributes: names and values, sorted.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// An opened file and its extended attributes.
pub(crate) type Opened = (File, Xattrs);

/// A tree to copy from.
pub(crate) trait Source {
    /// The entry at `path`, which has no symbolic link before its last component; a link is itself.
    fn stat(&self, path: &[u8]) -> Result<Option<Item>, Error>;
    /// The entries of the directory at `path`, sorted by name.
    fn list(&self, path: &[u8]) -> Result<Vec<Item>, Error>;
    /// Everything below the directory at `path`, each directory before what is in it.
    fn walk(&self, path: &[u8], out: &mut Vec<Item>) -> Result<(), Error>;
    /// Opens a file.
    fn open(&self, item: &Item) -> Result<Opened, Error>;
    /// Extended attributes of a directory.
    fn directory_xattrs(&self, item: &Item) -> Result<Xattrs, Error>;
    /// Fills in the hashes of file contents.
    fn hash(&self, items: &mut [Item]) -> Result<(), Error>;
    /// Why something may be missing, for the hint of the error.
    fn missing_hint(&self, path: &[u8]) -> Option<String>;
}

/// One source of a `COPY` after wildcards and links: where it begins and what is below it.
#[derive(Clone, Debug)]
pub(crate) struct Picked {
    /// Name that a file gets in a destination directory.
    pub(crate) name: Vec<u8>,
    /// The entry itself.
    pub(crate) top: Item,
    /// Below a directory: path relative to it, and entry, parents first.
    pub(crate) below: Vec<(Vec<u8>, Item)>,
}

/// What to leave out and how to match.
#[derive(Debug, Default)]
pub(crate) struct Pick {
    /// `--exclude`, relative to the source.
    pub(crate) excludes: Patterns,
}

/// Joins a directory path and a name.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        return name.to_vec();
    }
    let mut path = Vec::with_capacity(dir.len() + 1 + name.len());
    path.extend_from_slice(dir);
    path.push(b'/');
    path.extend_from_slice(name);
    path
}

/// Follows all symbolic links of `path`, inside the source; `None` when it leads nowhere.
pub(crate) fn resolve(source: &dyn Source, path: &[u8]) -> Result<Option<Item>, Error> {
    let mut here: Vec<Vec<u8>> = Vec::new();
    let mut todo: Vec<Vec<u8>> = components(path);
    let mut links = 0;
    let mut item = source.stat(b"")?;
    while let Some(name) = todo.pop() {
        if name == b".." {
            here.pop();
            item = source.stat(&here.join(&b'/'))?;
            continue;
        }
        here.push(name);
        let Some(found) = source.stat(&here.join(&b'/'))? else {
            return Ok(None);
        };
        if let ItemKind::Symlink(target) = &found.kind {
            links += 1;
            if links > MAX_LINKS {
                return Err(invalid(format!(
                    "{:?}: too many symbolic links",
                    String::from_utf8_lossy(path)
                )));
            }
            here.pop();
            if target.starts_with(b"/") {
                here.clear();
            }
            todo.extend(components(target));
            item = source.stat(&here.join(&b'/'))?;
            continue;
        }
        if !todo.is_empty() && !found.is_dir() {
            return Ok(None);
        }
        item = Some(found);
    }
    Ok(item)
}

/// Components of a path, last first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .rev()
        .map(<[u8]>::to_vec)
        .collect()
}

/// A source as written, clipped to the root: `/a/../../b/` is `b`.
pub(crate) fn clip(path: &str) -> String {
    let rooted = crate::ignore::clean(&format!("/{path}"));
    rooted.trim_start_matches('/').to_owned()
}

fn has_wildcard(path: &str) -> bool {
    let mut escaped = false;
    path.chars().any(|c| {
        let was = std::mem::take(&mut escaped);
        escaped = !was && c == '\\';
        !was && matches!(c, '*' | '?' | '[')
    })
}

/// Finds what a source of `COPY` names. A wildcard may match nothing; a plain path must be there.
pub(crate) fn pick(source: &dyn Source, written: &str, how: &Pick) -> Result<Vec<Picked>, Error> {
    let path = clip(written);
    let names = if has_wildcard(&path) {
        expand_wildcards(source, &path)?
    } else {
        vec![path.into_bytes()]
    };
    let mut found = Vec::new();
    for name in names {
        let Some(top) = resolve(source, &name)? else {
            let shown = String::from_utf8_lossy(&name).into_owned();
            let error = Error::new(
                dhow_types::ErrorKind::NotFound,
                format!("failed to compute cache key: \"/{shown}\": not found"),
            );
            return Err(match source.missing_hint(&name) {
                Some(hint) => error.with_hint(hint),
                None => error,
            });
        };
        let last = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let below = if top.is_dir() {
            below(source, &top, how)?
        } else {
            Vec::new()
        };
        found.push(Picked {
            name: last.to_vec(),
            top,
            below,
        });
    }
    Ok(found)
}

fn below(source: &dyn Source, top: &Item, how: &Pick) -> Result<Vec<(Vec<u8>, Item)>, Error> {
    let mut items = Vec::new();
    source.walk(&top.path, &mut items)?;
    if items.len() > MAX_ITEMS {
        return Err(Error::new(
            dhow_types::ErrorKind::ResourceExhausted,
            format!("more than {MAX_ITEMS} files to copy"),
        ));
    }
    let skip = if top.path.is_empty() {
        0
    } else {
        top.path.len() + 1
    };
    let relative = items.into_iter().map(|item| (item.path[skip..].to_vec(), item));
    if how.excludes.is_empty() {
        return Ok(relative.collect());
    }
    Ok(filter(relative, &how.excludes, false))
}

/// Keeps what the patterns match (`wanted`) or do not match, with the directories that lead there.
pub(crate) fn filter(
    items: impl Iterator<Item = (Vec<u8>, Item)>,
    patterns: &Patterns,
    wanted: bool,
) -> Vec<(Vec<u8>, Item)> {
    let mut kept = Vec::new();
    // Directories above the current entry: path, what they matched, and the entry until it is needed.
    let mut above: Vec<(Vec<u8>, Matched, Option<Item>)> = Vec::new();
    let root = Matched::default();
    for (path, item) in items {
        while above
            .last()
            .is_some_and(|(dir, ..)| !(path.starts_with(dir) && path.get(dir.len()) == Some(&b'/')))
        {
            above.pop();
        }
        let parent = above.last().map_or(&root, |(_, matched, _)| matched);
        let (hit, matched) = patterns.matches(&path, parent);
        let keep = hit == wanted;
        if keep {
            for (dir, _, pending) in &mut above {
                if let Some(item) = pending.take() {
                    kept.push((dir.clone(), item));
                }
            }
        }
        if item.is_dir() {
            let pending = (!keep).then(|| item.clone());
            above.push((path.clone(), matched, pending));
        }
        if keep {
            kept.push((path, item));
        }
    }
    kept
}

/// Expands `*`, `?` and `[...]` component by component, in order; links are only followed before the first of them.
fn expand_wildcards(source: &dyn Source, path: &str) -> Result<Vec<Vec<u8>>, Error> {
    let parts: Vec<&str> = path.split('/').collect();
    let first = parts.iter().position(|part| has_wildcard(part)).unwrap_or(0);
    let base = parts[..first].join("/");
    let Some(base) = resolve(source, base.as_bytes())? else {
        return Ok(Vec::new());
    };
    let mut found = vec![base];
    for part in &parts[first..] {
        let glob = Glob::compile(part, Stars::Stay)?;
        let mut next = Vec::new();
        for dir in found.iter().filter(|item| item.is_dir()) {
            next.extend(
                source
                    .list(&dir.path)?
                    .into_iter()
                    .filter(|item| glob.matches(item.name())),
            );
        }
        found = next;
        if found.len() > MAX_ITEMS {
            return Err(invalid("a wildcard matches too many files"));
        }
    }
    Ok(found.into_iter().map(|item| item.path).collect())
}
