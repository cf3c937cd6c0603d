//! An empty volume takes what the image has at its place, the first time it is mounted.

use std::fs::File;
use std::io;
use std::path::Path;

use dhow_rootpath::Root;
use dhow_types::ErrorKind;
use rustix::fs::{AtFlags, FileType, Mode, Timespec, Timestamps};

use super::mounts::CHOWN;
use super::record::{Config, MountRecord};
use super::users::{Entered, Ids, is_mapped};
use crate::{Context as _, Engine, Error};

/// Deepest folder that is copied; deeper ones are an error, so that a hostile image cannot exhaust the stack.
const MAX_DEPTH: usize = 256;

impl Engine {
    /// Fills the container's volumes that are empty and want it. Source and target are only reached inside their
    /// roots (CVE-2022-23648, CVE-2023-0778), and a volume with anything in it is left alone (CVE-2020-1726).
    ///
    /// In a user namespace the image shows the owners that the volume is to have on the host; a volume of which the image has
    /// nothing is its root's, since nobody in the container could use it otherwise.
    pub(super) fn copy_up(
        &self,
        config: &Config,
        image: &Root,
        users: Option<&Entered>,
    ) -> Result<(), Error> {
        for mount in config
            .mounts
            .iter()
            .filter(|mount| mount.kind == "volume" && mount.copy_up)
        {
            let Some(to) = place_to_fill(mount)? else {
                continue;
            };
            // What is mapped when it is mounted has the image's own ids on disk.
            let ids = users.filter(|_| is_mapped(mount)).map(|users| &users.ids);
            let from = match image.resolve(Path::new(&mount.destination)) {
                Ok(folder) => Root::from_fd(folder),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    if let Some(users) = users.filter(|_| ids.is_none()) {
                        give(&to, users.ids.root()?)
                            .context(|| format!("change the owner of {}", mount.source))?;
                    }
                    continue;
                }
                Err(error) => {
                    return Err(Error::wrap(
                        error,
                        format!("copy {} into its volume", mount.destination),
                    ));
                }
            };
            let what = || format!("copy {} into its volume", mount.destination);
            let status = from.metadata(Path::new(".")).context(what)?;
            if FileType::from_raw_mode(status.st_mode) != FileType::Directory {
                continue;
            }
            Copy {
                from: &from,
                to: &to,
                ids,
            }
            .folder(Path::new(""), 0)
            .context(what)?;
            let owner = (status.st_uid, status.st_gid);
            let owner = ids.map_or(owner, |ids| ids.inside(owner));
            let folder = to.resolve(Path::new(".")).context(what)?;
            restore(&folder, status.st_mode, owner, &status).context(what)?;
        }
        Ok(())
    }
}

/// The volume, or the part of it that is mounted, when it is a folder with nothing in it.
fn place_to_fill(mount: &MountRecord) -> Result<Option<Root>, Error> {
    let what = || format!("look into the volume {}", mount.source);
    let volume = Root::open(Path::new(&mount.source)).context(what)?;
    let part = mount.subpath.as_deref().unwrap_or(Path::new("."));
    let place = match volume.resolve(part) {
        // The start says so.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        place => place.context(what)?,
    };
    let status = rustix::fs::fstat(&place).map_err(io::Error::from).context(what)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::Directory {
        return Ok(None);
    }
    let (place, here) = (Root::from_fd(place), Path::new("."));
    let empty = place.read_dir(here).context(what)?.is_empty();
    Ok(empty.then_some(place))
}

/// Gives the mounts that want it to the container's user, with all that is in them (podman's `U`).
pub(super) fn give_mounts(config: &Config, owner: (u32, u32), users: Option<&Entered>) -> Result<(), Error> {
    for mount in config
        .mounts
        .iter()
        .filter(|mount| mount.options.iter().any(|option| option == CHOWN))
    {
        let what = || format!("change the owners in {}", mount.source);
        let outside = match users.filter(|_| !is_mapped(mount)) {
            Some(users) => users.ids.outside(owner).ok_or_else(|| {
                let message = format!("{}: nobody on the host is user {}:{}", what(), owner.0, owner.1);
                Error::new(ErrorKind::InvalidArgument, message)
            })?,
            None => owner,
        };
        let source = Path::new(&mount.source);
        if !std::fs::metadata(source).context(what)?.is_dir() {
            std::os::unix::fs::chown(source, Some(outside.0), Some(outside.1)).context(what)?;
            continue;
        }
        let root = Root::open(source).context(what)?;
        give_all(&root, Path::new(""), outside, 0).context(what)?;
        give(&root, outside).context(what)?;
    }
    Ok(())
}

