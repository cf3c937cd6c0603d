//! Known vulnerabilities.
//!
//! # Story
//! An advisory says "fixed in 3.0.18-1~deb12u1"; an inventory says "3.0.17-1~deb12u2 is installed". Whether the one comes
//! before the other is decided by the ecosystem that both come from, and by nothing else: [`Ecosystem::compare`].
//! Advisories come as OSV records, as Debian's tracker or as Alpine's secdb ([`Feed`]), and are compiled into one file, a
//! [`Database`], which is asked by package ([`Database::findings`]) or by vulnerability ([`Database::affected`]). What a source
//! says beside "affected" is kept: postponed, ignored, unimportant, out of support, not affected.
//! How likely a vulnerability is attacked is kept beside it ([`Exploit`]). What others say of a finding in a product is judged
//! by [`vex`], and what does not matter to somebody by [`ignore`].
//!
//! # What it promises
//! - The order is that of the ecosystem's own tool (dpkg, apk, rpm, pip, Maven, gem, composer ...), also where that differs
//!   from what its documents say. `tests/order.rs` holds it to lines `a < b`.
//! - Numbers have no limit: they are compared as digits, never as integers that overflow.
//! - Any text of at most [`MAX_VERSION`] bytes is answered in time linear in its length.
//! - A withdrawn advisory finds nothing. A malformed one is refused by its name, and keeps no other out.
//! - A database is written beside its place and renamed: a reader sees the old one or the new one.

#![forbid(unsafe_code)]

mod advisory;
mod cvss;
mod database;
mod ecosystem;
mod exploit;
mod feed;
pub mod ignore;
mod matching;
mod version;
pub mod vex;

pub use advisory::{Advisory, Affected, Level, Range, Severity, State};
pub use cvss::base_score;
pub use database::{Database, Facts, Findings, Imported, Importer};
pub use dhow_types::Purl;
pub use ecosystem::Ecosystem;
pub use exploit::{Exploit, List as Exploits, read as read_exploits};
pub use feed::{Feed, read as read_feed};
pub use matching::{Finding, Query, concerns, key_of};

/// Longest version that is compared, in bytes. The longest in public advisory data has about 100.
pub const MAX_VERSION: usize = 1024;

dhow_types::define_error! {
    /// A version, or an ecosystem, that cannot be understood; advisory data that cannot be read.
    pub struct Error;
}
