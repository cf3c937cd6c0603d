//! The words of image archives: docker's `manifest.json` and the OCI layout, which docker 25 and later write into
//! the same tar.

use std::collections::BTreeMap;

use dhow_oci::Descriptor;
use dhow_types::Digest;
use serde::{Deserialize, Serialize};

/// Docker's list of images.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The entry point of an OCI layout (image-spec `image-layout.md`).
pub(crate) const INDEX: &str = "index.json";
/// Marks an OCI layout.
pub(crate) const LAYOUT: &str = "oci-layout";
/// Content of [`LAYOUT`].
pub(crate) const LAYOUT_BYTES: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// Docker's oldest list of names.
pub(crate) const REPOSITORIES: &str = "repositories";
/// Annotation with the whole name (containerd).
pub(crate) const FULL_NAME: &str = "io.containerd.image.name";
/// Annotation with the tag, or with the whole name, depending on the maker (image-spec `annotations.md`).
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// One image of docker's `manifest.json` (moby `image/tarexport`).
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ArchiveImage {
    /// Path of the config in the archive.
    pub(crate) config: String,
    /// Names; `null` when the image has none.
    pub(crate) repo_tags: Option<Vec<String>>,
    /// Paths of the layers, lowest first.
    pub(crate) layers: Option<Vec<String>>,
    /// The layers by diff id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", skip_deserializing)]
    pub(crate) layer_sources: BTreeMap<Digest, Descriptor>,
}

/// Path of a blob in an OCI layout.
pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The digest that a path promises: `blobs/sha256/<hex>`.
pub(crate) fn promised(path: &str) -> Option<Digest> {
    Digest::from_hex(path.strip_prefix("blobs/sha256/")?).ok()
}
