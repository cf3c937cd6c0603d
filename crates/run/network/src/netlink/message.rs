use std::io;

const HEADER: usize = 16;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 0x01;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// Attribute types without the flag bits.
const TYPE_MASK: u16 = 0x3fff;

const fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// Requests that go to the kernel with one send.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    starts: Vec<usize>,
    too_long: bool,
}

impl Batch {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(512),
            starts: Vec::with_capacity(8),
            too_long: false,
        }
    }

    /// How many bytes they take.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a request of this kind: `fixed` is the family's own header, `body` writes the attributes.
    pub(crate) fn request(
        &mut self,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        body: impl FnOnce(&mut Writer<'_>),
    ) {
        let start = self.bytes.len();
        self.starts.push(start);
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(fixed);
        self.bytes.resize(align(self.bytes.len()), 0);
        body(&mut Writer {
            bytes: &mut self.bytes,
            too_long: &mut self.too_long,
        });
        match u32::try_from(self.bytes.len() - start) {
            Ok(length) => self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.too_long = true,
        }
    }

    /// Writes the sequence numbers from `first` on; says how many.
    pub(super) fn number(&mut self, first: u32) -> io::Result<u32> {
        if self.too_long {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a netlink attribute is longer than 64 KiB",
            ));
        }
        let mut sequence = first;
        for start in &self.starts {
            self.bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
            sequence = sequence.wrapping_add(1);
        }
        Ok(sequence.wrapping_sub(first))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Writes the attributes of one request.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
    too_long: &'a mut bool,
}

impl Writer<'_> {
    /// An attribute of raw bytes.
    pub(crate) fn raw(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, |writer| writer.bytes.extend_from_slice(value));
    }

    /// A text with its final zero.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, |writer| {
            writer.bytes.extend_from_slice(value.as_bytes());
            writer.bytes.push(0);
        });
    }

    /// A number in the machine's byte order (rtnetlink).
    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.raw(kind, &value.to_ne_bytes());
    }

    /// A number in network byte order (nfnetlink).
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.raw(kind, &value.to_be_bytes());
    }

    /// Attributes inside an attribute.
    pub(crate) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Writer<'_>)) {
        self.attribute(kind | NESTED, |writer| body(writer));
    }

    /// Bytes of a header that stands before nested attributes.
    pub(crate) fn header(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.bytes.resize(align(self.bytes.len()), 0);
    }

    fn attribute(&mut self, kind: u16, body: impl FnOnce(&mut Writer<'_>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        body(&mut Writer {
            bytes: self.bytes,
            too_long: self.too_long,
        });
        match u16::try_from(self.bytes.len() - start) {
            Ok(length) => self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => *self.too_long = true,
        }
        self.bytes.resize(align(self.bytes.len()), 0);
    }
}

/// The messages of one datagram: kind, sequence, payload. Ends at the first that does not fit.
#[derive(Debug)]
pub(super) struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    pub(super) const fn new(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = (u16, u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header: &[u8; HEADER] = self.0.first_chunk()?;
        let length =
            usize::try_from(u32::from_ne_bytes([header[0], header[1], header[2], header[3]])).ok()?;
        let payload = self.0.get(HEADER..length)?;
        self.0 = self.0.get(align(length)..).unwrap_or_default();
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let sequence = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        Some((kind, sequence, payload))
    }
}

/// The attributes in some bytes: type without flags, value. Ends at the first that does not fit.
#[derive(Clone, Debug)]
pub(crate) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The attributes behind a fixed header of this size.
    pub(crate) fn after(payload: &'a [u8], header: usize) -> Self {
        Self(payload.get(header..).unwrap_or_default())
    }

    /// The value of the last attribute of this type, as the kernel reads it.
    pub(crate) fn find(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone()
            .filter(|(found, _)| *found == kind)
            .last()
            .map(|(_, value)| value)
    }

    /// A number in the machine's byte order.
    pub(crate) fn u32(&self, kind: u16) -> Option<u32> {
        self.find(kind)?.first_chunk().map(|raw| u32::from_ne_bytes(*raw))
    }

    /// A number in network byte order.
    pub(crate) fn be32(&self, kind: u16) -> Option<u32> {
        self.find(kind)?.first_chunk().map(|raw| u32::from_be_bytes(*raw))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header: &[u8; 4] = self.0.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(align(length)..).unwrap_or_default();
        Some((u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK, value))
    }
}
