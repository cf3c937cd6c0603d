//! Layers whose files have other owners, for containers in a user namespace of their own where the kernel maps no ids of mounts:
//! it wants rights over the whole file system for that (`can_idmap_mount` of fs/namespace.c), which a normal user has over none
//! on a disk.
//!
//! ```text
//! ROOT/layers/<ab>/<hex>/owners/<name>/fs    a copy of the layer's tree; the name stands for the mappings
//!                                     /disk  bytes that it takes
//! ```
//! A copy is on the disk before it is there, is never changed, and goes with its layer. Where the file system shares blocks among
//! files, nothing but their inodes is copied.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dhow_rootpath::{FileKind, Root};
use dhow_types::{DiffId, Digest, ErrorKind};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod,
    fchown, futimens, ioctl_ficlone, openat, utimensat,
};
use rustix::io::Errno;

use crate::staging::Staging;
use crate::{Context, Error, Layer, LayerStore};

const FOLDER: &str = "owners";
const DISK: &str = "disk";
/// The kernel's own bounds on a list of attributes and on a value (xattr(7)).
const LARGEST: usize = 64 << 10;

/// A row of ids and what they become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRow {
    /// The first of them in a layer.
    pub from: u32,
    /// What it becomes.
    pub to: u32,
    /// How many.
    pub count: u32,
}

/// What the owners of files become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owners {
    /// Users.
    pub uids: Vec<IdRow>,
    /// Groups.
    pub gids: Vec<IdRow>,
}

impl Owners {
    /// What an owner becomes; none when nothing is said of it.
    #[must_use]
    pub fn of(&self, (uid, gid): (u32, u32)) -> Option<(u32, u32)> {
        Some((one_of(&self.uids, uid)?, one_of(&self.gids, gid)?))
    }

    /// An access control list as its attribute has it (`struct posix_acl_xattr_header` of the kernel), with the users and groups
    /// that it names; none when it names somebody who becomes nobody, or is damaged.
    fn acl(&self, value: &[u8]) -> Option<Vec<u8>> {
        const HEADER: usize = 4;
        let (mut new, entries) = (value.get(..HEADER)?.to_vec(), value.get(HEADER..)?);
        if entries.len() % 8 != 0 {
            return None;
        }
        for entry in entries.chunks_exact(8) {
            let (what, id) = entry.split_at_checked(4)?;
            let id = u32::from_le_bytes(id.try_into().ok()?);
            let id = match what.first()? {
                0x02 => one_of(&self.uids, id)?,
                0x08 => one_of(&self.gids, id)?,
                _ => id,
            };
            new.extend_from_slice(what);
            new.extend_from_slice(&id.to_le_bytes());
        }
        Some(new)
    }

    /// A name that only the same have.
    #[must_use]
    pub fn name(&self) -> String {
        let mut text = String::new();
        for (kind, rows) in [("u", &self.uids), ("g", &self.gids)] {
            for row in rows {
                text.push_str(&format!("{kind} {} {} {}\n", row.from, row.to, row.count));
            }
        }
        Digest::of(text.as_bytes()).hex()[..32].to_owned()
    }

    fn required(&self, owner: (u32, u32), path: &Path) -> Result<(u32, u32), Error> {
        self.of(owner).ok_or_else(|| {
            let message = format!(
                "{} belongs to {}:{}, and the user namespace has no such user or group",
                path.display(),
                owner.0,
                owner.1
            );
            Error::new(ErrorKind::FailedPrecondition, message).with_hint(
                "map more ids: a larger range in /etc/subuid and /etc/subgid, or --userns auto:size=",
            )
        })
    }
}

fn one_of(rows: &[IdRow], id: u32) -> Option<u32> {
    rows.iter().find_map(|row| {
        let at = id.checked_sub(row.from).filter(|at| *at < row.count)?;
        row.to.checked_add(at)
    })
}

