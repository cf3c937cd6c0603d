//! Names: one small file under `refs/` for each tag and each repo digest. They are the truth; the index follows.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use dhow_meta::{Edit, ImageRecord};
use dhow_reference::Reference;
use dhow_types::{Digest, ErrorKind, ImageId};

use crate::store::write_through;
use crate::{Context as _, Error, Store};

/// The fact under which the index keeps the time of `refs/` that it was made from.
const STAMP: &str = "refs";

/// A file in `refs/` that is about to take the place of another; no name begins so.
const NEXT: &str = ".next";

/// Begins the line of a file in `refs/` with the image that the name had before.
const WAS: &str = "was ";

/// Begins the line of a file in `refs/` with the index that a tag was pulled by.
const BY: &str = "by ";

/// Longest content of a file in `refs/`: two ids, a digest, name of at most 255 + 1 + 128 + 72 bytes, line ends.
const MAX_REF: u64 = 1024;

/// Files of names that one edit keeps open at most.
const MOST_KEPT: usize = 64;

/// What a file in `refs/` says.
#[derive(Debug)]
pub(crate) struct Named {
    /// The canonical name.
    pub(crate) name: Reference,
    pub(crate) id: ImageId,
    /// The last image of this name that was known to be on the disk when the name was moved on: a power cut may leave
    /// nothing of the new one.
    pub(crate) was: Option<ImageId>,
    /// The index that a tag stood for when it was pulled: its image may be in several.
    pub(crate) by: Option<Digest>,
}

/// What an edit did to a file in `refs/`.
#[derive(Debug)]
pub(crate) struct NameChange {
    pub(crate) path: PathBuf,
    pub(crate) before: Option<Vec<u8>>,
    pub(crate) after: Option<Vec<u8>>,
    /// The file that it replaced or removed. The file system frees it when this is closed, after the index: that may wait
    /// for a disk.
    pub(crate) _old: Option<File>,
}

/// What `refs/` says.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) good: Vec<Named>,
    /// Files that say nothing sensible, with the reason.
    pub(crate) bad: Vec<(PathBuf, String)>,
}

