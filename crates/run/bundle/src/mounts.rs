//! What is mounted in a container, in order: docker's own mounts, then the person's and the generated files by depth.

use std::path::{Path, PathBuf};

use dhow_oci::runtime::Mount;

use crate::check::{inside, invalid, no_nul, shown};
use crate::{
    BindMount, Error, GeneratedFile, Host, MountRequest, NamespaceMode, Propagation, Request, Submounts,
    TmpfsMount,
};

/// The attributes that a person can give a bind mount.
const ATTRIBUTES: [&str; 8] = [
    "exec", "noexec", "suid", "nosuid", "dev", "nodev", "idmap", "ridmap",
];

/// All mounts of the container.
pub(crate) fn mounts(request: &Request, host: &Host) -> Result<Vec<Mount>, Error> {
    let mut wanted = Vec::with_capacity(request.mounts.len() + request.files.len() + 1);
    for mount in &request.mounts {
        let made = match mount {
            MountRequest::Bind(bind) => bind_mount(bind, host)?,
            MountRequest::Tmpfs(tmpfs) => tmpfs_mount(tmpfs)?,
        };
        if wanted
            .iter()
            .any(|other: &Mount| other.destination == made.destination)
        {
            return Err(invalid(format!(
                "duplicate mount point {}",
                made.destination.display()
            )));
        }
        wanted.push(made);
    }
    // A person's mount of /etc/hosts and the like goes before the generated file.
    for file in &request.files {
        let mut made = file_mount(file)?;
        if request.mapped_files {
            made.options.push("idmap".to_owned());
        }
        if !wanted.iter().any(|other| other.destination == made.destination) {
            wanted.push(made);
        }
    }
    if let Some(init) = &request.init
        && let Some(program) = &init.program
    {
        wanted.push(file_mount(&GeneratedFile {
            source: program.clone(),
            destination: init.place.clone(),
            read_only: true,
        })?);
    }
    let mut out = defaults(request, host);
    out.retain(|own| !wanted.iter().any(|other| other.destination == own.destination));
    wanted.sort_by_key(|mount| mount.destination.components().count());
    out.extend(wanted);
    Ok(out)
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: PathBuf::from(destination),
        kind: Some(kind.to_owned()),
        source: Some(PathBuf::from(source)),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    }
}

/// Docker's mounts (moby `oci/defaults.go`).
fn defaults(request: &Request, host: &Host) -> Vec<Mount> {
    let namespaces = &request.namespaces;
    let confined = host.rootless || namespaces.user.0 != NamespaceMode::Host;
    // A namespace that belongs to another user namespace is as the host's: in a new one, each that is joined.
    let foreign = |mode: &NamespaceMode| match mode {
        NamespaceMode::Host => confined,
        NamespaceMode::Path(_) => namespaces.user.0 == NamespaceMode::Private,
        NamespaceMode::Private => false,
    };
    let access: &[&str] = if request.privileged { &[] } else { &["ro"] };
    let with = |fixed: &[&'static str]| [fixed, access].concat();
    let mut out = Vec::with_capacity(8);
    // procfs and sysfs belong to the user namespace that owns the PID or network namespace: where a container in a
    // user namespace shares those with the host, it may only bind what the host has.
    out.push(if foreign(&namespaces.pid) {
        mount("/proc", "bind", "/proc", &["rbind", "nosuid", "noexec", "nodev"])
    } else {
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])
    });
    let written: &[&str] = if request.read_only_dev { &["ro"] } else { &[] };
    let memory = ["nosuid", "strictatime", "mode=755", "size=65536k"];
    out.push(mount("/dev", "tmpfs", "tmpfs", &[&memory, written].concat()));
    let mut terminals = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    // Group 5 (tty) cannot own the terminals where it is not mapped.
    if !confined
        || request
            .gid_mappings
            .iter()
            .any(|map| map.container_id <= 5 && 5 - map.container_id < map.size)
    {
        terminals.push("gid=5");
    }
    out.push(mount("/dev/pts", "devpts", "devpts", &terminals));
    out.push(if foreign(&namespaces.net) {
        mount(
            "/sys",
            "bind",
            "/sys",
            &with(&["rbind", "nosuid", "noexec", "nodev"]),
        )
    } else {
        mount("/sys", "sysfs", "sysfs", &with(&["nosuid", "noexec", "nodev"]))
    });
    // Read-only unless privileged: CVE-2023-25809.
    let own = host.cgroup_v2
        && request.own_cgroups
        && matches!(namespaces.cgroup, None | Some(NamespaceMode::Private));
    let mut cgroup = if own { Vec::new() } else { access.to_vec() };
    cgroup.extend(["nosuid", "noexec", "nodev"]);
    out.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &cgroup));
    if foreign(&namespaces.ipc) {
        out.push(mount(
            "/dev/mqueue",
            "bind",
            "/dev/mqueue",
            &["bind", "nosuid", "noexec", "nodev"],
        ));
    } else {
        out.push(mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        ));
    }
    if !request.no_shm {
        out.push(shared_memory(request));
    }
    out
}

/// `/dev/shm` goes with the IPC namespace: the host's where that is shared. With another container's, the caller
/// gives a mount, which then takes the place of this one.
fn shared_memory(request: &Request) -> Mount {
    if request.namespaces.ipc == NamespaceMode::Host {
        return mount("/dev/shm", "bind", "/dev/shm", &["rbind", "rprivate"]);
    }
    let size = format!("size={}", request.shm_size);
    let mut options = vec!["nosuid", "noexec", "nodev", "mode=1777", &size];
    if request.read_only_dev {
        options.push("ro");
    }
    mount("/dev/shm", "tmpfs", "shm", &options)
}

