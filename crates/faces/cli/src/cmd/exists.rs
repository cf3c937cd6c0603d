//! `container exists`, `image exists`, `volume exists`, `network exists`: an answer in the exit code, for scripts. 0 is
//! yes, 1 is no, and any other code means that it could not be found out.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::Engine;
use dhow_types::ErrorKind;

use crate::{CliError, Context, Verb, dialect};

pub(crate) const CONTAINER: Verb = Verb {
    name: "exists",
    about: "Check whether a container exists: exit with 0 if so, else with 1",
    flags: |command| ExistsFlags::augment_args(command),
    run: |context, matches| {
        answer(context, matches, |engine, name| {
            engine.containers().find(name).map(drop)
        })
    },
};

pub(crate) const IMAGE: Verb = Verb {
    name: "exists",
    about: "Check whether an image exists: exit with 0 if so, else with 1",
    flags: |command| ExistsFlags::augment_args(command),
    run: |context, matches| {
        answer(context, matches, |engine, name| {
            engine.image(&super::local_image(engine, name)).map(drop)
        })
    },
};

pub(crate) const NETWORK: Verb = Verb {
    name: "exists",
    about: "Check whether a network exists: exit with 0 if so, else with 1",
    flags: |command| ExistsFlags::augment_args(command),
    run: |context, matches| {
        answer(context, matches, |engine, name| {
            engine.network(dialect::spoken().network(name)).map(drop)
        })
    },
};

pub(crate) const VOLUME: Verb = Verb {
    name: "exists",
    about: "Check whether a volume exists: exit with 0 if so, else with 1",
    flags: |command| ExistsFlags::augment_args(command),
    run: |context, matches| answer(context, matches, |engine, name| engine.volume(name).map(drop)),
};

#[derive(Args, Debug)]
struct ExistsFlags {
    /// The thing
    #[arg(value_name = "NAME|ID")]
    name: String,
}

fn answer(
    context: &Context,
    matches: &ArgMatches,
    look: impl Fn(&Engine, &str) -> Result<(), dhow_engine::Error>,
) -> Result<ExitCode, CliError> {
    let flags: ExistsFlags = crate::flags::read(matches)?;
    match look(context.engine()?, &flags.name) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(ExitCode::FAILURE),
        Err(error) => Err(CliError::from(error).with_code(125)),
    }
}
