//! Whether the program of a record still runs.

use std::fs;
use std::io::ErrorKind;

use super::folder::Container;
use super::record::{Newborn, PidfsMark, State, Status};

/// Exit code of a program of which nobody wrote down how it ended.
pub(super) const LOST: i32 = 255;

/// A record that says "running" of a process that is no more: the monitor was killed, or the machine was.
pub(super) fn settle(mut state: State) -> State {
    let alive = matches!(state.status, Status::Running | Status::Paused);
    if alive && !lives(&state) {
        state.status = Status::Exited;
        state.exit_code = LOST;
        state.pid = 0;
    }
    if state.newborn.is_some_and(|newborn| !newborn.lives()) {
        state.newborn = None;
    }
    state
}

/// Whether the process of a record is there, and not a later one of its number.
pub(super) fn lives(state: &State) -> bool {
    is_there(state.pid, state.pid_start, state.mark)
}

impl Newborn {
    pub(super) fn of(pid: i32) -> Self {
        Self {
            pid,
            pid_start: process_start(pid).unwrap_or(0),
            mark: mark(pid),
        }
    }

    pub(super) fn lives(&self) -> bool {
        is_there(self.pid, self.pid_start, self.mark)
    }
}

fn is_there(pid: i32, start: u64, mark: Option<PidfsMark>) -> bool {
    if let Some(mark) = mark.filter(|mark| boot() == Some(mark.boot)) {
        match dhow_sys::process::pidfs_inode(pid) {
            Ok(inode) => return inode == mark.inode,
            Err(error) if error.kind() == ErrorKind::NotFound => return false,
            // Another kernel than the one that wrote it down, or no descriptors left: procfs knows as well.
            Err(_) => {}
        }
    }
    process_start(pid) == Some(start)
}

/// What [`lives`] compares; none where the kernel has no such numbers.
pub(super) fn mark(pid: i32) -> Option<PidfsMark> {
    let inode = dhow_sys::process::pidfs_inode(pid).ok()?;
    Some(PidfsMark { boot: boot()?, inode })
}

/// The first half of this boot's id: inodes of pidfs are counted from the start of each.
fn boot() -> Option<u64> {
    let id = dhow_layer::boot_id().ok()?;
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).ok()
}

/// Start time of a process in clock ticks since boot: field 22 of `/proc/<pid>/stat` (proc(5)).
pub(crate) fn process_start(pid: i32) -> Option<u64> {
    dhow_sys::process::started(pid)
}

/// The process id of a running container's monitor; none when it does not run or its monitor died.
#[must_use]
pub fn monitor_of(container: &Container) -> Option<i32> {
    let pid = container.state.pid;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Checked after it was read: the number is still that program's.
    if process_start(pid) != Some(container.state.pid_start) {
        return None;
    }
    let parent: i32 = stat[stat.rfind(')')? + 2..].split(' ').nth(1)?.parse().ok()?;
    // Without its monitor it has been given to whoever reaps.
    let name = fs::read_to_string(format!("/proc/{parent}/comm")).ok()?;
    let adopter = || {
        let (monitor, start) = container.state.adopter?;
        (process_start(monitor) == Some(start)).then_some(monitor)
    };
    if name.starts_with("dhow-monitor") {
        Some(parent)
    } else {
        adopter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    fn running(pid: i32) -> State {
        State {
            status: Status::Running,
            pid,
            pid_start: process_start(pid).unwrap_or(1),
            mark: mark(pid),
            ..State::default()
        }
    }

    #[test]
    fn a_process_has_a_start_time_and_a_number_nobody_has_has_none() {
        assert!(process_start(own()).is_some());
        assert_eq!(process_start(i32::MAX), None);
        assert_eq!(mark(i32::MAX), None);
    }

    #[test]
    fn a_record_of_a_dead_process_is_read_as_exited() {
        let settled = settle(running(i32::MAX));
        assert_eq!(
            (settled.status, settled.exit_code, settled.pid),
            (Status::Exited, LOST, 0)
        );
    }

    #[test]
    fn what_is_to_become_a_program_is_known_as_long_as_it_lives_and_runs_nothing() {
        let newborn = |pid| {
            settle(State {
                newborn: Some(Newborn::of(pid)),
                ..State::default()
            })
        };
        let there = newborn(own());
        assert!(there.newborn.is_some_and(|newborn| newborn.pid == own()));
        assert_eq!((there.pid, there.status), (0, Status::Created));
        assert_eq!(newborn(i32::MAX).newborn, None);
    }

    #[test]
    fn a_later_process_of_the_same_number_is_not_the_program() {
        let state = running(own());
        assert!(lives(&state));
        let later = |change: &dyn Fn(&mut State)| {
            let mut state = state.clone();
            change(&mut state);
            settle(state).status
        };
        // As a kernel without pidfs has it, and as a program wrote it that did not know of marks.
        let started = later(&|state| {
            state.mark = None;
            state.pid_start += 1;
        });
        assert_eq!(started, Status::Exited);
        if state.mark.is_none() {
            return;
        }
        let marked = |change: fn(&mut PidfsMark)| later(&|state| state.mark.iter_mut().for_each(change));
        assert_eq!(marked(|mark| mark.inode += 1), Status::Exited);
        // The number of another boot says nothing; the start time does.
        assert_eq!(marked(|mark| mark.boot ^= 1), Status::Running);
        let rebooted = later(&|state| {
            state.mark.iter_mut().for_each(|mark| mark.boot ^= 1);
            state.pid_start += 1;
        });
        assert_eq!(rebooted, Status::Exited);
    }
}
