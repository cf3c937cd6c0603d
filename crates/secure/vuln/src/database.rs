//! Compiled advisory data: one SQLite file, written once and then only read.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dhow_types::ErrorKind;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use crate::advisory::{Advisory, Affected};
use crate::feed::Feed;
use crate::matching::{Finding, Query, concerns, key_of};
use crate::{Context as _, Error, Exploit};

/// Form of the file. Another one is refused by name.
const FORM: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE fact (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE advisory (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, body TEXT NOT NULL);
CREATE TABLE alias (name TEXT NOT NULL, advisory INTEGER NOT NULL, PRIMARY KEY (name, advisory)) WITHOUT ROWID;
CREATE TABLE affected (
    ecosystem TEXT NOT NULL, package TEXT NOT NULL, advisory INTEGER NOT NULL, part INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (ecosystem, package, advisory, part)
) WITHOUT ROWID;
CREATE INDEX affected_by_advisory ON affected (advisory);
";

/// Came later: a file without it knows nothing of attacks.
const EXPLOITS: &str = "CREATE TABLE IF NOT EXISTS exploit (
    cve TEXT PRIMARY KEY, epss INTEGER, percentile INTEGER, known TEXT, ransomware INTEGER NOT NULL
) WITHOUT ROWID";

/// Compiled advisory data.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    connection: Connection,
    has_exploits: bool,
}

/// What a database is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// When it was last written, RFC 3339.
    pub built: String,
    /// Advisories in it.
    pub advisories: u64,
    /// Packages of releases that they concern, by ecosystem with its release.
    pub ecosystems: Vec<(String, u64)>,
    /// What was read into it, the last one last.
    pub sources: Vec<String>,
}

/// What one document brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// What it was.
    pub feed: Feed,
    /// Advisories that were read, new ones and others in a newer form; of lists about attacks their entries.
    pub advisories: usize,
    /// Why others were not.
    pub refused: Vec<String>,
}

/// What concerns some packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The findings.
    pub found: Vec<Finding>,
    /// Of which nothing is known, since the package's version cannot be ordered: the number of the query, the advisory.
    pub unordered: Vec<(usize, String)>,
}

