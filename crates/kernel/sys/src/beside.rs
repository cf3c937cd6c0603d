//! Two pieces of work at once, in a process that forks before and after.

use std::io;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::process::{block_signals, restore_signals};
use crate::sched::Urgent;

/// Bytes of the second thread's stack.
const STACK: usize = 256 << 10;

/// Does `here` on this thread and `there` on another one, and returns when both are done. The process may fork then
/// ([`crate::clone`]) if it had no other thread before.
///
/// The second thread begins at once, on a processor of its own if there is one: all its life it is as urgent as [`Urgent`] makes
/// it, because some kernels leave a new thread behind the one that made it until that one sleeps. So `there` is for work of a
/// millisecond. No signal is delivered to it. Where no thread can be made, the two are done one after the other.
///
/// # Errors
/// Never in practice: when the mask of signals cannot be changed.
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
        let thread = thread.spawn_scoped(scope, || take().map(|work| work()));
        drop(urgent);
        restore_signals(mask)?;
        let first = here();
        let second = match thread.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(second)) => second,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => take().map(|work| work()),
        };
        let second = second.ok_or_else(|| io::Error::other("a thread ended without its work"))?;
        Ok((first, second))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

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
