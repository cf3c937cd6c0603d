//! `--health-startup-*` and `--health-log-*`, which docker has not.

use std::path::PathBuf;

use clap::Args;
use dhow_engine::container::{Extras, StartupHealth};
use dhow_engine::{HealthLog, Healthcheck};

use super::container::{health_test, nanoseconds};
use crate::{CliError, dialect};

// No doc comment: clap would take it for that of the verb.
#[derive(Args, Debug)]
pub(crate) struct StartupFlags {
    /// Command of a check that must be good before the usual ones begin
    #[arg(long, value_name = "COMMAND", requires = "health_cmd")]
    health_startup_cmd: Option<String>,
    /// Time between running it (ms|s|m|h)
    #[arg(long, value_name = "DURATION", requires = "health_startup_cmd")]
    health_startup_interval: Option<String>,
    /// Failures in a row after which the container is started again; 0 means never
    #[arg(long, value_name = "N", requires = "health_startup_cmd")]
    health_startup_retries: Option<u64>,
    /// How often it must be good; 0 means once
    #[arg(long, value_name = "N", requires = "health_startup_cmd")]
    health_startup_success: Option<u64>,
    /// Maximum time to allow it to run (ms|s|m|h)
    #[arg(long, value_name = "DURATION", requires = "health_startup_cmd")]
    health_startup_timeout: Option<String>,
    /// Where the results of health checks go, too: local for nowhere else, or a folder
    #[arg(long, value_name = "FOLDER")]
    health_log_destination: Option<PathBuf>,
    /// Results of health checks that are kept; 0 means as many as a record can hold
    #[arg(long, value_name = "N")]
    health_max_log_count: Option<u64>,
    /// Bytes of output that are kept of one; 0 means as many as can be
    #[arg(long, value_name = "BYTES")]
    health_max_log_size: Option<u64>,
}

/// Bytes of a result when nobody says, with podman (podman-run(1), `--health-max-log-size`).
const PODMAN_SIZE: u64 = 500;

impl StartupFlags {
    /// Adds what they mean to what is asked for.
    pub(crate) fn add_to(&self, extras: &mut Extras) -> Result<(), CliError> {
        let bad = |message: String| CliError::plain(message).with_code(125);
        if let Some(command) = &self.health_startup_cmd {
            extras.startup = Some(StartupHealth {
                check: Healthcheck {
                    test: health_test(command),
                    interval: nanoseconds(self.health_startup_interval.as_deref()).map_err(bad)?,
                    timeout: nanoseconds(self.health_startup_timeout.as_deref()).map_err(bad)?,
                    retries: self.health_startup_retries.unwrap_or(0),
                    ..Healthcheck::default()
                },
                successes: self.health_startup_success.unwrap_or(0),
            });
        }
        extras.health_folder = self
            .health_log_destination
            .clone()
            .filter(|folder| folder.as_os_str() != "local");
        let usual = HealthLog {
            size: if dialect::spoken().is_podman() {
                PODMAN_SIZE
            } else {
                HealthLog::default().size
            },
            ..HealthLog::default()
        };
        extras.health_log = Some(HealthLog {
            count: self.health_max_log_count.unwrap_or(usual.count),
            size: self.health_max_log_size.unwrap_or(usual.size),
        });
        Ok(())
    }
}
