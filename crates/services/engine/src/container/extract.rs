//! A tar into a tree.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dhow_layer::tar::Reader;
use dhow_layer::{Entry, EntryKind};
use dhow_rootpath::{FileKind, Root};
use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

use super::users::Ids;
use crate::{Context as _, Error};

/// Who owns what is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Whoever the archive says.
    Archive,
    /// The same for everything.
    All(u32, u32),
    /// The same, among files of this host: what runs as its owner in an image must not run as this one here, and nobody
    /// else gets at a device.
    Host(u32, u32),
}

/// Set-user-id and set-group-id.
const SET_IDS: u32 = 0o6000;

/// Extracts everything of `archive` into the directory `base` of `root`. What is there is merged: a directory never
/// takes the place of something else, nor the other way round, as with docker, unless it is to `overwrite`.
///
/// # Errors
/// Those of a malformed or hostile archive; `FailedPrecondition` for such a conflict; failures of the file system.
pub(super) fn read(
    root: &Root,
    base: &Path,
    archive: impl Read,
    owner: Owner,
    overwrite: bool,
) -> Result<(), Error> {
    read_mapped(root, base, archive, owner, overwrite, None)
}

/// As [`read`], into a tree that has the ids of a user namespace: who owns what is said by those inside.
///
/// # Errors
/// As [`read`]; `InvalidArgument` for an owner that is nobody there.
pub(super) fn read_mapped(
    root: &Root,
    base: &Path,
    archive: impl Read,
    owner: Owner,
    overwrite: bool,
    ids: Option<&Ids>,
) -> Result<(), Error> {
    let Some(ids) = ids else {
        return extract(root, base, archive, owner, overwrite, None);
    };
    let (uid, gid) = ids.root()?;
    let extracted = || extract(root, base, archive, owner, overwrite, Some(ids));
    // The host's root has no name on such a mount, and could make nothing there.
    dhow_sys::process::with_fs_ids(uid, gid, extracted).context(|| "act as root of the container")?
}

fn extract(
    root: &Root,
    base: &Path,
    archive: impl Read,
    owner: Owner,
    overwrite: bool,
    ids: Option<&Ids>,
) -> Result<(), Error> {
    let mut archive = Reader::new(archive);
    let mut extract = Extract {
        root,
        base,
        owner,
        ids,
        overwrite,
        folders: Vec::new(),
    };
    while let Some(entry) = archive.next_entry().context(|| "read the archive")? {
        let shown = || format!("extract {:?}", String::from_utf8_lossy(&entry.path));
        extract.entry(&entry, &mut archive).context(shown)?;
    }
    extract.finish()
}

/// Extracts an archive into a directory, with the owners that it says.
///
/// # Errors
/// As [`read`].
pub(crate) fn restore_tree(root: &Root, archive: impl Read) -> Result<(), Error> {
    read(root, Path::new(""), archive, Owner::Archive, false)
}

/// Extracts an archive into an empty directory of this process's own.
///
/// # Errors
/// As [`read`].
pub(crate) fn unpack_tree(root: &Root, archive: impl Read) -> Result<(), Error> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    read(
        root,
        Path::new(""),
        archive,
        Owner::All(uid.as_raw(), gid.as_raw()),
        false,
    )
}

/// Extracts the tree of an image into a directory of this host. All of it belongs to this process.
///
/// # Errors
/// As [`read`].
pub(crate) fn check_out_tree(root: &Root, archive: impl Read) -> Result<(), Error> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let owner = Owner::Host(uid.as_raw(), gid.as_raw());
    read(root, Path::new(""), archive, owner, false)
}

struct Extract<'a> {
    root: &'a Root,
    base: &'a Path,
    owner: Owner,
    /// What owners are outside, where the tree is a user namespace's.
    ids: Option<&'a Ids>,
    /// Whether what is of another kind goes.
    overwrite: bool,
    /// Directories, whose times and modes are set last: files in them change the first, and need the second.
    folders: Vec<(PathBuf, u32, i64)>,
}

