//! Limits as files of cgroup v2 (kernel `Documentation/admin-guide/cgroup-v2.rst`).

use dhow_oci::runtime::{BlockIo, CpuLimit, MemoryLimit, Resources, Throttle};
use dhow_types::ErrorKind;

use crate::Error;
use crate::hierarchy::Controllers;
use crate::setting::{Setting, device_number, plain};

/// Settings of all limits but the devices, in the order of writing.
pub(crate) fn settings(resources: &Resources) -> Result<Vec<Setting>, Error> {
    let mut out = Vec::new();
    if let Some(limit) = &resources.memory {
        memory(limit, &mut out)?;
    }
    if let Some(limit) = &resources.cpu {
        cpu(limit, &mut out)?;
    }
    if let Some(pids) = &resources.pids {
        out.push(Setting::new(Controllers::PIDS, "pids.max", or_max(pids.limit)));
    }
    if let Some(limit) = &resources.block_io {
        block_io(limit, &mut out)?;
    }
    for huge in &resources.hugepage_limits {
        let file = format!("hugetlb.{}.max", plain(&huge.page_size, "huge page size")?);
        out.push(Setting::new(Controllers::HUGETLB, file, huge.limit));
    }
    for (file, value) in &resources.unified {
        out.push(unified(file, value)?);
    }
    Ok(out)
}

fn or_max(limit: i64) -> String {
    if limit > 0 {
        limit.to_string()
    } else {
        "max".to_owned()
    }
}

fn memory(limit: &MemoryLimit, out: &mut Vec<Setting>) -> Result<(), Error> {
    let said = |value: Option<i64>| value.filter(|value| *value != 0);
    let mut set = |file, value: String| out.push(Setting::new(Controllers::MEMORY, file, value));
    if let Some(value) = said(limit.reservation) {
        set("memory.low", or_max(value));
    }
    if let Some(value) = said(limit.limit) {
        set("memory.max", or_max(value));
    }
    if let Some(swap) = said(limit.swap) {
        set("memory.swap.max", swap_alone(said(limit.limit), swap)?);
    }
    let unsupported = |what: &str, fix: &str| {
        Err(Error::new(ErrorKind::Unsupported, format!("{what} with cgroup v2")).with_hint(fix))
    };
    if limit.disable_oom_killer == Some(true) {
        return unsupported(
            "the OOM killer cannot be disabled",
            "leave --oom-kill-disable out",
        );
    }
    if limit.swappiness.is_some() {
        return unsupported(
            "swappiness cannot be set for one container",
            "leave --memory-swappiness out",
        );
    }
    Ok(())
}

/// The spec counts memory and swap together, v2 counts swap alone.
fn swap_alone(memory: Option<i64>, both: i64) -> Result<String, Error> {
    if both < 0 {
        return Ok("max".to_owned());
    }
    match memory {
        Some(memory) if memory > 0 && memory <= both => Ok((both - memory).to_string()),
        _ => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("memory and swap together are limited to {both}, which needs a memory limit that is not larger"),
        )
        .with_hint("set --memory too, at most as large as --memory-swap")),
    }
}

fn cpu(limit: &CpuLimit, out: &mut Vec<Setting>) -> Result<(), Error> {
    let mut set = |file, value: String| out.push(Setting::new(Controllers::CPU, file, value));
    if let Some(shares) = limit.shares.filter(|shares| *shares != 0) {
        set("cpu.weight", weight_of_shares(shares).to_string());
    }
    let (quota, period) = (
        limit.quota.filter(|quota| *quota != 0),
        limit.period.filter(|period| *period != 0),
    );
    match (quota, period) {
        (None, None) => {}
        (quota, period) => {
            let quota = or_max(quota.unwrap_or(-1));
            set(
                "cpu.max",
                period.map_or_else(|| quota.clone(), |period| format!("{quota} {period}")),
            );
        }
    }
    if let Some(burst) = limit.burst {
        set("cpu.max.burst", burst.to_string());
    }
    if let Some(idle) = limit.idle {
        set("cpu.idle", idle.to_string());
    }
    for (file, value) in [("cpuset.cpus", &limit.cpus), ("cpuset.mems", &limit.mems)] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            out.push(Setting::new(Controllers::CPUSET, file, plain(value, file)?));
        }
    }
    Ok(())
}

