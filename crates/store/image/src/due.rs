//! Changes of names: the index first, the files of `refs/` when it is free again.
//!
//! A file gets or loses its name in `refs/` as fast as the disk lets it: a block of the directory that is being written may
//! not be changed meanwhile. Nobody who waits for the index waits for that:
//!
//! 1. With the index locked the name changes in it, and it is written down what the file is to say (`due`).
//! 2. Without it, with the name locked, the file is made to say what is written down *then*. Whoever else changed the name
//!    since has written down something else, and both make the file the same.
//! 3. The index is told that the file is so.
//!
//! Who dies between 1 and 3 has left a line that says so: the next edit does it. After a power cut the files are the truth,
//! since the index may be older than they are. The index keeps the time of `refs/` that it agrees with, and none while
//! something is due.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use dhow_meta::{Deed, Due, Edit, ImageRecord, Owner};
use dhow_reference::Reference;
use dhow_sys::sched::Urgent;
use dhow_types::{Digest, ImageId};

use crate::names::{index_name, parse_name_file, place, read_name_file, unindex_name};
use crate::{Context as _, Error, Store};

/// The fact under which the index keeps the time of `refs/` that it agrees with.
const STAMP: &str = "refs";

/// In its place while something is due.
const UNSETTLED: i64 = i64::MIN;

/// How often a file is made ready anew because another command was faster with its name.
const MOST_TRIES: usize = 4;

/// What the file of a name is to say; nothing when it is to go.
#[derive(Debug, Default)]
pub(crate) struct Wish {
    pub(crate) image: Option<ImageId>,
    pub(crate) by: Option<Digest>,
    /// See [`Due::was`].
    pub(crate) was: Option<ImageId>,
}

/// A file made ready for a name.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    /// Where it is.
    pub(crate) staged: PathBuf,
    /// What it says.
    pub(crate) image: ImageId,
    pub(crate) by: Option<Digest>,
    /// See [`Due::was`].
    pub(crate) was: Option<ImageId>,
    /// What the file of the name said then.
    pub(crate) before: Option<Vec<u8>>,
}

/// One that goes when it has its place, or got none.
struct Staged(Ready);

impl Drop for Staged {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0.staged));
    }
}

/// A name that this thread has locked, which runs before all that are not urgent meanwhile, where it may: set aside for the
/// turns of others it would keep waiting who wants the same name.
struct NameLock {
    // Dropped first: the next one goes on before this thread waits for its own turn again.
    _file: File,
    _urgent: Urgent,
}

/// What stands in the way of a file made ready.
struct Before {
    /// The image that the name is to have.
    image: ImageId,
    /// What its file says.
    said: Option<Vec<u8>>,
}

/// What an edit has to do in `refs/` when it has let the index go.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    deed: Option<Deed>,
    names: Vec<(Reference, Option<Ready>)>,
}

