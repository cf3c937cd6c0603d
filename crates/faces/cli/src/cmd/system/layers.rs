//! `system layers`.

use std::process::ExitCode;

use clap::{ArgMatches, Args, ValueEnum};
use dhow_engine::Backend;

use crate::render::say;
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "layers",
    about: "Show or choose how new layers are kept: as directories or as erofs images",
    flags: |command| LayersFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct LayersFlags {
    /// How layers are kept from now on; those that are there stay as they are
    #[arg(value_name = "FORM")]
    form: Option<Form>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// One directory each: what runs on one layer shares its pages in memory
    Directories,
    /// One image each, nothing to unpack (root, Linux 6.15)
    Erofs,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: LayersFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    match flags.form {
        Some(Form::Directories) => engine.keep_layers_as(Backend::Directories)?,
        Some(Form::Erofs) => engine.keep_layers_as(Backend::Erofs)?,
        None => say(&format!("{}\n", engine.layers_form()?))?,
    }
    Ok(ExitCode::SUCCESS)
}
