use dhow_types::{Span, SyntaxError};

use crate::lines::Lines;
use crate::{Expand, Heredoc, Quotes, Unset};

/// What the word `3<<-"EOF"` announces; the body comes later.
pub(crate) fn parse_word(word: &str) -> Option<Heredoc> {
    let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let rest = word[digits..].strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start();
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    // The delimiter with and without its quotes: where they differ, a part of it was quoted.
    let settings = Expand {
        unset: Unset::Keep,
        ..Expand::default()
    };
    let plain = one_word(settings, rest)?;
    let quoted = one_word(
        Expand {
            quotes: Quotes::Keep,
            ..settings
        },
        rest,
    )?;
    Some(Heredoc {
        at: Span::default(),
        expand: count_quotes(&plain) == count_quotes(&quoted),
        name: plain,
        descriptor: word[..digits].parse().unwrap_or(0),
        chomp,
        content: String::new(),
    })
}

fn one_word(settings: Expand, text: &str) -> Option<String> {
    let mut words = settings.words(text, &|_| None).ok()?;
    if words.len() == 1 { words.pop() } else { None }
}

fn count_quotes(text: &str) -> usize {
    text.matches(['\'', '"']).count()
}

/// The here-documents that an instruction's line announces, without their bodies.
pub(crate) fn announced(line: &str) -> Vec<Heredoc> {
    if !line.contains("<<") {
        return Vec::new();
    }
    let settings = Expand {
        quotes: Quotes::Keep,
        keep_escapes: true,
        unset: Unset::Keep,
        limit: usize::MAX,
        ..Expand::default()
    };
    // A line that cannot be split is the shell's to judge.
    let words = settings.words(line, &|_| None).unwrap_or_default();
    words.iter().filter_map(|word| parse_word(word)).collect()
}

/// Reads the body of a here-document from the lines.
pub(crate) fn read_body(
    heredoc: &mut Heredoc,
    lines: &mut Lines<'_>,
    line_at: Span,
) -> Result<(), SyntaxError> {
    let start = lines.offset();
    for line in lines.by_ref() {
        let bare = line.bare();
        let candidate = if heredoc.chomp {
            bare.trim_start_matches('\t')
        } else {
            bare
        };
        if candidate == heredoc.name {
            heredoc.at = Span::new(start, line.start);
            return Ok(());
        }
        heredoc.content.push_str(line.raw);
    }
    Err(SyntaxError {
        at: line_at,
        message: "unterminated heredoc".to_owned(),
        hint: Some(format!("end it with a line that holds only {}", heredoc.name)),
    })
}
