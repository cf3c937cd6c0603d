use std::collections::HashMap;
use std::collections::HashSet;

use dhow_types::ErrorKind;

use crate::{Entry, EntryKind, Error};

/// How often a tar may replace something that other entries depend on; each costs a walk over all entries.
const MOST_REWRITES: u32 = 10_000;

/// What was unpacked so far, in the order of the tar; at the end, the entries of the index.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    slots: Vec<Slot>,
    /// Living entries by path. Made when it is needed first: most layers name nothing twice and link little.
    names: Option<HashMap<Vec<u8>, u32>>,
    opaque: HashSet<Vec<u8>>,
    rewrites: u32,
    /// Hard links among the entries.
    links: usize,
}

#[derive(Debug)]
struct Slot {
    entry: Entry,
    /// Number of the body in the split form, when it has one.
    body: Option<u32>,
    /// The same of the dead file whose place this one took.
    inherited: Option<u32>,
    alive: bool,
}

impl Ledger {
    /// Adds an entry; a living one of the same path (a directory named twice) is replaced.
    pub(super) fn push(&mut self, entry: Entry, body: Option<u32>) -> Result<(), Error> {
        let at = u32::try_from(self.slots.len())
            .map_err(|_| Error::new(ErrorKind::ResourceExhausted, "the layer has too many entries"))?;
        if let Some(names) = &mut self.names
            && let Some(old) = names.insert(entry.path.clone(), at)
            && let Some(slot) = self.slots.get_mut(old as usize)
        {
            slot.alive = false;
        }
        self.links += usize::from(entry.kind == EntryKind::Hardlink);
        self.slots.push(Slot {
            entry,
            body,
            inherited: None,
            alive: true,
        });
        Ok(())
    }

    /// Marks a directory that hides what is below it in lower layers.
    pub(super) fn mark_opaque(&mut self, path: Vec<u8>) {
        self.opaque.insert(path);
    }

    /// The living entry at `path`.
    pub(super) fn find(&mut self, path: &[u8]) -> Option<&Entry> {
        let at = *self.names().get(path)?;
        self.slots.get(at as usize).map(|slot| &slot.entry)
    }

    fn names(&mut self) -> &mut HashMap<Vec<u8>, u32> {
        let slots = &mut self.slots;
        self.names.get_or_insert_with(|| {
            let mut names = HashMap::with_capacity(slots.len());
            for at in 0..slots.len() {
                let path = slots[at].entry.path.clone();
                if let Some(old) = names.insert(path, u32::try_from(at).unwrap_or(u32::MAX)) {
                    slots[old as usize].alive = false;
                }
            }
            names
        })
    }

    /// The file, device or link that a hard link to `target` is another name of: never a hard link itself.
    pub(super) fn original(&mut self, target: &[u8]) -> Option<&Entry> {
        let entry = self.find(target)?;
        if entry.kind != EntryKind::Hardlink {
            return self.find(target);
        }
        let original = entry.link.clone();
        self.find(&original)
    }

    /// Forgets what is at `path` and, for a directory, below it. Returns the bodies that go with it:
    /// number and path.
    pub(super) fn forget(&mut self, path: &[u8]) -> Result<Vec<(u32, Vec<u8>)>, Error> {
        let mut gone = Vec::new();
        let Some(at) = self.names().remove(path) else {
            return Ok(gone);
        };
        self.opaque.remove(path);
        let kind = self.slots[at as usize].entry.kind;
        self.kill(at, &mut gone)?;
        if kind == EntryKind::Directory {
            self.count_rewrite()?;
            let prefix = [path, b"/"].concat();
            let names = self.names();
            let below: Vec<u32> = names
                .iter()
                .filter(|(path, _)| path.starts_with(&prefix))
                .map(|(_, at)| *at)
                .collect();
            names.retain(|path, _| !path.starts_with(&prefix));
            self.opaque.retain(|path| !path.starts_with(&prefix));
            for at in below {
                self.kill(at, &mut gone)?;
            }
        }
        Ok(gone)
    }

    fn kill(&mut self, at: u32, gone: &mut Vec<(u32, Vec<u8>)>) -> Result<(), Error> {
        let slot = &mut self.slots[at as usize];
        slot.alive = false;
        if let Some(body) = slot.body {
            gone.push((body, slot.entry.path.clone()));
        }
        let kind = slot.entry.kind;
        if self.links == 0
            || matches!(
                kind,
                EntryKind::Directory | EntryKind::Hardlink | EntryKind::Whiteout
            )
        {
            return Ok(());
        }
        self.promote(at)
    }

    /// When other names of a dead file live on, the first becomes the file, and the others its links.
    fn promote(&mut self, dead: u32) -> Result<(), Error> {
        let old = self.slots[dead as usize].entry.clone();
        let body = self.slots[dead as usize]
            .body
            .or(self.slots[dead as usize].inherited);
        // Links come after what they link to.
        let heirs: Vec<usize> = (dead as usize + 1..self.slots.len())
            .filter(|at| {
                let slot = &self.slots[*at];
                slot.alive && slot.entry.kind == EntryKind::Hardlink && slot.entry.link == old.path
            })
            .collect();
        self.count_rewrite()?;
        let Some((first, rest)) = heirs.split_first() else {
            return Ok(());
        };
        let path = std::mem::take(&mut self.slots[*first].entry.path);
        self.slots[*first].entry = Entry {
            path: path.clone(),
            ..old
        };
        self.slots[*first].inherited = body;
        for at in rest {
            self.slots[*at].entry.link.clone_from(&path);
        }
        Ok(())
    }

    fn count_rewrite(&mut self) -> Result<(), Error> {
        self.rewrites += 1;
        if self.rewrites <= MOST_REWRITES {
            return Ok(());
        }
        let message = format!("the layer replaces its own entries more than {MOST_REWRITES} times");
        Err(Error::new(ErrorKind::ResourceExhausted, message))
    }

    /// The living entries sorted by path, opaque ones marked.
    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.into_files().into_iter().map(|(entry, _)| entry).collect()
    }

    /// The same, with the number of the content of each file; of one that inherited its content, that of the first.
    pub(super) fn into_files(self) -> Vec<(Entry, Option<u32>)> {
        let Self {
            slots, names, opaque, ..
        } = self;
        // As large as the rest, for a layer of many entries.
        drop(names);
        let mut entries: Vec<(Entry, Option<u32>)> = slots
            .into_iter()
            .filter(|slot| slot.alive)
            .map(|slot| (slot.entry, slot.body.or(slot.inherited)))
            .collect();
        // Stable: of two of one path the later stays behind the earlier.
        entries.sort_by(|a, b| a.0.path.cmp(&b.0.path));
        entries.dedup_by(|later, earlier| {
            let same = later.0.path == earlier.0.path;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        if !opaque.is_empty() {
            for (entry, _) in &mut entries {
                entry.opaque = entry.kind == EntryKind::Directory && opaque.contains(&entry.path);
            }
        }
        entries
    }
}
