//! A stack of layers as one tree, by their indexes alone.
//!
//! What a layer deletes, hides or implies is applied to what the layers below it have, as docker applies a tar to a
//! directory: an implied directory leaves the one that is there as it is, and where a symbolic link is at its place, what
//! it holds goes to where that leads (see `patch`, which does the same for overlayfs).

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use dhow_layer::{Entry, EntryKind, Index, Layer};
use dhow_rootpath::Root;
use dhow_types::ErrorKind;

use crate::patch::{MOST_LINKS, follow, hidden_in, join};
use crate::{Context, Error};

/// One tree over a stack of layers.
pub(crate) struct Merged {
    layers: Vec<Stored>,
    names: BTreeMap<Vec<u8>, Source>,
}

struct Stored {
    layer: Layer,
    index: Rc<Index>,
    /// Opened when something of it is needed.
    root: OnceCell<Root>,
}

/// Where a name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Source {
    /// The entry number `at` of a layer.
    Entry { layer: u32, at: u32 },
    /// A directory that nobody names and somebody needs: 0755, of root, of 1970.
    Plain,
}

/// One name of the tree.
pub(crate) struct Named<'a> {
    /// As the layer has it: its path there may be another.
    pub(crate) entry: Entry,
    /// Of a hard link what it is linked to.
    pub(crate) original: Option<Entry>,
    layer: Option<(u32, &'a Stored)>,
}

/// What several names may be names of: a layer, and the path of the first in it.
pub(crate) type Identity = (u32, Vec<u8>);

impl Named<'_> {
    /// What is said of the file, whatever the name.
    pub(crate) fn file(&self) -> &Entry {
        self.original.as_ref().unwrap_or(&self.entry)
    }

    /// The same for all names of one file.
    pub(crate) fn identity(&self) -> Option<Identity> {
        let (number, _) = self.layer?;
        Some((number, self.file().path.clone()))
    }

    /// The tree of the layer that it is in.
    pub(crate) fn root(&self) -> Result<Option<&Root>, Error> {
        let Some((_, stored)) = self.layer else {
            return Ok(None);
        };
        if let Some(root) = stored.root.get() {
            return Ok(Some(root));
        }
        let root = stored.layer.open().context(|| "open a layer of a snapshot")?;
        Ok(Some(stored.root.get_or_init(|| root)))
    }
}

impl Merged {
    /// The tree of these layers, lowest first.
    pub(crate) fn load(layers: &[Layer]) -> Result<Self, Error> {
        let mut merged = Self {
            layers: Vec::with_capacity(layers.len()),
            names: BTreeMap::new(),
        };
        for layer in layers {
            let index = Rc::new(layer.index().context(|| "read the index of a layer")?);
            merged.layers.push(Stored {
                layer: layer.clone(),
                index: Rc::clone(&index),
                root: OnceCell::new(),
            });
            merged.apply(&index)?;
        }
        Ok(merged)
    }

