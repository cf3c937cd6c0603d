//! A layer looked at where it lies, in an archive or a layout: what it would be when unpacked, and where the content of its files
//! is. Names, links and whiteouts are taken as unpacking takes them; nothing is written.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use dhow_hash::Hasher;
use dhow_types::{DiffId, ErrorKind};

use super::image::{Draft, Pieces};
use crate::codec::{self, Compression};
use crate::tar::{Body as Passing, Buffered, Parser, Source};
use crate::{Context as _, Entry, Error, Inflated, Limits};

/// A part of a file.
#[derive(Debug)]
pub struct Extent {
    file: File,
    start: u64,
    size: u64,
}

impl Extent {
    /// `size` bytes of `file` from `start` on.
    #[must_use]
    pub const fn new(file: File, start: u64, size: u64) -> Self {
        Self { file, start, size }
    }

    /// Its bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Reads at `at` from its beginning; nothing at its end.
    ///
    /// # Errors
    /// Those of the file.
    pub fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.size.saturating_sub(at);
        let room = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        self.file.read_at(&mut buf[..room], self.start + at)
    }

    /// What tells it from all others: device, inode, beginning, length.
    ///
    /// # Errors
    /// Those of the file.
    pub fn place(&self) -> io::Result<(u64, u64, u64, u64)> {
        let found = self.file.metadata()?;
        Ok((found.dev(), found.ino(), self.start, self.size))
    }

    /// The diff id of the layer that it is: all of it is read.
    ///
    /// # Errors
    /// `DataLoss` when it is damaged, `ResourceExhausted` beyond a limit.
    pub fn diff_id(&self, limits: &Limits) -> Result<DiffId, Error> {
        let what = || "read the layer";
        let mut tar = Inflated::new(codec::buffered(self.reader()), "layer", Some(self.size), limits)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = codec::fill(&mut tar, &mut buffer).map_err(|error| {
                let other = |error| Error::wrap(error, what());
                error.downcast().unwrap_or_else(other)
            })?;
            if count == 0 {
                return Ok(DiffId(hasher.finish()));
            }
            hasher.update(&buffer[..count]);
        }
    }

    fn reader(&self) -> Reading<'_> {
        Reading { extent: self, at: 0 }
    }
}

struct Reading<'a> {
    extent: &'a Extent,
    at: u64,
}

impl Read for Reading<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.extent.read_at(self.at, buf)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Reading<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.extent.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// An entry of a layer that lies somewhere.
#[derive(Clone, Debug)]
pub struct Surveyed {
    /// The entry. The content of a file is not hashed.
    pub entry: Entry,
    /// The number of a file's content, which [`Survey::passing`] was given, too. A hard link has none.
    pub number: Option<u32>,
}

/// Content of a file.
#[derive(Clone, Debug)]
struct Content {
    /// Byte of the tar at which it begins.
    start: u64,
    size: u64,
    /// Of a sparse file.
    pieces: Option<Pieces>,
}

/// What a layer would be when unpacked.
#[derive(Debug)]
pub struct Survey {
    /// Its entries, sorted by path.
    pub entries: Vec<Surveyed>,
    /// By number, which is the order of the tar.
    bodies: Vec<Content>,
}

/// What is done with the content of a file that comes by, by its number: it need not be read.
type SeeBody<'s> = dyn FnMut(u32, &Entry, &mut dyn Read) -> Result<(), Error> + 's;

/// The same where the archive is at hand.
type SeeContent<'s, S> = dyn FnMut(u32, &mut Entry, &mut Parser<S>) -> Result<(), Error> + 's;

