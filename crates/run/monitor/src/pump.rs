//! The loop that moves bytes while one program runs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions};

use crate::client::{Client, MAX_LAG, Wanted, Wish};
use crate::frame;
use crate::health::{Checks, HealthStatus, OnUnhealthy, Verdict};
use crate::life::{Change, Launched, Life, Probe};
use crate::log::{LogWriter, Stream};
use crate::stdin::Stdin;

/// Bytes moved at once.
const PIECE: usize = 32 << 10;
/// How long whoever reaps strangers may take.
const REAPED_WITHIN: Duration = Duration::from_secs(3);
/// `SIGKILL`, on every architecture.
const KILL: i32 = 9;
/// Exit code of a check that was killed, by its own container's end or by somebody.
const KILLED: i32 = 128 + KILL;
/// So long a container may take to end after the first of its programs is killed.
const ENDS_WITHIN: Duration = Duration::from_secs(2);
/// Exit code of a program whose time was up (podman-run(1), `--timeout`).
const EXPIRED: i32 = -1;
/// Clients at once; more are refused by closing.
const MAX_CLIENTS: usize = 64;

/// What outlives one run of the program.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) log: LogWriter,
    pub(crate) listener: OwnedFd,
    pub(crate) clients: Vec<Client>,
    pub(crate) no_restart: bool,
    /// Whether this run is to be followed by another, whatever the policy.
    pub(crate) restart_now: bool,
    /// How long one run may take.
    pub(crate) timeout: Option<Duration>,
    buffer: Vec<u8>,
    wishes: Vec<Wish>,
}

struct RunningProbe {
    probe: Probe,
    output: Vec<u8>,
    begun: SystemTime,
    deadline: Instant,
    /// Bytes of output that are kept.
    room: usize,
    /// Whether it is over, killed by somebody.
    killed: bool,
}

/// One run of the program.
struct Run {
    pidfd: OwnedFd,
    outputs: Vec<(Stream, OwnedFd)>,
    terminal: Option<OwnedFd>,
    stdin: Stdin,
    checks: Option<Checks>,
    probe: Option<RunningProbe>,
    /// When a stop that the health asked for becomes a kill.
    kill_at: Option<Instant>,
    /// When its time is up.
    deadline: Option<Instant>,
    /// Whether its first check failed too often.
    start_again: bool,
}

impl Session {
    pub(crate) fn new(log: LogWriter, listener: OwnedFd, foreground: Option<OwnedFd>) -> Self {
        let clients = foreground
            .and_then(|socket| Client::new(socket, true).ok())
            .into_iter()
            .collect();
        Self {
            log,
            listener,
            clients,
            no_restart: false,
            restart_now: false,
            timeout: None,
            buffer: Vec::new(),
            wishes: Vec::new(),
        }
    }

    /// Serves the program until it has ended and its output is read; its exit code.
    pub(crate) fn run(&mut self, life: &mut dyn Life, launched: Launched, checks: Option<Checks>) -> i32 {
        self.buffer.resize(PIECE, 0);
        let mut run = Run::new(launched, checks);
        run.deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        let mut expired = false;
        let code = loop {
            let ready = self.wait(life, Some(&run), run.timeout(life));
            if ready {
                life.serve();
            }
            self.serve_clients(Some(&mut run));
            run.stdin.flush();
            self.move_output(&mut run);
            self.check_health(life, &mut run);
            if let Some(code) = ended(&run.pidfd) {
                break if expired { EXPIRED } else { code };
            }
            if run.deadline.is_some_and(|at| Instant::now() >= at) {
                run.deadline = None;
                expired = true;
                run.signal(KILL);
            }
        };
        run.end_check(life);
        self.drain(&mut run);
        self.log.finish();
        code
    }

    /// Waits between two runs; true when the person ended the container meanwhile.
    pub(crate) fn pause(&mut self, life: &mut dyn Life, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        while !self.no_restart {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.wait(life, None, Some(left));
            self.serve_clients(None);
        }
        true
    }

