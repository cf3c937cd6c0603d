//! `logs`.

use std::time::Duration;

use dhow_monitor::{LogFollower, LogReader, Record, log_files};
use dhow_types::ErrorKind;

use crate::{Context as _, Engine, Error};

/// How often a followed log is looked at where no change is seen: a monitor that was killed writes nothing.
const LOOK: Duration = Duration::from_millis(500);

/// What `logs`' flags say. Times are RFC 3339 in UTC with nine digits, so that they compare as texts.
#[derive(Clone, Debug, Default)]
pub struct LogRequest {
    /// Only records from here on.
    pub since: Option<String>,
    /// Only records before.
    pub until: Option<String>,
    /// Only so many at the end.
    pub tail: Option<usize>,
    /// Whether to wait for more while the container runs.
    pub follow: bool,
}

impl Engine {
    /// Gives every record wanted to `each`, oldest first; `each` returns false to end it.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` when the container keeps no log.
    pub fn logs(
        &self,
        wanted: &str,
        request: &LogRequest,
        each: &mut dyn FnMut(&Record) -> bool,
    ) -> Result<(), Error> {
        let container = self.containers().find(wanted)?;
        let id = &container.config.id;
        if container.config.log.driver == "none" {
            let message = "configured logging driver does not support reading";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let path = self.containers().log(&container.config);
        let passes = |record: &Record| {
            request.since.as_ref().is_none_or(|since| record.time >= *since)
                && request.until.as_ref().is_none_or(|until| record.time < *until)
        };
        let mut tail = std::collections::VecDeque::new();
        let mut last = None;
        for file in log_files(&path) {
            let mut reader = match LogReader::open(&file) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                reader => reader.context(|| "read the container's log")?,
            };
            while let Some(record) = reader.record().context(|| "read the container's log")? {
                if !passes(&record) {
                    continue;
                }
                match request.tail {
                    Some(count) => {
                        tail.push_back(record);
                        if tail.len() > count {
                            tail.pop_front();
                        }
                    }
                    None if !each(&record) => return Ok(()),
                    None => {}
                }
            }
            last = Some(reader);
        }
        for record in &tail {
            if !each(record) {
                return Ok(());
            }
        }
        if !request.follow {
            return Ok(());
        }
        self.follow(id, &path, last, request, each)
    }

    fn follow(
        &self,
        id: &dhow_types::ContainerId,
        path: &std::path::Path,
        read: Option<LogReader<std::io::BufReader<std::fs::File>>>,
        request: &LogRequest,
        each: &mut dyn FnMut(&Record) -> bool,
    ) -> Result<(), Error> {
        let mut follower = LogFollower::new(path).context(|| "follow the log")?;
        if let Some(read) = read {
            follower.resume(read).context(|| "follow the log")?;
        }
        let mut each = |record: &Record| {
            let over = request.until.as_ref().is_some_and(|until| record.time >= *until);
            !over && each(record)
        };
        loop {
            // Asked before the last look, so that what is written at the end is not missed.
            let alive = self.is_alive(id);
            if !follower.drain(&mut each).context(|| "read the log")? || !alive {
                return Ok(());
            }
            follower.wait(LOOK);
        }
    }

    /// Whether more may be written to its log.
    pub(super) fn is_alive(&self, id: &dhow_types::ContainerId) -> bool {
        self.containers().is_logging(id)
    }
}
