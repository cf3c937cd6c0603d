//! The agent of a filter that asks one (`SCMP_ACT_NOTIFY`): it gets the listener before the program runs.
//!
//! The process that loaded its filter says by one write which descriptor the listener is, and the parent takes it out of
//! that process (pidfd_getfd(2)): of all calls between filter and execve only that write must not ask the agent, which
//! does not know of the filter yet. A parent without the right to reach into the process asks it to send the descriptor.
//!
//! A container with a folder loads such a filter at `create`, as with runc, so that the agent knows of the container from then
//! on; its wait for `start` is under the filter. Where the filter would not let it wait, that is left to `start`.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use dhow_oci::runtime::{ProcessState, Seccomp, State};
use dhow_seccomp::{Arch, Program as Filter};
use dhow_types::ErrorKind;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use crate::parent::Link;
use crate::{Context as _, Error};

/// Name of the descriptor in the message (runtime-spec, `seccompFd`).
const DESCRIPTOR: &str = "seccompFd";

/// Where the listener goes.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    path: PathBuf,
    metadata: Option<String>,
    /// Whether sending a descriptor would itself ask the agent.
    asked_to_send: bool,
    /// Whether a process under the filter can wait for its start.
    waits: bool,
}

/// The calls of that wait ([`staged::Wait`](crate::init::staged::Wait)).
const WAIT: [libc::c_long; 6] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_accept4,
    libc::SYS_rt_sigprocmask,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(not(target_arch = "x86_64"))]
    libc::SYS_ppoll,
];

impl Agent {
    /// The agent of a profile with rules that ask one.
    pub(crate) fn of(profile: &Seccomp) -> Result<Self, Error> {
        let path = profile.listener_path.clone().unwrap_or_default();
        if path.as_os_str().is_empty() {
            let message = "seccomp listenerPath is not set, and a rule has the action SCMP_ACT_NOTIFY";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let asked_to_send = profile
            .syscalls
            .iter()
            .any(|rule| rule.action == "SCMP_ACT_NOTIFY" && rule.names.iter().any(|name| name == "sendmsg"));
        Ok(Self {
            path,
            metadata: profile.listener_metadata.clone(),
            asked_to_send,
            waits: false,
        })
    }

    /// With the filter that the profile was compiled to.
    pub(crate) fn behind(self, filter: &Filter) -> Self {
        let wait = WAIT.map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        let waits = filter.lets(Arch::host(), &wait);
        Self { waits, ..self }
    }

    /// Whether it gets the listener before the container is started.
    pub(crate) const fn comes_first(&self) -> bool {
        self.waits
    }

    /// Takes the listener, which the child says is its descriptor `number`, gives it to the agent, and lets the child
    /// go on.
    pub(crate) fn introduce(
        &self,
        link: &Link,
        child: BorrowedFd<'_>,
        number: u32,
        state: ProcessState,
    ) -> Result<(), Error> {
        let number = i32::try_from(number).unwrap_or(-1);
        let taken = match pidfd_getfd(child, number, PidfdGetfdFlags::empty()) {
            // Without privilege a process that is not dumpable is out of reach.
            Err(Errno::PERM) if !self.asked_to_send => link.ask_for_descriptor(),
            taken => taken.map_err(io::Error::from),
        };
        let listener = taken.context(|| "take the seccomp listener of the container's process")?;
        self.send(&listener, state)?;
        link.tell();
        Ok(())
    }

    fn send(&self, listener: &OwnedFd, state: ProcessState) -> Result<(), Error> {
        let agent = self.connect().context(|| {
            format!(
                "failed to connect with seccomp agent specified in the seccomp profile: {}",
                self.path.display()
            )
        })?;
        let message = ProcessState {
            fds: vec![DESCRIPTOR.to_owned()],
            metadata: self.metadata.clone(),
            ..state
        };
        let bytes = serde_json::to_vec(&message).map_err(|error| {
            Error::because(
                ErrorKind::Internal,
                "write the state for the seccomp agent",
                error,
            )
        })?;
        let mut sent = dhow_sys::fd::send(&agent, &bytes, &[listener.as_fd()]);
        let mut done = 0;
        // The descriptor travels with the first part of a long message.
        while let Ok(length) = sent {
            done += length;
            match bytes.get(done..).filter(|rest| !rest.is_empty()) {
                Some(rest) => sent = dhow_sys::fd::send(&agent, rest, &[]),
                None => return Ok(()),
            }
        }
        sent.map(drop)
            .context(|| format!("send the seccomp listener to {}", self.path.display()))
    }

    fn connect(&self) -> io::Result<OwnedFd> {
        let bytes = self.path.as_os_str().as_bytes();
        let address = match bytes.strip_prefix(b"@") {
            Some(name) => SocketAddrUnix::new_abstract_name(name)?,
            None => SocketAddrUnix::new(bytes)?,
        };
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        connect(&socket, &address)?;
        Ok(socket)
    }
}

/// What the agent is told about a process, but for what the profile says: `state` is the container's, whose first
/// process this may be.
pub(crate) fn process_state(pid: i32, state: Option<&State>) -> ProcessState {
    let mut state = state.cloned().unwrap_or_default();
    if state.oci_version.is_empty() {
        SPEC_VERSION.clone_into(&mut state.oci_version);
    }
    if state.pid == 0 {
        state.pid = pid;
    }
    ProcessState {
        oci_version: SPEC_VERSION.to_owned(),
        pid,
        state,
        ..ProcessState::default()
    }
}

/// The spec that this runtime follows.
const SPEC_VERSION: &str = "1.3.0";
