use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dhow_rootpath::Root;
use dhow_types::ErrorKind;
use rustix::fs::{
    AtFlags, FileType, StatxFlags, ftruncate, linkat, readlinkat, renameat, statat, statx, utimensat,
};
use rustix::io::Errno;

use super::ledger::Ledger;
use super::links::follow;
use super::place::{Host, disk_of, failure, make_whiteout, open_dir, open_host, times};
use super::sorted::Sorted;
use crate::hash::ContentHasher;
use crate::split::SplitWriter;
use crate::tar::{Parser, Source};
use crate::{Context, Entry, EntryKind, Error, Limits};

/// Directories of the current path that are held open.
const MOST_OPEN: usize = 64;

/// Files from this size on begin to go to the disk at once, so that the flush at the end, which is waited for, has little
/// to do. Smaller ones are left to be allocated together.
const LARGE: u64 = 128 << 10;

/// Directories below each other.
pub(super) const MOST_DEPTH: usize = 512;

/// Prefix of the names that mean something to layers (image-spec `layer.md`, "Whiteouts").
pub(super) const WHITEOUT: &[u8] = b".wh.";
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";

/// The tree of a layer while it is written. Only this process sees it; every step goes from the descriptor of one
/// directory to one name in it, following no link, so that nothing of the archive can lead out.
pub(super) struct Tree {
    dir: PathBuf,
    fs: OwnedFd,
    host: Host,
    limits: Limits,
    ledger: Ledger,
    /// The directory of the last entry, and the open directories on the way to it.
    here: Vec<u8>,
    levels: Vec<Level>,
    size: u64,
    disk: u64,
    lost: bool,
    /// Cleared when something could not be set for want of a right.
    owners: bool,
    /// Cleared when a deletion could not be marked in the tree.
    marks: bool,
}

struct Level {
    /// Length of its path in `here`.
    end: usize,
    fd: Option<OwnedFd>,
}

/// What a finished tree holds.
pub(super) struct Finished {
    pub(super) sorted: Sorted,
    pub(super) size: u64,
    pub(super) disk: u64,
    pub(super) owners: bool,
    pub(super) marks: bool,
}

pub(super) fn refused(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, why)
}

pub(super) fn lower_link(target: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("it is a hard link to {target:?}, which is not in this layer"),
    )
    .with_hint("a layer that links to files of lower layers cannot be stored by itself: repack the image")
}

/// Directory and last name of a path.
pub(super) fn split_path(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

pub(super) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        name.to_vec()
    } else {
        [dir, b"/", name].concat()
    }
}

impl Tree {
    pub(super) fn create(dir: &Path, limits: Limits) -> Result<Self, Error> {
        let path = dir.join("fs");
        let made = std::fs::create_dir(&path);
        made.context(|| format!("make the directory {}", path.display()))?;
        let fs = open_host(&path)?;
        let host = Host::probe(fs.as_fd())?;
        // The root of every layer is 0755 root, as docker has it, whatever an entry `./` says.
        rustix::fs::fchmod(&fs, rustix::fs::Mode::from_raw_mode(0o755)).map_err(|e| failure(e, "chmod"))?;
        Ok(Self {
            dir: dir.to_owned(),
            fs,
            owners: host.privileged,
            marks: true,
            host,
            limits,
            ledger: Ledger::new(dir),
            here: Vec::new(),
            levels: Vec::new(),
            size: 0,
            disk: 4096,
            lost: false,
        })
    }

    /// Adds one entry and its body.
    pub(super) fn add<S: Source>(
        &mut self,
        mut entry: Entry,
        parser: &mut Parser<S>,
        split: &mut SplitWriter,
    ) -> Result<(), Error> {
        if entry.path.is_empty() {
            if entry.kind == EntryKind::Directory {
                return Ok(());
            }
            return Err(refused("the root must be a directory"));
        }
        filter_xattrs(&mut entry)?;
        if entry.path.starts_with(b".wh..wh.") && entry.path != OPAQUE {
            // What AUFS kept for itself; docker leaves it out as well.
            return keep(parser, split);
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
            keep(parser, split)?;
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
            EntryKind::File => self.file(entry, parser, split),
            EntryKind::Directory => self.directory(entry),
            EntryKind::Hardlink => self.hard_link(entry),
            _ => self.other(entry),
        }
    }

