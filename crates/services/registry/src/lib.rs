//! Serves images to others: the OCI distribution API over files and SQLite.

#![forbid(unsafe_code)]

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;

use dhow_types::ErrorKind;

dhow_types::define_error! {
    /// What can go wrong in the registry's own house; clients see OCI error codes.
    pub struct Error;
}

/// A registry over a directory. One process at a time.
#[derive(Debug)]
pub struct Registry(());

impl Registry {
    /// Opens the registry at `root`, making it if there is none.
    ///
    /// # Errors
    /// `FailedPrecondition` when another process serves it.
    pub fn open(_root: &Path) -> Result<Self, Error> {
        Err(Error::new(ErrorKind::Unsupported, "not there yet"))
    }
}

/// Serves `registry` on `listen` until `shutdown` completes; blocks.
///
/// # Errors
/// When the address cannot be bound.
pub fn serve(
    _registry: Registry,
    _listen: SocketAddr,
    _shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    Err(Error::new(ErrorKind::Unsupported, "not there yet"))
}
