//! Where the log of the database is: in memory, where this host has room for it.
//!
//! Who writes to a file sets the time of its last change, and while a journal or a disk has the block of that inode, waits
//! for it. The log is written with the index locked, so everybody waits (16 ms with 32 commands at work). In the folder of
//! run state, which is in memory (tmpfs), there is nothing to wait for. What the next boot needs is copied to
//! the disk when the index is free again ([`crate::copy`]).
//!
//! All processes must agree on the place, also those that have another `/run`, as in a container that shares the store. So it
//! is written down beside the database, for one boot, with the inode of the folder:
//!
//! - Whoever has the database open has the record locked with others, and has found the folder that it names to be that one.
//! - Who does not find it waits until nobody has the database open, and takes the copy for the log. From then on
//!   it lies on the disk until the next boot, where everybody finds it.
//! - A store of an earlier version has no record. A process of that version may be at it; in this boot its log stays where
//!   it is.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use dhow_types::ErrorKind;
use rustix::fs::{Access, FlockOperation, flock};
use rustix::io::Errno;

use crate::copy::Copy;
use crate::{Context as _, Error, PATIENCE, RETRY, held, lease, log};

/// Longest record: two numbers, the boot and a path.
const MAX_RECORD: usize = 8192;

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` (statfs(2)).
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// Where the log of this boot is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Beside the database.
    Disk,
    /// In this folder in memory, with this device and inode.
    Memory { dev: u64, ino: u64, folder: PathBuf },
}

/// What is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    boot: String,
    place: Place,
}

impl Record {
    fn parse(bytes: &[u8]) -> Option<Self> {
        // What is behind the line may be the rest of a longer one.
        let line = bytes.get(..bytes.iter().position(|byte| *byte == b'\n')?)?;
        let line = std::str::from_utf8(line).ok()?;
        let mut words = line.splitn(4, ' ');
        let boot = words.next()?.to_owned();
        let place = match words.next()? {
            "disk" => Place::Disk,
            dev => Place::Memory {
                dev: dev.parse().ok()?,
                ino: words.next()?.parse().ok()?,
                folder: words
                    .next()
                    .map(PathBuf::from)
                    .filter(|path| path.is_absolute())?,
            },
        };
        Some(Self { boot, place })
    }

    fn read(file: &File) -> Option<Self> {
        let mut bytes = [0; MAX_RECORD];
        let length = file.read_at(&mut bytes, 0).ok()?;
        Self::parse(bytes.get(..length)?)
    }

    /// Only with the file locked alone; the line ends what counts.
    fn write(&self, file: &File) -> io::Result<()> {
        let text = match &self.place {
            Place::Disk => format!("{} disk\n", self.boot),
            Place::Memory { dev, ino, folder } => {
                format!("{} {dev} {ino} {}\n", self.boot, folder.display())
            }
        };
        file.write_all_at(text.as_bytes(), 0)
    }

    /// The folder of the log, or none beside the database; an error when this process cannot reach it, or it is of
    /// another boot.
    fn place(&self) -> Result<Option<PathBuf>, Unknown> {
        if !lease::boot().is_ok_and(|boot| boot == self.boot) {
            return Err(Unknown);
        }
        match &self.place {
            Place::Disk => Ok(None),
            Place::Memory { dev, ino, folder } => {
                let there = identity(folder).ok().filter(|there| *there == (*dev, *ino));
                there.map(|_| Some(folder.clone())).ok_or(Unknown)
            }
        }
    }
}

struct Unknown;

/// Where the log of a database that is open is; it stays there as long as this lives.
#[derive(Debug)]
pub(crate) struct Home {
    _lock: File,
    /// The folder in memory; none when the log is beside the database.
    pub(crate) memory: Option<PathBuf>,
}

impl Home {
    /// The log's place, chosen if this is the first use of the database in this boot: in `run`, if that is in memory.
    pub(crate) fn enter(database: &Path, run: Option<&Path>) -> Result<Self, Error> {
        let path = log::beside(database, "-home");
        let begun = Instant::now();
        loop {
            let file = held::open(&path)?;
            held::wait(&file, &path, FlockOperation::LockShared)?;
            if let Some(Ok(memory)) = Record::read(&file).map(|record| record.place()) {
                return Ok(Self { _lock: file, memory });
            }
            drop(file);
            match Alone::try_be(database)? {
                Some(alone) => alone.settle(database, run)?,
                None => wait_for_others(
                    database,
                    begun,
                    "stop it, or give both the same folder of run state (/run/dhow, XDG_RUNTIME_DIR): each must see the log of the other",
                )?,
            }
        }
    }

    /// The log in use: that in memory, or that beside the database.
    pub(crate) fn log(&self, database: &Path) -> PathBuf {
        match &self.memory {
            Some(folder) => in_memory(folder, "-wal"),
            None => log::beside(database, "-wal"),
        }
    }
}

/// The file in `folder` that stands for the one of this suffix beside the database.
pub(crate) fn in_memory(folder: &Path, suffix: &str) -> PathBuf {
    folder.join(format!("index{suffix}"))
}

/// Nobody has the database open as long as this lives.
pub(crate) struct Alone(File);

/// A while, unless it was long enough.
fn wait_for_others(database: &Path, begun: Instant, hint: &str) -> Result<(), Error> {
    if begun.elapsed() < PATIENCE {
        std::thread::sleep(RETRY);
        return Ok(());
    }
    let message = format!("another process has the index {} open", database.display());
    Err(Error::new(ErrorKind::Unavailable, message).with_hint(hint))
}

impl Alone {
    /// Waits until nobody has the database open, and keeps it so.
    pub(crate) fn be(database: &Path) -> Result<Self, Error> {
        let begun = Instant::now();
        loop {
            if let Some(alone) = Self::try_be(database)? {
                return Ok(alone);
            }
            wait_for_others(database, begun, "stop it and try again")?;
        }
    }

    fn try_be(database: &Path) -> Result<Option<Self>, Error> {
        let path = log::beside(database, "-home");
        let file = held::open(&path)?;
        match flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(None),
            Err(errno) => {
                let doing = format!("lock {}", path.display());
                Err(Error::because(ErrorKind::Internal, doing, errno))
            }
        }
    }

    /// Forgets where the log was, with the log in memory; what lies beside the database is the caller's.
    pub(crate) fn forget(self) -> io::Result<()> {
        if let Some(Ok(Some(folder))) = Record::read(&self.0).map(|record| record.place()) {
            empty(&folder)?;
        }
        self.0.set_len(0)
    }

    /// Writes down where the log is in this boot, and brings it there.
    fn settle(self, database: &Path, run: Option<&Path>) -> Result<(), Error> {
        let what = || format!("prepare the log of {}", database.display());
        let record = Record::read(&self.0);
        if record.as_ref().is_some_and(|record| record.place().is_ok()) {
            // Another process was faster.
            return Ok(());
        }
        let boot = lease::boot()?;
        let home = self.0.metadata().context(what)?;
        let own = run.filter(|run| is_in_memory(run, home.dev())).map(|run| {
            run.join("index")
                .join(format!("{:x}-{:x}", home.dev(), home.ino()))
        });
        let is_new = !std::fs::metadata(database).is_ok_and(|file| file.len() > 0);
        let folder = match record {
            None => own.filter(|_| is_new),
            Some(record) if record.boot != boot => own,
            // In this boot, and it is not there: for everybody, as after a log-out, or only for this process.
            Some(Record {
                place: Place::Memory { folder, .. },
                ..
            }) => own.filter(|own| *own == folder && std::fs::symlink_metadata(own).is_err()),
            Some(_) => None,
        };
        log::recover(database, &boot).context(what)?;
        let place = match folder {
            // Without room there, or if it may not be written to, as before.
            Some(folder) => bring(database, &folder).unwrap_or(Place::Disk),
            None => Place::Disk,
        };
        Record { boot, place }.write(&self.0).context(what)
    }
}

/// Makes `folder` with the log of the disk in it, which becomes its copy.
fn bring(database: &Path, folder: &Path) -> io::Result<Place> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // Before anything is removed there: it may be another's.
    let (dev, ino) = identity(folder)?;
    empty(folder)?;
    let (log, copy) = (in_memory(folder, "-wal"), log::beside(database, "-wal"));
    let on_disk = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&copy)?;
    if log::salts(&copy).is_some() {
        let mut in_memory = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(log)?;
        io::copy(&mut &on_disk, &mut in_memory)?;
    }
    match std::fs::remove_file(log::beside(database, "-shm")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    Copy::new(database, folder).begin()?;
    Ok(Place::Memory {
        dev,
        ino,
        folder: folder.to_owned(),
    })
}

fn empty(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        std::fs::remove_file(entry?.path())?;
    }
    Ok(())
}

/// Device and inode of a folder that is this user's alone, who can write there.
fn identity(folder: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(folder)?;
    let own = found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0;
    if !found.is_dir() || !own {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    // A service may see /run and not be let write to it.
    rustix::fs::access(folder, Access::WRITE_OK)?;
    Ok((found.dev(), found.ino()))
}

/// Whether what is made below `run` lies in memory, and not in the file system of the store.
fn is_in_memory(run: &Path, store: u64) -> bool {
    // It need not be there yet.
    let there = run.ancestors().find_map(|folder| File::open(folder).ok());
    there.is_some_and(|there| {
        let kind = rustix::fs::fstatfs(&there).map(|found| u64::try_from(found.f_type).unwrap_or(0));
        kind.is_ok_and(|kind| IN_MEMORY.contains(&kind))
            && there.metadata().is_ok_and(|found| found.dev() != store)
    })
}
