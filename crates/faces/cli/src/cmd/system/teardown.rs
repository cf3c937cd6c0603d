//! `system teardown`.

use std::process::ExitCode;

use clap::ArgMatches;

use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "teardown",
    about: "Remove this root's bridges and firewall rules; they come back with the next container",
    flags: |command| command,
    run,
};

fn run(context: &Context, _: &ArgMatches) -> Result<ExitCode, CliError> {
    context.engine()?.teardown()?;
    Ok(ExitCode::SUCCESS)
}
