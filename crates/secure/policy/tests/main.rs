//! What the two policy files mean, and what they say to facts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends by a panic")]

mod containers;
mod verdicts;