impl Database {
    /// Opens a database for reading.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` for a file of another form, `DataLoss` for none at all.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let what = || format!("open the advisory data {}", path.display());
        fs::metadata(path).context(what)?;
        let flags =
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open_with_flags(unchanging(path), flags)
            .map_err(|error| Error::because(ErrorKind::Internal, what(), error))?;
        let mut database = Self {
            path: path.to_owned(),
            connection,
            has_exploits: false,
        };
        // Otherwise a statement is compiled again whenever it is asked for another package, since its plan may depend on the name.
        database.ask(|connection| {
            let stable = rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG;
            connection.set_db_config(stable, true).map(drop)
        })?;
        let form: i64 =
            database.ask(|connection| connection.query_row("PRAGMA user_version", [], |row| row.get(0)))?;
        if form != FORM {
            let message = format!(
                "{} has form {form}, and this program reads {FORM}",
                path.display()
            );
            return Err(Error::new(ErrorKind::Unsupported, message)
                .with_hint("import the advisory data again, or use the program that made it"));
        }
        let table = "SELECT 1 FROM sqlite_master WHERE name = 'exploit'";
        database.has_exploits = database
            .ask(|connection| connection.query_row(table, [], |_| Ok(())).optional())?
            .is_some();
        Ok(database)
    }

    /// Whether it is whole, and made by this program: for one that came from elsewhere.
    ///
    /// # Errors
    /// `DataLoss` when it is not.
    pub fn check(&self) -> Result<(), Error> {
        let (strange, whole): (i64, String) = self.ask(|connection| {
            // What a view or a trigger of somebody else would do is not asked.
            let strange = "SELECT count(*) FROM sqlite_master WHERE type NOT IN ('table', 'index')";
            let strange = connection.query_row(strange, [], |row| row.get(0))?;
            let whole = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            Ok((strange, whole))
        })?;
        if strange == 0 && whole == "ok" {
            let said = self.facts()?;
            let counted = self.ask(counted)?;
            if (said.advisories, said.ecosystems) == counted {
                return Ok(());
            }
        }
        let message = format!("the advisory data {} is damaged", self.path.display());
        Err(Error::new(ErrorKind::DataLoss, message))
    }

    fn ask<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        query(&self.connection).map_err(|error| failure(&self.path, "read", error))
    }

    /// What it is.
    ///
    /// # Errors
    /// `DataLoss` for a damaged file.
    pub fn facts(&self) -> Result<Facts, Error> {
        self.ask(|connection| {
            let fact = |key: &str| -> rusqlite::Result<String> {
                let mut statement = connection.prepare_cached("SELECT value FROM fact WHERE key = ?1")?;
                let found = statement.query_row([key], |row| row.get(0)).optional()?;
                Ok(found.unwrap_or_default())
            };
            // Older data does not say it, and has to be counted.
            let (advisories, ecosystems) = match serde_json::from_str(&fact("counts")?) {
                Ok(counts) => counts,
                Err(_) => counted(connection)?,
            };
            Ok(Facts {
                built: fact("built")?,
                advisories,
                ecosystems,
                sources: fact("sources")?.lines().map(str::to_owned).collect(),
            })
        })
    }

    /// What concerns these packages, in the order of the queries, then of the names. Of two advisories on the same
    /// vulnerability one is left: those that only gather others (`DSA-...`) go.
    ///
    /// # Errors
    /// `DataLoss` for a damaged file. A version that cannot be ordered is no error: see [`Findings::unordered`].
    pub fn findings(&self, queries: &[Query]) -> Result<Findings, Error> {
        let mut answer = Findings::default();
        for (number, query) in queries.iter().enumerate() {
            let mut of_one = Vec::new();
            for (id, advisory, affected) in self.rows(query)? {
                match concerns(&affected, &query.version) {
                    Ok(None) => {}
                    Ok(Some(fixed)) => of_one.push(Finding::of(number, &advisory, &affected, fixed)),
                    Err(_) => answer.unordered.push((number, id)),
                }
            }
            answer.found.extend(once(of_one));
        }
        for finding in &mut answer.found {
            finding.exploit = self.exploit(finding)?;
        }
        Ok(answer)
    }

    /// What is known of attacks on it.
    fn exploit(&self, finding: &Finding) -> Result<Exploit, Error> {
        if !self.has_exploits {
            return Ok(Exploit::default());
        }
        let found = self.ask(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT epss, percentile, known, ransomware FROM exploit WHERE cve = ?1")?;
            statement
                .query_row([finding.advisory.known_as()], |row| {
                    Ok(Exploit {
                        epss: row.get(0)?,
                        percentile: row.get(1)?,
                        known: row.get(2)?,
                        ransomware: row.get(3)?,
                    })
                })
                .optional()
        })?;
        Ok(found.unwrap_or_default())
    }

    fn rows(&self, query: &Query) -> Result<Vec<(String, Advisory, Affected)>, Error> {
        let (ecosystem, package) = key_of(&query.ecosystem, &query.name);
        let rows: Vec<(String, String, String)> = self.ask(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT advisory.id, advisory.body, affected.body FROM affected JOIN advisory \
                 ON advisory.number = affected.advisory WHERE ecosystem = ?1 AND package = ?2 ORDER BY advisory.id, part",
            )?;
            statement
                .query_map([&ecosystem, &package], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        })?;
        rows.into_iter()
            .map(|(id, advisory, affected)| {
                let advisory: Advisory = self.parse(&advisory)?;
                let mut affected: Affected = self.parse(&affected)?;
                affected.ecosystem.clone_from(&query.ecosystem);
                affected.package.clone_from(&query.name);
                Ok((id, advisory, affected))
            })
            .collect()
    }

    fn parse<'t, T: Deserialize<'t>>(&self, text: &'t str) -> Result<T, Error> {
        serde_json::from_str(text).map_err(|error| {
            let message = format!("the advisory data {} is damaged", self.path.display());
            Error::because(ErrorKind::DataLoss, message, error)
        })
    }

    /// The advisories of this name, or on the vulnerability of this name, with all that they concern.
    ///
    /// # Errors
    /// `DataLoss` for a damaged file.
    pub fn affected(&self, name: &str) -> Result<Vec<Advisory>, Error> {
        let rows: Vec<(i64, String)> = self.ask(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT number, body FROM advisory WHERE id = ?1 OR number IN \
                 (SELECT advisory FROM alias WHERE name = ?1) ORDER BY id",
            )?;
            statement
                .query_map([name], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        let mut advisories = Vec::with_capacity(rows.len());
        for (number, body) in rows {
            let mut advisory: Advisory = self.parse(&body)?;
            let parts: Vec<(String, String, String)> = self.ask(|connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT ecosystem, package, body FROM affected WHERE advisory = ?1 ORDER BY ecosystem, package, part",
                )?;
                statement
                    .query_map([number], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                    .collect()
            })?;
            for (ecosystem, package, body) in parts {
                let mut affected: Affected = self.parse(&body)?;
                affected.ecosystem = ecosystem;
                affected.package = package;
                advisory.affected.push(affected);
            }
            advisories.push(advisory);
        }
        Ok(advisories)
    }
}

