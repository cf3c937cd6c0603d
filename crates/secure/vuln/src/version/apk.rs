//! apk: `number{.number}[letter]{_suffix[number]}[~hash][-rN]`, as apk-tools 2 orders it.
//!
//! What does not fit that form still has a place: before the same version without the rest that does not fit.

use std::cmp::Ordering;

use super::{by_value, take_digits, take_while};

/// Suffixes in their order; the empty one stands for a version without a suffix.
const SUFFIXES: [&str; 10] = ["alpha", "beta", "pre", "rc", "", "cvs", "svn", "git", "hg", "p"];
const NO_SUFFIX: usize = 4;

pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (left, right) = (Version::parse(a), Version::parse(b));
    if left.malformed && right.malformed {
        return a.cmp(b);
    }
    numbers(&left.numbers, &right.numbers)
        .then_with(|| left.letter.cmp(&right.letter))
        .then_with(|| suffixes(&left.suffixes, &right.suffixes))
        .then_with(|| by_value(left.revision, right.revision))
        .then_with(|| right.rest.is_empty().cmp(&left.rest.is_empty()).reverse())
}

#[derive(Debug)]
struct Version<'a> {
    numbers: Vec<&'a str>,
    letter: Option<u8>,
    suffixes: Vec<(usize, &'a str)>,
    /// Digits of `-rN`.
    revision: &'a str,
    /// What fits no part.
    rest: &'a str,
    /// The rest stands where `-rN` should.
    malformed: bool,
}

impl<'a> Version<'a> {
    fn parse(text: &'a str) -> Self {
        let mut version = Self {
            numbers: Vec::new(),
            letter: None,
            suffixes: Vec::new(),
            revision: "",
            rest: text,
            malformed: false,
        };
        loop {
            let (digits, rest) = take_digits(version.rest);
            if digits.is_empty() {
                break;
            }
            version.numbers.push(digits);
            version.rest = rest.strip_prefix('.').unwrap_or(rest);
        }
        if let Some(letter) = version.rest.bytes().next().filter(u8::is_ascii_lowercase) {
            version.letter = Some(letter);
            version.rest = &version.rest[1..];
        }
        while let Some((weight, digits, rest)) = suffix(version.rest) {
            version.suffixes.push((weight, digits));
            version.rest = rest;
        }
        if let Some(after) = version.rest.strip_prefix('~') {
            let (hash, rest) = take_while(after, |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            if !hash.is_empty() {
                version.rest = rest;
            }
        }
        match version.rest.strip_prefix("-r") {
            Some(after) => (version.revision, version.rest) = take_digits(after),
            None => version.malformed = !version.rest.is_empty(),
        }
        version
    }
}

/// The suffix that `text` begins with: its weight, its number and what follows.
fn suffix(text: &str) -> Option<(usize, &str, &str)> {
    let word = text.strip_prefix('_')?;
    // `p` is a prefix of `pre`: longest first.
    let (weight, name) = SUFFIXES
        .iter()
        .enumerate()
        .filter(|(_, name)| !name.is_empty() && word.starts_with(**name))
        .max_by_key(|(_, name)| name.len())?;
    let (digits, rest) = take_digits(&word[name.len()..]);
    Some((weight, digits, rest))
}

/// After the first, a number that begins with a zero is compared as a fraction is: by its digits from the left.
fn numbers(a: &[&str], b: &[&str]) -> Ordering {
    for index in 0..a.len().max(b.len()) {
        let order = match (a.get(index), b.get(index)) {
            (Some(a), Some(b)) if index > 0 && (a.starts_with('0') || b.starts_with('0')) => a.cmp(b),
            (a, b) => by_value(a.copied().unwrap_or(""), b.copied().unwrap_or("")),
        };
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

fn suffixes(a: &[(usize, &str)], b: &[(usize, &str)]) -> Ordering {
    for index in 0..a.len().max(b.len()) {
        let (weight_a, digits_a) = a.get(index).copied().unwrap_or((NO_SUFFIX, ""));
        let (weight_b, digits_b) = b.get(index).copied().unwrap_or((NO_SUFFIX, ""));
        let order = weight_a.cmp(&weight_b).then_with(|| by_value(digits_a, digits_b));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}