    /// Creates with `make`; when the name is taken, clears it and tries once more.
    fn making<T>(
        &mut self,
        path: &[u8],
        make: impl Fn(&Host, BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, Error> {
        let name = split_path(path).1;
        match make(&self.host, self.current(), name) {
            Err(Errno::EXIST) => (),
            other => return other.map_err(|e| failure(e, "create it")),
        }
        self.clear(path)?;
        let parent = split_path(path).0.to_vec();
        self.enter(&parent, 0)?;
        make(&self.host, self.current(), name).map_err(|e| failure(e, "create it"))
    }

    fn file<S: Source>(
        &mut self,
        mut entry: Entry,
        parser: &mut Parser<S>,
        split: &mut SplitWriter,
    ) -> Result<(), Error> {
        let mode = entry.mode;
        let fd = self.making(&entry.path, |host, dir, name| host.create(dir, name, mode))?;
        let mut body = None;
        let stored = parser.stored();
        if stored > 0 {
            let pieces = parser.sparse().map(|map| map.data.clone()).unwrap_or_default();
            body = Some(split.body(&entry.path, stored, &pieces)?);
        }
        let mut hasher = ContentHasher::new();
        let mut position = 0_u64;
        while let Some(piece) = parser.piece()? {
            hash_zeros(&mut hasher, piece.offset - position);
            let written = write_piece(fd.as_fd(), piece.bytes, piece.offset, position);
            written.map_err(|e| failure(e, "write it"))?;
            hasher.update(piece.bytes);
            let count = piece.bytes.len();
            position = piece.offset + count as u64;
            parser.consume(count);
        }
        let sparse = stored != entry.size;
        if sparse {
            hash_zeros(&mut hasher, entry.size - position);
            ftruncate(&fd, entry.size).map_err(|e| failure(e, "set its size"))?;
        }
        entry.content = Some(hasher.finish());
        self.host.dress_file(fd.as_fd(), &entry)?;
        if entry.size >= LARGE {
            dhow_sys::file::begin_writing(&fd, 0, 0);
        }
        self.size += entry.size;
        self.disk += if sparse {
            blocks(fd.as_fd())?
        } else {
            disk_of(entry.size)
        };
        self.ledger.push(&entry, body.map(u64::from))
    }

    fn directory(&mut self, entry: Entry) -> Result<(), Error> {
        let name = split_path(&entry.path).1;
        match self.host.make_dir(self.current(), name, entry.mode) {
            Ok(()) => (),
            Err(Errno::EXIST) => {
                let stat = statat(self.current(), name, AtFlags::SYMLINK_NOFOLLOW);
                let stat = stat.map_err(|e| failure(e, "look at it"))?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    // Named twice, or implied before: the last word on owner, mode and attributes wins.
                    self.host
                        .chmod(self.current(), name, self.host.first_dir_mode(entry.mode))?;
                    let before = self.ledger.find(&entry.path)?.map(|before| before.xattrs);
                    for (key, _) in before.unwrap_or_default() {
                        self.host.take_attribute(self.current(), name, &key)?;
                    }
                } else {
                    self.making(&entry.path, |host, dir, name| {
                        host.make_dir(dir, name, entry.mode)
                    })?;
                }
            }
            Err(errno) => return Err(failure(errno, "make the directory")),
        }
        let name = split_path(&entry.path).1;
        self.host.own(self.current(), name, &entry)?;
        self.host.attributes(self.current(), name, &entry)?;
        self.ledger.push(&entry, None)
    }

    fn hard_link(&mut self, mut entry: Entry) -> Result<(), Error> {
        let (dir, name) = split_path(&entry.link);
        let target = join(&self.follow(dir)?, name);
        let Some(original) = self.ledger.original(&target)? else {
            let shown = String::from_utf8_lossy(&entry.link).into_owned();
            return Err(lower_link(&shown));
        };
        let kind = match original.kind {
            EntryKind::Directory | EntryKind::Whiteout => {
                return Err(refused("it is a hard link to a directory"));
            }
            kind => {
                entry.link = original.path;
                kind
            }
        };
        if target == entry.path || entry.link == entry.path {
            // A name cannot be a link to itself; GNU tar says nothing of the kind.
            return Err(refused("it is a hard link to itself"));
        }
        let fs = self.fs.try_clone().context(|| "duplicate a directory handle")?;
        let link = entry.link.clone();
        let made = self.making(&entry.path, |_, dir, name| {
            linkat(&fs, link.as_slice(), dir, name, AtFlags::empty())
        });
        match made {
            // What could not be made for want of a right cannot be linked either.
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    && !self.host.privileged
                    && matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice) => {}
            other => other?,
        }
        entry.size = 0;
        entry.xattrs.clear();
        self.ledger.push(&entry, None)
    }

