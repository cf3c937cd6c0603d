//! The loop that nearly all bytes go through: where neither the input nor the room for output ends soon, nothing is checked
//! twice, and a place in the output is masked instead of checked.

use super::tables::{
    CODE, DISTANCE_BITS, JOINED_BITS, LAST, LITERALS_AT, MATCH, SECOND, SINGLE_BITS, SPECIAL, Tables, VALUE,
};
use super::{Damaged, END, FULL, Kept, Out, Room};

/// Input that one turn may look at: twice eight bytes, of which it takes at most seven each time.
const AHEAD: usize = 16;

/// Output of one turn: three literals or pairs of them, the longest copy, and what is written behind it. So nothing begins behind
/// the end of the room, which would be masked to its beginning.
pub(super) const TURN: usize = 6 + 258 + BEHIND;

/// A copy writes less than so many bytes behind itself, and begins no part of them so far behind.
const BEHIND: usize = 32;

/// How it ended.
pub(super) enum Stopped {
    /// The block.
    Block,
    /// The input or the room will end soon.
    Edge,
}

/// Literals and copies of a block.
pub(super) fn run(
    tables: &Tables,
    kept: &mut Kept,
    input: &mut &[u8],
    room: &mut Room,
    out: &mut Out,
) -> Result<Stopped, Damaged> {
    // Half of what is done here is to shift by counts that vary.
    dhow_sys::cpu::with_bit_instructions(Turns {
        tables,
        kept,
        input,
        room,
        out,
    })
}

struct Turns<'a, 'b> {
    tables: &'a Tables,
    kept: &'a mut Kept,
    input: &'a mut &'b [u8],
    room: &'a mut Room,
    out: &'a mut Out,
}

impl dhow_sys::cpu::Work for Turns<'_, '_> {
    type Done = Result<Stopped, Damaged>;

    #[inline(always)]
    fn work(self) -> Self::Done {
        if self.tables.joined {
            turns::<JOINED_BITS, true>(self.tables, self.kept, self.input, self.room, self.out)
        } else {
            turns::<SINGLE_BITS, false>(self.tables, self.kept, self.input, self.room, self.out)
        }
    }
}

#[inline(always)]
fn turns<const BITS: u32, const JOINED: bool>(
    tables: &Tables,
    kept: &mut Kept,
    input: &mut &[u8],
    room: &mut Room,
    out: &mut Out,
) -> Result<Stopped, Damaged> {
    let (whole, mut rest, mut bits, mut at) = (*input, *input, Bits::from(*kept), out.at);
    if rest.len() < AHEAD {
        return Ok(Stopped::Edge);
    }
    bits.refill(&mut rest);
    // Always looked up before bits are added: it need not wait for them.
    let mut entry = tables.literals[bits.look::<BITS>()];
    let stopped = loop {
        if rest.len() < AHEAD || at > FULL {
            break Ok(Stopped::Edge);
        }
        bits.refill(&mut rest);
        if literals::<JOINED>(room, &mut at, entry) {
            bits.take(entry);
            entry = tables.literals[bits.look::<BITS>()];
            if literals::<JOINED>(room, &mut at, entry) {
                bits.take(entry);
                entry = tables.literals[bits.look::<BITS>()];
                if literals::<JOINED>(room, &mut at, entry) {
                    bits.take(entry);
                    entry = tables.literals[bits.look::<BITS>()];
                    continue;
                }
            }
        }
        if entry & SPECIAL != 0 {
            if entry & SECOND != 0 {
                entry = tables.literals[second(entry, &bits, BITS)];
                if literals::<JOINED>(room, &mut at, entry) {
                    bits.take(entry);
                    entry = tables.literals[bits.look::<BITS>()];
                    continue;
                }
            }
            if entry & MATCH == 0 {
                bits.take(entry);
                break (entry & LAST != 0).then_some(Stopped::Block).ok_or(Damaged);
            }
        }
        let length = (entry >> 24) as usize + 3 + bits.extra(entry);
        // At least ten bits are left: enough for the first table.
        entry = tables.distances[bits.look::<DISTANCE_BITS>()];
        bits.refill(&mut rest);
        if entry & SPECIAL != 0 {
            if entry & SECOND != 0 {
                entry = tables.distances[second(entry, &bits, DISTANCE_BITS)];
            }
            if entry & SPECIAL != 0 {
                break Err(Damaged);
            }
        }
        let distance = (entry >> VALUE) as usize + bits.extra(entry);
        if distance > at - out.base {
            break Err(Damaged);
        }
        entry = tables.literals[bits.look::<BITS>()];
        copy(room, at, distance, length);
        at += length;
    };
    let back = bits.count >> 3 & 7;
    *input = &whole[whole.len() - rest.len() - back as usize..];
    *kept = bits.less_than_a_byte();
    out.at = at;
    stopped
}

#[inline(always)]
fn second(entry: u32, bits: &Bits, first: u32) -> usize {
    let wide = entry >> CODE & 15;
    (entry >> VALUE) as usize + (bits.held >> LOW >> first & ((1 << wide) - 1)) as usize
}

/// Bits below those that are held, of no meaning: so a table is indexed by what is cut out as it stands, without a shift by the
/// size of an entry, which costs a cycle of each code.
const LOW: u32 = 2;

