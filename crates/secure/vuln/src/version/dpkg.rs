//! dpkg: `[epoch:]upstream[-revision]` (deb-version(7)).

use std::cmp::Ordering;

use dhow_types::ErrorKind;

use super::{by_value, is_number, take_digits};
use crate::Error;

pub(crate) fn compare(a: &str, b: &str) -> Result<Ordering, Error> {
    let (a, b) = (parts(a)?, parts(b)?);
    Ok(by_value(a.0, b.0)
        .then_with(|| fragment(a.1, b.1))
        .then_with(|| fragment(a.2, b.2)))
}

/// Epoch, upstream version and revision. No revision is equal to revision `0`: the order of fragments sees to that.
fn parts(version: &str) -> Result<(&str, &str, &str), Error> {
    let version = version.trim();
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    if !is_number(epoch) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("epoch {epoch:?} of the version {version:?} is not a number"),
        ));
    }
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    Ok((epoch, upstream, revision))
}

/// Runs of other characters and runs of digits in turn, as dpkg's `verrevcmp` has it.
fn fragment(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (text_a, rest_a) = take_other(a);
        let (text_b, rest_b) = take_other(b);
        let (digits_a, rest_a) = take_digits(rest_a);
        let (digits_b, rest_b) = take_digits(rest_b);
        let order = by_weight(text_a, text_b).then_with(|| by_value(digits_a, digits_b));
        if order.is_ne() {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    Ordering::Equal
}

fn take_other(text: &str) -> (&str, &str) {
    let end = text
        .find(|character: char| character.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

fn by_weight(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.bytes(), b.bytes());
    loop {
        let (next_a, next_b) = (a.next(), b.next());
        let order = weight(next_a).cmp(&weight(next_b));
        if order.is_ne() || (next_a.is_none() && next_b.is_none()) {
            return order;
        }
    }
}

/// `~` comes before the end, the end before letters, letters before everything else.
fn weight(byte: Option<u8>) -> u16 {
    match byte {
        Some(b'~') => 0,
        None => 1,
        Some(byte) if byte.is_ascii_alphabetic() => 2 + u16::from(byte),
        Some(byte) => 0x200 + u16::from(byte),
    }
}
