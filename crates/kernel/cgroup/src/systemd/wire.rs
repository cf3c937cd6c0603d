//! D-Bus messages (D-Bus specification, "Message Protocol"): writing the few that systemd is asked, and reading what
//! comes back, which is bounded in size and depth whatever the other side says.

use dhow_types::ErrorKind;

use crate::Error;

/// Largest message that is read. The answers of interest are small; the standard allows 128 MiB.
pub(crate) const MOST_BYTES: usize = 1 << 20;
/// Deepest nesting of containers that is read: 32 arrays in 32 structs, as the standard says.
const MOST_DEPTH: usize = 64;
/// Bytes of the header before its array of fields.
pub(crate) const FIXED: usize = 16;

/// A value in a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `b`.
    Bool(bool),
    /// `i`.
    I32(i32),
    /// `u`.
    U32(u32),
    /// `x`.
    I64(i64),
    /// `t`.
    U64(u64),
    /// `d`.
    Double(f64),
    /// `s`.
    Text(String),
    /// `ay`.
    Bytes(Vec<u8>),
    /// `au`.
    Numbers(Vec<u32>),
    /// `as`.
    Texts(Vec<String>),
    /// `a(ss)`.
    Pairs(Vec<(String, String)>),
}

impl Value {
    const fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::Double(_) => "d",
            Self::Text(_) => "s",
            Self::Bytes(_) => "ay",
            Self::Numbers(_) => "au",
            Self::Texts(_) => "as",
            Self::Pairs(_) => "a(ss)",
        }
    }
}

/// A named value: a property of a unit.
pub type Property = (String, Value);

/// Bytes of a message in the making, in the byte order of little-endian machines.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.align(8);
        self.bytes.extend(value.to_le_bytes());
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.u32(value.into());
    }

    pub(crate) fn text(&mut self, text: &str) {
        // Longer than any message may be is refused when the message is finished.
        self.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    pub(crate) fn signature(&mut self, signature: &str) {
        self.bytes.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.bytes.extend(signature.as_bytes());
        self.bytes.push(0);
    }

    /// An array: its length in bytes is written when `fill` is done.
    pub(crate) fn array(&mut self, alignment: usize, fill: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.bytes.len() - 4;
        self.align(alignment);
        let start = self.bytes.len();
        fill(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => self.bool(*value),
            Value::I32(value) => self.u32(value.cast_unsigned()),
            Value::U32(value) => self.u32(*value),
            Value::I64(value) => self.u64(value.cast_unsigned()),
            Value::U64(value) => self.u64(*value),
            Value::Double(value) => self.u64(value.to_bits()),
            Value::Text(text) => self.text(text),
            Value::Bytes(bytes) => self.array(1, |out| out.bytes.extend(bytes)),
            Value::Numbers(numbers) => {
                self.array(4, |out| numbers.iter().for_each(|number| out.u32(*number)))
            }
            Value::Texts(texts) => self.array(4, |out| texts.iter().for_each(|text| out.text(text))),
            Value::Pairs(pairs) => self.array(8, |out| {
                for (first, second) in pairs {
                    out.align(8);
                    out.text(first);
                    out.text(second);
                }
            }),
        }
    }

    /// `a(sv)`.
    pub(crate) fn properties(&mut self, properties: &[Property]) {
        self.array(8, |out| {
            for (name, value) in properties {
                out.align(8);
                out.text(name);
                out.signature(value.signature());
                out.value(value);
            }
        });
    }
}

/// A call to be sent.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
    /// Who is asked; nobody by name on a private socket.
    pub(crate) destination: Option<&'a str>,
    pub(crate) signature: &'a str,
    pub(crate) body: Writer,
}

impl Call<'_> {
    /// The whole message.
    ///
    /// # Errors
    /// `ResourceExhausted` when it is larger than [`MOST_BYTES`].
    pub(crate) fn encode(&self, serial: u32) -> Result<Vec<u8>, Error> {
        const METHOD_CALL: u8 = 1;
        const VERSION: u8 = 1;
        let too_large = || {
            Error::new(
                ErrorKind::ResourceExhausted,
                "the message for systemd is too large",
            )
        };
        let body = u32::try_from(self.body.bytes.len()).map_err(|_| too_large())?;
        let mut out = Writer {
            bytes: vec![b'l', METHOD_CALL, 0, VERSION],
        };
        out.u32(body);
        out.u32(serial);
        out.array(8, |out| {
            let mut field = |code: u8, signature: &str, text: &str| {
                out.align(8);
                out.bytes.push(code);
                out.signature(signature);
                match signature {
                    "g" => out.signature(text),
                    _ => out.text(text),
                }
            };
            field(1, "o", self.path);
            field(2, "s", self.interface);
            field(3, "s", self.member);
            if let Some(destination) = self.destination {
                field(6, "s", destination);
            }
            if !self.signature.is_empty() {
                field(8, "g", self.signature);
            }
        });
        out.align(8);
        out.bytes.extend(&self.body.bytes);
        if out.bytes.len() > MOST_BYTES {
            return Err(too_large());
        }
        Ok(out.bytes)
    }
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Return,
    Error,
    Signal,
    /// Calls, and kinds of the future: none of our business.
    Other,
}

