//! Packagist: PHP's `version_compare` on a version without its leading `v`, as composer has it.

use std::cmp::Ordering;

use super::{by_value, is_number, take_digits, take_while};

/// What a number is among words.
const NUMBER: i8 = 4;

pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (runs(a), runs(b));
    for (a, b) in a.iter().zip(&b) {
        let order = match (is_number(a), is_number(b)) {
            (true, true) => by_value(a, b),
            _ => weight(a).cmp(&weight(b)),
        };
        if order.is_ne() {
            return order;
        }
    }
    match a.len().cmp(&b.len()) {
        Ordering::Greater => beside_nothing(&a[b.len()..]),
        Ordering::Less => beside_nothing(&b[a.len()..]).reverse(),
        Ordering::Equal => Ordering::Equal,
    }
}

/// How runs that the other version has not stand to their absence: a number is newer, a word counts as beside a number.
fn beside_nothing(runs: &[&str]) -> Ordering {
    runs.iter()
        .map(|run| {
            if is_number(run) {
                Ordering::Greater
            } else {
                weight(run).cmp(&NUMBER)
            }
        })
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// Runs of digits and of letters; everything else separates.
fn runs(version: &str) -> Vec<&str> {
    let mut rest = version.strip_prefix(['v', 'V']).unwrap_or(version);
    let mut runs = Vec::new();
    while !rest.is_empty() {
        let (digits, after) = take_digits(rest);
        let (run, after) = if digits.is_empty() {
            // A `#` stands for any number, as in PHP's own tables.
            take_while(rest, |byte| byte.is_ascii_alphabetic() || byte == b'#')
        } else {
            (digits, after)
        };
        if run.is_empty() {
            let mut others = rest.chars();
            others.next();
            rest = others.as_str();
        } else {
            runs.push(run);
            rest = after;
        }
    }
    runs
}

/// The order of words, by how they begin: unknown, dev, alpha, beta, RC, a number, patch level.
fn weight(run: &str) -> i8 {
    if is_number(run) || run.starts_with('#') {
        return NUMBER;
    }
    let begins = |words: &[&str]| words.iter().any(|word| run.starts_with(word));
    if begins(&["dev"]) {
        0
    } else if begins(&["a"]) {
        1
    } else if begins(&["b"]) {
        2
    } else if begins(&["RC", "rc"]) {
        3
    } else if begins(&["p"]) {
        5
    } else {
        -1
    }
}