    /// Tells everyone that it is over and waits, for a moment, until they have it.
    pub(crate) fn finish(&mut self, code: i32) {
        let body = code.cast_unsigned().to_be_bytes();
        for client in &mut self.clients {
            client.send(frame::EXIT, &body);
        }
        let patience = Instant::now() + Duration::from_secs(10);
        while self
            .clients
            .iter()
            .any(|client| !client.is_gone() && client.lag() > 0)
            && Instant::now() < patience
        {
            let mut fds: Vec<_> = self
                .clients
                .iter()
                .filter(|client| !client.is_gone() && client.lag() > 0)
                .map(|client| PollFd::from_borrowed_fd(client.fd(), PollFlags::OUT))
                .collect();
            rustix::event::poll(
                &mut fds,
                Some(&Timespec {
                    tv_sec: 1,
                    tv_nsec: 0,
                }),
            )
            .ok();
            self.clients.iter_mut().for_each(Client::flush);
        }
    }

    fn held_back(&self) -> bool {
        self.clients
            .iter()
            .any(|client| client.foreground && !client.is_gone() && client.lag() > MAX_LAG)
    }

    /// Waits for anything to do; true when one of the life's own descriptors is ready, or its time has come.
    fn wait(&self, life: &dyn Life, run: Option<&Run>, timeout: Option<Duration>) -> bool {
        let mut fds = vec![PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN)];
        for client in &self.clients {
            let mut flags = PollFlags::empty();
            if run.is_none_or(|run| run.stdin.accepts()) {
                flags |= PollFlags::IN;
            }
            if client.lag() > 0 {
                flags |= PollFlags::OUT;
            }
            fds.push(PollFd::from_borrowed_fd(client.fd(), flags));
        }
        if let Some(run) = run {
            run.poll_fds(!self.held_back(), &mut fds);
        }
        let own = fds.len();
        let served = if run.is_some() {
            life.descriptors()
        } else {
            Vec::new()
        };
        fds.extend(
            served
                .iter()
                .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)),
        );
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let ready = rustix::event::poll(&mut fds, timeout.as_ref());
        let due = life.timeout().is_some_and(|timeout| timeout.is_zero());
        due || (ready.is_ok() && fds[own..].iter().any(|fd| !fd.revents().is_empty()))
    }

    fn serve_clients(&mut self, mut run: Option<&mut Run>) {
        self.accept();
        let accepts = run.as_ref().is_none_or(|run| run.stdin.accepts());
        if self.buffer.is_empty() {
            self.buffer.resize(PIECE, 0);
        }
        for client in &mut self.clients {
            client.flush();
            if accepts && !client.is_gone() {
                client.receive(&mut self.buffer, &mut self.wishes);
            }
        }
        self.clients.retain(|client| !client.is_gone());
        for wish in self.wishes.drain(..) {
            match (wish, &mut run) {
                (Wish::NoRestart, _) => self.no_restart = true,
                (Wish::Input(bytes), Some(run)) => run.stdin.push(&bytes),
                (Wish::InputEnd, Some(run)) => run.stdin.end(),
                (Wish::Resize { rows, columns }, Some(run)) => run.resize(rows, columns),
                (_, None) => {}
            }
        }
    }

    fn accept(&mut self) {
        let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
        while let Ok(socket) = rustix::net::accept_with(&self.listener, flags) {
            if self.clients.len() < MAX_CLIENTS
                && let Ok(client) = Client::new(socket, false)
            {
                self.clients.push(client);
            }
        }
    }

    /// Reads each output once; what ended is dropped.
    fn move_output(&mut self, run: &mut Run) -> bool {
        if self.held_back() {
            return false;
        }
        let mut moved = false;
        run.outputs
            .retain(|(stream, fd)| match rustix::io::read(fd, &mut self.buffer) {
                Ok(0) => false,
                Ok(count) => {
                    moved = true;
                    let bytes = &self.buffer[..count];
                    self.log.write(*stream, bytes);
                    let kind = if *stream == Stream::Stderr {
                        frame::STDERR
                    } else {
                        frame::STDOUT
                    };
                    self.clients
                        .iter_mut()
                        .for_each(|client| client.send(kind, bytes));
                    true
                }
                Err(Errno::AGAIN | Errno::INTR) => true,
                // A terminal whose other side is closed says EIO.
                Err(_) => false,
            });
        moved
    }

    /// Checks the health when it is due or a client asks, answers who asked, and does what an unhealthy container is for.
    fn check_health(&mut self, life: &mut dyn Life, run: &mut Run) {
        let asked = self.clients.iter().any(|client| client.check == Wanted::Check);
        if asked && run.probe.is_none() {
            match &mut run.checks {
                Some(checks) => checks.due = Instant::now(),
                // Nothing to check: who asked learns it by the end of the connection.
                None => self.clients.retain(|client| client.check != Wanted::Check),
            }
        }
        let idle = run.probe.is_none();
        let code = run.check_health(life, &mut self.buffer);
        for client in &mut self.clients {
            if client.check == Wanted::Check && idle {
                client.check = Wanted::Result;
            }
            if let (Wanted::Result, Some(code)) = (client.check, code) {
                client.check = Wanted::Nothing;
                client.send(frame::CHECKED, &code.cast_unsigned().to_be_bytes());
            }
        }
        // Who asked while that check ran gets one of their own, at once.
        let waiting = self.clients.iter().any(|client| client.check == Wanted::Check);
        if let (true, Some(checks)) = (code.is_some() && waiting, &mut run.checks) {
            checks.due = Instant::now();
        }
        if code.is_some_and(|code| code != 0) {
            self.answer_failure(life, run);
        }
        if std::mem::take(&mut run.start_again) {
            self.restart_now = true;
            run.signal(KILL);
        }
        if run.kill_at.is_some_and(|at| Instant::now() >= at) {
            run.kill_at = None;
            run.signal(KILL);
        }
    }

    /// What `--health-on-failure` says of a container that is unhealthy.
    fn answer_failure(&mut self, life: &mut dyn Life, run: &mut Run) {
        let Some(checks) = &run.checks else { return };
        if checks.health.status != HealthStatus::Unhealthy || run.kill_at.is_some() {
            return;
        }
        let settings = checks.settings().clone();
        match settings.on_unhealthy {
            OnUnhealthy::None => {}
            OnUnhealthy::Kill => run.signal(KILL),
            OnUnhealthy::Restart => {
                self.restart_now = true;
                run.signal(KILL);
            }
            OnUnhealthy::Stop => {
                self.no_restart = true;
                life.record(&Change::Stopping);
                run.signal(settings.stop_signal);
                run.kill_at = Some(Instant::now() + settings.grace);
            }
        }
    }

    /// The program has ended: reads what is still in the pipes, at the pace of the client in the foreground.
    fn drain(&mut self, run: &mut Run) {
        loop {
            if self.held_back() {
                let mut fds: Vec<_> = self
                    .clients
                    .iter()
                    .map(|client| PollFd::from_borrowed_fd(client.fd(), PollFlags::OUT))
                    .collect();
                rustix::event::poll(&mut fds, None).ok();
                self.clients.iter_mut().for_each(Client::flush);
                self.clients.retain(|client| !client.is_gone());
            } else if !self.move_output(run) {
                return;
            }
        }
    }
}

