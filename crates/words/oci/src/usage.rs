//! What `events` and `events --stats` of an OCI runtime print: the document that runc made (its `types/events.go`) and
//! containerd, podman and cAdvisor read. Times are nanoseconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Zeros are left out, as Go's `omitempty` does.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn zero(value: &u64) -> bool {
    *value == 0
}

fn nothing<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

macro_rules! usage {
    ($(#[$doc:meta])* pub struct $name:ident { $($body:tt)* }) => {
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        $(#[$doc])*
        pub struct $name { $($body)* }
    };
}

usage! {
    /// All of a container. What is no matter of control groups (`intel_rdt`, `network_interfaces`) the runtime adds.
    pub struct Usage {
        /// CPU time.
        pub cpu: CpuUsage,
        /// The CPU set (v1).
        pub cpuset: CpusetUsage,
        /// Memory.
        pub memory: MemoryUsage,
        /// Processes.
        pub pids: PidsUsage,
        /// Block devices.
        pub blkio: BlkioUsage,
        /// Huge pages by size.
        pub hugetlb: BTreeMap<String, HugetlbUsage>,
        /// RDMA devices; runc counts them and does not print them.
        #[serde(skip_serializing_if = "nothing")]
        pub rdma: RdmaUsage,
    }
}

usage! {
    /// CPU time.
    pub struct CpuUsage {
        /// Time that was used.
        pub usage: CpuTime,
        /// What the quota held back.
        pub throttling: Throttling,
        /// Time lost for want of CPUs.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub psi: Option<Pressure>,
    }
}

usage! {
    /// CPU time that was used.
    pub struct CpuTime {
        /// In all.
        #[serde(skip_serializing_if = "zero")]
        pub total: u64,
        /// By CPU (v1).
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub percpu: Vec<u64>,
        /// By CPU, in the kernel (v1).
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub percpu_kernel: Vec<u64>,
        /// By CPU, in user mode (v1).
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub percpu_user: Vec<u64>,
        /// In the kernel.
        pub kernel: u64,
        /// In user mode.
        pub user: u64,
    }
}

usage! {
    /// What the quota held back.
    #[serde(rename_all = "camelCase")]
    pub struct Throttling {
        /// Periods that ran.
        #[serde(skip_serializing_if = "zero")]
        pub periods: u64,
        /// Periods in which the quota was used up.
        #[serde(skip_serializing_if = "zero")]
        pub throttled_periods: u64,
        /// How long it was held back.
        #[serde(skip_serializing_if = "zero")]
        pub throttled_time: u64,
    }
}

usage! {
    /// The CPU set of v1.
    pub struct CpusetUsage {
        /// CPUs.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub cpus: Vec<u16>,
        /// Whether no other set has them.
        pub cpu_exclusive: u64,
        /// Memory nodes.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub mems: Vec<u16>,
        /// Whether the kernel's own allocations keep to them.
        pub mem_hardwall: u64,
        /// Whether no other set has them.
        pub mem_exclusive: u64,
        /// Whether memory moves when the nodes change.
        pub memory_migrate: u64,
        /// Whether the page cache is spread.
        pub memory_spread_page: u64,
        /// Whether slabs are spread.
        pub memory_spread_slab: u64,
        /// Rate of reclaim.
        pub memory_pressure: u64,
        /// Whether the scheduler balances.
        pub sched_load_balance: u64,
        /// How far it looks for a CPU.
        pub sched_relax_domain_level: i64,
    }
}

usage! {
    /// Memory in bytes.
    pub struct MemoryUsage {
        /// Page cache.
        #[serde(skip_serializing_if = "zero")]
        pub cache: u64,
        /// Memory.
        pub usage: MemoryEntry,
        /// Memory and swap together.
        pub swap: MemoryEntry,
        /// Kernel memory (v1).
        pub kernel: MemoryEntry,
        /// Kernel memory of TCP (v1).
        #[serde(rename = "kernelTCP")]
        pub kernel_tcp: MemoryEntry,
        /// `memory.stat`.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub raw: BTreeMap<String, u64>,
        /// Time lost for want of memory.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub psi: Option<Pressure>,
    }
}

usage! {
    /// One counter of memory.
    pub struct MemoryEntry {
        /// The limit; the largest number for none.
        pub limit: u64,
        /// In use.
        #[serde(skip_serializing_if = "zero")]
        pub usage: u64,
        /// Highest use so far.
        #[serde(skip_serializing_if = "zero")]
        pub max: u64,
        /// How often the limit was hit (v1).
        pub failcnt: u64,
    }
}

usage! {
    /// Processes.
    pub struct PidsUsage {
        /// How many there are.
        #[serde(skip_serializing_if = "zero")]
        pub current: u64,
        /// The limit; zero for none.
        #[serde(skip_serializing_if = "zero")]
        pub limit: u64,
    }
}

usage! {
    /// Block devices.
    #[serde(rename_all = "camelCase")]
    pub struct BlkioUsage {
        /// Bytes.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub io_service_bytes_recursive: Vec<BlkioEntry>,
        /// Operations.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub io_serviced_recursive: Vec<BlkioEntry>,
        /// Operations that wait.
        #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
        pub io_queued_recursive: Vec<BlkioEntry>,
        /// Time in the device.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub io_service_time_recursive: Vec<BlkioEntry>,
        /// Time in the queue.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub io_wait_time_recursive: Vec<BlkioEntry>,
        /// Operations that were merged.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub io_merged_recursive: Vec<BlkioEntry>,
        /// Time with the device.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub io_time_recursive: Vec<BlkioEntry>,
        /// Sectors.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub sectors_recursive: Vec<BlkioEntry>,
        /// Time lost in wait for devices.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub psi: Option<Pressure>,
    }
}

usage! {
    /// One counter of one device.
    pub struct BlkioEntry {
        /// Major number.
        #[serde(skip_serializing_if = "zero")]
        pub major: u64,
        /// Minor number.
        #[serde(skip_serializing_if = "zero")]
        pub minor: u64,
        /// `Read`, `Write` and others.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub op: String,
        /// The count.
        #[serde(skip_serializing_if = "zero")]
        pub value: u64,
    }
}

usage! {
    /// Huge pages of one size, in bytes.
    pub struct HugetlbUsage {
        /// In use.
        #[serde(skip_serializing_if = "zero")]
        pub usage: u64,
        /// Highest use so far (v1).
        #[serde(skip_serializing_if = "zero")]
        pub max: u64,
        /// How often the limit was hit.
        pub failcnt: u64,
    }
}

usage! {
    /// RDMA devices.
    pub struct RdmaUsage {
        /// Limits.
        pub rdma_limit: Vec<RdmaEntry>,
        /// In use.
        pub rdma_current: Vec<RdmaEntry>,
    }
}

usage! {
    /// One RDMA device; the largest number for no limit.
    pub struct RdmaEntry {
        /// Its name.
        pub device: String,
        /// HCA handles.
        pub hca_handles: u32,
        /// HCA objects.
        pub hca_objects: u32,
    }
}

usage! {
    /// Time lost in wait for something (kernel `accounting/psi.rst`).
    pub struct Pressure {
        /// Some of the processes waited.
        pub some: PressureShare,
        /// All of them did.
        pub full: PressureShare,
    }
}

usage! {
    /// Shares of the time in percent, and a total in microseconds.
    pub struct PressureShare {
        /// In the last 10 s.
        pub avg10: f64,
        /// In the last 60 s.
        pub avg60: f64,
        /// In the last 300 s.
        pub avg300: f64,
        /// In all.
        pub total: u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_zero_is_left_out_where_runc_leaves_it_out() {
        let mut usage = Usage::default();
        usage.cpu.usage.total = 5;
        usage.blkio.io_serviced_recursive.push(BlkioEntry {
            major: 8,
            op: "Read".to_owned(),
            value: 1,
            ..BlkioEntry::default()
        });
        let none = r#"{"limit":0,"failcnt":0}"#;
        let cpuset = concat!(
            r#"{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"#,
            r#""memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"sched_relax_domain_level":0}"#
        );
        let expected = format!(
            concat!(
                r#"{{"cpu":{{"usage":{{"total":5,"kernel":0,"user":0}},"throttling":{{}}}},"cpuset":{cpuset},"#,
                r#""memory":{{"usage":{none},"swap":{none},"kernel":{none},"kernelTCP":{none}}},"pids":{{}},"#,
                r#""blkio":{{"ioServicedRecursive":[{{"major":8,"op":"Read","value":1}}]}},"hugetlb":{{}}}}"#
            ),
            cpuset = cpuset,
            none = none
        );
        let text = serde_json::to_string(&usage).unwrap();
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Usage>(&text).unwrap(), usage);
    }
}
