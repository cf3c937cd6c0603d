//! Patterns of `.dockerignore`, `--exclude` and `--parents`, with the meaning of moby/patternmatcher, and the globs
//! of `COPY` sources, with that of Go's `filepath.Match`.
//!
//! A pattern is compiled to a small automaton that is run with a set of states: time is at most length of the path
//! times length of the pattern, whatever the pattern.

use crate::failure::{Error, invalid};

/// Most patterns of one list.
const MAX_PATTERNS: usize = 10_000;
/// Most characters of one pattern.
const MAX_PATTERN: usize = 4096;

/// A list of patterns where the last match decides.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patterns {
    patterns: Vec<Pattern>,
    exceptions: bool,
}

/// Which patterns matched a directory: what its children need to know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matched(Vec<bool>);

#[derive(Clone, Debug)]
struct Pattern {
    text: Vec<u8>,
    exception: bool,
    glob: Glob,
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) enum Glob {
    /// The path itself.
    Exact(Vec<u8>),
    /// A path that begins so: `dir/**`.
    Prefix(Vec<u8>),
    /// A path that ends so: `**/name`.
    Suffix(Vec<u8>),
    /// Everything else.
    Automaton(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Char(char),
    /// `?`
    NotSlash,
    /// `*`
    Star,
    /// `**` at the end
    Anything,
    /// Begin of `(.*/)?`: either skip [`Token::Directories`] or enter it.
    MaybeDirectories,
    /// `.*/`
    Directories,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// Whether `**` means any number of directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stars {
    /// `**` crosses directories.
    Cross,
    /// `**` is `*` twice.
    Stay,
}

impl Glob {
    /// Compiles a pattern; refuses what Go's `filepath.Match` calls a bad pattern.
    pub(crate) fn compile(pattern: &str, stars: Stars) -> Result<Self, Error> {
        if pattern.chars().count() > MAX_PATTERN {
            return Err(invalid(format!(
                "a pattern has more than {MAX_PATTERN} characters"
            )));
        }
        let tokens =
            tokens(pattern, stars).ok_or_else(|| invalid(format!("syntax error in pattern {pattern:?}")))?;
        // As in patternmatcher, a leading `**` before plain text is a plain suffix: `**a` matches `ba`.
        let plain = |tokens: &[Token]| -> Option<Vec<u8>> {
            let mut text = String::new();
            for token in tokens {
                match token {
                    Token::Char(c) => text.push(*c),
                    _ => return None,
                }
            }
            Some(text.into_bytes())
        };
        if pattern.contains('\\') {
            return Ok(Self::Automaton(tokens));
        }
        Ok(match tokens.as_slice() {
            [Token::MaybeDirectories, Token::Directories, rest @ ..] if plain(rest).is_some() => {
                // The slash of `**/` belongs to the suffix.
                Self::Suffix(pattern.as_bytes()[2..].to_vec())
            }
            [Token::Anything] => Self::Prefix(Vec::new()),
            [start @ .., Token::Anything] => match plain(start) {
                Some(text) => Self::Prefix(text),
                None => Self::Automaton(tokens),
            },
            all => match plain(all) {
                Some(text) => Self::Exact(text),
                None => Self::Automaton(tokens),
            },
        })
    }

    /// Whether the whole path matches.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(text) => path == text,
            Self::Prefix(text) => path.starts_with(text),
            Self::Suffix(text) => path.ends_with(text) || text.strip_prefix(b"/") == Some(path),
            Self::Automaton(tokens) => run(tokens, path),
        }
    }
}

fn tokens(pattern: &str, stars: Stars) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if stars == Stars::Cross && chars.peek() == Some(&'*') => {
                chars.next();
                if chars.peek() == Some(&'/') {
                    chars.next();
                }
                if chars.peek().is_none() {
                    tokens.push(Token::Anything);
                } else {
                    tokens.extend([Token::MaybeDirectories, Token::Directories]);
                }
            }
            '*' => tokens.push(Token::Star),
            '?' => tokens.push(Token::NotSlash),
            '[' => tokens.push(class(&mut chars)?),
            '\\' => tokens.push(Token::Char(chars.next()?)),
            other => tokens.push(Token::Char(other)),
        }
    }
    Some(tokens)
}

/// The rest of `[^a-z]`; `None` when it is malformed.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match chars.next()? {
            ']' if !ranges.is_empty() => return Some(Token::Class { negated, ranges }),
            ']' | '-' => return None,
            '\\' => chars.next()?,
            other => other,
        };
        let high = if chars.next_if_eq(&'-').is_some() {
            match chars.next()? {
                ']' | '-' => return None,
                '\\' => chars.next()?,
                other => other,
            }
        } else {
            low
        };
        ranges.push((low, high));
    }
}

/// The characters of a path; a byte that is no UTF-8 becomes a character of its own that no pattern can name.
fn characters(path: &[u8]) -> Vec<char> {
    let mut found = Vec::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        found.extend(chunk.valid().chars());
        found.extend(
            chunk
                .invalid()
                .iter()
                .filter_map(|byte| char::from_u32(0x10_FF00 + u32::from(*byte))),
        );
    }
    found
}

