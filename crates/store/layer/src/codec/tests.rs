use std::io::Read as _;

use super::*;

/// Bytes that compress somewhat, the same every time.
fn sample(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut out = Vec::with_capacity(length);
    while out.len() < length {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let word = state.to_le_bytes();
        out.extend_from_slice(if word[3] & 3 == 0 {
            b"the same words again and again "
        } else {
            &word[1..3]
        });
    }
    out.truncate(length);
    out
}

fn compressed(threads: usize, bytes: &[u8], compression: Compression) -> Vec<u8> {
    let mut out = Vec::new();
    let written = compress_on(threads, bytes, &mut out, compression).unwrap();
    assert_eq!(written, out.len() as u64);
    out
}

fn decompressed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    decoder(bytes).unwrap().1.read_to_end(&mut out)?;
    Ok(out)
}

#[test]
fn what_is_compressed_comes_back_at_every_size_around_a_block() {
    let block = 256 << 10;
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        for length in [0, 1, 100, block - 1, block, block + 1, 2 * block, 3 * block + 77] {
            let bytes = sample(length);
            assert!(
                decompressed(&compressed(2, &bytes, compression)).unwrap() == bytes,
                "{compression:?} {length}"
            );
        }
    }
}

#[test]
fn the_output_does_not_depend_on_the_number_of_threads() {
    let bytes = sample(9 << 20);
    for compression in [Compression::Gzip, Compression::Zstd] {
        let one = compressed(1, &bytes, compression);
        for threads in [2, 3, 7] {
            assert!(
                compressed(threads, &bytes, compression) == one,
                "{compression:?} on {threads} threads"
            );
        }
    }
}

#[test]
fn other_programs_read_our_gzip() {
    let bytes = sample(1_000_000);
    let gzip = compressed(2, &bytes, Compression::Gzip);
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(gzip.as_slice())
        .read_to_end(&mut out)
        .unwrap();
    assert!(out == bytes);
    assert!(gzip.len() < bytes.len() * 3 / 4);
}

#[test]
fn a_gzip_header_with_all_optional_fields_is_read() {
    let plain = compressed(1, b"content", Compression::Gzip);
    let mut full = vec![0x1f, 0x8b, 8, 2 | 4 | 8 | 16, 1, 2, 3, 4, 0, 3];
    full.extend_from_slice(&[3, 0, b'e', b'x', b't']);
    full.extend_from_slice(b"name\0comment\0");
    full.extend_from_slice(&[0xaa, 0xbb]);
    full.extend_from_slice(&plain[10..]);
    assert_eq!(decompressed(&full).unwrap(), b"content");
    let mut endless = vec![0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3];
    endless.extend(std::iter::repeat_n(b'n', 200_000));
    assert_eq!(
        decompressed(&endless).unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );
}

#[test]
fn every_cut_of_a_gzip_stream_is_an_error() {
    let gzip = compressed(1, &sample(5000), Compression::Gzip);
    for end in 2..gzip.len() {
        let error = decompressed(&gzip[..end]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "cut at {end}");
    }
}

#[test]
fn bzip2_and_xz_are_read_only() {
    for compression in [Compression::Bzip2, Compression::Xz] {
        let error = compress(&b""[..], &mut Vec::new(), compression).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn failures_of_either_side_end_the_compression() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let bytes = sample(5 << 20);
    for compression in [Compression::Gzip, Compression::Zstd] {
        let error = compress_on(3, bytes.as_slice(), &mut Full, compression).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{compression:?}");
        let error = compress_on(3, Broken, &mut Vec::new(), compression).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{compression:?}");
    }
}

#[test]
fn starts_of_streams_are_told_apart() {
    for (start, compression) in [
        (&b"\x1f\x8b\x08"[..], Compression::Gzip),
        (b"\x28\xb5\x2f\xfd", Compression::Zstd),
        (b"\x5a\x2a\x4d\x18", Compression::Zstd),
        (b"BZh9", Compression::Bzip2),
        (b"\xfd7zXZ\0", Compression::Xz),
        (b"BZh0", Compression::None),
        (b"", Compression::None),
        (b"\x1f", Compression::None),
    ] {
        assert_eq!(Compression::sniff(start), compression, "{start:?}");
    }
}

mod arbitrary {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn noise_after_a_magic_never_panics(
            magic in prop::sample::select(vec![&b"\x1f\x8b\x08"[..], b"\x28\xb5\x2f\xfd", b"BZh9", b"\xfd7zXZ\0", b""]),
            noise in prop::collection::vec(any::<u8>(), 0..500),
        ) {
            drop(decompressed(&[magic, &noise].concat()));
        }

        #[test]
        fn a_flipped_byte_of_gzip_is_an_error_or_does_not_matter(at in 0_usize..3000, bit in 0_u32..8) {
            let bytes = sample(4000);
            let mut gzip = compressed(1, &bytes, Compression::Gzip);
            let at = 2 + at % (gzip.len() - 2);
            gzip[at] ^= 1 << bit;
            if let Ok(out) = decompressed(&gzip) {
                prop_assert!(out == bytes);
            }
        }
    }
}

