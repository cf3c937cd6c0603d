//! Keys are names of directories.

use dhow_types::ErrorKind;

use crate::Error;

/// Refuses what is no plain file name: a key must never lead out of its directory.
pub(crate) fn check(key: &str) -> Result<(), Error> {
    let bytes = key.as_bytes();
    let good = !bytes.is_empty()
        && bytes.len() <= 200
        && bytes[0] != b'.'
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if good {
        return Ok(());
    }
    let shown: String = key.chars().take(64).collect();
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!("{shown:?} is no key of a snapshot"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_a_path_is_refused() {
        for bad in ["", ".", "..", "a/b", ".hidden", "a\nb", "a b", &"x".repeat(201)] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert!(check("build-1-2").is_ok());
    }
}
