use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::log::format_time;

/// Output of a check that is kept, in bytes (moby `daemon/health.go`, maxOutputLen).
pub(crate) const MAX_OUTPUT: usize = 4096;
/// Results that are kept (moby, maxLogEntries).
const MAX_LOG: usize = 5;

/// Between two checks when there are none but those that a person asks for, in nanoseconds.
pub const NEVER: u64 = i64::MAX as u64;

/// What becomes of a container that turns unhealthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnhealthy {
    /// It runs on.
    #[default]
    None,
    /// It is killed; its restart policy then says whether it comes back.
    Kill,
    /// It is killed and started again, whatever its restart policy.
    Restart,
    /// It is stopped as a person stops it.
    Stop,
}

impl OnUnhealthy {
    /// Podman's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Kill => "kill",
            Self::Restart => "restart",
            Self::Stop => "stop",
        }
    }
}

/// How and when a container's health is checked; `0` in an image means these defaults of docker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// Between two checks; 30 s.
    pub interval: Duration,
    /// For one check; 30 s.
    pub timeout: Duration,
    /// In which failures do not count; none.
    pub start_period: Duration,
    /// Between two checks in the start period; 5 s.
    pub start_interval: Duration,
    /// Failures in a row that make it unhealthy; 3.
    pub retries: u64,
    /// What becomes of it when it is unhealthy.
    pub on_unhealthy: OnUnhealthy,
    /// The signal that asks it to end, for [`OnUnhealthy::Stop`].
    pub stop_signal: i32,
    /// How long it may take to end after that.
    pub grace: Duration,
}

/// What is known of a container's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Not yet known.
    #[default]
    Starting,
    /// The last check was good.
    Healthy,
    /// As many checks in a row as `retries` says were bad.
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One check, in docker's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthResult {
    /// When it began, RFC 3339.
    pub start: String,
    /// When it ended.
    pub end: String,
    /// 0 is good.
    pub exit_code: i32,
    /// The first 4096 bytes of what it wrote.
    pub output: String,
}

/// A container's health record, in docker's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// The verdict.
    pub status: HealthStatus,
    /// Bad checks in a row.
    pub failing_streak: u64,
    /// The last five checks.
    pub log: Vec<HealthResult>,
}

/// When checks are due and what their outcomes mean.
#[derive(Debug)]
pub(crate) struct Checks {
    settings: HealthSettings,
    started: Instant,
    pub(crate) due: Instant,
    pub(crate) health: Health,
}

impl Checks {
    pub(crate) fn new(settings: HealthSettings, now: Instant) -> Self {
        let mut checks = Self {
            settings,
            started: now,
            due: now,
            health: Health::default(),
        };
        checks.due = now + checks.pause(now);
        checks
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    pub(crate) fn settings(&self) -> &HealthSettings {
        &self.settings
    }

    fn pause(&self, now: Instant) -> Duration {
        if self.settings.interval >= Duration::from_nanos(NEVER) {
            return self.settings.interval;
        }
        let starting = self.health.status == HealthStatus::Starting
            && now.duration_since(self.started) < self.settings.start_period;
        if starting {
            self.settings.start_interval
        } else {
            self.settings.interval
        }
    }

    pub(crate) fn result(&mut self, begun: SystemTime, code: i32, output: &[u8], now: Instant) {
        let output = String::from_utf8_lossy(&output[..output.len().min(MAX_OUTPUT)]).into_owned();
        let result = HealthResult {
            start: format_time(begun),
            end: format_time(SystemTime::now()),
            exit_code: code,
            output,
        };
        if self.health.log.len() == MAX_LOG {
            self.health.log.remove(0);
        }
        self.health.log.push(result);
        if code == 0 {
            self.health.status = HealthStatus::Healthy;
            self.health.failing_streak = 0;
        } else {
            self.failed(now);
        }
        self.due = now + self.pause(now);
    }

    fn failed(&mut self, now: Instant) {
        let excused = self.health.status == HealthStatus::Starting
            && now.duration_since(self.started) < self.settings.start_period;
        if excused {
            return;
        }
        self.health.failing_streak += 1;
        if self.health.failing_streak >= self.settings.retries {
            self.health.status = HealthStatus::Unhealthy;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(start_period: u64) -> (Checks, Instant) {
        let now = Instant::now();
        let settings = HealthSettings {
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(30),
            start_period: Duration::from_secs(start_period),
            start_interval: Duration::from_secs(5),
            retries: 3,
            on_unhealthy: OnUnhealthy::None,
            stop_signal: 15,
            grace: Duration::from_secs(10),
        };
        (Checks::new(settings, now), now)
    }

    #[test]
    fn three_failures_in_a_row_make_it_unhealthy_and_one_success_heals() {
        let (mut checks, now) = checks(0);
        for streak in 1..=3 {
            checks.result(SystemTime::now(), 1, b"no", now);
            assert_eq!(checks.health.failing_streak, streak);
        }
        assert_eq!(checks.health.status, HealthStatus::Unhealthy);
        checks.result(SystemTime::now(), 0, b"", now);
        assert_eq!(
            (checks.health.status, checks.health.failing_streak),
            (HealthStatus::Healthy, 0)
        );
    }

    #[test]
    fn failures_in_the_start_period_do_not_count_and_checks_come_faster() {
        let (mut checks, now) = checks(60);
        assert_eq!(checks.due, now + Duration::from_secs(5));
        checks.result(SystemTime::now(), 1, b"", now + Duration::from_secs(5));
        assert_eq!(
            (checks.health.status, checks.health.failing_streak),
            (HealthStatus::Starting, 0)
        );
        checks.result(SystemTime::now(), 1, b"", now + Duration::from_secs(61));
        assert_eq!(checks.health.failing_streak, 1);
    }

    #[test]
    fn only_five_results_and_4096_bytes_are_kept() {
        let (mut checks, now) = checks(0);
        for _ in 0..9 {
            checks.result(SystemTime::now(), 0, &[b'x'; 10_000], now);
        }
        assert_eq!(checks.health.log.len(), 5);
        assert!(
            checks
                .health
                .log
                .iter()
                .all(|result| result.output.len() == MAX_OUTPUT)
        );
    }
}
