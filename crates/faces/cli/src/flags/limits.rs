//! Limits of a control group, of a new container and of one that is there.

use clap::Args;
use dhow_engine::Limits;
use dhow_types::ByteSize;

#[derive(Args, Debug)]
pub(crate) struct LimitFlags {
    /// Memory limit
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<ByteSize>,
    /// Memory soft limit
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<ByteSize>,
    /// Swap limit equal to memory plus swap: '-1' to enable unlimited swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Number of CPUs
    #[arg(long)]
    cpus: Option<f64>,
    /// CPU shares (relative weight)
    #[arg(short, long)]
    cpu_shares: Option<u64>,
    /// Limit CPU CFS period, in microseconds
    #[arg(long)]
    cpu_period: Option<u64>,
    /// Limit CPU CFS quota, in microseconds
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Limit CPU real-time runtime in microseconds (control groups version 1)
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
    /// Limit CPU real-time period in microseconds (control groups version 1)
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<u64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Block IO (relative weight), between 10 and 1000
    #[arg(long)]
    blkio_weight: Option<u16>,
}

impl LimitFlags {
    /// The limits that are given.
    pub(crate) fn limits(&self) -> Result<Limits, String> {
        let memory_swap = match self.memory_swap.as_deref() {
            None => None,
            Some("-1") => Some(-1),
            Some(text) => {
                let size = text.parse::<ByteSize>().map_err(|error| error.to_string())?;
                Some(i64::try_from(size.0).map_err(|_| format!("{text} is too much swap"))?)
            }
        };
        let nano_cpus = match self.cpus {
            None => None,
            Some(cpus) if cpus > 0.0 && cpus < 1e6 => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "bounded just above"
                )]
                let nano = (cpus * 1e9).round() as u64;
                Some(nano)
            }
            Some(cpus) => return Err(format!("--cpus {cpus} is not a number of CPUs")),
        };
        Ok(Limits {
            memory: self.memory.map(|size| size.0),
            memory_swap,
            memory_reservation: self.memory_reservation.map(|size| size.0),
            nano_cpus,
            cpu_shares: self.cpu_shares,
            cpu_quota: self.cpu_quota,
            cpu_period: self.cpu_period,
            realtime_runtime: self.cpu_rt_runtime,
            realtime_period: self.cpu_rt_period,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            pids: self.pids_limit,
            blkio_weight: self.blkio_weight,
            ..Limits::default()
        })
    }
}
