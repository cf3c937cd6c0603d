//! Where bytes were before.

/// Bits of a hash.
const BITS: u32 = 15;
/// How far back a copy may reach.
pub(super) const WINDOW: usize = 32 << 10;
/// Longest copy.
const LONGEST: u32 = 258;
/// Bytes before the end at which no copy begins any more: eight can be read from every place that is looked at.
const TAIL: usize = 12;
/// Bytes in a row without a copy after which fewer places are looked at.
const PATIENCE: u32 = 5;

/// Places that are noted at once.
const FIVE: usize = 5;

/// Bytes held at once: their places fit 16 bits, so that one that was noted is one in the bytes as it is.
const HELD: usize = 1 << 16;
/// Bytes held behind the last place that is looked at, while more are to come: no copy is cut short.
const AHEAD: usize = 512;

/// Room for the bytes: a power of two, so that a place within needs no check, only a mask.
const SPACE: usize = 2 * HELD;

/// The bytes, and room to read behind them. What is behind their end is of no account.
type Space = [u8; SPACE + 16];

/// Finds copies in an input of any length, of which it holds as much as they reach back and ahead.
pub(super) struct Search {
    /// The two latest places of each hash of four bytes, the later first. One that was never noted, or too long ago, is
    /// as good a guess as any: what is there is compared.
    places: Box<[[u16; 2]; 1 << BITS]>,
    space: Box<Space>,
    /// Bytes in `space`, and where the first of them is in the input.
    held: usize,
    base: usize,
    /// Where in `space` the search waits for more bytes, or ends.
    limit: usize,
}

/// Literal bytes, then a copy, if its length is not zero.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) literals: u16,
    pub(super) length: u16,
    pub(super) distance: u16,
}

#[inline(always)]
fn eight(space: &Space, at: usize) -> u64 {
    let found = space[at & (SPACE - 1)..].first_chunk::<8>();
    found.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[inline(always)]
fn four(space: &Space, at: usize) -> u32 {
    let found = space[at & (SPACE - 1)..].first_chunk::<4>();
    found.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low half is what is meant")]
fn low(word: u64) -> u32 {
    word as u32
}

/// A place, length or distance: all fit.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "what is held has places of 16 bits"
)]
fn short(number: usize) -> u16 {
    number as u16
}

#[inline(always)]
fn hash(four: u32) -> usize {
    (four.wrapping_mul(0x9e37_79b1) >> (32 - BITS)) as usize
}

impl Search {
    pub(super) fn new() -> Self {
        Self {
            places: Box::new([[0; 2]; 1 << BITS]),
            space: Box::new([0; SPACE + 16]),
            held: 0,
            base: 0,
            limit: 0,
        }
    }

    /// Forgets all, and learns the first `start` of these bytes, at most a window.
    pub(super) fn begin(&mut self, bytes: &[u8], start: usize) {
        self.places.fill([0; 2]);
        (self.held, self.base) = (0, 0);
        self.fill(bytes);
        for at in (0..start.min(self.held.saturating_sub(TAIL))).step_by(2) {
            self.note(four(&self.space, at), at);
        }
    }

    fn fill(&mut self, bytes: &[u8]) {
        let rest = &bytes[self.base + self.held..];
        let more = rest.len().min(HELD - self.held);
        self.space[self.held..self.held + more].copy_from_slice(&rest[..more]);
        self.held += more;
        self.limit = if more == rest.len() {
            self.held
        } else {
            HELD - AHEAD
        };
    }

    /// Lets go of what no copy from `here` on reaches, and takes more in.
    #[cold]
    fn slide(&mut self, bytes: &[u8], here: usize) {
        let gone = here.saturating_sub(WINDOW);
        self.space.copy_within(gone..self.held, 0);
        self.held -= gone;
        self.base += gone;
        let gone = short(gone);
        for slot in self.places.iter_mut() {
            *slot = slot.map(|place| place.saturating_sub(gone));
        }
        self.fill(bytes);
    }

    /// Notes that these four bytes are at `at`; the places before.
    #[inline(always)]
    fn note(&mut self, four: u32, at: usize) -> [u16; 2] {
        let slot = &mut self.places[hash(four)];
        let before = *slot;
        *slot = [short(at), before[0]];
        before
    }

