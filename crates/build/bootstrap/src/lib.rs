//! A Debian base file system straight from the distribution's packages, verified to the archive key.
//!
//! Nothing but this crate takes part: no debootstrap, dpkg, apt or gpgv on the host. What it promises:
//!
//! - **Trust** goes one way: keyring -> signed `Release` -> hash of `Packages` -> hash of every `.deb`. Each step is
//!   checked before the next reads a byte; a step can only be skipped by [`Request::insecure`], which says so aloud.
//! - **Same inputs, same tree**: the order of packages, every file, owner, mode and time stamp depend on the signed
//!   indices alone (times newer than the `Release` are set to it).
//! - **Packages stay packages**: dpkg inside the tree sees them as installed by itself.
//!
//! The way: `sources` are chosen for the suite, `openpgp` checks their `release`, `packages` are read and
//! resolved, fetched into a cache named by SHA-256, `.deb`s unpacked in parallel into a merged-/usr root,
//! registered as unpacked (`dpkg`), configured inside by their own scripts (`configure`) and cleaned (`clean`).
//!
//! The crate reads no environment, no clock and no configuration of the host: texts, the time, the transport and the
//! way to run a program in the new root come from the caller.

#![forbid(unsafe_code)]

mod archive;
mod bare;
mod bootstrap;
mod clean;
mod configure;
pub mod control;
mod deb;
pub mod depends;
mod dpkg;
mod fetch;
mod filter;
pub mod openpgp;
mod outcome;
pub mod packages;
mod parallel;
pub mod release;
mod request;
pub mod resolve;
pub mod sources;
mod target;
#[cfg(test)]
mod testing;
mod unpack;
pub mod version;

pub use bootstrap::bootstrap;
pub use outcome::{Installed, Outcome};
pub use request::{Configure, Fetch, Request, SourceFile};
pub use target::{Target, Variant};

dhow_types::define_error! {
    /// Why no base file system could be made.
    pub struct Error;
}

impl From<dhow_rootpath::Error> for Error {
    fn from(source: dhow_rootpath::Error) -> Self {
        Self::wrap(source, "cannot change the new root")
    }
}