impl LayerStore {
    /// The tree of a layer with other owners, made if it is not there.
    ///
    /// # Errors
    /// `FailedPrecondition` for a file whose owner becomes nobody; `Unsupported` for a layer that is kept as an image; failures of
    /// the file system.
    pub fn with_owners(&self, layer: &Layer, owners: &Owners) -> Result<PathBuf, Error> {
        if layer.image().is_some() {
            let message = format!(
                "layer {} is an image, whose owners cannot be changed",
                layer.diff_id()
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let folder = layer.folder().join(FOLDER);
        let place = folder.join(owners.name());
        if place.exists() {
            return Ok(place.join("fs"));
        }
        let what = || format!("copy layer {} for other owners", layer.diff_id().short());
        let staging = Staging::new(self.root(), "owners")?;
        staging.take_label_of(&self.root().join("layers"));
        let tree = staging.path().join("fs");
        let disk = copy(&layer.fs(), &tree, owners).context(what)?;
        std::fs::write(staging.path().join(DISK), disk.to_string()).context(what)?;
        let made = File::open(staging.path()).context(what)?;
        rustix::fs::syncfs(&made).map_err(io::Error::from).context(what)?;
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.context(what)?,
        }
        // Another start may have been faster, with the same.
        staging.publish(&place)?;
        Ok(place.join("fs"))
    }

    /// Removes the copies of layers for other owners that nobody needs, by layer and [`Owners::name`]; bytes that they took. It is
    /// asked again once one is out of sight, and that is put back when somebody needs it by then; none is an answer of
    /// somebody who does not know.
    ///
    /// # Errors
    /// Failures of the file system.
    pub fn forget_owners(&self, needed: &dyn Fn() -> Option<Needed>) -> Result<u64, Error> {
        let mut freed = 0;
        let Some(first) = needed() else { return Ok(0) };
        for diff in self.list()? {
            let Ok(layer) = self.layer(&diff) else { continue };
            let folder = layer.folder().join(FOLDER);
            for (name, disk) in copies(&folder) {
                let what = || format!("remove a copy of layer {}", diff.short());
                let mut gone = name.clone();
                // Else somebody was killed who was at it.
                if !name.starts_with(GONE) {
                    let copy = (diff, name);
                    if first.contains(&copy) {
                        continue;
                    }
                    let place = folder.join(&copy.1);
                    gone = format!("{GONE}{}", copy.1);
                    match std::fs::rename(&place, folder.join(&gone)) {
                        Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                        other => other.context(what)?,
                    }
                    // Where another one has come to its place by now, that is as good.
                    let back = needed().is_none_or(|needed| needed.contains(&copy));
                    if back && std::fs::rename(folder.join(&gone), &place).is_ok() {
                        continue;
                    }
                    freed += disk;
                }
                Root::open(&folder)
                    .and_then(|root| root.remove_all(Path::new(&gone)))
                    .context(what)?;
            }
        }
        Ok(freed)
    }
}

/// Copies that somebody needs: of which layer, and their names.
pub type Needed = HashSet<(DiffId, String)>;

/// Beginning of the name of a copy that is being removed.
const GONE: &str = ".gone-";

/// Bytes that the copies of a layer take.
pub(crate) fn disk(layer: &Path) -> u64 {
    copies(&layer.join(FOLDER)).map(|(_, disk)| disk).sum()
}

fn copies(folder: &Path) -> impl Iterator<Item = (String, u64)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let name = entry.file_name().to_str()?.to_owned();
        let disk = std::fs::read_to_string(entry.path().join(DISK)).unwrap_or_default();
        Some((name, disk.parse().unwrap_or(0)))
    })
}