impl Extract<'_> {
    fn entry(&mut self, entry: &Entry, body: &mut impl Read) -> Result<(), Error> {
        // The destination itself is the person's, not the archive's.
        if entry.path.is_empty() {
            return Ok(());
        }
        let path = self.base.join(OsStr::from_bytes(&entry.path));
        let owner = match self.owner {
            Owner::Archive => (entry.uid, entry.gid),
            Owner::All(uid, gid) | Owner::Host(uid, gid) => (uid, gid),
        };
        let owner = self.outside(owner)?;
        if let Some(parent) = path.parent() {
            self.root
                .create_dir_all(parent, 0o755, Some(owner))
                .context(|| "make the directory")?;
        }
        if self.overwrite {
            self.make_way(&path, entry.kind)?;
        }
        match entry.kind {
            EntryKind::Directory => {
                let folder = self
                    .root
                    .create_dir_all(&path, 0o700, Some(owner))
                    .context(|| "make the directory")?;
                own(&folder, owner)?;
                self.folders.push((path, entry.mode, entry.mtime));
                return Ok(());
            }
            EntryKind::File | EntryKind::Whiteout => {
                let mut file = self
                    .root
                    .create_file(&path, self.file_mode(entry.mode), Some(owner))
                    .context(|| "make the file")?;
                io::copy(body, &mut file).context(|| "write the file")?;
                set_attributes(&file, &entry.xattrs)?;
            }
            EntryKind::Symlink => {
                let target = Path::new(OsStr::from_bytes(&entry.link));
                self.root
                    .symlink(target, &path, Some(owner))
                    .context(|| "make the link")?;
            }
            EntryKind::Hardlink => {
                let original = self.base.join(OsStr::from_bytes(&entry.link));
                return self
                    .root
                    .hard_link(&original, &path)
                    .context(|| "make the hard link");
            }
            EntryKind::CharDevice => self.device(&path, entry, FileKind::CharDevice, owner)?,
            EntryKind::BlockDevice => self.device(&path, entry, FileKind::BlockDevice, owner)?,
            EntryKind::Fifo => self.device(&path, entry, FileKind::Fifo, owner)?,
        }
        self.set_time(&path, entry.mtime)
    }

    fn outside(&self, owner: (u32, u32)) -> Result<(u32, u32), Error> {
        let Some(ids) = self.ids else { return Ok(owner) };
        ids.outside(owner).ok_or_else(|| {
            let message = format!("nobody in the container is its owner {}:{}", owner.0, owner.1);
            Error::new(dhow_types::ErrorKind::InvalidArgument, message)
        })
    }

    /// Removes what is in the place of an entry when one of the two is a directory and the other is not.
    fn make_way(&self, path: &Path, kind: EntryKind) -> Result<(), Error> {
        let status = match self.root.symlink_metadata(path) {
            Err(error) if error.kind() == dhow_types::ErrorKind::NotFound => return Ok(()),
            status => status.context(|| "look at what is there")?,
        };
        let is_folder = FileKind::of_mode(status.st_mode) == FileKind::Directory;
        if is_folder == (kind == EntryKind::Directory) {
            return Ok(());
        }
        self.root.remove_all(path).context(|| "make way")
    }

    fn file_mode(&self, mode: u32) -> u32 {
        match self.owner {
            Owner::Host(..) => mode & !SET_IDS,
            _ => mode,
        }
    }

    fn device(&self, path: &Path, entry: &Entry, kind: FileKind, owner: (u32, u32)) -> Result<(), Error> {
        let mode = match self.owner {
            Owner::Host(..) if kind != FileKind::Fifo => entry.mode & 0o600,
            _ => entry.mode,
        };
        self.root
            .mknod(path, kind, mode, (entry.major, entry.minor), Some(owner))
            .context(|| "make the device")
    }

    fn set_time(&self, path: &Path, seconds: i64) -> Result<(), Error> {
        let time = Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        let (parent, name) = self.root.parent_of(path).context(|| "set the time")?;
        rustix::fs::utimensat(&parent, &name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io::Error::from)
            .context(|| "set the time")
    }

    fn finish(self) -> Result<(), Error> {
        for (path, mode, seconds) in self.folders.iter().rev() {
            let what = || format!("set the mode of {}", path.display());
            let folder = self.root.resolve_nofollow(path).context(what)?;
            // What took its place meanwhile is left as it is: a link must not be followed out.
            let status = rustix::fs::fstat(&folder)
                .map_err(io::Error::from)
                .context(what)?;
            if FileKind::of_mode(status.st_mode) != FileKind::Directory {
                continue;
            }
            rustix::fs::chmod(magic(&folder), Mode::from_raw_mode(*mode))
                .map_err(io::Error::from)
                .context(what)?;
            self.set_time(path, *seconds)?;
        }
        Ok(())
    }
}

/// The name under which a descriptor that is only a path can be changed.
fn magic(folder: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", folder.as_raw_fd())
}

fn own(folder: &OwnedFd, (uid, gid): (u32, u32)) -> Result<(), Error> {
    rustix::fs::chown(magic(folder), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        .map_err(io::Error::from)
        .context(|| "set the owner")
}

/// `user.*` and capabilities: the others speak of this host.
fn set_attributes(file: &std::fs::File, attributes: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Error> {
    for (name, value) in attributes {
        let travels = name.starts_with(b"user.") || name.as_slice() == b"security.capability";
        if !travels {
            continue;
        }
        match rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
            // A file system without attributes takes the file alone.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(io::Error::from(errno)).context(|| "set an attribute"),
        }
    }
    Ok(())
}
