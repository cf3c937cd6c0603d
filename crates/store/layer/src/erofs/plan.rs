//! Where everything of an image goes, and its way there: inodes in the order of the paths, then directories and long links
//! in the same order.

use std::fs::File;
use std::path::Path;

use dhow_types::{Digest, ErrorKind};

use super::{
    BLOCK, DIRENT, INODE, PAGE, PIECE, PLAIN_ROOT, ROOT, SLOT, Sorted, XATTR_HEADER, blocks, device,
    file_mode, file_type, inconsistent, put, too_big, xattrs,
};
use crate::column::{self, Cell, Column, halves};
use crate::hash::ContentHasher;
use crate::{Entry, EntryKind, Error};

/// All inodes by number; that of the root is 0, then they follow the entries that are no hard links.
pub(super) struct Plan {
    /// By inode: where it is in the metadata, in slots.
    pub(super) at: Column<u32>,
    links: Column<u32>,
    /// Where the inodes end.
    end: u64,
    /// By inode: its `EROFS_FT_*`.
    types: Column<u8>,
    /// By entry, its inode.
    inodes: Column<u32>,
    /// By entry: which of `outside` is its directory.
    parents: Column<u32>,
    /// Directories and long links.
    outside: Column<Outside>,
    /// Entries, sorted by directory; see [`Outside::first`].
    children: Column<u32>,
}

/// A directory or long link: its content lies behind the inodes.
#[derive(Clone, Copy, Debug)]
struct Outside {
    inode: u32,
    /// Its entry, which the root may lack.
    entry: Option<u32>,
    /// The directory that it is in.
    parent: u32,
    /// Bytes of its content.
    size: u64,
    /// Where that begins in the metadata, in blocks.
    block: u32,
    /// Of a directory: the names so far.
    names: Option<Names>,
    /// Of a directory: where its entries begin in `children`, and how many there are.
    first: u32,
    count: u32,
}

impl Cell for Outside {
    // A power of two, so that none lies in two pages.
    const SIZE: usize = 64;
    const ZERO: Self = Self {
        inode: 0,
        entry: None,
        parent: 0,
        size: 0,
        block: 0,
        names: None,
        first: 0,
        count: 0,
    };

    fn put(self, bytes: &mut [u8]) {
        let names = self.names.unwrap_or_default();
        // An entry has a number below that.
        let entry = self.entry.unwrap_or(u32::MAX);
        let words = [
            self.inode,
            entry,
            self.parent,
            self.block,
            self.first,
            self.count,
            names.blocks,
        ];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes[32..40].copy_from_slice(&self.size.to_le_bytes());
        bytes[40..42].copy_from_slice(&names.used.to_le_bytes());
        bytes[42] = names.dots;
        bytes[43] = u8::from(self.names.is_some());
    }

    fn get(bytes: &[u8]) -> Self {
        let word = |at: usize| <u32 as Cell>::get(&bytes[at * 4..at * 4 + 4]);
        let names = Names {
            blocks: word(6),
            used: u16::from_le_bytes([bytes[40], bytes[41]]),
            dots: bytes[42],
        };
        Self {
            inode: word(0),
            entry: Some(word(1)).filter(|entry| *entry != u32::MAX),
            parent: word(2),
            size: <u64 as Cell>::get(&bytes[32..40]),
            block: word(3),
            names: Some(names).filter(|_| bytes[43] == 1),
            first: word(4),
            count: word(5),
        }
    }
}

/// The directories that may still get entries: each is the beginning of the next one's path.
struct Open {
    /// Length of its path.
    length: usize,
    /// Which of `outside` it is.
    number: u32,
}

/// Names of a directory, put into blocks one after the other in their order. The dots come where they sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Names {
    /// Whole blocks, and bytes of the last one.
    blocks: u32,
    used: u16,
    dots: u8,
}

/// What every directory has.
const DOTS: [&[u8]; 2] = [b".", b".."];

