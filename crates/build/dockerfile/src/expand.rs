use dhow_types::{Span, SyntaxError};

use crate::pattern::{Greed, Pattern};
use crate::{MAX_NESTING, MAX_WORDS};

/// Looks a variable up; `None` when it is not set.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What happens to quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quotes {
    /// They quote, and stay in the result.
    Keep,
    /// They are characters like any other (bodies of here-documents).
    Literal,
    /// They quote, and are removed.
    #[default]
    Remove,
}

/// What an unset variable becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unset {
    /// Nothing.
    #[default]
    Empty,
    /// Its own name, `$x`, as in the names of steps.
    Keep,
}

/// How to expand variables in a word. The rules are those of docker's frontend (`shell/lex.go` 1.26): single
/// quotes stop expansion, `\$x` is literal, `${v}` takes the modifiers `:- - :+ + :? ? # ## % %% / //`, and the
/// words of modifiers nest.
#[derive(Clone, Copy, Debug)]
pub struct Expand {
    /// The escape character of the Dockerfile.
    pub escape: char,
    /// Quotes in the word.
    pub quotes: Quotes,
    /// Whether escape characters stay in the result.
    pub keep_escapes: bool,
    /// Unset variables.
    pub unset: Unset,
    /// Most bytes of a result. A Dockerfile of a few lines can otherwise double a value thirty times.
    pub limit: usize,
}

impl Default for Expand {
    fn default() -> Self {
        Self {
            escape: '\\',
            quotes: Quotes::Remove,
            keep_escapes: false,
            unset: Unset::Empty,
            limit: 1 << 20,
        }
    }
}

impl Expand {
    /// The word with its variables replaced and its quotes removed, as one word.
    ///
    /// # Errors
    /// Bad substitution, unterminated quote, a variable that `:?` requires, or a result over the limit. The
    /// span is relative to `word`.
    pub fn word(&self, word: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, SyntaxError> {
        let mut lexer = Lexer::new(*self, word, lookup);
        let result = lexer.until(None, self.keep_escapes, 0);
        result
            .map(|piece| piece.text)
            .map_err(|message| lexer.error(message))
    }

    /// The word split at spaces that are not quoted, after the expansion.
    ///
    /// # Errors
    /// As [`Expand::word`].
    pub fn words(
        &self,
        word: &str,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Vec<String>, SyntaxError> {
        let mut lexer = Lexer::new(*self, word, lookup);
        let result = lexer.until(None, self.keep_escapes, 0);
        result
            .and_then(|piece| piece.words.finish())
            .map_err(|message| lexer.error(message))
    }
}

struct Lexer<'a> {
    settings: Expand,
    source: &'a str,
    at: usize,
    lookup: Lookup<'a>,
    /// Bytes produced so far, over all levels.
    produced: usize,
}

/// The words that a text splits into.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Words {
    /// A character that ends a word when it is a space.
    fn push(&mut self, c: char) {
        if !c.is_whitespace() {
            self.current.push(c);
        } else if !self.current.is_empty() {
            let word = std::mem::take(&mut self.current);
            // One more than allowed is kept, for the error.
            if self.done.len() <= MAX_WORDS {
                self.done.push(word);
            }
        }
    }

    fn finish(mut self) -> Result<Vec<String>, String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        if self.done.len() > MAX_WORDS {
            return Err(format!("there are more than {MAX_WORDS} words"));
        }
        Ok(self.done)
    }
}

/// A text expanded up to its end.
#[derive(Default)]
struct Piece {
    text: String,
    words: Words,
}

impl<'a> Lexer<'a> {
    fn new(settings: Expand, source: &'a str, lookup: Lookup<'a>) -> Self {
        Self {
            settings,
            source,
            at: 0,
            lookup,
            produced: 0,
        }
    }

    fn error(&self, message: String) -> SyntaxError {
        SyntaxError {
            at: Span::new(0, self.at.max(1).min(self.source.len())),
            message,
            hint: None,
        }
    }

