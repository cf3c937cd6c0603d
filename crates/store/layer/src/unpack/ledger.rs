#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use dhow_types::ErrorKind;

use super::large::{LARGE, Large};
use super::names::Names;
use super::sorted::{Sorted, Sorter};
use super::spool::{KEPT, Spool};
use crate::column::Column;
use crate::index::format;
use crate::varint::{self, Bytes};
use crate::{Entry, EntryKind, Error};

/// How often a tar may replace something that other entries depend on; each costs a walk over all entries.
const MOST_REWRITES: u32 = 10_000;

/// Bytes of a column, of the flags and of the table of names that stay in memory, in those of the spool. The flags of all
/// entries that a layer may have do: they are asked for without any order when the table grows.
const COLUMN: usize = 1;
const FLAGS: usize = 4;
const NAMES: usize = 8;

/// What was unpacked so far, in the order of the tar; at the end, the entries of the index.
///
/// A layer may have millions of entries, and several are unpacked at once: what is known of them is in a [`Spool`] and in
/// [`Column`]s, of which little is in memory.
#[derive(Debug)]
pub(super) struct Ledger {
    dir: PathBuf,
    kept: usize,
    spool: Spool,
    /// By slot: where its record begins in the spool.
    records: Column<u32>,
    /// By slot: that of its directory, which is lower, or [`NONE`].
    parents: Column<u32>,
    /// By slot: the flags below.
    flags: Column<u8>,
    names: Names,
    /// By slot: that which it is another name of and one; 0 when it is no hard link. None while there is no hard link.
    targets: Option<Column<u32>>,
    large: Option<Large>,
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
/// The record of a hard link names another path than that of what it is another name of.
const MOVED: u8 = 8;

/// No slot.
const NONE: u32 = u32::MAX;

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
        let bytes = kept.saturating_mul(COLUMN);
        Self {
            dir: dir.to_owned(),
            kept,
            spool: Spool::new(dir, kept),
            records: Column::keeping(dir, bytes),
            parents: Column::keeping(dir, bytes),
            flags: Column::keeping(dir, kept.saturating_mul(FLAGS)),
            names: Names::new(dir, kept.saturating_mul(NAMES)),
            targets: None,
            large: None,
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
                self.records.set(slot as usize, record)?;
                slot
            }
            None => self.occupy(&entry.path, record)?,
        };
        if target != NONE || self.has(slot, ALIVE)? {
            self.set_target(slot, target)?;
        }
        self.mark(slot, ALIVE)?;
        if entry.kind == EntryKind::Directory && !self.opaque.is_empty() && self.opaque.remove(&entry.path) {
            self.mark(slot, OPAQUE)?;
        }
        Ok(())
    }

    fn has(&self, slot: u32, flag: u8) -> Result<bool, Error> {
        Ok(self.flags.get(slot as usize)? & flag != 0)
    }

    fn mark(&mut self, slot: u32, flag: u8) -> Result<(), Error> {
        let flags = self.flags.get(slot as usize)?;
        self.flags.set(slot as usize, flags | flag)
    }

    fn unmark(&mut self, slot: u32, flag: u8) -> Result<(), Error> {
        let flags = self.flags.get(slot as usize)?;
        self.flags.set(slot as usize, flags & !flag)
    }

    /// A new slot for a path, not alive yet.
    fn occupy(&mut self, path: &[u8], record: u32) -> Result<u32, Error> {
        let full = || Error::new(ErrorKind::ResourceExhausted, "the layer has too many entries");
        let slot = u32::try_from(self.records.len()).ok().filter(|slot| *slot < NONE);
        let slot = slot.ok_or_else(full)?;
        if self.large.is_none() && slot as usize == LARGE && self.kept < usize::MAX {
            self.large = Some(Large::wait());
        }
        let parent = self.parent(path)?;
        let hash = self.names.hash(path);
        let flags = &self.flags;
        self.names
            .insert(hash, slot, |slot| Ok(flags.get(slot as usize)? & ALIVE != 0))?;
        self.records.push(record)?;
        self.parents.push(parent)?;
        self.flags.push(0)?;
        if let Some(targets) = &mut self.targets {
            targets.push(0)?;
        }
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
            && self.has(*slot, ALIVE)?
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
        let (body, record) = split(self.spool.read(self.records.get(slot as usize)?.into())?)?;
        Ok((body, format::entry(record).ok_or_else(damaged)?))
    }

    /// The living slot at `path`.
    fn slot(&mut self, path: &[u8]) -> Result<Option<u32>, Error> {
        let hash = self.names.hash(path);
        for slot in self.names.candidates(hash) {
            let slot = slot?;
            let at = slot as usize;
            if self.flags.get(at)? & ALIVE == 0 {
                continue;
            }
            let (_, record) = split(self.spool.read(self.records.get(at)?.into())?)?;
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
            self.mark(slot, OPAQUE)?;
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
        match self.target(slot)? {
            Some(target) if self.has(target, ALIVE)? => Ok(Some(self.read(target)?.1)),
            Some(_) => Ok(None),
            None => Ok(Some(self.read(slot)?.1)),
        }
    }

    /// What a slot is another name of.
    fn target(&self, slot: u32) -> Result<Option<u32>, Error> {
        match &self.targets {
            Some(targets) => Ok(targets.get(slot as usize)?.checked_sub(1)),
            None => Ok(None),
        }
    }

    /// Notes what a slot is another name of; [`NONE`] when it is no hard link.
    fn set_target(&mut self, slot: u32, target: u32) -> Result<(), Error> {
        if target != NONE {
            self.mark(target, LINKED)?;
        }
        let targets = match &mut self.targets {
            Some(targets) => targets,
            None if target == NONE => return Ok(()),
            none => {
                let column = Column::keeping(&self.dir, self.kept.saturating_mul(COLUMN));
                none.insert(column.zeros(self.flags.len())?)
            }
        };
        // It is below NONE.
        targets.set(slot as usize, target.wrapping_add(1))?;
        self.unmark(slot, MOVED)
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
            doomed.extend(self.below(slot)?);
            let prefix = [path, b"/"].concat();
            self.opaque.retain(|path| !path.starts_with(&prefix));
        }
        for slot in &doomed {
            self.unmark(*slot, ALIVE)?;
        }
        for slot in doomed {
            let (body, entry) = self.read(slot)?;
            if let Some(body) = body.filter(|body| !body.inherited) {
                gone.push((body.number, entry.path.clone()));
            }
            self.set_target(slot, NONE)?;
            if self.has(slot, LINKED)? {
                self.promote(slot, body, entry)?;
            }
        }
        Ok(gone)
    }

    /// The living slots below a directory: each comes after that of its own.
    fn below(&mut self, slot: u32) -> Result<Vec<u32>, Error> {
        let mut found = Vec::new();
        let first = slot as usize;
        let mut inside = vec![false; self.parents.len() - first];
        inside[0] = true;
        let flags = &self.flags;
        self.parents.scan(first + 1, |at, parent| {
            let parent = parent.checked_sub(slot).map(|parent| parent as usize);
            let is_inside = parent.and_then(|parent| inside.get(parent)).copied();
            if is_inside == Some(true) && flags.get(at)? & ALIVE != 0 {
                inside[at - first] = true;
                found.extend(u32::try_from(at));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// When other names of a dead file live on, the first becomes the file, and the others its links.
    fn promote(&mut self, dead: u32, body: Option<Body>, old: Entry) -> Result<(), Error> {
        self.count_rewrite()?;
        let (flags, mut heirs) = (&self.flags, Vec::new());
        if let Some(targets) = &mut self.targets {
            targets.scan(0, |at, target| {
                if target == dead + 1 && flags.get(at)? & ALIVE != 0 {
                    heirs.extend(u32::try_from(at));
                }
                Ok(())
            })?;
        }
        let mut heirs = heirs.into_iter();
        let Some(heir) = heirs.next() else {
            return Ok(());
        };
        self.set_target(heir, NONE)?;
        for other in heirs {
            self.set_target(other, heir)?;
            self.mark(other, MOVED)?;
        }
        let path = self.read(heir)?.1.path;
        let body = body.map(|body| Body {
            inherited: true,
            ..body
        });
        let record = self.write(&Entry { path, ..old }, body)?;
        self.records.set(heir as usize, record)
    }

    fn count_rewrite(&mut self) -> Result<(), Error> {
        self.rewrites += 1;
        if self.rewrites <= MOST_REWRITES {
            return Ok(());
        }
        let message = format!("the layer replaces its own entries more than {MOST_REWRITES} times");
        Err(Error::new(ErrorKind::ResourceExhausted, message))
    }

    /// Shows each living slot, with what it is another name of, the number of its content and its record as it is now.
    fn living(&mut self, mut see: impl FnMut(Living<'_>) -> Result<(), Error>) -> Result<(), Error> {
        // As large as the rest.
        self.names = Names::new(Path::new(""), 0);
        self.parents = Column::keeping(Path::new(""), 0);
        for at in 0..self.flags.len() {
            let slot = u32::try_from(at).unwrap_or(NONE);
            let flags = self.flags.get(at)?;
            if flags & ALIVE == 0 {
                continue;
            }
            let target = self.target(slot)?;
            let path = match target {
                Some(target) if flags & MOVED != 0 => Some(self.read(target)?.1.path),
                _ => None,
            };
            let (body, mut record) = split(self.spool.read(self.records.get(at)?.into())?)?;
            if flags & OPAQUE != 0 || path.is_some() {
                let mut entry = format::entry(record).ok_or_else(damaged)?;
                entry.opaque = flags & OPAQUE != 0 && entry.kind == EntryKind::Directory;
                entry.link = path.unwrap_or(entry.link);
                self.buffer.clear();
                format::put(&mut self.buffer, &entry);
                record = &self.buffer;
            }
            let body = body.map(|body| body.number);
            see(Living {
                slot,
                target,
                body,
                record,
            })?;
        }
        Ok(())
    }

    /// The living entries, sorted by path, each with the number of its content.
    pub(super) fn into_files(mut self) -> Result<Vec<(Entry, Option<u64>)>, Error> {
        let mut files = Vec::new();
        self.living(|living| {
            files.push((format::entry(living.record).ok_or_else(damaged)?, living.body));
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
        let mut count = 0;
        self.flags.scan(0, |_, flags| {
            count += usize::from(flags & ALIVE != 0);
            Ok(())
        })?;
        let slots = self.targets.as_ref().map(Column::len);
        let mut sorter = Sorter::new(dir, self.kept);
        sorter.large = self.large.take();
        self.living(|living| sorter.add(&living))?;
        // The spool's file goes before another as large is written.
        drop(self);
        sorter.finish(count, slots, see)
    }
}

/// What a living slot holds.
pub(super) struct Living<'a> {
    pub(super) slot: u32,
    /// The slot that it is another name of.
    pub(super) target: Option<u32>,
    /// The number of its content.
    pub(super) body: Option<u64>,
    pub(super) record: &'a [u8],
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