    /// The next copy from `place` on in `bytes`, after `most` literals at most, or as many as can be told before more
    /// bytes must be taken in.
    ///
    /// Two places are looked at together, and the longer copy is taken: whether a copy begins at an even or an odd place
    /// is not to be foreseen, and a branch that goes wrong costs as much as looking at another place.
    #[inline(always)]
    pub(super) fn run(&mut self, bytes: &[u8], place: usize, most: usize) -> Run {
        if place - self.base >= self.limit {
            self.slide(bytes, place - self.base);
        }
        let at = place - self.base;
        let until = self.limit.min(at + most);
        let stop = until.min(self.held.saturating_sub(TAIL));
        let mut here = at;
        while here < stop {
            let (word, next) = (eight(&self.space, here), eight(&self.space, here + 1));
            let one = self.note(low(word), here);
            let other = self.note(low(next), here + 1);
            let is = |word: u64, there: u16| four(&self.space, usize::from(there)) == low(word);
            if is(word, one[0]) || is(word, one[1]) || is(next, other[0]) || is(next, other[1]) {
                let first = self.longer(word, here, one);
                let second = self.longer(next, here + 1, other);
                let later = second.0 > first.0;
                let (length, there) = if later { second } else { first };
                if length >= 4 {
                    let from = here + usize::from(later);
                    let distance = from - usize::from(there);
                    self.note(low(word >> 16), here + 2);
                    self.note(low(word >> 24), here + 3);
                    let length = if length == 8 {
                        self.all(from, distance)
                    } else {
                        length
                    };
                    return Run {
                        literals: short(from - at),
                        length: short((length as usize).min(self.held - from)),
                        distance: short(distance),
                    };
                }
            }
            here += 2 + ((here - at) >> PATIENCE);
        }
        Run {
            literals: short(until - at),
            length: 0,
            distance: 0,
        }
    }

    /// How many bytes, up to eight, are the same at `here`, where `word` is, and at the better of two places.
    #[inline(always)]
    fn longer(&self, word: u64, here: usize, places: [u16; 2]) -> (u32, u16) {
        let same = |there: u16| {
            let differ = word ^ eight(&self.space, usize::from(there));
            // A place of now, of later, or too far back is none.
            let is_behind = here.wrapping_sub(usize::from(there)).wrapping_sub(1) < WINDOW;
            if is_behind {
                differ.trailing_zeros() >> 3
            } else {
                0
            }
        };
        let (near, far) = (same(places[0]), same(places[1]));
        if far > near {
            (far, places[1])
        } else {
            (near, places[0])
        }
    }

    /// The length of a copy of eight bytes or more. Of the places within it the next five are noted, and the last five: all of
    /// them would make the output a little smaller and take longer.
    #[inline(always)]
    fn all(&mut self, from: usize, distance: usize) -> u32 {
        let length = common(&self.space, from, distance).min(LONGEST);
        self.note_five(from + 4);
        if length as usize > 2 * FIVE {
            self.note_five(from + length as usize - FIVE);
        }
        length
    }

    /// Notes five places: eight bytes hold five times four.
    #[inline(always)]
    fn note_five(&mut self, at: usize) {
        let word = eight(&self.space, at);
        for more in 0..FIVE {
            self.note(low(word >> (8 * more)), at + more);
        }
    }

    /// Sixteen bytes from this place of the input on, which must be held; those behind the end are of no account.
    #[inline(always)]
    pub(super) fn sixteen(&self, place: usize) -> &[u8; 16] {
        let at = place.wrapping_sub(self.base) & (SPACE - 1);
        self.space[at..].first_chunk().unwrap_or(&[0; 16])
    }
}

/// How many bytes from `here` on are as those `back` bytes before, eight of which are known to be; more than the longest
/// copy are possible.
#[inline(always)]
fn common(space: &Space, here: usize, back: usize) -> u32 {
    let there = here.wrapping_sub(back);
    let mut same = 8;
    while same < LONGEST {
        let differ = eight(space, here + same as usize) ^ eight(space, there.wrapping_add(same as usize));
        if differ != 0 {
            return same + (differ.trailing_zeros() >> 3);
        }
        same += 8;
    }
    same
}
