//! A runtime spec, checked and compiled.

use std::path::PathBuf;

use dhow_oci::runtime::Spec;
use dhow_types::ErrorKind;

use crate::Error;

/// How plans are made.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Directory of compiled seccomp programs; none compiles each time.
    pub seccomp_cache: Option<PathBuf>,
}

/// A spec from which a container can be made any number of times.
#[derive(Debug)]
pub struct Plan;

impl Plan {
    /// Compiles a spec.
    ///
    /// # Errors
    /// `InvalidArgument` for what the spec forbids, `Unsupported` for what this runtime or host cannot do.
    pub fn prepare(spec: &Spec, settings: &Settings) -> Result<Self, Error> {
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("{} {settings:?}", spec.oci_version),
        ))
    }
}
