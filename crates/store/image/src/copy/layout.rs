//! OCI image layouts as places of a copy (image-spec `image-layout.md`).

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use dhow_layer::Extent;
use dhow_oci::{Descriptor, Document, Extra, Index, Labels, MAX_DOCUMENT, media_type};
use dhow_reference::Reference;
use dhow_rootpath::Root;
use dhow_transport::Fetched;
use dhow_types::{Digest, ErrorKind};

use super::read::Verifying;
use super::{Open, Sink, Source};
use crate::archive::{FULL_NAME, INDEX, LAYOUT, LAYOUT_BYTES, REF_NAME, blob_path};
use crate::loaded::layout_names;
use crate::{Context as _, Error};

/// Reads the files of a layout: of a folder, or of a tar.
pub(super) trait Files: Sync {
    /// Opens a file, with its length.
    fn open(&self, path: &str) -> Result<(Box<dyn Read + Send + '_>, u64), Error>;
    /// Where its bytes are.
    fn extent(&self, path: &str) -> Result<Extent, Error>;
}

/// A layout to read.
pub(super) struct Layout<F> {
    files: F,
    index: Index,
    top: Descriptor,
}

/// A folder.
pub(super) struct Tree(Root);

impl Files for Tree {
    fn open(&self, path: &str) -> Result<(Box<dyn Read + Send + '_>, u64), Error> {
        let what = || format!("open {path} of the layout");
        let file = self.0.open_file(Path::new(path)).context(what)?;
        let length = file.metadata().context(what)?.len();
        Ok((Box::new(file), length))
    }

    fn extent(&self, path: &str) -> Result<Extent, Error> {
        let what = || format!("open {path} of the layout");
        let file = self.0.open_file(Path::new(path)).context(what)?;
        let length = file.metadata().context(what)?.len();
        Ok(Extent::new(file, 0, length))
    }
}

/// Opens a folder.
pub(super) fn open(folder: &Path, name: Option<&str>) -> Result<Layout<Tree>, Error> {
    let root = Root::open(folder).context(|| format!("open the layout {}", folder.display()))?;
    Layout::new(Tree(root), name)
}

impl<F: Files> Layout<F> {
    pub(super) fn new(files: F, name: Option<&str>) -> Result<Self, Error> {
        let bytes = small(&files, INDEX)?;
        let Document::Index(index) = Document::parse(&bytes, None).context(|| format!("read {INDEX}"))?
        else {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("{INDEX} of the layout is no index"),
            ));
        };
        let top = named(&index, name)?.clone();
        Ok(Self { files, index, top })
    }

    pub(super) fn files(&self) -> &F {
        &self.files
    }

    /// What its index calls an image.
    pub(super) fn names_of(&self, digest: &Digest) -> Vec<Reference> {
        let named = self
            .index
            .manifests
            .iter()
            .filter(|found| found.digest == *digest);
        named
            .flat_map(|found| layout_names(found).unwrap_or_default())
            .collect()
    }
}

/// A document, at most as long as one may be.
pub(super) fn small(files: &impl Files, path: &str) -> Result<Vec<u8>, Error> {
    let (reader, _) = files.open(path)?;
    let mut bytes = Vec::new();
    reader
        .take(MAX_DOCUMENT + 1)
        .read_to_end(&mut bytes)
        .context(|| format!("read {path}"))?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        let message = format!("{path} has more than {MAX_DOCUMENT} bytes");
        return Err(Error::new(ErrorKind::ResourceExhausted, message));
    }
    Ok(bytes)
}

