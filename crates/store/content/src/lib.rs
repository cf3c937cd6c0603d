//! Blobs by digest.
//!
//! # Promise
//! What is stored under a digest has that digest: an [`Ingest`] is published by rename only after its hash is known,
//! and a [`VerifiedReader`] checks length and hash again while it reads. A reader that is read to its end without an
//! error has given the right bytes. There is no unverified way in.
//!
//! # On disk
//! ```text
//! ROOT/blobs/sha256/XX/<hex>    the blob; XX are the first two characters of the hex
//! ROOT/tmp/                     blobs in the making
//! ```
//!
//! # Locks
//! None. Two writers of one blob race to the rename; both win.

#![forbid(unsafe_code)]

mod ingest;
mod local;
mod memory;
mod reader;

pub use ingest::Ingest;
pub use local::Local;
pub use memory::Memory;
pub use reader::VerifiedReader;

use std::io::Write as _;

use dhow_types::Digest;

dhow_types::define_error! {
    /// What failed on which blob.
    pub struct Error;
}

/// A place that holds blobs.
pub trait ContentStore: Send + Sync {
    /// Opens a blob.
    ///
    /// # Errors
    /// `NotFound`.
    fn open(&self, digest: &Digest) -> Result<VerifiedReader, Error>;

    /// Begins to write a blob.
    ///
    /// # Errors
    /// Failures of the place.
    fn begin(&self) -> Result<Ingest, Error>;

    /// Bytes of a blob; `None` when it is not here.
    ///
    /// # Errors
    /// Failures of the place.
    fn size(&self, digest: &Digest) -> Result<Option<u64>, Error>;

    /// Removes a blob.
    ///
    /// # Errors
    /// `NotFound`.
    fn remove(&self, digest: &Digest) -> Result<(), Error>;

    /// All blobs, sorted.
    ///
    /// # Errors
    /// Failures of the place.
    fn list(&self) -> Result<Vec<Digest>, Error>;

    /// A whole blob of at most `max` bytes, verified.
    ///
    /// # Errors
    /// `NotFound`; `ResourceExhausted` when it is larger; `DataLoss` when it is damaged.
    fn read(&self, digest: &Digest, max: u64) -> Result<Vec<u8>, Error> {
        self.open(digest)?.into_bytes(max)
    }

    /// Stores `bytes`.
    ///
    /// # Errors
    /// Failures of the place.
    fn put(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let mut ingest = self.begin()?;
        ingest.write_all(bytes).context(|| "write a blob")?;
        ingest.commit(None)
    }
}