/// Leaves out advisories that say nothing that others do not say: all of whose CVEs others are about.
fn once(findings: Vec<Finding>) -> Vec<Finding> {
    let told: HashSet<String> = findings
        .iter()
        .filter(|finding| finding.advisory.id.contains("CVE-"))
        .map(|finding| finding.advisory.known_as().to_owned())
        .collect();
    let mut seen = HashSet::new();
    findings
        .into_iter()
        .filter(|finding| {
            let advisory = &finding.advisory;
            let mut cves = advisory
                .aliases
                .iter()
                .filter(|name| name.starts_with("CVE-"))
                .peekable();
            let gathers =
                !advisory.id.contains("CVE-") && cves.peek().is_some() && cves.all(|cve| told.contains(cve));
            !gathers && seen.insert(advisory.known_as().to_owned())
        })
        .collect()
}

/// Advisories, and packages that they concern by ecosystem.
type Counts = (u64, Vec<(String, u64)>);

fn counted(connection: &Connection) -> rusqlite::Result<Counts> {
    let mut statement =
        connection.prepare("SELECT ecosystem, count(DISTINCT package) FROM affected GROUP BY ecosystem")?;
    let ecosystems = statement
        .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?
        .collect::<rusqlite::Result<_>>()?;
    let count: i64 = connection.query_row("SELECT count(*) FROM advisory", [], |row| row.get(0))?;
    Ok((count.unsigned_abs(), ecosystems))
}

/// The name of a database that nobody changes where it is (sqlite.org/uri.html): one is put in its place by a rename, so nothing has to be
/// locked, nor looked at again before each query.
fn unchanging(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    if path.is_absolute() {
        // An authority, of which there is none.
        uri.push_str("//");
    }
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    uri
}

fn failure(path: &Path, doing: &str, error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode;
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) | None => ErrorKind::DataLoss,
        Some(ErrorCode::DiskFull | ErrorCode::OutOfMemory | ErrorCode::TooBig) => {
            ErrorKind::ResourceExhausted
        }
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => ErrorKind::PermissionDenied,
        Some(_) => ErrorKind::Internal,
    };
    let made = Error::because(
        kind,
        format!("{doing} the advisory data {}", path.display()),
        error,
    );
    if kind == ErrorKind::DataLoss {
        made.with_hint("import the advisory data again")
    } else {
        made
    }
}

/// Strings, numbers and lists: there is nothing that cannot be written.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A database in the making: it takes the place of the old one when it is done.
#[derive(Debug)]
pub struct Importer {
    path: PathBuf,
    staged: PathBuf,
    connection: Option<Connection>,
    /// Of two imports at once the second begins with what the first has written.
    _lock: File,
}

