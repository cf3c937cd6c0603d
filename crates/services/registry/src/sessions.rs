//! Unfinished uploads: where the bytes of a request go, and how an upload that an earlier process began goes on.
//!
//! A session is locked by the request that feeds it, down to the thread that hashes and writes: a request that is cut
//! off leaves a session that is whole again before the next may touch it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dhow_types::ErrorKind;
use tokio::sync::{OwnedMutexGuard, mpsc};

use crate::digest::{Algorithm, Digest, Hasher};
use crate::route::{Name, UploadId};
use crate::{Context as _, Error};

/// Sessions that were quiet for this long are dropped from memory; their files stay.
const IDLE: Duration = Duration::from_secs(900);
/// Sessions in memory before the idle ones are looked for.
const MANY: usize = 64;
/// Read at once when a file is hashed again.
const BLOCK: usize = 256 << 10;

/// The sessions in memory.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<UploadId, Entry>>);

#[derive(Debug)]
struct Entry {
    session: Arc<tokio::sync::Mutex<Session>>,
    name: Name,
    used: Instant,
}

/// One upload.
#[derive(Debug)]
pub(crate) struct Session {
    file: File,
    hasher: Hasher,
    size: u64,
    /// Published or dropped: the file is no upload any more. Whoever waited for the lock must not write to it.
    closed: bool,
}

/// What came of feeding a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fed {
    Whole,
    /// The client went away before the end.
    CutOff,
}

/// What happens to the bytes of a request that is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnCut {
    /// They stay: the client asks how far it came.
    Keep,
    /// They go: a chunk is there or it is not.
    Undo,
}

pub(crate) type Guard = OwnedMutexGuard<Session>;

impl Sessions {
    /// The session, if it is in memory and belongs to this repository.
    pub(crate) fn find(&self, name: &Name, id: &UploadId) -> Option<Arc<tokio::sync::Mutex<Session>>> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = sessions.get_mut(id).filter(|entry| entry.name == *name)?;
        entry.used = Instant::now();
        Some(Arc::clone(&entry.session))
    }

    /// Takes a session in; one that came first wins.
    pub(crate) fn insert(
        &self,
        name: &Name,
        id: &UploadId,
        session: Session,
    ) -> Arc<tokio::sync::Mutex<Session>> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= MANY {
            sessions.retain(|_, entry| entry.used.elapsed() < IDLE || Arc::strong_count(&entry.session) > 1);
        }
        let entry = sessions.entry(id.clone()).or_insert_with(|| Entry {
            session: Arc::new(tokio::sync::Mutex::new(session)),
            name: name.clone(),
            used: Instant::now(),
        });
        Arc::clone(&entry.session)
    }

    pub(crate) fn remove(&self, id: &UploadId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

impl Session {
    pub(crate) fn new(file: File, algorithm: Algorithm) -> Self {
        Self {
            file,
            hasher: Hasher::new(algorithm),
            size: 0,
            closed: false,
        }
    }

    /// Goes on with a file that has bytes already; reads it once.
    pub(crate) fn resume(mut file: File) -> Result<Self, Error> {
        let (hasher, size) = hash(&mut file, Algorithm::Sha256)?;
        Ok(Self {
            file,
            hasher,
            size,
            closed: false,
        })
    }

    /// Whether the upload can go on.
    pub(crate) const fn is_open(&self) -> bool {
        !self.closed
    }

    /// Ends the upload for everybody who waits for it.
    pub(crate) const fn close(&mut self) {
        self.closed = true;
    }

    /// Whether the file is still where uploads are: it may have been published between being opened and being locked.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let inode = |metadata: io::Result<std::fs::Metadata>| metadata.ok().map(|m| (m.dev(), m.ino()));
        let ours = inode(self.file.metadata());
        ours.is_some() && ours == inode(std::fs::symlink_metadata(path))
    }

    /// Bytes that are there.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// Writes and hashes what comes from `pieces` until `None`, which marks the end.
    pub(crate) fn feed(
        &mut self,
        pieces: &mut mpsc::Receiver<Option<Bytes>>,
        on_cut: OnCut,
    ) -> Result<Fed, Error> {
        let before = (self.size, (on_cut == OnCut::Undo).then(|| self.hasher.clone()));
        loop {
            match pieces.blocking_recv() {
                Some(Some(bytes)) => {
                    if let Err(error) = self.file.write_all(&bytes) {
                        self.cut(self.size)?;
                        return Err(Error::wrap(error, "write an upload"));
                    }
                    self.hasher.update(&bytes);
                    self.size += bytes.len() as u64;
                }
                Some(None) => return Ok(Fed::Whole),
                None => {
                    if let (size, Some(hasher)) = before {
                        self.hasher = hasher;
                        self.cut(size)?;
                    }
                    return Ok(Fed::CutOff);
                }
            }
        }
    }

    /// Cuts the file to `size` bytes.
    fn cut(&mut self, size: u64) -> Result<(), Error> {
        self.size = size;
        self.file
            .set_len(size)
            .and_then(|()| self.file.seek(SeekFrom::Start(size)).map(drop))
            .context(|| "cut an upload back to its last good byte")
    }

    /// The digest of all bytes, by the function that `wanted` has.
    pub(crate) fn digest(&mut self, wanted: Algorithm) -> Result<Digest, Error> {
        if self.hasher.algorithm() == wanted {
            return Ok(self.hasher.clone().finish());
        }
        Ok(hash(&mut self.file, wanted)?.0.finish())
    }

    /// Makes the bytes durable and the file read-only.
    pub(crate) fn seal(&self, durable: bool) -> Result<(), Error> {
        use std::os::unix::fs::PermissionsExt as _;
        let doing = || "flush an upload";
        self.file
            .set_permissions(std::fs::Permissions::from_mode(0o444))
            .context(doing)?;
        if durable {
            self.file.sync_data().context(doing)
        } else {
            Ok(())
        }
    }
}

fn hash(file: &mut File, algorithm: Algorithm) -> Result<(Hasher, u64), Error> {
    let doing = || "read an upload again";
    let mut hasher = Hasher::new(algorithm);
    let (mut size, mut block) = (0, vec![0; BLOCK]);
    file.seek(SeekFrom::Start(0)).context(doing)?;
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok((hasher, size)),
            Ok(read) => {
                hasher.update(&block[..read]);
                size += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::wrap(error, doing())),
        }
    }
}

/// Runs work on a session on a thread that may wait for the disk; gives the session back.
pub(crate) async fn on_disk<T: Send + 'static>(
    mut session: Guard,
    work: impl FnOnce(&mut Session) -> Result<T, Error> + Send + 'static,
) -> Result<(Guard, T), Error> {
    let outcome = tokio::task::spawn_blocking(move || {
        let value = work(&mut session)?;
        Ok((session, value))
    });
    outcome
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "an upload broke")))
}
