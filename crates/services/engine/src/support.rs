//! What this host's kernel can do for containers, in the words of docker's `info` (moby `pkg/sysinfo`).

use std::path::Path;

/// Where control groups are mounted.
const GROUPS: &str = "/sys/fs/cgroup";

/// Which limits the control groups can keep, and what of the network is switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Support {
    /// A limit of memory.
    pub memory: bool,
    /// A limit of memory and swap together.
    pub swap: bool,
    /// Time in a period (`--cpu-period`, `--cpu-quota`, `--cpus`).
    pub cpu_quota: bool,
    /// Relative weights.
    pub cpu_shares: bool,
    /// Which CPUs and memory nodes.
    pub cpu_set: bool,
    /// A number of processes.
    pub pids: bool,
    /// A container without the OOM killer; never with version 2.
    pub oom_kill_disable: bool,
    /// Whether the host routes IPv4.
    pub ip_forwarding: bool,
    /// Whether what crosses a bridge goes through iptables.
    pub bridge_iptables: bool,
    /// The same of IPv6.
    pub bridge_ip6tables: bool,
}

impl Support {
    /// Looks at the host that this process is on.
    pub(crate) fn of_this_host() -> Self {
        let groups = Path::new(GROUPS);
        let limits = match read(&groups.join("cgroup.controllers")) {
            Some(controllers) => Self::of_version_2(groups, &controllers),
            None => Self::of_version_1(groups),
        };
        let is_on = |path: &str| read(Path::new(path)).is_some_and(|text| text.trim() == "1");
        Self {
            ip_forwarding: is_on("/proc/sys/net/ipv4/ip_forward"),
            bridge_iptables: is_on("/proc/sys/net/bridge/bridge-nf-call-iptables"),
            bridge_ip6tables: is_on("/proc/sys/net/bridge/bridge-nf-call-ip6tables"),
            ..limits
        }
    }

    fn of_version_2(groups: &Path, controllers: &str) -> Self {
        let has = |name: &str| controllers.split_whitespace().any(|one| one == name);
        // The top has no such file: it is in the groups below, where swap is counted at all.
        let swap = std::fs::read_dir(groups).into_iter().flatten().flatten();
        let swap = swap.map(|entry| entry.path().join("memory.swap.max"));
        Self {
            memory: has("memory"),
            swap: has("memory") && swap.into_iter().any(|file| file.exists()),
            cpu_quota: has("cpu"),
            cpu_shares: has("cpu"),
            cpu_set: has("cpuset"),
            pids: has("pids"),
            ..Self::default()
        }
    }

    fn of_version_1(groups: &Path) -> Self {
        let has = |file: &str| groups.join(file).exists();
        Self {
            memory: has("memory/memory.limit_in_bytes"),
            swap: has("memory/memory.memsw.limit_in_bytes"),
            cpu_quota: has("cpu/cpu.cfs_quota_us") && has("cpu/cpu.cfs_period_us"),
            cpu_shares: has("cpu/cpu.shares"),
            cpu_set: has("cpuset/cpuset.cpus"),
            pids: has("pids/cgroup.procs"),
            oom_kill_disable: has("memory/memory.oom_control"),
            ..Self::default()
        }
    }

    /// Docker's warnings about what is missing (moby `daemon/info_unix.go`).
    #[must_use]
    pub fn warnings(&self, cgroup_version: u8) -> Vec<String> {
        let missing = [
            (self.memory, "No memory limit support"),
            (self.swap, "No swap limit support"),
            (
                self.oom_kill_disable || cgroup_version == 2,
                "No oom kill disable support",
            ),
            (self.cpu_quota, "No cpu cfs quota support"),
            (self.cpu_shares, "No cpu shares support"),
            (self.cpu_set, "No cpuset support"),
            (self.pids, "No pids limit support"),
            (self.ip_forwarding, "IPv4 forwarding is disabled"),
        ];
        let missing = missing.iter().filter(|(there, _)| !there);
        missing.map(|(_, what)| format!("WARNING: {what}")).collect()
    }
}

/// A short file of the kernel's, if it is there.
fn read(path: &Path) -> Option<String> {
    dhow_sys::file::read_text(path.to_str()?, 4096).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_the_hierarchy_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let make = |file: &str| {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        assert_eq!(Support::of_version_1(folder.path()), Support::default());
        make("memory/memory.limit_in_bytes");
        make("memory/memory.oom_control");
        make("pids/cgroup.procs");
        let found = Support::of_version_1(folder.path());
        assert!(found.memory && found.oom_kill_disable && found.pids && !found.swap && !found.cpu_set);
        let without_swap = Support::of_version_2(folder.path(), "cpuset cpu memory");
        assert!(without_swap.memory && without_swap.cpu_quota && !without_swap.swap && !without_swap.pids);
        make("init.scope/memory.swap.max");
        assert!(Support::of_version_2(folder.path(), "memory").swap);
        assert!(!Support::of_version_2(folder.path(), "memory").oom_kill_disable);
        assert_eq!(Support::default().warnings(2).len(), 7);
    }
}
