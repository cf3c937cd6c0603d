//! What starts again with the machine.

use dhow_monitor::RestartPolicy;

use crate::container::{Container, Status};
use crate::{Engine, Error};

/// A container that was to start again.
#[derive(Debug)]
pub struct Booted {
    /// Which.
    pub container: Container,
    /// Why it does not run; none when it does.
    pub failure: Option<Error>,
}

impl Engine {
    /// Starts the containers whose restart policy outlives a reboot: `always`, and `unless-stopped` of those that nobody
    /// stopped. One that runs, or never ran, is left alone. The oldest come first; what fails is tried once more when
    /// the others run, since it may need one of them. A container that runs though its monitor was killed gets another.
    /// The caller must be single-threaded.
    ///
    /// # Errors
    /// When the containers cannot be listed.
    pub fn boot(&self) -> Result<Vec<Booted>, Error> {
        let mut waiting = self.containers().list()?;
        waiting.retain(|one| wants_to_run(one) || lacks_a_monitor(one));
        waiting.sort_by(|a, b| a.config.created.cmp(&b.config.created));
        let (mut booted, mut again) = (Vec::new(), Vec::new());
        for container in waiting {
            match self.start(container.config.id.as_str(), false) {
                Ok(_) => booted.push(Booted {
                    container,
                    failure: None,
                }),
                Err(_) => again.push(container),
            }
        }
        for container in again {
            let failure = self.start(container.config.id.as_str(), false).err();
            booted.push(Booted { container, failure });
        }
        Ok(booted)
    }
}

fn lacks_a_monitor(container: &Container) -> bool {
    let runs = matches!(container.state.status, Status::Running | Status::Paused);
    runs && crate::container::monitor_of(container).is_none()
}

fn wants_to_run(container: &Container) -> bool {
    let (config, state) = (&container.config, &container.state);
    let policy = match config.restart {
        RestartPolicy::Always => true,
        RestartPolicy::UnlessStopped => !state.manually_stopped,
        RestartPolicy::No | RestartPolicy::OnFailure(_) => false,
    };
    let idle = matches!(state.status, Status::Exited | Status::Restarting);
    policy && idle && state.started.is_some()
}
