//! Blob files: `blobs/<algorithm>/<first two hex>/<hex>`, complete and never changed; `uploads/<id>.<repository>`,
//! growing; `trash/`, waiting to be unlinked.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use dhow_types::ErrorKind;

use crate::digest::{Algorithm, Digest};
use crate::route::{Name, UploadId};
use crate::{Context as _, Error};

/// Uploads that nobody continued for this long are forgotten.
pub(crate) const UPLOAD_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The directory tree of a registry.
#[derive(Debug)]
pub(crate) struct Files {
    root: PathBuf,
    /// Held for as long as the registry is open.
    _lock: File,
    trashed: AtomicU64,
}

impl Files {
    /// Opens the tree, making what is missing. One process at a time.
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        for directory in ["", "blobs", "uploads", "trash"] {
            make_directory(&root.join(directory))?;
        }
        let path = root.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .context(|| format!("open {}", path.display()))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let message = format!("another process serves the registry at {}", root.display());
                return Err(Error::new(ErrorKind::FailedPrecondition, message));
            }
            Err(error) => {
                return Err(Error::wrap(
                    io::Error::from(error),
                    format!("lock {}", path.display()),
                ));
            }
        }
        let files = Self {
            root: root.to_owned(),
            _lock: lock,
            trashed: AtomicU64::new(0),
        };
        files.sweep()?;
        Ok(files)
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("registry.db")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root
            .join("blobs")
            .join(digest.algorithm().name())
            .join(&hex[..2])
            .join(hex)
    }

    /// The file of an upload. Its name binds it to the repository that it was opened for: the same id asked for under
    /// another name leads nowhere.
    pub(crate) fn upload(&self, name: &Name, id: &UploadId) -> PathBuf {
        let bound = Digest::of(Algorithm::Sha256, name.as_str().as_bytes());
        self.root
            .join("uploads")
            .join(format!("{}.{}", id.as_str(), &bound.hex()[..32]))
    }

    /// Makes an upload's file.
    pub(crate) fn create_upload(&self, name: &Name, id: &UploadId) -> Result<File, Error> {
        let path = self.upload(name, id);
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .context(|| format!("create {}", path.display()))
    }

    /// Opens the file of an upload that an earlier process began.
    pub(crate) fn open_upload(&self, name: &Name, id: &UploadId) -> Result<Option<File>, Error> {
        let path = self.upload(name, id);
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::wrap(error, format!("open {}", path.display()))),
        }
    }

    /// How many uploads there are.
    pub(crate) fn uploads(&self) -> Result<usize, Error> {
        let path = self.root.join("uploads");
        let listing = fs::read_dir(&path).context(|| format!("read {}", path.display()))?;
        Ok(listing.count())
    }

    /// Moves a complete, flushed upload to its place among the blobs. Gives the directory, whose entry is not durable
    /// before it is flushed too. A file that is there already has the same bytes and is replaced.
    pub(crate) fn publish(&self, upload: &Path, digest: &Digest) -> Result<PathBuf, Error> {
        let target = self.blob(digest);
        let doing = || format!("publish {}", target.display());
        let directory = target.parent().map(Path::to_owned).unwrap_or_default();
        if let Err(error) = fs::rename(upload, &target) {
            if error.kind() != io::ErrorKind::NotFound || directory.is_dir() {
                return Err(Error::wrap(error, doing()));
            }
            let parent = directory.parent().map(Path::to_owned).unwrap_or_default();
            make_directory(&parent)?;
            make_directory(&directory)?;
            flush(&parent)?;
            if let Some(grandparent) = parent.parent() {
                flush(grandparent)?;
            }
            fs::rename(upload, &target).context(doing)?;
        }
        Ok(directory)
    }

    /// Takes a blob out of the way; it is unlinked later.
    pub(crate) fn trash(&self, digest: &Digest) -> Result<(), Error> {
        let number = self.trashed.fetch_add(1, Ordering::Relaxed);
        let target = self
            .root
            .join("trash")
            .join(format!("{}-{number}", std::process::id()));
        let path = self.blob(digest);
        match fs::rename(&path, &target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome.context(|| format!("move {} to the trash", path.display())),
        }
    }

    /// Unlinks what is in the trash.
    pub(crate) fn empty_trash(&self) -> Result<(), Error> {
        remove_where(&self.root.join("trash"), |_| true)
    }

    /// Drops uploads that nobody continues, and the trash.
    pub(crate) fn sweep(&self) -> Result<(), Error> {
        let limit = SystemTime::now() - UPLOAD_LIFETIME;
        remove_where(&self.root.join("uploads"), |metadata| {
            metadata.modified().is_ok_and(|modified| modified < limit)
        })?;
        self.empty_trash()
    }
}

fn remove_where(directory: &Path, doomed: impl Fn(&fs::Metadata) -> bool) -> Result<(), Error> {
    let doing = || format!("clean {}", directory.display());
    for entry in fs::read_dir(directory).context(doing)? {
        let entry = entry.context(doing)?;
        let outcome = entry.metadata().and_then(|metadata| {
            if doomed(&metadata) {
                fs::remove_file(entry.path())
            } else {
                Ok(())
            }
        });
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => outcome.context(|| format!("remove {}", entry.path().display()))?,
        }
    }
    Ok(())
}

fn make_directory(path: &Path) -> Result<(), Error> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path).context(|| format!("create {}", path.display()))
        }
        Err(error) => Err(Error::wrap(error, format!("create {}", path.display()))),
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .context(|| format!("set the mode of {}", path.display())),
    }
}

/// Makes a directory's entries durable.
pub(crate) fn flush(directory: &Path) -> Result<(), Error> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .context(|| format!("flush {}", directory.display()))
}
