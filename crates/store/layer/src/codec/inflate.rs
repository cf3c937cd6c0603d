//! Inflates deflate streams (RFC 1951): the one thread that inflates is what a pull waits for.

#![allow(
    clippy::cast_possible_truncation,
    reason = "what is cast was cut to fewer bits before"
)]

mod fast;
mod tables;
#[cfg(test)]
mod tests;

use self::fast::Stopped;
use self::tables::{
    CODE, DISTANCE_BITS, FIXED, LAST, LENGTH_BITS, LITERALS_AT, MATCH, MOST_LENGTHS, SECOND, SPECIAL, Tables,
    VALUE,
};
use super::deflate::ORDER;

/// How far back a copy may reach.
pub(super) const WINDOW: usize = 32 << 10;

/// Bytes of output with the window before: a power of two, for the sake of masks.
pub(super) const END: usize = 256 << 10;

/// A room with more than so many bytes is full: no symbol begins there.
pub(super) const FULL: usize = END - fast::TURN;

/// What is inflated into, with some bytes behind that a copy may write to.
pub(crate) type Room = [u8; END + 64];

/// A new one, made in its place: it is too large for the stack of some threads.
pub(crate) fn new_room() -> Box<Room> {
    let room: Result<Box<Room>, _> = vec![0; END + 64].into_boxed_slice().try_into();
    room.unwrap_or_else(|_| Box::new([0; END + 64]))
}

/// The stream is not deflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damaged;

/// Where the output stands in a [`Room`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Out {
    /// The first byte that a copy may reach.
    pub(super) base: usize,
    /// The end of what was made.
    pub(super) at: usize,
}

/// Why inflating stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The input is at its end, and the stream is not.
    Starved,
    /// The room is full.
    Full,
    Damaged,
}

impl From<Damaged> for Stop {
    fn from(_: Damaged) -> Self {
        Self::Damaged
    }
}

/// Where in the stream it is. What is taken from the input at once is one element of these: when that is not there as a
/// whole, its first bits are kept, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    StoredLength,
    Stored(usize),
    /// Numbers of codes.
    Counts,
    /// Lengths of the code of lengths.
    LengthsOfLengths(usize),
    Lengths(usize),
    Symbol,
    /// The distance of a copy of this length.
    Distance(usize),
    End,
}

/// Bits that were taken from the input and not used.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    held: u64,
    count: u32,
}

impl Kept {
    fn look(&self, bits: u32) -> usize {
        (self.held & ((1 << bits) - 1)) as usize
    }

    /// Takes more than is asked for, where the input does not end soon.
    fn ahead(&mut self, input: &mut &[u8]) {
        if let Some((word, rest)) = input.split_first_chunk::<4>()
            && rest.len() >= 4
            && self.count < 32
        {
            self.held |= u64::from(u32::from_le_bytes(*word)) << self.count;
            self.count += 32;
            *input = rest;
        }
    }

    /// Gives back the whole bytes that came from `whole`, of which `input` is left.
    fn give_back<'a>(&mut self, whole: &'a [u8], input: &mut &'a [u8]) {
        let taken = whole.len() - input.len();
        let back = taken.min((self.count >> 3) as usize);
        *input = &whole[taken - back..];
        self.count -= 8 * back as u32;
        self.held &= (1 << self.count) - 1;
    }

    /// Takes bytes until there are so many bits.
    fn need(&mut self, bits: u32, input: &mut &[u8]) -> Result<(), Stop> {
        while self.count < bits {
            let (byte, rest) = input.split_first().ok_or(Stop::Starved)?;
            self.held |= u64::from(*byte) << self.count;
            self.count += 8;
            *input = rest;
        }
        Ok(())
    }

    /// Takes so many bits, which are there.
    fn pop(&mut self, bits: u32) -> usize {
        let value = self.look(bits);
        self.held >>= bits;
        self.count -= bits;
        value
    }

    /// The extra bits of an entry, which are taken with it.
    fn extra(&mut self, entry: u32) -> usize {
        let code = (entry >> CODE & 15).min(entry & 63);
        self.pop(code);
        self.pop((entry & 63) - code)
    }

    /// The entry of the next code, which is there with its extra bits. Of entries that stand for more, `first` makes the first alone.
    fn entry(
        &mut self,
        table: &[u32],
        bits: u32,
        first: impl Fn(u32) -> u32,
        input: &mut &[u8],
    ) -> Result<u32, Stop> {
        loop {
            let mut entry = table[self.look(bits)];
            if entry & (SPECIAL | SECOND) == SPECIAL | SECOND {
                let wide = entry >> CODE & 15;
                let inside = (self.held >> bits & ((1 << wide) - 1)) as usize;
                entry = table[(entry >> VALUE) as usize + inside];
            }
            entry = first(entry);
            if entry & 63 <= self.count {
                return Ok(entry);
            }
            self.need(self.count + 1, input)?;
        }
    }
}