/// Copies a tree to a folder that is not there yet, with other owners: with all that makes it a layer, whiteouts, opaque folders,
/// links and attributes. The bytes that the copy takes.
///
/// # Errors
/// As [`LayerStore::with_owners`].
pub fn copy(from: &Path, to: &Path, owners: &Owners) -> Result<u64, Error> {
    std::fs::create_dir(to).context(|| format!("make the directory {}", to.display()))?;
    let mut copy = Copy {
        from: Root::open(from).context(|| format!("open {}", from.display()))?,
        to: Root::open(to).context(|| format!("open {}", to.display()))?,
        owners,
        links: HashMap::new(),
        disk: 0,
    };
    // Filled first, and dressed from the deepest up: a folder may be closed, and what is made in one changes its time.
    let mut folders = vec![PathBuf::from(".")];
    let mut next = 0;
    while let Some(folder) = folders.get(next).cloned() {
        next += 1;
        let found = copy.folder(&folder);
        folders.extend(found.context(|| format!("copy {}", folder.display()))?);
    }
    for folder in folders.iter().rev() {
        copy.dress_folder(folder)
            .context(|| format!("dress {}", folder.display()))?;
    }
    Ok(copy.disk)
}

struct Copy<'a> {
    from: Root,
    to: Root,
    owners: &'a Owners,
    /// Files with more than one name, by inode.
    links: HashMap<u64, PathBuf>,
    disk: u64,
}

impl Copy<'_> {
    /// Copies what is in a folder; the folders in it are made, and nothing more.
    fn folder(&mut self, path: &Path) -> Result<Vec<PathBuf>, Error> {
        let mut folders = Vec::new();
        for entry in self.from.read_dir(path).context(|| "list it")? {
            let inside = match path.as_os_str() == "." {
                true => PathBuf::from(&entry.name),
                false => path.join(&entry.name),
            };
            let what = || format!("copy {}", inside.display());
            let status = self.from.symlink_metadata(&inside).context(what)?;
            if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
                self.to.create_dir_all(&inside, 0o700, None).context(what)?;
                folders.push(inside);
            } else {
                self.file(&inside, &status).context(what)?;
            }
        }
        Ok(folders)
    }

    fn file(&mut self, path: &Path, status: &Stat) -> Result<(), Error> {
        if status.st_nlink > 1 {
            if let Some(first) = self.links.get(&status.st_ino) {
                return self.to.hard_link(first, path).context(|| "make the link");
            }
            self.links.insert(status.st_ino, path.to_owned());
        }
        let owner = self.owners.required((status.st_uid, status.st_gid), path)?;
        self.disk += u64::try_from(status.st_blocks).unwrap_or(0) * 512;
        match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile => {
                let from = self.from.open_file(path).context(|| "open it")?;
                let to = self
                    .to
                    .create_file(path, 0o600, None)
                    .context(|| "make the file")?;
                copy_data(&from, &to).context(|| "copy the bytes")?;
                return self.dress(&from, &to, status, owner).context(|| "dress it");
            }
            FileType::Symlink => {
                let target = self.from.read_link(path).context(|| "read the link")?;
                self.to.symlink(&target, path, None).context(|| "make the link")?;
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                let number = status.st_rdev;
                let device = (rustix::fs::major(number), rustix::fs::minor(number));
                let kind = FileKind::of_mode(status.st_mode);
                self.to
                    .mknod(path, kind, status.st_mode & 0o7777, device, None)
                    .context(|| "make the node")?;
            }
            // No layer has a socket.
            _ => return Ok(()),
        }
        let (dir, name) = self.to.parent_of(path).context(|| "find its place")?;
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        chownat(&dir, &name, Some(uid), Some(gid), nofollow)
            .and_then(|()| utimensat(&dir, &name, &times(status), nofollow))
            .map_err(io::Error::from)
            .context(|| "dress it")
    }

    fn dress_folder(&mut self, path: &Path) -> Result<(), Error> {
        let open = |root: &Root| -> Result<File, Error> {
            let folder = root.resolve_nofollow(path).context(|| "open it")?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = openat(&folder, ".", flags, Mode::empty());
            folder
                .map(File::from)
                .map_err(io::Error::from)
                .context(|| "open it")
        };
        let (from, to) = (open(&self.from)?, open(&self.to)?);
        let status = rustix::fs::fstat(&from)
            .map_err(io::Error::from)
            .context(|| "look at it")?;
        self.disk += u64::try_from(status.st_blocks).unwrap_or(0) * 512;
        let owner = self.owners.required((status.st_uid, status.st_gid), path)?;
        self.dress(&from, &to, &status, owner).context(|| "dress it")
    }

    /// In this order: `chown` clears set-user-id bits and capabilities, and attributes change the time.
    fn dress(&self, from: &File, to: &File, status: &Stat, (uid, gid): (u32, u32)) -> io::Result<()> {
        fchown(to, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        fchmod(to, Mode::from_raw_mode(status.st_mode & 0o7777))?;
        for (name, mut value) in attributes(from)? {
            if name.starts_with(b"system.posix_acl_") {
                value = self.owners.acl(&value).ok_or_else(|| {
                    io::Error::other(
                        "its access control list names a user or group that the user namespace has not",
                    )
                })?;
            }
            match rustix::fs::fsetxattr(to.as_fd(), name.as_slice(), &value, XattrFlags::empty()) {
                // The labels of a security module are its own to give.
                Err(Errno::PERM | Errno::OPNOTSUPP) if is_label(&name) => {}
                other => other?,
            }
        }
        futimens(to, &times(status))?;
        Ok(())
    }
}

