//! The one small process beside each container.
//!
//! [`launch`] forks it off the process that prepared the container. From then on it alone owns the container's
//! ends: the pipes or the terminal, the log file, the restart policy, the health timer, the sockets that its
//! [`Life`] wants served (DNS), and the exit status. It is single-threaded, a `poll` loop, and writes little:
//! what it does not touch stays shared with the binary's file, and it gives freed heap back after the fork.
//!
//! ```text
//! <socket>          attach and control, frames of `frame`; mode 0600 (containerd CVE-2020-15257)
//! <lock>            flock held as long as the monitor lives: who gets it knows that no monitor is there
//! <log>, <log>.1..  JSON lines as docker's json-file driver writes them, or the kubelet's, rotated by size
//! ```
//!
//! If the monitor dies the container lives on: its output then meets a closed pipe, and whoever looks at the
//! container next finds the lock free and the process alive.

#![forbid(unsafe_code)]

mod client;
mod follow;
pub mod frame;
mod health;
mod launch;
mod life;
mod log;
mod pump;
mod restart;
mod stdin;
mod supervise;

pub use follow::LogFollower;
pub use health::{
    Health, HealthLog, HealthResult, HealthSettings, HealthStatus, NEVER, OnUnhealthy, StartupCheck,
};
pub use launch::{Launch, Outcome, Started, launch};
pub use life::{Change, Exit, Launched, Life, Probe};
pub use log::{
    Attributes, LogForm, LogReader, LogSettings, Record, Stream, format_time, log_files, parse_time,
};
pub use restart::RestartPolicy;

dhow_types::define_error! {
    /// What can go wrong beside a container.
    pub struct Error;
}