impl Importer {
    /// Begins with what the database at `path` has, if there is one, and `update` says so.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn begin(path: &Path, update: bool) -> Result<Self, Error> {
        let staged = path.with_extension("new");
        let what = || format!("make {}", staged.display());
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.with_extension("lock"))
            .and_then(|lock| lock.lock().map(|()| lock))
            .context(what)?;
        // Left by one that was killed: whoever has the lock is the only one to make it.
        match fs::remove_file(&staged) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).context(what),
            _ => {}
        }
        let old = update && path.exists();
        if old {
            // Refused here, not after an hour of work.
            drop(Database::open(path)?);
            fs::copy(path, &staged).context(what)?;
        }
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open(&staged)?;
            // Nobody else sees it, and it is thrown away when this process does not come to the end.
            connection.pragma_update(None, "journal_mode", "OFF")?;
            connection.pragma_update(None, "synchronous", "OFF")?;
            if !old {
                connection.execute_batch(SCHEMA)?;
                connection.pragma_update(None, "user_version", FORM)?;
            }
            connection.execute_batch("BEGIN")?;
            Ok(connection)
        };
        let connection = open().map_err(|error| failure(&staged, "make", error));
        if connection.is_err() {
            drop(fs::remove_file(&staged));
        }
        Ok(Self {
            path: path.to_owned(),
            connection: Some(connection?),
            staged,
            _lock: lock,
        })
    }

    fn change<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        let Some(connection) = &self.connection else {
            return Err(Error::new(ErrorKind::Internal, "the database is closed"));
        };
        work(connection).map_err(|error| failure(&self.staged, "write", error))
    }

    /// Reads a document into it; `name` says where it came from.
    ///
    /// # Errors
    /// `InvalidArgument` when it is of no known kind.
    pub fn document(&self, name: &str, bytes: &[u8]) -> Result<Imported, Error> {
        let (feed, count, refused) = match crate::exploit::read(bytes).context(|| format!("read {name}"))? {
            Some((feed, list, refused)) => {
                self.put_exploits(feed, &list)?;
                (feed, list.len(), refused)
            }
            None => {
                let (feed, advisories, refused) =
                    crate::feed::read(bytes).context(|| format!("read {name}"))?;
                for advisory in &advisories {
                    self.put(advisory)?;
                }
                (feed, advisories.len(), refused)
            }
        };
        self.change(|connection| {
            let sources: Option<String> = connection
                .query_row("SELECT value FROM fact WHERE key = 'sources'", [], |row| {
                    row.get(0)
                })
                .optional()?;
            let mut lines: Vec<&str> = sources.as_deref().unwrap_or_default().lines().collect();
            let line = format!("{name}: {feed:?}, {count} advisories");
            // Of one place the last time counts, and a list does not grow for ever.
            let place = format!("{name}: ");
            lines.retain(|line| !line.starts_with(&place));
            lines.push(&line);
            let from = lines.len().saturating_sub(100);
            connection.execute(
                "INSERT OR REPLACE INTO fact VALUES ('sources', ?1)",
                [lines[from..].join("\n")],
            )
        })?;
        Ok(Imported {
            feed,
            advisories: count,
            refused,
        })
    }

    /// Puts a list in the place of the one before it: each is the whole of its kind.
    fn put_exploits(&self, feed: Feed, list: &[(String, Exploit)]) -> Result<(), Error> {
        self.change(|connection| {
            connection.execute_batch(EXPLOITS)?;
            let (forget, put) = if feed == Feed::Epss {
                (
                    "UPDATE exploit SET epss = NULL, percentile = NULL",
                    "INSERT INTO exploit VALUES (?1, ?2, ?3, NULL, 0) \
                     ON CONFLICT (cve) DO UPDATE SET epss = ?2, percentile = ?3",
                )
            } else {
                (
                    "UPDATE exploit SET known = NULL, ransomware = 0",
                    "INSERT INTO exploit VALUES (?1, NULL, NULL, ?2, ?3) \
                     ON CONFLICT (cve) DO UPDATE SET known = ?2, ransomware = ?3",
                )
            };
            connection.execute(forget, [])?;
            let mut statement = connection.prepare(put)?;
            for (cve, exploit) in list {
                if feed == Feed::Epss {
                    statement.execute(params![cve, exploit.epss, exploit.percentile])?;
                } else {
                    statement.execute(params![cve, exploit.known, exploit.ransomware])?;
                }
            }
            connection.execute("DELETE FROM exploit WHERE epss IS NULL AND known IS NULL", [])?;
            Ok(())
        })
    }

    /// Puts an advisory in the place of the one of its name.
    fn put(&self, advisory: &Advisory) -> Result<(), Error> {
        let body = json(&Advisory {
            affected: Vec::new(),
            ..advisory.clone()
        });
        self.change(|connection| {
            let mut old = connection.prepare_cached("SELECT number FROM advisory WHERE id = ?1")?;
            let known: Option<i64> = old.query_row([&advisory.id], |row| row.get(0)).optional()?;
            if let Some(number) = known {
                for sql in [
                    "DELETE FROM advisory WHERE number = ?1",
                    "DELETE FROM alias WHERE advisory = ?1",
                    "DELETE FROM affected WHERE advisory = ?1",
                ] {
                    connection.prepare_cached(sql)?.execute([number])?;
                }
            }
            connection
                .prepare_cached("INSERT INTO advisory (id, body) VALUES (?1, ?2)")?
                .execute([&advisory.id, &body])?;
            let number = connection.last_insert_rowid();
            for alias in &advisory.aliases {
                connection
                    .prepare_cached("INSERT OR IGNORE INTO alias VALUES (?1, ?2)")?
                    .execute(params![alias, number])?;
            }
            let mut insert = connection.prepare_cached("INSERT INTO affected VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for (part, affected) in (0_i64..).zip(&advisory.affected) {
                let (ecosystem, package) = key_of(&affected.ecosystem, &affected.package);
                let body = json(&Affected {
                    ecosystem: String::new(),
                    package: String::new(),
                    ..affected.clone()
                });
                insert.execute(params![ecosystem, package, number, part, body])?;
            }
            Ok(())
        })
    }

    /// Puts it in its place, whole and on the disk; `now` is the time, RFC 3339.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self, now: &str) -> Result<(), Error> {
        self.change(|connection| {
            connection.execute("INSERT OR REPLACE INTO fact VALUES ('built', ?1)", [now])?;
            let counts = json(&counted(connection)?);
            connection.execute("INSERT OR REPLACE INTO fact VALUES ('counts', ?1)", [counts])?;
            connection.execute_batch("COMMIT; VACUUM")
        })?;
        self.connection = None;
        let what = || format!("write {}", self.path.display());
        File::open(&self.staged)
            .and_then(|file| file.sync_all())
            .context(what)?;
        fs::rename(&self.staged, &self.path).context(what)
    }
}

impl Drop for Importer {
    fn drop(&mut self) {
        self.connection = None;
        // Renamed when it was finished.
        drop(fs::remove_file(&self.staged));
    }
}
