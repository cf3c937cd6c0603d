use std::io::{self, Read as _, Write as _};

use flate2::{Compression, Decompress, FlushDecompress, Status};
use proptest::prelude::*;

use super::super::tests::mixture;
use super::*;

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// After so many bytes.
    Ended(usize),
    Truncated,
    Damaged,
}

use Verdict::{Damaged as Broken, Ended, Truncated};

/// Ours, given as many bytes at once as `sizes` say in turn.
fn ours(stream: &[u8], sizes: &[usize]) -> (Vec<u8>, Verdict) {
    let (mut inflate, mut room) = (Inflate::new(), new_room());
    let (mut out, mut made) = (Out { base: 0, at: 0 }, Vec::new());
    let mut sizes = sizes.iter().cycle();
    let (mut used, mut end, mut from) = (0, 0, 0);
    let verdict = loop {
        let mut input = &stream[used..end];
        let stopped = inflate.inflate(&mut input, &mut room, &mut out);
        used = end - input.len();
        made.extend_from_slice(&room[from..out.at]);
        from = out.at;
        match stopped {
            Ok(()) => break Ended(used),
            Err(Stop::Damaged) => break Broken,
            Err(Stop::Full) => {
                let window = (out.at - out.base).min(WINDOW);
                room.copy_within(out.at - window..out.at, 0);
                out = Out { base: 0, at: window };
                from = window;
            }
            Err(Stop::Starved) => {
                assert_eq!(used, end, "starved of what is there");
                if end == stream.len() {
                    break Truncated;
                }
                end = stream.len().min(end + sizes.next().copied().unwrap_or(1).max(1));
            }
        }
    };
    (made, verdict)
}

/// That of zlib. Of a damaged stream, what was made by the call that fails is missing.
fn theirs(stream: &[u8]) -> (Vec<u8>, Verdict) {
    let mut inflate = Decompress::new(false);
    let (mut made, mut buffer) = (Vec::new(), vec![0; 1 << 10]);
    loop {
        let (used, before) = (inflate.total_in() as usize, inflate.total_out());
        let status = inflate.decompress(&stream[used..], &mut buffer, FlushDecompress::None);
        let count = (inflate.total_out() - before) as usize;
        match status {
            Err(_) => return (made, Broken),
            Ok(status) => {
                made.extend_from_slice(&buffer[..count]);
                if status == Status::StreamEnd {
                    return (made, Ended(inflate.total_in() as usize));
                }
                if count == 0 && inflate.total_in() as usize == used {
                    return (made, Truncated);
                }
            }
        }
    }
}

/// Both say the same, however the input comes.
fn compare(stream: &[u8], sizes: &[usize]) -> Verdict {
    let (expected, verdict) = theirs(stream);
    for sizes in [sizes, &[usize::MAX >> 1]] {
        let (made, own) = ours(stream, sizes);
        assert_eq!(own, verdict, "of {} bytes", stream.len());
        if verdict == Broken {
            assert!(made.starts_with(&expected));
            assert!(made.len() <= expected.len() + (1 << 10), "more than zlib makes");
        } else {
            assert!(made == expected);
        }
    }
    verdict
}

