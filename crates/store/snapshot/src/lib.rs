//! Mounted and mountable stacks of layers.
//!
//! A snapshot is a stack of stored layers with, for an active one, a directory on top that takes the changes
//! (overlayfs). Its key is chosen by the caller: a container id, a build step.
//!
//! # On disk
//! ```text
//! ROOT/snapshots/<key>/upper    changes; absent in a view
//!                     /work     overlayfs' own; absent in a view
//!                     /patch-N  what the layer number N of the stack implies but cannot know by itself (see `patch`)
//!                     /stack    the diff ids, lowest first, one per line; written last: without it nothing is there
//! ROOT/snapshots/.empty/{a,b}   lower directories for stacks that have none
//! ```
//!
//! # Locks
//! None: a key belongs to the one who made it.

#![forbid(unsafe_code)]

mod active;
mod patch;
mod stack;

pub use active::{Active, MountGuard};

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use dhow_layer::{Capture, Layer, LayerStore};
use dhow_rootpath::Root;
use dhow_types::{DiffId, ErrorKind};

dhow_types::define_error! {
    /// What failed on which snapshot.
    pub struct Error;
}

/// Makes names in the trash differ within one process.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// The snapshots under one store directory.
#[derive(Clone, Debug)]
pub struct Snapshots {
    root: Arc<PathBuf>,
    layers: LayerStore,
}

impl Snapshots {
    /// The snapshots under the store directory `root`, over the layers of `layers`.
    ///
    /// # Errors
    /// Failures of the file system.
    pub fn open(root: &Path, layers: LayerStore) -> Result<Self, Error> {
        let snapshots = Self {
            root: Arc::new(root.to_owned()),
            layers,
        };
        for dir in ["snapshots/.empty/a", "snapshots/.empty/b", "trash"] {
            make_dirs(&root.join(dir))?;
        }
        Ok(snapshots)
    }

    /// The store directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn dir(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// Makes a writable snapshot over `stack` (lowest layer first; may be empty, may hold a layer twice).
    ///
    /// # Errors
    /// `AlreadyExists` when the key is taken; `NotFound` when a layer is missing; `InvalidArgument` for a key that is
    /// no plain file name.
    pub fn prepare(&self, key: &str, stack: &[DiffId]) -> Result<Active, Error> {
        self.make(key, stack, true)
    }

    /// Makes a read-only snapshot of `stack`.
    ///
    /// # Errors
    /// As [`Snapshots::prepare`].
    pub fn view(&self, key: &str, stack: &[DiffId]) -> Result<Active, Error> {
        self.make(key, stack, false)
    }

    fn make(&self, key: &str, stack: &[DiffId], writable: bool) -> Result<Active, Error> {
        check_key(key)?;
        let layers = stack::layers(&self.layers, stack)?;
        let dir = self.dir().join(key);
        let made = DirBuilder::new().mode(0o700).create(&dir);
        made.context(|| format!("make the snapshot {}", dir.display()))?;
        self.fill(key, &dir, stack, &layers, writable).inspect_err(|_| {
            // The failure itself is what the caller must see; a rest is removed with the key.
            drop(self.remove(key));
        })
    }

    fn fill(
        &self,
        key: &str,
        dir: &Path,
        stack: &[DiffId],
        layers: &[Layer],
        writable: bool,
    ) -> Result<Active, Error> {
        if writable {
            for (name, mode) in [("upper", 0o755), ("work", 0o700)] {
                make_dir(&dir.join(name), mode)?;
            }
        }
        let patches = patch::build(dir, layers)?;
        stack::write(dir, stack)?;
        Ok(Active::new(key, dir, &self.dir(), layers, &patches, writable))
    }

    /// The snapshot made before under `key`.
    ///
    /// # Errors
    /// `NotFound`; `DataLoss` when a layer of it is gone.
    pub fn active(&self, key: &str) -> Result<Active, Error> {
        let stack = self.stack(key)?;
        let dir = self.dir().join(key);
        let layers = stack::layers(&self.layers, &stack)
            .map_err(|error| error.with_kind(ErrorKind::DataLoss))
            .context(|| format!("open the snapshot {key}"))?;
        let patches = patch::existing(&dir, &layers);
        let writable = dir.join("upper").exists();
        Ok(Active::new(key, &dir, &self.dir(), &layers, &patches, writable))
    }

