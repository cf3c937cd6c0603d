use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use dhow_hash::Hasher;
use dhow_rootpath::{FileKind, Root};
use dhow_types::{Digest, ErrorKind};
use rustix::fs::Stat;

use crate::erofs::{self, Meta};
use crate::hash::ContentHasher;
use crate::state::State;
use crate::{Context, Entry, EntryKind, Error, Index, Layer, Problem};

/// Most problems that are listed.
const MOST: usize = 1000;

/// Compares the tree at `root` with its index: what is missing, what is too much, what is different.
pub(crate) fn verify(root: Root, index: &Index, state: &State) -> Result<Vec<Problem>, Error> {
    let mut check = Check {
        root,
        owners: state.owners,
        marks: state.marks,
        inodes: HashMap::new(),
        problems: Vec::new(),
    };
    for entry in index.entries() {
        check.entry(index, &entry)?;
        if check.problems.len() >= MOST {
            return Ok(check.problems);
        }
    }
    check.strangers(index, Vec::new())?;
    Ok(check.problems)
}

/// What is said of an image whose metadata are not as they were written.
pub(crate) const BAD_IMAGE: &str = "has a damaged image";

/// Compares an image with its state and its layer's hash, without mounting it.
pub(crate) fn image(layer: &Layer, meta: Meta) -> Result<Vec<Problem>, Error> {
    let problem = |what: &str| Problem {
        path: Vec::new(),
        what: what.to_owned(),
    };
    let found = layer.image().map(File::open).transpose();
    let Ok(Some(image)) = found else {
        return Ok(vec![problem(BAD_IMAGE)]);
    };
    if !erofs::hash(&image, meta.start).is_ok_and(|hash| hash == meta.hash) {
        return Ok(vec![problem(BAD_IMAGE)]);
    }
    let mut tar = layer.tar()?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match tar.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hasher.update(&buffer[..count]),
            Err(_) => return Ok(vec![problem("has an archive that cannot be read")]),
        }
    }
    if hasher.finish() == layer.diff_id().0 {
        return Ok(Vec::new());
    }
    Ok(vec![problem("has another archive")])
}

struct Check {
    root: Root,
    owners: bool,
    marks: bool,
    /// Device and inode of files, for the hard links to them.
    inodes: HashMap<Vec<u8>, (u64, u64)>,
    problems: Vec<Problem>,
}

impl Check {
    fn found(&mut self, path: &[u8], what: impl Into<String>) {
        self.problems.push(Problem {
            path: path.to_vec(),
            what: what.into(),
        });
    }

