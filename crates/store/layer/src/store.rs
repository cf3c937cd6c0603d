use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io::{self, BufRead, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dhow_rootpath::Root;
use dhow_sys::mount;
use dhow_types::{DiffId, Digest, ErrorKind};

use crate::column::Column;
use crate::staging::{self, Staging};
use crate::state::{Form, State, boot_id};
use crate::stream::TarStream;
use crate::{Compression, Context, Error, Index, Limits, capture, erofs, unpack, verify};

/// The layers under one store directory.
#[derive(Clone, Debug)]
pub struct LayerStore {
    root: Arc<PathBuf>,
    backend: Backend,
    /// The tree that was opened last: to mount an image for each of its files would be slow.
    opened: Arc<Mutex<Option<(DiffId, Root)>>>,
    /// What was removed and is still where it was, under another name.
    removed: Arc<Mutex<Vec<PathBuf>>>,
    /// What was written or met here and is not known to be on the disk.
    fresh: Arc<Mutex<BTreeSet<DiffId>>>,
}

/// How new layers are kept. One store may hold layers of both kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// As directories, whatever the file system: what runs shares its pages in memory.
    #[default]
    Directories,
    /// As one erofs image each, mounted when needed: no file is created. Root only.
    Erofs,
}

/// How to unpack.
#[derive(Clone, Debug, Default)]
pub struct Unpack {
    /// The diff id that the image promises; anything else is refused.
    pub expected: Option<DiffId>,
    /// Bytes of the stream as it comes, when somebody vouches for them: tells a bomb from an honest layer sooner.
    pub size: Option<u64>,
    /// Bounds.
    pub limits: Limits,
}

/// A directory that is removed when this is dropped.
#[derive(Debug)]
pub struct Scratch(Staging);

impl Scratch {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.path()
    }
}

/// What came of an unpack.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// The layer.
    pub layer: Layer,
    /// Whether it was not in the store before.
    pub fresh: bool,
    /// How the stream was compressed.
    pub compression: Compression,
}

/// How to capture.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    /// Times after this second become this second (`SOURCE_DATE_EPOCH`).
    pub clamp: Option<i64>,
    /// Paths that the layer deletes, besides those of which the tree itself says so; their directories are in the tree,
    /// and they are not.
    pub gone: Vec<Vec<u8>>,
}

/// One stored layer.
#[derive(Clone, Debug)]
pub struct Layer {
    diff_id: DiffId,
    path: PathBuf,
    state: State,
}

/// One way in which a stored layer is not what its index says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path in the layer.
    pub path: Vec<u8>,
    /// What is wrong: lower case, no full stop.
    pub what: String,
}

