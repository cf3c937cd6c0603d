use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dhow_layer::{Layer, LayerStore, Owners};
use dhow_sys::mount;
use dhow_types::ErrorKind;
use rustix::mount::{UnmountFlags, unmount};

use crate::changes::{self, Changes};
use crate::merged::Merged;
use crate::stamps::Stamps;
use crate::{Context, Error, copy};

/// What to do where the kernel does not mount an overlay.
const WITHOUT_OVERLAY: &str =
    "where overlayfs cannot be had, `dhow system snapshots copy` makes plain copies from now on";

/// A snapshot that can be mounted.
#[derive(Clone, Debug)]
pub struct Active {
    key: String,
    dir: PathBuf,
    shape: Shape,
    volatile: bool,
    /// SELinux label of all files in it.
    label: Option<String>,
    /// Whose ids its files have where it is mounted.
    ids: Option<MountIds>,
}

/// The ids of a mount for a container in a user namespace: what user 0 owns in the layers, its user 0 owns.
#[derive(Clone, Debug)]
pub struct MountIds {
    /// The user namespace.
    pub users: Arc<OwnedFd>,
    /// What its user 0 is outside.
    pub uid: u32,
    /// What its group 0 is outside.
    pub gid: u32,
}

impl MountIds {
    fn of_mount(&self) -> mount::Ids<'_> {
        mount::Ids {
            users: self.users.as_fd(),
            uid: self.uid,
            gid: self.gid,
        }
    }
}

/// What is mounted.
#[derive(Clone, Debug)]
enum Shape {
    Overlay {
        /// What lies below the changes, topmost first.
        lower: Vec<Lower>,
        upper: Option<PathBuf>,
    },
    Copy {
        tree: PathBuf,
        /// What it was copied of, lowest first.
        layers: Vec<Layer>,
        writable: bool,
    },
}

/// One layer of a stack.
#[derive(Clone, Debug)]
enum Lower {
    Dir(PathBuf),
    /// A patch, which is the snapshot's own.
    Patch(PathBuf),
    /// A layer that is a directory.
    Layer(Layer, PathBuf),
    /// A layer that must be mounted itself.
    Image(Layer),
}

/// A mounted snapshot: unmounted when dropped.
#[derive(Debug)]
pub struct MountGuard {
    /// Taken when it was unmounted.
    target: Option<PathBuf>,
}

impl Lower {
    /// Its directory; an image has none.
    fn path(&self) -> Option<&Path> {
        match self {
            Self::Dir(path) | Self::Patch(path) | Self::Layer(_, path) => Some(path),
            Self::Image(_) => None,
        }
    }

    fn mount(&self, label: Option<&str>) -> Result<Option<OwnedFd>, dhow_layer::Error> {
        match self {
            Self::Dir(_) | Self::Patch(_) | Self::Layer(..) => Ok(None),
            Self::Image(layer) => layer.mount(label),
        }
    }
}

impl Active {
    pub(crate) fn new(
        key: &str,
        dir: &Path,
        snapshots: &Path,
        layers: &[Layer],
        patches: &[Option<PathBuf>],
        writable: bool,
    ) -> Self {
        let mut lower = Vec::with_capacity(layers.len() + 1);
        for (layer, patch) in layers.iter().zip(patches).rev() {
            lower.extend(patch.clone().map(Lower::Patch));
            lower.push(match layer.image() {
                Some(_) => Lower::Image(layer.clone()),
                None => Lower::Layer(layer.clone(), layer.fs()),
            });
        }
        // Overlayfs wants one lower directory below an upper one, and two without it.
        for empty in ["a", "b"] {
            if lower.len() < if writable { 1 } else { 2 } {
                lower.push(Lower::Dir(snapshots.join(".empty").join(empty)));
            }
        }
        Self {
            key: key.to_owned(),
            dir: dir.to_owned(),
            shape: Shape::Overlay {
                lower,
                upper: writable.then(|| dir.join("upper")),
            },
            volatile: false,
            label: None,
            ids: None,
        }
    }

