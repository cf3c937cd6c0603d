//! Networks that other programs make: plugins of the Container Network Interface, versions 0.3.0 to 1.1.0 (CNI `SPEC.md`).
//!
//! An administrator's list names plugins; [`Plugins::add`] runs them one after the other, each with what the one before it
//! said, to connect one interface of one container, and [`Plugins::delete`] runs them backwards.
//!
//! ```text
//! <records>/<container>/<interface>.json   what was asked, written before the first plugin runs, and what came of it
//! ```
//! What it promises, and who tests it (`tests.rs`):
//! - Whatever a plugin was told to make, it is told to take away: at a failure at once, after a kill by the record.
//! - A plugin that writes without end, never ends, leaves children behind or says what is no result is an error.
//! - Of a list only what the specification knows is passed on; programs are found in the folders for plugins alone.

#![forbid(unsafe_code)]

mod chain;
mod invoke;
mod list;
mod record;
mod result;
#[cfg(test)]
mod tests;

pub use chain::{Place, Plugins};
pub use list::NetworkList;
pub use result::{Added, Dns};

dhow_types::define_error! {
    /// Why a plugin's network could not be joined or left.
    pub struct Error;
}

/// Where lists are looked for when nothing else is said.
pub const LISTS: &str = "/etc/cni/net.d";
/// Where plugins are looked for when nothing else is said; the second is Debian's place.
pub const PLUGINS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];

/// An `InvalidArgument`.
fn invalid(message: impl Into<String>) -> Error {
    Error::new(dhow_types::ErrorKind::InvalidArgument, message)
}

/// Text of others for a message: a line of it, without what a terminal would obey.
fn shown(text: &str) -> String {
    text.trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(256)
        .collect()
}