/// v1 shares (2 to 262144) as v2 weight (1 to 10000) by the curve that maps 1024 to 100
/// (opencontainers/cgroups `ConvertCPUSharesToCgroupV2Value`, kubernetes KEP-2254).
fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let bits = f64::from(u32::try_from(shares).unwrap_or(u32::MAX)).log2();
            let exponent = (bits * bits + 125.0 * bits) / 612.0 - 7.0 / 34.0;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 1 and 10000 for every share in this range"
            )]
            let weight = 10_f64.powf(exponent).ceil() as u64;
            weight.clamp(1, 10_000)
        }
    }
}

fn block_io(limit: &BlockIo, out: &mut Vec<Setting>) -> Result<(), Error> {
    if let Some(weight) = limit.weight.filter(|weight| *weight != 0) {
        let mut setting = Setting::new(Controllers::BLKIO, "io.bfq.weight", weight);
        let scaled = 1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990;
        setting.otherwise = Some(("io.weight", scaled.to_string()));
        out.push(setting);
    }
    let lists: [(&str, &[Throttle]); 4] = [
        ("rbps", &limit.throttle_read_bps_device),
        ("wbps", &limit.throttle_write_bps_device),
        ("riops", &limit.throttle_read_iops_device),
        ("wiops", &limit.throttle_write_iops_device),
    ];
    for (key, throttles) in lists {
        for throttle in throttles {
            let rate = if throttle.rate == 0 {
                "max".to_owned()
            } else {
                throttle.rate.to_string()
            };
            let value = format!("{} {key}={rate}", device_number(throttle)?);
            out.push(Setting::new(Controllers::BLKIO, "io.max", value));
        }
    }
    Ok(())
}

/// A file of the `unified` map: `controller.name`, never a path, never the group's own control files.
fn unified(file: &str, value: &str) -> Result<Setting, Error> {
    let name = plain(file, "cgroup v2 file")?;
    let controller = name.split_once('.').map_or("", |(controller, _)| controller);
    let set = Controllers::parse(std::iter::once(controller));
    if set == Controllers::NONE || controller == "blkio" {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{name:?} is no file of a cgroup v2 controller"),
        )
        .with_hint("name one such as memory.high or io.weight"));
    }
    Ok(Setting::new(set, name, plain(value, name)?))
}

#[cfg(test)]
mod tests {
    use dhow_oci::runtime::PidsLimit;

    use super::*;

    #[test]
    fn limits_become_v2_files() {
        let resources = Resources {
            memory: Some(MemoryLimit {
                limit: Some(64 << 20),
                swap: Some(96 << 20),
                reservation: Some(32 << 20),
                ..MemoryLimit::default()
            }),
            cpu: Some(CpuLimit {
                shares: Some(1024),
                quota: Some(50_000),
                period: Some(100_000),
                ..CpuLimit::default()
            }),
            pids: Some(PidsLimit { limit: 100 }),
            block_io: Some(BlockIo {
                throttle_write_iops_device: vec![Throttle {
                    major: 8,
                    minor: 16,
                    rate: 30,
                }],
                ..BlockIo::default()
            }),
            unified: [("memory.high".to_owned(), "50M".to_owned())].into(),
            ..Resources::default()
        };
        let written: Vec<_> = settings(&resources)
            .unwrap()
            .into_iter()
            .map(|s| (s.file, s.value))
            .collect();
        let expected = [
            ("memory.low", "33554432"),
            ("memory.max", "67108864"),
            ("memory.swap.max", "33554432"),
            ("cpu.weight", "100"),
            ("cpu.max", "50000 100000"),
            ("pids.max", "100"),
            ("io.max", "8:16 wiops=30"),
            ("memory.high", "50M"),
        ];
        let expected: Vec<_> = expected
            .map(|(file, value)| (file.to_owned(), value.to_owned()))
            .into();
        assert_eq!(written, expected);
    }

    #[test]
    fn shares_map_to_weights_at_the_ends_and_at_the_default() {
        for (shares, weight) in [(1, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
    }

    #[test]
    fn swap_needs_a_memory_limit_and_counts_alone() {
        assert_eq!(swap_alone(Some(10), 10).unwrap(), "0");
        assert_eq!(swap_alone(None, -1).unwrap(), "max");
        assert!(swap_alone(None, 10).is_err());
        assert!(swap_alone(Some(11), 10).is_err());
    }

    #[test]
    fn the_unified_map_reaches_no_control_file_and_no_other_directory() {
        for bad in [
            "cgroup.kill",
            "../memory.max",
            "memory/../x",
            "notes",
            "memory.max\n",
        ] {
            assert!(unified(bad, "1").is_err(), "{bad:?}");
        }
    }
}