/// What a layer may hold: noise, fill, numbers, text, and the same again from near and far.
pub(super) fn mixture() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    use proptest::prelude::*;
    let numbers = |(step, count): (u8, u16)| {
        let all = (0..count).map(|n| n.leading_zeros().to_le_bytes()[0].wrapping_mul(step));
        all.collect()
    };
    let part = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..3000),
        (any::<u8>(), 0..70_000_usize).prop_map(|(byte, count)| vec![byte; count]),
        (1..40_u8, 0..5000_u16).prop_map(numbers),
        (0..20_000_usize).prop_map(sample),
    ];
    let again = (any::<proptest::sample::Index>(), 0..700_usize);
    proptest::collection::vec((part, again), 0..12).prop_map(|parts| {
        let mut bytes = Vec::new();
        for (part, (from, count)) in parts {
            bytes.extend_from_slice(&part);
            let from = from.index(bytes.len() + 1);
            let again: Vec<u8> = bytes[from..].iter().take(count).copied().collect();
            bytes.extend_from_slice(&again);
        }
        bytes
    })
}

fn deflated(deflate: &mut deflate::Deflate, bytes: &[u8], start: usize, last: bool) -> Vec<u8> {
    let mut compressed = deflate::Compressed::default();
    // Whatever was written there before is of no account.
    deflate.compress(&sample(1000), 0, true, &mut compressed);
    deflate.compress(bytes, start, last, &mut compressed);
    compressed.bytes().to_vec()
}

/// Deflates `bytes` from `start` on and inflates them again by zlib; how many bytes they were between.
fn there_and_back(bytes: &[u8], start: usize) -> usize {
    let out = deflated(&mut deflate::Deflate::new(), bytes, start, true);
    let mut inflate = flate2::Decompress::new(false);
    inflate
        .set_dictionary(&bytes[start.saturating_sub(32 << 10)..start])
        .unwrap();
    let mut back = Vec::with_capacity(bytes.len() - start + 64);
    let status = inflate.decompress_vec(&out, &mut back, flate2::FlushDecompress::Finish);
    assert_eq!(status.unwrap(), flate2::Status::StreamEnd);
    assert!(back == bytes[start..], "{} bytes from {start} on", bytes.len());
    out.len()
}

#[test]
fn copies_are_found_wherever_the_bytes_that_are_held_end() {
    let noise: Vec<u8> = {
        let mut state = 0x2545_f491_u32;
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[1]
        })
        .take(40 << 10)
        .collect()
    };
    let text = sample(40 << 10);
    let cycle = |bytes: &[u8], period: usize, length: usize| -> Vec<u8> {
        bytes[..period].iter().copied().cycle().take(length).collect()
    };
    let (held, window) = (64 << 10, 32 << 10);
    for length in [
        held - 513,
        held - 512,
        held - 511,
        held - 1,
        held,
        held + 1,
        held + 12,
        held + 258,
        held + window - 512,
        5 * held + 3,
    ] {
        for start in [0, 1, 1000, window] {
            for period in [1, 3, 259, 5000, window] {
                let bytes = cycle(&text, period, length);
                let size = there_and_back(&bytes, start);
                // All but the first round is copies of 258 bytes, each of a few bytes at most.
                let new = period.saturating_sub(start);
                assert!(
                    size <= new + (length - start) / 60 + 700,
                    "{length} {start} {period}: {size}"
                );
            }
            // Out of reach: noise, and stored as it is.
            let bytes = cycle(&noise, window + 1, length);
            let size = there_and_back(&bytes, start);
            assert!(size >= length - start, "{length} {start}: {size}");
            there_and_back(&sample(length), start);
        }
    }
}

#[test]
fn the_input_of_one_block_has_no_bound() {
    let bytes = sample(3 << 20);
    assert!(there_and_back(&bytes, 0) < bytes.len() * 3 / 4);
    assert!(there_and_back(&bytes, 1 << 20) < bytes.len() / 2);
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(200))]

    #[test]
    fn whatever_is_deflated_is_inflated_again(bytes in mixture(), known in 0..40_000_usize) {
        let known = known.min(bytes.len());
        let mut deflate = deflate::Deflate::new();
        for last in [false, true] {
            let window = &bytes[known.saturating_sub(32 << 10)..];
            let start = known.min(32 << 10);
            let mut out = deflated(&mut deflate, window, start, last);
            if last {
                proptest::prop_assert!(out.len() <= bytes.len() - known + 5 * (2 + (bytes.len() - known) / 10_000));
            } else {
                out.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
            }
            let mut inflate = flate2::Decompress::new(false);
            inflate.set_dictionary(&window[..start]).unwrap();
            let mut back = Vec::with_capacity(bytes.len() - known + 64);
            let status = inflate.decompress_vec(&out, &mut back, flate2::FlushDecompress::Finish).unwrap();
            proptest::prop_assert_eq!(status, flate2::Status::StreamEnd);
            proptest::prop_assert_eq!(inflate.total_in(), out.len() as u64);
            proptest::prop_assert!(back == bytes[known..]);
        }
    }
}
