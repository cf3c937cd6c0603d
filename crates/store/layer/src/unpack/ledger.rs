#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::Path;

use dhow_types::ErrorKind;

use super::names::Names;
use super::sorted::{Sorted, Sorter};
use super::spool::{KEPT, Spool};
use crate::index::format;
use crate::varint::{self, Bytes};
use crate::{Entry, EntryKind, Error};

/// How often a tar may replace something that other entries depend on; each costs a walk over all entries.
const MOST_REWRITES: u32 = 10_000;

/// What was unpacked so far, in the order of the tar; at the end, the entries of the index.
///
/// A layer may have millions of entries, and several are unpacked at once: what is in memory of each is some 25 bytes. The
/// rest is in a [`Spool`].
#[derive(Debug)]
pub(super) struct Ledger {
    kept: usize,
    spool: Spool,
    /// By slot: where its record begins in the spool.
    records: Vec<u32>,
    /// By slot: that of its directory, which is lower, or [`NONE`].
    parents: Vec<u32>,
    /// By slot: the flags below.
    flags: Vec<u8>,
    names: Names,
    /// The hard links, by slot.
    links: Vec<Link>,
    /// Paths that were marked opaque and had no directory then.
    opaque: HashSet<Vec<u8>>,
    /// The directory of the last entry, and its slot.
    here: Option<(Vec<u8>, u32)>,
    rewrites: u32,
    buffer: Vec<u8>,
}

/// A slot counts as long as nothing took its path.
const ALIVE: u8 = 1;
/// It is a directory that hides what lower layers have in it.
const OPAQUE: u8 = 2;
/// A hard link may lead to it.
const LINKED: u8 = 4;

/// No slot.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Link {
    slot: u32,
    /// The slot that it is another name of; none when it is no hard link any more.
    target: u32,
    /// Whether its record names another path than that of the target.
    moved: bool,
}

/// Content of a file: a number that the maker of the tree gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) number: u64,
    /// Whether the file took it from a dead one, whose other name it was.
    inherited: bool,
}

impl Ledger {
    /// An empty one; what does not stay in memory goes to a file in `dir`.
    pub(super) fn new(dir: &Path) -> Self {
        Self::keeping(dir, KEPT)
    }

    /// One that makes no file, for who may make none.
    pub(super) fn in_memory() -> Self {
        Self::keeping(Path::new(""), usize::MAX)
    }

    /// The same with so many bytes of records in memory.
    fn keeping(dir: &Path, kept: usize) -> Self {
        Self {
            kept,
            spool: Spool::new(dir, kept),
            records: Vec::new(),
            parents: Vec::new(),
            flags: Vec::new(),
            names: Names::default(),
            links: Vec::new(),
            opaque: HashSet::new(),
            here: None,
            rewrites: 0,
            buffer: Vec::new(),
        }
    }

    /// Adds an entry; a living one of the same path (a directory named twice) is replaced.
    pub(super) fn push(&mut self, entry: &Entry, body: Option<u64>) -> Result<(), Error> {
        let target = match entry.kind {
            EntryKind::Hardlink => self
                .slot(&entry.link)?
                .ok_or_else(|| Error::new(ErrorKind::NotFound, "it is a hard link to what it replaces"))?,
            _ => NONE,
        };
        let body = body.map(|number| Body {
            number,
            inherited: false,
        });
        let record = self.write(entry, body)?;
        let slot = match self.slot(&entry.path)? {
            Some(slot) => {
                self.records[slot as usize] = record;
                slot
            }
            None => self.occupy(&entry.path, record)?,
        };
        if target != NONE || self.flags[slot as usize] & ALIVE != 0 {
            self.set_link(slot, target);
        }
        self.flags[slot as usize] |= ALIVE;
        if entry.kind == EntryKind::Directory && !self.opaque.is_empty() && self.opaque.remove(&entry.path) {
            self.flags[slot as usize] |= OPAQUE;
        }
        Ok(())
    }

    /// A new slot for a path, not alive yet.
    fn occupy(&mut self, path: &[u8], record: u32) -> Result<u32, Error> {
        let full = || Error::new(ErrorKind::ResourceExhausted, "the layer has too many entries");
        let slot = u32::try_from(self.records.len()).ok().filter(|slot| *slot < NONE);
        let slot = slot.ok_or_else(full)?;
        let parent = self.parent(path)?;
        let hash = self.names.hash(path);
        let flags = &self.flags;
        self.names
            .insert(hash, slot, |slot| flags[slot as usize] & ALIVE != 0);
        self.records.push(record);
        self.parents.push(parent);
        self.flags.push(0);
        Ok(slot)
    }

