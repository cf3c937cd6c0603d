//! Sweeps say what they are about to take, so that a pin waits for none that takes something else.
//!
//! `locks/sweeps/<pid>-<start time>-<boot>-<random>` lists digests as a lease does. The order is what counts. A sweeper
//! announces, then reads the pins; who pins writes the pin, then reads the announcements. So either the sweeper sees the
//! pin and leaves the thing, or who pinned sees the announcement. He then puts a stop to it: looking at all pins and records may
//! take a sweeper as long as a disk takes, and it begins that again without the thing. Only once it has come to the
//! renames, with its announcement locked, he waits.
//!
//! The stop is a mark in the file, not the loss of its name: that would be done with the lock held, in a directory where others
//! make files, and behind one that waits for the disk to give it an inode (seen for 27 ms on ext4).

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use dhow_sys::sched::Urgent;
use dhow_types::Digest;
use rustix::fs::FlockOperation;

use crate::held::{self, Held};
use crate::lease::{lines, own_name, owned, read_list};
use crate::{Context as _, Error, Pins};

/// Below a store's root.
const SWEEPS: &str = "locks/sweeps";

/// What an announcement begins with that somebody has put a stop to: no digest does.
const STOPPED: u8 = b'-';

/// Below a store's root: held shared for a moment by who has pinned, alone by who sweeps and found no room to say what.
const GC: &str = "locks/gc";

/// What a sweep is about to take, said to all who pin until this is dropped.
///
/// Several sweeps may be under way: each takes by rename or unlink, which one of them does first.
#[derive(Debug)]
pub struct Sweep(Announced);

#[derive(Debug)]
enum Announced {
    /// Its file, locked once it takes what it announced.
    Some(PathBuf, File, Option<Urgent>),
    /// All pins wait.
    All(#[expect(dead_code, reason = "locked until it is dropped")] Held),
}

impl Drop for Announced {
    fn drop(&mut self) {
        if let Self::Some(path, file, _) = self {
            // Before its name goes, which may wait for the disk; in vain where there is no lock.
            rustix::fs::flock(file, FlockOperation::Unlock).unwrap_or_default();
            // What cannot be removed stands for nothing once the lock is free.
            drop(std::fs::remove_file(path));
        }
    }
}

impl Sweep {
    /// Announces that these are to go, as far as nobody has pinned them: to be looked for after this (see
    /// [`live_pins`](crate::live_pins)).
    ///
    /// # Errors
    /// When `locks/` cannot be written, for another reason than a full disk.
    pub fn announce(root: &Path, digests: &[Digest]) -> Result<Self, Error> {
        let directory = root.join(SWEEPS);
        match announce(&directory, &own_name()?, &lines(digests)) {
            Ok((path, file)) => Ok(Self(Announced::Some(path, file, None))),
            // What is to go makes room.
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                Self::alone(root)
            }
            Err(error) => Err(error).context(|| format!("announce a sweep in {}", directory.display())),
        }
    }

    /// Announces that anything may go: all who pin wait.
    ///
    /// # Errors
    /// When the lock file cannot be opened.
    pub fn alone(root: &Path) -> Result<Self, Error> {
        let held = Held::take(&root.join(GC), FlockOperation::LockExclusive)?;
        Ok(Self(Announced::All(held)))
    }

    /// To be said when all was looked for, before anything is taken: whether nobody came to need some of it meanwhile. If
    /// so, who pins some of it waits until this is dropped: hold it for renames only. Else look again.
    ///
    /// # Errors
    /// When the announcement cannot be locked.
    pub fn begin(&mut self) -> Result<bool, Error> {
        let Announced::Some(path, file, urgent) = &mut self.0 else {
            return Ok(true);
        };
        *urgent = Some(Urgent::begin());
        held::wait(file, path, FlockOperation::LockExclusive)?;
        let what = || format!("look at {}", path.display());
        let mut first = [0];
        let marked = file.read_at(&mut first, 0).context(what)? == 1 && first[0] == STOPPED;
        // The name is gone where there was no room for a mark.
        Ok(!marked && file.metadata().context(what)?.nlink() > 0)
    }
}

/// Whole before it has the name under which it is looked for.
fn announce(directory: &Path, name: &str, lines: &str) -> io::Result<(PathBuf, File)> {
    let (hidden, path) = (directory.join(format!(".{name}")), directory.join(name));
    let create = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&hidden)
    };
    let mut file = match create() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            match DirBuilder::new().mode(0o700).create(directory) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => create()?,
            }
        }
        other => other?,
    };
    let written = file.write_all(lines.as_bytes());
    let said = written.and_then(|()| std::fs::rename(&hidden, &path));
    if said.is_err() {
        drop(std::fs::remove_file(&hidden));
    }
    said.map(|()| (path, file))
}

/// Puts a stop to sweeps that announced something of which `concerns` says so, or waits until they are over. After this
/// what was pinned before is there, or is gone for good.
pub(crate) fn stop_sweeps(root: &Path, concerns: impl Fn(&Pins) -> bool) -> Result<(), Error> {
    drop(Held::take(&root.join(GC), FlockOperation::LockShared)?);
    let directory = root.join(SWEEPS);
    let what = || format!("read {}", directory.display());
    let entries = match std::fs::read_dir(&directory) {
        // Nothing was ever swept.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.context(what)?,
    };
    for entry in entries {
        let entry = entry.context(what)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let file = match File::options().read(true).write(true).open(entry.path()) {
            // Over.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            other => other.context(what)?,
        };
        let mut swept = Pins::default();
        let list = read_list(&file).context(what)?;
        if list
            .as_ref()
            .is_some_and(|list| list.as_bytes().first() == Some(&STOPPED))
        {
            continue;
        }
        swept.add(list.as_deref());
        if swept.everything || concerns(&swept) {
            let path = entry.path();
            // Until the mark is made: the sweeper and others wait for it.
            let _urgent = Urgent::begin();
            held::wait(&file, &path, FlockOperation::LockExclusive)?;
            stop(&file, &path).context(|| format!("put a stop to {}", path.display()))?;
            drop(file);
        }
    }
    Ok(())
}

/// Marks an announcement, which is locked, or takes its name where there is no room for a byte.
fn stop(file: &File, path: &Path) -> io::Result<()> {
    if file.write_all_at(&[STOPPED], 0).is_ok() {
        return Ok(());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// All announcements, and whether their processes live.
pub(crate) fn announced(root: &Path) -> Result<Vec<(PathBuf, bool)>, Error> {
    let directory = root.join(SWEEPS);
    match std::fs::read_dir(&directory) {
        // Nothing was ever swept.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        entries => owned(
            &directory,
            entries.context(|| format!("list {}", directory.display()))?,
        ),
    }
}
