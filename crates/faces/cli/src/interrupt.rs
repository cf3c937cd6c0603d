//! Ctrl-C during long work.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dhow_engine::Signals;
use rustix::event::{PollFd, PollFlags};

use crate::CliError;

/// HUP, INT and TERM.
const SIGNALS: [i32; 3] = [1, 2, 15];

/// Exit code of a command that Ctrl-C ended.
pub(crate) const CODE: u8 = 130;

/// SIGINT and its like, held back from the moment this is made: a later thread takes them. To be made before any
/// other thread, which inherits that they are held back.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    signals: Arc<Signals>,
    came: Arc<AtomicBool>,
    watched: Arc<AtomicBool>,
}

impl Interrupt {
    /// Holds the signals back.
    pub(crate) fn watch() -> Result<Self, CliError> {
        let signals = Arc::new(Signals::watch(&SIGNALS)?);
        let flag = || Arc::new(AtomicBool::new(false));
        Ok(Self {
            signals,
            came: flag(),
            watched: flag(),
        })
    }

    /// The flag that is set when one came.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.came)
    }

    /// Whether one came.
    pub(crate) fn came(&self) -> bool {
        self.came.load(Ordering::Relaxed)
    }

    /// From now on the first signal sets the flag and the second ends the command. Starts a thread, once: to be
    /// called only when nothing needs a single-threaded process any more.
    pub(crate) fn set_flag_when_it_comes(&self) {
        if self.watched.swap(true, Ordering::Relaxed) {
            return;
        }
        let own = self.clone();
        let thread = move || {
            own.wait();
            own.came.store(true, Ordering::Relaxed);
            own.wait();
            end();
        };
        // Without the thread Ctrl-C does nothing until the work ends, and the work goes on.
        drop(
            std::thread::Builder::new()
                .name("interrupt".to_owned())
                .spawn(thread),
        );
    }

    /// From now on a signal ends the command at once, after `last`: what was begun is not published, and what is left
    /// of it is swept later. Starts a thread, as [`Self::set_flag_when_it_comes`].
    pub(crate) fn end_when_it_comes(&self, last: impl FnOnce() + Send + 'static) {
        if self.watched.swap(true, Ordering::Relaxed) {
            return;
        }
        let own = self.clone();
        let thread = move || {
            own.wait();
            last();
            end();
        };
        drop(
            std::thread::Builder::new()
                .name("interrupt".to_owned())
                .spawn(thread),
        );
    }

    fn wait(&self) {
        loop {
            let mut fds = [PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN)];
            // An interrupted wait is begun again.
            if rustix::event::poll(&mut fds, None).is_ok() && !self.signals.take().is_empty() {
                return;
            }
        }
    }
}

#[expect(
    clippy::exit,
    reason = "the main thread is in the middle of work that cannot be asked to stop"
)]
fn end() -> ! {
    std::process::exit(i32::from(CODE))
}
