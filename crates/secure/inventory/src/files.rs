//! Where files come from: a layer by its index, or a directory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dhow_layer::{Entry, EntryKind, Extent, Index, Survey};
use dhow_rootpath::{FileKind, Root};
use dhow_types::ErrorKind;

use crate::{Context as _, Error, ReadAt};

/// What an object in a tree is, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundKind {
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
    /// A directory that hides what is below it in lower layers.
    Opaque,
    /// Nothing: a lower layer's object is deleted.
    Whiteout,
    /// Anything else.
    Other,
}

/// An object in a tree.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Path from the root, without `/` at its beginning.
    pub path: &'a [u8],
    /// What it is.
    pub kind: FoundKind,
    /// Bytes of a file.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
}

/// The content of a file, opened.
pub struct Content<'a> {
    /// Its bytes.
    pub bytes: Box<dyn ReadAt + 'a>,
    /// How many there are.
    pub size: u64,
}

impl std::fmt::Debug for Content<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// A tree of files to look through.
pub trait Files {
    /// Shows every object, in an order that is the same for the same tree.
    ///
    /// # Errors
    /// When the tree cannot be listed; what `see` returns.
    fn visit(&self, see: &mut dyn FnMut(Found<'_>) -> Result<(), Error>) -> Result<(), Error>;

    /// Opens a regular file.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` when it is no regular file.
    fn open(&self, path: &[u8]) -> Result<Content<'_>, Error>;
}

/// A stored layer.
#[derive(Debug)]
pub struct Layer<'a> {
    /// What it has.
    pub index: &'a Index,
    /// Its tree.
    pub root: &'a Root,
}

impl Files for Layer<'_> {
    fn visit(&self, see: &mut dyn FnMut(Found<'_>) -> Result<(), Error>) -> Result<(), Error> {
        for entry in self.index.entries() {
            see(found(&entry))?;
        }
        Ok(())
    }

    fn open(&self, path: &[u8]) -> Result<Content<'_>, Error> {
        open(self.root, path)
    }
}

/// An entry of a layer, as it is seen.
pub(crate) fn found(entry: &Entry) -> Found<'_> {
    let kind = match entry.kind {
        EntryKind::File | EntryKind::Hardlink => FoundKind::File,
        EntryKind::Directory if entry.opaque => FoundKind::Opaque,
        EntryKind::Directory => FoundKind::Directory,
        EntryKind::Symlink => FoundKind::Symlink,
        EntryKind::Whiteout => FoundKind::Whiteout,
        _ => FoundKind::Other,
    };
    Found {
        path: &entry.path,
        kind,
        size: entry.size,
        mode: entry.mode,
    }
}

/// The number of the content of the file at a path, and its bytes: of a hard link those of what it is another name of.
pub(crate) fn content_of(survey: &Survey, path: &[u8]) -> Option<(u32, u64)> {
    let surveyed = survey.find(path)?;
    let original = match surveyed.entry.kind {
        EntryKind::Hardlink => survey.find(&surveyed.entry.link)?,
        _ => surveyed,
    };
    Some((original.number?, original.entry.size))
}

/// A layer that is not compressed, where it lies.
#[derive(Debug)]
pub(crate) struct Lying<'a> {
    pub(crate) survey: &'a Survey,
    pub(crate) layer: &'a Extent,
}

impl Files for Lying<'_> {
    fn visit(&self, see: &mut dyn FnMut(Found<'_>) -> Result<(), Error>) -> Result<(), Error> {
        self.survey
            .entries
            .iter()
            .try_for_each(|surveyed| see(found(&surveyed.entry)))
    }

    fn open(&self, path: &[u8]) -> Result<Content<'_>, Error> {
        let Some((number, size)) = content_of(self.survey, path) else {
            let message = format!("open {}: it is no regular file", String::from_utf8_lossy(path));
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        };
        let bytes = Box::new(Part { lying: self, number });
        Ok(Content { bytes, size })
    }
}

/// A file of a layer that lies somewhere.
struct Part<'a> {
    lying: &'a Lying<'a>,
    number: u32,
}

impl ReadAt for Part<'_> {
    fn some_at(&self, at: u64, into: &mut [u8]) -> std::io::Result<usize> {
        let Lying { survey, layer } = self.lying;
        survey.read_at(layer, self.number, at, into)
    }
}

/// A directory.
#[derive(Debug)]
pub struct Tree<'a> {
    /// It.
    pub root: &'a Root,
}

/// Deepest directory that is looked into.
const DEEPEST: usize = 256;

/// Most objects of a directory tree that are looked at.
const MOST: usize = 20_000_000;

impl Files for Tree<'_> {
    fn visit(&self, see: &mut dyn FnMut(Found<'_>) -> Result<(), Error>) -> Result<(), Error> {
        let mut waiting = vec![PathBuf::new()];
        let mut seen = 0;
        while let Some(dir) = waiting.pop() {
            let mut entries = match self.root.read_dir(&dir) {
                Ok(entries) => entries,
                // Gone meanwhile, or not for this user: the rest is looked at.
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
                        && !dir.as_os_str().is_empty() =>
                {
                    continue;
                }
                other => other.context(|| format!("list {}", dir.display()))?,
            };
            entries.sort_by(|a, b| b.name.cmp(&a.name));
            for entry in entries {
                seen += 1;
                if seen > MOST {
                    return Err(Error::new(
                        ErrorKind::ResourceExhausted,
                        format!("more than {MOST} files"),
                    ));
                }
                let path = dir.join(&entry.name);
                let Ok(stat) = self.root.symlink_metadata(&path) else {
                    continue;
                };
                let kind = match FileKind::of_mode(stat.st_mode) {
                    FileKind::File => FoundKind::File,
                    FileKind::Directory => FoundKind::Directory,
                    FileKind::Symlink => FoundKind::Symlink,
                    _ => FoundKind::Other,
                };
                see(Found {
                    path: path.as_os_str().as_bytes(),
                    kind,
                    size: u64::try_from(stat.st_size).unwrap_or(0),
                    mode: stat.st_mode & 0o7777,
                })?;
                if kind == FoundKind::Directory && path.components().count() < DEEPEST {
                    waiting.push(path);
                }
            }
        }
        Ok(())
    }

    fn open(&self, path: &[u8]) -> Result<Content<'_>, Error> {
        open(self.root, path)
    }
}

fn open(root: &Root, path: &[u8]) -> Result<Content<'static>, Error> {
    let path = Path::new(OsStr::from_bytes(path));
    let what = || format!("open {}", path.display());
    let file = root.open_file(path).context(what)?;
    let size = file.metadata().context(what)?.len();
    Ok(Content {
        bytes: Box::new(file),
        size,
    })
}
