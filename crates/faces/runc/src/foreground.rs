//! A process in the foreground: its terminal, its signals, its end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dhow_oci::runtime::{ConsoleSize, Process};
use dhow_runtime::ExitStatus;
use dhow_sys::signal::Signals;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::termios::{
    OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use crate::Failure;
use crate::notify::Readiness;

/// How much is moved at once.
const CHUNK: usize = 16 << 10;

/// Signals that are passed on: all that can be, but for those about this program's own children and faults.
fn passed_on() -> Vec<i32> {
    let own = [
        libc::SIGKILL,
        libc::SIGSTOP,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
    ];
    (1..=64)
        .filter(|signal| !own.contains(signal) && !(32..34).contains(signal))
        .collect()
}

/// Stands between the caller and a process that it waits for. Made before the process, so that no signal is lost.
#[derive(Debug)]
pub(crate) struct Foreground {
    signals: Signals,
    host: Option<HostTerminal>,
}

impl Foreground {
    /// With a terminal for the process, the caller's own must be there.
    pub(crate) fn new(terminal: bool) -> Result<Self, Failure> {
        let signals =
            Signals::watch(&passed_on()).map_err(|error| Failure::from(error).during("watch signals"))?;
        let host = if terminal {
            Some(HostTerminal::find()?)
        } else {
            None
        };
        Ok(Self { signals, host })
    }

    /// Gives the process the size of the caller's terminal from its first moment, unless it has one.
    pub(crate) fn size(&self, process: &mut Process) {
        let size = self.host.as_ref().and_then(|host| tcgetwinsize(&host.fd).ok());
        if let (None, Some(size)) = (&process.console_size, size) {
            process.console_size = Some(ConsoleSize {
                height: size.ws_row,
                width: size.ws_col,
            });
        }
    }

    /// Waits for the end of a child, moving what is said and typed between its terminal and the caller's, and its word that
    /// it is ready to the supervisor.
    pub(crate) fn wait(
        mut self,
        pidfd: &OwnedFd,
        terminal: Option<OwnedFd>,
        mut readiness: Option<Readiness>,
    ) -> Result<u8, Failure> {
        let mut pump = match (terminal, &mut self.host) {
            (Some(master), Some(host)) => {
                host.make_raw()?;
                host.resize(&master);
                Some(Pump::new(master)?)
            }
            _ => None,
        };
        loop {
            let mut fds = vec![
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::new(pidfd, PollFlags::IN),
            ];
            fds.extend(
                readiness
                    .iter()
                    .map(|readiness| PollFd::new(readiness, PollFlags::IN)),
            );
            let stdin = io::stdin();
            let stdout = io::stdout();
            if let Some(pump) = &pump {
                pump.watch(&mut fds, stdin.as_fd(), stdout.as_fd());
            }
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                Err(errno) => {
                    return Err(Failure::from(io::Error::from(errno)).during("wait for the process"));
                }
                Ok(_) => {}
            }
            let ended = !fds[1].revents().is_empty();
            drop(fds);
            // A supervisor that does not listen any more is no reason to leave the process alone.
            if readiness.as_ref().is_some_and(|one| one.turn().unwrap_or(true)) {
                readiness = None;
            }
            self.pass_signals(pidfd, pump.as_ref());
            if let Some(pump) = &mut pump {
                pump.turn(stdin.as_fd(), stdout.as_fd());
            }
            if ended {
                if let Some(pump) = &mut pump {
                    pump.drain(stdout.as_fd());
                }
                drop(self.host.take());
                let status = dhow_runtime::wait(pidfd.as_fd())?;
                return Ok(match status {
                    ExitStatus::Exited(code) => code,
                    ExitStatus::Signaled(signal) => signal.saturating_add(128),
                });
            }
        }
    }

    fn pass_signals(&self, pidfd: &OwnedFd, pump: Option<&Pump>) {
        for signal in self.signals.take() {
            match signal {
                libc::SIGCHLD => reap_others(pidfd),
                libc::SIGWINCH => {
                    if let (Some(host), Some(pump)) = (&self.host, pump) {
                        host.resize(&pump.master);
                    }
                }
                // A process that is gone is waited for next.
                _ => drop(dhow_runtime::kill(pidfd.as_fd(), signal)),
            }
        }
    }
}

/// As a subreaper this program gets the orphans of what it started.
fn reap_others(pidfd: &OwnedFd) {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    loop {
        if !matches!(waitid(WaitId::PidFd(pidfd.as_fd()), look), Ok(None)) {
            return;
        }
        if !matches!(
            waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG),
            Ok(Some(_))
        ) {
            return;
        }
    }
}

/// The caller's terminal, given back as it was.
#[derive(Debug)]
struct HostTerminal {
    fd: OwnedFd,
    before: Option<Termios>,
}

