//! `update`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::container::UpdateRequest;
use dhow_engine::{Limits, RestartPolicy};

use crate::flags::{LimitFlags, restart_policy};
use crate::render::say_line;
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "update",
    about: "Update configuration of one or more containers",
    flags: |command| UpdateFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct UpdateFlags {
    #[command(flatten)]
    limits: LimitFlags,
    /// Restart policy to apply when a container exits
    #[arg(long, value_parser = restart_policy)]
    restart: Option<RestartPolicy>,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: UpdateFlags = crate::flags::read(matches)?;
    let request = UpdateRequest {
        limits: flags.limits.limits().map_err(|why| CliError::usage(why, 125))?,
        restart: flags.restart,
    };
    if request.limits == Limits::default() && request.restart.is_none() {
        return Err(CliError::plain(
            "you must provide one or more flags when using this command",
        ));
    }
    let engine = context.engine()?;
    super::each(&flags.containers, |name| {
        engine.update(name, &request)?;
        say_line(name)
    })
}