    fn other(&mut self, entry: Entry) -> Result<(), Error> {
        let made = self.making(&entry.path, |host, dir, name| match entry.kind {
            EntryKind::Symlink => host.symlink(dir, name, &entry).map(|()| true),
            _ => host.node(dir, name, &entry),
        })?;
        if made {
            self.host
                .dress_other(self.current(), split_path(&entry.path).1, &entry)?;
        }
        if entry.link.len() >= 60 {
            // Longer ones do not fit the inode of ext4.
            self.disk += 4096;
        }
        self.ledger.push(&entry, None)
    }

    /// A `.wh.` entry for `hidden` in `dir`.
    fn whiteout(&mut self, dir: &[u8], hidden: &[u8], mtime: i64) -> Result<(), Error> {
        let real = self.enter(dir, mtime)?;
        if hidden == &OPAQUE[WHITEOUT.len()..] {
            if real.is_empty() {
                // The root is in the index only when there is something to say about it.
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
        let made = if self.is_unmade(&entry.path)? {
            Err(Errno::EXIST)
        } else {
            make_whiteout(self.current(), hidden)
        };
        match made {
            Ok(marked) => {
                self.marks &= marked;
                self.ledger.push(&entry, None)
            }
            // The layer has something of its own there, which hides what is below by itself
            // ("can only be hidden by whiteout files in subsequent layers"); a directory must be told to.
            Err(Errno::EXIST) => {
                let there = self.ledger.find(&entry.path)?;
                if there.is_some_and(|there| there.kind == EntryKind::Directory) {
                    self.ledger.mark_opaque(entry.path)?;
                }
                Ok(())
            }
            Err(errno) => Err(failure(errno, "make a whiteout")),
        }
    }

    /// Takes away what is at `path`, keeping contents that the exact tar still needs in `lost/`.
    fn clear(&mut self, path: &[u8]) -> Result<(), Error> {
        // The open directories may be below it.
        self.here.clear();
        self.levels.clear();
        let was_whiteout = self
            .ledger
            .find(path)?
            .is_some_and(|entry| entry.kind == EntryKind::Whiteout);
        let lost = self.dir.join("lost");
        for (number, path) in self.ledger.forget(path)? {
            if !self.lost {
                std::fs::create_dir(&lost).context(|| format!("make the directory {}", lost.display()))?;
                self.lost = true;
            }
            let target = lost.join(number.to_string());
            renameat(&self.fs, path.as_slice(), rustix::fs::CWD, &target)
                .map_err(|e| failure(e, "keep what is replaced"))?;
        }
        let root = Root::from_fd(self.fs.try_clone().context(|| "duplicate a directory handle")?);
        let shown = std::ffi::OsStr::from_bytes(path);
        root.remove_all(Path::new(shown))
            .context(|| "replace what was there")?;
        if was_whiteout {
            // What is made here now must go on hiding what is below; only a directory has to be told.
            self.ledger.mark_opaque(path.to_vec())?;
        }
        Ok(())
    }

    /// The open directory of the last `enter`.
    fn current(&self) -> BorrowedFd<'_> {
        self.levels
            .last()
            .and_then(|level| level.fd.as_ref())
            .unwrap_or(&self.fs)
            .as_fd()
    }

    /// Goes to the directory `dir`, following links inside and making what is missing; its real path.
    fn enter(&mut self, dir: &[u8], mtime: i64) -> Result<Vec<u8>, Error> {
        match self.walk(dir, mtime) {
            Err(Errno::NOTDIR | Errno::LOOP) => (),
            other => {
                return other
                    .map(|()| dir.to_vec())
                    .map_err(|e| failure(e, "open its directory"));
            }
        }
        let real = self.follow(dir)?;
        match self.walk(&real, mtime) {
            Err(Errno::NOTDIR) => (),
            other => return other.map(|()| real).map_err(|e| failure(e, "open its directory")),
        }
        // A whiteout on the way: the layer deletes something and puts a directory in its place.
        for (at, _) in real
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
            .chain([(real.len(), &b'/')])
        {
            let part = &real[..at];
            if self
                .ledger
                .find(part)?
                .is_some_and(|entry| entry.kind == EntryKind::Whiteout)
            {
                self.clear(part)?;
            }
        }
        self.walk(&real, mtime)
            .map_err(|e| failure(e, "open its directory"))?;
        Ok(real)
    }

    /// Goes to `dir`, which must not lead through a link; makes what is missing.
    fn walk(&mut self, dir: &[u8], mtime: i64) -> Result<(), Errno> {
        if self.here == dir {
            return Ok(());
        }
        if dir.split(|byte| *byte == b'/').count() > MOST_DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        while let Some(level) = self.levels.last() {
            let inside = dir.get(..level.end) == self.here.get(..level.end)
                && dir.get(level.end).is_none_or(|byte| *byte == b'/');
            if inside && level.fd.is_some() {
                break;
            }
            self.levels.pop();
        }
        let mut start = self.levels.last().map_or(0, |level| level.end);
        self.here.clear();
        self.here.extend_from_slice(dir);
        while start < dir.len() {
            if start > 0 {
                start += 1;
            }
            let end = dir[start..]
                .iter()
                .position(|byte| *byte == b'/')
                .map_or(dir.len(), |at| start + at);
            let opened = self.step(dir, start, end, mtime);
            match opened {
                Ok(fd) => self.levels.push(Level { end, fd: Some(fd) }),
                Err(errno) => {
                    let reached = self.levels.last().map_or(0, |level| level.end);
                    self.here.truncate(reached);
                    return Err(errno);
                }
            }
            if self.levels.len() > MOST_OPEN {
                let old = self.levels.len() - MOST_OPEN - 1;
                self.levels[old].fd = None;
            }
            start = end;
        }
        Ok(())
    }

    /// Opens, or makes, the directory `path[start..end]` in the current one.
    fn step(&mut self, path: &[u8], start: usize, end: usize, mtime: i64) -> Result<OwnedFd, Errno> {
        let name = &path[start..end];
        match open_dir(self.current(), name) {
            Err(Errno::NOENT) => (),
            other => return other,
        }
        if self.is_unmade(&path[..end]).map_err(|_| Errno::NOSPC)? {
            return Err(Errno::NOTDIR);
        }
        self.host.make_dir(self.current(), name, 0o755)?;
        let mut entry = Entry::new(&path[..end], EntryKind::Directory, 0o755);
        entry.implied = true;
        entry.mtime = mtime;
        self.ledger.push(&entry, None).map_err(|_| Errno::NOSPC)?;
        open_dir(self.current(), name)
    }

    /// Whether the layer has something at `path` that this process may not make, where nothing is on the disk: a device, or
    /// a hard link to one.
    fn is_unmade(&mut self, path: &[u8]) -> Result<bool, Error> {
        let device = |entry: &Entry| {
            let kinds = [EntryKind::CharDevice, EntryKind::BlockDevice, EntryKind::Hardlink];
            kinds.contains(&entry.kind)
        };
        Ok(!self.host.privileged && self.ledger.find(path)?.as_ref().is_some_and(device))
    }

    /// The real path of the directory `dir` after all links in it; what is missing stays as it is named.
    fn follow(&self, dir: &[u8]) -> Result<Vec<u8>, Error> {
        follow(dir, self.limits.path, |path| {
            match readlinkat(&self.fs, path, Vec::new()) {
                Ok(target) => Ok(Some(target.into_bytes())),
                Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => Ok(None),
                Err(errno) => Err(failure(errno, "look at its directory")),
            }
        })
    }

    /// Sets what had to wait, and gives the entries.
    pub(super) fn finish(mut self) -> Result<Finished, Error> {
        self.levels.clear();
        let ledger = std::mem::replace(&mut self.ledger, Ledger::new(&self.dir));
        let (mut number, mut directories) = (0_usize, Vec::new());
        let mut sorted = ledger.sort(&self.dir, |entry, _| {
            if entry.kind == EntryKind::Directory {
                directories.push(number);
            }
            number += 1;
            Ok(())
        })?;
        // Deepest first: when we are not root, a directory closed to us would hide those in it.
        for number in directories.into_iter().rev() {
            let entry = sorted.index.entry(number)?;
            self.finish_dir(&entry)
                .context(|| format!("finish {:?}", String::from_utf8_lossy(&entry.path)))?;
        }
        Ok(Finished {
            sorted,
            size: self.size,
            disk: self.disk,
            owners: self.owners,
            marks: self.marks,
        })
    }

    fn finish_dir(&mut self, entry: &Entry) -> Result<(), Error> {
        let fs = self.fs.as_fd();
        if entry.opaque {
            self.marks &= self.host.make_opaque(fs, &entry.path)?;
        }
        if entry.path.is_empty() {
            return Ok(());
        }
        if self.host.dir_needs_mode(entry.mode) {
            self.host.chmod(fs, &entry.path, entry.mode)?;
        }
        let stat = statx(
            fs,
            entry.path.as_slice(),
            AtFlags::SYMLINK_NOFOLLOW,
            StatxFlags::BLOCKS,
        )
        .map_err(|e| failure(e, "look at it"))?;
        self.disk += stat.stx_blocks * 512;
        utimensat(
            fs,
            entry.path.as_slice(),
            &times(entry.mtime),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(|e| failure(e, "set the time"))
    }
}

/// Writes a piece; seeks only where it does not follow the one before.
fn write_piece(fd: BorrowedFd<'_>, mut bytes: &[u8], offset: u64, position: u64) -> Result<(), Errno> {
    if offset != position {
        rustix::fs::seek(fd, rustix::fs::SeekFrom::Start(offset))?;
    }
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Err(Errno::INTR) => (),
            Err(errno) => return Err(errno),
            Ok(count) => bytes = &bytes[count..],
        }
    }
    Ok(())
}