/// Bits that were taken from the input and not used.
#[derive(Clone, Copy)]
struct Bits {
    held: u64,
    /// Its lowest six bits are how many. There are more in `held`, which come next in the input.
    count: u32,
}

impl From<Kept> for Bits {
    fn from(kept: Kept) -> Self {
        Self {
            held: kept.held << LOW,
            count: kept.count,
        }
    }
}

impl Bits {
    /// At least 54, from at least eight bytes of input.
    #[inline(always)]
    fn refill(&mut self, input: &mut &[u8]) {
        if let Some(word) = input.first_chunk::<8>() {
            let count = self.count & 63;
            self.held |= u64::from_le_bytes(*word) << LOW << count;
            let bytes = (61_u32.wrapping_sub(count)) >> 3 & 7;
            *input = &input[bytes as usize..];
            self.count = count + 8 * bytes;
        }
    }

    /// The index that the next bits are.
    #[inline(always)]
    fn look<const BITS: u32>(&self) -> usize {
        ((self.held & (((1 << BITS) - 1) << LOW)) >> LOW) as usize
    }

    /// Drops what an entry takes.
    #[inline(always)]
    fn take(&mut self, entry: u32) {
        self.held = self.held.wrapping_shr(entry);
        self.count = self.count.wrapping_sub(entry);
    }

    /// The extra bits of an entry, which are dropped with it.
    #[inline(always)]
    fn extra(&mut self, entry: u32) -> usize {
        let all = (self.held >> LOW) & (1_u64.wrapping_shl(entry) - 1);
        self.take(entry);
        (all >> (entry >> CODE & 15)) as usize
    }

    /// What is kept when whole bytes are given back.
    fn less_than_a_byte(self) -> Kept {
        let count = self.count & 7;
        Kept {
            held: self.held >> LOW & ((1 << count) - 1),
            count,
        }
    }
}

/// Puts the literals of an entry; whether it is no more than that. Where there may be more than one, bytes behind them are put
/// as well, and written again by what follows.
#[inline(always)]
fn literals<const JOINED: bool>(room: &mut Room, at: &mut usize, entry: u32) -> bool {
    let alone = entry & (MATCH | SPECIAL) == 0;
    if JOINED {
        put(room, *at, (entry >> VALUE).to_le_bytes());
        *at += (entry >> LITERALS_AT & 3) as usize;
    } else if alone {
        put(room, *at, [(entry >> VALUE & 0xff) as u8]);
        *at += 1;
    }
    alone
}

#[inline(always)]
fn part<const N: usize>(room: &Room, at: usize) -> [u8; N] {
    let at = at & (END - 1);
    let mut part = [0; N];
    part.copy_from_slice(&room[at..at + N]);
    part
}

#[inline(always)]
fn put<const N: usize>(room: &mut Room, at: usize, part: [u8; N]) {
    let at = at & (END - 1);
    room[at..at + N].copy_from_slice(&part);
}

/// Copies from `distance` before. More is written than asked for, fewer than [`BEHIND`] bytes, all of it behind the copy.
#[inline(always)]
fn copy(room: &mut Room, at: usize, distance: usize, length: usize) {
    let from = at - distance;
    if distance >= 16 {
        put(room, at, part::<16>(room, from));
        put(room, at + 16, part::<16>(room, from + 16));
        let mut done = 32;
        while done < length {
            put(room, at + done, part::<16>(room, from + done));
            put(room, at + done + 16, part::<16>(room, from + done + 16));
            done += 32;
        }
    } else {
        near(room, at, distance, length);
    }
}

/// A copy of what is less than 16 bytes before: the same few bytes over and over.
#[inline(always)]
fn near(room: &mut Room, at: usize, distance: usize, length: usize) {
    let from = at - distance;
    if distance == 1 {
        let bytes = [room[from & (END - 1)]; 16];
        let mut done = 0;
        while done < length {
            put(room, at + done, bytes);
            put(room, at + done + 16, bytes);
            done += 32;
        }
    } else if distance >= 8 {
        let mut done = 0;
        while done < length {
            put(room, at + done, part::<8>(room, from + done));
            put(room, at + done + 8, part::<8>(room, from + done + 8));
            done += 16;
        }
    } else {
        // The first bytes, again and again in eight; so many of these are put that they go on where they ended.
        let (times, step) = AGAIN[distance & 7];
        let bytes = u64::from_le_bytes(part(room, from)) & ((1 << (8 * distance)) - 1);
        let bytes = bytes.wrapping_mul(times).to_le_bytes();
        let mut done = 0;
        while done < length {
            put(room, at + done, bytes);
            done += step;
        }
    }
}

/// For each distance below eight, what repeats that many bytes in eight, and the most whole ones in eight.
const AGAIN: [(u64, usize); 8] = again();

const fn again() -> [(u64, usize); 8] {
    let mut all = [(0, 8); 8];
    let mut distance = 1;
    while distance < 8 {
        let mut at = 0;
        while at < 8 {
            all[distance].0 |= 1 << (8 * at);
            at += distance;
        }
        all[distance].1 = 8 / distance * distance;
        distance += 1;
    }
    all
}
