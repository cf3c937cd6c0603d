//! Words of a request that are checked before they get near a file or a system call.

use std::path::{Component, Path};

use dhow_types::ErrorKind;

use crate::Error;

/// An `InvalidArgument`.
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// Text for a message: not longer than a line.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

/// A path in the container: absolute, without `..` and NUL.
pub(crate) fn inside(path: &Path, what: &str) -> Result<(), Error> {
    let plain = path.is_absolute()
        && path
            .components()
            .all(|part| !matches!(part, Component::ParentDir));
    if plain && !path.as_os_str().as_encoded_bytes().contains(&0) {
        return Ok(());
    }
    Err(invalid(format!(
        "{what} {:?} is not an absolute path without ..",
        shown(&path.to_string_lossy())
    )))
}

/// Text without NUL.
pub(crate) fn no_nul(text: &str, what: &str) -> Result<(), Error> {
    if text.contains('\0') {
        Err(invalid(format!("{what} {:?} has a NUL byte", shown(text))))
    } else {
        Ok(())
    }
}

/// Text of one line: no control characters (CVE-2022-4318).
pub(crate) fn one_line(text: &str, what: &str, most: usize) -> Result<(), Error> {
    if text.len() > most || text.chars().any(char::is_control) {
        return Err(invalid(format!(
            "{what} {:?} has control characters or more than {most} bytes",
            shown(text)
        )));
    }
    Ok(())
}

/// A list of numbers and ranges: `0-3,5`.
pub(crate) fn number_list(text: &str, what: &str) -> Result<(), Error> {
    let number = |word: &str| {
        word.parse::<u32>()
            .ok()
            .filter(|_| word.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let range = |word: &str| match word.split_once('-') {
        None => number(word).is_some(),
        Some((first, last)) => number(first)
            .zip(number(last))
            .is_some_and(|(first, last)| first <= last),
    };
    if text.len() <= 4096 && text.split(',').all(range) {
        return Ok(());
    }
    Err(invalid(format!(
        "{what} {:?} is no list such as 0-3,5",
        shown(text)
    )))
}
