//! `pause`, `unpause`, `wait`: verbs with no flags but names.

use std::process::ExitCode;

use clap::{ArgMatches, Args};

use crate::render::say_line;
use crate::{CliError, Verb};

pub(crate) const PAUSE: Verb = Verb {
    name: "pause",
    about: "Pause all processes within one or more containers",
    flags: |command| Names::augment_args(command),
    run: |context, matches| {
        let engine = context.engine()?;
        each(matches, |name| {
            engine.pause(name)?;
            say_line(name)
        })
    },
};

pub(crate) const UNPAUSE: Verb = Verb {
    name: "unpause",
    about: "Unpause all processes within one or more containers",
    flags: |command| Names::augment_args(command),
    run: |context, matches| {
        let engine = context.engine()?;
        each(matches, |name| {
            engine.unpause(name)?;
            say_line(name)
        })
    },
};

pub(crate) const WAIT: Verb = Verb {
    name: "wait",
    about: "Block until one or more containers stop, then print their exit codes",
    flags: |command| Names::augment_args(command),
    run: |context, matches| {
        let engine = context.engine()?;
        each(matches, |name| say_line(&engine.wait(name)?.to_string()))
    },
};

#[derive(Args, Debug)]
struct Names {
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

fn each(matches: &ArgMatches, deed: impl FnMut(&str) -> Result<(), CliError>) -> Result<ExitCode, CliError> {
    let names: Names = crate::flags::read(matches)?;
    super::each(&names.containers, deed)
}
