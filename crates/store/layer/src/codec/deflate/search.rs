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

/// Places at the beginning of a copy that are noted, and those at its end: more of a long copy make the output 0.05 % smaller.
const NOTED: usize = 25;
const NOTED_LAST: usize = 5;

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
fn four(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    found.map_or(0, |bytes| u32::from_le_bytes(*bytes))
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
    fn note(&mut self, four: u32, at: usize) -> u32 {
        let slot = &mut self.places[hash(four)];
        let before = *slot;
        *slot = before << 16 | low(at as u64) & 0xffff;
        before
    }

    /// The next copy from `at` on, after `most` literals at most.
    #[inline]
    pub(super) fn run(&mut self, bytes: &[u8], at: usize, most: usize) -> Run {
        let end = bytes.len().min(at + most);
        let stop = end.min(bytes.len().saturating_sub(TAIL));
        let mut here = at;
        while here < stop {
            let word = low(eight(bytes, here));
            let before = self.note(word, here);
            let now = low(here as u64);
            let near = now.wrapping_sub(before) & 0xffff;
            let far = now.wrapping_sub(before >> 16) & 0xffff;
            // Both at once, and nothing else, so that bytes without a copy are passed without a branch that goes wrong.
            let is_near = four(bytes, here.saturating_sub(near as usize)) == word;
            let is_far = four(bytes, here.saturating_sub(far as usize)) == word;
            if is_near | is_far {
                let (mut length, mut distance) = (0, 0);
                // A place of now, of before the beginning, or too far back is none.
                let reach = WINDOW.min(now);
                if is_near && near.wrapping_sub(1) < reach {
                    length = common(bytes, here, here - near as usize);
                    distance = near;
                }
                if is_far && far.wrapping_sub(1) < reach && length < ENOUGH {
                    let found = common(bytes, here, here - far as usize);
                    if found > length {
                        (length, distance) = (found, far);
                    }
                }
                if length >= 4 {
                    let length = length.min(LONGEST).min(low((bytes.len() - here) as u64));
                    self.pass(bytes, here, length as usize);
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
            literals: low((end - at) as u64),
            length: 0,
            distance: 0,
        }
    }

    /// Notes places within a copy.
    #[inline(always)]
    fn pass(&mut self, bytes: &[u8], here: usize, length: usize) {
        let end = (here + length).min(bytes.len().saturating_sub(TAIL));
        let mut at = here + 1;
        let first = end.min(at + NOTED);
        // Eight bytes hold five times four.
        while at + 5 <= first {
            self.note_five(bytes, at);
            at += 5;
        }
        if at + NOTED_LAST < end {
            self.note_five(bytes, end - NOTED_LAST);
        } else {
            (at..end).for_each(|at| _ = self.note(four(bytes, at), at));
        }
    }

    #[inline(always)]
    fn note_five(&mut self, bytes: &[u8], at: usize) {
        let word = eight(bytes, at);
        for more in 0..5 {
            self.note(low(word >> (8 * more)), at + more);
        }
    }
}

/// How many bytes from `here` on are as those from `there` on; more than the longest copy are possible.
#[inline(always)]
fn common(bytes: &[u8], here: usize, there: usize) -> u32 {
    let differ = eight(bytes, here) ^ eight(bytes, there);
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
