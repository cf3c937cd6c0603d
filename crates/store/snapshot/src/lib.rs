//! Mounted and mountable stacks of layers.
//!
//! A snapshot is a stack of stored layers with, for an active one, a directory on top that takes the changes
//! (overlayfs). Its key is chosen by the caller: a container id, a build step.
//!
//! # On disk
//! ```text
//! ROOT/snapshots/<key>/stack    the diff ids, lowest first, one per line
//!                     /upper    changes; absent in a view
//!                     /work     overlayfs' own
//! ```
//!
//! # Locks
//! None: a key belongs to the one who made it.

#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dhow_layer::{Capture, Layer, LayerStore};
use dhow_types::{DiffId, ErrorKind};

dhow_types::define_error! {
    /// What failed on which snapshot.
    pub struct Error;
}

fn unfinished() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "this part of the snapshots is being written",
    )
}

/// The snapshots under one store directory.
#[derive(Clone, Debug)]
pub struct Snapshots {
    root: Arc<PathBuf>,
    layers: LayerStore,
}

/// A snapshot that can be mounted.
#[derive(Clone, Debug)]
pub struct Active {
    key: String,
    upper: Option<PathBuf>,
}

/// A mounted snapshot: unmounted when dropped.
#[derive(Debug)]
pub struct MountGuard {
    target: PathBuf,
}

impl Snapshots {
    /// The snapshots under the store directory `root`, over the layers of `layers`.
    ///
    /// # Errors
    /// Failures of the file system.
    pub fn open(root: &Path, layers: LayerStore) -> Result<Self, Error> {
        Ok(Self {
            root: Arc::new(root.to_owned()),
            layers,
        })
    }

    /// Makes a writable snapshot over `stack` (lowest layer first; may be empty).
    ///
    /// # Errors
    /// `AlreadyExists` when the key is taken; `NotFound` when a layer is missing; `InvalidArgument` for a key that is
    /// no plain file name.
    pub fn prepare(&self, _key: &str, _stack: &[DiffId]) -> Result<Active, Error> {
        Err(unfinished())
    }

    /// Makes a read-only snapshot of `stack`.
    ///
    /// # Errors
    /// As [`Snapshots::prepare`].
    pub fn view(&self, _key: &str, _stack: &[DiffId]) -> Result<Active, Error> {
        Err(unfinished())
    }

    /// The snapshot made before under `key`.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn active(&self, _key: &str) -> Result<Active, Error> {
        Err(unfinished())
    }

    /// Makes a layer of the changes of a writable snapshot, which is spent. It must not be mounted any more.
    ///
    /// # Errors
    /// `FailedPrecondition` for a view; the failures of [`LayerStore::capture`].
    pub fn capture(&self, active: Active, how: &Capture) -> Result<Layer, Error> {
        let upper = active.upper().ok_or_else(unfinished)?;
        self.layers
            .capture_with(upper, how)
            .context(|| format!("capture snapshot {}", active.key))
    }

    /// Removes a snapshot and its changes. One that is not there is done already.
    ///
    /// # Errors
    /// `FailedPrecondition` when it is mounted.
    pub fn remove(&self, _key: &str) -> Result<(), Error> {
        Err(unfinished())
    }

    /// All keys, sorted.
    ///
    /// # Errors
    /// Failures of the file system.
    pub fn list(&self) -> Result<Vec<String>, Error> {
        Err(unfinished())
    }

    /// The store directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Active {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The directory that takes the changes; `None` for a view.
    #[must_use]
    pub fn upper(&self) -> Option<&Path> {
        self.upper.as_deref()
    }

    /// The mount, not attached to any tree yet: to be moved into place, or used through the descriptor.
    ///
    /// # Errors
    /// `PermissionDenied`; `Unsupported` when the kernel has no overlayfs.
    pub fn mount_detached(&self) -> Result<OwnedFd, Error> {
        Err(unfinished())
    }

    /// Mounts it on the directory `target`.
    ///
    /// # Errors
    /// As [`Active::mount_detached`].
    pub fn mount(&self, target: &Path) -> Result<MountGuard, Error> {
        Ok(MountGuard {
            target: target.to_owned(),
        })
    }
}

impl MountGuard {
    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.target
    }

    /// Unmounts now.
    ///
    /// # Errors
    /// `FailedPrecondition` when something still uses it.
    pub fn unmount(self) -> Result<(), Error> {
        Err(unfinished())
    }
}
