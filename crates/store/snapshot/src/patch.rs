//! What a layer cannot know without the layers below it.
//!
//! A layer is unpacked by itself. When its tar names `tmp/x` but not `tmp/`, the directory is *implied*: docker, which
//! unpacks over the layers below, leaves the `tmp` that is there alone, whatever its mode and owner. Here the implied
//! one would hide it (a `/tmp` of mode 0755: containerd#13030 and its kin). So, where a layer below says something
//! about an implied directory, a patch directory just above the layer holds that directory once more with the right
//! owner, mode and attributes; overlayfs takes them from the topmost.
//!
//! Where the layer below has a symbolic link at that place (`lib -> usr/lib`), docker follows it. The patch then holds
//! the link again, and, where it leads, hard links to what the layer has below the implied directory.
//!
//! Overlayfs hides the mark of a whiteout in a directory that comes of several layers. In one of a single layer it lists
//! the name, of which nothing is to be found then (`ovl_iterate` of fs/overlayfs/readdir.c). So, where an implied directory
//! is in no layer below, a patch holds it once more when there are whiteouts in it.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dhow_layer::{Entry, EntryKind, Index, Layer};
use dhow_rootpath::Root;
use rustix::fs::{AtFlags, linkat, utimensat};
use rustix::io::Errno;

use crate::look::{Look, times};
use crate::{Context, Error, make_dir};

/// Links followed from one implied directory.
pub(crate) const MOST_LINKS: u32 = 40;

/// Builds the patches of a stack (lowest first); one place for each layer.
pub(crate) fn build(dir: &Path, layers: &[Layer]) -> Result<Vec<Option<PathBuf>>, Error> {
    let mut patches = vec![None; layers.len()];
    for (at, layer) in layers.iter().enumerate() {
        // The common case ends here, without an index being read.
        if layer.implied() == 0 {
            continue;
        }
        let below = Below::load(&layers[..at])?;
        let path = name(dir, at);
        if one(&path, layer, &below).context(|| format!("fit layer {} to those below", layer.diff_id()))? {
            patches[at] = Some(path);
        }
    }
    Ok(patches)
}

/// The patches that were built before.
pub(crate) fn existing(dir: &Path, layers: &[Layer]) -> Vec<Option<PathBuf>> {
    let patch = |(at, layer): (usize, &Layer)| {
        (layer.implied() > 0)
            .then(|| name(dir, at))
            .filter(|path| path.exists())
    };
    layers.iter().enumerate().map(patch).collect()
}

fn name(dir: &Path, at: usize) -> PathBuf {
    dir.join(format!("patch-{at}"))
}

/// The indexes of the layers below, topmost first.
struct Below(Vec<Index>);

impl Below {
    fn load(layers: &[Layer]) -> Result<Self, Error> {
        let load = |layer: &Layer| layer.index().context(|| "read the index of a lower layer");
        Ok(Self(layers.iter().rev().map(load).collect::<Result<_, _>>()?))
    }

    /// What the layers below say about `path`: the topmost that names it and is not implied itself, unless what that has
    /// is no directory, and so was replaced by an implied one.
    fn find(&self, path: &[u8]) -> Option<Entry> {
        let mut implied = None;
        for index in &self.0 {
            match index.find(path) {
                Some(entry) if entry.kind == EntryKind::Whiteout => break,
                Some(entry) if !entry.implied => {
                    let followed = matches!(entry.kind, EntryKind::Directory | EntryKind::Symlink);
                    return if followed {
                        Some(entry)
                    } else {
                        implied.or(Some(entry))
                    };
                }
                entry => implied = implied.or(entry),
            }
            if hidden_in(index, path) {
                break;
            }
        }
        implied
    }

    /// Whether the directory `path` of the layer above, which has this index, is one with a directory of these.
    fn has_directory(&self, above: &Index, path: &[u8]) -> bool {
        let hides =
            |index: &Index| index.find(path).is_some_and(|entry| entry.opaque) || hidden_in(index, path);
        if hides(above) {
            return false;
        }
        for index in &self.0 {
            match index.find(path) {
                Some(entry) => return entry.kind == EntryKind::Directory,
                None if hidden_in(index, path) => return false,
                None => {}
            }
        }
        false
    }

    /// Where `path` leads in the layers below; nothing when that is no directory, or not to be told.
    fn follow(&self, path: &[u8]) -> Option<Vec<u8>> {
        follow(path, |path| self.find(path))
    }
}

