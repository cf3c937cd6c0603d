//! Until when an image is to be used.
//!
//! # Story
//! An image is made, used, and one day nobody should run it any more: another took its place, its distribution has ended, or it has a
//! hole. Whoever is responsible for it says so in a [`Statement`]: from when on, why, and what to use instead. Statements lie beside
//! images and travel to registries as referrers, in the form that Microsoft's tools write and in a neutral one
//! ([`Statement::annotations`]). What distributions and languages say about their own releases is in a [`Table`].
//!
//! # What it promises
//! - A date decides, and the clock is the caller's: the same statement means the same on every machine, without a network.
//! - Statements of strangers are read with bounds, and a malformed one is an error, not a statement.
//! - Pure: no I/O.

#![forbid(unsafe_code)]

mod statement;
mod table;

pub use jiff::civil::Date;
pub use statement::{KIND_MICROSOFT, KIND_NEUTRAL, MAX_STATEMENT, Standing, Statement};
pub use table::{Release, Table};

dhow_types::define_error! {
    /// A statement or a table that cannot be read.
    pub struct Error;
}
