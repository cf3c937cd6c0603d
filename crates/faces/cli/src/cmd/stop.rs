//! `stop`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Args};

use crate::flags::Chosen;
use crate::render::say_line;
use crate::view::container::is_up;
use crate::{CliError, Context, Verb};

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
    #[arg(short, long, visible_alias = "time", value_name = "SECONDS")]
    timeout: Option<u64>,
    #[command(flatten)]
    chosen: Chosen,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: StopFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let names = flags.chosen.names(context, |one| is_up(one.state.status))?;
    super::each(&names, |name| {
        let grace = flags.timeout.map(Duration::from_secs);
        match engine.stop(name, flags.signal.as_deref(), grace) {
            Err(error) if flags.chosen.passes(&error) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(()) => say_line(name),
        }
    })
}
