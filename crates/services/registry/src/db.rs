//! The registry's index: SQLite in WAL mode, one writer thread, a few read connections.
//!
//! Writes that wait at the same time share one transaction, and so one flush: under load the disk's latency is paid
//! once for many pushes. The writer also moves blob files, so that no delete can come between a file and its row:
//! rename, flush the directory, commit, then answer. A crash between the first and the last leaves a file without a
//! row, which the next push of the same blob takes over.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use dhow_types::ErrorKind;
use rusqlite::{Connection, OptionalExtension as _};
use tokio::sync::oneshot;

use crate::digest::Digest;
use crate::fault::Fault;
use crate::files::{Files, flush};
use crate::{Context as _, Error};

/// Writes that share one transaction at most.
const MAX_BATCH: usize = 128;
/// Read connections that are kept.
const MAX_READERS: usize = 8;
/// Version of the tables; kept in `user_version`.
const FORMAT: i64 = 1;

/// Digests are text, function and all: the same bytes under two functions are two things.
const SCHEMA: &str = "
CREATE TABLE repository (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE blob (digest TEXT PRIMARY KEY, size INTEGER NOT NULL, created INTEGER NOT NULL) WITHOUT ROWID;
-- The proof that a repository may serve a blob.
CREATE TABLE link (
    repository INTEGER NOT NULL, digest TEXT NOT NULL, created INTEGER NOT NULL,
    PRIMARY KEY (repository, digest)) WITHOUT ROWID;
CREATE INDEX link_by_digest ON link (digest);
CREATE TABLE manifest (
    id INTEGER PRIMARY KEY,
    repository INTEGER NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL, bytes BLOB NOT NULL,
    subject TEXT, artifact_type TEXT, referrer TEXT, pushed INTEGER NOT NULL,
    UNIQUE (repository, digest));
CREATE INDEX manifest_by_subject ON manifest (repository, subject, digest) WHERE subject IS NOT NULL;
-- What a manifest needs: kind 0 a blob, 1 a manifest.
CREATE TABLE edge (
    repository INTEGER NOT NULL, parent TEXT NOT NULL, child TEXT NOT NULL, kind INTEGER NOT NULL,
    PRIMARY KEY (repository, parent, child)) WITHOUT ROWID;
CREATE INDEX edge_by_child ON edge (repository, child);
CREATE TABLE tag (
    repository INTEGER NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, updated INTEGER NOT NULL,
    PRIMARY KEY (repository, name)) WITHOUT ROWID;
CREATE INDEX tag_by_digest ON tag (repository, digest);
";

/// A blob file that is to take its place before the rows that name it are written.
#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) upload: PathBuf,
    pub(crate) digest: Digest,
}

/// Blobs that lost their last row; their files go to the trash after the commit.
pub(crate) type Doomed = Vec<Digest>;

type Work = Box<dyn FnOnce(&Connection, &mut Doomed) -> Completion + Send>;
type Completion = Box<dyn FnOnce(Result<(), &Error>) + Send>;

struct Job {
    publish: Option<Publish>,
    work: Work,
    fail: Box<dyn FnOnce(Error) + Send>,
}