fn deflated(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_zlib_deflates_is_inflated(
        bytes in mixture(),
        level in 0..10_u32,
        sizes in prop::collection::vec(prop_oneof![1..20_usize, 1..100_000_usize], 1..8),
        behind in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut stream = deflated(&bytes, level);
        let length = stream.len();
        stream.extend_from_slice(&behind);
        prop_assert_eq!(compare(&stream, &sizes), Ended(length));
        prop_assert!(ours(&stream, &sizes).0 == bytes);
    }

    #[test]
    fn a_changed_stream_is_judged_as_zlib_does(
        bytes in mixture(),
        level in 0..10_u32,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
        sizes in prop::collection::vec(1..3000_usize, 1..8),
    ) {
        let mut stream = deflated(&bytes[..bytes.len().min(30_000)], level);
        for (at, change) in changes {
            let at = at.index(stream.len());
            stream[at] ^= change;
        }
        if let Some(cut) = cut {
            stream.truncate(cut.index(stream.len() + 1));
        }
        compare(&stream, &sizes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_is_judged_as_zlib_does(
        first in prop_oneof![Just(4_u8), Just(5), Just(2), Just(0), any::<u8>()],
        noise in prop::collection::vec(any::<u8>(), 0..300),
        sizes in prop::collection::vec(1..40_usize, 1..4),
    ) {
        let mut stream = noise;
        if let Some(byte) = stream.first_mut() {
            *byte = *byte & !7 | first & 7;
        }
        compare(&stream, &sizes);
    }

    #[test]
    fn codes_of_any_lengths_are_judged_as_zlib_does(
        splits in prop::collection::vec(any::<prop::sample::Index>(), 0..290),
        far in prop::collection::vec(any::<prop::sample::Index>(), 0..32),
        changed in prop::option::of((any::<prop::sample::Index>(), 0..16_usize)),
        noise in prop::collection::vec(any::<u8>(), 0..200),
        sizes in prop::collection::vec(1..40_usize, 1..4),
    ) {
        let mut literals = lengths(&splits, 286);
        literals.rotate_left(splits.len() % 286);
        if literals[256] == 0 {
            literals[256] = 15;
            let zero = literals.iter().position(|length| *length > 0).unwrap();
            literals.swap(zero, 256);
        }
        if let Some((at, length)) = changed {
            let at = at.index(literals.len());
            literals[at] = length;
        }
        let mut bits = BitWriter::default();
        bits.dynamic(&literals, &lengths(&far, 30));
        let mut stream = bits.finish();
        stream.extend_from_slice(&noise);
        compare(&stream, &sizes);
    }
}

/// Lengths of a complete code, made by splitting one code again and again, of `count` symbols.
fn lengths(splits: &[prop::sample::Index], count: usize) -> Vec<usize> {
    let mut lengths = vec![1, 1];
    for split in splits {
        let at = split.index(lengths.len());
        if lengths[at] < 15 && lengths.len() < count {
            lengths[at] += 1;
            lengths.push(lengths[at]);
        }
    }
    lengths.resize(count, 0);
    lengths
}

#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    held: u64,
    count: u32,
}

impl BitWriter {
    fn put(&mut self, value: usize, bits: u32) -> &mut Self {
        self.held |= (value as u64) << self.count;
        self.count += bits;
        while self.count >= 8 {
            self.bytes.push((self.held & 0xff) as u8);
            self.held >>= 8;
            self.count -= 8;
        }
        self
    }

    /// The head of a last dynamic block whose codes have these lengths: each is written by itself in four bits, which are a code of
    /// sixteen lengths.
    fn dynamic(&mut self, literals: &[usize], distances: &[usize]) -> &mut Self {
        self.put(1, 1).put(2, 2);
        self.put(literals.len() - 257, 5)
            .put(distances.len() - 1, 5)
            .put(15, 4);
        for symbol in ORDER {
            self.put(if symbol < 16 { 4 } else { 0 }, 3);
        }
        for length in literals.iter().chain(distances) {
            self.put(usize::from((*length as u8).reverse_bits() >> 4), 4);
        }
        self
    }

    /// What was written, with zeros to the end of the byte.
    fn finish(&mut self) -> Vec<u8> {
        let count = self.count;
        self.put(0, (8 - count % 8) % 8);
        std::mem::take(&mut self.bytes)
    }
}

/// `count` lengths that are zero, except these.
fn only(count: usize, some: &[(usize, usize)]) -> Vec<usize> {
    let mut lengths = vec![0; count];
    for (symbol, length) in some {
        lengths[*symbol] = *length;
    }
    lengths
}

/// A block of these codes and bits.
fn block(literals: &[usize], distances: &[usize], bits: &[(usize, u32)]) -> Vec<u8> {
    let mut writer = BitWriter::default();
    writer.dynamic(literals, distances);
    for (value, count) in bits {
        writer.put(*value, *count);
    }
    writer.finish()
}

/// What streams there are, and how they end unless with their last byte.
fn edges() -> Vec<(&'static str, Vec<u8>, Option<Verdict>)> {
    // 'a', the end, a copy of three bytes: codes 0, 01, 11 as they are read.
    let few = only(258, &[(97, 1), (256, 2), (257, 2)]);
    let (a, end, copy) = ((0, 1), (1, 2), (3, 2));
    let one = only(1, &[(0, 1)]);
    vec![
        (
            "one distance code of one bit",
            block(&few, &one, &[a, copy, (0, 1), end]),
            None,
        ),
        (
            "its other value",
            block(&few, &one, &[a, copy, (1, 1), end]),
            Some(Broken),
        ),
        ("no distance code, no copy", block(&few, &[0], &[a, end]), None),
        (
            "no distance code, a copy",
            block(&few, &[0], &[a, copy, (0, 8)]),
            Some(Broken),
        ),
        (
            "one distance code of two bits",
            block(&few, &[2], &[a, end]),
            Some(Broken),
        ),
        (
            "three of two bits",
            block(&few, &[2, 2, 2], &[a, end]),
            Some(Broken),
        ),
    ]
}

/// The same of codes of literals and of numbers of codes.
fn more_edges() -> Vec<(&'static str, Vec<u8>, Option<Verdict>)> {
    let few = only(258, &[(97, 1), (256, 2), (257, 2)]);
    let (a, end, copy) = ((0, 1), (1, 2), (3, 2));
    let one = only(1, &[(0, 1)]);
    vec![
        (
            "the end alone, of one bit",
            block(&only(257, &[(256, 1)]), &[0], &[(0, 1)]),
            None,
        ),
        (
            "its other value",
            block(&only(257, &[(256, 1)]), &[0], &[(1, 1)]),
            Some(Broken),
        ),
        (
            "the end alone, of two bits",
            block(&only(257, &[(256, 2)]), &[0], &[(0, 2)]),
            Some(Broken),
        ),
        (
            "no end",
            block(&only(257, &[(0, 1), (1, 1)]), &[0], &[]),
            Some(Broken),
        ),
        (
            "too many codes",
            block(&only(257, &[(0, 1), (1, 1), (256, 1)]), &[0], &[]),
            Some(Broken),
        ),
        (
            "286 lengths",
            block(&only(286, &[(285, 1), (256, 1)]), &[0], &[(0, 1)]),
            None,
        ),
        (
            "287 lengths",
            block(&only(287, &[(285, 1), (256, 1)]), &[0], &[(0, 1)]),
            Some(Broken),
        ),
        ("30 distances", block(&few, &only(30, &[(0, 1)]), &[a, end]), None),
        (
            "31 distances",
            block(&few, &only(31, &[(0, 1)]), &[a, end]),
            Some(Broken),
        ),
        (
            "nothing to copy",
            block(&few, &one, &[copy, (0, 1), end]),
            Some(Broken),
        ),
        (
            "too far back",
            block(&few, &[1, 1], &[a, copy, (1, 1), end]),
            Some(Broken),
        ),
    ]
}

#[test]
fn what_is_just_allowed_and_what_is_not_is_that_of_zlib() {
    for (what, stream, expected) in edges().into_iter().chain(more_edges()) {
        let verdict = compare(&stream, &[1]);
        assert_eq!(verdict, expected.unwrap_or(Ended(stream.len())), "{what}");
        for cut in 0..stream.len() {
            compare(&stream[..cut], &[1]);
        }
    }
}

/// A dynamic block whose code of lengths has these lengths, and bits behind.
fn lengths_block(of_lengths: &[(usize, usize)], bits: &[(usize, u32)]) -> Vec<u8> {
    let mut writer = BitWriter::default();
    writer.put(1, 1).put(2, 2).put(0, 5).put(0, 5).put(15, 4);
    let lengths = only(19, of_lengths);
    for symbol in ORDER {
        writer.put(lengths[symbol], 3);
    }
    for (value, count) in bits {
        writer.put(*value, *count);
    }
    writer.put(0, 64 - 7);
    writer.finish()
}

#[test]
fn lengths_of_codes_are_judged_as_zlib_does() {
    // Of one bit: 1 is 0, 16 or 18 is 1.
    let (repeat, zeros) = ([(1, 1), (16, 1)], [(1, 1), (18, 1)]);
    for (what, stream) in [
        (
            "a repetition of nothing",
            lengths_block(&repeat, &[(1, 1), (0, 2)]),
        ),
        (
            "too many repetitions",
            lengths_block(&zeros, &[(1, 1), (127, 7), (1, 1), (127, 7)]),
        ),
        ("a code that is not complete", lengths_block(&[(0, 1)], &[])),
        (
            "a code of two bits that is not",
            lengths_block(&[(0, 2), (1, 2)], &[]),
        ),
        ("too many codes", lengths_block(&[(0, 1), (1, 1), (2, 1)], &[])),
        (
            "no code",
            lengths_block(&[], &[(0, 50), (0, 50), (0, 50), (0, 50), (0, 50), (0, 50)]),
        ),
    ] {
        assert_eq!(compare(&stream, &[1]), Broken, "{what}");
        for cut in 0..stream.len() {
            compare(&stream[..cut], &[1]);
        }
    }
    // 138 zeros, 118 zeros, the end of one bit, no distance.
    let allowed = lengths_block(
        &[(1, 1), (0, 2), (18, 2)],
        &[(3, 2), (127, 7), (3, 2), (107, 7), (0, 1), (1, 2), (0, 1)],
    );
    assert!(matches!(compare(&allowed, &[1]), Ended(_)));
}

#[test]
fn stored_and_fixed_blocks_are_judged_as_zlib_does() {
    let stored = [1, 3, 0, 0xfc, 0xff, b'a', b'b', b'c', 9];
    assert_eq!(compare(&stored, &[1]), Ended(8));
    assert_eq!(compare(&stored[..7], &[1]), Truncated);
    assert_eq!(compare(&[1, 3, 0, 0xfc, 0xfe, b'a', b'b', b'c'], &[1]), Broken);
    assert_eq!(compare(&[7], &[1]), Broken);
    assert_eq!(compare(&[3, 0], &[1]), Ended(2));
    assert_eq!(compare(&[3], &[1]), Truncated);
    // Symbols 286 and 287, distances 30 and 31 have codes, but no meaning.
    for symbol in [0b1100_0110_usize, 0b1100_0111] {
        let code = usize::from((symbol as u8).reverse_bits());
        let stream = BitWriter::default()
            .put(1, 1)
            .put(1, 2)
            .put(code, 8)
            .put(0, 40)
            .finish();
        assert_eq!(compare(&stream, &[1]), Broken);
    }
    for distance in [30_u8, 31] {
        let mut writer = BitWriter::default();
        writer.put(1, 1).put(1, 2).put(0b1100_1100, 8).put(0b100_0000, 7);
        let stream = writer
            .put(usize::from(distance.reverse_bits() >> 3), 5)
            .put(0, 40)
            .finish();
        assert_eq!(compare(&stream, &[1]), Broken);
    }
    // Many short blocks, stored and fixed in turn, that end inside of bytes.
    let mut writer = BitWriter::default();
    for _ in 0..500 {
        writer.put(0, 1).put(1, 2).put(0, 7);
    }
    let stream = writer.put(1, 1).put(1, 2).put(0, 7).finish();
    assert_eq!(compare(&stream, &[3]), Ended(stream.len()));
}

#[test]
fn copies_of_every_distance_and_length_are_made() {
    let mut bytes: Vec<u8> = (0..80_u32).map(|n| ((n * n) >> 3) as u8).collect();
    for distance in (1..70).chain([255, 256, 4095, 32_767, 32_768]) {
        for length in (3..70).chain([257, 258]) {
            let from = bytes.len().saturating_sub(distance);
            (0..length).for_each(|at| bytes.push(bytes[from + at]));
            bytes.push((distance + length) as u8);
        }
    }
    for level in [1, 6, 9] {
        let stream = deflated(&bytes, level);
        assert_eq!(compare(&stream, &[77_777]), Ended(stream.len()));
        assert_eq!(compare(&stream, &[1]), Ended(stream.len()));
    }
}

/// Gives one byte at a time.
struct Drops<'a>(&'a [u8]);

