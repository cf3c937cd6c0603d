//! Limits as files of cgroup v1 (kernel `Documentation/admin-guide/cgroup-v1`).

use std::fmt::Write as _;

use dhow_oci::runtime::{BlockIo, CpuLimit, MemoryLimit, Resources};
use dhow_types::ErrorKind;

use crate::Error;
use crate::hierarchy::Controllers;
use crate::setting::{Access, DeviceKind, Setting, device_number, plain};

/// Settings of all limits but the devices, in the order of writing.
pub(crate) fn settings(resources: &Resources) -> Result<Vec<Setting>, Error> {
    let mut out = Vec::new();
    if let Some(limit) = &resources.memory {
        memory(limit, &mut out);
    }
    if let Some(limit) = &resources.cpu {
        cpu(limit, &mut out)?;
    }
    if let Some(pids) = &resources.pids {
        let value = if pids.limit > 0 {
            pids.limit.to_string()
        } else {
            "max".to_owned()
        };
        out.push(Setting::new(Controllers::PIDS, "pids.max", value));
    }
    if let Some(limit) = &resources.block_io {
        block_io(limit, &mut out)?;
    }
    for huge in &resources.hugepage_limits {
        let file = format!(
            "hugetlb.{}.limit_in_bytes",
            plain(&huge.page_size, "huge page size")?
        );
        out.push(Setting::new(Controllers::HUGETLB, file, huge.limit));
    }
    if let Some(name) = resources.unified.keys().next() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("{name} is a file of cgroup v2, and this host has cgroup v1"),
        )
        .with_hint("boot with systemd.unified_cgroup_hierarchy=1, or use the v1 limits"));
    }
    Ok(out)
}

fn memory(limit: &MemoryLimit, out: &mut Vec<Setting>) {
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
    if let Some(value) = limit.swappiness.and_then(|value| i64::try_from(value).ok()) {
        set("memory.swappiness", value);
    }
    if limit.disable_oom_killer == Some(true) {
        set("memory.oom_control", 1);
    }
}

fn cpu(limit: &CpuLimit, out: &mut Vec<Setting>) -> Result<(), Error> {
    let mut set = |file, value: String| out.push(Setting::new(Controllers::CPU, file, value));
    if let Some(value) = limit.shares.filter(|shares| *shares != 0) {
        set("cpu.shares", value.to_string());
    }
    if let Some(value) = limit.period.filter(|period| *period != 0) {
        set("cpu.cfs_period_us", value.to_string());
    }
    if let Some(value) = limit.quota.filter(|quota| *quota != 0) {
        set("cpu.cfs_quota_us", value.to_string());
    }
    if let Some(value) = limit.burst {
        set("cpu.cfs_burst_us", value.to_string());
    }
    if let Some(value) = limit.idle {
        set("cpu.idle", value.to_string());
    }
    for (file, value) in [("cpuset.cpus", &limit.cpus), ("cpuset.mems", &limit.mems)] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            out.push(Setting::new(Controllers::CPUSET, file, plain(value, file)?));
        }
    }
    Ok(())
}

fn block_io(limit: &BlockIo, out: &mut Vec<Setting>) -> Result<(), Error> {
    if let Some(weight) = limit.weight.filter(|weight| *weight != 0) {
        let mut setting = Setting::new(Controllers::BLKIO, "blkio.bfq.weight", weight);
        setting.otherwise = Some(("blkio.weight", weight.to_string()));
        out.push(setting);
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
            let value = format!("{} {}", device_number(throttle)?, throttle.rate);
            out.push(Setting::new(Controllers::BLKIO, file, value));
        }
    }
    Ok(())
}

/// Lines for `devices.allow` (true) and `devices.deny` (false), in order.
pub(crate) fn device_lines(rules: &[Access]) -> Vec<(bool, String)> {
    rules.iter().flat_map(device_line).collect()
}

fn device_line(rule: &Access) -> Vec<(bool, String)> {
    if rule.is_everything() {
        return vec![(rule.allow, "a".to_owned())];
    }
    // A line of type `a` means everything whatever else it says, so "all devices, some access" is two lines.
    let kinds = match rule.kind {
        None => vec!['b', 'c'],
        Some(DeviceKind::Block) => vec!['b'],
        Some(DeviceKind::Char) => vec!['c'],
    };
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    kinds
        .into_iter()
        .map(|kind| {
            let mut line = format!("{kind} {}:{} ", number(rule.major), number(rule.minor));
            for (letter, set) in [('r', rule.read), ('w', rule.write), ('m', rule.mknod)] {
                if set {
                    line.push(letter);
                }
            }
            (rule.allow, line)
        })
        .collect()
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
    use dhow_oci::runtime::{DeviceRule, PidsLimit, Throttle};

    use super::*;
    use crate::setting::device_rules;

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
            pids: Some(PidsLimit { limit: -1 }),
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
        let unified = Resources {
            unified: [("memory.high".to_owned(), "1".to_owned())].into(),
            ..Resources::default()
        };
        assert_eq!(settings(&unified).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn device_rules_become_lines_and_half_a_wildcard_becomes_two() {
        let rule = |allow, kind: &str, major, minor, access: &str| DeviceRule {
            allow,
            kind: Some(kind.to_owned()),
            major,
            minor,
            access: Some(access.to_owned()),
        };
        let resources = Resources {
            devices: vec![
                DeviceRule {
                    allow: false,
                    access: Some("rwm".to_owned()),
                    ..DeviceRule::default()
                },
                rule(true, "c", Some(1), Some(3), "rwm"),
                rule(true, "b", Some(8), None, "r"),
                rule(true, "a", None, None, "m"),
            ],
            ..Resources::default()
        };
        let lines = device_lines(&device_rules(&resources).unwrap());
        let text: Vec<_> = lines
            .iter()
            .map(|(allow, line)| (*allow, line.as_str()))
            .collect();
        assert_eq!(
            text,
            [
                (false, "a"),
                (true, "c 1:3 rwm"),
                (true, "b 8:* r"),
                (true, "b *:* m"),
                (true, "c *:* m")
            ]
        );
        for bad in [
            rule(true, "x", None, None, "r"),
            rule(true, "c", Some(-2), None, "r"),
            rule(true, "c", None, None, "z"),
        ] {
            let resources = Resources {
                devices: vec![bad],
                ..Resources::default()
            };
            assert!(device_rules(&resources).is_err());
        }
    }
}