impl Names {
    /// The dots that come before `name`; all that are left at the end.
    fn dots_before(&mut self, name: Option<&[u8]>) -> &'static [&'static [u8]] {
        let from = usize::from(self.dots);
        let left = &DOTS[from..];
        let count = left.partition_point(|dot| name.is_none_or(|name| *dot < name));
        self.dots += u8::try_from(count).unwrap_or(0);
        &left[..count]
    }

    /// Adds a name; whether it begins a block.
    fn add(&mut self, name: &[u8]) -> bool {
        // Names are no longer than 255 bytes.
        let size = u16::try_from(DIRENT + name.len()).unwrap_or(u16::MAX);
        let new = u64::from(self.used) + u64::from(size) > BLOCK;
        if new {
            self.blocks += 1;
            self.used = 0;
        }
        self.used += size;
        new
    }

    fn add_all(&mut self, name: Option<&[u8]>) {
        for name in self.dots_before(name).iter().copied().chain(name) {
            self.add(name);
        }
    }

    fn size(self) -> u64 {
        u64::from(self.blocks) * BLOCK + u64::from(self.used)
    }
}

fn count(number: usize) -> Result<u32, Error> {
    u32::try_from(number).map_err(|_| too_big())
}

impl Plan {
    /// What is much of it goes to files in `dir`.
    pub(super) fn new(dir: &Path, entries: &mut impl Sorted, links: &Column<u64>) -> Result<Self, Error> {
        Self::keeping(dir, column::KEPT, entries, links)
    }

    pub(super) fn keeping(
        dir: &Path,
        kept: usize,
        entries: &mut impl Sorted,
        links: &Column<u64>,
    ) -> Result<Self, Error> {
        let column = || Column::keeping(dir, kept);
        let mut plan = Self {
            at: column(),
            links: column(),
            end: u64::from(ROOT) * SLOT,
            types: Column::keeping(dir, kept),
            inodes: column(),
            parents: column(),
            outside: Column::keeping(dir, kept),
            children: column(),
        };
        let mut open = vec![Open { length: 0, number: 0 }];
        let mut before = Vec::new();
        for number in 0..entries.len() {
            let entry = entries.entry(number)?;
            if plan.outside.is_empty() {
                // The root, which the layer may not name.
                let (named, root) = match entry.path.is_empty() {
                    true => (Some(0), &entry),
                    false => (None, &PLAIN_ROOT),
                };
                plan.add_inode(root)?;
                plan.add_outside(named, 0, 0)?;
            }
            if entry.path.is_empty() {
                plan.inodes.push(0)?;
                plan.parents.push(0)?;
                continue;
            }
            plan.add(number, &entry, &before, &mut open)?;
            before = entry.path;
        }
        if plan.outside.is_empty() {
            plan.add_inode(&PLAIN_ROOT)?;
            plan.add_outside(None, 0, 0)?;
        }
        plan.link(links)?;
        plan.sort_children(Column::keeping(dir, kept))?;
        Ok(plan)
    }

    /// Adds an entry that is not the root.
    fn add(
        &mut self,
        number: usize,
        entry: &Entry,
        before: &[u8],
        open: &mut Vec<Open>,
    ) -> Result<(), Error> {
        let path = entry.path.as_slice();
        let same = path.iter().zip(before).take_while(|(a, b)| a == b).count();
        while open.last().is_some_and(|last| last.length > same) {
            open.pop();
        }
        let slash = path.iter().rposition(|byte| *byte == b'/');
        let (dir, name) = slash.map_or((0, path), |at| (at, &path[at + 1..]));
        let parent = open.iter().rev().find(|open| open.length == dir);
        let parent = parent.ok_or_else(|| inconsistent(path))?.number;
        let mut directory = self.outside.get(parent as usize)?;
        directory.count += 1;
        if let Some(names) = &mut directory.names {
            names.add_all(Some(name));
        }
        self.outside.set(parent as usize, directory)?;
        self.parents.push(parent)?;
        if entry.kind == EntryKind::Hardlink {
            // Its inode may come later.
            return self.inodes.push(u32::MAX);
        }
        let inode = self.at.len();
        self.inodes.push(count(inode)?)?;
        self.add_inode(entry)?;
        if entry.kind == EntryKind::Directory {
            self.add_link(directory.inode as usize)?;
            open.push(Open {
                length: path.len(),
                number: count(self.outside.len())?,
            });
            return self.add_outside(Some(count(number)?), inode, parent);
        }
        self.add_link(inode)?;
        if entry.kind == EntryKind::Symlink && inline(entry, xattrs(entry)?.len()).is_none() {
            let at = self.outside.len();
            self.add_outside(Some(count(number)?), inode, parent)?;
            let link = Outside {
                names: None,
                size: entry.link.len() as u64,
                ..self.outside.get(at)?
            };
            self.outside.set(at, link)?;
        }
        Ok(())
    }

