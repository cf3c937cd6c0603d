//! Writes copied files into a mounted snapshot, by docker's rules.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use dhow_rootpath::{FileKind, Root};
use dhow_types::ErrorKind;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, fchmod, fchown, openat,
};

use crate::chmod::Chmod;
use crate::failure::{Context as _, Error, Halt, invalid};
use crate::keys::xattr_digest;
use crate::schedule::Build;
use crate::source::{Item, ItemKind, Picked, Source};

/// Where to copy: an absolute path, and whether it ends with `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    /// Cleaned.
    path: String,
    /// Whether it must be a directory.
    pub(crate) slash: bool,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.slash && self.path != "/" { "/" } else { "" };
        write!(f, "{}{slash}", self.path)
    }
}

impl Destination {
    pub(crate) fn new(path: &str, slash: bool) -> Self {
        Self {
            path: crate::ignore::clean(path),
            slash,
        }
    }

    /// A destination as written, in a working directory.
    pub(crate) fn relative(written: &str, cwd: &str) -> Self {
        let slash = matches!(written, "" | "." | "..")
            || written.ends_with('/')
            || written.ends_with("/.")
            || written.ends_with("/..");
        if written.starts_with('/') {
            Self::new(written, slash)
        } else {
            Self::new(&format!("{cwd}/{written}"), slash)
        }
    }
}

