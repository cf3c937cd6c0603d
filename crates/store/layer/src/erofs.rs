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

#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use dhow_types::{Digest, ErrorKind};

use crate::hash::ContentHasher;
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

/// Bytes of a directory entry without its name.
const DIRENT: usize = 12;

/// `struct erofs_xattr_ibody_header`.
const XATTR_HEADER: usize = 12;

/// A file of the layer in the image.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) entry: Entry,
    /// Byte of the image at which its content begins, a multiple of [`BLOCK`]; for files with content only.
    pub(crate) data: u64,
}

/// The metadata of an image: what is not the tar or the content of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Byte of the image at which it begins; it ends with the image.
    pub(crate) start: u64,
    /// BLAKE3 of the first page and of all from `start`.
    pub(crate) hash: Digest,
}

/// Writes superblock and metadata to `image`, whose contents end at `end`. The nodes are sorted by path, and every
/// directory on the way to one is among them.
pub(crate) fn finish(image: &File, nodes: &[Node], end: u64) -> Result<Meta, Error> {
    let start = end.next_multiple_of(BLOCK);
    let mut tree = Tree::new(nodes)?;
    let data = tree.place()?;
    let mut bytes = vec![0; usize::try_from(data).map_err(|_| too_big())?];
    tree.fill(&mut bytes, start)?;
    let total = (start + bytes.len() as u64).next_multiple_of(PAGE);
    bytes.resize(usize::try_from(total - start).map_err(|_| too_big())?, 0);
    let uuid = ContentHasher::of(&bytes);
    let mut first = vec![0; 4096];
    let inodes = tree.inodes.len() as u64;
    superblock(
        &mut first[SUPERBLOCK..],
        inodes,
        blocks(total)?,
        blocks(start)?,
        &uuid,
    );
    let write = |bytes: &[u8], at| {
        image
            .write_all_at(bytes, at)
            .context(|| "write the image of a layer")
    };
    write(&first, 0)?;
    write(&bytes, start)?;
    Ok(Meta {
        start,
        hash: hash_of(&first, &bytes),
    })
}

/// The hash that [`Meta`] has of the metadata of a stored image that begins at `start`.
pub(crate) fn hash(image: &File, start: u64) -> Result<Digest, Error> {
    let read = |from: u64, to: u64| {
        let length = usize::try_from(to.saturating_sub(from)).unwrap_or(0);
        let mut bytes = vec![0; length];
        image
            .read_exact_at(&mut bytes, from)
            .context(|| "read the image of a layer")
            .map(|()| bytes)
    };
    let end = image.metadata().context(|| "look at the image of a layer")?.len();
    Ok(hash_of(&read(0, TAR)?, &read(start, end)?))
}

fn hash_of(first: &[u8], meta: &[u8]) -> Digest {
    let mut hasher = ContentHasher::new();
    hasher.update(first);
    hasher.update(meta);
    hasher.finish()
}

fn too_big() -> Error {
    Error::new(
        ErrorKind::ResourceExhausted,
        "the layer is too large for an erofs image",
    )
    .with_hint("keep its layers as directories (`dhow system layers directories`)")
}

