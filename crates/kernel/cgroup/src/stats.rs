use std::io;

use dhow_types::ErrorKind;

use crate::dir::Dir;
use crate::hierarchy::Controllers;
use crate::{Context as _, Error};

/// What a group uses, as `docker stats` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Memory.
    pub memory: Memory,
    /// CPU time.
    pub cpu: Cpu,
    /// Processes.
    pub pids: Pids,
    /// Block devices.
    pub block_io: BlockIo,
}

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// In use, page cache included.
    pub usage: u64,
    /// Page cache that can be dropped at once (`inactive_file`): docker subtracts it from the usage it shows.
    pub inactive_file: u64,
    /// All page cache.
    pub cache: u64,
    /// Anonymous memory.
    pub anonymous: u64,
    /// Highest usage so far, when the kernel keeps it.
    pub peak: Option<u64>,
    /// The limit; `None` when there is none.
    pub limit: Option<u64>,
    /// Swap in use.
    pub swap: u64,
    /// How often the OOM killer killed here.
    pub oom_kills: u64,
}

/// CPU time in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// User and system together.
    pub usage: u64,
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// Periods of the quota that ran.
    pub periods: u64,
    /// Periods in which the quota was used up.
    pub throttled_periods: u64,
    /// How long it was held back.
    pub throttled: u64,
}

/// Processes and threads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pids {
    /// How many there are.
    pub current: u64,
    /// The limit; `None` when there is none.
    pub limit: Option<u64>,
}

/// Totals of all block devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockIo {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Operations that read.
    pub reads: u64,
    /// Operations that wrote.
    pub writes: u64,
}

impl Memory {
    /// The usage that docker shows: without the page cache that can be dropped at once
    /// (docker/cli `calculateMemUsageUnixNoCache`).
    #[must_use]
    pub fn shown(&self) -> u64 {
        self.usage.saturating_sub(self.inactive_file)
    }
}

fn pids(dir: &Dir) -> io::Result<Pids> {
    Ok(Pids {
        current: number(&dir.read_if_there("pids.current")?),
        limit: limit(&dir.read_if_there("pids.max")?),
    })
}

/// Adds what a v2 directory says.
pub(crate) fn add_v2(dir: &Dir, out: &mut Stats) -> io::Result<()> {
    let memory = dir.read_if_there("memory.stat")?;
    if !memory.is_empty() {
        let events = dir.read_if_there("memory.events")?;
        out.memory = Memory {
            usage: number(&dir.read_if_there("memory.current")?),
            peak: limit(&dir.read_if_there("memory.peak")?),
            limit: limit(&dir.read_if_there("memory.max")?),
            swap: number(&dir.read_if_there("memory.swap.current")?),
            oom_kills: field(&events, "oom_kill").unwrap_or(0),
            ..memory_v2(&memory)
        };
    }
    out.cpu = cpu_v2(&dir.read("cpu.stat")?);
    out.block_io = block_io_v2(&dir.read_if_there("io.stat")?);
    out.pids = pids(dir)?;
    Ok(())
}

/// Adds what the directory of a v1 hierarchy says.
pub(crate) fn add_v1(dir: &Dir, out: &mut Stats) -> io::Result<()> {
    let has = |controller| dir.controllers.intersects(controller);
    if has(Controllers::MEMORY) {
        out.memory = Memory {
            usage: number(&dir.read("memory.usage_in_bytes")?),
            peak: limit(&dir.read("memory.max_usage_in_bytes")?),
            limit: limit(&dir.read("memory.limit_in_bytes")?),
            oom_kills: field(&dir.read("memory.oom_control")?, "oom_kill").unwrap_or(0),
            ..memory_v1(&dir.read("memory.stat")?)
        };
    }
    if has(Controllers::CPUACCT) {
        out.cpu.usage = number(&dir.read("cpuacct.usage")?);
        out.cpu.user = number(&dir.read_if_there("cpuacct.usage_user")?);
        out.cpu.system = number(&dir.read_if_there("cpuacct.usage_sys")?);
    }
    if has(Controllers::CPU) {
        let text = dir.read("cpu.stat")?;
        let get = |name| field(&text, name).unwrap_or(0);
        let (periods, throttled_periods, throttled) =
            (get("nr_periods"), get("nr_throttled"), get("throttled_time"));
        out.cpu = Cpu {
            periods,
            throttled_periods,
            throttled,
            ..out.cpu
        };
    }
    if has(Controllers::PIDS) {
        out.pids = pids(dir)?;
    }
    if has(Controllers::BLKIO) {
        let bytes = dir.read_if_there("blkio.throttle.io_service_bytes_recursive")?;
        let operations = dir.read_if_there("blkio.throttle.io_serviced_recursive")?;
        out.block_io = block_io_v1(&bytes, &operations);
    }
    Ok(())
}

/// CPU time of the whole host since boot, in nanoseconds: docker's `system_cpu_usage`.
///
/// # Errors
/// When `/proc/stat` cannot be read or has no `cpu` line.
pub fn host_cpu_time() -> Result<u64, Error> {
    let text = std::fs::read_to_string("/proc/stat").context(|| "read /proc/stat")?;
    host_cpu(&text).ok_or_else(|| Error::new(ErrorKind::Internal, "/proc/stat has no line of all processors"))
}

/// user, nice, system, idle, iowait, irq, softirq, steal of all processors, in ticks of 10 ms (proc(5)).
fn host_cpu(stat: &str) -> Option<u64> {
    const NANOSECONDS_A_TICK: u64 = 10_000_000;
    let line = stat.lines().find(|line| line.starts_with("cpu "))?;
    let ticks: u64 = line
        .split_ascii_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|word| word.parse::<u64>().ok())
        .sum();
    ticks.checked_mul(NANOSECONDS_A_TICK)
}

