//! Limits as files of cgroup v2 (kernel `Documentation/admin-guide/cgroup-v2.rst`).

use dhow_oci::runtime::{BlockIo, CpuLimit, MemoryLimit, Resources, Throttle};
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
    setting::hugetlb(resources, "max", &mut out)?;
    setting::rdma(resources, &mut out)?;
    if let Some(network) = &resources.network
        && (network.class_id.is_some_and(|class| class != 0) || !network.priorities.is_empty())
    {
        return Err(unsupported(
            "packets cannot be marked by control group",
            "leave linux.resources.network out, and match packets by cgroup in nftables",
        ));
    }
    for (file, value) in unified_files(resources) {
        unified(file, value, &mut out)?;
    }
    Ok(out)
}

fn unsupported(what: &str, fix: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{what} with cgroup v2")).with_hint(fix)
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
    if let Some(swap) = swap_alone(limit)? {
        let value = if swap < 0 {
            "max".to_owned()
        } else {
            swap.to_string()
        };
        // Without the file there is no swap to be limited.
        let missing = if swap <= 0 { Missing::Pass } else { Missing::Refuse };
        out.push(Setting::new(Controllers::MEMORY, "memory.swap.max", value).or(missing));
    }
    if limit.disable_oom_killer == Some(true) {
        return Err(unsupported(
            "the OOM killer cannot be disabled",
            "leave --oom-kill-disable out",
        ));
    }
    if setting::swappiness(limit.swappiness)?.is_some() {
        return Err(unsupported(
            "swappiness cannot be set for one container",
            "leave --memory-swappiness out",
        ));
    }
    Ok(())
}

/// The spec counts memory and swap together, v2 counts swap alone (opencontainers/cgroups
/// `ConvertMemorySwapToCgroupV2Value`). Below zero means no limit.
pub(crate) fn swap_alone(limit: &MemoryLimit) -> Result<Option<i64>, Error> {
    let (memory, both) = (limit.limit.unwrap_or(0), limit.swap.unwrap_or(0));
    let bad = |message: &str| {
        Err(Error::new(ErrorKind::InvalidArgument, message.to_owned())
            .with_hint("set --memory too, at most as large as --memory-swap"))
    };
    match (memory, both) {
        // "No limit of memory" alone lifts that of swap as well, as it did in v1.
        (..0, 0) => Ok(Some(-1)),
        (_, 0) => Ok(None),
        (_, ..0) => Ok(Some(-1)),
        (..0, both) => Ok(Some(both)),
        (0, _) => bad("unable to set swap limit without memory limit"),
        (memory, both) if both < memory => bad("memory+swap limit should be >= memory limit"),
        (memory, both) => Ok(Some(both - memory)),
    }
}

