//! `kill`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};

use crate::flags::Chosen;
use crate::render::say_line;
use crate::view::container::is_up;
use crate::{CliError, Context, Verb, dialect};

pub(crate) const VERB: Verb = Verb {
    name: "kill",
    about: "Kill one or more running containers",
    flags: |command| KillFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct KillFlags {
    /// Signal to send to the container
    #[arg(
        short,
        long,
        default_value = "KILL",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    signal: String,
    #[command(flatten)]
    chosen: Chosen,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: KillFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    let names = flags.chosen.names(context, |one| is_up(one.state.status))?;
    super::each(&names, |name| {
        engine.kill(name, dialect::spoken().signal(&flags.signal))?;
        say_line(name)
    })
}
