//! A container in the place of another: the same in everything but its image.

use std::time::{Duration, Instant, SystemTime};

use dhow_monitor::{HealthStatus, format_time};
use dhow_types::{ContainerId, ErrorKind, ImageId};

use super::folder::Container;
use super::record::{Config, Status};
use crate::event::Event;
use crate::{Context as _, Engine, Error};

/// How long a new container has to keep running, when nothing checks its health, before the old one goes.
const SETTLED: Duration = Duration::from_secs(1);

/// How long a new container may take to become healthy, beyond what its checks need by themselves.
const HEALTHY: Duration = Duration::from_secs(120);

impl Engine {
    /// Makes a container of `image` that is otherwise like `wanted`, with its volumes, networks, name and ports, and removes that one.
    /// It runs if that one ran, and has to come up: healthy, where something checks that. Else the old one is put back as it was.
    /// What was written outside volumes is not in the new one.
    ///
    /// # Errors
    /// `FailedPrecondition` for one that goes away by itself when it ends, or that other containers share namespaces with, and when
    /// the new one does not come up.
    pub fn replace_container(&self, wanted: &str, image: &ImageId, name: &str) -> Result<ContainerId, Error> {
        let old = self.containers().find(wanted)?;
        self.can_be_replaced(&old)?;
        let new = self.twin(&old, image, name)?;
        let ran = matches!(
            old.state.status,
            Status::Running | Status::Paused | Status::Restarting
        );
        let outcome = self.put_in_place(&old, &new, ran);
        if outcome.is_err() {
            self.put_back(&old, &new, ran)?;
        }
        outcome?;
        if let Some(labels) = &old.config.request.selinux {
            crate::selinux::pass_on(&self.settings().root, &old.config.id, &new.id, labels)?;
        }
        self.remove_container(old.config.id.as_str(), true, false)
            .context(|| format!("remove the old {}", old.config.name))?;
        Ok(new.id)
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

    /// A new container like another, of another image, under a name of its own for now.
    fn twin(&self, old: &Container, image: &ImageId, name: &str) -> Result<Config, Error> {
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
        config.layers.clone_from(&image.config.rootfs.diff_ids);
        name.clone_into(&mut config.image_name);
        let fill = |folder: &std::path::Path| self.copy_secrets(&config, folder);
        self.containers().create(&config, &fill)?;
        self.tell(&Event::of(&config, "create"));
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

    /// As it was before, as far as that can be had.
    fn put_back(&self, old: &Container, new: &Config, ran: bool) -> Result<(), Error> {
        let gone = self.remove_container(new.id.as_str(), true, false);
        let now = self.containers().find(old.config.id.as_str())?;
        if now.config.name != old.config.name {
            self.rename_container(old.config.id.as_str(), &old.config.name)?;
        }
        if ran && !matches!(now.state.status, Status::Running | Status::Paused) {
            self.start(old.config.id.as_str(), false)
                .context(|| format!("start the old {} again", old.config.name))?;
        }
        gone.context(|| format!("remove the new {}", old.config.name))
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
