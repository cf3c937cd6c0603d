//! The erofs image of a layer (Linux, Documentation/filesystems/erofs.rst; fs/erofs/erofs_fs.h), written by ourselves.
//!
//! The tar itself is the data: a file's blocks are where its body lies in the archive, since both are aligned to 512
//! bytes. So a layer needs no file to be created, and its exact tar is there as it came.
//! ```text
//! 0       superblock (at 1024), up to 4096
//! 4096    the tar
//! ...     contents that the tar does not have in one piece (sparse files), each on a block
//! meta    inodes, each with its attributes and, for short links, its target; the root first
//! ...     directories and long link targets, each on a block; up to a multiple of 4096
//! ```
//! Nothing of it depends on who writes it, or when: one tar gives one image.

mod plan;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use dhow_types::{Digest, ErrorKind};

use self::plan::{Output, Plan};
use crate::column::Column;
use crate::hash::ContentHasher;
use crate::index::Stored;
use crate::{Context, Entry, EntryKind, Error};

/// Size of a block: that of a tar, so that bodies need not move.
const BLOCK: u64 = 512;

/// Where the tar begins.
pub(crate) const TAR: u64 = 4096;

/// Images end on a page.
const PAGE: u64 = 4096;

/// `EROFS_SUPER_MAGIC_V1`, and its place.
const MAGIC: u32 = 0xe0f5_e1e2;
const SUPERBLOCK: usize = 1024;

/// Bytes of an extended inode, and of the slots that inode numbers count.
const INODE: u64 = 64;
const SLOT: u64 = 32;

/// Bytes that are written, or read, at once.
const PIECE: usize = 256 << 10;

/// Bytes of a directory entry without its name.
const DIRENT: usize = 12;

/// `struct erofs_xattr_ibody_header`.
const XATTR_HEADER: usize = 12;

/// The entries of a layer, sorted by path.
pub(crate) trait Sorted {
    /// How many there are.
    fn len(&self) -> usize;
    /// The entry with this number.
    fn entry(&mut self, at: usize) -> Result<Entry, Error>;
}

/// Few of them.
impl Sorted for Vec<Entry> {
    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn entry(&mut self, at: usize) -> Result<Entry, Error> {
        self.get(at).cloned().ok_or_else(|| inconsistent(b"an entry"))
    }
}

impl Sorted for Stored {
    fn len(&self) -> usize {
        Self::len(self)
    }

    fn entry(&mut self, at: usize) -> Result<Entry, Error> {
        Self::entry(self, at)
    }
}

/// The metadata of an image: what is not the tar or the content of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Byte of the image at which it begins; it ends with the image.
    pub(crate) start: u64,
    /// BLAKE3 of the first page and of all from `start`.
    pub(crate) hash: Digest,
}

/// Writes superblock and metadata to `image`, whose contents end at `end`. Every directory on the way to an entry is among
/// them. `data` has for each the block at which its content begins (0 for what has none), `links` pairs of each hard link
/// and what it is another name of.
///
/// Layers may have millions of entries: what is known of each goes to files without a name in `dir` where it is much.
pub(crate) fn finish(
    image: &File,
    dir: &Path,
    entries: &mut impl Sorted,
    data: &Column<u32>,
    links: &Column<u64>,
    end: u64,
) -> Result<Meta, Error> {
    let start = end.next_multiple_of(BLOCK);
    let mut plan = Plan::new(dir, entries, links)?;
    plan.place_outside()?;
    let mut output = Output::new(image, start);
    plan.write_inodes(entries, data, &mut output)?;
    plan.write_outside(entries, &mut output)?;
    let (total, uuid) = output.finish()?;
    let mut first = vec![0; 4096];
    let inodes = plan.at.len() as u64;
    superblock(
        &mut first[SUPERBLOCK..],
        inodes,
        blocks(total)?,
        blocks(start)?,
        &uuid,
    );
    put(image, &first, 0)?;
    Ok(Meta {
        start,
        hash: hash(image, start)?,
    })
}

fn put(image: &File, bytes: &[u8], at: u64) -> Result<(), Error> {
    let put = image.write_all_at(bytes, at);
    put.context(|| "write the image of a layer")
}

/// The hash that [`Meta`] has of the metadata of a stored image that begins at `start`.
pub(crate) fn hash(image: &File, start: u64) -> Result<Digest, Error> {
    let end = image.metadata().context(|| "look at the image of a layer")?.len();
    let mut hasher = ContentHasher::new();
    let mut buffer = vec![0; PIECE];
    for (mut from, to) in [(0, TAR), (start, end)] {
        while from < to {
            let count = usize::try_from(to - from).map_or(PIECE, |left| left.min(PIECE));
            let part = &mut buffer[..count];
            image
                .read_exact_at(part, from)
                .context(|| "read the image of a layer")?;
            hasher.update(part);
            from += count as u64;
        }
    }
    Ok(hasher.finish())
}

