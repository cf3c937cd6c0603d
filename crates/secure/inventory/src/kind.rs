//! The files of each package manager and linker.

pub(crate) mod apk;
pub(crate) mod berkeley;
pub(crate) mod dotnet;
pub(crate) mod dpkg;
pub(crate) mod java;
pub(crate) mod known;
pub(crate) mod lock;
pub(crate) mod node;
pub(crate) mod os;
pub(crate) mod pacman;
pub(crate) mod php;
pub(crate) mod program;
pub(crate) mod python;
pub(crate) mod rpm;
pub(crate) mod ruby;
#[cfg(test)]
pub(crate) mod tests;

use crate::{Os, Package};

/// What one file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) packages: Vec<Package>,
    /// Paths, each with the package that it belongs to.
    pub(crate) owns: Vec<(String, String)>,
    pub(crate) os: Option<Os>,
}

impl Said {
    pub(crate) fn packages(packages: Vec<Package>) -> Self {
        Self {
            packages,
            ..Self::default()
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether somebody asks which package a path belongs to.
pub(crate) type Asked<'a> = &'a dyn Fn(&str) -> bool;

/// Longest name or version that is believed.
const LONGEST: usize = 1024;

/// Text of a file that is to be text.
fn utf8(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// A name or version without what would break a line, a table or a document.
pub(crate) fn plain(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = !text.is_empty() && text.len() <= LONGEST && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}
