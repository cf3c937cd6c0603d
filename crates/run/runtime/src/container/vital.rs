//! Whether a process is there, and the one that is meant.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::{Context as _, Error};

/// `PF_FORKNOEXEC` (`include/linux/sched.h`): a copy that has not executed a program.
const FORKED_ONLY: u64 = 0x40;

/// More than a line about a process has.
const MOST_BYTES: usize = 1 << 16;

/// A process that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vital {
    /// When it was started, in clock ticks since the machine was.
    pub(crate) start: u64,
    /// Whether it has executed a program.
    pub(crate) executed: bool,
}

impl Vital {
    /// The process `pid` if it was started at `start`; none when that one is gone, or waits to be reaped.
    pub(crate) fn of(pid: i32, start: u64) -> Option<Self> {
        Self::now(pid).filter(|vital| vital.start == start)
    }

    /// The process that has the id `pid` now.
    pub(crate) fn now(pid: i32) -> Option<Self> {
        if pid <= 0 {
            return None;
        }
        let stat = dhow_sys::file::read(format!("/proc/{pid}/stat"), MOST_BYTES).ok()?;
        parse(&stat)
    }
}

/// Reads `/proc/<pid>/stat` (proc_pid_stat(5)). The name of the program is between brackets and may hold any byte, brackets too.
fn parse(stat: &[u8]) -> Option<Vital> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    // After field 3, the state: field 9 is the flags, field 22 the start.
    let flags: u64 = fields.nth(5)?.parse().ok()?;
    let start = fields.nth(12)?.parse().ok()?;
    Some(Vital {
        start,
        executed: flags & FORKED_ONLY == 0,
    })
}

/// A descriptor of the process `pid` that was started at `start`; none when that one is gone.
pub(crate) fn pidfd(pid: i32, start: u64) -> Result<Option<OwnedFd>, Error> {
    // rustix takes no negative number.
    let Some(pid) = Pid::from_raw(pid.max(0)) else {
        return Ok(None);
    };
    match pidfd_open(pid, PidfdFlags::empty()) {
        // Asked after the descriptor was opened: it names that process for ever.
        Ok(fd) => Ok(Vital::of(pid.as_raw_pid(), start).map(|_| fd)),
        Err(Errno::SRCH) => Ok(None),
        Err(errno) => Err(io::Error::from(errno)).context(|| format!("open process {}", pid.as_raw_pid())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_and_by_having_executed() {
        let line = b"42 (a) b (c)) S 1 42 42 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        assert_eq!(
            parse(line),
            Some(Vital {
                start: 12345,
                executed: true
            })
        );
        let forked = b"42 (x) R 1 42 42 0 -1 4194368 0 0 0 0 0 0 0 0 20 0 1 0 7 0 0";
        assert_eq!(
            parse(forked),
            Some(Vital {
                start: 7,
                executed: false
            })
        );
        assert_eq!(
            parse(b"42 (x) Z 1 42 42 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 7 0 0"),
            None
        );
        for wrong in [
            &b""[..],
            b"42",
            b"42 (x",
            b"42 (x)",
            b"42 (x) S 1 2 3",
            b"\xff) S \xff",
        ] {
            assert_eq!(parse(wrong), None);
        }
    }

    #[test]
    fn this_process_lives_and_another_start_is_another_process() {
        let own = i32::try_from(std::process::id()).unwrap();
        let vital = Vital::now(own).unwrap();
        assert!(vital.executed);
        assert!(Vital::of(own, vital.start).is_some());
        assert!(Vital::of(own, vital.start + 1).is_none());
        assert!(pidfd(own, vital.start).unwrap().is_some());
        assert!(pidfd(own, vital.start + 1).unwrap().is_none());
        assert!(pidfd(0, 0).unwrap().is_none());
        assert!(pidfd(-1, 0).unwrap().is_none());
    }
}
