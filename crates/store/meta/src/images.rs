//! Images, their tags and their repo digests.

use dhow_types::{DiffId, Digest, ImageId};
use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::{Edit, Error, Meta, signed, unsigned};

/// What the index knows of an image. All of it but `parent` can be derived from blobs and layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    /// Digest of the config.
    pub id: ImageId,
    /// The manifest that it was pulled, loaded or pushed with.
    pub manifest: Option<Digest>,
    /// Media type of that manifest; empty without one.
    pub media_type: String,
    /// When the image was made, seconds since 1970.
    pub created: i64,
    /// Lowest first.
    pub layers: Vec<DiffId>,
    /// Sum of the sizes of the files of all layers.
    pub size: u64,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// The image that it was committed on, if that was a local one.
    pub parent: Option<ImageId>,
}

const COLUMNS: &str = "id, manifest, media_type, created, layers, size, platform, parent";

/// What is as it is to be is not written again: an edit that changes nothing waits for no disk.
impl Edit<'_> {
    /// Records an image, or replaces its record.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn put_image(&self, record: &ImageRecord) -> Result<(), Error> {
        if self.image(&record.id)?.as_ref() == Some(record) {
            return Ok(());
        }
        let sql = "INSERT OR REPLACE INTO images VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        self.run(
            sql,
            params![
                record.id.0.as_bytes(),
                record.manifest.as_ref().map(Digest::as_bytes),
                record.media_type,
                record.created,
                pack(&record.layers),
                signed(record.size),
                record.platform,
                record.parent.as_ref().map(|parent| parent.0.as_bytes()),
            ],
        )?;
        Ok(())
    }

    /// The record of an image, as this transaction sees it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>, Error> {
        self.read(|connection| find_image(connection, id))
    }

    /// Whether an image was committed on this one.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn has_children(&self, id: &ImageId) -> Result<bool, Error> {
        let sql = "SELECT EXISTS (SELECT 1 FROM images WHERE parent = ?1)";
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            statement.query_row([id.0.as_bytes()], |row| row.get(0))
        })
    }

    /// Forgets an image with its tags and repo digests; `false` when it was not known.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn remove_image(&self, id: &ImageId) -> Result<bool, Error> {
        let raw = id.0.as_bytes();
        self.run("DELETE FROM tags WHERE image = ?1", [raw])?;
        self.run("DELETE FROM digests WHERE image = ?1", [raw])?;
        Ok(self.run("DELETE FROM images WHERE id = ?1", [raw])? > 0)
    }

    /// Points a tag, canonical `host/repository:tag`, to an image.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn tag(&self, name: &str, id: &ImageId) -> Result<(), Error> {
        self.run(
            "INSERT INTO tags VALUES (?1, ?2) ON CONFLICT DO UPDATE SET image = ?2 WHERE image <> ?2",
            params![name, id.0.as_bytes()],
        )?;
        Ok(())
    }

    /// Forgets a tag; `false` when it was not known.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn untag(&self, name: &str) -> Result<bool, Error> {
        Ok(self.run("DELETE FROM tags WHERE name = ?1", [name])? > 0)
    }

    /// Records under which manifest digest a repository has this image.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn add_digest(&self, repo: &str, manifest: &Digest, id: &ImageId) -> Result<(), Error> {
        let sql =
            "INSERT INTO digests VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET image = ?3 WHERE image <> ?3";
        self.run(sql, params![repo, manifest.as_bytes(), id.0.as_bytes()])?;
        Ok(())
    }

    /// Forgets a repo digest; `false` when it was not known.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn remove_digest(&self, repo: &str, manifest: &Digest) -> Result<bool, Error> {
        let sql = "DELETE FROM digests WHERE repo = ?1 AND manifest = ?2";
        Ok(self.run(sql, params![repo, manifest.as_bytes()])? > 0)
    }

    /// Forgets every tag and repo digest: the first step of reading them again from the files.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn clear_names(&self) -> Result<(), Error> {
        self.run("DELETE FROM tags", [])?;
        self.run("DELETE FROM digests", [])?;
        Ok(())
    }

    /// The tags of one image, as this transaction sees it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn tags_of(&self, id: &ImageId) -> Result<Vec<String>, Error> {
        self.read(|connection| find_tags(connection, id))
    }

    /// The image of a tag, as this transaction sees it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn tagged(&self, name: &str) -> Result<Option<ImageId>, Error> {
        self.read(|connection| find_tagged(connection, name))
    }

    /// The image of a repo digest, as this transaction sees it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn by_digest(&self, repo: &str, manifest: &Digest) -> Result<Option<ImageId>, Error> {
        self.read(|connection| {
            let sql = "SELECT image FROM digests WHERE repo = ?1 AND manifest = ?2";
            let mut statement = connection.prepare_cached(sql)?;
            statement
                .query_row(params![repo, manifest.as_bytes()], |row| {
                    Ok(ImageId(digest(row, 0)?))
                })
                .optional()
        })
    }

    /// The repo digests of one image, as this transaction sees it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn digests_of(&self, id: &ImageId) -> Result<Vec<(String, Digest)>, Error> {
        self.read(|connection| find_digests(connection, id))
    }

    /// A number remembered with [`Edit::set_fact`], as this transaction sees it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn fact(&self, name: &str) -> Result<Option<i64>, Error> {
        self.read(|connection| find_fact(connection, name))
    }

    /// Remembers a number by name, such as the state of the files that the index was made from.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn set_fact(&self, name: &str, value: i64) -> Result<(), Error> {
        self.run(
            "INSERT INTO facts VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2 WHERE value <> ?2",
            params![name, value],
        )?;
        Ok(())
    }
}