impl Store {
    /// A change of names and records: all of it happens, or nothing. Names go to files by [`Store::write_name`] and
    /// [`Store::remove_name`] while the index is locked, so files and index change in the same order. When the index
    /// cannot be written in the end, as on a full disk, the files are put back.
    pub(crate) fn edit<T>(&self, work: impl FnOnce(&Edit<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let mut changed = Vec::new();
        let outcome = self.meta.edit(|edit| {
            self.catch_up(edit)?;
            self.changed_names().clear();
            let value = work(edit);
            let done = std::mem::take(&mut *self.changed_names());
            let value = match value {
                Ok(value) => value,
                Err(error) => {
                    self.put_all_back(&done);
                    return Err(error);
                }
            };
            changed = done;
            edit.set_fact(STAMP, self.stamp()?)?;
            Ok(value)
        });
        if outcome.is_err() && !changed.is_empty() {
            // Names are placed by whoever has the index. Where even that cannot be locked, nobody else can, either.
            let locked = self.meta.edit(|_| {
                self.put_all_back(&changed);
                Ok::<_, Error>(())
            });
            if locked.is_err() {
                self.put_all_back(&changed);
            }
        }
        outcome
    }

    /// Changes of name files by the edit that goes on: there is one at a time, since it has the index.
    pub(crate) fn changed_names(&self) -> MutexGuard<'_, Vec<NameChange>> {
        self.changed_names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of a name that is about to lose its place, unless the edit keeps many already: see [`NameChange`].
    pub(crate) fn kept(&self, path: &Path) -> Option<File> {
        let few = self.changed_names().len() < MOST_KEPT;
        few.then(|| File::open(path).ok()).flatten()
    }

    fn put_all_back(&self, changed: &[NameChange]) {
        changed.iter().rev().for_each(|change| self.put_back(change));
    }

    /// As far as it goes: the failure itself is what the caller must see. What somebody else wrote since stays.
    fn put_back(&self, change: &NameChange) {
        if std::fs::read(&change.path).ok() != change.after {
            return;
        }
        match &change.before {
            None => drop(std::fs::remove_file(&change.path)),
            Some(bytes) => {
                let staged = self.staging("ref");
                let written = std::fs::write(&staged, bytes);
                drop(written.and_then(|()| place(&staged, &change.path)));
                drop(std::fs::remove_file(&staged));
            }
        }
    }

    /// Brings the index up to what `refs/` says, if a process died between the two. Costs one `stat` and one query.
    ///
    /// They also differ while a living process is about to commit what it wrote. Then nobody waits for it: what the index
    /// says is what was so until then, and that process has caught up with the dead before it began.
    pub(crate) fn refresh(&self) -> Result<(), Error> {
        if self.meta.fact(STAMP)? == Some(self.stamp()?) {
            return Ok(());
        }
        let caught_up = self.meta.try_edit(|edit| {
            self.catch_up(edit)?;
            edit.set_fact(STAMP, self.stamp()?)?;
            Ok::<_, Error>(())
        });
        caught_up.map(drop)
    }

    /// The index is as `refs/` is from here on.
    fn catch_up(&self, edit: &Edit<'_>) -> Result<(), Error> {
        if self.stamp()? != self.meta_stamp(edit)? {
            self.reread_names(edit)?;
        }
        Ok(())
    }

    fn meta_stamp(&self, edit: &Edit<'_>) -> Result<i64, Error> {
        Ok(edit.fact(STAMP)?.unwrap_or(i64::MIN))
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

    /// Points a name to an image, in file and index, where nobody could make it ready before (see [`Store::stage_name`]).
    pub(crate) fn write_name(
        &self,
        edit: &Edit<'_>,
        name: &Reference,
        id: &ImageId,
        by: Option<&Digest>,
    ) -> Result<(), Error> {
        let canonical = name.canonical();
        let path = self.name_path(&canonical);
        let old = parse_name_file(read_name_file(&path).as_deref()).ok();
        if old.as_ref().is_none_or(|old| !old.says(id, by)) {
            let record = old.as_ref().map(|old| edit.image(&old.id)).transpose()?;
            let was = old.map(|old| self.to_fall_back_to(record.flatten(), &old));
            self.replace_name(&path, &canonical, id, was.as_ref(), by)?;
        }
        index_name(edit, name, id)
    }

    /// Writes what the file of a name is to say beside it; on the disk when it will take the place of another.
    pub(crate) fn write_staged(
        &self,
        canonical: &str,
        id: &ImageId,
        was: Option<&ImageId>,
        by: Option<&Digest>,
    ) -> Result<(PathBuf, Vec<u8>), Error> {
        let staged = self.staging("ref");
        let mut text = format!("{id}\n{canonical}\n");
        if let Some(was) = was {
            text.push_str(&format!("{WAS}{was}\n"));
        }
        if let Some(by) = by {
            text.push_str(&format!("{BY}{by}\n"));
        }
        let written = if was.is_some() {
            write_through(&staged, text.as_bytes())
        } else {
            // Without content after a power cut it is as if the name was never given.
            std::fs::write(&staged, &text)
        };
        if written.is_err() {
            drop(std::fs::remove_file(&staged));
        }
        written.context(|| format!("write {}", staged.display()))?;
        Ok((staged, text.into_bytes()))
    }

    fn replace_name(
        &self,
        path: &Path,
        canonical: &str,
        id: &ImageId,
        was: Option<&ImageId>,
        by: Option<&Digest>,
    ) -> Result<(), Error> {
        let (staged, text) = self.write_staged(canonical, id, was, by)?;
        let change = NameChange {
            path: path.to_owned(),
            before: read_name_file(path),
            after: Some(text),
            _old: self.kept(path),
        };
        let placed = place(&staged, path);
        drop(std::fs::remove_file(&staged));
        placed.context(|| format!("write {}", path.display()))?;
        self.named.store(true, Ordering::Relaxed);
        self.changed_names().push(change);
        Ok(())
    }

    /// Makes a name survive a power cut, without the rest of the file system: its bytes, then its place in `refs/`.
    pub(crate) fn sync_name(&self, name: &Reference) -> Result<(), Error> {
        let refs = self.root.join("refs");
        for path in [self.name_path(&name.canonical()), refs] {
            let what = || format!("sync {}", path.display());
            match File::open(&path) {
                // Taken away by somebody else meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other.and_then(|file| file.sync_all()).context(what)?,
            }
        }
        Ok(())
    }

    /// The image that a name falls back to when it is moved on from what it is now, which has this record.
    pub(crate) fn to_fall_back_to(&self, record: Option<ImageRecord>, old: &Named) -> ImageId {
        let durable = record.is_some_and(|record| {
            let mut layers = record.layers.iter();
            layers.all(|diff| self.layers.layer(diff).is_ok_and(|layer| layer.is_durable()))
        });
        if durable {
            old.id
        } else {
            old.was.unwrap_or(old.id)
        }
    }

    /// Gives a name whose image is not whole back to the image that it had before, if that is; says which that is.
    pub(crate) fn fall_back(&self, edit: &Edit<'_>, name: &Reference) -> Result<Option<ImageId>, Error> {
        let canonical = name.canonical();
        let path = self.name_path(&canonical);
        let named = parse_name_file(read_name_file(&path).as_deref());
        let Some(was) = named.ok().and_then(|named| named.was) else {
            return Ok(None);
        };
        let Ok(mut record) = self.derive_record(&was, None) else {
            return Ok(None);
        };
        match edit.image(&was)? {
            Some(known) => record = known,
            None => edit.put_image(&record)?,
        }
        self.replace_name(&path, &canonical, &record.id, Some(&was), None)?;
        index_name(edit, name, &was)?;
        Ok(Some(was))
    }

    /// The index that a tag was pulled by.
    pub(crate) fn pulled_by(&self, name: &Reference) -> Option<Digest> {
        let bytes = read_name_file(&self.name_path(&name.canonical()));
        parse_name_file(bytes.as_deref()).ok()?.by
    }

    /// Takes a name away, from file and index; `false` when it was not there.
    pub(crate) fn remove_name(&self, edit: &Edit<'_>, name: &Reference) -> Result<bool, Error> {
        let path = self.name_path(&name.canonical());
        let before = read_name_file(&path);
        let old = self.kept(&path);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context(|| format!("remove {}", path.display()));
            }
            Err(_) => {}
            Ok(()) => self.changed_names().push(NameChange {
                path,
                before,
                after: None,
                _old: old,
            }),
        }
        match name.digest() {
            Some(digest) => Ok(edit.remove_digest(&name.name(), digest)?),
            None => Ok(edit.untag(&name.canonical())?),
        }
    }

