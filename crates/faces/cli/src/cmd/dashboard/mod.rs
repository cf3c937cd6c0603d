//! `top` without a container: a screen of all of them, with a log and keys.
//!
//! One thread waits for keys, for the log and for the next second. What is done to a container is done by this program in
//! another process, as if the person had typed it: a stop that takes its time stops nothing here.

mod board;

use std::collections::HashMap;
use std::io::{IsTerminal as _, PipeReader, Read as _};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use dhow_engine::HealthStatus;
use dhow_engine::container::{Container, Reading, Status};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec};

use self::board::{Board, Deed, Line, Wish};
use crate::render::say;
use crate::terminal::{self, RawMode};
use crate::view::container as view;
use crate::{CliError, Context};

/// Between two looks at the containers.
const TICK: Duration = Duration::from_secs(1);
/// Lines of a log that are asked for.
const TAIL: &str = "200";

/// The terminal's other screen; dropped, it is as before.
struct Screen {
    raw: Option<RawMode>,
}

impl Screen {
    fn enter() -> Result<Self, CliError> {
        let raw = RawMode::enter();
        say("\x1b[?1049h\x1b[?25l\x1b[2J")?;
        Ok(Self { raw })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If the terminal is gone, so is its screen.
        drop(say("\x1b[?25h\x1b[?1049l"));
        drop(self.raw.take());
    }
}

/// Shows the screen until the person leaves it.
pub(super) fn run(context: &Context) -> Result<ExitCode, CliError> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Err(CliError::plain("a screen of all containers needs a terminal")
            .with_hint("name a container, or use dhow stats"));
    }
    let mut dashboard = Dashboard {
        context,
        board: Board::default(),
        before: HashMap::new(),
        log: None,
        deeds: Vec::new(),
        screen: Some(Screen::enter()?),
    };
    let ended = dashboard.work();
    dashboard.stop_log();
    drop(dashboard.screen.take());
    ended.map(|()| ExitCode::SUCCESS)
}

/// A command that follows a container's log, and what it says.
struct Log {
    child: Child,
    output: PipeReader,
}

struct Dashboard<'a> {
    context: &'a Context,
    board: Board,
    /// The last reading of each container, by id.
    before: HashMap<String, Reading>,
    log: Option<Log>,
    /// What is being done, with a name for it.
    deeds: Vec<(String, Child)>,
    screen: Option<Screen>,
}

