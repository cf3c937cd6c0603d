//! How fast streams are hashed: one by the library, and one and more by a worker.
//!   cargo run --release -p dhow-hash --example `bench_hash` [MiB]

use std::sync::Arc;
use std::time::Instant;

use dhow_hash::{Hasher, Piece, Stream};
use dhow_sys::sha256::{FIRST, Lanes};

/// Bytes of a piece.
const PIECE: usize = 256 << 10;

struct Part(Arc<Vec<u8>>);

impl Piece for Part {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn hashed(self: Box<Self>) {}
}

#[expect(clippy::print_stdout, reason = "a bench says what it measured")]
fn main() -> std::io::Result<()> {
    let argument = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let pieces = argument.unwrap_or(1024) << 20 >> PIECE.trailing_zeros();
    let part = Arc::new((0..PIECE).map(|n| n.to_le_bytes()[1]).collect::<Vec<u8>>());
    for _ in 0..3 {
        let began = Instant::now();
        let mut hasher = Hasher::new();
        for _ in 0..pieces {
            hasher.update(&part);
        }
        let whole = hasher.finish();
        say("one, by the library", pieces, began);
        if let Some(lanes) = Lanes::detect() {
            several::<1>(lanes, pieces, &part);
            several::<2>(lanes, pieces, &part);
            several::<3>(lanes, pieces, &part);
            several::<4>(lanes, pieces, &part);
        }
        for count in [1, 2, 3] {
            let began = Instant::now();
            let streams = (0..count)
                .map(|_| Stream::begin())
                .collect::<Result<Vec<_>, _>>()?;
            for _ in 0..pieces {
                for stream in &streams {
                    stream.push(Box::new(Part(Arc::clone(&part))), 4);
                }
            }
            for stream in streams {
                assert_eq!(stream.finish().0, whole);
            }
            say(&format!("{count}, by a worker"), pieces * count, began);
        }
    }
    return Ok(());

    fn several<const N: usize>(lanes: Lanes, pieces: usize, part: &[u8]) {
        let blocks = part.as_chunks().0;
        let began = Instant::now();
        let mut states = [FIRST; N];
        for _ in 0..pieces {
            lanes.together(&mut states, [blocks; N]);
        }
        assert_eq!(states, [states[0]; N]);
        say(&format!("{N} together"), N * pieces, began);
    }

    fn say(what: &str, pieces: usize, began: Instant) {
        let bytes = (pieces * PIECE) as f64;
        println!("{what}: {:.2} GB/s", bytes / began.elapsed().as_secs_f64() / 1e9);
    }
}
