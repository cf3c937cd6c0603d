//! Codes as tables: what the next bits stand for, looked up at once.

use std::sync::LazyLock;

use super::super::deflate::symbols::{DISTANCES, END, LITERALS, distance_of, length_of};

/// Bits that are looked up at once. Longer codes go on in a second table. Of literals and lengths, when each entry stands for one
/// symbol, and when it stands for two where its bits are enough ([`joins_pay`]).
pub(super) const SINGLE_BITS: u32 = 11;
pub(super) const JOINED_BITS: u32 = 12;
/// Of distances.
pub(super) const DISTANCE_BITS: u32 = 8;

/// Most entries of the tables: those of the first, and the second tables of the worst code of 286 or 30 symbols and up to
/// 15 bits, rounded up.
const LITERAL_ENTRIES: usize = 4608;
const DISTANCE_ENTRIES: usize = 640;

/// Longest code (RFC 1951, 3.2.7).
const LONGEST: usize = 15;

/// Longest code of a code length.
pub(super) const LENGTH_BITS: u32 = 7;

/// An entry of literals and lengths stands for up to two literals, or for a length after at most one. Bits 0 to 5 are how many
/// bits it takes, with the extra bits of a length, 8 to 11 how many without them; 6 and 7 count the literals, which are
/// the bytes from bit 16 on; the highest byte is a length, less three. Of a distance, the upper half is the first one. Of a second
/// table, 8 to 11 are the bits to be looked up in it, and the upper half is where it begins.
pub(super) const LITERALS_AT: u32 = 6;
pub(super) const CODE: u32 = 8;
pub(super) const VALUE: u32 = 16;
/// There is a length or a distance.
pub(super) const MATCH: u32 = 1 << 15;
/// Neither literals nor a length or distance.
pub(super) const SPECIAL: u32 = 1 << 14;
/// With [`SPECIAL`]: a second table.
pub(super) const SECOND: u32 = 1 << 13;
/// With [`SPECIAL`]: the end of the block. Without both: no code at all.
pub(super) const LAST: u32 = 1 << 12;

/// A code that does not exist: of codes that zlib takes though they are incomplete.
const NO_CODE: u32 = SPECIAL | 1;

/// Both codes of a block.
#[derive(Clone)]
pub(super) struct Tables {
    /// Bits of the code of each byte.
    pub(super) bytes: [u8; 256],
    /// Entries of literals and lengths may stand for two symbols.
    pub(super) joined: bool,
    pub(super) literals: [u32; LITERAL_ENTRIES],
    pub(super) distances: [u32; DISTANCE_ENTRIES],
}

/// That of every fixed block (RFC 1951, 3.2.6).
pub(super) static FIXED: LazyLock<Box<Tables>> = LazyLock::new(|| {
    let mut lengths = [8; 288];
    lengths[144..256].fill(9);
    lengths[256..280].fill(7);
    let mut tables = Tables::new();
    // Both are complete.
    let made = tables.set(&lengths, &[5; 32]);
    debug_assert!(made.is_some());
    tables
});

impl Tables {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            bytes: [0; 256],
            joined: false,
            literals: [NO_CODE; LITERAL_ENTRIES],
            distances: [NO_CODE; DISTANCE_ENTRIES],
        })
    }

    /// Bits that are looked up at once, of literals and lengths.
    pub(super) fn literal_bits(&self) -> u32 {
        if self.joined { JOINED_BITS } else { SINGLE_BITS }
    }

    /// Makes the tables for codes of these lengths; nothing when they are no codes.
    pub(super) fn set(&mut self, literals: &[u8], distances: &[u8]) -> Option<()> {
        let literal = |symbol: usize| match symbol {
            0..END => (symbol as u32 * 0x0101_0000) | (1 << LITERALS_AT),
            END => SPECIAL | LAST,
            _ => length_of(symbol).map_or(SPECIAL, |(base, extra)| (base - 3) << 24 | MATCH | extra),
        };
        self.joined = joins_pay(literals);
        let bits = self.literal_bits();
        build(&mut self.literals, literals, bits, true, &literal)?;
        if self.joined {
            join(&mut self.literals);
        }
        self.bytes.copy_from_slice(&literals[..END]);
        let distance = |symbol: usize| {
            distance_of(symbol).map_or(SPECIAL, |(base, extra)| base << VALUE | MATCH | extra)
        };
        build(&mut self.distances, distances, DISTANCE_BITS, true, &distance)?;
        Some(())
    }
}

/// The table of the code in which the lengths of the others are written; nothing when it is no code.
pub(super) fn of_lengths(lengths: &[u8; 19]) -> Option<[u32; 1 << LENGTH_BITS]> {
    let mut table = [0; 1 << LENGTH_BITS];
    build(&mut table, lengths, LENGTH_BITS, false, &|symbol| {
        (symbol as u32) << VALUE
    })?;
    if lengths.iter().all(|length| *length == 0) {
        // zlib reads zeros of one bit each, and misses the end of a block only then.
        table.fill(1);
    }
    Some(table)
}

