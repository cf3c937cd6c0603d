//! Unpacking: three threads, one pass.
//!
//! The calling thread pulls the stream and inflates it, the second hashes the tar (the diff id) beside other streams
//! ([`dhow_hash`]), the third parses the tar, writes the files, or the one file of an image, and hashes their contents.
//! Inflating takes about half of the time, so that two processors are kept busy by one layer. Buffers go round between them,
//! so memory is bounded and nothing is copied.

mod image;
mod large;
mod ledger;
mod links;
mod names;
mod place;
mod rooms;
mod sorted;
mod spool;
mod survey;
mod tape;
mod tree;

use std::io::{self, BufRead};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};

use dhow_hash::{Piece, Stream};
use dhow_types::{DiffId, ErrorKind};

use self::rooms::Rooms;
use self::tape::Tape;
use self::tree::Tree;
use crate::codec::{Compression, Part, Room};
use crate::split::SplitWriter;
use crate::state::{Form, State, boot_id};
use crate::tar::{Parser, Source};
use crate::{Backend, Context, Error, Inflated, Limits, Unpack};

pub(crate) use self::place::{disk_of, make_whiteout};
pub use self::survey::{Extent, Survey, Surveyed};

/// Parts of a layer on their way, of 200 KiB and more, and how many of them wait to be hashed.
const PARTS: usize = 14;
const UNHASHED: usize = 6;

/// What goes from thread to thread: a part of the tar, or why there is no other.
type Passed = Result<Part, Error>;

/// What was unpacked into a directory, not published yet.
pub(crate) struct Made {
    pub(crate) diff_id: DiffId,
    pub(crate) compression: Compression,
    pub(crate) state: State,
}

/// Unpacks `stream` into the empty directory `dir` as `fs`, `index`, `split`, `lost` and `state`, or as `image`, `index` and
/// `state`.
pub(crate) fn unpack(
    stream: impl BufRead + Send,
    dir: &Path,
    how: &Unpack,
    backend: Backend,
) -> Result<Made, Error> {
    let limits = &how.limits;
    let tar = Inflated::new(stream, "layer", how.size, limits)?;
    let compression = tar.compression();
    let tar_hash = Stream::begin().context(|| "start a thread")?;
    let (hashed, to_write) = channel();
    let (back, recycled) = channel();
    let rooms = Rooms::new();
    let (pumped, written) = std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let chunks = Chunks::new(to_write, back);
            match backend {
                Backend::Directories => write(chunks, dir, limits),
                Backend::Erofs => draft(chunks, dir, limits),
            }
        });
        let whole = pump(tar, &tar_hash, &hashed, (&rooms, &recycled));
        // Also an error comes to the writer by this way.
        let hash = tar_hash.finish();
        let pumped = whole.then_some(hash);
        // The end of the tar, for the writer.
        drop(hashed);
        let died = || Err(Error::new(ErrorKind::Internal, "the unpacking thread died"));
        (pumped, writer.join().unwrap_or_else(|_| died()))
    });
    rooms.give(recycled.try_iter());
    // When the writer fails, the other stops for want of somebody who takes its chunks: its word comes first. It has had the
    // other's.
    let mut state = written?;
    let ended = || Error::new(ErrorKind::Internal, "the unpacking thread ended early");
    let (digest, length) = pumped.ok_or_else(ended)?;
    let diff_id = DiffId(digest);
    if let Some(expected) = how.expected
        && expected != diff_id
    {
        let message = format!("layer {expected} was promised, but the tar is {diff_id}");
        return Err(Error::new(ErrorKind::DataLoss, message));
    }
    state.tar = length;
    state.write(dir)?;
    Ok(Made {
        diff_id,
        compression,
        state,
    })
}

/// A part on its way to the writer, by the thread that hashes.
struct Passing {
    part: Passed,
    to: Sender<Passed>,
}

impl Piece for Passing {
    fn bytes(&self) -> &[u8] {
        self.part.as_ref().map_or(&[], Part::bytes)
    }

    fn hashed(self: Box<Self>) {
        // Nobody takes it when the writer has failed.
        drop(self.to.send(self.part));
    }
}

/// Inflates and hands over, until the end of the stream or until nobody takes it; whether it came to the end.
fn pump(
    mut tar: Inflated<'_>,
    hash: &Stream,
    to: &Sender<Passed>,
    (rooms, recycled): (&Rooms, &Receiver<Box<Room>>),
) -> bool {
    let pass = |part| {
        let to = to.clone();
        hash.push(Box::new(Passing { part, to }), UNHASHED);
    };
    let mut made = 0;
    loop {
        let used = if made < PARTS {
            recycled.try_recv().ok()
        } else {
            match recycled.recv() {
                Ok(used) => Some(used),
                // The writer has failed.
                Err(_) => return false,
            }
        };
        let room = used.unwrap_or_else(|| {
            made += 1;
            rooms.take()
        });
        // A bomb's own error says all.
        let refused = |error: io::Error| {
            let other = |error| Error::wrap(error, "read the layer");
            error.downcast().unwrap_or_else(other)
        };
        match tar.part(room).map_err(refused) {
            Ok(part) if part.bytes().is_empty() => return true,
            Ok(part) => pass(Ok(part)),
            // Either the writer reports it, or it has failed by itself before.
            Err(error) => {
                pass(Err(error));
                return false;
            }
        }
    }
}

