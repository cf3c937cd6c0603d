//! Work that needs threads, done in a child process, so that this one may still fork and clone.

use std::io::{Read as _, Write as _};
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
        let what = || "make a process for the work";
        let (mut answer, mut report) = UnixStream::pair().context(what)?;
        if dhow_sys::clone::fork().context(what)?.is_none() {
            drop(answer);
            let outcome = Self::open(self.settings().clone()).and_then(|engine| work(&engine));
            if let Ok(text) = serde_json::to_vec(&describe(outcome)) {
                // A parent that is gone has nothing to hear.
                drop(report.write_all(&text));
            }
            dhow_sys::background::exit_now(0)
        }
        drop(report);
        let mut text = Vec::new();
        answer.read_to_end(&mut text).context(|| "wait for the work")?;
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