fn run(tokens: &[Token], path: &[u8]) -> bool {
    let mut now = vec![false; tokens.len() + 1];
    let mut next = now.clone();
    enter(tokens, &mut now, 0);
    for c in characters(path) {
        next.fill(false);
        for (state, token) in tokens.iter().enumerate() {
            if !now[state] {
                continue;
            }
            match token {
                Token::Char(wanted) if *wanted == c => enter(tokens, &mut next, state + 1),
                Token::NotSlash if c != '/' => enter(tokens, &mut next, state + 1),
                Token::Star if c != '/' => enter(tokens, &mut next, state),
                Token::Anything => enter(tokens, &mut next, state),
                Token::Directories => {
                    next[state] = true;
                    if c == '/' {
                        enter(tokens, &mut next, state + 1);
                    }
                }
                Token::Class { negated, ranges } => {
                    let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                    if inside != *negated {
                        enter(tokens, &mut next, state + 1);
                    }
                }
                _ => {}
            }
        }
        std::mem::swap(&mut now, &mut next);
    }
    now[tokens.len()]
}

/// Sets a state and those that it reaches without a character.
fn enter(tokens: &[Token], states: &mut [bool], mut state: usize) {
    loop {
        if states[state] {
            return;
        }
        states[state] = true;
        match tokens.get(state) {
            Some(Token::Star | Token::Anything) => state += 1,
            Some(Token::MaybeDirectories) => {
                states[state + 1] = true;
                state += 2;
            }
            _ => return,
        }
    }
}

impl Patterns {
    /// Compiles patterns as patternmatcher does: trimmed, cleaned, `!` makes an exception.
    pub(crate) fn compile<S: AsRef<str>>(lines: impl IntoIterator<Item = S>) -> Result<Self, Error> {
        let mut found = Self::default();
        for line in lines {
            let line = line.as_ref().trim();
            if line.is_empty() {
                continue;
            }
            let cleaned = clean(line);
            let (exception, text) = match cleaned.strip_prefix('!') {
                Some("") => return Err(invalid("illegal exclusion pattern: \"!\"")),
                Some(rest) => (true, rest.to_owned()),
                None => (false, cleaned),
            };
            if found.patterns.len() >= MAX_PATTERNS {
                return Err(invalid(format!("there are more than {MAX_PATTERNS} patterns")));
            }
            found.exceptions |= exception;
            found.patterns.push(Pattern {
                exception,
                glob: Glob::compile(&text, Stars::Cross)?,
                text: text.into_bytes(),
            });
        }
        Ok(found)
    }

    /// Reads the text of a `.dockerignore`.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        Self::compile(patterns_of(text))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether some pattern brings something back.
    pub(crate) const fn has_exceptions(&self) -> bool {
        self.exceptions
    }

    /// Whether some pattern by itself leaves out all that there is.
    pub(crate) fn leaves_out_everything(&self) -> bool {
        let all: [&[u8]; 3] = [b"*", b"**", b"**/*"];
        self.patterns
            .iter()
            .any(|pattern| !pattern.exception && all.contains(&pattern.text.as_slice()))
    }

    /// Whether `path` matches, given what its directory matched.
    pub(crate) fn matches(&self, path: &[u8], parent: &Matched) -> (bool, Matched) {
        let mut here = Vec::with_capacity(self.patterns.len());
        let mut matched = false;
        for (index, pattern) in self.patterns.iter().enumerate() {
            let mut hit = parent.0.get(index).copied().unwrap_or(false);
            // A pattern that cannot change the outcome is not tried.
            if !hit && pattern.exception == matched {
                hit = pattern.glob.matches(path);
            }
            here.push(hit);
            if hit {
                matched = !pattern.exception;
            }
        }
        (matched, Matched(here))
    }

    /// Whether `path` or a directory above it matches.
    pub(crate) fn matches_with_parents(&self, path: &[u8]) -> (bool, Matched) {
        let mut state = (false, Matched::default());
        for end in path
            .iter()
            .enumerate()
            .filter_map(|(index, byte)| (*byte == b'/').then_some(index))
            .chain([path.len()])
        {
            state = self.matches(&path[..end], &state.1);
        }
        state
    }

    /// Whether something below the directory `path`, which matched, may be an exception.
    pub(crate) fn may_except_below(&self, path: &[u8]) -> bool {
        if !self.exceptions {
            return false;
        }
        self.patterns
            .iter()
            .filter(|pattern| pattern.exception)
            .any(|pattern| {
                let literal_end = pattern
                    .text
                    .iter()
                    .position(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'));
                let literal = &pattern.text[..literal_end.unwrap_or(pattern.text.len())];
                // Either the pattern goes on below the directory, or its wildcard begins at or above it, or it names
                // the directory or one above it (whose children it then excepts).
                let below =
                    literal.len() > path.len() && literal.starts_with(path) && literal[path.len()] == b'/';
                let wild = literal_end.is_some() && path.starts_with(literal);
                let above = literal_end.is_none()
                    && path.starts_with(literal)
                    && (path.len() == literal.len() || path[literal.len()] == b'/');
                below || wild || above
            })
    }
}

/// The patterns of a text in the format of `.dockerignore`, as they are compiled.
fn patterns_of(text: &str) -> impl Iterator<Item = String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let line = line.trim();
        let (mark, pattern) = match line.strip_prefix('!') {
            Some(rest) => ("!", rest.trim()),
            None => ("", line),
        };
        if pattern.is_empty() {
            return mark.to_owned();
        }
        let pattern = clean(pattern);
        let pattern = match pattern.strip_prefix('/') {
            Some(rest) if !rest.is_empty() => rest.to_owned(),
            _ => pattern,
        };
        format!("{mark}{pattern}")
    });
    lines.filter(|pattern| !pattern.is_empty())
}

/// Go's `filepath.Clean` on a slash-separated path.
pub(crate) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            other => parts.push(other),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

#[doc(hidden)]
pub mod compare;
#[cfg(test)]
mod tests;
