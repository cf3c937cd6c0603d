use std::collections::BTreeMap;
use std::path::PathBuf;

use dhow_oci::Labels;
use dhow_oci::runtime::{IdMapping, Seccomp, Throttle};
use serde::{Deserialize, Serialize};

use crate::Identity;

/// Size of `/dev/shm` when nobody says: 64 MiB, as docker.
pub const SHM_SIZE: u64 = 64 << 20;

/// Everything that a container is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// Path of the root file system for the spec's `root.path`.
    pub rootfs: PathBuf,
    /// Program and arguments: what [`command`](crate::command) gives.
    pub args: Vec<String>,
    /// Environment, `NAME=value`: what [`merge_env`](crate::merge_env) gives.
    pub env: Vec<String>,
    /// Whether the program gets no variables but those.
    pub bare_env: bool,
    /// Who it runs as.
    pub identity: Identity,
    /// Groups to add (`--group-add`), already numbers.
    pub extra_groups: Vec<u32>,
    /// Working directory; `/` when empty.
    pub cwd: PathBuf,
    /// Host name in the UTS namespace; none when empty.
    pub hostname: String,
    /// NIS domain name; none when empty.
    pub domainname: String,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Rows and columns of the terminal.
    pub console_size: Option<(u16, u16)>,
    /// Mounts of the person, in the order given; the spec sorts them by depth as docker does.
    pub mounts: Vec<MountRequest>,
    /// Files that the engine generates and binds (hosts, resolv.conf, hostname).
    pub files: Vec<GeneratedFile>,
    /// Whether the files' owners are ids of the container's user namespace: they are mounted with its mappings.
    pub mapped_files: bool,
    /// Limits.
    pub limits: Limits,
    /// Bytes of `/dev/shm`.
    pub shm_size: u64,
    /// Resource limits (`--ulimit`).
    pub ulimits: Vec<Ulimit>,
    /// Capabilities to add: `ALL`, names with or without `CAP_`.
    pub cap_add: Vec<String>,
    /// Capabilities to drop: `ALL`, names with or without `CAP_`.
    pub cap_drop: Vec<String>,
    /// All rights of the host's root.
    pub privileged: bool,
    /// Whether the root file system may not be written.
    pub read_only: bool,
    /// Whether `/dev` and `/dev/shm` may not be written.
    pub read_only_dev: bool,
    /// Whether execve may not give rights.
    pub no_new_privileges: bool,
    /// System call filter.
    pub seccomp: SeccompChoice,
    /// AppArmor profile; the host's default when absent.
    pub apparmor: Option<String>,
    /// SELinux labels.
    pub selinux: Option<SelinuxLabels>,
    /// Paths to hide instead of docker's.
    pub masked_paths: Option<Vec<PathBuf>>,
    /// Paths to protect instead of docker's.
    pub readonly_paths: Option<Vec<PathBuf>>,
    /// Device nodes to give (`--device`), resolved.
    pub devices: Vec<Device>,
    /// Device rules (`--device-cgroup-rule`): `c 1:3 rwm`.
    pub device_rules: Vec<String>,
    /// Kernel settings of the container's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Adjustment of the OOM killer's score, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Whether it has no `/dev/shm`.
    pub no_shm: bool,
    /// Whether it may divide its own control group, as a systemd in it does: only with version 2, and a control group
    /// namespace of its own.
    pub own_cgroups: bool,
    /// Bits that files of its program do not get; 022 when absent.
    pub umask: Option<u32>,
    /// Which namespaces are its own.
    pub namespaces: Namespaces,
    /// User ids of its user namespace.
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of its user namespace.
    pub gid_mappings: Vec<IdMapping>,
    /// A first process between the kernel and the program (`--init`).
    pub init: Option<Init>,
    /// Path of the control group.
    pub cgroup_path: String,
    /// Free strings for the spec.
    pub annotations: Labels,
}

/// A first process, which reaps what others leave behind and sends signals on to the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    /// Where it is in the container: `/sbin/docker-init` with docker, `/run/podman-init` with podman.
    pub place: PathBuf,
    /// The host's path of its program, which is bound there. Without, it is the runtime's own, which is no file: nothing is
    /// mounted, and the spec does not know it.
    pub program: Option<PathBuf>,
}

impl Init {
    /// What the runtime's own is called among processes.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.place.file_name().unwrap_or(self.place.as_os_str());
        name.to_string_lossy().into_owned()
    }
}

/// One mount that a person asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum MountRequest {
    /// A path of the host; a volume is one too, once it is found.
    Bind(BindMount),
    /// Memory.
    Tmpfs(TmpfsMount),
}

impl MountRequest {
    /// Where it is in the container.
    #[must_use]
    pub fn destination(&self) -> &std::path::Path {
        match self {
            Self::Bind(bind) => &bind.destination,
            Self::Tmpfs(tmpfs) => &tmpfs.destination,
        }
    }
}

/// A path of the host in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BindMount {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub destination: PathBuf,
    /// Whether the container may not write it.
    pub read_only: bool,
    /// What becomes of the mounts below the source.
    pub submounts: Submounts,
    /// How later mounts travel.
    pub propagation: Propagation,
    /// Attributes: `noexec`, `nosuid`, `nodev` and their opposites.
    pub options: Vec<String>,
}

