//! DER (X.690), as much as keys and certificates need: read strictly, written minimally.
//!
//! Nothing here recurses: a caller walks down as deep as its own structure is.

use dhow_types::ErrorKind;

use crate::Error;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BITS: u8 = 0x03;
pub(crate) const OCTETS: u8 = 0x04;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OID: u8 = 0x06;
pub(crate) const UTF8: u8 = 0x0c;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// The tag of a constructed field `[number]`.
pub(crate) const fn context(number: u8) -> u8 {
    0xa0 | number
}

fn bad(why: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("the DER is damaged: {why}"))
}

/// One element: its tag, what it holds, and all of its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) whole: &'a [u8],
}

/// Reads element after element.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The content of the only element of these bytes.
    pub(crate) fn only(bytes: &'a [u8], tag: u8) -> Result<Self, Error> {
        let mut reader = Self(bytes);
        let inside = reader.expect(tag)?;
        reader.end()?;
        Ok(Self(inside))
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn end(&self) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(bad("something follows its end"))
    }

    pub(crate) fn any(&mut self) -> Result<Element<'a>, Error> {
        let [tag, first, rest @ ..] = self.0 else {
            return Err(bad("it ends too early"));
        };
        if tag & 0x1f == 0x1f {
            return Err(bad("a tag has more than one byte"));
        }
        let (length, rest) = match *first {
            short @ 0..=0x7f => (usize::from(short), rest),
            // Nothing that is read here has 16 MiB.
            long @ 0x81..=0x83 => {
                let count = usize::from(long & 0x7f);
                let Some((digits, rest)) = rest.split_at_checked(count) else {
                    return Err(bad("it ends in a length"));
                };
                let length = digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
                if digits[0] == 0 || length < 0x80 {
                    return Err(bad("a length is not written in its shortest form"));
                }
                (length, rest)
            }
            _ => return Err(bad("a length is not of a known form")),
        };
        let Some((content, after)) = rest.split_at_checked(length) else {
            return Err(bad("an element is longer than what is left"));
        };
        let whole = &self.0[..self.0.len() - after.len()];
        self.0 = after;
        Ok(Element {
            tag: *tag,
            content,
            whole,
        })
    }

    pub(crate) fn expect(&mut self, tag: u8) -> Result<&'a [u8], Error> {
        let found = self.any()?;
        if found.tag == tag {
            return Ok(found.content);
        }
        Err(bad(&format!(
            "an element is {:#04x}, expected was {tag:#04x}",
            found.tag
        )))
    }

    pub(crate) fn inside(&mut self, tag: u8) -> Result<Self, Error> {
        self.expect(tag).map(Self)
    }

    /// The next element when it has this tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, Error> {
        if self.0.first() == Some(&tag) {
            return self.expect(tag).map(Some);
        }
        Ok(None)
    }

    /// A bit string of whole bytes.
    pub(crate) fn bits(&mut self) -> Result<&'a [u8], Error> {
        match self.expect(BITS)? {
            [0, bytes @ ..] => Ok(bytes),
            _ => Err(bad("a bit string is not of whole bytes")),
        }
    }
}

/// An element of these parts.
pub(crate) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let digits = length.to_be_bytes();
            let digits: Vec<u8> = digits.into_iter().skip_while(|digit| *digit == 0).collect();
            out.push(0x80 | u8::try_from(digits.len()).unwrap_or(8));
            out.extend(digits);
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, parts)
}

/// A bit string of whole bytes.
pub(crate) fn bits(bytes: &[u8]) -> Vec<u8> {
    element(BITS, &[&[0], bytes])
}

/// A positive integer of these big-endian bytes.
pub(crate) fn integer(bytes: &[u8]) -> Vec<u8> {
    let first = bytes.iter().position(|byte| *byte != 0);
    let bytes = first.map_or(&[0_u8][..], |first| &bytes[first..]);
    let sign: &[u8] = if bytes[0] & 0x80 == 0 { &[] } else { &[0] };
    element(INTEGER, &[sign, bytes])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_and_any_bytes_are_read_without_panic(content in prop::collection::vec(any::<u8>(), 0..70_000), noise in prop::collection::vec(any::<u8>(), 0..64)) {
            let written = element(OCTETS, &[&content]);
            let mut reader = Reader::new(&written);
            prop_assert_eq!(reader.expect(OCTETS).unwrap(), &content[..]);
            prop_assert!(reader.end().is_ok());
            let mut reader = Reader::new(&noise);
            while let Ok(found) = reader.any() {
                prop_assert!(found.content.len() <= noise.len());
            }
        }
    }

    #[test]
    fn lengths_in_a_longer_form_than_needed_or_beyond_the_end_are_refused() {
        for bytes in [
            &[4, 0x81, 1, 0][..],
            &[4, 0x82, 0, 0x80],
            &[4, 0x80, 0, 0],
            &[4, 0x84, 0, 0, 0, 0],
            &[4, 2, 0],
            &[0x1f, 1, 0],
            &[4],
        ] {
            assert!(Reader::new(bytes).any().is_err(), "{bytes:?}");
        }
        assert_eq!(integer(&[0, 0x80]), [2, 2, 0, 0x80]);
        assert_eq!(integer(&[0, 0]), [2, 1, 0]);
    }
}
