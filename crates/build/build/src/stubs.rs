//! Removes from a layer what only a mount needed: empty mount points, and directories that are in it for no other
//! reason than that.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dhow_layer::EntryKind;
use dhow_rootpath::Root;
use dhow_types::ErrorKind;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, fgetxattr, openat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::failure::{Context as _, Error};
use crate::tree::Tree;

/// Removes the mount points from the changes in `written` that are not in `lower`. With `whole` that directory has what is in
/// `lower`, too, of which nothing is removed.
pub(crate) fn remove(written: &Path, whole: bool, lower: &Tree, points: &[PathBuf]) -> Result<(), Error> {
    let root = Root::open(written).context(|| "open a step's changes")?;
    for point in points {
        let path = lower.follow(point.as_os_str().as_bytes());
        let mut end = path.len();
        // From the mount point up, as long as something went.
        while end > 0 {
            let here = &path[..end];
            if whole && lower.contains(here) {
                if end < path.len() {
                    restore_time(&root, lower, here)?;
                }
                break;
            }
            if !remove_one(&root, lower, here)? {
                break;
            }
            end = here.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        }
    }
    Ok(())
}

/// Removes one path when it is only a stub; says whether it is gone (or was not there).
fn remove_one(root: &Root, lower: &Tree, path: &[u8]) -> Result<bool, Error> {
    let inside = Path::new(OsStr::from_bytes(path));
    if passes_link(root, path)? {
        return Ok(false);
    }
    let Some(stat) = stat(root, inside)? else {
        return Ok(true);
    };
    let flags = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if stat.st_size == 0 && !lower.contains(path) => AtFlags::empty(),
        FileType::Directory if !lower.contains(path) || is_copy(root, lower, path, &stat)? => {
            AtFlags::REMOVEDIR
        }
        _ => return Ok(false),
    };
    let (parent, name) = root.parent_of(inside).context(|| "look at a mount point")?;
    match unlinkat(&parent, &name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(errno) => Err(Error::wrap(
            std::io::Error::from(errno),
            format!("remove the mount point {}", inside.display()),
        )),
    }
}

/// Gives a directory that a stub was made in the time that it had before, unless something else happened in it: the stub alone
/// is no change of it.
fn restore_time(root: &Root, lower: &Tree, path: &[u8]) -> Result<(), Error> {
    let inside = Path::new(OsStr::from_bytes(path));
    let Some(entry) = lower
        .entry(path)
        .filter(|entry| entry.kind == EntryKind::Directory)
    else {
        return Ok(());
    };
    let names = root.read_dir(inside).context(|| "look at a mount point")?;
    let names: BTreeSet<&[u8]> = names.iter().map(|entry| entry.name.as_bytes()).collect();
    if names != lower.names(path) {
        return Ok(());
    }
    let what = || format!("set the time of {}", String::from_utf8_lossy(path));
    let (parent, name) = root.parent_of(inside).context(what)?;
    let time = Timespec {
        tv_sec: entry.mtime,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(&parent, &name, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(std::io::Error::from)
        .context(what)
}

fn stat(root: &Root, path: &Path) -> Result<Option<Stat>, Error> {
    match root.symlink_metadata(path) {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::FailedPrecondition) => Ok(None),
        Err(error) => Err(Error::wrap(error, "look at a mount point")),
    }
}

/// Whether the command made a link of a directory on the way: then the path means something else now.
fn passes_link(root: &Root, path: &[u8]) -> Result<bool, Error> {
    for (end, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        let above = Path::new(OsStr::from_bytes(&path[..end]));
        if let Some(stat) = stat(root, above)?
            && FileType::from_raw_mode(stat.st_mode) != FileType::Directory
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a directory of the changes says nothing that the layers below do not say.
fn is_copy(root: &Root, lower: &Tree, path: &[u8], stat: &Stat) -> Result<bool, Error> {
    let same = lower.entry(path).is_none_or(|entry| {
        entry.mode == stat.st_mode & 0o7777 && entry.uid == stat.st_uid && entry.gid == stat.st_gid
    });
    if !same {
        return Ok(false);
    }
    let inside = Path::new(OsStr::from_bytes(path));
    let handle = root.resolve_nofollow(inside).context(|| "look at a directory")?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = openat(&handle, ".", flags, Mode::empty())
        .map_err(std::io::Error::from)
        .context(|| "open a directory of a step's changes")?;
    // An opaque directory hides what is below it.
    let hides = |name: &str| fgetxattr(&dir, name, &mut [0_u8; 16][..]).is_ok();
    Ok(!hides("trusted.overlay.opaque") && !hides("user.overlay.opaque"))
}