/// The receiving end as a source of the parser.
struct Chunks {
    receiver: Receiver<Passed>,
    back: Sender<Box<Room>>,
    current: Option<Part>,
    used: usize,
    /// Bytes of the parts before.
    before: u64,
    /// Where the tar goes as it is.
    image: Option<Tape>,
}

impl Chunks {
    fn new(receiver: Receiver<Passed>, back: Sender<Box<Room>>) -> Self {
        Self {
            receiver,
            back,
            current: None,
            used: 0,
            before: 0,
            image: None,
        }
    }
}

impl Source for Chunks {
    fn fill(&mut self) -> Result<&[u8], Error> {
        if self
            .current
            .as_ref()
            .is_none_or(|part| part.bytes().len() == self.used)
        {
            let read = self.current.take();
            self.before += read.as_ref().map_or(0, |part| part.bytes().len() as u64);
            self.used = 0;
            // Without a sender this is the end.
            self.current = self.receiver.recv().ok().transpose()?;
            if let Some(image) = &mut self.image {
                image
                    .put(read.as_ref(), self.current.as_ref(), self.before)
                    .map_err(|error| write_failure(error, "write the image of a layer"))?;
            }
            if let Some(read) = read {
                // Nobody takes it back when the stream is at its end.
                drop(self.back.send(read.into_room()));
            }
        }
        Ok(self
            .current
            .as_ref()
            .map_or(&[][..], |part| &part.bytes()[self.used..]))
    }

    fn consume(&mut self, count: usize) {
        self.used += count;
    }

    fn position(&self) -> u64 {
        self.before + self.used as u64
    }
}

/// The other side: parses and writes; the state without the length of the tar.
fn write(chunks: Chunks, dir: &Path, limits: &Limits) -> Result<State, Error> {
    let mut parser = Parser::new(chunks, limits.clone()).record();
    let mut split = SplitWriter::create(&dir.join("split"))?;
    let mut tree = Tree::create(dir, limits.clone())?;
    while let Some(entry) = parser.next_entry()? {
        if let Some(literal) = parser.literal() {
            split.literal(literal)?;
        }
        let path = entry.path.clone();
        tree.add(entry, &mut parser, &mut split)
            .context(|| format!("unpack {:?}", String::from_utf8_lossy(&path)))?;
    }
    // The padding of the last body, the end marker, and whatever the packer put after it.
    loop {
        if let Some(literal) = parser.literal() {
            split.literal(literal)?;
        }
        if !parser.trailer()? {
            break;
        }
    }
    split.finish()?;
    let finished = tree.finish()?;
    let sorted = finished.sorted;
    let own_files = disk_of(sorted.index.size())
        + std::fs::metadata(dir.join("split")).map_or(0, |file| disk_of(file.len()));
    Ok(State {
        boot: boot_id()?.to_owned(),
        durable: false,
        form: Form::Split,
        size: finished.size,
        disk: finished.disk + own_files,
        tar: 0,
        implied: sorted.implied,
        opaque_root: sorted.opaque_root,
        owners: finished.owners,
        marks: finished.marks,
    })
}

/// The same without a file for each entry: the tar becomes the body of an erofs image.
fn draft(mut chunks: Chunks, dir: &Path, limits: &Limits) -> Result<State, Error> {
    let file = image::create(dir)?;
    let copy = file.try_clone().context(|| "duplicate a file handle")?;
    chunks.image = Some(Tape::new(copy));
    let mut parser = Parser::new(chunks, limits.clone());
    let mut draft = image::Draft::new(dir, limits.clone());
    while let Some(entry) = parser.next_entry()? {
        let path = entry.path.clone();
        draft
            .add(entry, &mut parser, &mut image::hash_body)
            .context(|| format!("unpack {:?}", String::from_utf8_lossy(&path)))?;
    }
    while parser.trailer()? {}
    let drafted = draft.finish(&file, parser.source().position())?;
    let blocks = file
        .metadata()
        .context(|| "look at the image of a layer")?
        .blocks();
    Ok(State {
        boot: boot_id()?.to_owned(),
        durable: false,
        form: Form::Image(drafted.meta),
        size: drafted.size,
        disk: blocks * 512 + disk_of(drafted.sorted.index.size()) + 4096,
        tar: 0,
        implied: drafted.sorted.implied,
        opaque_root: drafted.sorted.opaque_root,
        owners: true,
        marks: true,
    })
}

/// The error of a write that did not go through; a full disk is told from others.
pub(crate) fn write_failure(error: io::Error, what: &str) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ErrorKind::ResourceExhausted
        }
        _ => return Error::wrap(error, what),
    };
    Error::because(kind, what, error)
}
