//! `--secret`: what a container gets of the secrets that are kept here (podman-run(1)).
//!
//! The content is copied when the container is created, below its folder and readable for the owner of the root alone, so
//! that a secret that is replaced or removed later changes nothing for it. At each start it comes into the run folder,
//! which is in memory, and from there as a read-only file into the container; or into its program's variables, which
//! stand in no record.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use dhow_bundle::GeneratedFile;
use dhow_types::ErrorKind;
use serde::{Deserialize, Serialize};

use super::folder::make_folder;
use super::record::Config;
use crate::secret::write_private;
use crate::{Context as _, Engine, Error};

/// Where secrets are in a container.
const PLACE: &str = "/run/secrets";

/// How a container gets a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretUse {
    /// As a file.
    Mount {
        /// Absolute, or below `/run/secrets`; its name when absent.
        target: Option<PathBuf>,
        /// Its owner in the container.
        uid: u32,
        /// Its group.
        gid: u32,
        /// Its mode; 0444 unless said.
        mode: u32,
    },
    /// As a variable.
    Env {
        /// Its name; the secret's when absent.
        target: Option<String>,
    },
}

/// One `--secret`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretSpec {
    /// Name or id of the secret; the name once the container is created.
    pub secret: String,
    /// How it is given.
    pub how: SecretUse,
}

impl Engine {
    /// Resolves the names: what a container is created with.
    pub(super) fn resolve_secrets(&self, wanted: &[SecretSpec]) -> Result<Vec<SecretSpec>, Error> {
        let resolve = |spec: &SecretSpec| {
            let secret = self.secret(&spec.secret)?.name;
            let how = spec.how.clone();
            Ok(SecretSpec { secret, how })
        };
        wanted.iter().map(resolve).collect()
    }

    /// Copies their contents below the container's folder.
    pub(super) fn copy_secrets(&self, config: &Config, folder: &Path) -> Result<(), Error> {
        if config.secrets.is_empty() {
            return Ok(());
        }
        let kept = folder.join("secrets");
        make_folder(&kept)?;
        fs::set_permissions(&kept, fs::Permissions::from_mode(0o700))
            .context(|| "close the folder of secrets")?;
        for (number, spec) in config.secrets.iter().enumerate() {
            let content = self.secret_content(&self.secret(&spec.secret)?)?;
            write_private(&kept.join(number.to_string()), &content)?;
        }
        Ok(())
    }

    /// The files to bind for a start.
    pub(super) fn secret_files(&self, config: &Config) -> Result<Vec<GeneratedFile>, Error> {
        let mut files = Vec::new();
        let run = self.containers().run_folder(&config.id).join("secrets");
        for (number, spec) in config.secrets.iter().enumerate() {
            let SecretUse::Mount {
                target,
                uid,
                gid,
                mode,
            } = &spec.how
            else {
                continue;
            };
            make_folder(&run)?;
            let source = run.join(number.to_string());
            write_private(&source, &self.kept(config, number)?)?;
            let what = || format!("give secret {} to its owner", spec.secret);
            std::os::unix::fs::chown(&source, Some(*uid), Some(*gid)).context(what)?;
            fs::set_permissions(&source, fs::Permissions::from_mode(*mode)).context(what)?;
            let name = target.clone().unwrap_or_else(|| spec.secret.as_str().into());
            files.push(GeneratedFile {
                source,
                destination: Path::new(PLACE).join(name),
                read_only: true,
            });
        }
        Ok(files)
    }

    /// The variables for a start, and for `exec`.
    pub(super) fn secret_variables(&self, config: &Config) -> Result<Vec<String>, Error> {
        let mut variables = Vec::new();
        for (number, spec) in config.secrets.iter().enumerate() {
            let SecretUse::Env { target } = &spec.how else {
                continue;
            };
            let content = String::from_utf8(self.kept(config, number)?).map_err(|_| {
                let message = format!("secret {} is no text, so it can be no variable", spec.secret);
                Error::new(ErrorKind::InvalidArgument, message).with_hint("use type=mount")
            })?;
            let name = target.as_deref().unwrap_or(&spec.secret);
            variables.push(format!("{name}={content}"));
        }
        Ok(variables)
    }

    fn kept(&self, config: &Config, number: usize) -> Result<Vec<u8>, Error> {
        let folder = self.containers().folder(&config.id).join("secrets");
        fs::read(folder.join(number.to_string())).context(|| "read the container's secret")
    }
}
