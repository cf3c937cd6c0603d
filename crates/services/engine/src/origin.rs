//! Where a file of an image came from: which layer brought it, which package it belongs to.

use dhow_image::Image;
use dhow_inventory::{Layer as LayerFiles, Scanner, owners_of};
use dhow_layer::{Entry, EntryKind, Index};
use dhow_types::{DiffId, ErrorKind};

use crate::confined::Confined;
use crate::inventory::decoded;
use crate::{Contents, Context as _, Engine, Error};

/// Most links that a path may lead through (Linux, `MAXSYMLINKS`).
const MOST_LINKS: usize = 40;

/// Where a file came from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Its path without links on the way to it, without `/` at its beginning.
    pub path: String,
    /// The layer that brought it as it is, counted from 0 at the bottom.
    pub layer: usize,
    /// That layer.
    pub diff: DiffId,
    /// Bytes of a file.
    pub size: u64,
    /// Target of a link.
    pub link: Option<String>,
    /// Names of the system's packages that say it is theirs.
    pub owners: Vec<String>,
    /// Packages of languages that it is a part of, or that it says itself, by their places in the inventory.
    pub packages: Vec<usize>,
}

impl Engine {
    /// Where a file of an image came from; `contents` is what is in the image. The caller must be single-threaded.
    ///
    /// # Errors
    /// `NotFound` when the image has nothing at this path; otherwise as [`Engine::contents`].
    pub fn origin(&self, image: &Image, contents: &Contents, path: &str) -> Result<Origin, Error> {
        let what = || format!("look for {path}");
        let layers = &self.store()?.layers;
        let mut stack = Vec::with_capacity(image.record.layers.len());
        for diff in &image.record.layers {
            let layer = layers.layer(diff).context(what)?;
            stack.push(layer.index().context(what)?);
        }
        let (at, entry) = resolve(&stack, path)?;
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        let mut claims = Vec::with_capacity(stack.len());
        for (diff, index) in image.record.layers.iter().zip(stack) {
            let root = layers.tree(diff).context(what)?;
            let wanted = path.clone();
            let started = Confined::start(Some(&root), || {
                let files = LayerFiles {
                    index: &index,
                    root: &root,
                };
                let claims = Scanner.claims(&files, &wanted);
                Ok(claims.context(|| "look through its files")?.encode())
            })?;
            let answer = started
                .wait()
                .context(|| format!("look through layer {}", diff.short()))?;
            claims.push(decoded(&answer)?);
        }
        let packages = contents.inventory.packages.iter().enumerate();
        let of_language = packages
            .filter(|(_, installed)| !installed.package.kind.is_system() && is_part(&path, &installed.path));
        Ok(Origin {
            layer: at,
            diff: image.record.layers[at],
            size: entry.size,
            link: (!entry.link.is_empty()).then(|| String::from_utf8_lossy(&entry.link).into_owned()),
            owners: owners_of(&claims.iter().collect::<Vec<_>>()),
            packages: of_language.map(|(number, _)| number).collect(),
            path,
        })
    }
}

/// Whether a file is a part of what another file says: the file itself, or below the folder of a Node package.
fn is_part(path: &str, said: &str) -> bool {
    let below = || {
        let folder = said.strip_suffix("/package.json")?;
        let rest = path.strip_prefix(folder)?.strip_prefix('/')?;
        // Packages within it are others.
        (!rest.contains("node_modules/")).then_some(())
    };
    path == said || below().is_some()
}

/// What a path leads to in a stack of layers, the lowest first: its layer and entry. Links on the way are followed, the last one
/// is what is meant.
fn resolve(stack: &[Index], path: &str) -> Result<(usize, Entry), Error> {
    let missing = || Error::new(ErrorKind::NotFound, format!("there is no {path} in it"));
    let mut waiting: Vec<Vec<u8>> = parts(path.as_bytes());
    let mut done: Vec<Vec<u8>> = Vec::new();
    let mut found = None;
    let mut links = 0;
    while let Some(part) = waiting.pop() {
        match part.as_slice() {
            b"." => continue,
            b".." => {
                done.pop();
                continue;
            }
            _ => done.push(part),
        }
        let (at, entry) = lookup(stack, &done.join(&b'/')).ok_or_else(missing)?;
        if entry.kind == EntryKind::Symlink && !waiting.is_empty() {
            links += 1;
            if links > MOST_LINKS {
                let message = format!("{path} leads through more than {MOST_LINKS} links");
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
            if entry.link.starts_with(b"/") {
                done.clear();
            } else {
                done.pop();
            }
            waiting.extend(parts(&entry.link));
            continue;
        }
        found = Some((at, entry));
    }
    found.ok_or_else(missing)
}

/// Its parts, the last one first.
fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    parts.rev().map(<[u8]>::to_vec).collect()
}

