//! A container's life from the first launch to the last end.

use std::os::fd::OwnedFd;
use std::time::{Instant, SystemTime};

use crate::health::Checks;
use crate::launch::Launch;
use crate::life::{Change, Exit, Launched, Life};
use crate::log::LogWriter;
use crate::pump::Session;
use crate::restart::Restarts;
use crate::{Context as _, Error};

/// Runs the container until it stays ended. `started` is told the outcome of the first launch, once.
pub(crate) fn supervise(
    launch: Launch,
    life: &mut dyn Life,
    listener: OwnedFd,
    foreground: Option<OwnedFd>,
    started: impl FnOnce(Result<i32, &Error>),
) {
    let log = match LogWriter::open(launch.log.clone()).context(|| "start the container's log") {
        Ok(log) => log,
        Err(error) => {
            life.ended();
            return started(Err(&error));
        }
    };
    let mut session = Session::new(log, listener, foreground);
    session.timeout = launch.timeout;
    let mut restarts = Restarts::new(launch.restart);
    let mut started = Some(started);
    loop {
        let begun = Instant::now();
        let launched = life.launch();
        if let Ok(launched) = &launched {
            // Written down before it is told: who hears that it runs may ask for it at once.
            life.record(&Change::Started {
                pid: launched.pid,
                at: SystemTime::now(),
            });
        }
        if let Some(started) = started.take() {
            started(launched.as_ref().map(|launched| launched.pid));
            if launched.is_err() {
                life.ended();
                return life.bury();
            }
        }
        let mut exit = match launched {
            Ok(launched) => run(&mut session, life, launched, launch.health.clone()),
            Err(error) => Exit {
                code: 127,
                at: SystemTime::now(),
                error: Some(error.to_string()),
                by_request: false,
            },
        };
        exit.by_request = session.no_restart;
        let again = if session.no_restart {
            None
        } else if std::mem::take(&mut session.restart_now) {
            Some(restarts.forced())
        } else {
            if let Some(policy) = life.restart_policy() {
                restarts.change(policy);
            }
            restarts.next(exit.code, begun.elapsed())
        };
        life.ended();
        life.record(&Change::Ended {
            exit: &exit,
            restarting: again.map(|(_, count)| count),
        });
        if let Some((wait, _)) = again {
            life.bury();
            if !session.pause(life, wait) {
                continue;
            }
            life.record(&Change::Ended {
                exit: &exit,
                restarting: None,
            });
        }
        session.finish(exit.code);
        // From here on others may start or remove the container.
        drop(launch.lock);
        return life.bury();
    }
}

fn run(
    session: &mut Session,
    life: &mut dyn Life,
    launched: Launched,
    health: Option<crate::HealthSettings>,
) -> Exit {
    let checks = health.map(|settings| Checks::new(settings, Instant::now()));
    if let Some(checks) = &checks {
        life.record(&Change::Health(&checks.health));
    }
    // From here on it waits; what the launch took is most of what it ever takes.
    dhow_sys::background::release();
    let code = session.run(life, launched, checks);
    Exit {
        code,
        at: SystemTime::now(),
        error: None,
        by_request: false,
    }
}
