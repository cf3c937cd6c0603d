//! RubyGems (`Gem::Version`): numbers and words, a word makes a pre-release.

use std::cmp::Ordering;

use super::{by_element, by_value, is_number, significant, take_digits, take_while};

pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    // A hyphen is `.pre.` to RubyGems.
    let (a, b) = (a.replace('-', ".pre."), b.replace('-', ".pre."));
    by_element(&canonical(&a), &canonical(&b), "0", |a, b| {
        match (is_number(a), is_number(b)) {
            (true, true) => by_value(a, b),
            (false, false) => a.cmp(b),
            (a, b) => a.cmp(&b),
        }
    })
}

/// Runs of digits and of letters, without the zeros at the end of the numbers before the first word, and at the very end.
fn canonical(version: &str) -> Vec<&str> {
    let mut numbers = Vec::new();
    let mut words = Vec::new();
    let mut rest = version;
    while !rest.is_empty() {
        let (digits, after) = take_digits(rest);
        let (run, after) = if digits.is_empty() {
            take_while(rest, |byte| byte.is_ascii_alphabetic())
        } else {
            (digits, after)
        };
        if run.is_empty() {
            let mut others = rest.chars();
            others.next();
            rest = others.as_str();
            continue;
        }
        if words.is_empty() && is_number(run) {
            numbers.push(run);
        } else {
            words.push(run);
        }
        rest = after;
    }
    for part in [&mut numbers, &mut words] {
        while part
            .last()
            .is_some_and(|last| is_number(last) && significant(last).is_empty())
        {
            part.pop();
        }
    }
    numbers.append(&mut words);
    numbers
}