impl io::Read for Drops<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.0.len().min(buf.len()).min(1);
        self.0.read(&mut buf[..count])
    }
}

fn member(bytes: &[u8], stream: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    let mut member = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    member.extend_from_slice(stream);
    member.extend_from_slice(&crc.sum().to_le_bytes());
    member.extend_from_slice(&crc.amount().to_le_bytes());
    member
}

/// What is read of a stream, and what then fails: the same when it is taken in parts, whatever was in their rooms before.
fn inflated<R: io::Read + Send>(input: impl Fn() -> R) -> (Vec<u8>, Option<io::Error>) {
    let mut read = Vec::new();
    let mut stream = crate::decoder(input()).unwrap().1;
    let failed = stream.read_to_end(&mut read).err();
    let mut taken = Vec::new();
    let mut decoder = super::super::open(Box::new(super::super::buffered(input())))
        .unwrap()
        .1;
    let mut room = new_room();
    let stopped = loop {
        room.fill(0xa5);
        match decoder.part(room) {
            Ok(part) if part.bytes().is_empty() => break None,
            Ok(part) => {
                taken.extend_from_slice(part.bytes());
                room = part.into_room();
            }
            Err(error) => break Some(error),
        }
    };
    assert!(read == taken);
    let words = |error: &Option<io::Error>| error.as_ref().map(ToString::to_string);
    assert_eq!(words(&failed), words(&stopped));
    (read, failed)
}