    fn add_link(&mut self, inode: usize) -> Result<(), Error> {
        let links = self.links.get(inode)?;
        self.links.set(inode, links + 1)
    }

    /// Places an inode behind the others.
    fn add_inode(&mut self, entry: &Entry) -> Result<(), Error> {
        let attributes = xattrs(entry)?.len();
        let tail = inline(entry, attributes);
        // An inode lies in one block; so does the target of a link that is beside it.
        let mut at = self.end.next_multiple_of(INODE);
        if let Some(length) = tail
            && at % BLOCK + INODE + length > BLOCK
        {
            at = at.next_multiple_of(BLOCK);
        }
        self.at.push(u32::try_from(at / SLOT).map_err(|_| too_big())?)?;
        self.links
            .push(if entry.kind == EntryKind::Directory { 2 } else { 0 })?;
        self.types.push(file_type(entry.kind))?;
        self.end = at + INODE + attributes as u64 + tail.unwrap_or(0);
        Ok(())
    }

    fn add_outside(&mut self, entry: Option<u32>, inode: usize, parent: u32) -> Result<(), Error> {
        self.outside.push(Outside {
            // There are fewer than entries.
            inode: u32::try_from(inode).unwrap_or(u32::MAX),
            entry,
            parent,
            size: 0,
            block: 0,
            names: Some(Names::default()),
            first: 0,
            count: 0,
        })
    }

    /// Hard links are names of the inodes of others.
    fn link(&mut self, links: &Column<u64>) -> Result<(), Error> {
        for at in 0..links.len() {
            let (link, target) = halves(links.get(at)?);
            let (link, target) = (link as usize, target as usize);
            let count = self.inodes.len();
            let inode = if link.max(target) < count {
                self.inodes.get(target)?
            } else {
                u32::MAX
            };
            if inode == u32::MAX {
                return Err(inconsistent(b"a hard link"));
            }
            self.add_link(inode as usize)?;
            self.inodes.set(link, inode)?;
        }
        self.inodes.scan(0, |_, inode| match inode {
            u32::MAX => Err(inconsistent(b"a hard link")),
            _ => Ok(()),
        })
    }

    /// Puts the entries in the order of their directories, in which they stay in theirs.
    fn sort_children(&mut self, children: Column<u32>) -> Result<(), Error> {
        let mut first = 0;
        for at in 0..self.outside.len() {
            let mut directory = self.outside.get(at)?;
            (directory.first, first) = (first, first + directory.count);
            directory.count = 0;
            self.outside.set(at, directory)?;
        }
        self.children = children.zeros(first as usize)?;
        let unnamed = self.inodes.len() - first as usize;
        for entry in unnamed..self.inodes.len() {
            let parent = self.parents.get(entry)? as usize;
            let mut directory = self.outside.get(parent)?;
            let at = directory.first + directory.count;
            self.children.set(at as usize, count(entry)?)?;
            directory.count += 1;
            self.outside.set(parent, directory)?;
        }
        self.parents = Column::keeping(Path::new(""), 0);
        Ok(())
    }