/// Links are given and not followed, so that nothing outside is.
fn give_all(root: &Root, path: &Path, (uid, gid): (u32, u32), depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        let message = format!(
            "folders are nested more than {MAX_DEPTH} deep at {}",
            path.display()
        );
        return Err(Error::new(ErrorKind::ResourceExhausted, message));
    }
    let here = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    for entry in root
        .read_dir(here)
        .context(|| format!("list {}", here.display()))?
    {
        let inside = path.join(&entry.name);
        let what = || format!("look at {}", inside.display());
        let status = root.symlink_metadata(&inside).context(what)?;
        let is_folder = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
        if is_folder {
            give_all(root, &inside, (uid, gid), depth + 1)?;
        }
        // A change of the owner takes set-user-id bits away, even one to the same.
        if (status.st_uid, status.st_gid) == (uid, gid) {
            continue;
        }
        let (folder, name) = root.parent_of(&inside).context(what)?;
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::chownat(
            &folder,
            name.as_os_str(),
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(io::Error::from)
        .context(|| format!("change the owner of {}", inside.display()))?;
    }
    Ok(())
}

/// Makes a folder another owner's.
fn give(folder: &Root, (uid, gid): (u32, u32)) -> Result<(), Error> {
    let folder = folder.resolve(Path::new(".")).context(|| "open it")?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&folder));
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::chown(path, Some(uid), Some(gid))
        .map_err(io::Error::from)
        .context(|| "set the owner")
}

/// A copy of a tree.
struct Copy<'a> {
    from: &'a Root,
    to: &'a Root,
    /// The user namespace whose ids the owners are, when the copy is to have those inside.
    ids: Option<&'a Ids>,
}

impl Copy<'_> {
    fn folder(&self, path: &Path, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            let message = format!(
                "folders are nested more than {MAX_DEPTH} deep at {}",
                path.display()
            );
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
        let here = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        for entry in self
            .from
            .read_dir(here)
            .context(|| format!("list {}", here.display()))?
        {
            let inside = path.join(&entry.name);
            self.entry(&inside, depth)
                .context(|| format!("copy {}", inside.display()))?;
        }
        Ok(())
    }

    fn entry(&self, path: &Path, depth: usize) -> Result<(), Error> {
        let (from, to) = (self.from, self.to);
        let status = from.symlink_metadata(path).context(|| "look at it")?;
        let owner = (status.st_uid, status.st_gid);
        let owner = self.ids.map_or(owner, |ids| ids.inside(owner));
        let permissions = status.st_mode & 0o7777;
        match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => {
                let folder = to
                    .create_dir_all(path, 0o700, Some(owner))
                    .context(|| "make the folder")?;
                self.folder(path, depth + 1)?;
                restore(&folder, permissions, owner, &status).context(|| "set the folder's mode")
            }
            FileType::RegularFile => {
                let mut source = from.open_file(path).context(|| "open it")?;
                let mut target = to
                    .create_file(path, 0o600, Some(owner))
                    .context(|| "make the file")?;
                io::copy(&mut source, &mut target).context(|| "copy the bytes")?;
                restore_file(&target, permissions, owner, &status).context(|| "set the file's mode")
            }
            FileType::Symlink => {
                let target = from.read_link(path).context(|| "read the link")?;
                to.symlink(&target, path, Some(owner)).context(|| "make the link")
            }
            // Sockets, devices and pipes belong to the running system, not to data (docker copies none either).
            _ => Ok(()),
        }
    }
}

/// Owner first: changing it clears the set-user-id bits.
pub(super) fn restore_file(
    file: &File,
    mode: u32,
    owner: (u32, u32),
    status: &rustix::fs::Stat,
) -> io::Result<()> {
    rustix::fs::fchown(
        file,
        Some(rustix::fs::Uid::from_raw(owner.0)),
        Some(rustix::fs::Gid::from_raw(owner.1)),
    )?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    rustix::fs::futimens(file, &times(status))?;
    Ok(())
}

/// The same for a folder that is open as a path only: through its link in `/proc/self/fd`.
pub(super) fn restore(
    folder: &impl std::os::fd::AsRawFd,
    mode: u32,
    owner: (u32, u32),
    status: &rustix::fs::Stat,
) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
    let (uid, gid) = (
        rustix::fs::Uid::from_raw(owner.0),
        rustix::fs::Gid::from_raw(owner.1),
    );
    rustix::fs::chown(&path, Some(uid), Some(gid))?;
    rustix::fs::chmod(&path, Mode::from_raw_mode(mode & 0o7777))?;
    rustix::fs::utimensat(rustix::fs::CWD, &path, &times(status), AtFlags::empty())?;
    Ok(())
}

#[expect(
    clippy::cast_possible_wrap,
    reason = "times of files fit until the year 292 billion"
)]
fn times(status: &rustix::fs::Stat) -> Timestamps {
    let time = Timespec {
        tv_sec: status.st_mtime,
        tv_nsec: status.st_mtime_nsec as i64,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