/// Hashes `count` zero bytes: a hole.
pub(super) fn hash_zeros(hasher: &mut ContentHasher, mut count: u64) {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while count > 0 {
        let part = usize::try_from(count).map_or(ZEROS.len(), |count| count.min(ZEROS.len()));
        hasher.update(&ZEROS[..part]);
        count -= part as u64;
    }
}

/// Bytes of disk that an open file takes now.
fn blocks(fd: BorrowedFd<'_>) -> Result<u64, Error> {
    let stat =
        statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BLOCKS).map_err(|e| failure(e, "look at it"))?;
    Ok(stat.stx_blocks * 512)
}

/// Keeps a body that becomes no file in the split form.
fn keep<S: Source>(parser: &mut Parser<S>, split: &mut SplitWriter) -> Result<(), Error> {
    while parser.keep_piece()? {
        if let Some(literal) = parser.literal() {
            split.literal(literal)?;
        }
    }
    Ok(())
}

/// Keeps the attributes that mean something on another machine: capabilities and what programs set for themselves.
///
/// # Errors
/// `InvalidArgument` for `trusted.*` and for what overlayfs would read as its own: an image could put a redirect to any
/// lower directory there.
pub(super) fn filter_xattrs(entry: &mut Entry) -> Result<(), Error> {
    for (name, _) in &entry.xattrs {
        if name.starts_with(b"trusted.") || name.starts_with(b"user.overlay.") {
            let shown = String::from_utf8_lossy(name);
            return Err(refused(format!(
                "the extended attribute {shown:?} must not come with a layer"
            )));
        }
    }
    // Labels and measurements of the packer's own host (security.selinux, security.ima, system.*) stay out.
    entry
        .xattrs
        .retain(|(name, _)| name == b"security.capability" || name.starts_with(b"user."));
    Ok(())
}
