//! Which compressed blobs are known to hold which layer, and where they were seen.

use dhow_types::{DiffId, Digest};
use rusqlite::{OptionalExtension as _, params};

use crate::images::digest;
use crate::{Edit, Error, Meta, signed, unsigned};

/// A blob that holds a layer, as a registry keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRecord {
    /// The layer.
    pub diff: DiffId,
    /// Digest of the blob.
    pub digest: Digest,
    /// Its length.
    pub size: u64,
    /// Its media type in the manifest that named it.
    pub media_type: String,
}

impl Edit<'_> {
    /// Records a blob, and that `repo` (`host/repository`) has it.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn record_blob(&self, blob: &BlobRecord, repo: Option<&str>) -> Result<(), Error> {
        let (diff, digest) = (blob.diff.0.as_bytes(), blob.digest.as_bytes());
        let sql = "INSERT INTO blobs VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE \
                   SET size = ?3, media_type = ?4 WHERE size <> ?3 OR media_type <> ?4";
        self.run(sql, params![diff, digest, signed(blob.size), blob.media_type])?;
        if let Some(repo) = repo {
            self.run(
                "INSERT OR IGNORE INTO homes VALUES (?1, ?2)",
                params![digest, repo],
            )?;
        }
        Ok(())
    }

    /// Forgets the blobs of a layer.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn forget_blobs(&self, diff: &DiffId) -> Result<(), Error> {
        let raw = diff.0.as_bytes();
        let sql = "DELETE FROM homes WHERE digest IN (SELECT digest FROM blobs WHERE diff = ?1)";
        self.run(sql, [raw])?;
        self.run("DELETE FROM blobs WHERE diff = ?1", [raw])?;
        Ok(())
    }
}

impl Meta {
    /// Records a blob, and that `repo` (`host/repository`) has it.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn record_blob(&self, blob: &BlobRecord, repo: Option<&str>) -> Result<(), Error> {
        self.edit(|edit| edit.record_blob(blob, repo))
    }

    /// The blobs that are known to hold this layer.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn blobs_of(&self, diff: &DiffId) -> Result<Vec<BlobRecord>, Error> {
        self.read(|connection| {
            let sql = "SELECT digest, size, media_type FROM blobs WHERE diff = ?1 ORDER BY digest";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([diff.0.as_bytes()], |row| {
                Ok(BlobRecord {
                    diff: *diff,
                    digest: digest(row, 0)?,
                    size: unsigned(row.get(1)?),
                    media_type: row.get(2)?,
                })
            })?;
            rows.collect()
        })
    }

    /// The layer that a blob holds.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn by_blob(&self, blob: &Digest) -> Result<Option<DiffId>, Error> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT diff FROM blobs WHERE digest = ?1")?;
            statement
                .query_row([blob.as_bytes()], |row| Ok(DiffId(digest(row, 0)?)))
                .optional()
        })
    }

    /// The repositories (`host/repository`) in which a blob was seen.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn homes_of(&self, blob: &Digest) -> Result<Vec<String>, Error> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT repo FROM homes WHERE digest = ?1 ORDER BY repo")?;
            let rows = statement.query_map([blob.as_bytes()], |row| row.get(0))?;
            rows.collect()
        })
    }
}
