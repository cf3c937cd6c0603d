//! Limits and device rules, from docker's units to the spec's.

use dhow_oci::runtime::{BlockIo, CpuLimit, DeviceRule, MemoryLimit, PidsLimit, Resources, Rlimit};

use crate::check::{invalid, number_list, shown};
use crate::{Error, Limits, Request, Ulimit};

/// Least memory of a container: docker's, below which its first process dies.
const LEAST_MEMORY: u64 = 6 << 20;
/// Period when nobody says, in microseconds.
const PERIOD: u64 = 100_000;

/// The spec's resources of a request.
pub(crate) fn resources(request: &Request) -> Result<Resources, Error> {
    let limits = &request.limits;
    Ok(Resources {
        devices: device_rules(request)?,
        memory: memory(limits)?,
        cpu: cpu(limits)?,
        pids: limits
            .pids
            .filter(|pids| *pids > 0)
            .map(|limit| PidsLimit { limit: Some(limit) }),
        block_io: block_io(limits)?,
        ..Resources::default()
    })
}

fn signed(bytes: u64, what: &str) -> Result<i64, Error> {
    i64::try_from(bytes).map_err(|_| invalid(format!("{what} of {bytes} bytes is too large")))
}

fn memory(limits: &Limits) -> Result<Option<MemoryLimit>, Error> {
    let limit = limits.memory.filter(|bytes| *bytes != 0);
    let reservation = limits.memory_reservation.filter(|bytes| *bytes != 0);
    if limit.is_some_and(|bytes| bytes < LEAST_MEMORY) {
        return Err(invalid("the minimum memory limit is 6 MiB").with_hint("--memory 6m or more"));
    }
    if limit
        .zip(reservation)
        .is_some_and(|(limit, reservation)| reservation > limit)
    {
        return Err(invalid("the memory reservation is larger than the memory limit"));
    }
    if limits
        .memory_swappiness
        .is_some_and(|swappiness| swappiness > 100)
    {
        return Err(invalid("memory swappiness goes from 0 to 100"));
    }
    let limit = limit.map(|bytes| signed(bytes, "memory")).transpose()?;
    let swap = match (limits.memory_swap.filter(|swap| *swap != 0), limit) {
        (None, limit) => limit.map(|bytes| bytes.saturating_mul(2)),
        (Some(-1), _) => Some(-1),
        (Some(swap), Some(bytes)) if swap >= bytes => Some(swap),
        (Some(_), Some(_)) => {
            return Err(invalid("memory and swap together are limited below memory alone")
                .with_hint("--memory-swap counts both; make it at least as large as --memory"));
        }
        (Some(_), None) => {
            return Err(
                invalid("a limit of memory and swap needs a limit of memory").with_hint("set --memory too")
            );
        }
    };
    let out = MemoryLimit {
        limit,
        reservation: reservation
            .map(|bytes| signed(bytes, "memory reservation"))
            .transpose()?,
        swap,
        swappiness: limits.memory_swappiness,
        disable_oom_killer: limits.oom_kill_disable.filter(|disabled| *disabled),
        ..MemoryLimit::default()
    };
    Ok((out != MemoryLimit::default()).then_some(out))
}

fn cpu(limits: &Limits) -> Result<Option<CpuLimit>, Error> {
    let period = limits.cpu_period.filter(|period| *period != 0);
    let quota = limits.cpu_quota.filter(|quota| *quota != 0);
    if period.is_some_and(|period| !(1000..=1_000_000).contains(&period)) {
        return Err(invalid("the CPU period goes from 1000 to 1000000 microseconds"));
    }
    if quota.is_some_and(|quota| (0..1000).contains(&quota)) {
        return Err(invalid("the CPU quota is at least 1000 microseconds"));
    }
    // The kernel's own limit is what is not known here (`sched_rt_runtime_us`).
    let longest = i64::try_from(
        limits
            .realtime_period
            .filter(|period| *period != 0)
            .unwrap_or(1_000_000),
    );
    if limits
        .realtime_runtime
        .is_some_and(|runtime| longest.is_ok_and(|longest| runtime > longest))
    {
        return Err(invalid(
            "the real-time runtime cannot be higher than the real-time period",
        ));
    }
    for (list, what) in [
        (&limits.cpuset_cpus, "CPU list"),
        (&limits.cpuset_mems, "memory node list"),
    ] {
        list.as_deref()
            .filter(|list| !list.is_empty())
            .map_or(Ok(()), |list| number_list(list, what))?;
    }
    let (period, quota) = match limits.nano_cpus.filter(|nano| *nano != 0) {
        None => (period, quota),
        Some(_) if period.is_some() || quota.is_some() => {
            return Err(invalid(
                "--cpus cannot be set together with --cpu-period or --cpu-quota",
            ));
        }
        Some(nano) => (Some(PERIOD), Some(quota_of(nano)?)),
    };
    let own = |list: &Option<String>| list.clone().filter(|list| !list.is_empty());
    let out = CpuLimit {
        shares: limits.cpu_shares.filter(|shares| *shares != 0),
        quota,
        period,
        cpus: own(&limits.cpuset_cpus),
        mems: own(&limits.cpuset_mems),
        realtime_runtime: limits.realtime_runtime.filter(|runtime| *runtime != 0),
        realtime_period: limits.realtime_period.filter(|period| *period != 0),
        ..CpuLimit::default()
    };
    Ok((out != CpuLimit::default()).then_some(out))
}

