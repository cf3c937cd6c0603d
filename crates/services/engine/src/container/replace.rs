//! A container in the place of another: the same in everything but its image.
//!
//! What is under way is written down first (`ROOT/replacing/<id of the old one>`, locked by who does it). Where that process is killed, the
//! next replacement puts the old container back, or, once the new one is up (`<id>.done`), takes the old one away.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use dhow_monitor::{HealthStatus, format_time};
use dhow_types::{ContainerId, ErrorKind, ImageId};
use rustix::fs::{FlockOperation, fcntl_lock};
use serde::{Deserialize, Serialize};

use super::folder::{Container, make_folder};
use super::record::{Config, ManifestRecord, Status};
use crate::event::Event;
use crate::{Context as _, Engine, Error};

/// How long a new container has to keep running, when nothing checks its health, before the old one goes.
const SETTLED: Duration = Duration::from_secs(1);

/// How long a new container may take to become healthy, beyond what its checks need by themselves.
const HEALTHY: Duration = Duration::from_secs(120);

/// Longest record that is read.
const MOST_WRITTEN: u64 = 64 << 10;

/// Ending of the record once the new container is up.
const DONE: &str = "done";

/// What the name of a record begins with that is not whole yet.
const UNSEEN: &str = ".new-";

/// A replacement that is under way.
#[derive(Debug, Serialize, Deserialize)]
struct Replacing {
    old: ContainerId,
    new: ContainerId,
    /// The name that both have in turn.
    name: String,
    /// Whether the old one ran.
    ran: bool,
}

/// The same, written down and locked.
struct Intent {
    path: PathBuf,
    _locked: fs::File,
}

impl Intent {
    /// The new container is up: from here on it stays, whatever happens.
    fn is_done(&mut self) -> Result<(), Error> {
        let done = self.path.with_extension(DONE);
        fs::rename(&self.path, &done).context(|| format!("write {}", done.display()))?;
        self.path = done;
        Ok(())
    }

    /// What is not ended stays written down for the next replacement.
    fn end(self) {
        // One that stays is found ended then.
        drop(fs::remove_file(&self.path));
    }
}

impl Engine {
    /// Makes a container of `image` that is otherwise like `wanted`, with its volumes, networks, name and ports, and removes that one.
    /// It runs if that one ran, and has to come up: healthy, where something checks that. Else the old one is put back as it was.
    /// What was written outside volumes is not in the new one.
    ///
    /// # Errors
    /// `FailedPrecondition` for one that goes away by itself when it ends, or that other containers share namespaces with, and when
    /// the new one does not come up.
    pub fn replace_container(&self, wanted: &str, image: &ImageId, name: &str) -> Result<ContainerId, Error> {
        self.end_interrupted_replacements()?;
        let old = self.containers().find(wanted)?;
        self.can_be_replaced(&old)?;
        let new = self.twin_config(&old, image, name)?;
        let replacing = Replacing {
            old: old.config.id.clone(),
            new: new.id.clone(),
            name: old.config.name.clone(),
            ran: matches!(
                old.state.status,
                Status::Running | Status::Paused | Status::Restarting
            ),
        };
        let mut intent = self.write_down(&replacing)?;
        let fill = |folder: &Path| self.copy_secrets(&new, folder);
        self.containers().create(&new, &fill)?;
        self.tell(&Event::of(&new, "create"));
        if let Err(error) = self.put_in_place(&old, &new, replacing.ran) {
            self.put_back(&replacing)?;
            intent.end();
            return Err(error);
        }
        intent.is_done()?;
        self.take_away(&replacing)?;
        intent.end();
        Ok(new.id)
    }

