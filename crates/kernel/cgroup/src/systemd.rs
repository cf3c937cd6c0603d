//! The systemd driver: a group as a transient unit, which systemd makes, limits and removes.
//!
//! Where systemd owns the tree of groups, it may move or forget what others make in it; a unit with `Delegate=yes` is
//! the part that it leaves alone. The unit is asked for over D-Bus, by a small blocking client of our own ([`Bus`]):
//! nothing of it is loaded or connected unless a caller asks for this driver. cgroup v2 only.

mod bus;
mod property;
mod stand_in;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dhow_oci::runtime::Resources;
use dhow_types::ErrorKind;

pub use bus::Bus;
pub use property::from_annotations;
pub use stand_in::StandIn;
pub use wire::{Property, Value};

use crate::{Context as _, Error, Group, Place};

/// Whether systemd runs this host (sd_booted(3)).
#[must_use]
pub fn running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Version that is assumed of a systemd that does not say it: that of Debian 11.
const OLDEST: u32 = 247;

/// `cpu.max` of a new group.
const NO_QUOTA: &str = "max 100000";

/// The unit of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    name: String,
    slice: String,
    user: bool,
}

impl Unit {
    /// The unit that `cgroupsPath` names as `slice:prefix:name` (runc's `--systemd-cgroup`): `prefix-name.scope` in
    /// the slice. Without a path it is `runc-<id>.scope` in `system.slice`, or in `user.slice` for a `user`'s systemd.
    ///
    /// # Errors
    /// `InvalidArgument` for another form.
    pub fn parse(cgroups_path: Option<&str>, id: &str, user: bool) -> Result<Self, Error> {
        let own = if user { "user.slice" } else { "system.slice" };
        let path = cgroups_path.unwrap_or_default();
        let (slice, prefix, name) = if path.is_empty() {
            ("", "runc", id)
        } else {
            let parts: Vec<&str> = path.split(':').collect();
            let &[slice, prefix, name] = parts.as_slice() else {
                let shown: String = path.chars().take(256).collect();
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    format!(
                        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {shown:?} instead"
                    ),
                ));
            };
            (slice, prefix, name)
        };
        let slice = if slice.is_empty() { own } else { slice };
        expand(slice)?;
        let name = if name.ends_with(".slice") {
            name.to_owned()
        } else {
            format!("{prefix}-{name}.scope")
        };
        check_name(&name)?;
        Ok(Self {
            name,
            slice: slice.to_owned(),
            user,
        })
    }

    /// Its name, such as `crio-1234.scope`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its group is, below the root of the tree.
    ///
    /// # Errors
    /// Those of asking a user's systemd for its own group.
    pub fn path(&self, bus: &mut Bus) -> Result<PathBuf, Error> {
        let mut path = PathBuf::from("/");
        if self.user {
            path.push(bus.own_text("ControlGroup")?.trim_start_matches('/'));
        }
        path.push(expand(&self.slice)?.trim_start_matches('/'));
        path.push(&self.name);
        Ok(path)
    }

    /// Starts the unit with a process in it: systemd makes no scope without one. The process may be a [`StandIn`] until
    /// the container's own are there.
    ///
    /// # Errors
    /// `AlreadyExists` when it runs; `Unsupported` without cgroup v2; what systemd or the kernel refuse.
    pub fn start(
        &self,
        bus: &mut Bus,
        resources: &Resources,
        annotations: &BTreeMap<String, String>,
        pid: u32,
    ) -> Result<Group, Error> {
        crate::hierarchy::only_unified()?;
        let version = version(bus);
        let resources = &property::settled(resources, NO_QUOTA);
        let mut properties = self.birth(pid);
        properties.extend(property::limits(resources, version)?);
        properties.extend(property::oom_policy(resources, version));
        // Last, so that they win.
        properties.extend(from_annotations(annotations)?);
        let place = Place::absolute(&self.path(bus)?)?;
        self.check_place(&place)?;
        self.launch(bus, &properties)?;
        let group = Group::open_at(&place);
        let group = group.and_then(|group| {
            group.enable_offered();
            group.update(resources).map(|()| group)
        });
        if group.is_err() {
            // The first failure is the one to report.
            drop(bus.stop(&self.name));
        }
        group.context(|| format!("set up the systemd unit {}", self.name))
    }

    /// Sees that nobody is where the unit's group will be: systemd would only say that it knows the unit, and a process that it
    /// puts into a frozen group never comes to be a container. A slice is there for others, too.
    fn check_place(&self, place: &Place) -> Result<(), Error> {
        if self.name.ends_with(".slice") {
            return Ok(());
        }
        match Group::open_at(place) {
            Ok(group) => group.check_unused(),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What every unit is told.
    fn birth(&self, pid: u32) -> Vec<Property> {
        let text = |name: &str, text: &str| (name.to_owned(), Value::Text(text.to_owned()));
        let truth = |name: &str, value| (name.to_owned(), Value::Bool(value));
        let mut out = vec![text("Description", &format!("container {}", self.name))];
        if self.name.ends_with(".slice") {
            out.push(("Wants".to_owned(), Value::Texts(vec![self.slice.clone()])));
        } else {
            out.push(text("Slice", &self.slice));
            out.push(truth("Delegate", true));
            out.push(("PIDs".to_owned(), Value::Numbers(vec![pid])));
        }
        // Without accounting systemd enables no controller.
        for name in [
            "MemoryAccounting",
            "CPUAccounting",
            "IOAccounting",
            "TasksAccounting",
        ] {
            out.push(truth(name, true));
        }
        out.push(truth("DefaultDependencies", false));
        out
    }

    fn launch(&self, bus: &mut Bus, properties: &[Property]) -> Result<(), Error> {
        let mut result = bus.start_transient(&self.name, properties);
        if result
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::AlreadyExists)
        {
            // A unit that failed keeps its name until somebody has seen it.
            drop(bus.reset_failed(&self.name));
            result = bus.start_transient(&self.name, properties);
        }
        let result = result.context(|| format!("unable to start unit {:?}", self.name))?;
        if result == "done" {
            return Ok(());
        }
        drop(bus.reset_failed(&self.name));
        let message = format!("error creating systemd unit `{}`: got `{result}`", self.name);
        Err(Error::new(ErrorKind::FailedPrecondition, message))
    }

    /// Changes limits: systemd's idea of them first, then the files.
    ///
    /// # Errors
    /// What systemd or the kernel refuse.
    pub fn update(&self, bus: &mut Bus, group: &Group, resources: &Resources) -> Result<(), Error> {
        group.check_usage(resources)?;
        let resources = &property::settled(resources, &group.cpu_max());
        let properties = property::limits(resources, version(bus))?;
        bus.set_properties(&self.name, &properties)
            .context(|| format!("unable to set unit properties of {}", self.name))?;
        group.update(resources)
    }

    /// Has systemd move a process into the unit, or into the group `below` it: what a user may not do with a process
    /// of their login session.
    ///
    /// # Errors
    /// `InvalidArgument` for a path that leads out; what systemd refuses.
    pub fn attach(&self, bus: &mut Bus, below: &Path, pid: u32) -> Result<(), Error> {
        let below = if below.as_os_str().is_empty() || below == Path::new("/") {
            "/".to_owned()
        } else {
            format!("/{}", crate::place::relative(below)?.display())
        };
        bus.attach(&self.name, &below, &[pid])
            .context(|| format!("move process {pid} into the systemd unit {}", self.name))
    }

    /// Stops the unit and removes its groups; one that is gone counts as stopped.
    ///
    /// # Errors
    /// When systemd does not answer, or processes stay.
    pub fn stop(&self, bus: &mut Bus) -> Result<(), Error> {
        let path = self.path(bus)?;
        match bus.stop(&self.name) {
            // However the job ended: whether the groups go decides.
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // A unit that is not failed has nothing to reset.
        drop(bus.reset_failed(&self.name));
        match Place::absolute(&path).and_then(|place| Group::open_at(&place)) {
            Ok(group) => group.delete(),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A message as text, for the crate `dhow-fuzz`.
#[cfg(feature = "fuzz")]
pub(crate) fn read_message(bytes: &[u8]) -> String {
    let length = bytes.first_chunk().map(wire::length);
    let arguments = wire::Message::decode(bytes).and_then(|message| message.arguments());
    format!("{length:?}{arguments:?}")
}

fn version(bus: &mut Bus) -> u32 {
    let text = bus.own_text("Version").unwrap_or_default();
    parse_version(&text).unwrap_or(OLDEST)
}

/// `v257.4-1.fc42`, `252`, `"v245"`.
fn parse_version(text: &str) -> Option<u32> {
    let text = text.trim_start_matches(['"', 'v']);
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// systemd's path of a slice: `a-b.slice` is `/a.slice/a-b.slice`, and `-.slice` the root.
fn expand(slice: &str) -> Result<String, Error> {
    let bad = || {
        let shown: String = slice.chars().take(256).collect();
        Error::new(ErrorKind::InvalidArgument, format!("invalid slice name: {shown}"))
    };
    check_name(slice).map_err(|_| bad())?;
    let stem = slice
        .strip_suffix(".slice")
        .filter(|stem| !stem.is_empty())
        .ok_or_else(bad)?;
    if stem == "-" {
        return Ok("/".to_owned());
    }
    let mut path = String::new();
    let mut prefix = String::new();
    for part in stem.split('-') {
        if part.is_empty() {
            return Err(bad());
        }
        prefix.push_str(part);
        path.push_str(&format!("/{prefix}.slice"));
        prefix.push('-');
    }
    Ok(path)
}

/// A unit's name: 255 bytes at most, of the characters that systemd.unit(5) allows.
fn check_name(name: &str) -> Result<(), Error> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\' | '@');
    if (1..=255).contains(&name.len()) && name.chars().all(fine) && !name.starts_with('.') {
        return Ok(());
    }
    let shown: String = name.chars().take(256).collect();
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!("{shown:?} is no name of a systemd unit"),
    ))
}
