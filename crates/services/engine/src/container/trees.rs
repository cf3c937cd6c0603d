//! What is mounted in a container and has no path on the host: images, and parts of images and volumes. The runtime gets
//! these as detached mounts; nothing of them is seen on the host.
//!
//! ```text
//! ROOT/snapshots/<id>.image-<n>   the stack of the image that is the container's mount number n
//! ```

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use dhow_bundle::SelinuxLabels;
use dhow_rootpath::Root;
use dhow_snapshot::Active;
use dhow_sys::mount::{Attributes, set_attributes};
use dhow_types::ErrorKind;
use rustix::mount::{MountPropagationFlags, OpenTreeFlags, open_tree};

use super::record::{Config, MountRecord, MountedLayers};
use super::users::Entered;
use crate::{Context as _, Engine, Error};

/// The keys of all snapshots of a container: its root, and the images that are mounted in it.
pub(super) fn keys(config: &Config) -> impl Iterator<Item = String> {
    let images = config.mounts.iter().enumerate();
    let images = images.filter(|(_, mount)| mount.image.is_some());
    std::iter::once(config.id.to_string()).chain(images.map(|(number, _)| key(config, number)))
}

fn key(config: &Config, number: usize) -> String {
    format!("{}.image-{number}", config.id)
}

/// Whose the files of a plain copy are.
#[derive(Debug, PartialEq, Eq)]
enum Copied<'a> {
    /// The container's.
    Own(&'a Path),
    /// The layers', of which they are further names: other containers read them, too.
    Shared(&'a Path),
}

fn copied(active: &Active) -> Option<Copied<'_>> {
    let copy = active.copy()?;
    Some(match active.written() {
        Some(_) => Copied::Own(copy),
        None => Copied::Shared(copy),
    })
}

/// A snapshot that the processes of a container may read by its SELinux labels.
pub(super) fn labelled(active: Active, labels: Option<&SelinuxLabels>) -> Result<Active, Error> {
    let Some(labels) = labels else {
        return Ok(active);
    };
    crate::selinux::layers::make_readable(active.lower_dirs())?;
    match copied(&active) {
        Some(Copied::Own(copy)) => crate::selinux::layers::make_own(copy, &labels.mount)?,
        Some(Copied::Shared(view)) => crate::selinux::layers::make_readable(std::iter::once(view))?,
        None => {}
    }
    Ok(active.labelled(&labels.mount))
}

impl Engine {
    /// The mounts, by place in the container.
    ///
    /// # Errors
    /// `NotFound` for a part that is not there.
    pub(super) fn trees(
        &self,
        config: &Config,
        users: Option<&Entered>,
    ) -> Result<Vec<(PathBuf, OwnedFd)>, Error> {
        let mut trees = Vec::new();
        for (number, mount) in config.mounts.iter().enumerate() {
            let tree = match (&mount.image, &mount.subpath) {
                (Some(image), _) => self.image_tree(config, number, (mount, image), users)?,
                (None, Some(part)) => volume_part(mount, part)?,
                (None, None) => continue,
            };
            trees.push((Path::new(&mount.destination).components().collect(), tree));
        }
        Ok(trees)
    }

    fn image_tree(
        &self,
        config: &Config,
        number: usize,
        (mount, image): (&MountRecord, &MountedLayers),
        users: Option<&Entered>,
    ) -> Result<OwnedFd, Error> {
        let what = || format!("mount image {} on {}", mount.source, mount.destination);
        let snapshots = self.snapshots()?;
        let key = key(config, number);
        let active = if mount.writable {
            // What was written before is not kept.
            snapshots.remove(&key).context(what)?;
            snapshots.prepare(&key, &image.layers).map(Active::volatile)
        } else {
            match snapshots.view(&key, &image.layers) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => snapshots.active(&key),
                view => view,
            }
        };
        let mut active = active.context(what)?;
        if let Some(users) = users {
            active = users.see(&snapshots, active)?;
        }
        let active = labelled(active, config.request.selinux.as_ref())?;
        let tree = active.mount_detached().context(what)?;
        match &mount.subpath {
            None => Ok(tree),
            Some(part) => dhow_runtime::part_of(&tree, part).map_err(|error| unreachable(mount, part, error)),
        }
    }
}

/// A part of a volume; what leads to it stays inside.
fn volume_part(mount: &MountRecord, part: &Path) -> Result<OwnedFd, Error> {
    let what = || format!("mount volume {} on {}", mount.source, mount.destination);
    let volume = Root::open(Path::new(&mount.source)).context(what)?;
    let place = volume
        .resolve(part)
        .map_err(|error| unreachable(mount, part, error))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(&place, c"", flags)
        .map_err(std::io::Error::from)
        .context(what)?;
    let private = Attributes {
        propagation: Some(MountPropagationFlags::PRIVATE),
        ..Attributes::default()
    };
    set_attributes(&tree, true, &private).context(what)?;
    Ok(tree)
}

/// Docker's words for a part that cannot be had.
fn unreachable(
    mount: &MountRecord,
    part: &Path,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    let path = Path::new(&mount.source).join(part);
    Error::because(
        ErrorKind::NotFound,
        format!("cannot access path {}", path.display()),
        error,
    )
}

#[cfg(test)]
mod tests {
    use dhow_layer::LayerStore;
    use dhow_snapshot::{Form, Snapshots};

    use super::*;

    #[test]
    fn a_read_only_copy_gets_no_label_of_one_container() {
        let root = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(root.path(), LayerStore::open(root.path()).unwrap()).unwrap();
        snapshots.make_as(Form::Copy).unwrap();
        let written = snapshots.prepare("written", &[]).unwrap();
        let tree = root.path().join("snapshots/written/tree");
        assert_eq!(copied(&written), Some(Copied::Own(&tree)));
        let view = snapshots.view("view", &[]).unwrap();
        let tree = root.path().join("snapshots/view/view");
        assert_eq!(copied(&view), Some(Copied::Shared(&tree)));
    }
}
