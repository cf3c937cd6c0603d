//! `cp`: files between a container and the host, as a tar stream from one tree into the other, by docker's rules.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use dhow_layer::decoder;
use dhow_rootpath::{FileKind, Root};
use dhow_types::ErrorKind;

use super::export::{Part, write_part};
use super::extract::{self, Owner};
use super::folder::Container;
use super::program::lives;
use super::stop::open_process;
use super::users::{Ids, Users, is_mapped};
use crate::{Context as _, Engine, Error};

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyPlace {
    /// A path in a container, running or not.
    Container {
        /// Name or id.
        container: String,
        /// The path; a relative one begins at `/`.
        path: String,
    },
    /// A path of the host.
    Host(PathBuf),
    /// A tar on standard input or output.
    Stream,
}

/// What `cp`'s flags say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyRequest {
    /// Where from.
    pub from: CopyPlace,
    /// Where to.
    pub to: CopyPlace,
    /// Whether a link at the end of the source's path is followed.
    pub follow_link: bool,
    /// Whether owners are kept: into a container, what comes belongs to the container's own user.
    pub archive: bool,
    /// Whether a file takes the place of a directory, and a directory that of a file.
    pub overwrite: bool,
}

/// A tree that is open, and a path in it.
struct Place {
    root: Root,
    path: PathBuf,
    /// Written with a `/` or `/.` at its end: it must be a directory.
    slash: bool,
    /// Written with `/.` at its end: what is in it is meant.
    dot: bool,
    /// Where other file systems belong to the tree.
    mounts: Option<Vec<PathBuf>>,
    /// What owners in the tree are inside, where it is that of a user namespace.
    ids: Option<Ids>,
    /// As the person wrote it.
    shown: String,
    /// Keeps a container that does not run from being started meanwhile.
    _lock: Option<OwnedFd>,
}

/// What comes: the part of a tree, and how it is called.
struct Source {
    place: Place,
    path: PathBuf,
    name: OsString,
    is_dir: bool,
}

/// Where it goes, and how.
struct Into<'a> {
    root: &'a Root,
    base: &'a Path,
    owner: Owner,
    overwrite: bool,
    ids: Option<&'a Ids>,
}

impl Engine {
    /// Copies; returns the bytes of the tar stream. `input` and `output` are for [`CopyPlace::Stream`].
    ///
    /// # Errors
    /// `NotFound` in docker's words; `FailedPrecondition` for a directory where there is something else, or a read-only
    /// place; `InvalidArgument` for a malformed or hostile archive.
    pub fn copy(
        &self,
        wanted: &CopyRequest,
        input: impl Read + Send,
        output: &mut (dyn Write + Send),
    ) -> Result<u64, Error> {
        let bytes = AtomicU64::new(0);
        if wanted.to == CopyPlace::Stream {
            let source = self.source(wanted)?;
            let name = if source.place.dot {
                OsStr::new("")
            } else {
                source.name.as_os_str()
            };
            source.write(name.as_bytes(), &mut Counted(output, &bytes))?;
            return Ok(bytes.into_inner());
        }
        let owner = self.owner(wanted)?;
        let place = self.place(&wanted.to, true)?;
        if wanted.from == CopyPlace::Stream {
            let base = place.directory().ok_or_else(|| {
                let message = format!("destination {:?} must be a directory", place.shown);
                Error::new(ErrorKind::FailedPrecondition, message)
            })?;
            let what = || format!("copy to {}", place.shown);
            let (_, input) = decoder(Counting(input, &bytes)).context(what)?;
            let ids = place.ids.as_ref();
            extract::read_mapped(&place.root, &base, input, owner, wanted.overwrite, ids).context(what)?;
            return Ok(bytes.into_inner());
        }
        let source = self.source(wanted)?;
        let (base, name) = target(&source, &place)?;
        // What a container holds must not lead the archive out of where it is to go.
        let (root, base) = match wanted.to {
            CopyPlace::Host(_) => {
                let folder = place
                    .root
                    .resolve(&base)
                    .context(|| format!("open {}", base.display()))?;
                (Root::from_fd(folder), PathBuf::new())
            }
            _ => (place.root.try_clone().context(|| "open the container")?, base),
        };
        let into = Into {
            root: &root,
            base: &base,
            owner,
            overwrite: wanted.overwrite,
            ids: place.ids.as_ref(),
        };
        self.stream(&source, &name, &into, &bytes)
            .context(|| format!("copy {} to {}", source.place.shown, place.shown))?;
        Ok(bytes.into_inner())
    }

