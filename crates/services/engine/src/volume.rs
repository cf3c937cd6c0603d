//! Volumes: folders that outlive containers.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use dhow_rootpath::Root;
use dhow_types::{ContainerId, ErrorKind, validate_name};
use serde::{Deserialize, Serialize};

use crate::container::{
    Container, make_folder, random_bytes, read_json, restore_tree, write_json, write_tree,
};
use crate::event::{Event, EventKind};
use crate::volume_options::Backing;
use crate::{Context as _, Engine, Error};

/// Docker's label of a volume that no person named.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// What `volume create` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeRequest {
    /// Its name; 64 hexadecimal characters when absent.
    pub name: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The driver's options: `type`, `device`, `o`.
    pub options: BTreeMap<String, String>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Where its content is on the host.
    pub data: PathBuf,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
}

impl Volume {
    /// What is behind it.
    pub(crate) fn backing(&self) -> Result<Backing, Error> {
        Backing::of(&self.options)
    }

    /// What containers bind.
    pub(crate) fn source(&self) -> Result<PathBuf, Error> {
        Ok(match self.backing()? {
            Backing::Bind(path) => path,
            Backing::Folder | Backing::Mounted { .. } => self.data.clone(),
        })
    }

    /// Whether there is nothing in it yet, so that it takes what an image has at its place.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        fs::read_dir(&self.data).is_ok_and(|mut entries| entries.next().is_none())
    }
}

#[derive(Serialize, Deserialize)]
struct Record {
    created: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    options: BTreeMap<String, String>,
}

impl Engine {
    fn volumes_folder(&self) -> PathBuf {
        let settings = self.settings();
        settings
            .volumes
            .clone()
            .unwrap_or_else(|| settings.root.join("volumes"))
    }

    fn volume_folder(&self, name: &str) -> PathBuf {
        self.volumes_folder().join(name)
    }

