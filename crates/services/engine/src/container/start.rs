//! `start` and `restart`.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dhow_cgroup::Group;
use dhow_monitor::{HealthSettings, Launch, LogForm, LogSettings, StartupCheck};
use dhow_oci::Healthcheck;
use dhow_snapshot::Snapshots;
use dhow_types::{ByteSize, ContainerId, ErrorKind};

use super::folder::Container;
use super::life::ContainerLife;
use super::record::{Config, Status};
use super::stop::Stopped;
use crate::event::Event;
use crate::{Context as _, Engine, Error};

/// A container that runs.
#[derive(Debug)]
pub struct Started {
    /// Which.
    pub container: Container,
    /// Its streams from the first byte on, when asked for.
    pub attached: Option<UnixStream>,
}

/// What a start finds of a container.
enum Turn {
    /// Nobody has it.
    Lock(OwnedFd),
    /// Its monitor has it.
    Runs,
    /// Another command has it, and does not let go.
    Busy,
}

/// Log limits when nobody says: five files of 20 MB, as docker's `local` driver.
const LOG_SIZE: u64 = 20_000_000;
const LOG_FILES: u32 = 5;

/// How long a start waits for another command to be done with the container.
const PATIENCE: Duration = Duration::from_secs(2);

const fn is_live(status: Status) -> bool {
    matches!(status, Status::Running | Status::Paused | Status::Restarting)
}

impl Engine {
    /// Starts a container; in the foreground, its streams come with it. One that runs already is left alone.
    /// The caller must be single-threaded.
    ///
    /// # Errors
    /// `NotFound` and `PermissionDenied` for the container's program (exit codes 127 and 126); else what failed.
    pub fn start(&self, wanted: &str, foreground: bool) -> Result<Started, Error> {
        self.start_handing(wanted, foreground, &[])
    }

