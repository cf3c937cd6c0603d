//! `commit`, `diff`, `export`: what a container changed, as a layer.
//!
//! The changes are copied first, so that the container goes on with its own. What only the mounts of the run needed
//! (`/proc`, an empty `/etc/hosts`) is no change.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use dhow_layer::{Capture, EntryKind, Layer};
use dhow_meta::Lease;
use dhow_oci::{History, RunConfig};
use dhow_reference::Reference;
use dhow_rootpath::{FileKind, Root};
use dhow_types::{DiffId, ErrorKind, ImageId};
use rustix::fs::{FileType, Stat, XattrFlags};

use super::copy_up::{restore, restore_file};
use super::folder::Container;
use super::record::Status;
use super::users::Ids;
use crate::event::Event;
use crate::{Context as _, Engine, Error};

/// Deepest folder that is copied.
const MAX_DEPTH: usize = 256;
/// What the runtime makes to mount on, when it is left empty.
const MOUNT_POINTS: [&str; 7] = [
    "dev",
    "proc",
    "sys",
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
    "run/.containerenv",
];

/// What `commit`'s flags say.
#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    /// The container.
    pub container: String,
    /// Name for the image.
    pub name: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// A word on it.
    pub message: String,
    /// Dockerfile instructions for its config.
    pub changes: Vec<String>,
    /// Whether a running container is frozen meanwhile.
    pub pause: bool,
}

/// One path that a container changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It is new.
    Added,
    /// It is different.
    Changed,
    /// It is gone.
    Deleted,
}

impl Engine {
    /// Makes an image of a container's changes on its image.
    ///
    /// # Errors
    /// `NotFound` for the container or its image; `InvalidArgument` for a name or an instruction that is none.
    pub fn commit(&self, wanted: &CommitRequest) -> Result<ImageId, Error> {
        let container = self.containers().find(&wanted.container)?;
        let tags: Vec<Reference> = match &wanted.name {
            Some(name) => vec![crate::image::parse(name)?.or_latest()],
            None => Vec::new(),
        };
        let store = self.store()?;
        let image = store
            .image(&container.config.image)
            .context(|| "look at the container's image")?;
        let mut config = image.config;
        let base = run_config(&container, std::mem::take(&mut config.config));
        config.config = self.change_config(base, &wanted.changes)?;
        let lease = Lease::acquire(store.root()).context(|| "keep the new layer")?;
        lease.pin_everything().context(|| "keep the new layer")?;
        // Without a group nobody can be frozen: what is written meanwhile may be in the image or not.
        let freeze = wanted.pause
            && container.state.status == Status::Running
            && self.group_if_any(&container.config)?.is_some();
        if freeze {
            self.pause(container.config.id.as_str())?;
        }
        let layer = self.changed_layer(&container);
        if freeze {
            self.unpause(container.config.id.as_str())?;
        }
        let created = dhow_monitor::format_time(std::time::SystemTime::now());
        config.created = Some(created.clone());
        config.rootfs.diff_ids.push(layer?.diff_id());
        config.history.push(History {
            created: Some(created),
            created_by: Some(container.config.command.join(" ")),
            author: wanted.author.clone(),
            comment: (!wanted.message.is_empty()).then(|| wanted.message.clone()),
            ..History::default()
        });
        if wanted.author.is_some() {
            config.author.clone_from(&wanted.author);
        }
        let id = store
            .commit_on(config, &tags, Some(image.id))
            .context(|| "store the new image")?;
        store.sync().context(|| "write the image to disk")?;
        let mut events = vec![Event::of(&container.config, "commit").with("comment", &wanted.message)];
        events.extend(tags.iter().map(|tag| Event::of_image("tag", id, &tag.familiar())));
        self.tell_all(&events);
        Ok(id)
    }