/// The index.
pub(crate) struct Db {
    path: PathBuf,
    readers: Arc<Mutex<Vec<Connection>>>,
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Db {
    /// Opens the index and starts its writer. `durable`: an answer is given after the disk has the change.
    pub(crate) fn open(files: &Arc<Files>, durable: bool) -> Result<Self, Error> {
        let path = files.database();
        let connection = connect(&path)?;
        migrate(&connection)?;
        let synchronous = if durable { "FULL" } else { "NORMAL" };
        sql(
            connection.pragma_update(None, "synchronous", synchronous),
            "set up the index",
        )?;
        let (jobs, queue) = mpsc::channel();
        let writer = Writer {
            connection,
            files: Arc::clone(files),
            durable,
        };
        let writer = std::thread::Builder::new()
            .name("registry-writer".to_owned())
            .spawn(move || writer.run(&queue))
            .context(|| "start the writer of the index")?;
        Ok(Self {
            path,
            readers: Arc::default(),
            jobs: Some(jobs),
            writer: Some(writer),
        })
    }

    /// Reads, on a thread that may wait for the disk.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (path, readers) = (self.path.clone(), Arc::clone(&self.readers));
        let outcome = tokio::task::spawn_blocking(move || {
            let idle = readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match idle {
                Some(connection) => connection,
                None => connect(&path)?,
            };
            let outcome = sql(work(&connection), "read the index");
            let mut readers = readers.lock().unwrap_or_else(PoisonError::into_inner);
            if readers.len() < MAX_READERS {
                readers.push(connection);
            }
            outcome
        });
        outcome
            .await
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "a read of the index broke")))
    }

    /// Writes in the next transaction. A fault undoes what `work` did, and only that. `after` runs once the change is
    /// there, before anybody is told.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        publish: Option<Publish>,
        work: impl FnOnce(&Connection, &mut Doomed) -> Result<T, Fault> + Send + 'static,
        after: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, Fault> {
        let (sender, outcome) = oneshot::channel();
        let sender = Arc::new(Mutex::new(Some(sender)));
        let reply = move |sender: &Mutex<Option<oneshot::Sender<_>>>, outcome: Result<T, Fault>| {
            let sender = sender.lock().unwrap_or_else(PoisonError::into_inner).take();
            // When this fails the client has gone; the change stands.
            sender
                .map(|sender| sender.send(outcome).map_err(drop).unwrap_or_default())
                .unwrap_or_default();
        };
        let failed = Arc::clone(&sender);
        let job = Job {
            publish,
            work: Box::new(move |connection, doomed| {
                let before = doomed.len();
                let outcome = in_savepoint(connection, |connection| work(connection, doomed));
                if outcome.is_err() {
                    doomed.truncate(before);
                }
                Box::new(move |committed| match (committed, outcome) {
                    (Ok(()), Ok(value)) => {
                        after(&value);
                        reply(&sender, Ok(value));
                    }
                    (Err(error), _) => reply(&sender, Err(again(error).into())),
                    (Ok(()), Err(fault)) => reply(&sender, Err(fault)),
                })
            }),
            fail: Box::new(move |error| reply(&failed, Err(error.into()))),
        };
        let gone = || Error::new(ErrorKind::Internal, "the writer of the index has ended");
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(job).map_err(|_| gone())?;
        outcome.await.unwrap_or_else(|_| Err(gone().into()))
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // A panic of the writer was an answer "the writer has ended" to whoever asked.
        self.writer
            .take()
            .map(|writer| writer.join().unwrap_or_default())
            .unwrap_or_default();
    }
}

struct Writer {
    connection: Connection,
    files: Arc<Files>,
    durable: bool,
}

impl Writer {
    fn run(&self, queue: &mpsc::Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let mut batch = vec![first];
            batch.extend(queue.try_iter().take(MAX_BATCH - 1));
            self.write(batch);
        }
    }

    fn write(&self, batch: Vec<Job>) {
        let ready = self.publish(batch);
        if ready.is_empty() {
            return;
        }
        let mut doomed = Doomed::new();
        let mut completions = Vec::with_capacity(ready.len());
        let begun = sql(
            self.connection.execute_batch("BEGIN IMMEDIATE"),
            "begin a change of the index",
        );
        if let Err(error) = begun {
            ready.into_iter().for_each(|job| (job.fail)(again(&error)));
            return;
        }
        for job in ready {
            completions.push((job.work)(&self.connection, &mut doomed));
        }
        let committed = sql(
            self.connection.execute_batch("COMMIT"),
            "commit a change of the index",
        );
        if committed.is_err() && !self.connection.is_autocommit() {
            // What cannot be committed or undone shows again at the next BEGIN.
            self.connection.execute_batch("ROLLBACK").unwrap_or_default();
        } else if committed.is_ok() {
            self.discard(&doomed);
        }
        for completion in completions {
            completion(committed.as_ref().copied());
        }
        if committed.is_ok() && !doomed.is_empty() {
            // What stays is removed with the next, or at the next start.
            self.files.empty_trash().unwrap_or_default();
        }
    }

    /// Moves blob files to their places; jobs whose file cannot be moved end here.
    fn publish(&self, batch: Vec<Job>) -> Vec<Job> {
        let mut ready = Vec::with_capacity(batch.len());
        let mut directories = BTreeSet::new();
        for mut job in batch {
            match job
                .publish
                .take()
                .map(|publish| self.files.publish(&publish.upload, &publish.digest))
            {
                Some(Err(error)) => {
                    (job.fail)(error);
                    continue;
                }
                Some(Ok(directory)) if self.durable => {
                    directories.insert(directory);
                }
                _ => {}
            }
            ready.push(job);
        }
        match directories.iter().try_for_each(|directory| flush(directory)) {
            Ok(()) => ready,
            Err(error) => {
                ready.into_iter().for_each(|job| (job.fail)(again(&error)));
                Vec::new()
            }
        }
    }

    /// Moves the files of blobs without a row to the trash. A later job of the same transaction may have brought a row
    /// back.
    fn discard(&self, doomed: &[Digest]) {
        for digest in doomed {
            let row = self
                .connection
                .prepare_cached("SELECT 1 FROM blob WHERE digest = ?1");
            let row = row.and_then(|mut row| row.query_row([digest.as_str()], |_| Ok(())).optional());
            if matches!(row, Ok(None)) {
                // A file that stays costs space, no more.
                self.files.trash(digest).unwrap_or_default();
            }
        }
    }
}

