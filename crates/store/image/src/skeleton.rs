//! The verbs that are not written yet.

use std::io::{Read, Write};

use dhow_types::{ErrorKind, Observer};

use crate::{Check, DiskUsage, Error, Loaded, Prune, Pruned, Removed, Report, Store, Swept, Use};

fn later() -> Error {
    Error::new(ErrorKind::Unsupported, "not there yet")
}

#[allow(missing_docs, clippy::missing_errors_doc, reason = "replaced within the hour")]
impl Store {
    pub fn remove(&self, _name: &str, _force: bool, _uses: &[Use]) -> Result<Vec<Removed>, Error> {
        Err(later())
    }
    pub fn prune(&self, _what: &Prune, _uses: &[Use]) -> Result<Pruned, Error> {
        Err(later())
    }
    pub fn sweep(&self, _uses: &[Use]) -> Result<Swept, Error> {
        Err(later())
    }
    pub fn save(&self, _names: &[&str], _output: &mut dyn Write) -> Result<(), Error> {
        Err(later())
    }
    pub fn load(&self, _input: impl Read + Send, _observer: &dyn Observer) -> Result<Vec<Loaded>, Error> {
        Err(later())
    }
    pub fn check(&self, _how: Check) -> Result<Report, Error> {
        Err(later())
    }
    pub fn disk_usage(&self, _uses: &[Use]) -> Result<DiskUsage, Error> {
        Err(later())
    }
}
