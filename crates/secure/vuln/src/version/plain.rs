//! Numbers between separators and nothing else: CRAN (`.` and `-` are one) and Hackage. More numbers come after fewer.

use std::cmp::Ordering;

use dhow_types::ErrorKind;

use super::{by_value, is_number};
use crate::Error;

pub(crate) fn compare(a: &str, b: &str, separators: &[char]) -> Result<Ordering, Error> {
    let (a, b) = (numbers(a, separators)?, numbers(b, separators)?);
    Ok(a.iter()
        .zip(&b)
        .map(|(a, b)| by_value(a, b))
        .find(|order| order.is_ne())
        .unwrap_or_else(|| a.len().cmp(&b.len())))
}

fn numbers<'a>(version: &'a str, separators: &[char]) -> Result<Vec<&'a str>, Error> {
    let numbers: Vec<&str> = version.split(separators).collect();
    if numbers.iter().all(|number| is_number(number)) {
        Ok(numbers)
    } else {
        Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("version {version:?} is not made of numbers and separators"),
        ))
    }
}
