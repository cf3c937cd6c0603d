//! Order of Debian versions (deb-version(7), policy 5.6.12; the algorithm of dpkg `lib/dpkg/version.c`).

use std::cmp::Ordering;

/// Compares two versions as dpkg does. Any text has a place in the order: a missing epoch is 0, a missing revision
/// sorts like "0", an epoch that is no number counts as part of the upstream version.
#[must_use]
pub fn compare(left: &str, right: &str) -> Ordering {
    let (left_epoch, left_upstream, left_revision) = split(left);
    let (right_epoch, right_upstream, right_revision) = split(right);
    left_epoch
        .cmp(&right_epoch)
        .then_with(|| compare_part(left_upstream.as_bytes(), right_upstream.as_bytes()))
        .then_with(|| compare_part(left_revision.as_bytes(), right_revision.as_bytes()))
}

/// Epoch, upstream version, revision.
fn split(version: &str) -> (u64, &str, &str) {
    let version = version.trim();
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) => match epoch.parse::<u64>() {
            Ok(epoch) => (epoch, rest),
            Err(_) => (0, version),
        },
        None => (0, version),
    };
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Weight of a character in a part without digits: `~` before the end, the end before letters, letters before all else.
fn weight(byte: Option<u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None | Some(b'0'..=b'9') => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(letter),
        Some(other) => i32::from(other) + 256,
    }
}

fn compare_part(mut left: &[u8], mut right: &[u8]) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        let text = |part: &[u8]| part.first().is_some_and(|byte| !byte.is_ascii_digit());
        while text(left) || text(right) {
            let order = weight(left.first().copied()).cmp(&weight(right.first().copied()));
            if order != Ordering::Equal {
                return order;
            }
            left = left.get(1..).unwrap_or_default();
            right = right.get(1..).unwrap_or_default();
        }
        let (left_number, left_rest) = number(left);
        let (right_number, right_rest) = number(right);
        // Without leading zeros the longer number is the larger one; no number is ever too long for this.
        let order = left_number
            .len()
            .cmp(&right_number.len())
            .then_with(|| left_number.cmp(right_number));
        if order != Ordering::Equal {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
    Ordering::Equal
}

/// The digits at the start without leading zeros, and what follows them.
fn number(part: &[u8]) -> (&[u8], &[u8]) {
    let end = part
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(part.len());
    let (digits, rest) = part.split_at(end);
    let zeros = digits.iter().take_while(|&&byte| byte == b'0').count();
    (&digits[zeros..], rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Shape: `lower relation higher`, one per line.
    const ORDER: &str = "
        1.0 < 1.1
        1.2 < 1.10
        1.0~rc1 < 1.0
        1.0~~ < 1.0~
        1.0~~a < 1.0~
        1.0 < 1.0a
        1.0a < 1.0+
        1.0-1 < 1.0-2
        1.0-1 < 1.0-1+b1
        1.0-1+deb12u1 < 1.0-1+deb12u14
        1.0-1~bpo12+1 < 1.0-1
        9:0 < 10:0
        2.0 < 1:0.1
        0:1.0 = 1.0
        1.0-0 = 1.0
        1.00 = 1.0
        1.001 = 1.1
        1.0-1-1 < 1.0-1-2
        2.36-9+deb12u9 < 2.36-9+deb12u14
        1.2.3 = 0:1.2.3-0
        99999999999999999999998 < 99999999999999999999999
        1.0a1 < 1.0b
        1.a < 1.+
        a: < b:
    ";

    fn vectors() -> impl Iterator<Item = (&'static str, Ordering, &'static str)> {
        ORDER.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let (left, relation, right) = (words.next()?, words.next()?, words.next()?);
            let order = if relation == "<" {
                Ordering::Less
            } else {
                Ordering::Equal
            };
            Some((left, order, right))
        })
    }

    #[test]
    fn versions_order_as_the_policy_says() {
        for (left, order, right) in vectors() {
            assert_eq!(compare(left, right), order, "{left} against {right}");
            assert_eq!(compare(right, left), order.reverse(), "{right} against {left}");
        }
    }

    #[test]
    fn versions_order_as_dpkg_orders_them() {
        let dpkg = |left: &str, relation: &str, right: &str| {
            std::process::Command::new("dpkg")
                .args(["--compare-versions", left, relation, right])
                .stderr(std::process::Stdio::null())
                .status()
        };
        if dpkg("1", "lt", "2").is_err() {
            eprintln!("skipped: dpkg is not installed");
            return;
        }
        for (left, order, right) in vectors().filter(|(left, ..)| !left.ends_with(':')) {
            let relation = if order == Ordering::Less { "lt" } else { "eq" };
            let status = dpkg(left, relation, right).unwrap();
            assert!(status.success(), "dpkg: {left} {relation} {right}");
        }
    }

    proptest! {
        #[test]
        fn the_order_is_total(
            a in "[0-9a-c~+.:-]{0,12}", b in "[0-9a-c~+.:-]{0,12}", c in "[0-9a-c~+.:-]{0,12}"
        ) {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }

        #[test]
        fn no_text_is_too_strange(a in "\\PC*", b in "\\PC*") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        }
    }
}
