//! Changes of names that the index has and the files of the names may not have yet.
//!
//! Whoever changes a name writes down here what its file is to say, in the same transaction, and changes the file when the
//! index is free again: that may wait for a disk. It takes the line away when the file is so. When it dies before that, the
//! next one does it (see the crate `dhow-image`).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dhow_types::{Digest, ImageId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use rustix::process::{Pid, getpid};

use crate::images::optional_digest;
use crate::lease::{boot, own_name, owner_lives};
use crate::{Edit, Error, Meta};

/// What the file of a name is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The canonical name.
    pub name: String,
    /// Its image; none when the file is to go.
    pub image: Option<ImageId>,
    /// The index that the tag stands for.
    pub by: Option<Digest>,
    /// The image that the name is to fall back to after a power cut, where that is not for the file to say.
    pub was: Option<ImageId>,
    /// The deed that it is part of: see [`Deed::name`].
    pub owner: String,
}

/// Who is to change a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Is at it.
    Lives,
    /// Ended before it came to that, or to saying so.
    Died,
    /// Was there before this boot: the disk may have what came later, and the index not.
    BeforeBoot,
}

impl Due {
    /// Who is to change the file.
    ///
    /// # Errors
    /// When the boot id cannot be read.
    pub fn owner(&self) -> Result<Owner, Error> {
        let boot = boot()?;
        let mut parts = self.owner.split('-');
        let (pid, of_boot) = (parts.next(), parts.nth(1));
        if of_boot != Some(&boot) {
            return Ok(Owner::BeforeBoot);
        }
        let own = pid.and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw) == Some(getpid());
        let lives = owner_lives(&self.owner, &boot) && (!own || deeds().contains(&self.owner));
        Ok(if lives { Owner::Lives } else { Owner::Died })
    }
}

/// One change of names by this process, from the transaction to the files; over when it is dropped.
#[derive(Debug)]
pub struct Deed {
    name: String,
}

/// The deeds of this process that go on.
static DEEDS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn deeds() -> MutexGuard<'static, BTreeSet<String>> {
    DEEDS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Deed {
    /// Begins one.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn begin() -> Result<Self, Error> {
        /// What each deed's name begins with, and of which process it is: a forked child has a copy.
        static OWN: Mutex<Option<(Pid, String)>> = Mutex::new(None);
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
        let known = own.take().filter(|(pid, _)| *pid == getpid());
        let (pid, begin) = match known {
            Some(known) => known,
            None => (getpid(), own_name()?),
        };
        let name = format!("{begin}-{}", SERIAL.fetch_add(1, Ordering::Relaxed));
        *own = Some((pid, begin));
        deeds().insert(name.clone());
        Ok(Self { name })
    }

    /// `<pid>-<start time>-<boot>-<random>-<serial>`: no other deed has it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Deed {
    fn drop(&mut self) {
        deeds().remove(&self.name);
    }
}

impl Edit<'_> {
    /// Writes down what the file of a name is to say, in place of what it was to say before.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn put_due(&self, due: &Due) -> Result<(), Error> {
        let values = params![
            due.name,
            due.image.as_ref().map(|id| *id.0.as_bytes()),
            due.by.as_ref().map(|by| *by.as_bytes()),
            due.was.as_ref().map(|id| *id.0.as_bytes()),
            due.owner
        ];
        self.run("INSERT OR REPLACE INTO due VALUES (?1, ?2, ?3, ?4, ?5)", values)?;
        Ok(())
    }

    /// Takes away what this deed wrote down of a name, unless a later one has written since.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn done(&self, name: &str, owner: &str) -> Result<(), Error> {
        self.run("DELETE FROM due WHERE name = ?1 AND owner = ?2", [name, owner])?;
        Ok(())
    }

    /// What the file of this name is to say, where it may say something else.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn due_of(&self, name: &str) -> Result<Option<Due>, Error> {
        self.read(|connection| find_one(connection, name))
    }

    /// The same of all names.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn due(&self) -> Result<Vec<Due>, Error> {
        self.read(find_all)
    }
}

impl Meta {
    /// As [`Edit::due_of`].
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn due_of(&self, name: &str) -> Result<Option<Due>, Error> {
        self.read(|connection| find_one(connection, name))
    }

    /// As [`Edit::due`].
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn due(&self) -> Result<Vec<Due>, Error> {
        self.read(find_all)
    }
}

const COLUMNS: &str = "SELECT name, image, index_digest, was, owner FROM due";

fn find_one(connection: &Connection, name: &str) -> rusqlite::Result<Option<Due>> {
    let sql = format!("{COLUMNS} WHERE name = ?1");
    connection
        .prepare_cached(&sql)?
        .query_row([name], line)
        .optional()
}

fn find_all(connection: &Connection) -> rusqlite::Result<Vec<Due>> {
    connection.prepare_cached(COLUMNS)?.query_map([], line)?.collect()
}

fn line(row: &Row<'_>) -> rusqlite::Result<Due> {
    Ok(Due {
        name: row.get(0)?,
        image: optional_digest(row, 1)?.map(ImageId),
        by: optional_digest(row, 2)?,
        was: optional_digest(row, 3)?.map(ImageId),
        owner: row.get(4)?,
    })
}
