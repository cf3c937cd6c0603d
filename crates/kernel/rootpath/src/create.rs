use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

use dhow_types::ErrorKind;
use rustix::fs::{
    AtFlags, Dev, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, fchown, linkat, mkdirat, mknodat,
    openat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use crate::resolve::failure;
use crate::{Context, Error, Root};

/// How often an object that appears again and again under the name to create is replaced.
const REPLACEMENTS: usize = 16;

impl Root {
    /// Makes the directory `path` and all its missing parents, each with `mode` (exactly, whatever the umask) and
    /// `owner`; directories that are there already keep what they have. Returns the directory (`O_PATH`).
    ///
    /// Without `owner` it is what mkdir(2) makes: below a directory with the set-group-id bit it has that bit, too.
    ///
    /// Links to directories on the way are followed, inside; `..` after a missing component is refused.
    ///
    /// # Errors
    /// `FailedPrecondition` when something on the way is not a directory.
    pub fn create_dir_all(
        &self,
        path: &Path,
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Result<OwnedFd, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open_raw(path, flags, Mode::empty()) {
            Err(Errno::NOENT) => (),
            other => return other.map_err(|errno| failure(errno, "open the directory", path)),
        }
        let mut prefix = std::path::PathBuf::new();
        let mut here = self
            .open_raw(Path::new("."), flags, Mode::empty())
            .map_err(|errno| failure(errno, "open the directory", path))?;
        for component in path.components() {
            let name = match component {
                Component::Normal(name) => name,
                Component::ParentDir => OsStr::new(".."),
                _ => continue,
            };
            prefix.push(name);
            here = match self.open_raw(&prefix, flags, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT) if name != ".." => self.make_dir(&here, name, &prefix, mode, owner)?,
                Err(errno) => return Err(failure(errno, "open the directory", &prefix)),
            };
        }
        Ok(here)
    }

    fn make_dir(
        &self,
        parent: &OwnedFd,
        name: &OsStr,
        path: &Path,
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Result<OwnedFd, Error> {
        let made = match mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(failure(errno, "make the directory", path)),
        };
        if !made {
            // Another process was faster, or a link with a missing target holds the name.
            return self
                .open_raw(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
                .map_err(|errno| failure(errno, "open the directory", path));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(parent, name, flags, Mode::empty())
            .map_err(|errno| failure(errno, "open the directory", path))?;
        let mut inherited = 0;
        if owner.is_none() {
            let stat =
                rustix::fs::fstat(&fd).map_err(|errno| failure(errno, "look at the directory", path))?;
            inherited = stat.st_mode & Mode::SGID.bits();
        }
        dress(fd.as_fd(), mode | inherited, owner, path)?;
        Ok(fd)
    }

    /// Makes a new empty file with exactly `mode`; something else than a directory under that name is replaced.
    /// The parent must be there.
    ///
    /// # Errors
    /// `NotFound` without the parent; `FailedPrecondition` when a directory has the name.
    pub fn create_file(&self, path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<File, Error> {
        let (parent, name) = self.parent_of(path)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = replacing(parent.as_fd(), &name, path, || {
            openat(&parent, &name, flags, Mode::from_raw_mode(0o600))
        })?;
        dress(fd.as_fd(), mode, owner, path)?;
        Ok(File::from(fd))
    }

    /// Writes a whole file, as [`Root::create_file`] makes it.
    ///
    /// # Errors
    /// As [`Root::create_file`]; `ResourceExhausted` when the disk is full.
    pub fn write(
        &self,
        path: &Path,
        bytes: &[u8],
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Result<(), Error> {
        let mut file = self.create_file(path, mode, owner)?;
        file.write_all(bytes)
            .context(|| format!("write {}", path.display()))
    }

    /// Makes a symbolic link with the text `target`; something else than a directory under that name is replaced.
    ///
    /// # Errors
    /// As [`Root::create_file`].
    pub fn symlink(&self, target: &Path, path: &Path, owner: Option<(u32, u32)>) -> Result<(), Error> {
        let (parent, name) = self.parent_of(path)?;
        replacing(parent.as_fd(), &name, path, || symlinkat(target, &parent, &name))?;
        own(parent.as_fd(), &name, owner, path)
    }

    /// Makes `path` another name of the object `original`; neither is followed when it is a link.
    ///
    /// # Errors
    /// As [`Root::create_file`]; `PermissionDenied` when `original` is a directory.
    pub fn hard_link(&self, original: &Path, path: &Path) -> Result<(), Error> {
        let (old_parent, old_name) = self.parent_of(original)?;
        let (parent, name) = self.parent_of(path)?;
        replacing(parent.as_fd(), &name, path, || {
            linkat(&old_parent, &old_name, &parent, &name, AtFlags::empty())
        })
    }

    /// Makes a device node or a named pipe with exactly `mode`; something else than a directory is replaced.
    ///
    /// # Errors
    /// As [`Root::create_file`]; `PermissionDenied` without the right to make devices.
    pub fn mknod(
        &self,
        path: &Path,
        kind: crate::FileKind,
        mode: u32,
        device: (u32, u32),
        owner: Option<(u32, u32)>,
    ) -> Result<(), Error> {
        let file_type = match kind {
            crate::FileKind::CharDevice => FileType::CharacterDevice,
            crate::FileKind::BlockDevice => FileType::BlockDevice,
            crate::FileKind::Fifo => FileType::Fifo,
            crate::FileKind::Socket => FileType::Socket,
            _ => {
                let message = format!("{} can be no device: it is to be a {kind:?}", path.display());
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
        };
        let (parent, name) = self.parent_of(path)?;
        let number: Dev = rustix::fs::makedev(device.0, device.1);
        replacing(parent.as_fd(), &name, path, || {
            mknodat(&parent, &name, file_type, Mode::from_raw_mode(mode), number)
        })?;
        own(parent.as_fd(), &name, owner, path)?;
        // O_PATH and fchmodat on the descriptor's /proc name would follow nothing either, but the name was made by
        // this call and fchmodat2 (Linux 6.6) may be missing: chmod through an O_PATH descriptor is not possible.
        crate::remove::chmod_nofollow(parent.as_fd(), &name, mode)
            .map_err(|errno| failure(errno, "chmod", path))
    }
}

/// Runs `make`; when the name is taken by something else than a directory, unlinks that first.
fn replacing<T>(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
    mut make: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Error> {
    for _ in 0..REPLACEMENTS {
        match make() {
            Err(Errno::EXIST) => (),
            other => return other.map_err(|errno| failure(errno, "create", path)),
        }
        match unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => (),
            Err(Errno::ISDIR | Errno::PERM) if name.as_bytes() != b".." => {
                let message = format!("create {}: a directory has that name", path.display());
                return Err(Error::new(ErrorKind::FailedPrecondition, message));
            }
            Err(errno) => return Err(failure(errno, "replace", path)),
        }
    }
    let message = format!(
        "create {}: something else takes the name again and again",
        path.display()
    );
    Err(Error::new(ErrorKind::Unavailable, message))
}

/// Owner first, then mode: `chown` clears the set-user-id bits.
fn dress(fd: BorrowedFd<'_>, mode: u32, owner: Option<(u32, u32)>, path: &Path) -> Result<(), Error> {
    if let Some((uid, gid)) = owner {
        fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(|errno| failure(errno, "chown", path))?;
    }
    fchmod(fd, Mode::from_raw_mode(mode)).map_err(|errno| failure(errno, "chmod", path))
}

fn own(parent: BorrowedFd<'_>, name: &OsStr, owner: Option<(u32, u32)>, path: &Path) -> Result<(), Error> {
    let Some((uid, gid)) = owner else { return Ok(()) };
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    chownat(
        parent,
        name,
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(gid)),
        flags,
    )
    .map_err(|errno| failure(errno, "chown", path))
}
