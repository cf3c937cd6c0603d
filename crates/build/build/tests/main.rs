//! Builds on a real store with overlay, and an executor that understands a few words instead of a shell.
//! All of them need root and are skipped, with a word about it, without.

#[cfg(test)]
mod bench;
mod cache;
mod context;
mod copying;
mod elsewhere;
mod failures;
mod parallel;
mod running;
mod speed;
mod stages;
