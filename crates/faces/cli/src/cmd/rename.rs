//! `rename`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};

use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "rename",
    about: "Rename a container",
    flags: |command| RenameFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct RenameFlags {
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Its new name
    #[arg(value_name = "NEW_NAME")]
    name: String,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: RenameFlags = crate::flags::read(matches)?;
    // Docker's words for what a script left empty.
    if flags.container.trim().is_empty() {
        return Err(CliError::plain("invalid container name or ID: value is empty"));
    }
    if flags.name.trim().is_empty() {
        return Err(CliError::plain("new name cannot be blank"));
    }
    context
        .engine()?
        .rename_container(&flags.container, &flags.name)?;
    Ok(ExitCode::SUCCESS)
}
