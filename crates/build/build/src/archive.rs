//! `ADD` of a local archive: unpacked when its content is a tar, compressed or not, whatever its name.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use dhow_layer::tar::{Reader, is_archive};
use dhow_layer::{Entry, EntryKind, decoder};
use dhow_rootpath::{FileKind, Root};
use dhow_types::ErrorKind;
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, openat};

use crate::failure::{Context as _, Error, Halt};
use crate::source::{Item, ItemKind, Source};
use crate::write::{Destination, Writer, set_times};

/// Bytes of a tar header.
const HEADER: usize = 512;

/// Unpacks `item` at the destination when it is an archive; says whether it was one.
pub(crate) fn unpack(
    source: &dyn Source,
    item: &Item,
    writer: &mut Writer<'_>,
    destination: &Destination,
) -> Result<bool, Halt> {
    if item.kind != ItemKind::File || item.size == 0 {
        return Ok(false);
    }
    let (file, _) = source.open(item)?;
    // What does not begin as an archive is a file like any other.
    let Ok((_, mut stream)) = decoder(file) else {
        return Ok(false);
    };
    let mut start = Vec::with_capacity(HEADER);
    let read = (&mut stream).take(HEADER as u64).read_to_end(&mut start);
    if read.is_err() || !is_archive(&start) {
        return Ok(false);
    }
    // From here on it is an archive, as for docker: what cannot be unpacked fails the build.
    let target = writer.real_destination(destination)?;
    writer.make_dirs(&target)?;
    // No link of an archive leads out of the place where it is unpacked (docker changes its root to that place).
    let inside = writer
        .root()
        .resolve(&target)
        .context(|| format!("open {destination}"))?;
    let unpacking = Unpacking {
        root: Root::from_fd(inside),
        owner: writer.owner,
    };
    let archive = Reader::new(std::io::Cursor::new(start).chain(stream));
    unpacking.all(archive).context(|| {
        let name = String::from_utf8_lossy(item.name()).into_owned();
        format!("unpack the archive {name:?}")
    })?;
    Ok(true)
}

/// Where an archive goes.
struct Unpacking {
    /// The destination; entries see nothing else.
    root: Root,
    /// `--chown`.
    owner: Option<(u32, u32)>,
}

impl Unpacking {
    fn all(&self, mut archive: Reader<impl Read>) -> Result<(), Error> {
        // Directories get their times last: every entry below changes them.
        let mut times = Vec::new();
        while let Some(entry) = archive.next_entry().context(|| "read the next entry")? {
            // The destination itself stays as it is.
            if entry.path.is_empty() {
                continue;
            }
            let shown = || format!("make {:?}", String::from_utf8_lossy(&entry.path));
            self.one(&entry, &mut archive).context(shown)?;
            if entry.kind == EntryKind::Directory {
                times.push((entry.path, entry.mtime));
            }
        }
        for (path, time) in times.iter().rev() {
            let path = Path::new(OsStr::from_bytes(path));
            // A later entry may have taken its place.
            if self.is(path, FileType::Directory)? {
                set_times(&self.root, path, (*time, 0))?;
            }
        }
        Ok(())
    }

    /// Extracts one entry; links on the way are followed, inside.
    fn one(&self, entry: &Entry, body: &mut impl Read) -> Result<(), Error> {
        let path = Path::new(OsStr::from_bytes(&entry.path));
        let owner = self.owner.unwrap_or((entry.uid, entry.gid));
        if let Some(parent) = path.parent() {
            self.root
                .create_dir_all(parent, 0o755, Some(self.owner.unwrap_or((0, 0))))
                .context(|| "make the directory")?;
        }
        self.make_room(path, entry.kind)?;
        match entry.kind {
            EntryKind::Directory => return self.directory(path, entry, owner),
            EntryKind::File | EntryKind::Whiteout => {
                let mut file = self
                    .root
                    .create_file(path, entry.mode, Some(owner))
                    .context(|| "make the file")?;
                std::io::copy(body, &mut file).context(|| "write the file")?;
                crate::xattr::write(std::os::fd::AsFd::as_fd(&file), &entry.xattrs)?;
            }
            EntryKind::Symlink => {
                let link = Path::new(OsStr::from_bytes(&entry.link));
                self.root
                    .symlink(link, path, Some(owner))
                    .context(|| "make the link")?;
            }
            EntryKind::Hardlink => {
                let original = Path::new(OsStr::from_bytes(&entry.link));
                return self
                    .root
                    .hard_link(original, path)
                    .context(|| "make the hard link");
            }
            EntryKind::CharDevice => self.device(path, entry, FileKind::CharDevice, owner)?,
            EntryKind::BlockDevice => self.device(path, entry, FileKind::BlockDevice, owner)?,
            EntryKind::Fifo => self.device(path, entry, FileKind::Fifo, owner)?,
        }
        set_times(&self.root, path, (entry.mtime, 0))
    }

    /// What is in the place of an entry goes, whatever is in it; but directories become one. As docker does it with an
    /// archive, where a copy of the same files would be refused.
    fn make_room(&self, path: &Path, kind: EntryKind) -> Result<(), Error> {
        let directories = self.is(path, FileType::Directory)? && kind == EntryKind::Directory;
        if directories {
            return Ok(());
        }
        self.root
            .remove_all(path)
            .context(|| "remove what is in its place")
    }

    fn is(&self, path: &Path, wanted: FileType) -> Result<bool, Error> {
        match self.root.symlink_metadata(path) {
            Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode) == wanted),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::wrap(error, "look at what is in its place")),
        }
    }

    fn directory(&self, path: &Path, entry: &Entry, owner: (u32, u32)) -> Result<(), Error> {
        let handle = self
            .root
            .create_dir_all(path, entry.mode, Some(owner))
            .context(|| "make the directory")?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&handle, ".", flags, Mode::empty())
            .and_then(|dir| {
                fchown(&dir, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
                fchmod(&dir, Mode::from_raw_mode(entry.mode))
            })
            .map_err(std::io::Error::from)
            .context(|| "set the owner")
    }

    fn device(&self, path: &Path, entry: &Entry, kind: FileKind, owner: (u32, u32)) -> Result<(), Error> {
        self.root
            .mknod(path, kind, entry.mode, (entry.major, entry.minor), Some(owner))
            .context(|| "make the device")
    }
}
