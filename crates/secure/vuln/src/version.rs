//! One module for each order of versions, and what they share: numbers of any length.

pub(crate) mod apk;
pub(crate) mod dpkg;
pub(crate) mod gem;
pub(crate) mod maven;
pub(crate) mod pep440;
pub(crate) mod php;
pub(crate) mod plain;
pub(crate) mod rpm;
pub(crate) mod semver;

use std::cmp::Ordering;

/// Whether this is a number and nothing else.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Compares two runs of digits by value, whatever their length; no digits count as zero.
fn by_value(a: &str, b: &str) -> Ordering {
    let (a, b) = (significant(a), significant(b));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// A run of digits without its leading zeros.
fn significant(digits: &str) -> &str {
    digits.trim_start_matches('0')
}

/// The first bytes that satisfy `wanted`, and the rest. `wanted` must hold for ASCII bytes only.
fn take_while(text: &str, wanted: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(|byte| !wanted(byte)).unwrap_or(text.len());
    text.split_at(end)
}

/// The first run of digits, which may be empty, and the rest.
fn take_digits(text: &str) -> (&str, &str) {
    take_while(text, |byte| byte.is_ascii_digit())
}

/// Compares element by element; `missing` stands for what the shorter has not.
fn by_element<'a>(
    a: &[&'a str],
    b: &[&'a str],
    missing: &'a str,
    compare: impl Fn(&str, &str) -> Ordering,
) -> Ordering {
    (0..a.len().max(b.len()))
        .map(|index| {
            compare(
                a.get(index).copied().unwrap_or(missing),
                b.get(index).copied().unwrap_or(missing),
            )
        })
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_by_value_however_long() {
        assert_eq!(by_value("007", "7"), Ordering::Equal);
        assert_eq!(by_value("", "0"), Ordering::Equal);
        assert_eq!(
            by_value(&"9".repeat(200), &format!("1{}", "0".repeat(200))),
            Ordering::Less
        );
    }
}