#[test]
fn a_member_does_not_reach_into_the_one_before() {
    let first = member(b"abc", &[1, 3, 0, 0xfc, 0xff, b'a', b'b', b'c']);
    // Three bytes from three before, of a fixed code.
    let copy = BitWriter::default()
        .put(1, 1)
        .put(1, 2)
        .put(0b100_0000, 7)
        .put(0b01000, 5)
        .put(0, 7)
        .finish();
    let (out, error) = inflated(|| io::Cursor::new([first.clone(), member(b"abc", &copy)].concat()));
    assert_eq!(error.unwrap().kind(), io::ErrorKind::InvalidData);
    assert_eq!(out, b"abc");
}

#[test]
fn members_are_read_however_they_come_and_what_was_made_before_damage_is_read_first() {
    let bytes: Vec<u8> = (0..700_000_u32)
        .map(|n| (((n >> 7) * (n & 0x3ff)) >> 5) as u8)
        .collect();
    let one = member(&bytes, &deflated(&bytes, 6));
    let whole = [one.clone(), one.clone()].concat();
    let (out, error) = inflated(|| Drops(&whole));
    assert!(error.is_none() && out == [bytes.clone(), bytes.clone()].concat());
    let mut broken = one;
    let at = broken.len() - 8;
    broken[at] ^= 1;
    let (out, error) = inflated(|| Drops(&broken));
    let error = error.unwrap();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().ends_with("a checksum is wrong"));
    assert!(out == bytes);
}

