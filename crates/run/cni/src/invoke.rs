//! One run of one plugin.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use dhow_types::ErrorKind;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde_json::Value;

use crate::{Context as _, Error, shown};

/// Bytes that a plugin may write to each of its outputs.
const MAX_OUTPUT: usize = 1 << 20;

/// What a plugin is told by its environment.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    /// `ADD`, `CHECK` or `DEL`.
    pub(crate) command: &'static str,
    pub(crate) container: &'a str,
    /// Empty when the namespace is gone.
    pub(crate) netns: &'a Path,
    pub(crate) interface: &'a str,
    /// Where plugins are, which some run themselves.
    pub(crate) folders: &'a [PathBuf],
    pub(crate) patience: Duration,
}

/// The plugin in the folders.
pub(crate) fn find(name: &str, folders: &[PathBuf]) -> Result<PathBuf, Error> {
    let found = folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.ok_or_else(|| {
        let places: Vec<_> = folders
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        Error::new(
            ErrorKind::NotFound,
            format!(
                "failed to find CNI plugin {:?} in {}",
                shown(name),
                places.join(" and ")
            ),
        )
        .with_hint("install it there (Debian: containernetworking-plugins), or name its folder with CNI_PATH")
    })
}

/// Runs a plugin with this configuration; what it said, null for nothing.
///
/// # Errors
/// What the plugin said of its failure; `Unavailable` and `ResourceExhausted` of one that never ends or never stops to write.
pub(crate) fn run(program: &Path, call: &Call<'_>, config: &Value) -> Result<Value, Error> {
    let what = || format!("run {} {}", program.display(), call.command);
    let input = input(config).context(what)?;
    let folders: Vec<_> = call
        .folders
        .iter()
        .map(|folder| folder.display().to_string())
        .collect();
    let mut child = Command::new(program)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("CNI_COMMAND", call.command)
        .env("CNI_CONTAINERID", call.container)
        .env("CNI_NETNS", call.netns)
        .env("CNI_IFNAME", call.interface)
        .env("CNI_ARGS", "IgnoreUnknown=1")
        .env("CNI_PATH", folders.join(":"))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::from(input))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context(what)?;
    let heard = listen(&mut child, call.patience);
    if heard.is_err() {
        // Also those that it started: a group of its own.
        if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
            // Gone is as good.
            _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
    let status = child.wait().context(what)?;
    let (output, complaint) = heard.map_err(|error| Error::wrap(error, what()))?;
    said(status, &output, &complaint).map_err(|error| Error::wrap(error, what()))
}

/// The configuration as a file without a name: a pipe holds 64 KiB, and nobody may read it.
fn input(config: &Value) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("cni", MemfdFlags::CLOEXEC)?);
    serde_json::to_writer(&mut file, config)?;
    file.flush()?;
    file.rewind()?;
    Ok(file)
}

/// Reads both outputs until the plugin ends. What it left running may keep them open.
fn listen(child: &mut Child, patience: Duration) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let failed = || "listen to it";
    let (Some(mut out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Error::new(ErrorKind::Internal, "it has no outputs"));
    };
    for pipe in [rustix::fd::AsFd::as_fd(&out), rustix::fd::AsFd::as_fd(&err)] {
        rustix::fs::fcntl_setfl(pipe, OFlags::NONBLOCK)
            .map_err(io::Error::from)
            .context(failed)?;
    }
    let pid = Pid::from_raw(child.id().cast_signed());
    let pid = pid.ok_or_else(|| Error::new(ErrorKind::Internal, "it has no number"))?;
    let end = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .map_err(io::Error::from)
        .context(failed)?;
    let deadline = Instant::now() + patience;
    let (mut output, mut complaint) = (Vec::new(), Vec::new());
    let (mut out_open, mut err_open) = (true, true);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let message = format!("it did not end within {} s", patience.as_secs());
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let mut waited = vec![PollFd::new(&end, PollFlags::IN)];
        if out_open {
            waited.push(PollFd::new(&out, PollFlags::IN));
        }
        if err_open {
            waited.push(PollFd::new(&err, PollFlags::IN));
        }
        let timeout = rustix::time::Timespec::try_from(left).unwrap_or_default();
        match poll(&mut waited, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(io::Error::from(errno)).context(failed),
        }
        // Looked at before the outputs are read: what was written before the end is in them.
        let ended = !waited[0].revents().is_empty();
        out_open = out_open && read(&mut out, &mut output)?;
        err_open = err_open && read(&mut err, &mut complaint)?;
        if ended {
            return Ok((output, complaint));
        }
    }
}

/// Reads what there is; whether there may be more later.
fn read(pipe: &mut impl Read, bytes: &mut Vec<u8>) -> Result<bool, Error> {
    let mut part = [0; 8192];
    loop {
        match pipe.read(&mut part) {
            Ok(0) => return Ok(false),
            Ok(length) if bytes.len() + length > MAX_OUTPUT => {
                return Err(Error::new(
                    ErrorKind::ResourceExhausted,
                    "it writes more than 1 MiB",
                ));
            }
            Ok(length) => bytes.extend_from_slice(&part[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context(|| "read what it says"),
        }
    }
}

/// What the outputs mean (`SPEC.md`, section 5).
fn said(status: ExitStatus, output: &[u8], complaint: &[u8]) -> Result<Value, Error> {
    let document: Option<Value> = serde_json::from_slice(output).ok();
    if status.success() {
        let empty = output.iter().all(u8::is_ascii_whitespace);
        return match document {
            Some(document) => Ok(document),
            None if empty => Ok(Value::Null),
            None => Err(Error::new(ErrorKind::InvalidArgument, "what it said is no JSON")),
        };
    }
    let text = |key: &str| {
        let value = document.as_ref().and_then(|document| document.get(key)?.as_str());
        value.map(shown).filter(|text| !text.is_empty())
    };
    let code = document
        .as_ref()
        .and_then(|document| document.get("code")?.as_u64());
    let mut message = match text("msg") {
        Some(message) => message,
        None => match shown(&String::from_utf8_lossy(&complaint[..complaint.len().min(4096)])) {
            empty if empty.is_empty() => format!("it ended with {status}"),
            said => said,
        },
    };
    if let Some(details) = text("details") {
        message = format!("{message}: {details}");
    }
    // 1 incompatible version, 2 unsupported field, 4 and 7 bad environment or configuration, 11 try again later.
    let kind = match code {
        Some(1 | 2) => ErrorKind::Unsupported,
        Some(4 | 7) => ErrorKind::InvalidArgument,
        Some(11) => ErrorKind::Unavailable,
        _ => ErrorKind::FailedPrecondition,
    };
    Err(Error::new(kind, message))
}
