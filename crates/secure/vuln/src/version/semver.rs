//! Semantic versions (semver.org, 2.0.0), and their relatives of NuGet and pub.
//!
//! Lenient, since tags are: a leading `v` is passed over, missing numbers are zero, numbers after the last that counts and
//! anything else that is no number belong to the pre-release.

use std::cmp::Ordering;

use super::{by_element, by_value, is_number, take_digits};

pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (Version::parse(a, 3), Version::parse(b, 3));
    a.by_precedence(&b)
}

/// NuGet: a fourth number, and no difference of case.
pub(crate) fn compare_nuget(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
    Version::parse(&a, 4).by_precedence(&Version::parse(&b, 4))
}

/// pub: what stands after `+` counts too, after everything else.
pub(crate) fn compare_pub(a: &str, b: &str) -> Ordering {
    let (a, b) = (Version::parse(a, 3), Version::parse(b, 3));
    a.by_precedence(&b).then_with(|| match (a.build, b.build) {
        (Some(a), Some(b)) => identifiers(a, b),
        (a, b) => a.is_some().cmp(&b.is_some()),
    })
}

#[derive(Debug)]
struct Version<'a> {
    numbers: Vec<&'a str>,
    /// Without its hyphen; empty for a release.
    prerelease: String,
    build: Option<&'a str>,
}

impl<'a> Version<'a> {
    fn parse(text: &'a str, most: usize) -> Self {
        let text = text.strip_prefix('v').unwrap_or(text);
        let (text, build) = match text.split_once('+') {
            Some((text, build)) => (text, Some(build)),
            None => (text, None),
        };
        let mut numbers = Vec::new();
        let mut rest = text;
        loop {
            let (digits, after) = take_digits(rest);
            if !digits.is_empty() {
                numbers.push(digits);
            }
            match after.strip_prefix('.') {
                Some(next) => rest = next,
                None => {
                    rest = after;
                    break;
                }
            }
        }
        let mut prerelease = rest.strip_prefix('-').unwrap_or(rest).to_owned();
        for extra in numbers.iter().skip(most) {
            prerelease.push('.');
            prerelease.push_str(extra);
        }
        numbers.truncate(most);
        Self {
            numbers,
            prerelease,
            build,
        }
    }

    fn by_precedence(&self, other: &Self) -> Ordering {
        by_element(&self.numbers, &other.numbers, "", by_value).then_with(|| {
            match (self.prerelease.is_empty(), other.prerelease.is_empty()) {
                (false, false) => identifiers(&self.prerelease, &other.prerelease),
                // A release comes after its pre-releases.
                (a, b) => a.cmp(&b),
            }
        })
    }
}

/// Identifiers between dots: numbers by value and before words, words by their bytes, fewer before more (section 11).
fn identifiers(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let order = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => match (is_number(a), is_number(b)) {
                (true, true) => by_value(a, b),
                (false, false) => a.cmp(b),
                (a, b) => b.cmp(&a),
            },
        };
        if order.is_ne() {
            return order;
        }
    }
}