/// What a name means in a layout: the tag or the whole name; without one there must be one image only.
fn named<'a>(index: &'a Index, name: Option<&str>) -> Result<&'a Descriptor, Error> {
    let names = |descriptor: &'a Descriptor| {
        [REF_NAME, FULL_NAME]
            .into_iter()
            .filter_map(|key| descriptor.annotations.get(key).map(String::as_str))
    };
    let matching: Vec<&Descriptor> = match name {
        Some(name) => {
            let canonical = Reference::parse(name)
                .map(|name| name.or_latest().canonical())
                .ok();
            let fits = |found: &str| found == name || Some(found) == canonical.as_deref();
            index
                .manifests
                .iter()
                .filter(|descriptor| names(descriptor).any(fits))
                .collect()
        }
        None => index.manifests.iter().collect(),
    };
    let same = matching.iter().all(|found| found.digest == matching[0].digest);
    match matching.first() {
        Some(found) if same => Ok(found),
        found => {
            let mut known: Vec<&str> = index.manifests.iter().flat_map(names).take(20).collect();
            known.dedup();
            let what = if found.is_some() {
                "several images"
            } else {
                "no image"
            };
            let of = name.map_or_else(String::new, |name| format!(" named {name:?}"));
            let error = Error::new(ErrorKind::NotFound, format!("the layout has {what}{of}"));
            Err(if known.is_empty() {
                error
            } else {
                error.with_hint(format!("it has {}", known.join(", ")))
            })
        }
    }
}

impl<F: Files> Source for Layout<F> {
    fn top(&self) -> Result<Fetched, Error> {
        self.manifest(&self.top)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Fetched, Error> {
        let path = blob_path(&descriptor.digest);
        let bytes = small(&self.files, &path)?;
        crate::load::verify(&path, &descriptor.digest, &Digest::of(&bytes))?;
        // The document's own word counts before the descriptor's.
        let kind = match Document::parse(
            &bytes,
            Some(&descriptor.media_type)
                .filter(|kind| !kind.is_empty())
                .map(String::as_str),
        ) {
            Ok(Document::Manifest(manifest)) => manifest.media_type,
            Ok(Document::Index(index)) => index.media_type,
            Err(error) => return Err(error).context(|| format!("read {path}")),
        };
        let kind = kind.unwrap_or_else(|| descriptor.media_type.clone());
        Ok(Fetched {
            descriptor: Descriptor::of(&kind, &bytes),
            bytes,
        })
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>, Error> {
        let (reader, _) = self.files.open(&blob_path(&descriptor.digest))?;
        Ok(Box::new(Verifying::new(reader, descriptor)))
    }

    /// A layout has no list of referrers: those that its index names are looked at.
    fn referrers(&self, digest: &Digest) -> Result<Vec<Descriptor>, Error> {
        let mut found = Vec::new();
        for descriptor in &self.index.manifests {
            let document = self.manifest(descriptor)?;
            let subject = match Document::parse(&document.bytes, None) {
                Ok(Document::Manifest(manifest)) => manifest.subject,
                Ok(Document::Index(index)) => index.subject,
                Err(_) => None,
            };
            if subject.is_some_and(|subject| subject.digest == *digest) {
                found.push(descriptor.clone());
            }
        }
        Ok(found)
    }
}

/// An OCI layout to be written: blobs first, and what the index lists last.
#[derive(Debug)]
pub struct Folder {
    folder: PathBuf,
    name: Option<String>,
    /// Held while the layout is written: two writers take turns.
    _lock: File,
    entries: Mutex<Vec<Descriptor>>,
}

impl Folder {
    /// The layout in a folder, made when it is not there. Held alone until this is dropped.
    ///
    /// # Errors
    /// Failures of the file system.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        Self::create(folder, None)
    }

    pub(super) fn create(folder: &Path, name: Option<String>) -> Result<Self, Error> {
        let what = || format!("make the layout {}", folder.display());
        fs::create_dir_all(folder.join("blobs/sha256")).context(what)?;
        let lock = File::open(folder).context(what)?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
            .map_err(io::Error::from)
            .context(what)?;
        let made = Self {
            folder: folder.to_owned(),
            name,
            _lock: lock,
            entries: Mutex::default(),
        };
        made.publish(LAYOUT, &mut &LAYOUT_BYTES[..])?;
        Ok(made)
    }

    /// Writes a file beside its place, flushes and renames it.
    fn publish(&self, path: &str, content: &mut dyn Read) -> Result<(), Error> {
        let place = self.folder.join(path);
        let what = || format!("write {}", place.display());
        let thread = format!("{:?}", std::thread::current().id());
        let digits: String = thread.chars().filter(char::is_ascii_digit).collect();
        let beside = self.folder.join(format!(".{}-{digits}.tmp", std::process::id()));
        let written = File::create(&beside).and_then(|mut file| {
            io::copy(content, &mut file)?;
            file.flush()?;
            file.sync_data()
        });
        let outcome = written.and_then(|()| fs::rename(&beside, &place));
        outcome.map_err(|error| {
            // What failed is left to nobody; when this fails too the first failure is the one to tell.
            fs::remove_file(&beside).unwrap_or_default();
            crate::pull::reading_failure(error, what())
        })
    }

    /// Takes a blob, unless it is there.
    ///
    /// # Errors
    /// Failures of the blob and of the file system.
    pub fn put(&self, blob: &crate::PackedBlob) -> Result<(), Error> {
        self.blob(&blob.descriptor, None, &mut || blob.open()).map(drop)
    }

    /// Takes a blob of the store, unless it is there.
    pub(crate) fn take(&self, descriptor: &Descriptor, open: Open<'_>) -> Result<(), Error> {
        self.blob(descriptor, None, open).map(drop)
    }

    /// Makes visible what was taken: these entries in the index, in the place of those with the same names.
    ///
    /// # Errors
    /// Failures of the file system; `InvalidArgument` when the index that is there is none.
    pub fn list(&self, entries: Vec<Descriptor>) -> Result<(), Error> {
        *self.entries.lock().unwrap_or_else(PoisonError::into_inner) = entries;
        self.finish()
    }

    fn old_index(&self) -> Result<Vec<Descriptor>, Error> {
        let path = self.folder.join(INDEX);
        let mut bytes = Vec::new();
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file
                .and_then(|file| file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes))
                .context(|| format!("read {}", path.display()))?,
        };
        match Document::parse(&bytes, None).context(|| format!("read {}", path.display()))? {
            Document::Index(index) => Ok(index.manifests),
            Document::Manifest(_) => {
                let message = format!("{} is no index", path.display());
                Err(Error::new(ErrorKind::InvalidArgument, message))
            }
        }
    }
}

