//! Unpacks the files of packages into the new root.
//!
//! Packages are unpacked at the same time, so nothing may depend on which comes first: what a directory looks like
//! when several packages ship it is settled afterwards ([`Tree::finish`]) in the order of the packages, and a file
//! shipped twice is an error. `/bin`, `/sbin` and `/lib*` are links into `/usr` from the start ("merged /usr",
//! debootstrap `merge_usr`), so files that packages still ship there land in `/usr`.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Mutex;

use dhow_layer::{Entry, EntryKind};
use dhow_rootpath::Root;
use dhow_types::ErrorKind;
use rustix::fs::{AtFlags, Timespec, Timestamps};

use crate::deb::{Control, Deb};
use crate::filter::Filter;
use crate::{Context, Error};

/// Top directories that are links into `/usr`: those that every machine has.
const MERGED: [&str; 3] = ["bin", "lib", "sbin"];
/// Those made only when a package ships them (the list of debootstrap).
const MERGED_WHEN_SHIPPED: [&str; 4] = ["lib32", "lib64", "libo32", "libx32"];

/// The root while packages are unpacked into it.
pub(crate) struct Tree {
    root: Root,
    filter: Filter,
    /// Held while a top directory becomes a link, so that no other thread finds it missing.
    merging: Mutex<()>,
    /// Whether dpkg configures the packages afterwards, and puts their configuration files in place.
    pub(crate) scripts_run: bool,
}

/// What unpacking one package gave.
pub(crate) struct Unpacked {
    pub(crate) control: Control,
    /// Every path of the archive as it stands there, for dpkg's list; the root is the empty path.
    pub(crate) paths: Vec<Vec<u8>>,
    /// Real place of each directory and how it is to look.
    directories: Vec<(Vec<u8>, Entry)>,
    /// Real places of all that is no directory.
    files: Vec<Vec<u8>>,
}

fn io_failure(what: &str, path: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::ResourceExhausted,
        std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => ErrorKind::DataLoss,
        _ => ErrorKind::Internal,
    };
    Error::because(kind, format!("cannot {what} /{}", path.display()), error)
}

