//! The store: where it is, and its parts.

use std::path::{Path, PathBuf};

use dhow_content::Local;
use dhow_layer::LayerStore;
use dhow_meta::Meta;
use dhow_snapshot::Snapshots;

use crate::{Context as _, Error};

/// A store of images under one directory.
#[derive(Debug)]
pub struct Store {
    /// Configs and manifests.
    pub content: Local,
    /// Unpacked layers.
    pub layers: LayerStore,
    /// Stacks of layers with changes on top.
    pub snapshots: Snapshots,
    /// The index.
    pub meta: Meta,
    pub(crate) root: PathBuf,
}

impl Store {
    /// The store at `root`; made when it is not there.
    ///
    /// # Errors
    /// `PermissionDenied` or another failure of the file system.
    pub fn open(root: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(root).context(|| format!("create {}", root.display()))?;
        let layers = LayerStore::open(root).context(|| "open the layers")?;
        Ok(Self {
            content: Local::open(root).context(|| "open the blobs")?,
            snapshots: Snapshots::open(root, layers.clone()).context(|| "open the snapshots")?,
            layers,
            meta: Meta::open(&root.join("meta.db")).context(|| "open the index")?,
            root: root.to_owned(),
        })
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}
