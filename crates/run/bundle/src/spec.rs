use std::path::PathBuf;

use dhow_oci::runtime::{ConsoleSize, Device, Linux, Namespace, Process, Root, Seccomp, Spec, User};
use dhow_seccomp::{Arch, default_profile};
use serde::{Deserialize, Serialize};

use crate::check::{inside, invalid, no_nul, one_line, shown};
use crate::command::{name_of, put};
use crate::{Error, NamespaceMode, Request, SeccompChoice, capability, mounts, resources, sysctl};

/// Version of the runtime spec that the documents follow.
const OCI_VERSION: &str = "1.2.1";

/// `PATH` when neither image nor person says (docker).
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Paths that docker hides (moby `oci/defaults.go`).
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths that docker protects.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What the spec must know of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Whether control groups are version 2 only.
    pub cgroup_v2: bool,
    /// Whether the engine is not root.
    pub rootless: bool,
    /// Kernel version, `(6, 1)`.
    pub kernel: (u32, u32),
}

/// The runtime spec of a container.
///
/// # Errors
/// `InvalidArgument` names the flag's value and what is allowed.
pub fn spec(request: &Request, host: &Host) -> Result<Spec, Error> {
    one_line(&request.hostname, "host name", 64)?;
    one_line(&request.domainname, "domain name", 64)?;
    let bounding = capability::bounding(
        &request.cap_add,
        &request.cap_drop,
        request.privileged,
        host.kernel,
    )?;
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    Ok(Spec {
        oci_version: OCI_VERSION.to_owned(),
        process: Some(process(request, &bounding)?),
        root: Some(Root {
            path: request.rootfs.clone(),
            readonly: request.read_only,
        }),
        // The names of the host are not the container's to set.
        hostname: some(&request.hostname).filter(|_| request.namespaces.uts == NamespaceMode::Private),
        domainname: some(&request.domainname).filter(|_| request.namespaces.uts == NamespaceMode::Private),
        mounts: mounts::mounts(request, host)?,
        annotations: request.annotations.clone(),
        linux: Some(linux(request, host, &bounding)?),
        ..Spec::default()
    })
}

fn process(request: &Request, bounding: &[String]) -> Result<Process, Error> {
    let identity = &request.identity;
    let cwd = if request.cwd.as_os_str().is_empty() {
        PathBuf::from("/")
    } else {
        request.cwd.clone()
    };
    inside(&cwd, "working directory")?;
    if let Some(score) = request
        .oom_score_adj
        .filter(|score| !(-1000..=1000).contains(score))
    {
        return Err(invalid(format!(
            "OOM score adjustment {score} is not between -1000 and 1000"
        )));
    }
    // The primary group is a supplementary one too: a process that could drop it would escape modes that shut the
    // group out (CVE-2022-36109).
    let mut groups = vec![identity.gid];
    for group in identity.groups.iter().chain(&request.extra_groups) {
        if !groups.contains(group) {
            groups.push(*group);
        }
    }
    Ok(Process {
        terminal: request.tty,
        console_size: request
            .console_size
            .map(|(height, width)| ConsoleSize { height, width }),
        user: User {
            uid: identity.uid,
            gid: identity.gid,
            additional_gids: groups,
            umask: request.umask,
            ..User::default()
        },
        args: arguments(request)?,
        env: environment(request)?,
        cwd,
        capabilities: Some(capability::sets(bounding, identity.uid)),
        rlimits: resources::rlimits(&request.ulimits)?,
        no_new_privileges: request.no_new_privileges,
        apparmor_profile: request
            .apparmor
            .clone()
            .filter(|name| !name.is_empty() && name != "unconfined"),
        oom_score_adj: request.oom_score_adj,
        selinux_label: request
            .selinux
            .as_ref()
            .map(|labels| labels.process.clone())
            .filter(|label| !label.is_empty()),
        ..Process::default()
    })
}

fn arguments(request: &Request) -> Result<Vec<String>, Error> {
    if request.args.is_empty() {
        return Err(invalid("no command specified")
            .with_hint("name a program, or use an image that has CMD or ENTRYPOINT"));
    }
    request
        .args
        .iter()
        .try_for_each(|word| no_nul(word, "argument"))?;
    let mut out = Vec::with_capacity(request.args.len() + 2);
    if let Some(init) = request.init.as_ref().filter(|init| init.program.is_some()) {
        out.extend([init.place.to_string_lossy().into_owned(), "--".to_owned()]);
    }
    out.extend(request.args.iter().cloned());
    Ok(out)
}

