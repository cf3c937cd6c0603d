//! Text to pieces: what stands between actions, and the words in them.

use serde_json::Value;

use super::Fault;

/// One piece of a template.
#[derive(Debug)]
pub(super) enum Piece {
    /// Copied as it is.
    Text(String),
    /// The words between `{{` and `}}`.
    Action(Action),
}

/// An action's words.
#[derive(Debug)]
pub(super) struct Action {
    /// Where it begins.
    pub(super) at: usize,
    /// Its words.
    pub(super) words: Vec<Word>,
}

/// One word of an action.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Word {
    /// Where it begins.
    pub(super) at: usize,
    /// What it is.
    pub(super) kind: Kind,
    /// Whether a blank stands before it: `.A .B` are two arguments, `.A.B` is one.
    pub(super) spaced: bool,
}

/// What a word is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// `.` alone.
    Dot,
    /// `.Name`.
    Field(String),
    /// `$` or `$name`.
    Variable(String),
    /// A function or a keyword.
    Name(String),
    /// A string, a number, a character, `true`, `false`.
    Literal(Value),
    /// `nil`.
    Nil,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `|`
    Pipe,
    /// `,`
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

/// Cuts a template.
pub(super) fn lex(text: &str) -> Result<Vec<Piece>, Fault> {
    let mut pieces = Vec::new();
    let mut rest = 0;
    let mut trim = false;
    while let Some(found) = text[rest..].find("{{") {
        let open = rest + found;
        let mut inside = open + 2;
        let mut before = &text[rest..open];
        if trim {
            before = before.trim_start_matches(BLANKS);
        }
        if trim_marker(&text[inside..]) {
            before = before.trim_end_matches(BLANKS);
            inside += 1;
        }
        push_text(&mut pieces, before);
        let (end, action) =
            if let Some(comment) = text[inside..].trim_start_matches(BLANKS).strip_prefix("/*") {
                let start = text.len() - comment.len();
                let stop = comment
                    .find("*/")
                    .ok_or_else(|| Fault::new(open, "unclosed comment"))?;
                (start + stop + 2, None)
            } else {
                let mut words = Words {
                    text,
                    at: inside,
                    words: Vec::new(),
                };
                let end = words.read(open)?;
                (
                    end,
                    Some(Action {
                        at: open,
                        words: words.words,
                    }),
                )
            };
        (rest, trim) = close(text, end).ok_or_else(|| Fault::new(open, "unclosed action"))?;
        pieces.extend(action.map(Piece::Action));
    }
    let last = if trim {
        text[rest..].trim_start_matches(BLANKS)
    } else {
        &text[rest..]
    };
    push_text(&mut pieces, last);
    Ok(pieces)
}

const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// `{{- `: the minus needs a blank after it, else it is a negative number.
fn trim_marker(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next() == Some('-') && characters.next().is_some_and(|c| BLANKS.contains(&c))
}

/// Where the text goes on after the end of an action, and whether blanks are trimmed there.
fn close(text: &str, end: usize) -> Option<(usize, bool)> {
    let rest = &text[end..];
    let trimmed = rest.trim_start_matches(BLANKS);
    let offset = end + rest.len() - trimmed.len();
    if trimmed.starts_with("}}") {
        return Some((offset + 2, false));
    }
    (trimmed.starts_with("-}}") && offset > end).then_some((offset + 3, true))
}

struct Words<'a> {
    text: &'a str,
    at: usize,
    words: Vec<Word>,
}

