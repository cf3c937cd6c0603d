//! For tests only: makes tiny images, and serves them from a registry that can misbehave.
//!
//! - [`Tar`] writes layers entry by entry, hostile ones too: it checks nothing.
//! - [`TinyImage`] is config, layers and manifest as bytes.
//! - [`FakeRegistry`] speaks the distribution protocol on 127.0.0.1 with blocking sockets and threads. It keeps
//!   everything in memory, logs every request, asks for credentials if told to, and fails on demand ([`Fault`]).
//! - [`as_nobody`] runs tests again as a normal user.
//! - [`Recorder`] keeps what work says about itself.
//!
//! A test is the only caller: what cannot be done here panics.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends by a panic")]
#![allow(clippy::print_stderr, reason = "a test that is left out says so")]

mod image;
mod nobody;
mod recorder;
mod registry;
mod tar;

pub use image::{Layer, TinyImage, gzip, index};
pub use nobody::as_nobody;
pub use recorder::Recorder;
pub use registry::{Auth, FakeRegistry, Fault, Request};
pub use tar::Tar;
