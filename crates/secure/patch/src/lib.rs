//! Files of package managers, merged three ways.
//!
//! # Story
//! When the base of an image is patched, the image's own layers go onto the patched one as they are. There is one kind of file with
//! which that is wrong: package managers keep what is installed in one file, so an image that installed something has a copy of its
//! whole base's list, and over the patched base that would say the old versions. Such files ([`Treatment`]) are merged entry by entry
//! ([`merge`]): what the base changed is changed, what the image added stays.
//!
//! # What it promises
//! - A merge either is exact or fails with the entries that both sides changed: it never chooses.
//! - Pure: no I/O, no clock. Any bytes are taken.

#![forbid(unsafe_code)]

mod merge;
mod treatment;

pub use merge::{Clash, merge};
pub use treatment::Treatment;
