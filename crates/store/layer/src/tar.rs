//! Reading and writing of tar archives: ustar, PAX (POSIX.1-2001) and GNU forms.
//!
//! The reader agrees with Go's `archive/tar`, which every other container engine uses, on what an archive means: two
//! readers that disagree about the size of an entry see different files (CVE-2025-62518 and the advisories
//! RUSTSEC-2025-0110 to 2026-0145 are of that kind). So: an extended header `size` wins over the field, links and
//! directories have no body whatever their size says, global headers change nothing.

mod header;
mod name;
mod parser;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use header::is_archive;
pub(crate) use name::clean;
pub(crate) use parser::{Parser, Source};
pub use reader::Reader;
pub(crate) use reader::{Body, Buffered, into_io};
pub use writer::Writer;

#[cfg(test)]
mod tests;
