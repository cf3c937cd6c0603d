//! Splitting an instruction's text: keyword, flags, words, key and value pairs.

use crate::lines::Logical;
use crate::{Flag, MAX_WORDS, Pair};
use dhow_types::SyntaxError;

/// Spaces between the words of lists (`FROM`, `EXPOSE`, `COPY`).
pub(crate) const fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// An instruction's text in its three parts, with places in the joined line.
pub(crate) struct Parts<'a> {
    pub(crate) keyword: &'a str,
    pub(crate) flags: Vec<Flag>,
    pub(crate) arguments: &'a str,
    /// Where the arguments start in the joined line.
    pub(crate) offset: usize,
}

/// Splits `KEYWORD --flag=value arguments`.
pub(crate) fn split<'a>(line: &'a Logical, escape: char) -> Result<Parts<'a>, SyntaxError> {
    let text = line.text.as_str();
    let trimmed = text.trim();
    let start = text.len() - text.trim_start().len();
    let Some((keyword, rest)) = trimmed.split_once(is_blank) else {
        return Ok(Parts {
            keyword: trimmed,
            flags: Vec::new(),
            arguments: "",
            offset: start + trimmed.len(),
        });
    };
    let rest_at = start + keyword.len() + 1;
    let (flags, used) = flags(line, rest, rest_at, escape)?;
    let arguments = rest[used..].trim_start();
    Ok(Parts {
        keyword,
        flags,
        offset: rest_at + rest.len() - arguments.len(),
        arguments: arguments.trim_end(),
    })
}

/// Takes the words that start with `--` off the front, removing quotes and escapes; a lone `--` ends them.
fn flags(line: &Logical, text: &str, offset: usize, escape: char) -> Result<(Vec<Flag>, usize), SyntaxError> {
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let word_at = at + (rest.len() - rest.trim_start().len());
        if !text[word_at..].starts_with("--") {
            return Ok((found, word_at));
        }
        let (word, end) = flag_word(text, word_at, escape);
        at = end;
        if word == "--" {
            return Ok((found, at));
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let span = line.span(offset + word_at, offset + end);
        if found.len() >= 1024 {
            return Err(SyntaxError {
                at: span,
                message: "an instruction has more than 1024 flags".to_owned(),
                hint: None,
            });
        }
        found.push(Flag {
            at: span,
            name: name.trim_start_matches("--").to_owned(),
            value,
        });
    }
}

fn flag_word(text: &str, start: usize, escape: char) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text[start..].char_indices();
    while let Some((index, c)) = chars.next() {
        if c == escape {
            if let Some((_, escaped)) = chars.next() {
                word.push(escaped);
            }
        } else if quote == Some(c) {
            quote = None;
        } else if quote.is_some() {
            word.push(c);
        } else if c.is_whitespace() {
            return (word, start + index);
        } else if c == '\'' || c == '"' {
            quote = Some(c);
        } else {
            word.push(c);
        }
    }
    (word, text.len())
}

/// Splits at spaces outside quotes; quotes and escapes stay in the words (they are removed by the expansion).
pub(crate) fn shell_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        // Nothing can be escaped in single quotes.
        if c == escape && quote != Some('\'') {
            // An escape at the very end is dropped.
            if let Some(escaped) = chars.next() {
                word.push(c);
                word.push(escaped);
            }
            continue;
        }
        if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && (c == '\'' || c == '"') {
            quote = Some(c);
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Splits at blanks, nothing else.
pub(crate) fn plain_words(text: &str) -> Vec<String> {
    text.split(is_blank)
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The words of a JSON array of strings, `None` when the text is no JSON array.
pub(crate) fn json_words(text: &str) -> Option<Result<Vec<String>, String>> {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return None;
    }
    let values: Vec<serde_json::Value> = serde_json::from_str(text).ok()?;
    let words: Option<Vec<String>> = values
        .into_iter()
        .map(|value| match value {
            serde_json::Value::String(word) => Some(word),
            _ => None,
        })
        .collect();
    Some(words.ok_or_else(|| "only string type is supported in a JSON array".to_owned()))
}

/// The pairs of `ENV` and `LABEL`: `k=v k2="v 2"`, or in the old form `k the rest`.
pub(crate) fn pairs(text: &str, keyword: &str, escape: char) -> Result<Vec<Pair>, String> {
    let words = shell_words(text, escape);
    let Some(first) = words.first() else {
        return Err(format!("{keyword} requires at least one argument"));
    };
    if !first.contains('=') {
        let Some((key, value)) = text.split_once(is_blank) else {
            return Err(format!("{keyword} must have two arguments"));
        };
        return Ok(vec![Pair {
            key: key.to_owned(),
            value: value.trim_start_matches(is_blank).to_owned(),
            legacy: true,
        }]);
    }
    if words.len() > MAX_WORDS {
        return Err(format!("{keyword} has more than {MAX_WORDS} words"));
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            None => Err(format!(
                "syntax error - can't find = in {word:?}: must be of the form name=value"
            )),
            Some(("", _)) => Err(format!("{keyword} names can not be blank")),
            Some((key, value)) => Ok(Pair {
                key: key.to_owned(),
                value: value.to_owned(),
                legacy: false,
            }),
        })
        .collect()
}
