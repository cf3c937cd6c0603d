//! The write-ahead log, begun anew without a wait for the disk.
//!
//! When all of the log is in the database, SQLite's next writer begins the log anew, at its first byte, and syncs its new
//! head before anything else, with every other writer waiting. The sync is there for one case: a power cut may keep the old
//! head and some of the old frames where the new ones did not get to the disk, and these would be taken for changes that the
//! database lacks. So whoever folds a log in notes beside it which one that was, on the disk, before it may be begun anew. After
//! another boot a log that is noted, and has no more frames than were folded in, is no log any more. With the note there,
//! the head needs no sync.
//!
//! What is known of a log that is folded in goes with the last process that has the database open: the next one would read all of it
//! as changes, and write behind them. So its head is overwritten when nobody reads it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use dhow_sys::file::open_quietly;

/// Begins a log: `WAL_MAGIC`, the last bit for checksums of big-endian words (SQLite, "WAL File Format").
const MAGIC: u32 = 0x377f_0682;

/// Bytes of the head of a log, and of the head of each frame.
pub(crate) const HEAD: usize = 32;
const FRAME: usize = 24;

/// Largest page of a database.
const MOST_PAGE: usize = 64 << 10;

/// Longest note.
const MAX_NOTE: u64 = 256;

/// What tells a log from those before and after it in the same file: its salts.
pub(crate) type Salts = [u8; 8];

/// A log that is folded in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folded {
    /// Boot in which that was.
    pub(crate) boot: String,
    pub(crate) salts: Salts,
    /// How many frames of it.
    pub(crate) frames: u32,
}

