//! What is written about a container.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dhow_oci::Labels;
use dhow_oci::runtime::State;
use dhow_types::ErrorKind;
use serde::{Deserialize, Serialize};

use super::driver::Systemd;
use super::folder::Folder;
use crate::Error;

/// The file of the record.
pub(crate) const FILE: &str = "state.json";
/// The form of the record that this program writes and reads.
const VERSION: u32 = 1;

/// The record of a container. Process and times have the names that monitoring agents read in runc's file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// Form of the record.
    pub version: u32,
    /// Version of the standard that the bundle is written for.
    #[serde(rename = "ociVersion")]
    pub oci_version: String,
    /// Process id of the first process.
    #[serde(rename = "init_process_pid")]
    pub pid: i32,
    /// When that process was started, in clock ticks since the machine was.
    #[serde(rename = "init_process_start")]
    pub start: u64,
    /// When the container was created, RFC 3339 in UTC.
    pub created: String,
    /// The bundle's folder, absolute.
    pub bundle: PathBuf,
    /// The root file system, absolute.
    pub rootfs: PathBuf,
    /// The directories of the control group, by controller as [`dhow_cgroup::Group::paths`] names them; none without.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cgroup_paths: BTreeMap<String, PathBuf>,
    /// The systemd that made the control group, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systemd: Option<Systemd>,
    /// Annotations of the spec.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub annotations: Labels,
    /// Whether it is still being made, or was when this was written: it counts until the process executes its program.
    #[serde(default)]
    pub creating: bool,
    /// Whether the process came out of a checkpoint: such a one executes no program.
    #[serde(default)]
    pub restored: bool,
    /// Whether it has a process id namespace of its own: all its processes end with the first.
    pub own_processes: bool,
}

impl Record {
    /// As the state document, but for the status.
    pub(crate) fn state(&self) -> State {
        State {
            oci_version: self.oci_version.clone(),
            id: String::new(),
            status: String::new(),
            pid: self.pid,
            bundle: self.bundle.clone(),
            annotations: self.annotations.clone(),
        }
    }
}

pub(crate) fn read(folder: &Folder) -> Result<Option<Record>, Error> {
    let Some(bytes) = folder.read(FILE)? else {
        return Ok(None);
    };
    let wrong = |error: Option<serde_json::Error>| {
        let message = format!("record {} is damaged", folder.path().join(FILE).display());
        let error = match error {
            Some(error) => Error::because(ErrorKind::DataLoss, message, error),
            None => Error::new(ErrorKind::DataLoss, message),
        };
        error.with_hint("delete the container with --force")
    };
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| wrong(Some(error)))?;
    if record.version != VERSION {
        return Err(wrong(None));
    }
    Ok(Some(record))
}

pub(crate) fn write(folder: &Folder, record: &Record) -> Result<(), Error> {
    draft(folder, record)?;
    publish(folder)
}

/// Writes a record that nobody sees before [`publish`].
pub(crate) fn draft(folder: &Folder, record: &Record) -> Result<(), Error> {
    let record = Record {
        version: VERSION,
        ..record.clone()
    };
    let bytes = serde_json::to_vec(&record)
        .map_err(|error| Error::because(ErrorKind::Internal, "write the container's record", error))?;
    folder.draft(FILE, &bytes)
}

/// Lets everybody see the record that was written last.
pub(crate) fn publish(folder: &Folder) -> Result<(), Error> {
    folder.publish(FILE)
}
