//! One stream's part of the work: a state that can go on together with those of others.

use dhow_sys::sha256::{BLOCK, FIRST, Lanes};
use dhow_types::Digest;

use crate::Hasher;

/// What was hashed of a stream.
pub(crate) enum Lane {
    /// By SHA instructions, with others.
    Paired(Paired),
    /// By the library: the processor has none.
    Single(Hasher),
}

/// A state, and the bytes behind the last whole block.
pub(crate) struct Paired {
    lanes: Lanes,
    state: [u32; 8],
    rest: [u8; BLOCK],
    held: usize,
    total: u64,
}

impl Lane {
    pub(crate) fn new(lanes: Option<Lanes>) -> Self {
        match lanes {
            Some(lanes) => Self::Paired(Paired {
                lanes,
                state: FIRST,
                rest: [0; BLOCK],
                held: 0,
                total: 0,
            }),
            None => Self::Single(Hasher::new()),
        }
    }

    /// Adds all bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Paired(paired) => paired.update(bytes),
            Self::Single(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Digest {
        match self {
            Self::Paired(paired) => paired.finish(),
            Self::Single(hasher) => hasher.finish(),
        }
    }
}

/// Adds bytes to some streams, to each the same number of whole blocks; how many bytes of each are done. At least one has fewer
/// than a block left then, which are done as well.
pub(crate) fn together<const N: usize>(streams: [(&mut Lane, &[u8]); N]) -> [usize; N] {
    let bytes = streams.each_ref().map(|(_, bytes)| *bytes);
    let (mut done, mut states) = ([0; N], [FIRST; N]);
    let (mut whole, mut instructions): ([&[[u8; BLOCK]]; N], _) = ([&[]; N], None);
    let mut paired = Vec::with_capacity(N);
    for (at, (lane, _)) in streams.into_iter().enumerate() {
        match lane {
            Lane::Paired(lane) => {
                done[at] = lane.fill(bytes[at]);
                (whole[at], states[at]) = (bytes[at][done[at]..].as_chunks().0, lane.state);
                instructions = Some(lane.lanes);
                paired.push((at, lane));
            }
            Lane::Single(hasher) => {
                hasher.update(bytes[at]);
                done[at] = bytes[at].len();
            }
        }
    }
    let blocks = whole.iter().map(|whole| whole.len()).min().unwrap_or(0);
    if let Some(instructions) = instructions {
        instructions.together(&mut states, whole.map(|whole| &whole[..blocks]));
    }
    for (at, lane) in paired {
        lane.state = states[at];
        lane.total += (blocks * BLOCK) as u64;
        done[at] += blocks * BLOCK;
        let left = &bytes[at][done[at]..];
        if left.len() < BLOCK {
            lane.update(left);
            done[at] += left.len();
        }
    }
    done
}

impl Paired {
    /// Makes a whole block of what is held, as far as there are bytes; how many were taken. Nothing is held then, or all
    /// bytes were taken.
    fn fill(&mut self, bytes: &[u8]) -> usize {
        if self.held == 0 {
            return 0;
        }
        let taken = bytes.len().min(BLOCK - self.held);
        self.rest[self.held..self.held + taken].copy_from_slice(&bytes[..taken]);
        self.held += taken;
        self.total += taken as u64;
        if self.held == BLOCK {
            self.blocks(&[self.rest]);
            self.held = 0;
        }
        taken
    }

    fn blocks(&mut self, blocks: &[[u8; BLOCK]]) {
        let mut states = [self.state];
        self.lanes.together(&mut states, [blocks]);
        [self.state] = states;
    }

    fn update(&mut self, bytes: &[u8]) {
        let bytes = &bytes[self.fill(bytes)..];
        let (whole, left) = bytes.as_chunks();
        self.blocks(whole);
        if !left.is_empty() {
            self.rest[..left.len()].copy_from_slice(left);
            self.held = left.len();
        }
        self.total += bytes.len() as u64;
    }

    /// The padding and the length (FIPS 180-4, section 5.1.1).
    fn finish(mut self) -> Digest {
        let bits = self.total.wrapping_mul(8).to_be_bytes();
        let mut padding = [0; 2 * BLOCK];
        padding[0] = 0x80;
        let zeros = (2 * BLOCK - 8 - 1 - self.held) % BLOCK;
        padding[1 + zeros..1 + zeros + 8].copy_from_slice(&bits);
        self.update(&padding[..1 + zeros + 8]);
        let mut raw = [0; 32];
        for (to, word) in raw.as_chunks_mut().0.iter_mut().zip(self.state) {
            *to = word.to_be_bytes();
        }
        Digest::from_bytes(raw)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// With and, where there are instructions, without the library.
    fn kinds() -> Vec<Option<Lanes>> {
        let mut kinds = vec![None];
        kinds.extend(Lanes::detect().map(Some));
        kinds
    }

    fn bytes(count: usize, seed: u8) -> Vec<u8> {
        (0..count)
            .map(|n| (n.wrapping_mul(131) >> 3).to_le_bytes()[0] ^ seed)
            .collect()
    }

    #[test]
    fn every_length_around_a_block_has_its_digest() {
        for lanes in kinds() {
            for count in 0..300 {
                let whole = bytes(count, 7);
                let mut lane = Lane::new(lanes);
                lane.update(&whole);
                assert_eq!(lane.finish(), Digest::of(&whole), "{count} bytes");
            }
        }
    }

    proptest! {
        #[test]
        fn streams_in_any_pieces_have_the_digests_of_each(
            sizes in prop::collection::vec((0_usize..700, 0_usize..700, 0_usize..700), 0..12),
        ) {
            for lanes in kinds() {
                let mut all = [Lane::new(lanes), Lane::new(lanes), Lane::new(lanes)];
                let mut whole = [Vec::new(), Vec::new(), Vec::new()];
                for (round, &(first, second, third)) in sizes.iter().enumerate() {
                    let pieces = [bytes(first, round.to_le_bytes()[0]), bytes(second, 99), bytes(third, 3)];
                    let [one, two, three] = &mut all;
                    let given = [&pieces[0][..], &pieces[1], &pieces[2]];
                    let done = if round % 3 == 0 {
                        let [first, second] = together([(one, given[0]), (two, given[1])]);
                        [first, second, 0]
                    } else {
                        together([(one, given[0]), (two, given[1]), (three, given[2])])
                    };
                    for ((lane, piece), done) in all.iter_mut().zip(&pieces).zip(done) {
                        lane.update(&piece[done..]);
                    }
                    let ended = done.iter().zip(&pieces).any(|(done, piece)| *done == piece.len());
                    prop_assert!(ended);
                    for (whole, piece) in whole.iter_mut().zip(&pieces) {
                        whole.extend(piece);
                    }
                }
                for (lane, whole) in all.into_iter().zip(whole) {
                    prop_assert_eq!(lane.finish(), Digest::of(&whole));
                }
            }
        }
    }
}
