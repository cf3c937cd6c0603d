//! `tag`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};

use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "tag",
    about: "Create a tag TARGET that refers to SOURCE",
    flags: |command| TagFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct TagFlags {
    /// The image
    #[arg(value_name = "SOURCE[:TAG]")]
    source: String,
    /// Its new name
    #[arg(value_name = "TARGET[:TAG]")]
    target: String,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: TagFlags = crate::flags::read(matches)?;
    context.engine()?.tag(&flags.source, &flags.target)?;
    Ok(ExitCode::SUCCESS)
}
