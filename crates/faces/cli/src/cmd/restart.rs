//! `restart`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Args};
use dhow_engine::container::Stopped;

use crate::flags::Chosen;
use crate::render::say_line;
use crate::view::container::is_up;
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "restart",
    about: "Restart one or more containers",
    flags: |command| RestartFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct RestartFlags {
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
    let flags: RestartFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let names = flags.chosen.names(context, |one| is_up(one.state.status))?;
    super::each(&names, |name| {
        let grace = flags.timeout.map(Duration::from_secs);
        let how = engine.restart(name, flags.signal.as_deref(), grace)?;
        if how == Stopped::Killed && grace != Some(Duration::ZERO) {
            super::stop::resorted(engine, flags.signal.as_deref(), flags.timeout, name);
        }
        say_line(name)
    })
}
