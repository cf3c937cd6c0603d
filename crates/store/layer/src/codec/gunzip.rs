use std::io::{self, BufRead, Read};

use crc32fast::Hasher;

use super::inflate::{FULL, Inflate, Out, Room, Stop, WINDOW, new_room};
use super::{Part, fill_buf};

/// Most bytes of the optional fields of a member's header (name, comment, extra).
const MOST_HEADER: usize = 128 << 10;

/// Reads gzip (RFC 1952): any number of members, then nothing but zero bytes.
///
/// The framing is our own because the readers of flate2 either stop after one member or end in silence when what
/// follows is no member; here both are told apart.
pub(crate) struct Gunzip<R> {
    input: R,
    inflate: Inflate,
    crc: Hasher,
    /// Bytes of the member, modulo 2^32.
    length: u32,
    state: State,
    room: Box<Room>,
    /// What of the room was made.
    out: Out,
    /// What of it was read.
    taken: usize,
    /// What is told when all that was made before was read.
    failed: Option<io::Error>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    First,
    Body,
    Between,
    Done,
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("gzip stream is damaged: {why}"),
    )
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "gzip stream ends too early")
}

impl<R: BufRead> Gunzip<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            inflate: Inflate::new(),
            crc: Hasher::new(),
            length: 0,
            state: State::First,
            room: new_room(),
            out: Out { base: 0, at: 0 },
            taken: 0,
            failed: None,
        }
    }

    fn byte(&mut self) -> io::Result<u8> {
        let byte = *fill_buf(&mut self.input)?.first().ok_or_else(truncated)?;
        self.input.consume(1);
        Ok(byte)
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut out = [0; N];
        for byte in &mut out {
            *byte = self.byte()?;
        }
        Ok(out)
    }

    /// Reads a member's header; its first byte was seen already.
    fn header(&mut self) -> io::Result<()> {
        let [magic_1, magic_2, method, flags] = self.bytes()?;
        if (magic_1, magic_2) != (0x1f, 0x8b) {
            return Err(damaged(
                "what follows a member is neither a member nor zero bytes",
            ));
        }
        if method != 8 || flags & 0b1110_0000 != 0 {
            return Err(damaged("its header has unknown flags"));
        }
        // Time, extra flags, operating system.
        self.bytes::<6>()?;
        if flags & 4 != 0 {
            let length = u16::from_le_bytes(self.bytes()?);
            for _ in 0..length {
                self.byte()?;
            }
        }
        // Name and comment.
        for bit in [8, 16] {
            let mut length = 0;
            while flags & bit != 0 && self.byte()? != 0 {
                length += 1;
                if length > MOST_HEADER {
                    return Err(damaged("its header is too long"));
                }
            }
        }
        // Checksum of the header: two bytes that hardly anybody writes; the body has a better one.
        if flags & 2 != 0 {
            self.bytes::<2>()?;
        }
        self.inflate.reset();
        // A member reaches back to its own beginning only.
        self.out.base = self.out.at;
        self.crc.reset();
        self.length = 0;
        self.state = State::Body;
        Ok(())
    }

    fn trailer(&mut self) -> io::Result<()> {
        let crc = u32::from_le_bytes(self.bytes()?);
        let length = u32::from_le_bytes(self.bytes()?);
        if crc != self.crc.clone().finalize() || length != self.length {
            return Err(damaged("a checksum is wrong"));
        }
        self.state = State::Between;
        Ok(())
    }

    /// After a member: another one, padding, or the end.
    fn between(&mut self) -> io::Result<()> {
        match fill_buf(&mut self.input)?.first() {
            None => self.state = State::Done,
            Some(0) => {
                loop {
                    let rest = fill_buf(&mut self.input)?;
                    if rest.is_empty() {
                        break;
                    }
                    if rest.iter().any(|byte| *byte != 0) {
                        return Err(damaged(
                            "what follows a member is neither a member nor zero bytes",
                        ));
                    }
                    let count = rest.len();
                    self.input.consume(count);
                }
                self.state = State::Done;
            }
            Some(_) => self.header()?,
        }
        Ok(())
    }

    /// Inflates to the end of the member or of the room, or what could be read at once.
    fn body(&mut self) -> io::Result<()> {
        let from = self.out.at;
        let ended = loop {
            let input = fill_buf(&mut self.input)?;
            if input.is_empty() {
                break Err(truncated());
            }
            let mut rest = input;
            let stopped = self.inflate.inflate(&mut rest, &mut self.room, &mut self.out);
            let used = input.len() - rest.len();
            self.input.consume(used);
            match stopped {
                Ok(()) => break Ok(true),
                Err(Stop::Damaged) => break Err(damaged("its data cannot be inflated")),
                Err(Stop::Starved) if self.out.at == from => (),
                Err(Stop::Starved | Stop::Full) => break Ok(false),
            }
        };
        let made = &self.room[from..self.out.at];
        self.crc.update(made);
        self.length = self.length.wrapping_add(u32::try_from(made.len()).unwrap_or(0));
        if ended? {
            self.trailer()?;
        }
        Ok(())
    }

    /// Goes on; `false` at the end.
    fn step(&mut self) -> io::Result<bool> {
        match self.state {
            State::First => self.header()?,
            State::Between => self.between()?,
            State::Body => self.body()?,
            State::Done => return Ok(false),
        }
        Ok(true)
    }

    /// Makes more until there are more than `least` bytes in the room. What fails is told when all that was made before was
    /// read.
    fn make(&mut self, least: usize) -> io::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        while self.out.at <= least {
            match self.step() {
                Ok(true) => (),
                Ok(false) => break,
                Err(error) if self.taken == self.out.at => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Fills the room and gives it away; `next` takes its place, with what can be reached of it.
    pub(super) fn part(&mut self, mut next: Box<Room>) -> io::Result<Part> {
        self.make(FULL)?;
        let (from, to) = (self.taken, self.out.at);
        let window = (to - self.out.base).min(WINDOW);
        next[..window].copy_from_slice(&self.room[to - window..to]);
        self.begin_room(window);
        let room = std::mem::replace(&mut self.room, next);
        Ok(Part { room, from, to })
    }

    /// A room that has the window only.
    fn begin_room(&mut self, window: usize) {
        self.out = Out { base: 0, at: window };
        self.taken = window;
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if self.taken == self.out.at {
            let end = self.out.at;
            if end > FULL {
                let window = (end - self.out.base).min(WINDOW);
                self.room.copy_within(end - window..end, 0);
                self.begin_room(window);
            }
            self.make(self.out.at)?;
        }
        let made = &self.room[self.taken..self.out.at];
        let count = buf.len().min(made.len());
        buf[..count].copy_from_slice(&made[..count]);
        self.taken += count;
        Ok(count)
    }
}
