//! Everything that the kernel counts of a group, as the document that OCI runtimes print.

use std::collections::BTreeMap;
use std::io;

use dhow_oci::usage::{
    BlkioEntry, BlkioUsage, CpusetUsage, HugetlbUsage, MemoryEntry, MemoryUsage, Pressure, PressureShare,
    RdmaEntry, Usage,
};

use crate::dir::Dir;
use crate::hierarchy::Controllers;
use crate::stats::{field, number};
use crate::{Context as _, Error, Group};

/// Most lines of one file that are kept: there are fewer devices and counters than this.
const MOST_LINES: usize = 4096;
/// Nanoseconds in a tick of `cpuacct.stat` (100 a second on every platform of ours).
const TICK: u64 = 10_000_000;

impl Group {
    /// All counters of the group: what `events --stats` of an OCI runtime prints. What the kernel does not count is
    /// zero or missing.
    ///
    /// # Errors
    /// `NotFound` when the group is gone.
    pub fn usage(&self) -> Result<Usage, Error> {
        let what = || format!("read the counters of {}", self.path().display());
        let sizes = page_sizes();
        let mut out = Usage::default();
        for dir in &self.dirs {
            if !dir.unified {
                v1(dir, &sizes, &mut out).context(what)?;
            } else if self.is_pure_v2() {
                v2(dir, &sizes, &mut out).context(what)?;
            } else {
                // A hybrid host has its counters in v1, but for controllers that only the v2 tree has.
                hugetlb_v2(dir, &sizes, &mut out).context(what)?;
            }
        }
        Ok(out)
    }
}

fn v1(dir: &Dir, sizes: &[String], out: &mut Usage) -> io::Result<()> {
    let has = |controller| dir.controllers.intersects(controller);
    if has(Controllers::CPU) {
        let text = dir.read("cpu.stat")?;
        let get = |name| field(&text, name).unwrap_or(0);
        out.cpu.throttling.periods = get("nr_periods");
        out.cpu.throttling.throttled_periods = get("nr_throttled");
        out.cpu.throttling.throttled_time = get("throttled_time");
    }
    if has(Controllers::CPUACCT) {
        cpuacct(dir, out)?;
    }
    if has(Controllers::CPUSET) {
        out.cpuset = cpuset(dir)?;
    }
    if has(Controllers::MEMORY) {
        out.memory = memory_v1(dir)?;
    }
    if has(Controllers::PIDS) {
        pids(dir, out)?;
    }
    if has(Controllers::BLKIO) {
        out.blkio = blkio_v1(dir)?;
    }
    if has(Controllers::HUGETLB) {
        for size in sizes {
            let rsvd = dir.read_if_there(&format!("hugetlb.{size}.rsvd.usage_in_bytes"))?;
            let part = if rsvd.is_empty() { "" } else { "rsvd." };
            let read = |name: &str| -> io::Result<u64> {
                let file = format!("hugetlb.{size}.{part}{name}");
                Ok(number(&dir.read_if_there(&file)?))
            };
            let usage = HugetlbUsage {
                usage: read("usage_in_bytes")?,
                max: read("max_usage_in_bytes")?,
                failcnt: read("failcnt")?,
            };
            out.hugetlb.insert(size.clone(), usage);
        }
    }
    if has(Controllers::RDMA) {
        rdma(dir, out)?;
    }
    Ok(())
}

fn v2(dir: &Dir, sizes: &[String], out: &mut Usage) -> io::Result<()> {
    let text = dir.read_if_there("cpu.stat")?;
    let get = |name| field(&text, name).unwrap_or(0);
    let nanoseconds = |name| get(name).saturating_mul(1000);
    out.cpu.usage.total = nanoseconds("usage_usec");
    out.cpu.usage.user = nanoseconds("user_usec");
    out.cpu.usage.kernel = nanoseconds("system_usec");
    out.cpu.throttling.periods = get("nr_periods");
    out.cpu.throttling.throttled_periods = get("nr_throttled");
    out.cpu.throttling.throttled_time = nanoseconds("throttled_usec");
    out.cpu.psi = pressure(dir, "cpu.pressure")?;
    out.memory = memory_v2(dir)?;
    out.memory.psi = pressure(dir, "memory.pressure")?;
    out.blkio = blkio_v2(&dir.read_if_there("io.stat")?);
    out.blkio.psi = pressure(dir, "io.pressure")?;
    pids(dir, out)?;
    if out.pids.current == 0 {
        // Without the controller: the processes of the group itself.
        let text = dir.read_if_there("cgroup.procs").unwrap_or_default();
        out.pids.current = u64::try_from(text.lines().count()).unwrap_or(0);
    }
    hugetlb_v2(dir, sizes, out)?;
    rdma(dir, out)
}