    pub(crate) fn copied(key: &str, dir: &Path, tree: PathBuf, layers: Vec<Layer>, writable: bool) -> Self {
        Self {
            key: key.to_owned(),
            dir: dir.to_owned(),
            shape: Shape::Copy {
                tree,
                layers,
                writable,
            },
            volatile: false,
            label: None,
            ids: None,
        }
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The directory that takes the changes: of a copy with all that was copied (see [`Active::changes`]); `None` for a view.
    #[must_use]
    pub fn written(&self) -> Option<&Path> {
        match &self.shape {
            Shape::Overlay { upper, .. } => upper.as_deref(),
            Shape::Copy { tree, writable, .. } => writable.then_some(tree),
        }
    }

    /// The directory that is mounted, when it is a plain copy.
    #[must_use]
    pub fn copy(&self) -> Option<&Path> {
        match &self.shape {
            Shape::Overlay { .. } => None,
            Shape::Copy { tree, .. } => Some(tree),
        }
    }

    /// What of [`Active::written`] is a change; `None` when all of it is.
    ///
    /// # Errors
    /// Failures of the file system.
    pub fn changes(&self) -> Result<Option<Changes>, Error> {
        let Shape::Copy { tree, layers, .. } = &self.shape else {
            return Ok(None);
        };
        let what = || format!("compare the snapshot {} with its layers", self.key);
        let merged = Merged::load(layers).context(what)?;
        let stamps = Stamps::read(&self.dir);
        changes::find(tree, &merged, &stamps).context(what).map(Some)
    }

    /// The directories below the changes of an overlay. Those of layers are shared with every snapshot that has the same layer.
    pub fn lower_dirs(&self) -> impl Iterator<Item = &Path> {
        let lower = match &self.shape {
            Shape::Overlay { lower, .. } => lower.as_slice(),
            Shape::Copy { .. } => &[],
        };
        lower.iter().filter_map(Lower::path)
    }

    /// The same snapshot, whose mounts never wait for the disk (overlayfs' `volatile`): for what may be lost with the
    /// power, such as a build step or a container that is removed when it ends. Without it every unmount, and every
    /// `sync` inside, flushes the whole file system of the store.
    #[must_use]
    pub fn volatile(mut self) -> Self {
        self.volatile = true;
        self
    }

    /// The same snapshot, whose mounts show every file with this SELinux label (`context=`); so have the images of layers.
    /// The files of [`Active::lower_dirs`] keep theirs, and the kernel asks for it when mapped memory of them is protected.
    /// A copy is no file system of its own: its files have to be labelled themselves.
    #[must_use]
    pub fn labelled(mut self, label: &str) -> Self {
        self.label = Some(label.to_owned());
        self
    }

    /// The same snapshot, whose mounts have the ids of a user namespace. The disk is not changed: what is written there is owned
    /// by the ids inside, so that it can be mounted and captured without the namespace as well.
    #[must_use]
    pub fn mapped(mut self, ids: MountIds) -> Self {
        self.ids = Some(ids);
        self
    }

    /// The same snapshot with other owners, where the kernel maps no ids of mounts: its layers are copied, once for each mapping,
    /// and what is written has the new owners on disk. What `(0, 0)` becomes owns the top.
    ///
    /// # Errors
    /// Those of [`LayerStore::with_owners`]; `Unsupported` for a plain copy.
    pub(crate) fn with_owners(mut self, layers: &LayerStore, owners: &Owners) -> Result<Self, Error> {
        let what = || format!("give the snapshot {} other owners", self.key);
        let Shape::Overlay { lower, upper } = &mut self.shape else {
            let message = "a plain copy of an image cannot have other owners";
            return Err(Error::new(ErrorKind::Unsupported, message).with_hint(
                "`dhow system snapshots overlay` makes overlays from now on, where the host can",
            ));
        };
        for lower in lower.iter_mut() {
            match lower {
                Lower::Layer(layer, path) => *path = layers.with_owners(layer, owners).context(what)?,
                Lower::Patch(path) => *path = own_patch(layers, path, owners).context(what)?,
                Lower::Dir(_) | Lower::Image(_) => {}
            }
        }
        if let Some(upper) = upper {
            own_top(upper, owners).context(what)?;
        }
        Ok(self)
    }

    /// The mount, not attached to any tree yet: to be moved into place, or used through the descriptor.
    ///
    /// # Errors
    /// `PermissionDenied`; `Unsupported` when the kernel has no overlayfs.
    pub fn mount_detached(&self) -> Result<OwnedFd, Error> {
        match &self.shape {
            Shape::Overlay { lower, upper } => self.overlay(lower, upper.as_deref()),
            Shape::Copy { tree, writable, .. } => {
                if *writable && !self.volatile {
                    copy::sync(&self.dir)?;
                }
                let what = || format!("mount the snapshot {}", self.key);
                let mount = mount::clone_of(tree, !*writable).context(what)?;
                if let Some(ids) = &self.ids {
                    mount::map_ids(&mount, ids.users.as_fd())
                        .context(what)
                        .map_err(without_mapping)?;
                }
                Ok(mount)
            }
        }
    }

    fn overlay(&self, lower: &[Lower], upper: Option<&Path>) -> Result<OwnedFd, Error> {
        // The overlay keeps the mounts of images; nobody else ever sees them.
        let mounts: Vec<Option<OwnedFd>> = lower
            .iter()
            .map(|lower| lower.mount(self.label.as_deref()))
            .collect::<Result<_, _>>()
            .context(|| format!("mount the layers of the snapshot {}", self.key))?;
        let lower: Vec<mount::Lower<'_>> = lower
            .iter()
            .zip(&mounts)
            .filter_map(|(lower, mount)| match lower.path() {
                Some(path) => Some(mount::Lower::Path(path)),
                None => mount.as_ref().map(|mount| mount::Lower::Mount(mount.as_fd())),
            })
            .collect();
        // What is in a layer must be whole by itself: no file without its data, no directory that is elsewhere. And no
        // index: it would bind the changes to the inodes of these lower directories for ever.
        let mut options = Vec::with_capacity(7);
        let privileged = dhow_layer::privileged();
        let work = self.dir.join("work");
        if upper.is_some() {
            options.extend([("index", Some("off")), ("metacopy", Some("off"))]);
            if privileged {
                options.push(("redirect_dir", Some("off")));
            }
            if self.volatile {
                forget_volatile(&work)?;
                options.push(("volatile", None));
            }
        }
        if !privileged {
            // It stands for a redirect_dir that follows nothing, and takes no other beside it (`ovl_fs_params_verify`).
            options.push(("userxattr", None));
        }
        options.extend(self.label.as_deref().map(|label| ("context", Some(label))));
        let what = || format!("mount the snapshot {}", self.key);
        if let Some(ids) = &self.ids {
            let changes = upper.map(|upper| (self.dir.as_path(), upper, work.as_path()));
            return mount::overlay_mapped(&lower, changes, &options, ids.of_mount())
                .context(what)
                .map_err(without_mapping);
        }
        let work = upper.is_some().then_some(work.as_path());
        mount::overlay_of(&lower, upper, work, &options)
            .context(what)
            .map_err(|error| match error.kind() {
                // Internal: what has no kind of its own, such as the ENODEV of a kernel without overlayfs.
                ErrorKind::Unsupported | ErrorKind::InvalidArgument | ErrorKind::Internal => {
                    error.with_hint(WITHOUT_OVERLAY)
                }
                _ => error,
            })
    }

    /// Mounts it on the directory `target`.
    ///
    /// # Errors
    /// As [`Active::mount_detached`].
    pub fn mount(&self, target: &Path) -> Result<MountGuard, Error> {
        let fd = self.mount_detached()?;
        mount::attach(&fd, target)
            .context(|| format!("mount the snapshot {} on {}", self.key, target.display()))?;
        Ok(MountGuard {
            target: Some(target.to_owned()),
        })
    }
}

/// The copy of a patch, beside it: there are links to the layer's own files in it.
fn own_patch(layers: &LayerStore, patch: &Path, owners: &Owners) -> Result<PathBuf, Error> {
    let own = patch.with_extension(format!("owners-{}", owners.name()));
    if !own.exists() {
        let scratch = layers.scratch("owners").context(|| "make room for a patch")?;
        let made = scratch.path().join("patch");
        dhow_layer::owners::copy(patch, &made, owners).context(|| "copy a patch")?;
        std::fs::rename(&made, &own).context(|| format!("move a patch to {}", own.display()))?;
    }
    Ok(own)
}

/// Gives a new directory for changes, which is the top of the tree, to whom it will belong.
fn own_top(upper: &Path, owners: &Owners) -> Result<(), Error> {
    let what = || format!("change the owner of {}", upper.display());
    let Some((uid, gid)) = owners.of((0, 0)) else {
        return Ok(());
    };
    let status = rustix::fs::stat(upper).map_err(io::Error::from).context(what)?;
    let is_new = std::fs::read_dir(upper).context(what)?.next().is_none();
    if !is_new || (status.st_uid, status.st_gid) != (0, 0) {
        return Ok(());
    }
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::chown(upper, Some(uid), Some(gid))
        .map_err(io::Error::from)
        .context(what)
}

/// Says what it takes to map the ids of a mount.
fn without_mapping(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Unsupported | ErrorKind::InvalidArgument | ErrorKind::PermissionDenied => error.with_hint(
            "a root file system in a user namespace takes Linux 5.19, root, and a store on a file system whose mounts can map \
             ids (ext4, xfs, btrfs)",
        ),
        _ => error,
    }
}

/// Takes away the mark of an earlier volatile mount, which would forbid another: whoever asks for `volatile` again has
/// accepted what it stands for.
fn forget_volatile(work: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(work.join("work/incompat")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.context(|| format!("clear {}", work.display())),
    }
}

impl MountGuard {
    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.target.as_deref().unwrap_or(Path::new(""))
    }

    /// Unmounts now.
    ///
    /// # Errors
    /// `FailedPrecondition` when something still uses it; it is unmounted then as soon as nothing does.
    pub fn unmount(mut self) -> Result<(), Error> {
        let Some(target) = self.target.take() else {
            return Ok(());
        };
        let done = unmount(&target, UnmountFlags::NOFOLLOW);
        if done.is_err() {
            detach(&target);
        }
        done.map_err(io::Error::from)
            .context(|| format!("unmount {}", target.display()))
    }
}

impl Drop for MountGuard {
    fn drop(&mut self) {
        if let Some(target) = self.target.take() {
            detach(&target);
        }
    }
}

/// Unmounts as soon as nobody uses it. A failure means that it is gone already.
fn detach(target: &Path) {
    drop(mount::detach(target));
}
