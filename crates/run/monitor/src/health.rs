use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::log::format_time;

/// Output of a check that is kept, in bytes, when nobody says (moby `daemon/health.go`, maxOutputLen).
const OUTPUT: u64 = 4096;
/// Results that are kept when nobody says (moby, maxLogEntries).
const RESULTS: u64 = 5;
/// The most that a person may ask for: the record holds them all, and it is read whole.
const MOST_OUTPUT: u64 = 64 << 10;
const MOST_BYTES: usize = 1 << 20;

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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The check that comes before all others.
    pub startup: Option<StartupCheck>,
    /// What of results is kept.
    pub log: HealthLog,
}

/// A check of its own that must be good before the usual ones begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartupCheck {
    /// Between two.
    pub interval: Duration,
    /// For one.
    pub timeout: Duration,
    /// Failures after which the container is started again; 0 means never.
    pub retries: u64,
    /// Good ones in all that end it; 0 means one.
    pub successes: u64,
}

/// What of the results of checks is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthLog {
    /// How many; 0 means as many as fit into a record.
    pub count: u64,
    /// Bytes of each one's output; 0 means as much as can be.
    pub size: u64,
}

impl Default for HealthLog {
    /// Docker's.
    fn default() -> Self {
        Self {
            count: RESULTS,
            size: OUTPUT,
        }
    }
}

impl HealthLog {
    /// Bytes of one result's output that are kept.
    pub(crate) fn room(self) -> usize {
        let size = if self.size == 0 { MOST_OUTPUT } else { self.size };
        usize::try_from(size.min(MOST_OUTPUT)).unwrap_or(usize::MAX)
    }

    fn trim(self, log: &mut Vec<HealthResult>) {
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        if count > 0 && log.len() > count {
            log.drain(..log.len() - count);
        }
        let bytes = |log: &[HealthResult]| log.iter().map(|result| result.output.len() + 128).sum::<usize>();
        while log.len() > 1 && bytes(log) > MOST_BYTES {
            log.remove(0);
        }
    }
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
    /// The container ended while it was being checked.
    Stopped,
}

impl HealthStatus {
    /// Docker's word for it, and podman's for the last.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Stopped => "stopped",
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
    startup: Option<Startup>,
}

/// Where the first check stands.
#[derive(Debug)]
struct Startup {
    check: StartupCheck,
    good: u64,
    bad: u64,
}

/// What a result asks the monitor to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Go,
    /// The startup check failed too often.
    StartAgain,
}

impl Checks {
    pub(crate) fn new(settings: HealthSettings, now: Instant) -> Self {
        let mut checks = Self {
            settings,
            started: now,
            due: now,
            health: Health::default(),
            startup: None,
        };
        checks.startup = checks.settings.startup.map(|check| Startup {
            check,
            good: 0,
            bad: 0,
        });
        checks.due = now + checks.pause(now);
        checks
    }

    pub(crate) fn timeout(&self) -> Duration {
        let startup = self.startup.as_ref().map(|startup| startup.check.timeout);
        startup.unwrap_or(self.settings.timeout)
    }

    /// Whether the check that comes next is the one of the start.
    pub(crate) fn is_startup(&self) -> bool {
        self.startup.is_some()
    }

    pub(crate) fn settings(&self) -> &HealthSettings {
        &self.settings
    }

    fn pause(&self, now: Instant) -> Duration {
        if let Some(startup) = &self.startup {
            return startup.check.interval;
        }
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

    pub(crate) fn result(&mut self, begun: SystemTime, code: i32, output: &[u8], now: Instant) -> Verdict {
        let log = self.settings.log;
        let output = String::from_utf8_lossy(&output[..output.len().min(log.room())]).into_owned();
        let result = HealthResult {
            start: format_time(begun),
            end: format_time(SystemTime::now()),
            exit_code: code,
            output,
        };
        self.health.log.push(result);
        log.trim(&mut self.health.log);
        let mut verdict = Verdict::Go;
        if self.startup.is_some() {
            verdict = self.started_up(code);
        } else if code == 0 {
            self.health.status = HealthStatus::Healthy;
            self.health.failing_streak = 0;
        } else {
            self.failed(now);
        }
        self.due = now + self.pause(now);
        verdict
    }

    /// Counts a result of the first check; the health is unknown until the usual ones begin.
    fn started_up(&mut self, code: i32) -> Verdict {
        let Some(startup) = &mut self.startup else {
            return Verdict::Go;
        };
        if code == 0 {
            startup.good += 1;
            startup.bad = 0;
            if startup.good >= startup.check.successes.max(1) {
                self.startup = None;
            }
            return Verdict::Go;
        }
        startup.bad += 1;
        if startup.check.retries > 0 && startup.bad >= startup.check.retries {
            startup.bad = 0;
            return Verdict::StartAgain;
        }
        Verdict::Go
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
            startup: None,
            log: HealthLog::default(),
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
        assert!(checks.health.log.iter().all(|result| result.output.len() == 4096));
    }

    #[test]
    fn the_check_of_the_start_comes_first_and_too_many_failures_of_it_start_the_container_again() {
        let (mut checks, now) = checks(0);
        let check = StartupCheck {
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
            retries: 2,
            successes: 2,
        };
        checks.settings.startup = Some(check);
        checks = Checks::new(checks.settings, now);
        assert_eq!(
            (checks.due, checks.timeout()),
            (now + check.interval, check.timeout)
        );
        let mut result = |code| checks.result(SystemTime::now(), code, b"", now);
        assert_eq!([result(1), result(1)], [Verdict::Go, Verdict::StartAgain]);
        assert_eq!([result(0), result(1), result(0)], [Verdict::Go; 3]);
        assert!(!checks.is_startup());
        assert_eq!(
            (checks.health.status, checks.health.failing_streak),
            (HealthStatus::Starting, 0)
        );
        checks.result(SystemTime::now(), 0, b"", now);
        assert_eq!(checks.health.status, HealthStatus::Healthy);
    }

    #[test]
    fn results_without_end_are_bounded_by_the_record() {
        let (mut checks, now) = checks(0);
        checks.settings.log = HealthLog { count: 0, size: 0 };
        for _ in 0..40 {
            checks.result(SystemTime::now(), 0, &[b'x'; 100_000], now);
        }
        assert_eq!(checks.health.log.len(), 15);
        assert!(
            checks
                .health
                .log
                .iter()
                .all(|result| result.output.len() == 65_536)
        );
    }
}