impl Meta {
    /// Records an image, or replaces its record.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn put_image(&self, record: &ImageRecord) -> Result<(), Error> {
        self.edit(|edit| edit.put_image(record))
    }

    /// The record of an image.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>, Error> {
        self.read(|connection| find_image(connection, id))
    }

    /// All images, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn images(&self) -> Result<Vec<ImageRecord>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM images ORDER BY created DESC, id");
        self.read(|connection| connection.prepare_cached(&sql)?.query_map([], record)?.collect())
    }

    /// Forgets an image with its tags and repo digests; `false` when it was not known.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn remove_image(&self, id: &ImageId) -> Result<bool, Error> {
        self.edit(|edit| edit.remove_image(id))
    }

    /// Images whose id starts with these hexadecimal characters; none for a text that is no hexadecimal.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn by_prefix(&self, hex: &str) -> Result<Vec<ImageId>, Error> {
        let Some((low, high)) = prefix_range(hex) else {
            return Ok(Vec::new());
        };
        let sql = "SELECT id FROM images WHERE id BETWEEN ?1 AND ?2 ORDER BY id";
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([low.as_bytes(), high.as_bytes()], |row| {
                Ok(ImageId(digest(row, 0)?))
            })?;
            rows.collect()
        })
    }

    /// Points a tag, canonical `host/repository:tag`, to an image.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn tag(&self, name: &str, id: &ImageId) -> Result<(), Error> {
        self.edit(|edit| edit.tag(name, id))
    }

    /// Forgets a tag; `false` when it was not known.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn untag(&self, name: &str) -> Result<bool, Error> {
        self.edit(|edit| edit.untag(name))
    }

    /// The image that a canonical tag points to.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn tagged(&self, name: &str) -> Result<Option<ImageId>, Error> {
        self.read(|connection| find_tagged(connection, name))
    }

    /// All tags with their images, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn tags(&self) -> Result<Vec<(String, ImageId)>, Error> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT name, image FROM tags ORDER BY name")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, ImageId(digest(row, 1)?))))?;
            rows.collect()
        })
    }

    /// The tags of one image, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn tags_of(&self, id: &ImageId) -> Result<Vec<String>, Error> {
        self.read(|connection| find_tags(connection, id))
    }

    /// The tags that images had or have, the newest first; of each image the last hundred.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn past_tags(&self) -> Result<Vec<(String, ImageId)>, Error> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT name, image FROM names ORDER BY at DESC")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, ImageId(digest(row, 1)?))))?;
            rows.collect()
        })
    }

    /// Records under which manifest digest a repository has this image.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn add_digest(&self, repo: &str, manifest: &Digest, id: &ImageId) -> Result<(), Error> {
        self.edit(|edit| edit.add_digest(repo, manifest, id))
    }

    /// All repo digests: repository, manifest, image.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn digests(&self) -> Result<Vec<(String, Digest, ImageId)>, Error> {
        self.read(|connection| {
            let sql = "SELECT repo, manifest, image FROM digests ORDER BY repo, manifest";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| {
                Ok((row.get(0)?, digest(row, 1)?, ImageId(digest(row, 2)?)))
            })?;
            rows.collect()
        })
    }

    /// The repo digests of one image.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn digests_of(&self, id: &ImageId) -> Result<Vec<(String, Digest)>, Error> {
        self.read(|connection| find_digests(connection, id))
    }

    /// The image that a repository has under this manifest digest.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn by_digest(&self, repo: &str, manifest: &Digest) -> Result<Option<ImageId>, Error> {
        let sql = "SELECT image FROM digests WHERE repo = ?1 AND manifest = ?2";
        self.one(sql, params![repo, manifest.as_bytes()])
    }

    /// A number remembered with [`Edit::set_fact`].
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn fact(&self, name: &str) -> Result<Option<i64>, Error> {
        self.read(|connection| find_fact(connection, name))
    }

    fn one(&self, sql: &str, values: impl rusqlite::Params) -> Result<Option<ImageId>, Error> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            statement
                .query_row(values, |row| Ok(ImageId(digest(row, 0)?)))
                .optional()
        })
    }
}

