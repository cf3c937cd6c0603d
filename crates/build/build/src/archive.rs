//! `ADD` of a local archive: unpacked when its content is a tar, compressed or not, whatever its name.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dhow_layer::tar::{Reader, is_archive};
use dhow_layer::{Entry, EntryKind, decoder};
use dhow_rootpath::FileKind;
use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, openat};

use crate::failure::{Context as _, Error, Halt};
use crate::source::{Item, ItemKind, Source};
use crate::write::{Destination, Writer};

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
    let archive = Reader::new(std::io::Cursor::new(start).chain(stream));
    extract_all(writer, &target, archive).context(|| {
        let name = String::from_utf8_lossy(item.name()).into_owned();
        format!("unpack the archive {name:?}")
    })?;
    Ok(true)
}

fn extract_all(writer: &mut Writer<'_>, target: &Path, mut archive: Reader<impl Read>) -> Result<(), Error> {
    while let Some(entry) = archive.next_entry().context(|| "read the next entry")? {
        let shown = || format!("make {:?}", String::from_utf8_lossy(&entry.path));
        extract(writer, target, &entry, &mut archive).context(shown)?;
    }
    Ok(())
}

/// Extracts one entry; links on the way are followed inside the root.
fn extract(writer: &mut Writer<'_>, target: &Path, entry: &Entry, body: &mut impl Read) -> Result<(), Error> {
    let path = target.join(OsStr::from_bytes(&entry.path));
    let owner = writer.owner.unwrap_or((entry.uid, entry.gid));
    if entry.path.is_empty() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        writer
            .root()
            .create_dir_all(parent, 0o755, Some(writer.owner.unwrap_or((0, 0))))
            .context(|| "make the directory")?;
    }
    let time = (entry.mtime, 0);
    match entry.kind {
        EntryKind::Directory => {
            directory(writer, &path, entry, owner)?;
            writer.set_times_later(path, time);
            return Ok(());
        }
        EntryKind::File | EntryKind::Whiteout => {
            let root = writer.root();
            let mut file = root
                .create_file(&path, entry.mode, Some(owner))
                .context(|| "make the file")?;
            std::io::copy(body, &mut file).context(|| "write the file")?;
            crate::xattr::write(std::os::fd::AsFd::as_fd(&file), &entry.xattrs)?;
        }
        EntryKind::Symlink => {
            let link: PathBuf = OsStr::from_bytes(&entry.link).into();
            writer
                .root()
                .symlink(&link, &path, Some(owner))
                .context(|| "make the link")?;
        }
        EntryKind::Hardlink => {
            let original = target.join(OsStr::from_bytes(&entry.link));
            writer
                .root()
                .hard_link(&original, &path)
                .context(|| "make the hard link")?;
            return Ok(());
        }
        EntryKind::CharDevice => device(writer, &path, entry, FileKind::CharDevice, owner)?,
        EntryKind::BlockDevice => device(writer, &path, entry, FileKind::BlockDevice, owner)?,
        EntryKind::Fifo => device(writer, &path, entry, FileKind::Fifo, owner)?,
    }
    writer.set_times(&path, time)
}

fn directory(writer: &Writer<'_>, path: &Path, entry: &Entry, owner: (u32, u32)) -> Result<(), Error> {
    let handle = writer
        .root()
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

fn device(
    writer: &Writer<'_>,
    path: &Path,
    entry: &Entry,
    kind: FileKind,
    owner: (u32, u32),
) -> Result<(), Error> {
    writer
        .root()
        .mknod(path, kind, entry.mode, (entry.major, entry.minor), Some(owner))
        .context(|| "make the device")
}
