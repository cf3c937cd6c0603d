//! Work that needs threads, done in a child process, so that this one may still fork and clone.

use std::io::{Read as _, Write as _};
use std::marker::PhantomData;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use dhow_types::{ErrorKind, Failure as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Context as _, Engine, Error};

#[derive(Serialize, Deserialize)]
enum Answer<T> {
    Done(T),
    Failed {
        kind: usize,
        message: String,
        hint: Option<String>,
    },
}

/// Work that waits in a child process for what it is to be done with.
#[derive(Debug)]
pub(crate) struct Later<A, T> {
    to: UnixStream,
    kinds: PhantomData<fn(&A) -> T>,
}

impl Engine {
    /// Does `work` with a fresh engine of the same settings in a child process, waits for it, and gives what it gave. The
    /// caller must be single-threaded and stays so.
    ///
    /// # Errors
    /// What `work` said, under its kind.
    pub fn apart<T: Serialize + DeserializeOwned>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.later(|engine, ()| work(engine))?.ask(&())
    }

    /// Makes the process for work that is to be done later, when there are threads. The caller must still be
    /// single-threaded; when it never asks, nothing is done.
    pub(crate) fn later<A: Serialize + DeserializeOwned, T: Serialize + DeserializeOwned>(
        &self,
        work: impl FnOnce(&Self, A) -> Result<T, Error>,
    ) -> Result<Later<A, T>, Error> {
        let what = || "make a process for the work";
        let (to, mut report) = UnixStream::pair().context(what)?;
        if dhow_sys::clone::fork().context(what)?.is_none() {
            drop(to);
            let mut asked = Vec::new();
            if report.read_to_end(&mut asked).is_ok()
                && let Ok(asked) = serde_json::from_slice(&asked)
            {
                let engine = Self::open(self.settings().clone());
                let outcome = engine.and_then(|engine| work(&engine, asked));
                if let Ok(text) = serde_json::to_vec(&describe(outcome)) {
                    // A parent that is gone has nothing to hear.
                    drop(report.write_all(&text));
                }
            }
            dhow_sys::background::exit_now(0)
        }
        Ok(Later {
            to,
            kinds: PhantomData,
        })
    }
}

impl<A: Serialize, T: DeserializeOwned> Later<A, T> {
    /// Has it done with this, and waits for what it gives.
    pub(crate) fn ask(mut self, with: &A) -> Result<T, Error> {
        let json = |error| Error::because(ErrorKind::Internal, "say what is to be done", error);
        let with = serde_json::to_vec(with).map_err(json)?;
        // Of a process that ended early there is no answer, which says it.
        drop(self.to.write_all(&with));
        drop(self.to.shutdown(Shutdown::Write));
        let mut text = Vec::new();
        self.to.read_to_end(&mut text).context(|| "wait for the work")?;
        // Reaped here; whatever its exit status, the answer says more.
        while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
        match serde_json::from_slice(&text) {
            Ok(Answer::Done(done)) => Ok(done),
            Ok(Answer::Failed { kind, message, hint }) => {
                let error = Error::new(
                    ErrorKind::ALL.get(kind).copied().unwrap_or(ErrorKind::Internal),
                    message,
                );
                Err(match hint {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                })
            }
            Err(_) => Err(Error::new(
                ErrorKind::Cancelled,
                "the work was ended before it was done",
            )),
        }
    }
}

fn describe<T>(outcome: Result<T, Error>) -> Answer<T> {
    match outcome {
        Ok(done) => Answer::Done(done),
        Err(error) => Answer::Failed {
            kind: ErrorKind::ALL
                .iter()
                .position(|kind| *kind == error.kind())
                .unwrap_or(4),
            message: crate::worker::chain(&error),
            hint: error.hint().map(str::to_owned),
        },
    }
}