fn hugetlb_v2(dir: &Dir, sizes: &[String], out: &mut Usage) -> io::Result<()> {
    for size in sizes {
        let rsvd = dir.read_if_there(&format!("hugetlb.{size}.rsvd.current"))?;
        let plain = dir.read_if_there(&format!("hugetlb.{size}.current"))?;
        if rsvd.is_empty() && plain.is_empty() {
            continue;
        }
        let events = dir.read_if_there(&format!("hugetlb.{size}.events"))?;
        let usage = HugetlbUsage {
            usage: number(if rsvd.is_empty() { &plain } else { &rsvd }),
            max: 0,
            failcnt: field(&events, "max").unwrap_or(0),
        };
        out.hugetlb.insert(size.clone(), usage);
    }
    Ok(())
}

fn pids(dir: &Dir, out: &mut Usage) -> io::Result<()> {
    out.pids.current = number(&dir.read_if_there("pids.current")?);
    // `max` reads as zero, which means no limit here.
    out.pids.limit = number(&dir.read_if_there("pids.max")?);
    Ok(())
}

fn cpuacct(dir: &Dir, out: &mut Usage) -> io::Result<()> {
    let time = &mut out.cpu.usage;
    time.total = number(&dir.read("cpuacct.usage")?);
    time.percpu = numbers(&dir.read_if_there("cpuacct.usage_percpu")?);
    // `cpu user system`, a line for each CPU.
    for line in dir
        .read_if_there("cpuacct.usage_all")?
        .lines()
        .skip(1)
        .take(MOST_LINES)
    {
        let mut words = line.split_ascii_whitespace().skip(1).map(number);
        if let (Some(user), Some(kernel)) = (words.next(), words.next()) {
            time.percpu_user.push(user);
            time.percpu_kernel.push(kernel);
        }
    }
    let (user, kernel) = (
        dir.read_if_there("cpuacct.usage_user")?,
        dir.read_if_there("cpuacct.usage_sys")?,
    );
    if user.is_empty() {
        let text = dir.read_if_there("cpuacct.stat")?;
        let ticks = |name| field(&text, name).unwrap_or(0).saturating_mul(TICK);
        (time.user, time.kernel) = (ticks("user"), ticks("system"));
    } else {
        (time.user, time.kernel) = (number(&user), number(&kernel));
    }
    Ok(())
}

fn cpuset(dir: &Dir) -> io::Result<CpusetUsage> {
    let read = |name: &str| dir.read_if_there(&format!("cpuset.{name}"));
    let flag = |name: &str| -> io::Result<u64> { Ok(number(&read(name)?)) };
    Ok(CpusetUsage {
        cpus: list(&read("cpus")?),
        cpu_exclusive: flag("cpu_exclusive")?,
        mems: list(&read("mems")?),
        mem_hardwall: flag("mem_hardwall")?,
        mem_exclusive: flag("mem_exclusive")?,
        memory_migrate: flag("memory_migrate")?,
        memory_spread_page: flag("memory_spread_page")?,
        memory_spread_slab: flag("memory_spread_slab")?,
        memory_pressure: flag("memory_pressure")?,
        sched_load_balance: flag("sched_load_balance")?,
        sched_relax_domain_level: read("sched_relax_domain_level")?.trim().parse().unwrap_or(0),
    })
}

fn memory_v1(dir: &Dir) -> io::Result<MemoryUsage> {
    let entry = |name: &str| -> io::Result<MemoryEntry> {
        let read = |file: &str| dir.read_if_there(&format!("memory.{name}{file}"));
        Ok(MemoryEntry {
            limit: number(&read("limit_in_bytes")?),
            usage: number(&read("usage_in_bytes")?),
            max: number(&read("max_usage_in_bytes")?),
            failcnt: number(&read("failcnt")?),
        })
    };
    let raw = pairs(&dir.read("memory.stat")?);
    Ok(MemoryUsage {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: entry("")?,
        swap: entry("memsw.")?,
        kernel: entry("kmem.")?,
        kernel_tcp: entry("kmem.tcp.")?,
        raw,
        psi: None,
    })
}

