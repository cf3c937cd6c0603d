//! `rm`.

use std::process::ExitCode;

use std::time::Duration;

use clap::{ArgMatches, Args};
use dhow_types::ErrorKind;

use crate::flags::Chosen;
use crate::render::say_line;
use crate::{CliError, Context, Verb, dialect};

pub(crate) const VERB: Verb = Verb {
    name: "rm",
    about: "Remove one or more containers",
    flags: |command| RmFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct RmFlags {
    /// Force the removal of a running container (uses SIGKILL)
    #[arg(short, long)]
    force: bool,
    /// Remove anonymous volumes associated with the container
    #[arg(short, long)]
    volumes: bool,
    /// With --force: seconds to wait after the stop signal, before SIGKILL
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", value_parser = crate::flags::seconds, allow_hyphen_values = true)]
    time: Option<u64>,
    /// Remove the containers that cannot run without them, too
    #[arg(long)]
    depend: bool,
    #[command(flatten)]
    chosen: Chosen,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: RmFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let mut names = flags.chosen.names(context, |_| true)?;
    if flags.depend {
        names = with_dependents(engine, &names);
    }
    if dialect::spoken().is_podman() && names.len() > 1 {
        dependents_first(engine, &mut names);
    }
    let remove = |name: &str| -> Result<Option<String>, CliError> {
        refuse_infra(engine, name, flags.depend)?;
        if dialect::spoken().is_podman() {
            refuse_needed(engine, name)?;
        }
        if let Some(pod) = pod_of_infra(engine, name)? {
            engine.remove_pod(&pod, flags.force, None)?;
            return Ok(Some(name.to_owned()));
        }
        let removed = match flags.time {
            Some(seconds) if flags.force && seconds > 0 => engine
                .stop(name, None, Some(Duration::from_secs(seconds)))
                .and_then(|_| gone_meanwhile(engine.remove_container(name, true, flags.volumes))),
            _ => engine.remove_container(name, flags.force, flags.volumes),
        };
        match removed {
            Err(error) if flags.chosen.passes(&error) => Ok(None),
            // As docker's `rm -f` since 20.10: said, and no failure. Podman does not even say it.
            Err(error) if flags.force && error.kind() == ErrorKind::NotFound => {
                if !dialect::spoken().is_podman() {
                    crate::render::note(&format!("dhow: {}", crate::error::chain(&error)));
                }
                Ok(None)
            }
            Err(error) => Err(podmans_failure(engine, name, error)),
            Ok(()) => Ok(Some(name.to_owned())),
        }
    };
    if dialect::spoken().is_podman() {
        // What needs another goes before it.
        return super::each(&names, |name| match remove(name)? {
            Some(line) => say_line(&line),
            None => Ok(()),
        });
    }
    super::each_at_once(&names, remove)
}

/// The containers with all that cannot run without them, which come first.
fn with_dependents(engine: &dhow_engine::Engine, names: &[String]) -> Vec<String> {
    let mut all = Vec::new();
    for name in names {
        if let Ok(found) = engine.containers().find(name)
            && let Ok(dependents) = engine.dependents(&found.config.id)
        {
            let dependents: Vec<String> = dependents.iter().map(|one| one.config.id.to_string()).collect();
            all.extend(with_dependents(engine, &dependents));
        }
        all.push(name.clone());
    }
    let mut seen = std::collections::HashSet::new();
    all.retain(|name| seen.insert(name.clone()));
    all
}

/// Puts what nobody needs before what it needs.
fn dependents_first(engine: &dhow_engine::Engine, names: &mut [String]) {
    let needed = |name: &String| {
        let found = engine.containers().find(name).ok();
        let dependents = found.and_then(|found| engine.dependents(&found.config.id).ok());
        dependents.map_or(0, |dependents| dependents.len())
    };
    names.sort_by_cached_key(needed);
}

/// The pod whose waiting container this is; none when that pod is gone.
fn pod_of_infra(engine: &dhow_engine::Engine, name: &str) -> Result<Option<dhow_engine::Pod>, CliError> {
    let Ok(found) = engine.containers().find(name) else {
        return Ok(None);
    };
    match found
        .config
        .extras
        .pod
        .as_deref()
        .filter(|_| found.config.extras.infra)
    {
        Some(pod) => match engine.pod(pod) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            pod => Ok(Some(pod?)),
        },
        None => Ok(None),
    }
}

/// The waiting container of a pod goes with the pod; with `--depend` the pod goes with it.
fn refuse_infra(engine: &dhow_engine::Engine, name: &str, depend: bool) -> Result<(), CliError> {
    let Ok(found) = engine.containers().find(name) else {
        return Ok(());
    };
    let config = &found.config;
    let Some(pod) = config
        .extras
        .pod
        .as_deref()
        .filter(|_| config.extras.infra && !depend)
    else {
        return Ok(());
    };
    Err(CliError::plain(format!(
        "container {} is the infra container of pod {pod} and cannot be removed without removing the pod",
        config.id
    )))
}

/// Podman removes no container that another one needs (libpod `runtime_ctr.go`).
fn refuse_needed(engine: &dhow_engine::Engine, name: &str) -> Result<(), CliError> {
    let Ok(found) = engine.containers().find(name) else {
        return Ok(());
    };
    let dependents = engine.dependents(&found.config.id)?;
    if dependents.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = dependents.iter().map(|one| one.config.id.as_str()).collect();
    Err(CliError::plain(format!(
        "container {} has dependent containers which must be removed before it: {}: container already exists",
        found.config.id,
        ids.join(", ")
    )))
}

/// A container with `--rm` is gone once it has stopped.
fn gone_meanwhile(removed: Result<(), dhow_engine::Error>) -> Result<(), dhow_engine::Error> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// podman-rm(1): 1 when there is no such container, 2 when it runs; in the words of libpod `runtime_ctr.go`.
fn podmans_failure(engine: &dhow_engine::Engine, name: &str, error: dhow_engine::Error) -> CliError {
    let kind = error.kind();
    if !dialect::spoken().is_podman() {
        return CliError::from(error);
    }
    match (kind, engine.containers().find(name)) {
        (ErrorKind::NotFound, _) => CliError::plain(format!(
            "no container with ID or name \"{name}\" found: no such container"
        ))
        .with_code(1),
        (ErrorKind::FailedPrecondition, Ok(found)) => CliError::plain(format!(
            "cannot remove container {} as it is {} - running or paused containers cannot be removed without force: \
             container state improper",
            found.config.id,
            found.state.status.as_str()
        ))
        .with_code(2),
        (ErrorKind::FailedPrecondition, _) => CliError::from(error).with_code(2),
        _ => error.into(),
    }
}
