//! As much of CBOR (RFC 8949) as signatures need: values of definite length, bounded.

use dhow_types::ErrorKind;

use crate::Error;

/// Deepest value in values, and most values of a document.
const MAX_DEPTH: usize = 8;
const MAX_VALUES: usize = 4096;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

/// A value. Numbers beyond 63 bits, fractions and simple values are no part of what is read here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Number(i64),
    Bytes(&'a [u8]),
    Text(&'a str),
    List(Vec<Value<'a>>),
    Map(Vec<(Value<'a>, Value<'a>)>),
    Tag(u64, Box<Value<'a>>),
}

fn bad(why: &str) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("the signature's envelope is damaged: {why}"),
    )
}

impl<'a> Value<'a> {
    /// The one value that the bytes are.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Reader {
            rest: bytes,
            values: 0,
        };
        let value = reader.value(0)?;
        if reader.rest.is_empty() {
            Ok(value)
        } else {
            Err(bad("something follows its end"))
        }
    }

    pub(crate) fn bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn list(&self) -> Option<&[Self]> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }

    /// What a map has under a key.
    pub(crate) fn get(&self, key: &Self) -> Option<&Self> {
        match self {
            Self::Map(map) => map.iter().find(|(found, _)| found == key).map(|(_, value)| value),
            _ => None,
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    values: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], Error> {
        let cut_off = || bad("it is cut off");
        let count = usize::try_from(count).map_err(|_| cut_off())?;
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(cut_off)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The kind of the next value, and its number: a length, or the value itself.
    fn head(&mut self) -> Result<(u8, u64), Error> {
        let first = self.take(1)?[0];
        let number = match first & 0x1f {
            small @ 0..=23 => u64::from(small),
            wide @ 24..=27 => {
                let bytes = self.take(1 << (wide - 24))?;
                bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
            }
            _ => return Err(bad("a length in it is not definite")),
        };
        Ok((first >> 5, number))
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, Error> {
        self.values += 1;
        if depth > MAX_DEPTH || self.values > MAX_VALUES {
            return Err(bad("it has too many values, or too deep ones"));
        }
        let (kind, number) = self.head()?;
        let signed = || i64::try_from(number).map_err(|_| bad("a number in it is too large"));
        Ok(match kind {
            UNSIGNED => Value::Number(signed()?),
            NEGATIVE => Value::Number(-1 - signed()?),
            BYTES => Value::Bytes(self.take(number)?),
            TEXT => {
                let text = std::str::from_utf8(self.take(number)?);
                Value::Text(text.map_err(|_| bad("a text in it is none"))?)
            }
            LIST => {
                let mut list = Vec::new();
                for _ in 0..number {
                    list.push(self.value(depth + 1)?);
                }
                Value::List(list)
            }
            MAP => {
                let mut map: Vec<(Value<'a>, Value<'a>)> = Vec::new();
                for _ in 0..number {
                    let (key, value) = (self.value(depth + 1)?, self.value(depth + 1)?);
                    if map.iter().any(|(known, _)| *known == key) {
                        return Err(bad("it says something twice"));
                    }
                    map.push((key, value));
                }
                Value::Map(map)
            }
            TAG => Value::Tag(number, Box::new(self.value(depth + 1)?)),
            _ => return Err(bad("it has a value of a kind that is not known")),
        })
    }
}

fn head(kind: u8, number: u64) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let (small, from) = match number {
        0..=23 => return vec![kind << 5 | bytes[7]],
        24..=0xff => (24, 7),
        0x100..=0xffff => (25, 6),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 0),
    };
    let mut out = vec![kind << 5 | small];
    out.extend_from_slice(&bytes[from..]);
    out
}

pub(crate) fn number(number: i64) -> Vec<u8> {
    match u64::try_from(number) {
        Ok(number) => head(UNSIGNED, number),
        // -1 is written 0.
        Err(_) => head(NEGATIVE, number.unsigned_abs() - 1),
    }
}

pub(crate) fn bytes(content: &[u8]) -> Vec<u8> {
    [head(BYTES, content.len() as u64), content.to_vec()].concat()
}

pub(crate) fn text(content: &str) -> Vec<u8> {
    [head(TEXT, content.len() as u64), content.as_bytes().to_vec()].concat()
}

pub(crate) fn list(values: &[Vec<u8>]) -> Vec<u8> {
    [head(LIST, values.len() as u64), values.concat()].concat()
}

/// Keys in the order of their bytes (RFC 8949, section 4.2.1).
pub(crate) fn map(mut pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<u8> {
    pairs.sort();
    let content: Vec<u8> = pairs
        .iter()
        .flat_map(|(key, value)| [&key[..], value].concat())
        .collect();
    [head(MAP, pairs.len() as u64), content].concat()
}

pub(crate) fn tag(number: u64, value: Vec<u8>) -> Vec<u8> {
    [head(TAG, number), value].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_written_as_the_standard_has_them_and_read_back() {
        // RFC 8949, appendix A.
        for (written, wanted) in [
            (number(0), "00"),
            (number(23), "17"),
            (number(24), "1818"),
            (number(1000), "1903e8"),
            (number(1_000_000), "1a000f4240"),
            (number(1_000_000_000_000), "1b000000e8d4a51000"),
            (number(-1), "20"),
            (number(-100), "3863"),
            (number(-1000), "3903e7"),
            (tag(1, number(1_363_896_240)), "c11a514b67b0"),
            (bytes(&[1, 2, 3, 4]), "4401020304"),
            (text("IETF"), "6449455446"),
            (list(&[number(1), number(2)]), "820102"),
            (
                map(vec![(text("b"), number(3)), (text("a"), number(1))]),
                "a2616101616203",
            ),
        ] {
            let hex: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, wanted);
            Value::read(&written).unwrap();
        }
        let (one, map) = (number(-7), map(vec![(number(1), number(-7))]));
        let (one, map) = (Value::read(&one).unwrap(), Value::read(&map).unwrap());
        assert_eq!(map.get(&Value::Number(1)), Some(&one));
    }

    #[test]
    fn what_is_cut_off_endless_or_said_twice_is_refused() {
        let deep = [vec![0x81; 20], vec![0]].concat();
        let cases: [&[u8]; 10] = [
            b"",
            b"\x44\x01",
            b"\x82\x01",
            b"\x9f\x01\xff",
            b"\x5f\x41\x01\xff",
            b"\x00\x00",
            b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff\x00",
            b"\xa2\x01\x02\x01\x03",
            &deep,
        ];
        for bytes in cases {
            assert!(Value::read(bytes).is_err(), "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_stop_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(Value::read(&bytes));
        }
    }
}
