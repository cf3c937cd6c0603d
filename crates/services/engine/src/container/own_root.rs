//! Roots that are of no image: a folder of the host, or memory with nothing in it but the program of a pod that waits.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use dhow_image::Image;
use dhow_meta::ImageRecord;
use dhow_oci::{ImageConfig, RunConfig};
use dhow_sys::mount::{Attributes, set_attributes};
use dhow_types::{Digest, ErrorKind, ImageId, Platform};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, OpenTreeFlags, open_tree};
use serde::{Deserialize, Serialize};

use super::record::Config;
use super::users::Entered;
use crate::{Context as _, Engine, Error};

/// Where the root file system comes from, when it is not an image's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OwnRoot {
    /// Memory, with the program that waits and nothing else.
    Pause,
    /// A folder of the host (`--rootfs`).
    Folder {
        /// Its absolute path.
        path: PathBuf,
        /// Whether what the container writes is kept beside the folder, and not in it (`:O`).
        overlay: bool,
        /// Whether its owners are ids of the container's user namespace (`:idmap`); changes that are kept beside it always are.
        #[serde(default)]
        mapped: bool,
    },
}

/// The program of a pod that waits, in its root.
pub(crate) const PAUSE: &str = "/pause";
/// Enough for that program, and for the folders that a runtime makes.
const PAUSE_MEMORY: &str = "64k";

impl OwnRoot {
    /// What stands for the image: nothing is known of it.
    pub(super) fn image(&self) -> Image {
        let entrypoint = match self {
            Self::Pause => Some(vec![PAUSE.to_owned()]),
            Self::Folder { .. } => None,
        };
        let platform = Platform::host();
        Image {
            id: no_image(),
            record: ImageRecord {
                id: no_image(),
                manifest: None,
                media_type: String::new(),
                created: 0,
                layers: Vec::new(),
                size: 0,
                platform: platform.to_string(),
                parent: None,
            },
            config: ImageConfig {
                architecture: platform.architecture,
                os: platform.os,
                config: RunConfig {
                    entrypoint,
                    ..RunConfig::default()
                },
                ..ImageConfig::default()
            },
            names: Vec::new(),
            digests: Vec::new(),
        }
    }

    /// Whether it can be had.
    pub(super) fn check(&self) -> Result<(), Error> {
        let Self::Folder { path, .. } = self else {
            return Ok(());
        };
        if path.is_absolute() && path.is_dir() {
            return Ok(());
        }
        let message = format!(
            "the root file system {} is no folder of this host",
            path.display()
        );
        Err(Error::new(ErrorKind::InvalidArgument, message))
    }
}

impl Config {
    /// Whether it is of an image.
    #[must_use]
    pub fn has_image(&self) -> bool {
        self.extras.root.is_none()
    }
}

/// The id of what is no image. No image has it: it is the hash of nothing, and an image's is that of a document.
fn no_image() -> ImageId {
    ImageId(Digest::of(b""))
}

impl Engine {
    /// The root as a mount that nobody on the host sees.
    pub(super) fn own_root(
        &self,
        config: &Config,
        root: &OwnRoot,
        users: Option<&Entered>,
    ) -> Result<OwnedFd, Error> {
        let (mount, mapped) = match root {
            OwnRoot::Pause => (pause_root()?, true),
            OwnRoot::Folder {
                path,
                overlay: false,
                mapped,
            } => (folder_root(path)?, *mapped),
            OwnRoot::Folder {
                path, overlay: true, ..
            } => return self.overlay_root(config, path, users),
        };
        if let Some(users) = users.filter(|_| mapped) {
            dhow_sys::mount::map_ids(&mount, users.namespace.as_fd())
                .context(|| "failed to create idmapped mount of the root file system")?;
        }
        Ok(mount)
    }

    fn overlay_root(&self, config: &Config, path: &Path, users: Option<&Entered>) -> Result<OwnedFd, Error> {
        let folder = self.containers().folder(&config.id).join("root");
        let (upper, work) = (folder.join("upper"), folder.join("work"));
        super::make_folder(&upper)?;
        super::make_folder(&work)?;
        // The top of an overlay has the mode of its upper folder.
        let mode = std::fs::metadata(path).context(|| format!("look at {}", path.display()))?;
        std::fs::set_permissions(&upper, mode.permissions())
            .context(|| format!("change {}", upper.display()))?;
        let what = || format!("mount an overlay on {}", path.display());
        let Some(users) = users else {
            return dhow_sys::mount::overlay(&[path], Some(&upper), Some(&work), &[]).context(what);
        };
        let (uid, gid) = users.ids.root()?;
        let ids = dhow_sys::mount::Ids {
            users: users.namespace.as_fd(),
            uid,
            gid,
        };
        let lower = [dhow_sys::mount::Lower::Path(path)];
        dhow_sys::mount::overlay_mapped(&lower, Some((&folder, &upper, &work)), &[], ids).context(what)
    }
}

/// A copy of the mount, of which nothing travels back to the host.
fn folder_root(path: &Path) -> Result<OwnedFd, Error> {
    let what = || format!("take {} as the root", path.display());
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, path, flags)
        .map_err(std::io::Error::from)
        .context(what)?;
    let private = Attributes {
        propagation: Some(MountPropagationFlags::PRIVATE),
        ..Attributes::default()
    };
    set_attributes(&tree, true, &private).context(what)?;
    Ok(tree)
}

fn pause_root() -> Result<OwnedFd, Error> {
    let what = || "make the root of a pod";
    let options = [("size", Some(PAUSE_MEMORY)), ("mode", Some("0755"))];
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let root = dhow_sys::mount::filesystem("tmpfs", &options, attributes).context(what)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let name = PAUSE.trim_start_matches('/');
    let file = rustix::fs::openat(root.as_fd(), name, flags, Mode::from_raw_mode(0o755))
        .map_err(std::io::Error::from)
        .context(what)?;
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::fchmod(&file, mode)
        .map_err(std::io::Error::from)
        .context(what)?;
    std::io::Write::write_all(&mut std::fs::File::from(file), &dhow_sys::pause::program()).context(what)?;
    Ok(root)
}
