//! Which slot has a path: a table of hashes, since the paths themselves may be on the disk.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::column::{Column, halves, pair};

/// Slots by the hash of their paths: eight bytes for each, with a quarter of the cells free at least.
///
/// The hash has a key of its own in every table, so that no archive can choose paths that have the same.
#[derive(Debug)]
pub(super) struct Names {
    dir: PathBuf,
    bytes: usize,
    state: RandomState,
    /// A hash above a slot and one; 0 in a free cell.
    cells: Column<u64>,
    used: usize,
}

/// Fewest cells.
const LEAST: usize = 256;

impl Names {
    /// An empty table with so many bytes of it in memory; its file would be in `dir`.
    pub(super) fn new(dir: &Path, bytes: usize) -> Self {
        Self {
            dir: dir.to_owned(),
            bytes,
            state: RandomState::new(),
            cells: Column::keeping(dir, bytes),
            used: 0,
        }
    }

    pub(super) fn hash(&self, path: &[u8]) -> u32 {
        (self.state.hash_one(path) >> 32) as u32
    }

    /// The slots with this hash, dead ones among them.
    pub(super) fn candidates(&self, hash: u32) -> impl Iterator<Item = Result<u32, Error>> + use<'_> {
        let mask = self.cells.len().wrapping_sub(1);
        let start = self.start(hash);
        let cells = (0..self.cells.len()).map(move |step| self.cells.get(start.wrapping_add(step) & mask));
        let ours = cells.take_while(|cell| !matches!(cell, Ok(0)));
        ours.filter_map(move |cell| match cell {
            Ok(cell) if halves(cell).0 == hash => Some(Ok(slot(cell))),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    }

    /// Adds a slot. A table that is full grows, and leaves out those that are not `alive`.
    pub(super) fn insert(
        &mut self,
        hash: u32,
        slot: u32,
        alive: impl Fn(u32) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        if (self.used + 1) * 4 > self.cells.len() * 3 {
            self.grow(alive)?;
        }
        self.place(pair(hash, slot + 1))
    }

    fn grow(&mut self, alive: impl Fn(u32) -> Result<bool, Error>) -> Result<(), Error> {
        let living = |cell: u64| Ok::<_, Error>(cell != 0 && alive(slot(cell))?);
        let mut left = 0;
        for at in 0..self.cells.len() {
            left += usize::from(living(self.cells.get(at)?)?);
        }
        let count = ((left + 1) * 2).next_power_of_two().max(LEAST);
        let cells = Column::keeping(&self.dir, self.bytes).zeros(count)?;
        let old = std::mem::replace(&mut self.cells, cells);
        self.used = 0;
        for at in 0..old.len() {
            let cell = old.get(at)?;
            if living(cell)? {
                self.place(cell)?;
            }
        }
        Ok(())
    }

    /// Bytes in memory.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.cells.size()
    }

    /// Where cells of a hash begin: in the order of the hashes, so that a table that grows is read and written from one end
    /// to the other.
    fn start(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.cells.len() as u64) >> 32) as usize
    }

    fn place(&mut self, cell: u64) -> Result<(), Error> {
        let mask = self.cells.len() - 1;
        let mut at = self.start(halves(cell).0);
        while self.cells.get(at)? != 0 {
            at = (at + 1) & mask;
        }
        self.used += 1;
        self.cells.set(at, cell)
    }
}

/// The slot of a cell that is not free.
fn slot(cell: u64) -> u32 {
    halves(cell).1.wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_found_by_their_hash_and_dead_ones_go_when_it_grows() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [0, 10_000, usize::MAX] {
            are_found(&mut Names::new(dir.path(), bytes));
        }
    }

    fn are_found(names: &mut Names) {
        let path = |slot: u32| format!("dir/{slot}").into_bytes();
        let dead = |slot: u32| slot.is_multiple_of(3);
        for slot in 0..10_000 {
            let hash = names.hash(&path(slot));
            names.insert(hash, slot, |slot| Ok(!dead(slot))).unwrap();
        }
        for slot in (0..10_000).filter(|slot| !dead(*slot)) {
            let hash = names.hash(&path(slot));
            assert!(
                names.candidates(hash).any(|found| found.unwrap() == slot),
                "{slot}"
            );
        }
        assert!(names.used < 9000, "{}", names.used);
        let hash = names.hash(b"another");
        assert_eq!(names.candidates(hash).count(), 0);
        assert_eq!(Names::new(std::path::Path::new(""), 0).candidates(1).count(), 0);
    }
}
