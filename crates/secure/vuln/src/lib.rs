//! Known vulnerabilities.
//!
//! # Story
//! An advisory says "fixed in 3.0.18-1~deb12u1"; an inventory says "3.0.17-1~deb12u2 is installed". Whether the one comes
//! before the other is decided by the ecosystem that both come from, and by nothing else: [`Ecosystem::compare`].
//!
//! # What it promises
//! - The order is that of the ecosystem's own tool (dpkg, apk, rpm, pip, Maven, gem, composer ...), also where that differs
//!   from what its documents say. `tests/order.rs` holds it to lines `a < b`.
//! - Numbers have no limit: they are compared as digits, never as integers that overflow.
//! - Any text of at most [`MAX_VERSION`] bytes is answered in time linear in its length. Pure: no I/O, no clock.

#![forbid(unsafe_code)]

mod ecosystem;
mod version;

pub use ecosystem::Ecosystem;

/// Longest version that is compared, in bytes. The longest in public advisory data has about 100.
pub const MAX_VERSION: usize = 1024;

dhow_types::define_error! {
    /// A version, or an ecosystem, that cannot be understood.
    pub struct Error;
}
