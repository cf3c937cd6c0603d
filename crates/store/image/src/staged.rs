//! Names made ready before the index is locked, so that a disk without room is known of before anything has changed.
//!
//! A name that is moved from one image to another has its bytes on the disk before it gets its place.

use std::path::PathBuf;

use dhow_meta::Edit;
use dhow_reference::Reference;
use dhow_types::{Digest, ImageId};

use crate::due::{Ready, Wish};
use crate::names::{index_name, parse_name_file, read_name_file};
use crate::{Error, Store};

/// A name on its way to an image.
#[derive(Debug)]
pub(crate) struct StagedName {
    name: Reference,
    id: ImageId,
    by: Option<Digest>,
    /// What the file of the name said.
    before: Option<Vec<u8>>,
    /// The file to be; none when the name points there already.
    next: Option<PathBuf>,
}

impl Drop for StagedName {
    fn drop(&mut self) {
        if let Some(staged) = &self.next {
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
        let before = read_name_file(&self.name_path(&canonical));
        let old = parse_name_file(before.as_deref()).ok();
        let mut staged = StagedName {
            name: name.clone(),
            id: *id,
            by: by.copied(),
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

    /// Points a name to the image that it was made ready for. What was made ready gets its place when the index is free
    /// again, and is dropped after that.
    pub(crate) fn give_name(&self, edit: &Edit<'_>, staged: &StagedName) -> Result<(), Error> {
        let name = &staged.name;
        let known = match name.digest() {
            Some(digest) => edit.by_digest(&name.name(), digest)?,
            None => edit.tagged(&name.canonical())?,
        };
        // The file said so already; unless another command was faster with the name, it does.
        let says = staged.next.is_none() && known == Some(staged.id);
        if !says || edit.due_of(&name.canonical())?.is_some() {
            let ready = staged.next.as_ref().map(|next| Ready {
                staged: next.clone(),
                image: staged.id,
                by: staged.by,
                was: None,
                before: staged.before.clone(),
            });
            let wish = Wish {
                image: Some(staged.id),
                by: staged.by,
                was: None,
            };
            self.owe(edit, name, &wish, ready)?;
        }
        index_name(edit, name, &staged.id)
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