    /// All names but the root, parents before what is in them.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&[u8], Named<'_>)> {
        self.names
            .iter()
            .map(|(path, source)| (path.as_slice(), self.named(path, *source)))
    }

    /// What is at `path`.
    pub(crate) fn find(&self, path: &[u8]) -> Option<Named<'_>> {
        Some(self.named(path, *self.names.get(path)?))
    }

    fn named(&self, path: &[u8], source: Source) -> Named<'_> {
        let plain = || Entry::new(path, EntryKind::Directory, 0o755);
        let Source::Entry { layer, at } = source else {
            return Named {
                entry: plain(),
                original: None,
                layer: None,
            };
        };
        let stored = self.layers.get(layer as usize);
        let entry = stored.and_then(|stored| stored.index.at(at as usize));
        let entry = entry.unwrap_or_else(plain);
        let original = match entry.kind {
            EntryKind::Hardlink => stored.and_then(|stored| stored.index.find(&entry.link)),
            _ => None,
        };
        Named {
            entry,
            original,
            layer: stored.map(|stored| (layer, stored)),
        }
    }

    /// What the layers so far have at `path`.
    fn entry(&self, path: &[u8]) -> Option<Entry> {
        self.find(path).map(|named| named.entry)
    }

    /// Puts the last layer on top of the others.
    fn apply(&mut self, index: &Index) -> Result<(), Error> {
        let too_many = || Error::new(ErrorKind::ResourceExhausted, "the stack has too many layers");
        let layer = u32::try_from(self.layers.len() - 1).map_err(|_| too_many())?;
        let moves = self.moves(index);
        // A layer hides what is in those below it, never its own.
        for entry in index.entries() {
            if entry.opaque {
                self.clear_below(&entry.path);
            }
            if entry.kind == EntryKind::Whiteout {
                let path = moves.target(&entry.path).unwrap_or(entry.path);
                self.remove(&path);
            }
        }
        let mut moved = Vec::new();
        for (at, entry) in index.entries().enumerate() {
            if entry.kind == EntryKind::Whiteout || entry.path.is_empty() || moves.is_link(&entry.path) {
                continue;
            }
            let at = u32::try_from(at).map_err(|_| too_many())?;
            let source = Source::Entry { layer, at };
            match moves.target(&entry.path) {
                Some(path) => moved.push((path, entry, source)),
                None => self.put(entry.path.clone(), &entry, source),
            }
        }
        // Where a link leads to what the layer names as well, the order of the tar, which nobody knows any more, would
        // decide; here as with overlayfs the link does.
        for (path, entry, source) in moved.into_iter().filter(|(path, ..)| !moves.is_link(path)) {
            self.make_parents(&path);
            self.put(path, &entry, source);
        }
        Ok(())
    }

    fn put(&mut self, path: Vec<u8>, entry: &Entry, source: Source) {
        let there = self.entry(&path).map(|there| there.kind);
        match (entry.kind, there) {
            (EntryKind::Directory, Some(EntryKind::Directory)) if entry.implied => return,
            (EntryKind::Directory, Some(EntryKind::Directory)) | (_, None) => {}
            _ => self.remove(&path),
        }
        self.names.insert(path, source);
    }

    /// Where the layers below have a symbolic link at the place of an implied directory: from where to where.
    fn moves(&self, index: &Index) -> Moves {
        let mut moves = Moves(Vec::new());
        let implied = index
            .entries()
            .filter(|entry| entry.implied && !entry.path.is_empty());
        for entry in implied {
            if moves.target(&entry.path).is_some() || hidden_in(index, &entry.path) {
                continue;
            }
            let link = self
                .entry(&entry.path)
                .is_some_and(|there| there.kind == EntryKind::Symlink);
            if let Some(target) = link
                .then(|| follow(&entry.path, |path| self.entry(path)))
                .flatten()
            {
                let from = [entry.path.as_slice(), b"/"].concat();
                let at = moves.0.partition_point(|(other, _)| *other < from);
                moves.0.insert(at, (from, target));
            }
        }
        moves
    }

    fn make_parents(&mut self, path: &[u8]) {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for (at, _) in slashes {
            let parent = &path[..at];
            match self.entry(parent) {
                Some(there) if there.kind == EntryKind::Directory => continue,
                Some(_) => self.remove(parent),
                None => {}
            }
            self.names.insert(parent.to_vec(), Source::Plain);
        }
    }

    fn remove(&mut self, path: &[u8]) {
        self.clear_below(path);
        self.names.remove(path);
    }

    /// Removes all in a directory; the empty path is the root.
    fn clear_below(&mut self, path: &[u8]) {
        if path.is_empty() {
            self.names.clear();
            return;
        }
        let start = [path, b"/"].concat();
        // The byte after the slash: all names between the two are in the directory.
        let end = [path, b"0"].concat();
        let inside: Vec<Vec<u8>> = self
            .names
            .range(start..end)
            .map(|(path, _)| path.clone())
            .collect();
        for path in inside {
            self.names.remove(&path);
        }
    }
}

/// Directories of a layer whose content goes elsewhere: each with a slash at its end, sorted, none in another.
struct Moves(Vec<(Vec<u8>, Vec<u8>)>);

impl Moves {
    /// Where a path in such a directory goes; nothing when it stays. A link may lead above itself.
    fn target(&self, path: &[u8]) -> Option<Vec<u8>> {
        let mut target = self.step(path)?;
        for _ in 0..MOST_LINKS {
            match self.step(&target) {
                Some(next) => target = next,
                None => break,
            }
        }
        Some(target)
    }

    fn step(&self, path: &[u8]) -> Option<Vec<u8>> {
        let at = self.0.partition_point(|(from, _)| from.as_slice() <= path);
        let (from, to) = self.0.get(at.checked_sub(1)?)?;
        Some(join(to, path.strip_prefix(from.as_slice())?))
    }

    /// Whether it is such a directory itself, of which the link stays.
    fn is_link(&self, path: &[u8]) -> bool {
        !self.0.is_empty() && {
            let from = [path, b"/"].concat();
            self.0.binary_search_by(|(other, _)| other.cmp(&from)).is_ok()
        }
    }
}