fn find_image(connection: &Connection, id: &ImageId) -> rusqlite::Result<Option<ImageRecord>> {
    let sql = format!("SELECT {COLUMNS} FROM images WHERE id = ?1");
    connection
        .prepare_cached(&sql)?
        .query_row([id.0.as_bytes()], record)
        .optional()
}

fn find_tagged(connection: &Connection, name: &str) -> rusqlite::Result<Option<ImageId>> {
    let mut statement = connection.prepare_cached("SELECT image FROM tags WHERE name = ?1")?;
    statement
        .query_row([name], |row| Ok(ImageId(digest(row, 0)?)))
        .optional()
}

fn find_tags(connection: &Connection, id: &ImageId) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare_cached("SELECT name FROM tags WHERE image = ?1 ORDER BY name")?;
    let rows = statement.query_map([id.0.as_bytes()], |row| row.get(0))?;
    rows.collect()
}

fn find_digests(connection: &Connection, id: &ImageId) -> rusqlite::Result<Vec<(String, Digest)>> {
    let sql = "SELECT repo, manifest FROM digests WHERE image = ?1 ORDER BY repo, manifest";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([id.0.as_bytes()], |row| Ok((row.get(0)?, digest(row, 1)?)))?;
    rows.collect()
}

fn find_fact(connection: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT value FROM facts WHERE name = ?1")?;
    statement.query_row([name], |row| row.get(0)).optional()
}

fn record(row: &Row<'_>) -> rusqlite::Result<ImageRecord> {
    Ok(ImageRecord {
        id: ImageId(digest(row, 0)?),
        manifest: optional_digest(row, 1)?,
        media_type: row.get(2)?,
        created: row.get(3)?,
        layers: layers(row, 4)?,
        size: unsigned(row.get(5)?),
        platform: row.get(6)?,
        parent: optional_digest(row, 7)?.map(ImageId),
    })
}

/// The digest in column `index`.
pub(crate) fn digest(row: &Row<'_>, index: usize) -> rusqlite::Result<Digest> {
    Ok(Digest::from_bytes(row.get::<_, [u8; 32]>(index)?))
}

pub(crate) fn optional_digest(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<Digest>> {
    Ok(row.get::<_, Option<[u8; 32]>>(index)?.map(Digest::from_bytes))
}

/// Layers are stored as their 32-byte digests one after the other.
pub(crate) fn pack(layers: &[DiffId]) -> Vec<u8> {
    layers.iter().flat_map(|layer| *layer.0.as_bytes()).collect()
}

/// The layers in column `index`.
pub(crate) fn layers(row: &Row<'_>, index: usize) -> rusqlite::Result<Vec<DiffId>> {
    let packed = row.get_ref(index)?.as_blob()?;
    let (digests, rest) = packed.as_chunks::<32>();
    if !rest.is_empty() {
        let wrong = FromSqlError::InvalidBlobSize {
            expected_size: digests.len() * 32,
            blob_size: packed.len(),
        };
        return Err(rusqlite::Error::FromSqlConversionFailure(
            index,
            Type::Blob,
            Box::new(wrong),
        ));
    }
    Ok(digests
        .iter()
        .map(|raw| DiffId(Digest::from_bytes(*raw)))
        .collect())
}

/// The lowest and highest digest that start with these characters.
fn prefix_range(hex: &str) -> Option<(Digest, Digest)> {
    if hex.is_empty() || hex.len() > 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let low = Digest::from_hex(&format!("{hex:0<64}")).ok()?;
    let high = Digest::from_hex(&format!("{hex:f<64}")).ok()?;
    Some((low, high))
}
