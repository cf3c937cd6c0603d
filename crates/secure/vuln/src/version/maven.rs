//! Maven: tokens between dots, hyphens and changes between digits and letters ("Version Order Specification" of the POM
//! reference, and `ComparableVersion` where it says more).

use std::cmp::Ordering;

use super::{by_value, is_number, significant};

/// Known qualifiers in their order; the empty one is a release.
const QUALIFIERS: [&str; 7] = ["alpha", "beta", "milestone", "rc", "snapshot", "", "sp"];

pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (tokens(a), tokens(b));
    for index in 0..a.len().max(b.len()) {
        let order = match (a.get(index), b.get(index)) {
            (Some(a), Some(b)) => a.order(b),
            (Some(a), None) => a.order(&a.absent()),
            (None, Some(b)) => b.absent().order(b),
            (None, None) => Ordering::Equal,
        };
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

#[derive(Debug, PartialEq, Eq)]
struct Token {
    /// What stands before it: a dot, a hyphen (also a change between digits and letters), or nothing.
    prefix: Option<char>,
    /// Lower case, without leading zeros.
    value: String,
    /// Stands for a token that the shorter version has not.
    padding: bool,
}

impl Token {
    /// What the shorter version has in this one's place.
    fn absent(&self) -> Self {
        let value = match (self.prefix, self.value.as_str()) {
            (Some('.'), "sp") => "",
            (Some('.'), _) => "0",
            _ => "",
        };
        Self {
            prefix: self.prefix,
            value: value.to_owned(),
            padding: true,
        }
    }

    fn is_null(&self) -> bool {
        self.value.is_empty() || self.value == "0"
    }

    fn order(&self, other: &Self) -> Ordering {
        if self.prefix != other.prefix {
            return self.rank().cmp(&other.rank());
        }
        if self.value == other.value {
            return Ordering::Equal;
        }
        match (is_number(&self.value), is_number(&other.value)) {
            (true, true) => by_value(&self.value, &other.value),
            // A number comes after a qualifier, but one that is only padding is a release.
            (true, false) if !self.padding => Ordering::Greater,
            (false, true) if !other.padding => Ordering::Less,
            _ => qualifier(&self.value)
                .cmp(&qualifier(&other.value))
                .then_with(|| self.value.cmp(&other.value)),
        }
    }

    /// `.qualifier` < `-qualifier` < `-number` < `.number`.
    fn rank(&self) -> u8 {
        match (self.prefix, is_number(&self.value)) {
            (Some('.'), false) => 0,
            (_, false) => 1,
            (Some('-'), true) => 2,
            (_, true) => 3,
        }
    }
}

/// Unknown qualifiers come after the known ones.
fn qualifier(value: &str) -> usize {
    QUALIFIERS
        .iter()
        .position(|known| *known == value)
        .unwrap_or(QUALIFIERS.len())
}

fn tokens(version: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut prefix = None;
    let mut rest = version;
    loop {
        let end = rest.find(['.', '-']).unwrap_or(rest.len());
        split_at_changes(&rest[..end], prefix, &mut tokens);
        let mut after = rest[end..].chars();
        prefix = after.next();
        if prefix.is_none() {
            break;
        }
        rest = after.as_str();
    }
    trim(&mut tokens);
    tokens
}

/// The tokens of a part without dots and hyphens.
fn split_at_changes(part: &str, prefix: Option<char>, tokens: &mut Vec<Token>) {
    let mut prefix = prefix;
    let mut start = 0;
    let mut before: Option<bool> = None;
    for (at, character) in part.char_indices() {
        let digit = character.is_ascii_digit();
        if before.is_some_and(|before| before != digit) {
            tokens.push(token(&part[start..at], prefix, true));
            prefix = Some('-');
            start = at;
        }
        before = Some(digit);
    }
    tokens.push(token(&part[start..], prefix, false));
}

/// `followed`: another token of the same part comes at once; then `a`, `b` and `m` are abbreviations.
fn token(text: &str, prefix: Option<char>, followed: bool) -> Token {
    let value = text.to_lowercase();
    let value = match value.as_str() {
        "" => "0",
        "cr" => "rc",
        "ga" | "final" | "release" => "",
        "a" if followed => "alpha",
        "b" if followed => "beta",
        "m" if followed => "milestone",
        number if is_number(number) => match significant(number) {
            "" => "0",
            digits => digits,
        },
        other => other,
    };
    Token {
        prefix,
        value: value.to_owned(),
        padding: false,
    }
}

/// Null values at the end are dropped, and before each hyphen.
fn trim(tokens: &mut Vec<Token>) {
    let mut end = tokens.len();
    while end > 1 {
        if tokens[end - 1].is_null() {
            tokens.remove(end - 1);
            end -= 1;
            continue;
        }
        while end > 0 && tokens[end - 1].prefix != Some('-') {
            end -= 1;
        }
        end = end.saturating_sub(1);
    }
}
