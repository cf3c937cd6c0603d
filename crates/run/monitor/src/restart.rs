use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When a container that ended is started again (docker's `--restart`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "name", content = "maximum")]
pub enum RestartPolicy {
    /// Whatever the exit code was.
    Always,
    /// Never.
    #[default]
    No,
    /// After a failure, at most so many times in a row; 0 is without end.
    OnFailure(u32),
    /// As `Always`, but a container that was stopped stays so after a reboot.
    UnlessStopped,
}

/// First wait; each further one is twice as long (moby `restartmanager`: 100 ms, doubling, at most a minute).
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// A program that ran so long counts as well started: the waits begin anew.
const SETTLED: Duration = Duration::from_secs(10);

/// The waits of one container.
#[derive(Debug)]
pub(crate) struct Restarts {
    policy: RestartPolicy,
    wait: Duration,
    count: u32,
}

impl Restarts {
    pub(crate) fn new(policy: RestartPolicy) -> Self {
        Self {
            policy,
            wait: FIRST,
            count: 0,
        }
    }

    /// Follows another policy from now on.
    pub(crate) fn change(&mut self, policy: RestartPolicy) {
        self.policy = policy;
    }

    /// Counts a restart that does not come from the policy.
    pub(crate) fn forced(&mut self) -> (Duration, u32) {
        self.count += 1;
        (Duration::ZERO, self.count)
    }

    /// How long to wait before the next start and which restart that is; `None` to leave it ended.
    pub(crate) fn next(&mut self, code: i32, ran: Duration) -> Option<(Duration, u32)> {
        if ran >= SETTLED {
            self.wait = FIRST;
            self.count = 0;
        }
        let again = match self.policy {
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
            RestartPolicy::OnFailure(maximum) => code != 0 && (maximum == 0 || self.count < maximum),
        };
        if !again {
            return None;
        }
        self.count += 1;
        let wait = self.wait;
        self.wait = (wait * 2).min(LONGEST);
        Some((wait, self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_secs(1);

    #[test]
    fn on_failure_stops_after_its_maximum_and_after_success() {
        let mut restarts = Restarts::new(RestartPolicy::OnFailure(2));
        assert_eq!(restarts.next(1, SHORT), Some((FIRST, 1)));
        assert_eq!(restarts.next(1, SHORT), Some((FIRST * 2, 2)));
        assert_eq!(restarts.next(1, SHORT), None);
        assert_eq!(Restarts::new(RestartPolicy::OnFailure(2)).next(0, SHORT), None);
    }

    #[test]
    fn waits_double_up_to_a_minute_and_begin_anew_after_a_settled_run() {
        let mut restarts = Restarts::new(RestartPolicy::Always);
        let waits: Vec<_> = (0..12)
            .filter_map(|_| restarts.next(0, SHORT))
            .map(|(wait, _)| wait)
            .collect();
        assert_eq!(waits[3], FIRST * 8);
        assert_eq!(waits[11], LONGEST);
        assert_eq!(restarts.next(0, SETTLED), Some((FIRST, 1)));
    }
}
