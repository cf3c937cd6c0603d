use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use dhow_types::ErrorKind;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, readlinkat, statat};

use crate::resolve::failure;
use crate::{Context, DirEntry, Error, FileKind, Root};

impl Root {
    /// Opens a regular file for reading; never blocks on a pipe and never opens a device.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` when it is not a regular file.
    pub fn open_file(&self, path: &Path) -> Result<File, Error> {
        // O_NONBLOCK: a FIFO in an image would stop the open for ever; O_NOCTTY: a terminal must not become ours.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        // A device would run its driver's open: look at the object first through O_PATH, then open; the second look
        // below catches a swap in between.
        let seen = self.resolve(path)?;
        require_file(&seen, path)?;
        let fd = self
            .open_raw(path, flags, Mode::empty())
            .map_err(|errno| failure(errno, "open", path))?;
        require_file(&fd, path)?;
        Ok(File::from(fd))
    }

    /// The bytes of a regular file of at most `max` bytes.
    ///
    /// # Errors
    /// As [`Root::open_file`]; `ResourceExhausted` when it is larger.
    pub fn read(&self, path: &Path, max: u64) -> Result<Vec<u8>, Error> {
        let file = self.open_file(path)?;
        let mut bytes = Vec::new();
        file.take(max.saturating_add(1))
            .read_to_end(&mut bytes)
            .context(|| format!("read {}", path.display()))?;
        if bytes.len() as u64 > max {
            let message = format!("{} is larger than {max} bytes", path.display());
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
        Ok(bytes)
    }

    /// Attributes of what `path` names; links are followed inside.
    ///
    /// # Errors
    /// As [`Root::resolve`].
    pub fn metadata(&self, path: &Path) -> Result<Stat, Error> {
        let fd = self.resolve(path)?;
        fstat(&fd).map_err(|errno| failure(errno, "stat", path))
    }

    /// Attributes of what `path` names; a link in the last component is not followed.
    ///
    /// # Errors
    /// As [`Root::resolve`].
    pub fn symlink_metadata(&self, path: &Path) -> Result<Stat, Error> {
        let fd = self.resolve_nofollow(path)?;
        fstat(&fd).map_err(|errno| failure(errno, "stat", path))
    }

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// As [`Root::resolve`]; `FailedPrecondition` when it is not a directory.
    pub fn read_dir(&self, path: &Path) -> Result<Vec<DirEntry>, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = self
            .open_raw(path, flags, Mode::empty())
            .map_err(|errno| failure(errno, "open the directory", path))?;
        let mut entries = list(fd, path)?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The target of a symbolic link, as it is written.
    ///
    /// # Errors
    /// As [`Root::resolve`]; `InvalidArgument` when it is not a link.
    pub fn read_link(&self, path: &Path) -> Result<PathBuf, Error> {
        let fd = self.resolve_nofollow(path)?;
        let target =
            readlinkat(&fd, "", Vec::new()).map_err(|errno| failure(errno, "read the link", path))?;
        Ok(PathBuf::from(std::ffi::OsString::from_vec(target.into_bytes())))
    }
}

/// Names in an open directory, without `.` and `..`.
pub(crate) fn list(fd: OwnedFd, path: &Path) -> Result<Vec<DirEntry>, Error> {
    let mut dir = Dir::new(fd).map_err(|errno| failure(errno, "read the directory", path))?;
    let mut entries = Vec::new();
    while let Some(entry) = dir.read() {
        let entry = entry.map_err(|errno| failure(errno, "read the directory", path))?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let mut kind = entry.file_type();
        let name = std::ffi::OsStr::from_bytes(name).to_owned();
        if kind == FileType::Unknown {
            // Some file systems do not tell the type in the directory.
            let stat = statat(
                dir.fd()
                    .map_err(|errno| failure(errno, "read the directory", path))?,
                name.as_os_str(),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(|errno| failure(errno, "stat an entry of", path))?;
            kind = FileType::from_raw_mode(stat.st_mode);
        }
        entries.push(DirEntry {
            name,
            kind: kind_from(kind),
        });
    }
    Ok(entries)
}

/// The kind in a mode word.
pub(crate) fn kind_of(mode: u32) -> FileKind {
    kind_from(FileType::from_raw_mode(mode))
}

fn kind_from(kind: FileType) -> FileKind {
    match kind {
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::CharacterDevice => FileKind::CharDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        _ => FileKind::File,
    }
}

fn require_file(fd: &impl AsFd, path: &Path) -> Result<(), Error> {
    let stat = fstat(fd).map_err(|errno| failure(errno, "stat", path))?;
    if kind_of(stat.st_mode) == FileKind::File {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!("{} is not a regular file", path.display()),
    ))
}