    /// One thread packs, the other unpacks.
    fn stream(&self, source: &Source, name: &OsStr, into: &Into<'_>, bytes: &AtomicU64) -> Result<(), Error> {
        let (reader, writer) = std::io::pipe().context(|| "make a pipe")?;
        std::thread::scope(|scope| {
            let packing = scope.spawn(move || source.write(name.as_bytes(), &mut Counted(writer, bytes)));
            let read =
                extract::read_mapped(into.root, into.base, reader, into.owner, into.overwrite, into.ids);
            let died = || Err(Error::new(ErrorKind::Internal, "the packing thread died"));
            let packed = packing.join().unwrap_or_else(|_| died());
            match (packed, read) {
                // A broken pipe is the other side's failure, and an early end is this side's.
                (Err(packed), Err(read)) if read.kind() == ErrorKind::DataLoss => Err(packed),
                (_, Err(read)) => Err(read),
                (packed, Ok(())) => packed,
            }
        })
    }

    fn source(&self, wanted: &CopyRequest) -> Result<Source, Error> {
        let place = self.place(&wanted.from, false)?;
        let follow = wanted.follow_link || place.slash;
        let path = place.find(follow)?;
        let status = place
            .root
            .symlink_metadata(&path)
            .map_err(|error| place.missing(error))?;
        let is_dir = FileKind::of_mode(status.st_mode) == FileKind::Directory;
        if place.slash && !is_dir {
            let message = format!("{}: not a directory", place.shown);
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        }
        let name = last(&place.path).unwrap_or_default();
        Ok(Source {
            path,
            name,
            is_dir,
            place,
        })
    }

    fn owner(&self, wanted: &CopyRequest) -> Result<Owner, Error> {
        match &wanted.to {
            CopyPlace::Container { container, .. } if wanted.archive => {
                let container = self.containers().find(container)?;
                if container.config.user.is_empty() {
                    return Ok(Owner::Archive);
                }
                let (root, _lock) = self.container_root(&container)?;
                let identity = super::exec::identity(&root, &container.config.user)?;
                Ok(Owner::All(identity.uid, identity.gid))
            }
            CopyPlace::Host(_) if !wanted.archive => Ok(Owner::All(
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            )),
            _ => Ok(Owner::Archive),
        }
    }

    fn place(&self, wanted: &CopyPlace, write: bool) -> Result<Place, Error> {
        match wanted {
            CopyPlace::Stream => Err(Error::new(
                ErrorKind::InvalidArgument,
                "must specify at least one container source",
            )),
            CopyPlace::Host(path) => {
                let text = path.as_os_str().as_bytes();
                Ok(Place {
                    root: Root::open(Path::new("/")).context(|| "open /")?,
                    path: std::path::absolute(path).context(|| format!("find {}", path.display()))?,
                    slash: text.ends_with(b"/") || is_dot(text),
                    dot: is_dot(text),
                    mounts: None,
                    ids: None,
                    shown: path.display().to_string(),
                    _lock: None,
                })
            }
            CopyPlace::Container { container, path } => {
                let found = self.containers().find(container)?;
                let text = path.as_bytes();
                let (root, lock) = self.container_root(&found)?;
                // On disk its own files have the ids inside, unless nobody could have mounted them with others.
                let ids = if lock.is_none() || super::users::keeps_ids_outside() {
                    self.ids_of(&found)?
                } else {
                    None
                };
                let place = Place {
                    root,
                    path: clean(path),
                    slash: text.ends_with(b"/") || is_dot(text),
                    dot: is_dot(text) || clean(path).as_os_str() == "/",
                    mounts: Some(inner_mounts(&found)),
                    ids,
                    shown: format!("{container}:{path}"),
                    _lock: lock,
                };
                place.in_volume(&found, write)
            }
        }
    }

