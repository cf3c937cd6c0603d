//! Which slot has a path: a table of hashes, since the paths themselves may be on the disk.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

/// Slots by the hash of their paths: eight bytes for each, with a quarter of the cells free at least.
///
/// The hash has a key of its own in every table, so that no archive can choose paths that have the same.
#[derive(Debug, Default)]
pub(super) struct Names {
    state: RandomState,
    /// A hash, and a slot and one; 0 in a free cell.
    cells: Vec<(u32, u32)>,
    used: usize,
}

/// Fewest cells.
const LEAST: usize = 256;

impl Names {
    pub(super) fn hash(&self, path: &[u8]) -> u32 {
        (self.state.hash_one(path) >> 32) as u32
    }

    /// The slots with this hash, dead ones among them.
    pub(super) fn candidates(&self, hash: u32) -> impl Iterator<Item = u32> + use<'_> {
        let mask = self.cells.len().wrapping_sub(1);
        let start = hash as usize;
        let cells = (0..self.cells.len()).map(move |step| self.cells[start.wrapping_add(step) & mask]);
        let ours = cells.take_while(|(_, slot)| *slot != 0);
        ours.filter(move |(other, _)| *other == hash)
            .map(|(_, slot)| slot - 1)
    }

    /// Adds a slot. A table that is full grows, and leaves out those that are not `alive`.
    pub(super) fn insert(&mut self, hash: u32, slot: u32, alive: impl Fn(u32) -> bool) {
        if (self.used + 1) * 4 > self.cells.len() * 3 {
            let living = |(_, slot): &(u32, u32)| slot.checked_sub(1).is_some_and(&alive);
            let cells = std::mem::take(&mut self.cells);
            let left = cells.iter().filter(|cell| living(cell)).count();
            self.cells = vec![(0, 0); ((left + 1) * 2).next_power_of_two().max(LEAST)];
            self.used = 0;
            for cell in cells.into_iter().filter(living) {
                self.place(cell);
            }
        }
        self.place((hash, slot + 1));
    }

    /// Bytes in memory.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.cells.capacity() * size_of::<(u32, u32)>()
    }

    fn place(&mut self, cell: (u32, u32)) {
        let mask = self.cells.len() - 1;
        let mut at = cell.0 as usize & mask;
        while self.cells[at].1 != 0 {
            at = (at + 1) & mask;
        }
        self.cells[at] = cell;
        self.used += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_found_by_their_hash_and_dead_ones_go_when_it_grows() {
        let mut names = Names::default();
        let path = |slot: u32| format!("dir/{slot}").into_bytes();
        let dead = |slot: u32| slot.is_multiple_of(3);
        for slot in 0..10_000 {
            let hash = names.hash(&path(slot));
            names.insert(hash, slot, |slot| !dead(slot));
        }
        for slot in (0..10_000).filter(|slot| !dead(*slot)) {
            let hash = names.hash(&path(slot));
            assert!(names.candidates(hash).any(|found| found == slot), "{slot}");
        }
        assert!(names.used < 9000, "{}", names.used);
        let hash = names.hash(b"another");
        assert_eq!(names.candidates(hash).count(), 0);
        assert_eq!(Names::default().candidates(1).count(), 0);
    }
}