    /// Ends replacements whose process was killed, one way or the other.
    ///
    /// # Errors
    /// When one cannot be ended.
    pub fn end_interrupted_replacements(&self) -> Result<(), Error> {
        let folder = self.replacing_folder();
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries.context(|| format!("list {}", folder.display()))?,
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with(UNSEEN) {
                continue;
            }
            let Ok(mut file) = fs::File::options().read(true).write(true).open(&path) else {
                continue;
            };
            if fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                // Whoever does it is at it still.
                continue;
            }
            // By the same file: to close another one would let go of the lock (fcntl_locking(2)).
            let mut text = String::new();
            let read = (&mut file).take(MOST_WRITTEN).read_to_string(&mut text);
            read.context(|| format!("read {}", path.display()))?;
            let replacing: Replacing = serde_json::from_str(&text).map_err(|error| {
                Error::because(ErrorKind::DataLoss, format!("read {}", path.display()), error)
            })?;
            let done = path.extension().is_some_and(|ending| ending == DONE);
            let ended = if done {
                self.take_away(&replacing)
            } else {
                self.put_back(&replacing)
            };
            ended.context(|| format!("end the replacement of {}, which was interrupted", replacing.name))?;
            Intent { path, _locked: file }.end();
        }
        Ok(())
    }

    fn replacing_folder(&self) -> PathBuf {
        self.settings().root.join("replacing")
    }

    fn write_down(&self, replacing: &Replacing) -> Result<Intent, Error> {
        let folder = self.replacing_folder();
        make_folder(&folder)?;
        let path = folder.join(replacing.old.as_str());
        let what = || format!("write {}", path.display());
        // Whole and locked before anybody sees it.
        let staged = folder.join(format!("{UNSEEN}{}-{}", replacing.new, std::process::id()));
        let bytes = serde_json::to_vec(replacing)
            .map_err(|error| Error::because(ErrorKind::Internal, what(), error))?;
        let mut file = fs::File::create_new(&staged).context(what)?;
        file.write_all(&bytes).context(what)?;
        // Not by flock(2): the monitor that a start forks would have it, too.
        fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(std::io::Error::from)
            .context(what)?;
        let linked = fs::hard_link(&staged, &path);
        drop(fs::remove_file(&staged));
        match linked {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let message = format!("container {} is being replaced already", replacing.name);
                Err(Error::new(ErrorKind::FailedPrecondition, message))
            }
            linked => {
                linked.context(what)?;
                Ok(Intent { path, _locked: file })
            }
        }
    }

    fn can_be_replaced(&self, old: &Container) -> Result<(), Error> {
        let no = |why: String| {
            let message = format!("container {} cannot be replaced: {why}", old.config.name);
            Err(Error::new(ErrorKind::FailedPrecondition, message))
        };
        if old.config.auto_remove {
            return no("it was started with --rm, and goes away when it ends".to_owned());
        }
        let id = old.config.id.as_str();
        for other in self.containers().list()? {
            if other.config.id != old.config.id && text_of(&other.config)?.contains(id) {
                return no(format!("{} shares something with it", other.config.name));
            }
        }
        Ok(())
    }

    /// A container like another, of another image, under a name of its own until it takes the other's place.
    fn twin_config(&self, old: &Container, image: &ImageId, name: &str) -> Result<Config, Error> {
        let image = self.image(&image.to_string())?;
        let id = ContainerId::from_random(super::name::random_bytes()?);
        // Paths have the id in them, such as that of the control group.
        let text = text_of(&old.config)?.replace(old.config.id.as_str(), id.as_str());
        let mut config: Config = serde_json::from_str(&text)
            .map_err(|error| Error::because(ErrorKind::Internal, "make the new container", error))?;
        if config.request.hostname == old.config.id.short() {
            id.short().clone_into(&mut config.request.hostname);
        }
        config.name = format!("{}-next-{}", old.config.name, &id.as_str()[..8]);
        config.created = format_time(SystemTime::now());
        config.image = image.id;
        config.platform = super::create::foreign(&image);
        config.manifest = ManifestRecord::of(&image);
        config.layers.clone_from(&image.config.rootfs.diff_ids);
        name.clone_into(&mut config.image_name);
        Ok(config)
    }

    fn put_in_place(&self, old: &Container, new: &Config, ran: bool) -> Result<(), Error> {
        let name = &old.config.name;
        if ran {
            self.stop(old.config.id.as_str(), None, None)
                .context(|| format!("stop the old {name}"))?;
        }
        self.rename_container(old.config.id.as_str(), &aside(old))?;
        self.rename_container(new.id.as_str(), name)?;
        if ran {
            self.start(new.id.as_str(), false)
                .context(|| format!("start the new {name}"))?;
            self.comes_up(new)?;
        }
        Ok(())
    }

    /// Waits until a new container runs as it should.
    fn comes_up(&self, new: &Config) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            let state = self.containers().find(new.id.as_str())?.state;
            let health = state.health.as_ref().map(|health| health.status);
            let failed = match (state.status, health) {
                (Status::Running, Some(HealthStatus::Healthy)) => return Ok(()),
                (Status::Running, None) if begun.elapsed() >= SETTLED => return Ok(()),
                (Status::Running, Some(HealthStatus::Unhealthy)) => Some("it is unhealthy".to_owned()),
                (Status::Running, Some(_)) if begun.elapsed() >= HEALTHY => {
                    Some(format!("it was not healthy within {} s", HEALTHY.as_secs()))
                }
                (Status::Running, _) => None,
                (status, _) => Some(format!("it is {} with code {}", status.as_str(), state.exit_code)),
            };
            if let Some(why) = failed {
                let message = format!("the new {} does not come up: {why}", new.name_in_place());
                return Err(Error::new(ErrorKind::FailedPrecondition, message));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Removes the old container; what it had reserved is the new one's.
    fn take_away(&self, replacing: &Replacing) -> Result<(), Error> {
        let old = match self.containers().find(replacing.old.as_str()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            old => old?,
        };
        if let Some(labels) = &old.config.request.selinux {
            crate::selinux::pass_on(&self.settings().root, &replacing.old, &replacing.new, labels)?;
        }
        self.remove_container(replacing.old.as_str(), true, false)
            .context(|| format!("remove the old {}", replacing.name))
    }

    /// As it was before, from wherever it was left.
    fn put_back(&self, replacing: &Replacing) -> Result<(), Error> {
        match self.remove_container(replacing.new.as_str(), true, false) {
            // It was not made yet.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            gone => gone.context(|| format!("remove the new {}", replacing.name))?,
        }
        let now = match self.containers().find(replacing.old.as_str()) {
            // Somebody has removed it.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            now => now?,
        };
        if now.config.name != replacing.name {
            self.rename_container(replacing.old.as_str(), &replacing.name)?;
        }
        if replacing.ran && !matches!(now.state.status, Status::Running | Status::Paused) {
            self.start(replacing.old.as_str(), false)
                .context(|| format!("start the old {} again", replacing.name))?;
        }
        Ok(())
    }
}

impl Config {
    /// The name that it has once it is in the place of another.
    fn name_in_place(&self) -> &str {
        let end = format!("-next-{}", &self.id.as_str()[..8]);
        self.name.strip_suffix(&end).unwrap_or(&self.name)
    }
}

fn text_of(config: &Config) -> Result<String, Error> {
    serde_json::to_string(config)
        .map_err(|error| Error::because(ErrorKind::Internal, "look at a container", error))
}

/// The name of the old container while the new one comes up.
fn aside(old: &Container) -> String {
    format!("{}-old-{}", old.config.name, &old.config.id.as_str()[..8])
}