/// What stands at a path of the stack: the uppermost, unless a layer above it deletes it or a folder that it is in.
fn lookup(stack: &[Index], path: &[u8]) -> Option<(usize, Entry)> {
    for (at, index) in stack.iter().enumerate().rev() {
        if let Some(entry) = index.find(path) {
            match entry.kind {
                EntryKind::Whiteout => return None,
                // What the tar only implies is as it was below, if it was there.
                EntryKind::Directory if entry.implied => {
                    return lookup(&stack[..at], path).or(Some((at, entry)));
                }
                _ => return Some((at, entry)),
            }
        }
        let mut above = path;
        while let Some(end) = above.iter().rposition(|byte| *byte == b'/') {
            above = &above[..end];
            if let Some(entry) = index.find(above)
                && (entry.kind != EntryKind::Directory || entry.opaque)
            {
                return None;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use dhow_layer::{Entry, EntryKind, Index};

    use super::{is_part, resolve};

    fn layer(entries: &[(&str, EntryKind)]) -> Index {
        let mut all: Vec<Entry> = entries
            .iter()
            .map(|(path, kind)| {
                let (path, link) = path.split_once(" -> ").unwrap_or((path, ""));
                let mut entry = Entry::new(path, *kind, 0o755);
                entry.link = link.into();
                entry
            })
            .collect();
        all.sort_by(|a, b| a.path.cmp(&b.path));
        Index::decode(Index::encode(&all).unwrap()).unwrap()
    }

    #[test]
    fn the_uppermost_layer_that_has_it_brought_it() {
        use EntryKind::{Directory, File, Symlink, Whiteout};
        let mut opaque = Entry::new("srv", Directory, 0o755);
        opaque.opaque = true;
        let stack = [
            layer(&[
                ("bin -> usr/bin", Symlink),
                ("srv", Directory),
                ("srv/a", File),
                ("usr", Directory),
                ("usr/bin", Directory),
                ("usr/bin/gone", File),
                ("usr/bin/old", File),
                ("usr/bin/tool", File),
            ]),
            layer(&[
                ("usr", Directory),
                ("usr/bin", Directory),
                ("usr/bin/gone", Whiteout),
                ("usr/bin/tool", File),
                ("usr/bin/link -> tool", Symlink),
            ]),
            Index::decode(Index::encode(&[opaque]).unwrap()).unwrap(),
        ];
        let found = |path: &str| {
            let (at, entry) = resolve(&stack, path).ok()?;
            Some((at, String::from_utf8(entry.path).unwrap()))
        };
        for (path, wanted) in [
            ("/usr/bin/tool", Some((1, "usr/bin/tool"))),
            ("bin/tool", Some((1, "usr/bin/tool"))),
            ("/bin/../bin/./old", Some((0, "usr/bin/old"))),
            ("/usr/bin/link", Some((1, "usr/bin/link"))),
            ("/bin", Some((0, "bin"))),
            ("/usr/bin/gone", None),
            ("/srv/a", None),
            ("/srv", Some((2, "srv"))),
            ("/none", None),
            ("/", None),
        ] {
            let wanted = wanted.map(|(at, path)| (at, path.to_owned()));
            assert_eq!(found(path), wanted, "{path}");
        }
        let circle = [layer(&[("a -> b", Symlink), ("b -> a", Symlink)])];
        assert!(resolve(&circle, "a/x").is_err());
    }

    #[test]
    fn a_file_is_a_part_of_the_package_that_it_is_in() {
        assert!(is_part(
            "srv/node_modules/a/lib/x.js",
            "srv/node_modules/a/package.json"
        ));
        assert!(is_part("opt/app.jar", "opt/app.jar"));
        assert!(!is_part(
            "srv/node_modules/a/node_modules/b/x.js",
            "srv/node_modules/a/package.json"
        ));
        assert!(!is_part(
            "srv/node_modules/ab/x.js",
            "srv/node_modules/a/package.json"
        ));
    }
}
