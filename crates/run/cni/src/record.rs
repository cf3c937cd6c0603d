//! What is remembered of a connection, so that it can be taken apart by others, and after the list changed.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use dhow_types::ErrorKind;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Context as _, Error, NetworkList};

/// Longest record that is read: a list and a result, each of at most a megabyte.
const MAX_RECORD: u64 = 4 << 20;

/// One interface of one container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) network: String,
    pub(crate) version: String,
    pub(crate) disable_check: bool,
    pub(crate) plugins: Vec<Map<String, Value>>,
    /// What the runtime said to those that take it.
    pub(crate) runtime: Map<String, Value>,
    /// The last plugin's answer; none while plugins run.
    pub(crate) result: Option<Value>,
}

impl Record {
    pub(crate) fn list(&self, path: &Path) -> NetworkList {
        NetworkList {
            name: self.network.clone(),
            version: self.version.clone(),
            disable_check: self.disable_check,
            plugins: self.plugins.clone(),
            path: path.to_owned(),
        }
    }

    /// Replaces what is at the path.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let what = || format!("write {}", path.display());
        let folder = path.parent().unwrap_or(Path::new("/"));
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.context(what)?;
        let bytes =
            serde_json::to_vec(self).map_err(|error| Error::because(ErrorKind::Internal, what(), error))?;
        let next = path.with_extension("next");
        let mut file = fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&next)
            .context(what)?;
        std::io::Write::write_all(&mut file, &bytes).context(what)?;
        fs::rename(&next, path).context(what)
    }

    /// None when there is none, or when a power cut took what it said: no network namespace outlives one.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Error> {
        let what = || format!("read {}", path.display());
        let file = match fs::File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.context(what)?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_RECORD).read_to_end(&mut bytes).context(what)?;
        Ok(serde_json::from_slice(&bytes).ok())
    }

    /// Takes it away, and the folder with the last.
    pub(crate) fn remove(path: &Path) -> Result<(), Error> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
        if let Some(folder) = path.parent() {
            // Another interface of the container may have its own there.
            drop(fs::remove_dir(folder));
        }
        Ok(())
    }
}

/// The interfaces of a container that are remembered.
pub(crate) fn interfaces(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".json")?.to_owned()))
        .collect();
    names.sort();
    names
}

/// Where an interface's record is.
pub(crate) fn path(records: &Path, container: &str, interface: &str) -> PathBuf {
    records.join(container).join(format!("{interface}.json"))
}
