//! The fork that makes a monitor.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use dhow_types::{ErrorKind, Failure as _};
use serde::{Deserialize, Serialize};

use crate::supervise::supervise;
use crate::{Context as _, Error, HealthSettings, Life, LogSettings, RestartPolicy};

/// What a monitor needs to know beside the life itself.
#[derive(Debug)]
pub struct Launch {
    /// Where the attach socket is made; its folder is there and only its owner's.
    pub socket: PathBuf,
    /// A lock that the caller holds exclusively; the monitor keeps the open file and with it the lock.
    pub lock: OwnedFd,
    /// The log.
    pub log: LogSettings,
    /// When to start again.
    pub restart: RestartPolicy,
    /// How to check its health.
    pub health: Option<HealthSettings>,
    /// How long one run of the program may take; it is killed then, and its exit code is -1.
    pub timeout: Option<Duration>,
    /// Whether the caller stays attached from the first byte on.
    pub foreground: bool,
}

/// A container that runs beside its monitor.
#[derive(Debug)]
pub struct Started {
    /// Process id of the program on the host.
    pub pid: i32,
    /// The caller's end of the attach stream, when it asked to stay in the foreground.
    pub attached: Option<UnixStream>,
}

/// What the first launch came to, as the monitor tells it to the caller.
#[derive(Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// It runs, with this process id.
    Started(i32),
    /// It does not.
    Failed {
        /// Name of the error kind, by its place in [`ErrorKind::ALL`].
        kind: usize,
        /// The whole chain of what went wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
}

/// Forks the monitor and waits until the container runs, or cannot.
///
/// The caller must be single-threaded. In the monitor this function never returns: the process ends with the
/// container.
///
/// # Errors
/// What the launch said, under its kind; `FailedPrecondition` when the caller has threads.
pub fn launch(launch: Launch, mut life: Box<dyn Life>) -> Result<Started, Error> {
    let listener = listen(&launch.socket)?;
    let (report, mut outcome) = UnixStream::pair().context(|| "make the start-up channel")?;
    let attach = match launch.foreground {
        true => Some(UnixStream::pair().context(|| "make the attach channel")?),
        false => None,
    };
    let (theirs, ours) = attach.unzip();
    match dhow_sys::clone::fork().context(|| "fork the container's monitor")? {
        None => {
            drop(outcome);
            drop(ours);
            become_monitor();
            supervise(
                launch,
                &mut *life,
                listener,
                theirs.map(OwnedFd::from),
                |result| tell(report, result),
            );
            dhow_sys::background::exit_now(0)
        }
        Some(_) => {
            drop(report);
            drop(listener);
            // The lock and whatever the life holds open belong to the monitor from here on.
            drop(launch);
            drop(life);
            let mut text = Vec::new();
            outcome
                .read_to_end(&mut text)
                .context(|| "wait for the container's monitor")?;
            understand(&text).map(|pid| Started { pid, attached: ours })
        }
    }
}

/// Binds the attach socket. Its path may be longer than a socket address can be, so the bind goes through the
/// folder's descriptor.
fn listen(path: &std::path::Path) -> Result<OwnedFd, Error> {
    let what = || format!("make the attach socket {}", path.display());
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::new(ErrorKind::InvalidArgument, what()));
    };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::wrap(error, what())),
        _ => {}
    }
    let folder = std::fs::File::open(folder).context(what)?;
    let short = PathBuf::from(format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&folder)
    ))
    .join(name);
    let listener = UnixListener::bind(short).context(what)?;
    listener.set_nonblocking(true).context(what)?;
    Ok(listener.into())
}

/// Leaves the caller's session and gives back what the caller had allocated.
fn become_monitor() {
    // A new session, so that the caller's terminal and its Ctrl-C do not reach the container; fails only for a
    // process that leads a group already, which a fresh fork does not.
    rustix::process::setsid().ok();
    rustix::process::chdir("/").ok();
    // The caller's output may be a pipe, as in `id=$(dhow run -d ...)`: its reader waits until nobody has it open.
    if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
        rustix::stdio::dup2_stdin(&null).ok();
        rustix::stdio::dup2_stdout(&null).ok();
        rustix::stdio::dup2_stderr(&null).ok();
    }
    dhow_sys::background::settle("dhow-monitor");
}

fn tell(mut report: UnixStream, result: Result<i32, &Error>) {
    let outcome = match result {
        Ok(pid) => Outcome::Started(pid),
        Err(error) => {
            let mut message = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(inner) = cause {
                message.push_str(": ");
                message.push_str(&inner.to_string());
                cause = inner.source();
            }
            let kind = ErrorKind::ALL
                .iter()
                .position(|kind| *kind == error.kind())
                .unwrap_or(4);
            Outcome::Failed {
                kind,
                message,
                hint: error.hint().map(str::to_owned),
            }
        }
    };
    // If the caller is gone there is nobody to tell.
    if let Ok(text) = serde_json::to_vec(&outcome) {
        drop(report.write_all(&text));
    }
}

fn understand(text: &[u8]) -> Result<i32, Error> {
    match serde_json::from_slice(text) {
        Ok(Outcome::Started(pid)) => Ok(pid),
        Ok(Outcome::Failed { kind, message, hint }) => {
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
            ErrorKind::Internal,
            "the container's monitor ended before the container ran",
        )),
    }
}
