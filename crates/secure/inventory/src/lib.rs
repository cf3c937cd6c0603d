//! What is in an image.
//!
//! # Story
//! Files say what is installed: `var/lib/dpkg/status`, `lib/apk/db/installed`, a `METADATA` beside a Python package, what the Go
//! linker wrote into a program. [`Scanner`] looks through the files of one layer for them and keeps what they say, path by
//! path: a [`Delta`]. It depends on the layer alone, so it is made once for each layer and kept by its diff id. An image is
//! a stack of deltas: of two files at one path the upper one counts, and what a layer deletes is gone ([`Inventory::of`]). So
//! it is known for each package in which layer it came, and the inventory of a thousand images costs no look at any file.
//!
//! # What it promises
//! - Nothing is executed, no link is followed out of the tree: files are opened by `rootpath`.
//! - Hostile files are normal. Each parser has a bound; what could not be read is a line in [`Delta::problems`], and never keeps
//!   the rest from being read. Memory is bounded by [`MAX_DATABASE`], [`MAX_METADATA`] and [`MAX_PACKAGES`].
//! - The same tree gives the same delta, byte by byte.

#![forbid(unsafe_code)]

mod bytes;
mod delta;
mod elf;
mod files;
mod kind;
mod package;
mod passing;
mod sbom;
mod scan;
mod stack;
mod zip;

pub use bytes::ReadAt;
pub use delta::{Delta, Os, Record};
pub use files::{Content, Files, Found, FoundKind, Layer, Tree};
pub use package::{Kind, Package, Source};
pub use sbom::{Subject, cyclonedx, read_sbom, spdx2, spdx3};
pub use scan::{Scanner, read_file};
pub use stack::{Installed, Inventory, owners_of};
pub use zip::{SeeFile, each_of_zip};

/// Largest database of a package manager that is read, in bytes. Debian 12 with everything installed has 80 MB.
pub const MAX_DATABASE: u64 = 128 << 20;

/// Largest file of metadata of one package that is read, in bytes.
pub const MAX_METADATA: u64 = 4 << 20;

/// Most packages of one layer.
pub const MAX_PACKAGES: usize = 500_000;

dhow_types::define_error! {
    /// Files that could not be looked through, or an inventory that is damaged.
    pub struct Error;
}
