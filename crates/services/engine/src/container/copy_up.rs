//! An empty volume takes what the image has at its place, the first time it is mounted.

use std::fs::File;
use std::io;
use std::path::Path;

use dhow_rootpath::Root;
use dhow_types::ErrorKind;
use rustix::fs::{AtFlags, FileType, Mode, Timespec, Timestamps};

use super::record::{Config, MountRecord};
use crate::{Context as _, Engine, Error};

/// Deepest folder that is copied; deeper ones are an error, so that a hostile image cannot exhaust the stack.
const MAX_DEPTH: usize = 256;

impl Engine {
    /// Fills the container's volumes that are empty and want it. Source and target are only reached inside their
    /// roots (CVE-2022-23648, CVE-2023-0778), and a volume with anything in it is left alone (CVE-2020-1726).
    pub(super) fn copy_up(&self, config: &Config, image: &Root) -> Result<(), Error> {
        for mount in config
            .mounts
            .iter()
            .filter(|mount| mount.kind == "volume" && mount.copy_up)
        {
            let Some(to) = place_to_fill(mount)? else {
                continue;
            };
            let from = match image.resolve(Path::new(&mount.destination)) {
                Ok(folder) => Root::from_fd(folder),
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
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
            copy_folder(&from, &to, Path::new(""), 0).context(what)?;
            let owner = (status.st_uid, status.st_gid);
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

/// Copies what is in `path` of `from` to the same path of `to`.
pub(crate) fn copy_folder(from: &Root, to: &Root, path: &Path, depth: usize) -> Result<(), Error> {
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
    for entry in from
        .read_dir(here)
        .context(|| format!("list {}", here.display()))?
    {
        let inside = path.join(&entry.name);
        copy_entry(from, to, &inside, depth).context(|| format!("copy {}", inside.display()))?;
    }
    Ok(())
}

fn copy_entry(from: &Root, to: &Root, path: &Path, depth: usize) -> Result<(), Error> {
    let status = from.symlink_metadata(path).context(|| "look at it")?;
    let owner = (status.st_uid, status.st_gid);
    let permissions = status.st_mode & 0o7777;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => {
            let folder = to
                .create_dir_all(path, 0o700, Some(owner))
                .context(|| "make the folder")?;
            copy_folder(from, to, path, depth + 1)?;
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
