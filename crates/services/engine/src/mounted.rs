//! Images mounted on the host, read-only, to be looked into without a container.
//!
//! ```text
//! ROOT/mounted/<hex of the image id>   the mount; without one the directory is a rest, of a reboot for example
//! ROOT/snapshots/image-<hex>           the stack under it
//! ```
//! What is mounted is what the kernel says; nothing is written down beside it.

use std::fs::{self, DirBuilder, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use dhow_image::{Image, Use};
use dhow_meta::Lease;
use dhow_snapshot::Snapshots;
use dhow_types::{DiffId, Digest, ErrorKind, ImageId};
use rustix::fs::{AtFlags, CWD, FlockOperation, StatxAttributes, StatxFlags, statx};
use rustix::mount::{UnmountFlags, unmount};

use crate::{Context as _, Engine, Error};

/// What the keys of the snapshots begin with.
const KEY: &str = "image-";
/// Where the mounts are, below the root.
const FOLDER: &str = "mounted";

/// An image that is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountedImage {
    /// The image.
    pub image: ImageId,
    /// Where it is seen.
    pub path: PathBuf,
}

impl Engine {
    /// Mounts an image, read-only; where it is seen. One that is mounted stays as it is.
    ///
    /// # Errors
    /// `NotFound`; `PermissionDenied` for who may not mount; `Unsupported` when the kernel has no overlayfs.
    pub fn mount_image(&self, name: &str) -> Result<PathBuf, Error> {
        let image = self.image(name)?;
        let _lock = self.mounts_lock()?;
        let path = self.place_of(&image.id);
        if is_mounted(&path) {
            return Ok(path);
        }
        self.mount_at(&image, &path)
            .context(|| format!("mount image {name}"))?;
        Ok(path)
    }

    fn mount_at(&self, image: &Image, path: &Path) -> Result<(), Error> {
        let what = || format!("mount on {}", path.display());
        // From here to the snapshot's list of layers, which keeps them: against who removes the image at this moment.
        let lease = Lease::acquire(&self.settings().root).context(what)?;
        let layers: Vec<Digest> = image.config.rootfs.diff_ids.iter().map(|diff| diff.0).collect();
        lease.pin_many(&layers).context(what)?;
        let snapshots = self.snapshots()?;
        let key = key_of(&image.id);
        let made = snapshots.view(&key, &image.config.rootfs.diff_ids);
        let view = match made {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => snapshots.active(&key),
            made => made,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .context(what)?;
        let mount = view.and_then(|view| view.mount_detached()).context(what)?;
        dhow_sys::mount::attach(&mount, path).context(what)
    }

    /// Unmounts an image; whether it was mounted.
    ///
    /// # Errors
    /// `NotFound` for no image; `FailedPrecondition` while a process is in it, unless `force` leaves it to such processes.
    pub fn unmount_image(&self, name: &str, force: bool) -> Result<bool, Error> {
        let id = self.image(name)?.id;
        let _lock = self.mounts_lock()?;
        let path = self.place_of(&id);
        let mounted = is_mounted(&path);
        if mounted {
            let how = if force {
                UnmountFlags::DETACH
            } else {
                UnmountFlags::empty()
            };
            unmount(&path, how | UnmountFlags::NOFOLLOW).map_err(|errno| {
                let error = Error::wrap(std::io::Error::from(errno), format!("unmount image {name}"));
                match errno {
                    rustix::io::Errno::BUSY => error.with_kind(ErrorKind::FailedPrecondition).with_hint(
                        "a process has its folder or a file in it; --force leaves it to that process",
                    ),
                    _ => error,
                }
            })?;
        }
        self.forget_mount(&id)?;
        Ok(mounted)
    }

    fn forget_mount(&self, id: &ImageId) -> Result<(), Error> {
        let path = self.place_of(id);
        match fs::remove_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::wrap(error, format!("remove {}", path.display())));
            }
            _ => {}
        }
        let removed = self.snapshots()?.remove(&key_of(id));
        removed.context(|| "remove the snapshot of a mounted image")
    }

    /// The images that are mounted, by id.
    ///
    /// # Errors
    /// Failures of the file system.
    pub fn mounted_images(&self) -> Result<Vec<MountedImage>, Error> {
        let folder = self.mounts_folder();
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.context(|| format!("list {}", folder.display()))?,
        };
        let mut mounted = Vec::new();
        for entry in entries {
            let name = entry
                .context(|| format!("list {}", folder.display()))?
                .file_name();
            let image = name
                .to_str()
                .and_then(|name| Digest::from_hex(name).ok())
                .map(ImageId);
            if let Some(image) = image.filter(|image| is_mounted(&self.place_of(image))) {
                let path = self.place_of(&image);
                mounted.push(MountedImage { image, path });
            }
        }
        mounted.sort_by_key(|mounted| mounted.image);
        Ok(mounted)
    }

    /// Mounts as users of images: what is mounted keeps its layers.
    pub(crate) fn mounts_as_uses(&self) -> Result<Vec<Use>, Error> {
        let store = self.store()?;
        let used = |mounted: MountedImage| Use {
            // An image that is gone all the same has no layers that anybody could name.
            layers: store
                .image(&mounted.image)
                .map(|image| image.config.rootfs.diff_ids)
                .unwrap_or_default(),
            image: mounted.image,
            container: format!("(mounted on {})", mounted.path.display()),
            running: true,
        };
        Ok(self.mounted_images()?.into_iter().map(used).collect())
    }

    /// Whether a snapshot is that of an image that was mounted and is no more.
    pub(crate) fn is_dead_mount(&self, key: &str) -> bool {
        let Some(hex) = key.strip_prefix(KEY) else {
            return false;
        };
        !Digest::from_hex(hex).is_ok_and(|digest| is_mounted(&self.place_of(&ImageId(digest))))
    }

    fn mounts_folder(&self) -> PathBuf {
        self.settings().root.join(FOLDER)
    }

    fn place_of(&self, id: &ImageId) -> PathBuf {
        self.mounts_folder().join(id.0.hex())
    }

    /// One command at a time mounts or unmounts.
    fn mounts_lock(&self) -> Result<OwnedFd, Error> {
        let folder = self.mounts_folder();
        let what = || format!("lock {}", folder.display());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .context(what)?;
        let file = File::open(&folder).context(what)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .map_err(std::io::Error::from)
            .context(what)?;
        Ok(file.into())
    }
}

/// The layers of images that are mounted. One that is being mounted has a lease; what a reboot or a kill left keeps nothing.
pub(crate) fn layers(snapshots: &Snapshots) -> Result<Vec<DiffId>, dhow_snapshot::Error> {
    let mut layers = Vec::new();
    for key in snapshots.list()? {
        let Some(hex) = key.strip_prefix(KEY) else {
            continue;
        };
        if !is_mounted(&snapshots.root().join(FOLDER).join(hex)) {
            continue;
        }
        match snapshots.stack(&key) {
            // It was unmounted meanwhile, and is being removed.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            stack => layers.extend(stack?),
        }
    }
    Ok(layers)
}

/// Whether a snapshot belongs to a mounted image.
pub(crate) fn is_mount_key(key: &str) -> bool {
    key.starts_with(KEY)
}

fn key_of(id: &ImageId) -> String {
    format!("{KEY}{}", id.0.hex())
}

/// Whether the path is the root of a mount (Linux 5.8, `STATX_ATTR_MOUNT_ROOT`).
fn is_mounted(path: &Path) -> bool {
    statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())
        .is_ok_and(|status| status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
