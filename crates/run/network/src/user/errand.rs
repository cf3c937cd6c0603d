//! Work in a network namespace that this process could enter and not leave again: root of a user namespace has no rights
//! over the host's network (setns(2)). A child enters it, does the work and brings the result.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use dhow_types::{ErrorKind, Failure as _};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{WaitOptions, waitpid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Context as _, Error};

/// Longest answer: far below what one message of a socket may have.
const MAX_ANSWER: usize = 32 << 10;
/// Longest text of what went wrong.
const MAX_TEXT: usize = 4 << 10;

#[derive(Serialize, Deserialize)]
enum Answer<T> {
    Done(T),
    Failed {
        /// Its place in [`ErrorKind::ALL`].
        kind: usize,
        message: String,
        hint: Option<String>,
    },
}

/// Does `work` in the namespace, in a child process. Single-threaded callers only.
///
/// # Errors
/// What `work` said, under its kind; `Cancelled` when the child was killed.
pub(crate) fn errand<T: Serialize + DeserializeOwned>(
    netns: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    fetch(netns, || work().map(|value| (value, Vec::new()))).map(|(value, _)| value)
}

/// The same for work whose result has descriptors, such as sockets of the namespace.
pub(crate) fn fetch<T: Serialize + DeserializeOwned>(
    netns: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<(T, Vec<OwnedFd>), Error>,
) -> Result<(T, Vec<OwnedFd>), Error> {
    let what = || "make a process for a network namespace";
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(std::io::Error::from)
    .context(what)?;
    let parent = rustix::process::getpid();
    let child = dhow_sys::clone::spawn(&dhow_sys::clone::Options::default(), || {
        if dhow_sys::process::end_with(parent).is_err() {
            return 1;
        }
        let outcome = move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
            .map_err(std::io::Error::from)
            .context(|| "enter the network namespace")
            .and_then(|()| work());
        tell(&theirs, outcome)
    })
    .context(what)?;
    drop(theirs);
    let mut text = vec![0; MAX_ANSWER];
    let received = dhow_sys::fd::receive(&ours, &mut text);
    // Whatever its exit status, the answer says more.
    _ = waitpid(Some(child.pid), WaitOptions::empty());
    let (length, fds) = received.context(|| "wait for the work in a network namespace")?;
    match serde_json::from_slice(&text[..length]) {
        Ok(Answer::Done(value)) => Ok((value, fds)),
        Ok(Answer::Failed { kind, message, hint }) => {
            let kind = ErrorKind::ALL.get(kind).copied().unwrap_or(ErrorKind::Internal);
            let error = Error::new(kind, message);
            Err(match hint {
                Some(hint) => error.with_hint(hint),
                None => error,
            })
        }
        Err(_) => Err(Error::new(
            ErrorKind::Cancelled,
            "the work in a network namespace was ended before it was done",
        )),
    }
}

fn tell<T: Serialize>(to: &OwnedFd, outcome: Result<(T, Vec<OwnedFd>), Error>) -> i32 {
    let (answer, fds) = match outcome {
        Ok((value, fds)) => (Answer::Done(value), fds),
        Err(error) => (failure(&error), Vec::new()),
    };
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(OwnedFd::as_fd).collect();
    let sent = serde_json::to_vec(&answer)
        .map_err(std::io::Error::from)
        .and_then(|text| dhow_sys::fd::send(to, &text, &fds));
    i32::from(sent.is_err())
}

fn failure<T>(error: &Error) -> Answer<T> {
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        message.push_str(": ");
        message.push_str(&inner.to_string());
        cause = inner.source();
    }
    message.truncate(message.floor_char_boundary(MAX_TEXT));
    Answer::Failed {
        kind: ErrorKind::ALL
            .iter()
            .position(|kind| *kind == error.kind())
            .unwrap_or(usize::MAX),
        message,
        hint: error.hint().map(str::to_owned),
    }
}