    /// What a container changed, by path.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn changes(&self, wanted: &str) -> Result<Vec<(PathBuf, Change)>, Error> {
        let container = self.containers().find(wanted)?;
        let lease = Lease::acquire(self.store()?.root()).context(|| "keep the changes")?;
        lease.pin_everything().context(|| "keep the changes")?;
        let layer = self.changed_layer(&container)?;
        let index = layer.index().context(|| "read the changes")?;
        self.with_view(&container.config.layers, "diff", |image| {
            let mut changes = Vec::new();
            for entry in index.entries().filter(|entry| !entry.path.is_empty()) {
                let path = path_of(&entry.path);
                let change = match entry.kind {
                    EntryKind::Whiteout => Change::Deleted,
                    _ if image.symlink_metadata(&path).is_ok() => Change::Changed,
                    _ => Change::Added,
                };
                changes.push((Path::new("/").join(path), change));
            }
            changes.sort();
            Ok(changes)
        })
    }

    /// Writes a container's whole root file system as a tar; volumes are no part of it.
    ///
    /// # Errors
    /// `NotFound`, and what writing said.
    pub fn export(&self, wanted: &str, output: &mut dyn Write) -> Result<(), Error> {
        let container = self.containers().find(wanted)?;
        let lease = Lease::acquire(self.store()?.root()).context(|| "keep the changes")?;
        lease.pin_everything().context(|| "keep the changes")?;
        let mut stack = container.config.layers.clone();
        stack.push(self.changed_layer(&container)?.diff_id());
        self.with_view(&stack, "export", |root| {
            super::export::write_records(root, output)
        })
    }

    /// The container's changes as a layer of the store. The caller holds a lease.
    fn changed_layer(&self, container: &Container) -> Result<Layer, Error> {
        let store = self.store()?;
        let what = || "copy the changes";
        // It is swept as that of a dead process when this one is killed.
        let scratch = store
            .layers
            .scratch("commit")
            .context(|| "make room for the changes")?;
        let folder = scratch.path().join("changes");
        std::fs::create_dir(&folder).context(|| "make room for the changes")?;
        let mut capture = Capture::default();
        match store.snapshots.active(container.config.id.as_str()) {
            // A container that never ran has changed nothing.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            active => {
                let active = active.context(what)?;
                let ids = self.ids_on_disk(container);
                let changes = active.changes().context(what)?;
                if let Some(written) = active.written() {
                    let mut copy = Copy {
                        from: Root::open(written).context(what)?,
                        to: Root::open(&folder).context(what)?,
                        links: HashMap::new(),
                        mounted: mounted_paths(container),
                        only: changes.as_ref().map(|changes| &changes.written),
                        ids: ids.as_ref(),
                    };
                    copy.folder(Path::new(""), 0).context(what)?;
                }
                let gone = changes.map(|changes| changes.gone).unwrap_or_default();
                // What a mount of the run lies over is no change, nor is what it hides.
                let kept = |path: &Vec<u8>| {
                    let parent = folder.join(path_of(path));
                    parent.parent().is_some_and(Path::is_dir)
                };
                capture.gone = gone.into_iter().filter(kept).collect();
            }
        }
        let layer = store.layers.capture_with(&folder, &capture);
        layer.context(|| "store the changes")
    }

    /// Lets `look` see a stack of layers as one tree.
    pub(crate) fn with_view<T>(
        &self,
        stack: &[DiffId],
        name: &str,
        look: impl FnOnce(&Root) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let snapshots = &self.store()?.snapshots;
        let key = scratch_key(name);
        let view = snapshots
            .view(&key, stack)
            .context(|| "put the layers together")?;
        let outcome = view
            .mount_detached()
            .context(|| "mount the layers")
            .and_then(|mount| look(&Root::from_fd(mount)));
        drop(view);
        snapshots.remove(&key).context(|| "take the layers apart")?;
        outcome
    }
}

/// A key that the sweeper knows as that of this process.
fn scratch_key(name: &str) -> String {
    format!("build-{}-{name}", std::process::id())
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::new(
        <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes),
    ))
}

/// Paths on which the container's run mounted something.
fn mounted_paths(container: &Container) -> Vec<PathBuf> {
    let own = container
        .config
        .mounts
        .iter()
        .map(|mount| PathBuf::from(mount.destination.trim_start_matches('/')));
    MOUNT_POINTS.iter().map(PathBuf::from).chain(own).collect()
}

/// The config of the image, with what the container was started with.
fn run_config(container: &Container, image: RunConfig) -> RunConfig {
    let config = &container.config;
    let entrypoint = image.entrypoint.clone().unwrap_or_default();
    let (entrypoint, command) = match config.command.strip_prefix(entrypoint.as_slice()) {
        Some(rest) => (image.entrypoint.clone(), rest.to_vec()),
        None => (None, config.command.clone()),
    };
    let mut changed = image;
    changed.entrypoint = entrypoint;
    changed.cmd = Some(command);
    changed.env.clone_from(&config.request.env);
    changed.labels.clone_from(&config.labels);
    changed.user.clone_from(&config.user);
    changed.working_dir = config.request.cwd.display().to_string();
    changed.exposed_ports.extend(
        config
            .exposed
            .iter()
            .map(|port| (port.clone(), dhow_oci::Extra::new())),
    );
    changed.healthcheck.clone_from(&config.health);
    changed
}

/// Copies the upper folder of an overlay with all that makes it one: whiteouts, opaque folders, links, attributes.
struct Copy<'a> {
    from: Root,
    to: Root,
    /// Files with more than one name, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
    mounted: Vec<PathBuf>,
    /// Paths of which the rest is no change; without it all is one.
    only: Option<&'a BTreeSet<Vec<u8>>>,
    /// The user namespace whose ids the owners are, as seen from outside.
    ids: Option<&'a Ids>,
}

