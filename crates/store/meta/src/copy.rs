//! The copy on the disk of a log in memory ([`crate::home`]): what the next boot begins with.
//!
//! The copy follows the log: whoever has committed brings it up, with the index free again, or leaves it to who is just at it,
//! who looks again when done. It is one file, written from the first frame on for each log:
//!
//! - Nothing is folded into the database that is not in the copy and synced. So a power cut in the middle of that is
//!   mended by the copy.
//! - Once all of a log is in the database, and that synced, the copy's head is overwritten, and that synced, before the next
//!   log may begin. So the copy never has frames that would take the database back.
//! - A log whose predecessor was not retired so (its process was killed) does that first.
//!
//! `index-copied` in memory says how far the copy is.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::home;
use crate::log::{self, Salts};

/// Frames that are copied at once.
const AT_ONCE: u32 = 256;

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    salts: Salts,
    frames: u32,
    /// All of that is in the database, and the copy none.
    retired: bool,
}

/// There is no copy.
const NONE: Mark = Mark {
    salts: [0; 8],
    frames: 0,
    retired: true,
};

impl Mark {
    const LENGTH: usize = 13;

    fn read(path: &Path) -> Option<Self> {
        let mut raw = [0; Self::LENGTH];
        File::open(path).ok()?.read_exact_at(&mut raw, 0).ok()?;
        let (salts, rest) = raw.split_first_chunk()?;
        let (frames, rest) = rest.split_first_chunk()?;
        Some(Self {
            salts: *salts,
            frames: u32::from_be_bytes(*frames),
            retired: rest == [1],
        })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut raw = [0; Self::LENGTH];
        raw[..8].copy_from_slice(&self.salts);
        raw[8..12].copy_from_slice(&self.frames.to_be_bytes());
        raw[12] = u8::from(self.retired);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        file.write_all_at(&raw, 0)
    }
}

/// A log in memory and its copy.
#[derive(Debug)]
pub(crate) struct Copy {
    log: PathBuf,
    copy: PathBuf,
    mark: PathBuf,
}

impl Copy {
    pub(crate) fn new(database: &Path, folder: &Path) -> Self {
        Self {
            log: home::in_memory(folder, "-wal"),
            copy: log::beside(database, "-wal"),
            mark: home::in_memory(folder, "-copied"),
        }
    }

    /// In a new folder, whose log is what the copy was.
    pub(crate) fn begin(&self) -> io::Result<()> {
        let mark = log::salts(&self.log).map_or(NONE, |salts| Mark {
            salts,
            frames: 0,
            retired: false,
        });
        mark.write(&self.mark)
    }

    /// Whether the log has more than the copy. `frames` says how many the log has that are committed.
    pub(crate) fn is_behind(&self, frames: impl Fn() -> Option<u32>) -> bool {
        let Some((salts, _, frames)) = self.look(frames) else {
            return false;
        };
        Mark::read(&self.mark).is_none_or(|mark| (mark.salts, mark.frames) != (salts, frames))
    }

    /// Copies what the copy lacks. One process at a time does so, or folds in.
    pub(crate) fn bring_up(&self, frames: impl Fn() -> Option<u32>) -> io::Result<()> {
        let Some((salts, size, frames)) = self.look(frames) else {
            return Ok(());
        };
        let copied = log::salts(&self.copy) == Some(salts);
        let from = match Mark::read(&self.mark) {
            Some(mark) if mark.salts == salts && mark.frames == frames => return Ok(()),
            Some(mark) if mark.salts == salts && mark.frames < frames && !mark.retired && copied => {
                mark.frames
            }
            // All of it once more: the same bytes, and the head, which who was killed while retiring it has overwritten.
            Some(mark) if mark.retired || mark.salts == salts => 0,
            _ if copied => 0,
            // It is of a log before, all of which is in the database, as a next one has begun.
            _ => {
                self.retire(&NONE)?;
                0
            }
        };
        let at = |frame: u32| log::HEAD as u64 + u64::from(frame) * size as u64;
        let mut head = [0; log::HEAD];
        let (file, copy) = (File::open(&self.log)?, self.open()?);
        let (mut begin, mut bytes) = (from, Vec::new());
        while begin < frames {
            let end = frames.min(begin + AT_ONCE);
            bytes.resize((end - begin) as usize * size, 0);
            file.read_exact_at(&mut bytes, at(begin))?;
            // After the frames: were they of a log that began meanwhile, all of this one would be in the database.
            file.read_exact_at(&mut head, 0)?;
            if log::salts_of(&head) != Some(salts) {
                return Ok(());
            }
            copy.write_all_at(&bytes, at(begin))?;
            begin = end;
        }
        if from == 0 {
            // Last: without it there is no copy.
            copy.write_all_at(&head, 0)?;
        }
        Mark {
            salts,
            frames,
            retired: false,
        }
        .write(&self.mark)
    }

    /// Brings the copy up, onto the disk.
    pub(crate) fn sync(&self, frames: impl Fn() -> Option<u32>) -> io::Result<()> {
        self.bring_up(frames)?;
        self.open()?.sync_data()?;
        let folder = self.copy.parent().unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }

    /// Makes the copy none, on the disk: so many frames of the log with these salts are in the database.
    pub(crate) fn folded_in(&self, salts: Salts, frames: u32) -> io::Result<()> {
        self.retire(&Mark {
            salts,
            frames,
            retired: true,
        })
    }

    fn retire(&self, mark: &Mark) -> io::Result<()> {
        let copy = self.open()?;
        copy.write_all_at(&[0; log::HEAD], 0)?;
        copy.sync_data()?;
        mark.write(&self.mark)
    }

    /// Salts of the log, bytes of a frame with its head, and how many of its frames are committed; nothing without a log.
    fn look(&self, frames: impl Fn() -> Option<u32>) -> Option<(Salts, usize, u32)> {
        // A log that is begun anew in between has none yet, or its head is new both times.
        for _ in 0..8 {
            let before = log::head(&self.log)?;
            let frames = frames()?;
            if log::head(&self.log)? == before {
                let size = log::frame_size(&before)?;
                return Some((log::salts_of(&before)?, size, frames)).filter(|_| frames > 0);
            }
        }
        None
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.copy)
    }
}