fn memory_v2(dir: &Dir) -> io::Result<MemoryUsage> {
    let raw = pairs(&dir.read_if_there("memory.stat")?);
    if raw.is_empty() {
        return Ok(MemoryUsage::default());
    }
    let entry = |name: &str| -> io::Result<MemoryEntry> {
        let read = |file: &str| dir.read_if_there(&format!("memory.{name}{file}"));
        Ok(MemoryEntry {
            limit: or_unlimited(&read("max")?),
            usage: number(&read("current")?),
            max: number(&read("peak")?),
            failcnt: 0,
        })
    };
    let usage = entry("")?;
    let alone = entry("swap.")?;
    // Together, as v1 counts it; the peaks of the two need not have come together.
    let swap = MemoryEntry {
        limit: alone.limit.saturating_add(usage.limit),
        usage: alone.usage.saturating_add(usage.usage),
        max: 0,
        failcnt: 0,
    };
    Ok(MemoryUsage {
        cache: raw.get("file").copied().unwrap_or(0),
        usage,
        swap,
        raw,
        ..MemoryUsage::default()
    })
}

/// A limit of v2; a file that is missing limits nothing to nothing, as runc has it.
fn or_unlimited(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        text => number(text),
    }
}

/// Counters of v1: of the scheduler if it has them, of the throttling layer else.
fn blkio_v1(dir: &Dir) -> io::Result<BlkioUsage> {
    let read = |file: &str| -> io::Result<Vec<BlkioEntry>> { Ok(entries(&dir.read_if_there(file)?)) };
    for scheduler in ["blkio.bfq.", "blkio."] {
        let bytes = read(&format!("{scheduler}io_service_bytes_recursive"))?;
        if bytes.is_empty() {
            continue;
        }
        let more = |name: &str| read(&format!("{scheduler}{name}_recursive"));
        return Ok(BlkioUsage {
            io_service_bytes_recursive: bytes,
            io_serviced_recursive: more("io_serviced")?,
            io_queued_recursive: more("io_queued")?,
            io_service_time_recursive: more("io_service_time")?,
            io_wait_time_recursive: more("io_wait_time")?,
            io_merged_recursive: more("io_merged")?,
            io_time_recursive: more("time")?,
            sectors_recursive: more("sectors")?,
            psi: None,
        });
    }
    let mut out = BlkioUsage::default();
    for suffix in ["_recursive", ""] {
        out.io_service_bytes_recursive = read(&format!("blkio.throttle.io_service_bytes{suffix}"))?;
        out.io_serviced_recursive = read(&format!("blkio.throttle.io_serviced{suffix}"))?;
        if !out.io_serviced_recursive.is_empty() {
            break;
        }
    }
    Ok(out)
}

