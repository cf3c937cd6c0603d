//! Reading the files: which are there, what of them counts.

use std::io;
use std::path::{Path, PathBuf};

use super::hosts::{self, Hosts};
use super::{Registries, bad, daemon};
use crate::{Context as _, Error};

/// Larger files of this kind are a mistake.
const MAX_FILE: u64 = 1 << 20;
/// Drop-in files of a folder, certificates of a host.
const MAX_ENTRIES: usize = 1000;

/// Where the files are. The caller knows the person's folders; this crate looks into no other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryFiles {
    /// Candidates for `registries.conf`; the first that is there counts.
    pub conf: Vec<PathBuf>,
    /// Drop-in folders; later ones stand over earlier ones.
    pub drop_ins: Vec<PathBuf>,
    /// Folders with one folder for each host (`certs.d`), the person's own first.
    pub hosts: Vec<PathBuf>,
    /// Candidates for docker's `daemon.json`; the first that is there counts.
    pub daemon: Vec<PathBuf>,
}

/// The folders of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostFiles {
    /// From the first folder that has a `hosts.toml`.
    pub(crate) hosts: Option<Hosts>,
    pub(crate) ca: Vec<PathBuf>,
    pub(crate) client: Vec<(PathBuf, PathBuf)>,
}

impl Registries {
    /// Reads everything but what is about single hosts. Missing files are fine.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed file, with the file and the reason; what reading said.
    pub fn read(files: &RegistryFiles) -> Result<Self, Error> {
        let mut registries = Self::default();
        for path in &files.conf {
            if let Some(text) = text(path)? {
                registries.conf.lay_over(&text, path)?;
                registries.sources.push(path.clone());
                break;
            }
        }
        for folder in &files.drop_ins {
            for path in listed(folder, "conf")? {
                if let Some(text) = text(&path)? {
                    registries.conf.lay_over(&text, &path)?;
                    registries.sources.push(path);
                }
            }
        }
        for path in &files.daemon {
            if let Some(text) = text(path)? {
                registries.daemon = daemon::parse(&text, path)?;
                if registries.daemon != daemon::Daemon::default() {
                    registries.sources.push(path.clone());
                }
                break;
            }
        }
        Ok(registries)
    }
}

impl HostFiles {
    /// Reads the folders of `host` (`name` or `name:port`).
    ///
    /// # Errors
    /// As [`Registries::read`]; a certificate without its key.
    pub(crate) fn read(folders: &[PathBuf], host: &str) -> Result<Self, Error> {
        let mut found = Self::default();
        // A host is part of a path here.
        if host.contains('/') || host.starts_with('.') || host.is_empty() {
            return Ok(found);
        }
        for folder in folders {
            for name in folder_names(host) {
                let folder = folder.join(name);
                let own = folder.ends_with("_default");
                if found.hosts.is_none() {
                    let path = folder.join("hosts.toml");
                    found.hosts = text(&path)?.map(|text| hosts::parse(&text, &path)).transpose()?;
                }
                if own {
                    continue;
                }
                found.ca.extend(listed(&folder, "crt")?);
                for certificate in listed(&folder, "cert")? {
                    let key = certificate.with_extension("key");
                    if !key.is_file() {
                        let message = format!("there is no key {} to it", key.display());
                        return Err(bad(&certificate, &message));
                    }
                    found.client.push((certificate, key));
                }
            }
        }
        Ok(found)
    }
}

/// The folders of a host, the most exact first: `name:port`, containerd's `name_port_`, for everybody else `_default`.
fn folder_names(host: &str) -> Vec<String> {
    let mut names = vec![host.to_owned()];
    if let Some((name, port)) = host.rsplit_once(':')
        && port.bytes().all(|b| b.is_ascii_digit())
    {
        names.push(format!("{name}_{port}_"));
    }
    names.push("_default".to_owned());
    names
}

/// A file as text; none when it is not there. What a person who is not root may not read is none of theirs.
fn text(path: &Path) -> Result<Option<String>, Error> {
    match crate::files::read(path, MAX_FILE) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| bad(path, "it is no text")),
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(error).context(|| format!("read {}", path.display())),
    }
}

/// Files with an ending in a folder, sorted by name; none when the folder is not there.
fn listed(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, Error> {
    let doing = || format!("read {}", folder.display());
    let entries = match std::fs::read_dir(folder) {
        Err(error) if absent(&error) => return Ok(Vec::new()),
        entries => entries.context(doing)?,
    };
    let mut paths = Vec::new();
    for entry in entries.take(MAX_ENTRIES) {
        let path = entry.context(doing)?.path();
        if path.extension().is_some_and(|found| found == ending) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
