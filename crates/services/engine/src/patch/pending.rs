//! What is left to be said when a patch is killed once names have moved.
//!
//! It is written down before they do (`ROOT/patching/<process>-<time>`, locked by who does it). Names move all at once or not at all: whether they
//! did is seen by those of the old images. The next patch, and whoever asks what images are at their end, says what is left.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use dhow_lifecycle::Statement;
use dhow_types::{ErrorKind, ImageId};
use rustix::fs::{FlockOperation, fcntl_lock};
use serde::{Deserialize, Serialize};

use crate::container::make_folder;
use crate::{Context as _, Engine, Error};

/// Longest record that is read.
const MOST_WRITTEN: u64 = 64 << 20;
/// What the name of a record begins with that is not whole yet.
const UNSEEN: &str = ".new-";

/// What is to be said of an image whose place another took.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Owed {
    /// It.
    pub(super) old: ImageId,
    /// The names that the old one has once the others moved.
    pub(super) kept: Vec<String>,
    pub(super) statement: Statement,
}

/// The same, written down and locked.
pub(super) struct Pending {
    path: PathBuf,
    _locked: fs::File,
}

impl Pending {
    /// All is said.
    pub(super) fn end(self) {
        // One that stays is found said then.
        drop(fs::remove_file(&self.path));
    }
}

impl Engine {
    fn patching_folder(&self) -> PathBuf {
        self.settings().root.join("patching")
    }

    pub(super) fn write_down_owed(&self, owed: &[Owed]) -> Result<Pending, Error> {
        let folder = self.patching_folder();
        make_folder(&folder)?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("{}-{}", std::process::id(), since.as_nanos());
        let path = folder.join(&name);
        let what = || format!("write {}", path.display());
        let bytes =
            serde_json::to_vec(owed).map_err(|error| Error::because(ErrorKind::Internal, what(), error))?;
        // Whole, on disk and locked before anybody sees it.
        let staged = folder.join(format!("{UNSEEN}{name}"));
        let mut file = fs::File::create_new(&staged).context(what)?;
        file.write_all(&bytes)
            .and_then(|()| file.sync_all())
            .and_then(|()| Ok(fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)?))
            .and_then(|()| fs::rename(&staged, &path))
            .and_then(|()| fs::File::open(&folder)?.sync_all())
            .inspect_err(|_| drop(fs::remove_file(&staged)))
            .context(what)?;
        Ok(Pending { path, _locked: file })
    }

    /// Says what patches that were killed had left to say.
    ///
    /// # Errors
    /// When it cannot be read or said.
    pub fn end_interrupted_patches(&self) -> Result<(), Error> {
        let folder = self.patching_folder();
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries.context(|| format!("list {}", folder.display()))?,
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if !entry.file_name().to_string_lossy().starts_with(UNSEEN) {
                self.end_interrupted_patch(&path)
                    .context(|| format!("end the patch of {}, which was interrupted", path.display()))?;
            }
        }
        Ok(())
    }

    fn end_interrupted_patch(&self, path: &Path) -> Result<(), Error> {
        let Ok(mut file) = fs::File::options().read(true).write(true).open(path) else {
            return Ok(());
        };
        if fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            // Whoever does it is at it still.
            return Ok(());
        }
        // By the same file: to close another one would let go of the lock (fcntl_locking(2)).
        let mut bytes = Vec::new();
        let read = (&mut file).take(MOST_WRITTEN).read_to_end(&mut bytes);
        read.context(|| "read it")?;
        let owed: Vec<Owed> = serde_json::from_slice(&bytes)
            .map_err(|error| Error::because(ErrorKind::DataLoss, "read it", error))
            .map_err(|error| error.with_hint("remove it: all it has is what was to be said of old images"))?;
        for one in owed {
            let moved = one
                .kept
                .iter()
                .any(|name| self.image(name).is_ok_and(|image| image.id == one.old));
            // What somebody said meanwhile is said.
            if moved && self.statement_about(&one.old).is_none() {
                self.write_statement(&one.old, &one.statement)?;
            }
        }
        Pending {
            path: path.to_owned(),
            _locked: file,
        }
        .end();
        Ok(())
    }
}
