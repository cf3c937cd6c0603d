//! A few workers over a list of jobs; the first failure stops the rest.

use std::io::{self, BufRead, Read};
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use dhow_types::{Observer, Progress};

use crate::Error;

/// Most workers at once. Layers overlap network, inflate and file creation; on two cores a fourth worker gains
/// nothing and costs memory.
const MOST: usize = 3;

/// Bytes between two reports of progress.
const REPORT_EVERY: u64 = 512 << 10;

/// Told to workers when one of them failed.
#[derive(Debug, Default)]
pub(crate) struct Stop(AtomicBool);

impl Stop {
    pub(crate) fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs `work` on every job, in order of the list, on a few threads (none when one is enough).
///
/// # Errors
/// The first failure; jobs under way are asked to stop, the others are not begun.
pub(crate) fn each<T: Sync>(
    jobs: &[T],
    work: impl Fn(&T, &Stop) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let stop = Stop::default();
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let workers = jobs.len().min(MOST).min(cores + 1);
    if workers <= 1 {
        return jobs.iter().try_for_each(|job| work(job, &stop));
    }
    let (next, first) = (AtomicUsize::new(0), Mutex::new(None));
    let run = || {
        while !stop.requested()
            && let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed))
        {
            if let Err(error) = work(job, &stop) {
                let mut slot = first.lock().unwrap_or_else(PoisonError::into_inner);
                // What comes after the first failure is mostly its echo.
                slot.get_or_insert(error);
                stop.0.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..workers {
            scope.spawn(run);
        }
        run();
    });
    first
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .map_or(Ok(()), Err)
}

/// A reader that reports how far it is, ends when told to stop, and keeps its own failure: whoever consumes it
/// reports "the tar ended early" at best, while the reason is here.
pub(crate) struct Metered<'a, R> {
    inner: R,
    id: &'a str,
    observer: &'a dyn Observer,
    stop: &'a Stop,
    at_end: Option<&'a str>,
    seen: u64,
    reported: u64,
    failure: Option<io::Error>,
    transparent: bool,
}

impl<'a, R: Read> Metered<'a, R> {
    /// Reads `inner` for the piece `id`; at its end the piece begins what `at_end` says.
    pub(crate) fn new(
        inner: R,
        id: &'a str,
        observer: &'a dyn Observer,
        stop: &'a Stop,
        at_end: Option<&'a str>,
    ) -> Self {
        Self {
            inner,
            id,
            observer,
            stop,
            at_end,
            seen: 0,
            reported: 0,
            failure: None,
            transparent: false,
        }
    }

    /// The same for consumers that pass an error of reading on as it is.
    pub(crate) fn transparent(self) -> Self {
        Self {
            transparent: true,
            ..self
        }
    }

    /// Why reading failed, if it did.
    pub(crate) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }
}

impl<R> Metered<'_, R> {
    fn report(&mut self) {
        self.reported = self.seen;
        self.observer.observe(Progress::Advance {
            id: self.id,
            current: self.seen,
        });
    }

    fn check(&self) -> io::Result<()> {
        if self.stop.requested() {
            return Err(io::Error::other("stopped, since another layer failed"));
        }
        Ok(())
    }

    fn came(&mut self, count: usize) {
        self.seen += count as u64;
        if self.seen - self.reported >= REPORT_EVERY {
            self.report();
        }
    }

    fn ended(&mut self) {
        if let Some(what) = self.at_end.take() {
            self.report();
            self.observer.observe(Progress::Begin {
                id: self.id,
                what,
                total: None,
            });
        }
    }

    /// What the consumer is told of an error.
    fn failed(&mut self, error: io::Error) -> io::Error {
        if self.transparent || error.kind() == io::ErrorKind::Interrupted {
            return error;
        }
        let echo = io::Error::new(error.kind(), "the download failed");
        self.failure = Some(error);
        echo
    }
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        let count = self.inner.read(buf).map_err(|error| self.failed(error))?;
        if count > 0 {
            self.came(count);
        } else if !buf.is_empty() {
            self.ended();
        }
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Metered<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.check()?;
        match self.inner.fill_buf().map(<[u8]>::is_empty) {
            Ok(true) => self.ended(),
            Ok(false) => (),
            Err(error) => return Err(self.failed(error)),
        }
        // What it had just now.
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.inner.consume(count);
        self.came(count);
    }
}
