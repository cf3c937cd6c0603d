//! A runtime spec, checked and compiled: nothing that can be known before the clone is left for the child.

pub(crate) mod capability;
mod device;
mod mount;
mod namespace;
pub(crate) mod program;
#[cfg(test)]
mod random;
mod share;
mod sysctl;
#[cfg(test)]
mod tests;

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use dhow_oci::runtime::{Hooks, IdMapping, Linux, Process, Seccomp, Spec};
use dhow_sys::stub::Handover;
use dhow_types::ErrorKind;
use rustix::mount::{MountAttrFlags, MountPropagationFlags as Propagation};
use rustix::thread::UnshareFlags;

pub(crate) use device::Node;
pub(crate) use mount::{Attributes, Bind, Ids, MountPlan, Parameter, Places, Source};
use namespace::Namespaces;
pub(crate) use program::{Filtered, Program};
pub(crate) use share::Share;
pub(crate) use sysctl::Sysctl;

use crate::container::resctrl::Class;
use crate::netdev::Device;
use crate::{Error, Namespace};

/// How plans are made.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Directory of compiled seccomp programs; none compiles each time.
    pub seccomp_cache: Option<PathBuf>,
    /// The bundle: what relative sources of mounts and `root.path` are relative to.
    pub bundle: Option<PathBuf>,
    /// How many descriptors from 3 on the program keeps.
    pub kept_fds: u32,
    /// Whether the program shares the caller's session keyring.
    pub shared_keyring: bool,
    /// Whether the program's terminal hands a newline on as it is, without a carriage return: for a caller that shows it on
    /// a terminal of its own, or reads it from a pipe.
    pub bare_newlines: bool,
    /// Whether the root is changed by chroot, for a host whose root is an initramfs: the host's tree stays below.
    pub no_pivot: bool,
    /// Whether the program keeps the supplementary groups of the caller, in place of those of the spec.
    pub keep_groups: bool,
    /// Whether a system call of the seccomp profile that the kernel has not is an error, and not passed over.
    pub known_calls: bool,
    /// Whether the agent that a seccomp profile names gets the listener even if no rule asks it (`SCMP_ACT_NOTIFY`).
    pub always_listen: bool,
}

