//! `stop`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Args};

use crate::render::say_line;
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
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: StopFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    super::each(&flags.containers, |name| {
        engine.stop(
            name,
            flags.signal.as_deref(),
            flags.timeout.map(Duration::from_secs),
        )?;
        say_line(name)
    })
}
