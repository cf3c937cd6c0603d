//! Devices by the Container Device Interface, versions 0.3 to 1.1 (CNCF container-device-interface, `SPEC.md`).
//!
//! A vendor's file says what a container needs to use its devices: nodes, mounts, variables, hooks. [`Catalogue::read`]
//! reads all of them, [`Catalogue::edits`] finds those of the devices that are asked for, and [`apply`] puts them into a
//! runtime spec.

#![forbid(unsafe_code)]

mod apply;
mod catalogue;
mod document;
mod name;

pub use apply::apply;
pub use catalogue::{Catalogue, Problem};
pub use document::{Document, Edits};
pub use name::QualifiedName;

dhow_types::define_error! {
    /// A device that is not there, or a file that says nothing that can be done.
    pub struct Error;
}

/// Where files are looked for, the weakest first: what vendors install, and what is generated in this boot.
pub const FOLDERS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// An `InvalidArgument`.
fn invalid(message: impl Into<String>) -> Error {
    Error::new(dhow_types::ErrorKind::InvalidArgument, message)
}

/// Text for a message: not longer than a line.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}