/// Both times of a file: the access time is no information worth keeping.
pub(crate) fn stamps(seconds: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

impl Tree {
    /// Prepares an empty root.
    pub(crate) fn new(root: Root, filter: Filter) -> Result<Self, Error> {
        if !root.read_dir(Path::new("."))?.is_empty() {
            let message = "the directory for the new root is not empty";
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        }
        let tree = Self {
            root,
            filter,
            scripts_run: true,
            merging: Mutex::new(()),
        };
        for name in MERGED {
            tree.merge(name)?;
        }
        Ok(tree)
    }

    /// Makes a top directory a link into `/usr`, once.
    fn merge(&self, name: &str) -> Result<(), Error> {
        let guard = self.merging.lock();
        let below = format!("usr/{name}");
        self.root.create_dir_all(Path::new(&below), 0o755, None)?;
        // Looked at, not made anew: a link that is replaced is missing for a moment.
        if self.root.symlink_metadata(Path::new(name)).is_err() {
            self.root.symlink(Path::new(&below), Path::new(name), None)?;
        }
        drop(guard);
        Ok(())
    }

    /// Unpacks one package.
    pub(crate) fn unpack(&self, deb: impl Read + Send) -> Result<Unpacked, Error> {
        let (control, mut data) = Deb::open(deb)?.data()?;
        let conffiles = conffiles(&control)?;
        let mut out = Unpacked {
            control,
            paths: Vec::new(),
            directories: Vec::new(),
            files: Vec::new(),
        };
        while let Some(entry) = data.next_entry().context(|| "cannot read data.tar")? {
            out.paths.push(entry.path.clone());
            let is_directory = entry.kind == EntryKind::Directory;
            if self
                .filter
                .skips(&entry.path, is_directory || entry.kind == EntryKind::Symlink)
            {
                continue;
            }
            let place = merged(&entry.path);
            if is_directory {
                self.directory(&entry.path, &place)?;
                out.directories.push((place, entry));
                continue;
            }
            self.file(&entry, &mut data)?;
            if self.scripts_run && conffiles.contains(&entry.path) {
                self.offer_conffile(&entry.path)?;
            }
            out.files.push(place);
        }
        // Whatever follows the archive's end is read too, so that damage at the very end of the stream is noticed.
        std::io::copy(&mut data, &mut std::io::sink())
            .map_err(|error| Error::because(ErrorKind::DataLoss, "cannot read data.tar", error))?;
        Ok(out)
    }

    fn directory(&self, path: &[u8], place: &[u8]) -> Result<(), Error> {
        if let Some(name) = MERGED_WHEN_SHIPPED.iter().find(|name| name.as_bytes() == path) {
            return self.merge(name);
        }
        if !place.is_empty() {
            self.root
                .create_dir_all(Path::new(OsStr::from_bytes(place)), 0o755, None)?;
        }
        Ok(())
    }

    fn file(&self, entry: &Entry, body: &mut impl Read) -> Result<(), Error> {
        let path = Path::new(OsStr::from_bytes(&entry.path));
        let owner = Some((entry.uid, entry.gid));
        match entry.kind {
            EntryKind::File => {
                let mut file = self.root.create_file(path, entry.mode, owner)?;
                copy(body, &mut file).map_err(|error| io_failure("write", path, error))?;
                rustix::fs::futimens(&file, &stamps(entry.mtime))
                    .map_err(|error| io_failure("set the times of", path, error.into()))?;
            }
            EntryKind::Symlink => {
                self.root
                    .symlink(Path::new(OsStr::from_bytes(&entry.link)), path, owner)?;
                let (parent, name) = self.root.parent_of(path)?;
                rustix::fs::utimensat(parent, name, &stamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|error| io_failure("set the times of", path, error.into()))?;
            }
            EntryKind::Hardlink => {
                self.root
                    .hard_link(Path::new(OsStr::from_bytes(&entry.link)), path)?;
            }
            // Policy 10.6: packages ship no device files.
            other => {
                let message = format!("a package ships /{} as {other:?}", path.display());
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        }
        Ok(())
    }

    /// Gives a configuration file its second name, under which dpkg looks for the new version when it configures the
    /// package; it then finds both equal, notes the hash and removes this name.
    fn offer_conffile(&self, path: &[u8]) -> Result<(), Error> {
        let mut offered = path.to_vec();
        offered.extend_from_slice(b".dpkg-new");
        let path = Path::new(OsStr::from_bytes(path));
        self.root
            .hard_link(path, Path::new(OsStr::from_bytes(&offered)))?;
        Ok(())
    }

    /// Settles what all packages together left open; `packages` come in their order with their names.
    pub(crate) fn finish(&self, packages: &[(&str, &Unpacked)]) -> Result<(), Error> {
        let mut owners: HashMap<&[u8], &str> = HashMap::new();
        let mut directories: BTreeMap<&[u8], &Entry> = BTreeMap::new();
        for (name, unpacked) in packages {
            for file in &unpacked.files {
                if let Some(other) = owners.insert(file, name) {
                    let file = String::from_utf8_lossy(file);
                    let message = format!("the packages {other} and {name} both ship /{file}");
                    return Err(Error::new(ErrorKind::FailedPrecondition, message));
                }
            }
            for (place, entry) in &unpacked.directories {
                directories.entry(place).or_insert(entry);
            }
        }
        for (place, entry) in directories {
            let path = if place.is_empty() {
                Path::new(".")
            } else {
                Path::new(OsStr::from_bytes(place))
            };
            // A path that an earlier package ships as a link to a directory keeps the look of the link's target.
            if !place.is_empty() && self.root.read_link(path).is_ok() {
                continue;
            }
            self.dress(path, entry)?;
        }
        Ok(())
    }

    fn dress(&self, path: &Path, entry: &Entry) -> Result<(), Error> {
        use rustix::fs::{Gid, Mode, OFlags, Uid};
        let handle = self.root.resolve(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let set = || -> rustix::io::Result<()> {
            let fd = rustix::fs::openat(&handle, ".", flags, Mode::empty())?;
            rustix::fs::fchown(
                &fd,
                Some(Uid::from_raw(entry.uid)),
                Some(Gid::from_raw(entry.gid)),
            )?;
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(entry.mode))?;
            rustix::fs::futimens(&fd, &stamps(entry.mtime))
        };
        set().map_err(|error| io_failure("dress the directory", path, error.into()))
    }

    /// The root itself.
    pub(crate) fn root(&self) -> &Root {
        &self.root
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<()> {
    let mut buffer = [0; 64 << 10];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count])?,
        }
    }
}

/// Where a path really lies in a root with merged /usr.
fn merged(path: &[u8]) -> Vec<u8> {
    let top = path.split(|byte| *byte == b'/').next().unwrap_or_default();
    let moves = MERGED
        .iter()
        .chain(&MERGED_WHEN_SHIPPED)
        .any(|name| name.as_bytes() == top);
    if moves {
        [b"usr/", path].concat()
    } else {
        path.to_vec()
    }
}

/// The paths of `conffiles` without their leading slash.
fn conffiles(control: &Control) -> Result<Vec<Vec<u8>>, Error> {
    let Some(file) = control.get("conffiles") else {
        return Ok(Vec::new());
    };
    crate::dpkg::conffile_lines(&file.bytes)
        .map(|line| {
            let path = line?.path;
            Ok(path.trim_start_matches('/').as_bytes().to_vec())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_directories_lie_in_usr_and_their_namesakes_do_not_move() {
        let merged = |path: &str| String::from_utf8(merged(path.as_bytes())).unwrap();
        assert_eq!(merged("bin/sh"), "usr/bin/sh");
        assert_eq!(merged("lib64"), "usr/lib64");
        assert_eq!(merged("usr/lib/x"), "usr/lib/x");
        assert_eq!(merged("library/x"), "library/x");
        assert_eq!(merged(""), "");
    }
}