impl Survey {
    /// Whether a layer is compressed: then its files can be read only as they come by.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_packed(layer: &Extent) -> Result<bool, Error> {
        let mut start = [0; 6];
        let known = layer.read_at(0, &mut start).context(|| "read the layer")?;
        Ok(Compression::sniff(&start[..known]) != Compression::None)
    }

    /// Looks at a layer that is not compressed, without reading the content of its files.
    ///
    /// # Errors
    /// As unpacking it.
    pub fn of(layer: &Extent, limits: &Limits) -> Result<Self, Error> {
        let source = Buffered::seeking(layer.reader())?;
        let mut parser = Parser::new(source, limits.clone());
        Self::made(&mut parser, limits, &mut |_, _, _| Ok(()))
    }

    /// Looks at a layer, compressed or not, in one pass over all its bytes.
    ///
    /// # Errors
    /// As unpacking it; what `see` returns.
    pub fn passing(layer: &Extent, limits: &Limits, see: &mut SeeBody<'_>) -> Result<Self, Error> {
        let inflated = Inflated::new(codec::buffered(layer.reader()), "layer", Some(layer.size), limits)?;
        let mut parser = Parser::new(Buffered::new(inflated), limits.clone());
        let survey = Self::made(&mut parser, limits, &mut |number, entry, parser| {
            let size = entry.size;
            see(number, entry, &mut Passing::new(parser, size))
        })?;
        // A checksum comes last.
        while parser.trailer()? {}
        Ok(survey)
    }

    fn made<S: Source>(
        parser: &mut Parser<S>,
        limits: &Limits,
        see: &mut SeeContent<'_, S>,
    ) -> Result<Self, Error> {
        let mut draft = Draft::in_memory(limits.clone());
        let mut bodies: Vec<Content> = Vec::new();
        let mut numbered = |start: u64, entry: &mut Entry, parser: &mut Parser<S>| {
            let number = u32::try_from(bodies.len())
                .map_err(|_| Error::new(ErrorKind::ResourceExhausted, "the layer has too many files"))?;
            bodies.push(Content {
                start,
                size: entry.size,
                pieces: parser.sparse().map(|map| map.data.clone()),
            });
            see(number, entry, parser)
        };
        while let Some(entry) = parser.next_entry()? {
            let path = entry.path.clone();
            draft
                .add(entry, parser, &mut numbered)
                .context(|| format!("look at {:?}", String::from_utf8_lossy(&path)))?;
        }
        let number = |start: u64| {
            let at = bodies.binary_search_by_key(&start, |body| body.start).ok()?;
            u32::try_from(at).ok()
        };
        let surveyed = |(entry, start): (Entry, Option<u64>)| Surveyed {
            entry,
            number: start.and_then(number),
        };
        let entries = draft.into_files()?.into_iter().map(surveyed).collect();
        Ok(Self { entries, bodies })
    }

    /// The entry at `path`, as its place.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<&Surveyed> {
        let at = self
            .entries
            .binary_search_by(|surveyed| surveyed.entry.path.as_slice().cmp(path))
            .ok()?;
        self.entries.get(at)
    }

    /// Reads the content `number` of a layer that is not compressed, at `at` from its beginning, holes as zeros; nothing at its end.
    ///
    /// # Errors
    /// Those of the file.
    pub fn read_at(&self, layer: &Extent, number: u32, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        let Some(body) = self.bodies.get(number as usize) else {
            return Ok(0);
        };
        let left = body.size.saturating_sub(at);
        let room = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let buf = &mut buf[..room];
        let Some(pieces) = &body.pieces else {
            return layer.read_at(body.start + at, buf);
        };
        let mut stored = body.start;
        for (offset, length) in pieces {
            if at < *offset {
                let hole = usize::try_from(offset - at).map_or(room, |gap| gap.min(room));
                buf[..hole].fill(0);
                return Ok(hole);
            }
            if let Some(left) = (offset + length).checked_sub(at).filter(|left| *left > 0) {
                let most = usize::try_from(left).map_or(room, |left| left.min(room));
                return layer.read_at(stored + (at - offset), &mut buf[..most]);
            }
            stored += length;
        }
        buf.fill(0);
        Ok(room)
    }
}
