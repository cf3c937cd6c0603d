//! Views of images.

use dhow_meta::ImageRecord;
use dhow_oci::ImageConfig;
use dhow_reference::Reference;
use dhow_types::{Digest, ImageId};

/// An image with its config and its names.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Digest of the config.
    pub id: ImageId,
    /// What the index knows of it.
    pub record: ImageRecord,
    /// Its config.
    pub config: ImageConfig,
    /// Its tags, canonical.
    pub names: Vec<String>,
    /// Its repo digests: `host/repository` and the digest there.
    pub digests: Vec<(String, Digest)>,
}

/// An image as a list shows it: without its config, so without a file to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What the index knows of it.
    pub record: ImageRecord,
    /// Its tags, canonical.
    pub names: Vec<String>,
    /// Its repo digests.
    pub digests: Vec<(String, Digest)>,
}

/// One line of `docker history`, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryLine {
    /// The image of this line, when it is a local one (`<missing>` otherwise).
    pub id: Option<ImageId>,
    /// When, RFC 3339.
    pub created: Option<String>,
    /// The instruction.
    pub created_by: String,
    /// Bytes of files that its layer added; 0 without a layer.
    pub size: u64,
    /// Free text.
    pub comment: String,
    /// Tags of that image, canonical.
    pub names: Vec<String>,
}

impl Image {
    /// Its tags as people write them: `debian:12`.
    #[must_use]
    pub fn repo_tags(&self) -> Vec<String> {
        self.names.iter().map(|name| familiar(name)).collect()
    }

    /// Its repo digests as people write them: `debian@sha256:...`.
    #[must_use]
    pub fn repo_digests(&self) -> Vec<String> {
        self.digests
            .iter()
            .map(|(repo, digest)| familiar(&format!("{repo}@{digest}")))
            .collect()
    }
}

/// The familiar form of a canonical name; the name itself if it is none, since it came from the index.
pub(crate) fn familiar(canonical: &str) -> String {
    Reference::parse(canonical).map_or_else(|_| canonical.to_owned(), |reference| reference.familiar())
}