/// Stored blocks fill a room to its last byte, where a block of symbols leaves some.
#[test]
fn a_room_is_left_by_blocks_of_each_kind() {
    for lead in [1_usize, 60_000, 60_300, 65_535] {
        let (mut stream, mut whole) = (Vec::new(), Vec::new());
        for round in 0..12_usize {
            let bytes: Vec<u8> = (0..lead)
                .map(|n| ((n * n * (round + 3)) >> 4).to_le_bytes()[0])
                .collect();
            let length = (lead as u16).to_le_bytes();
            stream.extend_from_slice(&[0, length[0], length[1], !length[0], !length[1]]);
            stream.extend_from_slice(&bytes);
            whole.extend_from_slice(&bytes);
            let run = vec![round as u8; 7 * lead];
            let mut symbols = flate2::Compress::new(Compression::best(), false);
            let mut packed = Vec::with_capacity(lead + 1000);
            symbols
                .compress_vec(&run, &mut packed, flate2::FlushCompress::Sync)
                .unwrap();
            stream.extend_from_slice(&packed);
            whole.extend_from_slice(&run);
        }
        stream.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
        let packed = member(&whole, &stream);
        let (read, error) = inflated(|| packed.as_slice());
        assert!(error.is_none() && read == whole, "{lead}: {error:?}");
    }
}

#[test]
fn the_last_copy_of_a_room_leaves_its_first_bytes_alone() {
    for lead in (0..40_usize).chain([257, 258, 299]) {
        for period in [1_usize, 3, 8, 15, 16, 40] {
            let noise = (0..lead).map(|n| (n * n * 7 + n * 3 + 11).to_le_bytes()[0]);
            let run = (0..600_000).map(|n| (n % period * 5 + 1).to_le_bytes()[0]);
            let whole: Vec<u8> = noise.chain(run).collect();
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            std::io::Write::write_all(&mut packed, &whole).unwrap();
            let packed = packed.finish().unwrap();
            let (read, error) = inflated(|| packed.as_slice());
            assert!(
                error.is_none() && read == whole,
                "{lead} bytes, then runs of {period}"
            );
        }
    }
}
