//! The client against servers that misbehave in every way we know of.

mod auth;
mod download;
mod push;
mod server;