/// An inflater.
pub(super) struct Inflate {
    state: State,
    last: bool,
    bits: Kept,
    fixed: bool,
    tables: Box<Tables>,
    /// The code of lengths.
    by_length: [u32; 1 << LENGTH_BITS],
    of_lengths: [u8; 19],
    lengths: [u8; MOST_LENGTHS],
    literals: usize,
    distances: usize,
    /// How many of the lengths of the code of lengths are written.
    written: usize,
}

impl Inflate {
    pub(super) fn new() -> Self {
        Self {
            state: State::Header,
            last: false,
            bits: Kept::default(),
            fixed: false,
            tables: Tables::new(),
            by_length: [0; 1 << LENGTH_BITS],
            of_lengths: [0; 19],
            lengths: [0; MOST_LENGTHS],
            literals: 0,
            distances: 0,
            written: 0,
        }
    }

    /// Begins a new stream.
    pub(super) fn reset(&mut self) {
        (self.state, self.last, self.bits) = (State::Header, false, Kept::default());
    }

    /// Inflates until the end of the stream, then `input` is what is behind it; before that, until the input is at its end or
    /// the room is full. `room` has what was made before, as far as a copy may reach.
    pub(super) fn inflate(&mut self, input: &mut &[u8], room: &mut Room, out: &mut Out) -> Result<(), Stop> {
        loop {
            match self.state {
                State::Header => self.header(input)?,
                State::StoredLength => self.stored_length(input)?,
                State::Stored(left) => self.stored(left, input, room, out)?,
                State::Counts => self.counts(input)?,
                State::LengthsOfLengths(have) => self.length_of_lengths(have, input)?,
                State::Lengths(have) => self.length(have, input)?,
                State::Symbol => self.symbols(input, room, out)?,
                State::Distance(length) => self.copy(length, input, room, out)?,
                State::End => return Ok(()),
            }
        }
    }

    fn header(&mut self, input: &mut &[u8]) -> Result<(), Stop> {
        if self.last {
            // Less than a byte is left.
            (self.bits, self.last) = (Kept::default(), false);
            self.state = State::End;
            return Ok(());
        }
        self.bits.need(3, input)?;
        self.last = self.bits.pop(1) == 1;
        self.state = match self.bits.pop(2) {
            0 => State::StoredLength,
            1 => State::Symbol,
            2 => State::Counts,
            _ => return Err(Stop::Damaged),
        };
        self.fixed = true;
        Ok(())
    }

    fn stored_length(&mut self, input: &mut &[u8]) -> Result<(), Stop> {
        // What is left of the byte is no part of the length; asked again, there are whole bytes.
        let odd = self.bits.count & 7;
        self.bits.pop(odd);
        self.bits.need(32, input)?;
        let (length, check) = (self.bits.pop(16), self.bits.pop(16));
        if length != check ^ 0xffff {
            return Err(Stop::Damaged);
        }
        self.state = State::Stored(length);
        Ok(())
    }

    fn stored(&mut self, left: usize, input: &mut &[u8], room: &mut Room, out: &mut Out) -> Result<(), Stop> {
        let count = left.min(input.len()).min(END - out.at);
        let (now, later) = input.split_at(count);
        room[out.at..out.at + count].copy_from_slice(now);
        *input = later;
        out.at += count;
        if count == left {
            self.state = State::Header;
            return Ok(());
        }
        self.state = State::Stored(left - count);
        Err(if out.at == END { Stop::Full } else { Stop::Starved })
    }

    fn counts(&mut self, input: &mut &[u8]) -> Result<(), Stop> {
        self.bits.need(14, input)?;
        self.literals = 257 + self.bits.pop(5);
        self.distances = 1 + self.bits.pop(5);
        self.written = 4 + self.bits.pop(4);
        if self.literals + self.distances > MOST_LENGTHS || self.literals > 286 || self.distances > 30 {
            return Err(Stop::Damaged);
        }
        self.of_lengths = [0; 19];
        self.state = State::LengthsOfLengths(0);
        Ok(())
    }

