//! `stop`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Args};
use dhow_engine::container::Stopped;

use crate::flags::Chosen;
use crate::render::note;
use crate::view::container::is_up;
use crate::{CliError, Context, Verb, dialect};

pub(crate) const VERB: Verb = Verb {
    name: "stop",
    about: "Stop one or more running containers",
    flags: |command| StopFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct StopFlags {
    /// Signal to send to the container
    #[arg(short, long)]
    signal: Option<String>,
    /// Seconds to wait before killing the container
    #[arg(short, long, visible_alias = "time", value_name = "SECONDS", value_parser = crate::flags::seconds, allow_hyphen_values = true)]
    timeout: Option<u64>,
    #[command(flatten)]
    chosen: Chosen,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: StopFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let names = flags.chosen.names(context, |one| is_up(one.state.status))?;
    super::each_at_once(&names, |name| {
        let grace = flags.timeout.map(Duration::from_secs);
        match engine.stop(name, flags.signal.as_deref(), grace) {
            Err(error) if flags.chosen.passes(&error) => Ok(None),
            Err(error) => Err(error.into()),
            Ok(Stopped::Unseen) if dialect::spoken().is_podman() => Err(CliError::plain(format!(
                "container {name} conmon exited prematurely, exit code could not be retrieved: conmon process killed"
            ))),
            Ok(how) => {
                if how == Stopped::Killed && grace != Some(Duration::ZERO) {
                    resorted(engine, flags.signal.as_deref(), flags.timeout, name);
                }
                Ok(Some(name.to_owned()))
            }
        }
    })
}

/// Podman warns of a container that had to be killed (libpod `oci_conmon_common.go`, `StopContainer`).
pub(super) fn resorted(engine: &dhow_engine::Engine, signal: Option<&str>, timeout: Option<u64>, name: &str) {
    if !dialect::spoken().is_podman() {
        return;
    }
    // One that was removed on its end (`--rm`) is named as it was asked for.
    let (shown, own, grace) = match engine.containers().find(name) {
        Ok(found) => (
            found.config.name.clone(),
            found.config.stop_signal.clone(),
            found.config.stop_timeout,
        ),
        Err(_) => (name.to_owned(), "SIGTERM".to_owned(), 10),
    };
    let signal = signal.map_or(own, str::to_owned);
    let seconds = timeout.unwrap_or(grace);
    note(&dialect::warning(&format!(
        "StopSignal {signal} failed to stop container {shown} in {seconds} seconds, resorting to SIGKILL"
    )));
}