    /// The container's root, and its lock when it does not run.
    fn container_root(&self, container: &Container) -> Result<(Root, Option<OwnedFd>), Error> {
        if open_process(container)?.is_some() {
            let path = format!("/proc/{}/root", container.state.pid);
            let root = Root::open(Path::new(&path)).context(|| "open the container's root")?;
            // The number may have become another process's between the two.
            if lives(&container.state) {
                return Ok((root, None));
            }
        }
        let id = &container.config.id;
        let lock = self.containers().try_lock(id)?.ok_or_else(|| {
            let message = format!("container {} is being changed by another command", id.short());
            Error::new(ErrorKind::FailedPrecondition, message)
        })?;
        let snapshots = self.snapshots()?;
        let active = match snapshots.active(id.as_str()) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                snapshots.prepare(id.as_str(), &container.config.layers)
            }
            active => active,
        };
        let what = || "mount the container's root file system";
        let mut active = active.context(what)?;
        if let Some(ids) = self.ids_on_disk(container) {
            active = ids.see(&snapshots, active)?;
        }
        let mount = active.mount_detached().context(what)?;
        Ok((Root::from_fd(mount), Some(lock)))
    }
}

impl Place {
    /// Where it is after all links; with `follow`, also one at its end.
    fn find(&self, follow: bool) -> Result<PathBuf, Error> {
        let found = match (follow, self.path.parent(), last(&self.path)) {
            (false, Some(parent), Some(name)) => self.root.real_path(parent).map(|parent| parent.join(name)),
            _ => self.root.real_path(&self.path),
        };
        found.map_err(|error| self.missing(error))
    }

    /// Where it is, when it is a directory.
    fn directory(&self) -> Option<PathBuf> {
        let path = self.root.real_path(&self.path).ok()?;
        let status = self.root.metadata(&path).ok()?;
        (FileKind::of_mode(status.st_mode) == FileKind::Directory).then_some(path)
    }

    fn missing(&self, error: dhow_rootpath::Error) -> Error {
        if error.kind() != ErrorKind::NotFound {
            return Error::wrap(error, format!("look at {}", self.shown));
        }
        let message = match self.shown.split_once(':').filter(|_| self.mounts.is_some()) {
            Some((container, path)) => format!("Could not find the file {path} in container {container}"),
            None => format!("lstat {}: no such file or directory", self.path.display()),
        };
        Error::new(ErrorKind::NotFound, message)
    }

    /// A running container has its volumes in its tree. For one that does not run, a path in a volume is looked for
    /// where the volume is.
    fn in_volume(mut self, container: &Container, write: bool) -> Result<Self, Error> {
        if self._lock.is_none() {
            return Ok(self);
        }
        let refuse = |what: &str| {
            let message = format!("{what} is marked read-only");
            Err(Error::new(ErrorKind::FailedPrecondition, message))
        };
        let real = self.longest_real();
        let holder = container
            .config
            .mounts
            .iter()
            .filter(|mount| mount.kind != "tmpfs" && real.starts_with(inside(&mount.destination)))
            .max_by_key(|mount| mount.destination.len());
        let Some(mount) = holder else {
            if write && container.config.request.read_only {
                return refuse("container rootfs");
            }
            return Ok(self);
        };
        if write && !mount.writable {
            return refuse("mounted volume");
        }
        let what = || format!("open {}", mount.source);
        if !is_mapped(mount) {
            self.ids = container.config.extras.users.as_ref().map(Users::ids);
        }
        let source = Path::new(&mount.source);
        let rest = real
            .strip_prefix(inside(&mount.destination))
            .unwrap_or(Path::new(""));
        if std::fs::metadata(source).context(what)?.is_dir() {
            self.root = Root::open(source).context(what)?;
            self.path = Path::new("/").join(rest);
        } else {
            let folder = source.parent().unwrap_or(Path::new("/"));
            self.root = Root::open(folder).context(what)?;
            self.path = Path::new("/").join(last(source).unwrap_or_default());
        }
        Ok(self)
    }

