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

pub mod features;
mod resources;
mod seccomp;

pub use resources::{
    BlockIo, CpuLimit, DeviceRule, DeviceWeight, HugepageLimit, InterfacePriority, MemoryLimit, NetworkLimit,
    PidsLimit, RdmaLimit, Resources, Throttle,
};
pub use seccomp::{ContainerProcessState, Seccomp, SyscallArgument, SyscallRule};

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
        /// The whole command line of a Windows container; nothing on Linux.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub command_line: Option<String>,
        /// How the kernel schedules it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub scheduler: Option<Scheduler>,
        /// Priority of its block I/O.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub io_priority: Option<IoPriority>,
        /// CPUs of a process that exec starts.
        #[serde(rename = "execCPUAffinity", skip_serializing_if = "Option::is_none")]
        pub exec_cpu_affinity: Option<CpuAffinity>,
        /// Fields without a name here.
        #[serde(flatten)]
        pub extra: Extra,
    }
}

document! {
    /// Scheduling (sched_setattr(2)).
    pub struct Scheduler {
        /// `SCHED_OTHER` and so on.
        pub policy: String,
        /// Nice value of `SCHED_OTHER` and `SCHED_BATCH`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub nice: Option<i32>,
        /// Priority of `SCHED_FIFO` and `SCHED_RR`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub priority: Option<i32>,
        /// `SCHED_FLAG_RESET_ON_FORK` and so on.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub flags: Vec<String>,
        /// Nanoseconds of `SCHED_DEADLINE`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub runtime: Option<u64>,
        /// Nanoseconds of `SCHED_DEADLINE`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub deadline: Option<u64>,
        /// Nanoseconds of `SCHED_DEADLINE`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub period: Option<u64>,
    }
}

document! {
    /// Priority of block I/O (ioprio_set(2)).
    pub struct IoPriority {
        /// `IOPRIO_CLASS_RT`, `IOPRIO_CLASS_BE` or `IOPRIO_CLASS_IDLE`.
        pub class: String,
        /// 0, the highest, to 7.
        pub priority: i32,
    }
}

document! {
    /// CPUs of a process that exec starts, as lists (`0-3,7`).
    pub struct CpuAffinity {
        /// While it enters the container's control group.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub initial: Option<String>,
        /// From then on.
        #[serde(rename = "final", skip_serializing_if = "Option::is_none")]
        pub last: Option<String>,
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
        /// Name of the user; of Windows containers.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub username: Option<String>,
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
        /// Network devices of the runtime's network namespace that the container takes over, by name.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub net_devices: BTreeMap<String, NetDevice>,
        /// Cache and memory bandwidth (Intel RDT).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub intel_rdt: Option<IntelRdt>,
        /// Where memory comes from on machines with several nodes.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub memory_policy: Option<MemoryPolicy>,
        /// Execution domain.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub personality: Option<Personality>,
        /// Offsets of a new time namespace by clock: `monotonic`, `boottime`.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub time_offsets: BTreeMap<String, TimeOffset>,
        /// Fields without a name here.
        #[serde(flatten)]
        pub extra: Extra,
    }
}

document! {
    /// A network device in the container.
    pub struct NetDevice {
        /// Its name there; that of the host when absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
    }
}

document! {
    /// Cache and memory bandwidth through resctrl.
    pub struct IntelRdt {
        /// Class of service: a directory of resctrl; the container's id when absent.
        #[serde(rename = "closID", skip_serializing_if = "Option::is_none")]
        pub clos_id: Option<String>,
        /// Lines for the schemata file, as they are.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub schemata: Vec<String>,
        /// Schema of the L3 cache.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub l3_cache_schema: Option<String>,
        /// Schema of the memory bandwidth.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub mem_bw_schema: Option<String>,
        /// Whether the container gets a monitoring group.
        pub enable_monitoring: bool,
        /// Fields without a name here (enableCMT and enableMBM of before 1.3).
        #[serde(flatten)]
        pub extra: Extra,
    }
}

document! {
    /// NUMA policy (set_mempolicy(2)).
    pub struct MemoryPolicy {
        /// `MPOL_BIND` and so on.
        pub mode: String,
        /// Nodes as a list, `0-1,3`.
        pub nodes: String,
        /// `MPOL_F_STATIC_NODES` and so on.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub flags: Vec<String>,
    }
}

document! {
    /// Execution domain (personality(2)).
    pub struct Personality {
        /// `LINUX` or `LINUX32`.
        pub domain: String,
        /// Further flags; the spec has none yet.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub flags: Vec<String>,
    }
}

