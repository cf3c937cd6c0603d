//! Plain copies: what a stack shows, as one directory of its own, for hosts and file systems without overlayfs.
//!
//! ```text
//! ROOT/snapshots/<key>/tree    the copy; takes the changes
//!                     /view    the same of a view: files are further names of those in the layers, mounted read-only
//!                     /stamps  by which most files are known as they were, unread (see `stamps`)
//!                     /copied  `durable`, or the boot in which the copy was made while the disk may lack some of it
//! ```
//! What was changed is found by comparison with the indexes of the layers (see `changes`).

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dhow_layer::{EntryKind, Layer, LayerStore};
use dhow_rootpath::Root;
use rustix::fs::{AtFlags, Mode, linkat, mkdirat};
use rustix::io::Errno;

use crate::changes;
use crate::look::Look;
use crate::merged::{Identity, Merged, Named};
use crate::patch::{inside, parent_of};
use crate::{Context, Error, make_dir};

const TREE: &str = "tree";
const VIEW: &str = "view";
const COPIED: &str = "copied";
const DURABLE: &str = "durable";

/// Makes the copy of a snapshot: beside the layers in the making, where ext4 has room for new files (see `make_tmp` of the
/// layer store), and from there to its place.
pub(crate) fn make(store: &LayerStore, dir: &Path, layers: &[Layer], writable: bool) -> Result<(), Error> {
    let scratch = store.scratch("copy").context(|| "make a snapshot")?;
    let tree = scratch.path().join(TREE);
    make_dir(&tree, 0o755)?;
    let merged = Merged::load(layers)?;
    let mut copier = Copier {
        to: Root::open(&tree).context(|| "open a snapshot")?,
        linked: !writable,
        here: None,
        made: HashMap::new(),
    };
    let mut directories = Vec::new();
    for (path, named) in merged.names() {
        let what = || format!("copy {}", String::from_utf8_lossy(path));
        if named.entry.kind == EntryKind::Directory {
            copier.directory(path).context(what)?;
            directories.push((path, named));
        } else {
            copier.file(path, &named).context(what)?;
        }
    }
    // Once all is in them; deepest first, since one may be closed to its owner.
    for (path, named) in directories.into_iter().rev() {
        copier
            .finish(path, &named)
            .context(|| format!("dress {}", String::from_utf8_lossy(path)))?;
    }
    changes::stamp(dir, &copier.to)?;
    let place = dir.join(if writable { TREE } else { VIEW });
    std::fs::rename(&tree, &place).context(|| format!("move a copy to {}", place.display()))?;
    let boot = dhow_layer::boot_id().context(|| "make a snapshot")?;
    let mark = dir.join(COPIED);
    std::fs::write(&mark, boot).context(|| format!("write {}", mark.display()))
}

/// The copy in the folder of a snapshot, and whether it takes changes.
pub(crate) fn existing(dir: &Path) -> Option<(PathBuf, bool)> {
    [(TREE, true), (VIEW, false)]
        .into_iter()
        .find_map(|(name, writable)| {
            let tree = dir.join(name);
            tree.exists().then_some((tree, writable))
        })
}

/// Whether a copy may lack content: a power cut came before it was on the disk. Nothing was made of it then.
pub(crate) fn is_lost(dir: &Path) -> bool {
    existing(dir).is_some() && {
        let mark = std::fs::read_to_string(dir.join(COPIED)).unwrap_or_default();
        mark != DURABLE && !dhow_layer::boot_id().is_ok_and(|boot| boot == mark)
    }
}

/// Brings the copy to the disk before anything is made of it. Once in its life.
pub(crate) fn sync(dir: &Path) -> Result<(), Error> {
    let (mark, next) = (dir.join(COPIED), dir.join("copied.next"));
    let what = || format!("sync {}", dir.display());
    if std::fs::read_to_string(&mark).is_ok_and(|mark| mark == DURABLE) {
        return Ok(());
    }
    let folder = std::fs::File::open(dir).context(what)?;
    rustix::fs::syncfs(&folder)
        .map_err(io::Error::from)
        .context(what)?;
    std::fs::write(&next, DURABLE)
        .and_then(|()| std::fs::File::open(&next)?.sync_data())
        .and_then(|()| std::fs::rename(&next, &mark))
        .context(what)
}

struct Copier<'a> {
    to: Root,
    /// Whether files may be further names of those in the layers: never where somebody may write to them.
    linked: bool,
    /// The directory of the last name.
    here: Option<(Vec<u8>, OwnedFd)>,
    /// Files that have other names, or may, by what they are: their first name.
    made: HashMap<Identity, &'a [u8]>,
}

impl<'a> Copier<'a> {
    fn parent(&mut self, path: &[u8]) -> Result<OwnedFd, Error> {
        let dir = parent_of(path);
        let here = match self.here.take().filter(|(here, _)| here == dir) {
            Some(here) => here,
            None => {
                let (fd, _) = self.to.parent_of(inside(path)).context(|| "find its place")?;
                (dir.to_vec(), fd)
            }
        };
        let fd = here.1.try_clone().context(|| "duplicate a directory handle")?;
        self.here = Some(here);
        Ok(fd)
    }

    fn directory(&mut self, path: &[u8]) -> Result<(), Error> {
        let parent = self.parent(path)?;
        mkdirat(&parent, name_of(path), Mode::RWXU)
            .map_err(io::Error::from)
            .context(|| "make the directory")
    }

    fn file(&mut self, path: &'a [u8], named: &Named<'_>) -> Result<(), Error> {
        let (Some(layer), Some(identity)) = (named.root()?, named.identity()) else {
            return Ok(());
        };
        let parent = self.parent(path)?;
        let name = name_of(path);
        let call = |done: Result<(), Errno>| done.map_err(io::Error::from).context(|| "link it");
        if let Some(first) = self.made.get(&identity) {
            let (dir, first) = self.to.parent_of(inside(first)).context(|| "link it")?;
            return call(linkat(&dir, &first, &parent, name, AtFlags::empty()));
        }
        let own = &named.entry.path;
        if self.linked {
            let (dir, there) = layer.parent_of(inside(own)).context(|| "link it")?;
            match linkat(&dir, &there, &parent, name, AtFlags::empty()) {
                // From an image, beyond the number of links, or where the kernel protects files of others: a copy.
                Err(Errno::XDEV | Errno::MLINK | Errno::PERM) => {}
                // A device that could not be made when the layer was unpacked.
                Err(Errno::NOENT) if !dhow_layer::privileged() => return Ok(()),
                other => return call(other),
            }
        }
        let Some(look) = Look::of_stored(named.file(), layer, own)? else {
            return Ok(());
        };
        look.copy(layer, own, (&parent, name))?;
        self.made.insert(identity, path);
        Ok(())
    }

    fn finish(&self, path: &[u8], named: &Named<'_>) -> Result<(), Error> {
        let made = self.to.resolve_nofollow(inside(path)).context(|| "open it")?;
        let stored = match named.root()? {
            Some(layer) => Look::of_stored(&named.entry, layer, &named.entry.path)?,
            None => None,
        };
        let look = stored.unwrap_or_else(|| Look::of(&named.entry));
        look.wear_dir(&made)
            .map_err(io::Error::from)
            .context(|| "dress it")
    }
}

fn name_of(path: &[u8]) -> &std::ffi::OsStr {
    let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    std::ffi::OsStr::from_bytes(&path[at..])
}