/// Microseconds in a [`PERIOD`]; the kernel takes no less than 1000.
fn quota_of(nano_cpus: u64) -> Result<i64, Error> {
    let quota = u128::from(nano_cpus) * u128::from(PERIOD) / 1_000_000_000;
    let quota = i64::try_from(quota)
        .ok()
        .filter(|quota| (1000..1 << 40).contains(quota));
    quota.ok_or_else(|| invalid("the number of CPUs must be at least 0.01").with_hint("such as --cpus 1.5"))
}

fn block_io(limits: &Limits) -> Result<Option<BlockIo>, Error> {
    let weight = limits.blkio_weight.filter(|weight| *weight != 0);
    if weight.is_some_and(|weight| !(10..=1000).contains(&weight)) {
        return Err(invalid("the block I/O weight goes from 10 to 1000"));
    }
    let out = BlockIo {
        weight,
        throttle_read_bps_device: limits.read_bps.clone(),
        throttle_write_bps_device: limits.write_bps.clone(),
        throttle_read_iops_device: limits.read_iops.clone(),
        throttle_write_iops_device: limits.write_iops.clone(),
        ..BlockIo::default()
    };
    Ok((out != BlockIo::default()).then_some(out))
}

/// Devices that every container may use: the default nodes, the terminals, and making any node, which opens nothing
/// (runc `devices.go`, "AllowedDevices").
const ALWAYS: [(&str, Option<i64>, Option<i64>, &str); 11] = [
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", Some(1), Some(3), "rwm"), // null
    ("c", Some(1), Some(5), "rwm"), // zero
    ("c", Some(1), Some(7), "rwm"), // full
    ("c", Some(1), Some(8), "rwm"), // random
    ("c", Some(1), Some(9), "rwm"), // urandom
    ("c", Some(5), Some(0), "rwm"), // tty
    ("c", Some(5), Some(1), "rwm"), // console
    ("c", Some(5), Some(2), "rwm"), // ptmx
    ("c", Some(136), None, "rwm"),  // pseudo terminals
];

fn device_rules(request: &Request) -> Result<Vec<DeviceRule>, Error> {
    let everything = |allow| DeviceRule {
        allow,
        access: Some("rwm".to_owned()),
        ..DeviceRule::default()
    };
    if request.privileged {
        return Ok(vec![everything(true)]);
    }
    let mut out = vec![everything(false)];
    out.extend(ALWAYS.iter().map(|(kind, major, minor, access)| DeviceRule {
        allow: true,
        kind: Some((*kind).to_owned()),
        major: *major,
        minor: *minor,
        access: Some((*access).to_owned()),
    }));
    for device in &request.devices {
        let access = if device.access.is_empty() {
            "rwm"
        } else {
            &device.access
        };
        check_access(access)?;
        out.push(DeviceRule {
            allow: true,
            kind: Some(device.kind.clone()),
            major: Some(device.major.into()),
            minor: Some(device.minor.into()),
            access: Some(access.to_owned()),
        });
    }
    for text in &request.device_rules {
        out.push(device_rule(text)?);
    }
    Ok(out)
}

fn check_access(access: &str) -> Result<(), Error> {
    let fine =
        !access.is_empty() && access.len() <= 3 && access.chars().all(|c| matches!(c, 'r' | 'w' | 'm'));
    if fine {
        Ok(())
    } else {
        Err(invalid(format!(
            "{:?} is no device access: use some of rwm",
            shown(access)
        )))
    }
}