    /// Bytes in memory.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        let words = [&self.at, &self.links, &self.inodes, &self.parents, &self.children];
        let words: usize = words.iter().map(|words| words.size()).sum();
        words + self.types.size() + self.outside.size()
    }

    /// Gives every directory and long link its place behind the inodes.
    pub(super) fn place_outside(&mut self) -> Result<(), Error> {
        let mut at = self.end.next_multiple_of(BLOCK);
        for number in 0..self.outside.len() {
            let mut outside = self.outside.get(number)?;
            if let Some(names) = &mut outside.names {
                names.add_all(None);
                outside.size = names.size();
            }
            outside.block = blocks(at)?;
            at = (at + outside.size).next_multiple_of(BLOCK);
            self.outside.set(number, outside)?;
        }
        Ok(())
    }

    /// Writes every inode, with its attributes and the target of a short link.
    pub(super) fn write_inodes(
        &self,
        entries: &mut impl Sorted,
        data: &Column<u32>,
        output: &mut Output<'_>,
    ) -> Result<(), Error> {
        let mut next = 0;
        let mut outside = |inode: u32| {
            if next >= self.outside.len() {
                return Ok(None);
            }
            let outside = Some(self.outside.get(next)?).filter(|outside| outside.inode == inode);
            next += usize::from(outside.is_some());
            Ok::<_, Error>(outside)
        };
        if !self.outside.is_empty() && self.outside.get(0)?.entry.is_none() {
            self.write_inode(0, &PLAIN_ROOT, 0, outside(0)?.as_ref(), output)?;
        }
        for number in 0..entries.len() {
            let entry = entries.entry(number)?;
            if entry.kind == EntryKind::Hardlink {
                continue;
            }
            let inode = self.inodes.get(number)?;
            let data = if number < data.len() { data.get(number)? } else { 0 };
            self.write_inode(inode as usize, &entry, data, outside(inode)?.as_ref(), output)?;
        }
        Ok(())
    }

    /// `struct erofs_inode_extended` and what is beside it. The content of a file begins at the block `data` of the image.
    fn write_inode(
        &self,
        number: usize,
        entry: &Entry,
        data: u32,
        outside: Option<&Outside>,
        output: &mut Output<'_>,
    ) -> Result<(), Error> {
        let xattrs = xattrs(entry)?;
        let tail = inline(entry, xattrs.len());
        // Extended; flat, with the tail beside the inode for short links.
        let layout: u16 = if tail.is_some() { 2 } else { 0 };
        let mut out = [0; 64];
        out[0..2].copy_from_slice(&(1 | layout << 1).to_le_bytes());
        if !xattrs.is_empty() {
            let words = u16::try_from((xattrs.len() - XATTR_HEADER) / 4 + 1).map_err(|_| too_big())?;
            out[2..4].copy_from_slice(&words.to_le_bytes());
        }
        out[4..6].copy_from_slice(&file_mode(entry).to_le_bytes());
        let size = match entry.kind {
            EntryKind::Symlink => entry.link.len() as u64,
            _ => outside.map_or(entry.size, |outside| outside.size),
        };
        out[8..16].copy_from_slice(&size.to_le_bytes());
        let place = match (entry.kind, outside) {
            (EntryKind::CharDevice | EntryKind::BlockDevice, _) => device(entry.major, entry.minor),
            (_, Some(outside)) => blocks(output.start)?
                .checked_add(outside.block)
                .ok_or_else(too_big)?,
            (EntryKind::File, _) if entry.size > 0 => data,
            _ => 0,
        };
        out[16..20].copy_from_slice(&place.to_le_bytes());
        out[20..24].copy_from_slice(&count(number + 1)?.to_le_bytes());
        out[24..28].copy_from_slice(&entry.uid.to_le_bytes());
        out[28..32].copy_from_slice(&entry.gid.to_le_bytes());
        out[32..40].copy_from_slice(&entry.mtime.to_le_bytes());
        out[44..48].copy_from_slice(&self.links.get(number)?.to_le_bytes());
        output.pad_to(u64::from(self.at.get(number)?) * SLOT)?;
        output.put(&out)?;
        output.put(&xattrs)?;
        match tail {
            Some(_) => output.put(&entry.link),
            None => Ok(()),
        }
    }

    /// Writes the directories and long links.
    pub(super) fn write_outside(
        &self,
        entries: &mut impl Sorted,
        output: &mut Output<'_>,
    ) -> Result<(), Error> {
        for number in 0..self.outside.len() {
            let outside = self.outside.get(number)?;
            output.pad_to(u64::from(outside.block) * BLOCK)?;
            match (&outside.names, outside.entry) {
                (None, Some(entry)) => output.put(&entries.entry(entry as usize)?.link)?,
                _ => self.write_directory(&outside, entries, output)?,
            }
        }
        Ok(())
    }

    /// Writes the names of a directory: blocks, each with a table and the names behind it.
    fn write_directory(
        &self,
        directory: &Outside,
        entries: &mut impl Sorted,
        output: &mut Output<'_>,
    ) -> Result<(), Error> {
        let above = self.outside.get(directory.parent as usize)?.inode;
        let dot = |dot: &[u8]| match dot {
            b"." => directory.inode,
            _ => above,
        };
        let (mut names, mut block) = (Names::default(), Block::default());
        let mut add = |name: &[u8], inode: u32, names: &mut Names| {
            if names.add(name) {
                block.write(output)?;
                output.pad_to(output.at.next_multiple_of(BLOCK))?;
            }
            let (at, kind) = (self.at.get(inode as usize)?, self.types.get(inode as usize)?);
            block.add(name, at, kind);
            Ok::<_, Error>(block.names.len())
        };
        for place in directory.first..directory.first + directory.count {
            let child = self.children.get(place as usize)?;
            let path = entries.entry(child as usize)?.path;
            let slash = path.iter().rposition(|byte| *byte == b'/');
            let name = &path[slash.map_or(0, |at| at + 1)..];
            for special in names.dots_before(Some(name)) {
                add(special, dot(special), &mut names)?;
            }
            add(name, self.inodes.get(child as usize)?, &mut names)?;
        }
        for special in names.dots_before(None) {
            add(special, dot(special), &mut names)?;
        }
        block.write(output)
    }
}

