//! The symbols of deflate (RFC 1951, 3.2.5).

use super::huffman::Code;

/// Literals, the end of a block, lengths.
pub(in crate::codec) const LITERALS: usize = 286;
pub(in crate::codec) const DISTANCES: usize = 30;
/// The end of a block.
pub(in crate::codec) const END: usize = 256;
/// Shortest copy.
pub(super) const LEAST: usize = 3;

/// Extra bits of each length from symbol 257 on.
const LENGTH_EXTRA: [u32; 29] = [
    0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0,
];

/// Extra bits of each distance.
const DISTANCE_EXTRA: [u32; DISTANCES] = [
    0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13,
];

/// First length of each symbol, less three.
const LENGTH_BASE: [u16; 29] = length_base();

const fn length_base() -> [u16; 29] {
    let mut base = [0; 29];
    let mut symbol = 1;
    while symbol < 28 {
        base[symbol] = base[symbol - 1] + (1 << LENGTH_EXTRA[symbol - 1]);
        symbol += 1;
    }
    // 258 has a symbol of its own, beside the longest of the symbol before.
    base[28] = 255;
    base
}

/// Symbol of each length less three, less 257.
const LENGTH_SYMBOL: [u8; 256] = length_symbols();

const fn length_symbols() -> [u8; 256] {
    let mut symbols = [0; 256];
    let mut symbol = 0;
    let mut at = 0;
    while at < 256 {
        while symbol < 28 && at >= LENGTH_BASE[symbol as usize + 1] as usize {
            symbol += 1;
        }
        symbols[at] = symbol;
        at += 1;
    }
    symbols
}

/// Symbol of a length from 3 to 258.
#[inline(always)]
pub(super) fn length_symbol(length: u32) -> usize {
    257 + usize::from(LENGTH_SYMBOL[(length as usize - LEAST) & 0xff])
}

/// Symbol of a distance from 1 to 32768.
#[inline(always)]
pub(super) fn distance_symbol(distance: u32) -> usize {
    let from_zero = distance as usize - 1;
    let at = if from_zero < 256 {
        from_zero
    } else {
        256 + (from_zero >> 7)
    };
    usize::from(DISTANCE_SYMBOL[at & 511])
}

/// Symbol of each distance less one up to 255, then of every 128th.
const DISTANCE_SYMBOL: [u8; 512] = distance_symbols();

/// Two to each power of two.
const fn distance_symbols() -> [u8; 512] {
    let mut symbols = [0; 512];
    let (mut symbol, mut first) = (0_u8, 0);
    while (symbol as usize) < DISTANCES {
        let next = first + (1 << DISTANCE_EXTRA[symbol as usize]);
        while first < next {
            if first < 256 {
                symbols[first] = symbol;
                first += 1;
            } else {
                symbols[256 + (first >> 7)] = symbol;
                first += 128;
            }
        }
        symbol += 1;
    }
    symbols
}

/// First length of a symbol from 257 on, and its extra bits; nothing for the two that stand for no length.
pub(in crate::codec) fn length_of(symbol: usize) -> Option<(u32, u32)> {
    let base = LENGTH_BASE.get(symbol - 257)?;
    Some((u32::from(*base) + 3, LENGTH_EXTRA[symbol - 257]))
}

/// First distance of a symbol, and its extra bits; nothing for the two that stand for no distance.
pub(in crate::codec) fn distance_of(symbol: usize) -> Option<(u32, u32)> {
    (symbol < DISTANCES).then(|| (distance_base(symbol) + 1, DISTANCE_EXTRA[symbol]))
}

/// Extra bits of a distance.
pub(super) fn distance_extra(symbol: usize) -> u32 {
    DISTANCE_EXTRA[symbol]
}

/// First distance of a symbol, less one.
fn distance_base(symbol: usize) -> u32 {
    if symbol < 2 {
        return u32::from(symbol == 1);
    }
    let half = 2 + u32::from(!symbol.is_multiple_of(2));
    half << distance_extra(symbol)
}

/// Extra bits of all that was counted.
pub(super) fn extra_bits(literals: &[u32; LITERALS], distances: &[u32; DISTANCES]) -> u64 {
    let lengths = literals[257..].iter().zip(LENGTH_EXTRA);
    let all = distances
        .iter()
        .enumerate()
        .map(|(symbol, count)| (count, distance_extra(symbol)));
    lengths
        .chain(all)
        .map(|(count, extra)| u64::from(*count) * u64::from(extra))
        .sum()
}

/// Code of each byte, and how many bits it has from bit 16 on.
pub(super) fn by_byte(code: &Code<LITERALS>) -> [u32; 256] {
    std::array::from_fn(|byte| {
        let (bits, count) = code.of_symbol(byte);
        u32::from(bits) | count << 16
    })
}

/// Code and extra bits of each length less three, as they are written, and how many bits these are.
pub(super) fn by_length(code: &Code<LITERALS>) -> [(u32, u8); 256] {
    std::array::from_fn(|at| {
        let symbol = usize::from(LENGTH_SYMBOL[at]);
        let (bits, count) = code.of_symbol(257 + symbol);
        let more = u32::try_from(at).unwrap_or(0) - u32::from(LENGTH_BASE[symbol]);
        (
            u32::from(bits) | more << count,
            byte(count + LENGTH_EXTRA[symbol]),
        )
    })
}

/// Code of each distance, its bits, those of it and its extra bits together, and the first distance less one.
pub(super) fn by_distance(code: &Code<DISTANCES>) -> [(u16, u8, u8, u16); 32] {
    let mut all = [(0, 0, 0, 0); 32];
    for (symbol, place) in all.iter_mut().take(DISTANCES).enumerate() {
        let (bits, count) = code.of_symbol(symbol);
        *place = (
            bits,
            byte(count),
            byte(count + distance_extra(symbol)),
            u16::try_from(distance_base(symbol)).unwrap_or(u16::MAX),
        );
    }
    all
}

fn byte(bits: u32) -> u8 {
    u8::try_from(bits).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_those_of_the_specification() {
        for (length, symbol) in [
            (3, 257),
            (10, 264),
            (11, 265),
            (12, 265),
            (13, 266),
            (18, 268),
            (19, 269),
            (130, 280),
            (131, 281),
            (257, 284),
            (258, 285),
        ] {
            assert_eq!(length_symbol(length), symbol, "length {length}");
        }
        for (distance, symbol) in [
            (1, 0),
            (2, 1),
            (3, 2),
            (4, 3),
            (5, 4),
            (6, 4),
            (7, 5),
            (9, 6),
            (24576, 28),
            (16385, 28),
            (24577, 29),
            (32768, 29),
        ] {
            assert_eq!(distance_symbol(distance), symbol, "distance {distance}");
        }
        for distance in 1..=32768 {
            let symbol = distance_symbol(distance);
            let base = distance_base(symbol);
            assert!(
                base < distance && distance - 1 - base < 1 << distance_extra(symbol),
                "distance {distance}"
            );
        }
    }
}