impl Copy<'_> {
    fn folder(&mut self, path: &Path, depth: usize) -> Result<(), Error> {
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

    fn entry(&mut self, path: &Path, depth: usize) -> Result<(), Error> {
        let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
        if self.only.is_some_and(|only| !only.contains(bytes)) {
            return Ok(());
        }
        let status = self.from.symlink_metadata(path).context(|| "look at it")?;
        if self.mounted.iter().any(|mounted| mounted == path) && self.is_empty(path, &status)? {
            return Ok(());
        }
        let owner = (status.st_uid, status.st_gid);
        let owner = self.ids.map_or(owner, |ids| ids.inside(owner));
        let permissions = status.st_mode & 0o7777;
        let kind = FileType::from_raw_mode(status.st_mode);
        if kind != FileType::Directory && status.st_nlink > 1 {
            let inode = (status.st_dev, status.st_ino);
            if let Some(first) = self.links.get(&inode) {
                return self.to.hard_link(first, path).context(|| "make the link");
            }
            self.links.insert(inode, path.to_owned());
        }
        match kind {
            FileType::Directory => {
                let folder = self
                    .to
                    .create_dir_all(path, 0o700, Some(owner))
                    .context(|| "make the folder")?;
                self.folder(path, depth + 1)?;
                copy_attributes(&self.from.resolve_nofollow(path).context(|| "open it")?, &folder)?;
                restore(&folder, permissions, owner, &status).context(|| "set the folder's mode")
            }
            FileType::RegularFile => {
                let mut source = self.from.open_file(path).context(|| "open it")?;
                let mut target = self
                    .to
                    .create_file(path, 0o600, Some(owner))
                    .context(|| "make the file")?;
                std::io::copy(&mut source, &mut target).context(|| "copy the bytes")?;
                restore_file(&target, permissions, owner, &status).context(|| "set the file's mode")?;
                // After the owner, whose change clears capabilities.
                copy_attributes(&source, &target)
            }
            FileType::Symlink => {
                let target = self.from.read_link(path).context(|| "read the link")?;
                self.to
                    .symlink(&target, path, Some(owner))
                    .context(|| "make the link")
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                let device = (
                    rustix::fs::major(status.st_rdev),
                    rustix::fs::minor(status.st_rdev),
                );
                let kind = FileKind::of_mode(status.st_mode);
                self.to
                    .mknod(path, kind, permissions, device, Some(owner))
                    .context(|| "make the node")
            }
            // A socket is nothing without the program that listens on it.
            _ => Ok(()),
        }
    }

    fn is_empty(&self, path: &Path, status: &Stat) -> Result<bool, Error> {
        Ok(match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile => status.st_size == 0,
            FileType::Directory => self.from.read_dir(path).context(|| "list it")?.is_empty(),
            _ => false,
        })
    }
}

fn copy_attributes(from: &impl AsRawFd, to: &impl AsRawFd) -> Result<(), Error> {
    let to = format!("/proc/self/fd/{}", to.as_raw_fd());
    for (name, value) in attributes(from)? {
        // Of overlayfs' own, only this says something about the content.
        if name.starts_with(OVERLAY) && name != [OVERLAY, b"opaque"].concat() {
            continue;
        }
        rustix::fs::setxattr(&to, name.as_slice(), &value, XattrFlags::empty())
            .map_err(std::io::Error::from)
            .context(|| "set an attribute")?;
    }
    Ok(())
}

/// Name and value of an extended attribute.
type Attribute = (Vec<u8>, Vec<u8>);

/// Beginning of the names of overlayfs' own attributes.
pub(super) const OVERLAY: &[u8] = b"trusted.overlay.";

/// Extended attributes, by way of `/proc/self/fd`, since a folder is open as a path only.
pub(super) fn attributes(of: &impl AsRawFd) -> Result<Vec<Attribute>, Error> {
    let path = format!("/proc/self/fd/{}", of.as_raw_fd());
    // The kernel's own bounds on the list and on a value (xattr(7)).
    let mut names = vec![0_u8; 64 << 10];
    let count = match rustix::fs::listxattr(&path, names.as_mut_slice()) {
        Ok(0) | Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(count) => count,
        Err(errno) => return Err(Error::wrap(std::io::Error::from(errno), "list the attributes")),
    };
    let mut all = Vec::new();
    for name in names[..count]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let mut value = vec![0_u8; 64 << 10];
        let size = rustix::fs::getxattr(&path, name, value.as_mut_slice())
            .map_err(std::io::Error::from)
            .context(|| "read an attribute")?;
        value.truncate(size);
        all.push((name.to_vec(), value));
    }
    all.sort();
    Ok(all)
}
