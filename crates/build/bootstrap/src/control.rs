//! Control paragraphs (deb822(5)): `Field: value` lines, continuation lines start with a blank, paragraphs are
//! separated by empty lines.

use std::io::BufRead;

use dhow_types::ErrorKind;

use crate::Error;

/// No paragraph of a real index comes near this; the longest of Debian 12 is under 100 kB.
const MAX_PARAGRAPH: usize = 4 << 20;
/// More fields than any control file has.
const MAX_FIELDS: usize = 512;

/// One paragraph, as a view of its text.
#[derive(Clone, Debug, Default)]
pub struct Paragraph<'a> {
    fields: Vec<(&'a str, &'a str)>,
}

impl<'a> Paragraph<'a> {
    /// Reads one paragraph. Lines that start with `#` are comments.
    ///
    /// # Errors
    /// When a line is neither a field nor a continuation, a field comes twice, or there are too many.
    pub fn parse(text: &'a str) -> Result<Self, Error> {
        let bad = |why: &str, line: &str| {
            let start: String = line.chars().take(60).collect();
            Error::new(
                ErrorKind::InvalidArgument,
                format!("control text: {why}: {start:?}"),
            )
        };
        let mut fields: Vec<(&'a str, &'a str)> = Vec::with_capacity(24);
        let mut offset = 0;
        for line in text.split_inclusive('\n') {
            let start = offset;
            offset += line.len();
            let content = line.trim_end();
            if content.starts_with('#') || (content.is_empty() && fields.is_empty()) {
                continue;
            }
            if line.starts_with([' ', '\t']) {
                let Some((_, value)) = fields.last_mut() else {
                    return Err(bad("continuation without a field", content));
                };
                // The value runs on: it is one slice of the text, so that nothing is copied.
                let value_start = value.as_ptr() as usize - text.as_ptr() as usize;
                *value = text[value_start..start + content.len()].trim_end();
                continue;
            }
            let Some((name, value)) = content.split_once(':') else {
                return Err(bad("line without a colon", content));
            };
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) || name.starts_with('-') {
                return Err(bad("bad field name", content));
            }
            if fields.iter().any(|(seen, _)| seen.eq_ignore_ascii_case(name)) {
                return Err(bad("field given twice", name));
            }
            if fields.len() == MAX_FIELDS {
                return Err(bad("too many fields", name));
            }
            fields.push((name, value.trim()));
        }
        Ok(Self { fields })
    }

    /// The raw value of a field (name in any case), continuation lines included as they stand.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.fields
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value)
    }

    /// The value of a field that must be there and not be empty.
    ///
    /// # Errors
    /// When it is missing.
    pub fn need(&self, name: &str) -> Result<&'a str, Error> {
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!("control text: no field {name}"),
            )
        })
    }

    /// All fields in order.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a str)> + '_ {
        self.fields.iter().copied()
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

/// Takes a stream apart into the texts of its paragraphs, holding one at a time.
#[derive(Debug)]
pub struct Paragraphs<R> {
    reader: R,
    buffer: Vec<u8>,
}

impl<R: BufRead> Paragraphs<R> {
    /// Reads from `reader`.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: Vec::with_capacity(8 << 10),
        }
    }

    /// The text of the next paragraph, or `None` at the end.
    ///
    /// # Errors
    /// When reading fails, the text is not UTF-8, or a paragraph is larger than 4 MiB.
    pub fn next_text(&mut self) -> Result<Option<&str>, Error> {
        self.buffer.clear();
        loop {
            let start = self.buffer.len();
            let room = (MAX_PARAGRAPH - start.min(MAX_PARAGRAPH)) as u64;
            let read = std::io::Read::take(&mut self.reader, room)
                .read_until(b'\n', &mut self.buffer)
                .map_err(|error| {
                    Error::because(ErrorKind::DataLoss, "cannot read an index of packages", error)
                })?;
            if self.buffer.len() >= MAX_PARAGRAPH {
                return Err(Error::new(
                    ErrorKind::ResourceExhausted,
                    "a control paragraph is over 4 MiB",
                ));
            }
            let blank = self.buffer[start..].iter().all(u8::is_ascii_whitespace);
            if read == 0 || blank {
                self.buffer.truncate(start);
                if start > 0 {
                    break;
                }
                if read == 0 {
                    return Ok(None);
                }
            }
        }
        match std::str::from_utf8(&self.buffer) {
            Ok(text) => Ok(Some(text)),
            Err(error) => Err(Error::because(
                ErrorKind::InvalidArgument,
                "a control paragraph is not UTF-8",
                error,
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_run_on_over_continuation_lines() {
        let text = "Package: x\n# note\nDepends: a,\n b\nDescription: short\n long\n .\n more\n";
        let paragraph = Paragraph::parse(text).unwrap();
        assert_eq!(paragraph.get("package"), Some("x"));
        assert_eq!(paragraph.get("Depends"), Some("a,\n b"));
        assert_eq!(paragraph.get("Description"), Some("short\n long\n .\n more"));
        assert_eq!(paragraph.get("Version"), None);
        assert!(paragraph.need("Version").is_err());
    }

    #[test]
    fn an_empty_first_line_then_a_list_is_one_value() {
        let paragraph = Paragraph::parse("SHA256:\n abc 1 x\n def 2 y\nNext: z\n").unwrap();
        let lines: Vec<&str> = paragraph.get("SHA256").unwrap().lines().map(str::trim).collect();
        assert_eq!(lines.iter().filter(|line| !line.is_empty()).count(), 2);
        assert_eq!(paragraph.get("Next"), Some("z"));
    }

    #[test]
    fn broken_paragraphs_are_refused() {
        for bad in [
            " continuation",
            "no colon",
            "A: 1\nA: 2",
            "A: 1\na: 2",
            ": x",
            "-A: x",
            "A B: x",
        ] {
            assert!(Paragraph::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_stream_is_cut_at_empty_lines() {
        let text = "\n\nA: 1\nB: 2\n\n \nA: 3\n";
        let mut stream = Paragraphs::new(text.as_bytes());
        assert_eq!(stream.next_text().unwrap(), Some("A: 1\nB: 2\n"));
        assert_eq!(stream.next_text().unwrap(), Some("A: 3\n"));
        assert_eq!(stream.next_text().unwrap(), None);
    }

    #[test]
    fn an_endless_paragraph_is_refused() {
        let endless = std::io::BufReader::new(std::io::repeat(b'x'));
        assert!(Paragraphs::new(endless).next_text().is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "([A-C]?[:# .a\\n]{0,6}){0,12}") {
            if let Ok(paragraph) = Paragraph::parse(&text) {
                for (name, value) in paragraph.fields() {
                    prop_assert!(!name.is_empty() && text.contains(value));
                }
            }
            let mut stream = Paragraphs::new(text.as_bytes());
            while let Ok(Some(one)) = stream.next_text() {
                prop_assert!(!one.trim().is_empty());
            }
        }
    }
}