/// Bytes of a link's target that lie beside its inode and this many of attributes, when they fit its block.
fn inline(entry: &Entry, attributes: usize) -> Option<u64> {
    let length = entry.link.len() as u64;
    let fits = INODE + attributes as u64 + length <= BLOCK;
    (entry.kind == EntryKind::Symlink && fits).then_some(length)
}

/// A block of a directory.
#[derive(Default)]
struct Block {
    /// Length, inode's slot and type of each name.
    table: Vec<(u16, u32, u8)>,
    names: Vec<u8>,
}

impl Block {
    fn add(&mut self, name: &[u8], at: u32, kind: u8) {
        // A block has 512 bytes.
        self.table
            .push((u16::try_from(name.len()).unwrap_or(0), at, kind));
        self.names.extend_from_slice(name);
    }

    fn write(&mut self, output: &mut Output<'_>) -> Result<(), Error> {
        let mut name_at = u16::try_from(self.table.len() * DIRENT).unwrap_or(0);
        for (length, at, kind) in self.table.drain(..) {
            let mut record = [0; DIRENT];
            record[..8].copy_from_slice(&u64::from(at).to_le_bytes());
            record[8..10].copy_from_slice(&name_at.to_le_bytes());
            record[10] = kind;
            name_at += length;
            output.put(&record)?;
        }
        output.put(&self.names)?;
        self.names.clear();
        Ok(())
    }
}

/// The metadata on its way to the image.
pub(super) struct Output<'a> {
    image: &'a File,
    /// Byte of the image at which it begins.
    start: u64,
    /// Bytes so far.
    at: u64,
    buffer: Vec<u8>,
    hasher: ContentHasher,
}

impl<'a> Output<'a> {
    pub(super) fn new(image: &'a File, start: u64) -> Self {
        Self {
            image,
            start,
            at: 0,
            buffer: Vec::new(),
            hasher: ContentHasher::new(),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.buffer.extend_from_slice(bytes);
        self.at += bytes.len() as u64;
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(())
    }

    /// Zeros up to `at`.
    fn pad_to(&mut self, at: u64) -> Result<(), Error> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let missing = at
            .checked_sub(self.at)
            .and_then(|missing| usize::try_from(missing).ok());
        let zeros = missing.and_then(|missing| ZEROS.get(..missing));
        let overlap = || Error::new(ErrorKind::Internal, "the metadata of an image overlap");
        self.put(zeros.ok_or_else(overlap)?)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.hasher.update(&self.buffer);
        let done = self.at - self.buffer.len() as u64;
        put(self.image, &self.buffer, self.start + done)?;
        self.buffer.clear();
        Ok(())
    }

    /// Ends the image on a page; its length, and the hash of all that was put.
    pub(super) fn finish(mut self) -> Result<(u64, Digest), Error> {
        let total = (self.start + self.at).next_multiple_of(PAGE);
        self.pad_to(total - self.start)?;
        self.flush()?;
        Ok((total, self.hasher.finish()))
    }
}
