//! The entries of a layer in the order of their paths: sorted a piece at a time, and merged into the index.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::{Path, PathBuf};

use dhow_types::ErrorKind;

use super::large::Large;
use super::ledger::Living;
use super::spool::{Records, Spool};
use crate::column::{Column, halves, pair};
use crate::index::{Stored, Writer, format};
use crate::{Entry, EntryKind, Error};

/// Bytes that are sorted in memory, in pieces of so many times what a spool keeps.
const PIECE: usize = 4;

/// Bytes before a record: slot, number of the body and one, the slot that it is another name of and one, length.
const HEAD: usize = 4 + 8 + 4 + 4;

/// The index of a layer, and what else is known of its entries. They are meant by their number in it.
pub(super) struct Sorted {
    pub(super) index: Stored,
    /// Hard links and what each is another name of, as pairs; by the first.
    pub(super) links: Column<u64>,
    /// Directories that only something below them names.
    pub(super) implied: u64,
    /// Whether all of the lower layers is hidden.
    pub(super) opaque_root: bool,
    /// Kept until all that is made of it is.
    _large: Option<Large>,
}

/// Entries that are not sorted yet.
pub(super) struct Sorter {
    pub(super) large: Option<Large>,
    dir: PathBuf,
    kept: usize,
    room: usize,
    piece: Vec<u8>,
    /// Where each begins in the piece.
    starts: Vec<u32>,
    /// The pieces before, each sorted, and where each begins; none for a layer of few entries.
    spool: Spool,
    pieces: Vec<u64>,
}

impl Sorter {
    /// An empty one, with so many bytes of a spool in memory; the index will be in `dir`.
    pub(super) fn new(dir: &Path, kept: usize) -> Self {
        Self {
            large: None,
            dir: dir.to_owned(),
            kept,
            room: PIECE.saturating_mul(kept),
            piece: Vec::new(),
            starts: Vec::new(),
            spool: Spool::new(dir, kept),
            pieces: Vec::new(),
        }
    }

    /// Takes the record of a slot, which names no path that another one names.
    pub(super) fn add(&mut self, living: &Living<'_>) -> Result<(), Error> {
        let record = living.record;
        if self.piece.len() + HEAD + record.len() > self.room && !self.starts.is_empty() {
            self.put_aside()?;
        }
        let too_long = || Error::new(ErrorKind::ResourceExhausted, "an entry of the layer is too long");
        self.starts
            .push(u32::try_from(self.piece.len()).map_err(|_| too_long())?);
        self.piece.extend_from_slice(&living.slot.to_le_bytes());
        self.piece
            .extend_from_slice(&living.body.map_or(0, |body| body + 1).to_le_bytes());
        self.piece
            .extend_from_slice(&living.target.map_or(0, |target| target + 1).to_le_bytes());
        let length = u32::try_from(record.len()).map_err(|_| too_long())?;
        self.piece.extend_from_slice(&length.to_le_bytes());
        self.piece.extend_from_slice(record);
        Ok(())
    }

    fn sort(&mut self) {
        let piece = &self.piece;
        self.starts
            .sort_unstable_by(|a, b| Item::at(piece, *a).path().cmp(Item::at(piece, *b).path()));
    }

    fn put_aside(&mut self) -> Result<(), Error> {
        self.sort();
        self.pieces.push(self.spool.len());
        for start in &self.starts {
            self.spool.append(&[Item::at(&self.piece, *start).0])?;
        }
        self.piece.clear();
        self.starts.clear();
        Ok(())
    }

