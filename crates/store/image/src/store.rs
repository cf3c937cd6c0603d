//! The store: where it is, and its parts.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use dhow_content::Local;
use dhow_layer::{Backend, LayerStore};
use dhow_meta::Meta;
use dhow_reference::Reference;
use dhow_snapshot::{Form as SnapshotForm, Snapshots};
use dhow_types::{DiffId, ErrorKind};
use serde::{Deserialize, Serialize};

use crate::due::Changes;
use crate::names::single;
use crate::{Context as _, Error};

/// The newest format that this program knows. A store has the oldest that can hold it, so that older programs read it as
/// long as they can: 2 since it was first told to keep layers as erofs images, 3 since it was first told, or found, to make
/// snapshots as plain copies.
const FORMAT: u32 = 3;

/// The format that knows plain copies.
const COPIES: u32 = 3;

/// Directories that a store has, besides those that its parts make themselves. The world may pass through the root
/// (a container with another user id has its files below), but not look into it.
const DIRECTORIES: [(&str, u32); 7] = [
    ("", 0o711),
    ("blobs", 0o700),
    ("refs", 0o700),
    ("leases", 0o700),
    ("locks", 0o700),
    ("tmp", 0o711),
    ("trash", 0o700),
];

#[derive(Serialize, Deserialize)]
struct StoreFile {
    format: u32,
    #[serde(default, skip_serializing_if = "Form::is_plain")]
    layers: Form,
}

/// How new layers are kept, as it is written.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    #[default]
    Directories,
    Erofs,
}

impl Form {
    fn is_plain(&self) -> bool {
        *self == Self::Directories
    }

    fn backend(self) -> Backend {
        match self {
            Self::Directories => Backend::Directories,
            Self::Erofs => Backend::Erofs,
        }
    }
}

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
    keepers: OnceLock<Keepers>,
    pub(crate) changes: Mutex<Changes>,
    /// Whether this process gave a name since the last sync.
    pub(crate) named: AtomicBool,
}

/// Says which layers somebody has who is not in the store.
struct Keepers(Box<dyn Fn() -> Result<Vec<DiffId>, Error> + Send + Sync>);

impl std::fmt::Debug for Keepers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keepers")
    }
}

