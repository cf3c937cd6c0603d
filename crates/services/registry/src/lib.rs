//! Serves images to others: the OCI distribution API (distribution-spec 1.1) over files and SQLite.
//!
//! On disk, below the root that [`Registry::open`] gets:
//! ```text
//! lock                              held by the one process that serves
//! registry.db                       repositories, tags, manifests (raw bytes), links, edges
//! blobs/<algorithm>/<hh>/<hex>      complete blobs, shared by all repositories, never changed
//! uploads/<id>.<repository>         unfinished uploads; forgotten after a day
//! trash/                            deleted blobs, about to be unlinked
//! ```
//! What this crate promises:
//! - A repository serves a blob only by its own link: that another repository has it cannot be seen.
//! - Names, tags, digests and ids are checked before disk or database are asked; file names are made of hex only.
//! - 201 comes after the bytes are hashed, flushed, renamed, and their rows committed: a crash loses nothing that was
//!   acknowledged. Writes that wait together share one transaction.
//! - An upload survives a restart: its file is hashed again and goes on.
//! - No lock is held while bytes move: one session is locked by its own upload, the writer thread only renames and
//!   commits.
//! - Memory is bounded: bodies stream, manifests have at most 4 MiB, caches have a weight.
//!
//! One module per group of endpoints (`manifests`, `blobs`, `uploads`, `discovery`); `route` turns paths into valid
//! parts, `server` owns sockets and limits.

#![forbid(unsafe_code)]

mod blobs;
mod cache;
mod db;
mod digest;
mod discovery;
mod fault;
mod files;
mod manifest;
mod manifests;
mod registry;
mod reply;
mod route;
mod server;
mod sessions;
mod uploads;

pub use registry::{Options, Registry};
pub use server::{Server, serve};

dhow_types::define_error! {
    /// What can go wrong in the registry's own house; clients see OCI error codes.
    pub struct Error;
}