/// A message that was read.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) reply_to: Option<u32>,
    pub(crate) member: String,
    pub(crate) error: String,
    signature: String,
    body: Vec<u8>,
    big: bool,
}

/// Bytes in all of the message that begins so.
///
/// # Errors
/// `DataLoss` for what is no message, `ResourceExhausted` for one that is too large.
pub(crate) fn length(fixed: &[u8; FIXED]) -> Result<usize, Error> {
    let big = byte_order(fixed[0])?;
    if fixed[3] != 1 {
        return Err(malformed("its version is unknown"));
    }
    let number = |at: usize| word(fixed, at, big).map(|word| word as usize);
    let (body, fields) = (number(4)?, number(12)?);
    let total = body
        .checked_add(fields.next_multiple_of(8))
        .and_then(|rest| rest.checked_add(FIXED));
    total.filter(|total| *total <= MOST_BYTES).ok_or_else(|| {
        Error::new(
            ErrorKind::ResourceExhausted,
            "a message from the bus is too large",
        )
    })
}

fn malformed(why: &str) -> Error {
    Error::new(
        ErrorKind::DataLoss,
        format!("a message from the bus is malformed: {why}"),
    )
}

fn byte_order(mark: u8) -> Result<bool, Error> {
    match mark {
        b'l' => Ok(false),
        b'B' => Ok(true),
        _ => Err(malformed("its byte order is unknown")),
    }
}

fn word(bytes: &[u8], at: usize, big: bool) -> Result<u32, Error> {
    let four = bytes
        .get(at..at.saturating_add(4))
        .and_then(|four| <[u8; 4]>::try_from(four).ok());
    let four = four.ok_or_else(|| malformed("it ends early"))?;
    Ok(if big {
        u32::from_be_bytes(four)
    } else {
        u32::from_le_bytes(four)
    })
}

impl Message {
    /// Reads a message of the length that [`length`] said.
    ///
    /// # Errors
    /// `DataLoss` when it is malformed.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let big = byte_order(*bytes.first().ok_or_else(|| malformed("it is empty"))?)?;
        let kind = match bytes.get(1) {
            Some(2) => Kind::Return,
            Some(3) => Kind::Error,
            Some(4) => Kind::Signal,
            _ => Kind::Other,
        };
        let mut reader = Reader { bytes, at: 12, big };
        let end = reader.array_end(8)?;
        let mut message = Self {
            kind,
            reply_to: None,
            member: String::new(),
            error: String::new(),
            signature: String::new(),
            body: Vec::new(),
            big,
        };
        while reader.at < end {
            reader.align(8)?;
            let code = reader.byte()?;
            let signature = reader.signature()?;
            match (code, signature) {
                (3, "s") => message.member = reader.text()?.to_owned(),
                (4, "s") => message.error = reader.text()?.to_owned(),
                (5, "u") => message.reply_to = Some(reader.u32()?),
                (8, "g") => message.signature = reader.signature()?.to_owned(),
                (_, signature) => reader.skip_all(signature)?,
            }
        }
        if reader.at != end {
            return Err(malformed("its header ends in the middle of a field"));
        }
        reader.align(8)?;
        message.body = bytes[reader.at..].to_vec();
        let said = word(bytes, 4, big)? as usize;
        if message.body.len() != said {
            return Err(malformed("its body has another length than it says"));
        }
        Ok(message)
    }

    /// The texts and numbers in the body, at its top or in a variant at its top; other values are passed over.
    ///
    /// # Errors
    /// `DataLoss` when the body is not what the signature says.
    pub(crate) fn arguments(&self) -> Result<Vec<Value>, Error> {
        let mut reader = Reader {
            bytes: &self.body,
            at: 0,
            big: self.big,
        };
        let mut out = Vec::new();
        let mut rest = self.signature.as_str();
        while !rest.is_empty() {
            let (mut one, after) = split_type(rest)?;
            rest = after;
            if one == "v" {
                one = reader.signature()?;
                if !split_type(one)?.1.is_empty() {
                    return Err(malformed("a variant has several types"));
                }
            }
            out.extend(reader.argument(one)?);
        }
        Ok(out)
    }
}

