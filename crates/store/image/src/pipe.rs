//! From a writer in one thread to a reader in another, with bounded memory and without a silent end.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Chunks under way; with the chunks of the compressor this is about a megabyte.
const DEPTH: usize = 8;

enum Piece {
    Bytes(Vec<u8>),
    /// All is written. A channel that closes without it means that the writer failed.
    End,
}

/// The writing side.
#[derive(Debug)]
pub(crate) struct Inlet {
    channel: SyncSender<Piece>,
    abandoned: bool,
}

/// The reading side.
pub(crate) struct Outlet {
    channel: Receiver<Piece>,
    current: Vec<u8>,
    position: usize,
    ended: bool,
}

/// Both sides of a new pipe.
pub(crate) fn pipe() -> (Inlet, Outlet) {
    let (sender, receiver) = sync_channel(DEPTH);
    let inlet = Inlet {
        channel: sender,
        abandoned: false,
    };
    let outlet = Outlet {
        channel: receiver,
        current: Vec::new(),
        position: 0,
        ended: false,
    };
    (inlet, outlet)
}

impl Inlet {
    /// Says that all is written. Without this the reader gets an error at the end.
    pub(crate) fn finish(self) {
        // A reader that is gone does not need the news.
        drop(self.channel.send(Piece::End));
    }

    /// Whether the reader went away: a failure of the writer is then only the echo.
    pub(crate) fn abandoned(&self) -> bool {
        self.abandoned
    }
}

impl Write for Inlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.channel.send(Piece::Bytes(bytes.to_vec())).is_err() {
            self.abandoned = true;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Outlet {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.position == self.current.len() {
            if self.ended {
                return Ok(0);
            }
            match self.channel.recv() {
                Ok(Piece::Bytes(bytes)) => {
                    self.current = bytes;
                    self.position = 0;
                }
                Ok(Piece::End) => self.ended = true,
                Err(_) => return Err(io::Error::other("the writer failed before the end")),
            }
        }
        let rest = &self.current[self.position..];
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        self.position += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (mut inlet, mut outlet) = pipe();
        let writer = std::thread::spawn(move || {
            for chunk in 0..100_u8 {
                inlet.write_all(&[chunk; 1000]).unwrap();
            }
            inlet.write_all(&[]).unwrap();
            inlet.finish();
        });
        let mut bytes = Vec::new();
        outlet.read_to_end(&mut bytes).unwrap();
        writer.join().unwrap();
        assert_eq!(bytes.len(), 100_000);
        assert_eq!(bytes[99_999], 99);
    }

    #[test]
    fn a_writer_that_fails_is_not_an_end() {
        let (mut inlet, mut outlet) = pipe();
        inlet.write_all(b"half").unwrap();
        drop(inlet);
        assert!(outlet.read_to_end(&mut Vec::new()).is_err());
    }

    #[test]
    fn a_reader_that_goes_stops_the_writer() {
        let (mut inlet, outlet) = pipe();
        drop(outlet);
        assert!(inlet.write_all(b"x").is_err());
        assert!(inlet.abandoned());
    }
}