    /// The slot of the directory that a path is in.
    fn parent(&mut self, path: &[u8]) -> Result<u32, Error> {
        let dir = super::tree::split_path(path).0;
        if dir.is_empty() {
            return Ok(NONE);
        }
        if let Some((here, slot)) = &self.here
            && here == dir
            && self.flags[*slot as usize] & ALIVE != 0
        {
            return Ok(*slot);
        }
        let Some(slot) = self.slot(dir)? else {
            let shown = String::from_utf8_lossy(path);
            let message = format!("{shown} has no directory");
            return Err(Error::new(ErrorKind::Internal, message));
        };
        self.here = Some((dir.to_vec(), slot));
        Ok(slot)
    }

    /// Appends a record; where it begins.
    fn write(&mut self, entry: &Entry, body: Option<Body>) -> Result<u32, Error> {
        self.buffer.clear();
        varint::put(
            &mut self.buffer,
            body.map_or(0, |body| 1 + 2 * body.number + u64::from(body.inherited)),
        );
        format::put(&mut self.buffer, entry);
        let at = self.spool.append(&[&self.buffer])?;
        u32::try_from(at).map_err(|_| {
            let message = "the names and attributes of the layer's entries are too long together";
            Error::new(ErrorKind::ResourceExhausted, message)
        })
    }

    /// What a slot holds, as it was written.
    fn read(&mut self, slot: u32) -> Result<(Option<Body>, Entry), Error> {
        let (body, record) = split(self.spool.read(self.records[slot as usize].into())?)?;
        Ok((body, format::entry(record).ok_or_else(damaged)?))
    }