/// Number of the block that begins at the byte `at`.
fn blocks(at: u64) -> Result<u32, Error> {
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

/// One inode, and where it goes.
struct Inode<'a> {
    entry: &'a Entry,
    /// Byte of its content in the image; of directories and long links, from the start of the metadata.
    data: u64,
    xattrs: Vec<u8>,
    links: u32,
    /// Inodes in it, by name; in the order of the names.
    children: Vec<(&'a [u8], usize)>,
    parent: usize,
    /// From the start of the metadata.
    at: u64,
    size: u64,
}

/// The number of the inode at `path`: after the root they are sorted by path.
fn find(inodes: &[Inode<'_>], path: &[u8]) -> Result<usize, Error> {
    if path.is_empty() {
        return Ok(0);
    }
    let named = inodes.get(1..).unwrap_or_default();
    let found = named.binary_search_by(|inode| inode.entry.path.as_slice().cmp(path));
    found.map(|at| at + 1).map_err(|_| inconsistent(path))
}

/// All inodes; the first is the root.
struct Tree<'a> {
    inodes: Vec<Inode<'a>>,
}

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

impl<'a> Tree<'a> {
    fn new(nodes: &'a [Node]) -> Result<Self, Error> {
        let mut inodes = Vec::with_capacity(nodes.len() + 1);
        let root = nodes
            .first()
            .map(|node| &node.entry)
            .filter(|entry| entry.path.is_empty());
        inodes.push(Inode::new(root.unwrap_or(&PLAIN_ROOT), 0)?);
        let named = || nodes.iter().filter(|node| !node.entry.path.is_empty());
        for node in named().filter(|node| node.entry.kind != EntryKind::Hardlink) {
            inodes.push(Inode::new(&node.entry, node.data)?);
        }
        let (mut last, mut here) = (0, (&b""[..], 0));
        for node in named() {
            let entry = &node.entry;
            let number = if entry.kind == EntryKind::Hardlink {
                find(&inodes, &entry.link)?
            } else {
                last += 1;
                last
            };
            let slash = entry.path.iter().rposition(|byte| *byte == b'/');
            let (dir, name) = slash.map_or((&b""[..], &entry.path[..]), |at| {
                (&entry.path[..at], &entry.path[at + 1..])
            });
            // Neighbours are mostly in one directory.
            if here.0 != dir {
                here = (dir, find(&inodes, dir)?);
            }
            let parent = here.1;
            inodes[parent].children.push((name, number));
            if inodes[number].entry.kind == EntryKind::Directory {
                inodes[number].parent = parent;
                inodes[parent].links += 1;
            } else {
                inodes[number].links += 1;
            }
        }
        Ok(Self { inodes })
    }

    /// Gives every inode, directory and long link its place; the length of the metadata.
    fn place(&mut self) -> Result<u64, Error> {
        let mut at = u64::from(ROOT) * SLOT;
        for inode in &mut self.inodes {
            // An inode lies in one block; so does the target of a link that is beside it.
            at = at.next_multiple_of(INODE);
            if let Some(length) = inode.inline()
                && at % BLOCK + INODE + length > BLOCK
            {
                at = at.next_multiple_of(BLOCK);
            }
            inode.at = at;
            at += INODE + inode.xattrs.len() as u64 + inode.inline().unwrap_or(0);
        }
        at = at.next_multiple_of(BLOCK);
        for inode in &mut self.inodes {
            let size = match inode.entry.kind {
                EntryKind::Directory => inode.directory_size(),
                EntryKind::Symlink if inode.inline().is_none() => inode.entry.link.len() as u64,
                _ => continue,
            };
            (inode.data, inode.size) = (at, size);
            at = (at + size).next_multiple_of(BLOCK);
        }
        Ok(at)
    }

    /// Writes all into `out`, which is at `start` of the image.
    fn fill(&self, out: &mut [u8], start: u64) -> Result<(), Error> {
        for (number, inode) in self.inodes.iter().enumerate() {
            let at = usize::try_from(inode.at).map_err(|_| too_big())?;
            inode.encode(&mut out[at..at + 64], number, start)?;
            let tail = at + 64 + inode.xattrs.len();
            out[at + 64..tail].copy_from_slice(&inode.xattrs);
            let data = usize::try_from(inode.data).map_err(|_| too_big())?;
            match inode.entry.kind {
                EntryKind::Symlink => {
                    let link = &inode.entry.link;
                    let place = if inode.inline().is_some() { tail } else { data };
                    out[place..place + link.len()].copy_from_slice(link);
                }
                EntryKind::Directory => self.directory(number, &mut out[data..]),
                _ => (),
            }
        }
        Ok(())
    }

    /// Writes the entries of a directory: blocks, each with a table and the names behind it.
    fn directory(&self, number: usize, out: &mut [u8]) {
        for (block, names) in self.inodes[number].names().iter().enumerate() {
            let block = &mut out[block * 512..];
            let mut name_at = names.len() * DIRENT;
            for (at, (name, child)) in names.iter().enumerate() {
                let child = match child {
                    Child::Own => number,
                    Child::Parent => self.inodes[number].parent,
                    Child::Inode(child) => *child,
                };
                let inode = &self.inodes[child];
                let record = &mut block[at * DIRENT..(at + 1) * DIRENT];
                record[..8].copy_from_slice(&(inode.at / SLOT).to_le_bytes());
                // A block has 512 bytes.
                record[8..10].copy_from_slice(&u16::try_from(name_at).unwrap_or(0).to_le_bytes());
                record[10] = file_type(inode.entry.kind);
                block[name_at..name_at + name.len()].copy_from_slice(name);
                name_at += name.len();
            }
        }
    }
}

/// What a name in a directory stands for.
#[derive(Clone, Copy)]
enum Child {
    Own,
    Parent,
    Inode(usize),
}

impl<'a> Inode<'a> {
    fn new(entry: &'a Entry, data: u64) -> Result<Self, Error> {
        let directory = entry.kind == EntryKind::Directory;
        Ok(Self {
            entry,
            data,
            xattrs: xattrs(entry)?,
            links: if directory { 2 } else { 0 },
            children: Vec::new(),
            parent: 0,
            at: 0,
            size: if entry.kind == EntryKind::Symlink {
                entry.link.len() as u64
            } else {
                entry.size
            },
        })
    }

    /// Bytes of the link target that lie beside the inode, when they fit its block.
    fn inline(&self) -> Option<u64> {
        let length = self.entry.link.len() as u64;
        let fits = INODE + self.xattrs.len() as u64 + length <= BLOCK;
        (self.entry.kind == EntryKind::Symlink && fits).then_some(length)
    }

    /// All names, with `.` and `..` where they sort, a block at a time.
    fn names(&self) -> Vec<Vec<(&'a [u8], Child)>> {
        let mut all: Vec<(&[u8], Child)> = vec![(b".", Child::Own), (b"..", Child::Parent)];
        all.extend(
            self.children
                .iter()
                .map(|(name, child)| (*name, Child::Inode(*child))),
        );
        all.sort_unstable_by_key(|(name, _)| *name);
        let mut blocks = vec![Vec::new()];
        let mut used = 0;
        for (name, child) in all {
            let size = DIRENT + name.len();
            if used + size > 512 {
                blocks.push(Vec::new());
                used = 0;
            }
            used += size;
            if let Some(block) = blocks.last_mut() {
                block.push((name, child));
            }
        }
        blocks
    }

    fn directory_size(&self) -> u64 {
        let blocks = self.names();
        let last = blocks.last().map_or(0, |block| {
            block.iter().map(|(name, _)| (DIRENT + name.len()) as u64).sum()
        });
        (blocks.len() as u64 - 1) * BLOCK + last
    }

    /// `struct erofs_inode_extended`, in `out`; the metadata is at `start` of the image.
    fn encode(&self, out: &mut [u8], number: usize, start: u64) -> Result<(), Error> {
        let entry = self.entry;
        // Extended; flat, with the tail beside the inode for short links.
        let layout: u16 = if self.inline().is_some() { 2 } else { 0 };
        out[0..2].copy_from_slice(&(1 | layout << 1).to_le_bytes());
        if !self.xattrs.is_empty() {
            let words = u16::try_from((self.xattrs.len() - XATTR_HEADER) / 4 + 1).map_err(|_| too_big())?;
            out[2..4].copy_from_slice(&words.to_le_bytes());
        }
        let mode = file_mode(entry);
        out[4..6].copy_from_slice(&mode.to_le_bytes());
        out[8..16].copy_from_slice(&self.size.to_le_bytes());
        let place = match entry.kind {
            EntryKind::CharDevice | EntryKind::BlockDevice => device(entry.major, entry.minor),
            EntryKind::Directory => blocks(start + self.data)?,
            EntryKind::Symlink if self.inline().is_none() => blocks(start + self.data)?,
            EntryKind::File if entry.size > 0 => blocks(self.data)?,
            _ => 0,
        };
        out[16..20].copy_from_slice(&place.to_le_bytes());
        out[20..24].copy_from_slice(&u32::try_from(number + 1).map_err(|_| too_big())?.to_le_bytes());
        out[24..28].copy_from_slice(&entry.uid.to_le_bytes());
        out[28..32].copy_from_slice(&entry.gid.to_le_bytes());
        out[32..40].copy_from_slice(&entry.mtime.to_le_bytes());
        out[44..48].copy_from_slice(&self.links.to_le_bytes());
        Ok(())
    }
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
