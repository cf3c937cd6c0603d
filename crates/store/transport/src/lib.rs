//! Registry client: resolve, fetch, push, authenticate; blocking face over an asynchronous core.
//!
//! A [`Client`] is cheap to clone and may be used from many threads at once. Nothing happens before the first call;
//! that starts one background thread with a single-threaded runtime, which owns every socket. Bodies come to the
//! caller through a short channel of buffers, so memory stays bounded however fast the other side is, and hashing
//! happens on the caller's thread. When the last clone (and the last open body) is dropped, the thread is joined:
//! a process that forks afterwards is single-threaded again.
//!
//! What this crate promises:
//! - Bytes of a blob or of a manifest by digest are verified: length and sha256. A mismatch is `DataLoss`, never a
//!   short read that looks like an end.
//! - A broken download goes on where it stopped (`Range`, validated), and idempotent requests are tried again with
//!   back-off; `Retry-After` is honoured within bounds.
//! - Credentials go to the registry they are for, and to the token server that it names over TLS (or on the loopback
//!   of a loopback registry). Never to the target of a redirect (CVE-2020-15157), never in clear text over a network
//!   unless the person named the registry as insecure.
//! - A large blob that one connection holds up is fetched in ranges over several, in bounded memory, where that gains.
//! - Other places may stand for a registry (mirrors, rewriting: [`RegistryFiles`]): they get their own credentials
//!   only, what they send is verified alike, and the next one is asked when one fails.
//! - Names are resolved here, from `/etc/hosts` and DNS, never by the C library.
//! - Every answer is bounded: headers, error bodies, token answers, manifests, redirects, pages, retries.

#![forbid(unsafe_code)]

mod ask;
mod background;
mod blob;
mod challenge;
mod client;
mod connect;
mod core;
mod credentials;
mod download;
mod exchange;
mod failure;
mod files;
mod helper;
mod host;
mod lists;
mod outgoing;
mod place;
mod proxy;
mod push;
mod ranges;
mod referrer;
mod registries;
mod settings;
mod tls;
mod token;
mod when;

pub use blob::{BlobReader, Body, Download, Fetched};
pub use client::Client;
pub use helper::CredentialProgram;
pub use lists::Found;
pub use registries::{Registries, RegistryFiles};
pub use settings::{GivenLogin, Proxies, Ranges, Settings, Timeouts};
pub use tls::{Trust, client_tls};

dhow_types::define_error! {
    /// A request that failed: says method, URL without secrets, status, and the registry's own words.
    pub struct Error;
}
