//! Until when images are to be used: who says so, and who uses them nevertheless.
//!
//! ```text
//! ROOT/lifecycle/<image id>    what is said of an image; made by rename
//!               /<image id>.issued   when the last signed statement was made that was seen of it, seconds since 1970
//!               /ends          until when releases get fixes, as imported
//! ```

mod referrer;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use dhow_image::Image;
use dhow_inventory::Os;
use dhow_lifecycle::{Date, MAX_STATEMENT, Release, Standing, Statement, Table};
use dhow_lineage::Graph;
use dhow_types::{ErrorKind, ImageId};

use crate::container::make_folder;
use crate::event::Event;
use crate::{Context as _, Engine, Error};

/// Largest table of ends that is read.
const MOST_TABLE: u64 = 64 << 20;

/// An image that is used though it, or what it stands on, is not to be used.
#[derive(Clone, Debug)]
pub struct Retired {
    /// The image that the statement is about, by its number in the graph.
    pub about: usize,
    /// The statement.
    pub statement: Statement,
}

/// What `lifecycle gc` takes away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The image.
    pub image: ImageId,
    /// Its names.
    pub names: Vec<String>,
    /// Since when it has been at its end.
    pub since: Date,
}

impl Engine {
    fn lifecycle_folder(&self) -> PathBuf {
        self.settings().root.join("lifecycle")
    }

    fn ends_path(&self) -> PathBuf {
        self.lifecycle_folder().join("ends")
    }

    /// What is said of an image; nothing for one that cannot be read, which is worth no more than none.
    #[must_use]
    pub fn statement_about(&self, image: &ImageId) -> Option<Statement> {
        use std::io::Read as _;
        let file = std::fs::File::open(self.lifecycle_folder().join(image.hex())).ok()?;
        let mut bytes = Vec::new();
        file.take(MAX_STATEMENT as u64).read_to_end(&mut bytes).ok()?;
        Statement::decode(&bytes).ok()
    }

    /// Says of an image that it is not to be used any more. Who administers this machine needs no signature.
    ///
    /// # Errors
    /// `NotFound`; failures of the disk.
    pub fn retire(&self, name: &str, statement: &Statement) -> Result<ImageId, Error> {
        let image = self.image(name)?;
        self.write_statement(&image.id, statement)?;
        self.tell(&Event::of_image("retire", image.id, name));
        Ok(image.id)
    }

    /// Takes back what was said of an image; whether something was.
    ///
    /// # Errors
    /// `NotFound`; failures of the disk.
    pub fn use_again(&self, name: &str) -> Result<bool, Error> {
        let image = self.image(name)?;
        let path = self.lifecycle_folder().join(image.id.hex());
        match std::fs::remove_file(&path) {
            Ok(()) => {
                self.tell(&Event::of_image("unretire", image.id, name));
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::wrap(error, format!("remove {}", path.display()))),
        }
    }

    pub(crate) fn write_statement(&self, image: &ImageId, statement: &Statement) -> Result<(), Error> {
        self.write_in_lifecycle(&image.hex(), &statement.encode())
    }

    /// When the last signed statement about an image was made that was seen here.
    fn issued(&self, image: &ImageId) -> i64 {
        let path = self.lifecycle_folder().join(issued_name(image));
        let text = read_within(&path, 20).map(|bytes| String::from_utf8_lossy(&bytes).trim().parse());
        text.ok().and_then(Result::ok).unwrap_or_default()
    }

    fn forget_statement(&self, image: &ImageId) {
        drop(std::fs::remove_file(self.lifecycle_folder().join(image.hex())));
    }

    fn write_in_lifecycle(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let folder = self.lifecycle_folder();
        make_folder(&folder)?;
        let path = folder.join(name);
        let staged = folder.join(format!(".{name}.new-{}", std::process::id()));
        let written = std::fs::write(&staged, bytes).and_then(|()| std::fs::rename(&staged, &path));
        if written.is_err() {
            drop(std::fs::remove_file(&staged));
        }
        written.context(|| format!("write {}", path.display()))
    }