/// Shares the blocks where the file system does, else copies.
fn copy_data(from: &File, to: &File) -> io::Result<()> {
    if ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    io::copy(&mut &*from, &mut &*to).map(drop)
}

fn is_label(name: &[u8]) -> bool {
    name.starts_with(b"security.") && name != b"security.capability"
}

fn attributes(of: &File) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = format!("/proc/self/fd/{}", of.as_raw_fd());
    let mut names = vec![0_u8; LARGEST];
    let count = match rustix::fs::listxattr(&path, names.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let names = names.get(..count).unwrap_or_default().split(|byte| *byte == 0);
    let mut all = Vec::new();
    for name in names.filter(|name| !name.is_empty()) {
        let mut value = vec![0_u8; LARGEST];
        let size = rustix::fs::getxattr(&path, std::ffi::OsStr::from_bytes(name), value.as_mut_slice())?;
        value.truncate(size);
        all.push((name.to_vec(), value));
    }
    Ok(all)
}

#[expect(
    clippy::cast_possible_wrap,
    reason = "nanoseconds of a second fit, and the kernel keeps seconds signed"
)]
fn times(status: &Stat) -> Timestamps {
    let time = Timespec {
        tv_sec: status.st_mtime,
        tv_nsec: status.st_mtime_nsec as i64,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(from: u32, to: u32, count: u32) -> IdRow {
        IdRow { from, to, count }
    }

    #[test]
    fn an_owner_becomes_what_its_rows_say_or_nobody() {
        let owners = Owners {
            uids: vec![row(0, 1, 1000), row(1000, 0, 1)],
            gids: vec![row(0, 1, 5)],
        };
        assert_eq!(owners.of((0, 0)), Some((1, 1)));
        assert_eq!(owners.of((1000, 4)), Some((0, 5)));
        assert_eq!(owners.of((1001, 0)), None);
        assert_eq!(owners.of((0, 5)), None);
        assert!(owners.required((0, 5), Path::new("x")).is_err());
    }

    #[test]
    fn the_names_in_an_access_control_list_become_others() {
        let owners = Owners {
            uids: vec![row(5, 105, 1)],
            gids: vec![row(6, 206, 1)],
        };
        let list = |user: u8, group: u8, own: u8| {
            let mut list = vec![2, 0, 0, 0];
            for (tag, id) in [(1, own), (2, user), (8, group), (0x20, own)] {
                list.extend([tag, 0, 7, 0, id, 0, 0, 0]);
            }
            list
        };
        assert_eq!(owners.acl(&list(5, 6, 255)), Some(list(105, 206, 255)));
        assert_eq!(owners.acl(&list(6, 6, 0)), None);
        assert_eq!(owners.acl(&[2, 0]), None);
        assert_eq!(owners.acl(&[2, 0, 0, 0, 1]), None);
    }

    #[test]
    fn other_rows_have_another_name() {
        let of = |uids: Vec<IdRow>, gids: Vec<IdRow>| Owners { uids, gids }.name();
        let one = of(vec![row(0, 1, 5)], Vec::new());
        assert_eq!(one.len(), 32);
        assert_eq!(one, of(vec![row(0, 1, 5)], Vec::new()));
        assert_ne!(one, of(Vec::new(), vec![row(0, 1, 5)]));
        assert_ne!(one, of(vec![row(0, 1, 6)], Vec::new()));
    }

    #[test]
    fn a_copy_is_as_the_tree_but_for_its_owners() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("d/e")).unwrap();
        std::fs::write(from.join("d/f"), "bytes").unwrap();
        std::fs::hard_link(from.join("d/f"), from.join("d/e/g")).unwrap();
        symlink("/f", from.join("d/l")).unwrap();
        let fifo = Mode::from_raw_mode(0o640);
        rustix::fs::mknodat(rustix::fs::CWD, from.join("p"), FileType::Fifo, fifo, 0).unwrap();
        let xattr = |path: &Path, name: &str| {
            let mut value = [0; 16];
            let length = rustix::fs::getxattr(path, name, &mut value[..]).ok()?;
            Some(value[..length].to_vec())
        };
        // Not every file system has them.
        let set = rustix::fs::setxattr(from.join("d"), "user.overlay.opaque", b"y", XattrFlags::empty());
        for (path, mode) in [("d/f", 0o4751), ("d/e", 0o500), ("d", 0o3711)] {
            std::fs::set_permissions(from.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let old = Timestamps {
            last_access: Timespec {
                tv_sec: 5,
                tv_nsec: 6,
            },
            last_modification: Timespec {
                tv_sec: 7,
                tv_nsec: 8,
            },
        };
        for path in ["d/f", "d/l", "d", "p"] {
            utimensat(rustix::fs::CWD, from.join(path), &old, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
        let own = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        let more = u32::from(own.0 == 0);
        let owners = Owners {
            uids: vec![row(own.0, own.0 + more, 1)],
            gids: vec![row(own.1, own.1 + more, 1)],
        };
        assert!(copy(&from, &to, &owners).unwrap() > 0);
        let of = |path: &str| std::fs::symlink_metadata(to.join(path)).unwrap();
        for path in ["", "d", "d/e", "d/e/g", "d/f", "d/l", "p"] {
            let (here, there) = (std::fs::symlink_metadata(from.join(path)).unwrap(), of(path));
            assert_eq!(there.mode(), here.mode(), "{path}");
            assert_eq!((there.uid(), there.gid()), (own.0 + more, own.1 + more), "{path}");
            assert_eq!(
                (there.mtime(), there.mtime_nsec()),
                (here.mtime(), here.mtime_nsec()),
                "{path}"
            );
        }
        assert_eq!(of("d/f").ino(), of("d/e/g").ino());
        assert_eq!(std::fs::read(to.join("d/f")).unwrap(), b"bytes");
        assert_eq!(std::fs::read_link(to.join("d/l")).unwrap(), Path::new("/f"));
        if set.is_ok() {
            assert_eq!(xattr(&to.join("d"), "user.overlay.opaque"), Some(b"y".to_vec()));
        }
        // Nobody's.
        let nobody = Owners {
            uids: owners.uids.clone(),
            gids: Vec::new(),
        };
        let error = copy(&from, &dir.path().join("not"), &nobody).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    }
}
