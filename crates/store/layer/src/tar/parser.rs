use dhow_types::ErrorKind;

use super::header::{BLOCK, Dialect, Header};
use super::pax::Pax;
use super::sparse::{FrontMap, SparseMap, gnu_header, gnu_slots};
use super::{clean, header};
use crate::{Entry, EntryKind, Error, Limits};

/// Where the bytes of an archive come from, a piece at a time and without copies.
pub(crate) trait Source {
    /// The bytes at hand; empty only at the end.
    fn fill(&mut self) -> Result<&[u8], Error>;
    /// Marks bytes of the last `fill` as used.
    fn consume(&mut self, count: usize);
    /// Bytes that were used so far.
    fn position(&self) -> u64;
    /// Goes over at most `count` bytes; over how many, none only at the end.
    fn skip(&mut self, count: u64) -> Result<u64, Error> {
        let bytes = self.fill()?.len();
        let count = usize::try_from(count).map_or(bytes, |count| count.min(bytes));
        self.consume(count);
        Ok(count as u64)
    }
}

/// A piece of the body of the current entry.
#[derive(Debug)]
pub(crate) struct Piece<'a> {
    /// Where it goes in the file.
    pub(crate) offset: u64,
    /// The bytes.
    pub(crate) bytes: &'a [u8],
}

/// Splits an archive into entries, bodies and the rest ("literal": headers and padding).
#[derive(Debug)]
pub(crate) struct Parser<S> {
    source: S,
    limits: Limits,
    entries: u64,
    /// Of sparse files.
    pieces: u64,
    total: u64,
    holes: u64,
    /// Stored bytes of the current body that were not consumed yet.
    left: u64,
    /// Bytes after the body up to the next block.
    padding: u64,
    map: Option<SparseMap>,
    /// Piece of the map that comes next, and how much of it is done.
    piece: usize,
    done: u64,
    literal: Option<Vec<u8>>,
    ended: bool,
}

/// Extended headers that belong to the next entry.
#[derive(Debug, Default)]
struct Extension {
    pax: Pax,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    /// Bytes of all of them.
    bytes: usize,
}

pub(super) fn early_end() -> Error {
    Error::new(ErrorKind::DataLoss, "the archive ends in the middle of an entry")
}

impl<S: Source> Parser<S> {
    pub(crate) fn new(source: S, limits: Limits) -> Self {
        Self {
            source,
            limits,
            entries: 0,
            pieces: 0,
            total: 0,
            holes: 0,
            left: 0,
            padding: 0,
            map: None,
            piece: 0,
            done: 0,
            literal: None,
            ended: false,
        }
    }

    /// Keeps the literal bytes from now on; they must be taken regularly.
    pub(crate) fn record(mut self) -> Self {
        self.literal = Some(Vec::with_capacity(4 * BLOCK));
        self
    }

    /// The literal bytes since the last call.
    pub(crate) fn literal(&mut self) -> Option<&mut Vec<u8>> {
        self.literal.as_mut()
    }

    /// Where the bytes come from.
    pub(crate) const fn source(&self) -> &S {
        &self.source
    }

    /// The map of the current entry, when it is sparse.
    pub(crate) fn sparse(&self) -> Option<&SparseMap> {
        self.map.as_ref()
    }

    /// Stored bytes of the current body that were not read yet.
    pub(crate) fn stored(&self) -> u64 {
        self.left
    }

