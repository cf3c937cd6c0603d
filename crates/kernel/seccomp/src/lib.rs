//! Seccomp profiles compiled to BPF, without libseccomp.
//!
//! [`compile`] turns the runtime spec's profile into one classic BPF program for the machine's architecture and the
//! older ones it can run; [`default_profile`] is docker's default as data, [`Profile`] what people keep in files. All are
//! pure; [`Cache`] keeps compiled
//! programs in a directory.

#![forbid(unsafe_code)]

mod cache;
mod compile;
mod default;
mod emit;
mod multiplex;
mod profile;
mod rules;
mod table;
mod verdict;

pub use cache::Cache;
pub use compile::{Arch, Program, compile, unknown_call};
pub use default::default_profile;
pub use profile::Profile;

dhow_types::define_error! {
    /// A profile that cannot be compiled, or a cache that cannot be used.
    pub struct Error;
}