    /// Writes the index of `count` entries; `see` is shown each with its body. With hard links, `slots` is how many slots
    /// there are.
    pub(super) fn finish(
        mut self,
        count: usize,
        slots: Option<usize>,
        see: impl FnMut(&Entry, Option<u64>) -> Result<(), Error>,
    ) -> Result<Sorted, Error> {
        let column = self.kept;
        let ranks = Column::keeping(&self.dir, column);
        let mut drain = Drain {
            index: Writer::create(&self.dir.join("index"), count)?,
            ranks: slots.map(|slots| ranks.zeros(slots)).transpose()?,
            links: Column::keeping(&self.dir, column),
            see,
            count: 0,
            implied: 0,
            opaque_root: false,
        };
        if self.pieces.is_empty() {
            self.sort();
            for start in &self.starts {
                drain.take(Item::at(&self.piece, *start))?;
            }
        } else {
            self.put_aside()?;
            self.piece = Vec::new();
            self.starts = Vec::new();
            self.spool.flush()?;
            self.merge(&mut drain)?;
        }
        if let Some(ranks) = &drain.ranks {
            for at in 0..drain.links.len() {
                let (link, target) = halves(drain.links.get(at)?);
                drain.links.set(at, pair(link, ranks.get(target as usize)?))?;
            }
        }
        Ok(Sorted {
            index: drain.index.finish()?,
            links: drain.links,
            implied: drain.implied,
            opaque_root: drain.opaque_root,
            _large: self.large.take(),
        })
    }

    fn merge<S>(&self, drain: &mut Drain<S>) -> Result<(), Error>
    where
        S: FnMut(&Entry, Option<u64>) -> Result<(), Error>,
    {
        let ends = self.pieces.iter().skip(1).copied().chain([self.spool.len()]);
        let mut pieces = Vec::with_capacity(self.pieces.len());
        for (from, to) in self.pieces.iter().zip(ends) {
            pieces.push(self.spool.records(*from, to)?);
        }
        // What each piece has next, the lowest path on top.
        let mut heads = BinaryHeap::with_capacity(pieces.len());
        for (number, piece) in pieces.iter_mut().enumerate() {
            heads.extend(head(piece, number)?);
        }
        while let Some(Reverse(Head { number, item, .. })) = heads.pop() {
            drain.take(Item(&item))?;
            heads.extend(head(&mut pieces[number], number)?);
        }
        Ok(())
    }
}

/// The next item of a piece.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    path: Vec<u8>,
    number: usize,
    item: Vec<u8>,
}

fn head(piece: &mut Records<'_>, number: usize) -> Result<Option<Reverse<Head>>, Error> {
    let item = piece.next()?.map(<[u8]>::to_vec);
    Ok(item.map(|item| {
        let path = Item(&item).path().to_vec();
        Reverse(Head { path, number, item })
    }))
}

/// Where sorted items go.
struct Drain<S> {
    index: Writer,
    /// By slot, the number of its entry, when somebody asks for it.
    ranks: Option<Column<u32>>,
    /// Pairs of the numbers of hard links and the slots that they are other names of.
    links: Column<u64>,
    see: S,
    count: u32,
    implied: u64,
    opaque_root: bool,
}

impl<S: FnMut(&Entry, Option<u64>) -> Result<(), Error>> Drain<S> {
    fn take(&mut self, item: Item<'_>) -> Result<(), Error> {
        self.index.add(item.record())?;
        let entry = format::entry(item.record()).ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "an entry of a layer was damaged by sorting it",
            )
        })?;
        if let Some(ranks) = &mut self.ranks {
            ranks.set(item.slot() as usize, self.count)?;
        }
        if let Some(target) = item.target() {
            self.links.push(pair(self.count, target))?;
        }
        self.count += 1;
        self.implied += u64::from(entry.implied);
        self.opaque_root |= entry.path.is_empty() && entry.opaque && entry.kind == EntryKind::Directory;
        (self.see)(&entry, item.body())
    }
}

/// A record with what belongs to it.
#[derive(Clone, Copy)]
struct Item<'a>(&'a [u8]);

impl<'a> Item<'a> {
    fn at(piece: &'a [u8], start: u32) -> Self {
        let bytes = &piece[start as usize..];
        let length = u32::from_le_bytes(part(bytes, 16)) as usize;
        Self(&bytes[..HEAD + length])
    }

    fn slot(self) -> u32 {
        u32::from_le_bytes(part(self.0, 0))
    }

    fn body(self) -> Option<u64> {
        u64::from_le_bytes(part(self.0, 4)).checked_sub(1)
    }

    fn target(self) -> Option<u32> {
        u32::from_le_bytes(part(self.0, 12)).checked_sub(1)
    }

    fn record(self) -> &'a [u8] {
        &self.0[HEAD..]
    }

    fn path(self) -> &'a [u8] {
        format::path(self.record()).unwrap_or_default()
    }
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[at..at + N]);
    part
}
