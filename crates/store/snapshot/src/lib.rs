//! Mounted and mountable stacks of layers.
//!
//! A snapshot is a stack of stored layers with, for an active one, a directory on top that takes the changes
//! (overlayfs), or, where a host or a file system has no overlayfs, a copy of what the stack shows (see `copy`). Its key
//! is chosen by the caller: a container id, a build step.
//!
//! # On disk
//! ```text
//! ROOT/snapshots/<key>/upper    changes; absent in a view
//!                     /work     overlayfs' own; absent in a view
//!                     /patch-N  what the layer number N of the stack implies but cannot know by itself (see `patch`)
//!                     /patch-N.owners-X  the same with other owners (see `Active::with_owners`)
//!                     /tree, view, copied    instead of these, of a plain copy (see `copy`)
//!                     /stack    the diff ids, lowest first, one per line; written last: without it nothing is there
//! ROOT/snapshots/.empty/{a,b}   lower directories for stacks that have none
//! ROOT/snapshots/.copy          there while new snapshots are plain copies
//! ```
//!
//! # Locks
//! None: a key belongs to the one who made it.

#![forbid(unsafe_code)]

mod active;
mod changes;
mod copy;
mod look;
mod merged;
mod patch;
mod probe;
mod stack;
mod stamps;

pub use active::{Active, MountGuard, MountIds};
pub use changes::Changes;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dhow_layer::{Capture, Layer, LayerStore, Owners};
use dhow_rootpath::Root;
use dhow_types::{DiffId, ErrorKind};

dhow_types::define_error! {
    /// What failed on which snapshot.
    pub struct Error;
}

