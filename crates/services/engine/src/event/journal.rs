//! The file of events.
//!
//! ```text
//! ROOT/events/log      one JSON object a line, appended by one write(2) each, so that lines of many writers do not mix
//! ROOT/events/log.1    the file before: `log` is renamed when it has grown to 4 MiB
//! ```
//! A line that is none (a power cut) is passed over. Nothing is synced: what is lost with the power happened before it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{FlockOperation, flock};

use super::{Event, EventRequest, now};
use crate::{Context as _, Error};

/// Where a new file is begun; two of them are kept.
const FULL: u64 = 4 << 20;
/// Longest line that is read. Attributes are labels, which an image config bounds.
const LONGEST: u64 = 1 << 20;

/// The events of one root.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
}

impl Journal {
    /// The journal of this root.
    pub(crate) fn of(root: &Path) -> Self {
        Self {
            folder: root.join("events"),
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Appends events.
    pub(super) fn append(&self, events: &[Event]) -> io::Result<()> {
        let mut text = Vec::with_capacity(512);
        for event in events {
            serde_json::to_writer(&mut text, event)?;
            text.push(b'\n');
        }
        let mut file = match self.writable() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&self.folder)?;
                self.writable()?
            }
            file => file?,
        };
        file.write_all(&text)?;
        if file.stream_position()? >= FULL {
            self.begin_anew(&file)?;
        }
        Ok(())
    }

    fn writable(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).open(self.log())
    }

    /// Renames the full file, unless another does or did.
    fn begin_anew(&self, file: &File) -> io::Result<()> {
        if flock(file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(());
        }
        let same = std::fs::metadata(self.log())
            .is_ok_and(|now| file.metadata().is_ok_and(|own| own.ino() == now.ino()));
        if same {
            std::fs::rename(self.log(), self.folder.join("log.1"))?;
        }
        Ok(())
    }

    /// Gives the events of the past, then those to come.
    pub(super) fn follow(
        &self,
        request: &EventRequest,
        each: &mut dyn FnMut(&Event) -> bool,
    ) -> Result<(), Error> {
        let what = || format!("read the events in {}", self.folder.display());
        // Watched before it is read, so that nothing falls between.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .context(what)?;
        let watch = self.watch().context(what)?;
        let mut reader = Reader::default();
        let begin = request.since.unwrap_or_else(now);
        let mut each = |event: &Event| {
            let over = request.until.is_some_and(|until| event.nanoseconds > until);
            !over && (event.nanoseconds < begin || !request.filter.passes(event) || each(event))
        };
        if request.since.is_some() {
            reader.turn_to(&self.folder.join("log.1")).context(what)?;
            if !reader.drain(&mut each).context(what)? {
                return Ok(());
            }
        }
        reader.turn_to(&self.log()).context(what)?;
        if request.since.is_none() {
            reader.skip().context(what)?;
        }
        // A writer may have opened it just before it was renamed.
        let mut before = Reader::default();
        loop {
            // Asked before the reading: what is renamed after is read to its end first.
            let replaced = !reader.is_at(&self.log());
            if !(before.drain(&mut each).context(what)? && reader.drain(&mut each).context(what)?) {
                return Ok(());
            }
            let mut next = Reader::default();
            if replaced && next.turn_to(&self.log()).context(what)? {
                before = std::mem::replace(&mut reader, next);
                continue;
            }
            let left = match request.until {
                Some(until) => match u64::try_from(until - now()) {
                    Ok(left) if left > 0 => Some(Duration::from_nanos(left)),
                    _ => return Ok(()),
                },
                None => None,
            };
            if request.past_only {
                return Ok(());
            }
            wait(&watch, left).context(what)?;
        }
    }

    fn watch(&self) -> io::Result<std::os::fd::OwnedFd> {
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let wanted = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVE;
        inotify::add_watch(&watch, &self.folder, wanted)?;
        Ok(watch)
    }
}

/// Waits until something changed in the folder, at most so long.
fn wait(watch: &std::os::fd::OwnedFd, most: Option<Duration>) -> io::Result<()> {
    let timeout = most.map(|most| {
        Timespec::try_from(most).unwrap_or(Timespec {
            tv_sec: 1 << 30,
            tv_nsec: 0,
        })
    });
    match rustix::event::poll(&mut [PollFd::new(watch, PollFlags::IN)], timeout.as_ref()) {
        Err(rustix::io::Errno::INTR) => return Ok(()),
        polled => polled?,
    };
    // What it was does not matter: the files are looked at.
    let mut changes = [0; 4096];
    while matches!(rustix::io::read(watch, &mut changes), Ok(1..)) {}
    Ok(())
}

/// One file, read line by line; half a line waits for its rest.
#[derive(Default)]
struct Reader {
    file: Option<BufReader<File>>,
    inode: u64,
    line: Vec<u8>,
}

