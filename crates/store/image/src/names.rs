//! Names: one small file under `refs/` for each tag and each repo digest. They are the truth; the index follows.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dhow_meta::{Due, Edit, ImageRecord};
use dhow_reference::Reference;
use dhow_types::{Digest, ErrorKind, ImageId};

use crate::due::Wish;
use crate::store::write_through;
use crate::{Context as _, Error, Store};

/// Begins the name of a file in `refs/` that is about to take the place of another; no name begins so.
const NEXT: &str = ".next";

/// Begins the line of a file in `refs/` with the image that the name had before.
const WAS: &str = "was ";

/// Begins the line of a file in `refs/` with the index that a tag was pulled by.
const BY: &str = "by ";

/// Longest content of a file in `refs/`: two ids, a digest, name of at most 255 + 1 + 128 + 72 bytes, line ends.
const MAX_REF: u64 = 1024;

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

/// What `refs/` says.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) good: Vec<Named>,
    /// Files that say nothing sensible, with the reason.
    pub(crate) bad: Vec<(PathBuf, String)>,
}

impl Store {
    /// Points a name to an image, where nobody could make it ready before (see [`Store::stage_name`]).
    pub(crate) fn write_name(
        &self,
        edit: &Edit<'_>,
        name: &Reference,
        id: &ImageId,
        by: Option<&Digest>,
    ) -> Result<(), Error> {
        self.owe(
            edit,
            name,
            &Wish {
                image: Some(*id),
                by: by.copied(),
                was: None,
            },
            None,
        )?;
        index_name(edit, name, id)
    }

    /// Writes what the file of a name is to say beside it; on the disk when it will take the place of another.
    pub(crate) fn write_staged(
        &self,
        canonical: &str,
        id: &ImageId,
        was: Option<&ImageId>,
        by: Option<&Digest>,
    ) -> Result<PathBuf, Error> {
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
        Ok(staged)
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
        let named = parse_name_file(read_name_file(&self.name_path(&name.canonical())).as_deref());
        let Some(was) = named.ok().and_then(|named| named.was) else {
            return Ok(None);
        };
        let Ok(record) = self.derive_record(&was, None) else {
            return Ok(None);
        };
        if edit.image(&was)?.is_none() {
            edit.put_image(&record)?;
        }
        // What is damaged is nothing to fall back to the next time.
        let wish = Wish {
            image: Some(was),
            by: None,
            was: Some(was),
        };
        self.owe(edit, name, &wish, None)?;
        index_name(edit, name, &was)?;
        Ok(Some(was))
    }

    /// The index that a tag was pulled by.
    pub(crate) fn pulled_by(&self, name: &Reference) -> Option<Digest> {
        let bytes = read_name_file(&self.name_path(&name.canonical()));
        parse_name_file(bytes.as_deref()).ok()?.by
    }

    /// Takes a name away; `false` when the index did not know it.
    pub(crate) fn remove_name(&self, edit: &Edit<'_>, name: &Reference) -> Result<bool, Error> {
        self.owe(edit, name, &Wish::default(), None)?;
        unindex_name(edit, name)
    }

    /// Reads every file of `refs/`.
    pub(crate) fn read_names(&self) -> Result<Names, Error> {
        let directory = self.root.join("refs");
        let mut names = Names::default();
        for entry in std::fs::read_dir(&directory).context(|| format!("list {}", directory.display()))? {
            let entry = entry.context(|| format!("list {}", directory.display()))?;
            if entry.file_name().as_bytes().starts_with(NEXT.as_bytes()) {
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

    /// Makes the names of the index again from the files, and the records of images that it does not know. What living
    /// processes are about to write to a file stays as it is in the index.
    pub(crate) fn reread_names(&self, edit: &Edit<'_>) -> Result<(), Error> {
        let due = edit.due()?;
        self.drop_unplaced(&due)?;
        let names = self.read_names()?;
        edit.clear_names()?;
        let mut manifests: Option<HashMap<Digest, (Digest, String)>> = None;
        for Named { name, id, .. } in &names.good {
            let canonical = name.canonical();
            if due.iter().any(|due| due.name == canonical) {
                continue;
            }
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
        for Due { name, image, .. } in &due {
            if let (Ok(name), Some(id)) = (Reference::parse(name), image) {
                index_name(edit, &name, id)?;
            }
        }
        Ok(())
    }

    /// Takes away what was to take the place of a name and did not, since its process was killed.
    fn drop_unplaced(&self, due: &[Due]) -> Result<(), Error> {
        let directory = self.root.join("refs");
        for entry in std::fs::read_dir(&directory).context(|| format!("list {}", directory.display()))? {
            let file = entry
                .context(|| format!("list {}", directory.display()))?
                .file_name();
            let of = file.to_str().and_then(|file| file.strip_prefix(NEXT));
            if of.is_some_and(|owner| !due.iter().any(|due| owner == format!(".{}", due.owner))) {
                drop(std::fs::remove_file(directory.join(&file)));
            }
        }
        Ok(())
    }

    pub(crate) fn name_path(&self, canonical: &str) -> PathBuf {
        self.root.join("refs").join(file_name(canonical, 255))
    }
}

/// Gives a file that is beside `refs/` a place in it; its other name is the caller's to remove. Only with the name locked.
///
/// Never by a rename from directory to directory: that may wait for every other one in the file system (the kernel's
/// `s_vfs_rename_mutex`), and with it for processes that wait for their turn, while all wait for this one.
pub(crate) fn place(staged: &Path, path: &Path, owner: &str) -> std::io::Result<()> {
    use std::io::ErrorKind::{AlreadyExists, NotFound};
    match std::fs::hard_link(staged, path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == AlreadyExists => {}
        // A file system without further names.
        Err(_) => return std::fs::rename(staged, path),
    }
    let next = path.with_file_name(format!("{NEXT}.{owner}"));
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

/// Takes a name out of the index; `false` when it was not there.
pub(crate) fn unindex_name(edit: &Edit<'_>, name: &Reference) -> Result<bool, Error> {
    Ok(match name.digest() {
        Some(digest) => edit.remove_digest(&name.name(), digest)?,
        None => edit.untag(&name.canonical())?,
    })
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