fn too_big() -> Error {
    Error::new(
        ErrorKind::ResourceExhausted,
        "the layer is too large for an erofs image",
    )
    .with_hint("keep its layers as directories (`dhow system layers directories`)")
}

/// Number of the block that begins at the byte `at`.
///
/// # Errors
/// `ResourceExhausted` when it has none.
pub(crate) fn blocks(at: u64) -> Result<u32, Error> {
    u32::try_from(at / BLOCK).map_err(|_| too_big())
}

/// `struct erofs_super_block`. No time of building, and a name of its content: images of one tar are equal, and overlayfs
/// can tell layers apart.
fn superblock(out: &mut [u8], inodes: u64, blocks: u32, meta: u32, uuid: &Digest) {
    out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    out[12] = 9;
    out[14..16].copy_from_slice(&ROOT.to_le_bytes());
    out[16..24].copy_from_slice(&inodes.to_le_bytes());
    out[36..40].copy_from_slice(&blocks.to_le_bytes());
    out[40..44].copy_from_slice(&meta.to_le_bytes());
    out[48..64].copy_from_slice(&uuid.as_bytes()[..16]);
}

/// Number of the root's inode: not 0, which says "no such file" to who reads directories.
const ROOT: u16 = 2;

/// The root when the layer says nothing about it.
static PLAIN_ROOT: Entry = Entry {
    path: Vec::new(),
    kind: EntryKind::Directory,
    opaque: false,
    implied: true,
    mode: 0o755,
    uid: 0,
    gid: 0,
    size: 0,
    mtime: 0,
    link: Vec::new(),
    major: 0,
    minor: 0,
    xattrs: Vec::new(),
    content: None,
};

fn inconsistent(path: &[u8]) -> Error {
    let shown = String::from_utf8_lossy(path);
    Error::new(
        ErrorKind::Internal,
        format!("{shown} has no place in the image of its layer"),
    )
}

/// Type and permission bits, as in `st_mode`.
fn file_mode(entry: &Entry) -> u16 {
    let (kind, mode) = match entry.kind {
        EntryKind::File | EntryKind::Hardlink => (0o10, entry.mode),
        EntryKind::Directory => (0o4, entry.mode),
        EntryKind::Symlink => (0o12, 0o777),
        // A whiteout is the device 0:0.
        EntryKind::CharDevice | EntryKind::Whiteout => (0o2, entry.mode),
        EntryKind::BlockDevice => (0o6, entry.mode),
        EntryKind::Fifo => (0o1, entry.mode),
    };
    kind << 12 | u16::try_from(mode & 0o7777).unwrap_or(0)
}

/// `EROFS_FT_*`.
fn file_type(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::File | EntryKind::Hardlink => 1,
        EntryKind::Directory => 2,
        EntryKind::CharDevice | EntryKind::Whiteout => 3,
        EntryKind::BlockDevice => 4,
        EntryKind::Fifo => 5,
        EntryKind::Symlink => 7,
    }
}

/// `new_encode_dev` of the kernel: 12 bits of major, 20 of minor number.
fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// `struct erofs_xattr_ibody_header` and its entries; nothing when there are no attributes.
fn xattrs(entry: &Entry) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    let opaque = entry
        .opaque
        .then_some((&b"trusted.overlay.opaque"[..], &b"y"[..]));
    let own = entry
        .xattrs
        .iter()
        .map(|(name, value)| (name.as_slice(), value.as_slice()));
    for (name, value) in own.chain(opaque) {
        // Links and devices hold no user attributes (xattr(7)).
        let plain = matches!(entry.kind, EntryKind::File | EntryKind::Directory);
        let (index, rest) = match prefix(name) {
            Some((1, _)) if !plain => continue,
            Some(found) => found,
            None => continue,
        };
        let bad = || {
            let shown = String::from_utf8_lossy(name);
            Error::new(
                ErrorKind::Unsupported,
                format!("the extended attribute {shown:?} is too long"),
            )
        };
        if out.is_empty() {
            out.resize(XATTR_HEADER, 0);
        }
        out.push(u8::try_from(rest.len()).map_err(|_| bad())?);
        out.push(index);
        out.extend_from_slice(&u16::try_from(value.len()).map_err(|_| bad())?.to_le_bytes());
        out.extend_from_slice(rest);
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    Ok(out)
}

/// `EROFS_XATTR_INDEX_*` and the rest of a name.
fn prefix(name: &[u8]) -> Option<(u8, &[u8])> {
    [(1, &b"user."[..]), (4, b"trusted."), (6, b"security.")]
        .into_iter()
        .find_map(|(index, prefix)| Some((index, name.strip_prefix(prefix)?)))
}
