//! Sending a container's log on: a process beside the monitor that follows the log file and talks to the service.
//!
//! Apart, so that a service that is slow or gone, its names and its certificates, never stop the monitor. It ends when the
//! container has ended and the last line is sent.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime};

use dhow_logdriver::{Entry, Facts, Sink};
use dhow_monitor::{LogFollower, Record, Stream, parse_time};
use dhow_types::{ContainerId, ErrorKind};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::PidfdFlags;

use super::record::Config;
use crate::{Context as _, Engine, Error};

/// How often it looks whether the container still runs, where nothing else wakes it.
const LOOK: Duration = Duration::from_millis(500);
/// Between two attempts to reach a service that is gone.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long after the container's end it tries to send the rest.
const FAREWELL: Duration = Duration::from_secs(30);
/// Lines of this length and without a newline go on in the next record (`monitor/src/log.rs`).
const PART: usize = 16 << 10;

/// The process that sends a log on; its handle.
#[derive(Debug)]
pub(super) struct Forwarder(OwnedFd);

impl Forwarder {
    /// Whether it still works.
    pub(super) fn works(&self) -> bool {
        let mut polled = [PollFd::new(&self.0, PollFlags::IN)];
        !matches!(
            rustix::event::poll(&mut polled, Some(&Timespec::default())),
            Ok(1..)
        )
    }
}

impl Engine {
    /// Starts to send a container's log on, from what is written from now on. Returns when the service has answered; none
    /// for a driver that keeps the log here.
    pub(super) fn forward_log(&self, config: &Config) -> Result<Option<Forwarder>, Error> {
        if !dhow_logdriver::DRIVERS.contains(&config.log.driver.as_str()) {
            return Ok(None);
        }
        let what = || "failed to initialize logging driver";
        let (mut answer, report) = UnixStream::pair().context(what)?;
        let mut follower = LogFollower::new(&self.containers().log(config)).context(what)?;
        follower.skip().context(what)?;
        let Some(pid) = dhow_sys::clone::fork().context(what)? else {
            drop(answer);
            self.become_forwarder(config, follower, report);
            dhow_sys::background::exit_now(0)
        };
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .map_err(std::io::Error::from)
            .context(what)?;
        drop(report);
        let mut text = String::new();
        answer.read_to_string(&mut text).context(what)?;
        if text.is_empty() {
            return Ok(Some(Forwarder(process)));
        }
        Err(Error::new(ErrorKind::Unavailable, format!("{}: {text}", what())))
    }

    /// In the process itself. An empty report says that the service has answered.
    fn become_forwarder(&self, config: &Config, follower: LogFollower, mut report: UnixStream) {
        // The monitor's lock, its sockets and the container's pipes must not live longer by this process.
        let mut kept = follower.as_fds();
        kept.push(report.as_fd());
        if dhow_sys::fd::close_all_but(3, &kept).is_err() {
            return;
        }
        dhow_sys::background::settle("dhow-logger");
        let mut service = Service {
            config,
            facts: facts(config),
            sink: None,
        };
        if let Err(error) = service.connect()
            && !dhow_logdriver::may_start_without(&config.log.driver, &config.log.options)
        {
            drop(report.write_all(crate::worker::chain(&error).as_bytes()));
            return;
        }
        drop(report);
        // What it could not read or send now stays in the log here.
        drop(self.send_on(&config.id, follower, &mut service));
    }

    fn send_on(
        &self,
        id: &ContainerId,
        mut follower: LogFollower,
        service: &mut Service<'_>,
    ) -> Result<(), Error> {
        let mut begun = false;
        loop {
            // The container's program starts only after this process did. Asked before the last look, so that what is
            // written at the end is not missed.
            let alive = self.is_alive(id);
            begun |= alive;
            let over = match begun {
                true => !alive,
                // It did not start after all, or has ended since the last look, if its monitor is gone.
                false => !self.containers().folder(id).exists() || self.containers().try_lock(id)?.is_some(),
            };
            let more = follower.drain(&mut |record| service.deliver(record, || self.is_alive(id)));
            if over || !more.context(|| "read the log")? {
                return Ok(());
            }
            follower.wait(LOOK);
        }
    }
}

/// The service, and how to reach it.
struct Service<'a> {
    config: &'a Config,
    facts: Facts,
    sink: Option<Box<dyn Sink>>,
}

impl Service<'_> {
    fn connect(&mut self) -> Result<(), dhow_logdriver::Error> {
        let log = &self.config.log;
        self.sink = Some(dhow_logdriver::open(&log.driver, &log.options, &self.facts)?);
        Ok(())
    }

    /// Sends one record, and waits for the service as long as the container lives; false when it gives up.
    fn deliver(&mut self, record: &Record, alive: impl Fn() -> bool) -> bool {
        let line = record.log.strip_suffix('\n');
        let entry = Entry {
            time: parse_time(&record.time).unwrap_or_else(SystemTime::now),
            stderr: record.stream == Stream::Stderr,
            line: line.unwrap_or(&record.log).as_bytes(),
            partial: line.is_none() && record.log.len() >= PART,
        };
        let mut pause = FIRST_PAUSE;
        let mut last_seen = Instant::now();
        loop {
            if let Some(sink) = &mut self.sink
                && sink.send(&entry).is_ok()
            {
                return true;
            }
            self.sink = None;
            if self.connect().is_ok() {
                // A server that takes connections and no lines is not asked without a pause.
                pause = pause.max(FIRST_PAUSE * 2);
            }
            if alive() {
                last_seen = Instant::now();
            } else if last_seen.elapsed() > FAREWELL {
                return false;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// What a log may say of the container beside its lines.
pub(super) fn facts(config: &Config) -> Facts {
    Facts {
        id: config.id.to_string(),
        name: config.name.clone(),
        image_name: config.image_name.clone(),
        image_id: config.image.to_string(),
        command: config.command.join(" "),
        created: config.created.clone(),
        labels: config.labels.clone(),
        env: config.request.env.clone(),
    }
}