fn in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let run = |statement| sql(connection.execute_batch(statement), "change the index");
    run("SAVEPOINT job")?;
    let outcome = work(connection);
    run(if outcome.is_ok() {
        "RELEASE job"
    } else {
        "ROLLBACK TO job; RELEASE job"
    })?;
    outcome
}

/// The same failure for another who waits.
fn again(error: &Error) -> Error {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    Error::new(error.kind(), text)
}

fn connect(path: &Path) -> Result<Connection, Error> {
    let doing = || format!("open {}", path.display());
    let connection = sql(Connection::open(path), doing())?;
    let set_up = || -> rusqlite::Result<()> {
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // Pages by mapping: reads of manifests cost one copy less.
        connection.pragma_update(None, "mmap_size", 256 << 20)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(())
    };
    sql(set_up(), doing())?;
    Ok(connection)
}

fn migrate(connection: &Connection) -> Result<(), Error> {
    let doing = "read the format of the index";
    let found: i64 = sql(
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)),
        doing,
    )?;
    match found {
        FORMAT => Ok(()),
        0 => {
            let script = format!("BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT");
            sql(connection.execute_batch(&script), "make the index")
        }
        newer => {
            let message = format!("the index has format {newer}, this program knows up to {FORMAT}");
            Err(Error::new(ErrorKind::FailedPrecondition, message).with_hint("use a newer program"))
        }
    }
}

/// SQLite's error as ours.
pub(crate) fn sql<T>(outcome: rusqlite::Result<T>, doing: impl Into<String>) -> Result<T, Error> {
    outcome.map_err(|error| {
        let kind = match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => ErrorKind::ResourceExhausted,
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                ErrorKind::DataLoss
            }
            Some(rusqlite::ErrorCode::DatabaseBusy) => ErrorKind::Unavailable,
            _ => ErrorKind::Internal,
        };
        Error::because(kind, doing, error)
    })
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        match sql::<()>(Err(error), "change the index") {
            Ok(()) => Self::manifest_unknown(),
            Err(error) => error.into(),
        }
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// The id of a repository, if there is one of this name.
pub(crate) fn repository(connection: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT id FROM repository WHERE name = ?1")?;
    statement.query_row([name], |row| row.get(0)).optional()
}

/// The id of a repository, which is made if there is none.
pub(crate) fn ensure_repository(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    if let Some(id) = repository(connection, name)? {
        return Ok(id);
    }
    connection
        .prepare_cached("INSERT INTO repository (name) VALUES (?1)")?
        .execute([name])?;
    Ok(connection.last_insert_rowid())
}

/// Whether a repository has a blob.
pub(crate) fn has_link(connection: &Connection, repository: i64, digest: &Digest) -> rusqlite::Result<bool> {
    let mut statement =
        connection.prepare_cached("SELECT 1 FROM link WHERE repository = ?1 AND digest = ?2")?;
    statement.exists((repository, digest.as_str()))
}

/// Gives a repository a blob.
pub(crate) fn link(connection: &Connection, repository: i64, digest: &Digest) -> rusqlite::Result<()> {
    let text = "INSERT INTO link (repository, digest, created) VALUES (?1, ?2, ?3)
        ON CONFLICT DO UPDATE SET created = excluded.created";
    connection
        .prepare_cached(text)?
        .execute((repository, digest.as_str(), now()))
        .map(drop)
}

/// Takes a blob from a repository, and its row when it was the last that had it.
pub(crate) fn unlink(
    connection: &Connection,
    repository: i64,
    digest: &Digest,
    doomed: &mut Doomed,
) -> rusqlite::Result<bool> {
    let text = "DELETE FROM link WHERE repository = ?1 AND digest = ?2";
    if connection
        .prepare_cached(text)?
        .execute((repository, digest.as_str()))?
        == 0
    {
        return Ok(false);
    }
    let text = "DELETE FROM blob WHERE digest = ?1 AND NOT EXISTS (SELECT 1 FROM link WHERE digest = ?1)";
    if connection.prepare_cached(text)?.execute([digest.as_str()])? > 0 {
        doomed.push(digest.clone());
    }
    Ok(true)
}
