//! Hashes of context files, kept from build to build: an unchanged file is stat-ed, not read.
//!
//! The file `ROOT/cache/ctx/<hash of the context's path>` holds a SHA-256 of the rest, then records of fixed size
//! sorted by (device, inode). A file that is torn, foreign or too large counts as empty.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dhow_types::Digest;

use crate::failure::{Context as _, Error};

/// Bytes of one record: device, inode, size, mtime and ctime with nanoseconds, content, attributes.
const RECORD: usize = 8 + 8 + 8 + 12 + 12 + 32 + 32;
/// Begins the hashed part; changes with the format.
const MAGIC: &[u8; 16] = b"dhow ctx cache 1";
/// Most records that are kept.
const MAX_RECORDS: usize = 1 << 20;

/// What tells that a file was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    pub(crate) mtime: (i64, u32),
    pub(crate) ctime: (i64, u32),
}

/// Hashes of a file: content, extended attributes.
pub(crate) type Hashes = (Digest, Digest);

/// The hashes known for one context.
#[derive(Debug)]
pub(crate) struct Digests {
    path: PathBuf,
    /// Records of earlier builds, still packed.
    packed: Vec<u8>,
    added: HashMap<(u64, u64), (Identity, Hashes)>,
    /// When this build began to look at files.
    started: SystemTime,
}

impl Digests {
    /// Opens the cache of the context at `context` in the directory `dir`.
    pub(crate) fn open(dir: &Path, context: &Path) -> Self {
        use std::os::unix::ffi::OsStrExt as _;
        let path = dir.join(Digest::of(context.as_os_str().as_bytes()).hex());
        Self {
            packed: load(&path).unwrap_or_default(),
            path,
            added: HashMap::new(),
            started: SystemTime::now(),
        }
    }

    /// The hashes of a file that is still what it was.
    pub(crate) fn find(&self, wanted: &Identity) -> Option<Hashes> {
        if let Some((identity, hashes)) = self.added.get(&(wanted.device, wanted.inode)) {
            return (identity == wanted).then_some(*hashes);
        }
        let (mut low, mut high) = (0, self.packed.len() / RECORD);
        while low < high {
            let middle = low + (high - low) / 2;
            let (identity, hashes) = unpack(&self.packed[middle * RECORD..][..RECORD])?;
            let order = (identity.device, identity.inode).cmp(&(wanted.device, wanted.inode));
            match order {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return (identity == *wanted).then_some(hashes),
            }
        }
        None
    }

    /// Remembers the hashes of a file, unless it was changed so recently that a change to come could leave its
    /// times as they are ("racily clean", as in git's index).
    pub(crate) fn add(&mut self, identity: Identity, hashes: Hashes) {
        let newest = identity.mtime.max(identity.ctime);
        // A file system that keeps whole seconds only shows none.
        let margin = if identity.mtime.1 == 0 && identity.ctime.1 == 0 {
            Duration::from_secs(2)
        } else {
            Duration::from_millis(50)
        };
        let changed = u64::try_from(newest.0)
            .map(|seconds| UNIX_EPOCH + Duration::new(seconds, newest.1))
            .unwrap_or(UNIX_EPOCH);
        if changed + margin < self.started {
            self.added
                .insert((identity.device, identity.inode), (identity, hashes));
        }
    }

    /// Writes what is new, by rename.
    ///
    /// # Errors
    /// When the cache cannot be written; the build does not need it.
    pub(crate) fn save(&mut self) -> Result<(), Error> {
        if self.added.is_empty() {
            return Ok(());
        }
        let mut records: Vec<(Identity, Hashes)> = self
            .packed
            .chunks_exact(RECORD)
            .filter_map(unpack)
            .filter(|(identity, _)| !self.added.contains_key(&(identity.device, identity.inode)))
            .collect();
        // What was not seen by this build goes first when there is too much.
        records.truncate(MAX_RECORDS.saturating_sub(self.added.len()));
        records.extend(self.added.values());
        records.truncate(MAX_RECORDS);
        records.sort_unstable_by_key(|(identity, _)| (identity.device, identity.inode));
        let mut body = Vec::with_capacity(MAGIC.len() + records.len() * RECORD);
        body.extend(MAGIC);
        for (identity, hashes) in &records {
            pack(&mut body, identity, hashes);
        }
        self.added.clear();
        store(&self.path, &body)
    }
}