/// Writes files below one root.
pub(crate) struct Writer<'a> {
    root: Root,
    build: &'a Build<'a>,
    /// `--chown`, looked up.
    pub(crate) owner: Option<(u32, u32)>,
    /// `--chmod`.
    pub(crate) chmod: Option<Chmod>,
    /// Where files with several names were written first; of one source, since another may be of another tree.
    links: HashMap<(u64, u64), PathBuf>,
    /// Directories whose times are set at the end.
    times: Vec<(PathBuf, (i64, u32))>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(root: Root, build: &'a Build<'_>) -> Self {
        Self {
            root,
            build,
            owner: None,
            chmod: None,
            links: HashMap::new(),
            times: Vec::new(),
        }
    }

    pub(crate) const fn root(&self) -> &Root {
        &self.root
    }

    /// Whether the destination is a directory already.
    pub(crate) fn is_dir(&self, destination: &Destination) -> Result<bool, Error> {
        let real = self.real(&destination.path)?;
        Ok(self.stat(&real)?.is_some_and(|stat| is_dir(&stat)))
    }

    /// Follows the links of what is there, inside; what is missing is taken as written.
    fn real(&self, path: &str) -> Result<PathBuf, Error> {
        let mut here = PathBuf::new();
        let mut todo: Vec<std::ffi::OsString> = parts(Path::new(path));
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                here.pop();
                continue;
            }
            here.push(name);
            let Some(stat) = self.stat(&here)? else { continue };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                continue;
            }
            links += 1;
            if links > 40 {
                return Err(invalid(format!("{path}: too many symbolic links")));
            }
            let target = self.root.read_link(&here).context(|| "follow a link")?;
            here.pop();
            if target.is_absolute() {
                here = PathBuf::new();
            }
            todo.extend(parts(&target));
        }
        Ok(here)
    }

    fn stat(&self, path: &Path) -> Result<Option<Stat>, Error> {
        match self.root.symlink_metadata(path) {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::wrap(error, "look at the destination")),
        }
    }

    /// Makes a directory and its parents, owned by `--chown` or root.
    pub(crate) fn make_dirs(&self, path: &Path) -> Result<(), Error> {
        let mode = match &self.chmod {
            Some(Chmod::Octal(mode)) => *mode,
            _ => 0o755,
        };
        let owner = self.owner.unwrap_or((0, 0));
        self.root
            .create_dir_all(path, mode, Some(owner))
            .map(drop)
            .context(|| format!("make the directory /{}", path.display()))
    }

    /// Copies one source: the contents of a directory, or one file.
    pub(crate) fn copy(
        &mut self,
        source: &dyn Source,
        picked: &Picked,
        destination: &Destination,
    ) -> Result<(), Halt> {
        self.links.clear();
        let target = self.real(&destination.path)?;
        let existing = self.stat(&target)?;
        if picked.top.is_dir() {
            if existing.is_some_and(|stat| !is_dir(&stat)) {
                return Err(invalid(format!("cannot copy to non-directory: /{}", target.display())).into());
            }
            self.make_dirs(&target)?;
            self.tree(source, &picked.below, &target)?;
            return Ok(self.time_of(&picked.top, &target)?);
        }
        let path = self.file_target(&target, existing.as_ref(), destination, &picked.name)?;
        self.one(source, &picked.top, &path)?;
        Ok(())
    }

    /// The destination of a directory has the time of that directory (BuildKit's copy does so, and the layer is the same
    /// the next time). The root of a source has none that others would see, and that of an image is in no layer.
    fn time_of(&self, top: &Item, target: &Path) -> Result<(), Error> {
        if top.path.is_empty() || target.as_os_str().is_empty() {
            return Ok(());
        }
        set_times(&self.root, target, top.mtime)
    }

    /// Copies entries under their own relative paths.
    pub(crate) fn copy_parents(
        &mut self,
        items: &[(Vec<u8>, Item)],
        source: &dyn Source,
        destination: &Destination,
    ) -> Result<(), Halt> {
        self.links.clear();
        let target = self.real(&destination.path)?;
        self.make_dirs(&target)?;
        self.tree(source, items, &target)
    }

    /// Writes a here-document: mode 0644, named by its delimiter.
    pub(crate) fn inline(&mut self, name: &str, body: &[u8], destination: &Destination) -> Result<(), Halt> {
        let target = self.real(&destination.path)?;
        let existing = self.stat(&target)?;
        let name = name.rsplit('/').next().unwrap_or_default();
        if name.is_empty() || name == "." || name == ".." {
            return Err(invalid(format!("a here-document cannot be named {name:?}")).into());
        }
        let path = self.file_target(&target, existing.as_ref(), destination, name.as_bytes())?;
        let mode = self
            .chmod
            .as_ref()
            .map_or(0o644, |chmod| chmod.apply(0o644, false));
        let owner = self.owner.unwrap_or((0, 0));
        self.root
            .write(&path, body, mode, Some(owner))
            .context(|| format!("write /{}", path.display()))?;
        Ok(())
    }

    /// Where one file goes: into a directory, or in its place.
    fn file_target(
        &self,
        target: &Path,
        existing: Option<&Stat>,
        destination: &Destination,
        name: &[u8],
    ) -> Result<PathBuf, Error> {
        let into = destination.slash || existing.is_some_and(is_dir) || target.as_os_str().is_empty();
        if !into {
            if let Some(parent) = target.parent() {
                self.make_dirs(parent)?;
            }
            return Ok(target.to_owned());
        }
        self.make_dirs(target)?;
        let path = target.join(OsStr::from_bytes(name));
        if self.stat(&path)?.is_some_and(|stat| is_dir(&stat)) {
            let message = format!("cannot replace to directory /{} with file", path.display());
            return Err(invalid(message));
        }
        Ok(path)
    }

    fn tree(&mut self, source: &dyn Source, items: &[(Vec<u8>, Item)], target: &Path) -> Result<(), Halt> {
        for (count, (name, item)) in items.iter().enumerate() {
            // Often enough for a person, seldom enough to cost nothing.
            if count % 256 == 0 {
                self.build.check()?;
            }
            let path = target.join(OsStr::from_bytes(name));
            if item.is_dir() {
                self.directory(source, item, &path)?;
            } else {
                self.one(source, item, &path)?;
            }
        }
        Ok(())
    }

    fn owner_of(&self, item: &Item) -> (u32, u32) {
        self.owner.unwrap_or((item.uid, item.gid))
    }

    fn mode_of(&self, item: &Item) -> u32 {
        match &self.chmod {
            Some(chmod) => chmod.apply(item.mode, item.is_dir()),
            None => item.mode,
        }
    }

    /// A directory below the source: it is made, or takes over what the source says.
    fn directory(&mut self, source: &dyn Source, item: &Item, path: &Path) -> Result<(), Error> {
        if let Some(stat) = self.stat(path)?
            && !is_dir(&stat)
        {
            return Err(invalid(format!(
                "cannot copy to non-directory: /{}",
                path.display()
            )));
        }
        let owner = self.owner_of(item);
        let mode = self.mode_of(item);
        let handle = self
            .root
            .create_dir_all(path, mode, Some(owner))
            .context(|| format!("make the directory /{}", path.display()))?;
        let dir = reopen(&handle).context(|| format!("open the directory /{}", path.display()))?;
        fchown(&dir, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))
            .and_then(|()| fchmod(&dir, Mode::from_raw_mode(mode)))
            .map_err(std::io::Error::from)
            .context(|| format!("set the owner of /{}", path.display()))?;
        if item.xattrs != xattr_digest(&[]) {
            crate::xattr::write(dir.as_fd(), &source.directory_xattrs(item)?)?;
        }
        self.times.push((path.to_owned(), item.mtime));
        Ok(())
    }

    /// Anything that is not a directory.
    fn one(&mut self, source: &dyn Source, item: &Item, path: &Path) -> Result<(), Error> {
        let owner = Some(self.owner_of(item));
        let mode = self.mode_of(item);
        let done = match &item.kind {
            ItemKind::File => return self.file(source, item, path),
            ItemKind::Directory => return Ok(()),
            ItemKind::Symlink(target) => self
                .root
                .symlink(Path::new(OsStr::from_bytes(target)), path, owner),
            ItemKind::CharDevice(major, minor) => {
                self.root
                    .mknod(path, FileKind::CharDevice, mode, (*major, *minor), owner)
            }
            ItemKind::BlockDevice(major, minor) => {
                self.root
                    .mknod(path, FileKind::BlockDevice, mode, (*major, *minor), owner)
            }
            ItemKind::Fifo => self.root.mknod(path, FileKind::Fifo, mode, (0, 0), owner),
        };
        done.context(|| format!("make /{}", path.display()))?;
        set_times(&self.root, path, item.mtime)
    }

    fn file(&mut self, source: &dyn Source, item: &Item, path: &Path) -> Result<(), Error> {
        if let Some(inode) = item.inode {
            if let Some(first) = self.links.get(&inode) {
                return self
                    .root
                    .hard_link(first, path)
                    .context(|| format!("make the link /{}", path.display()));
            }
            self.links.insert(inode, path.to_owned());
        }
        let (mut from, xattrs) = source.open(item)?;
        let mut to = self
            .root
            .create_file(path, self.mode_of(item), Some(self.owner_of(item)))
            .context(|| format!("make the file /{}", path.display()))?;
        // copy_file_range (or a reflink) where the file systems can.
        std::io::copy(&mut from, &mut to).context(|| format!("copy to /{}", path.display()))?;
        crate::xattr::write(to.as_fd(), &xattrs)?;
        rustix::fs::futimens(&to, &timestamps(item.mtime))
            .map_err(std::io::Error::from)
            .context(|| format!("set the times of /{}", path.display()))
    }

    /// The destination with all links followed.
    pub(crate) fn real_destination(&self, destination: &Destination) -> Result<PathBuf, Error> {
        self.real(&destination.path)
    }

    /// Sets the times of directories, which every file in them changed.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        for (path, mtime) in std::mem::take(&mut self.times).into_iter().rev() {
            set_times(&self.root, &path, mtime)?;
        }
        Ok(())
    }
}

/// Sets the times of what is at `path`; a link's own.
pub(crate) fn set_times(root: &Root, path: &Path, mtime: (i64, u32)) -> Result<(), Error> {
    let (parent, name) = root.parent_of(path).context(|| "set times")?;
    rustix::fs::utimensat(&parent, &name, &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(std::io::Error::from)
        .context(|| format!("set the times of /{}", path.display()))
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Components, last first.
fn parts(path: &Path) -> Vec<std::ffi::OsString> {
    use std::path::Component;
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

fn reopen(handle: &OwnedFd) -> std::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(handle, ".", flags, Mode::empty())?)
}

fn timestamps(mtime: (i64, u32)) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u32| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamps {
        last_access: time(i64::try_from(now.as_secs()).unwrap_or(0), 0),
        last_modification: time(mtime.0, mtime.1),
    }
}
