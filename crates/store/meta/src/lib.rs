//! The index of the store: images, tags, repo digests, blobs of layers, build cache. And leases.
//!
//! The database holds nothing that cannot be found again: names are files under `refs/`, configs and manifests
//! are blobs, layers are directories. So it is tuned for speed, not for the last millisecond before a power cut:
//!
//! - SQLite in WAL mode with `synchronous=NORMAL`: never corrupt, may lose the last commits.
//! - Many processes, many readers, one writer, every write short. Writers wait in the kernel for `meta.db-lock` and are
//!   woken at once: SQLite alone would look again after 1, 2, 5, ... 100 ms. No lock is held while a byte moves over
//!   network, hash or disk.
//! - The log is in memory, where this host has room for it, and copied to the disk when the next one may go on (`home`,
//!   `copy`): nobody waits for a disk to write to the index.
//! - The log is folded in by a writer after it has let the next one go on, since that waits for the disk; what was folded
//!   in is noted, so that nobody waits for the disk to begin it anew (`log`).
//! - The last process to close does not checkpoint: a short command pays for its own pages only.
//! - Opened on first use: a command that asks nothing pays nothing.
//!
//! [`Edit`] is one write transaction; the methods of [`Meta`] that write are edits of one step. What it changes of a name
//! is [`Due`] in the name's file, which is changed after it.
//!
//! [`Lease`] keeps digests from the sweeper while a pull, a build or a load is at work. Leases are files, since
//! they must outlive nothing: the lease of a dead process (pid, start time, boot id) is void. The lock rule:
//! a sweeper announces what it is about to take, then reads the pins, then renames what nobody needs ([`Sweep`]); whoever
//! pins writes the pin, then reads the announcements, and waits for one of the same thing. A pin is therefore either
//! seen by the sweeper, or made after it has finished; whoever pins first and looks second is safe.

#![deny(unsafe_code)]

mod blobs;
mod cache;
mod calls;
mod copy;
mod due;
mod held;
mod home;
mod images;
mod lease;
mod log;
mod schema;
mod sweep;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dhow_sys::sched::Urgent;
use dhow_types::ErrorKind;
use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use rustix::fs::FlockOperation;

use copy::Copy;
use held::Held;
use home::{Alone, Home};

pub use blobs::BlobRecord;
pub use cache::CacheRecord;
pub use due::{Deed, Due, Owner};
pub use images::ImageRecord;
pub use lease::{Lease, Pins, live_pins, sweep_leases};
pub use sweep::Sweep;

dhow_types::define_error! {
    /// The index cannot be read or written.
    pub struct Error;
}

/// How long a writer waits for one that does not take its turn: an older program.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two tries of what nobody is woken for.
const RETRY: Duration = Duration::from_millis(1);

/// Pages of the log from which on a writer folds it in. Every open reads the whole log again, so it is kept short; each
/// time it starts anew its first writer waits for the disk, so it is not kept shorter.
const LONG_LOG: i32 = 128;

/// The index database of one store.
pub struct Meta {
    path: PathBuf,
    /// Where the log may lie, if that is in memory.
    run: Option<PathBuf>,
    connection: Mutex<Option<Opened>>,
    /// Pages of the log after the last commit of this process.
    log: Arc<AtomicI32>,
    /// Whether the connection syncs a log that it begins.
    syncs: AtomicBool,
}

/// The database, and where its log is. It is closed before the log may get another place.
struct Opened {
    connection: Connection,
    home: Home,
}