    fn entry(&mut self, index: &Index, entry: &Entry) -> Result<(), Error> {
        let path = Path::new(std::ffi::OsStr::from_bytes(&entry.path));
        let stat = match self.root.symlink_metadata(path) {
            Ok(stat) => stat,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::FailedPrecondition) => {
                // Not made, for want of the right to; neither were links to it.
                let kind = match entry.kind {
                    EntryKind::Hardlink => index.find(&entry.link).map(|original| original.kind),
                    kind => Some(kind),
                };
                let device = matches!(kind, Some(EntryKind::CharDevice | EntryKind::BlockDevice));
                if self.owners || !device {
                    self.found(&entry.path, "is missing");
                }
                return Ok(());
            }
            Err(error) if self.is_closed(error.kind()) => return Ok(()),
            Err(error) => return Err(Error::wrap(error, "verify a layer")),
        };
        if FileKind::of_mode(stat.st_mode) != self.kind_on_disk(entry) {
            self.found(&entry.path, "is of another kind");
            return Ok(());
        }
        self.attributes(entry, &stat);
        match entry.kind {
            EntryKind::File => {
                self.inodes.insert(entry.path.clone(), (stat.st_dev, stat.st_ino));
                self.content(entry, path, &stat)?;
            }
            EntryKind::Symlink => {
                let target = self.root.read_link(path).context(|| "verify a layer")?;
                if target.into_os_string().into_vec() != entry.link {
                    self.found(&entry.path, "leads elsewhere");
                }
            }
            EntryKind::Hardlink => {
                let original = self.original(entry)?;
                if original != Some((stat.st_dev, stat.st_ino)) {
                    self.found(&entry.path, "is no longer linked");
                }
            }
            EntryKind::CharDevice | EntryKind::BlockDevice
                if stat.st_rdev != rustix::fs::makedev(entry.major, entry.minor) =>
            {
                self.found(&entry.path, "is another device");
            }
            EntryKind::Whiteout if self.marks && stat.st_rdev != 0 => {
                self.found(&entry.path, "is no whiteout")
            }
            _ => (),
        }
        Ok(())
    }

    /// Whether something cannot be looked at for want of a right, in a layer of a normal user: their own file of mode 0 is
    /// closed to them, and whole for all that is known.
    fn is_closed(&self, why: ErrorKind) -> bool {
        !self.owners && why == ErrorKind::PermissionDenied
    }

    fn original(&self, entry: &Entry) -> Result<Option<(u64, u64)>, Error> {
        if let Some(inode) = self.inodes.get(&entry.link) {
            return Ok(Some(*inode));
        }
        match self
            .root
            .symlink_metadata(Path::new(std::ffi::OsStr::from_bytes(&entry.link)))
        {
            Ok(stat) => Ok(Some((stat.st_dev, stat.st_ino))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::wrap(error, "verify a layer")),
        }
    }

    fn kind_on_disk(&self, entry: &Entry) -> FileKind {
        match entry.kind {
            EntryKind::File => FileKind::File,
            // What holds the place of one.
            EntryKind::Whiteout if !self.marks => FileKind::File,
            EntryKind::Directory => FileKind::Directory,
            EntryKind::Symlink => FileKind::Symlink,
            EntryKind::CharDevice | EntryKind::Whiteout => FileKind::CharDevice,
            EntryKind::BlockDevice => FileKind::BlockDevice,
            EntryKind::Fifo => FileKind::Fifo,
            // Whatever it is linked to; the inode decides.
            EntryKind::Hardlink => {
                let path = Path::new(std::ffi::OsStr::from_bytes(&entry.path));
                self.root
                    .symlink_metadata(path)
                    .map_or(FileKind::File, |stat| FileKind::of_mode(stat.st_mode))
            }
        }
    }

    fn attributes(&mut self, entry: &Entry, stat: &Stat) {
        if matches!(entry.kind, EntryKind::Whiteout | EntryKind::Hardlink) || entry.path.is_empty() {
            return;
        }
        if entry.kind != EntryKind::Symlink && stat.st_mode & 0o7777 != entry.mode {
            self.found(
                &entry.path,
                format!("has mode {:o}, not {:o}", stat.st_mode & 0o7777, entry.mode),
            );
        }
        if self.owners && (stat.st_uid, stat.st_gid) != (entry.uid, entry.gid) {
            self.found(
                &entry.path,
                format!(
                    "belongs to {}:{}, not {}:{}",
                    stat.st_uid, stat.st_gid, entry.uid, entry.gid
                ),
            );
        }
    }

    fn content(&mut self, entry: &Entry, path: &Path, stat: &Stat) -> Result<(), Error> {
        if u64::try_from(stat.st_size) != Ok(entry.size) {
            self.found(
                &entry.path,
                format!("has {} bytes, not {}", stat.st_size, entry.size),
            );
            return Ok(());
        }
        let Some(expected) = entry.content else {
            return Ok(());
        };
        match hash(&self.root, path) {
            Ok(digest) if digest == expected => (),
            Ok(_) => self.found(&entry.path, "has another content"),
            Err(error) if self.is_closed(error.kind()) => (),
            // A bad block of the disk: this file's problem, not the end of the check.
            Err(error) => self.found(&entry.path, format!("cannot be read: {error}")),
        }
        Ok(())
    }

    /// Names in the tree that the index does not have.
    fn strangers(&mut self, index: &Index, dir: Vec<u8>) -> Result<(), Error> {
        let mut todo = vec![dir];
        while let Some(dir) = todo.pop() {
            let path = Path::new(std::ffi::OsStr::from_bytes(&dir));
            let names = match self.root.read_dir(path) {
                Err(error) if self.is_closed(error.kind()) => continue,
                other => other.context(|| "verify a layer")?,
            };
            for name in names {
                let bytes = name.name.as_bytes();
                let inner = if dir.is_empty() {
                    bytes.to_vec()
                } else {
                    [&dir, &b"/"[..], bytes].concat()
                };
                if index.find(&inner).is_none() {
                    self.found(&inner, "is not in the index");
                } else if name.kind == FileKind::Directory {
                    todo.push(inner);
                }
                if self.problems.len() >= MOST {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn hash(root: &Root, path: &Path) -> Result<Digest, Error> {
    let mut file = root.open_file(path).context(|| "open it")?;
    let mut hasher = ContentHasher::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = file.read(&mut buffer).context(|| "read it")?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
    }
}
