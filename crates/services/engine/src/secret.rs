//! Secrets: small texts that containers get and that neither images, logs nor `inspect` show.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use dhow_types::{ContainerId, ErrorKind, validate_name};
use serde::{Deserialize, Serialize};

use crate::container::{make_folder, random_bytes, read_json, write_json};
use crate::names::lock_folder;
use crate::{Context as _, Engine, Error};

/// Longest content (podman `pkg/secrets`, `maxSecretSize`).
pub const LARGEST_SECRET: usize = 512_000;

/// A secret without its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// 25 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// When it was last replaced.
    pub updated: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl Engine {
    fn secrets_folder(&self) -> PathBuf {
        self.settings().root.join("secrets")
    }

    /// Keeps a secret, readable for the owner of the root alone.
    ///
    /// # Errors
    /// `AlreadyExists` unless it may `replace`; `InvalidArgument` for a name that cannot be one, or content that is empty or
    /// larger than [`LARGEST_SECRET`].
    pub fn create_secret(
        &self,
        name: &str,
        content: impl Read,
        labels: BTreeMap<String, String>,
        replace: bool,
    ) -> Result<Secret, Error> {
        validate_name(name).map_err(|error| {
            Error::because(ErrorKind::InvalidArgument, format!("create secret {name}"), error)
        })?;
        let mut bytes = Vec::new();
        content
            .take(LARGEST_SECRET as u64 + 1)
            .read_to_end(&mut bytes)
            .context(|| "read the secret")?;
        if bytes.is_empty() || bytes.len() > LARGEST_SECRET {
            let message = format!("secret data must be larger than 0 and less than {LARGEST_SECRET} bytes");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let folder = self.secrets_folder();
        make_folder(&folder)?;
        let _lock = lock_folder(&folder)?;
        let now = dhow_monitor::format_time(std::time::SystemTime::now());
        let old = self.secret(name).ok();
        if old.is_some() && !replace {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("{name}: secret name in use"),
            ));
        }
        let secret = Secret {
            id: ContainerId::from_random(random_bytes()?).as_str()[..25].to_owned(),
            name: name.to_owned(),
            created: old.map_or_else(|| now.clone(), |old| old.created),
            updated: now,
            labels,
        };
        // The content first: a record always has its content.
        let content = folder.join(format!("{}.data", secret.id));
        write_private(&content, &bytes)?;
        let record = folder.join(format!("{name}.json"));
        let replaced: Option<Secret> = read_json(&record).ok();
        write_json(&record, &secret)?;
        if let Some(replaced) = replaced {
            fs::remove_file(folder.join(format!("{}.data", replaced.id)))
                .context(|| format!("remove the old content of secret {name}"))?;
        }
        Ok(secret)
    }

    /// The secret of this name or id, or the only one whose id begins so.
    ///
    /// # Errors
    /// `NotFound` in podman's words.
    pub fn secret(&self, wanted: &str) -> Result<Secret, Error> {
        let missing = || {
            Error::new(
                ErrorKind::NotFound,
                format!("no secret with name or id {wanted:?}: no such secret"),
            )
        };
        if validate_name(wanted).is_ok() {
            match read_json(&self.secrets_folder().join(format!("{wanted}.json"))) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                found => return found,
            }
        }
        let mut found = self.secrets()?;
        found.retain(|secret| !wanted.is_empty() && secret.id.starts_with(wanted));
        match found.len() {
            1 => found.pop().ok_or_else(missing),
            0 => Err(missing()),
            _ => {
                let message = format!("more than one secret has an id that begins with {wanted:?}");
                Err(Error::new(ErrorKind::InvalidArgument, message).with_hint("give more of the id"))
            }
        }
    }

    /// Every secret, by name.
    ///
    /// # Errors
    /// What reading the folder said.
    pub fn secrets(&self) -> Result<Vec<Secret>, Error> {
        let entries = match fs::read_dir(self.secrets_folder()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::wrap(error, "list secrets")),
        };
        let records = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "json"));
        let mut secrets: Vec<Secret> = records.filter_map(|path| read_json(&path).ok()).collect();
        secrets.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(secrets)
    }

    /// What is in a secret.
    ///
    /// # Errors
    /// `NotFound` when it was removed meanwhile.
    pub fn secret_content(&self, secret: &Secret) -> Result<Vec<u8>, Error> {
        let path = self.secrets_folder().join(format!("{}.data", secret.id));
        fs::read(path).context(|| format!("read secret {}", secret.name))
    }

    /// Removes a secret. Containers that have it keep what they got.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn remove_secret(&self, wanted: &str) -> Result<Secret, Error> {
        let folder = self.secrets_folder();
        // Else the record that goes could be that of one which has just taken the name.
        let _lock = folder.exists().then(|| lock_folder(&folder)).transpose()?;
        let secret = self.secret(wanted)?;
        let what = || format!("remove secret {}", secret.name);
        // The content first: killed in between, this leaves a record that can be removed again, and no secret.
        match fs::remove_file(folder.join(format!("{}.data", secret.id))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).context(what),
            _ => {}
        }
        fs::remove_file(folder.join(format!("{}.json", secret.name))).context(what)?;
        Ok(secret)
    }
}

/// Writes a file that only its owner reads, and that was never anything else.
pub(crate) fn write_private(path: &std::path::Path, bytes: &[u8]) -> Result<(), Error> {
    let what = || format!("write {}", path.display());
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::wrap(error, what())),
        _ => {}
    }
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut file = file.context(what)?;
    std::io::Write::write_all(&mut file, bytes).context(what)
}
