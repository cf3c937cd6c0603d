//! Where bytes were before.

/// Bits of a hash.
const BITS: u32 = 15;
/// How far back a copy may reach.
const WINDOW: u32 = 32 << 10;
/// Longest copy.
const LONGEST: u32 = 258;
/// A copy as long as this is not compared with another.
const ENOUGH: u32 = 32;
/// Bytes before the end at which no copy begins any more: eight can be read from every place that is looked at.
const TAIL: usize = 12;
/// Bytes in a row without a copy after which every second place is looked at, then every third, and so on.
const PATIENCE: u32 = 5;

/// Places that are noted at once.
const FIVE: usize = 5;

/// Most bytes that are looked at together: a power of two, so that a place within needs no check, only a mask.
pub(super) const SPACE: usize = 1 << 19;

/// The bytes, and room behind them to read eight at a time. What is behind their end is of no account.
pub(super) type Space = [u8; SPACE + 8];

/// The two latest places of each hash of four bytes, modulo 64 KiB, the later in the lower half. One that was never noted,
/// or too long ago, is as good a guess as any: what is there is compared.
pub(super) struct Search {
    places: Box<[u32; 1 << BITS]>,
}

/// Literal bytes, then a copy, if its length is not zero.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) literals: u32,
    pub(super) length: u32,
    pub(super) distance: u32,
}

#[inline(always)]
fn eight(space: &Space, at: usize) -> u64 {
    let found = space[at & (SPACE - 1)..].first_chunk::<8>();
    found.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low half is what is meant")]
fn low(word: u64) -> u32 {
    word as u32
}

#[inline(always)]
fn four(space: &Space, at: usize) -> u32 {
    low(eight(space, at))
}

#[inline(always)]
fn hash(four: u32) -> usize {
    (four.wrapping_mul(0x9e37_79b1) >> (32 - BITS)) as usize
}

impl Search {
    pub(super) fn new() -> Self {
        Self {
            places: Box::new([0; 1 << BITS]),
        }
    }

    /// Forgets all, and learns what is before `start` of the `end` bytes there are.
    pub(super) fn begin(&mut self, space: &Space, start: usize, end: usize) {
        self.places.fill(0);
        for at in (0..start.min(end.saturating_sub(TAIL))).step_by(2) {
            self.note(four(space, at), at);
        }
    }

    /// Notes that these four bytes are at `at`; the places before.
    #[inline(always)]
    fn note(&mut self, four: u32, at: usize) -> u32 {
        let slot = &mut self.places[hash(four)];
        let before = *slot;
        *slot = before << 16 | low(at as u64) & 0xffff;
        before
    }

    /// The next copy from `at` on, after `most` literals at most; there are `end` bytes.
    #[inline(always)]
    pub(super) fn run(&mut self, space: &Space, at: usize, most: usize, end: usize) -> Run {
        let until = end.min(at + most);
        let stop = until.min(end.saturating_sub(TAIL));
        let mut here = at;
        while here < stop {
            let word = four(space, here);
            let before = self.note(word, here);
            let now = low(here as u64);
            let near = now.wrapping_sub(before) & 0xffff;
            let far = now.wrapping_sub(before >> 16) & 0xffff;
            // Both at once, and nothing else, so that bytes without a copy are passed without a branch that goes wrong.
            let is_near = four(space, here.wrapping_sub(near as usize)) == word;
            let is_far = four(space, here.wrapping_sub(far as usize)) == word;
            if is_near | is_far {
                let (mut length, mut distance) = (0, 0);
                // A place of now, of before the beginning, or too far back is none.
                let reach = WINDOW.min(now);
                if is_near && near.wrapping_sub(1) < reach {
                    length = common(space, here, near);
                    distance = near;
                }
                if is_far && far.wrapping_sub(1) < reach && length < ENOUGH {
                    let found = common(space, here, far);
                    if found > length {
                        (length, distance) = (found, far);
                    }
                }
                if length >= 4 {
                    let length = length.min(LONGEST).min(low((end - here) as u64));
                    self.pass(space, here, length as usize);
                    return Run {
                        literals: low((here - at) as u64),
                        length,
                        distance,
                    };
                }
            }
            here += 1 + ((here - at) >> PATIENCE);
        }
        Run {
            literals: low((until - at) as u64),
            length: 0,
            distance: 0,
        }
    }

    /// Notes places within a copy: of a short one the first three, of others the first and the last five. All of them would
    /// make the output 0.7 % smaller, and take a sixth more time, most of it for branches that go wrong.
    #[inline(always)]
    fn pass(&mut self, space: &Space, here: usize, length: usize) {
        if length > FIVE {
            self.note_from::<FIVE>(space, here + 1);
            if length > 2 * FIVE {
                self.note_from::<FIVE>(space, here + length - FIVE);
            }
        } else {
            self.note_from::<3>(space, here + 1);
        }
    }

    /// Notes `N` places, at most five: eight bytes hold five times four.
    #[inline(always)]
    fn note_from<const N: usize>(&mut self, space: &Space, at: usize) {
        let word = eight(space, at);
        for more in 0..N {
            self.note(low(word >> (8 * more)), at + more);
        }
    }
}

/// How many bytes from `here` on are as those `back` bytes before; more than the longest copy are possible.
#[inline(always)]
fn common(space: &Space, here: usize, back: u32) -> u32 {
    let there = here.wrapping_sub(back as usize);
    let mut same = 0;
    while same < LONGEST {
        let differ = eight(space, here + same as usize) ^ eight(space, there.wrapping_add(same as usize));
        if differ != 0 {
            return same + (differ.trailing_zeros() >> 3);
        }
        same += 8;
    }
    same
}
