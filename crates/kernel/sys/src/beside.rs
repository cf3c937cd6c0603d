//! Two pieces of work at once, in a process that forks before and after.

use std::io;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::process::{block_signals, restore_signals};
use crate::sched::Urgent;

/// Bytes of the second thread's stack.
const STACK: usize = 256 << 10;
/// How long the end of a thread that was waited for may take: on a busy machine it waits for a processor once more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Does `here` on this thread and `there` on another one, and returns when both are done and the other is gone. The process may
/// fork then ([`crate::clone`]) if it had no other thread before.
///
/// The second thread begins at once, on a processor of its own if there is one: all its life it is as urgent as [`Urgent`] makes
/// it, because some kernels leave a new thread behind the one that made it until that one sleeps. So `there` is for work of a
/// millisecond. No signal is delivered to it. Where no thread can be made, the two are done one after the other.
///
/// # Errors
/// Never in practice: when the mask of signals cannot be changed, or the thread does not end within a minute.
///
/// # Panics
/// As `here` and `there`.
pub fn both<A, B: Send>(here: impl FnOnce() -> A, there: impl FnOnce() -> B + Send) -> io::Result<(A, B)> {
    let work = Mutex::new(Some(there));
    // A heap of its own for the second would be pages more, and calls more.
    #[cfg(target_env = "gnu")]
    // SAFETY: integers only; how many heaps there are is the allocator's own affair.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
    let take = || work.lock().unwrap_or_else(PoisonError::into_inner).take();
    thread::scope(|scope| {
        let mask = block_signals()?;
        let urgent = Urgent::begin();
        let thread = thread::Builder::new().stack_size(STACK);
        let thread = thread.spawn_scoped(scope, || (rustix::thread::gettid(), take().map(|work| work())));
        drop(urgent);
        restore_signals(mask)?;
        let first = here();
        let second = match thread.map(thread::ScopedJoinHandle::join) {
            Ok(Ok((id, second))) => {
                gone(id)?;
                second
            }
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => take().map(|work| work()),
        };
        let second = second.ok_or_else(|| io::Error::other("a thread ended without its work"))?;
        Ok((first, second))
    })
}

/// Waits until a thread that was joined is none of the process' any more: the kernel wakes who joins it before it takes it off
/// the list (`mm_release` and `release_task`).
fn gone(id: Pid) -> io::Result<()> {
    let began = Instant::now();
    let mut asked = 0_u32;
    while is_there(id) {
        if began.elapsed() > PATIENCE {
            return Err(io::Error::other("a thread does not end"));
        }
        asked += 1;
        if asked < 100 {
            thread::yield_now();
        } else {
            thread::sleep(Duration::from_micros(100));
        }
    }
    Ok(())
}

/// Whether the process has this thread.
fn is_there(id: Pid) -> bool {
    let process = rustix::process::getpid().as_raw_pid();
    // SAFETY: integers only; signal 0 is none, and asks whether there is a thread to send one to.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, process, id.as_raw_pid(), 0) };
    result == 0
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn each_can_wait_for_a_word_of_the_other() {
        let ((ask, asked), (answer, answered)) = (channel(), channel());
        let patience = Duration::from_secs(60);
        let here = || {
            ask.send(20).unwrap();
            answered.recv_timeout(patience).unwrap()
        };
        let there = move || {
            let number: i32 = asked.recv_timeout(patience).unwrap();
            answer.send(number + 1).unwrap();
            "done"
        };
        assert_eq!(both(here, there).unwrap(), (21, "done"));
    }

    #[test]
    fn the_other_thread_is_gone_afterwards() {
        for _ in 0..2000 {
            let ((), id) = both(|| (), rustix::thread::gettid).unwrap();
            assert!(!is_there(id));
        }
    }

    #[test]
    fn the_thread_that_goes_on_is_scheduled_as_before() {
        let before = policy();
        both(|| (), || ()).unwrap();
        assert_eq!(policy(), before);
    }

    fn policy() -> libc::c_int {
        // SAFETY: an integer goes in and an integer comes out; thread 0 is the caller.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn a_panic_of_the_other_is_one_here() {
        let outcome = std::panic::catch_unwind(|| both(|| (), || panic!("there")));
        assert_eq!(outcome.unwrap_err().downcast_ref(), Some(&"there"));
    }
}
