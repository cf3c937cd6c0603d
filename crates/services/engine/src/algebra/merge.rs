//! Several layers as one, from their indexes: what the last of them says of each path, and what they hide of those below.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use dhow_image::Store;
use dhow_layer::tar::Writer;
use dhow_layer::{Entry, EntryKind, Index};
use dhow_types::DiffId;

use crate::{Context as _, Error};

/// What a path is after all layers.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) entry: Entry,
    /// The layer that has the content.
    pub(crate) layer: DiffId,
    /// The path of the file of which this is a name, in that layer.
    pub(crate) original: Vec<u8>,
}

/// The merged entries by path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Merged {
    pub(crate) paths: BTreeMap<Vec<u8>, Found>,
    /// Whether something may be below these layers, which whiteouts then hide.
    pub(crate) over: bool,
}

impl Merged {
    /// Merges layers, lowest first; `over` others, or over nothing.
    pub(crate) fn of(store: &Store, layers: &[DiffId], over: bool) -> Result<Self, Error> {
        let mut merged = Self {
            paths: BTreeMap::new(),
            over,
        };
        for diff in layers {
            let layer = store.layers.layer(diff);
            let index = layer.and_then(|layer| layer.index());
            merged.apply(
                *diff,
                &index.context(|| format!("read the index of layer {}", diff.short()))?,
            );
        }
        Ok(merged)
    }

    pub(crate) fn entry(&self, path: &[u8]) -> Option<&Entry> {
        let found = self.paths.get(path).map(|found| &found.entry);
        found.filter(|entry| entry.kind != EntryKind::Whiteout)
    }

    fn apply(&mut self, layer: DiffId, index: &Index) {
        // Removals first: what a layer has is never below its own whiteouts.
        for entry in index.entries() {
            if entry.kind == EntryKind::Whiteout {
                self.clear(&entry.path);
                self.paths.remove(&entry.path);
                if self.over {
                    self.insert(layer, entry);
                }
            } else if entry.opaque {
                self.clear(&entry.path);
            }
        }
        for entry in index.entries() {
            match entry.kind {
                EntryKind::Whiteout => {}
                EntryKind::Directory => self.directory(layer, entry),
                EntryKind::Hardlink => self.hard_link(layer, index, &entry),
                _ => {
                    self.clear(&entry.path);
                    self.insert(layer, entry);
                }
            }
        }
    }

    fn insert(&mut self, layer: DiffId, entry: Entry) {
        let original = entry.path.clone();
        let path = entry.path.clone();
        self.paths.insert(
            path,
            Found {
                entry,
                layer,
                original,
            },
        );
    }

    fn directory(&mut self, layer: DiffId, mut entry: Entry) {
        let before = self.paths.get(&entry.path).map(|found| &found.entry);
        // Over a deletion, or what is no directory, nothing of the layers below shows through.
        let hides = before.is_some_and(|before| before.kind != EntryKind::Directory);
        entry.opaque |= self.over && (hides || before.is_some_and(|before| before.opaque));
        entry.opaque &= self.over;
        if entry.implied {
            if before.is_some_and(|before| before.kind == EntryKind::Directory) {
                return;
            }
            // It must be written to hide what is below.
            entry.implied = !hides;
        }
        self.insert(layer, entry);
    }

    /// Another name of a file: of this layer, or of one below.
    fn hard_link(&mut self, layer: DiffId, index: &Index, entry: &Entry) {
        let own = index
            .find(&entry.link)
            .filter(|target| target.kind != EntryKind::Hardlink);
        let (mut linked, from, original) = match (own, self.paths.get(&entry.link)) {
            (Some(target), _) => (target, layer, entry.link.clone()),
            (None, Some(below)) => (below.entry.clone(), below.layer, below.original.clone()),
            // The file is in a layer that is not merged: the unpacked layer has its content under this name.
            (None, None) => {
                let mut file = entry.clone();
                file.kind = EntryKind::File;
                (file, layer, entry.path.clone())
            }
        };
        linked.path.clone_from(&entry.path);
        self.clear(&entry.path);
        let found = Found {
            entry: linked,
            layer: from,
            original,
        };
        self.paths.insert(entry.path.clone(), found);
    }

    /// Removes all below a path.
    fn clear(&mut self, path: &[u8]) {
        let mut start = path.to_vec();
        if path.is_empty() {
            let root = self.paths.remove(path);
            self.paths.clear();
            self.paths.extend(root.map(|root| (Vec::new(), root)));
            return;
        }
        start.push(b'/');
        let below = self
            .paths
            .range::<[u8], _>((Bound::Included(start.as_slice()), Bound::Unbounded));
        let below: Vec<Vec<u8>> = below
            .map(|(path, _)| path)
            .take_while(|path| path.starts_with(&start))
            .cloned()
            .collect();
        for path in below {
            self.paths.remove(&path);
        }
    }

    /// Writes them as the tar of one layer.
    pub(crate) fn write(&self, store: &Store, output: impl Write) -> Result<(), Error> {
        let mut tar = Writer::new(output);
        let mut names: BTreeMap<(DiffId, &[u8]), &[u8]> = BTreeMap::new();
        for (path, found) in &self.paths {
            let shown = || format!("write {:?}", String::from_utf8_lossy(path));
            let entry = &found.entry;
            if entry.implied {
                continue;
            }
            if entry.kind != EntryKind::File {
                tar.append(entry, io::empty()).context(shown)?;
                continue;
            }
            let same = (found.layer, found.original.as_slice());
            if let Some(first) = names.get(&same) {
                let mut link = Entry::new(path.as_slice(), EntryKind::Hardlink, entry.mode);
                link.link = first.to_vec();
                (link.uid, link.gid, link.mtime) = (entry.uid, entry.gid, entry.mtime);
                tar.append(&link, io::empty()).context(shown)?;
                continue;
            }
            names.insert(same, path);
            let root = store.layers.tree(&found.layer).context(shown)?;
            let place = Path::new(std::ffi::OsStr::from_bytes(&found.original));
            let file = root.open_file(place).context(shown)?;
            let mut entry = entry.clone();
            // The index has no size for another name of a file that is in a layer below.
            entry.size = file.metadata().context(shown)?.len();
            tar.append(&entry, file).context(shown)?;
        }
        tar.finish().context(|| "end the layer").map(drop)
    }
}
