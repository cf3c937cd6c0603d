//! Namespaces of the spec: which are new, which are joined, whose ids are mapped, which clocks are moved.

use std::fmt::Write as _;
use std::path::PathBuf;

use dhow_oci::runtime::{Linux, Namespace as Wanted};
use dhow_types::ErrorKind;
use rustix::thread::UnshareFlags;

use crate::netdev::Device;
use crate::{Error, Namespace};

/// All kinds with their names in the spec.
const KINDS: [(&str, Namespace); 8] = [
    ("cgroup", Namespace::Cgroup),
    ("ipc", Namespace::Ipc),
    ("mount", Namespace::Mount),
    ("network", Namespace::Network),
    ("pid", Namespace::Pid),
    ("time", Namespace::Time),
    ("user", Namespace::User),
    ("uts", Namespace::Uts),
];

impl Namespace {
    /// The `CLONE_NEW*` flag.
    pub(crate) const fn flag(self) -> UnshareFlags {
        match self {
            Self::Cgroup => UnshareFlags::NEWCGROUP,
            Self::Ipc => UnshareFlags::NEWIPC,
            Self::Mount => UnshareFlags::NEWNS,
            Self::Network => UnshareFlags::NEWNET,
            Self::Pid => UnshareFlags::NEWPID,
            Self::Time => UnshareFlags::NEWTIME,
            Self::User => UnshareFlags::NEWUSER,
            Self::Uts => UnshareFlags::NEWUTS,
        }
    }

    /// Its name in the spec.
    pub(crate) fn name(self) -> &'static str {
        KINDS
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(name, _)| name)
    }
}

/// The namespaces of a container.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// Made new.
    pub(crate) new: UnshareFlags,
    /// Joined by path.
    pub(crate) join: Vec<(Namespace, PathBuf)>,
}

fn invalid<T>(message: impl Into<String>) -> Result<T, Error> {
    Err(Error::new(ErrorKind::InvalidArgument, message.into()))
}

impl Namespaces {
    pub(crate) fn parse(wanted: &[Wanted]) -> Result<Self, Error> {
        let mut found = Self {
            new: UnshareFlags::empty(),
            join: Vec::new(),
        };
        let mut seen = UnshareFlags::empty();
        for one in wanted {
            let Some((_, kind)) = KINDS.iter().find(|(name, _)| *name == one.kind) else {
                return invalid(format!("namespace {:?} does not exist", one.kind));
            };
            if seen.contains(kind.flag()) {
                return invalid(format!("malformed spec file: duplicated ns {:?}", one.kind));
            }
            seen |= kind.flag();
            match &one.path {
                Some(path) if !path.as_os_str().is_empty() => found.join.push((*kind, path.clone())),
                _ => found.new |= kind.flag(),
            }
        }
        Ok(found)
    }

    /// Those that are not the caller's: new or joined.
    pub(crate) fn own(&self) -> UnshareFlags {
        self.join
            .iter()
            .fold(self.new, |own, (kind, _)| own | kind.flag())
    }

    /// Checks that ids are mapped exactly for user namespaces.
    pub(crate) fn check_mappings(&self, linux: &Linux) -> Result<(), Error> {
        let (uids, gids) = (!linux.uid_mappings.is_empty(), !linux.gid_mappings.is_empty());
        if !self.own().contains(UnshareFlags::NEWUSER) {
            if uids || gids {
                return invalid(
                    "user namespace mappings specified, but user namespace isn't enabled in the config",
                );
            }
            return Ok(());
        }
        if self.new.contains(UnshareFlags::NEWUSER) && !(uids && gids) {
            let message =
                "user namespaces enabled, but no namespace path to join nor mappings to apply specified";
            return invalid(message);
        }
        Ok(())
    }

    /// The lines for `timens_offsets`; none when the clocks stay as they are.
    pub(crate) fn offsets(&self, linux: &Linux) -> Result<Option<String>, Error> {
        if linux.time_offsets.is_empty() {
            return Ok(None);
        }
        if !self.own().contains(UnshareFlags::NEWTIME) {
            let message = "time namespace offsets specified, but time namespace isn't enabled in the config";
            return invalid(message);
        }
        if !self.new.contains(UnshareFlags::NEWTIME) {
            let message = "time namespace enabled, but both namespace path and time offsets specified -- you may only \
                           provide one";
            return invalid(message);
        }
        let mut lines = String::new();
        for (clock, offset) in &linux.time_offsets {
            if !matches!(clock.as_str(), "monotonic" | "boottime") {
                return invalid(format!("time namespaces have no clock {clock:?}"));
            }
            if offset.nanosecs >= 1_000_000_000 {
                return invalid(format!(
                    "offset of clock {clock:?}: {} nanoseconds are more than a second",
                    offset.nanosecs
                ));
            }
            match writeln!(lines, "{clock} {} {}", offset.secs, offset.nanosecs) {
                // Writing to a string cannot fail.
                Ok(()) | Err(_) => {}
            }
        }
        Ok(Some(lines))
    }
}

/// The network devices that a container takes over.
pub(crate) fn devices(linux: &Linux, own: UnshareFlags) -> Result<Vec<Device>, Error> {
    if !linux.net_devices.is_empty() && !own.contains(UnshareFlags::NEWNET) {
        return invalid("unable to move network devices without a private NET namespace");
    }
    // dev_valid_name() in net/core/dev.c.
    let valid = |name: &str| {
        let wrong = |c: char| matches!(c, '/' | ':' | '\0') || c.is_ascii_whitespace();
        !name.is_empty() && name.len() < 16 && name != "." && name != ".." && !name.contains(wrong)
    };
    let mut found: Vec<Device> = Vec::with_capacity(linux.net_devices.len());
    for (name, device) in &linux.net_devices {
        let inside = device.name.as_deref().filter(|inside| !inside.is_empty());
        let inside = inside.unwrap_or(name);
        if let Some(wrong) = [name.as_str(), inside].iter().find(|name| !valid(name)) {
            return invalid(format!("invalid network device name {wrong:?}"));
        }
        if found.iter().any(|other| other.inside == inside) {
            return invalid(format!(
                "two network devices would be named {inside:?} in the container"
            ));
        }
        found.push(Device {
            name: name.clone(),
            inside: inside.to_owned(),
        });
    }
    Ok(found)
}
