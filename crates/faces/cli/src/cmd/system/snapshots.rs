//! `system snapshots`.

use std::process::ExitCode;

use clap::{ArgMatches, Args, ValueEnum};
use dhow_engine::SnapshotForm;

use crate::render::say;
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "snapshots",
    about: "Show or choose how root file systems are made: as overlays or as plain copies",
    flags: |command| SnapshotsFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct SnapshotsFlags {
    /// How they are made from now on; those that are there stay as they are
    #[arg(value_name = "FORM")]
    form: Option<Form>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// Overlayfs over the layers: nothing is copied before it is written to
    Overlay,
    /// A copy of all that the layers show, for hosts and file systems without overlayfs
    Copy,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: SnapshotsFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    match flags.form {
        Some(Form::Overlay) => engine.make_snapshots_as(SnapshotForm::Overlay)?,
        Some(Form::Copy) => engine.make_snapshots_as(SnapshotForm::Copy)?,
        None => say(&format!("{}\n", engine.snapshots_form()?))?,
    }
    Ok(ExitCode::SUCCESS)
}