/// Where `path` leads in a tree of which `find` says what is where; nothing when that is no directory, or not to be told.
pub(crate) fn follow(path: &[u8], find: impl Fn(&[u8]) -> Option<Entry>) -> Option<Vec<u8>> {
    let mut todo: Vec<Vec<u8>> = parts(path);
    let mut real: Vec<u8> = Vec::new();
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if part == b".." {
            real.truncate(real.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
            continue;
        }
        let next = join(&real, &part);
        match find(&next) {
            Some(entry) if entry.kind == EntryKind::Symlink => {
                links += 1;
                if links > MOST_LINKS {
                    return None;
                }
                if entry.link.starts_with(b"/") {
                    real.clear();
                }
                todo.extend(parts(&entry.link));
            }
            Some(entry) if entry.kind != EntryKind::Directory => return None,
            _ => real = next,
        }
    }
    Some(real)
}

/// Whether something above `path` in this layer hides what lies lower.
pub(crate) fn hidden_in(index: &Index, path: &[u8]) -> bool {
    let slashes = path
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .map(|(at, _)| at);
    slashes.into_iter().any(|at| {
        index
            .find(&path[..at])
            .is_some_and(|entry| entry.opaque || entry.kind != EntryKind::Directory)
    })
}

pub(crate) fn parent_of(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    &path[..slash.unwrap_or(0)]
}

/// Components, last first.
fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path
        .split(|byte| *byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."));
    parts.rev().map(<[u8]>::to_vec).collect()
}

pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        name.to_vec()
    } else {
        [dir, b"/", name].concat()
    }
}

pub(crate) fn inside(path: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path))
}

/// Builds the patch of one layer; whether there was anything to patch.
fn one(path: &Path, layer: &Layer, below: &Below) -> Result<bool, Error> {
    let index = layer.index().context(|| "read its index")?;
    let mut patch = Patch {
        path,
        layer,
        index: &index,
        below,
        root: None,
        made: Vec::new(),
    };
    // Below a link that was followed, all is done already.
    let mut done: Vec<Vec<u8>> = Vec::new();
    for entry in index
        .entries()
        .filter(|entry| entry.implied && !entry.path.is_empty())
    {
        // What this layer hides itself says nothing about it.
        if done.iter().any(|done| entry.path.starts_with(done)) || hidden_in(&index, &entry.path) {
            continue;
        }
        match below.find(&entry.path) {
            Some(lower) if lower.kind == EntryKind::Directory && !is_plain(&lower) => {
                patch.directory(&entry.path, &lower)?;
            }
            Some(lower) if lower.kind == EntryKind::Symlink => {
                if let Some(target) = below.follow(&entry.path) {
                    patch.link(&lower)?;
                    patch.moved(&entry.path, &target)?;
                    done.push([entry.path.as_slice(), b"/"].concat());
                }
            }
            _ => (),
        }
    }
    for entry in index.entries().filter(|entry| entry.kind == EntryKind::Whiteout) {
        let parent = parent_of(&entry.path);
        let moved = done.iter().any(|done| entry.path.starts_with(done));
        if !(parent.is_empty() || moved || below.has_directory(&index, parent)) {
            patch.once_more(parent)?;
        }
    }
    patch.set_times()?;
    Ok(patch.root.is_some())
}

/// Whether a directory looks as an implied one does.
fn is_plain(dir: &Entry) -> bool {
    (dir.mode, dir.uid, dir.gid) == (0o755, 0, 0) && dir.xattrs.is_empty()
}

/// A patch directory; made with the first thing that goes into it.
struct Patch<'a> {
    path: &'a Path,
    layer: &'a Layer,
    index: &'a Index,
    below: &'a Below,
    root: Option<Root>,
    /// Directories that were made, with their times: what is made in them later changes those.
    made: Vec<(Vec<u8>, i64)>,
}

