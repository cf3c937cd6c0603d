//! The runtime spec's `config.json` (runtime-spec 1.3) and the state document.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Extra, Labels};

macro_rules! document {
    ($(#[$doc:meta])* pub struct $name:ident { $($body:tt)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name { $($body)* }
    };
}

document! {
    /// `config.json` as a whole.
    pub struct Spec {
        /// Version of the spec.
        pub oci_version: String,
        /// The program.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub process: Option<Process>,
        /// The root file system.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub root: Option<Root>,
        /// Host name in the UTS namespace.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub hostname: Option<String>,
        /// NIS domain name in the UTS namespace.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub domainname: Option<String>,
        /// Mounts, in order.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub mounts: Vec<Mount>,
        /// Programs run at stages of life.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub hooks: Option<Hooks>,
        /// Free strings.
        #[serde(skip_serializing_if = "Labels::is_empty")]
        pub annotations: Labels,
        /// What is particular to Linux.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub linux: Option<Linux>,
        /// Fields without a name here.
        #[serde(flatten)]
        pub extra: Extra,
    }
}

document! {
    /// The program and its rights.
    pub struct Process {
        /// Whether it has a terminal.
        pub terminal: bool,
        /// Size of the terminal.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub console_size: Option<ConsoleSize>,
        /// Who it runs as.
        pub user: User,
        /// Program and arguments.
        pub args: Vec<String>,
        /// Environment, `NAME=value`.
        pub env: Vec<String>,
        /// Working directory.
        pub cwd: PathBuf,
        /// Capabilities.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub capabilities: Option<Capabilities>,
        /// Resource limits.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub rlimits: Vec<Rlimit>,
        /// Whether execve may not give rights.
        pub no_new_privileges: bool,
        /// AppArmor profile.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub apparmor_profile: Option<String>,
        /// Adjustment of the OOM killer's score.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub oom_score_adj: Option<i32>,
        /// SELinux label.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub selinux_label: Option<String>,
        /// Fields without a name here (scheduler, ioPriority, execCPUAffinity).
        #[serde(flatten)]
        pub extra: Extra,
    }
}

document! {
    /// Size of a terminal in characters.
    pub struct ConsoleSize {
        /// Rows.
        pub height: u16,
        /// Columns.
        pub width: u16,
    }
}

document! {
    /// Numeric identity of a process.
    pub struct User {
        /// User id.
        pub uid: u32,
        /// Group id.
        pub gid: u32,
        /// File mode creation mask.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub umask: Option<u32>,
        /// Supplementary groups.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub additional_gids: Vec<u32>,
    }
}

document! {
    /// Capability sets by name (`CAP_CHOWN`).
    pub struct Capabilities {
        /// Upper bound.
        pub bounding: Vec<String>,
        /// In force.
        pub effective: Vec<String>,
        /// Kept over execve of files with inheritable bits.
        pub inheritable: Vec<String>,
        /// May be taken.
        pub permitted: Vec<String>,
        /// Kept over execve without privilege.
        pub ambient: Vec<String>,
    }
}

document! {
    /// One resource limit.
    pub struct Rlimit {
        /// `RLIMIT_NOFILE` and so on.
        #[serde(rename = "type")]
        pub kind: String,
        /// Ceiling.
        pub hard: u64,
        /// In force.
        pub soft: u64,
    }
}

document! {
    /// The root file system.
    pub struct Root {
        /// Where it is, relative to the bundle.
        pub path: PathBuf,
        /// Whether the container may not write it.
        pub readonly: bool,
    }
}

document! {
    /// One mount.
    pub struct Mount {
        /// Where in the container.
        pub destination: PathBuf,
        /// File system type; `bind` or none for bind mounts.
        #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
        pub kind: Option<String>,
        /// What to mount.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub source: Option<PathBuf>,
        /// Options as `mount(8)` spells them.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub options: Vec<String>,
        /// Id mapping of an idmapped mount.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub uid_mappings: Vec<IdMapping>,
        /// Id mapping of an idmapped mount.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub gid_mappings: Vec<IdMapping>,
    }
}

document! {
    /// Hooks by stage.
    pub struct Hooks {
        /// Deprecated: after the namespaces, before pivot_root.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub prestart: Vec<Hook>,
        /// In the runtime's namespace, at create.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub create_runtime: Vec<Hook>,
        /// In the container's namespace, at create.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub create_container: Vec<Hook>,
        /// In the container's namespace, at start.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub start_container: Vec<Hook>,
        /// After start.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub poststart: Vec<Hook>,
        /// After delete.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub poststop: Vec<Hook>,
    }
}

document! {
    /// One hook.
    pub struct Hook {
        /// Absolute path of the program.
        pub path: PathBuf,
        /// Arguments with argv[0].
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub args: Vec<String>,
        /// Environment.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub env: Vec<String>,
        /// Seconds before it is killed.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub timeout: Option<i64>,
    }
}

document! {
    /// What is particular to Linux.
    pub struct Linux {
        /// User ids of a user namespace.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub uid_mappings: Vec<IdMapping>,
        /// Group ids of a user namespace.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub gid_mappings: Vec<IdMapping>,
        /// Kernel settings.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub sysctl: BTreeMap<String, String>,
        /// Limits.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub resources: Option<Resources>,
        /// Path of the control group.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub cgroups_path: Option<String>,
        /// Namespaces to make or join.
        pub namespaces: Vec<Namespace>,
        /// Device nodes.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub devices: Vec<Device>,
        /// System call filter.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub seccomp: Option<Seccomp>,
        /// Propagation of the root mount.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub rootfs_propagation: Option<String>,
        /// Paths hidden from the container.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub masked_paths: Vec<PathBuf>,
        /// Paths that the container may not write.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub readonly_paths: Vec<PathBuf>,
        /// SELinux label of mounts.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub mount_label: Option<String>,
        /// Fields without a name here.
        #[serde(flatten)]
        pub extra: Extra,
    }
}

document! {
    /// One range of ids in a user namespace.
    pub struct IdMapping {
        /// First id inside.
        #[serde(rename = "containerID")]
        pub container_id: u32,
        /// First id outside.
        #[serde(rename = "hostID")]
        pub host_id: u32,
        /// How many.
        pub size: u32,
    }
}

document! {
    /// One namespace.
    pub struct Namespace {
        /// `pid`, `network`, `mount`, `ipc`, `uts`, `user`, `cgroup`, `time`.
        #[serde(rename = "type")]
        pub kind: String,
        /// The namespace to join; a new one when absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub path: Option<PathBuf>,
    }
}

document! {
    /// One device node.
    pub struct Device {
        /// `c`, `b`, `u` or `p`.
        #[serde(rename = "type")]
        pub kind: String,
        /// Where in the container.
        pub path: PathBuf,
        /// Major number.
        pub major: i64,
        /// Minor number.
        pub minor: i64,
        /// Permissions.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub file_mode: Option<u32>,
        /// Owner.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub uid: Option<u32>,
        /// Group.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub gid: Option<u32>,
    }
}

document! {
    /// Limits of the control group.
    pub struct Resources {
        /// Device access rules, in order.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub devices: Vec<DeviceRule>,
        /// Memory.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub memory: Option<MemoryLimit>,
        /// CPU.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub cpu: Option<CpuLimit>,
        /// Processes.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub pids: Option<PidsLimit>,
        /// Block devices.
        #[serde(rename = "blockIO", skip_serializing_if = "Option::is_none")]
        pub block_io: Option<BlockIo>,
        /// Huge pages.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub hugepage_limits: Vec<HugepageLimit>,
        /// Files of cgroup v2 by name.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub unified: BTreeMap<String, String>,
        /// Fields without a name here (network, rdma).
        #[serde(flatten)]
        pub extra: Extra,
    }
}

document! {
    /// Access to a device.
    pub struct DeviceRule {
        /// Allow or deny.
        pub allow: bool,
        /// `a`, `c` or `b`.
        #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
        pub kind: Option<String>,
        /// Major number; any when absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub major: Option<i64>,
        /// Minor number; any when absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub minor: Option<i64>,
        /// Some of `rwm`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub access: Option<String>,
    }
}

document! {
    /// Memory in bytes; -1 means no limit.
    pub struct MemoryLimit {
        /// Hard limit.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub limit: Option<i64>,
        /// Soft limit.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub reservation: Option<i64>,
        /// Memory and swap together.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub swap: Option<i64>,
        /// Tendency to swap.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub swappiness: Option<u64>,
        /// Whether the OOM killer is off.
        #[serde(rename = "disableOOMKiller", skip_serializing_if = "Option::is_none")]
        pub disable_oom_killer: Option<bool>,
        /// Fields without a name here.
        #[serde(flatten)]
        pub extra: Extra,
    }
}

document! {
    /// CPU time.
    pub struct CpuLimit {
        /// Relative weight, 1024 is usual.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub shares: Option<u64>,
        /// Microseconds in a period; -1 means no limit.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub quota: Option<i64>,
        /// Microseconds saved up.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub burst: Option<u64>,
        /// Length of a period in microseconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub period: Option<u64>,
        /// CPUs, `0-3`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub cpus: Option<String>,
        /// Memory nodes.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub mems: Option<String>,
        /// 1 for SCHED_IDLE.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub idle: Option<i64>,
        /// Fields without a name here.
        #[serde(flatten)]
        pub extra: Extra,
    }
}

document! {
    /// Number of processes; zero or less means no limit.
    pub struct PidsLimit {
        /// The limit.
        pub limit: i64,
    }
}

document! {
    /// Block device limits.
    pub struct BlockIo {
        /// Relative weight, 10 to 1000.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub weight: Option<u16>,
        /// Bytes a second read, by device.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub throttle_read_bps_device: Vec<Throttle>,
        /// Bytes a second written, by device.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub throttle_write_bps_device: Vec<Throttle>,
        /// Operations a second read, by device.
        #[serde(rename = "throttleReadIOPSDevice", skip_serializing_if = "Vec::is_empty")]
        pub throttle_read_iops_device: Vec<Throttle>,
        /// Operations a second written, by device.
        #[serde(rename = "throttleWriteIOPSDevice", skip_serializing_if = "Vec::is_empty")]
        pub throttle_write_iops_device: Vec<Throttle>,
        /// Fields without a name here.
        #[serde(flatten)]
        pub extra: Extra,
    }
}

document! {
    /// A rate for one device.
    pub struct Throttle {
        /// Major number.
        pub major: i64,
        /// Minor number.
        pub minor: i64,
        /// The rate.
        pub rate: u64,
    }
}

document! {
    /// A limit of one size of huge pages.
    pub struct HugepageLimit {
        /// `2MB`.
        pub page_size: String,
        /// Bytes.
        pub limit: u64,
    }
}

document! {
    /// System call filter.
    pub struct Seccomp {
        /// What happens to calls without a rule.
        pub default_action: String,
        /// Errno of the default action.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub default_errno_ret: Option<u32>,
        /// `SCMP_ARCH_X86_64` and so on.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub architectures: Vec<String>,
        /// `SECCOMP_FILTER_FLAG_LOG` and so on. An empty list is something else than none: no flag, not even the
        /// runtime's own choice.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub flags: Option<Vec<String>>,
        /// Socket of an agent for SCMP_ACT_NOTIFY.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub listener_path: Option<PathBuf>,
        /// Opaque text for the agent.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub listener_metadata: Option<String>,
        /// Rules.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub syscalls: Vec<SyscallRule>,
    }
}

document! {
    /// One rule of a filter.
    pub struct SyscallRule {
        /// Calls by name.
        pub names: Vec<String>,
        /// `SCMP_ACT_ALLOW` and so on.
        pub action: String,
        /// Errno of SCMP_ACT_ERRNO.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub errno_ret: Option<u32>,
        /// Conditions on arguments, all of which must hold.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub args: Vec<SyscallArgument>,
    }
}

document! {
    /// One condition on an argument.
    pub struct SyscallArgument {
        /// Which argument, 0 to 5.
        pub index: u32,
        /// Compared with this.
        pub value: u64,
        /// Second value of SCMP_CMP_MASKED_EQ.
        pub value_two: u64,
        /// `SCMP_CMP_EQ` and so on.
        pub op: String,
    }
}

document! {
    /// What `state` prints (runtime-spec `runtime.md`, "State").
    pub struct State {
        /// Version of the spec.
        pub oci_version: String,
        /// The container.
        pub id: String,
        /// `creating`, `created`, `running` or `stopped`.
        pub status: String,
        /// Process id on the host, 0 when stopped.
        pub pid: i32,
        /// The bundle.
        pub bundle: PathBuf,
        /// Free strings.
        #[serde(skip_serializing_if = "Labels::is_empty")]
        pub annotations: Labels,
    }
}

impl Spec {
    /// Parses a `config.json`.
    ///
    /// # Errors
    /// `InvalidArgument` when malformed, `ResourceExhausted` over [`MAX_DOCUMENT`](crate::MAX_DOCUMENT).
    pub fn parse(bytes: &[u8]) -> Result<Self, crate::Error> {
        crate::parse(bytes, "config.json")
    }
}
