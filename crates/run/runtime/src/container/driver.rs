//! Who makes, changes and removes a container's control group: this program, or systemd as a unit.

use dhow_cgroup::systemd::{self, Bus, StandIn, Unit};
use dhow_cgroup::{Group, Place};
use dhow_oci::runtime::{Resources, Spec};
use dhow_types::ErrorKind;
use serde::{Deserialize, Serialize};

use super::create::{Options, WithoutGroup, resources};
use crate::{Context as _, Error, Plan};

/// A systemd that makes control groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Systemd {
    /// That of the machine.
    System,
    /// That of a user, behind the session bus of this address (`unix:path=/run/user/1000/bus`).
    User(String),
}

impl Systemd {
    /// The unit that a spec names.
    ///
    /// # Errors
    /// `InvalidArgument` for a `cgroupsPath` that is not `slice:prefix:name`.
    fn unit(&self, spec: &Spec, id: &str) -> Result<Unit, Error> {
        let path = spec
            .linux
            .as_ref()
            .and_then(|linux| linux.cgroups_path.as_deref());
        let user = matches!(self, Self::User(_));
        Unit::parse(path, id, user).context(|| "name the container's systemd unit")
    }

    fn bus(&self) -> Result<Bus, Error> {
        match self {
            Self::System => Bus::system(),
            Self::User(address) => Bus::user(address),
        }
        .context(|| "ask systemd for the control group")
    }

    /// Starts the unit, with a process that stands in for the container's first.
    fn start(&self, spec: &Spec, id: &str, limits: &Resources) -> Result<(Group, StandIn), Error> {
        if !systemd::running() {
            let message = "systemd not running on this host, cannot use systemd cgroups manager";
            return Err(Error::new(ErrorKind::Unsupported, message)
                .with_hint("leave out --systemd-cgroup (--cgroup-manager=cgroupfs with podman)"));
        }
        let unit = self.unit(spec, id)?;
        let mut bus = self.bus()?;
        let stand_in = StandIn::fork().context(|| "start the container's systemd unit")?;
        let group = unit.start(&mut bus, limits, &spec.annotations, stand_in.pid());
        Ok((group.context(|| "start the container's systemd unit")?, stand_in))
    }

    /// Changes the unit's limits, which systemd would write again else, and the group's.
    pub(super) fn update(
        &self,
        spec: &Spec,
        id: &str,
        group: &Group,
        limits: &Resources,
    ) -> Result<(), Error> {
        let unit = self.unit(spec, id)?;
        unit.update(&mut self.bus()?, group, limits)
            .context(|| "update the container's limits")
    }

    /// Stops the unit, and removes its groups; one that is gone counts as stopped.
    pub(super) fn stop(&self, spec: &Spec, id: &str) -> Result<(), Error> {
        let unit = self.unit(spec, id)?;
        unit.stop(&mut self.bus()?)
            .context(|| format!("stop the systemd unit {}", unit.name()))
    }
}

/// A control group, as it is made.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// None for a container that runs in the group of its starter.
    pub(super) group: Option<Group>,
    /// Keeps the unit alive until the container's first process is in it.
    pub(super) stand_in: Option<StandIn>,
}

/// The container's control group, where its spec says, and whose the plan says.
pub(super) fn make(spec: &Spec, id: &str, plan: &Plan, options: &Options) -> Result<Made, Error> {
    let made = make_of_root(spec, id, options)?;
    let given = match (&made.group, plan.owner_of_groups()) {
        (Some(group), Some(owner)) => give(group, owner),
        _ => Ok(()),
    };
    match given {
        Ok(()) => Ok(made),
        Err(error) => {
            // The first failure is the one to tell.
            if let Some(group) = made.group {
                drop(remove(options.systemd.as_ref(), spec, id, group));
            }
            Err(error)
        }
    }
}

/// Gives the group to a user, unless version 1 is in use. A caller who is none but a user may only keep it, and the standard
/// leaves that to the runtime.
fn give(group: &Group, owner: u32) -> Result<(), Error> {
    if group.v2_fd().is_none() || group.directories().count() != 1 {
        return Ok(());
    }
    match group.delegate(owner) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied && dhow_cgroup::rootless() => Ok(()),
        given => given.context(|| "give the control group to the container's user"),
    }
}

fn make_of_root(spec: &Spec, id: &str, options: &Options) -> Result<Made, Error> {
    if options.without_group == WithoutGroup::Wanted {
        return Ok(Made::default());
    }
    let linux = spec.linux.as_ref();
    let limits = resources(linux.and_then(|linux| linux.resources.as_ref()));
    if let Some(systemd) = &options.systemd {
        let (group, stand_in) = systemd.start(spec, id, &limits)?;
        return Ok(Made {
            group: Some(group),
            stand_in: Some(stand_in),
        });
    }
    let group = place(spec, id).and_then(|place| Group::create_at(&place, &limits));
    match group.context(|| "make the control group of the container")? {
        None if !allowed(options.without_group) => {
            let message = "unable to apply cgroup configuration: permission denied";
            Err(Error::new(ErrorKind::PermissionDenied, message))
        }
        group => Ok(Made {
            group,
            stand_in: None,
        }),
    }
}

/// Whether a container may be without a group.
fn allowed(without: WithoutGroup) -> bool {
    match without {
        WithoutGroup::Refused => false,
        WithoutGroup::WhereReadOnly => dhow_cgroup::read_only(),
        WithoutGroup::Allowed | WithoutGroup::Wanted => true,
    }
}

/// Removes a group the way it was made.
pub(super) fn remove(systemd: Option<&Systemd>, spec: &Spec, id: &str, group: Group) -> Result<(), Error> {
    match systemd {
        Some(systemd) => systemd.stop(spec, id),
        None => group.delete().context(|| "remove the control group"),
    }
}

/// Where the container's control group is to be, when this program makes it.
pub(super) fn place(spec: &Spec, id: &str) -> Result<Place, dhow_cgroup::Error> {
    let linux = spec.linux.as_ref();
    Place::parse(linux.and_then(|linux| linux.cgroups_path.as_deref()), id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(path: &str) -> Spec {
        let text = format!(r#"{{"ociVersion": "1.2.0", "linux": {{"cgroupsPath": "{path}"}}}}"#);
        Spec::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_spec_names_the_unit_for_the_driver_of_the_record() {
        let unit = Systemd::System
            .unit(&spec("machine.slice:libpod:abc"), "id")
            .unwrap();
        assert_eq!(unit.name(), "libpod-abc.scope");
        let user = Systemd::User("unix:path=/run/user/1000/bus".to_owned());
        assert_eq!(user.unit(&spec(""), "id").unwrap().name(), "runc-id.scope");
        let error = Systemd::System.unit(&spec("/a/b"), "id").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        for (driver, text) in [
            (Systemd::System, r#""system""#),
            (user, r#"{"user":"unix:path=/run/user/1000/bus"}"#),
        ] {
            assert_eq!(serde_json::to_string(&driver).unwrap(), text);
            assert_eq!(serde_json::from_str::<Systemd>(text).unwrap(), driver);
        }
    }

    #[test]
    fn nobody_on_the_bus_is_an_error_that_says_where_it_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bus");
        let driver = Systemd::User(format!("unix:path={}", path.display()));
        let error = driver.stop(&spec("user.slice:a:b"), "id").unwrap_err();
        let shown = chain(&error);
        assert!(shown.contains("systemd"), "{shown}");
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    }

    fn chain(error: &Error) -> String {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            text.push_str(&format!(": {inner}"));
            cause = inner.source();
        }
        text
    }
}
