use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use dhow_types::{Digest, ErrorKind};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::ingest::Sink;
use crate::{ContentStore, Context, Error, Ingest, VerifiedReader};

/// Blobs as files under a store directory.
#[derive(Clone, Debug)]
pub struct Local {
    blobs: PathBuf,
    tmp: PathBuf,
}

/// Makes names in `tmp` differ within one process.
static SERIAL: AtomicU64 = AtomicU64::new(0);

impl Local {
    /// The blobs under the store directory `root`; missing directories are made.
    ///
    /// # Errors
    /// Failures of the file system.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let store = Self {
            blobs: root.join("blobs/sha256"),
            tmp: root.join("tmp"),
        };
        for dir in [&store.blobs, &store.tmp] {
            make_dirs(dir)?;
        }
        Ok(store)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.blobs.join(&hex[..2]).join(hex)
    }
}

fn make_dirs(dir: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .context(|| format!("make the directory {}", dir.display()))
}

struct Staged {
    file: File,
    /// Taken when the file got its final name.
    path: Option<PathBuf>,
    store: Local,
}

impl Sink for Staged {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn publish(mut self: Box<Self>, digest: &Digest) -> Result<(), Error> {
        let target = self.store.path(digest);
        let Some(staged) = self.path.take() else {
            return Ok(());
        };
        let renamed = match std::fs::rename(&staged, &target) {
            // The first blob of its 256th part of the store.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_dirs(target.parent().unwrap_or(&self.store.blobs))?;
                std::fs::rename(&staged, &target)
            }
            other => other,
        };
        if renamed.is_err() {
            self.path = Some(staged);
        }
        renamed.context(|| format!("store blob {digest}"))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            // What cannot be removed here is swept when this process is gone.
            drop(std::fs::remove_file(path));
        }
    }
}

impl ContentStore for Local {
    fn open(&self, digest: &Digest) -> Result<VerifiedReader, Error> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::new(ErrorKind::NotFound, format!("no blob {digest}")));
            }
            other => other.context(|| format!("open {}", path.display()))?,
        };
        let size = file
            .metadata()
            .context(|| format!("stat {}", path.display()))?
            .len();
        Ok(VerifiedReader::new(Box::new(file), *digest, size))
    }

    fn begin(&self) -> Result<Ingest, Error> {
        loop {
            let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
            let path = self.tmp.join(format!("blob-{}-{serial}", std::process::id()));
            let opened = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            let file = match opened {
                // A process of that number in another pid namespace, or in another boot.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.context(|| format!("create {}", path.display()))?,
            };
            // The sweep of the store takes what nobody holds.
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // A sweep that took it for one of the dead, after this process had stood still: it is lost to that.
                Err(Errno::WOULDBLOCK) => continue,
                other => other
                    .map_err(io::Error::from)
                    .context(|| format!("lock {}", path.display()))?,
            }
            return Ok(Ingest::new(Box::new(Staged {
                file,
                path: Some(path),
                store: self.clone(),
            })));
        }
    }

    fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        match std::fs::metadata(self.path(digest)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::wrap(error, format!("stat blob {digest}"))),
        }
    }

    fn remove(&self, digest: &Digest) -> Result<(), Error> {
        std::fs::remove_file(self.path(digest)).context(|| format!("remove blob {digest}"))
    }

    fn list(&self) -> Result<Vec<Digest>, Error> {
        let mut digests = Vec::new();
        let what = || format!("list {}", self.blobs.display());
        for part in std::fs::read_dir(&self.blobs).context(what)? {
            let part = part.context(what)?.path();
            for blob in std::fs::read_dir(&part).context(what)? {
                let name = blob.context(what)?.file_name();
                if let Some(digest) = name.to_str().and_then(|hex| Digest::from_hex(hex).ok()) {
                    digests.push(digest);
                }
            }
        }
        digests.sort();
        Ok(digests)
    }
}
