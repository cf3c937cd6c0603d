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
const PATIENCE: u32 = 6;

/// The two latest places of each hash of four bytes, the later in the lower half; places count from one, and none is zero.
pub(super) struct Search {
    places: Box<[u64; 1 << BITS]>,
}

/// Literal bytes up to `start`, then a copy, if its length is not zero.
pub(super) struct Run {
    pub(super) start: usize,
    pub(super) length: u32,
    pub(super) distance: u32,
}

#[inline(always)]
fn eight(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
    found.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low half is what is meant")]
fn low(word: u64) -> u32 {
    word as u32
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

    /// Forgets all, and learns what is before `start`. There are less than 4 GiB of `bytes`.
    pub(super) fn begin(&mut self, bytes: &[u8], start: usize) {
        self.places.fill(0);
        let end = start.min(bytes.len().saturating_sub(TAIL));
        for at in (0..end).step_by(2) {
            self.note(low(eight(bytes, at)), at);
        }
    }

    /// Notes that these four bytes are at `at`; the places before.
    #[inline(always)]
    fn note(&mut self, four: u32, at: usize) -> u64 {
        let slot = &mut self.places[hash(four)];
        let before = *slot;
        *slot = before << 32 | (at as u64 + 1);
        before
    }

    /// The next copy from `at` on, after `most` literals at most.
    #[inline]
    pub(super) fn run(&mut self, bytes: &[u8], at: usize, most: usize) -> Run {
        let end = bytes.len().min(at + most);
        let stop = end.min(bytes.len().saturating_sub(TAIL));
        let mut here = at;
        while here < stop {
            let word = eight(bytes, here);
            let before = self.note(low(word), here);
            let (mut length, mut distance) = (0, 0);
            for place in [low(before), low(before >> 32)] {
                // Of a place that is none it is too far.
                let back = low(here as u64 + 1).wrapping_sub(place);
                if place == 0 || back > WINDOW {
                    break;
                }
                let found = common(bytes, word, here, place as usize - 1);
                if found > length {
                    (length, distance) = (found, back);
                    if found >= ENOUGH {
                        break;
                    }
                }
            }
            if length >= 4 {
                let length = length.min(LONGEST).min(low((bytes.len() - here) as u64));
                self.pass(bytes, here, length as usize);
                return Run {
                    start: here,
                    length,
                    distance,
                };
            }
            here += 1 + ((here - at) >> PATIENCE);
        }
        Run {
            start: end,
            length: 0,
            distance: 0,
        }
    }

    /// Notes the places within a copy.
    #[inline(always)]
    fn pass(&mut self, bytes: &[u8], here: usize, length: usize) {
        let end = (here + length).min(bytes.len().saturating_sub(TAIL));
        let mut at = here + 1;
        // Eight bytes hold five times four.
        while at + 5 <= end {
            let word = eight(bytes, at);
            for more in 0..5 {
                self.note(low(word >> (8 * more)), at + more);
            }
            at += 5;
        }
        for at in at..end {
            self.note(low(eight(bytes, at)), at);
        }
    }
}

/// How many bytes from `here` on, of which `word` is the first eight, are as those from `there` on: fewer than four are
/// none, more than the longest copy are possible.
#[inline(always)]
fn common(bytes: &[u8], word: u64, here: usize, there: usize) -> u32 {
    let differ = word ^ eight(bytes, there);
    if low(differ) != 0 {
        return 0;
    }
    if differ != 0 {
        return differ.trailing_zeros() >> 3;
    }
    let mut same = 8;
    while same < LONGEST {
        let at = here + same as usize;
        let (Some(ours), Some(theirs)) = (
            bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()),
            bytes
                .get(there + same as usize..)
                .and_then(|rest| rest.first_chunk::<8>()),
        ) else {
            let rest = bytes[at..].iter().zip(&bytes[there + same as usize..]);
            return same + low(rest.take_while(|(a, b)| a == b).count() as u64);
        };
        let differ = u64::from_le_bytes(*ours) ^ u64::from_le_bytes(*theirs);
        if differ != 0 {
            return same + (differ.trailing_zeros() >> 3);
        }
        same += 8;
    }
    same
}