impl Words<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// Reads words up to the end of the action; where that is, blanks before it not skipped.
    fn read(&mut self, open: usize) -> Result<usize, Fault> {
        loop {
            let before = self.at;
            let blanks = self.rest().len() - self.rest().trim_start_matches(BLANKS).len();
            if close(self.text, self.at).is_some() {
                return Ok(before);
            }
            self.at += blanks;
            if self.at >= self.text.len() {
                return Err(Fault::new(open, "unclosed action"));
            }
            let at = self.at;
            let kind = self.word()?;
            self.words.push(Word {
                at,
                kind,
                spaced: blanks > 0 || before == at && self.words.is_empty(),
            });
        }
    }

    fn word(&mut self) -> Result<Kind, Fault> {
        let rest = self.rest();
        let first = rest.chars().next().unwrap_or(' ');
        let single = match first {
            '(' => Some(Kind::Open),
            ')' => Some(Kind::Close),
            '|' => Some(Kind::Pipe),
            ',' => Some(Kind::Comma),
            '=' => Some(Kind::Assign),
            _ => None,
        };
        if let Some(kind) = single {
            self.at += 1;
            return Ok(kind);
        }
        if rest.starts_with(":=") {
            self.at += 2;
            return Ok(Kind::Declare);
        }
        match first {
            '"' | '\'' => self.quoted(first),
            '`' => {
                let end = rest[1..]
                    .find('`')
                    .ok_or_else(|| Fault::new(self.at, "unterminated raw quoted string"))?;
                let text = rest[1..=end].to_owned();
                self.at += end + 2;
                Ok(Kind::Literal(Value::String(text)))
            }
            '.' => {
                self.at += 1;
                let name = self.name();
                Ok(if name.is_empty() {
                    Kind::Dot
                } else {
                    Kind::Field(name)
                })
            }
            '$' => {
                self.at += 1;
                Ok(Kind::Variable(self.name()))
            }
            '0'..='9' | '+' | '-' => self.number(),
            c if c.is_alphabetic() || c == '_' => Ok(match self.name().as_str() {
                "true" => Kind::Literal(Value::Bool(true)),
                "false" => Kind::Literal(Value::Bool(false)),
                "nil" => Kind::Nil,
                name => Kind::Name(name.to_owned()),
            }),
            other => Err(Fault::new(self.at, format!("unexpected {other:?} in the action"))),
        }
    }

    fn name(&mut self) -> String {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let name = rest[..end].to_owned();
        self.at += end;
        name
    }

    fn number(&mut self) -> Result<Kind, Fault> {
        let at = self.at;
        let rest = self.rest();
        let end = rest
            .char_indices()
            .skip(1)
            .find(|(_, c)| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_'))
            .map_or(rest.len(), |(end, _)| end);
        let text = rest[..end].replace('_', "");
        self.at += end;
        if let Ok(number) = text.parse::<i64>() {
            return Ok(Kind::Literal(number.into()));
        }
        if let Some(hexadecimal) = text
            .strip_prefix("0x")
            .and_then(|hex| i64::from_str_radix(hex, 16).ok())
        {
            return Ok(Kind::Literal(hexadecimal.into()));
        }
        let number = text.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
        number
            .map(|n| Kind::Literal(n.into()))
            .ok_or_else(|| Fault::new(at, format!("bad number syntax: {text:?}")))
    }

    /// A string in double quotes, or a character in single ones, with Go's escapes.
    fn quoted(&mut self, quote: char) -> Result<Kind, Fault> {
        let start = self.at;
        let unclosed = || Fault::new(start, "unterminated quoted string");
        let mut out = String::new();
        let mut characters = self.text[start + 1..].char_indices();
        while let Some((offset, character)) = characters.next() {
            match character {
                c if c == quote => {
                    self.at = start + 1 + offset + 1;
                    return self.literal(start, quote, out);
                }
                '\n' => return Err(unclosed()),
                '\\' => {
                    let (_, escape) = characters.next().ok_or_else(unclosed)?;
                    out.push(match escape {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        'a' => '\u{7}',
                        'b' => '\u{8}',
                        'f' => '\u{c}',
                        'v' => '\u{b}',
                        '\\' | '\'' | '"' => escape,
                        'x' | 'u' | 'U' => {
                            let length = if escape == 'x' {
                                2
                            } else if escape == 'u' {
                                4
                            } else {
                                8
                            };
                            let digits: String = characters.by_ref().take(length).map(|(_, c)| c).collect();
                            let code = u32::from_str_radix(&digits, 16)
                                .ok()
                                .filter(|_| digits.len() == length);
                            let bad = || Fault::new(start, "invalid escape in the string");
                            char::from_u32(code.ok_or_else(bad)?).ok_or_else(bad)?
                        }
                        _ => {
                            return Err(Fault::new(
                                start,
                                format!("unknown escape \\{escape} in the string"),
                            ));
                        }
                    });
                }
                other => out.push(other),
            }
        }
        Err(unclosed())
    }

    fn literal(&self, start: usize, quote: char, text: String) -> Result<Kind, Fault> {
        if quote == '"' {
            return Ok(Kind::Literal(Value::String(text)));
        }
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(character), None) => Ok(Kind::Literal(u32::from(character).into())),
            _ => Err(Fault::new(
                start,
                "a character constant has one character; use double quotes for strings",
            )),
        }
    }
}
