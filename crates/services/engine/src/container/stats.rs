//! `stats` and `top`.

use std::time::{Duration, Instant};

use dhow_cgroup::Stats;
use dhow_types::ErrorKind;

use super::folder::Container;
use super::record::Status;
use crate::{Context as _, Engine, Error};

/// What a container uses.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Which.
    pub container: Container,
    /// Its control group's figures.
    pub stats: Stats,
    /// CPU in percent of one CPU, over the time between two readings.
    pub cpu_percent: f64,
    /// Memory that counts as its limit: its own, or all of the host's.
    pub memory_limit: u64,
    /// Bytes received and sent on its interfaces.
    pub network: (u64, u64),
}

/// What a container had used at one moment; two make a [`Sample`].
#[derive(Clone, Debug)]
pub struct Reading {
    /// Its control group's figures.
    pub stats: Stats,
    /// Bytes received and sent on its interfaces.
    pub network: (u64, u64),
    /// When.
    pub at: Instant,
}

impl Reading {
    /// CPU in percent of one CPU since an earlier reading.
    #[must_use]
    pub fn cpu_since(&self, before: &Self) -> f64 {
        let used = self.stats.cpu.usage.saturating_sub(before.stats.cpu.usage) as f64;
        let elapsed = self.at.saturating_duration_since(before.at).as_nanos() as f64;
        if elapsed > 0.0 {
            used / elapsed * 100.0
        } else {
            0.0
        }
    }

    /// Memory that counts as the limit: its own, or all of the host's.
    #[must_use]
    pub fn memory_limit(&self) -> u64 {
        let host = rustix::system::sysinfo();
        let host = host.totalram.saturating_mul(u64::from(host.mem_unit));
        self.stats.memory.limit.map_or(host, |limit| limit.min(host))
    }
}

impl Engine {
    /// Looks once at what a container has used; none of one that does not run, or has no control group.
    #[must_use]
    pub fn reading(&self, container: &Container) -> Option<Reading> {
        if !matches!(container.state.status, Status::Running | Status::Paused) {
            return None;
        }
        // One that ended a moment ago has no group any more.
        let stats = self.group(&container.config).ok()?.stats().ok()?;
        Some(Reading {
            stats,
            network: traffic(container.state.pid),
            at: Instant::now(),
        })
    }

    /// Measures running containers, all of them when none is named, over `interval`.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` for a named one that does not run.
    pub fn stats(&self, wanted: &[String], interval: Duration) -> Result<Vec<Sample>, Error> {
        let containers = if wanted.is_empty() {
            self.containers().list()?
        } else {
            wanted
                .iter()
                .map(|name| self.containers().find(name))
                .collect::<Result<_, _>>()?
        };
        let mut first = Vec::new();
        for container in containers {
            let running = matches!(container.state.status, Status::Running | Status::Paused);
            if !running && !wanted.is_empty() {
                let message = format!("container {} is not running", container.config.name);
                return Err(Error::new(ErrorKind::FailedPrecondition, message));
            }
            if let Some(before) = self.reading(&container) {
                first.push((container, before));
            }
        }
        if !first.is_empty() {
            std::thread::sleep(interval);
        }
        let mut samples = Vec::new();
        for (container, before) in first {
            // One that ended meanwhile is left out.
            let Some(now) = self.reading(&container) else {
                continue;
            };
            samples.push(Sample {
                cpu_percent: now.cpu_since(&before),
                memory_limit: now.memory_limit(),
                network: now.network,
                stats: now.stats,
                container,
            });
        }
        Ok(samples)
    }

    /// Process ids of a running container on the host.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` when it does not run.
    pub fn processes(&self, wanted: &str) -> Result<Vec<i32>, Error> {
        let container = self.containers().find(wanted)?;
        if container.state.pid == 0 {
            let message = format!("container {} is not running", container.config.id);
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        }
        match self.group_if_any(&container.config)? {
            Some(group) => group.procs().context(|| "list the container's processes"),
            None => processes_beside(container.state.pid).context(|| "list the container's processes"),
        }
    }
}

/// The processes in the process id namespace of one.
fn processes_beside(pid: i32) -> std::io::Result<Vec<i32>> {
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid"));
    let theirs = namespace(pid)?;
    let all = std::fs::read_dir("/proc")?;
    let numbers = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let mut found: Vec<i32> = numbers
        .filter(|pid| namespace(*pid).is_ok_and(|one| one == theirs))
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// Bytes received and sent by the interfaces of a process' network namespace, without loopback.
fn traffic(pid: i32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let mut total = (0_u64, 0_u64);
    for line in text.lines().skip(2) {
        let Some((name, numbers)) = line.split_once(':') else {
            continue;
        };
        if name.trim() == "lo" {
            continue;
        }
        let mut numbers = numbers
            .split_ascii_whitespace()
            .map(|word| word.parse().unwrap_or(0));
        total.0 = total.0.saturating_add(numbers.next().unwrap_or(0));
        total.1 = total.1.saturating_add(numbers.nth(7).unwrap_or(0));
    }
    total
}