    /// The same, with descriptors that this process got from its parent and the program has under the same numbers.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn start_handing(&self, wanted: &str, foreground: bool, kept: &[u32]) -> Result<Started, Error> {
        let container = self.containers().find(wanted)?;
        let id = container.config.id.clone();
        if container.config.extras.pod.is_some() {
            self.start_needs(id.as_str())?;
        }
        let lock = match self.turn_to_start(&id)? {
            Turn::Lock(lock) => lock,
            // It may have been started meanwhile, or be between two of its runs.
            Turn::Runs if !foreground => {
                // Who starts what runs wants it to be reachable.
                self.reapply_rules();
                return Ok(Started {
                    container: self.containers().load(&id)?,
                    attached: None,
                });
            }
            Turn::Runs | Turn::Busy => {
                let message = format!(
                    "container {} is being changed by another command, or runs already",
                    id.short()
                );
                return Err(Error::new(ErrorKind::FailedPrecondition, message));
            }
        };
        // The lock is free, so no monitor is there: if the record says that the program runs, its monitor was killed.
        let container = self.containers().load(&id)?;
        let adopts = matches!(container.state.status, Status::Running | Status::Paused);
        if !adopts {
            self.release(&container.config, &container.state)?;
        }
        let launch = Launch {
            socket: self.containers().socket(&id),
            lock,
            log: log_settings(&container.config, self.containers().log(&container.config))?,
            restart: container.config.restart,
            health: container
                .config
                .health
                .as_ref()
                .map(|health| health_settings(health, &container.config)),
            timeout: container
                .config
                .extras
                .timeout
                .filter(|seconds| *seconds > 0)
                .map(Duration::from_secs),
            foreground,
        };
        let engine = Self::open(self.settings().clone())?;
        let mut life = ContainerLife::new(engine, container.config.clone(), kept.to_vec());
        if adopts {
            life = life.adopting();
        }
        match dhow_monitor::launch(launch, Box::new(life)) {
            Ok(started) => {
                // With `--rm` and a short program it may be gone by now.
                let container = self.containers().load(&id).unwrap_or(container);
                Ok(Started {
                    container,
                    attached: started.attached,
                })
            }
            Err(error) => {
                if !adopts {
                    self.note_failure(&container, &error)?;
                }
                Err(Error::wrap(
                    error,
                    format!("failed to start container {:?}", container.config.name),
                ))
            }
        }
    }

    /// The container's lock. Whoever starts, copies, or releases what an ended container left holds it for a moment;
    /// that is waited for, as long as patience lasts.
    fn turn_to_start(&self, id: &ContainerId) -> Result<Turn, Error> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(lock) = self.containers().try_lock(id)? {
                return Ok(Turn::Lock(lock));
            }
            // As its monitor has it: that the program just ended makes no difference while there is one.
            if is_live(self.containers().load_state(id)?.status) {
                return Ok(match self.containers().try_lock(id)? {
                    Some(lock) => Turn::Lock(lock),
                    None => Turn::Runs,
                });
            }
            // Where it is removed just now there is nothing to read soon.
            if Instant::now() > until {
                return Ok(Turn::Busy);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn note_failure(&self, container: &Container, error: &dhow_monitor::Error) -> Result<(), Error> {
        let _lock = self.containers().lock(&container.config.id)?;
        let mut state = self.containers().load_state(&container.config.id)?;
        state.status = Status::Created;
        state.exit_code = start_exit_code(error.kind());
        state.error = error.to_string();
        state.endpoints.clear();
        self.containers().write_state(&container.config.id, &state)
    }

    /// Stops a container if it runs, and starts it.
    ///
    /// # Errors
    /// As [`Engine::stop`] and [`Engine::start`].
    pub fn restart(
        &self,
        wanted: &str,
        signal: Option<&str>,
        grace: Option<Duration>,
    ) -> Result<Stopped, Error> {
        let how = self.stop(wanted, signal, grace)?;
        let started = self.start(wanted, false)?;
        self.tell(&Event::of(&started.container.config, "restart"));
        Ok(how)
    }

    /// The snapshots alone, without the index database: what a monitor needs and may hold over a fork.
    pub(crate) fn snapshots(&self) -> Result<Snapshots, Error> {
        let root = &self.settings().root;
        let layers = dhow_layer::LayerStore::open(root).context(|| "open the layers")?;
        Snapshots::open(root, layers).context(|| "open the snapshots")
    }

    pub(crate) fn runtime_settings(&self) -> dhow_runtime::Settings {
        dhow_runtime::Settings {
            seccomp_cache: Some(self.settings().run.join("seccomp")),
            ..dhow_runtime::Settings::default()
        }
    }

    /// The same, with the descriptors that the program is to have. All others of this process are closed on execve.
    pub(super) fn handing_settings(&self, kept: &[u32]) -> dhow_runtime::Settings {
        dhow_runtime::Settings {
            kept_fds: kept.iter().max().map_or(0, |last| last.saturating_sub(2)),
            ..self.runtime_settings()
        }
    }

    /// The container's control group.
    pub(crate) fn group(&self, config: &Config) -> Result<Group, Error> {
        Group::open(&PathBuf::from(&config.request.cgroup_path))
            .context(|| format!("open the control group of container {}", config.id.short()))
    }

    /// The same; none of a container that a normal user started where they may make no groups.
    pub(super) fn group_if_any(&self, config: &Config) -> Result<Option<Group>, Error> {
        match self.group(config) {
            Err(error) if error.kind() == ErrorKind::NotFound && !crate::rootless::is_rootful() => Ok(None),
            group => group.map(Some),
        }
    }

    pub(super) fn remove_group(&self, config: &Config) -> Result<(), Error> {
        match self.group(config) {
            Ok(group) => group
                .kill_all()
                .and_then(|()| group.delete())
                .context(|| "remove the container's control group"),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Opens a namespace of a running container.
    pub(crate) fn namespace_of(&self, id: &ContainerId, kind: &str) -> Result<std::os::fd::OwnedFd, Error> {
        let container = self.containers().load(id)?;
        if container.state.pid == 0 {
            let message = format!(
                "cannot join the namespace of a container that does not run: {}",
                id.short()
            );
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        }
        let path = format!("/proc/{}/ns/{kind}", container.state.pid);
        std::fs::File::open(&path)
            .map(Into::into)
            .context(|| format!("open {path}"))
    }
}

/// Exit code of a start that failed so (docker run(1), "EXIT STATUS").
const fn start_exit_code(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::NotFound => 127,
        ErrorKind::PermissionDenied => 126,
        _ => 125,
    }
}

fn log_settings(config: &Config, path: PathBuf) -> Result<LogSettings, Error> {
    let option = |name: &str| config.log.options.get(name);
    let max_size = option("max-size")
        .and_then(|text| text.parse::<ByteSize>().ok())
        .map(|size| size.0);
    let max_files = option("max-file").and_then(|text| text.parse().ok());
    // docker's json-file driver keeps everything unless told otherwise.
    let limited = !matches!(config.log.driver.as_str(), "json-file" | "k8s-file");
    let path = if config.log.driver == "none" {
        PathBuf::from("/dev/null")
    } else {
        path
    };
    let attributes = dhow_logdriver::attributes(&config.log.options, &super::forward::facts(config))
        .context(|| "set up the log")?;
    Ok(LogSettings {
        path,
        max_size: max_size.unwrap_or(if limited { LOG_SIZE } else { 0 }),
        max_files: max_files.unwrap_or(if limited { LOG_FILES } else { 1 }),
        attributes,
        form: match config.log.driver.as_str() {
            "k8s-file" => LogForm::Kubernetes,
            _ => LogForm::Json,
        },
    })
}

fn health_settings(health: &Healthcheck, config: &Config) -> HealthSettings {
    let or = |nanoseconds: u64, seconds: u64| match nanoseconds {
        0 => Duration::from_secs(seconds),
        nanoseconds => Duration::from_nanos(nanoseconds),
    };
    HealthSettings {
        interval: or(health.interval, 30),
        timeout: or(health.timeout, 30),
        start_period: or(health.start_period, 0),
        start_interval: or(health.start_interval, 5),
        retries: if health.retries == 0 { 3 } else { health.retries },
        on_unhealthy: config.on_unhealthy,
        // It was read when the container was created.
        stop_signal: super::stop::parse_signal(&config.stop_signal).unwrap_or(15),
        grace: config.grace(),
        startup: config.extras.startup.as_ref().map(|startup| StartupCheck {
            interval: or(startup.check.interval, 30),
            timeout: or(startup.check.timeout, 30),
            retries: startup.check.retries,
            successes: startup.successes,
        }),
        log: config.extras.health_log.unwrap_or_default(),
    }
}
