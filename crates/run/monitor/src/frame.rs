//! The frames between a monitor and those attached to it.
//!
//! Eight bytes of head and a body, as in docker's attach stream (`stdcopy`): kind, three zeros, length in network
//! order. A monitor sends [`STDOUT`], [`STDERR`], [`CHECKED`] and [`EXIT`]; a client sends [`STDIN`], [`STDIN_END`],
//! [`RESIZE`], [`NO_RESTART`] and [`CHECK`].

use crate::Error;
use dhow_types::ErrorKind;

/// Input for the container.
pub const STDIN: u8 = 0;
/// Output of the container, or of its terminal.
pub const STDOUT: u8 = 1;
/// Error output of the container.
pub const STDERR: u8 = 2;
/// The container ended: its exit code as four bytes in network order. Nothing follows.
pub const EXIT: u8 = 3;
/// There is no more input.
pub const STDIN_END: u8 = 4;
/// New size of the terminal: rows and columns as two bytes each, in network order.
pub const RESIZE: u8 = 5;
/// The person ends the container: the restart policy no longer holds.
pub const NO_RESTART: u8 = 6;
/// The person wants the health checked now.
pub const CHECK: u8 = 7;
/// The check that was wanted is over and written down: its exit code as four bytes in network order, 0 is good.
pub const CHECKED: u8 = 8;

/// Bytes of a head.
pub const HEAD: usize = 8;
/// Longest body that is taken; a longer one ends the connection.
pub const MAX_BODY: usize = 64 << 10;

/// The head of a frame.
///
/// # Panics
/// Never: bodies are at most [`MAX_BODY`] long.
#[must_use]
pub fn head(kind: u8, length: usize) -> [u8; HEAD] {
    let length = u32::try_from(length.min(MAX_BODY)).unwrap_or(0).to_be_bytes();
    [kind, 0, 0, 0, length[0], length[1], length[2], length[3]]
}

/// A whole frame.
#[must_use]
pub fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let body = &body[..body.len().min(MAX_BODY)];
    let mut out = Vec::with_capacity(HEAD + body.len());
    out.extend_from_slice(&head(kind, body.len()));
    out.extend_from_slice(body);
    out
}

/// Cuts a byte stream into frames, whatever pieces it comes in.
#[derive(Debug, Default)]
pub struct Frames {
    pending: Vec<u8>,
}

impl Frames {
    /// A stream of which nothing has come.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece and gives every frame that is now whole to `each` as kind and body.
    ///
    /// # Errors
    /// `InvalidArgument` for a body over [`MAX_BODY`], or what `each` returned.
    pub fn push(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut(u8, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.pending.extend_from_slice(piece);
        let mut at = 0;
        while let Some((kind, body)) = split(&self.pending[at..])? {
            each(kind, body)?;
            at += HEAD + body.len();
        }
        self.pending.drain(..at);
        Ok(())
    }
}

fn split(bytes: &[u8]) -> Result<Option<(u8, &[u8])>, Error> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
    if length > MAX_BODY {
        let message = format!("frame of {length} bytes on the attach socket, more than {MAX_BODY}");
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok((rest.len() >= length).then(|| (head[0], &rest[..length])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_whole_however_the_bytes_are_cut() {
        let mut bytes = frame(STDOUT, b"hello");
        bytes.extend(frame(EXIT, &7_u32.to_be_bytes()));
        for cut in 1..bytes.len() {
            let mut frames = Frames::new();
            let mut seen = Vec::new();
            for piece in bytes.chunks(cut) {
                frames
                    .push(piece, |kind, body| {
                        seen.push((kind, body.to_vec()));
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!(seen, [(STDOUT, b"hello".to_vec()), (EXIT, vec![0, 0, 0, 7])]);
        }
    }

    #[test]
    fn a_frame_that_promises_too_much_is_refused() {
        let head = [STDIN, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        let error = Frames::new().push(&head, |_, _| Ok(())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}