document! {
    /// Offset of a clock.
    pub struct TimeOffset {
        /// Seconds.
        pub secs: i64,
        /// Nanoseconds beside them.
        pub nanosecs: u32,
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

document! {
    /// What the agent of a filter is sent with its listener (runtime-spec `config-linux.md`, "The Container Process
    /// State").
    pub struct ProcessState {
        /// Version of the spec.
        pub oci_version: String,
        /// Names of the descriptors that come along, in order.
        pub fds: Vec<String>,
        /// The process whose calls the agent answers, in the runtime's namespace.
        pub pid: i32,
        /// `listenerMetadata` of the profile.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub metadata: Option<String>,
        /// The container.
        pub state: State,
    }
}

impl Spec {
    /// Parses a `config.json`. What it has for other platforms (`windows`, `solaris`, `vm`, `zos`, `freebsd`) is kept as it
    /// is in [`Spec::extra`].
    ///
    /// A `pids.limit` of 0 becomes the -1 that it meant in versions before 1.3 (runtime-spec#1279): podman before 5.4 and
    /// CRI-O write it for "no limit".
    ///
    /// # Errors
    /// `InvalidArgument` when malformed, `ResourceExhausted` over [`MAX_DOCUMENT`](crate::MAX_DOCUMENT).
    pub fn parse(bytes: &[u8]) -> Result<Self, crate::Error> {
        let mut spec: Self = parse(bytes, "config.json")?;
        let pids = spec
            .linux
            .as_mut()
            .and_then(|linux| linux.resources.as_mut())
            .and_then(|resources| resources.pids.as_mut());
        if let Some(pids) = pids.filter(|pids| pids.limit == Some(0))
            && is_before_1_3(&spec.oci_version)
        {
            pids.limit = Some(-1);
        }
        Ok(spec)
    }
}

fn is_before_1_3(version: &str) -> bool {
    let mut numbers = version.split('.').map(|word| word.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (1, 3)
}

impl Process {
    /// Parses the document that `exec --process` takes: the `process` of a `config.json`.
    ///
    /// # Errors
    /// As [`Spec::parse`].
    pub fn parse(bytes: &[u8]) -> Result<Self, crate::Error> {
        parse(bytes, "process.json")
    }
}

/// Reads a document; one that does not fit is read once more without its nulls, which count as absent.
fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, crate::Error> {
    match crate::parse::<T>(bytes, what) {
        Err(error) => {
            let Ok(mut value) = crate::parse::<serde_json::Value>(bytes, what) else {
                return Err(error);
            };
            drop_nulls(&mut value);
            T::deserialize(value).map_err(|_| error)
        }
        parsed => parsed,
    }
}

/// The depth is bounded by that of the parser (128).
fn drop_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_processes_meant_no_limit_before_1_3() {
        for (version, limit) in [
            ("1.0.2-dev", -1),
            ("1.2.1", -1),
            ("1.3.0", 0),
            ("1.4.0-rc.1", 0),
            ("2.0.0", 0),
        ] {
            let text = format!(
                r#"{{"ociVersion": "{version}", "linux": {{"resources": {{"pids": {{"limit": 0}}}}}}}}"#
            );
            let spec = Spec::parse(text.as_bytes()).unwrap();
            let resources = spec.linux.unwrap().resources.unwrap();
            assert_eq!(resources.pids.unwrap().limit, Some(limit), "{version}");
        }
    }

    #[test]
    fn a_page_size_is_read_as_some_write_it() {
        for key in ["pageSize", "pagesize"] {
            let text = format!(r#"{{"hugepageLimits": [{{"{key}": "2MB", "limit": 5}}]}}"#);
            let resources: Resources = serde_json::from_str(&text).unwrap();
            let limit = resources.hugepage_limits.first().unwrap();
            assert_eq!((limit.page_size.as_str(), limit.limit), ("2MB", 5));
        }
    }

    #[test]
    fn all_of_the_spec_is_read_and_written_back_as_it_was() {
        let text = serde_json::json!({
            "ociVersion": "1.3.0",
            "process": {"terminal": false, "user": {"uid": 0, "gid": 0, "umask": 63, "additionalGids": [1], "username": "x"},
                "args": ["sh"], "env": [], "cwd": "/", "noNewPrivileges": true, "commandLine": "c",
                "scheduler": {"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK"], "runtime": 1, "deadline": 2, "period": 3},
                "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 4},
                "execCPUAffinity": {"initial": "0", "final": "0-1"}},
            "windows": {"layerFolders": ["x"]}, "solaris": {"milestone": "y"}, "vm": {"kernel": {"path": "/k"}},
            "linux": {"namespaces": [{"type": "time"}],
                "netDevices": {"eth0": {"name": "c0"}, "eth1": {}},
                "intelRdt": {"closID": "a", "schemata": ["L3:0=f"], "enableMonitoring": true, "enableCMT": true},
                "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
                "personality": {"domain": "LINUX32"},
                "timeOffsets": {"monotonic": {"secs": -1, "nanosecs": 5}},
                "resources": {"memory": {"limit": 1, "kernel": 2, "kernelTCP": 3, "useHierarchy": true, "checkBeforeUpdate": true},
                    "cpu": {"realtimeRuntime": 1, "realtimePeriod": 2},
                    "blockIO": {"leafWeight": 10, "weightDevice": [{"major": 8, "minor": 0, "weight": 5, "leafWeight": 6}]},
                    "network": {"classID": 7, "priorities": [{"name": "lo", "priority": 1}]},
                    "rdma": {"mlx": {"hcaHandles": 3, "hcaObjects": 4}}}}
        });
        let spec = Spec::parse(text.to_string().as_bytes()).unwrap();
        assert_eq!(serde_json::to_value(&spec).unwrap(), text);
        let linux = spec.linux.unwrap();
        assert!(linux.extra.is_empty(), "{:?}", linux.extra);
        assert!(spec.process.unwrap().extra.is_empty());
        assert_eq!(linux.resources.unwrap().extra.len(), 0);
    }

    #[test]
    fn null_counts_as_absent_and_a_wrong_type_is_an_error() {
        let spec = Spec::parse(br#"{"mounts": null, "process": {"args": null, "cwd": null}, "linux": null}"#)
            .unwrap();
        assert!(spec.mounts.is_empty() && spec.linux.is_none());
        assert!(Spec::parse(br#"{"mounts": null, "process": {"args": "sh"}}"#).is_err());
        assert!(Process::parse(br#"{"args": ["sh"], "cwd": 1}"#).is_err());
    }
}