    /// Makes a volume. One that is there already is returned as it is, as docker does.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that cannot be one.
    pub fn create_volume(&self, wanted: &VolumeRequest) -> Result<Volume, Error> {
        let name = match &wanted.name {
            Some(name) => name.clone(),
            None => ContainerId::from_random(random_bytes()?).to_string(),
        };
        validate_name(&name).map_err(|error| {
            Error::because(ErrorKind::InvalidArgument, format!("create volume {name}"), error)
        })?;
        Backing::of(&wanted.options)?;
        let folder = self.volume_folder(&name);
        if let Ok(volume) = self.volume(&name) {
            return Ok(volume);
        }
        make_folder(&folder)?;
        let data = folder.join("_data");
        match fs::DirBuilder::new().mode(0o755).create(&data) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::wrap(error, format!("make the volume {name}")));
            }
            _ => {}
        }
        let created = dhow_monitor::format_time(std::time::SystemTime::now());
        let mut labels = wanted.labels.clone();
        if wanted.name.is_none() {
            labels.insert(ANONYMOUS.to_owned(), String::new());
        }
        let record = Record {
            created,
            labels,
            options: wanted.options.clone(),
        };
        // Of several that make it at once one does, and the others get what that one asked for.
        if write_first(&folder.join("volume.json"), &record)? {
            self.tell(&of_volume(&name, "create"));
        }
        self.volume(&name)
    }

    /// The volume of this name.
    ///
    /// # Errors
    /// `NotFound` in docker's words.
    pub fn volume(&self, name: &str) -> Result<Volume, Error> {
        let missing = || Error::new(ErrorKind::NotFound, format!("get {name}: no such volume"));
        validate_name(name).map_err(|_| missing())?;
        let folder = self.volume_folder(name);
        let record: Record = match read_json(&folder.join("volume.json")) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing()),
            record => record?,
        };
        Ok(Volume {
            name: name.to_owned(),
            data: folder.join("_data"),
            created: record.created,
            labels: record.labels,
            options: record.options,
        })
    }

    /// Every volume, by name.
    ///
    /// # Errors
    /// What reading the folder said.
    pub fn volumes(&self) -> Result<Vec<Volume>, Error> {
        let entries = match fs::read_dir(self.volumes_folder()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::wrap(error, "list volumes")),
        };
        let names = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok());
        let mut volumes: Vec<_> = names.filter_map(|name| self.volume(&name).ok()).collect();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// Containers that mount the volume, running or not.
    ///
    /// # Errors
    /// When the containers cannot be read.
    pub fn volume_users(&self, name: &str) -> Result<Vec<Container>, Error> {
        let uses = |container: &Container| {
            container
                .config
                .mounts
                .iter()
                .any(|mount| mount.name.as_deref() == Some(name))
        };
        Ok(self.containers().list()?.into_iter().filter(uses).collect())
    }

    /// Writes all that is in a volume as a tar.
    ///
    /// # Errors
    /// `NotFound`, and what reading or writing said.
    pub fn export_volume(&self, name: &str, output: &mut dyn Write) -> Result<(), Error> {
        let volume = self.volume(name)?;
        let what = || format!("export volume {name}");
        let root = Root::open(&volume.data).context(what)?;
        write_tree(&root, output).context(what)
    }

    /// Extracts a tar into a volume, over what is there: a folder never takes the place of something else, nor the other
    /// way round.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` or `DataLoss` for an archive that is none; `FailedPrecondition` for such a conflict.
    pub fn import_volume(&self, name: &str, input: impl Read) -> Result<(), Error> {
        let volume = self.volume(name)?;
        let what = || format!("import into volume {name}");
        let root = Root::open(&volume.data).context(what)?;
        restore_tree(&root, input).context(what)
    }

    /// Removes a volume and all that is in it.
    ///
    /// # Errors
    /// `FailedPrecondition` while a container has it; `NotFound`.
    pub fn remove_volume(&self, name: &str) -> Result<(), Error> {
        let volume = self.volume(name)?;
        if let Some(user) = self.volume_users(name)?.first() {
            let message = format!("remove {name}: volume is in use - [{}]", user.config.id);
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        }
        self.unmount_volume(&volume)?;
        let trash = self.settings().root.join("trash");
        make_folder(&trash)?;
        let grave = trash.join(format!("volume-{}-{}", volume.name, std::process::id()));
        fs::rename(self.volume_folder(name), &grave).context(|| format!("remove the volume {name}"))?;
        self.tell(&of_volume(name, "destroy"));
        fs::remove_dir_all(&grave).context(|| format!("empty the trash of the volume {name}"))
    }

    /// Removes volumes that no container has: those without a name of a person's, or all of them. Their names, and the
    /// bytes of disk that this freed.
    ///
    /// # Errors
    /// What a removal said.
    pub fn prune_volumes(&self, all: bool) -> Result<(Vec<String>, u64), Error> {
        let (mut removed, mut bytes) = (Vec::new(), 0);
        for volume in self.volumes()? {
            let anonymous = volume.name.parse::<ContainerId>().is_ok();
            if (all || anonymous) && self.volume_users(&volume.name)?.is_empty() {
                let size = crate::system::tree_size(&volume.data);
                self.remove_volume(&volume.name)?;
                removed.push(volume.name);
                bytes += size;
            }
        }
        self.tell(&Event::now(EventKind::Volume, "prune", "").with("reclaimed", bytes));
        Ok((removed, bytes))
    }
}

/// Writes a record where there is none yet, whole or not at all; `false` when somebody was faster.
fn write_first(path: &Path, record: &Record) -> Result<bool, Error> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let beside = path.with_extension(format!("{}-{serial}", std::process::id()));
    write_json(&beside, record)?;
    let first = match fs::hard_link(&beside, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        // A file system without further names: there the later one's stays, as if it had come alone.
        Err(_) => fs::rename(&beside, path)
            .map(|()| true)
            .context(|| format!("write {}", path.display())),
    };
    drop(fs::remove_file(&beside));
    first
}

fn of_volume(name: &str, action: &str) -> Event {
    Event::now(EventKind::Volume, action, name).with("driver", "local")
}
