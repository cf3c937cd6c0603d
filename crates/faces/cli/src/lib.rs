//! The command line: docker's verbs, flags, columns and exit codes over Dhow's engine.
//!
//! This crate alone reads the environment, the terminal and the clock of a person, and it alone prints. It
//! translates and never decides: a verb's module turns flags ([`clap`] derive structs, built only for the verb that
//! is called, since building all of them costs a millisecond) into the engine's words and the engine's answer into
//! docker's columns.
//!
//! Data goes to standard output, everything else (progress, warnings, errors) to standard error. An error is said
//! once: `dhow: what: why`, then `hint: what to do`.

#![forbid(unsafe_code)]

mod attach;
mod cmd;
mod environment;
mod error;
mod flags;
mod interrupt;
mod render;
mod terminal;
mod view;

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

pub use environment::Environment;
pub(crate) use error::CliError;

/// What a verb has at hand.
#[derive(Debug)]
pub(crate) struct Context {
    environment: Environment,
    engine: std::sync::OnceLock<dhow_engine::Engine>,
}

impl Context {
    /// The engine, opened when first asked for.
    pub(crate) fn engine(&self) -> Result<&dhow_engine::Engine, CliError> {
        Ok(self.opened()?)
    }

    /// The same with the engine's own error.
    pub(crate) fn opened(&self) -> Result<&dhow_engine::Engine, dhow_engine::Error> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let engine = dhow_engine::Engine::open(self.environment.settings())?;
        Ok(self.engine.get_or_init(|| engine))
    }
}

/// One verb: its name, its flags, its deed.
pub(crate) struct Verb {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) flags: fn(Command) -> Command,
    pub(crate) run: fn(&Context, &ArgMatches) -> Result<ExitCode, CliError>,
}

/// The program: reads its arguments and environment, does what they say.
#[must_use]
pub fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return usage_error(&error),
    };
    let environment = match Environment::read(&matches) {
        Ok(environment) => environment,
        Err(error) => return error.report(),
    };
    let context = Context { environment, engine: std::sync::OnceLock::new() };
    cmd::dispatch(&context, &matches).unwrap_or_else(|error| error.report())
}

/// Help and version go to standard output; a wrong usage exits with docker's 125 for `run`, `create` and `exec`
/// style verbs and 1 for the others, which clap's own 2 would break.
fn usage_error(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    // Nothing is left to tell when the terminal itself is gone.
    drop(error.print());
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => {
            let verb = std::env::args().skip(1).find(|word| !word.starts_with('-')).unwrap_or_default();
            ExitCode::from(if matches!(verb.as_str(), "run" | "create" | "container") { 125 } else { 1 })
        }
    }
}

/// The whole command tree; each verb's flags are built only when it is called.
#[must_use]
pub fn command() -> Command {
    let root = Command::new("dhow")
        .about("Containers through their whole life: build, run, share, serve")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(false)
        .max_term_width(100)
        .arg(
            Arg::new("root")
                .long("root")
                .global(true)
                .value_name("DIR")
                .help("Keep everything under this folder [default: /var/lib/dhow, or ~/.local/share/dhow]"),
        )
        .arg(
            Arg::new("debug")
                .long("debug")
                .short('D')
                .global(true)
                .action(ArgAction::SetTrue)
                .help("Say more about failures"),
        );
    cmd::tree(root)
}