/// Fills a table for the canonical code of these lengths, `entry` making the entry of a symbol without its length. Nothing when
/// there are more codes than room for them, or fewer: except none, and, where a `single` one is allowed, one of one bit.
fn build(
    table: &mut [u32],
    lengths: &[u8],
    bits: u32,
    single: bool,
    entry: &impl Fn(usize) -> u32,
) -> Option<()> {
    let mut counts = [0; LONGEST + 1];
    for length in lengths {
        counts[usize::from(*length & 15)] += 1;
    }
    counts[0] = 0;
    let mut room = 1_u32;
    for count in &counts[1..] {
        room = (room << 1).checked_sub(*count)?;
    }
    let longest = counts.iter().rposition(|count| *count > 0).unwrap_or(0);
    if room > 0 && !(longest == 0 || single && longest == 1) {
        return None;
    }
    let first = &mut table[..1 << bits];
    if longest <= 1 {
        first.fill(NO_CODE);
    }
    let mut sorted = [0_u16; 320];
    let mut starts = [0; LONGEST + 2];
    for length in 1..=LONGEST {
        starts[length + 1] = starts[length] + counts[length] as usize;
    }
    for (symbol, length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
        let place = &mut starts[usize::from(*length & 15)];
        sorted[*place] = u16::try_from(symbol).unwrap_or(0);
        *place += 1;
    }
    let mut code = Reversed(0);
    let mut symbols = sorted.iter().map(|symbol| usize::from(*symbol));
    let mut filled = 1;
    for length in 1..=bits.min(longest.max(1) as u32) {
        // What was put so far stands for both values of the next bit.
        first.copy_within(..filled, filled);
        filled <<= 1;
        for symbol in symbols.by_ref().take(counts[length as usize] as usize) {
            first[code.0] = of_length(entry(symbol), length);
            code.next(length);
        }
    }
    while filled < first.len() {
        first.copy_within(..filled, filled);
        filled <<= 1;
    }
    second(table, bits, &counts, code, symbols, entry);
    Some(())
}

/// The tables of the codes that are longer than the first table is wide.
fn second(
    table: &mut [u32],
    bits: u32,
    counts: &[u32; LONGEST + 1],
    mut code: Reversed,
    mut symbols: impl Iterator<Item = usize>,
    entry: &impl Fn(usize) -> u32,
) {
    let mask = (1_usize << bits) - 1;
    let (mut prefix, mut start, mut end) = (usize::MAX, 0, 1_usize << bits);
    for length in bits + 1..=LONGEST as u32 {
        for left in (1..=counts[length as usize]).rev() {
            let Some(symbol) = symbols.next() else { return };
            if code.0 & mask != prefix {
                prefix = code.0 & mask;
                // As wide as the codes that begin with these bits are long: they fill it.
                let (mut wide, mut room) = (length - bits, left);
                while room < 1 << wide {
                    wide += 1;
                    room = (room << 1) + counts.get((bits + wide) as usize).copied().unwrap_or(1 << wide);
                }
                start = end;
                end = start + (1 << wide);
                table[prefix] = SPECIAL | SECOND | (start as u32) << VALUE | wide << CODE | bits;
            }
            let value = of_length(entry(symbol), length);
            let places = table[start..end].iter_mut().skip(code.0 >> bits);
            for place in places.step_by(1 << (length - bits)) {
                *place = value;
            }
            code.next(length);
        }
    }
}

/// An entry with the length of its code.
fn of_length(entry: u32, length: u32) -> u32 {
    let alone = if entry & SPECIAL == 0 { length << CODE } else { 0 };
    entry + alone + length
}

/// A canonical code, its first bit the lowest.
#[derive(Clone, Copy)]
struct Reversed(usize);

impl Reversed {
    /// The next code of this length: one more, from the top bit down. After the last comes the first.
    fn next(&mut self, length: u32) {
        let zeros = self.0 ^ ((1 << length) - 1);
        let Some(top) = zeros.checked_ilog2() else {
            self.0 = 0;
            return;
        };
        self.0 = self.0 & ((1 << top) - 1) | 1 << top;
    }
}

/// Whether so many entries have the bits of two symbols that joining these is worth it: for a third of what comes.
fn joins_pay(lengths: &[u8]) -> bool {
    let bits = JOINED_BITS as usize;
    let (mut literals, mut all) = ([0_usize; LONGEST + 1], [0_usize; LONGEST + 1]);
    for (symbol, length) in lengths.iter().enumerate() {
        let length = usize::from(*length & 15);
        literals[length] += usize::from(symbol < END);
        all[length] += usize::from(symbol != END);
    }
    let pairs = literals.iter().enumerate().skip(1).flat_map(|(one, count)| {
        let fitting = all
            .iter()
            .enumerate()
            .skip(1)
            .take_while(move |(other, _)| one + other <= bits);
        fitting.map(move |(other, others)| (count * others) << (bits - one - other))
    });
    let entries: usize = pairs.sum();
    entries * 3 > 1 << bits
}

/// Puts a second literal or a length into each entry of one literal whose bits are enough for both codes.
fn join(table: &mut [u32; LITERAL_ENTRIES]) {
    // Downwards: what follows is looked up below, where nothing is joined yet.
    for at in (0..1_usize << JOINED_BITS).rev() {
        let one = table[at];
        let other = table[at >> (one & 63)];
        let codes = (one >> CODE & 15) + (other >> CODE & 15);
        let both = (one & (MATCH | SPECIAL) == 0) & (other & SPECIAL == 0) & (codes <= JOINED_BITS);
        let joined = (one & 0x00ff_ffff) + (other & 0xff00_ffff);
        // Nothing to foresee here, so no branch.
        table[at] = std::hint::select_unpredictable(both, joined, one);
    }
}

/// The lengths of a block's codes are at most this many.
pub(super) const MOST_LENGTHS: usize = LITERALS + DISTANCES;
