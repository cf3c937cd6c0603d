//! The client against servers that misbehave in every way we know of.

#![allow(clippy::unwrap_used, reason = "a script that cannot go on fails its test")]

mod auth;
mod download;
mod lists;
mod mirrors;
mod push;
mod server;
mod tls;