    /// Every statement about an image that is here.
    ///
    /// # Errors
    /// When the folder cannot be listed; what a patch that was killed left to say cannot be said.
    pub fn statements(&self) -> Result<Vec<(ImageId, Statement)>, Error> {
        self.end_interrupted_patches()?;
        let folder = self.lifecycle_folder();
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.context(|| format!("list {}", folder.display()))?,
        };
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let id = name
                .to_str()
                .and_then(|name| format!("sha256:{name}").parse().ok());
            let statement = id.and_then(|id| Some((id, self.statement_about(&id)?)));
            found.extend(statement);
        }
        found.sort_by_key(|(id, _): &(ImageId, _)| id.0);
        Ok(found)
    }

    /// Whether an image may be used: what a person is to know of it.
    ///
    /// # Errors
    /// `FailedPrecondition` for one that was revoked by somebody who may say so.
    pub(crate) fn may_be_used(&self, image: &Image, name: &str) -> Result<Option<String>, Error> {
        // That it cannot be said is told by who asks for it: an image is used nevertheless.
        drop(self.end_interrupted_patches());
        let Some(statement) = self.statement_about(&image.id) else {
            return Ok(None);
        };
        let today = today();
        let told = format!("image {name}: {}", statement.told(today));
        if statement.signed && statement.on(today) == Standing::Revoked {
            let hint = "dhow retire --undo takes that back, for who knows better";
            return Err(Error::new(ErrorKind::FailedPrecondition, told).with_hint(hint));
        }
        Ok(Some(told))
    }

    /// What is said of an image and of those it stands on, the nearest first.
    #[must_use]
    pub fn retired(&self, graph: &Graph, node: usize) -> Vec<Retired> {
        let line = graph.line(node).into_iter();
        line.filter_map(|about| {
            let statement = self.statement_about(&graph.nodes()[about].id)?;
            Some(Retired { about, statement })
        })
        .collect()
    }

    /// Until when releases get fixes: what is part of this program, with what was imported.
    ///
    /// # Errors
    /// When what was imported cannot be read.
    pub fn ends(&self) -> Result<Table, Error> {
        let mut table = Table::built_in();
        let path = self.ends_path();
        match read_within(&path, MOST_TABLE) {
            Ok(bytes) => table.parse(&String::from_utf8_lossy(&bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(table)
    }

    /// Takes in tables of endoflife.date; the number of releases.
    ///
    /// # Errors
    /// `InvalidArgument` for a file of another form: then nothing is changed.
    pub fn import_ends(&self, paths: &[PathBuf]) -> Result<usize, Error> {
        let mut table = self.ends()?;
        let mut count = 0;
        for path in paths {
            let bytes = read_within(path, MOST_TABLE)?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let read = table.import(&name, &bytes);
            count += read.context(|| format!("import {}", path.display()))?;
        }
        self.write_in_lifecycle("ends", table.encode().as_bytes())?;
        Ok(count)
    }

    /// Images at their end for `grace` days that nothing uses: no container, and no image derives from them that stays. They are
    /// removed unless it is only asked which.
    ///
    /// # Errors
    /// When an image cannot be removed.
    pub fn collect_expired(&self, grace: i32, dry: bool) -> Result<Vec<Expired>, Error> {
        let graph = self.lineage()?;
        let today = today();
        let mut used: HashSet<ImageId> = HashSet::new();
        for container in self.containers().list()? {
            used.insert(container.config.image);
        }
        let expired = |node: usize| -> Option<Date> {
            let statement = self.statement_about(&graph.nodes()[node].id)?;
            let days = statement.date.until(today).ok()?.get_days();
            (statement.on(today) >= Standing::Ended && days >= grace).then_some(statement.date)
        };
        let mut stays = vec![true; graph.nodes().len()];
        let mut found = Vec::new();
        for root in graph.roots() {
            // Those that derive from it first.
            for node in graph.descendants(root).into_iter().rev() {
                let image = &graph.nodes()[node];
                if used.contains(&image.id) || graph.children(node).iter().any(|child| stays[*child]) {
                    continue;
                }
                let Some(since) = expired(node) else { continue };
                stays[node] = false;
                found.push(Expired {
                    image: image.id,
                    names: image.names.clone(),
                    since,
                });
            }
        }
        if !dry {
            for one in &found {
                match self.remove_image(&one.image.to_string(), true) {
                    // It went with the name of another.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    removed => drop(removed.context(|| format!("remove {}", one.image.short()))?),
                }
                for name in [one.image.hex(), issued_name(&one.image)] {
                    drop(std::fs::remove_file(self.lifecycle_folder().join(name)));
                }
            }
        }
        Ok(found)
    }
}

/// The file with the time of the last signed statement about an image.
fn issued_name(image: &ImageId) -> String {
    format!("{}.issued", image.hex())
}

/// The release of a distribution, and its end.
#[must_use]
pub fn end_of<'a>(table: &'a Table, os: &Os) -> Option<(&'a str, Release)> {
    table.release(&os.id, &os.version)
}

/// Today, in UTC.
#[must_use]
pub fn today() -> Date {
    jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date()
}

fn read_within(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    use std::io::Read as _;
    let what = || format!("read {}", path.display());
    let file = std::fs::File::open(path).context(what)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).context(what)?;
    if bytes.len() as u64 > most {
        let message = format!("{}: it has more than {most} bytes", what());
        return Err(Error::new(ErrorKind::ResourceExhausted, message));
    }
    Ok(bytes)
}
