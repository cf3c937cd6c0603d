//! The registry over real sockets: what distribution-spec 1.1 asks of it, and what it must not let pass.

#![allow(clippy::unwrap_used, reason = "a step that cannot go on fails its test")]

mod clients;
mod discovery;
mod fixture;
mod hostile;
mod management;
mod pull;
mod push;
mod restart;
