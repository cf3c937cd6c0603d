//! `rm` and `container prune`.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use dhow_types::{ContainerId, ErrorKind, Failures};

use super::folder::Container;
use super::record::{Config, State, Status};
use crate::event::{Event, EventKind};
use crate::{Context as _, Engine, Error};

impl Engine {
    /// Removes a container; a running one only by `force`. With `volumes`, those without a name go too.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when it runs and `force` is not given.
    pub fn remove_container(&self, wanted: &str, force: bool, volumes: bool) -> Result<(), Error> {
        let id = self.containers().find(wanted)?.config.id;
        let Some(_lock) = self.lock_ended(wanted, &id, force)? else {
            // It was to go by itself when it ended (`--rm`).
            return Ok(());
        };
        match self.containers().load(&id) {
            Ok(container) => self.erase(&container, volumes || container.config.auto_remove),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Holds a container that does not run: with `force` what runs is ended. None when it went by itself.
    ///
    /// Its state is asked for again as long as somebody has the lock: that may be a start whose command was killed, and then
    /// it runs as long as its program does.
    fn lock_ended(&self, wanted: &str, id: &ContainerId, force: bool) -> Result<Option<OwnedFd>, Error> {
        loop {
            let container = match self.containers().load(id) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            let status = container.state.status;
            if matches!(status, Status::Running | Status::Paused | Status::Restarting) {
                if !force {
                    let message = format!(
                        "cannot remove container \"/{}\": container is {}: stop the container before removing or force remove",
                        container.config.name,
                        status.as_str()
                    );
                    return Err(Error::new(ErrorKind::FailedPrecondition, message));
                }
                if status == Status::Paused {
                    self.unpause(wanted)?;
                }
                self.stop(wanted, Some("KILL"), None)?;
            }
            if !self.containers().folder(id).exists() {
                return Ok(None);
            }
            if let Some(lock) = self.containers().try_lock(id)? {
                return Ok(Some(lock));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Takes away all that a container left. The caller holds its lock. Every step is tried; "already gone" is done.
    pub(super) fn erase(&self, container: &Container, volumes: bool) -> Result<(), Error> {
        let config = &container.config;
        let mut failures = Failures::new();
        failures.record("release its networks", self.release(config, &container.state));
        failures.record("remove its snapshot", self.remove_snapshot(config));
        if let Some(labels) = &config.request.selinux {
            let released = crate::selinux::release(&self.settings().root, &config.id, labels);
            failures.record("release its categories", released);
        }
        failures.record("remove its folder", self.containers().remove(container));
        failures.record("remove its ID file", super::extras::remove_cidfile(config));
        if volumes {
            for mount in config.mounts.iter().filter(|mount| mount.anonymous) {
                let gone = self.remove_unused_volume(mount.name.as_deref().unwrap_or(""));
                failures.record("remove its volume", gone);
            }
        }
        let removed = failures.into_result();
        if removed.is_ok() {
            self.tell(&Event::of(config, "destroy"));
        }
        removed.map_err(|failures| Error::wrap(failures, format!("remove container {}", config.id.short())))
    }

    fn remove_unused_volume(&self, name: &str) -> Result<(), Error> {
        if !self.volume_users(name)?.is_empty() {
            return Ok(());
        }
        self.remove_volume(name)
    }

    fn remove_snapshot(&self, config: &Config) -> Result<(), Error> {
        let folder = self.settings().root.join("snapshots");
        for key in super::trees::keys(config) {
            if folder.join(&key).exists() {
                self.store()?
                    .snapshots
                    .remove(&key)
                    .context(|| "remove the container's snapshot")?;
            }
        }
        Ok(())
    }

    /// Takes apart what a launch made: a program that lost its monitor before its start was told, places in networks and the
    /// control group.
    pub(super) fn release(&self, config: &Config, state: &State) -> Result<(), Error> {
        let mut failures = Failures::new();
        failures.record("end its program", super::stop::end_newborn(state));
        failures.record("leave the networks", self.leave_networks(config, state));
        failures.record("remove the control group", self.remove_group(config));
        failures
            .into_result()
            .map_err(|failures| Error::wrap(failures, "release what the container held"))
    }

    /// Leaves the networks that the record names, and those that a launch had joined when it was killed before it wrote that down.
    fn leave_networks(&self, config: &Config, state: &State) -> Result<(), Error> {
        if state.endpoints.is_empty() && config.networks.is_empty() {
            return Ok(());
        }
        let mut failures = Failures::new();
        failures.record("leave the networks of plugins", self.leave_cni(&config.id, None));
        let networks = self.networks()?;
        let mut endpoints = state.endpoints.clone();
        for found in networks.endpoints_of(&config.id).context(|| "find its places")? {
            if endpoints.iter().all(|known| known.veth != found.veth) {
                endpoints.push(found);
            }
        }
        for endpoint in &endpoints {
            let detached = networks.detach(endpoint).context(|| endpoint.network.clone());
            failures.record("leave the network", detached);
        }
        for attachment in &config.networks {
            let asked = [attachment.ip.map(IpAddr::V4), attachment.ip6.map(IpAddr::V6)];
            for ip in asked.into_iter().flatten() {
                let given = networks.give_back(&attachment.network, &config.id, ip);
                failures.record(
                    "give an address back",
                    given.context(|| attachment.network.clone()),
                );
            }
        }
        failures
            .into_result()
            .map_err(|failures| Error::wrap(failures, "leave the networks"))
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// `NotFound`; `AlreadyExists` for a name in use; `InvalidArgument` for one that cannot be.
    pub fn rename_container(&self, wanted: &str, name: &str) -> Result<(), Error> {
        let container = self.containers().find(wanted)?;
        self.containers().rename(&container, name)?;
        let mut config = container.config;
        let old = std::mem::replace(
            &mut config.name,
            name.strip_prefix('/').unwrap_or(name).to_owned(),
        );
        self.tell(&Event::of(&config, "rename").with("oldName", format!("/{old}")));
        Ok(())
    }

    /// Removes containers that do not run; those removed, with the bytes that this freed.
    ///
    /// # Errors
    /// What a removal said.
    pub fn prune_containers(&self) -> Result<Vec<(Container, u64)>, Error> {
        let mut removed = Vec::new();
        for container in self.containers().list()? {
            if container.config.extras.infra {
                // It goes with its pod.
                continue;
            }
            if matches!(
                container.state.status,
                Status::Created | Status::Exited | Status::Dead
            ) {
                let bytes = self.container_size(&container.config.id);
                self.remove_container(container.config.id.as_str(), false, false)?;
                removed.push((container, bytes));
            }
        }
        let bytes: u64 = removed.iter().map(|(_, bytes)| bytes).sum();
        self.tell(&Event::now(EventKind::Container, "prune", "").with("reclaimed", bytes));
        Ok(removed)
    }

    /// Bytes that a container's own changes take on disk; of a plain copy of its image, all of it.
    #[must_use]
    pub fn container_size(&self, id: &ContainerId) -> u64 {
        let snapshots = self.settings().root.join("snapshots");
        let folder = snapshots.join(id.as_str());
        ["upper", "tree"]
            .iter()
            .map(|part| crate::system::tree_size(&folder.join(part)))
            .sum()
    }
}
