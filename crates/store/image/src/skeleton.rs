//! The verbs that are not written yet.

use std::io::{Read, Write};

use dhow_oci::ImageConfig;
use dhow_reference::Reference;
use dhow_transport::Client;
use dhow_types::{ErrorKind, ImageId, Observer};

use crate::{
    Check, DiskUsage, Error, HistoryLine, Image, Import, Loaded, Prune, Pruned, Pull, Pulled, Pushed,
    Removed, Report, Store, Summary, Swept, Use,
};

fn later() -> Error {
    Error::new(ErrorKind::Unsupported, "not there yet")
}

#[allow(missing_docs, clippy::missing_errors_doc, reason = "replaced within the hour")]
impl Store {
    pub fn resolve(&self, _name: &str) -> Result<Image, Error> {
        Err(later())
    }
    pub fn image(&self, _id: &ImageId) -> Result<Image, Error> {
        Err(later())
    }
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        Err(later())
    }
    pub fn summaries(&self) -> Result<Vec<Summary>, Error> {
        Err(later())
    }
    pub fn history(&self, _image: &Image) -> Result<Vec<HistoryLine>, Error> {
        Err(later())
    }
    pub fn tag(&self, _id: &ImageId, _name: &Reference) -> Result<(), Error> {
        Err(later())
    }
    pub fn commit(&self, _config: ImageConfig, _tags: &[Reference]) -> Result<ImageId, Error> {
        Err(later())
    }
    pub fn commit_on(
        &self,
        _config: ImageConfig,
        _tags: &[Reference],
        _parent: Option<ImageId>,
    ) -> Result<ImageId, Error> {
        Err(later())
    }
    pub fn pull(
        &self,
        _client: &Client,
        _reference: &Reference,
        _how: &Pull,
        _observer: &dyn Observer,
    ) -> Result<Pulled, Error> {
        Err(later())
    }
    pub fn push(
        &self,
        _client: &Client,
        _reference: &Reference,
        _observer: &dyn Observer,
    ) -> Result<Pushed, Error> {
        Err(later())
    }
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
    pub fn import(&self, _input: impl Read + Send, _how: &Import) -> Result<ImageId, Error> {
        Err(later())
    }
    pub fn check(&self, _how: Check) -> Result<Report, Error> {
        Err(later())
    }
    pub fn disk_usage(&self, _uses: &[Use]) -> Result<DiskUsage, Error> {
        Err(later())
    }
    pub fn sync(&self) -> Result<(), Error> {
        Err(later())
    }
}
