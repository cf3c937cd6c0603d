//! The patterns, for comparing them with others.

use super::{Glob, Patterns, Stars};
use crate::Error;

/// Whether a list of patterns leaves a path out.
///
/// # Errors
/// A malformed pattern.
pub fn leaves_out(patterns: &[String], path: &str) -> Result<bool, Error> {
    let patterns = Patterns::compile(patterns)?;
    Ok(patterns.matches_with_parents(path.as_bytes()).0)
}

/// Whether one pattern matches a path itself.
///
/// # Errors
/// A malformed pattern.
pub fn matches(pattern: &str, path: &str) -> Result<bool, Error> {
    Ok(Glob::compile(&super::clean(pattern), Stars::Cross)?.matches(path.as_bytes()))
}

/// The patterns of a text in the format of `.dockerignore`.
#[must_use]
pub fn lines(text: &str) -> Vec<String> {
    super::patterns_of(text).collect()
}
