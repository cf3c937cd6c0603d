//! Limits as files of cgroup v1 (kernel `Documentation/admin-guide/cgroup-v1`).

use std::fmt::Write as _;

use dhow_oci::runtime::{BlockIo, CpuLimit, MemoryLimit, Resources};
use dhow_types::ErrorKind;

use crate::Error;
use crate::hierarchy::Controllers;
use crate::setting::{self, Missing, Setting, device_number, plain};

/// Settings of all limits but the devices, in the order of writing.
pub(crate) fn settings(resources: &Resources) -> Result<Vec<Setting>, Error> {
    let mut out = Vec::new();
    if let Some(limit) = &resources.memory {
        memory(limit, &mut out)?;
    }
    if let Some(limit) = &resources.cpu {
        cpu(limit, &mut out)?;
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        out.push(Setting::new(Controllers::PIDS, "pids.max", setting::pids(limit)));
    }
    if let Some(limit) = &resources.block_io {
        block_io(limit, &mut out)?;
    }
    setting::hugetlb(resources, "limit_in_bytes", &mut out)?;
    setting::rdma(resources, &mut out)?;
    if let Some(network) = &resources.network {
        if let Some(class) = network.class_id.filter(|class| *class != 0) {
            out.push(Setting::new(Controllers::NET_CLS, "net_cls.classid", class));
        }
        for priority in &network.priorities {
            let name = plain(&priority.name, "interface")?;
            let value = format!("{name} {}", priority.priority);
            out.push(Setting::new(Controllers::NET_PRIO, "net_prio.ifpriomap", value));
        }
    }
    if let Some(name) = resources.unified.keys().next() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("invalid configuration: cannot use unified on cgroup v1 ({name})"),
        )
        .with_hint("boot with systemd.unified_cgroup_hierarchy=1, or use the v1 limits"));
    }
    Ok(out)
}

/// Memory. Limits of kernel memory are left out, as the spec's text and runc have it: `memory.kmem.limit_in_bytes` is
/// gone since Linux 5.16. `useHierarchy` needs nothing: it is always on since Linux 5.11.
fn memory(limit: &MemoryLimit, out: &mut Vec<Setting>) -> Result<(), Error> {
    let mut set = |file, value| out.push(Setting::new(Controllers::MEMORY, file, value));
    // Zero means "not said" (runc).
    let said = |value: Option<i64>| value.filter(|value| *value != 0);
    if let Some(value) = said(limit.reservation) {
        set("memory.soft_limit_in_bytes", value);
    }
    if let Some(value) = said(limit.limit) {
        set("memory.limit_in_bytes", value);
    }
    if let Some(value) = said(limit.swap) {
        set("memory.memsw.limit_in_bytes", value);
    }
    if let Some(value) = setting::swappiness(limit.swappiness)? {
        set("memory.swappiness", value.cast_signed());
    }
    if limit.disable_oom_killer == Some(true) {
        set("memory.oom_control", 1);
    }
    if said(limit.limit) == Some(-1) && said(limit.swap).is_none() {
        // No limit of memory is none if the older one of memory with swap stays.
        let both = Setting::new(Controllers::MEMORY, "memory.memsw.limit_in_bytes", -1);
        out.push(both.or(Missing::Pass));
    }
    Ok(())
}

/// What the kernel takes; it would change another number without a word.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

fn cpu(limit: &CpuLimit, out: &mut Vec<Setting>) -> Result<(), Error> {
    let mut set = |file, value: String| out.push(Setting::new(Controllers::CPU, file, value));
    if let Some(value) = limit.shares.filter(|shares| *shares != 0) {
        let wrong = |what: &str, bound: &u64| {
            let message = format!("the {what} allowed cpu-shares is {bound}");
            Err(Error::new(ErrorKind::InvalidArgument, message))
        };
        if value < *SHARES.start() {
            return wrong("minimum", SHARES.start());
        }
        if value > *SHARES.end() {
            return wrong("maximum", SHARES.end());
        }
        set("cpu.shares", value.to_string());
    }
    if let Some(value) = limit.period.filter(|period| *period != 0) {
        set("cpu.cfs_period_us", value.to_string());
    }
    if let Some(value) = limit.quota.filter(|quota| *quota != 0) {
        set("cpu.cfs_quota_us", value.to_string());
    }
    if let Some(value) = limit.realtime_period.filter(|period| *period != 0) {
        set("cpu.rt_period_us", value.to_string());
    }
    if let Some(value) = limit.realtime_runtime.filter(|runtime| *runtime != 0) {
        set("cpu.rt_runtime_us", value.to_string());
    }
    if let Some(value) = limit.idle {
        set("cpu.idle", value.to_string());
    }
    if let Some(value) = limit.burst {
        // Linux 5.14; without it there is no burst at all.
        let missing = if value == 0 {
            Missing::Pass
        } else {
            Missing::Refuse
        };
        out.push(Setting::new(Controllers::CPU, "cpu.cfs_burst_us", value).or(missing));
    }
    for (file, value) in [("cpuset.cpus", &limit.cpus), ("cpuset.mems", &limit.mems)] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            out.push(Setting::new(Controllers::CPUSET, file, plain(value, file)?));
        }
    }
    Ok(())
}