    /// Reads every file of `refs/`.
    pub(crate) fn read_names(&self) -> Result<Names, Error> {
        let directory = self.root.join("refs");
        let mut names = Names::default();
        for entry in std::fs::read_dir(&directory).context(|| format!("list {}", directory.display()))? {
            let entry = entry.context(|| format!("list {}", directory.display()))?;
            if entry.file_name() == NEXT {
                continue;
            }
            let path = entry.path();
            match parse_name_file(read_name_file(&path).as_deref()) {
                Ok(named) if self.name_path(&named.name.canonical()) == path => names.good.push(named),
                Ok(named) => names
                    .bad
                    .push((path, format!("holds the name {}", named.name.canonical()))),
                Err(why) => names.bad.push((path, why)),
            }
        }
        Ok(names)
    }

    /// Makes the names of the index again from the files, and the records of images that it does not know.
    pub(crate) fn reread_names(&self, edit: &Edit<'_>) -> Result<(), Error> {
        // Left by a process that was killed: who has the index is the only one to make it.
        drop(std::fs::remove_file(self.root.join("refs").join(NEXT)));
        let names = self.read_names()?;
        edit.clear_names()?;
        let mut manifests: Option<HashMap<Digest, (Digest, String)>> = None;
        for Named { name, id, .. } in &names.good {
            if edit.image(id)?.is_none() {
                if manifests.is_none() {
                    manifests = Some(self.manifests_by_config()?);
                }
                // A name whose image is not complete is left out; `check` says so.
                let Ok(record) = self.derive_record(id, manifests.as_ref()) else {
                    continue;
                };
                edit.put_image(&record)?;
            }
            index_name(edit, name, id)?;
        }
        Ok(())
    }