fn destination(path: &Path) -> Result<PathBuf, Error> {
    inside(path, "mount point")?;
    // Components without `.`, doubled or trailing slashes, so that equal places are equal paths.
    let clean: PathBuf = path.components().collect();
    if clean == Path::new("/") {
        return Err(invalid("a mount point cannot be /").with_hint("mount below it"));
    }
    Ok(clean)
}

fn source(path: &Path) -> Result<PathBuf, Error> {
    if !path.is_absolute() {
        return Err(invalid(format!(
            "mount source {:?} is not absolute",
            shown(&path.to_string_lossy())
        )));
    }
    no_nul(&path.to_string_lossy(), "mount source")?;
    Ok(path.to_owned())
}

fn bind_mount(bind: &BindMount, host: &Host) -> Result<Mount, Error> {
    let along = bind.submounts != Submounts::Disabled;
    let mut options = vec![if along { "rbind" } else { "bind" }];
    if bind.read_only {
        options.push("ro");
        // mount_setattr(2) makes the mounts below read-only too; docker does so since 25.0.
        let possible = host.kernel >= (5, 12);
        match bind.submounts {
            Submounts::ReadOnly if !possible => {
                let message = format!(
                    "mount {}: this kernel cannot make the mounts below read-only",
                    bind.destination.display()
                );
                return Err(invalid(message).with_hint("it takes Linux 5.12, or bind-recursive=writable"));
            }
            Submounts::Enabled | Submounts::ReadOnly if possible => options.push("rro"),
            _ => {}
        }
    }
    options.push(bind.propagation.option());
    for option in &bind.options {
        if !ATTRIBUTES.contains(&option.as_str()) {
            return Err(invalid(format!(
                "{:?} is no option of a bind mount",
                shown(option)
            )));
        }
        options.push(option);
    }
    let (from, to) = (source(&bind.source)?, destination(&bind.destination)?);
    let mut out = mount("/", "bind", "", &options);
    (out.source, out.destination) = (Some(from), to);
    Ok(out)
}

fn file_mount(file: &GeneratedFile) -> Result<Mount, Error> {
    let options: &[&str] = if file.read_only {
        &["bind", "ro", "rprivate"]
    } else {
        &["bind", "rprivate"]
    };
    let mut out = mount("/", "bind", "", options);
    (out.source, out.destination) = (Some(source(&file.source)?), destination(&file.destination)?);
    Ok(out)
}

fn tmpfs_mount(tmpfs: &TmpfsMount) -> Result<Mount, Error> {
    let mut options: Vec<String> = ["noexec", "nosuid", "nodev", "rprivate"]
        .map(str::to_owned)
        .into();
    for option in &tmpfs.options {
        add_tmpfs_option(&mut options, option)?;
    }
    let mut out = mount("/", "tmpfs", "tmpfs", &[]);
    (out.destination, out.options) = (destination(&tmpfs.destination)?, options);
    Ok(out)
}

/// A later option takes the place of an earlier one about the same thing (moby `MergeTmpfsOptions`).
fn add_tmpfs_option(options: &mut Vec<String>, option: &str) -> Result<(), Error> {
    const GROUPS: [&[&str]; 10] = [
        &["exec", "noexec"],
        &["suid", "nosuid"],
        &["dev", "nodev"],
        &["ro", "rw"],
        &["sync", "async"],
        &["atime", "noatime"],
        &["diratime", "nodiratime"],
        &["relatime", "norelatime", "strictatime", "nostrictatime"],
        &["private", "rprivate", "shared", "rshared", "slave", "rslave"],
        &["tmpcopyup", "notmpcopyup"],
    ];
    const KEYS: [&str; 6] = ["gid", "mode", "mpol", "nr_blocks", "nr_inodes", "size"];
    let key = option.split_once('=').map(|(key, _)| key);
    match (GROUPS.iter().find(|group| group.contains(&option)), key) {
        (Some(group), _) => options.retain(|other| !group.contains(&other.as_str())),
        (None, Some(key)) if KEYS.contains(&key) || key == "uid" => {
            options.retain(|other| other.split_once('=').map(|(key, _)| key) != Some(key));
        }
        _ => {
            return Err(invalid(format!("{:?} is no tmpfs option", shown(option)))
                .with_hint("such as size=64m, mode=1777, exec, uid=1000"));
        }
    }
    if option.chars().any(|c| c.is_control() || c == ',') {
        return Err(invalid(format!(
            "tmpfs option {:?} has a comma or control characters",
            shown(option)
        )));
    }
    // It takes the other one back; the kernel knows neither.
    if option != "notmpcopyup" {
        options.push(option.to_owned());
    }
    Ok(())
}

impl Propagation {
    /// Its mount option.
    const fn option(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Rprivate => "rprivate",
            Self::Rshared => "rshared",
            Self::Rslave => "rslave",
            Self::Shared => "shared",
            Self::Slave => "slave",
        }
    }
}

/// Propagation of the root that the mounts need: a shared or slave mount below a private root would be private.
pub(crate) fn root_propagation(request: &Request) -> Option<String> {
    let mut wanted = None;
    for mount in &request.mounts {
        let MountRequest::Bind(bind) = mount else { continue };
        match bind.propagation {
            Propagation::Rshared | Propagation::Shared => return Some("shared".to_owned()),
            Propagation::Rslave | Propagation::Slave => wanted = Some("rslave".to_owned()),
            Propagation::Private | Propagation::Rprivate => {}
        }
    }
    wanted
}