impl LayerStore {
    /// The layers under the store directory `root`; what is missing of its directories is made.
    ///
    /// # Errors
    /// Failures of the file system.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Self::open_with(root, Backend::Directories)
    }

    /// The same, with new layers kept as `backend` says; those that are there stay as they are.
    ///
    /// # Errors
    /// As [`LayerStore::open`].
    pub fn open_with(root: &Path, backend: Backend) -> Result<Self, Error> {
        for part in ["layers", "trash"] {
            make_dir(&root.join(part))?;
        }
        staging::make_tmp(root)?;
        Ok(Self {
            root: Arc::new(root.to_owned()),
            backend,
            opened: Arc::default(),
            removed: Arc::default(),
            fresh: Arc::default(),
        })
    }

    /// How new layers are kept.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Whether this host can keep layers as erofs images: makes a small one, and mounts an overlay over it.
    ///
    /// # Errors
    /// What it lacks.
    pub fn probe_erofs(&self) -> Result<(), Error> {
        let scratch = self.scratch("probe")?;
        let path = scratch.path().join("image");
        let image = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let image = image.context(|| format!("create {}", path.display()))?;
        let (data, links) = (Column::new(Path::new("")), Column::new(Path::new("")));
        erofs::finish(&image, Path::new(""), &mut Vec::new(), &data, &links, erofs::TAR)?;
        let mount = mount_image(&path, None)?;
        let empty = scratch.path().join("empty");
        make_dir(&empty)?;
        let lower = [mount::Lower::Mount(mount.as_fd()), mount::Lower::Path(&empty)];
        mount::overlay_of(&lower, None, None, &[]).context(|| "mount an overlay over an erofs image")?;
        Ok(())
    }

    /// The tree of a stored layer, opened; that of an image is a mount of its own, which nobody else sees.
    ///
    /// # Errors
    /// `NotFound`; what the kernel says to the mount.
    pub fn tree(&self, diff: &DiffId) -> Result<Root, Error> {
        let clone = |root: &Root| root.try_clone().context(|| "duplicate a directory handle");
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, root)) = opened.as_ref().filter(|(last, _)| last == diff) {
            return clone(root);
        }
        let root = self.layer(diff)?.open()?;
        let given = clone(&root)?;
        *opened = Some((*diff, root));
        Ok(given)
    }

    /// The store directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, diff: &DiffId) -> PathBuf {
        let hex = diff.hex();
        self.root.join("layers").join(&hex[..2]).join(hex)
    }

    /// Whether the layer is stored.
    #[must_use]
    pub fn contains(&self, diff: &DiffId) -> bool {
        // The state is part of what the one rename makes visible.
        self.path(diff).join("state").exists()
    }

    /// The stored layer.
    ///
    /// # Errors
    /// `NotFound`; `DataLoss` when its state is damaged.
    pub fn layer(&self, diff: &DiffId) -> Result<Layer, Error> {
        let path = self.path(diff);
        match State::read(&path) {
            Ok(state) => {
                if !state.durable {
                    self.fresh().insert(*diff);
                }
                Ok(Layer {
                    diff_id: *diff,
                    path,
                    state,
                })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Error::new(ErrorKind::NotFound, format!("no layer {diff}")))
            }
            Err(error) => Err(error),
        }
    }

    /// All stored layers, sorted.
    ///
    /// # Errors
    /// Failures of the file system.
    pub fn list(&self) -> Result<Vec<DiffId>, Error> {
        let layers = self.root.join("layers");
        let what = || format!("list {}", layers.display());
        let mut found = Vec::new();
        for part in std::fs::read_dir(&layers).context(what)? {
            let part = part.context(what)?;
            let names = match std::fs::read_dir(part.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => continue,
                other => other.context(what)?,
            };
            for name in names {
                let name = name.context(what)?.file_name();
                if let Some(digest) = name.to_str().and_then(|hex| Digest::from_hex(hex).ok()) {
                    found.push(DiffId(digest));
                } else if staging::is_gone(&name) {
                    self.take_note_of(part.path().join(&name));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Removes a layer from view; its files go later (see [`LayerStore::sweep`]).
    ///
    /// It gets another name in its own directory: a rename to another directory may wait for every other one in the file
    /// system, and this is done while others wait for a lock.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn remove(&self, diff: &DiffId) -> Result<(), Error> {
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let gone = staging::hide(&self.path(diff)).context(|| format!("remove layer {diff}"))?;
        self.take_note_of(gone);
        Ok(())
    }

    fn take_note_of(&self, gone: PathBuf) {
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        if !removed.contains(&gone) {
            removed.push(gone);
        }
    }

    /// Deletes what was removed, and what processes that live no more left half-made: everything in `ROOT/trash`, in
    /// `ROOT/tmp` all that nobody has locked, and of the layers what [`LayerStore::remove`] took away or
    /// [`LayerStore::list`] found removed; says how many of these there were.
    ///
    /// # Errors
    /// Failures of the file system; all that can be deleted is deleted first.
    pub fn sweep(&self) -> Result<usize, Error> {
        let removed = std::mem::take(&mut *self.removed.lock().unwrap_or_else(PoisonError::into_inner));
        let mut count = 0;
        for path in removed {
            match staging::discard(&self.root, &path) {
                Ok(()) => count += 1,
                // Another process was faster.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        staging::sweep(&self.root)?;
        Ok(count)
    }

    /// Unpacks one layer from a stream of any known compression.
    ///
    /// The stream is read to its end even when the layer is stored already, so its reader may check it as a whole.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed or hostile archive, `ResourceExhausted` beyond a limit or on a full disk,
    /// `DataLoss` for a truncated or damaged stream and for a diff id that is not the expected one, `Unsupported` for
    /// entries of an unknown type and for hard links to files of lower layers.
    pub fn unpack(&self, stream: impl Read + Send, how: &Unpack) -> Result<Unpacked, Error> {
        self.unpack_buffered(crate::codec::buffered(stream), how)
    }

    /// The same of a stream that has its bytes in memory: they are not copied before they are inflated.
    ///
    /// # Errors
    /// As [`Self::unpack`].
    pub fn unpack_buffered(&self, stream: impl BufRead + Send, how: &Unpack) -> Result<Unpacked, Error> {
        let staging = Staging::new(&self.root, "layer")?;
        staging.take_label_of(&self.root.join("layers"));
        let made = unpack::unpack(stream, &staging.path(), how, self.backend)?;
        let (layer, fresh) = self.publish(staging, made.diff_id, made.state)?;
        Ok(Unpacked {
            layer,
            fresh,
            compression: made.compression,
        })
    }

    /// An empty directory beside the layers in the making, for what a command needs until it ends. It is swept as they
    /// are when the command is killed.
    ///
    /// # Errors
    /// Failures of the file system.
    pub fn scratch(&self, kind: &str) -> Result<Scratch, Error> {
        Staging::new(&self.root, kind).map(Scratch)
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
    pub fn capture_with(&self, upper: &Path, how: &Capture) -> Result<Layer, Error> {
        let staging = Staging::new(&self.root, "capture")?;
        let (diff_id, state) = capture::capture(upper, &staging.path(), how)?;
        Ok(self.publish(staging, diff_id, state)?.0)
    }

    /// The layer, and whether it is this one that came into the store.
    fn publish(&self, staging: Staging, diff_id: DiffId, state: State) -> Result<(Layer, bool), Error> {
        let path = self.path(&diff_id);
        if let Some(parent) = path.parent() {
            make_dir(parent)?;
        }
        if staging.publish(&path)? {
            self.fresh().insert(diff_id);
            return Ok((Layer { diff_id, path, state }, true));
        }
        // Somebody else was faster, with the same bytes.
        Ok((self.layer(&diff_id)?, false))
    }

    fn fresh(&self) -> MutexGuard<'_, BTreeSet<DiffId>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes durable the layers that this store wrote, or was asked for, and that nobody has made durable yet: one
    /// `syncfs`, then the flag in each `state`. Those of another boot stay as they are: whether they are whole is not
    /// known (see [`LayerStore::suspects`]). Says whether there was anything to do: then all that was written to this file
    /// system before is on the disk. The flags are not waited for: without one a layer is compared once after a power cut.
    ///
    /// # Errors
    /// Failures of the disk.
    pub fn sync(&self) -> Result<bool, Error> {
        // They are taken off the list when they are on the disk, not before: another thread may ask meanwhile.
        let noted = self.fresh().clone();
        let boot = boot_id()?;
        let mut fresh = Vec::new();
        for diff in &noted {
            match self.layer(diff) {
                Ok(layer) if !layer.state.durable && layer.state.boot == boot => fresh.push(layer),
                // Somebody else was faster, or it was removed meanwhile, or is damaged: `verify` tells of that.
                _ => (),
            }
        }
        let any = !fresh.is_empty();
        if any {
            let what = || format!("sync {}", self.root.display());
            let root = std::fs::File::open(self.root.as_path()).context(what)?;
            rustix::fs::syncfs(&root).map_err(io::Error::from).context(what)?;
        }
        for layer in fresh {
            // The layer is on the disk, which is what was asked for. Without the note, as when the layer was removed
            // meanwhile, it is looked at once more after the next boot.
            drop(State::note_durable(&layer.path));
        }
        self.fresh().retain(|diff| !noted.contains(diff));
        Ok(any)
    }

    /// Layers that were written in another boot and never made durable: after a power cut their files may be empty.
    ///
    /// # Errors
    /// Failures of the file system.
    pub fn suspects(&self) -> Result<Vec<DiffId>, Error> {
        let boot = boot_id()?;
        let mut found = Vec::new();
        for diff in self.list()? {
            match self.layer(&diff) {
                Ok(layer) if layer.state.durable || layer.state.boot == boot => (),
                Err(error) if error.kind() == ErrorKind::NotFound => (),
                // A state that cannot be read is what a power cut leaves, too.
                _ => found.push(diff),
            }
        }
        Ok(found)
    }

    /// The layer, to be used as a file system. One that another boot wrote, and that was never made durable, is compared
    /// with its index before: after a power cut its files may be empty. That happens once in a boot.
    ///
    /// # Errors
    /// `NotFound`; `DataLoss` when it is damaged.
    pub fn sound(&self, diff: &DiffId) -> Result<Layer, Error> {
        let layer = self.layer(diff)?;
        if layer.state.durable || layer.state.boot == boot_id()? {
            return Ok(layer);
        }
        let problems = self.verify(diff)?;
        let Some(first) = problems.first() else {
            self.trust(&layer)?;
            return Ok(layer);
        };
        let path = String::from_utf8_lossy(&first.path);
        let message = format!(
            "layer {} was damaged by a power cut: {path}: {}",
            diff.short(),
            first.what
        );
        Err(Error::new(ErrorKind::DataLoss, message)
            .with_hint("`dhow system check --repair` takes it away; then pull or build the image again"))
    }

    /// Notes that the layer was found whole in this boot, so that it is not compared again. A store that cannot be
    /// written to goes on without the note.
    fn trust(&self, layer: &Layer) -> Result<(), Error> {
        let state = State {
            boot: boot_id()?.to_owned(),
            ..layer.state.clone()
        };
        drop(state.replace(&layer.path, &self.root.join("tmp")));
        Ok(())
    }

    /// Compares the files of a layer with its index; no problem found gives an empty list.
    ///
    /// # Errors
    /// `NotFound`; `DataLoss` when the index or the state itself cannot be read.
    pub fn verify(&self, diff: &DiffId) -> Result<Vec<Problem>, Error> {
        let layer = self.layer(diff)?;
        let mut problems = Vec::new();
        if let Form::Image(meta) = layer.state.form {
            problems = verify::image(&layer, meta)?;
            // The kernel is given no image that is not as we wrote it.
            if problems.iter().any(|problem| problem.what == verify::BAD_IMAGE) {
                return Ok(problems);
            }
        }
        let root = layer.open()?;
        problems.extend(verify::verify(root, &layer.index()?, &layer.state)?);
        Ok(problems)
    }
}

fn mount_image(path: &Path, label: Option<&str>) -> Result<OwnedFd, Error> {
    let what = || format!("mount {}", path.display());
    let image = File::open(path).context(what)?;
    mount::erofs(&image, label).context(what)
}

fn make_dir(path: &Path) -> Result<(), Error> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.context(|| format!("make the directory {}", path.display())),
    }
}

impl Layer {
    /// Its diff id.
    #[must_use]
    pub fn diff_id(&self) -> DiffId {
        self.diff_id
    }

    /// The directory of its tree; of a layer that is an image there is none (see [`Layer::image`]).
    #[must_use]
    pub fn fs(&self) -> PathBuf {
        self.path.join("fs")
    }

    /// Where all of it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.path
    }

    /// Its erofs image, when it is kept as one.
    #[must_use]
    pub fn image(&self) -> Option<PathBuf> {
        matches!(self.state.form, Form::Image(_)).then(|| self.path.join("image"))
    }

    /// A detached mount of its image, with this SELinux label on all its files; nothing when it is kept as a directory.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn mount(&self, label: Option<&str>) -> Result<Option<OwnedFd>, Error> {
        self.image().map(|path| mount_image(&path, label)).transpose()
    }

    /// Its tree, opened. To open many files of one layer, see [`LayerStore::tree`].
    ///
    /// # Errors
    /// When it is damaged, or, of an image, what the kernel says to the mount.
    pub fn open(&self) -> Result<Root, Error> {
        match self.mount(None)? {
            Some(mount) => Ok(Root::from_fd(mount)),
            None => Root::open(&self.fs()).context(|| format!("open layer {}", self.diff_id)),
        }
    }

    /// Its entries.
    ///
    /// # Errors
    /// `DataLoss` when the stored index is damaged.
    pub fn index(&self) -> Result<Index, Error> {
        let path = self.path.join("index");
        let bytes = std::fs::read(&path).context(|| format!("read {}", path.display()))?;
        Index::decode(bytes)
    }

    /// Bytes of all its files, holes included, each hard-linked file once.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.state.size
    }

    /// Bytes of disk it takes, its index and its copies for other owners included; taken when they were made.
    #[must_use]
    pub fn disk(&self) -> u64 {
        self.state.disk + crate::owners::disk(&self.path)
    }

    /// Bytes of its uncompressed tar.
    #[must_use]
    pub fn tar_size(&self) -> u64 {
        self.state.tar
    }

    /// Whether the disk is known to have it: a [`LayerStore::sync`] came after it.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.state.durable
    }

    /// Whether it hides all layers below it (an opaque marker in its root).
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        self.state.opaque_root
    }

    /// Whether its tree says by itself what it deletes, as overlayfs needs it. Where the file system has no whiteouts only
    /// the index does, and the layer can be copied from but not mounted.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.state.marks
    }

    /// Number of its directories that its tar does not name.
    #[must_use]
    pub fn implied(&self) -> u64 {
        self.state.implied
    }

    /// The uncompressed tar, byte for byte.
    ///
    /// # Errors
    /// `DataLoss` when what is stored is damaged.
    pub fn tar(&self) -> Result<TarStream, Error> {
        match self.state.form {
            Form::Split => TarStream::from_split(&self.path),
            Form::Image(_) => TarStream::from_image(&self.path.join("image"), self.state.tar),
            Form::Canonical => TarStream::from_index(&self.path, self.index()?),
        }
    }
}