    pub(crate) fn name_path(&self, canonical: &str) -> PathBuf {
        self.root.join("refs").join(file_name(canonical, 255))
    }
}

/// Gives a file that is beside `refs/` a place in it; its other name is the caller's to remove. Only with the index locked.
///
/// Never by a rename from directory to directory: that may wait for every other one in the file system (the kernel's
/// `s_vfs_rename_mutex`), and with it for processes that wait for their turn, while all wait for this one.
pub(crate) fn place(staged: &Path, path: &Path) -> std::io::Result<()> {
    use std::io::ErrorKind::{AlreadyExists, NotFound};
    match std::fs::hard_link(staged, path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == AlreadyExists => {}
        // A file system without further names.
        Err(_) => return std::fs::rename(staged, path),
    }
    let next = path.with_file_name(NEXT);
    match std::fs::remove_file(&next) {
        Err(error) if error.kind() != NotFound => return Err(error),
        // Left by a process that was killed here.
        _ => {}
    }
    std::fs::hard_link(staged, &next)?;
    let renamed = std::fs::rename(&next, path);
    if renamed.is_err() {
        drop(std::fs::remove_file(&next));
    }
    renamed
}

/// `/` cannot be in a file name and `+` cannot be in a reference. A name that would be longer than `most` is cut and
/// told apart by its hash; the file holds the whole name anyway.
pub(crate) fn file_name(canonical: &str, most: usize) -> String {
    let mut file = canonical.replace('/', "+");
    if file.len() > most {
        let hash = Digest::of(canonical.as_bytes()).hex();
        file.truncate(most - 75);
        file = format!("{file}~{hash}");
    }
    file
}

pub(crate) fn index_name(edit: &Edit<'_>, name: &Reference, id: &ImageId) -> Result<(), Error> {
    match name.digest() {
        Some(digest) => edit.add_digest(&name.name(), digest, id)?,
        None => edit.tag(&name.canonical(), id)?,
    }
    Ok(())
}

/// What the file of a name holds; nothing when there is none, or none that could be read.
pub(crate) fn read_name_file(path: &Path) -> Option<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(MAX_REF).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

pub(crate) fn parse_name_file(bytes: Option<&[u8]>) -> Result<Named, String> {
    let bytes = bytes.ok_or("cannot be read")?;
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut lines = text.lines();
    let id = lines
        .next()
        .and_then(|line| line.parse().ok())
        .ok_or("holds no image id")?;
    let line = lines.next().ok_or("holds no name")?;
    let name = Reference::parse(line).map_err(|error| error.to_string())?;
    if name.canonical() != line || (name.tag().is_some() == name.digest().is_some()) {
        return Err(format!("holds {line:?}, which is no canonical name"));
    }
    let (mut was, mut by) = (None, None);
    for line in lines {
        was = was.or_else(|| line.strip_prefix(WAS)?.parse().ok());
        by = by.or_else(|| line.strip_prefix(BY)?.parse().ok());
    }
    Ok(Named { name, id, was, by })
}

impl Named {
    /// Whether it need not be written again to say this; an index is taken from a name only with its image.
    pub(crate) fn says(&self, id: &ImageId, by: Option<&Digest>) -> bool {
        self.id == *id && (by.is_none() || self.by.as_ref() == by)
    }
}

/// The name that goes into the store for what a person typed: a tag, or a digest; never both.
pub(crate) fn single(reference: &Reference) -> Reference {
    if reference.digest().is_some() {
        reference.clone().without_tag()
    } else {
        reference.clone().or_latest()
    }
}

/// A reference that must have a tag and no digest: what an image can be tagged with.
pub(crate) fn taggable(reference: &Reference) -> Result<Reference, Error> {
    if reference.digest().is_some() {
        let message = format!(
            "refusing to create a tag with a digest reference: {}",
            reference.familiar()
        );
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(reference.clone().or_latest())
}
