//! Names: one small file under `refs/` for each tag and each repo digest. They are the truth; the index follows.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use dhow_meta::Edit;
use dhow_reference::Reference;
use dhow_types::{Digest, ErrorKind, ImageId};

use crate::{Context as _, Error, Store};

/// The fact under which the index keeps the time of `refs/` that it was made from.
const STAMP: &str = "refs";

/// Longest content of a file in `refs/`: id, name of at most 255 + 1 + 128 + 72 bytes, line ends.
const MAX_REF: u64 = 1024;

/// What `refs/` says.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Canonical name and image.
    pub(crate) good: Vec<(Reference, ImageId)>,
    /// Files that say nothing sensible, with the reason.
    pub(crate) bad: Vec<(PathBuf, String)>,
}

impl Store {
    /// A change of names and records: all of it happens, or nothing. Names go to files by [`Store::write_name`] and
    /// [`Store::remove_name`] while the index is locked, so files and index change in the same order.
    pub(crate) fn edit<T>(&self, work: impl FnOnce(&Edit<'_>) -> Result<T, Error>) -> Result<T, Error> {
        self.meta.edit(|edit| {
            if self.stamp()? != self.meta_stamp(edit)? {
                self.reread_names(edit)?;
            }
            let value = work(edit)?;
            edit.set_fact(STAMP, self.stamp()?)?;
            Ok(value)
        })
    }

    /// Brings the index up to what `refs/` says, if a process died between the two. Costs one `stat` and one query.
    pub(crate) fn refresh(&self) -> Result<(), Error> {
        if self.meta.fact(STAMP)? == Some(self.stamp()?) {
            return Ok(());
        }
        self.edit(|_| Ok(()))
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

    /// Points a name to an image, in file and index.
    pub(crate) fn write_name(&self, edit: &Edit<'_>, name: &Reference, id: &ImageId) -> Result<(), Error> {
        let canonical = name.canonical();
        let staged = self.staging("ref");
        let path = self.name_path(&canonical);
        std::fs::write(&staged, format!("{id}\n{canonical}\n"))
            .context(|| format!("write {}", staged.display()))?;
        std::fs::rename(&staged, &path).context(|| format!("write {}", path.display()))?;
        index_name(edit, name, id)
    }

    /// Takes a name away, from file and index; `false` when it was not there.
    pub(crate) fn remove_name(&self, edit: &Edit<'_>, name: &Reference) -> Result<bool, Error> {
        let path = self.name_path(&name.canonical());
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context(|| format!("remove {}", path.display()));
            }
            _ => {}
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
            let path = entry.context(|| format!("list {}", directory.display()))?.path();
            match parse_name_file(&path) {
                Ok((name, id)) if self.name_path(&name.canonical()) == path => names.good.push((name, id)),
                Ok((name, _)) => names
                    .bad
                    .push((path, format!("holds the name {}", name.canonical()))),
                Err(why) => names.bad.push((path, why)),
            }
        }
        Ok(names)
    }

    /// Makes the names of the index again from the files, and the records of images that it does not know.
    pub(crate) fn reread_names(&self, edit: &Edit<'_>) -> Result<(), Error> {
        let names = self.read_names()?;
        edit.clear_names()?;
        let mut manifests: Option<HashMap<Digest, (Digest, String)>> = None;
        for (name, id) in &names.good {
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

fn index_name(edit: &Edit<'_>, name: &Reference, id: &ImageId) -> Result<(), Error> {
    match name.digest() {
        Some(digest) => edit.add_digest(&name.name(), digest, id)?,
        None => edit.tag(&name.canonical(), id)?,
    }
    Ok(())
}

fn parse_name_file(path: &std::path::Path) -> Result<(Reference, ImageId), String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_REF).read_to_string(&mut text))
        .map_err(|error| error.to_string())?;
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
    Ok((name, id))
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
