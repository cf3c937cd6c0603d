use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dhow_types::{Observer, Progress, Silent};
use hyper::header::HeaderValue;
use std::collections::HashSet;
use tokio::sync::Semaphore;

use crate::Error;
use crate::cache::Cache;
use crate::db::{self, Db};
use crate::digest::Digest;
use crate::files::Files;
use crate::reply::Buffers;
use crate::route::Name;
use crate::sessions::Sessions;

/// Weight of the manifests that are kept in memory, in bytes, twice.
const MANIFEST_CACHE: usize = 32 << 20;
/// Number of links that are kept in memory, twice.
const LINK_CACHE: usize = 50_000;
/// How long a blob that a client was told of is safe from being freed with a manifest: the push that asked may still
/// be under way.
const GRACE: Duration = Duration::from_secs(3600);
/// Blobs that are remembered for that long.
const MAX_RECENT: usize = 100_000;

/// How a registry behaves.
#[derive(Clone)]
pub struct Options {
    /// Largest blob, in bytes.
    pub max_blob: Option<u64>,
    /// Largest manifest, in bytes. The specification asks for 4 MiB at least.
    pub max_manifest: usize,
    /// Uploads whose bytes come in at the same time.
    pub max_transfers: usize,
    /// Unfinished uploads in all.
    pub max_uploads: usize,
    /// Connections at the same time.
    pub max_connections: usize,
    /// Answer only after the disk has what is acknowledged. Without it a power cut may lose the last pushes, though
    /// nothing is damaged.
    pub durable: bool,
    /// How long a client may take for the next bytes of a request.
    pub patience: Duration,
    /// Is told of failures of the registry itself.
    pub observer: Arc<dyn Observer>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("max_blob", &self.max_blob)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_blob: None,
            max_manifest: 4 << 20,
            max_transfers: 128,
            max_uploads: 10_000,
            max_connections: 4096,
            durable: true,
            patience: Duration::from_secs(60),
            observer: Arc::new(Silent),
        }
    }
}

/// A registry over a directory. One process at a time.
#[derive(Debug)]
pub struct Registry(pub(crate) Arc<State>);

/// What all requests share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) options: Options,
    pub(crate) files: Arc<Files>,
    pub(crate) db: Db,
    /// By `<repository>@<digest>` or `<repository>:<tag>`.
    pub(crate) manifests: Cache<Arc<Stored>>,
    /// Sizes of the blobs that a repository has, by `<repository>@<digest>`.
    pub(crate) links: Cache<u64>,
    pub(crate) sessions: Sessions,
    pub(crate) transfers: Semaphore,
    pub(crate) buffers: Arc<Buffers>,
    recent: Mutex<Recent>,
}

/// A manifest as it is served.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) bytes: Bytes,
    pub(crate) media_type: HeaderValue,
    pub(crate) digest: HeaderValue,
    pub(crate) etag: HeaderValue,
}

impl Registry {
    /// Opens the registry at `root` with default options, making it if there is none.
    ///
    /// # Errors
    /// `FailedPrecondition` when another process serves it, or a newer program made it.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Self::open_with(root, Options::default())
    }

    /// Opens the registry at `root`, making it if there is none.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(root: &Path, options: Options) -> Result<Self, Error> {
        let files = Arc::new(Files::open(root)?);
        let db = Db::open(&files, options.durable)?;
        Ok(Self(Arc::new(State {
            sessions: Sessions::default(),
            transfers: Semaphore::new(options.max_transfers.min(Semaphore::MAX_PERMITS)),
            manifests: Cache::new(MANIFEST_CACHE),
            links: Cache::new(LINK_CACHE),
            buffers: Arc::default(),
            recent: Mutex::new(Recent::new()),
            files,
            db,
            options,
        })))
    }
}

impl State {
    /// Tells the operator of a failure that the client hears only "the registry failed" of.
    pub(crate) fn report(&self, doing: &str, error: &Error) {
        let mut text = format!("{doing}: {error}");
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            text.push_str(&format!(": {inner}"));
            cause = inner.source();
        }
        self.options.observer.observe(Progress::Warning(&text));
    }

    /// The size of a blob, if the repository has it.
    pub(crate) async fn blob_size(&self, name: &Name, digest: &Digest) -> Result<Option<u64>, Error> {
        let key = key(name, digest);
        let epoch = match self.links.get(&key, |_| 1) {
            Ok(size) => return Ok(Some(size)),
            Err(epoch) => epoch,
        };
        let (name, digest) = (name.clone(), digest.clone());
        let found = self.db.read(move |connection| {
            let Some(repository) = db::repository(connection, name.as_str())? else {
                return Ok(None);
            };
            blob_row(connection, repository, &digest)
        });
        let found = found.await?;
        if let Some(size) = found {
            self.links.put(&key, size, 1, epoch);
        }
        Ok(found)
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that a client was told that the repository has this blob.
    pub(crate) fn told_of(&self, name: &Name, digest: &Digest) {
        self.recent().note(key(name, digest));
    }

    /// Whether a client was told of this blob lately.
    pub(crate) fn is_recent(&self, name: &Name, digest: &Digest) -> bool {
        let key = key(name, digest);
        let recent = self.recent();
        recent.young.contains(&key) || recent.old.contains(&key)
    }
}

/// The size of a blob that a repository has, from the tables.
pub(crate) fn blob_row(
    connection: &rusqlite::Connection,
    repository: i64,
    digest: &Digest,
) -> rusqlite::Result<Option<u64>> {
    use rusqlite::OptionalExtension as _;
    let text = "SELECT blob.size FROM link JOIN blob USING (digest) WHERE repository = ?1 AND digest = ?2";
    let mut statement = connection.prepare_cached(text)?;
    let size: Option<i64> = statement
        .query_row((repository, digest.as_str()), |row| row.get(0))
        .optional()?;
    Ok(size.and_then(|size| u64::try_from(size).ok()))
}

/// How a repository's manifest or blob is called in caches. No name has an `@`.
pub(crate) fn key(name: &Name, digest: &Digest) -> String {
    format!("{}@{}", name.as_str(), digest.as_str())
}

/// Two sets, the older dropped every [`GRACE`].
#[derive(Debug)]
struct Recent {
    young: HashSet<String>,
    old: HashSet<String>,
    turned: Instant,
}

impl Recent {
    fn new() -> Self {
        Self {
            young: HashSet::new(),
            old: HashSet::new(),
            turned: Instant::now(),
        }
    }

    fn note(&mut self, key: String) {
        if self.turned.elapsed() >= GRACE || self.young.len() >= MAX_RECENT {
            self.old = std::mem::take(&mut self.young);
            self.turned = Instant::now();
        }
        self.young.insert(key);
    }
}
