//! `pause`, `unpause`, `wait`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Args};
use dhow_engine::container::{Container, Status};
use dhow_engine::{Engine, RestartPolicy};

use crate::flags::Chosen;
use crate::render::say_line;
use crate::view::container as view;
use crate::{CliError, Context, Verb, dialect};

pub(crate) const PAUSE: Verb = Verb {
    name: "pause",
    about: "Pause all processes within one or more containers",
    flags: |command| Chosen::augment_args(command),
    run: |context, matches| {
        let engine = context.engine()?;
        each(context, matches, Status::Running, |name| {
            engine.pause(name)?;
            say_line(name)
        })
    },
};

pub(crate) const UNPAUSE: Verb = Verb {
    name: "unpause",
    about: "Unpause all processes within one or more containers",
    flags: |command| Chosen::augment_args(command),
    run: |context, matches| {
        let engine = context.engine()?;
        each(context, matches, Status::Paused, |name| {
            engine.unpause(name)?;
            say_line(name)
        })
    },
};

pub(crate) const WAIT: Verb = Verb {
    name: "wait",
    about: "Block until one or more containers stop, then print their exit codes",
    flags: |command| WaitFlags::augment_args(command),
    run: wait,
};

/// Does `deed` for the chosen; `--all` means those in `state`.
fn each(
    context: &Context,
    matches: &ArgMatches,
    state: Status,
    deed: impl FnMut(&str) -> Result<(), CliError>,
) -> Result<ExitCode, CliError> {
    let chosen: Chosen = crate::flags::read(matches)?;
    let names = chosen.names(context, |one| one.state.status == state)?;
    super::each(&names, deed)
}

#[derive(Args, Debug)]
struct WaitFlags {
    /// Until the container is in this state: created, running, paused, restarting, exited, stopped, healthy, unhealthy
    #[arg(long, value_name = "STATE")]
    condition: Vec<String>,
    /// How long to wait between two looks at a --condition
    #[arg(short = 'i', long, value_name = "DURATION", default_value = "250ms")]
    interval: String,
    /// Print -1 for a container that is not there
    #[arg(long)]
    ignore: bool,
    /// The container that was created last
    #[arg(short, long, conflicts_with = "containers")]
    latest: bool,
    /// The containers
    #[arg(value_name = "CONTAINER", required_unless_present = "latest")]
    containers: Vec<String>,
}

fn wait(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let mut flags: WaitFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    if flags.latest {
        let newest = engine.containers().list()?.into_iter().next();
        let newest = newest.ok_or_else(|| CliError::plain("there is no container"))?;
        flags.containers = vec![newest.config.id.to_string()];
    }
    let conditions = flags.condition.iter().map(|text| condition(text));
    let conditions: Vec<fn(&Container) -> bool> = conditions.collect::<Result<_, _>>()?;
    let pause = interval(&flags.interval)?;
    super::each(&flags.containers, |name| {
        let code = if conditions.is_empty() && ends_by_turns(engine, name) {
            // Podman tells the end of a run that is to be followed by another.
            let ended = |one: &Container| {
                matches!(
                    one.state.status,
                    Status::Restarting | Status::Exited | Status::Dead
                )
            };
            until(engine, name, &[ended], Duration::from_millis(20)).and_then(|_| exit_code(engine, name))
        } else if conditions.is_empty() {
            engine.wait(name)
        } else {
            until(engine, name, &conditions, pause)
        };
        match code {
            Err(error) if flags.ignore && error.kind() == dhow_types::ErrorKind::NotFound => say_line("-1"),
            Err(error) => Err(error.into()),
            Ok(code) => say_line(&code.to_string()),
        }
    })
}

/// Whether podman is spoken of a container that comes back when it has ended.
fn ends_by_turns(engine: &Engine, name: &str) -> bool {
    let found = || engine.containers().find(name);
    dialect::spoken().is_podman() && found().is_ok_and(|one| one.config.restart != RestartPolicy::No)
}

/// What the last run ended with; one that was removed on its end ended well. The program is gone a moment before that is
/// written down.
fn exit_code(engine: &Engine, name: &str) -> Result<i32, dhow_engine::Error> {
    let Ok(found) = engine.containers().find(name) else {
        return Ok(0);
    };
    if found.state.status == Status::Restarting {
        return Ok(found.state.exit_code);
    }
    engine.settled(&found.config.id)?;
    Ok(engine
        .containers()
        .find(name)
        .map_or(0, |one| one.state.exit_code))
}

/// Milliseconds when it is a number alone, as podman has it.
fn interval(text: &str) -> Result<Duration, CliError> {
    if let Ok(milliseconds) = text.parse() {
        return Ok(Duration::from_millis(milliseconds));
    }
    dhow_types::parse_duration(text)
        .map_err(|error| CliError::plain(format!("invalid --interval {text:?}: {error}")))
}

fn condition(text: &str) -> Result<fn(&Container) -> bool, CliError> {
    Ok(match text {
        "created" | "configured" => |one| one.state.status == Status::Created,
        "running" => |one| one.state.status == Status::Running,
        "paused" => |one| one.state.status == Status::Paused,
        "restarting" => |one| one.state.status == Status::Restarting,
        "exited" => |one| one.state.status == Status::Exited,
        "stopped" => |one| matches!(one.state.status, Status::Exited | Status::Dead),
        "healthy" => |one| view::health(one) == "healthy",
        "unhealthy" => |one| view::health(one) == "unhealthy",
        _ => return Err(CliError::plain(format!("invalid --condition {text:?}"))),
    })
}

/// Looks again and again until a condition holds: -1 while it runs on, else its exit code.
fn until(
    engine: &Engine,
    name: &str,
    conditions: &[fn(&Container) -> bool],
    pause: Duration,
) -> Result<i32, dhow_engine::Error> {
    loop {
        let container = engine.containers().find(name)?;
        if conditions.iter().any(|holds| holds(&container)) {
            return Ok(if view::is_up(container.state.status) {
                -1
            } else {
                container.state.exit_code
            });
        }
        std::thread::sleep(pause);
    }
}