/// How new snapshots are made. One store may have snapshots of both kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Overlayfs over the layers: nothing is copied before it is written to.
    #[default]
    Overlay,
    /// A plain copy of all that the layers show, which works everywhere.
    Copy,
}

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
        // What only an index deletes, overlayfs would show.
        let form = match self.form() {
            Form::Overlay if layers.iter().all(Layer::is_marked) => Form::Overlay,
            _ => Form::Copy,
        };
        if form == Form::Overlay {
            stack::check_overlay(&layers)?;
        }
        let dir = self.dir().join(key);
        if is_rest(&dir, key) {
            self.remove(key)?;
        }
        let made = DirBuilder::new().mode(0o700).create(&dir);
        made.context(|| format!("make the snapshot {}", dir.display()))?;
        let filled = match form {
            Form::Overlay => fill(&dir, &layers, writable),
            Form::Copy => copy::make(&self.layers, &dir, &layers, writable),
        };
        filled
            .and_then(|()| stack::write(&dir, stack))
            .map(|()| self.opened(key, &dir, layers))
            .inspect_err(|_| {
                // The failure itself is what the caller must see; a rest is removed with the key.
                drop(self.remove(key));
            })
    }

    fn opened(&self, key: &str, dir: &Path, layers: Vec<Layer>) -> Active {
        if let Some((tree, writable)) = copy::existing(dir) {
            return Active::copied(key, dir, tree, layers, writable);
        }
        let patches = patch::existing(dir, &layers);
        let writable = dir.join("upper").exists();
        Active::new(key, dir, &self.dir(), &layers, &patches, writable)
    }

    /// The snapshot made before under `key`.
    ///
    /// # Errors
    /// `NotFound`, also of a copy that a power cut left incomplete before anything was made of it; `DataLoss` when a layer
    /// of it is gone.
    pub fn active(&self, key: &str) -> Result<Active, Error> {
        let stack = self.stack(key)?;
        let dir = self.dir().join(key);
        if copy::is_lost(&dir) {
            return Err(Error::new(ErrorKind::NotFound, format!("no snapshot {key}")));
        }
        let layers = stack::layers(&self.layers, &stack)
            .map_err(|error| error.with_kind(ErrorKind::DataLoss))
            .context(|| format!("open the snapshot {key}"))?;
        Ok(self.opened(key, &dir, layers))
    }

    /// A snapshot of these with other owners ([`Active::with_owners`]).
    ///
    /// # Errors
    /// As that.
    pub fn with_owners(&self, active: Active, owners: &Owners) -> Result<Active, Error> {
        active.with_owners(&self.layers, owners)
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
    /// `FailedPrecondition` for a view; the failures of [`LayerStore::capture`], after which the snapshot is as it was, but
    /// for a copy, of which the changes were taken.
    pub fn capture(&self, active: Active, how: &Capture) -> Result<Layer, Error> {
        let what = || format!("capture the snapshot {}", active.key());
        let Some(written) = active.written() else {
            let message = format!(
                "the snapshot {} is a view: it has no changes to capture",
                active.key()
            );
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        };
        let layer = match active.changes()? {
            None => self.layers.capture_with(written, how).context(what)?,
            Some(changes) => {
                let upper = self.dir().join(active.key()).join("changes");
                make_dir(&upper, 0o755)?;
                changes::take(written, &changes, &upper).context(what)?;
                let mut how = how.clone();
                how.gone.extend(changes.gone);
                self.layers.capture_with(&upper, &how).context(what)?
            }
        };
        self.remove(active.key())?;
        Ok(layer)
    }

    /// How new snapshots are made.
    #[must_use]
    pub fn form(&self) -> Form {
        if self.dir().join(".copy").exists() {
            Form::Copy
        } else {
            Form::Overlay
        }
    }

    /// Makes new snapshots so from now on; those that are there stay as they are, and go on working.
    ///
    /// # Errors
    /// `Unsupported` when this host cannot mount an overlay here; failures of the file system.
    pub fn make_as(&self, form: Form) -> Result<(), Error> {
        let mark = self.dir().join(".copy");
        let what = || format!("write {}", mark.display());
        match form {
            Form::Copy => std::fs::write(&mark, "").context(what),
            Form::Overlay => {
                probe::overlay(&self.root)
                    .map_err(|error| error.with_kind(ErrorKind::Unsupported))
                    .context(|| "try an overlay on this host")?;
                match std::fs::remove_file(&mark) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    other => other.context(what),
                }
            }
        }
    }

    /// What a new store here has to use: a copy where an overlay cannot be mounted though a copy can. Whoever may mount
    /// nothing at all learns nothing.
    #[must_use]
    pub fn probe(&self) -> Form {
        if probe::overlay(&self.root).is_err() && probe::copy(&self.root) {
            Form::Copy
        } else {
            Form::Overlay
        }
    }

    /// Removes a snapshot and its changes. One that is not there is done already.
    ///
    /// It leaves the view by one rename, then its files go. A mount of it that is still there somewhere keeps working
    /// on what is deleted; unmount before.
    ///
    /// # Errors
    /// Failures of the file system; what is left then goes when the store is swept.
    pub fn remove(&self, key: &str) -> Result<(), Error> {
        self.withdraw(key)?.map_or(Ok(()), Withdrawn::delete)
    }

    /// The first half of [`Self::remove`]: takes a snapshot out of the view, by one rename. None if it is not there.
    ///
    /// # Errors
    /// Failures of the file system; the snapshot is then still there.
    pub fn withdraw(&self, key: &str) -> Result<Option<Withdrawn>, Error> {
        check_key(key)?;
        match dhow_layer::hide(&self.dir().join(key)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            hidden => {
                let path = hidden.context(|| format!("remove the snapshot {key}"))?;
                let key = key.to_owned();
                Ok(Some(Withdrawn { key, path }))
            }
        }
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

/// A snapshot that is out of the view and whose files are still there. Dropped, they stay until the store is swept.
#[derive(Debug)]
#[must_use = "its files stay"]
pub struct Withdrawn {
    key: String,
    path: PathBuf,
}

impl Withdrawn {
    /// Deletes its files.
    ///
    /// # Errors
    /// Failures of the file system; what is left goes when the store is swept.
    pub fn delete(self) -> Result<(), Error> {
        let (folder, name) = (self.path.parent(), self.path.file_name());
        Root::open(folder.unwrap_or(Path::new("/")))
            .and_then(|folder| folder.remove_all_at_once(Path::new(name.unwrap_or_default())))
            .context(|| format!("delete the files of the snapshot {}", self.key))
    }
}

fn fill(dir: &Path, layers: &[Layer], writable: bool) -> Result<(), Error> {
    if writable {
        for (name, mode) in [("upper", 0o755), ("work", 0o700)] {
            make_dir(&dir.join(name), mode)?;
        }
    }
    patch::build(dir, layers).map(drop)
}

/// Whether a folder is what a process left that was killed while it made a snapshot, or a power cut of a new copy: nothing
/// was ever changed in it, and its key is that of the one who makes it now.
fn is_rest(dir: &Path, key: &str) -> bool {
    let unfinished = stack::read(dir, key).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    copy::is_lost(dir) || (unfinished && dir.exists() && !dir.join("upper").exists())
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
