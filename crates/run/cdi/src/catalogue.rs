//! All devices of a host: the files of some folders.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use dhow_types::ErrorKind;

use crate::document::{Document, Edits};
use crate::{Error, QualifiedName, invalid};

/// Largest file that is read; a node of sixteen GPUs with all their parts takes some hundred kilobytes.
const MAX_FILE: u64 = 4 << 20;
/// Files that are read of a folder at most.
const MAX_FILES: usize = 1024;

/// What the files of some folders say.
#[derive(Debug, Default)]
pub struct Catalogue {
    folders: Vec<PathBuf>,
    documents: Vec<Document>,
    devices: BTreeMap<QualifiedName, Place>,
    problems: Vec<Problem>,
}

/// A file that could not be used, or a device that two files have.
#[derive(Debug)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: Error,
}

/// Where a device is.
#[derive(Clone, Debug)]
struct Place {
    /// Which folder, by number: later ones count more.
    rank: usize,
    document: usize,
    device: usize,
    path: PathBuf,
    /// Whether another file of the same folder has it, too: then neither is meant.
    conflict: bool,
}

impl Catalogue {
    /// Reads the `.json` and `.yaml` files of folders, of which later ones count more. One that is not there has none; a
    /// file that is wrong is a [`Problem`] and hides no other.
    #[must_use]
    pub fn read(folders: &[PathBuf]) -> Self {
        let mut catalogue = Self {
            folders: folders.to_vec(),
            ..Self::default()
        };
        for (rank, folder) in folders.iter().enumerate() {
            let files = match files(folder) {
                Ok(files) => files,
                Err(error) => {
                    catalogue.problem(folder, error);
                    continue;
                }
            };
            for path in files {
                match parse(&path) {
                    Ok(document) => catalogue.take(rank, &path, document),
                    Err(error) => catalogue.problem(&path, error),
                }
            }
        }
        catalogue
    }

    /// The devices that can be asked for.
    pub fn devices(&self) -> impl Iterator<Item = &QualifiedName> {
        let devices = self.devices.iter();
        devices.filter(|(_, place)| !place.conflict).map(|(name, _)| name)
    }

    /// What was wrong with the files.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// What changes of a container with these devices: for each first what its file says of all its devices, once.
    ///
    /// # Errors
    /// `NotFound` names the devices that are missing, the folders, and what was wrong there.
    pub fn edits(&self, names: &[String]) -> Result<Vec<&Edits>, Error> {
        let (mut edits, mut used, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        for name in names {
            let place = self.devices.get(&name.parse()?).filter(|place| !place.conflict);
            let Some(place) = place else {
                missing.push(name.as_str());
                continue;
            };
            let document = &self.documents[place.document];
            if !used.contains(&place.document) {
                used.push(place.document);
                edits.push(&document.container_edits);
            }
            edits.push(&document.devices[place.device].container_edits);
        }
        if missing.is_empty() {
            return Ok(edits);
        }
        let folders: Vec<_> = self
            .folders
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        let message = format!(
            "unresolvable CDI devices {}: no file of {} has them",
            missing.join(", "),
            folders.join(" and ")
        );
        let error = Error::new(ErrorKind::NotFound, message);
        Err(match self.hint(&missing) {
            Some(hint) => error.with_hint(hint),
            None => error,
        })
    }

    /// Why devices may be missing: a file is wrong, or they are called otherwise.
    fn hint(&self, missing: &[&str]) -> Option<String> {
        if let Some(problem) = self.problems.first() {
            return Some(format!("{}: {}", problem.path.display(), problem.error));
        }
        let kind = missing.first()?.split('=').next()?;
        let of_kind = self.devices().filter(|name| name.kind == kind);
        let known: Vec<_> = of_kind.take(16).map(|name| name.name.as_str()).collect();
        if known.is_empty() {
            return Some("the device's vendor has a program that writes such a file".to_owned());
        }
        Some(format!("of {kind} there is: {}", known.join(", ")))
    }

    fn problem(&mut self, path: &Path, error: Error) {
        self.problems.push(Problem {
            path: path.to_owned(),
            error,
        });
    }

    fn take(&mut self, rank: usize, path: &Path, document: Document) {
        let number = self.documents.len();
        for (device, one) in document.devices.iter().enumerate() {
            let name = QualifiedName {
                kind: document.kind.clone(),
                name: one.name.clone(),
            };
            let place = Place {
                rank,
                document: number,
                device,
                path: path.to_owned(),
                conflict: false,
            };
            let twice = match self.devices.get_mut(&name) {
                Some(other) if other.rank == rank => {
                    other.conflict = true;
                    Some(other.path.clone())
                }
                _ => None,
            };
            match twice {
                Some(other) => {
                    let message = format!("{name} is in {} as well", other.display());
                    self.problem(path, Error::new(ErrorKind::AlreadyExists, message));
                }
                None => drop(self.devices.insert(name, place)),
            }
        }
        self.documents.push(document);
    }
}

/// The files of a folder that may say something, in the order of their names.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| Error::wrap(error, format!("list {}", folder.display())))?,
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = paths
        .filter(|path| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            matches!(ending, Some("json" | "yaml"))
        })
        .filter(|path| !path.is_dir())
        .take(MAX_FILES)
        .collect();
    files.sort();
    Ok(files)
}

fn parse(path: &Path) -> Result<Document, Error> {
    let mut bytes = Vec::new();
    let what = || format!("read {}", path.display());
    let file = rustix::fs::open(
        path,
        // A pipe in its place would make the reader wait.
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NONBLOCK,
        rustix::fs::Mode::empty(),
    );
    let file = file.map_err(|errno| Error::wrap(std::io::Error::from(errno), what()))?;
    let read = std::fs::File::from(file)
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes);
    read.map_err(|error| Error::wrap(error, what()))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(invalid(format!("it is larger than {MAX_FILE} bytes")));
    }
    Document::parse(&bytes, path.extension().is_some_and(|ending| ending == "yaml"))
}
