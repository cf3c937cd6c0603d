use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use dhow_types::ErrorKind;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use crate::{Context, Error, Root};

/// How often a resolution that a concurrent rename disturbed is repeated before the error is reported.
const RETRIES: usize = 128;

/// What a component that is not there means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Refused,
    /// A directory without links.
    Plain,
}

impl Root {
    /// Opens the directory at `path` of the host; symbolic links in `path` itself are followed.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`, or `FailedPrecondition` when it is not a directory.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, path, flags, Mode::empty())
            .map_err(std::io::Error::from)
            .context(|| format!("open the directory {}", path.display()))?;
        Ok(Self(fd))
    }

    /// The root at an open directory.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Another handle on the same directory.
    ///
    /// # Errors
    /// `ResourceExhausted` or `Internal` when the process has no descriptor left.
    pub fn try_clone(&self) -> Result<Self, Error> {
        self.0
            .try_clone()
            .map(Self)
            .context(|| "duplicate a directory handle")
    }

    /// Opens `path` as an `O_PATH` descriptor; a link in the last component is followed, inside.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a loop of links or a path that is too long.
    pub fn resolve(&self, path: &Path) -> Result<OwnedFd, Error> {
        self.open_raw(path, OFlags::PATH, Mode::empty())
            .map_err(|errno| failure(errno, "resolve", path))
    }

    /// Opens `path` as an `O_PATH` descriptor; a link in the last component is the result itself.
    ///
    /// # Errors
    /// As [`Root::resolve`].
    pub fn resolve_nofollow(&self, path: &Path) -> Result<OwnedFd, Error> {
        self.open_raw(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
            .map_err(|errno| failure(errno, "resolve", path))
    }

    /// The directory that holds the last component of `path`, and that component.
    ///
    /// # Errors
    /// As [`Root::resolve`]; `InvalidArgument` when `path` names no entry of a directory (empty, `/`, or ending in `..`).
    pub fn parent_of(&self, path: &Path) -> Result<(OwnedFd, OsString), Error> {
        let (parent, name) = split(path)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = self
            .open_raw(parent, flags, Mode::empty())
            .map_err(|errno| failure(errno, "resolve the directory of", path))?;
        Ok((fd, name.to_owned()))
    }

    /// Where `path` really is inside, after all links: relative, without `.` or `..`; empty for the root itself.
    ///
    /// The answer is a snapshot: a concurrent rename can make it stale, so it is for showing and comparing, and is
    /// only ever used again through a [`Root`].
    ///
    /// # Errors
    /// As [`Root::resolve`].
    pub fn real_path(&self, path: &Path) -> Result<PathBuf, Error> {
        self.walk(path, Missing::Refused)
    }

    /// Where an object that is made at `path` comes to be: as [`Root::real_path`], but also after links that lead to nothing
    /// yet. A missing directory counts as one that has no links in it.
    ///
    /// # Errors
    /// As [`Root::real_path`], but for what is not there.
    pub fn path_to_make(&self, path: &Path) -> Result<PathBuf, Error> {
        self.walk(path, Missing::Plain)
    }

    fn walk(&self, path: &Path, missing: Missing) -> Result<PathBuf, Error> {
        let mut real: Vec<Vec<u8>> = Vec::new();
        let mut todo: Vec<Vec<u8>> = components(path);
        let mut links = 0_u32;
        while let Some(name) = todo.pop() {
            if name == b".." {
                real.pop();
                continue;
            }
            real.push(name);
            let here = joined(&real);
            let stat = match self.symlink_metadata(&here) {
                Err(error) if missing == Missing::Plain && error.kind() == ErrorKind::NotFound => continue,
                stat => stat?,
            };
            if crate::read::kind_of(stat.st_mode) != crate::FileKind::Symlink {
                continue;
            }
            links += 1;
            if links > 40 {
                return Err(failure(Errno::LOOP, "resolve", path));
            }
            let target = self.read_link(&here)?;
            real.pop();
            if target.is_absolute() {
                real.clear();
            }
            todo.extend(components(&target));
        }
        Ok(joined(&real))
    }

    /// Whether `path` names something; links are followed inside.
    ///
    /// # Errors
    /// All failures but "not there".
    pub fn exists(&self, path: &Path) -> Result<bool, Error> {
        match self.open_raw(path, OFlags::PATH, Mode::empty()) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(errno) => Err(failure(errno, "look up", path)),
        }
    }

    /// The one door: `openat2` below this root.
    pub(crate) fn open_raw(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let relative = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut left = RETRIES;
        loop {
            match openat2(self.as_fd(), relative, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) if left > 0 => left -= 1,
                other => return other,
            }
        }
    }
}

/// Components of `path`, last first, without `.` and without the leading `/`.
fn components(path: &Path) -> Vec<Vec<u8>> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.as_bytes().to_vec()),
            Component::ParentDir => Some(b"..".to_vec()),
            _ => None,
        })
        .collect()
}

fn joined(parts: &[Vec<u8>]) -> PathBuf {
    PathBuf::from(OsString::from_vec(parts.join(&b'/')))
}

/// Splits off the last component, which must be a name.
pub(crate) fn split(path: &Path) -> Result<(&Path, &OsStr), Error> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{} does not name an entry of a directory", path.display()),
        )),
    }
}

/// The error of a failed call on `path`.
pub(crate) fn failure(errno: Errno, what: &str, path: &Path) -> Error {
    let kind = match errno {
        Errno::LOOP | Errno::NAMETOOLONG | Errno::XDEV => ErrorKind::InvalidArgument,
        Errno::NOTDIR => ErrorKind::FailedPrecondition,
        Errno::ISDIR | Errno::NXIO => ErrorKind::InvalidArgument,
        Errno::AGAIN => ErrorKind::Unavailable,
        _ => return Error::wrap(std::io::Error::from(errno), format!("{what} {}", path.display())),
    };
    Error::because(
        kind,
        format!("{what} {}", path.display()),
        std::io::Error::from(errno),
    )
}