impl Store {
    /// The store at `root`; made when it is not there.
    ///
    /// # Errors
    /// `FailedPrecondition` when a newer program made it; failures of the file system.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Self::open_with_run(root, None)
    }

    /// The same; the index may keep its log in `run`, the folder of what ends with a boot ([`Meta::with_run`]).
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with_run(root: &Path, run: Option<&Path>) -> Result<Self, Error> {
        let known = known(root)?;
        let fresh = known.is_none();
        let file = match known {
            Some(file) => file,
            None => make(root)?,
        };
        let layers = LayerStore::open_with(root, file.layers.backend()).context(|| "open the layers")?;
        let meta = Meta::open(&root.join("meta.db")).context(|| "open the index")?;
        let store = Self {
            content: Local::open(root).context(|| "open the blobs")?,
            snapshots: Snapshots::open(root, layers.clone()).context(|| "open the snapshots")?,
            layers,
            meta: match run {
                Some(run) => meta.with_run(run),
                None => meta,
            },
            root: root.to_owned(),
            keepers: OnceLock::new(),
            changes: Mutex::default(),
            named: AtomicBool::new(false),
        };
        if fresh && store.snapshots.probe() == SnapshotForm::Copy {
            store.make_snapshots_as(SnapshotForm::Copy)?;
        }
        Ok(store)
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whose layers a sweep keeps besides those that its caller names: `ask` is called while the sweep is announced, so that
    /// it also sees a container that was made since the caller looked. The first to be set stays.
    pub fn ask_before_a_sweep(&self, ask: impl Fn() -> Result<Vec<DiffId>, Error> + Send + Sync + 'static) {
        drop(self.keepers.set(Keepers(Box::new(ask))));
    }

    /// Layers of whoever was named by [`Store::ask_before_a_sweep`].
    pub(crate) fn kept_outside(&self) -> Result<Vec<DiffId>, Error> {
        self.keepers
            .get()
            .map_or_else(|| Ok(Vec::new()), |keepers| (keepers.0)())
    }

    /// Keeps layers that come from now on as `backend` says. Those that are there stay as they are, and go on working.
    ///
    /// # Errors
    /// `Unsupported` when this host cannot have them so; failures of the file system.
    pub fn keep_layers_as(&self, backend: Backend) -> Result<(), Error> {
        let mut file = known(&self.root)?.unwrap_or(StoreFile {
            format: FORMAT,
            layers: Form::Directories,
        });
        file.layers = match backend {
            Backend::Directories => Form::Directories,
            Backend::Erofs => {
                self.layers
                    .probe_erofs()
                    .map_err(|error| error.with_kind(ErrorKind::Unsupported))
                    .context(|| "try an erofs image on this host")
                    .map_err(|error| {
                        error.with_hint(
                            "layers as images need root and Linux 6.15 with erofs; keep directories",
                        )
                    })?;
                file.format = file.format.max(2);
                Form::Erofs
            }
        };
        write(&self.root, &file)
    }

    /// Makes snapshots so from now on. Those that are there stay as they are, and go on working.
    ///
    /// # Errors
    /// `Unsupported` when this host cannot have them so; failures of the file system.
    pub fn make_snapshots_as(&self, form: SnapshotForm) -> Result<(), Error> {
        let mut file = known(&self.root)?.unwrap_or(StoreFile {
            format: COPIES,
            layers: Form::Directories,
        });
        if form == SnapshotForm::Copy && file.format < COPIES {
            // Before the first copy: an older program would take it for a view of nothing.
            file.format = COPIES;
            write(&self.root, &file)?;
        }
        self.snapshots
            .make_as(form)
            .context(|| "choose how snapshots are made")
            .map_err(|error| match error.kind() {
                ErrorKind::Unsupported => error.with_hint(
                    "overlays need root or Linux 5.11, and a file system with attributes and whiteouts (ext4, xfs, btrfs); \
                     keep copies",
                ),
                _ => error,
            })
    }

    /// Makes all that was written so far survive a power cut: one `syncfs`. When to pay for it is the caller's choice.
    ///
    /// # Errors
    /// Failures of the disk.
    pub fn sync(&self) -> Result<(), Error> {
        self.named.store(false, Ordering::Relaxed);
        self.meta.before_a_sync();
        let what = || format!("sync {}", self.root.display());
        let root = std::fs::File::open(&self.root).context(what)?;
        let synced = self.layers.sync().context(|| "sync the layers to disk")?;
        if synced && self.is_one_file_system(&root) {
            return Ok(());
        }
        rustix::fs::syncfs(&root)
            .map_err(std::io::Error::from)
            .context(what)
    }

    /// Whether names, documents and layers lie in one file system.
    fn is_one_file_system(&self, root: &std::fs::File) -> bool {
        let own = root.metadata().map(|root| root.dev());
        let there = |name| std::fs::metadata(self.root.join(name)).map(|part| part.dev());
        own.is_ok_and(|own| {
            ["layers", "refs", "blobs"]
                .iter()
                .all(|name| there(name).is_ok_and(|part| part == own))
        })
    }

    /// The same after work that may have found all as it is to be: without a new layer or a new name only these names are
    /// synced, for somebody who gave them and did not come to that.
    ///
    /// # Errors
    /// Failures of the disk.
    pub fn sync_what_is_new(&self, names: &[Reference]) -> Result<(), Error> {
        if self.named.load(Ordering::Relaxed) {
            return self.sync();
        }
        self.layers.sync().context(|| "sync the layers to disk")?;
        names.iter().try_for_each(|name| self.sync_name(&single(name)))
    }

    /// Layers that a power cut may have damaged, and did: they are taken away, so that they are fetched again.
    ///
    /// # Errors
    /// When the layers cannot be read.
    pub(crate) fn heal_suspects(&self) -> Result<Vec<DiffId>, Error> {
        let mut damaged = self
            .layers
            .suspects()
            .context(|| "look for layers that a power cut may have damaged")?;
        damaged.retain(|diff| !self.layers.verify(diff).is_ok_and(|problems| problems.is_empty()));
        for diff in &damaged {
            match self.layers.remove(diff) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).context(|| format!("remove the damaged layer {}", diff.short()));
                }
                _ => {}
            }
        }
        Ok(damaged)
    }

    /// A fresh name in `tmp/` that says whose it is.
    pub(crate) fn staging(&self, what: &str) -> PathBuf {
        // Of all stores that this process has open: two may be of one folder.
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        self.root
            .join("tmp")
            .join(format!("{what}-{}-{serial}", std::process::id()))
    }
}

