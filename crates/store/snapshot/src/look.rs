//! Files as copies of those of a layer.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

use dhow_layer::{Entry, EntryKind};
use dhow_rootpath::Root;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, StatxFlags, Timespec, Timestamps, Uid, XattrFlags,
    chmodat, chownat, copy_file_range, fchmod, fchown, fsetxattr, ftruncate, futimens, getxattr, mknodat,
    openat, seek, statx, symlinkat, utimensat,
};
use rustix::io::Errno;

use crate::patch::inside;
use crate::{Context, Error};

/// Bytes that are copied by hand at once.
const BUFFER: usize = 128 << 10;

/// Name and value of an extended attribute.
pub(crate) type Attribute = (Vec<u8>, Vec<u8>);

/// How a file is to be.
pub(crate) struct Look<'a> {
    entry: &'a Entry,
    /// User and group; none where they are those of this process.
    owner: Option<(u32, u32)>,
    /// Attributes, of those of the entry.
    xattrs: Vec<&'a Attribute>,
}

impl<'a> Look<'a> {
    /// As `entry` says, which is never a hard link; whoever may not give files away has them all.
    pub(crate) fn of(entry: &'a Entry) -> Self {
        Self {
            entry,
            owner: dhow_layer::privileged().then_some((entry.uid, entry.gid)),
            xattrs: entry.xattrs.iter().collect(),
        }
    }

    /// With the owner that the entry says also without the rights of root: who has further ids can give files to those.
    pub(crate) fn given(mut self) -> Self {
        self.owner = Some((self.entry.uid, self.entry.gid));
        self
    }

    /// As the file at `path` of a layer is, of which `entry` says how it is to be. Without the rights of root it may have
    /// another owner and lack attributes. Nothing when it is not there at all: a device that could not be made.
    pub(crate) fn of_stored(entry: &'a Entry, layer: &Root, path: &[u8]) -> Result<Option<Self>, Error> {
        let mut look = Self::of(entry);
        if dhow_layer::privileged() {
            return Ok(Some(look));
        }
        let what = || format!("look at {}", String::from_utf8_lossy(path));
        let (dir, name) = layer.parent_of(inside(path)).context(what)?;
        let stat = match statx(&dir, &name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(io::Error::from).context(what)?,
        };
        look.owner = Some((stat.stx_uid, stat.stx_gid));
        if !look.xattrs.is_empty() {
            let file = layer.resolve_nofollow(inside(path)).context(what)?;
            look.xattrs.retain(|(key, _)| has_xattr(&file, key));
        }
        Ok(Some(look))
    }

    /// Makes a copy of the file at `path` of a layer, which is no directory, at a name in the directory `place`.
    pub(crate) fn copy(&self, layer: &Root, path: &[u8], place: (&OwnedFd, &OsStr)) -> Result<(), Error> {
        let (dir, name) = place;
        let like = self.entry;
        let call = |done: Result<(), Errno>| done.map_err(io::Error::from).context(|| "copy it");
        let node = |kind| {
            let number = rustix::fs::makedev(like.major, like.minor);
            mknodat(dir, name, kind, Mode::from_raw_mode(like.mode), number)
        };
        match like.kind {
            EntryKind::File | EntryKind::Hardlink | EntryKind::Directory => {
                let from = layer.open_file(inside(path)).context(|| "copy it")?;
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let to = openat(dir, name, flags, Mode::from_raw_mode(0o600));
                let to = File::from(to.map_err(io::Error::from).context(|| "copy it")?);
                copy_data(&from, &to, like.size).context(|| "copy it")?;
                return call(self.wear(&to));
            }
            EntryKind::Symlink => call(symlinkat(like.link.as_slice(), dir, name))?,
            EntryKind::CharDevice | EntryKind::Whiteout => call(node(FileType::CharacterDevice))?,
            EntryKind::BlockDevice => call(node(FileType::BlockDevice))?,
            EntryKind::Fifo => call(node(FileType::Fifo))?,
        }
        if let Some((uid, gid)) = self.owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            let owned = chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
            call(tolerated(owned))?;
        }
        if like.kind != EntryKind::Symlink {
            let mode = Mode::from_raw_mode(like.mode);
            call(chmodat(dir, name, mode, AtFlags::empty()))?;
        }
        let times = times(like.mtime);
        call(utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW))
    }

    /// Gives an open directory the owner, mode, attributes and time: always through its descriptor, since names come from
    /// layers.
    pub(crate) fn wear_dir(&self, dir: &OwnedFd) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.wear(&openat(dir, ".", flags, Mode::empty())?)
    }

    /// The same for an open file. In this order: `chown` clears set-user-id bits and capabilities.
    fn wear(&self, file: impl AsFd) -> Result<(), Errno> {
        let file = file.as_fd();
        if let Some((uid, gid)) = self.owner {
            tolerated(fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))?;
        }
        fchmod(file, Mode::from_raw_mode(self.entry.mode))?;
        for (key, value) in &self.xattrs {
            tolerated(fsetxattr(file, key.as_slice(), value, XattrFlags::empty()))?;
        }
        futimens(file, &times(self.entry.mtime))
    }

    /// Whether a file with this owner, mode and these attributes (of those that layers keep, sorted) looks so.
    pub(crate) fn is_worn(&self, owner: (u32, u32), mode: u32, xattrs: &[Attribute]) -> bool {
        let own = || {
            let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
            (user.as_raw(), group.as_raw())
        };
        let is_link = self.entry.kind == EntryKind::Symlink;
        self.owner.unwrap_or_else(own) == owner
            && (is_link || self.entry.mode == mode)
            && self.xattrs.iter().copied().eq(xattrs)
    }
}

/// What a process without the right may leave out, as it was left out when the layer was unpacked.
fn tolerated(done: Result<(), Errno>) -> Result<(), Errno> {
    match done {
        Err(Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::OPNOTSUPP) if !dhow_layer::privileged() => {
            Ok(())
        }
        other => other,
    }
}

fn has_xattr(file: &OwnedFd, key: &[u8]) -> bool {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut value = [0_u8; 0];
    getxattr(path, key, &mut value[..]).is_ok()
}

/// Copies the content of a file of `size` bytes, holes as holes. Where the file system shares blocks among files (xfs, btrfs)
/// none is copied.
fn copy_data(from: &File, to: &File, size: u64) -> io::Result<()> {
    let mut at = 0;
    while at < size {
        let start = match seek(from, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            // A file system that knows no holes.
            Err(Errno::INVAL) => at,
            other => other?,
        };
        let end = match seek(from, SeekFrom::Hole(start)) {
            Err(Errno::INVAL) => size,
            other => other?.min(size),
        };
        copy_range(from, to, start, end)?;
        at = end;
    }
    Ok(ftruncate(to, size)?)
}

fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut read, mut written) = (start, start);
    while read < end {
        let count = usize::try_from(end - read).unwrap_or(usize::MAX);
        match copy_file_range(from, Some(&mut read), to, Some(&mut written), count) {
            Ok(0) => return Err(shorter()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return copy_by_hand(from, to, read, end);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &File, to: &File, mut at: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    while at < end {
        let most = usize::try_from(end - at).map_or(BUFFER, |left| left.min(BUFFER));
        match from.read_at(&mut buffer[..most], at) {
            Ok(0) => return Err(shorter()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => {
                let count = read?;
                to.write_all_at(&buffer[..count], at)?;
                at += count as u64;
            }
        }
    }
    Ok(())
}

/// A file of a layer is shorter than its index says.
fn shorter() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it is shorter than it was")
}

pub(crate) fn times(seconds: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
