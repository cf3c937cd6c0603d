use std::io::Read;
use std::sync::Arc;

use dhow_oci::Descriptor;
use dhow_reference::Reference;
use dhow_types::{Digest, ErrorKind};

use crate::{BlobReader, Download, Error, Fetched, Settings};

/// Talks to registries. Cheap to clone; see the crate's story.
#[derive(Clone, Debug)]
pub struct Client {
    settings: Arc<Settings>,
}

fn later() -> Error {
    Error::new(ErrorKind::Unsupported, "not there yet")
}

impl Client {
    /// A client; no thread is started and nothing is read before the first request.
    ///
    /// # Errors
    /// `InvalidArgument` when a proxy URL is malformed.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        Ok(Self {
            settings: Arc::new(settings),
        })
    }

    /// Fetches the manifest or index that `reference` names: by its digest if it has one, else by its tag, else
    /// `latest`.
    ///
    /// # Errors
    /// `NotFound`, `Unauthenticated`, `PermissionDenied`, `Unavailable`, `ResourceExhausted` (rate limit, over
    /// 4 MiB), `DataLoss` when bytes and digest disagree.
    pub fn manifest(&self, reference: &Reference) -> Result<Fetched, Error> {
        let _ = (&self.settings, reference);
        Err(later())
    }

    /// Fetches a manifest by digest from the repository of `reference`.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest).
    pub fn manifest_at(&self, _reference: &Reference, _digest: &Digest) -> Result<Fetched, Error> {
        Err(later())
    }

    /// Opens a blob for reading; see [`BlobReader`].
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest), when the first answer is an error.
    pub fn blob(&self, _reference: &Reference, _descriptor: &Descriptor) -> Result<BlobReader, Error> {
        Err(later())
    }

    /// Whether the repository has this blob.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest), `NotFound` excepted.
    pub fn has_blob(&self, _reference: &Reference, _digest: &Digest) -> Result<bool, Error> {
        Err(later())
    }

    /// Asks the registry to link a blob of its repository `from` into the repository of `reference`. `false` when
    /// it does not: the blob must then be pushed.
    ///
    /// # Errors
    /// As [`has_blob`](Self::has_blob).
    pub fn mount_blob(&self, _reference: &Reference, _digest: &Digest, _from: &str) -> Result<bool, Error> {
        Err(later())
    }

    /// Pushes a blob of known digest and size. `content` is read once: a break in the middle is an error.
    ///
    /// # Errors
    /// As [`has_blob`](Self::has_blob); `DataLoss` when `content` is not what `descriptor` says.
    pub fn push_blob(
        &self,
        _reference: &Reference,
        _descriptor: &Descriptor,
        _content: &mut dyn Read,
    ) -> Result<(), Error> {
        Err(later())
    }

    /// Pushes a blob of unknown size, hashing on the way; gives its digest and size.
    ///
    /// # Errors
    /// As [`push_blob`](Self::push_blob).
    pub fn push_stream(
        &self,
        _reference: &Reference,
        _content: &mut dyn Read,
    ) -> Result<(Digest, u64), Error> {
        Err(later())
    }

    /// Pushes a manifest or index under the digest or the tag of `reference` (or `latest`); gives its digest.
    ///
    /// # Errors
    /// As [`has_blob`](Self::has_blob).
    pub fn push_manifest(
        &self,
        _reference: &Reference,
        _media_type: &str,
        _bytes: &[u8],
    ) -> Result<Digest, Error> {
        Err(later())
    }

    /// All tags of a repository, over as many pages as the registry gives.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest).
    pub fn tags(&self, _reference: &Reference) -> Result<Vec<String>, Error> {
        Err(later())
    }

    /// Plain download of a URL: redirects are followed (bounded), a break is resumed, connections are kept and
    /// shared by all threads. No credentials are sent. The bytes are not verified: the caller has their digest.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest); `InvalidArgument` for a URL that is not `http` or `https`.
    pub fn get(&self, _url: &str) -> Result<Download, Error> {
        Err(later())
    }
}