impl fmt::Debug for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meta")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Meta {
    /// The database at `path`; it is made, or brought to the newest format, on first use.
    ///
    /// # Errors
    /// `NotFound` when its directory does not exist.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::metadata(directory).context(|| format!("open the directory of {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            run: None,
            connection: Mutex::new(None),
            log: Arc::default(),
            syncs: AtomicBool::new(true),
        })
    }

    /// With the log below `run`, the folder of what ends with a boot, if that is in memory: whoever opens the database first
    /// in a boot decides for all. Before the first use.
    #[must_use]
    pub fn with_run(mut self, run: &Path) -> Self {
        self.run = Some(run.to_owned());
        self
    }

    /// Runs `work` as one write transaction: all of it happens, or nothing. `work` reads and writes through the
    /// [`Edit`]: a method of this `Meta` would wait for the transaction that it is part of, for ever.
    ///
    /// # Errors
    /// What `work` returns; `Unavailable` when an older program kept the database busy for 5 s.
    pub fn edit<T, E: From<Error>>(&self, work: impl FnOnce(&Edit<'_>) -> Result<T, E>) -> Result<T, E> {
        let mut guard = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = self.ensure(&mut guard)?;
        // After the database is open: that reads the log, for which nobody has to wait.
        let turn = Held::take(&self.turn(), FlockOperation::LockExclusive)?;
        let value = self.change(opened, work)?;
        drop(turn);
        self.bring_up(opened);
        if self.log.load(Ordering::Relaxed) >= LONG_LOG {
            self.fold_in(opened);
            self.make_good(opened);
        }
        Ok(value)
    }

    /// As [`Meta::edit`], unless another process is at it: then nothing, at once.
    ///
    /// # Errors
    /// As [`Meta::edit`].
    pub fn try_edit<T, E: From<Error>>(
        &self,
        work: impl FnOnce(&Edit<'_>) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let mut guard = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = self.ensure(&mut guard)?;
        let Some(turn) = Held::try_take(&self.turn())? else {
            return Ok(None);
        };
        let value = self.change(opened, work)?;
        drop(turn);
        self.bring_up(opened);
        Ok(Some(value))
    }

    fn change<T, E: From<Error>>(
        &self,
        Opened { connection, home }: &mut Opened,
        work: impl FnOnce(&Edit<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let safe = home.memory.is_some() || {
            // With the lock: nobody begins the log anew between this and what is written.
            let noted = log::Folded::read(&self.path);
            noted.is_some_and(|noted| log::is_noted(&home.log(&self.path), &noted))
        };
        self.sync_log(connection, !safe)?;
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| self.failure("begin a change of", error))?;
        let edit = Edit {
            transaction,
            meta: self,
        };
        let value = work(&edit)?;
        edit.transaction
            .commit()
            .map_err(|error| self.failure("commit a change of", error))?;
        Ok(value)
    }

    /// Who has the lock of this file may write. The kernel frees it at the end of whoever has it, also a bad one.
    fn turn(&self) -> PathBuf {
        // Never the database itself: closing it again would let go of SQLite's locks (fcntl_locking(2)).
        log::beside(&self.path, "-lock")
    }

    /// Whether the connection is to sync the log where SQLite would.
    fn sync_log(&self, connection: &Connection, sync: bool) -> Result<(), Error> {
        if self.syncs.swap(sync, Ordering::Relaxed) == sync {
            return Ok(());
        }
        let how = if sync { "NORMAL" } else { "OFF" };
        let set = connection.pragma_update(None, "synchronous", how);
        set.map_err(|error| self.failure("prepare", error))
    }

    /// Copies what is new of a log in memory to the disk, unless another process is at it: that one looks again when done.
    fn bring_up(&self, opened: &Opened) {
        let Some(copy) = self.copy_of(&opened.home) else {
            return;
        };
        let committed = || frames(&opened.connection).ok();
        loop {
            // What fails here does not fail the commit; the next command tries again, and what the next boot lacks of names
            // and images it finds in the files.
            let Ok(Some(folding)) = Held::try_take(&self.folding()) else {
                return;
            };
            if copy.bring_up(committed).is_err() {
                return;
            }
            drop(folding);
            if !copy.is_behind(committed) {
                return;
            }
        }
    }

    /// The same if the last who had something new did not come to it.
    fn make_good(&self, opened: &Opened) {
        let copy = self.copy_of(&opened.home);
        if copy.is_some_and(|copy| copy.is_behind(|| frames(&opened.connection).ok())) {
            self.bring_up(opened);
        }
    }

    /// The copy of a log in memory.
    fn copy_of(&self, home: &Home) -> Option<Copy> {
        let folder = home.memory.as_ref()?;
        Some(Copy::new(&self.path, folder))
    }

    /// Makes what was committed so far part of what a sync of the file system writes.
    pub fn before_a_sync(&self) {
        let guard = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = guard.as_ref() {
            self.make_good(opened);
        }
    }

    /// Who has the lock of this file may copy the log, and fold it in.
    fn folding(&self) -> PathBuf {
        log::beside(&self.path, "-fold")
    }

    /// Writes the log back into the database, as far as no reader needs it, unless another process does so.
    fn fold_in(&self, opened: &Opened) {
        self.log.store(0, Ordering::Relaxed);
        // What fails here does not fail the commit, which is in the log; the next writer tries again.
        drop(self.try_fold_in(opened));
    }

    fn try_fold_in(&self, Opened { connection, home }: &Opened) -> Result<(), Error> {
        let Some(_folding) = Held::try_take(&self.folding())? else {
            return Ok(());
        };
        let failed = |error| self.failure("fold in the log of", error);
        let what = || format!("note that the log of {} is folded in", self.path.display());
        let log = home.log(&self.path);
        let copy = self.copy_of(home);
        let before = log::salts(&log);
        // A reader of the log: until it ends, the log is not begun anew, and nothing is folded in that was committed later.
        let reader = Connection::open(&self.path).map_err(failed)?;
        let begun = reader.execute_batch("BEGIN; SELECT value FROM facts LIMIT 1");
        begun.map_err(failed)?;
        if let Some(copy) = &copy {
            copy.sync(|| frames(connection).ok()).context(what)?;
        }
        self.sync_log(connection, true)?;
        let last = changes(connection).map_err(failed)?;
        let frames = checkpoint(connection, "PASSIVE").map_err(failed)?;
        let salts = before.filter(|before| log::salts(&log).as_ref() == Some(before));
        let (Some(frames), Some(salts)) = (frames, salts) else {
            return Ok(());
        };
        match &copy {
            Some(copy) => copy.folded_in(salts, frames),
            None => {
                let boot = lease::boot()?;
                log::Folded { boot, salts, frames }.write(&self.path)
            }
        }
        .context(what)?;
        drop(reader);
        // Later, if others are at it.
        let Some(_turn) = Held::try_take(&self.turn())? else {
            return Ok(());
        };
        // Nor with anything left to fold in, for which all would wait.
        if changes(connection).map_err(failed)? != last {
            return Ok(());
        }
        connection.busy_timeout(Duration::ZERO).map_err(failed)?;
        let unread = checkpoint(connection, "RESTART");
        connection.busy_timeout(PATIENCE).map_err(failed)?;
        if unread.map_err(failed)?.is_some() && log::salts(&log) == Some(salts) {
            log::clear(&log).context(what)?;
        }
        Ok(())
    }

    /// Whether the file is a sound database (`PRAGMA quick_check`); reads all of it.
    ///
    /// # Errors
    /// `DataLoss` with the first thing found wrong.
    pub fn verify(&self) -> Result<(), Error> {
        let verdict = self.read(|connection| {
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
        })?;
        if verdict == "ok" {
            return Ok(());
        }
        let message = format!("{} is damaged: {verdict}", self.path.display());
        Err(Error::new(ErrorKind::DataLoss, message))
    }

    /// Throws the database away; the next use makes an empty one. For a database that [`Meta::verify`] refuses.
    ///
    /// # Errors
    /// When the files cannot be removed; `Unavailable` when another process had the database open for 5 s.
    pub fn reset(&self) -> Result<(), Error> {
        let mut guard = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        *guard = None;
        let alone = Alone::be(&self.path)?;
        for suffix in ["", "-wal", "-shm", "-folded"] {
            let mut name = self.path.clone().into_os_string();
            name.push(suffix);
            match std::fs::remove_file(&name) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).context(|| format!("remove {}", Path::new(&name).display()));
                }
                _ => {}
            }
        }
        let what = || format!("forget the log of {}", self.path.display());
        alone.forget().context(what)
    }

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        let mut guard = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        // On xfs who reads a file keeps out who writes to it: set aside with the log half read, a reader would keep the
        // writer waiting who has the index locked.
        let _urgent = Urgent::begin();
        let opened = self.ensure(&mut guard)?;
        query(&opened.connection).map_err(|error| self.failure("read", error))
    }

    fn ensure<'a>(&self, slot: &'a mut Option<Opened>) -> Result<&'a mut Opened, Error> {
        let opened = match slot.take() {
            Some(opened) => opened,
            None => {
                let home = Home::enter(&self.path, self.run.as_deref())?;
                let connection = self.connect(&home)?;
                let opened = Opened { connection, home };
                // It may have been killed.
                self.make_good(&opened);
                opened
            }
        };
        Ok(slot.insert(opened))
    }

    fn connect(&self, home: &Home) -> Result<Connection, Error> {
        calls::replace();
        let what = || format!("find {}", self.path.display());
        calls::place_log(&self.path, home.memory.as_deref()).context(what)?;
        // It reads the log, as `read` does.
        let _urgent = Urgent::begin();
        let open = || -> rusqlite::Result<Connection> {
            let mut connection = Connection::open(&self.path)?;
            connection.busy_timeout(PATIENCE)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            // In the place of SQLite's own, which would fold the log in before the next writer may go on.
            let log = Arc::clone(&self.log);
            connection.wal_hook(Some(move |_: &mut Wal, pages| {
                log.store(pages, Ordering::Relaxed);
                Ok(())
            }))?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            self.syncs.store(true, Ordering::Relaxed);
            connection.set_prepared_statement_cache_capacity(64);
            Ok(connection)
        };
        let mut connection = open().map_err(|error| self.failure("open", error))?;
        schema::migrate(&mut connection).map_err(|error| match error {
            schema::Refused::Newer(version) => {
                let message = format!(
                    "{} has format {version}, newer than this program",
                    self.path.display()
                );
                Error::new(ErrorKind::FailedPrecondition, message)
                    .with_hint("use the newer dhow that made it")
            }
            schema::Refused::Database(error) => self.failure("prepare", error),
        })?;
        Ok(connection)
    }

    fn failure(&self, doing: &str, error: rusqlite::Error) -> Error {
        use rusqlite::ErrorCode;
        let kind = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorKind::Unavailable,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::DataLoss,
            Some(ErrorCode::DiskFull | ErrorCode::TooBig | ErrorCode::OutOfMemory) => {
                ErrorKind::ResourceExhausted
            }
            Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => ErrorKind::PermissionDenied,
            None => ErrorKind::DataLoss,
            Some(_) => ErrorKind::Internal,
        };
        let made = Error::because(kind, format!("{doing} the index {}", self.path.display()), error);
        if kind == ErrorKind::DataLoss {
            made.with_hint("run dhow system check --repair: the index is made again from the files")
        } else {
            made
        }
    }
}

