//! `linux.resources`: limits of the control group (config-linux.md, "Control groups").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Extra;

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
        /// Network classes of version 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub network: Option<NetworkLimit>,
        /// RDMA by device.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub rdma: BTreeMap<String, RdmaLimit>,
        /// Fields without a name here.
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
        /// Kernel memory; without effect since Linux 5.16.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub kernel: Option<i64>,
        /// Buffers of TCP; version 1.
        #[serde(rename = "kernelTCP", skip_serializing_if = "Option::is_none")]
        pub kernel_tcp: Option<i64>,
        /// Whether groups below count to this one; version 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub use_hierarchy: Option<bool>,
        /// Whether an update below the present use is refused.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub check_before_update: Option<bool>,
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
        /// Microseconds of realtime scheduling in a period; version 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub realtime_runtime: Option<i64>,
        /// Length of that period; version 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub realtime_period: Option<u64>,
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
    /// Number of processes.
    pub struct PidsLimit {
        /// The limit; below zero means none, and zero that nothing can be forked (runtime-spec 1.3).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub limit: Option<i64>,
    }
}

document! {
    /// Block device limits.
    pub struct BlockIo {
        /// Relative weight, 10 to 1000.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub weight: Option<u16>,
        /// Weight against the groups below; version 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub leaf_weight: Option<u16>,
        /// Weights by device.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub weight_device: Vec<DeviceWeight>,
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
    /// A weight for one device.
    pub struct DeviceWeight {
        /// Major number.
        pub major: i64,
        /// Minor number.
        pub minor: i64,
        /// Relative weight, 10 to 1000.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub weight: Option<u16>,
        /// Weight against the groups below; version 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub leaf_weight: Option<u16>,
    }
}

document! {
    /// Marks and priorities of packets; version 1.
    pub struct NetworkLimit {
        /// Class of packets (net_cls).
        #[serde(rename = "classID", skip_serializing_if = "Option::is_none")]
        pub class_id: Option<u32>,
        /// Priorities by interface (net_prio).
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub priorities: Vec<InterfacePriority>,
    }
}

document! {
    /// Priority of packets on one interface.
    pub struct InterfacePriority {
        /// The interface.
        pub name: String,
        /// The priority.
        pub priority: u32,
    }
}

document! {
    /// Limits of one RDMA device.
    pub struct RdmaLimit {
        /// Handles.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub hca_handles: Option<u32>,
        /// Objects.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub hca_objects: Option<u32>,
    }
}

document! {
    /// A limit of one size of huge pages.
    pub struct HugepageLimit {
        /// `2MB`. Written so by some, whose decoder (Go's) does not tell letters by their case.
        #[serde(alias = "pagesize")]
        pub page_size: String,
        /// Bytes.
        pub limit: u64,
    }
}
