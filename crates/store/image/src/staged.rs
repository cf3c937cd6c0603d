//! Names made ready before the index is locked, so that nobody who waits for it waits for a disk.
//!
//! A name that is moved from one image to another has its bytes on the disk before it gets its place: that takes as long as
//! a disk takes. Under the lock it is only looked whether the name is still what it was, and renamed.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use dhow_meta::Edit;
use dhow_reference::Reference;
use dhow_types::{Digest, ImageId};

use crate::names::{NameChange, index_name, parse_name_file, place, read_name_file};
use crate::{Context as _, Error, Store};

/// A name on its way to an image.
#[derive(Debug)]
pub(crate) struct StagedName {
    name: Reference,
    id: ImageId,
    by: Option<Digest>,
    path: PathBuf,
    /// What the file of the name said.
    before: Option<Vec<u8>>,
    /// The file to be, and what is in it; none when the name points there already.
    next: Option<(PathBuf, Vec<u8>)>,
}

impl Drop for StagedName {
    fn drop(&mut self) {
        if let Some((staged, _)) = &self.next {
            // It has its other name, or got no place. What cannot be removed now is swept.
            drop(std::fs::remove_file(staged));
        }
    }
}

impl Store {
    /// Makes a name ready for an image; see [`Store::give_name`]. Waits for the disk when the name has an image that it is
    /// taken from. Not under the index's lock.
    pub(crate) fn stage_name(&self, name: &Reference, id: &ImageId) -> Result<StagedName, Error> {
        self.stage_name_by(name, id, None)
    }

    /// The same for a tag that stands for an index.
    pub(crate) fn stage_name_by(
        &self,
        name: &Reference,
        id: &ImageId,
        by: Option<&Digest>,
    ) -> Result<StagedName, Error> {
        let canonical = name.canonical();
        let path = self.name_path(&canonical);
        let before = read_name_file(&path);
        let old = parse_name_file(before.as_deref()).ok();
        let mut staged = StagedName {
            name: name.clone(),
            id: *id,
            by: by.copied(),
            path,
            before,
            next: None,
        };
        if old.as_ref().is_none_or(|old| !old.says(id, by)) {
            let record = old.as_ref().map(|old| self.meta.image(&old.id)).transpose()?;
            let was = old.map(|old| self.to_fall_back_to(record.flatten(), &old));
            staged.next = Some(self.write_staged(&canonical, id, was.as_ref(), by)?);
        }
        Ok(staged)
    }

    /// Points a name to the image that it was made ready for, in file and index. When another command was faster with the
    /// name, its file is written here. What was made ready is dropped after the index is free again: that removes a file.
    pub(crate) fn give_name(&self, edit: &Edit<'_>, staged: &StagedName) -> Result<(), Error> {
        let now = read_name_file(&staged.path);
        if now != staged.before {
            return self.write_name(edit, &staged.name, &staged.id, staged.by.as_ref());
        }
        if let Some((next, text)) = &staged.next {
            let old = self.kept(&staged.path);
            place(next, &staged.path).context(|| format!("write {}", staged.path.display()))?;
            self.named.store(true, Ordering::Relaxed);
            self.changed_names().push(NameChange {
                path: staged.path.clone(),
                before: now,
                after: Some(text.clone()),
                _old: old,
            });
        }
        index_name(edit, &staged.name, &staged.id)
    }

    /// The same for several names.
    pub(crate) fn stage_names(&self, names: &[Reference], id: &ImageId) -> Result<Vec<StagedName>, Error> {
        names.iter().map(|name| self.stage_name(name, id)).collect()
    }

    /// See [`Store::give_name`].
    pub(crate) fn give_names(&self, edit: &Edit<'_>, staged: &[StagedName]) -> Result<(), Error> {
        staged.iter().try_for_each(|name| self.give_name(edit, name))
    }
}