/// Docker's variables, then those of the request over them, then `HOME` if still missing (as runc sets it).
fn environment(request: &Request) -> Result<Vec<String>, Error> {
    let mut out = Vec::with_capacity(request.env.len() + 4);
    if !request.bare_env {
        out.push(DEFAULT_PATH.to_owned());
    }
    if !request.hostname.is_empty() {
        out.push(format!("HOSTNAME={}", request.hostname));
    }
    if request.tty && !request.bare_env {
        out.push("TERM=xterm".to_owned());
    }
    for entry in &request.env {
        no_nul(entry, "environment variable")?;
        if name_of(entry).is_empty() || !entry.contains('=') {
            return Err(invalid(format!(
                "environment variable {:?} is not NAME=value",
                shown(entry)
            )));
        }
        put(&mut out, entry);
    }
    if !out.iter().any(|entry| name_of(entry) == "HOME") {
        one_line(&request.identity.home, "home directory", 4096)?;
        out.push(format!("HOME={}", request.identity.home));
    }
    Ok(out)
}

fn linux(request: &Request, host: &Host, bounding: &[String]) -> Result<Linux, Error> {
    let paths = |wanted: &Option<Vec<PathBuf>>, usual: &[&str], what| match wanted {
        Some(paths) => paths
            .iter()
            .try_for_each(|path| inside(path, what))
            .map(|()| paths.clone()),
        None if request.privileged => Ok(Vec::new()),
        None => Ok(usual.iter().map(PathBuf::from).collect()),
    };
    Ok(Linux {
        uid_mappings: request.uid_mappings.clone(),
        gid_mappings: request.gid_mappings.clone(),
        sysctl: sysctl::sysctls(request, host)?,
        resources: Some(resources::resources(request)?),
        cgroups_path: (!request.cgroup_path.is_empty()).then(|| request.cgroup_path.clone()),
        namespaces: namespaces(request, host)?,
        devices: devices(request)?,
        seccomp: seccomp(request, host, bounding)?,
        rootfs_propagation: mounts::root_propagation(request),
        masked_paths: paths(&request.masked_paths, &MASKED, "masked path")?,
        readonly_paths: paths(&request.readonly_paths, &READ_ONLY, "read-only path")?,
        mount_label: request
            .selinux
            .as_ref()
            .map(|labels| labels.mount.clone())
            .filter(|label| !label.is_empty()),
        ..Linux::default()
    })
}

fn seccomp(request: &Request, host: &Host, bounding: &[String]) -> Result<Option<Seccomp>, Error> {
    let arch = Arch::host();
    Ok(match &request.seccomp {
        SeccompChoice::Default if request.privileged => None,
        SeccompChoice::Default => Some(default_profile(arch, bounding, host.kernel)),
        SeccompChoice::Profile(profile) => Some((**profile).clone()),
        SeccompChoice::Conditional(profile) => Some(
            profile
                .resolve(arch, bounding, host.kernel)
                .map_err(|error| Error::wrap(error, "resolve the seccomp profile"))?,
        ),
        SeccompChoice::Unconfined => None,
    })
}

fn namespaces(request: &Request, host: &Host) -> Result<Vec<Namespace>, Error> {
    let wanted = &request.namespaces;
    // Docker's choice: v1 shows the host's groups read-only, since a v1 namespace hides too little to matter.
    let usual = if host.cgroup_v2 {
        NamespaceMode::Private
    } else {
        NamespaceMode::Host
    };
    let cgroup = wanted.cgroup.as_ref().unwrap_or(&usual);
    if wanted.user.0 == NamespaceMode::Private
        && (request.uid_mappings.is_empty() || request.gid_mappings.is_empty())
    {
        return Err(invalid("a user namespace needs mappings of user and group ids"));
    }
    let all = [
        ("mount", &NamespaceMode::Private),
        ("network", &wanted.net),
        ("uts", &wanted.uts),
        ("pid", &wanted.pid),
        ("ipc", &wanted.ipc),
        ("user", &wanted.user.0),
        ("cgroup", cgroup),
    ];
    let mut out = Vec::with_capacity(all.len());
    for (kind, mode) in all {
        let path = match mode {
            NamespaceMode::Host => continue,
            NamespaceMode::Path(path) => {
                inside(path, "namespace")?;
                Some(path.clone())
            }
            NamespaceMode::Private => None,
        };
        out.push(Namespace {
            kind: kind.to_owned(),
            path,
        });
    }
    Ok(out)
}

/// The nodes asked for; the runtime adds the default ones (runtime-spec `config-linux.md`, "Default Devices").
fn devices(request: &Request) -> Result<Vec<Device>, Error> {
    request
        .devices
        .iter()
        .map(|device| {
            inside(&device.path, "device")?;
            if !matches!(device.kind.as_str(), "b" | "c") {
                return Err(invalid(format!(
                    "{:?} is no type of device: use b or c",
                    shown(&device.kind)
                )));
            }
            Ok(Device {
                kind: device.kind.clone(),
                path: device.path.clone(),
                major: device.major.into(),
                minor: device.minor.into(),
                file_mode: Some(device.mode & 0o7777),
                uid: Some(device.uid),
                gid: Some(device.gid),
            })
        })
        .collect()
}

#[cfg(test)]
#[path = "spec/tests.rs"]
mod tests;