    /// The next entry; `None` at the end marker or at a clean end of the source.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        self.skip_body()?;
        if self.ended {
            return Ok(None);
        }
        let mut extension = Extension::default();
        loop {
            let Some(header) = self.header()? else {
                if extension.bytes > 0 {
                    return Err(early_end());
                }
                self.ended = true;
                return Ok(None);
            };
            match header.type_flag() {
                b'x' | b'X' => {
                    let bytes = self.extended_body(&header, &mut extension)?;
                    extension.pax = Pax::parse(&bytes, self.limits.xattrs)?;
                }
                b'L' => {
                    let bytes = self.extended_body(&header, &mut extension)?;
                    extension.long_name = Some(header::text(&bytes).to_vec());
                }
                b'K' => {
                    let bytes = self.extended_body(&header, &mut extension)?;
                    extension.long_link = Some(header::text(&bytes).to_vec());
                }
                // Global headers and volume labels change nothing, as in Go and docker.
                b'g' | b'V' => drop(self.extended_body(&header, &mut extension)?),
                _ => return self.entry(&header, extension).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header, extension: Extension) -> Result<Entry, Error> {
        let Extension {
            mut pax,
            long_name,
            long_link,
            ..
        } = extension;
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(self.exhausted("entries", self.limits.entries));
        }
        let sparse_name = pax.sparse.name.take();
        let raw = sparse_name
            .or(long_name)
            .or(pax.path.take())
            .unwrap_or_else(|| header.name());
        let kind = kind_of(header, &raw)?;
        let mut entry = Entry::new(clean(&raw, &self.limits)?, kind, header.mode()?);
        let (uid, gid) = match (pax.uid, pax.gid) {
            (Some(uid), Some(gid)) => (uid, gid),
            (uid, gid) => {
                let fields = header.owner()?;
                (uid.unwrap_or(fields.0), gid.unwrap_or(fields.1))
            }
        };
        (entry.uid, entry.gid) = (uid, gid);
        entry.mtime = pax.mtime.map_or_else(|| header.mtime(), Ok)?;
        entry.xattrs = std::mem::take(&mut pax.xattrs);
        if matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
            (entry.major, entry.minor) = header.device()?;
        }
        if matches!(kind, EntryKind::Symlink | EntryKind::Hardlink) {
            let raw = long_link
                .or(pax.link.take())
                .unwrap_or_else(|| header.link_name().to_vec());
            entry.link = self.link(kind, &raw)?;
        }
        if kind == EntryKind::File {
            let stored = pax.size.map_or_else(|| header.size(), Ok)?;
            entry.size = self.begin_body(header, &pax, stored)?;
        }
        Ok(entry)
    }

    fn link(&self, kind: EntryKind, raw: &[u8]) -> Result<Vec<u8>, Error> {
        let bad = |why: &str| Error::new(ErrorKind::InvalidArgument, format!("a link of the archive {why}"));
        if kind == EntryKind::Hardlink {
            let target = clean(raw, &self.limits)?;
            return if target.is_empty() {
                Err(bad("leads to the root"))
            } else {
                Ok(target)
            };
        }
        if raw.is_empty() || raw.contains(&0) {
            return Err(bad("has no target"));
        }
        // PATH_MAX counts the final zero byte.
        if raw.len() >= self.limits.path {
            return Err(bad("has a target that is too long"));
        }
        Ok(raw.to_vec())
    }

    /// Sets up the body of a file; returns the size of the file, holes included.
    fn begin_body(&mut self, header: &Header, pax: &Pax, stored: u64) -> Result<u64, Error> {
        self.left = stored;
        self.padding = (BLOCK as u64 - stored % BLOCK as u64) % BLOCK as u64;
        (self.piece, self.done) = (0, 0);
        self.map = self.sparse_map(header, pax, stored)?;
        let size = self.map.as_ref().map_or(stored, |map| map.real_size);
        let pieces = self.map.as_ref().map_or(0, |map| map.data.len());
        self.pieces = self.pieces.saturating_add(pieces as u64);
        if self.pieces > self.limits.pieces {
            return Err(self.exhausted("pieces of sparse files", self.limits.pieces));
        }
        self.total = self.total.saturating_add(size);
        if self.total > self.limits.total || stored > self.limits.archive {
            return Err(self.exhausted("bytes of files", self.limits.total));
        }
        self.holes = self.holes.saturating_add(size.saturating_sub(self.left));
        if self.map.is_some() && self.holes > self.limits.holes {
            return Err(self.exhausted("bytes of holes", self.limits.holes));
        }
        Ok(size)
    }

    fn sparse_map(&mut self, header: &Header, pax: &Pax, stored: u64) -> Result<Option<SparseMap>, Error> {
        if header.type_flag() == b'S' {
            if header.dialect() != Dialect::Gnu {
                return Err(header::malformed("sparse map"));
            }
            let (mut numbers, mut more, real_size) = gnu_header(header)?;
            while more {
                let block = self.block()?.ok_or_else(early_end)?;
                gnu_slots(&block, 21, &mut numbers)?;
                more = block[504] != 0;
                if numbers.len() > self.most_pieces() * 2 {
                    return Err(self.exhausted("pieces of a sparse file", self.most_pieces() as u64));
                }
            }
            return SparseMap::new(&numbers, real_size, stored).map(Some);
        }
        if !pax.sparse.present {
            return Ok(None);
        }
        let real_size = pax
            .sparse
            .real_size
            .ok_or_else(|| header::malformed("sparse size"))?;
        match (pax.sparse.major.unwrap_or(0), pax.sparse.minor.unwrap_or(0)) {
            (0, _) => SparseMap::new(&pax.sparse.map, real_size, stored).map(Some),
            (1, 0) => {
                let mut front = FrontMap::default();
                loop {
                    if self.left < BLOCK as u64 {
                        return Err(header::malformed("sparse map"));
                    }
                    let block = self.block()?.ok_or_else(early_end)?;
                    self.left -= BLOCK as u64;
                    if front.take(&block, self.most_pieces())? {
                        break;
                    }
                }
                SparseMap::new(&front.into_numbers(), real_size, self.left).map(Some)
            }
            _ => Err(Error::new(
                ErrorKind::Unsupported,
                "the archive has a sparse file of an unknown version",
            )),
        }
    }

    fn most_pieces(&self) -> usize {
        self.limits.header / 24
    }

    /// The next piece of the current body, at most up to the end of the bytes at hand; `None` at its end.
    pub(crate) fn piece(&mut self) -> Result<Option<Piece<'_>>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut offset = self.done;
        let mut most = self.left;
        if let Some(map) = &self.map {
            let (start, length) = map.data.get(self.piece).copied().ok_or_else(early_end)?;
            offset = start + self.done;
            most = length - self.done;
        }
        let bytes = self.source.fill()?;
        if bytes.is_empty() {
            return Err(early_end());
        }
        let count = usize::try_from(most).map_or(bytes.len(), |most| most.min(bytes.len()));
        Ok(Some(Piece {
            offset,
            bytes: &bytes[..count],
        }))
    }

    /// Marks `count` bytes of the last [`Parser::piece`] as used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.source.consume(count);
        self.left -= count as u64;
        self.done += count as u64;
        if let Some(map) = &self.map
            && map
                .data
                .get(self.piece)
                .is_some_and(|(_, length)| *length == self.done)
        {
            self.piece += 1;
            self.done = 0;
        }
    }

    /// Takes one more piece of the current body as literal bytes; whether there was one.
    pub(crate) fn keep_piece(&mut self) -> Result<bool, Error> {
        if self.left == 0 {
            return Ok(false);
        }
        let bytes = self.source.fill()?;
        if bytes.is_empty() {
            return Err(early_end());
        }
        let count = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        if let Some(literal) = &mut self.literal {
            literal.extend_from_slice(&bytes[..count]);
        }
        self.source.consume(count);
        self.left -= count as u64;
        Ok(true)
    }

    /// Goes to the end of the current body and its padding.
    fn skip_body(&mut self) -> Result<(), Error> {
        while self.left > 0 {
            let count = self.source.skip(self.left)?;
            if count == 0 {
                return Err(early_end());
            }
            self.left -= count;
        }
        self.map = None;
        while self.padding > 0 {
            let bytes = self.source.fill()?;
            if bytes.is_empty() {
                return Err(early_end());
            }
            let count = usize::try_from(self.padding).map_or(bytes.len(), |left| left.min(bytes.len()));
            if let Some(literal) = &mut self.literal {
                literal.extend_from_slice(&bytes[..count]);
            }
            self.source.consume(count);
            self.padding -= count as u64;
        }
        Ok(())
    }

    /// After the last entry: one more piece of what follows the end marker, kept as literal bytes; whether there was one.
    pub(crate) fn trailer(&mut self) -> Result<bool, Error> {
        let bytes = self.source.fill()?;
        let count = bytes.len();
        if let Some(literal) = &mut self.literal {
            literal.extend_from_slice(bytes);
        }
        self.source.consume(count);
        Ok(count > 0)
    }

    /// The next header; `None` at the end.
    fn header(&mut self) -> Result<Option<Header>, Error> {
        let Some(block) = self.block()? else {
            return Ok(None);
        };
        let header = Header(block);
        if !header.is_zero() {
            header.check()?;
            return Ok(Some(header));
        }
        match self.block()? {
            None => Ok(None),
            Some(second) if Header(second.to_owned()).is_zero() => Ok(None),
            Some(_) => Err(Error::new(
                ErrorKind::InvalidArgument,
                "the archive has a single zero block between its entries",
            )),
        }
    }

    /// The next 512 bytes; `None` when the source is at its end.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let mut block = [0; BLOCK];
        let mut have = 0;
        while have < BLOCK {
            let bytes = self.source.fill()?;
            if bytes.is_empty() {
                return if have == 0 { Ok(None) } else { Err(early_end()) };
            }
            let count = bytes.len().min(BLOCK - have);
            block[have..have + count].copy_from_slice(&bytes[..count]);
            self.source.consume(count);
            have += count;
        }
        if let Some(literal) = &mut self.literal {
            literal.extend_from_slice(&block);
        }
        Ok(Some(block))
    }

    /// The body of an extended header.
    fn extended_body(&mut self, header: &Header, extension: &mut Extension) -> Result<Vec<u8>, Error> {
        let size = header.size()?;
        let length = usize::try_from(size)
            .ok()
            .filter(|size| *size <= self.limits.header.saturating_sub(extension.bytes))
            .ok_or_else(|| self.exhausted("bytes of extended headers", self.limits.header as u64))?;
        // Each header counts by its block too, so that empty ones come to an end.
        extension.bytes += length + BLOCK;
        let mut body = Vec::with_capacity(length);
        while body.len() < length {
            let block = self.block()?.ok_or_else(early_end)?;
            let count = (length - body.len()).min(BLOCK);
            body.extend_from_slice(&block[..count]);
        }
        Ok(body)
    }

    fn exhausted(&self, what: &str, limit: u64) -> Error {
        let message = format!(
            "the archive has more than {limit} {what}, at entry {}",
            self.entries
        );
        Error::new(ErrorKind::ResourceExhausted, message)
    }
}

fn kind_of(header: &Header, name: &[u8]) -> Result<EntryKind, Error> {
    Ok(match header.type_flag() {
        // Archives of before 1988 mark directories by the final slash.
        0 if name.last() == Some(&b'/') => EntryKind::Directory,
        0 | b'0' | b'7' | b'S' => EntryKind::File,
        b'1' => EntryKind::Hardlink,
        b'2' => EntryKind::Symlink,
        b'3' => EntryKind::CharDevice,
        b'4' => EntryKind::BlockDevice,
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        other => {
            let message = format!(
                "the archive has an entry of the unknown type {:?}",
                char::from(other)
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
    })
}