/// What becomes of mounts below the source of a bind (`bind-recursive` of `--mount`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Submounts {
    /// They come along, read-only with it where the kernel has that (Linux 5.12).
    #[default]
    Enabled,
    /// They stay where they are.
    Disabled,
    /// They come along, and can be written though the mount cannot.
    Writable,
    /// They come along read-only, or nothing does.
    ReadOnly,
}

/// Memory as a file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TmpfsMount {
    /// Absolute path in the container.
    pub destination: PathBuf,
    /// Options as `--tmpfs` takes them (`size=64m`, `exec`, `mode=1777`); docker's defaults come first.
    pub options: Vec<String>,
}

/// How mounts made later on one side appear on the other (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Propagation {
    /// Not at all, without the mounts below.
    Private,
    /// Not at all.
    #[default]
    Rprivate,
    /// Both ways, without the mounts below.
    Shared,
    /// Both ways.
    Rshared,
    /// From the host only, without the mounts below.
    Slave,
    /// From the host only.
    Rslave,
}

/// A file that the engine wrote for the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GeneratedFile {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub destination: PathBuf,
    /// Whether the container may not write it.
    pub read_only: bool,
}

/// Limits of the control group, in docker's units.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; -1 means swap without limit. Twice the memory when absent.
    pub memory_swap: Option<i64>,
    /// Bytes that the kernel tries to keep the group below.
    pub memory_reservation: Option<u64>,
    /// 0 to 100.
    pub memory_swappiness: Option<u64>,
    /// Whether the OOM killer is off (v1 only).
    pub oom_kill_disable: Option<bool>,
    /// Billionths of a CPU (`--cpus`).
    pub nano_cpus: Option<u64>,
    /// Relative weight, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// Microseconds in a period.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds of real-time scheduling in a period (v1 only).
    pub realtime_runtime: Option<i64>,
    /// Microseconds (v1 only).
    pub realtime_period: Option<u64>,
    /// CPUs, `0-3,5`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    pub cpuset_mems: Option<String>,
    /// Processes and threads; -1 or 0 means no limit.
    pub pids: Option<i64>,
    /// Relative weight of block devices, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Bytes a second read, by device.
    pub read_bps: Vec<Throttle>,
    /// Bytes a second written, by device.
    pub write_bps: Vec<Throttle>,
    /// Operations a second read, by device.
    pub read_iops: Vec<Throttle>,
    /// Operations a second written, by device.
    pub write_iops: Vec<Throttle>,
}

/// One resource limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// `nofile`, `nproc` and so on.
    pub name: String,
    /// In force; -1 means no limit.
    pub soft: i64,
    /// Ceiling; -1 means no limit.
    pub hard: i64,
}

/// Which filter a container gets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeccompChoice {
    /// Docker's; none for a privileged container.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// This one, already resolved for the host and the capabilities.
    Profile(Box<Seccomp>),
    /// What of this one holds for the host and the capabilities.
    Conditional(Box<dhow_seccomp::Profile>),
}

/// SELinux labels of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SelinuxLabels {
    /// Of its processes.
    pub process: String,
    /// Of its files.
    pub mount: String,
}

/// A device node of the host, looked up by the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Absolute path in the container.
    pub path: PathBuf,
    /// `c` or `b`.
    pub kind: String,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits of the node.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Some of `rwm`; all when empty.
    pub access: String,
}

/// Where a namespace comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamespaceMode {
    /// A new one.
    #[default]
    Private,
    /// The host's.
    Host,
    /// The one at this path (`/proc/<pid>/ns/net`, or what the engine keeps).
    Path(PathBuf),
}

/// Where each namespace comes from; the mount namespace is always new.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// Processes.
    pub pid: NamespaceMode,
    /// System V and POSIX IPC.
    pub ipc: NamespaceMode,
    /// Host name.
    pub uts: NamespaceMode,
    /// Network.
    pub net: NamespaceMode,
    /// Users: the host's unless asked, as docker without `userns-remap`.
    pub user: UserMode,
    /// Control groups; absent means docker's choice (new on v2, the host's on v1).
    pub cgroup: Option<NamespaceMode>,
}

/// The user namespace, whose default differs from that of the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserMode(pub NamespaceMode);

impl Default for UserMode {
    fn default() -> Self {
        Self(NamespaceMode::Host)
    }
}

impl Default for Request {
    fn default() -> Self {
        Self {
            rootfs: PathBuf::from("rootfs"),
            args: Vec::new(),
            env: Vec::new(),
            bare_env: false,
            identity: Identity::default(),
            extra_groups: Vec::new(),
            cwd: PathBuf::from("/"),
            hostname: String::new(),
            domainname: String::new(),
            tty: false,
            console_size: None,
            mounts: Vec::new(),
            files: Vec::new(),
            mapped_files: false,
            limits: Limits::default(),
            shm_size: SHM_SIZE,
            ulimits: Vec::new(),
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            privileged: false,
            read_only: false,
            read_only_dev: false,
            no_new_privileges: false,
            seccomp: SeccompChoice::Default,
            apparmor: None,
            selinux: None,
            masked_paths: None,
            readonly_paths: None,
            devices: Vec::new(),
            device_rules: Vec::new(),
            sysctls: BTreeMap::new(),
            oom_score_adj: None,
            no_shm: false,
            own_cgroups: false,
            umask: None,
            namespaces: Namespaces::default(),
            uid_mappings: Vec::new(),
            gid_mappings: Vec::new(),
            init: None,
            cgroup_path: String::new(),
            annotations: Labels::new(),
        }
    }
}