    /// The path with the links followed of as much as is there.
    fn longest_real(&self) -> PathBuf {
        let mut missing = Vec::new();
        let mut here = self.path.as_path();
        loop {
            match (self.root.real_path(here), here.parent(), last(here)) {
                (Ok(real), _, _) => return missing.iter().rev().fold(real, |path, name| path.join(name)),
                (Err(_), Some(parent), Some(name)) => {
                    missing.push(name);
                    here = parent;
                }
                _ => return inside_path(&self.path),
            }
        }
    }
}

impl Source {
    fn write(&self, name: &[u8], output: &mut dyn Write) -> Result<(), Error> {
        let part = Part {
            root: &self.place.root,
            path: &self.path,
            name,
            mounts: self.place.mounts.as_deref(),
            ids: self.place.ids.as_ref(),
        };
        write_part(&part, output)
    }
}

/// The directory to extract into, and the name that the source gets there; empty for what is in the source only.
fn target(source: &Source, place: &Place) -> Result<(PathBuf, OsString), Error> {
    let refuse = |kind, why: &str| Err(Error::new(kind, format!("{}: {why}", place.shown)));
    if let Some(base) = place.directory() {
        let name = if source.is_dir && source.place.dot {
            OsString::new()
        } else {
            source.name.clone()
        };
        return Ok((base, name));
    }
    let there = place.root.real_path(&place.path).ok();
    match &there {
        Some(_) if source.is_dir => return refuse(ErrorKind::FailedPrecondition, "cannot copy directory"),
        Some(_) if place.slash => return refuse(ErrorKind::FailedPrecondition, "not a directory"),
        None if place.slash && !source.is_dir => return refuse(ErrorKind::NotFound, "no such directory"),
        _ => {}
    }
    let path = there.unwrap_or_else(|| {
        // As docker and podman: a link that leads nowhere leads to what is made.
        let to_make = place.root.path_to_make(&place.path);
        to_make.unwrap_or_else(|_| place.path.clone())
    });
    let parent = path.parent().unwrap_or(Path::new(""));
    let real = place.root.real_path(parent).ok();
    let parent = real.filter(|parent| {
        let status = place.root.metadata(parent);
        status.is_ok_and(|status| FileKind::of_mode(status.st_mode) == FileKind::Directory)
    });
    match (parent, last(&path)) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => refuse(ErrorKind::NotFound, "no such directory"),
    }
}

/// A container's path from its root, `.` and `..` resolved in the text.
fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

fn is_dot(text: &[u8]) -> bool {
    text == b"." || text.ends_with(b"/.")
}

fn last(path: &Path) -> Option<OsString> {
    path.file_name().map(OsStr::to_owned)
}

fn inside(destination: &str) -> PathBuf {
    inside_path(Path::new(destination))
}

fn inside_path(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

fn inner_mounts(container: &Container) -> Vec<PathBuf> {
    let mounts = container.config.mounts.iter();
    mounts.map(|mount| inside(&mount.destination)).collect()
}

/// Counts what is written.
struct Counted<'a, W>(W, &'a AtomicU64);

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.0.write(bytes)?;
        self.1.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Counts what is read.
struct Counting<'a, R>(R, &'a AtomicU64);

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(bytes)?;
        self.1.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
