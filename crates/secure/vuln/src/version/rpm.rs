//! rpm: `[epoch:]version[-release]`, each compared by segments (rpm's `rpmvercmp`).

use std::cmp::Ordering;

use super::{by_value, is_number, take_digits, take_while};

pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (parts(a), parts(b));
    by_value(a.0, b.0)
        .then_with(|| segments(a.1, b.1))
        .then_with(|| releases(a.2, b.2))
}

/// Epoch, version and release. What stands before a colon and is no number belongs to the version.
fn parts(version: &str) -> (&str, &str, Option<&str>) {
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) if epoch.is_empty() || is_number(epoch) => (epoch, rest),
        _ => ("", version),
    };
    match rest.split_once('-') {
        Some((version, release)) => (epoch, version, Some(release)),
        None => (epoch, rest, None),
    }
}

/// A version without a release comes before the same one with any.
fn releases(a: Option<&str>, b: Option<&str>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => segments(a, b),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

fn segments(mut a: &str, mut b: &str) -> Ordering {
    if a.is_empty() || b.is_empty() {
        return b.is_empty().cmp(&a.is_empty());
    }
    loop {
        a = a.trim_start_matches(is_separator);
        b = b.trim_start_matches(is_separator);
        // A tilde comes before everything, also before the end.
        match (a.strip_prefix('~'), b.strip_prefix('~')) {
            (Some(rest_a), Some(rest_b)) => {
                (a, b) = (rest_a, rest_b);
                continue;
            }
            (Some(_), None) => return Ordering::Less,
            (None, Some(_)) => return Ordering::Greater,
            (None, None) => {}
        }
        // A caret comes after the end and before everything else.
        match (a.strip_prefix('^'), b.strip_prefix('^')) {
            (Some(rest_a), Some(rest_b)) => {
                (a, b) = (rest_a, rest_b);
                continue;
            }
            (Some(_), None) if b.is_empty() => return Ordering::Greater,
            (Some(_), None) => return Ordering::Less,
            (None, Some(_)) if a.is_empty() => return Ordering::Less,
            (None, Some(_)) => return Ordering::Greater,
            (None, None) => {}
        }
        if a.is_empty() || b.is_empty() {
            return b.is_empty().cmp(&a.is_empty());
        }
        let numeric = a.starts_with(|first: char| first.is_ascii_digit());
        let (run_a, rest_a) = run(a, numeric);
        let (run_b, rest_b) = run(b, numeric);
        if run_b.is_empty() {
            // A number is newer than letters.
            return if numeric {
                Ordering::Greater
            } else {
                Ordering::Less
            };
        }
        let order = if numeric {
            by_value(run_a, run_b)
        } else {
            run_a.cmp(run_b)
        };
        if order.is_ne() {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

fn run(text: &str, numeric: bool) -> (&str, &str) {
    if numeric {
        take_digits(text)
    } else {
        take_while(text, |byte| byte.is_ascii_alphabetic())
    }
}

fn is_separator(character: char) -> bool {
    !character.is_ascii_alphanumeric() && character != '~' && character != '^'
}
