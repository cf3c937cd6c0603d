//! `healthcheck run`: a health check of a person, at once.

use std::process::ExitCode;

use clap::{ArgMatches, Args};

use crate::render::say_line;
use crate::{CliError, Context, Verb};

pub(crate) const RUN: Verb = Verb {
    name: "run",
    about: "Run the health check of a container now: exit with 0 if it is good, with 1 if not",
    flags: |command| RunFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct RunFlags {
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: RunFlags = crate::flags::read(matches)?;
    // 125 is that it could not be checked, with either name of the program: 1 is a verdict.
    let code = context
        .engine()?
        .check_health(&flags.container)
        .map_err(|error| CliError::from(error).with_code(125))?;
    if code == Some(0) {
        return Ok(ExitCode::SUCCESS);
    }
    say_line(code.map_or("stopped", |_| "unhealthy"))?;
    Ok(ExitCode::FAILURE)
}