/// The first complete type of a signature, and what follows it.
fn split_type(signature: &str) -> Result<(&str, &str), Error> {
    let mut depth = 0_usize;
    for (at, c) in signature.char_indices() {
        match c {
            'a' => continue,
            '(' | '{' => depth += 1,
            ')' | '}' => {
                depth = depth
                    .checked_sub(1)
                    .ok_or_else(|| malformed("a type is not balanced"))?;
            }
            c if c.is_ascii_lowercase() => {}
            _ => return Err(malformed("a type is unknown")),
        }
        if depth == 0 {
            return Ok(signature.split_at(at + 1));
        }
    }
    Err(malformed("a type is not complete"))
}

#[derive(Debug)]
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| malformed("it ends early"))?;
        self.at += count;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<(), Error> {
        let count = self.at.next_multiple_of(to) - self.at;
        self.take(count).map(drop)
    }

    fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.align(4)?;
        let value = word(self.bytes, self.at, self.big)?;
        self.at += 4;
        Ok(value)
    }

    fn u64(&mut self) -> Result<u64, Error> {
        self.align(8)?;
        let (first, second) = (u64::from(self.u32()?), u64::from(self.u32()?));
        Ok(if self.big {
            first << 32 | second
        } else {
            second << 32 | first
        })
    }

    fn terminated(&mut self, length: usize) -> Result<&'a str, Error> {
        let bytes = self.take(length)?;
        if self.byte()? != 0 {
            return Err(malformed("a text does not end"));
        }
        std::str::from_utf8(bytes).map_err(|_| malformed("a text is not UTF-8"))
    }

    fn text(&mut self) -> Result<&'a str, Error> {
        let length = self.u32()? as usize;
        self.terminated(length)
    }

    fn signature(&mut self) -> Result<&'a str, Error> {
        let length = usize::from(self.byte()?);
        self.terminated(length)
    }

    /// Reads an array's length, moves to its first element, and says where it ends.
    fn array_end(&mut self, alignment: usize) -> Result<usize, Error> {
        let length = self.u32()? as usize;
        self.align(alignment)?;
        let end = self.at.checked_add(length);
        end.filter(|end| *end <= self.bytes.len())
            .ok_or_else(|| malformed("an array is longer than the message"))
    }

    fn argument(&mut self, one: &str) -> Result<Option<Value>, Error> {
        Ok(Some(match one {
            "s" | "o" => Value::Text(self.text()?.to_owned()),
            "g" => Value::Text(self.signature()?.to_owned()),
            "b" => Value::Bool(self.u32()? != 0),
            "i" => Value::I32(self.u32()?.cast_signed()),
            "u" => Value::U32(self.u32()?),
            "x" => Value::I64(self.u64()?.cast_signed()),
            "t" => Value::U64(self.u64()?),
            other => {
                self.skip(other, 0)?;
                return Ok(None);
            }
        }))
    }

    fn skip_all(&mut self, mut signature: &str) -> Result<(), Error> {
        while !signature.is_empty() {
            let (one, rest) = split_type(signature)?;
            self.skip(one, 0)?;
            signature = rest;
        }
        Ok(())
    }

    /// Passes over one value.
    fn skip(&mut self, one: &str, depth: usize) -> Result<(), Error> {
        if depth > MOST_DEPTH {
            return Err(malformed("it is nested too deeply"));
        }
        match one.as_bytes() {
            [b'y'] => self.take(1).map(drop),
            [b'n' | b'q'] => {
                self.align(2)?;
                self.take(2).map(drop)
            }
            [b'b' | b'i' | b'u' | b'h'] => self.u32().map(drop),
            [b'x' | b't' | b'd'] => self.u64().map(drop),
            [b's' | b'o'] => self.text().map(drop),
            [b'g'] => self.signature().map(drop),
            [b'v'] => {
                let inner = self.signature()?;
                if !split_type(inner)?.1.is_empty() {
                    return Err(malformed("a variant has several types"));
                }
                self.skip(inner, depth + 1)
            }
            // The elements need not be read one by one.
            [b'a', element, ..] => {
                let end = self.array_end(alignment(*element))?;
                self.at = end;
                Ok(())
            }
            [b'(' | b'{', .., b')' | b'}'] => {
                self.align(8)?;
                let mut inside = &one[1..one.len() - 1];
                while !inside.is_empty() {
                    let (first, rest) = split_type(inside)?;
                    self.skip(first, depth + 1)?;
                    inside = rest;
                }
                Ok(())
            }
            _ => Err(malformed("a type is unknown")),
        }
    }
}

const fn alignment(code: u8) -> usize {
    match code {
        b'y' | b'g' | b'v' => 1,
        b'n' | b'q' => 2,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 4,
    }
}
