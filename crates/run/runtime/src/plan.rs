//! A runtime spec, checked and compiled: nothing that can be known before the clone is left for the child.

pub(crate) mod capability;
mod device;
mod mount;
pub(crate) mod program;
mod share;
mod sysctl;
#[cfg(test)]
mod tests;

use std::ffi::CString;
use std::path::{Path, PathBuf};

use dhow_oci::runtime::{Hooks, IdMapping, Linux, Namespace as Wanted, Spec};
use dhow_types::ErrorKind;
use rustix::mount::MountPropagationFlags as Propagation;
use rustix::thread::UnshareFlags;

pub(crate) use device::Node;
pub(crate) use mount::{MountPlan, Parameter, Source};
pub(crate) use program::Program;
pub(crate) use share::Share;
pub(crate) use sysctl::Sysctl;

use crate::{Error, Namespace};

/// How plans are made.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Directory of compiled seccomp programs; none compiles each time.
    pub seccomp_cache: Option<PathBuf>,
    /// How many descriptors from 3 on the program keeps.
    pub kept_fds: u32,
    /// Whether the program shares the caller's session keyring.
    pub shared_keyring: bool,
    /// Whether the root is changed by chroot, for a host whose root is an initramfs: the host's tree stays below.
    pub no_pivot: bool,
}

/// A spec from which a container can be made any number of times.
#[derive(Debug)]
pub struct Plan {
    pub(crate) program: Program,
    /// Namespaces made new for the container.
    pub(crate) new: UnshareFlags,
    /// Namespaces joined by path.
    pub(crate) join: Vec<(Namespace, PathBuf)>,
    pub(crate) uid_mappings: Vec<IdMapping>,
    pub(crate) gid_mappings: Vec<IdMapping>,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    pub(crate) readonly_root: bool,
    pub(crate) root_propagation: Option<(Propagation, bool)>,
    pub(crate) mounts: Vec<MountPlan>,
    /// Whether /dev is the container's own, to be filled: not when the spec binds one there.
    pub(crate) fill_dev: bool,
    pub(crate) nodes: Vec<Node>,
    pub(crate) sysctls: Vec<Sysctl>,
    pub(crate) masked: Vec<PathBuf>,
    pub(crate) readonly: Vec<PathBuf>,
    pub(crate) hooks: Hooks,
    pub(crate) no_pivot: bool,
    /// The option that labels all of a file system: none, or `context=`.
    pub(crate) context: Vec<Parameter>,
}

impl Plan {
    /// Compiles a spec.
    ///
    /// `root.path`, `linux.cgroupsPath` and `linux.resources` are the caller's part: see
    /// [`Create`](crate::Create). Properties that the spec does not know are ignored, as it demands ("Extensibility").
    ///
    /// # Errors
    /// `InvalidArgument` for what the spec forbids, `Unsupported` for what this runtime or host cannot do.
    pub fn prepare(spec: &Spec, settings: &Settings) -> Result<Self, Error> {
        let Some(process) = &spec.process else {
            return Err(Error::new(ErrorKind::InvalidArgument, "spec has no process"));
        };
        let nothing = Linux::default();
        let linux = spec.linux.as_ref().unwrap_or(&nothing);
        refuse_unsupported(linux)?;
        let (new, join) = namespaces(&linux.namespaces)?;
        mappings(linux, new)?;
        let own = join.iter().fold(new, |own, (kind, _)| own | kind.flag());
        if (spec.hostname.is_some() || spec.domainname.is_some()) && !own.contains(UnshareFlags::NEWUTS) {
            let message = "unable to set hostname without a private UTS namespace";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let label = crate::lsm::selinux(linux.mount_label.as_deref())?;
        let mounts = spec
            .mounts
            .iter()
            .map(|mount| MountPlan::parse(mount, label))
            .collect::<Result<Vec<_>, _>>()?;
        let dev = Path::new("dev");
        let fill_dev = !mounts
            .iter()
            .any(|m| m.target == dev && matches!(m.source, Source::Bind { .. }));
        let inside = |paths: &[PathBuf]| {
            paths
                .iter()
                .map(|path| mount::target(path))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            program: Program::prepare(process, linux.seccomp.as_ref(), settings)?
                .with_share(Share::parse(process, linux, false)?),
            context: mount::context(label)?,
            new,
            join,
            uid_mappings: linux.uid_mappings.clone(),
            gid_mappings: linux.gid_mappings.clone(),
            hostname: spec.hostname.clone(),
            domainname: spec.domainname.clone(),
            readonly_root: spec.root.as_ref().is_some_and(|root| root.readonly),
            root_propagation: root_propagation(linux)?,
            mounts,
            fill_dev,
            nodes: device::nodes(&linux.devices)?,
            sysctls: sysctl::sysctls(&linux.sysctl, own)?,
            masked: inside(&linux.masked_paths)?,
            readonly: inside(&linux.readonly_paths)?,
            hooks: crate::hooks::checked(spec.hooks.as_ref())?,
            no_pivot: settings.no_pivot,
        })
    }