    fn peek(&self) -> Option<char> {
        self.source[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn grow(&mut self, bytes: usize) -> Result<(), String> {
        self.produced = self.produced.saturating_add(bytes);
        if self.produced > self.settings.limit {
            return Err(format!(
                "the expanded text is longer than {} bytes",
                self.settings.limit
            ));
        }
        Ok(())
    }

    /// Expands up to `stop`, which is taken, or to the end.
    fn until(&mut self, stop: Option<char>, keep_escapes: bool, depth: usize) -> Result<Piece, String> {
        if depth > MAX_NESTING {
            return Err(format!("substitutions nest more than {MAX_NESTING} levels deep"));
        }
        let mut piece = Piece::default();
        let quotes = self.settings.quotes != Quotes::Literal;
        while let Some(c) = self.peek() {
            if stop == Some(c) {
                self.next();
                return Ok(piece);
            }
            self.grow(c.len_utf8())?;
            match c {
                '$' => {
                    let value = self.dollar(depth)?;
                    piece.text.push_str(&value);
                    value.chars().for_each(|c| piece.words.push(c));
                }
                '\'' | '"' if quotes => {
                    let value = if c == '"' {
                        self.double_quoted(keep_escapes, depth)?
                    } else {
                        self.single_quoted()?
                    };
                    piece.text.push_str(&value);
                    piece.words.current.push_str(&value);
                }
                '<' => {
                    let value = self.less_than();
                    piece.text.push_str(value);
                    piece.words.current.push_str(value);
                }
                _ => self.plain(keep_escapes, &mut piece),
            }
        }
        match stop {
            None => Ok(piece),
            Some(stop) => Err(format!(
                "unexpected end of statement while looking for matching {stop}"
            )),
        }
    }

    fn plain(&mut self, keep_escapes: bool, piece: &mut Piece) {
        let Some(c) = self.next() else { return };
        if c != self.settings.escape {
            piece.text.push(c);
            piece.words.push(c);
            return;
        }
        if keep_escapes {
            piece.text.push(c);
            piece.words.current.push(c);
        }
        if let Some(escaped) = self.next() {
            piece.text.push(escaped);
            piece.words.current.push(escaped);
        }
    }

    /// A `<` or the start of a here-document: `<<` and the spaces before its word stay in one word.
    fn less_than(&mut self) -> &'a str {
        let start = self.at;
        self.next();
        if self.peek() == Some('<') {
            self.next();
            while self.peek().is_some_and(|c| matches!(c, ' ' | '\t' | '\r')) {
                self.next();
            }
        }
        &self.source[start..self.at]
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        self.next();
        let rest = &self.source[self.at..];
        let Some(end) = rest.find('\'') else {
            self.at = self.source.len();
            return Err("unexpected end of statement while looking for matching single-quote".to_owned());
        };
        self.at += end + 1;
        self.grow(end)?;
        Ok(match self.settings.quotes {
            Quotes::Keep => format!("'{}'", &rest[..end]),
            Quotes::Remove | Quotes::Literal => rest[..end].to_owned(),
        })
    }

    fn double_quoted(&mut self, keep_escapes: bool, depth: usize) -> Result<String, String> {
        let keep = self.settings.quotes == Quotes::Keep;
        let mut out = String::new();
        self.next();
        if keep {
            out.push('"');
        }
        loop {
            let Some(c) = self.peek() else {
                return Err("unexpected end of statement while looking for matching double-quote".to_owned());
            };
            self.grow(c.len_utf8())?;
            match c {
                '"' => {
                    self.next();
                    if keep {
                        out.push('"');
                    }
                    return Ok(out);
                }
                '$' => out.push_str(&self.dollar(depth)?),
                c if c == self.settings.escape => {
                    self.next();
                    if keep_escapes {
                        out.push(c);
                    }
                    // Only a quote, a dollar and the escape itself can be escaped here; before all else the
                    // escape is a character.
                    match self.peek() {
                        None => {}
                        Some(next) if next == '"' || next == '$' || next == self.settings.escape => {
                            self.next();
                            out.push(next);
                        }
                        Some(_) => out.push(c),
                    }
                }
                c => {
                    self.next();
                    out.push(c);
                }
            }
        }
    }

    fn name(&mut self) -> &'a str {
        let rest = &self.source[self.at..];
        let mut chars = rest.chars();
        let end = match chars.next() {
            Some(c) if c.is_numeric() => rest.find(|c: char| !c.is_numeric()).unwrap_or(rest.len()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len()),
        };
        self.at += end;
        &rest[..end]
    }

