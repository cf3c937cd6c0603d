//! A tree as a tar.

use std::collections::HashMap;
use std::io::{Write, empty};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use dhow_layer::tar::Writer;
use dhow_layer::{Entry, EntryKind};
use dhow_rootpath::Root;
use dhow_types::ErrorKind;
use rustix::fs::FileType;

use super::changes::{OVERLAY, attributes};
use crate::{Context as _, Error};

/// Deepest folder that is written.
const MAX_DEPTH: usize = 256;

/// Writes everything below `root`, sorted by path.
pub(super) fn write(root: &Root, output: &mut dyn Write) -> Result<(), Error> {
    let mut export = Export {
        root,
        tar: Writer::new(output),
        links: HashMap::new(),
    };
    export.folder(Path::new(""), 0)?;
    export.tar.finish().context(|| "end the archive").map(drop)
}

struct Export<'a> {
    root: &'a Root,
    tar: Writer<&'a mut dyn Write>,
    /// Files with more than one name, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Export<'_> {
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
        let status = self.root.symlink_metadata(path).context(|| "look at it")?;
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
        let mut entry = Entry::new(path.as_os_str().as_bytes(), kind, status.st_mode & 0o7777);
        (entry.uid, entry.gid) = (status.st_uid, status.st_gid);
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
                let file = self.root.open_file(path).context(|| "open it")?;
                entry.xattrs = attributes(&file)?;
                entry.xattrs.retain(|(name, _)| !name.starts_with(OVERLAY));
                self.tar.append(&entry, file).context(what)
            }
            EntryKind::Symlink => {
                let target = self.root.read_link(path).context(|| "read the link")?;
                entry.link = target.as_os_str().as_bytes().to_vec();
                self.tar.append(&entry, empty()).context(what)
            }
            EntryKind::Directory => {
                self.tar.append(&entry, empty()).context(what)?;
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
