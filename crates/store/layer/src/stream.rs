//! The exact tar of a stored layer, made again.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dhow_rootpath::Root;
use dhow_types::ErrorKind;

use crate::erofs::TAR;
use crate::split::{Part, SplitReader};
use crate::tar::{Writer, into_io};
use crate::{Context, Entry, EntryKind, Error, Index};

/// Bytes of archive that are collected before they are given out.
const BATCH: usize = 64 << 10;

/// The uncompressed tar of a layer.
pub struct TarStream {
    /// Nothing when the contents are part of the source.
    fs: Option<Root>,
    source: Source,
    /// Bytes ready to be read, and how far they were.
    ready: Vec<u8>,
    used: usize,
    body: Option<Body>,
}

enum Source {
    /// From the split form; the directory has the lost bodies, when there are any.
    Split(SplitReader, Option<PathBuf>),
    /// From the entries, and the next of them.
    Entries(Index, usize),
    /// As it lies in an image, and the bytes that are left.
    Image(File, u64),
    Done,
}

/// Contents of a file that come next.
struct Body {
    file: File,
    path: Vec<u8>,
    /// Stored bytes left of the piece, and the pieces after it.
    left: u64,
    pieces: std::vec::IntoIter<(u64, u64)>,
    padding: usize,
}

impl fmt::Debug for TarStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TarStream").finish_non_exhaustive()
    }
}

impl TarStream {
    /// The tar of the layer in `dir`, from its split form.
    pub(crate) fn from_split(dir: &Path) -> Result<Self, Error> {
        let split = SplitReader::open(&dir.join("split"))?;
        let lost = dir.join("lost");
        Self::new(dir, Source::Split(split, lost.exists().then_some(lost)))
    }

    /// The canonical tar of the entries, with contents from the tree in `dir`.
    pub(crate) fn from_index(dir: &Path, index: Index) -> Result<Self, Error> {
        Self::new(dir, Source::Entries(index, 0))
    }

    /// The tar of `length` bytes in an erofs image.
    pub(crate) fn from_image(image: &Path, length: u64) -> Result<Self, Error> {
        let what = || format!("open {}", image.display());
        let mut file = File::open(image).context(what)?;
        file.seek(SeekFrom::Start(TAR)).context(what)?;
        Ok(Self::with(None, Source::Image(file, length)))
    }

    fn new(dir: &Path, source: Source) -> Result<Self, Error> {
        let fs = Root::open(&dir.join("fs")).context(|| "open the tree of a layer")?;
        Ok(Self::with(Some(fs), source))
    }

    fn with(fs: Option<Root>, source: Source) -> Self {
        Self {
            fs,
            source,
            ready: Vec::new(),
            used: 0,
            body: None,
        }
    }

    /// Makes more bytes ready, or a body; `false` at the end.
    fn advance(&mut self) -> Result<bool, Error> {
        self.ready.clear();
        self.used = 0;
        match &mut self.source {
            Source::Done => Ok(false),
            Source::Image(file, left) => {
                let room = usize::try_from(*left).map_or(BATCH, |left| left.min(BATCH));
                self.ready.resize(room, 0);
                file.read_exact(&mut self.ready)
                    .context(|| "read the archive of a stored layer")
                    .map_err(|error| error.with_kind(ErrorKind::DataLoss))?;
                *left -= room as u64;
                Ok(room > 0)
            }
            Source::Split(split, lost) => {
                match split.next_part()? {
                    None => self.source = Source::Done,
                    Some(Part::Literal(bytes)) => self.ready = bytes,
                    Some(Part::Body {
                        number,
                        path,
                        stored,
                        pieces,
                    }) => {
                        self.body = Some(open_body(
                            self.fs.as_ref(),
                            lost.as_deref(),
                            number,
                            path,
                            stored,
                            pieces,
                        )?);
                    }
                }
                Ok(true)
            }
            Source::Entries(index, next) => {
                let mut writer = Writer::new(std::mem::take(&mut self.ready));
                loop {
                    let Some(entry) = index.at(*next) else {
                        self.ready = writer.finish()?;
                        self.source = Source::Done;
                        return Ok(true);
                    };
                    *next += 1;
                    writer.append_header(&entry)?;
                    if entry.kind == EntryKind::File && entry.size > 0 {
                        self.body = Some(whole(self.fs.as_ref(), entry)?);
                        break;
                    }
                    if writer.output().len() > BATCH {
                        break;
                    }
                }
                self.ready = writer.into_output();
                Ok(true)
            }
        }
    }
}

fn open_body(
    fs: Option<&Root>,
    lost: Option<&Path>,
    number: u32,
    path: Vec<u8>,
    stored: u64,
    pieces: Vec<(u64, u64)>,
) -> Result<Body, Error> {
    let kept = lost.map(|lost| lost.join(number.to_string()));
    let file = match kept.filter(|kept| kept.exists()) {
        None => open(fs, &path)?,
        Some(kept) => File::open(&kept).context(|| format!("open {}", kept.display()))?,
    };
    let pieces = if pieces.is_empty() {
        vec![(0, stored)]
    } else {
        pieces
    };
    Ok(Body {
        file,
        path,
        left: 0,
        pieces: pieces.into_iter(),
        padding: 0,
    })
}

fn open(fs: Option<&Root>, path: &[u8]) -> Result<File, Error> {
    let shown = Path::new(std::ffi::OsStr::from_bytes(path));
    let missing = || Error::new(ErrorKind::Internal, "the tree of a layer is not open");
    fs.ok_or_else(missing)?
        .open_file(shown)
        .context(|| format!("open {} of a layer", shown.display()))
        .map_err(|error| error.with_kind(ErrorKind::DataLoss))
}

fn whole(fs: Option<&Root>, entry: Entry) -> Result<Body, Error> {
    let over = usize::try_from(entry.size % 512).unwrap_or(0);
    Ok(Body {
        file: open(fs, &entry.path)?,
        path: entry.path,
        left: 0,
        pieces: vec![(0, entry.size)].into_iter(),
        padding: (512 - over) % 512,
    })
}

impl Body {
    /// Reads on; nothing at the end.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            match self.pieces.next() {
                Some((offset, length)) => {
                    if offset > 0 {
                        self.file.seek(SeekFrom::Start(offset))?;
                    }
                    self.left = length;
                }
                None => {
                    let count = self.padding.min(buf.len());
                    buf[..count].fill(0);
                    self.padding -= count;
                    return Ok(count);
                }
            }
        }
        let room = usize::try_from(self.left).map_or(buf.len(), |left| left.min(buf.len()));
        let count = self.file.read(&mut buf[..room])?;
        if count == 0 {
            let shown = String::from_utf8_lossy(&self.path);
            let message = format!("{shown} of a stored layer is shorter than it was");
            return Err(into_io(Error::new(ErrorKind::DataLoss, message)));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

impl Read for TarStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if self.used < self.ready.len() {
                let count = buf.len().min(self.ready.len() - self.used);
                buf[..count].copy_from_slice(&self.ready[self.used..self.used + count]);
                self.used += count;
                return Ok(count);
            }
            if let Some(body) = &mut self.body {
                let count = body.read(buf)?;
                if count > 0 {
                    return Ok(count);
                }
                self.body = None;
            }
            if !self.advance().map_err(into_io)? {
                return Ok(0);
            }
        }
    }
}
