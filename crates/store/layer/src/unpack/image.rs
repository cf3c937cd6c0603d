use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use dhow_types::ErrorKind;

use super::ledger::Ledger;
use super::links::follow;
use super::sorted::Sorted;
use super::spool::Spool;
use super::tree::{MOST_DEPTH, OPAQUE, WHITEOUT, filter_xattrs, hash_zeros, join, refused, split_path};
use crate::column::{self, Column};
use crate::erofs::{self, Meta, TAR};
use crate::hash::ContentHasher;
use crate::tar::{Parser, Source};
use crate::varint::{self, Bytes};
use crate::{Context, Entry, EntryKind, Error, Limits};

/// The same tree as `Tree` makes of a tar, which nobody can see: the contents stay where they are in the archive. What is
/// said there about names, links and whiteouts holds here; both unpack the hostile corpus alike.
pub(super) struct Draft {
    dir: PathBuf,
    limits: Limits,
    /// The body of a file is the byte of the tar at which it begins.
    ledger: Ledger,
    /// The directory of the last entry.
    here: Vec<u8>,
    sparse: Sparse,
    size: u64,
}

/// Offset in the file and length of each piece of a sparse file, which follow each other in the tar.
pub(super) type Pieces = Vec<(u64, u64)>;

/// The pieces of the sparse files of a layer. One file may have tens of thousands.
struct Sparse {
    /// Where the bodies begin in the tar, and where their pieces are in the spool.
    starts: Column<u64>,
    places: Column<u64>,
    spool: Spool,
}

impl Sparse {
    fn keeping(dir: &Path, kept: usize) -> Self {
        Self {
            starts: Column::keeping(dir, kept),
            places: Column::keeping(dir, kept),
            spool: Spool::new(dir, kept),
        }
    }

    /// Notes the pieces of a body, which begins behind all others.
    fn add(&mut self, start: u64, pieces: &[(u64, u64)]) -> Result<(), Error> {
        let mut record = Vec::new();
        for number in pieces.iter().flat_map(|(offset, length)| [*offset, *length]) {
            varint::put(&mut record, number);
        }
        self.starts.push(start)?;
        self.places.push(self.spool.append(&[&record])?)
    }