    fn value(&mut self, name: &str) -> Result<Option<String>, String> {
        let value = (self.lookup)(name);
        self.grow(value.as_ref().map_or(0, String::len))?;
        Ok(value)
    }

    /// Everything from a `$` on.
    fn dollar(&mut self, depth: usize) -> Result<String, String> {
        self.next();
        let keep = self.settings.unset == Unset::Keep;
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.value(name)? {
                None if keep => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.next();
        match self.peek() {
            None => return Err("syntax error: missing '}'".to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            Some('}') => Ok(match self.value(name)? {
                None if keep => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => match self.next() {
                Some(modifier @ ('-' | '+' | '?')) => self.modified(name, modifier, true, depth),
                other => Err(unsupported_modifier(":", other)),
            },
            Some(modifier @ ('-' | '+' | '?')) => self.modified(name, modifier, false, depth),
            Some(side @ ('#' | '%')) => self.trimmed(name, side, depth),
            Some('/') => self.replaced(name, depth),
            None => Err("syntax error: missing '}'".to_owned()),
            other => Err(unsupported_modifier("", other)),
        }
    }

    /// The word of a modifier, up to `stop`.
    fn operand(&mut self, stop: char, keep_escapes: bool, depth: usize) -> Result<String, String> {
        match self.until(Some(stop), keep_escapes, depth + 1) {
            Ok(piece) => Ok(piece.text),
            // The message of the inner error would name the wrong end.
            Err(message) if self.at >= self.source.len() && message.starts_with("unexpected end") => {
                Err(if stop == '}' {
                    "syntax error: missing '}'".to_owned()
                } else {
                    "syntax error: missing '/' in ${}".to_owned()
                })
            }
            Err(message) => Err(message),
        }
    }

    fn modified(&mut self, name: &str, modifier: char, colon: bool, depth: usize) -> Result<String, String> {
        let word = self.operand('}', false, depth)?;
        let value = self.value(name)?;
        if value.is_none() && self.settings.unset == Unset::Keep {
            let colon = if colon { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{modifier}{word}}}"));
        }
        let present = value.filter(|value| !(colon && value.is_empty()));
        match (modifier, present) {
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            ('-', None) => Ok(word),
            ('?', None) => {
                let empty = colon && (self.lookup)(name).is_some();
                let why = match (word.is_empty(), empty) {
                    (false, _) => word.as_str(),
                    (true, true) => "is not allowed to be empty",
                    (true, false) => "is not allowed to be unset",
                };
                Err(format!("{name}: {why}"))
            }
            (_, Some(value)) => Ok(value),
            (other, None) => Err(unsupported_modifier("", Some(other))),
        }
    }

    fn trimmed(&mut self, name: &str, side: char, depth: usize) -> Result<String, String> {
        let word = self.operand('}', true, depth)?;
        let Some(value) = self.value(name)? else {
            return Ok(match self.settings.unset {
                Unset::Keep => format!("${{{name}{side}{word}}}"),
                Unset::Empty => String::new(),
            });
        };
        let (greed, pattern) = match word.strip_prefix(side) {
            Some(pattern) => (Greed::Longest, pattern),
            None => (Greed::Shortest, word.as_str()),
        };
        let pattern = Pattern::parse(pattern)?;
        if side == '%' {
            pattern.trim_end(&value, greed)
        } else {
            pattern.trim_start(&value, greed)
        }
    }

    fn replaced(&mut self, name: &str, depth: usize) -> Result<String, String> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.operand('/', true, depth)?;
        let replacement = self.operand('}', true, depth)?;
        let Some(value) = self.value(name)? else {
            return Ok(match self.settings.unset {
                Unset::Keep => format!("${{{name}/{pattern}/{replacement}}}"),
                Unset::Empty => String::new(),
            });
        };
        let limit = self.settings.limit;
        let result = Pattern::parse(&pattern)?.replace(&value, &replacement, all, limit)?;
        self.grow(result.len().saturating_sub(value.len()))?;
        Ok(result)
    }
}

fn unsupported_modifier(before: &str, modifier: Option<char>) -> String {
    match modifier {
        Some(modifier) => format!("unsupported modifier ({before}{modifier}) in substitution"),
        None => "syntax error: missing '}'".to_owned(),
    }
}
