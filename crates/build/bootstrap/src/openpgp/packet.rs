//! Packets (RFC 9580 section 4): a tag, a length, a body.

use dhow_types::ErrorKind;

use crate::Error;

pub(super) const SIGNATURE: u8 = 2;
pub(super) const PUBLIC_KEY: u8 = 6;
pub(super) const USER_ID: u8 = 13;
pub(super) const PUBLIC_SUBKEY: u8 = 14;
pub(super) const USER_ATTRIBUTE: u8 = 17;

/// One packet, as a view of the bytes that hold it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    pub(super) tag: u8,
    pub(super) body: &'a [u8],
}

/// All packets of a sequence. Ends after the first error.
#[derive(Debug)]
pub(super) struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Packets<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn split(&mut self) -> Option<Packet<'a>> {
        let mut cursor = Cursor(self.rest);
        let first = cursor.byte()?;
        if first & 0x80 == 0 {
            return None;
        }
        let (tag, length) = if first & 0x40 == 0 {
            // The old form; length type 3 (until the end of the file) is for data only.
            let length = match first & 3 {
                0 => usize::from(cursor.byte()?),
                1 => usize::from(cursor.u16()?),
                2 => usize::try_from(cursor.u32()?).ok()?,
                _ => return None,
            };
            ((first >> 2) & 15, length)
        } else {
            (first & 63, cursor.length()?)
        };
        let body = cursor.take(length)?;
        self.rest = cursor.0;
        Some(Packet { tag, body })
    }
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Packet<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let packet = self.split();
        if packet.is_none() {
            self.rest = &[];
        }
        Some(packet.ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "malformed openpgp packet")))
    }
}

/// Takes values from the front of bytes; `None` when there are too few.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take(4)
            .map(|bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A length in the new form (section 4.2.1), also used by subpackets; partial lengths are for data only.
    pub(super) fn length(&mut self) -> Option<usize> {
        match self.byte()? {
            short @ 0..=191 => Some(usize::from(short)),
            high @ 192..=223 => Some((usize::from(high) - 192) * 256 + usize::from(self.byte()?) + 192),
            255 => usize::try_from(self.u32()?).ok(),
            _ => None,
        }
    }

    /// A multi-precision integer (section 3.2), without leading zero bytes.
    pub(super) fn integer(&mut self) -> Option<&'a [u8]> {
        let bits = usize::from(self.u16()?);
        let bytes = self.take(bits.div_ceil(8))?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Some(&bytes[zeros..])
    }
}
