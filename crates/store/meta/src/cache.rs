//! The build cache: results by key.

use std::time::{SystemTime, UNIX_EPOCH};

use dhow_types::{DiffId, Digest};
use rusqlite::{OptionalExtension as _, Row, params};

use crate::images::{digest, layers, pack};
use crate::{Edit, Error, Meta, signed, unsigned};

/// A use is written down only when the last one is older than this: a fully cached build writes nothing.
const TOUCH_SECONDS: i64 = 3600;

/// The result of one step of a build.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheRecord {
    /// What the step was made of.
    pub key: Digest,
    /// The result, in the words of the build.
    pub value: Vec<u8>,
    /// Layers that the result needs: the sweeper keeps them as long as the record lives.
    pub layers: Vec<DiffId>,
    /// Bytes on disk that go with the record.
    pub bytes: u64,
    /// What it cost to make: what is cheap goes first.
    pub seconds: f64,
    /// When it was made, seconds since 1970.
    pub created: i64,
    /// When it was last used, seconds since 1970, to the hour.
    pub used: i64,
}

const COLUMNS: &str = "key, value, layers, bytes, seconds, created, used";

impl Edit<'_> {
    /// Records a result, or replaces it.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn put_cache(&self, record: &CacheRecord) -> Result<(), Error> {
        self.run(
            "INSERT OR REPLACE INTO cache VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                record.key.as_bytes(),
                record.value,
                pack(&record.layers),
                signed(record.bytes),
                record.seconds,
                record.created,
                record.used,
            ],
        )?;
        Ok(())
    }

    /// Forgets a result; `false` when it was not known.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn remove_cache(&self, key: &Digest) -> Result<bool, Error> {
        Ok(self.run("DELETE FROM cache WHERE key = ?1", [key.as_bytes()])? > 0)
    }
}

impl Meta {
    /// The result for a key. Notes the use, but not more than once an hour.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn cache(&self, key: &Digest) -> Result<Option<CacheRecord>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM cache WHERE key = ?1");
        let found = self.read(|connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            statement.query_row([key.as_bytes()], record).optional()
        })?;
        let now = now();
        if let Some(record) = &found
            && now - record.used > TOUCH_SECONDS
        {
            self.edit(|edit| {
                edit.run(
                    "UPDATE cache SET used = ?2 WHERE key = ?1",
                    params![key.as_bytes(), now],
                )
            })?;
        }
        Ok(found)
    }

    /// Records a result, or replaces it.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn put_cache(&self, record: &CacheRecord) -> Result<(), Error> {
        self.edit(|edit| edit.put_cache(record))
    }

    /// Forgets a result; `false` when it was not known.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn remove_cache(&self, key: &Digest) -> Result<bool, Error> {
        self.edit(|edit| edit.remove_cache(key))
    }

    /// All results, the longest unused first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn caches(&self) -> Result<Vec<CacheRecord>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM cache ORDER BY used, key");
        self.read(|connection| connection.prepare_cached(&sql)?.query_map([], record)?.collect())
    }

    /// Bytes of all records, those of layers to which several keys lead counted for each: the cache has at most so many.
    /// Costs one sum, where [`Meta::caches`] reads every record.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn most_cache_bytes(&self) -> Result<u64, Error> {
        // A sum of integers that overflows is an error; one of floats is not.
        let sql = "SELECT CAST(TOTAL(bytes) AS INTEGER) FROM cache";
        self.read(|connection| connection.prepare_cached(sql)?.query_row([], |row| row.get(0)))
            .map(unsigned)
    }
}

fn record(row: &Row<'_>) -> rusqlite::Result<CacheRecord> {
    Ok(CacheRecord {
        key: digest(row, 0)?,
        value: row.get(1)?,
        layers: layers(row, 2)?,
        bytes: unsigned(row.get(3)?),
        seconds: row.get(4)?,
        created: row.get(5)?,
        used: row.get(6)?,
    })
}

fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}