fn load(path: &Path) -> Option<Vec<u8>> {
    let mut file = std::fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let most = (32 + MAGIC.len() + MAX_RECORDS * RECORD) as u64;
    if length > most {
        return None;
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).ok()?);
    (&mut file).take(most).read_to_end(&mut bytes).ok()?;
    let (sum, body) = bytes.split_at_checked(32)?;
    if Digest::of(body).as_bytes() != sum || !body.starts_with(MAGIC) {
        return None;
    }
    bytes.drain(..32 + MAGIC.len());
    (bytes.len() % RECORD == 0).then_some(bytes)
}

fn store(path: &Path, body: &[u8]) -> Result<(), Error> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let dir = path.parent().unwrap_or(path);
    std::fs::create_dir_all(dir).context(|| format!("create {}", dir.display()))?;
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let staged = path.with_extension(format!("{}-{serial}", std::process::id()));
    let written = std::fs::File::create(&staged).and_then(|mut file| {
        file.write_all(Digest::of(body).as_bytes())?;
        file.write_all(body)
    });
    let renamed = written.and_then(|()| std::fs::rename(&staged, path));
    if renamed.is_err() {
        drop(std::fs::remove_file(&staged));
    }
    renamed.context(|| format!("write {}", path.display()))
}

fn pack(out: &mut Vec<u8>, identity: &Identity, hashes: &Hashes) {
    out.extend(identity.device.to_le_bytes());
    out.extend(identity.inode.to_le_bytes());
    out.extend(identity.size.to_le_bytes());
    for (seconds, nanoseconds) in [identity.mtime, identity.ctime] {
        out.extend(seconds.to_le_bytes());
        out.extend(nanoseconds.to_le_bytes());
    }
    out.extend(hashes.0.as_bytes());
    out.extend(hashes.1.as_bytes());
}

fn unpack(record: &[u8]) -> Option<(Identity, Hashes)> {
    let word = |at: usize| record.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let time = |at: usize| {
        let seconds = i64::from_le_bytes(record.get(at..at + 8)?.try_into().ok()?);
        let nanoseconds = u32::from_le_bytes(record.get(at + 8..at + 12)?.try_into().ok()?);
        Some((seconds, nanoseconds))
    };
    let digest = |at: usize| record.get(at..at + 32)?.try_into().ok().map(Digest::from_bytes);
    let identity = Identity {
        device: word(0)?,
        inode: word(8)?,
        size: word(16)?,
        mtime: time(24)?,
        ctime: time(36)?,
    };
    Some((identity, (digest(48)?, digest(80)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(inode: u64, mtime: i64) -> Identity {
        Identity {
            device: 1,
            inode,
            size: 3,
            mtime: (mtime, 5),
            ctime: (mtime, 6),
        }
    }

    #[test]
    fn hashes_survive_and_a_changed_or_fresh_file_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let hashes = (Digest::of(b"a"), Digest::of(b"b"));
        let mut digests = Digests::open(dir.path(), Path::new("/ctx"));
        for inode in [9, 3, 7, 1] {
            digests.add(identity(inode, 100), hashes);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let fresh = identity(4, i64::try_from(now).unwrap() + 1);
        digests.add(fresh, hashes);
        digests.save().unwrap();

        let mut digests = Digests::open(dir.path(), Path::new("/ctx"));
        for inode in [1, 3, 7, 9] {
            assert_eq!(digests.find(&identity(inode, 100)), Some(hashes));
            assert_eq!(digests.find(&identity(inode, 101)), None);
        }
        assert_eq!(digests.find(&identity(2, 100)), None);
        assert_eq!(digests.find(&fresh), None);
        assert_eq!(
            Digests::open(dir.path(), Path::new("/other")).find(&identity(1, 100)),
            None
        );
        digests.add(identity(3, 200), hashes);
        digests.save().unwrap();
        let digests = Digests::open(dir.path(), Path::new("/ctx"));
        assert_eq!(digests.find(&identity(3, 200)), Some(hashes));
        assert_eq!(digests.find(&identity(9, 100)), Some(hashes));
    }

    #[test]
    fn a_damaged_cache_counts_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        let mut digests = Digests::open(dir.path(), Path::new("/ctx"));
        digests.add(identity(1, 100), (Digest::of(b"a"), Digest::of(b"b")));
        digests.save().unwrap();
        let path = digests.path.clone();
        let good = std::fs::read(&path).unwrap();
        for cut in [0, 10, 40, good.len() - 1] {
            std::fs::write(&path, &good[..cut]).unwrap();
            assert_eq!(
                Digests::open(dir.path(), Path::new("/ctx")).find(&identity(1, 100)),
                None
            );
        }
        let mut flipped = good.clone();
        flipped[60] ^= 1;
        std::fs::write(&path, flipped).unwrap();
        assert_eq!(
            Digests::open(dir.path(), Path::new("/ctx")).find(&identity(1, 100)),
            None
        );
    }
}
