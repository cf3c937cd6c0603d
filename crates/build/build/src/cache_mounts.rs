//! The contents of `RUN --mount=type=cache`: what there is, and its removal.
//!
//! `ROOT/cache/mounts/<hash>/` belongs to one id in one namespace, which the file `id` names. It has the directories `data`,
//! `data-1`, ... and a lock beside each, held by the steps that have it mounted. Who holds the lock alone may take the
//! directory away; lock and folder stay, since somebody may be waiting for them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use dhow_rootpath::{FileKind, Root};
use dhow_types::ErrorKind;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::failure::{Context as _, Error};
use crate::keys::KeyWriter;

/// What names a cache mount to people.
pub(crate) const ID: &str = "id";

/// Tells names apart that threads of one process make.
static SERIAL: AtomicU32 = AtomicU32::new(0);
/// Deepest directory that is measured.
const MAX_DEPTH: usize = 256;
/// Longest name file.
const MAX_ID: u64 = 16 << 10;

/// The name of a cache mount.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MountName {
    /// `id=`, or the target.
    pub id: String,
    /// `BUILDKIT_CACHE_MOUNT_NS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
    /// `from=` and `source=` of a cache that begins with other files: with others it is another cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<(Option<String>, Option<String>)>,
    /// `mode=`, `uid=` and `gid=` when one of them is given: with other ones it is another cache, as for BuildKit, or the
    /// first command would decide who can write to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dress: Option<(u32, u32, u32)>,
}

impl MountName {
    /// Its directory in a store.
    pub(crate) fn folder(&self, root: &Path) -> PathBuf {
        let mut key = KeyWriter::new("cache mount");
        key.option(self.space.as_deref()).text(&self.id);
        if let Some((from, source)) = &self.seed {
            key.option(from.as_deref()).option(source.as_deref());
        }
        if let Some((mode, uid, gid)) = self.dress {
            key.text("dress");
            for number in [mode, uid, gid] {
                key.number(u64::from(number));
            }
        }
        all(root).join(key.finish().hex())
    }

    /// Writes down whose directory it is; once is enough.
    pub(crate) fn write_down(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(ID);
        if path.exists() {
            return Ok(());
        }
        let what = || format!("write {}", path.display());
        let text =
            serde_json::to_vec(self).map_err(|error| Error::because(ErrorKind::Internal, what(), error))?;
        // Two steps of one build may do it at once.
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let staged = folder.join(format!(".{ID}-{}-{serial}", std::process::id()));
        fs::write(&staged, text).context(what)?;
        fs::rename(&staged, &path).context(what)
    }
}

/// One directory of a cache mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMount {
    /// Whose; unknown for one of an older version.
    pub name: Option<MountName>,
    /// Its directory.
    pub path: PathBuf,
    /// Bytes of disk in it.
    pub bytes: u64,
    /// When it was last mounted, seconds since 1970.
    pub used: i64,
    /// When it was made, seconds since 1970.
    pub created: i64,
    /// Whether a step has it now.
    pub in_use: bool,
}

/// All cache mounts of the store at `root`, by path.
///
/// # Errors
/// Failures of the file system.
pub fn cache_mounts(root: &Path) -> Result<Vec<CacheMount>, Error> {
    let mut found = Vec::new();
    for folder in children(&all(root))? {
        let name = fs::File::open(folder.join(ID)).ok().and_then(|file| {
            let file = std::io::Read::take(file, MAX_ID);
            serde_json::from_reader(file).ok()
        });
        for path in children(&folder)? {
            let is_data = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("data"));
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            if !is_data || !metadata.is_dir() {
                continue;
            }
            let lock = lock_of(&path);
            let seconds = |time: std::io::Result<SystemTime>| {
                let since = time.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
            };
            let mounted = fs::metadata(&lock).and_then(|lock| lock.modified());
            found.push(CacheMount {
                name: name.clone(),
                bytes: measure(&path)?,
                used: seconds(mounted).max(seconds(metadata.modified())),
                created: seconds(metadata.created()),
                in_use: alone(&lock).is_none(),
                path,
            });
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// The directory of a cache mount, held so that no step has it alone.
#[derive(Debug)]
pub struct MountData {
    path: PathBuf,
    _lock: File,
}

impl MountData {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The directory of a cache mount, if there is one.
///
/// # Errors
/// When it cannot be locked.
pub fn data_of(root: &Path, name: &MountName) -> Result<Option<MountData>, Error> {
    let path = name.folder(root).join("data");
    if !path.is_dir() {
        return Ok(None);
    }
    let what = || format!("lock {}", path.display());
    let lock = File::options()
        .create(true)
        .append(true)
        .open(lock_of(&path))
        .context(what)?;
    flock(&lock, FlockOperation::LockShared)
        .map_err(std::io::Error::from)
        .context(what)?;
    Ok(Some(MountData { path, _lock: lock }))
}

impl CacheMount {
    /// Empties it, unless a step has it; whether it was emptied.
    ///
    /// # Errors
    /// Failures of the file system.
    pub fn remove(&self, root: &Path) -> Result<bool, Error> {
        remove(root, &self.path)
    }
}

/// Empties all directories of the cache mount in `folder` that no step has.
pub(crate) fn renew(root: &Path, folder: &Path) -> Result<(), Error> {
    for path in children(folder)? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        if path.is_dir() && name.is_some_and(|name| name.starts_with("data")) {
            remove(root, &path)?;
        }
    }
    Ok(())
}

fn remove(root: &Path, data: &Path) -> Result<bool, Error> {
    let Some(_lock) = alone(&lock_of(data)) else {
        return Ok(false);
    };
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let trash = root.join("trash");
    let name = format!("cache-mount-{}-{serial}", std::process::id());
    let what = || format!("remove {}", data.display());
    match fs::rename(data, trash.join(&name)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        other => other.context(what)?,
    }
    let trash = Root::open(&trash).context(what)?;
    trash.remove_all_at_once(Path::new(&name)).context(what)?;
    Ok(true)
}

fn all(root: &Path) -> PathBuf {
    root.join("cache/mounts")
}

fn lock_of(data: &Path) -> PathBuf {
    let mut lock = data.as_os_str().to_owned();
    lock.push(".lock");
    lock.into()
}

/// The lock, when nobody has the directory.
fn alone(lock: &Path) -> Option<File> {
    let file = File::options().create(true).append(true).open(lock).ok()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

fn children(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let what = || format!("list {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context(what)?,
    };
    entries.map(|entry| Ok(entry.context(what)?.path())).collect()
}

/// Bytes of disk below a directory, each file counted once.
fn measure(folder: &Path) -> Result<u64, Error> {
    let what = || format!("measure {}", folder.display());
    let root = Root::open(folder).context(what)?;
    let mut seen = std::collections::HashSet::new();
    let mut todo = vec![(PathBuf::new(), 0)];
    let mut bytes = 0;
    while let Some((path, depth)) = todo.pop() {
        let here = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &path
        };
        // What a step removes meanwhile is not counted.
        let Ok(entries) = root.read_dir(here) else {
            continue;
        };
        for entry in entries {
            let inside = path.join(&entry.name);
            let Ok(stat) = root.symlink_metadata(&inside) else {
                continue;
            };
            if stat.st_nlink > 1
                && !seen.insert((stat.st_dev, stat.st_ino))
                && entry.kind != FileKind::Directory
            {
                continue;
            }
            bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
            if entry.kind == FileKind::Directory && depth < MAX_DEPTH {
                todo.push((inside, depth + 1));
            }
        }
    }
    Ok(bytes)
}