    /// The layers that the snapshot `key` was made of, lowest first.
    ///
    /// # Errors
    /// `NotFound`; `DataLoss` when its list is damaged.
    pub fn stack(&self, key: &str) -> Result<Vec<DiffId>, Error> {
        check_key(key)?;
        stack::read(&self.dir().join(key), key)
    }

    /// Writes the list of layers of a snapshot again, for one that lost it in a power cut; its changes stay.
    ///
    /// # Errors
    /// `NotFound` when there is no such snapshot, or a layer is not there; failures of the file system.
    pub fn restack(&self, key: &str, stack: &[DiffId]) -> Result<(), Error> {
        check_key(key)?;
        stack::layers(&self.layers, stack)?;
        stack::write(&self.dir().join(key), stack)
    }

    /// Makes a layer of the changes of a writable snapshot, which is spent. It must not be mounted any more.
    ///
    /// # Errors
    /// `FailedPrecondition` for a view; the failures of [`LayerStore::capture`], after which the snapshot is as it was.
    pub fn capture(&self, active: Active, how: &Capture) -> Result<Layer, Error> {
        let Some(upper) = active.upper() else {
            let message = format!(
                "the snapshot {} is a view: it has no changes to capture",
                active.key()
            );
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        };
        let layer = self
            .layers
            .capture_with(upper, how)
            .context(|| format!("capture the snapshot {}", active.key()))?;
        self.remove(active.key())?;
        Ok(layer)
    }

    /// Removes a snapshot and its changes. One that is not there is done already.
    ///
    /// It leaves the view by one rename, then its files go. A mount of it that is still there somewhere keeps working
    /// on what is deleted; unmount before.
    ///
    /// # Errors
    /// Failures of the file system; what is left then lies in the trash.
    pub fn remove(&self, key: &str) -> Result<(), Error> {
        check_key(key)?;
        let nanos = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |time| time.as_nanos());
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("snapshot-{}-{nanos}-{serial}", std::process::id());
        let trash = self.root.join("trash");
        match std::fs::rename(self.dir().join(key), trash.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.context(|| format!("remove the snapshot {key}"))?,
        }
        Root::open(&trash)
            .and_then(|trash| trash.remove_all(Path::new(&name)))
            .context(|| format!("delete the files of the snapshot {key}"))
    }

    /// All keys, sorted.
    ///
    /// # Errors
    /// Failures of the file system.
    pub fn list(&self) -> Result<Vec<String>, Error> {
        let dir = self.dir();
        let what = || format!("list {}", dir.display());
        let mut keys = Vec::new();
        for entry in std::fs::read_dir(&dir).context(what)? {
            let name = entry.context(what)?.file_name();
            if let Some(key) = name.to_str()
                && check_key(key).is_ok()
            {
                keys.push(key.to_owned());
            }
        }
        keys.sort();
        Ok(keys)
    }
}

/// A key is a plain file name: letters, digits, `_`, `.`, `-`; the first is none of the last two.
fn check_key(key: &str) -> Result<(), Error> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if !key.is_empty() && key.len() <= 255 && key.bytes().all(good) && !key.starts_with(['.', '-']) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!("{key:?} cannot name a snapshot"),
    ))
}

fn make_dirs(path: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .context(|| format!("make the directory {}", path.display()))
}

/// Makes a directory with exactly this mode.
fn make_dir(path: &Path, mode: u32) -> Result<(), Error> {
    let what = || format!("make the directory {}", path.display());
    DirBuilder::new().mode(mode).create(path).context(what)?;
    let exact = rustix::fs::Mode::from_raw_mode(mode);
    rustix::fs::chmod(path, exact)
        .map_err(io::Error::from)
        .context(what)
}