/// A spec from which a container can be made any number of times.
#[derive(Debug)]
pub struct Plan {
    pub(crate) program: Program,
    /// Namespaces made new for the container.
    pub(crate) new: UnshareFlags,
    /// Namespaces joined by path.
    pub(crate) join: Vec<(Namespace, PathBuf)>,
    /// Whether it is in a user namespace that is not the caller's.
    users: bool,
    /// Whether it is in a mount namespace that is not the caller's.
    pub(crate) own_mounts: bool,
    /// Offsets of the clocks of a new time namespace.
    pub(crate) clocks: Option<String>,
    pub(crate) uid_mappings: Vec<IdMapping>,
    pub(crate) gid_mappings: Vec<IdMapping>,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    pub(crate) readonly_root: bool,
    pub(crate) root_propagation: Option<(Propagation, bool)>,
    /// Whether what the host mounts below the root appears in the container.
    pub(crate) slave_root: bool,
    pub(crate) mounts: Vec<MountPlan>,
    /// Whether /dev is the container's own, to be filled: not when the spec binds one there.
    pub(crate) fill_dev: bool,
    pub(crate) nodes: Vec<Node>,
    pub(crate) sysctls: Vec<Sysctl>,
    pub(crate) masked: Vec<PathBuf>,
    pub(crate) readonly: Vec<PathBuf>,
    /// Network devices to take over.
    pub(crate) devices: Vec<Device>,
    /// Trees of the caller's, by index of the mount that they are the source of.
    pub(crate) given: Vec<(usize, OwnedFd)>,
    pub(crate) hooks: Hooks,
    /// Its class of service in resctrl.
    pub(crate) class: Option<Class>,
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
        Self::of(spec, spec.process.as_ref(), settings)
    }

    /// The same with another process in place of the spec's.
    pub(crate) fn of(spec: &Spec, process: Option<&Process>, settings: &Settings) -> Result<Self, Error> {
        let mut plan = Self::without_filter(spec, process, settings)?;
        plan.program
            .put_filter(Filtered::compile(profile(spec), settings)?);
        Ok(plan)
    }

    /// The same without the filter, which can be compiled meanwhile.
    pub(crate) fn without_filter(
        spec: &Spec,
        process: Option<&Process>,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let Some(process) = process else {
            return Err(Error::new(ErrorKind::InvalidArgument, "spec has no process"));
        };
        let nothing = Linux::default();
        let linux = spec.linux.as_ref().unwrap_or(&nothing);
        let namespaces = Namespaces::parse(&linux.namespaces)?;
        namespaces.check_mappings(linux)?;
        let own = namespaces.own();
        let named = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        let (hostname, domainname) = (named(&spec.hostname), named(&spec.domainname));
        for (what, name) in [("hostname", &hostname), ("domainname", &domainname)] {
            if name.is_some() && !own.contains(UnshareFlags::NEWUTS) {
                let message = format!("unable to set {what} without a private UTS namespace");
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
        }
        let hidden = !linux.masked_paths.is_empty() || !linux.readonly_paths.is_empty();
        if hidden && !own.contains(UnshareFlags::NEWNS) {
            let message = "unable to restrict sys entries without a private MNT namespace";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let (label, unlabelled) = crate::lsm::mount_label(linux.mount_label.as_deref())?;
        let mounts = mounts(spec, settings, own, label)?;
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
        let mut program = Program::prepare(process, settings)?
            .with_share(Share::parse(process, linux, false)?)
            .with_landlock(&spec.annotations)?;
        program.warnings.extend(
            mounts
                .iter()
                .filter_map(|mount| mount.warning.clone())
                .chain(unlabelled),
        );
        Ok(Self {
            program,
            given: Vec::new(),
            context: mount::context(label)?,
            own_mounts: own.contains(UnshareFlags::NEWNS),
            users: own.contains(UnshareFlags::NEWUSER),
            clocks: namespaces.offsets(linux)?,
            new: namespaces.new,
            join: namespaces.join,
            uid_mappings: linux.uid_mappings.clone(),
            gid_mappings: linux.gid_mappings.clone(),
            hostname: hostname.clone(),
            domainname: domainname.clone(),
            readonly_root: spec.root.as_ref().is_some_and(|root| root.readonly),
            root_propagation: root_propagation(linux)?,
            slave_root: matches!(linux.rootfs_propagation.as_deref(), Some("slave" | "rslave")),
            mounts,
            fill_dev,
            nodes: device::nodes(&linux.devices)?,
            sysctls: sysctl::sysctls(&linux.sysctl, own, hostname.as_deref(), domainname.as_deref())?,
            masked: inside(&linux.masked_paths)?,
            readonly: inside(&linux.readonly_paths)?,
            devices: namespace::devices(linux, own)?,
            hooks: crate::hooks::checked(spec.hooks.as_ref())?,
            class: linux.intel_rdt.as_ref().map(Class::parse).transpose()?,
            no_pivot: settings.no_pivot,
        })
    }

    /// The same with a first process of ours, called `name`, between the kernel and the program: it reaps what others leave
    /// behind, sends signals on, and ends as the program does ([`Handover::Init`]). It is no file of the host or the
    /// container, so there is none to write over (CVE-2019-5736).
    ///
    /// # Errors
    /// `InvalidArgument` for a name with a null byte.
    pub fn with_init(mut self, name: &str) -> Result<Self, Error> {
        let mut argv = vec![text(name, "name of the first process")?, c"--".to_owned()];
        argv.extend_from_slice(self.program.argv.strings());
        self.program.argv = dhow_sys::exec::Vector::new(argv);
        self.program.handover = Handover::Init {
            word: crate::report::Step::Init as u32,
        };
        Ok(self)
    }

    /// The user of the host to whom the container's v2 control group belongs: that of its process, where it sees that
    /// group as its root and may write there (runtime-spec `config-linux.md`, "Cgroup ownership"). None without a mapping
    /// of users: nobody else's group is for a process of the host.
    pub(crate) fn owner_of_groups(&self) -> Option<u32> {
        let writable = |mount: &MountPlan| {
            matches!(mount.source, Source::Cgroup(_))
                && !mount
                    .attributes
                    .raised
                    .contains(MountAttrFlags::MOUNT_ATTR_RDONLY)
        };
        let own = self.new.contains(UnshareFlags::NEWUSER | UnshareFlags::NEWCGROUP);
        if !own || !self.mounts.iter().any(writable) {
            return None;
        }
        let uid = self.program.uid.as_raw();
        self.uid_mappings.iter().find_map(|mapping| {
            let offset = uid.checked_sub(mapping.container_id)?;
            (offset < mapping.size).then(|| mapping.host_id.checked_add(offset))?
        })
    }

    /// Whether a network namespace of this process' making can be the container's new one: in a new user namespace it would
    /// have the wrong owner.
    pub(crate) fn lends_network(&self) -> bool {
        self.new.contains(UnshareFlags::NEWNET) && !self.has_users()
    }

    /// Whether the container has a user namespace of its own, new or joined.
    pub(crate) fn has_users(&self) -> bool {
        self.users
    }
}

/// The profile of the spec's filter.
pub(crate) fn profile(spec: &Spec) -> Option<&Seccomp> {
    spec.linux.as_ref()?.seccomp.as_ref()
}

fn mounts(
    spec: &Spec,
    settings: &Settings,
    own: UnshareFlags,
    label: Option<&str>,
) -> Result<Vec<MountPlan>, Error> {
    let bundle = settings.bundle.as_deref();
    let root = spec.root.as_ref().map(|root| match bundle {
        Some(bundle) => bundle.join(&root.path),
        None => root.path.clone(),
    });
    let places = Places {
        bundle,
        root: root.filter(|root| root.is_absolute()),
        users: own.contains(UnshareFlags::NEWUSER),
    };
    let mounts = spec
        .mounts
        .iter()
        .map(|mount| MountPlan::parse(mount, label, &places))
        .collect::<Result<Vec<_>, _>>()?;
    let covers =
        |mount: &MountPlan| mount.target.as_os_str().is_empty() && !matches!(mount.source, Source::Remount);
    if mounts.iter().skip(1).any(covers) {
        let message = "a mount that covers the root file system must be the first";
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(mounts)
}

/// What the container's root mount gets. It is a private mount to begin with, or a slave when that is asked for.
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
pub(crate) fn text(text: &str, what: &str) -> Result<CString, Error> {
    bytes(text.as_bytes(), what)
}
