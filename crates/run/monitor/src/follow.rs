//! Reading a log while it is written and rotated.

use std::fs::File;
use std::io::{BufReader, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::log::{LogReader, Record, log_files};
use crate::{Context as _, Error};

/// One who reads a log to its present end, again and again. A file that is renamed meanwhile is read to its end, then
/// the next newer one; what was deleted before it was read is missed.
#[derive(Debug)]
pub struct LogFollower {
    path: PathBuf,
    reader: Option<(LogReader<BufReader<File>>, u64)>,
    watch: OwnedFd,
}

impl LogFollower {
    /// A follower of the log whose newest file is `path`, from its beginning (the newest file's, not the oldest's).
    ///
    /// # Errors
    /// When its folder cannot be watched.
    pub fn new(path: &Path) -> Result<Self, Error> {
        let what = || format!("watch the log {}", path.display());
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(std::io::Error::from)
            .context(what)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let wanted = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVE | WatchFlags::DELETE;
        inotify::add_watch(&watch, folder, wanted)
            .map_err(std::io::Error::from)
            .context(what)?;
        Ok(Self {
            path: path.to_owned(),
            reader: open(path),
            watch,
        })
    }

    /// Passes over what is there now.
    ///
    /// # Errors
    /// What the file said.
    pub fn skip(&mut self) -> Result<(), Error> {
        let Ok(mut file) = File::open(&self.path) else {
            return Ok(());
        };
        let inode = file.metadata().context(|| "look at the log")?.ino();
        file.seek(SeekFrom::End(0)).context(|| "pass over the log")?;
        self.reader = Some((LogReader::new(BufReader::with_capacity(64 << 10, file)), inode));
        Ok(())
    }

    /// Goes on where a reader of one of the log's files stands.
    ///
    /// # Errors
    /// What the file said.
    pub fn resume(&mut self, reader: LogReader<BufReader<File>>) -> Result<(), Error> {
        let metadata = reader.file().metadata().context(|| "look at the log")?;
        self.reader = Some((reader, metadata.ino()));
        Ok(())
    }

    /// Gives every record that is there; false when `each` wants no more.
    ///
    /// # Errors
    /// What reading said.
    pub fn drain(&mut self, each: &mut dyn FnMut(&Record) -> bool) -> Result<bool, Error> {
        loop {
            if self.reader.is_none() {
                self.reader = open(&self.path);
            }
            let Some((reader, inode)) = &mut self.reader else {
                return Ok(true);
            };
            // Asked before the reading: what was renamed by now has its last record in it.
            let next = successor(&self.path, *inode);
            while let Some(record) = reader.record()? {
                if !each(&record) {
                    return Ok(false);
                }
            }
            match next {
                Some(next) => self.reader = open(&next),
                None => return Ok(true),
            }
        }
    }

    /// Closing any of its descriptors would end its work: who closes all others keeps these.
    #[must_use]
    pub fn as_fds(&self) -> Vec<BorrowedFd<'_>> {
        let file = self.reader.as_ref().map(|(reader, _)| reader.file().as_fd());
        file.into_iter().chain([self.watch.as_fd()]).collect()
    }

    /// Waits until something changes beside the log, at most so long.
    pub fn wait(&self, most: Duration) {
        let timeout = Timespec::try_from(most).ok();
        // Whatever it was, the files are looked at next.
        rustix::event::poll(&mut [PollFd::new(&self.watch, PollFlags::IN)], timeout.as_ref()).ok();
        let mut changes = [0; 4096];
        while matches!(rustix::io::read(&self.watch, &mut changes), Ok(1..)) {}
    }
}

fn open(path: &Path) -> Option<(LogReader<BufReader<File>>, u64)> {
    let file = File::open(path).ok()?;
    let inode = file.metadata().ok()?.ino();
    Some((LogReader::new(BufReader::with_capacity(64 << 10, file)), inode))
}

/// The file that was begun after the one with this inode; none when it is the newest, or the log is gone. When it was
/// deleted, the oldest that there is.
fn successor(path: &Path, inode: u64) -> Option<PathBuf> {
    let files = log_files(path);
    let number = |file: &PathBuf| std::fs::metadata(file).map(|metadata| metadata.ino());
    match files
        .iter()
        .position(|file| number(file).is_ok_and(|found| found == inode))
    {
        Some(place) => files.get(place + 1).cloned(),
        None => files.into_iter().find(|file| file.exists()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{LogSettings, LogWriter, Stream};

    fn drained(follower: &mut LogFollower) -> Vec<String> {
        let mut lines = Vec::new();
        let more = follower.drain(&mut |record| {
            lines.push(record.log.trim_end().to_owned());
            true
        });
        assert!(more.unwrap());
        lines
    }

    #[test]
    fn nothing_is_missed_however_often_the_file_is_renamed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let settings = LogSettings {
            path: path.clone(),
            max_size: 400,
            max_files: 4,
            attributes: crate::log::Attributes::new(),
            form: crate::LogForm::Json,
        };
        let mut log = LogWriter::open(settings).unwrap();
        log.write(Stream::Stdout, b"before\n");
        let mut follower = LogFollower::new(&path).unwrap();
        follower.skip().unwrap();
        assert!(drained(&mut follower).is_empty());
        let mut got = Vec::new();
        for round in 0..50 {
            // Up to two files' worth between two looks.
            for number in 0..round % 12 {
                log.write(Stream::Stdout, format!("{round}-{number}\n").as_bytes());
            }
            got.extend(drained(&mut follower));
        }
        let wanted: Vec<_> = (0..50)
            .flat_map(|round| (0..round % 12).map(move |number| format!("{round}-{number}")))
            .collect();
        assert_eq!(got, wanted);
    }

    #[test]
    fn a_removed_log_is_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let settings = LogSettings {
            path: path.clone(),
            max_size: 0,
            max_files: 1,
            attributes: crate::log::Attributes::new(),
            form: crate::LogForm::Json,
        };
        let mut log = LogWriter::open(settings).unwrap();
        let mut follower = LogFollower::new(&path).unwrap();
        log.write(Stream::Stdout, b"one\n");
        std::fs::remove_file(&path).unwrap();
        log.write(Stream::Stdout, b"two\n");
        assert_eq!(drained(&mut follower), ["one", "two"]);
        follower.wait(Duration::from_millis(1));
        assert!(drained(&mut follower).is_empty());
    }
}