fn cpu(limit: &CpuLimit, out: &mut Vec<Setting>) -> Result<(), Error> {
    if limit.realtime_runtime.is_some_and(|time| time != 0)
        || limit.realtime_period.is_some_and(|time| time != 0)
    {
        return Err(unsupported(
            "real-time scheduling cannot be limited",
            "leave the real-time period and runtime out",
        ));
    }
    let mut set = |file, value: String| out.push(Setting::new(Controllers::CPU, file, value));
    if let Some(idle) = limit.idle {
        set("cpu.idle", idle.to_string());
    }
    if let Some(shares) = limit.shares.filter(|shares| *shares != 0) {
        // The kernel takes no weight of an idle group.
        if limit.idle != Some(1) {
            set("cpu.weight", weight_of_shares(shares).to_string());
        }
    }
    let (quota, period) = (
        limit.quota.filter(|quota| *quota != 0),
        limit.period.filter(|period| *period != 0),
    );
    match (quota, period) {
        (None, None) => {}
        (Some(quota), Some(period)) => set("cpu.max", format!("{} {period}", or_max(quota))),
        // One number alone is the quota, and the period stays.
        (Some(quota), None) => set("cpu.max", or_max(quota)),
        (None, Some(period)) => {
            let mut setting = Setting::new(Controllers::CPU, "cpu.max", period);
            setting.keeps_first = true;
            out.push(setting);
        }
    }
    if let Some(burst) = limit.burst {
        out.push(Setting::new(Controllers::CPU, "cpu.max.burst", burst));
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
pub(crate) fn weight_of_shares(shares: u64) -> u64 {
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

/// v1 weight (10 to 1000) as v2 weight (1 to 10000), linearly.
fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight).saturating_sub(10) * 9999 / 990
}

fn block_io(limit: &BlockIo, out: &mut Vec<Setting>) -> Result<(), Error> {
    let mut weight = |device: &str, value: u16| {
        let other = Missing::Other("io.weight", format!("{device}{}", io_weight(value)));
        out.push(Setting::new(Controllers::BLKIO, "io.bfq.weight", format!("{device}{value}")).or(other));
    };
    if let Some(value) = limit.weight.filter(|weight| *weight != 0) {
        weight("", value);
    }
    for device in &limit.weight_device {
        if let Some(value) = device.weight.filter(|weight| *weight != 0) {
            weight(&format!("{} ", device_number(device.major, device.minor)?), value);
        }
    }
    let leaf = |weight: Option<u16>| weight.is_some_and(|weight| weight != 0);
    if leaf(limit.leaf_weight) || limit.weight_device.iter().any(|device| leaf(device.leaf_weight)) {
        return Err(unsupported("leaf weights do not exist", "leave them out"));
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
            let value = format!("{} {key}={rate}", device_number(throttle.major, throttle.minor)?);
            out.push(Setting::new(Controllers::BLKIO, "io.max", value));
        }
    }
    Ok(())
}

/// The files of the `unified` map, without a weight of an idle group: the kernel takes none (`sched_group_set_shares`).
pub(crate) fn unified_files(resources: &Resources) -> impl Iterator<Item = (&String, &String)> {
    let said = resources.unified.get("cpu.idle").map(|value| value.trim() == "1");
    let cpu = resources.cpu.as_ref();
    let idle = said.unwrap_or_else(|| cpu.is_some_and(|cpu| cpu.idle == Some(1)));
    let weight = |file: &str| matches!(file, "cpu.weight" | "cpu.weight.nice");
    resources
        .unified
        .iter()
        .filter(move |(file, _)| !(idle && weight(file)))
}

