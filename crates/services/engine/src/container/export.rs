//! A tree as a tar.

use std::collections::HashMap;
use std::io::{Write, empty};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dhow_layer::tar::Writer;
use dhow_layer::{Entry, EntryKind};
use dhow_rootpath::Root;
use dhow_types::ErrorKind;
use rustix::fs::FileType;

use super::changes::{OVERLAY, attributes};
use super::users::Ids;
use crate::{Context as _, Error};

/// Deepest folder that is written.
const MAX_DEPTH: usize = 256;

/// Writes everything below `root`, sorted by path.
pub(crate) fn write(root: &Root, output: &mut dyn Write) -> Result<(), Error> {
    let part = Part {
        root,
        path: Path::new(""),
        name: b"",
        mounts: None,
        ids: None,
    };
    write_part(&part, output)
}

/// As [`write`], with the end filled up to a whole record: to another one GNU tar 1.34 cannot always add when it has deleted
/// something from it.
pub(super) fn write_records(root: &Root, output: &mut dyn Write) -> Result<(), Error> {
    let mut counted = Counted { output, bytes: 0 };
    write(root, &mut counted)?;
    let rest = usize::try_from(counted.bytes % RECORD as u64).unwrap_or(0);
    let missing = (RECORD - rest) % RECORD;
    counted
        .write_all(&[0; RECORD][..missing])
        .context(|| "end the archive")
}

/// Bytes of a record, the unit of reading and writing of tar(1).
const RECORD: usize = 10_240;

/// Knows how much went through it.
struct Counted<'a> {
    output: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.output.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.output.flush()
    }
}

/// Writes everything below `root`, and it itself by this name, sorted by path.
pub(crate) fn write_named(root: &Root, name: &str, output: &mut dyn Write) -> Result<(), Error> {
    let part = Part {
        root,
        path: Path::new("."),
        name: name.as_bytes(),
        mounts: None,
        ids: None,
    };
    write_part(&part, output)
}

/// A part of a tree.
pub(super) struct Part<'a> {
    pub(super) root: &'a Root,
    /// Which entry of the root.
    pub(super) path: &'a Path,
    /// What it is called in the archive; empty for what is in it only.
    pub(super) name: &'a [u8],
    /// Where other file systems belong to the tree. `None`: everywhere.
    pub(super) mounts: Option<&'a [PathBuf]>,
    /// The user namespace whose ids the owners are, as seen from outside.
    pub(super) ids: Option<&'a Ids>,
}

/// Writes one entry and everything below it, sorted by path.
pub(super) fn write_part(part: &Part<'_>, output: &mut dyn Write) -> Result<(), Error> {
    let what = || format!("look at {}", part.path.display());
    let top = match part.name {
        b"" => part.root.metadata(part.path),
        _ => part.root.symlink_metadata(part.path),
    };
    let mut export = Export {
        part,
        device: top.context(what)?.st_dev,
        tar: Writer::new(output),
        links: HashMap::new(),
    };
    if part.name.is_empty() {
        export.folder(part.path, 0)?;
    } else {
        export
            .entry(part.path, 0)
            .context(|| format!("write {}", part.path.display()))?;
    }
    export.tar.finish().context(|| "end the archive").map(drop)
}

struct Export<'a> {
    part: &'a Part<'a>,
    /// The file system of the first entry.
    device: u64,
    tar: Writer<&'a mut dyn Write>,
    /// Files with more than one name, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Export<'_> {
    /// The name in the archive.
    fn named(&self, path: &Path) -> Vec<u8> {
        let below = path
            .strip_prefix(self.part.path)
            .unwrap_or(path)
            .as_os_str()
            .as_bytes();
        match (self.part.name, below) {
            (b"", below) => below.to_vec(),
            (name, b"") => name.to_vec(),
            (name, below) => [name, b"/", below].concat(),
        }
    }

    /// Whether a directory is a file system of the kernel's (`/proc`) and no part of the container's files.
    fn is_foreign(&self, path: &Path, device: u64) -> bool {
        self.part.mounts.is_some_and(|mounts| {
            device != self.device && !mounts.iter().any(|mount| path.starts_with(mount))
        })
    }

    fn folder(&mut self, path: &Path, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            let message = format!(
                "folders are nested more than {MAX_DEPTH} deep at {}",
                path.display()
            );
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
        let here = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let mut names: Vec<_> = self
            .part
            .root
            .read_dir(here)
            .context(|| format!("list {}", here.display()))?
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        names.sort();
        for name in names {
            let inside = path.join(name);
            self.entry(&inside, depth)
                .context(|| format!("write {}", inside.display()))?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, depth: usize) -> Result<(), Error> {
        let root = self.part.root;
        let status = root.symlink_metadata(path).context(|| "look at it")?;
        let kind = match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => EntryKind::Directory,
            FileType::RegularFile => EntryKind::File,
            FileType::Symlink => EntryKind::Symlink,
            FileType::CharacterDevice => EntryKind::CharDevice,
            FileType::BlockDevice => EntryKind::BlockDevice,
            FileType::Fifo => EntryKind::Fifo,
            // A socket is nothing without the program that listens on it.
            _ => return Ok(()),
        };
        let mut entry = Entry::new(self.named(path), kind, status.st_mode & 0o7777);
        let owner = (status.st_uid, status.st_gid);
        (entry.uid, entry.gid) = self.part.ids.map_or(owner, |ids| ids.inside(owner));
        entry.mtime = status.st_mtime;
        let what = || "write it";
        if kind != EntryKind::Directory && status.st_nlink > 1 {
            let inode = (status.st_dev, status.st_ino);
            if let Some(first) = self.links.get(&inode) {
                entry.kind = EntryKind::Hardlink;
                entry.link.clone_from(first);
                return self.tar.append(&entry, empty()).context(what);
            }
            self.links.insert(inode, entry.path.clone());
        }
        match kind {
            EntryKind::File => {
                entry.size = u64::try_from(status.st_size).unwrap_or(0);
                let file = root.open_file(path).context(|| "open it")?;
                entry.xattrs = attributes(&file)?;
                entry.xattrs.retain(|(name, _)| !name.starts_with(OVERLAY));
                self.tar.append(&entry, file).context(what)
            }
            EntryKind::Symlink => {
                let target = root.read_link(path).context(|| "read the link")?;
                entry.link = target.as_os_str().as_bytes().to_vec();
                self.tar.append(&entry, empty()).context(what)
            }
            EntryKind::Directory => {
                self.tar.append(&entry, empty()).context(what)?;
                if self.is_foreign(path, status.st_dev) {
                    return Ok(());
                }
                self.folder(path, depth + 1)
            }
            _ => {
                entry.major = rustix::fs::major(status.st_rdev);
                entry.minor = rustix::fs::minor(status.st_rdev);
                self.tar.append(&entry, empty()).context(what)
            }
        }
    }
}