    fn length_of_lengths(&mut self, have: usize, input: &mut &[u8]) -> Result<(), Stop> {
        for (at, symbol) in ORDER.iter().enumerate().take(self.written).skip(have) {
            self.state = State::LengthsOfLengths(at);
            self.bits.need(3, input)?;
            self.of_lengths[*symbol] = self.bits.pop(3) as u8;
        }
        self.by_length = tables::of_lengths(&self.of_lengths).ok_or(Damaged)?;
        self.state = State::Lengths(0);
        Ok(())
    }

    fn length(&mut self, mut have: usize, input: &mut &[u8]) -> Result<(), Stop> {
        let (whole, all) = (*input, self.literals + self.distances);
        while have < all {
            self.state = State::Lengths(have);
            self.bits.ahead(input);
            let (symbol, taken) = self.length_symbol(input)?;
            if symbol < 16 {
                self.bits.pop(taken);
                self.lengths[have] = symbol as u8;
                have += 1;
                continue;
            }
            let (least, extra) = [(3, 2), (3, 3), (11, 7)][symbol as usize % 16 % 3];
            self.bits.need(taken + extra, input)?;
            self.bits.pop(taken);
            let count = least + self.bits.pop(extra);
            let value = match symbol {
                16 => *self.lengths[..have].last().ok_or(Damaged)?,
                _ => 0,
            };
            let places = self.lengths[..all].get_mut(have..have + count).ok_or(Damaged)?;
            places.fill(value);
            have += count;
        }
        self.bits.give_back(whole, input);
        let (literals, distances) = self.lengths[..all].split_at(self.literals);
        if literals[256] == 0 {
            return Err(Stop::Damaged);
        }
        self.tables.set(literals, distances).ok_or(Damaged)?;
        (self.fixed, self.state) = (false, State::Symbol);
        Ok(())
    }

    /// The next symbol of the code of lengths, and its bits, which are left.
    fn length_symbol(&mut self, input: &mut &[u8]) -> Result<(u32, u32), Stop> {
        loop {
            let entry = self.by_length[self.bits.look(LENGTH_BITS)];
            let taken = entry & 63;
            if taken <= self.bits.count {
                return Ok((entry >> VALUE, taken));
            }
            self.bits.need(self.bits.count + 1, input)?;
        }
    }

    fn symbols(&mut self, input: &mut &[u8], room: &mut Room, out: &mut Out) -> Result<(), Stop> {
        let tables = if self.fixed { &FIXED } else { &self.tables };
        if self.bits.count < 8 {
            match fast::run(tables, &mut self.bits, input, room, out)? {
                Stopped::Edge => (),
                Stopped::Block => {
                    self.state = State::Header;
                    return Ok(());
                }
            }
        }
        if out.at > FULL {
            return Err(Stop::Full);
        }
        // One at a time, until it is fast again.
        let first = |entry: u32| match entry >> LITERALS_AT & 3 {
            0 => entry,
            _ => {
                entry & 0xff << VALUE
                    | 1 << LITERALS_AT
                    | u32::from(tables.bytes[(entry >> VALUE & 0xff) as usize])
            }
        };
        let entry = self
            .bits
            .entry(&tables.literals, tables.literal_bits(), first, input)?;
        let extra = self.bits.extra(entry);
        if entry & MATCH != 0 {
            self.state = State::Distance((entry >> 24) as usize + 3 + extra);
        } else if entry & SPECIAL == 0 {
            room[out.at] = (entry >> VALUE & 0xff) as u8;
            out.at += 1;
        } else if entry & LAST != 0 {
            self.state = State::Header;
        } else {
            return Err(Stop::Damaged);
        }
        Ok(())
    }

    fn copy(&mut self, length: usize, input: &mut &[u8], room: &mut Room, out: &mut Out) -> Result<(), Stop> {
        let tables = if self.fixed { &FIXED } else { &self.tables };
        let entry = self
            .bits
            .entry(&tables.distances, DISTANCE_BITS, |entry| entry, input)?;
        if entry & SPECIAL != 0 {
            return Err(Stop::Damaged);
        }
        let distance = (entry >> VALUE) as usize + self.bits.extra(entry);
        if distance > out.at - out.base {
            return Err(Stop::Damaged);
        }
        // The room has a place for the longest: it was not full at the symbol.
        for at in out.at..out.at + length {
            room[at] = room[at - distance];
        }
        out.at += length;
        self.state = State::Symbol;
        Ok(())
    }
}
