//! What a verb hands to a process and takes from it: standard streams, descriptors, sockets, files with its id.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dhow_runtime::Stdio;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::Failure;
use crate::args::Given;

/// Descriptors that the process gets besides the three.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Passed {
    /// Sockets that systemd made for this program (sd_listen_fds(3)).
    pub(crate) listening: u32,
    /// What `--preserve-fds` says, after those.
    pub(crate) preserved: u32,
}

impl Passed {
    pub(crate) fn count(self) -> u32 {
        self.listening.saturating_add(self.preserved)
    }

    /// What is passed, if it is there.
    pub(crate) fn of(given: &Given, listening: u32, opened: u32) -> Result<Self, Failure> {
        let preserved = given.number::<u32>("preserve-fds")?.unwrap_or(0);
        // As crun: of those that are not there nothing is said.
        let preserved = preserved.min(opened.saturating_sub(listening));
        Ok(Self { listening, preserved })
    }
}

/// Sockets that were passed to this very process by systemd. crun takes them from whom else: its caller got them (podman
/// says so by `LISTEN_PID=1`, or by no such variable).
pub(crate) fn listening(name: &str) -> u32 {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (_, Some(count)) if name == "crun" => count.min(MOST_PASSED),
        (Some(pid), Some(count)) if pid == std::process::id() => count.min(MOST_PASSED),
        _ => 0,
    }
}

/// More descriptors than anybody passes.
const MOST_PASSED: u32 = 4096;

/// Closes what was inherited and is not for the container, before anything of this program is open: a container's first
/// process waits long, and must not keep a caller's pipe or lock. Returns how many descriptors from 3 on are there.
pub(crate) fn close_inherited(name: &str, args: &[String]) -> u32 {
    let wanted = number_of(args, "preserve-fds");
    // A descriptor that a verb only writes to is left open with those before it.
    let written = number_of(args, "status-fd").saturating_sub(2).min(MOST_PASSED);
    let wanted = wanted
        .min(MOST_PASSED)
        .saturating_add(listening(name))
        .max(written);
    // A document may come by one of them, as a shell's `<(...)`.
    let named = |arg: &String| arg.contains("/dev/fd/") || arg.contains("/proc/self/fd/");
    if args.iter().any(named) {
        match dhow_sys::fd::cloexec_from(3 + wanted) {
            // A kernel that cannot mark them lets the container's process do it, before it executes anything.
            Ok(()) | Err(_) => {}
        }
    } else {
        dhow_sys::fd::close_inherited_from(3 + wanted);
    }
    // What this program opens in a gap below the last one is close-on-exec, as all of it is.
    (0..wanted)
        .rev()
        .find(|at| Path::new(&format!("/proc/self/fd/{}", at + 3)).exists())
        .map_or(0, |last| last + 1)
}

/// The greatest number that an option of this name is given, before the arguments are parsed.
fn number_of(args: &[String], name: &str) -> u32 {
    let mut most = 0;
    for (at, arg) in args.iter().enumerate() {
        let Some(rest) = arg.trim_start_matches('-').strip_prefix(name) else {
            continue;
        };
        let text = rest.strip_prefix('=').or(args.get(at + 1).map(String::as_str));
        most = most.max(text.and_then(|text| text.parse().ok()).unwrap_or(0));
    }
    most
}

/// This program's own three streams for the container.
pub(crate) fn inherited() -> Result<Stdio, Failure> {
    let copy = |fd: BorrowedFd<'_>| {
        fd.try_clone_to_owned()
            .map_err(|error| Failure::from(error).during("duplicate a standard stream"))
    };
    Ok(Stdio::Fds {
        stdin: copy(io::stdin().as_fd())?,
        stdout: copy(io::stdout().as_fd())?,
        stderr: copy(io::stderr().as_fd())?,
    })
}

/// A path as it is from any working directory.
pub(crate) fn absolute(path: &str) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::from(error).during("find the working directory"))
}

/// Writes a process id so that who waits for the file never reads half of it.
pub(crate) fn write_pid(path: &Path, pid: i32) -> Result<(), Failure> {
    write_whole(path, pid.to_string().as_bytes(), 0o644)
}

/// Writes a file so that it is there whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let write = || -> io::Result<()> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
        let temporary = path.with_file_name(name);
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&temporary)?;
        io::Write::write_all(&mut { file }, bytes)?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| Failure::from(error).during(&format!("open {}", path.display())))
}

/// A connection to somebody who waits for a descriptor.
#[derive(Debug)]
pub(crate) struct Receiver(OwnedFd);

impl Receiver {
    pub(crate) fn connect(path: &Path) -> Result<Self, Failure> {
        let connected = || -> io::Result<OwnedFd> {
            let socket = socket_with(
                AddressFamily::UNIX,
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                None,
            )?;
            match SocketAddrUnix::new(path) {
                Ok(address) => connect(&socket, &address)?,
                // Longer than the kernel takes: by way of a descriptor of its folder.
                Err(rustix::io::Errno::NAMETOOLONG) => {
                    let (parent, name) = (path.parent(), path.file_name());
                    let (Some(parent), Some(name)) = (parent, name) else {
                        return Err(io::ErrorKind::InvalidInput.into());
                    };
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    let folder = rustix::fs::open(parent, flags, Mode::empty())?;
                    let short = Path::new("/proc/self/fd")
                        .join(folder.as_raw_fd().to_string())
                        .join(name);
                    connect(&socket, &SocketAddrUnix::new(short)?)?;
                }
                Err(errno) => return Err(errno.into()),
            }
            Ok(socket)
        };
        connected()
            .map(Self)
            .map_err(|error| Failure::from(error).during(&format!("dial unix {}", path.display())))
    }

    /// Sends a descriptor in runc's form: its name as the bytes of the message.
    pub(crate) fn send(self, name: &str, fd: &OwnedFd) -> Result<(), Failure> {
        match dhow_sys::fd::send(&self.0, name.as_bytes(), &[fd.as_fd()]) {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::from(error).during("send a descriptor over the socket")),
        }
    }
}

/// What most documents fit in.
const DOCUMENT: usize = 32 << 10;

/// Reads a document whose size is bounded.
pub(crate) fn read_document(from: impl io::Read, what: &str) -> Result<Vec<u8>, Failure> {
    // A spec with docker's filter is 25 KiB: one call reads it, where an empty buffer would grow through a dozen.
    let mut bytes = Vec::with_capacity(DOCUMENT);
    let mut bounded = io::Read::take(from, dhow_oci::MAX_DOCUMENT + 1);
    io::Read::read_to_end(&mut bounded, &mut bytes)
        .map_err(|error| Failure::from(error).during(&format!("read {what}")))?;
    if bytes.len() as u64 > dhow_oci::MAX_DOCUMENT {
        let message = format!("{what} is larger than {} bytes", dhow_oci::MAX_DOCUMENT);
        return Err(Failure::new(message));
    }
    Ok(bytes)
}

/// Opens a file to read a document from.
pub(crate) fn open(path: &Path) -> Result<File, Failure> {
    // A pipe without a writer must not hold this up; one whose writer is late is waited for.
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .and_then(|file| {
            let flags = rustix::fs::fcntl_getfl(&file)?;
            rustix::fs::fcntl_setfl(&file, flags.difference(rustix::fs::OFlags::NONBLOCK))?;
            Ok(file)
        });
    opened.map_err(|error| Failure::from(error).during(&format!("open {}", path.display())))
}