/// `c 1:3 rwm`, with `*` for any number (docker `--device-cgroup-rule`).
fn device_rule(text: &str) -> Result<DeviceRule, Error> {
    let bad = || {
        invalid(format!("{:?} is no device rule", shown(text)))
            .with_hint("such as \"c 1:3 rwm\" or \"b 8:* r\"")
    };
    let words: Vec<&str> = text.split(' ').collect();
    let [kind @ ("a" | "b" | "c"), numbers, access] = words.as_slice() else {
        return Err(bad());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
    let number = |word: &str| match word {
        "*" => Ok(None),
        word if word.bytes().all(|byte| byte.is_ascii_digit()) => word
            .parse::<u32>()
            .map(|number| Some(number.into()))
            .map_err(|_| bad()),
        _ => Err(bad()),
    };
    check_access(access)?;
    Ok(DeviceRule {
        allow: true,
        kind: Some((*kind).to_owned()),
        major: number(major)?,
        minor: number(minor)?,
        access: Some((*access).to_owned()),
    })
}

/// Resource limits of processes, under the names of getrlimit(2).
pub(crate) fn rlimits(ulimits: &[Ulimit]) -> Result<Vec<Rlimit>, Error> {
    ulimits.iter().map(rlimit).collect()
}

fn rlimit(limit: &Ulimit) -> Result<Rlimit, Error> {
    const NAMES: [&str; 16] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let name = limit.name.as_str();
    if !NAMES.contains(&name) {
        return Err(invalid(format!("{:?} is no ulimit", shown(name))).with_hint("such as nofile=1024:2048"));
    }
    // -1 means no limit, which is the largest number to the kernel.
    let bound = |value: i64| match value {
        -1 => Ok(u64::MAX),
        value => u64::try_from(value).map_err(|_| invalid(format!("ulimit {name}: {value} is no limit"))),
    };
    let (soft, hard) = (bound(limit.soft)?, bound(limit.hard)?);
    if soft > hard {
        return Err(invalid(format!(
            "ulimit {name}: the soft limit is above the hard limit"
        )));
    }
    Ok(Rlimit {
        kind: format!("RLIMIT_{}", name.to_ascii_uppercase()),
        hard,
        soft,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(limits: Limits) -> Result<Resources, Error> {
        resources(&Request {
            limits,
            ..Request::default()
        })
    }

    #[test]
    fn docker_units_become_the_specs() {
        let out = with(Limits {
            memory: Some(64 << 20),
            nano_cpus: Some(1_500_000_000),
            pids: Some(100),
            ..Limits::default()
        })
        .unwrap();
        let (memory, cpu) = (out.memory.unwrap(), out.cpu.unwrap());
        assert_eq!((memory.limit, memory.swap), (Some(64 << 20), Some(128 << 20)));
        assert_eq!((cpu.quota, cpu.period), (Some(150_000), Some(100_000)));
        assert_eq!(out.pids, Some(PidsLimit { limit: Some(100) }));
        let none = with(Limits {
            pids: Some(-1),
            memory_swap: Some(0),
            ..Limits::default()
        })
        .unwrap();
        assert_eq!((none.memory, none.cpu, none.pids), (None, None, None));
    }

    #[test]
    fn limits_that_contradict_or_cannot_be_held_are_refused() {
        let base = Limits::default;
        for limits in [
            Limits {
                memory: Some(1 << 20),
                ..base()
            },
            Limits {
                memory: Some(u64::MAX),
                ..base()
            },
            Limits {
                memory_swap: Some(1 << 30),
                ..base()
            },
            Limits {
                memory: Some(64 << 20),
                memory_swap: Some(1 << 20),
                ..base()
            },
            Limits {
                memory: Some(64 << 20),
                memory_reservation: Some(65 << 20),
                ..base()
            },
            Limits {
                memory_swappiness: Some(101),
                ..base()
            },
            Limits {
                nano_cpus: Some(1),
                ..base()
            },
            Limits {
                nano_cpus: Some(1_000_000_000),
                cpu_quota: Some(5000),
                ..base()
            },
            Limits {
                cpu_period: Some(10),
                ..base()
            },
            Limits {
                cpu_quota: Some(10),
                ..base()
            },
            Limits {
                cpuset_cpus: Some("3-1".to_owned()),
                ..base()
            },
            Limits {
                cpuset_cpus: Some("0;1".to_owned()),
                ..base()
            },
            Limits {
                blkio_weight: Some(5),
                ..base()
            },
        ] {
            assert!(with(limits.clone()).is_err(), "{limits:?}");
        }
    }

    #[test]
    fn device_rules_parse_strictly() {
        let rule = device_rule("b 8:* rw").unwrap();
        assert_eq!(
            (rule.major, rule.minor, rule.access.as_deref()),
            (Some(8), None, Some("rw"))
        );
        for bad in [
            "",
            "c 1:3",
            "c 1:3 x",
            "d 1:3 r",
            "c 1 r",
            "c -1:3 r",
            "c 1:3 r\n",
            "c  1:3 r",
            "c 1:99999999999 r",
        ] {
            assert!(device_rule(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ulimits_are_known_ordered_and_minus_one_is_no_limit() {
        let limit = |name: &str, soft, hard| Ulimit {
            name: name.to_owned(),
            soft,
            hard,
        };
        let out = rlimit(&limit("nofile", 1024, -1)).unwrap();
        assert_eq!(
            (out.kind.as_str(), out.soft, out.hard),
            ("RLIMIT_NOFILE", 1024, u64::MAX)
        );
        for bad in [
            limit("files", 1, 1),
            limit("nofile", 2, 1),
            limit("nofile", -1, 5),
            limit("core", -2, -2),
        ] {
            assert!(rlimit(&bad).is_err(), "{bad:?}");
        }
    }
}
