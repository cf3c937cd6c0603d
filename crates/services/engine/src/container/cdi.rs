//! Devices by the Container Device Interface.

use std::path::PathBuf;

use dhow_cdi::Catalogue;
use dhow_oci::runtime::Spec;

use super::extras::Extras;
use crate::{Context as _, Error};

/// Whether a word names a device by the Container Device Interface, and is not the path of one.
#[must_use]
pub fn is_cdi_device(word: &str) -> bool {
    dhow_cdi::QualifiedName::is_meant(word)
}

/// The devices of a host, from the folders of a person or from the usual ones.
fn catalogue(folders: &[PathBuf]) -> Catalogue {
    let usual = || dhow_cdi::FOLDERS.iter().map(PathBuf::from).collect();
    let folders = if folders.is_empty() {
        usual()
    } else {
        folders.to_vec()
    };
    Catalogue::read(&folders)
}

/// Refuses devices that no vendor's file has. They are looked for again at each start, since a driver may have been
/// replaced.
pub(super) fn check(extras: &Extras) -> Result<(), Error> {
    if extras.cdi.is_empty() {
        return Ok(());
    }
    let catalogue = catalogue(&extras.cdi_folders);
    catalogue
        .edits(&extras.cdi)
        .context(|| "add the devices")
        .map(drop)
}

/// Puts what the container's devices need into its spec.
pub(super) fn add(extras: &Extras, spec: &mut Spec) -> Result<(), Error> {
    add_devices(&extras.cdi, &extras.cdi_folders, spec)
}

/// Puts what devices need into a spec.
pub(crate) fn add_devices(names: &[String], folders: &[PathBuf], spec: &mut Spec) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    let catalogue = catalogue(folders);
    let edits = catalogue.edits(names).context(|| "add the devices")?;
    dhow_cdi::apply(&edits, spec).context(|| "add the devices")
}
