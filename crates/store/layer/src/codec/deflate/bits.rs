//! Output, bit by bit.

/// Bytes of a stored block (RFC 1951, 3.2.4).
pub(super) const STORED: usize = 0xffff;

/// Output, bit by bit.
pub(super) struct Bits {
    bytes: Vec<u8>,
    /// Whole bytes written.
    at: usize,
    buffer: u64,
    count: u32,
}

impl Bits {
    pub(super) fn in_room(room: Vec<u8>) -> Self {
        Self {
            bytes: room,
            at: 0,
            buffer: 0,
            count: 0,
        }
    }

    /// Adds up to 56 bits; `bits` has no others.
    #[inline(always)]
    pub(super) fn put(&mut self, bits: u64, count: u32) {
        self.buffer |= bits << self.count;
        self.count += count;
        if let Some(room) = self
            .bytes
            .get_mut(self.at..)
            .and_then(|rest| rest.first_chunk_mut::<8>())
        {
            *room = self.buffer.to_le_bytes();
        } else {
            self.grow();
        }
        let whole = self.count >> 3;
        self.at += whole as usize;
        // Never by 64, which would be nothing: at most 7 bits are there, and 56 are added.
        self.buffer >>= whole * 8;
        self.count &= 7;
    }

    /// Room for `bits` more, to be written by a [`Pen`].
    pub(super) fn pen(&mut self, bits: u64) -> Pen<'_> {
        let need = usize::try_from(bits / 8).map_or(self.at, |bytes| self.at + bytes + 64);
        if self.bytes.len() < need {
            self.bytes.resize(need, 0);
        }
        Pen {
            room: &mut self.bytes,
            at: self.at,
            buffer: self.buffer,
            count: self.count,
        }
    }

    /// Goes on where a pen stopped.
    pub(super) fn resume(&mut self, (at, buffer, count): (usize, u64, u32)) {
        (self.at, self.buffer, self.count) = (at, buffer, count);
    }

    #[cold]
    fn grow(&mut self) {
        self.bytes.resize(self.at + (64 << 10), 0);
        self.bytes[self.at..self.at + 8].copy_from_slice(&self.buffer.to_le_bytes());
    }

    /// Goes on with the next byte.
    pub(super) fn align(&mut self) {
        if self.count > 0 {
            self.put(0, 8 - self.count);
        }
    }

    /// Whole bytes, on a byte border.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let end = self.at + bytes.len();
        if self.bytes.len() < end + 8 {
            self.bytes.resize(end + 4096, 0);
        }
        self.bytes[self.at..end].copy_from_slice(bytes);
        self.at = end;
    }

    pub(super) fn stored(&mut self, raw: &[u8], last: bool) {
        let mut parts = raw.chunks(STORED).peekable();
        while let Some(part) = parts.next() {
            self.put(u64::from(last && parts.peek().is_none()), 3);
            self.align();
            let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
            self.bytes(&length.to_le_bytes());
            self.bytes(&(!length).to_le_bytes());
            self.bytes(part);
        }
    }

    /// The room it was written in, and how much of it was.
    pub(super) fn finish(mut self) -> (Vec<u8>, usize) {
        self.align();
        (self.bytes, self.at)
    }
}

/// Writes in room that is known to be enough: what it needs stays in registers.
pub(super) struct Pen<'a> {
    room: &'a mut [u8],
    at: usize,
    buffer: u64,
    count: u32,
}

/// For each number of literals from none to four, which of four are taken.
const MASKS: [[u32; 4]; 8] = {
    let mut masks = [[0; 4]; 8];
    let mut many = 0;
    while many < 8 {
        let mut at = 0;
        while at < 4 && at < many {
            masks[many][at] = u32::MAX;
            at += 1;
        }
        many += 1;
    }
    masks
};

impl Pen<'_> {
    /// As [`Bits::put`].
    #[inline(always)]
    pub(super) fn put(&mut self, bits: u64, count: u32) {
        self.buffer |= bits << self.count;
        self.count += count;
        let rest = self.room.get_mut(self.at..);
        if let Some(room) = rest.and_then(|rest| rest.first_chunk_mut::<8>()) {
            *room = self.buffer.to_le_bytes();
        }
        self.at += (self.count >> 3) as usize;
        // Never by 64, which would be nothing: at most 7 bits are there, and 56 are added.
        self.buffer >>= self.count & 0x38;
        self.count &= 7;
    }

    /// Up to four literals, whatever their number without a branch. `table` has the code of each, no longer than 14 bits,
    /// and its length from bit 16 on.
    #[inline(always)]
    pub(super) fn literals(&mut self, table: &[u32; 256], four: [u8; 4], many: usize) {
        let mask = &MASKS[many & 7];
        let code = |at: usize| table[usize::from(four[at])] & mask[at];
        let (a, b, c, d) = (code(0), code(1), code(2), code(3));
        let first = u64::from(a & 0xffff) | u64::from(b & 0xffff) << (a >> 16);
        let second = u64::from(c & 0xffff) | u64::from(d & 0xffff) << (c >> 16);
        let half = (a >> 16) + (b >> 16);
        self.put(first | second << half, half + (c >> 16) + (d >> 16));
    }

    /// Where it stopped.
    pub(super) fn finish(self) -> (usize, u64, u32) {
        (self.at, self.buffer, self.count)
    }
}
