//! Names: a folder with a file for each, that holds the id of whose it is.
//!
//! Whoever takes a name or gives it back holds the folder's lock meanwhile, so that a name which leads to nothing is seen
//! by one, and what a killed process left is told from what another writes at this moment. Reading needs no lock: a name
//! is written beside and comes by rename.

use std::fs;
use std::io::ErrorKind::NotFound;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dhow_types::ContainerId;
use rustix::fs::{FlockOperation, flock};

use crate::container::make_folder;
use crate::{Context as _, Error};

/// All names of one kind below one root.
pub(crate) struct NameFolder {
    folder: PathBuf,
}

impl NameFolder {
    pub(crate) const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The id that a name is written down for. The owner may be gone.
    pub(crate) fn owner(&self, name: &str) -> Option<ContainerId> {
        if name.contains('/') {
            return None;
        }
        fs::read_to_string(self.folder.join(name)).ok()?.parse().ok()
    }

    /// Whether nobody has the name, or had it: one that leads to nothing counts.
    pub(crate) fn is_free(&self, name: &str) -> bool {
        !self.folder.join(name).exists()
    }

    /// Every name that is written down.
    pub(crate) fn all(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| !name.starts_with('.'))
            .collect()
    }

    /// Writes a name down for `id`, unless somebody has it of whom `lives` says that they are there: then they are
    /// returned. A crash between the removal of an owner and that of its name leaves one that leads to nothing.
    pub(crate) fn reserve(
        &self,
        name: &str,
        id: &ContainerId,
        lives: impl Fn(&ContainerId) -> bool,
    ) -> Result<Option<ContainerId>, Error> {
        make_folder(&self.folder)?;
        let _lock = lock_folder(&self.folder)?;
        match self.owner(name) {
            Some(owner) if lives(&owner) => Ok(Some(owner)),
            _ => self.write(name, id).map(|()| None),
        }
    }

    /// No name begins with a dot, and who holds the lock is alone with the file beside.
    fn write(&self, name: &str, id: &ContainerId) -> Result<(), Error> {
        let beside = self.folder.join(".new");
        let written = fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .and_then(|mut file| file.write_all(id.as_str().as_bytes()))
            .and_then(|()| fs::rename(&beside, self.folder.join(name)));
        written.context(|| format!("reserve the name {name:?}"))
    }

    /// Takes a name away that is `id`'s, and leaves one that meanwhile is another's.
    pub(crate) fn release(&self, name: &str, id: &ContainerId) -> Result<(), Error> {
        self.forget(name, |owner| owner == Some(id)).map(drop)
    }

    /// Takes a name away if `gone` says so of its owner; whether it did.
    pub(crate) fn forget(
        &self,
        name: &str,
        gone: impl FnOnce(Option<&ContainerId>) -> bool,
    ) -> Result<bool, Error> {
        if self.is_free(name) {
            return Ok(false);
        }
        let _lock = lock_folder(&self.folder)?;
        if !gone(self.owner(name).as_ref()) {
            return Ok(false);
        }
        match fs::remove_file(self.folder.join(name)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == NotFound => Ok(false),
            Err(error) => Err(Error::wrap(error, format!("release the name {name:?}"))),
        }
    }
}

/// Waits for the lock of a folder that is there, and takes it.
pub(crate) fn lock_folder(folder: &Path) -> Result<OwnedFd, Error> {
    let what = || format!("lock {}", folder.display());
    let file = OwnedFd::from(fs::File::open(folder).context(what)?);
    loop {
        match flock(&file, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::wrap(std::io::Error::from(errno), what())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const MANY: u8 = 8;

    fn id(number: u8) -> ContainerId {
        ContainerId::from_random([number; 32])
    }

    fn names() -> (tempfile::TempDir, NameFolder) {
        let root = tempfile::tempdir().unwrap();
        let names = NameFolder::new(root.path().join("names"));
        (root, names)
    }

    /// So many at once; how many of them won.
    fn winners(take: impl Fn(&ContainerId) -> bool + Sync) -> usize {
        let (start, won) = (Barrier::new(MANY.into()), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for number in 0..MANY {
                let (start, won, take) = (&start, &won, &take);
                scope.spawn(move || {
                    start.wait();
                    won.fetch_add(usize::from(take(&id(number))), Ordering::Relaxed);
                });
            }
        });
        won.into_inner()
    }

    #[test]
    fn of_many_one_takes_a_name_also_when_it_leads_to_nothing() {
        let (_root, names) = names();
        let gone = id(200);
        for round in 0..200 {
            let name = format!("only{round}");
            match round % 3 {
                0 => {}
                1 => assert_eq!(names.reserve(&name, &gone, |_| true).unwrap(), None),
                _ => fs::write(names.folder.join(&name), "").unwrap(),
            }
            let won = winners(|id| {
                let owner = names.reserve(&name, id, |owner| *owner != gone).unwrap();
                assert_ne!(owner.as_ref(), Some(&gone));
                owner.is_none()
            });
            assert_eq!(won, 1, "round {round}");
        }
        assert_eq!(names.all().len(), 200, "nothing is left beside");
    }

    #[test]
    fn who_took_a_name_that_led_to_nothing_keeps_it() {
        let (_root, names) = names();
        let (old, new) = (id(1), id(2));
        assert_eq!(names.reserve("sea", &old, |_| true).unwrap(), None);
        // The old one's folder is gone, its name not yet.
        assert_eq!(names.reserve("sea", &new, |_| false).unwrap(), None);
        names.release("sea", &old).unwrap();
        assert_eq!(names.owner("sea"), Some(new.clone()));
        names.release("sea", &new).unwrap();
        assert!(names.is_free("sea"));
        names.release("sea", &new).unwrap();
    }
}