impl Store {
    /// A change of names and records: all of it happens, or nothing. When a file in `refs/` cannot be changed in the end, as
    /// on a full disk, its name is what the file says, and that is an error.
    pub(crate) fn edit<T>(&self, work: impl FnOnce(&Edit<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let mut changes = Changes::default();
        let value = self.meta.edit(|edit| {
            let settled = self.catch_up(edit)?;
            *self.changes() = Changes::default();
            let value = work(edit);
            changes = std::mem::take(&mut *self.changes());
            let value = value?;
            self.note(edit, settled && changes.names.is_empty())?;
            Ok::<_, Error>(value)
        })?;
        self.carry_out(changes)?;
        Ok(value)
    }

    /// What the edit that goes on has to do in `refs/`: there is one at a time, since it has the index.
    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what the file of a name is to say; the edit sees to it when the index is free again.
    pub(crate) fn owe(
        &self,
        edit: &Edit<'_>,
        name: &Reference,
        wish: &Wish,
        ready: Option<Ready>,
    ) -> Result<(), Error> {
        let mut changes = self.changes();
        let deed = match &mut changes.deed {
            Some(deed) => deed,
            none => none.insert(Deed::begin()?),
        };
        edit.put_due(&Due {
            name: name.canonical(),
            image: wish.image,
            by: wish.by,
            was: wish.was,
            owner: deed.name().to_owned(),
        })?;
        changes.names.push((name.clone(), ready));
        Ok(())
    }

    /// Makes the files say what the index has.
    fn carry_out(&self, changes: Changes) -> Result<(), Error> {
        let Some(deed) = changes.deed else {
            return Ok(());
        };
        let mut failed = Vec::new();
        let mut outcome = Ok(());
        for (name, ready) in &changes.names {
            if let Err(error) = self.carry_out_one(&name.canonical(), ready.as_ref()) {
                failed.push(name);
                outcome = outcome.and(Err(error));
            }
        }
        let told = self.meta.edit(|edit| {
            for name in failed {
                let due = edit.due_of(&name.canonical())?;
                if due.is_some_and(|due| due.owner == deed.name()) {
                    self.follow_file(edit, name)?;
                }
            }
            for (name, _) in &changes.names {
                edit.done(&name.canonical(), deed.name())?;
            }
            let settled = edit.due()?.is_empty();
            self.note(edit, settled)
        });
        // When the index cannot be told, as on a full disk, whoever comes next finds that the files are so, and tries once
        // more to write those that could not be written.
        drop(told);
        outcome
    }

    /// What the file is to say is on the disk before the name is locked; when another command was faster with the name,
    /// once more.
    fn carry_out_one(&self, canonical: &str, ready: Option<&Ready>) -> Result<(), Error> {
        let record = |id: &ImageId| Ok(self.meta.image(id)?);
        let mut again: Option<Staged> = None;
        // The file system frees what was the file of the name when this is closed, after the name: that may wait for a disk.
        let _old = File::open(self.name_path(canonical));
        for _ in 0..MOST_TRIES {
            let ready = again.as_ref().map(|staged| &staged.0).or(ready);
            let lock = self.lock_name(canonical)?;
            // Nothing: who changed it later has seen to it.
            let Some(due) = self.meta.due_of(canonical)? else {
                return Ok(());
            };
            let Some(before) = self.write_file(&due, ready)? else {
                return Ok(());
            };
            drop(lock);
            again = Some(self.make_ready(&due, before, record)?);
        }
        let _lock = self.lock_name(canonical)?;
        match self.meta.due_of(canonical)? {
            Some(due) => self.write_anyhow(&due, record),
            None => Ok(()),
        }
    }

    /// As often as it takes: for who has a lock that nobody else gets in between.
    fn write_anyhow(
        &self,
        due: &Due,
        record: impl Fn(&ImageId) -> Result<Option<ImageRecord>, Error>,
    ) -> Result<(), Error> {
        let Some(before) = self.write_file(due, None)? else {
            return Ok(());
        };
        let staged = self.make_ready(due, before, record)?;
        self.write_file(due, Some(&staged.0)).map(drop)
    }

    /// What is due, beside `refs/`.
    fn make_ready(
        &self,
        due: &Due,
        before: Before,
        record: impl Fn(&ImageId) -> Result<Option<ImageRecord>, Error>,
    ) -> Result<Staged, Error> {
        let old = parse_name_file(before.said.as_deref()).ok();
        let was = match (due.was, old) {
            (None, Some(old)) => Some(self.to_fall_back_to(record(&old.id)?, &old)),
            (was, _) => was,
        };
        let staged = self.write_staged(&due.name, &before.image, was.as_ref(), due.by.as_ref())?;
        Ok(Staged(Ready {
            staged,
            image: before.image,
            by: due.by,
            was: due.was,
            before: before.said,
        }))
    }

    /// Makes the file of a name say what is due, with the name locked; or says what it says, when what is ready does not fit.
    fn write_file(&self, due: &Due, ready: Option<&Ready>) -> Result<Option<Before>, Error> {
        let path = self.name_path(&due.name);
        let Some(image) = due.image else {
            return match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(error).context(|| format!("remove {}", path.display()))
                }
                _ => Ok(None),
            };
        };
        let said = read_name_file(&path);
        let old = parse_name_file(said.as_deref()).ok();
        if due.was.is_none() && old.is_some_and(|old| old.says(&image, due.by.as_ref())) {
            return Ok(None);
        }
        let fits = |ready: &&Ready| {
            ready.image == image && ready.by == due.by && ready.was == due.was && ready.before == said
        };
        let Some(ready) = ready.filter(fits) else {
            return Ok(Some(Before { image, said }));
        };
        place(&ready.staged, &path, &due.owner).context(|| format!("write {}", path.display()))?;
        self.named.store(true, Ordering::Relaxed);
        Ok(None)
    }

    /// One process at a time changes the file of a name: a byte of `locks/names` is locked for it. Nobody who has it waits
    /// for the index.
    fn lock_name(&self, canonical: &str) -> Result<NameLock, Error> {
        let path = self.root.join("locks").join("names");
        let what = || format!("lock {}", path.display());
        let mut how = OpenOptions::new();
        let file = how
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let file = file.open(&path).context(what)?;
        let hash = Digest::of(canonical.as_bytes());
        let (first, _) = hash.as_bytes().split_first_chunk().unwrap_or((&[0; 8], &[]));
        let urgent = Urgent::begin();
        dhow_sys::file::lock_byte(&file, u64::from_le_bytes(*first) >> 1).context(what)?;
        Ok(NameLock {
            _file: file,
            _urgent: urgent,
        })
    }

    /// Brings the index up to what `refs/` says, if a process died between the two. Costs one `stat` and one query.
    ///
    /// They also differ while a living process is about to change a file. Then nobody waits for it: the index has what will
    /// be so.
    pub(crate) fn refresh(&self) -> Result<(), Error> {
        match self.meta.fact(STAMP)? {
            Some(UNSETTLED) if self.all_at_work()? => return Ok(()),
            Some(fact) if fact == self.stamp()? => return Ok(()),
            _ => {}
        }
        let caught_up = self.meta.try_edit(|edit| {
            let settled = self.catch_up(edit)?;
            self.note(edit, settled)
        });
        caught_up.map(drop)
    }

    /// Whether something is due, and whoever it is for lives.
    fn all_at_work(&self) -> Result<bool, Error> {
        let due = self.meta.due()?;
        for due in &due {
            if due.owner()? != Owner::Lives {
                return Ok(false);
            }
        }
        Ok(!due.is_empty())
    }

    /// The index is as `refs/` is from here on, but for what living processes are at: `false` when there is any.
    fn catch_up(&self, edit: &Edit<'_>) -> Result<bool, Error> {
        if edit.fact(STAMP)? == Some(self.stamp()?) {
            return Ok(true);
        }
        let mut settled = true;
        for due in edit.due()? {
            match due.owner()? {
                Owner::Lives => {
                    settled = false;
                    continue;
                }
                Owner::Died => self.finish(edit, &due)?,
                Owner::BeforeBoot => {}
            }
            edit.done(&due.name, &due.owner)?;
        }
        if settled {
            self.reread_names(edit)?;
        }
        Ok(settled)
    }

    /// Does what a process did not come to.
    fn finish(&self, edit: &Edit<'_>, due: &Due) -> Result<(), Error> {
        let _lock = self.lock_name(&due.name)?;
        if self.write_anyhow(due, |id| Ok(edit.image(id)?)).is_err()
            && let Ok(name) = Reference::parse(&due.name)
        {
            // On a full disk, for one.
            self.follow_file(edit, &name)?;
        }
        Ok(())
    }

    /// Has the index say of a name what its file says.
    fn follow_file(&self, edit: &Edit<'_>, name: &Reference) -> Result<(), Error> {
        let bytes = read_name_file(&self.name_path(&name.canonical()));
        if let Ok(named) = parse_name_file(bytes.as_deref()) {
            let known = edit.image(&named.id)?;
            // Where its image is not complete `check` says so.
            if let Ok(record) = known.map_or_else(|| self.derive_record(&named.id, None), Ok) {
                edit.put_image(&record)?;
                return index_name(edit, name, &named.id);
            }
        }
        unindex_name(edit, name).map(drop)
    }

    fn note(&self, edit: &Edit<'_>, settled: bool) -> Result<(), Error> {
        let fact = if settled { self.stamp()? } else { UNSETTLED };
        Ok(edit.set_fact(STAMP, fact)?)
    }

    /// Time of the last change of `refs/` in nanoseconds: every rename and unlink in it moves it.
    fn stamp(&self) -> Result<i64, Error> {
        let path = self.root.join("refs");
        let metadata = std::fs::metadata(&path).context(|| format!("stat {}", path.display()))?;
        Ok(metadata
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(metadata.mtime_nsec()))
    }
}