    /// The living slot at `path`.
    fn slot(&mut self, path: &[u8]) -> Result<Option<u32>, Error> {
        let hash = self.names.hash(path);
        for slot in self.names.candidates(hash) {
            let at = slot as usize;
            if self.flags[at] & ALIVE == 0 {
                continue;
            }
            let (_, record) = split(self.spool.read(self.records[at].into())?)?;
            if format::path(record) == Some(path) {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    /// Marks a directory that hides what is below it in lower layers.
    pub(super) fn mark_opaque(&mut self, path: Vec<u8>) -> Result<(), Error> {
        if let Some(slot) = self.slot(&path)?
            && self.read(slot)?.1.kind == EntryKind::Directory
        {
            self.flags[slot as usize] |= OPAQUE;
            return Ok(());
        }
        self.opaque.insert(path);
        Ok(())
    }

    /// The living entry at `path`.
    pub(super) fn find(&mut self, path: &[u8]) -> Result<Option<Entry>, Error> {
        match self.slot(path)? {
            Some(slot) => Ok(Some(self.read(slot)?.1)),
            None => Ok(None),
        }
    }

    /// The file, device or link that a hard link to `target` is another name of: never a hard link itself.
    pub(super) fn original(&mut self, target: &[u8]) -> Result<Option<Entry>, Error> {
        let Some(slot) = self.slot(target)? else {
            return Ok(None);
        };
        let entry = self.read(slot)?.1;
        match self.link(slot).map(|link| link.target) {
            Some(target) if target != NONE && self.flags[target as usize] & ALIVE != 0 => {
                Ok(Some(self.read(target)?.1))
            }
            Some(target) if target != NONE => Ok(None),
            _ => Ok(Some(entry)),
        }
    }

    fn link(&self, slot: u32) -> Option<&Link> {
        let at = self.links.binary_search_by_key(&slot, |link| link.slot).ok()?;
        self.links.get(at)
    }

    /// Notes what a slot is another name of; [`NONE`] when it is no hard link.
    fn set_link(&mut self, slot: u32, target: u32) {
        let found = self.links.binary_search_by_key(&slot, |link| link.slot);
        if target != NONE {
            self.flags[target as usize] |= LINKED;
        }
        let link = Link {
            slot,
            target,
            moved: false,
        };
        match found {
            Ok(at) => self.links[at] = link,
            Err(at) if target != NONE => self.links.insert(at, link),
            Err(_) => {}
        }
    }

    /// Forgets what is at `path` and, for a directory, below it. Returns the bodies that go with it:
    /// number and path.
    pub(super) fn forget(&mut self, path: &[u8]) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        let mut gone = Vec::new();
        let Some(slot) = self.slot(path)? else {
            return Ok(gone);
        };
        self.here = None;
        self.opaque.remove(path);
        let mut doomed = vec![slot];
        if self.read(slot)?.1.kind == EntryKind::Directory {
            self.count_rewrite()?;
            doomed.extend(self.below(slot));
            let prefix = [path, b"/"].concat();
            self.opaque.retain(|path| !path.starts_with(&prefix));
        }
        for slot in &doomed {
            self.flags[*slot as usize] &= !ALIVE;
        }
        for slot in doomed {
            let (body, entry) = self.read(slot)?;
            if let Some(body) = body.filter(|body| !body.inherited) {
                gone.push((body.number, entry.path.clone()));
            }
            if self.link(slot).is_some() {
                self.set_link(slot, NONE);
            }
            if self.flags[slot as usize] & LINKED != 0 {
                self.promote(slot, body, entry)?;
            }
        }
        Ok(gone)
    }

    /// The living slots below a directory: each comes after that of its own.
    fn below(&self, slot: u32) -> Vec<u32> {
        let mut found = Vec::new();
        let mut inside = vec![false; self.parents.len() - slot as usize];
        inside[0] = true;
        for at in slot as usize + 1..self.parents.len() {
            let parent = self.parents[at].checked_sub(slot).map(|parent| parent as usize);
            let is_inside = parent.and_then(|parent| inside.get(parent)).copied();
            if is_inside == Some(true) && self.flags[at] & ALIVE != 0 {
                inside[at - slot as usize] = true;
                found.extend(u32::try_from(at));
            }
        }
        found
    }

    /// When other names of a dead file live on, the first becomes the file, and the others its links.
    fn promote(&mut self, dead: u32, body: Option<Body>, old: Entry) -> Result<(), Error> {
        self.count_rewrite()?;
        let flags = &self.flags;
        let mut heirs = self
            .links
            .iter_mut()
            .filter(|link| link.target == dead && flags[link.slot as usize] & ALIVE != 0);
        let Some(first) = heirs.next() else {
            return Ok(());
        };
        let heir = first.slot;
        first.target = NONE;
        let mut others = false;
        for other in heirs {
            (other.target, other.moved) = (heir, true);
            others = true;
        }
        if others {
            self.flags[heir as usize] |= LINKED;
        }
        let path = self.read(heir)?.1.path;
        let body = body.map(|body| Body {
            inherited: true,
            ..body
        });
        self.records[heir as usize] = self.write(&Entry { path, ..old }, body)?;
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

    /// Shows each living slot, with the number of its content and its record as it is now; the hard links, and what each is
    /// another name of, by slot.
    fn living(
        &mut self,
        mut see: impl FnMut(u32, Option<u64>, &[u8]) -> Result<(), Error>,
    ) -> Result<Vec<(u32, u32)>, Error> {
        // As large as the rest.
        self.names = Names::default();
        self.parents = Vec::new();
        let mut links = std::mem::take(&mut self.links).into_iter().peekable();
        let mut targets = Vec::new();
        for at in 0..self.flags.len() {
            let slot = u32::try_from(at).unwrap_or(NONE);
            let link = links.next_if(|link| link.slot == slot);
            if self.flags[at] & ALIVE == 0 {
                continue;
            }
            let link = link.filter(|link| link.target != NONE);
            let path = match &link {
                Some(link) if link.moved => Some(self.read(link.target)?.1.path),
                _ => None,
            };
            let (body, record) = split(self.spool.read(self.records[at].into())?)?;
            let body = body.map(|body| body.number);
            if self.flags[at] & OPAQUE != 0 || path.is_some() {
                let mut entry = format::entry(record).ok_or_else(damaged)?;
                entry.opaque = self.flags[at] & OPAQUE != 0 && entry.kind == EntryKind::Directory;
                entry.link = path.unwrap_or(entry.link);
                self.buffer.clear();
                format::put(&mut self.buffer, &entry);
                see(slot, body, &self.buffer)?;
            } else {
                see(slot, body, record)?;
            }
            targets.extend(link.map(|link| (link.slot, link.target)));
        }
        Ok(targets)
    }

    /// The living entries, sorted by path, each with the number of its content.
    pub(super) fn into_files(mut self) -> Result<Vec<(Entry, Option<u64>)>, Error> {
        let mut files = Vec::new();
        self.living(|_, body, record| {
            files.push((format::entry(record).ok_or_else(damaged)?, body));
            Ok(())
        })?;
        files.sort_unstable_by(|(a, _), (b, _)| a.path.cmp(&b.path));
        Ok(files)
    }

    /// Writes the living entries as the index in `dir`, sorted by path; `see` is shown each in this order with the number
    /// of its content: that of the first file for one that inherited it.
    pub(super) fn sort(
        mut self,
        dir: &Path,
        see: impl FnMut(&Entry, Option<u64>) -> Result<(), Error>,
    ) -> Result<Sorted, Error> {
        let count = self.flags.iter().filter(|flags| *flags & ALIVE != 0).count();
        let mut sorter = Sorter::new(dir, self.kept);
        let targets = self.living(|slot, body, record| sorter.add(slot, body, record))?;
        let slots = self.flags.len();
        // The spool's file goes before another as large is written.
        drop(self);
        sorter.finish(count, slots, targets, see)
    }
}

/// Body and record of what a slot holds.
fn split(bytes: &[u8]) -> Result<(Option<Body>, &[u8]), Error> {
    let mut rest = Bytes::new(bytes);
    let body = rest
        .number()
        .ok_or_else(damaged)?
        .checked_sub(1)
        .map(|body| Body {
            number: body / 2,
            inherited: body % 2 == 1,
        });
    Ok((body, rest.rest()))
}

fn damaged() -> Error {
    Error::new(
        ErrorKind::Internal,
        "an entry of a layer is damaged before it was stored",
    )
}