fn block_io(limit: &BlockIo, out: &mut Vec<Setting>) -> Result<(), Error> {
    // The weight of today's scheduler, or that of the one before Linux 5.0.
    let mut weight = |bfq: &'static str, cfq: &'static str, value: String| {
        let missing = Missing::Other(cfq, value.clone());
        out.push(Setting::new(Controllers::BLKIO, bfq, value).or(missing));
    };
    let said = |weight: Option<u16>| weight.filter(|weight| *weight != 0);
    if let Some(value) = said(limit.weight) {
        weight("blkio.bfq.weight", "blkio.weight", value.to_string());
    }
    for device in &limit.weight_device {
        if let Some(value) = said(device.weight) {
            let value = format!("{} {value}", device_number(device.major, device.minor)?);
            weight("blkio.bfq.weight_device", "blkio.weight_device", value);
        }
    }
    if let Some(value) = said(limit.leaf_weight) {
        out.push(Setting::new(Controllers::BLKIO, "blkio.leaf_weight", value));
    }
    for device in &limit.weight_device {
        if let Some(value) = said(device.leaf_weight) {
            let value = format!("{} {value}", device_number(device.major, device.minor)?);
            out.push(Setting::new(
                Controllers::BLKIO,
                "blkio.leaf_weight_device",
                value,
            ));
        }
    }
    for (file, throttles) in [
        ("blkio.throttle.read_bps_device", &limit.throttle_read_bps_device),
        (
            "blkio.throttle.write_bps_device",
            &limit.throttle_write_bps_device,
        ),
        (
            "blkio.throttle.read_iops_device",
            &limit.throttle_read_iops_device,
        ),
        (
            "blkio.throttle.write_iops_device",
            &limit.throttle_write_iops_device,
        ),
    ] {
        for throttle in throttles {
            let value = format!(
                "{} {}",
                device_number(throttle.major, throttle.minor)?,
                throttle.rate
            );
            out.push(Setting::new(Controllers::BLKIO, file, value));
        }
    }
    Ok(())
}

/// Which of `memory.stat`'s totals are wanted; with hierarchy they have the prefix `total_`.
pub(crate) fn total(stat: &str, name: &str) -> u64 {
    let mut wanted = String::with_capacity(32);
    // Writing to a String cannot fail; a short name is the worst that could come of it.
    if write!(wanted, "total_{name}").is_err() {
        return 0;
    }
    crate::stats::field(stat, &wanted)
        .or_else(|| crate::stats::field(stat, name))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use dhow_oci::runtime::{HugepageLimit, PidsLimit, Throttle};

    use super::*;

    fn written(resources: &Resources) -> Vec<(String, String)> {
        settings(resources)
            .unwrap()
            .into_iter()
            .map(|s| (s.file, s.value))
            .collect()
    }

    #[test]
    fn limits_become_v1_files_in_an_order_that_the_kernel_takes() {
        let resources = Resources {
            memory: Some(MemoryLimit {
                limit: Some(64 << 20),
                swap: Some(-1),
                ..MemoryLimit::default()
            }),
            cpu: Some(CpuLimit {
                shares: Some(512),
                quota: Some(50_000),
                period: Some(100_000),
                cpus: Some("0-1".to_owned()),
                ..CpuLimit::default()
            }),
            pids: Some(PidsLimit { limit: Some(-1) }),
            block_io: Some(BlockIo {
                weight: Some(300),
                throttle_read_bps_device: vec![Throttle {
                    major: 8,
                    minor: 0,
                    rate: 1 << 20,
                }],
                ..BlockIo::default()
            }),
            ..Resources::default()
        };
        let expected = [
            ("memory.limit_in_bytes", "67108864"),
            ("memory.memsw.limit_in_bytes", "-1"),
            ("cpu.shares", "512"),
            ("cpu.cfs_period_us", "100000"),
            ("cpu.cfs_quota_us", "50000"),
            ("cpuset.cpus", "0-1"),
            ("pids.max", "max"),
            ("blkio.bfq.weight", "300"),
            ("blkio.throttle.read_bps_device", "8:0 1048576"),
        ];
        let expected: Vec<_> = expected
            .map(|(file, value)| (file.to_owned(), value.to_owned()))
            .into();
        assert_eq!(written(&resources), expected);
    }

    #[test]
    fn a_value_with_a_newline_or_a_page_size_with_a_slash_is_refused() {
        let cpu = |cpus: &str| Resources {
            cpu: Some(CpuLimit {
                cpus: Some(cpus.to_owned()),
                ..CpuLimit::default()
            }),
            ..Resources::default()
        };
        assert!(settings(&cpu("0\n1")).is_err());
        assert!(settings(&cpu("0/../1")).is_err());
        let pages = |size: &str| Resources {
            hugepage_limits: vec![HugepageLimit {
                page_size: size.to_owned(),
                limit: 1,
            }],
            ..Resources::default()
        };
        assert!(settings(&pages("2MB")).is_ok());
        for wrong in ["2MB/../x", "2MB\n", ""] {
            assert!(settings(&pages(wrong)).is_err(), "{wrong:?}");
        }
        let unified = Resources {
            unified: [("memory.high".to_owned(), "1".to_owned())].into(),
            ..Resources::default()
        };
        assert_eq!(settings(&unified).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
