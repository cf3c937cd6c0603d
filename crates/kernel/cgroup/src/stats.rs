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
