//! Names of devices: `vendor.com/class=name`.

use std::fmt;
use std::str::FromStr;

use crate::{Error, invalid, shown};

/// Most bytes of a vendor's name (a DNS subdomain), and of a class (SPEC.md, "Kind").
const LONGEST_VENDOR: usize = 253;
const LONGEST_CLASS: usize = 63;
/// More than any device's name has.
const LONGEST_NAME: usize = 253;

/// A device of a kind, as a person asks for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QualifiedName {
    /// `vendor.com/class`.
    pub kind: String,
    /// Which of that kind.
    pub name: String,
}

impl QualifiedName {
    /// Whether a word is such a name, and not the path of a device: paths begin with a slash.
    #[must_use]
    pub fn is_meant(word: &str) -> bool {
        word.parse::<Self>().is_ok()
    }
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.name)
    }
}

impl FromStr for QualifiedName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || invalid(format!("{:?} is no device vendor.com/class=name", shown(text)));
        let (kind, name) = text.split_once('=').ok_or_else(wrong)?;
        check_kind(kind)?;
        check_device(name)?;
        Ok(Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// Checks `vendor.com/class`.
pub(crate) fn check_kind(kind: &str) -> Result<(), Error> {
    let part = |text: &str, longest: usize| {
        let ends = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
            && text
                .bytes()
                .last()
                .is_some_and(|byte| byte.is_ascii_alphanumeric());
        ends && text.len() <= longest && text.bytes().all(|byte| is_plain(byte, b""))
    };
    match kind.split_once('/') {
        Some((vendor, class)) if part(vendor, LONGEST_VENDOR) && part(class, LONGEST_CLASS) => Ok(()),
        _ => Err(invalid(format!("kind {:?} is not vendor.com/class", shown(kind)))),
    }
}

/// Checks the name of a device within its kind.
pub(crate) fn check_device(name: &str) -> Result<(), Error> {
    let outer = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let good = outer(name.bytes().next())
        && outer(name.bytes().last())
        && name.len() <= LONGEST_NAME
        && name.bytes().all(|byte| is_plain(byte, b":"));
    if good {
        return Ok(());
    }
    Err(invalid(format!(
        "device name {:?} is not made of letters, digits and -_.: between two of the former",
        shown(name)
    )))
}

fn is_plain(byte: u8, more: &[u8]) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) || more.contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_specification() {
        for good in [
            "nvidia.com/gpu=all",
            "nvidia.com/gpu=0",
            "a/b=c",
            "vendor.com/net.v2=eth0:1",
        ] {
            assert_eq!(good.parse::<QualifiedName>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "/dev/null",
            "gpu=0",
            "vendor.com/=x",
            "/class=x",
            "vendor.com/gpu=",
            "vendor.com/a/b=c",
            "1vendor/gpu=0",
            "vendor.com/1gpu=0",
            "vendor.com/gpu-=0",
            "vendor.com/gpu=:0",
            "vendor.com/gpu=a b",
            "vendor.com/gpu=../x",
            "vendör.com/gpu=0",
        ] {
            assert!(!QualifiedName::is_meant(bad), "{bad}");
        }
        let long = format!("vendor.com/{}=0", "c".repeat(64));
        assert!(long.parse::<QualifiedName>().is_err());
    }
}
