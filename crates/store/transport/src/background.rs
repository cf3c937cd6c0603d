//! The one thread that owns the sockets.

use std::future::Future;
use std::sync::mpsc;
use std::thread::JoinHandle;

use dhow_types::ErrorKind;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::{Context as _, Error};

/// A thread with a single-threaded runtime; ends, and is joined, when dropped.
#[derive(Debug)]
pub(crate) struct Background {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    pub(crate) fn start() -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context(|| "start the network runtime")?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("dhow-transport".to_owned())
            .spawn(move || {
                // An error means that the sender is gone, which is the signal as well.
                runtime.block_on(async { stopped.await.unwrap_or_default() });
                runtime.shutdown_background();
            })
            .context(|| "start the network thread")?;
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Runs `future` on the thread and waits for it. Must not be called from asynchronous code.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, outcome) = mpsc::sync_channel(1);
        self.handle.spawn(async move {
            // Nobody waits any more when this fails.
            sender.send(future.await).unwrap_or_default();
        });
        outcome.recv().unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Cancelled,
                "the network thread ended before the answer came",
            ))
        })
    }
}

/// Runs work that waits in a thread of its own, and joins it: nothing is left that a fork would lose.
pub(crate) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (sender, outcome) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("dhow-credentials".to_owned())
        // Nobody waits any more when sending fails.
        .spawn(move || drop(sender.send(work())))
        .context(|| "start a thread")?;
    let outcome = outcome.await;
    // It said its word: this waits for the end of a thread that has nothing more to do.
    let joined = thread.join();
    match (outcome, joined) {
        (Ok(outcome), _) => outcome,
        (Err(_), _) => Err(Error::new(
            ErrorKind::Internal,
            "a thread ended before its work did",
        )),
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else { return };
        // A task that holds the last reference runs on the thread itself, which cannot wait for itself.
        if thread.thread().id() != std::thread::current().id() {
            // A panic of the thread was reported to whoever waited for an answer.
            thread.join().unwrap_or_default();
        }
    }
}