impl Sink for Folder {
    fn blob(&self, descriptor: &Descriptor, _: Option<&Reference>, open: Open<'_>) -> Result<bool, Error> {
        let path = blob_path(&descriptor.digest);
        // A blob is there whole or not at all; one of the wrong length is somebody's damage.
        let there = fs::metadata(self.folder.join(&path))
            .is_ok_and(|found| found.is_file() && found.len() == descriptor.size);
        if there {
            return Ok(false);
        }
        let mut reader = open()?;
        self.publish(&path, &mut reader)?;
        Ok(true)
    }

    fn manifest(&self, document: &Fetched, named: bool) -> Result<(), Error> {
        self.publish(
            &blob_path(&document.descriptor.digest),
            &mut document.bytes.as_slice(),
        )?;
        let listed = named || refers(document);
        if listed {
            let mut entry = super::entry(document);
            if let Some(name) = self.name.as_ref().filter(|_| named) {
                entry.annotations.insert(REF_NAME.to_owned(), name.clone());
            }
            self.entries
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(entry);
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), Error> {
        let new = std::mem::take(&mut *self.entries.lock().unwrap_or_else(PoisonError::into_inner));
        let mut manifests = self.old_index()?;
        // A name means one thing; an entry without a name is there once.
        manifests.retain(|old| {
            let name = old.annotations.get(REF_NAME);
            !new.iter().any(|new| match (name, new.annotations.get(REF_NAME)) {
                (Some(old), Some(new)) => old == new,
                (None, None) => old.digest == new.digest,
                _ => false,
            })
        });
        manifests.extend(new);
        let bytes = index_bytes(manifests)?;
        self.publish(INDEX, &mut bytes.as_slice())
    }
}

/// Whether a document is about another one: a layout lists those, since it has no other way to find them.
pub(super) fn refers(document: &Fetched) -> bool {
    match Document::parse(&document.bytes, None) {
        Ok(Document::Manifest(manifest)) => manifest.subject.is_some(),
        Ok(Document::Index(index)) => index.subject.is_some(),
        Err(_) => false,
    }
}

pub(super) fn index_bytes(manifests: Vec<Descriptor>) -> Result<Vec<u8>, Error> {
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        artifact_type: None,
        manifests,
        subject: None,
        annotations: Labels::new(),
        extra: Extra::new(),
    };
    serde_json::to_vec(&index).map_err(|error| Error::because(ErrorKind::Internal, "write the index", error))
}
