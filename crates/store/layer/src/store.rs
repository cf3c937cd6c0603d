use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dhow_types::{DiffId, ErrorKind};

use crate::{Compression, Error, Index, Limits};

pub(crate) fn unfinished() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "this part of the layer store is being written",
    )
}

/// The layers under one store directory.
#[derive(Clone, Debug)]
pub struct LayerStore {
    root: Arc<PathBuf>,
}

/// How to unpack.
#[derive(Clone, Debug, Default)]
pub struct Unpack {
    /// The diff id that the image promises; anything else is refused.
    pub expected: Option<DiffId>,
    /// Bounds.
    pub limits: Limits,
}

/// What came of an unpack.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// The layer.
    pub layer: Layer,
    /// How the stream was compressed.
    pub compression: Compression,
}

/// How to capture.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    /// Times after this second become this second (`SOURCE_DATE_EPOCH`).
    pub clamp: Option<i64>,
}

/// One stored layer.
#[derive(Clone, Debug)]
pub struct Layer {
    diff_id: DiffId,
    path: PathBuf,
    size: u64,
    disk: u64,
}

/// One way in which a stored layer is not what its index says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path in the layer.
    pub path: Vec<u8>,
    /// What is wrong: lower case, no full stop.
    pub what: String,
}

/// The uncompressed tar of a layer.
#[derive(Debug)]
pub struct TarStream(());

impl Read for TarStream {
    fn read(&mut self, _buf: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other(unfinished()))
    }
}

impl LayerStore {
    /// The layers under the store directory `root`; what is missing of its directories is made.
    ///
    /// # Errors
    /// Failures of the file system.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Ok(Self {
            root: Arc::new(root.to_owned()),
        })
    }

    /// The store directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the layer is stored.
    #[must_use]
    pub fn contains(&self, _diff: &DiffId) -> bool {
        false
    }

    /// The stored layer.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn layer(&self, _diff: &DiffId) -> Result<Layer, Error> {
        Err(unfinished())
    }

    /// All stored layers, sorted.
    ///
    /// # Errors
    /// Failures of the file system.
    pub fn list(&self) -> Result<Vec<DiffId>, Error> {
        Err(unfinished())
    }

    /// Removes a layer from view; its files go later (see [`LayerStore::sweep`]).
    ///
    /// # Errors
    /// `NotFound`.
    pub fn remove(&self, _diff: &DiffId) -> Result<(), Error> {
        Err(unfinished())
    }

    /// Deletes what was removed, and what processes that live no more left half-made.
    ///
    /// # Errors
    /// Failures of the file system; all that can be deleted is deleted first.
    pub fn sweep(&self) -> Result<(), Error> {
        Err(unfinished())
    }

    /// Unpacks one layer from a stream of any known compression.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed or hostile archive, `ResourceExhausted` beyond a limit or on a full disk,
    /// `DataLoss` for a truncated or damaged stream and for a diff id that is not the expected one.
    pub fn unpack(&self, _stream: impl Read + Send, _how: &Unpack) -> Result<Unpacked, Error> {
        Err(unfinished())
    }

    /// Makes a layer of a directory on the same file system, which moves into the store.
    ///
    /// # Errors
    /// `Unsupported` for what a layer cannot hold; failures of the file system.
    pub fn capture(&self, upper: &Path) -> Result<Layer, Error> {
        self.capture_with(upper, &Capture::default())
    }

    /// As [`LayerStore::capture`].
    ///
    /// # Errors
    /// As [`LayerStore::capture`].
    pub fn capture_with(&self, _upper: &Path, _how: &Capture) -> Result<Layer, Error> {
        Err(unfinished())
    }

    /// Makes every layer written so far durable: one `syncfs`, then the flag in each `state`.
    ///
    /// # Errors
    /// Failures of the disk.
    pub fn sync(&self) -> Result<(), Error> {
        Err(unfinished())
    }

    /// Compares the files of a layer with its index; no problem found gives an empty list.
    ///
    /// # Errors
    /// `NotFound`; `DataLoss` when the index itself cannot be read.
    pub fn verify(&self, _diff: &DiffId) -> Result<Vec<Problem>, Error> {
        Err(unfinished())
    }
}

impl Layer {
    /// Its diff id.
    #[must_use]
    pub fn diff_id(&self) -> DiffId {
        self.diff_id
    }

    /// Its tree.
    #[must_use]
    pub fn fs(&self) -> PathBuf {
        self.path.join("fs")
    }

    /// Its entries.
    ///
    /// # Errors
    /// `DataLoss` when the stored index is damaged.
    pub fn index(&self) -> Result<Index, Error> {
        Err(unfinished())
    }

    /// Bytes of all its files, holes included, each hard-linked file once.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of disk it takes (statx blocks), taken when it was made.
    #[must_use]
    pub fn disk(&self) -> u64 {
        self.disk
    }

    /// The uncompressed tar, byte for byte.
    ///
    /// # Errors
    /// `DataLoss` when what is stored is damaged.
    pub fn tar(&self) -> Result<TarStream, Error> {
        Err(unfinished())
    }
}