impl Dashboard<'_> {
    fn work(&mut self) -> Result<(), CliError> {
        let mut next = Instant::now();
        loop {
            if Instant::now() >= next {
                self.look()?;
                next = Instant::now() + TICK;
            }
            self.finish_deeds();
            say(&self
                .board
                .draw(terminal::size().unwrap_or((24, 80)), terminal::is_lively_output()))?;
            if self.wait(next.saturating_duration_since(Instant::now()))? == Wish::Leave {
                return Ok(());
            }
        }
    }

    /// Waits for a key, for more of the log, or until it is time; what the last key asked for.
    fn wait(&mut self, most: Duration) -> Result<Wish, CliError> {
        let stdin = std::io::stdin();
        let output = self.log.as_ref().map(|log| &log.output);
        let mut fds = vec![PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
        fds.extend(output.map(|output| PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN)));
        let most = Timespec::try_from(most).unwrap_or_default();
        if rustix::event::poll(&mut fds, Some(&most)).is_err() {
            // Interrupted, and so over: the window has another size.
            return Ok(Wish::Nothing);
        }
        let ready: Vec<PollFlags> = fds.iter().map(|fd| fd.revents()).collect();
        if ready.get(1).is_some_and(|flags| !flags.is_empty()) {
            self.read_log();
        }
        if ready[0].is_empty() {
            return Ok(Wish::Nothing);
        }
        let mut keys = [0; 64];
        let count = rustix::io::read(stdin.as_fd(), &mut keys).unwrap_or(0);
        if count == 0 {
            return Ok(Wish::Leave);
        }
        for key in split(&keys[..count]) {
            match self.board.press(key) {
                Wish::Leave => return Ok(Wish::Leave),
                Wish::Another => self.follow_log()?,
                Wish::Do(deed) => self.begin(deed)?,
                Wish::Nothing => {}
            }
        }
        Ok(Wish::Nothing)
    }

    /// Looks at all containers.
    fn look(&mut self) -> Result<(), CliError> {
        let engine = self.context.engine()?;
        let now = Timestamp::now();
        let (mut lines, mut readings) = (Vec::new(), HashMap::new());
        for container in engine.containers().list()? {
            let id = container.config.id.to_string();
            let reading = engine.reading(&container);
            lines.push(line(&container, reading.as_ref(), self.before.get(&id), now));
            readings.extend(reading.map(|reading| (id, reading)));
        }
        self.before = readings;
        let chosen = self.board.chosen().map(|line| line.id.clone());
        self.board.update(lines);
        if chosen != self.board.chosen().map(|line| line.id.clone()) {
            self.follow_log()?;
        }
        Ok(())
    }

    /// This program, on the same root.
    fn command(&self, words: &[&str], id: &str) -> Result<Command, CliError> {
        let program = std::env::current_exe()
            .map_err(|error| CliError::plain(format!("find this program: {error}")))?;
        let mut command = Command::new(program);
        command.arg("--root").arg(self.context.environment.root());
        command.args(words).arg(id);
        Ok(command)
    }

    /// Shows the chosen container's log from now on, if the pane is open.
    fn follow_log(&mut self) -> Result<(), CliError> {
        self.stop_log();
        self.board.forget_log();
        let Some(line) = self.board.chosen().filter(|_| self.board.logs) else {
            return Ok(());
        };
        let mut command = self.command(&["logs", "--follow", "--tail", TAIL], &line.id)?;
        // Both streams by one pipe, in the order in which they were written.
        let (output, writer) = std::io::pipe()?;
        command
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer);
        let child = command.spawn()?;
        self.log = Some(Log { child, output });
        Ok(())
    }

    fn read_log(&mut self) {
        let mut text = vec![0; 64 << 10];
        match self.log.as_mut().map(|log| log.output.read(&mut text)) {
            Some(Ok(count @ 1..)) => self.board.add_log(&String::from_utf8_lossy(&text[..count])),
            // It has ended: a container that is gone has no log.
            _ => self.stop_log(),
        }
    }

    fn stop_log(&mut self) {
        if let Some(mut log) = self.log.take() {
            // It has ended already, or does now.
            drop(log.child.kill());
            drop(log.child.wait());
        }
    }

    /// Begins what a key asked for; a shell has the terminal until it ends.
    fn begin(&mut self, deed: Deed) -> Result<(), CliError> {
        let Some(line) = self.board.chosen() else {
            return Ok(());
        };
        let (id, name) = (line.id.clone(), line.name.clone());
        let mut command = self.command(deed.words(), &id)?;
        if deed == Deed::Exec {
            drop(self.screen.take());
            let ran = command
                .args(["sh", "-c", "exec bash 2>/dev/null || exec sh"])
                .status();
            self.screen = Some(Screen::enter()?);
            if let Err(error) = ran {
                self.board.message = format!("exec {name}: {error}");
            }
            return Ok(());
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let what = format!("{} {name}", deed.words()[0]);
        match command.spawn() {
            Ok(child) => {
                self.board.message = format!("{what} ...");
                self.deeds.push((what, child));
            }
            Err(error) => self.board.message = format!("{what}: {error}"),
        }
        Ok(())
    }

    /// Tells how what was begun has ended.
    fn finish_deeds(&mut self) {
        let mut open = Vec::new();
        for (what, mut child) in std::mem::take(&mut self.deeds) {
            match child.try_wait() {
                Ok(None) => open.push((what, child)),
                Ok(Some(status)) if status.success() => self.board.message = format!("{what}: done"),
                _ => {
                    let mut said = String::new();
                    if let Some(errors) = child.stderr.take() {
                        // What cannot be read is not told.
                        drop(errors.take(4096).read_to_string(&mut said));
                    }
                    self.board.message = said.lines().next().unwrap_or(&what).to_owned();
                }
            }
        }
        self.deeds = open;
    }
}

/// One container's line; rates are those since the last reading.
fn line(container: &Container, now: Option<&Reading>, before: Option<&Reading>, at: Timestamp) -> Line {
    let (config, state) = (&container.config, &container.state);
    let health = state.health.as_ref().map(|health| health.status);
    let mut line = Line {
        id: config.id.to_string(),
        name: config.name.clone(),
        image: crate::dialect::spoken().image_name(&config.image_name),
        status: view::status(container, at),
        running: matches!(
            state.status,
            Status::Running | Status::Paused | Status::Restarting
        ),
        paused: state.status == Status::Paused,
        unhealthy: health == Some(HealthStatus::Unhealthy),
        ..Line::default()
    };
    if let Some(now) = now {
        let memory = &now.stats.memory;
        line.memory = memory.usage.saturating_sub(memory.inactive_file);
        line.limit = now.memory_limit();
        line.processes = now.stats.pids.current;
    }
    if let (Some(now), Some(before)) = (now, before) {
        let milliseconds = now.at.saturating_duration_since(before.at).as_millis().max(1);
        let rate = |now: u64, before: u64| {
            let more = u128::from(now.saturating_sub(before)) * 1000 / milliseconds;
            u64::try_from(more).unwrap_or(u64::MAX)
        };
        line.cpu = now.cpu_since(before);
        line.network = (
            rate(now.network.0, before.network.0),
            rate(now.network.1, before.network.1),
        );
        let (new, old) = (&now.stats.block_io, &before.stats.block_io);
        line.block = (
            rate(new.read_bytes, old.read_bytes),
            rate(new.write_bytes, old.write_bytes),
        );
    }
    line
}

/// Single keys: an arrow is three bytes.
fn split(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut keys, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let length = match rest {
            [0x1b, b'[' | b'O', _, ..] => 3,
            _ => 1,
        };
        let (key, after) = rest.split_at(length);
        keys.push(key);
        rest = after;
    }
    keys
}
