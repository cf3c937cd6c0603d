//! SHA-256 at the speed that the processor allows.

use aws_lc_rs::digest::{Context, SHA256};
use dhow_types::Digest;

/// Computes a [`Digest`] piece by piece.
///
/// By aws-lc, which TLS brings anyway: on a processor without SHA instructions it was measured at twice the speed of
/// portable code (250 against 120 MB/s on the same busy machine), with them at the same.
#[derive(Clone)]
pub(crate) struct Hasher(Context);

impl Hasher {
    pub(crate) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        let mut raw = [0; 32];
        raw.copy_from_slice(self.0.finish().as_ref());
        Digest::from_bytes(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_give_the_digest_of_the_whole() {
        let mut hasher = Hasher::new();
        hasher.update(b"hello ");
        hasher.update(b"world");
        assert_eq!(hasher.finish(), Digest::of(b"hello world"));
    }
}