    /// The pieces of the body that begins there, if it is that of a sparse file.
    fn find(&mut self, start: u64) -> Result<Option<Pieces>, Error> {
        let (mut low, mut high) = (0, self.starts.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.starts.get(middle)? < start {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if low == self.starts.len() || self.starts.get(low)? != start {
            return Ok(None);
        }
        let mut rest = Bytes::new(self.spool.read(self.places.get(low)?)?);
        let mut pieces = Pieces::new();
        while !rest.is_empty() {
            let (Some(offset), Some(length)) = (rest.number(), rest.number()) else {
                let message = "the pieces of a sparse file are damaged before they were used";
                return Err(Error::new(ErrorKind::Internal, message));
            };
            pieces.push((offset, length));
        }
        Ok(Some(pieces))
    }
}

/// What is done with the body of a file when it comes by, by the byte of the tar at which it begins.
pub(super) type See<'s, S> = dyn FnMut(u64, &mut Entry, &mut Parser<S>) -> Result<(), Error> + 's;

/// Reads the body, and notes its hash.
pub(super) fn hash_body<S: Source>(_: u64, entry: &mut Entry, parser: &mut Parser<S>) -> Result<(), Error> {
    let mut hasher = ContentHasher::new();
    let mut position = 0_u64;
    while let Some(piece) = parser.piece()? {
        hash_zeros(&mut hasher, piece.offset - position);
        hasher.update(piece.bytes);
        let count = piece.bytes.len();
        position = piece.offset + count as u64;
        parser.consume(count);
    }
    hash_zeros(&mut hasher, entry.size - position);
    entry.content = Some(hasher.finish());
    Ok(())
}

/// What a finished draft holds.
pub(super) struct Drafted {
    pub(super) sorted: Sorted,
    pub(super) size: u64,
    pub(super) meta: Meta,
}

impl Draft {
    pub(super) fn new(dir: &Path, limits: Limits) -> Self {
        Self::with(Ledger::new(dir), Sparse::keeping(dir, column::KEPT), dir, limits)
    }

    /// One that makes no file, for who may make none.
    pub(super) fn in_memory(limits: Limits) -> Self {
        let dir = Path::new("");
        Self::with(Ledger::in_memory(), Sparse::keeping(dir, usize::MAX), dir, limits)
    }

    fn with(ledger: Ledger, sparse: Sparse, dir: &Path, limits: Limits) -> Self {
        Self {
            dir: dir.to_owned(),
            limits,
            ledger,
            here: Vec::new(),
            sparse,
            size: 0,
        }
    }

    /// Adds one entry; `see` gets the body of a file.
    pub(super) fn add<S: Source>(
        &mut self,
        mut entry: Entry,
        parser: &mut Parser<S>,
        see: &mut See<'_, S>,
    ) -> Result<(), Error> {
        if entry.path.is_empty() {
            if entry.kind == EntryKind::Directory {
                return Ok(());
            }
            return Err(refused("the root must be a directory"));
        }
        filter_xattrs(&mut entry)?;
        if entry.path.starts_with(b".wh..wh.") && entry.path != OPAQUE {
            return Ok(());
        }
        let (dir, name) = split_path(&entry.path);
        if dir
            .split(|byte| *byte == b'/')
            .any(|part| part.starts_with(WHITEOUT))
        {
            return Err(refused("names that begin with .wh. are reserved"));
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            let (dir, hidden) = (dir.to_vec(), hidden.to_vec());
            return self.whiteout(&dir, &hidden, entry.mtime);
        }
        let dir = dir.to_vec();
        let real = self.enter(&dir, entry.mtime)?;
        if real != dir {
            entry.path = join(&real, name);
        }
        if entry.kind == EntryKind::CharDevice && (entry.major, entry.minor) == (0, 0) {
            let name = split_path(&entry.path).1.to_vec();
            return self.whiteout(&real, &name, entry.mtime);
        }
        match entry.kind {
            EntryKind::File => self.file(entry, parser, see),
            EntryKind::Directory => {
                if self
                    .kind(&entry.path)?
                    .is_some_and(|kind| kind != EntryKind::Directory)
                {
                    self.clear(&entry.path, entry.mtime)?;
                }
                self.ledger.push(&entry, None)
            }
            EntryKind::Hardlink => self.hard_link(entry),
            _ => {
                self.vacate(&entry.path, entry.mtime)?;
                self.ledger.push(&entry, None)
            }
        }
    }

    /// What is at `path`.
    fn kind(&mut self, path: &[u8]) -> Result<Option<EntryKind>, Error> {
        Ok(self.ledger.original(path)?.map(|entry| entry.kind))
    }

    /// Makes room at `path`.
    fn vacate(&mut self, path: &[u8], mtime: i64) -> Result<(), Error> {
        if self.ledger.find(path)?.is_some() {
            self.clear(path, mtime)?;
        }
        Ok(())
    }

    /// Takes away what is at `path`; its directory is there afterwards.
    fn clear(&mut self, path: &[u8], mtime: i64) -> Result<(), Error> {
        self.here.clear();
        let was_whiteout = self.kind(path)? == Some(EntryKind::Whiteout);
        self.ledger.forget(path)?;
        if was_whiteout {
            // What is made here now must go on hiding what is below; only a directory has to be told.
            self.ledger.mark_opaque(path.to_vec())?;
        }
        let parent = split_path(path).0.to_vec();
        self.enter(&parent, mtime).map(drop)
    }

    fn file<S: Source>(
        &mut self,
        mut entry: Entry,
        parser: &mut Parser<S>,
        see: &mut See<'_, S>,
    ) -> Result<(), Error> {
        self.vacate(&entry.path, entry.mtime)?;
        let start = parser.source().position();
        let sparse = parser.sparse().map(|map| map.data.clone());
        see(start, &mut entry, parser)?;
        self.size += entry.size;
        if let Some(pieces) = sparse {
            self.sparse.add(start, &pieces)?;
        }
        self.ledger.push(&entry, Some(start))
    }

    fn hard_link(&mut self, mut entry: Entry) -> Result<(), Error> {
        let (dir, name) = split_path(&entry.link);
        let target = join(&self.follow(dir)?, name);
        let Some(original) = self.ledger.original(&target)? else {
            let shown = String::from_utf8_lossy(&entry.link).into_owned();
            return Err(super::tree::lower_link(&shown));
        };
        if matches!(original.kind, EntryKind::Directory | EntryKind::Whiteout) {
            return Err(refused("it is a hard link to a directory"));
        }
        entry.link = original.path;
        if target == entry.path || entry.link == entry.path {
            return Err(refused("it is a hard link to itself"));
        }
        self.vacate(&entry.path, entry.mtime)?;
        if self.ledger.find(&entry.link)?.is_none() {
            return Err(Error::new(
                ErrorKind::NotFound,
                "it is a hard link to what it replaces",
            ));
        }
        entry.size = 0;
        entry.xattrs.clear();
        self.ledger.push(&entry, None)
    }

    fn whiteout(&mut self, dir: &[u8], hidden: &[u8], mtime: i64) -> Result<(), Error> {
        let real = self.enter(dir, mtime)?;
        if hidden == &OPAQUE[WHITEOUT.len()..] {
            if real.is_empty() {
                let mut root = Entry::new(Vec::new(), EntryKind::Directory, 0o755);
                root.implied = true;
                self.ledger.push(&root, None)?;
            }
            return self.ledger.mark_opaque(real);
        }
        if matches!(hidden, b"" | b"." | b"..") || hidden.starts_with(WHITEOUT) {
            return Err(refused("it is a whiteout of nothing that can be"));
        }
        let mut entry = Entry::new(join(&real, hidden), EntryKind::Whiteout, 0);
        entry.mtime = mtime;
        match self.ledger.find(&entry.path)?.map(|there| there.kind) {
            None => self.ledger.push(&entry, None),
            Some(EntryKind::Directory) => self.ledger.mark_opaque(entry.path),
            Some(_) => Ok(()),
        }
    }

    /// Goes to the directory `dir`, following links inside and making what is missing; its real path.
    fn enter(&mut self, dir: &[u8], mtime: i64) -> Result<Vec<u8>, Error> {
        if dir.is_empty() || self.here == dir || self.walk(dir, mtime)? {
            return Ok(dir.to_vec());
        }
        let real = self.follow(dir)?;
        if self.walk(&real, mtime)? {
            return Ok(real);
        }
        // A whiteout on the way: the layer deletes something and puts a directory in its place.
        for at in ends(&real) {
            if self.kind(&real[..at])? == Some(EntryKind::Whiteout) {
                self.clear(&real[..at], mtime)?;
            }
        }
        if self.walk(&real, mtime)? {
            return Ok(real);
        }
        Err(refused(
            "open its directory: something on the way is no directory",
        ))
    }

    /// Makes what is missing on the way to `dir`; `false` when something there is no directory.
    fn walk(&mut self, dir: &[u8], mtime: i64) -> Result<bool, Error> {
        if dir.split(|byte| *byte == b'/').count() > MOST_DEPTH {
            return Err(refused("open its directory: it is too deep"));
        }
        // Up to where it parts from the directory before, all are directories.
        let known = common(&self.here, dir);
        for at in ends(dir).filter(|at| *at > known) {
            match self.kind(&dir[..at])? {
                Some(EntryKind::Directory) => (),
                Some(_) => return Ok(false),
                None => {
                    let mut entry = Entry::new(&dir[..at], EntryKind::Directory, 0o755);
                    entry.implied = true;
                    entry.mtime = mtime;
                    self.ledger.push(&entry, None)?;
                }
            }
        }
        self.here = dir.to_vec();
        Ok(true)
    }

    /// The real path of the directory `dir` after all links in it; what is missing stays as it is named.
    fn follow(&mut self, dir: &[u8]) -> Result<Vec<u8>, Error> {
        let ledger = &mut self.ledger;
        follow(dir, self.limits.path, |path| {
            let entry = ledger.original(path)?;
            let link = entry.filter(|entry| entry.kind == EntryKind::Symlink);
            Ok(link.map(|entry| entry.link))
        })
    }

    /// The entries sorted by path, each file with where its body begins.
    pub(super) fn into_files(self) -> Result<Vec<(Entry, Option<u64>)>, Error> {
        self.ledger.into_files()
    }

    /// Writes what is not the tar, whose `length` bytes are in the image already.
    pub(super) fn finish(self, image: &File, length: u64) -> Result<Drafted, Error> {
        let mut end = (TAR + length).next_multiple_of(512);
        let mut data = Column::new(&self.dir);
        let mut sparse = self.sparse;
        let mut sorted = self.ledger.sort(&self.dir, |entry, body| {
            let mut place = 0;
            if let Some(start) = body {
                let pieces = sparse.find(start)?;
                place = TAR + start;
                if pieces.is_some() || place % 512 != 0 {
                    place = end;
                    let whole = [(0, entry.size)];
                    unfold(image, start, pieces.as_deref().unwrap_or(&whole), place)?;
                    end = (end + entry.size).next_multiple_of(512);
                }
            }
            data.push(erofs::blocks(place)?)
        })?;
        drop(sparse);
        let meta = erofs::finish(image, &self.dir, &mut sorted.index, &data, &sorted.links, end)?;
        Ok(Drafted {
            sorted,
            size: self.size,
            meta,
        })
    }
}

/// Writes the content of a file that begins at `start` of the tar in one piece at `to`, holes left out.
fn unfold(image: &File, start: u64, pieces: &[(u64, u64)], to: u64) -> Result<(), Error> {
    let mut from = TAR + start;
    let mut buffer = vec![0; 128 << 10];
    for (offset, length) in pieces {
        let mut done = 0;
        while done < *length {
            let count = usize::try_from(length - done).map_or(buffer.len(), |left| left.min(buffer.len()));
            let part = &mut buffer[..count];
            image
                .read_exact_at(part, from)
                .context(|| "read a sparse file of the archive")?;
            image
                .write_all_at(part, to + offset + done)
                .map_err(|error| super::write_failure(error, "write a sparse file"))?;
            done += count as u64;
            from += count as u64;
        }
    }
    Ok(())
}

/// Length of the longest path that is both paths or leads to both.
fn common(a: &[u8], b: &[u8]) -> usize {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let ends = |path: &[u8]| path.get(same).is_none_or(|byte| *byte == b'/');
    if ends(a) && ends(b) {
        return same;
    }
    a[..same].iter().rposition(|byte| *byte == b'/').unwrap_or(0)
}

/// Ends of the prefixes of a path that are whole paths, shortest first.
fn ends(path: &[u8]) -> impl Iterator<Item = usize> + use<> {
    let slashes: Vec<usize> = path
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .map(|(at, _)| at)
        .chain([path.len()])
        .filter(|at| *at > 0)
        .collect();
    slashes.into_iter()
}

/// The image of a layer in the making.
pub(super) fn create(dir: &Path) -> Result<File, Error> {
    let path = dir.join("image");
    File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .context(|| format!("create {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_sparse_files_are_found_by_where_their_bodies_begin() {
        let dir = tempfile::tempdir().unwrap();
        let pieces = |body: u64| -> Pieces { (0..body % 90).map(|at| (at * 8192, body)).collect() };
        for kept in [100, usize::MAX] {
            let mut sparse = Sparse::keeping(dir.path(), kept);
            assert_eq!(sparse.find(0).unwrap(), None);
            for body in 0..2000 {
                sparse.add(body * 1536, &pieces(body)).unwrap();
            }
            for body in (0..2000).map(|body| body * 787 % 2000) {
                assert_eq!(sparse.find(body * 1536).unwrap(), Some(pieces(body)));
                assert_eq!(sparse.find(body * 1536 + 512).unwrap(), None);
            }
        }
    }
}
