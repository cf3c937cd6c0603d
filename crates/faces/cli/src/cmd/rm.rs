//! `rm`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_types::ErrorKind;

use crate::render::say_line;
use crate::{CliError, Context, Verb};

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
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: RmFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    super::each(&flags.containers, |name| {
        match engine.remove_container(name, flags.force, flags.volumes) {
            // As docker's `rm -f` since 20.10: said, and no failure.
            Err(error) if flags.force && error.kind() == ErrorKind::NotFound => {
                crate::render::note(&format!("dhow: {}", crate::error::chain(&error)));
                Ok(())
            }
            Err(error) => Err(error.into()),
            Ok(()) => say_line(name),
        }
    })
}