impl Folded {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.strip_suffix('\n')?.split(' ');
        let (boot, salts, frames) = (words.next()?, words.next()?, words.next()?);
        Some(Self {
            boot: boot.to_owned(),
            salts: u64::from_str_radix(salts, 16).ok()?.to_be_bytes(),
            frames: frames.parse().ok()?,
        })
    }

    /// The note beside the database at `path`; nothing when there is none that can be read.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let mut text = String::new();
        let file = open_quietly(note(path)).ok()?;
        file.take(MAX_NOTE).read_to_string(&mut text).ok()?;
        Self::parse(&text)
    }

    /// Writes the note, onto the disk. One process does so at a time.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let (place, next) = (note(path), beside(path, "-folded.next"));
        let text = format!(
            "{} {:016x} {}\n",
            self.boot,
            u64::from_be_bytes(self.salts),
            self.frames
        );
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&next)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        std::fs::rename(&next, &place)?;
        File::open(place.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// Makes the log that another boot left beside the database at `path` what it is to be. Before anybody has the database open
/// in this boot.
pub(crate) fn recover(path: &Path, boot: &str) -> io::Result<()> {
    if let Some(noted) = Folded::read(path).filter(|noted| noted.boot != boot) {
        drop_stale(path, &noted)?;
        forget(path)?;
    }
    Ok(())
}

/// Takes the note away: from now on SQLite syncs what it begins.
fn forget(path: &Path) -> io::Result<()> {
    gone(std::fs::remove_file(note(path)))
}

/// Empties a log that another boot left and that is in the database already.
fn drop_stale(path: &Path, folded: &Folded) -> io::Result<()> {
    let log = log(path);
    let Some(frames) = frames(&log, folded.salts)? else {
        return Ok(());
    };
    if frames > folded.frames {
        return Ok(());
    }
    let file = File::options().write(true).open(&log)?;
    file.set_len(0)?;
    file.sync_all()
}

/// The salts of a log; nothing without one.
pub(crate) fn salts(log: &Path) -> Option<Salts> {
    head(log).as_ref().and_then(salts_of)
}

/// Whether all that may come to light of this log after a power cut is in the database, by this note.
pub(crate) fn is_noted(log: &Path, noted: &Folded) -> bool {
    head(log).is_some_and(|head| head == [0; HEAD] || salts_of(&head) == Some(noted.salts))
}

/// Makes the log none. Only when all of it is in the database, that is noted, and nobody reads or writes it.
pub(crate) fn clear(log: &Path) -> io::Result<()> {
    let file = File::options().write(true).open(log)?;
    file.write_all_at(&[0; HEAD], 0)
}

pub(crate) fn head(log: &Path) -> Option<[u8; HEAD]> {
    let mut head = [0; HEAD];
    open_quietly(log).ok()?.read_exact(&mut head).ok()?;
    Some(head)
}

/// Bytes of a frame with its head, as the head of the log says.
pub(crate) fn frame_size(head: &[u8; HEAD]) -> Option<usize> {
    let size = usize::try_from(word(head, 8, true)).ok()?;
    ((512..=MOST_PAGE).contains(&size) && size.is_power_of_two()).then_some(FRAME + size)
}

pub(crate) fn salts_of(head: &[u8; HEAD]) -> Option<Salts> {
    (word(head, 0, true) & !1 == MAGIC).then(|| {
        let mut salts = [0; 8];
        salts.copy_from_slice(&head[16..24]);
        salts
    })
}

/// How many frames of the log with these salts are whole, from its first on; nothing when the log is another one.
fn frames(log: &Path, salts: Salts) -> io::Result<Option<u32>> {
    let file = match File::open(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut file = io::BufReader::new(file);
    let mut head = [0; HEAD];
    if !whole(&mut file, &mut head)? || salts_of(&head) != Some(salts) {
        return Ok(None);
    }
    let big = word(&head, 0, true) & 1 == 1;
    let mut sum = summed((0, 0), &head[..24], big);
    let Some(size) = frame_size(&head).filter(|_| is_sum(sum, &head[24..])) else {
        return Ok(None);
    };
    let (mut count, mut frame) = (0, vec![0; size]);
    while whole(&mut file, &mut frame)? && frame[8..16] == salts {
        sum = summed(summed(sum, &frame[..8], big), &frame[FRAME..], big);
        if !is_sum(sum, &frame[16..24]) {
            break;
        }
        count += 1;
    }
    Ok(Some(count))
}

/// Fills `buffer`; `false` when the file ends before.
fn whole(file: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        other => other.map(|()| true),
    }
}

/// The checksum of a log goes on over `bytes`, words of four bytes.
fn summed((mut first, mut second): (u32, u32), bytes: &[u8], big: bool) -> (u32, u32) {
    let (pairs, _) = bytes.as_chunks::<8>();
    for pair in pairs {
        first = first.wrapping_add(word(pair, 0, big)).wrapping_add(second);
        second = second.wrapping_add(word(pair, 4, big)).wrapping_add(first);
    }
    (first, second)
}

fn is_sum((first, second): (u32, u32), bytes: &[u8]) -> bool {
    (first, second) == (word(bytes, 0, true), word(bytes, 4, true))
}

fn word(bytes: &[u8], at: usize, big: bool) -> u32 {
    let mut raw = [0; 4];
    if let Some(part) = bytes.get(at..at + 4) {
        raw.copy_from_slice(part);
    }
    if big {
        u32::from_be_bytes(raw)
    } else {
        u32::from_le_bytes(raw)
    }
}

fn log(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

fn note(path: &Path) -> PathBuf {
    beside(path, "-folded")
}

/// The file of the same name with `suffix`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(suffix);
    name.into()
}

fn gone(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Meta, lease};

    /// A database with `facts` a, b, ... of this number, whose log is folded in and was begun anew since with one more
    /// change; the log as it was before that; and the note of it.
    fn begun_anew(root: &Path) -> (PathBuf, Vec<u8>, Folded) {
        let path = root.join("meta.db");
        let meta = Meta::open(&path).unwrap();
        let set = |number: i64| {
            let all = (0..40).map(|name| format!("{name:0>500}"));
            meta.edit(|edit| {
                for name in all {
                    edit.set_fact(&name, number)?;
                }
                Ok::<_, crate::Error>(())
            })
            .unwrap();
        };
        for number in 1..200 {
            let head = head(&log(&path));
            set(number);
            let mut whole = std::fs::read(log(&path)).unwrap();
            if let (Some(noted), Some(head)) = (Folded::read(&path), head)
                && whole[..HEAD] == [0; HEAD]
            {
                // That it is none need not have come to the disk.
                whole[..HEAD].copy_from_slice(&head);
                set(number + 1);
                return (path, whole, noted);
            }
        }
        panic!("no log is folded in");
    }

    fn last(path: &Path) -> Vec<Option<i64>> {
        let meta = Meta::open(path).unwrap();
        (0..40)
            .map(|name| meta.fact(&format!("{name:0>500}")).unwrap())
            .collect()
    }

    #[test]
    fn a_log_that_is_noted_is_begun_anew_without_a_sync_and_no_other() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("locks")).unwrap();
        let (path, _, noted) = begun_anew(root.path());
        assert_eq!(noted.boot, lease::boot().unwrap());
        assert!(noted.frames > 0 && salts(&log(&path)) != Some(noted.salts));
        let meta = Meta::open(&path).unwrap();
        let how = || {
            meta.read(|connection| connection.query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0)))
        };
        let change = |value| meta.edit(|edit| edit.set_fact("x", value)).unwrap();
        change(1);
        assert_eq!(how().unwrap(), 1, "the log that is there is not noted");
        let current = salts(&log(&path)).unwrap();
        Folded {
            salts: current,
            ..noted
        }
        .write(&path)
        .unwrap();
        change(2);
        assert_eq!(how().unwrap(), 0);
        forget(&path).unwrap();
        change(3);
        assert_eq!(how().unwrap(), 1);
    }

    /// A power cut that leaves the old head and a part of the old frames, in a log that was begun anew.
    #[test]
    fn what_a_power_cut_leaves_of_an_old_log_does_not_come_back() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("locks")).unwrap();
        let (path, before, noted) = begun_anew(root.path());
        let fold = |path: &Path| {
            let connection = rusqlite::Connection::open(path).unwrap();
            connection
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
                .unwrap();
        };
        fold(&path);
        let now = last(&path);
        let whole = frames_in(&root, &before, noted.salts);
        assert_eq!(whole, Some(noted.frames));
        let other = Folded {
            boot: "other".to_owned(),
            ..noted.clone()
        };
        let size = 4096 + FRAME;
        let mut rolled_back = 0;
        for keep in [
            0,
            1,
            noted.frames as usize / 3,
            noted.frames as usize / 2,
            noted.frames as usize,
        ] {
            let left = |log_there: &[u8]| {
                for suffix in ["-shm", "-folded", "-home"] {
                    drop(std::fs::remove_file(beside(&path, suffix)));
                }
                std::fs::write(log(&path), log_there).unwrap();
            };
            let saved = std::fs::read(&path).unwrap();
            let part = &before[..HEAD + keep * size];
            // Without the note SQLite takes it for changes: so the case is one.
            left(part);
            rolled_back += usize::from(last(&path) != now);
            std::fs::write(&path, &saved).unwrap();
            left(part);
            other.write(&path).unwrap();
            assert_eq!(last(&path), now, "{keep} frames");
            assert_eq!(Folded::read(&path), None);
            std::fs::write(&path, &saved).unwrap();
        }
        assert!(rolled_back > 0);
    }

    #[test]
    fn a_log_with_more_than_was_folded_in_is_kept_and_so_is_another() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("locks")).unwrap();
        let (path, before, noted) = begun_anew(root.path());
        let kept = std::fs::read(log(&path)).unwrap();
        drop_stale(&path, &noted).unwrap();
        assert!(std::fs::read(log(&path)).unwrap() == kept, "another log");
        std::fs::write(log(&path), &before).unwrap();
        let fewer = Folded {
            frames: noted.frames - 1,
            ..noted.clone()
        };
        drop_stale(&path, &fewer).unwrap();
        assert!(std::fs::read(log(&path)).unwrap() == before, "it has more");
        drop_stale(&path, &noted).unwrap();
        assert_eq!(std::fs::read(log(&path)).unwrap(), b"");
        drop_stale(&path, &noted).unwrap();
    }

    #[test]
    fn commands_one_after_the_other_do_not_make_the_log_longer_and_longer() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("locks")).unwrap();
        let path = root.path().join("meta.db");
        let change = |number| {
            // As a process of its own.
            let meta = Meta::open(&path).unwrap();
            assert_eq!(meta.fact("x").unwrap(), (number > 0).then(|| number - 1));
            meta.edit(|edit| edit.set_fact("x", number)).unwrap();
        };
        (0..400).for_each(change);
        let length = std::fs::metadata(log(&path)).unwrap().len();
        let most = u64::try_from(crate::LONG_LOG).unwrap() * 2 * (4096 + 24);
        assert!(length < most, "{length}");
        // With another that has it open all the while, too.
        let other = Meta::open(&path).unwrap();
        (400..800).for_each(|number| {
            change(number);
            assert_eq!(other.fact("x").unwrap(), Some(number));
        });
        let length = std::fs::metadata(log(&path)).unwrap().len();
        assert!(length < most, "{length}");
    }

    fn frames_in(root: &tempfile::TempDir, bytes: &[u8], salts: Salts) -> Option<u32> {
        let path = root.path().join("log");
        std::fs::write(&path, bytes).unwrap();
        frames(&path, salts).unwrap()
    }

    #[test]
    fn damaged_logs_and_notes_are_read_as_far_as_they_are_whole() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("locks")).unwrap();
        let (path, before, noted) = begun_anew(root.path());
        for end in (0..before.len()).step_by(997) {
            let found = frames_in(&root, &before[..end], noted.salts).unwrap_or(0);
            assert_eq!(
                found as usize,
                (end.saturating_sub(HEAD) / (4096 + FRAME)).min(noted.frames as usize),
                "{end}"
            );
        }
        for at in (0..before.len().min(40_000)).step_by(61) {
            let mut damaged = before.clone();
            damaged[at] ^= 0x40;
            // What is after the damage does not count.
            let most = at.saturating_sub(HEAD) / (4096 + FRAME);
            let found = frames_in(&root, &damaged, noted.salts).unwrap_or(0);
            assert!(found as usize <= most, "{at}: {found}");
        }
        for note_text in [
            "",
            "b",
            "b 1",
            "b 1 2",
            "b zz 2\n",
            "b 1 -2\n",
            "b 1 99999999999\n",
            "\n",
        ] {
            std::fs::write(note(&path), note_text).unwrap();
            assert_eq!(Folded::read(&path), None, "{note_text:?}");
        }
    }
}