    /// Whether the container has a user namespace of its own.
    pub(crate) fn has_users(&self) -> bool {
        self.new.contains(UnshareFlags::NEWUSER)
    }
}

impl Namespace {
    /// The `CLONE_NEW*` flag.
    pub(crate) const fn flag(self) -> UnshareFlags {
        match self {
            Self::Cgroup => UnshareFlags::NEWCGROUP,
            Self::Ipc => UnshareFlags::NEWIPC,
            Self::Mount => UnshareFlags::NEWNS,
            Self::Network => UnshareFlags::NEWNET,
            Self::Pid => UnshareFlags::NEWPID,
            Self::User => UnshareFlags::NEWUSER,
            Self::Uts => UnshareFlags::NEWUTS,
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "cgroup" => Self::Cgroup,
            "ipc" => Self::Ipc,
            "mount" => Self::Mount,
            "network" => Self::Network,
            "pid" => Self::Pid,
            "user" => Self::User,
            "uts" => Self::Uts,
            _ => return None,
        })
    }

    /// Why a namespace of this kind cannot be joined at create, if so.
    pub(crate) fn refuse_join(self) -> Result<(), Error> {
        match self {
            Self::Mount | Self::User => {
                let message =
                    format!("creating a container in an existing {self:?} namespace is not supported");
                Err(Error::new(ErrorKind::Unsupported, message))
            }
            _ => Ok(()),
        }
    }
}

fn refuse_unsupported(linux: &Linux) -> Result<(), Error> {
    let fields = [
        ("intelRdt", linux.intel_rdt.is_some()),
        ("netDevices", !linux.net_devices.is_empty()),
        ("timeOffsets", !linux.time_offsets.is_empty()),
    ];
    if let Some((field, _)) = fields.iter().find(|(_, used)| *used) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("linux.{field} is not supported"),
        ));
    }
    Ok(())
}

fn namespaces(wanted: &[Wanted]) -> Result<(UnshareFlags, Vec<(Namespace, PathBuf)>), Error> {
    let (mut new, mut join, mut seen) = (UnshareFlags::empty(), Vec::new(), UnshareFlags::empty());
    for one in wanted {
        let Some(kind) = Namespace::parse(&one.kind) else {
            let unknown = if one.kind == "time" {
                ErrorKind::Unsupported
            } else {
                ErrorKind::InvalidArgument
            };
            return Err(Error::new(
                unknown,
                format!("namespace of type {:?} is not supported", one.kind),
            ));
        };
        if seen.contains(kind.flag()) {
            let message = format!("namespace of type {:?} is given twice", one.kind);
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        seen |= kind.flag();
        match &one.path {
            Some(path) if !path.as_os_str().is_empty() => {
                kind.refuse_join()?;
                join.push((kind, path.clone()));
            }
            _ => new |= kind.flag(),
        }
    }
    if !new.contains(UnshareFlags::NEWNS) {
        let message = "a container without a mount namespace of its own is not supported";
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok((new, join))
}

fn mappings(linux: &Linux, new: UnshareFlags) -> Result<(), Error> {
    let users = new.contains(UnshareFlags::NEWUSER);
    let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    if mapped && !users {
        let message = "user namespace mappings specified, but the user namespace isn't enabled";
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    if users && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty()) {
        let message = "user namespace enabled, but no user mappings found";
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(())
}

/// What the container's root mount gets. It is a private mount to begin with, so `private` and `slave` change nothing.
fn root_propagation(linux: &Linux) -> Result<Option<(Propagation, bool)>, Error> {
    Ok(match linux.rootfs_propagation.as_deref() {
        None | Some("" | "private" | "rprivate" | "slave" | "rslave") => None,
        Some("shared") => Some((Propagation::SHARED, false)),
        Some("rshared") => Some((Propagation::SHARED, true)),
        Some("unbindable") => Some((Propagation::UNBINDABLE, false)),
        Some("runbindable") => Some((Propagation::UNBINDABLE, true)),
        Some(other) => {
            let message = format!("unknown rootfsPropagation {other:?}");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
    })
}

/// Bytes of the spec as a C string.
fn bytes(bytes: &[u8], what: &str) -> Result<CString, Error> {
    CString::new(bytes).map_err(|_| {
        Error::new(
            ErrorKind::InvalidArgument,
            format!("{what} has a null byte in it"),
        )
    })
}

/// Text of the spec as a C string.
fn text(text: &str, what: &str) -> Result<CString, Error> {
    bytes(text.as_bytes(), what)
}