/// Folds the log in; how many frames it has if that is all of it.
fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<Option<u32>> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    connection.query_row(&sql, [], |row| {
        let (busy, frames, done): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let whole = busy == 0 && frames == done;
        Ok(u32::try_from(frames).ok().filter(|_| whole))
    })
}

/// How many frames of the log are committed, which is no checkpoint.
fn frames(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| {
        let frames: i64 = row.get(1)?;
        Ok(u32::try_from(frames).unwrap_or(0))
    })
}

/// A number that another connection's commit changes.
fn changes(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA data_version", [], |row| row.get(0))
}

/// One write transaction; see [`Meta::edit`].
pub struct Edit<'a> {
    transaction: Transaction<'a>,
    meta: &'a Meta,
}

impl fmt::Debug for Edit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edit")
            .field("path", &self.meta.path)
            .finish_non_exhaustive()
    }
}

impl Edit<'_> {
    fn run(&self, sql: &str, values: impl rusqlite::Params) -> Result<usize, Error> {
        let mut statement = self
            .transaction
            .prepare_cached(sql)
            .map_err(|error| self.meta.failure("change", error))?;
        statement
            .execute(values)
            .map_err(|error| self.meta.failure("change", error))
    }

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        query(&self.transaction).map_err(|error| self.meta.failure("read", error))
    }
}

/// SQLite's integers are signed; sizes beyond 2^63 do not exist on disks.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