impl Patch<'_> {
    fn root(&mut self) -> Result<&Root, Error> {
        let root = match self.root.take() {
            Some(root) => root,
            None => {
                make_dir(self.path, 0o755)?;
                Root::open(self.path).context(|| "open a patch")?
            }
        };
        Ok(self.root.insert(root))
    }

    /// A directory with the owner, mode, attributes and time of `like`.
    fn directory(&mut self, path: &[u8], like: &Entry) -> Result<(), Error> {
        self.parents(path)?;
        let made = self
            .root()?
            .create_dir_all(inside(path), 0o755, None)
            .context(|| "make a directory")?;
        let what = || format!("dress {}", String::from_utf8_lossy(path));
        self.made.push((path.to_vec(), like.mtime));
        Look::of(like)
            .given()
            .wear_dir(&made)
            .map_err(io::Error::from)
            .context(what)
    }

    /// A directory that the layer has, as it is there.
    fn once_more(&mut self, path: &[u8]) -> Result<(), Error> {
        if self
            .root()?
            .exists(inside(path))
            .context(|| "look into a patch")?
        {
            return Ok(());
        }
        let own = self.index.find(path);
        let like = own.unwrap_or_else(|| Entry::new(path, EntryKind::Directory, 0o755));
        self.directory(path, &like)
    }

    /// Gives the directories their times once everything is in them.
    fn set_times(&mut self) -> Result<(), Error> {
        for (path, mtime) in std::mem::take(&mut self.made) {
            self.set_time(&path, mtime)?;
        }
        Ok(())
    }

    /// Sets the time of what has this name, also of a link.
    fn set_time(&mut self, path: &[u8], mtime: i64) -> Result<(), Error> {
        let what = || format!("set the time of {}", String::from_utf8_lossy(path));
        let (dir, name) = self.root()?.parent_of(inside(path)).context(what)?;
        let set = utimensat(&dir, name.as_os_str(), &times(mtime), AtFlags::SYMLINK_NOFOLLOW);
        set.map_err(io::Error::from).context(what)
    }

    /// The directories above `path`, as they are without the patch.
    fn parents(&mut self, path: &[u8]) -> Result<(), Error> {
        for at in path
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
            .map(|(at, _)| at)
        {
            let parent = &path[..at];
            if self
                .root()?
                .exists(inside(parent))
                .context(|| "look into a patch")?
            {
                continue;
            }
            let own = self.index.find(parent).filter(|entry| !entry.implied);
            let like = own.or_else(|| self.below.find(parent));
            let like = like.filter(|entry| entry.kind == EntryKind::Directory);
            let like = like.unwrap_or_else(|| Entry::new(parent, EntryKind::Directory, 0o755));
            self.directory(parent, &like)?;
        }
        Ok(())
    }

    /// The symbolic link of a lower layer.
    fn link(&mut self, lower: &Entry) -> Result<(), Error> {
        let owner = dhow_layer::privileged().then_some((lower.uid, lower.gid));
        self.parents(&lower.path)?;
        self.root()?
            .symlink(inside(&lower.link), inside(&lower.path), owner)
            .context(|| "make a symbolic link")?;
        self.set_time(&lower.path, lower.mtime)
    }

    /// What the layer has below `from` appears at `to`.
    fn moved(&mut self, from: &[u8], to: &[u8]) -> Result<(), Error> {
        let source = self.layer.open().context(|| "open a layer")?;
        for entry in self
            .index
            .below(from)
            .into_iter()
            .filter(|entry| entry.path != from)
        {
            let target = join(to, &entry.path[from.len() + 1..]);
            if entry.kind == EntryKind::Whiteout {
                // It is seen where the directory comes of the patch alone. What other patches put below is not in `below`.
                let parent = parent_of(&target);
                if !(parent.is_empty() || self.below.has_directory(self.index, parent)) {
                    continue;
                }
            }
            if entry.kind == EntryKind::Directory {
                let said = entry.implied && !hidden_in(self.index, &target);
                let lower = said.then(|| self.below.find(&target)).flatten();
                let like = lower
                    .filter(|entry| entry.kind == EntryKind::Directory)
                    .unwrap_or(entry);
                self.directory(&target, &like)?;
                continue;
            }
            self.parents(&target)?;
            let (old_dir, old) = source
                .parent_of(inside(&entry.path))
                .context(|| "find a file of a layer")?;
            let (new_dir, new) = self
                .root()?
                .parent_of(inside(&target))
                .context(|| "find a place for a file")?;
            let what = || format!("link {}", String::from_utf8_lossy(&target));
            match linkat(&old_dir, &old, &new_dir, &new, AtFlags::empty()) {
                // From an image nothing can be linked; what lies below a link in a lower layer is little.
                Err(Errno::XDEV) => {
                    let original = match entry.kind {
                        EntryKind::Hardlink => self.index.find(&entry.link),
                        _ => None,
                    };
                    let look = Look::of(original.as_ref().unwrap_or(&entry));
                    look.copy(&source, &entry.path, (&new_dir, &new)).context(what)?;
                }
                // Through two links, or through one that leads to what the layer names as well.
                Err(Errno::EXIST) => {
                    self.root()?.remove_all(inside(&target)).context(what)?;
                    linkat(&old_dir, &old, &new_dir, &new, AtFlags::empty())
                        .map_err(io::Error::from)
                        .context(what)?;
                }
                other => other.map_err(io::Error::from).context(what)?,
            }
        }
        Ok(())
    }
}
