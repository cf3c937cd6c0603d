//! The verbs, a module each, and the two tables that name them.
//!
//! To add a verb: write its module with a `VERB`, and list it in [`TOP`] or in one of [`GROUPS`], or both.

mod create;
mod exec;
mod import;
mod run;
mod start;
mod stop;

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use crate::{CliError, Context, Verb};

/// Verbs at the top, as docker has them.
const TOP: &[&Verb] = &[&run::VERB, &create::VERB, &start::VERB, &stop::VERB, &import::VERB, &exec::VERB];

/// Groups of verbs: `dhow container ls`.
const GROUPS: &[(&str, &str, &[&Verb])] = &[(
    "container",
    "Manage containers",
    &[&run::VERB, &create::VERB, &start::VERB, &stop::VERB],
)];

/// Puts every verb below `root`.
pub(crate) fn tree(mut root: Command) -> Command {
    for verb in TOP {
        root = root.subcommand(subcommand(verb));
    }
    for (name, about, verbs) in GROUPS {
        let mut group = Command::new(*name).about(*about).subcommand_required(true).arg_required_else_help(true);
        for verb in *verbs {
            group = group.subcommand(subcommand(verb));
        }
        root = root.subcommand(group);
    }
    root
}

fn subcommand(verb: &Verb) -> Command {
    Command::new(verb.name).about(verb.about).defer(verb.flags)
}

/// Does what the arguments say.
pub(crate) fn dispatch(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let Some((name, rest)) = matches.subcommand() else {
        return Err(CliError::plain("no command given").with_hint("dhow --help lists them"));
    };
    if let Some(verb) = TOP.iter().find(|verb| verb.name == name) {
        return (verb.run)(context, rest);
    }
    let group = GROUPS.iter().find(|(group, ..)| *group == name);
    let verb = group.zip(rest.subcommand()).and_then(|((.., verbs), (name, rest))| {
        verbs.iter().find(|verb| verb.name == name).map(|verb| (verb, rest))
    });
    match verb {
        Some((verb, rest)) => (verb.run)(context, rest),
        None => Err(CliError::plain(format!("{name:?} is not a dhow command"))),
    }
}

/// Does `deed` for each name; goes on after a failure, tells each, and exits with 1 if there was one.
pub(crate) fn each(
    names: &[String],
    mut deed: impl FnMut(&str) -> Result<(), CliError>,
) -> Result<ExitCode, CliError> {
    let mut failed = false;
    for name in names {
        if let Err(error) = deed(name) {
            failed = true;
            // The exit code of the whole says that something failed.
            let _: ExitCode = error.report();
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
