//! Names: a folder with a symbolic link for each, to the id of whose it is: made whole or not at all, by one who finds the
//! name free.
//!
//! A crash between the removal of an owner and that of its name leaves one that leads to nothing. Whoever takes such a name
//! away holds the folder's lock, so that of many that see it one does, and does not take what another has been given since.

use std::fs;
use std::io::ErrorKind::{AlreadyExists, InvalidInput, NotFound};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dhow_types::{ContainerId, ErrorKind};
use rustix::fs::{FlockOperation, flock};

use crate::container::make_folder;
use crate::{Context as _, Error};

/// How long one waits for an owner that is leaving, and when one looks again.
const LEAVING: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(1);

/// What is known of the owner of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    There,
    /// Somebody removes it, and the name at last.
    Leaving,
    /// Nobody will remove the name.
    Gone,
}

/// All names of one kind below one root.
pub(crate) struct NameFolder {
    folder: PathBuf,
}

impl NameFolder {
    pub(crate) const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The id that a name leads to. The owner may be gone.
    pub(crate) fn owner(&self, name: &str) -> Option<ContainerId> {
        self.look(name)?
    }

    /// Nothing when there is no such name; one of nobody leads to no id.
    fn look(&self, name: &str) -> Option<Option<ContainerId>> {
        if name.contains('/') {
            return None;
        }
        let path = self.folder.join(name);
        let text = match fs::read_link(&path) {
            Ok(to) => to.into_os_string().into_string().ok(),
            // A file that has the id in it, as names were once. It may have become a link since.
            Err(error) if error.kind() == InvalidInput => Some(fs::read_to_string(path).ok()?),
            Err(_) => return None,
        };
        Some(text.and_then(|text| text.parse().ok()))
    }

    /// Whether nobody has the name, or had it: one that leads to nothing counts.
    pub(crate) fn is_free(&self, name: &str) -> bool {
        fs::symlink_metadata(self.folder.join(name)).is_err()
    }

    /// Every name that is written down.
    pub(crate) fn all(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// Makes a name lead to `id`, unless somebody has it who is there, as `owner` says: then they are returned.
    pub(crate) fn reserve(
        &self,
        name: &str,
        id: &ContainerId,
        owner: impl Fn(&ContainerId) -> Owner,
    ) -> Result<Option<ContainerId>, Error> {
        make_folder(&self.folder)?;
        let path = self.folder.join(name);
        let begun = Instant::now();
        loop {
            match symlink(id.as_str(), &path) {
                Ok(()) => return Ok(None),
                Err(error) if error.kind() == AlreadyExists => {}
                Err(error) => return Err(Error::wrap(error, format!("reserve the name {name:?}"))),
            }
            let Some(found) = self.look(name) else {
                if begun.elapsed() < LEAVING {
                    continue;
                }
                let message = format!(
                    "the name {name:?} is there and cannot be read: {}",
                    path.display()
                );
                return Err(Error::new(ErrorKind::DataLoss, message).with_hint("remove it"));
            };
            match found.as_ref().map_or(Owner::Gone, &owner) {
                Owner::Leaving if begun.elapsed() < LEAVING => std::thread::sleep(STEP),
                Owner::There | Owner::Leaving => return Ok(found),
                Owner::Gone => {
                    self.forget(name, |still| {
                        still == found.as_ref() && still.map_or(Owner::Gone, &owner) == Owner::Gone
                    })?;
                }
            }
        }
    }

    /// Takes a name away that is `id`'s, and leaves one that is another's. As long as this lasts, nobody may be told that its
    /// owner is gone.
    pub(crate) fn release(&self, name: &str, id: &ContainerId) -> Result<(), Error> {
        if self.owner(name).as_ref() == Some(id) {
            self.remove(name)?;
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<bool, Error> {
        match fs::remove_file(self.folder.join(name)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == NotFound => Ok(false),
            Err(error) => Err(Error::wrap(error, format!("release the name {name:?}"))),
        }
    }

    /// Takes a name away if `gone` says so of its owner, which is nobody when it leads to no id; whether it did.
    pub(crate) fn forget(
        &self,
        name: &str,
        gone: impl FnOnce(Option<&ContainerId>) -> bool,
    ) -> Result<bool, Error> {
        if self.is_free(name) {
            return Ok(false);
        }
        let _lock = lock_folder(&self.folder)?;
        if !self.look(name).is_some_and(|owner| gone(owner.as_ref())) {
            return Ok(false);
        }
        self.remove(name)
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
        let owner = |owner: &ContainerId| if *owner == gone { Owner::Gone } else { Owner::There };
        for round in 0..200 {
            let name = format!("only{round}");
            match round % 4 {
                0 => {}
                1 => assert_eq!(names.reserve(&name, &gone, |_| Owner::There).unwrap(), None),
                2 => fs::write(names.folder.join(&name), gone.as_str()).unwrap(),
                _ => fs::write(names.folder.join(&name), "").unwrap(),
            }
            let won = winners(|id| {
                let found = names.reserve(&name, id, owner).unwrap();
                assert_ne!(found.as_ref(), Some(&gone));
                found.is_none()
            });
            assert_eq!(won, 1, "round {round}");
        }
        assert_eq!(names.all().len(), 200, "nothing is left beside");
    }

    #[test]
    fn a_name_is_given_back_by_whose_it_is_and_had_when_its_owner_has_left() {
        let (_root, names) = names();
        let (old, new) = (id(1), id(2));
        assert_eq!(names.reserve("sea", &old, |_| Owner::There).unwrap(), None);
        names.release("sea", &new).unwrap();
        let found = names.reserve("sea", &new, |_| Owner::There).unwrap();
        assert_eq!(found.as_ref(), Some(&old));
        let begun = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                names.release("sea", &old).unwrap();
            });
            assert_eq!(names.reserve("sea", &new, |_| Owner::Leaving).unwrap(), None);
        });
        assert!(begun.elapsed() >= Duration::from_millis(50));
        assert_eq!(names.owner("sea"), Some(new.clone()));
        assert!(!names.forget("sea", |owner| owner == Some(&old)).unwrap());
        assert!(names.forget("sea", |owner| owner == Some(&new)).unwrap());
        assert!(names.is_free("sea"));
        names.release("sea", &new).unwrap();
    }
}
