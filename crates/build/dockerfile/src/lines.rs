use dhow_types::Span;

/// A physical line with its newline, and where it starts.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    pub(crate) start: usize,
    pub(crate) raw: &'a str,
}

impl<'a> Line<'a> {
    /// Without its line end.
    pub(crate) fn bare(&self) -> &'a str {
        self.raw.trim_end_matches(['\r', '\n'])
    }

    pub(crate) fn span(&self) -> Span {
        Span::new(self.start, self.start + self.bare().len())
    }

    fn is_comment(&self) -> bool {
        self.raw.trim_start().starts_with('#')
    }
}

/// Goes over a text line by line.
pub(crate) struct Lines<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lines<'a> {
    pub(crate) const fn new(text: &'a str, at: usize) -> Self {
        Self { text, at }
    }

    /// Where the next line starts.
    pub(crate) const fn offset(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let end = memchr_newline(rest.as_bytes()).map_or(rest.len(), |newline| newline + 1);
        let line = Line {
            start: self.at,
            raw: &rest[..end],
        };
        self.at += end;
        Some(line)
    }
}

fn memchr_newline(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}

/// An instruction's line with its continuations joined.
#[derive(Debug, Default)]
pub(crate) struct Logical {
    /// The joined text.
    pub(crate) text: String,
    /// Where pieces of it come from: (offset in `text`, offset in the source), both rising.
    pieces: Vec<(usize, usize)>,
    /// First byte in the source.
    pub(crate) start: usize,
    /// One past the last byte in the source.
    pub(crate) end: usize,
    /// First empty line inside a continuation.
    pub(crate) empty_continuation: Option<Span>,
}

impl Logical {
    fn push(&mut self, text: &str, start: usize) {
        if text.is_empty() {
            return;
        }
        self.pieces.push((self.text.len(), start));
        self.text.push_str(text);
    }

    /// Place in the source of these bytes of the joined text.
    pub(crate) fn span(&self, start: usize, end: usize) -> Span {
        let from = self.place(start);
        // The last byte is mapped, so that a span up to the end of a piece does not reach into the next one.
        let to = if end > start {
            self.place(end - 1) + 1
        } else {
            from
        };
        Span::new(from, to.max(from))
    }

    fn place(&self, offset: usize) -> usize {
        let index = self.pieces.partition_point(|(joined, _)| *joined <= offset);
        match index.checked_sub(1).and_then(|index| self.pieces.get(index)) {
            Some((joined, source)) => source + (offset - joined),
            None => self.start,
        }
    }
}

/// Joins `first` with the lines that continue it. Comment lines in between are dropped, empty ones too.
pub(crate) fn join<'a>(first: Line<'a>, lines: &mut Lines<'a>, escape: char) -> Logical {
    let trimmed = first.bare().trim_start();
    let start = first.start + (first.bare().len() - trimmed.len());
    let mut logical = Logical {
        start,
        end: first.start + first.bare().len(),
        ..Logical::default()
    };
    let (text, mut continues) = cut_continuation(trimmed, escape);
    logical.push(text, start);
    while continues {
        let Some(line) = lines.next() else { break };
        if line.is_comment() {
            continue;
        }
        if line.raw.trim_start().is_empty() {
            logical.empty_continuation.get_or_insert(line.span());
            continue;
        }
        let text;
        (text, continues) = cut_continuation(line.bare(), escape);
        logical.push(text, line.start);
        logical.end = line.start + line.bare().len();
    }
    logical
}

/// The line without its continuation mark, and whether it had one: the escape character, then spaces or tabs,
/// and no second escape character before it.
fn cut_continuation(line: &str, escape: char) -> (&str, bool) {
    let Some(before) = line.trim_end_matches([' ', '\t']).strip_suffix(escape) else {
        return (line, false);
    };
    if before.ends_with(escape) {
        (line, false)
    } else {
        (before, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(text: &str) -> Logical {
        let mut lines = Lines::new(text, 0);
        let first = lines.next().unwrap();
        join(first, &mut lines, '\\')
    }

    #[test]
    fn continuation_drops_comments_and_empty_lines_and_keeps_leading_space() {
        let logical = joined("  RUN a \\ \t\n# no\n\n  b\\\n\tc\nRUN d\n");
        assert_eq!(logical.text, "RUN a   b\tc");
        assert_eq!(logical.empty_continuation, Some(Span::new(17, 17)));
    }

    #[test]
    fn two_escape_characters_do_not_continue() {
        assert_eq!(joined("RUN a\\\\\nb").text, "RUN a\\\\");
    }

    #[test]
    fn a_place_in_the_joined_text_maps_back_to_its_line() {
        let text = "RUN a \\\n  bcd";
        let logical = joined(text);
        let at = logical.text.find("bcd").unwrap();
        let span = logical.span(at, at + 3);
        assert_eq!(&text[span.start..span.end], "bcd");
    }
}