/// A file of the `unified` map: `controller.name`, never a path, never a control file that says who is in the group.
fn unified(file: &str, value: &str, out: &mut Vec<Setting>) -> Result<(), Error> {
    let wrong = |why: &str| {
        let shown: String = file.chars().take(128).collect();
        Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("unified resource {shown:?} {why}"),
        )
        .with_hint("name one such as memory.high or io.weight"))
    };
    if file.contains('/') {
        return wrong("must be a file name (no slashes)");
    }
    let Some((controller, _)) = file
        .split_once('.')
        .filter(|(controller, _)| !controller.is_empty())
    else {
        return wrong("must be in the form CONTROLLER.PARAMETER");
    };
    let name = plain(file, "unified resource")?;
    let set = Controllers::parse(std::iter::once(controller));
    let settable = matches!(
        name,
        "cgroup.max.depth" | "cgroup.max.descendants" | "cgroup.pressure"
    );
    if set == Controllers::NONE && !settable {
        return wrong(&format!("can't be set: controller {controller:?} not available"));
    }
    // Several lines are several writes: `io.max` takes one device at a time.
    for line in value.lines().filter(|line| !line.trim().is_empty()) {
        out.push(Setting::new(set, name, plain(line, name)?));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use dhow_oci::runtime::{DeviceWeight, NetworkLimit, PidsLimit};

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
            pids: Some(PidsLimit { limit: Some(0) }),
            block_io: Some(BlockIo {
                weight_device: vec![DeviceWeight {
                    major: 8,
                    minor: 0,
                    weight: Some(1000),
                    leaf_weight: None,
                }],
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
            ("pids.max", "1"),
            ("io.bfq.weight", "8:0 1000"),
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
        let swap = |limit, swap| {
            swap_alone(&MemoryLimit {
                limit,
                swap,
                ..MemoryLimit::default()
            })
        };
        assert_eq!(swap(Some(10), Some(10)).unwrap(), Some(0));
        assert_eq!(swap(Some(10), Some(30)).unwrap(), Some(20));
        assert_eq!(swap(None, Some(-1)).unwrap(), Some(-1));
        assert_eq!(swap(Some(-1), None).unwrap(), Some(-1));
        assert_eq!(swap(Some(-1), Some(7)).unwrap(), Some(7));
        assert_eq!(swap(Some(10), None).unwrap(), None);
        assert!(swap(None, Some(10)).is_err());
        assert!(swap(Some(11), Some(10)).is_err());
    }

    #[test]
    fn a_period_alone_keeps_the_quota_and_a_quota_alone_the_period() {
        let cpu = |quota, period| {
            let cpu = CpuLimit {
                quota,
                period,
                ..CpuLimit::default()
            };
            let resources = Resources {
                cpu: Some(cpu),
                ..Resources::default()
            };
            let found = settings(&resources).unwrap().pop().unwrap();
            (found.value, found.keeps_first)
        };
        assert_eq!(cpu(Some(-1), None), ("max".to_owned(), false));
        assert_eq!(cpu(Some(7000), None), ("7000".to_owned(), false));
        assert_eq!(cpu(None, Some(50_000)), ("50000".to_owned(), true));
        assert_eq!(cpu(Some(0), Some(50_000)), ("50000".to_owned(), true));
    }

    #[test]
    fn what_v2_does_not_have_is_refused_by_name() {
        let text = |resources: &Resources| settings(resources).unwrap_err().to_string();
        let realtime = Resources {
            cpu: Some(CpuLimit {
                realtime_runtime: Some(1),
                ..CpuLimit::default()
            }),
            ..Resources::default()
        };
        assert!(text(&realtime).contains("real-time"));
        let swappiness = |value| Resources {
            memory: Some(MemoryLimit {
                swappiness: Some(value),
                ..MemoryLimit::default()
            }),
            ..Resources::default()
        };
        assert!(text(&swappiness(60)).contains("swappiness"));
        assert!(text(&swappiness(101)).contains("0-100"));
        assert!(settings(&swappiness(u64::MAX)).unwrap().is_empty());
        let network = Resources {
            network: Some(NetworkLimit {
                class_id: Some(1),
                ..NetworkLimit::default()
            }),
            ..Resources::default()
        };
        assert!(text(&network).contains("packets"));
    }

    #[test]
    fn an_idle_group_gets_no_weight() {
        let files = |idle: &str| {
            let map = [("cpu.idle", idle), ("cpu.weight", "8"), ("pids.max", "9")];
            let resources = Resources {
                unified: map
                    .map(|(file, value)| (file.to_owned(), value.to_owned()))
                    .into(),
                ..Resources::default()
            };
            unified_files(&resources)
                .map(|(file, _)| file.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(files("1"), ["cpu.idle", "pids.max"]);
        assert_eq!(files("0"), ["cpu.idle", "cpu.weight", "pids.max"]);
    }

    #[test]
    fn the_unified_map_reaches_no_control_file_and_no_other_directory() {
        let mut out = Vec::new();
        for bad in [
            "cgroup.kill",
            "cgroup.procs",
            "../memory.max",
            "memory/../x",
            "notes",
            ".max",
            "memory.max\n",
        ] {
            assert!(unified(bad, "1", &mut out).is_err(), "{bad:?}");
        }
        assert!(out.is_empty());
        unified("io.max", "8:0 rbps=1\n8:16 rbps=2\n", &mut out).unwrap();
        assert_eq!(out.len(), 2);
    }
}