impl Reader {
    /// Goes on with this file, from its beginning; whether it is there.
    fn turn_to(&mut self, path: &Path) -> io::Result<bool> {
        self.line.clear();
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.file = None;
                return Ok(false);
            }
            file => file?,
        };
        self.inode = file.metadata()?.ino();
        self.file = Some(BufReader::new(file));
        Ok(true)
    }

    /// Whether it reads the file that has this name now.
    fn is_at(&self, path: &Path) -> bool {
        let inode = std::fs::metadata(path).map(|metadata| metadata.ino());
        self.file.is_some() && inode.is_ok_and(|inode| inode == self.inode)
    }

    /// Passes over what is there.
    fn skip(&mut self) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.seek(SeekFrom::End(0)).map(drop),
            None => Ok(()),
        }
    }

    /// Gives every whole line that is there; false when `each` has enough.
    fn drain(&mut self, each: &mut dyn FnMut(&Event) -> bool) -> io::Result<bool> {
        let Some(file) = &mut self.file else {
            return Ok(true);
        };
        loop {
            let room = LONGEST - self.line.len() as u64;
            let read = io::Read::take(&mut *file, room).read_until(b'\n', &mut self.line)?;
            let whole = self.line.last() == Some(&b'\n');
            if read == 0 && !whole && (self.line.len() as u64) < LONGEST {
                return Ok(true);
            }
            if !whole && (self.line.len() as u64) < LONGEST {
                continue;
            }
            let event = serde_json::from_slice::<Event>(&self.line);
            self.line.clear();
            if event.is_ok_and(|event| !each(&event)) {
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::EventKind;
    use super::*;

    fn event(id: &str, at: i64) -> Event {
        let mut event = Event::now(EventKind::Volume, "create", id);
        event.nanoseconds = at;
        event
    }

    fn past(journal: &Journal, since: i64, until: Option<i64>) -> Vec<String> {
        let ids = RefCell::new(Vec::new());
        let request = EventRequest {
            since: Some(since),
            until,
            past_only: true,
            ..EventRequest::default()
        };
        let taken = journal.follow(&request, &mut |event| {
            ids.borrow_mut().push(event.id.clone());
            true
        });
        taken.unwrap();
        ids.into_inner()
    }

    #[test]
    fn what_was_written_is_read_in_its_order_and_between_its_times() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::of(folder.path());
        assert!(past(&journal, 0, None).is_empty());
        journal.append(&[event("a", 1), event("b", 2)]).unwrap();
        journal.append(&[event("c", 3)]).unwrap();
        assert_eq!(past(&journal, 0, None), ["a", "b", "c"]);
        assert_eq!(past(&journal, 2, None), ["b", "c"]);
        assert_eq!(past(&journal, 0, Some(2)), ["a", "b"]);
    }

    #[test]
    fn damaged_and_endless_lines_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::of(folder.path());
        journal.append(&[event("a", 1)]).unwrap();
        let mut file = journal.writable().unwrap();
        file.write_all(b"{\"at\":7,\"ty\n\0\0\0\n").unwrap();
        file.write_all(&vec![b'x'; 3 << 20]).unwrap();
        file.write_all(b"\n").unwrap();
        drop(file);
        journal.append(&[event("b", 2)]).unwrap();
        assert_eq!(past(&journal, 0, None), ["a", "b"]);
    }

    #[test]
    fn a_full_file_makes_room_and_the_one_before_is_still_read() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::of(folder.path());
        let wide = "w".repeat(1 << 10);
        let count = (FULL >> 10) as i64 + 10;
        for at in 1..=count {
            journal.append(&[event(&wide, at)]).unwrap();
        }
        assert!(folder.path().join("events/log.1").exists());
        assert_eq!(past(&journal, 0, None).len() as i64, count);
    }

    #[test]
    fn writers_beside_each_other_lose_and_mix_nothing_while_a_reader_follows() {
        let folder = tempfile::tempdir().unwrap();
        let seen = RefCell::new(0);
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let journal = Journal::of(folder.path());
                scope.spawn(move || {
                    for number in 0..2000 {
                        let id = format!("{writer}-{number}-{}", "x".repeat(700));
                        journal.append(&[event(&id, now())]).unwrap();
                    }
                });
            }
            let request = EventRequest {
                since: Some(0),
                until: Some(now() + 60_000_000_000),
                ..EventRequest::default()
            };
            let journal = Journal::of(folder.path());
            let followed = journal.follow(&request, &mut |_| {
                *seen.borrow_mut() += 1;
                *seen.borrow() < 8000
            });
            followed.unwrap();
        });
        assert_eq!(seen.into_inner(), 8000);
    }
}