/// `8:0 Read 123`, `8:0 123`; the line `Total 123` is left out.
fn entries(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let (second, third) = (words.next()?, words.next());
        Some(BlkioEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: third.map_or_else(String::new, |_| second.to_owned()),
            value: third.unwrap_or(second).parse().ok()?,
        })
    };
    text.lines().filter_map(entry).take(MOST_LINES).collect()
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6` in the tables of v1.
fn blkio_v2(text: &str) -> BlkioUsage {
    let mut out = BlkioUsage::default();
    for line in text.lines().take(MOST_LINES) {
        let Some((device, counters)) = line.split_once(' ') else {
            continue;
        };
        let numbers = device
            .split_once(':')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let Some((major, minor)) = numbers else { continue };
        for (key, value) in counters
            .split_ascii_whitespace()
            .filter_map(|word| word.split_once('='))
        {
            let (table, op) = match key {
                "rbytes" => (&mut out.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut out.io_service_bytes_recursive, "Write"),
                "rios" => (&mut out.io_serviced_recursive, "Read"),
                "wios" => (&mut out.io_serviced_recursive, "Write"),
                _ => continue,
            };
            table.push(BlkioEntry {
                major,
                minor,
                op: op.to_owned(),
                value: number(value),
            });
        }
    }
    out
}

fn rdma(dir: &Dir, out: &mut Usage) -> io::Result<()> {
    out.rdma.rdma_limit = rdma_entries(&dir.read_if_there("rdma.max")?);
    out.rdma.rdma_current = rdma_entries(&dir.read_if_there("rdma.current")?);
    Ok(())
}

/// `mlx4_0 hca_handle=2 hca_object=max`.
fn rdma_entries(text: &str) -> Vec<RdmaEntry> {
    let entry = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let mut entry = RdmaEntry {
            device: words.next()?.to_owned(),
            ..RdmaEntry::default()
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = if value == "max" {
                u32::MAX
            } else {
                value.parse().ok()?
            };
            match key {
                "hca_handle" => entry.hca_handles = value,
                "hca_object" => entry.hca_objects = value,
                _ => {}
            }
        }
        Some(entry)
    };
    text.lines().filter_map(entry).take(MOST_LINES).collect()
}

/// A file of pressure; `None` where the kernel keeps none, or not for this group.
fn pressure(dir: &Dir, file: &str) -> io::Result<Option<Pressure>> {
    match dir.read_if_there(file) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => Ok(Some(parse_pressure(&text))),
        // `psi=1` is wanting on the kernel's command line.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(None),
        Err(error) => Err(error),
    }
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn parse_pressure(text: &str) -> Pressure {
    let mut out = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let share = match words.next() {
            Some("some") => &mut out.some,
            Some("full") => &mut out.full,
            _ => continue,
        };
        *share = PressureShare::default();
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let percent = || {
                value
                    .parse()
                    .ok()
                    .filter(|value: &f64| value.is_finite())
                    .unwrap_or(0.0)
            };
            match key {
                "avg10" => share.avg10 = percent(),
                "avg60" => share.avg60 = percent(),
                "avg300" => share.avg300 = percent(),
                "total" => share.total = number(value),
                _ => {}
            }
        }
    }
    out
}

fn pairs(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).take(MOST_LINES).collect()
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_ascii_whitespace()
        .take(MOST_LINES)
        .map(number)
        .collect()
}

/// `0-2,5`.
fn list(text: &str) -> Vec<u16> {
    let mut out = Vec::new();
    for part in text.trim().split(',').take(MOST_LINES) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            out.extend(first..=last);
        }
        if out.len() > usize::from(u16::MAX) {
            break;
        }
    }
    out
}

/// Sizes of huge pages in the words of the controller: `2MB`, `1GB`.
fn page_sizes() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages")
        .into_iter()
        .flatten()
        .flatten();
    let mut out: Vec<String> = entries
        .filter_map(|entry| page_size(entry.file_name().to_str()?))
        .collect();
    out.sort_unstable();
    out
}

/// `hugepages-2048kB` is `2MB` (kernel `mm/hugetlb_cgroup.c`, `mem_fmt`).
fn page_size(folder: &str) -> Option<String> {
    let kib: u64 = folder
        .strip_prefix("hugepages-")?
        .strip_suffix("kB")?
        .parse()
        .ok()?;
    Some(match kib {
        0x10_0000.. => format!("{}GB", kib >> 20),
        0x400.. => format!("{}MB", kib >> 10),
        _ => format!("{kib}KB"),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_of_devices_are_read_with_and_without_an_operation() {
        let found = entries("8:0 Read 4\n8:0 Total 10\n9:1 77\nTotal 11\nx:y Read 1\n");
        let short: Vec<_> = found
            .iter()
            .map(|entry| (entry.major, entry.op.as_str(), entry.value))
            .collect();
        assert_eq!(short, [(8, "Read", 4), (8, "Total", 10), (9, "", 77)]);
        let found = blkio_v2("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5\n");
        assert_eq!(found.io_service_bytes_recursive.len(), 2);
        assert_eq!(found.io_serviced_recursive[1].value, 4);
    }

    #[test]
    fn pressure_rdma_lists_and_sizes_are_read() {
        let found =
            parse_pressure("some avg10=1.50 avg60=0.10 avg300=0.00 total=99\nfull avg10=0.25 total=1\n");
        assert!((found.some.avg10 - 1.5).abs() < 1e-9 && found.some.total == 99 && found.full.total == 1);
        let rdma = rdma_entries("mlx4_0 hca_handle=2 hca_object=max\nbad hca_handle=x\n");
        assert_eq!((rdma.len(), rdma[0].hca_objects), (1, u32::MAX));
        assert_eq!(list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(page_size("hugepages-2048kB").as_deref(), Some("2MB"));
        assert_eq!(page_size("hugepages-1048576kB").as_deref(), Some("1GB"));
        assert_eq!(page_size("hugepages-64kB").as_deref(), Some("64KB"));
        assert_eq!(page_size("other"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(text in "[ -~\\n]{0,200}") {
            drop((entries(&text), blkio_v2(&text), rdma_entries(&text), parse_pressure(&text)));
            drop((pairs(&text), numbers(&text), page_size(&text)));
            prop_assert!(list(&text).len() <= 2 * usize::from(u16::MAX) + 1);
        }
    }
}