/// The number after `name` in a file of lines `name number`.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        if key == name {
            value.trim().parse().ok()
        } else {
            None
        }
    })
}

/// A limit file: `max`, and on v1 anything near the largest multiple of a page, means none.
pub(crate) fn limit(text: &str) -> Option<u64> {
    const NO_LIMIT: u64 = 1 << 60;
    text.trim().parse().ok().filter(|value| *value < NO_LIMIT)
}

pub(crate) fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// Memory of v2 from `memory.stat` and the small files.
pub(crate) fn memory_v2(stat: &str) -> Memory {
    let get = |name| field(stat, name).unwrap_or(0);
    Memory {
        inactive_file: get("inactive_file"),
        cache: get("file"),
        anonymous: get("anon"),
        ..Memory::default()
    }
}

/// Memory of v1 from `memory.stat`.
pub(crate) fn memory_v1(stat: &str) -> Memory {
    use crate::v1::total;
    Memory {
        inactive_file: total(stat, "inactive_file"),
        cache: total(stat, "cache"),
        anonymous: total(stat, "rss"),
        swap: total(stat, "swap"),
        ..Memory::default()
    }
}

/// `cpu.stat` of v2, whose times are microseconds.
pub(crate) fn cpu_v2(stat: &str) -> Cpu {
    let get = |name| field(stat, name).unwrap_or(0);
    Cpu {
        usage: get("usage_usec").saturating_mul(1000),
        user: get("user_usec").saturating_mul(1000),
        system: get("system_usec").saturating_mul(1000),
        periods: get("nr_periods"),
        throttled_periods: get("nr_throttled"),
        throttled: get("throttled_usec").saturating_mul(1000),
    }
}

/// `io.stat` of v2: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 ...`.
pub(crate) fn block_io_v2(stat: &str) -> BlockIo {
    let mut total = BlockIo::default();
    for (key, value) in stat
        .split_ascii_whitespace()
        .filter_map(|word| word.split_once('='))
    {
        let value = number(value);
        let sum = match key {
            "rbytes" => &mut total.read_bytes,
            "wbytes" => &mut total.write_bytes,
            "rios" => &mut total.reads,
            "wios" => &mut total.writes,
            _ => continue,
        };
        *sum = sum.saturating_add(value);
    }
    total
}

/// `blkio.throttle.io_service_bytes_recursive` and `io_serviced_recursive` of v1: `8:0 Read 123`.
pub(crate) fn block_io_v1(bytes: &str, operations: &str) -> BlockIo {
    let sum = |text: &str, what: &str| {
        text.lines()
            .filter_map(|line| {
                let mut words = line.split(' ').skip(1);
                (words.next()? == what).then(|| number(words.next().unwrap_or("")))
            })
            .fold(0, u64::saturating_add)
    };
    BlockIo {
        read_bytes: sum(bytes, "Read"),
        write_bytes: sum(bytes, "Write"),
        reads: sum(operations, "Read"),
        writes: sum(operations, "Write"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v2_files_read_as_the_kernel_writes_them() {
        let cpu = cpu_v2(
            "usage_usec 12\nuser_usec 7\nsystem_usec 5\nnr_periods 3\nnr_throttled 1\nthrottled_usec 9\n",
        );
        assert_eq!(
            (cpu.usage, cpu.user, cpu.system, cpu.throttled),
            (12_000, 7_000, 5_000, 9_000)
        );
        let io =
            block_io_v2("8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=5 wbytes=x\n");
        assert_eq!(
            (io.read_bytes, io.write_bytes, io.reads, io.writes),
            (15, 20, 1, 2)
        );
        let memory = memory_v2("anon 100\nfile 50\ninactive_file 30\nfile_mapped 1\n");
        assert_eq!(
            (memory.anonymous, memory.cache, memory.inactive_file),
            (100, 50, 30)
        );
        assert_eq!(
            (limit("max\n"), limit("42\n"), limit("9223372036854771712\n")),
            (None, Some(42), None)
        );
    }

    #[test]
    fn v1_files_prefer_the_totals_of_the_hierarchy() {
        let memory = memory_v1(
            "cache 1\nrss 2\ninactive_file 3\ntotal_cache 10\ntotal_rss 20\ntotal_inactive_file 30\n",
        );
        assert_eq!(
            (memory.cache, memory.anonymous, memory.inactive_file),
            (10, 20, 30)
        );
        let io = block_io_v1(
            "8:0 Read 4\n8:0 Write 6\n8:0 Total 10\n9:1 Read 1\nTotal 11\n",
            "8:0 Read 1\n",
        );
        assert_eq!((io.read_bytes, io.write_bytes, io.reads, io.writes), (5, 6, 1, 0));
    }

    #[test]
    fn docker_shows_memory_without_the_cache_that_can_go() {
        let memory = Memory {
            usage: 100,
            inactive_file: 30,
            ..Memory::default()
        };
        assert_eq!(memory.shown(), 70);
        assert_eq!(
            Memory {
                inactive_file: 1,
                ..Memory::default()
            }
            .shown(),
            0
        );
    }

    #[test]
    fn host_time_is_the_sum_of_eight_columns() {
        assert_eq!(
            host_cpu("cpu  1 2 3 4 5 6 7 8 100 100\ncpu0 9\n"),
            Some(360_000_000)
        );
        assert_eq!(host_cpu("intr 5\n"), None);
    }
}
