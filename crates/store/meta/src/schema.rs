//! The tables, and how an older database becomes the newest.

use std::time::Instant;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use crate::{PATIENCE, RETRY};

/// Why a database cannot be used.
pub(crate) enum Refused {
    /// Made by a newer program, with this format.
    Newer(i64),
    /// SQLite says no.
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// Step `n` brings format `n` to `n + 1`. Digests are 32 raw bytes, times are seconds since 1970.
const STEPS: &[&str] = &[
    "
CREATE TABLE images (
    id BLOB NOT NULL PRIMARY KEY, manifest BLOB, media_type TEXT NOT NULL, created INTEGER NOT NULL,
    layers BLOB NOT NULL, size INTEGER NOT NULL, platform TEXT NOT NULL, parent BLOB
) WITHOUT ROWID;
CREATE TABLE tags (name TEXT NOT NULL PRIMARY KEY, image BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX tags_by_image ON tags (image);
CREATE TABLE digests (
    repo TEXT NOT NULL, manifest BLOB NOT NULL, image BLOB NOT NULL, PRIMARY KEY (repo, manifest)
) WITHOUT ROWID;
CREATE INDEX digests_by_image ON digests (image);
CREATE TABLE blobs (
    diff BLOB NOT NULL, digest BLOB NOT NULL, size INTEGER NOT NULL, media_type TEXT NOT NULL,
    PRIMARY KEY (diff, digest)
) WITHOUT ROWID;
CREATE INDEX blobs_by_digest ON blobs (digest);
CREATE TABLE homes (digest BLOB NOT NULL, repo TEXT NOT NULL, PRIMARY KEY (digest, repo)) WITHOUT ROWID;
CREATE TABLE cache (
    key BLOB NOT NULL PRIMARY KEY, value BLOB NOT NULL, layers BLOB NOT NULL, bytes INTEGER NOT NULL,
    seconds REAL NOT NULL, created INTEGER NOT NULL, used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE facts (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
",
    "
CREATE TABLE names (
    at INTEGER PRIMARY KEY AUTOINCREMENT, image BLOB NOT NULL, name TEXT NOT NULL, UNIQUE (image, name)
);
INSERT INTO names (image, name) SELECT image, name FROM tags ORDER BY name;
CREATE TRIGGER name_was_given AFTER INSERT ON tags BEGIN
    DELETE FROM names WHERE image = NEW.image AND name = NEW.name;
    INSERT INTO names (image, name) VALUES (NEW.image, NEW.name);
    DELETE FROM names WHERE image = NEW.image AND at <= (
        SELECT at FROM names WHERE image = NEW.image ORDER BY at DESC LIMIT 1 OFFSET 100
    );
END;
CREATE TRIGGER name_was_moved AFTER UPDATE ON tags BEGIN
    DELETE FROM names WHERE image = NEW.image AND name = NEW.name;
    INSERT INTO names (image, name) VALUES (NEW.image, NEW.name);
    DELETE FROM names WHERE image = NEW.image AND at <= (
        SELECT at FROM names WHERE image = NEW.image ORDER BY at DESC LIMIT 1 OFFSET 100
    );
END;
CREATE TRIGGER image_is_gone AFTER DELETE ON images BEGIN
    DELETE FROM names WHERE image = OLD.id;
END;
",
    "
CREATE TABLE due (
    name TEXT NOT NULL PRIMARY KEY, image BLOB, index_digest BLOB, was BLOB, owner TEXT NOT NULL
) WITHOUT ROWID;
",
    // Nothing new in it, but the log may be in memory: a program that does not know it would see the copy.
    "",
];

/// Makes the tables, or changes older ones; one read when there is nothing to do.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), Refused> {
    let newest = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let found = version(connection)?;
    if found == newest {
        return Ok(());
    }
    if found > newest {
        return Err(Refused::Newer(found));
    }
    // The mode is written into the file once; asking for it again in every command would cost a lock.
    journal(connection)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster between the read above and the lock.
    let start = usize::try_from(version(&transaction)?).unwrap_or(0);
    for step in STEPS.iter().skip(start) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", newest)?;
    transaction.commit()?;
    Ok(())
}

/// Changes the file to a write-ahead log. SQLite does not wait here for a reader, whatever its patience: one that looks
/// at the format at this moment makes it fail (`SQLITE_BUSY`), so it is tried again.
fn journal(connection: &Connection) -> rusqlite::Result<()> {
    let begun = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && begun.elapsed() < PATIENCE =>
            {
                std::thread::sleep(RETRY);
            }
            outcome => return outcome,
        }
    }
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}
