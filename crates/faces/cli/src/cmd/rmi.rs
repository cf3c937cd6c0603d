//! `rmi`, `image rm`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::Removed;
use dhow_types::ErrorKind;

use crate::render::{note, say_line};
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "rmi",
    about: "Remove one or more images",
    flags: |command| RmiFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct RmiFlags {
    /// Force removal of the image
    #[arg(short, long)]
    force: bool,
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: RmiFlags = crate::flags::read(matches)?;
    let engine = context.engine()?;
    super::each(&flags.images, |name| {
        let removed = match engine.remove_image(name, flags.force) {
            Err(error) if flags.force && error.kind() == ErrorKind::NotFound => {
                note(&format!("dhow: {}", crate::error::chain(&error)));
                return Ok(());
            }
            removed => removed?,
        };
        removed.iter().try_for_each(|removed| say_line(&line(removed)))
    })
}

/// Docker's line for one removal.
pub(super) fn line(removed: &Removed) -> String {
    match removed {
        Removed::Untagged(name) => format!("Untagged: {name}"),
        Removed::Deleted(id) => format!("Deleted: {id}"),
    }
}