impl Run {
    fn new(launched: Launched, checks: Option<Checks>) -> Self {
        let mut outputs = Vec::with_capacity(2);
        let keyboard = launched.terminal.as_ref().and_then(|fd| fd.try_clone().ok());
        let has_terminal = launched.terminal.is_some();
        if let Some(fd) = launched.terminal.as_ref().and_then(|fd| fd.try_clone().ok()) {
            outputs.push((Stream::Stdout, fd));
        }
        outputs.extend(launched.stdout.map(|fd| (Stream::Stdout, fd)));
        outputs.extend(launched.stderr.map(|fd| (Stream::Stderr, fd)));
        let stdin = keyboard.or(launched.stdin);
        for fd in outputs.iter().map(|(_, fd)| fd).chain(stdin.iter()) {
            // Only speed depends on it: a blocking read is made after poll said that there is something.
            rustix::io::ioctl_fionbio(fd, true).ok();
        }
        Self {
            pidfd: launched.pidfd,
            outputs,
            terminal: launched.terminal,
            stdin: Stdin::new(stdin, has_terminal),
            checks,
            probe: None,
            kill_at: None,
            deadline: None,
            start_again: false,
        }
    }

    fn poll_fds<'a>(&'a self, read: bool, fds: &mut Vec<PollFd<'a>>) {
        let mut push = |fd: BorrowedFd<'a>, flags| fds.push(PollFd::from_borrowed_fd(fd, flags));
        push(self.pidfd.as_fd(), PollFlags::IN);
        if read {
            self.outputs
                .iter()
                .for_each(|(_, fd)| push(fd.as_fd(), PollFlags::IN));
        }
        if let Some(fd) = self.stdin.wants_write() {
            push(fd, PollFlags::OUT);
        }
        // One that is over would be ready all the time.
        if let Some(running) = self.probe.as_ref().filter(|running| !running.killed) {
            push(running.probe.pidfd.as_fd(), PollFlags::IN);
        }
    }

    fn timeout(&self, life: &dyn Life) -> Option<Duration> {
        let now = Instant::now();
        let health = match (&self.probe, &self.checks) {
            (Some(running), _) => Some(running.deadline.saturating_duration_since(now)),
            (None, Some(checks)) => Some(checks.due.saturating_duration_since(now)),
            (None, None) => None,
        };
        let kill = self.kill_at.map(|at| at.saturating_duration_since(now));
        let deadline = self.deadline.map(|at| at.saturating_duration_since(now));
        [health, kill, deadline, life.timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    fn resize(&self, rows: u16, columns: u16) {
        if let Some(terminal) = &self.terminal {
            let size = rustix::termios::Winsize {
                ws_row: rows,
                ws_col: columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            // The terminal may be gone already; then its size does not matter.
            rustix::termios::tcsetwinsize(terminal, size).ok();
        }
    }

    /// Begins a check that is due, or looks at the one that runs; its exit code once it is over and written down.
    fn check_health(&mut self, life: &mut dyn Life, buffer: &mut [u8]) -> Option<i32> {
        let checks = self.checks.as_mut()?;
        let now = Instant::now();
        let (begun, code, output) = match self.probe.take() {
            None if now >= checks.due => {
                let begun = SystemTime::now();
                match life.probe(checks.is_startup()) {
                    Ok(probe) => {
                        rustix::io::ioctl_fionbio(&probe.output, true).ok();
                        let deadline = now + checks.timeout();
                        self.probe = Some(RunningProbe {
                            probe,
                            output: Vec::new(),
                            begun,
                            deadline,
                            room: checks.settings().log.room(),
                            killed: false,
                        });
                        return None;
                    }
                    Err(error) => (begun, -1, error.to_string().into_bytes()),
                }
            }
            None => return None,
            Some(mut running) => match running.step(now, buffer) {
                None => {
                    self.probe = Some(running);
                    return None;
                }
                Some(code) => (running.begun, code, running.output),
            },
        };
        self.start_again |= checks.result(begun, code, &output, now) == Verdict::StartAgain;
        life.record(&Change::Health(&checks.health));
        Some(code)
    }

    /// A check that died with the container says nothing of its health.
    fn end_check(&mut self, life: &mut dyn Life) {
        if let (Some(_), Some(checks)) = (self.probe.take(), &mut self.checks) {
            checks.health.status = HealthStatus::Stopped;
            life.record(&Change::Health(&checks.health));
        }
    }

    /// Sends the program a signal; one that has ended needs none.
    fn signal(&self, number: i32) {
        dhow_sys::process::send_signal(self.pidfd.as_fd(), number).ok();
    }
}

impl RunningProbe {
    /// Reads output; the exit code once the check is over. One that takes too long is killed. Of one that was killed by another
    /// it is given later: if the container ends meanwhile, it was that.
    fn step(&mut self, now: Instant, buffer: &mut [u8]) -> Option<i32> {
        if self.killed {
            return (now >= self.deadline).then_some(KILLED);
        }
        let code = ended(&self.probe.pidfd);
        while let Ok(count @ 1..) = rustix::io::read(&self.probe.output, &mut *buffer) {
            let room = self.room.saturating_sub(self.output.len());
            self.output.extend_from_slice(&buffer[..count.min(room)]);
        }
        if code.is_none() && now >= self.deadline {
            rustix::process::pidfd_send_signal(&self.probe.pidfd, rustix::process::Signal::KILL).ok();
            rustix::process::waitid(WaitId::PidFd(self.probe.pidfd.as_fd()), WaitIdOptions::EXITED).ok();
            self.output
                .extend_from_slice(b"health check took too long and was killed");
            return Some(-1);
        }
        if code == Some(KILLED) {
            self.killed = true;
            self.deadline = now + ENDS_WITHIN;
            return None;
        }
        code
    }
}

/// Exit code of a child that has ended, which is reaped by this.
fn ended(pidfd: &OwnedFd) -> Option<i32> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options) {
        Ok(Some(status)) => {
            let signal = status.terminating_signal().map(|signal| 128 + signal);
            Some(status.exit_status().or(signal).unwrap_or(255))
        }
        Ok(None) | Err(Errno::INTR) => None,
        // It was another's child, and is whoever's reaps now.
        Err(Errno::CHILD) => dhow_sys::process::end_of_another(pidfd.as_fd(), REAPED_WITHIN),
        Err(_) => Some(255),
    }
}