impl HostTerminal {
    fn find() -> Result<Self, Failure> {
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        for fd in [stderr.as_fd(), stdout.as_fd(), stdin.as_fd()] {
            if isatty(fd)
                && let Ok(fd) = fd.try_clone_to_owned()
            {
                return Ok(Self { fd, before: None });
            }
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(c"/dev/tty", flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, before: None }),
            Err(errno) => Err(Failure::from(io::Error::from(errno)).during("open /dev/tty")),
        }
    }

    fn make_raw(&mut self) -> Result<(), Failure> {
        let raw = || -> rustix::io::Result<Termios> {
            let before = tcgetattr(&self.fd)?;
            let mut raw = before.clone();
            raw.make_raw();
            // The process's terminal leaves line ends as they are; this one makes them its own.
            raw.output_modes |= OutputModes::OPOST;
            tcsetattr(&self.fd, OptionalActions::Now, &raw)?;
            Ok(before)
        };
        let before = raw().map_err(|errno| {
            Failure::from(io::Error::from(errno)).during("failed to set the terminal from the stdin")
        })?;
        self.before = Some(before);
        Ok(())
    }

    fn resize(&self, master: &OwnedFd) {
        if let Ok(size) = tcgetwinsize(&self.fd) {
            match tcsetwinsize(master, size) {
                // The process may have closed its end.
                Ok(()) | Err(_) => {}
            }
        }
    }
}

impl Drop for HostTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            match tcsetattr(&self.fd, OptionalActions::Now, before) {
                // A terminal that is gone needs no mode.
                Ok(()) | Err(_) => {}
            }
        }
    }
}

/// What is on its way between the two terminals.
#[derive(Debug)]
struct Pump {
    master: OwnedFd,
    typed: Vec<u8>,
    said: Vec<u8>,
    /// Whether more may come from the caller.
    typing: bool,
    /// Whether more may come from the process.
    saying: bool,
}

impl Pump {
    fn new(master: OwnedFd) -> Result<Self, Failure> {
        let unblock = || -> rustix::io::Result<()> {
            let flags = fcntl_getfl(&master)?;
            fcntl_setfl(&master, flags | OFlags::NONBLOCK)
        };
        unblock().map_err(|errno| Failure::from(io::Error::from(errno)).during("prepare the terminal"))?;
        Ok(Self {
            master,
            typed: Vec::new(),
            said: Vec::new(),
            typing: true,
            saying: true,
        })
    }

    fn watch<'a>(&'a self, fds: &mut Vec<PollFd<'a>>, stdin: BorrowedFd<'a>, stdout: BorrowedFd<'a>) {
        let mut master = PollFlags::empty();
        if self.saying && self.said.is_empty() {
            master |= PollFlags::IN;
        }
        if !self.typed.is_empty() {
            master |= PollFlags::OUT;
        }
        if self.saying && !master.is_empty() {
            fds.push(PollFd::from_borrowed_fd(self.master.as_fd(), master));
        }
        if self.typing && self.typed.is_empty() {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        }
        if !self.said.is_empty() {
            fds.push(PollFd::from_borrowed_fd(stdout, PollFlags::OUT));
        }
    }

    /// Moves what can be moved without waiting.
    fn turn(&mut self, stdin: BorrowedFd<'_>, stdout: BorrowedFd<'_>) {
        if self.typing && self.typed.is_empty() && ready(stdin, PollFlags::IN) {
            self.typing = fill(stdin, &mut self.typed);
        }
        if !self.typed.is_empty() {
            match rustix::io::write(&self.master, &self.typed) {
                Ok(count) => drop(self.typed.drain(..count)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => {
                    self.typed.clear();
                    self.typing = false;
                }
            }
        }
        if self.saying && self.said.is_empty() {
            self.saying = fill(self.master.as_fd(), &mut self.said);
        }
        if !self.said.is_empty() && ready(stdout, PollFlags::OUT) {
            self.say(stdout);
        }
    }

    fn say(&mut self, stdout: BorrowedFd<'_>) {
        match rustix::io::write(stdout, &self.said) {
            Ok(count) => drop(self.said.drain(..count)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Nobody reads any more; the process goes on.
            Err(_) => self.said.clear(),
        }
    }

    /// What the process said last.
    fn drain(&mut self, stdout: BorrowedFd<'_>) {
        loop {
            while !self.said.is_empty() {
                self.say(stdout);
            }
            if !self.saying || !fill(self.master.as_fd(), &mut self.said) || self.said.is_empty() {
                return;
            }
        }
    }
}

fn ready(fd: BorrowedFd<'_>, what: PollFlags) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, what)];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(poll(&mut fds, Some(&now)), Ok(count) if count > 0)
}

/// Reads what is there; false at the end, or when nobody can say anything any more (EIO of a terminal without a process).
fn fill(fd: BorrowedFd<'_>, into: &mut Vec<u8>) -> bool {
    into.resize(CHUNK, 0);
    let read = rustix::io::read(fd, into.as_mut_slice());
    into.truncate(read.unwrap_or(0));
    match read {
        Ok(count) => count > 0,
        Err(errno) => matches!(errno, Errno::AGAIN | Errno::INTR),
    }
}