/// What the store at `root` says of itself, if there is one; its format is known.
fn known(root: &Path) -> Result<Option<StoreFile>, Error> {
    let path = root.join("store.json");
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.context(|| format!("read {}", path.display()))?,
    };
    let file: StoreFile = serde_json::from_slice(&bytes)
        .map_err(|error| Error::because(ErrorKind::DataLoss, format!("parse {}", path.display()), error))?;
    if file.format > FORMAT {
        let message = format!(
            "the store at {} has format {}, newer than this program",
            root.display(),
            file.format
        );
        return Err(
            Error::new(ErrorKind::FailedPrecondition, message).with_hint("use the newer dhow that made it")
        );
    }
    Ok(Some(file))
}

fn make(root: &Path) -> Result<StoreFile, Error> {
    for (name, mode) in DIRECTORIES {
        let path = if name.is_empty() {
            root.to_owned()
        } else {
            root.join(name)
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(&path)
            .context(|| format!("create {}", path.display()))?;
    }
    WIDENED.iter().for_each(|name| widen(&root.join(name)));
    // The file comes last: a store that has it is complete.
    let file = StoreFile {
        format: 1,
        layers: Form::Directories,
    };
    write(root, &file)?;
    Ok(file)
}

/// Directories in which every command makes or looks for files; the first is the store itself.
const WIDENED: [&str; 4] = ["", "refs", "tmp", "leases"];

/// Files with the longest of names that are more than a block of a directory holds.
const WIDE: usize = 20;

/// Makes an empty directory one that ext4 searches by an index, which it stays. One of a single block is searched from end
/// to end, and while that block is on its way to the disk every search waits for the disk (`__ext4_find_entry`), also that
/// of who makes a file, whom all others wait for who make one. Another file system has no use for it, and where it does
/// not work there is nothing to mend.
fn widen(directory: &Path) {
    let names = || (0..WIDE).map(|number| directory.join(format!(".wide-{number:0>249}")));
    for name in names() {
        drop(std::fs::File::create(name));
    }
    for name in names() {
        drop(std::fs::remove_file(name));
    }
}

fn write(root: &Path, file: &StoreFile) -> Result<(), Error> {
    let bytes = serde_json::to_vec(file)
        .map_err(|error| Error::because(ErrorKind::Internal, "write store.json", error))?;
    let staged = root.join("tmp").join(format!("store-{}-0", std::process::id()));
    let path = root.join("store.json");
    write_through(&staged, &bytes).context(|| format!("write {}", staged.display()))?;
    std::fs::rename(&staged, &path).context(|| format!("create {}", path.display()))
}

/// Writes a file whose bytes are on the disk before it gets the name under which it is looked for. A rename may reach
/// the disk long before the bytes do, and a power cut then leaves a file without content under the new name: on xfs also
/// where it replaces another, which ext4 alone takes care of (`auto_da_alloc`).
pub(crate) fn write_through(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.sync_data()
}
